package iotdata

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/awsapi"
	wire "github.com/muster-iot/muster/internal/awsapi/catalog/iotdatawire"
	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/mqtt"
)

// utf8Data is the payload format indicator for text.
const utf8Data = "UTF8_DATA"

func (a *api) publish(ctx context.Context, c *awsapi.Call, in *wire.PublishInput) (*wire.PublishOutput, error) {
	if in.Retain != nil && *in.Retain {
		return nil, fault.New(fault.NotOffered, "retain is not offered by this version of Muster")
	}
	if err := a.CheckTopic(in.Topic); err != nil {
		return nil, fault.Wrap(fault.InvalidRequest, err, "topic %q is not valid: %v", in.Topic, err)
	}
	m := broker.Message{Topic: in.Topic, Payload: in.Payload}
	if in.QoS != nil {
		m.QoS = byte(*in.QoS)
	}
	if err := a.properties(in, &m.Properties); err != nil {
		return nil, err
	}
	if strings.HasPrefix(in.Topic, "$") {
		err := a.Topics.PublishReserved(ctx, &broker.Publish{
			Account: c.Account, Principal: c.Caller.Principal, RemoteAddr: c.Caller.SourceAddress,
			Topic: in.Topic, Payload: in.Payload, QoS: m.QoS, Properties: m.Properties,
		})
		if err != nil {
			return nil, err
		}
	}
	if err := a.Publisher.Publish(ctx, c.Account, m); err != nil {
		return nil, err
	}
	return &wire.PublishOutput{Message: new("OK"), TraceID: &c.RequestID}, nil
}

// Bounds of what travels with a message; those of a device's own publishes.
const (
	maxContentType     = 256
	maxCorrelationData = 2 << 10
	maxUserProperties  = 8 << 10
	// maxExpiry is seven days in seconds.
	maxExpiry = 604800
)

// wrong is the refusal of one member of a publish.
func wrong(member, rule string) error {
	return fault.New(fault.InvalidRequest, "%s must be %s", member, rule)
}

// encodable reports whether a text can be an MQTT string of up to limit bytes.
func encodable(text string, limit int) bool {
	return len(text) <= limit && utf8.ValidString(text) && strings.IndexByte(text, 0) < 0
}

// properties takes the MQTT 5 properties over from query and headers.
func (a *api) properties(in *wire.PublishInput, p *mqtt.Properties) error {
	var set []mqtt.Property
	if in.ContentType != nil {
		if !encodable(*in.ContentType, maxContentType) {
			return wrong("contentType", "UTF-8 text of at most 256 bytes")
		}
		p.ContentType, set = *in.ContentType, append(set, mqtt.PropContentType)
	}
	if in.ResponseTopic != nil {
		if err := a.CheckTopic(*in.ResponseTopic); err != nil {
			return wrong("responseTopic", "a topic without wildcards")
		}
		p.ResponseTopic, set = *in.ResponseTopic, append(set, mqtt.PropResponseTopic)
	}
	if in.PayloadFormatIndicator != nil && *in.PayloadFormatIndicator == utf8Data {
		p.PayloadFormat, set = 1, append(set, mqtt.PropPayloadFormat)
	}
	if in.MessageExpiry != nil {
		if *in.MessageExpiry < 0 {
			return wrong("messageExpiry", "a number of seconds from 0")
		}
		p.MessageExpiry, set = uint32(min(max(*in.MessageExpiry, 1), maxExpiry)), append(set, mqtt.PropMessageExpiry)
	}
	if in.CorrelationData != nil {
		data, err := base64.StdEncoding.DecodeString(*in.CorrelationData)
		if err != nil || len(data) > maxCorrelationData {
			return wrong("correlationData", "base64 of at most 2048 bytes")
		}
		p.CorrelationData, set = data, append(set, mqtt.PropCorrelationData)
	}
	p.Set = mqtt.Of(set...)
	return userProperties(in.UserProperties, p)
}

// userProperties reads base64 of [{"key":"value"}, …].
func userProperties(header *string, p *mqtt.Properties) error {
	if header == nil {
		return nil
	}
	refusal := wrong("userProperties", "base64 of a JSON list of objects with one text member each, at most 8192 bytes together")
	data, err := base64.StdEncoding.DecodeString(*header)
	if err != nil {
		return refusal
	}
	var list []map[string]string
	if err := json.Unmarshal(data, &list); err != nil {
		return refusal
	}
	left := maxUserProperties
	for _, one := range list {
		if len(one) != 1 {
			return refusal
		}
		for key, value := range one {
			if !encodable(key, left) || !encodable(value, left-len(key)) {
				return refusal
			}
			left -= len(key) + len(value)
			p.UserProperties = append(p.UserProperties, mqtt.UserProperty{Key: key, Value: value})
		}
	}
	return nil
}

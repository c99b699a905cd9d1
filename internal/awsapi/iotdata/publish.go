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
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
)

// actionRetainPublish is what a retained publish needs beside iot:Publish.
const actionRetainPublish = "iot:RetainPublish"

// utf8Data is the payload format indicator for text.
const utf8Data = "UTF8_DATA"

// publish hands a message to the broker. One that must not be lost, retained
// or of quality of service 1, is answered when it is stored.
func (a *api) publish(ctx context.Context, c *awsapi.Call, in *wire.PublishInput) (*wire.PublishOutput, error) {
	reserved := strings.HasPrefix(in.Topic, "$")
	m := broker.Message{Topic: in.Topic, Payload: in.Payload, Retain: isTrue(in.Retain)}
	if m.Retain {
		if err := c.Authorize(ctx, actionRetainPublish, c.ARN(fleet.ARNTopic, in.Topic)); err != nil {
			return nil, err
		}
		if reserved {
			return nil, wrong("retain", "false for a reserved topic")
		}
	}
	if err := a.checkTopic(in.Topic); err != nil {
		return nil, err
	}
	if in.QoS != nil {
		m.QoS = byte(*in.QoS)
	}
	if err := a.properties(attributes{
		contentType: in.ContentType, responseTopic: in.ResponseTopic, payloadFormat: in.PayloadFormatIndicator,
		correlationData: in.CorrelationData, userProperties: in.UserProperties, expiry: in.MessageExpiry,
	}, &m.Properties); err != nil {
		return nil, err
	}
	if reserved {
		err := a.Topics.PublishReserved(ctx, &broker.Publish{
			Account: c.Account, Principal: c.Caller.Principal, RemoteAddr: c.Caller.SourceAddress,
			Topic: in.Topic, Payload: in.Payload, QoS: m.QoS, Properties: m.Properties,
		})
		if err != nil {
			return nil, err
		}
	}
	send := a.Publisher.Publish
	if m.Retain || m.QoS > 0 {
		send = a.Publisher.PublishDurably
	}
	if err := send(ctx, c.Account, m); err != nil {
		return nil, err
	}
	return &wire.PublishOutput{Message: new("OK"), TraceID: &c.RequestID}, nil
}

// checkTopic refuses a topic name that no device could publish to.
func (a *api) checkTopic(name string) error {
	if err := a.CheckTopic(name); err != nil {
		return fault.Wrap(fault.InvalidRequest, err, "topic %q is not valid: %v", name, err)
	}
	return nil
}

// attributes are what a request says about the message beside topic and
// payload.
type attributes struct {
	contentType, responseTopic, payloadFormat, correlationData, userProperties *string
	// expiry is in seconds.
	expiry *int64
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
func (a *api) properties(in attributes, p *mqtt.Properties) error {
	var set []mqtt.Property
	if in.contentType != nil {
		if !encodable(*in.contentType, maxContentType) {
			return wrong("contentType", "UTF-8 text of at most 256 bytes")
		}
		p.ContentType, set = *in.contentType, append(set, mqtt.PropContentType)
	}
	if in.responseTopic != nil {
		if err := a.CheckTopic(*in.responseTopic); err != nil {
			return wrong("responseTopic", "a topic without wildcards")
		}
		p.ResponseTopic, set = *in.responseTopic, append(set, mqtt.PropResponseTopic)
	}
	if in.payloadFormat != nil && *in.payloadFormat == utf8Data {
		p.PayloadFormat, set = 1, append(set, mqtt.PropPayloadFormat)
	}
	if in.expiry != nil {
		if *in.expiry < 0 {
			return wrong("messageExpiry", "a number of seconds from 0")
		}
		p.MessageExpiry, set = uint32(min(max(*in.expiry, 1), maxExpiry)), append(set, mqtt.PropMessageExpiry)
	}
	if in.correlationData != nil {
		data, err := base64.StdEncoding.DecodeString(*in.correlationData)
		if err != nil || len(data) > maxCorrelationData {
			return wrong("correlationData", "base64 of at most 2048 bytes")
		}
		p.CorrelationData, set = data, append(set, mqtt.PropCorrelationData)
	}
	p.Set = mqtt.Of(set...)
	return userProperties(in.userProperties, p)
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

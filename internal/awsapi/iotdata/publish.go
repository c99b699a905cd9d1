package iotdata

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"math"
	"strings"

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
	if err := properties(in, &m.Properties); err != nil {
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

// properties takes the MQTT 5 properties over from query and headers.
func properties(in *wire.PublishInput, p *mqtt.Properties) error {
	var set []mqtt.Property
	if in.ContentType != nil {
		p.ContentType, set = *in.ContentType, append(set, mqtt.PropContentType)
	}
	if in.ResponseTopic != nil {
		p.ResponseTopic, set = *in.ResponseTopic, append(set, mqtt.PropResponseTopic)
	}
	if in.PayloadFormatIndicator != nil && *in.PayloadFormatIndicator == utf8Data {
		p.PayloadFormat, set = 1, append(set, mqtt.PropPayloadFormat)
	}
	if in.MessageExpiry != nil {
		if *in.MessageExpiry < 0 || *in.MessageExpiry > math.MaxUint32 {
			return fault.New(fault.InvalidRequest, "messageExpiry must be a number of seconds from 0 to %d", uint32(math.MaxUint32))
		}
		p.MessageExpiry, set = uint32(*in.MessageExpiry), append(set, mqtt.PropMessageExpiry)
	}
	if in.CorrelationData != nil {
		data, err := base64.StdEncoding.DecodeString(*in.CorrelationData)
		if err != nil {
			return fault.New(fault.InvalidRequest, "correlationData must be base64")
		}
		p.CorrelationData, set = data, append(set, mqtt.PropCorrelationData)
	}
	p.Set = mqtt.Of(set...)
	return userProperties(in, p)
}

// userProperties reads base64 of [{"key":"value"}, …].
func userProperties(in *wire.PublishInput, p *mqtt.Properties) error {
	if in.UserProperties == nil {
		return nil
	}
	wrong := fault.New(fault.InvalidRequest, `userProperties must be base64 of a JSON list of objects with one text member each`)
	data, err := base64.StdEncoding.DecodeString(*in.UserProperties)
	if err != nil {
		return wrong
	}
	var list []map[string]string
	if err := json.Unmarshal(data, &list); err != nil {
		return wrong
	}
	for _, one := range list {
		if len(one) != 1 {
			return wrong
		}
		for key, value := range one {
			p.UserProperties = append(p.UserProperties, mqtt.UserProperty{Key: key, Value: value})
		}
	}
	return nil
}

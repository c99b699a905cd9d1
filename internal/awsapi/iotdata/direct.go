package iotdata

import (
	"context"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/awsapi"
	wire "github.com/muster-iot/muster/internal/awsapi/catalog/iotdatawire"
	"github.com/muster-iot/muster/internal/broker"
)

// confirmationTimeout is how long SendDirectMessage waits for the client's
// acknowledgement when it is not told.
const confirmationTimeout = 5 * time.Second

// sendDirectMessage sends to one client. Only the server's own services speak
// on reserved topics: a device could not tell such a message from theirs.
func (a *api) sendDirectMessage(ctx context.Context, c *awsapi.Call, in *wire.SendDirectMessageInput) (*wire.SendDirectMessageOutput, error) {
	if err := a.checkTopic(in.Topic); err != nil {
		return nil, err
	}
	if strings.HasPrefix(in.Topic, "$") {
		return nil, wrong("topic", "one that is not reserved")
	}
	m := broker.Message{Topic: in.Topic, Payload: in.Payload}
	if err := a.properties(attributes{
		contentType: in.ContentType, responseTopic: in.ResponseTopic, payloadFormat: in.PayloadFormatIndicator,
		correlationData: in.CorrelationData, userProperties: in.UserProperties,
	}, &m.Properties); err != nil {
		return nil, err
	}
	if isTrue(in.Confirmation) {
		m.QoS = 1
		patience := confirmationTimeout
		if in.Timeout != nil {
			patience = time.Duration(*in.Timeout) * time.Second
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	if err := a.Sessions.Direct(ctx, c.Account, in.ClientID, m); err != nil {
		return nil, err
	}
	return &wire.SendDirectMessageOutput{Message: new("OK"), TraceID: &c.RequestID}, nil
}

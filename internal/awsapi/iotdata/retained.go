package iotdata

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/muster-iot/muster/internal/awsapi"
	wire "github.com/muster-iot/muster/internal/awsapi/catalog/iotdatawire"
	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
)

// Retained knows the messages that topics retain.
type Retained interface {
	Retained(account fleet.Account, topic string) (broker.RetainedMessage, bool)
	RetainedTopics(account fleet.Account, after string, limit int) (page []broker.RetainedMessage, next string)
}

// registerRetained offers the operations on retained messages.
func (a *api) registerRetained(s *awsapi.Server) {
	handle(s, "GetRetainedMessage", func(c *awsapi.Call, in *wire.GetRetainedMessageInput) []string {
		return []string{c.ARN(fleet.ARNTopic, in.Topic)}
	}, a.getRetainedMessage)
	handle(s, "ListRetainedMessages", awsapi.All, a.listRetainedMessages)
}

func (a *api) getRetainedMessage(_ context.Context, c *awsapi.Call, in *wire.GetRetainedMessageInput) (*wire.GetRetainedMessageOutput, error) {
	if err := a.checkTopic(in.Topic); err != nil {
		return nil, err
	}
	m, ok := a.Retained.Retained(c.Account, in.Topic)
	if !ok {
		return nil, fault.New(fault.ResourceNotFound, "The topic %s retains no message", in.Topic)
	}
	properties, err := userPropertiesText(m.Properties.UserProperties)
	if err != nil {
		return nil, err
	}
	return &wire.GetRetainedMessageOutput{
		Topic: &m.Topic, Payload: m.Payload, QoS: new(int32(m.QoS)), LastModifiedTime: new(m.StoredAt.UnixMilli()), UserProperties: properties,
	}, nil
}

// userPropertiesText is the list as Publish takes it, before base64; nil for
// none.
func userPropertiesText(list []mqtt.UserProperty) ([]byte, error) {
	if len(list) == 0 {
		return nil, nil
	}
	objects := make([]map[string]string, len(list))
	for i, p := range list {
		objects[i] = map[string]string{p.Key: p.Value}
	}
	encoded, err := json.Marshal(objects)
	if err != nil {
		return nil, fmt.Errorf("encode user properties: %w", err)
	}
	return encoded, nil
}

func (a *api) listRetainedMessages(_ context.Context, c *awsapi.Call, in *wire.ListRetainedMessagesInput) (*wire.ListRetainedMessagesOutput, error) {
	after, err := c.PageKey(in.NextToken)
	if err != nil {
		return nil, err
	}
	page, next := a.Retained.RetainedTopics(c.Account, after, limitOf(in.MaxResults, defaultPage))
	topics := make([]wire.RetainedMessageSummary, len(page))
	for i, m := range page {
		topics[i] = wire.RetainedMessageSummary{
			Topic: &m.Topic, PayloadSize: new(int64(len(m.Payload))), QoS: new(int32(m.QoS)), LastModifiedTime: new(m.StoredAt.UnixMilli()),
		}
	}
	return &wire.ListRetainedMessagesOutput{RetainedTopics: topics, NextToken: c.NextToken(next)}, nil
}

// limitOf is the page size that a list call asks for, or the default.
func limitOf(asked *int32, otherwise int) int {
	if asked == nil {
		return otherwise
	}
	return int(*asked)
}

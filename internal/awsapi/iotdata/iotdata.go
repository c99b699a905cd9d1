// Package iotdata adapts the data plane's operations: shadows, publishing,
// retained messages, connections and messages to one client by HTTP. It decodes, makes one call and encodes; it starts no goroutines.
package iotdata

import (
	"context"
	"time"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog"
	wire "github.com/muster-iot/muster/internal/awsapi/catalog/iotdatawire"
	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/shadow"
)

// Shadows is the domain of the shadow operations.
type Shadows interface {
	Update(ctx context.Context, cmd shadow.UpdateCommand) (*shadow.Updated, error)
	Delete(ctx context.Context, cmd shadow.DeleteCommand) (*shadow.Deleted, error)
	Get(ctx context.Context, account fleet.Account, thing, name string) (shadow.Document, error)
	ListNamed(ctx context.Context, account fleet.Account, thing, after string, limit int) (names []string, next string, err error)
}

// Topics tells subscribers of shadow topics about changes that came by HTTP,
// and carries out publishes to reserved topics.
type Topics interface {
	AnnounceUpdate(ctx context.Context, u *shadow.Updated)
	AnnounceDelete(ctx context.Context, d *shadow.Deleted, token shadow.Token)
	PublishReserved(ctx context.Context, p *broker.Publish) error
}

// Publisher routes messages to subscribers.
type Publisher interface {
	Publish(ctx context.Context, account fleet.Account, m broker.Message) error
	// PublishDurably returns when the message is stored for everybody who will
	// get it later.
	PublishDurably(ctx context.Context, account fleet.Account, m broker.Message) error
}

// Deps are what stands behind the operations.
type Deps struct {
	Shadows   Shadows
	Topics    Topics
	Publisher Publisher
	Retained  Retained
	// Connections describes clients, Sessions acts on them.
	Connections Connections
	Sessions    Sessions
	// CheckTopic refuses topic names that no device could publish to.
	CheckTopic func(topic string) error
	Now        func() time.Time
}

// api holds the domains for the adapters.
type api struct{ Deps }

const (
	// maxShadowBody is above the largest request that the shadow service
	// accepts, so that it words the refusal; maxPayload is MQTT's limit.
	maxShadowBody = 1 << 20
	maxPayload    = 128 << 10
)

// Register offers this package's operations on the server.
func Register(s *awsapi.Server, d Deps) {
	a := &api{d}
	handle(s, "GetThingShadow", func(c *awsapi.Call, in *wire.GetThingShadowInput) []string {
		return shadowOf(c, in.ThingName, in.ShadowName)
	}, a.getShadow)
	handle(s, "UpdateThingShadow", func(c *awsapi.Call, in *wire.UpdateThingShadowInput) []string {
		return shadowOf(c, in.ThingName, in.ShadowName)
	}, a.updateShadow, awsapi.MaxBody(maxShadowBody))
	handle(s, "DeleteThingShadow", func(c *awsapi.Call, in *wire.DeleteThingShadowInput) []string {
		return shadowOf(c, in.ThingName, in.ShadowName)
	}, a.deleteShadow)
	handle(s, "ListNamedShadowsForThing", func(c *awsapi.Call, in *wire.ListNamedShadowsForThingInput) []string {
		return thing(c, in.ThingName)
	}, a.listNamedShadows)
	handle(s, "Publish", func(c *awsapi.Call, in *wire.PublishInput) []string {
		return []string{c.ARN(fleet.ARNTopic, in.Topic)}
	}, a.publish, awsapi.MaxBody(maxPayload))
	a.registerRetained(s)
	a.registerConnections(s)
}

// handle registers an operation of the data plane.
func handle[In, Out any](
	s *awsapi.Server, name string, resources func(*awsapi.Call, *In) []string,
	adapter func(context.Context, *awsapi.Call, *In) (*Out, error), options ...awsapi.HandleOption,
) {
	awsapi.Handle(s, catalog.IoTData, name, resources, adapter, options...)
}

func thing(c *awsapi.Call, name string) []string { return []string{c.ARN(fleet.ARNThing, name)} }

// shadowOf names a shadow for policies: the classic one by its thing, a named
// one by both names.
func shadowOf(c *awsapi.Call, thing string, shadow *string) []string {
	if name := text(shadow); name != "" {
		thing += "/" + name
	}
	return []string{c.ARN(fleet.ARNThing, thing)}
}

// text is what a pointer holds, "" without one.
func text(p *string) string {
	if p == nil {
		return ""
	}
	return *p
}

func (a *api) getShadow(ctx context.Context, c *awsapi.Call, in *wire.GetThingShadowInput) (*wire.GetThingShadowOutput, error) {
	document, err := a.Shadows.Get(ctx, c.Account, in.ThingName, text(in.ShadowName))
	if err != nil {
		return nil, err
	}
	return &wire.GetThingShadowOutput{Payload: document.GetDocument("", a.Now().Unix())}, nil
}

func (a *api) updateShadow(ctx context.Context, c *awsapi.Call, in *wire.UpdateThingShadowInput) (*wire.UpdateThingShadowOutput, error) {
	updated, err := a.Shadows.Update(ctx, shadow.UpdateCommand{
		Account: c.Account, Thing: in.ThingName, Shadow: text(in.ShadowName), Body: in.Payload,
		Committed: func(u *shadow.Updated) { a.Topics.AnnounceUpdate(ctx, u) },
	})
	if err != nil {
		return nil, err
	}
	return &wire.UpdateThingShadowOutput{Payload: updated.AcceptedDocument()}, nil
}

func (a *api) deleteShadow(ctx context.Context, c *awsapi.Call, in *wire.DeleteThingShadowInput) (*wire.DeleteThingShadowOutput, error) {
	deleted, err := a.Shadows.Delete(ctx, shadow.DeleteCommand{
		Account: c.Account, Thing: in.ThingName, Shadow: text(in.ShadowName),
		Committed: func(d *shadow.Deleted) { a.Topics.AnnounceDelete(ctx, d, "") },
	})
	if err != nil {
		return nil, err
	}
	return &wire.DeleteThingShadowOutput{Payload: deleted.AcceptedDocument("")}, nil
}

// defaultPage is the page of ListNamedShadowsForThing without a page size.
const defaultPage = 25

func (a *api) listNamedShadows(ctx context.Context, c *awsapi.Call, in *wire.ListNamedShadowsForThingInput) (*wire.ListNamedShadowsForThingOutput, error) {
	after, err := c.PageKey(in.NextToken, in.ThingName)
	if err != nil {
		return nil, err
	}
	limit := defaultPage
	if in.PageSize != nil {
		limit = int(*in.PageSize)
	}
	names, next, err := a.Shadows.ListNamed(ctx, c.Account, in.ThingName, after, limit)
	if err != nil {
		return nil, err
	}
	if names == nil {
		names = []string{}
	}
	return &wire.ListNamedShadowsForThingOutput{
		Results: names, NextToken: c.NextToken(next, in.ThingName), Timestamp: new(a.Now().Unix()),
	}, nil
}

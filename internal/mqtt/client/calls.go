package client

import (
	"context"
	"fmt"

	"github.com/muster-iot/muster/internal/mqtt"
)

// Subscribe asks for filters and returns the server's code for each.
func (c *Client) Subscribe(ctx context.Context, subscriptions ...mqtt.Subscription) ([]mqtt.ReasonCode, error) {
	id, got := c.await()
	defer c.forget(id)
	if err := c.send(&mqtt.Subscribe{PacketID: id, Subscriptions: subscriptions}); err != nil {
		return nil, err
	}
	a, err := c.wait(ctx, got)
	if err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	return a.reasons, nil
}

// Unsubscribe ends subscriptions and waits for the server's answer.
func (c *Client) Unsubscribe(ctx context.Context, filters ...string) error {
	id, got := c.await()
	defer c.forget(id)
	if err := c.send(&mqtt.Unsubscribe{PacketID: id, Filters: filters}); err != nil {
		return err
	}
	if _, err := c.wait(ctx, got); err != nil {
		return fmt.Errorf("unsubscribe: %w", err)
	}
	return nil
}

// Publish sends a message. With QoS 1 it returns when the server has
// acknowledged it; a refusal is a *RefusedError.
func (c *Client) Publish(ctx context.Context, topic string, qos byte, payload []byte) error {
	return c.PublishPacket(ctx, &mqtt.Publish{Topic: []byte(topic), QoS: qos, Payload: payload})
}

// PublishPacket is Publish with retain flag and properties. The packet id is
// chosen here.
func (c *Client) PublishPacket(ctx context.Context, p *mqtt.Publish) error {
	switch p.QoS {
	case 0:
		return c.send(p)
	case 1:
		return c.publishAcknowledged(ctx, p)
	default:
		return ErrQoS
	}
}

// publishAcknowledged sends within the server's receive maximum and waits.
func (c *Client) publishAcknowledged(ctx context.Context, p *mqtt.Publish) error {
	select {
	case c.window <- struct{}{}:
		defer func() { <-c.window }()
	case <-ctx.Done():
		return ctx.Err()
	case <-c.done:
		return c.Err()
	}
	id, got := c.await()
	defer c.forget(id)
	p.PacketID = id
	if err := c.send(p); err != nil {
		return err
	}
	a, err := c.wait(ctx, got)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	if a.reason.Failed() {
		return &RefusedError{Packet: mqtt.TypePuback, Reason: a.reason}
	}
	return nil
}

// Ping asks the server for a sign of life and waits for it.
func (c *Client) Ping(ctx context.Context) error {
	got := make(chan answer, 1)
	c.mu.Lock()
	c.pings = append(c.pings, got)
	c.mu.Unlock()
	if err := c.send(&mqtt.Pingreq{}); err != nil {
		return err
	}
	_, err := c.wait(ctx, got)
	return err
}

// await reserves a free packet id and the channel for its answer.
func (c *Client) await() (uint16, <-chan answer) {
	got := make(chan answer, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting == nil {
		c.waiting = make(map[uint16]chan<- answer, 1)
	}
	for {
		c.nextID++
		if _, taken := c.waiting[c.nextID]; c.nextID != 0 && !taken {
			c.waiting[c.nextID] = got
			return c.nextID, got
		}
	}
}

// forget frees a packet id whose call has ended.
func (c *Client) forget(id uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

// wait returns the answer, or why there will be none.
func (c *Client) wait(ctx context.Context, got <-chan answer) (answer, error) {
	select {
	case a := <-got:
		return a, nil
	case <-ctx.Done():
		return answer{}, ctx.Err()
	case <-c.done:
		select {
		case a := <-got:
			return a, nil
		default:
			return answer{}, c.Err()
		}
	}
}

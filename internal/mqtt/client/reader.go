package client

import (
	"errors"
	"fmt"
	"net"

	"github.com/muster-iot/muster/internal/mqtt"
)

// firstBuffer is enough for the small packets that most clients see.
const firstBuffer = 512

// input cuts a connection's bytes into packets. The buffer grows as bytes
// arrive, never ahead of them by more than its own size.
type input struct {
	conn  net.Conn
	limit int
	buf   []byte
	rest  []byte // unread part of buf
}

// next returns the next packet, valid until the call after.
func (in *input) next() ([]byte, error) {
	for {
		packet, rest, err := mqtt.Frame(in.rest, in.limit)
		if err != nil {
			return nil, err
		}
		if packet != nil {
			in.rest = rest
			return packet, nil
		}
		if err := in.fill(); err != nil {
			return nil, err
		}
	}
}

// fill reads once, behind the unread part.
func (in *input) fill() error {
	kept := len(in.rest)
	if kept == cap(in.buf) {
		grown := make([]byte, max(firstBuffer, 2*kept))
		copy(grown, in.rest)
		in.buf = grown
	} else {
		in.buf = in.buf[:cap(in.buf)]
		copy(in.buf, in.rest)
	}
	n, err := in.conn.Read(in.buf[kept:])
	in.rest = in.buf[:kept+n]
	if n > 0 {
		return nil
	}
	return err
}

// read handles packets until the connection ends.
func (c *Client) read(leftover []byte) {
	in := input{conn: c.conn, limit: c.maxPacket, buf: leftover, rest: leftover}
	var publish mqtt.Publish
	for {
		packet, err := in.next()
		if err == nil {
			err = c.handle(packet, &publish)
		}
		if err != nil {
			c.finish(err)
			return
		}
	}
}

// finish ends the client for everybody who waits.
func (c *Client) finish(err error) {
	c.end(fmt.Errorf("mqtt client: connection lost: %w", err))
	if c.pinging != nil {
		c.pinging.Stop()
	}
	close(c.done)
}

// handle acts on one packet from the server.
func (c *Client) handle(packet []byte, publish *mqtt.Publish) error {
	switch t := mqtt.TypeOf(packet); t {
	case mqtt.TypePublish:
		if err := publish.Decode(packet, c.version); err != nil {
			return err
		}
		return c.receive(publish)
	case mqtt.TypePingresp:
		c.pong()
		return nil
	case mqtt.TypePuback, mqtt.TypeSuback, mqtt.TypeUnsuback, mqtt.TypeDisconnect:
		p, err := mqtt.Decode(packet, c.version)
		if err != nil {
			return err
		}
		return c.settle(p)
	default:
		return fmt.Errorf("unexpected %s", t)
	}
}

// receive hands a message on and acknowledges it.
func (c *Client) receive(p *mqtt.Publish) error {
	if p.QoS > 1 {
		return errors.New("message of QoS 2")
	}
	if c.onMessage != nil {
		c.onMessage(p)
	}
	if p.QoS == 1 {
		return c.send(&mqtt.Ack{Kind: mqtt.TypePuback, PacketID: p.PacketID})
	}
	return nil
}

// settle answers the call that waits for a packet id.
func (c *Client) settle(p mqtt.Packet) error {
	switch p := p.(type) {
	case *mqtt.Ack:
		c.answer(p.PacketID, answer{reason: p.Reason})
	case *mqtt.Suback:
		c.answer(p.PacketID, answer{reasons: p.Reasons})
	case *mqtt.Unsuback:
		c.answer(p.PacketID, answer{reasons: p.Reasons})
	case *mqtt.Disconnect:
		return &RefusedError{Packet: mqtt.TypeDisconnect, Reason: p.Reason}
	}
	return nil
}

// answer wakes the call of a packet id; nobody waits any more for one that was
// given up.
func (c *Client) answer(id uint16, a answer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if got, ok := c.waiting[id]; ok {
		delete(c.waiting, id)
		got <- a
	}
}

// pong settles the oldest Ping, and any keep-alive ping.
func (c *Client) pong() {
	c.pinged.Store(false)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pings) > 0 {
		c.pings[0] <- answer{}
		c.pings = c.pings[1:]
	}
}

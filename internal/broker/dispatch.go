package broker

import (
	"errors"

	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// Violations that the codec cannot see.
var (
	errSecondConnect = errors.New("second CONNECT")
	errDirection     = errors.New("packet that only servers send")
	errNotSupported  = errors.New("packet of a feature that is not supported")
	errExpiryRaised  = errors.New("DISCONNECT raises the session expiry from 0")
)

// handle acts on one packet. A cause ends the connection.
func (c *connection) handle(b *batch, packet []byte) *cause {
	switch kind := mqtt.TypeOf(packet); kind {
	case mqtt.TypePublish:
		return c.publish(b, packet)
	case mqtt.TypePuback, mqtt.TypePubrec, mqtt.TypePubrel, mqtt.TypePubcomp:
		if kind != mqtt.TypePuback && c.broker.profile == topic.AWS {
			return c.unexpected(packet)
		}
		var p mqtt.Ack
		if err := p.Decode(packet, c.version); err != nil {
			return causeOf(err)
		}
		return c.progress(b, &p)
	case mqtt.TypeSubscribe:
		return c.subscribe(b, packet)
	case mqtt.TypeUnsubscribe:
		return c.unsubscribe(b, packet)
	case mqtt.TypePingreq:
		return c.ping(b, packet)
	case mqtt.TypeDisconnect:
		return c.disconnect(packet)
	case mqtt.TypeConnect:
		return clientError(mqtt.ProtocolError, errSecondConnect)
	default:
		return c.unexpected(packet)
	}
}

// progress moves an acknowledged delivery on, in either direction.
func (c *connection) progress(b *batch, p *mqtt.Ack) *cause {
	switch p.Kind {
	case mqtt.TypePubrec:
		return c.receivedByClient(b, p)
	case mqtt.TypePubrel:
		c.releaseOfClient(b, p)
		return nil
	case mqtt.TypePubcomp:
		return c.acknowledged(b, p.PacketID, 2, true)
	default:
		return c.acknowledged(b, p.PacketID, 1, false)
	}
}

// unexpected decides on packets that no client may send here. What is not even
// well formed is reported as such.
func (c *connection) unexpected(packet []byte) *cause {
	if _, err := mqtt.Decode(packet, c.version); err != nil {
		return causeOf(err)
	}
	switch mqtt.TypeOf(packet) {
	case mqtt.TypePubrec, mqtt.TypePubrel, mqtt.TypePubcomp, mqtt.TypeAuth:
		return clientError(mqtt.ProtocolError, errNotSupported)
	default:
		return clientError(mqtt.ProtocolError, errDirection)
	}
}

// ping answers a PINGREQ.
func (c *connection) ping(b *batch, packet []byte) *cause {
	var p mqtt.Pingreq
	if err := p.Decode(packet, c.version); err != nil {
		return causeOf(err)
	}
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	c.sendLocked(&mqtt.Pingresp{})
	c.touchLocked(b)
	return nil
}

// disconnect ends the connection at the client's wish, and the session with it
// when the client gives it up. The will is withheld only for reason 0.
func (c *connection) disconnect(packet []byte) *cause {
	var p mqtt.Disconnect
	if err := p.Decode(packet, c.version); err != nil {
		return causeOf(err)
	}
	if p.Properties.Set.Has(mqtt.PropServerReference) {
		return clientError(mqtt.ProtocolError, errDirection)
	}
	if p.Properties.Set.Has(mqtt.PropSessionExpiry) {
		s := c.session
		s.mu.Lock()
		raised := s.expiry == 0 && p.Properties.SessionExpiry > 0
		if !raised && s.link.Load() == c {
			s.expiry = min(p.Properties.SessionExpiry, c.broker.limits.MaxSessionExpiry)
		}
		s.mu.Unlock()
		if raised {
			return clientError(mqtt.ProtocolError, errExpiryRaised)
		}
	}
	return &cause{reason: ReasonClientInitiated, noWill: p.Reason == mqtt.Success}
}

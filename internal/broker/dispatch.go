package broker

import (
	"errors"

	"github.com/muster-iot/muster/internal/mqtt"
)

// Violations that the codec cannot see.
var (
	errSecondConnect = errors.New("second CONNECT")
	errDirection     = errors.New("packet that only servers send")
	errNotSupported  = errors.New("packet of a feature that is not supported")
	errExpiryRaised  = errors.New("DISCONNECT raises the session expiry from 0")
)

// handle acts on one packet. A cause ends the connection.
func (s *session) handle(b *batch, packet []byte) *cause {
	switch mqtt.TypeOf(packet) {
	case mqtt.TypePublish:
		return s.publish(b, packet)
	case mqtt.TypePuback:
		var p mqtt.Ack
		if err := p.Decode(packet, s.version); err != nil {
			return causeOf(err)
		}
		s.acknowledged(b, p.PacketID)
		return nil
	case mqtt.TypeSubscribe:
		return s.subscribe(b, packet)
	case mqtt.TypeUnsubscribe:
		return s.unsubscribe(b, packet)
	case mqtt.TypePingreq:
		return s.ping(b, packet)
	case mqtt.TypeDisconnect:
		return s.disconnect(packet)
	case mqtt.TypeConnect:
		return clientError(mqtt.ProtocolError, errSecondConnect)
	default:
		return s.unexpected(packet)
	}
}

// unexpected decides on packets that no client may send here. What is not even
// well formed is reported as such.
func (s *session) unexpected(packet []byte) *cause {
	if _, err := mqtt.Decode(packet, s.version); err != nil {
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
func (s *session) ping(b *batch, packet []byte) *cause {
	var p mqtt.Pingreq
	if err := p.Decode(packet, s.version); err != nil {
		return causeOf(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sendLocked(&mqtt.Pingresp{})
	s.touchLocked(b)
	return nil
}

// disconnect ends the session at the client's wish. The will is withheld only
// for reason 0.
func (s *session) disconnect(packet []byte) *cause {
	var p mqtt.Disconnect
	if err := p.Decode(packet, s.version); err != nil {
		return causeOf(err)
	}
	if p.Properties.Set.Has(mqtt.PropServerReference) {
		return clientError(mqtt.ProtocolError, errDirection)
	}
	if p.Properties.SessionExpiry > 0 && s.askedExpiry == 0 {
		return clientError(mqtt.ProtocolError, errExpiryRaised)
	}
	return &cause{reason: ReasonClientInitiated, noWill: p.Reason == mqtt.Success}
}

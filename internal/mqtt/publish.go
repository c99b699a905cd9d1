package mqtt

import (
	"bytes"
	"encoding/binary"
)

// Publish is an application message on the wire. Decode leaves Topic and
// Payload pointing into the packet; a topic alias leaves Topic empty.
type Publish struct {
	Dup        bool
	QoS        byte
	Retain     bool
	Topic      []byte
	PacketID   uint16
	Properties Properties
	Payload    []byte
}

// Type returns TypePublish.
func (*Publish) Type() Type { return TypePublish }

// Decode replaces p by a framed packet.
func (p *Publish) Decode(packet []byte, v Version) error {
	if !p.Properties.Empty() {
		p.Properties = Properties{}
	}
	p.Dup, p.QoS, p.Retain = packet[0]&8 != 0, packet[0]>>1&3, packet[0]&1 != 0
	c := cursor{rest: body(packet)}
	p.Topic = c.text()
	p.PacketID = 0
	if p.QoS > 0 {
		p.PacketID = c.packetID()
	}
	if v == V5 {
		p.Properties.decode(&c, in(TypePublish))
	}
	p.Payload = c.rest
	if c.err != nil {
		return c.err
	}
	if err := p.checkTopic(); err != nil {
		return err
	}
	return nil
}

// checkTopic refuses wildcards, and an empty name without an alias.
func (p *Publish) checkTopic() *Error {
	if len(p.Topic) == 0 && !p.Properties.Set.Has(PropTopicAlias) {
		return violation("topic name is empty")
	}
	if bytes.IndexByte(p.Topic, '+') >= 0 || bytes.IndexByte(p.Topic, '#') >= 0 {
		return malformed("topic name contains a wildcard")
	}
	return nil
}

// Append encodes p behind dst.
func (p *Publish) Append(dst []byte, v Version) ([]byte, error) {
	flags := p.QoS << 1
	if p.Dup {
		flags |= 8
	}
	if p.Retain {
		flags |= 1
	}
	e := begin(dst, TypePublish, flags)
	e.binary(p.Topic)
	if p.QoS > 0 {
		e.u16(p.PacketID)
	}
	if v == V5 {
		p.Properties.append(&e)
	}
	e.b = append(e.b, p.Payload...)
	return e.finish()
}

// SetPacketID overwrites the identifier inside an encoded QoS 1 or 2 PUBLISH,
// so that one encoding serves many receivers.
func SetPacketID(packet []byte, id uint16) {
	b := body(packet)
	at := 2 + int(binary.BigEndian.Uint16(b))
	binary.BigEndian.PutUint16(b[at:], id)
}

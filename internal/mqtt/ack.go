package mqtt

// Ack is a PUBACK, PUBREC, PUBREL or PUBCOMP; Kind tells which.
type Ack struct {
	Kind       Type
	PacketID   uint16
	Reason     ReasonCode
	Properties Properties
}

// Type returns the kind.
func (p *Ack) Type() Type { return p.Kind }

// Decode replaces p by a framed packet. MQTT 5 may leave out the reason, and
// the properties behind it.
func (p *Ack) Decode(packet []byte, v Version) error {
	*p = Ack{Kind: TypeOf(packet)}
	c := cursor{rest: body(packet)}
	p.PacketID = c.packetID()
	if v == V5 && len(c.rest) > 0 {
		p.Reason = ReasonCode(c.u8())
		if !p.Reason.allowed(p.Kind) {
			c.fail(violation("reason code of " + p.Kind.String()))
		}
		if len(c.rest) > 0 {
			p.Properties.decode(&c, in(p.Kind))
		}
	}
	return c.done()
}

// Append encodes p behind dst in its shortest form.
func (p *Ack) Append(dst []byte, v Version) ([]byte, error) {
	if p.Properties.Empty() {
		return AppendAck(dst, p.Kind, p.PacketID, p.Reason, v), nil
	}
	e := begin(dst, p.Kind, p.Kind.flags())
	e.u16(p.PacketID)
	if v == V5 {
		e.u8(byte(p.Reason))
		p.Properties.append(&e)
	}
	return e.finish()
}

// AppendAck encodes an acknowledgement without properties behind dst. The
// reason is left out before MQTT 5 and for Success.
func AppendAck(dst []byte, kind Type, id uint16, reason ReasonCode, v Version) []byte {
	first := byte(kind)<<4 | kind.flags()
	if v == V5 && reason != Success {
		return append(dst, first, 3, byte(id>>8), byte(id), byte(reason))
	}
	return append(dst, first, 2, byte(id>>8), byte(id))
}

package mqtt

// Suback answers a SUBSCRIBE with one code for each filter.
type Suback struct {
	PacketID   uint16
	Properties Properties
	Reasons    []ReasonCode
}

// Type returns TypeSuback.
func (*Suback) Type() Type { return TypeSuback }

// Decode replaces p by a framed packet.
func (p *Suback) Decode(packet []byte, v Version) error {
	*p = Suback{}
	c := cursor{rest: body(packet)}
	p.PacketID = c.packetID()
	if v == V5 {
		p.Properties.decode(&c, in(TypeSuback))
	}
	p.Reasons = decodeReasons(&c, TypeSuback)
	return c.done()
}

// Append encodes p behind dst.
func (p *Suback) Append(dst []byte, v Version) ([]byte, error) {
	e := begin(dst, TypeSuback, 0)
	e.u16(p.PacketID)
	if v == V5 {
		p.Properties.append(&e)
	}
	for _, reason := range p.Reasons {
		e.u8(byte(reason))
	}
	return e.finish()
}

// Unsuback answers an UNSUBSCRIBE; it has codes in MQTT 5 only.
type Unsuback struct {
	PacketID   uint16
	Properties Properties
	Reasons    []ReasonCode
}

// Type returns TypeUnsuback.
func (*Unsuback) Type() Type { return TypeUnsuback }

// Decode replaces p by a framed packet.
func (p *Unsuback) Decode(packet []byte, v Version) error {
	*p = Unsuback{}
	c := cursor{rest: body(packet)}
	p.PacketID = c.packetID()
	if v == V5 {
		p.Properties.decode(&c, in(TypeUnsuback))
		p.Reasons = decodeReasons(&c, TypeUnsuback)
	}
	return c.done()
}

// Append encodes p behind dst.
func (p *Unsuback) Append(dst []byte, v Version) ([]byte, error) {
	e := begin(dst, TypeUnsuback, 0)
	e.u16(p.PacketID)
	if v == V5 {
		p.Properties.append(&e)
		for _, reason := range p.Reasons {
			e.u8(byte(reason))
		}
	}
	return e.finish()
}

// decodeReasons reads the codes up to the end of a packet; there is at least
// one.
func decodeReasons(c *cursor, t Type) []ReasonCode {
	raw := c.take(len(c.rest))
	if c.err != nil {
		return nil
	}
	if len(raw) == 0 {
		c.fail(malformed(t.String() + " without a reason code"))
		return nil
	}
	reasons := make([]ReasonCode, len(raw))
	for i, b := range raw {
		reasons[i] = ReasonCode(b)
		if !reasons[i].allowed(t) {
			c.fail(violation("reason code of " + t.String()))
		}
	}
	return reasons
}

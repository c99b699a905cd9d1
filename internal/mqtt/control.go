package mqtt

// Pingreq asks for a sign of life.
type Pingreq struct{}

// Type returns TypePingreq.
func (*Pingreq) Type() Type { return TypePingreq }

// Decode wants the packet to be empty.
func (*Pingreq) Decode(packet []byte, _ Version) error { return decodeEmpty(packet) }

// Append encodes p behind dst.
func (*Pingreq) Append(dst []byte, _ Version) ([]byte, error) {
	return append(dst, byte(TypePingreq)<<4, 0), nil
}

// Pingresp answers a PINGREQ.
type Pingresp struct{}

// Type returns TypePingresp.
func (*Pingresp) Type() Type { return TypePingresp }

// Decode wants the packet to be empty.
func (*Pingresp) Decode(packet []byte, _ Version) error { return decodeEmpty(packet) }

// Append encodes p behind dst.
func (*Pingresp) Append(dst []byte, _ Version) ([]byte, error) {
	return append(dst, byte(TypePingresp)<<4, 0), nil
}

// decodeEmpty refuses a body.
func decodeEmpty(packet []byte) error {
	c := cursor{rest: body(packet)}
	return c.done()
}

// Disconnect ends a connection; servers send it in MQTT 5 only.
type Disconnect struct {
	Reason     ReasonCode
	Properties Properties
}

// Type returns TypeDisconnect.
func (*Disconnect) Type() Type { return TypeDisconnect }

// Decode replaces p by a framed packet.
func (p *Disconnect) Decode(packet []byte, v Version) error {
	*p = Disconnect{}
	return decodeReasonAndProperties(packet, v, TypeDisconnect, &p.Reason, &p.Properties)
}

// Append encodes p behind dst in its shortest form.
func (p *Disconnect) Append(dst []byte, v Version) ([]byte, error) {
	return appendReasonAndProperties(dst, v, TypeDisconnect, p.Reason, &p.Properties)
}

// Auth carries a step of extended authentication in MQTT 5.
type Auth struct {
	Reason     ReasonCode
	Properties Properties
}

// Type returns TypeAuth.
func (*Auth) Type() Type { return TypeAuth }

// Decode replaces p by a framed packet.
func (p *Auth) Decode(packet []byte, v Version) error {
	*p = Auth{}
	if v != V5 {
		return violation("AUTH before MQTT 5")
	}
	return decodeReasonAndProperties(packet, v, TypeAuth, &p.Reason, &p.Properties)
}

// Append encodes p behind dst in its shortest form.
func (p *Auth) Append(dst []byte, v Version) ([]byte, error) {
	return appendReasonAndProperties(dst, v, TypeAuth, p.Reason, &p.Properties)
}

// decodeReasonAndProperties reads a body that may be empty, a reason alone, or
// a reason with properties.
func decodeReasonAndProperties(packet []byte, v Version, t Type, reason *ReasonCode, properties *Properties) error {
	c := cursor{rest: body(packet)}
	if v == V5 && len(c.rest) > 0 {
		*reason = ReasonCode(c.u8())
		if !reason.allowed(t) {
			c.fail(violation("reason code of " + t.String()))
		}
		if len(c.rest) > 0 {
			properties.decode(&c, in(t))
		}
	}
	return c.done()
}

// appendReasonAndProperties is the reverse.
func appendReasonAndProperties(dst []byte, v Version, t Type, reason ReasonCode, properties *Properties) ([]byte, error) {
	e := begin(dst, t, 0)
	if v == V5 && (reason != Success || !properties.Empty()) {
		e.u8(byte(reason))
		if !properties.Empty() {
			properties.append(&e)
		}
	}
	return e.finish()
}

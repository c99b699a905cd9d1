package mqtt

import (
	"strings"
)

// Will is the message that a server publishes when a connection is lost.
type Will struct {
	Topic      string
	Payload    []byte
	QoS        byte
	Retain     bool
	Properties Properties
}

// Connect opens a session. When Decode fails with UnsupportedProtocolVersion,
// Version holds what the client asked for.
type Connect struct {
	Version     Version
	CleanStart  bool
	KeepAlive   uint16
	ClientID    string
	Will        *Will
	HasUsername bool
	HasPassword bool
	Username    string
	Password    []byte
	Properties  Properties
}

// Type returns TypeConnect.
func (*Connect) Type() Type { return TypeConnect }

// Flags of the connect byte.
const (
	flagReserved   = 0x01
	flagCleanStart = 0x02
	flagWill       = 0x04
	flagWillRetain = 0x20
	flagPassword   = 0x40
	flagUsername   = 0x80
)

// Decode replaces p by a framed packet. The version comes from the packet; v
// is not looked at.
func (p *Connect) Decode(packet []byte, _ Version) error {
	*p = Connect{}
	c := cursor{rest: body(packet)}
	name := string(c.binary())
	p.Version = Version(c.u8())
	if c.err != nil {
		return c.err
	}
	if err := checkProtocol(name, p.Version, packet[0]&0x0F); err != nil {
		return err
	}
	flags := c.u8()
	p.KeepAlive = c.u16()
	p.CleanStart = flags&flagCleanStart != 0
	if err := checkConnectFlags(flags, p.Version); err != nil && c.err == nil {
		return err
	}
	if p.Version == V5 {
		p.Properties.decode(&c, in(TypeConnect))
		if p.Properties.Set.Has(PropAuthData) && !p.Properties.Set.Has(PropAuthMethod) {
			c.fail(violation("authentication data without method"))
		}
	}
	p.ClientID = clientID(&c)
	if flags&flagWill != 0 {
		p.Will = decodeWill(&c, flags, p.Version)
	}
	p.decodeCredentials(&c, flags)
	return c.done()
}

// clientID reads the identifier, which has a reason code of its own.
func clientID(c *cursor) string {
	b := c.binary()
	if !validText(b) {
		c.fail(&Error{Reason: ClientIDNotValid, Text: "client identifier is not acceptable UTF-8"})
		return ""
	}
	return string(b)
}

// decodeCredentials reads user name and password as flagged.
func (p *Connect) decodeCredentials(c *cursor, flags byte) {
	if p.HasUsername = flags&flagUsername != 0; p.HasUsername {
		p.Username = c.str()
	}
	if p.HasPassword = flags&flagPassword != 0; p.HasPassword {
		p.Password = append([]byte{}, c.binary()...)
	}
}

// checkProtocol tells other protocols from other versions of this one. Only
// MQTT 3.1 lets the fixed header's flags be anything.
func checkProtocol(name string, v Version, flags byte) *Error {
	if name != "MQTT" && name != "MQIsdp" {
		return malformed("protocol name is not MQTT")
	}
	if v < V31 || v > V5 || name != v.protocolName() {
		return &Error{Reason: UnsupportedProtocolVersion, Text: "protocol version is not supported"}
	}
	if flags != 0 && v != V31 {
		return malformed("fixed header flags of CONNECT")
	}
	return nil
}

// checkConnectFlags refuses contradictions in the connect byte.
func checkConnectFlags(flags byte, v Version) *Error {
	switch {
	case flags&flagReserved != 0 && v != V31:
		return malformed("reserved connect flag is set")
	case flags>>3&3 == 3:
		return malformed("quality of service of the will is 3")
	case flags&flagWill == 0 && flags&(flagWillRetain|0x18) != 0:
		return malformed("will flags without a will")
	case v != V5 && flags&flagPassword != 0 && flags&flagUsername == 0:
		return malformed("password without user name")
	}
	return nil
}

// decodeWill reads the will of a CONNECT.
func decodeWill(c *cursor, flags byte, v Version) *Will {
	w := &Will{QoS: flags >> 3 & 3, Retain: flags&flagWillRetain != 0}
	if v == V5 {
		w.Properties.decode(c, inWill)
	}
	w.Topic = c.str()
	w.Payload = append([]byte{}, c.binary()...)
	if c.err == nil && (w.Topic == "" || strings.ContainsAny(w.Topic, "+#")) {
		c.fail(&Error{Reason: TopicNameInvalid, Text: "will topic is not a topic name"})
	}
	return w
}

// Append encodes p behind dst. The version is the packet's own; v is not
// looked at.
func (p *Connect) Append(dst []byte, _ Version) ([]byte, error) {
	e := begin(dst, TypeConnect, 0)
	e.str(p.Version.protocolName())
	e.u8(byte(p.Version))
	e.u8(p.flags())
	e.u16(p.KeepAlive)
	if p.Version == V5 {
		p.Properties.append(&e)
	}
	e.str(p.ClientID)
	if w := p.Will; w != nil {
		if p.Version == V5 {
			w.Properties.append(&e)
		}
		e.str(w.Topic)
		e.binary(w.Payload)
	}
	if p.HasUsername {
		e.str(p.Username)
	}
	if p.HasPassword {
		e.binary(p.Password)
	}
	return e.finish()
}

// flags returns the connect byte.
func (p *Connect) flags() byte {
	var flags byte
	if p.CleanStart {
		flags |= flagCleanStart
	}
	if w := p.Will; w != nil {
		flags |= flagWill | w.QoS<<3
		if w.Retain {
			flags |= flagWillRetain
		}
	}
	if p.HasUsername {
		flags |= flagUsername
	}
	if p.HasPassword {
		flags |= flagPassword
	}
	return flags
}

// Connack answers a CONNECT. Before MQTT 5, Reason holds the return code.
type Connack struct {
	SessionPresent bool
	Reason         ReasonCode
	Properties     Properties
}

// Type returns TypeConnack.
func (*Connack) Type() Type { return TypeConnack }

// Decode replaces p by a framed packet.
func (p *Connack) Decode(packet []byte, v Version) error {
	*p = Connack{}
	c := cursor{rest: body(packet)}
	flags := c.u8()
	p.SessionPresent = flags == 1
	if flags > 1 {
		c.fail(malformed("reserved acknowledge flag is set"))
	}
	p.Reason = ReasonCode(c.u8())
	if v == V5 {
		p.Properties.decode(&c, in(TypeConnack))
		if c.err == nil && !p.Reason.allowed(TypeConnack) {
			c.fail(violation("reason code of CONNACK"))
		}
	}
	return c.done()
}

// Append encodes p behind dst.
func (p *Connack) Append(dst []byte, v Version) ([]byte, error) {
	e := begin(dst, TypeConnack, 0)
	if p.SessionPresent {
		e.u8(1)
	} else {
		e.u8(0)
	}
	e.u8(byte(p.Reason))
	if v == V5 {
		p.Properties.append(&e)
	}
	return e.finish()
}

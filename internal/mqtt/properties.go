package mqtt

import "strings"

// UserProperty is one name and value pair; names may repeat and order counts.
type UserProperty struct{ Key, Value string }

// Properties is the property block of an MQTT 5 packet. A single-valued field
// counts only when Set has its property; use Of to build the set.
type Properties struct {
	Set                   PropertySet
	PayloadFormat         byte
	RequestProblemInfo    byte
	RequestResponseInfo   byte
	MaximumQoS            byte
	RetainAvailable       byte
	WildcardAvailable     byte
	SubscriptionIDAllowed byte
	SharedAvailable       byte
	ServerKeepAlive       uint16
	ReceiveMaximum        uint16
	TopicAliasMaximum     uint16
	TopicAlias            uint16
	MessageExpiry         uint32
	SessionExpiry         uint32
	WillDelay             uint32
	MaximumPacketSize     uint32
	ContentType           string
	ResponseTopic         string
	AssignedClientID      string
	AuthMethod            string
	ResponseInfo          string
	ServerReference       string
	ReasonString          string
	CorrelationData       []byte
	AuthData              []byte
	// SubscriptionIDs has one entry in a SUBSCRIBE and any number in a PUBLISH
	// from a server.
	SubscriptionIDs []uint32
	UserProperties  []UserProperty
}

// Empty reports whether the block carries nothing.
func (p *Properties) Empty() bool {
	return p.Set == 0 && len(p.SubscriptionIDs) == 0 && len(p.UserProperties) == 0
}

// byteField returns where a kindByte property is kept.
func (p *Properties) byteField(id Property) *byte {
	switch id {
	case PropPayloadFormat:
		return &p.PayloadFormat
	case PropRequestProblemInfo:
		return &p.RequestProblemInfo
	case PropRequestResponseInfo:
		return &p.RequestResponseInfo
	case PropMaximumQoS:
		return &p.MaximumQoS
	case PropRetainAvailable:
		return &p.RetainAvailable
	case PropWildcardAvailable:
		return &p.WildcardAvailable
	case PropSubscriptionIDAllowed:
		return &p.SubscriptionIDAllowed
	default:
		return &p.SharedAvailable
	}
}

// u16Field returns where a kindU16 property is kept.
func (p *Properties) u16Field(id Property) *uint16 {
	switch id {
	case PropServerKeepAlive:
		return &p.ServerKeepAlive
	case PropReceiveMaximum:
		return &p.ReceiveMaximum
	case PropTopicAliasMaximum:
		return &p.TopicAliasMaximum
	default:
		return &p.TopicAlias
	}
}

// u32Field returns where a kindU32 property is kept.
func (p *Properties) u32Field(id Property) *uint32 {
	switch id {
	case PropMessageExpiry:
		return &p.MessageExpiry
	case PropSessionExpiry:
		return &p.SessionExpiry
	case PropWillDelay:
		return &p.WillDelay
	default:
		return &p.MaximumPacketSize
	}
}

// stringField returns where a kindString property is kept.
func (p *Properties) stringField(id Property) *string {
	switch id {
	case PropContentType:
		return &p.ContentType
	case PropResponseTopic:
		return &p.ResponseTopic
	case PropAssignedClientID:
		return &p.AssignedClientID
	case PropAuthMethod:
		return &p.AuthMethod
	case PropResponseInfo:
		return &p.ResponseInfo
	case PropServerReference:
		return &p.ServerReference
	default:
		return &p.ReasonString
	}
}

// binaryField returns where a kindBinary property is kept.
func (p *Properties) binaryField(id Property) *[]byte {
	if id == PropCorrelationData {
		return &p.CorrelationData
	}
	return &p.AuthData
}

// decode reads a property block that stands at one place.
func (p *Properties) decode(c *cursor, at place) {
	block := cursor{rest: c.take(int(c.varint()))}
	if c.err != nil {
		return
	}
	for len(block.rest) > 0 && block.err == nil {
		p.decodeOne(&block, at)
	}
	if block.err != nil {
		c.fail(block.err)
	}
}

// decodeOne reads one property.
func (p *Properties) decodeOne(c *cursor, at place) {
	raw := c.varint()
	if c.err != nil {
		return
	}
	if raw > uint32(lastProperty) {
		c.fail(malformed("unknown property"))
		return
	}
	id := Property(raw)
	if p.Set.Has(id) {
		c.fail(violation("property is repeated"))
		return
	}
	p.decodeValue(c, id, at)
	if id.places()&at == 0 && c.err == nil {
		c.fail(misplaced(at))
	}
}

// misplaced is a property in a packet that may not have it. Peers are used to
// hear of a protocol error for a CONNECT and its will, and of a malformed
// packet elsewhere.
func misplaced(at place) *Error {
	const text = "property does not belong into this packet"
	if at&(in(TypeConnect)|inWill) != 0 {
		return violation(text)
	}
	return malformed(text)
}

// decodeValue reads a property's value and checks its range.
func (p *Properties) decodeValue(c *cursor, id Property, at place) {
	switch id.kind() {
	case kindByte:
		value := c.u8()
		if value > 1 {
			c.fail(violation("property is neither 0 nor 1"))
		}
		*p.byteField(id) = value
	case kindU16:
		*p.u16Field(id) = c.u16()
	case kindU32:
		*p.u32Field(id) = c.u32()
	case kindString:
		*p.stringField(id) = c.str()
	case kindBinary:
		*p.binaryField(id) = append([]byte(nil), c.binary()...)
	case kindVarint:
		p.decodeSubscriptionID(c, at)
		return
	case kindPair:
		p.UserProperties = append(p.UserProperties, UserProperty{Key: c.str(), Value: c.str()})
		return
	case kindNone:
		c.fail(malformed("unknown property"))
	}
	p.Set |= Of(id)
	if err := p.checkRange(id); err != nil && c.err == nil {
		c.fail(err)
	}
}

// decodeSubscriptionID reads an identifier; a SUBSCRIBE has at most one.
func (p *Properties) decodeSubscriptionID(c *cursor, at place) {
	id := c.varint()
	switch {
	case c.err != nil:
	case id == 0:
		c.fail(violation("subscription identifier is 0"))
	case len(p.SubscriptionIDs) > 0 && at&in(TypeSubscribe) != 0:
		c.fail(violation("property is repeated"))
	default:
		p.SubscriptionIDs = append(p.SubscriptionIDs, id)
	}
}

// checkRange refuses the values that the specification rules out.
func (p *Properties) checkRange(id Property) *Error {
	switch {
	case id == PropReceiveMaximum && p.ReceiveMaximum == 0:
		return violation("receive maximum is 0")
	case id == PropMaximumPacketSize && p.MaximumPacketSize == 0:
		return violation("maximum packet size is 0")
	case id == PropTopicAlias && p.TopicAlias == 0:
		return &Error{Reason: TopicAliasInvalid, Text: "topic alias is 0"}
	case id == PropResponseTopic && (p.ResponseTopic == "" || strings.ContainsAny(p.ResponseTopic, "+#")):
		return violation("response topic is not a topic name")
	}
	return nil
}

// append writes the block with its length.
func (p *Properties) append(e *encoder) {
	if p.Empty() {
		e.u8(0)
		return
	}
	start := len(e.b)
	e.b = append(e.b, 0, 0, 0, 0)
	for set := p.Set; set != 0; set &= set - 1 {
		p.appendOne(e, lowest(set))
	}
	for _, id := range p.SubscriptionIDs {
		e.u8(byte(PropSubscriptionID))
		e.b = appendVarint(e.b, id)
	}
	for i := range p.UserProperties {
		e.u8(byte(PropUserProperty))
		e.str(p.UserProperties[i].Key)
		e.str(p.UserProperties[i].Value)
	}
	length := len(e.b) - start - 4
	if length > maxRemaining {
		e.err = ErrPacketTooLong
		return
	}
	size := len(appendVarint(e.b[start:start], uint32(length)))
	copy(e.b[start+size:], e.b[start+4:])
	e.b = e.b[:start+size+length]
}

// appendOne writes one single-valued property; an identifier that has none is
// left out.
func (p *Properties) appendOne(e *encoder, id Property) {
	switch id.kind() {
	case kindByte:
		e.u8(byte(id))
		e.u8(*p.byteField(id))
	case kindU16:
		e.u8(byte(id))
		e.u16(*p.u16Field(id))
	case kindU32:
		e.u8(byte(id))
		e.u32(*p.u32Field(id))
	case kindString:
		e.u8(byte(id))
		e.str(*p.stringField(id))
	case kindBinary:
		e.u8(byte(id))
		e.binary(*p.binaryField(id))
	case kindNone, kindVarint, kindPair:
	}
}

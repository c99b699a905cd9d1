package mqtt

// Subscription is one filter of a SUBSCRIBE with its options. Before MQTT 5
// only the quality of service exists.
type Subscription struct {
	Filter            string
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte
}

// Subscribe asks for messages.
type Subscribe struct {
	PacketID      uint16
	Properties    Properties
	Subscriptions []Subscription
}

// Type returns TypeSubscribe.
func (*Subscribe) Type() Type { return TypeSubscribe }

// Decode replaces p by a framed packet. Whether filters are well formed is for
// the receiver to say.
func (p *Subscribe) Decode(packet []byte, v Version) error {
	*p = Subscribe{}
	c := cursor{rest: body(packet)}
	p.PacketID = c.packetID()
	if v == V5 {
		p.Properties.decode(&c, in(TypeSubscribe))
	}
	for len(c.rest) > 0 {
		filter := c.str()
		sub, err := decodeOptions(c.u8(), v)
		if err != nil {
			c.fail(err)
			break
		}
		if sub.Filter = filter; filter == "" {
			c.fail(malformed("topic filter is empty"))
		}
		p.Subscriptions = append(p.Subscriptions, sub)
	}
	if c.err == nil && len(p.Subscriptions) == 0 {
		c.fail(malformed("SUBSCRIBE without a filter"))
	}
	return c.done()
}

// decodeOptions reads the byte behind a filter.
func decodeOptions(options byte, v Version) (Subscription, *Error) {
	reserved := byte(0xC0)
	if v != V5 {
		reserved = 0xFC
	}
	s := Subscription{
		QoS:               options & 3,
		NoLocal:           options&4 != 0,
		RetainAsPublished: options&8 != 0,
		RetainHandling:    options >> 4 & 3,
	}
	if s.QoS == 3 || s.RetainHandling == 3 || options&reserved != 0 {
		return s, malformed("subscription options")
	}
	return s, nil
}

// options returns the byte behind a filter.
func (s *Subscription) options(v Version) byte {
	if v != V5 {
		return s.QoS
	}
	options := s.QoS | s.RetainHandling<<4
	if s.NoLocal {
		options |= 4
	}
	if s.RetainAsPublished {
		options |= 8
	}
	return options
}

// Append encodes p behind dst.
func (p *Subscribe) Append(dst []byte, v Version) ([]byte, error) {
	e := begin(dst, TypeSubscribe, TypeSubscribe.flags())
	e.u16(p.PacketID)
	if v == V5 {
		p.Properties.append(&e)
	}
	for i := range p.Subscriptions {
		e.str(p.Subscriptions[i].Filter)
		e.u8(p.Subscriptions[i].options(v))
	}
	return e.finish()
}

// Unsubscribe ends subscriptions.
type Unsubscribe struct {
	PacketID   uint16
	Properties Properties
	Filters    []string
}

// Type returns TypeUnsubscribe.
func (*Unsubscribe) Type() Type { return TypeUnsubscribe }

// Decode replaces p by a framed packet.
func (p *Unsubscribe) Decode(packet []byte, v Version) error {
	*p = Unsubscribe{}
	c := cursor{rest: body(packet)}
	p.PacketID = c.packetID()
	if v == V5 {
		p.Properties.decode(&c, in(TypeUnsubscribe))
	}
	for len(c.rest) > 0 {
		filter := c.str()
		if filter == "" {
			c.fail(malformed("topic filter is empty"))
		}
		p.Filters = append(p.Filters, filter)
	}
	if c.err == nil && len(p.Filters) == 0 {
		c.fail(malformed("UNSUBSCRIBE without a filter"))
	}
	return c.done()
}

// Append encodes p behind dst.
func (p *Unsubscribe) Append(dst []byte, v Version) ([]byte, error) {
	e := begin(dst, TypeUnsubscribe, TypeUnsubscribe.flags())
	e.u16(p.PacketID)
	if v == V5 {
		p.Properties.append(&e)
	}
	for _, filter := range p.Filters {
		e.str(filter)
	}
	return e.finish()
}

package mqtt

// Packet is any control packet.
type Packet interface {
	// Type returns the packet's type.
	Type() Type
	// Append encodes the packet behind dst. On error dst is returned as it was.
	Append(dst []byte, v Version) ([]byte, error)
	// Decode replaces the packet's content by a packet that Frame returned, of
	// the same type.
	Decode(packet []byte, v Version) error
}

// Decode returns a framed packet of any type as a value of its own type. Hot
// paths decode into a value that they keep instead.
func Decode(packet []byte, v Version) (Packet, error) {
	p := blank(TypeOf(packet))
	if p == nil {
		return nil, violation("packet type 0 is reserved")
	}
	if err := p.Decode(packet, v); err != nil {
		return nil, err
	}
	return p, nil
}

// blank returns an empty packet of a type.
func blank(t Type) Packet {
	switch t {
	case TypeConnect:
		return &Connect{}
	case TypeConnack:
		return &Connack{}
	case TypePublish:
		return &Publish{}
	case TypePuback, TypePubrec, TypePubrel, TypePubcomp:
		return &Ack{}
	case TypeSubscribe:
		return &Subscribe{}
	case TypeSuback:
		return &Suback{}
	case TypeUnsubscribe:
		return &Unsubscribe{}
	case TypeUnsuback:
		return &Unsuback{}
	case TypePingreq:
		return &Pingreq{}
	case TypePingresp:
		return &Pingresp{}
	case TypeDisconnect:
		return &Disconnect{}
	case TypeAuth:
		return &Auth{}
	default:
		return nil
	}
}

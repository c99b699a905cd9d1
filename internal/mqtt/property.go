package mqtt

import "math/bits"

// Property is the identifier of an MQTT 5 property.
type Property byte

// Properties of MQTT 5, chapter 2.2.2.2.
const (
	PropPayloadFormat         Property = 0x01
	PropMessageExpiry         Property = 0x02
	PropContentType           Property = 0x03
	PropResponseTopic         Property = 0x08
	PropCorrelationData       Property = 0x09
	PropSubscriptionID        Property = 0x0B
	PropSessionExpiry         Property = 0x11
	PropAssignedClientID      Property = 0x12
	PropServerKeepAlive       Property = 0x13
	PropAuthMethod            Property = 0x15
	PropAuthData              Property = 0x16
	PropRequestProblemInfo    Property = 0x17
	PropWillDelay             Property = 0x18
	PropRequestResponseInfo   Property = 0x19
	PropResponseInfo          Property = 0x1A
	PropServerReference       Property = 0x1C
	PropReasonString          Property = 0x1F
	PropReceiveMaximum        Property = 0x21
	PropTopicAliasMaximum     Property = 0x22
	PropTopicAlias            Property = 0x23
	PropMaximumQoS            Property = 0x24
	PropRetainAvailable       Property = 0x25
	PropUserProperty          Property = 0x26
	PropMaximumPacketSize     Property = 0x27
	PropWildcardAvailable     Property = 0x28
	PropSubscriptionIDAllowed Property = 0x29
	PropSharedAvailable       Property = 0x2A
)

// lastProperty is the highest identifier in use.
const lastProperty = PropSharedAvailable

// kind is how a property's value is encoded.
type kind byte

// Encodings of values.
const (
	kindNone kind = iota
	kindByte
	kindU16
	kindU32
	kindVarint
	kindString
	kindBinary
	kindPair
)

// kind returns the encoding, kindNone for an unknown identifier.
func (p Property) kind() kind {
	switch p {
	case PropPayloadFormat, PropRequestProblemInfo, PropRequestResponseInfo, PropMaximumQoS, PropRetainAvailable,
		PropWildcardAvailable, PropSubscriptionIDAllowed, PropSharedAvailable:
		return kindByte
	case PropServerKeepAlive, PropReceiveMaximum, PropTopicAliasMaximum, PropTopicAlias:
		return kindU16
	case PropMessageExpiry, PropSessionExpiry, PropWillDelay, PropMaximumPacketSize:
		return kindU32
	case PropSubscriptionID:
		return kindVarint
	case PropContentType, PropResponseTopic, PropAssignedClientID, PropAuthMethod, PropResponseInfo, PropServerReference,
		PropReasonString:
		return kindString
	case PropCorrelationData, PropAuthData:
		return kindBinary
	case PropUserProperty:
		return kindPair
	default:
		return kindNone
	}
}

// place is a set of packet types, with the will of a CONNECT as its own place.
type place uint32

// inWill is the will's property block; it takes the bit of the unused type 0.
const inWill place = 1

// in returns the place of a packet type.
func in(types ...Type) place {
	var set place
	for _, t := range types {
		set |= 1 << t
	}
	return set
}

// places returns where a property may stand.
func (p Property) places() place {
	switch p {
	case PropPayloadFormat, PropMessageExpiry, PropContentType, PropResponseTopic, PropCorrelationData:
		return in(TypePublish) | inWill
	case PropWillDelay:
		return inWill
	case PropTopicAlias:
		return in(TypePublish)
	case PropSubscriptionID:
		return in(TypePublish, TypeSubscribe)
	case PropSessionExpiry:
		return in(TypeConnect, TypeConnack, TypeDisconnect)
	case PropRequestProblemInfo, PropRequestResponseInfo:
		return in(TypeConnect)
	case PropReceiveMaximum, PropTopicAliasMaximum, PropMaximumPacketSize:
		return in(TypeConnect, TypeConnack)
	case PropAssignedClientID, PropServerKeepAlive, PropResponseInfo, PropMaximumQoS, PropRetainAvailable,
		PropWildcardAvailable, PropSubscriptionIDAllowed, PropSharedAvailable:
		return in(TypeConnack)
	case PropServerReference:
		return in(TypeConnack, TypeDisconnect)
	case PropAuthMethod, PropAuthData:
		return in(TypeConnect, TypeConnack, TypeAuth)
	case PropReasonString:
		return in(TypeConnack, TypePuback, TypePubrec, TypePubrel, TypePubcomp, TypeSuback, TypeUnsuback, TypeDisconnect, TypeAuth)
	case PropUserProperty:
		return ^in(TypePingreq, TypePingresp)
	default:
		return 0
	}
}

// PropertySet tells which single-valued properties are present.
type PropertySet uint64

// Of returns a set of properties.
func Of(properties ...Property) PropertySet {
	var set PropertySet
	for _, p := range properties {
		set |= 1 << p
	}
	return set
}

// Has reports whether a property is present.
func (s PropertySet) Has(p Property) bool { return s&(1<<p) != 0 }

// lowest returns the property with the smallest identifier of a set.
func lowest(s PropertySet) Property { return Property(bits.TrailingZeros64(uint64(s))) }

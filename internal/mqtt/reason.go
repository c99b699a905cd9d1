package mqtt

import (
	"fmt"
	"slices"
)

// ReasonCode is the result of an operation in MQTT 5. Values from 0x80 on are
// failures.
type ReasonCode byte

// Reason codes of MQTT 5, chapter 2.4.
const (
	Success                     ReasonCode = 0x00
	GrantedQoS1                 ReasonCode = 0x01
	GrantedQoS2                 ReasonCode = 0x02
	DisconnectWithWill          ReasonCode = 0x04
	NoMatchingSubscribers       ReasonCode = 0x10
	NoSubscriptionExisted       ReasonCode = 0x11
	ContinueAuthentication      ReasonCode = 0x18
	ReAuthenticate              ReasonCode = 0x19
	UnspecifiedError            ReasonCode = 0x80
	MalformedPacket             ReasonCode = 0x81
	ProtocolError               ReasonCode = 0x82
	ImplementationSpecificError ReasonCode = 0x83
	UnsupportedProtocolVersion  ReasonCode = 0x84
	ClientIDNotValid            ReasonCode = 0x85
	BadUserNameOrPassword       ReasonCode = 0x86
	NotAuthorized               ReasonCode = 0x87
	ServerUnavailable           ReasonCode = 0x88
	ServerBusy                  ReasonCode = 0x89
	Banned                      ReasonCode = 0x8A
	ServerShuttingDown          ReasonCode = 0x8B
	BadAuthenticationMethod     ReasonCode = 0x8C
	KeepAliveTimeout            ReasonCode = 0x8D
	SessionTakenOver            ReasonCode = 0x8E
	TopicFilterInvalid          ReasonCode = 0x8F
	TopicNameInvalid            ReasonCode = 0x90
	PacketIDInUse               ReasonCode = 0x91
	PacketIDNotFound            ReasonCode = 0x92
	ReceiveMaximumExceeded      ReasonCode = 0x93
	TopicAliasInvalid           ReasonCode = 0x94
	PacketTooLarge              ReasonCode = 0x95
	MessageRateTooHigh          ReasonCode = 0x96
	QuotaExceeded               ReasonCode = 0x97
	AdministrativeAction        ReasonCode = 0x98
	PayloadFormatInvalid        ReasonCode = 0x99
	RetainNotSupported          ReasonCode = 0x9A
	QoSNotSupported             ReasonCode = 0x9B
	UseAnotherServer            ReasonCode = 0x9C
	ServerMoved                 ReasonCode = 0x9D
	SharedNotSupported          ReasonCode = 0x9E
	ConnectionRateExceeded      ReasonCode = 0x9F
	MaximumConnectTime          ReasonCode = 0xA0
	SubscriptionIDNotSupported  ReasonCode = 0xA1
	WildcardNotSupported        ReasonCode = 0xA2
)

// Return codes of a CONNACK before MQTT 5.
const (
	ReturnAccepted            byte = 0
	ReturnUnacceptableVersion byte = 1
	ReturnIdentifierRejected  byte = 2
	ReturnServerUnavailable   byte = 3
	ReturnBadCredentials      byte = 4
	ReturnNotAuthorized       byte = 5
)

// SubackFailure refuses one filter before MQTT 5.
const SubackFailure ReasonCode = 0x80

// Failed reports whether the code is an error.
func (c ReasonCode) Failed() bool { return c >= 0x80 }

// allowed reports whether a packet of type t may carry the code.
func (c ReasonCode) allowed(t Type) bool {
	switch t {
	case TypeConnack:
		return c == Success || c.Failed() && c <= ConnectionRateExceeded
	case TypePuback, TypePubrec:
		return oneOf(c, Success, NoMatchingSubscribers, UnspecifiedError, ImplementationSpecificError, NotAuthorized,
			TopicNameInvalid, PacketIDInUse, QuotaExceeded, PayloadFormatInvalid)
	case TypePubrel, TypePubcomp:
		return c == Success || c == PacketIDNotFound
	case TypeSuback:
		return oneOf(c, Success, GrantedQoS1, GrantedQoS2, UnspecifiedError, ImplementationSpecificError, NotAuthorized,
			TopicFilterInvalid, PacketIDInUse, QuotaExceeded, SharedNotSupported, SubscriptionIDNotSupported, WildcardNotSupported)
	case TypeUnsuback:
		return oneOf(c, Success, NoSubscriptionExisted, UnspecifiedError, ImplementationSpecificError, NotAuthorized,
			TopicFilterInvalid, PacketIDInUse)
	case TypeDisconnect:
		return c == Success || c == DisconnectWithWill || c >= UnspecifiedError && c <= WildcardNotSupported &&
			!oneOf(c, UnsupportedProtocolVersion, ClientIDNotValid, BadUserNameOrPassword, ServerUnavailable, Banned,
				BadAuthenticationMethod, PacketIDInUse, PacketIDNotFound)
	case TypeAuth:
		return oneOf(c, Success, ContinueAuthentication, ReAuthenticate)
	default:
		return false
	}
}

// oneOf reports whether c is among the codes.
func oneOf(c ReasonCode, codes ...ReasonCode) bool {
	return slices.Contains(codes, c)
}

// Error is a packet that cannot be accepted. Reason is what an MQTT 5 peer is
// told; Text is for the log.
type Error struct {
	Reason ReasonCode
	Text   string
}

// Error returns the text with the code.
func (e *Error) Error() string { return fmt.Sprintf("%s (0x%02X)", e.Text, byte(e.Reason)) }

// malformed is a packet whose bytes do not follow the encoding.
func malformed(text string) *Error { return &Error{Reason: MalformedPacket, Text: text} }

// violation is a packet that is well encoded and still forbidden.
func violation(text string) *Error { return &Error{Reason: ProtocolError, Text: text} }

package mqttstore

// The stored form of messages, for the fuzzer.
var (
	EncodeMessage = encodeMessage
	DecodeMessage = decodeMessage
)

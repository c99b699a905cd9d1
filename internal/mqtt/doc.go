// Package mqtt is the packet codec for MQTT 3.1, 3.1.1 and 5: framing over a
// caller's buffer, decoding through bounds-checked cursors and append-style
// encoding, for servers and clients alike. It owns what is well formed on the
// wire and nothing else: no sessions, no limits of a service, no I/O and no
// goroutines. Errors carry the reason code that MQTT 5 gives them.
//
// Topics and payloads of PUBLISH point into the buffer that was decoded; all
// other strings are copies.
package mqtt

// Package client is a small MQTT 3.1.1 and 5 client over any net.Conn, lean
// enough for thousands in one process. It owns one connection: no reconnect,
// no persistence, QoS 0 and 1. It knows no topics and no fleet.
//
// Goroutines: one reader for each client, which also calls OnMessage, and one
// runtime timer for keep-alive. Both end when Done is closed.
package client

// Package broker holds MQTT sessions: it admits connections, keeps their
// subscriptions, routes messages between them with QoS 0 and 1, watches
// keep-alive, publishes wills and says why each connection ended. Sessions and
// routing are separate for each account.
//
// It knows bytes, topics and time, and no fleet: who may connect, publish,
// subscribe and receive is asked of a Gatekeeper and the Guards it hands out,
// reserved topics are a Service's, and the life of sessions is told to an
// Observer. All of these are declared here and implemented elsewhere.
//
// Of this cut: every session ends with its connection (a client that asks for
// more gets session present 0 and, in MQTT 5, an expiry of 0 back, and one log
// line); retained messages, shared subscriptions and QoS 2 are refused in the
// terms of the protocol; a will is published at once, without its delay.
//
// Goroutines: one for each Serve call; a short-lived one for each connection
// until its CONNECT is answered; one reader for each session; a writer for a
// session only while its peer does not take what is sent, or, on connections
// that cannot be written without blocking, while there is something to write;
// one for the keep-alive wheel. Shutdown returns when all of them are gone.
// DESIGN.md tells the data flow and the locks.
package broker

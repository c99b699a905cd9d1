// Package broker holds MQTT sessions: it admits connections, keeps their
// subscriptions beyond the connection where clients ask for it, routes messages
// between them and keeps those that wait, retains messages, shares
// subscriptions, watches keep-alive, publishes wills and says why each
// connection ended. Sessions and routing are separate for each account.
//
// It knows bytes, topics and time, and no fleet: who may connect, publish,
// subscribe and receive is asked of a Gatekeeper and the Guards it hands out,
// reserved topics are a Service's, the life of sessions is told to an Observer,
// and a Keeper makes durable what must be. All of these are declared here and
// implemented elsewhere.
//
// Goroutines: one for each Serve call; a short-lived one for each connection
// until its CONNECT is answered; one reader for each connection; a writer
// for it only while its peer does not take what is sent, or, on connections
// that cannot be written without blocking, while there is something to write;
// one for the keep-alive wheel. Shutdown returns when all of them are gone.
// DESIGN.md tells the data flow and the locks.
package broker

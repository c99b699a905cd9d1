// Package inlet bounds what peers may take: how many connections are open at
// once, so that the store never runs out of files; how many of them do costly
// work at once (Gate) and begin it per second (Pace), so that one source cannot
// shut out all others nor a crowd those who are in; and how much one user may
// take in a time (Meter). It knows no protocol and no identity, and starts no
// goroutines; timers of the runtime drive a Pace while somebody waits.
package inlet

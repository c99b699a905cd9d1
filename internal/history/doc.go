// Package history keeps every connection of every client: when it began and
// ended, from where, as whom and why, and which connects were refused. It
// answers for one client id, for one thing, and for the whole fleet as of a
// past moment; DESIGN.md tells how. It is a projection of the event log with
// its own keys and retention: it knows no sessions and no transport, appends
// no events and changes nothing but its own records.
//
// Goroutines: none of its own. Apply and Rebuild run in the log's consumer;
// Run, the retention, blocks until its context ends.
package history

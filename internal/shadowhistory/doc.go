// Package shadowhistory keeps the versions of every shadow: who changed it when
// and how, what it was then, and what differs between two versions. It is a
// projection of the event log with its own keys and retention; DESIGN.md tells
// how. It changes no shadow: what a restore writes is package shadow's.
//
// Goroutines: none of its own. Apply runs in the log's consumer; Run, the
// retention, blocks until its context ends. It appends no events.
package shadowhistory

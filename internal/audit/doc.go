// Package audit keeps the trail of who did what: a record in the shape of
// CloudTrail's for each API call, each sign-in, each change of the settings and
// each change of credentials that no call asked for. DESIGN.md tells how.
//
// The trail is a projection of the event log with its own keys and retention. A
// record names the hash of the one before it, each account has its own chain,
// and the chain's head is signed. Recorder brings calls into the log: a call
// that changes something is reported in the commit of its first change, by way
// of the store that Recording returns; front ends begin and finish calls, the
// domains between know nothing of it. The package knows no transport and no
// engine, appends event.APICalled, event.ConfigurationChanged and nothing else.
//
// Goroutines: none of its own. Apply runs in the log's consumer; Recorder.Run,
// which writes the calls that changed nothing, and Service.Run, the retention,
// block until their context ends.
package audit

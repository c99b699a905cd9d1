// Package membership keeps who was in which group, static or dynamic, from when
// to when and why: who asked for it, or which value of the thing met which part
// of the group's query. It answers for one group, for one thing, and for a
// group as of a past moment. It is a projection of the event log with its own
// keys and retention: it decides no membership, knows no queries and no
// registry, appends no events and changes nothing but its own records.
//
// Goroutines: none of its own. Apply and Rebuild run in the log's consumer;
// Run, the retention, blocks until its context ends.
package membership

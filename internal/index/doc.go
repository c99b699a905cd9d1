// Package index is the fleet index: things and thing groups, searchable by the
// fleet query language, and the dynamic groups that follow from it.
//
// It owns the searchable form of what others own, in memory, and the one
// decision that is its own: which things are members of a dynamic group. It
// must not know wire shapes, storage keys or engines; documents come in by
// Builder (from the store) and by Apply (from the event log), results go out
// as names, and membership goes out through a Committer.
//
// The only goroutines are those with which Apply asks for the states of things
// that were registered; they end with it. One caller runs Builder and Apply, one
// runs Run, which rebuilds accounts whose configuration changed, and any number
// search. DESIGN.md tells how the parts fit together.
package index

// Package shadow owns device shadows, classic and named: what a request may
// contain, how it is merged, what difference remains, which version and times
// a document carries, and the documents that answer a request. State and event
// commit together.
//
// It knows no transport: topics, HTTP and numeric error codes belong to the
// front ends, which get ready-made documents from the results. It reads no
// registry except through the small Things interface.
//
// A document is a tree of nodes whose members are sorted by name and whose
// leaves carry the second of their last change; metadata is written from that
// tree and never stored on its own. Trees are immutable: a merge shares what it
// does not change.
//
// One writer at a time per shadow: a lock is held from before the document is
// read until after its commit. The package starts no goroutines.
package shadow

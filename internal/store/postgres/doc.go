// Package postgres is the storage engine on a PostgreSQL server, shared by any
// number of processes. It knows bytes and time, not fleets.
//
// One committer per process merges the batches that wait into one transaction
// of two round trips. The first locks the head row, which orders all
// committers, and reads the versions that the batches expect; Go decides; the
// second writes state, events and counters and commits. The lock is held until
// the commit, so sequences have no gaps and become visible in order.
//
// When the connection breaks while a commit is on its way, the committer
// reconnects, ends what is left of its old session, takes the lock and reads
// which of its groups was the last to commit. So callers learn the outcome;
// only when the server stays away is it store.ErrOutcomeUnknown.
//
// The server must be reached directly or through a pooler in session mode.
//
// Goroutines: the committer, a watcher that listens for events of other
// processes, and those of the connection pool. All end with Close.
package postgres

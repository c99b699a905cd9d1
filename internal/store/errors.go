package store

import "errors"

// More errors that engines return; test with errors.Is.
var (
	// ErrUnavailable is a call that did not reach the storage server. A commit
	// that fails with it was not applied, unless ErrOutcomeUnknown is in the
	// chain as well.
	ErrUnavailable = errors.New("store cannot be reached")
	// ErrOutcomeUnknown is a commit whose confirmation was lost and could not
	// be looked up: the batch may or may not have been applied.
	ErrOutcomeUnknown = errors.New("outcome of the commit is unknown")
	// ErrNotEmpty is a restore into a store that holds something.
	ErrNotEmpty = errors.New("store is not empty")
	// ErrRestoreUnfinished is a store whose restore was interrupted: what it
	// holds is not a state that ever was.
	ErrRestoreUnfinished = errors.New("restore of the store did not finish; restore into an empty one")
)

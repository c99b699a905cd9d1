package store

import (
	"errors"

	"github.com/muster-iot/muster/internal/fault"
)

// Fault gives the errors of a store the code and words that callers of a domain see;
// others pass. ErrConflict and ErrNotFound are for the domain to understand.
func Fault(err error) error {
	switch {
	case errors.Is(err, ErrDiskFull):
		return fault.Wrap(fault.Unavailable, err, "The server's storage is full")
	case errors.Is(err, ErrClosed):
		return fault.Wrap(fault.Unavailable, err, "The server is shutting down")
	case errors.Is(err, ErrUnavailable):
		return fault.Wrap(fault.Unavailable, err, "The server's storage cannot be reached")
	}
	return err
}

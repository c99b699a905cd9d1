package store

import (
	"context"
	"errors"

	"github.com/muster-iot/muster/internal/fault"
)

// maxAttempts bounds how often a command decides again after a race.
const maxAttempts = 16

// Attempt commits what decide returns. After a conflict it decides again, up to
// sixteen times in all, and is Throttling then. An empty batch is committed by doing
// nothing; an error of decide ends it.
func Attempt(ctx context.Context, s Store, decide func(context.Context) (Batch, error)) error {
	for range maxAttempts {
		b, err := decide(ctx)
		if err != nil {
			return err
		}
		if len(b.Writes) == 0 && len(b.Events) == 0 {
			return nil
		}
		if _, err := s.Commit(ctx, b); !errors.Is(err, ErrConflict) {
			return Fault(err)
		}
	}
	return fault.New(fault.Throttling, "Too many concurrent changes of the same resource; try again")
}

// Package objectstore has files in buckets: folders on this machine, which are read
// and written, or any store that speaks S3, which is read. Who may do what is
// decided by whoever asks; the package keeps accounts apart and stays inside its
// folder. It starts no goroutines of its own and emits no events.
package objectstore

import (
	"context"
	"errors"
	"io"

	"github.com/muster-iot/muster/internal/fleet"
)

// ErrNotFound is a bucket or key that does not exist.
var ErrNotFound = errors.New("object does not exist")

// Object is an open file.
type Object struct {
	io.ReadCloser

	// Size is in bytes.
	Size int64
	// Version is another one when the content is.
	Version string
}

// Store opens objects.
type Store interface {
	// Open returns an object of an account, or ErrNotFound.
	Open(ctx context.Context, account fleet.Account, bucket, key string) (Object, error)
}

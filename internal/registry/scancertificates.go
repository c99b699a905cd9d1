package registry

import (
	"context"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// EachCertificate calls fn with id and state of every certificate of every
// account, from what is usually a snapshot.
func EachCertificate(ctx context.Context, r store.Reader, fn func(account fleet.Account, id, status string) error) error {
	return each[certificateRecord](ctx, r, kindCertificate, func(account fleet.Account, id string, record *certificateRecord) error {
		return fn(account, id, record.Status)
	})
}

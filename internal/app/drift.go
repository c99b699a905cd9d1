package app

import (
	"context"

	"github.com/muster-iot/muster/internal/drift"
	"github.com/muster-iot/muster/internal/fault"
)

// newDrift joins what templates promised of things with what they are.
func (a *App) newDrift() *drift.Service {
	return drift.New(drift.Options{
		Registry: a.registry, Index: searched{a}, Permit: a.permitOn,
		DefaultVersion: func(ctx context.Context, of accountID, template string) (int64, error) {
			found, err := a.provisioning.DescribeTemplate(ctx, of, template)
			if fault.CodeOf(err) == fault.ResourceNotFound {
				return 0, nil
			}
			return found.DefaultVersion, err
		},
	})
}

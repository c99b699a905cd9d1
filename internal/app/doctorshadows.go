package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/store"
)

// checkVersions compares the newest version in the history of each shadow with the
// shadow. A history holds what events told: there is nothing to repair it from.
func (a *App) checkVersions(ctx context.Context, found func(finding)) (int, error) {
	snapshot, err := a.store.Snapshot(ctx)
	if err != nil {
		return 0, fmt.Errorf("freeze the store: %w", err)
	}
	defer snapshot.Close() //nolint:errcheck // a read-only view
	n, err := a.versions.Check(ctx, snapshot, func(of shadow.Document, detail string) {
		found(finding{account: of.Account, subject: fmt.Sprintf("%s shadow %q of %s", of.Account, of.Shadow, of.Thing), detail: detail})
	})
	return n, errors.Join(err, follow(ctx, a.followers.versions, snapshot.Cursor()))
}

// checkDrifts compares the rows of the drift report with the shadows.
func (a *App) checkDrifts(ctx context.Context, found func(finding)) (int, error) {
	snapshot, err := a.store.Snapshot(ctx)
	if err != nil {
		return 0, fmt.Errorf("freeze the store: %w", err)
	}
	defer snapshot.Close() //nolint:errcheck // a read-only view
	return shadow.CheckDrifts(ctx, snapshot, func(row store.Key, missing bool) {
		f := finding{key: row, subject: row.String(), have: "present", want: "absent", detail: "the shadow does not differ since then", repairable: true}
		if missing {
			f.have, f.want, f.detail = "absent", "present", "the shadow differs since then"
		}
		found(f)
	})
}

func (a *App) repairDrifts(ctx context.Context, _ []finding) error {
	return a.shadows.RepairDrifts(ctx)
}

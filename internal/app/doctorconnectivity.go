package app

import (
	"context"
	"fmt"

	"github.com/muster-iot/muster/internal/connectivity"
)

// checkStates compares connectivity states with presence, and their timers with
// the rows that wake them.
func (a *App) checkStates(ctx context.Context, found func(finding)) (int, error) {
	n, cursor, err := a.connectivity.Differences(ctx, func(d connectivity.Difference) {
		found(finding{
			account: d.Account, key: d.Key, subject: d.Key.String(), have: d.Have, want: d.Want, repairable: true,
			detail: fmt.Sprintf("is %s, should be %s", d.Have, d.Want),
		})
	})
	if err != nil {
		return n, err
	}
	return n, follow(ctx, a.followers.connectivity, cursor)
}

func (a *App) repairStates(ctx context.Context, findings []finding) error {
	return a.connectivity.Mend(ctx, keysOf(findings))
}

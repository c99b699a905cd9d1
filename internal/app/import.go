package app

import (
	"context"

	"github.com/muster-iot/muster/internal/fleet"
)

// permit asks whether the caller of /ops/v1 may do a further action.
func (a *App) permit(ctx context.Context, action, resource string) error {
	return a.accounts.Authorize(ctx, fleet.ActorFrom(ctx).Principal, action, resource)
}

// callerARN names a resource of the caller's account.
func (a *App) callerARN(ctx context.Context, kind, name string) string {
	return fleet.Scope{Region: a.settings.Region, Account: callerAccount(ctx)}.ARN(kind, name)
}

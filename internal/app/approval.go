package app

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/muster-iot/muster/internal/account"
	"github.com/muster-iot/muster/internal/approval"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// approvalSweepEvery is how often requests are looked at whose time is over.
const approvalSweepEvery = time.Minute

// newApprovals lets authorities decide who joins.
func (a *App) newApprovals() *approval.Service {
	return approval.New(approval.Options{
		Store: a.store, Functions: a.functions, People: operatorGroups{a.accounts}, Certificates: a.registry, Templates: templateAuthors{a},
		Lists:          a.allowLists,
		RequireBinding: a.settings.Provisioning.RequireBinding, Patience: a.settings.Provisioning.ApprovalWindow,
		Now: now, NewID: uuid.NewString, Logger: a.component("approval"), Registerer: a.metrics,
	})
}

// templateAuthors asks provisioning, which is joined after approvals.
type templateAuthors struct{ app *App }

// Author implements approval.Templates.
func (t templateAuthors) Author(ctx context.Context, of fleet.Account, template string) (string, error) {
	if ca, ok := strings.CutPrefix(template, approval.CATarget); ok {
		_, err := t.app.registry.DescribeCACertificate(ctx, of, ca)
		return "", err
	}
	return t.app.provisioning.Author(ctx, of, template)
}

// operatorGroups are the user groups of accounts.
type operatorGroups struct{ accounts *account.Service }

// HasGroup implements approval.People.
func (o operatorGroups) HasGroup(ctx context.Context, of fleet.Account, group string) (bool, error) {
	_, err := o.accounts.Group(ctx, of, group)
	if code := fault.CodeOf(err); code == fault.ResourceNotFound || code == fault.InvalidRequest {
		return false, nil
	}
	return err == nil, err
}

// IsMember implements approval.People. The root of an account is in no group.
func (o operatorGroups) IsMember(ctx context.Context, of fleet.Account, group string, who fleet.Principal) (bool, error) {
	if who.Kind != fleet.PrincipalUser || !strings.Contains(who.ARN, ":user/") {
		return false, nil
	}
	user, err := o.accounts.User(ctx, of, who.ID)
	if fault.CodeOf(err) == fault.ResourceNotFound {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for _, name := range user.Groups {
		if name == group && user.ARN == who.ARN {
			return true, nil
		}
	}
	return false, nil
}

// sweepApprovals ends what has waited too long.
func (a *App) sweepApprovals(ctx context.Context) error {
	tick := time.NewTicker(approvalSweepEvery)
	defer tick.Stop()
	for {
		if err := a.approvals.Sweep(ctx); err != nil && ctx.Err() == nil {
			a.component("approval").ErrorContext(ctx, "approvals whose time is over are not ended", slog.Any("err", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

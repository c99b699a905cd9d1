package app

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/bulkedit"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/shadow"
)

// newBulkEdits joins edits by query.
func (a *App) newBulkEdits() *bulkedit.Service {
	return bulkedit.New(bulkedit.Options{
		Store: a.store, Registry: a.registry, Shadows: editedShadows{a}, Index: searched{a}, Drift: a.drift, Decommissioner: a.newDecommission(),
		Tokens: a.tokens, Permit: a.permitOn,
		PerSecond: a.settings.BulkEdit.ThingsPerSecond, RetentionAge: a.settings.BulkEdit.RetentionAge,
		Now: now, NewID: uuid.NewString, Logger: a.component("bulkedit"), Registerer: a.metrics,
	})
}

// permitOn asks whether the caller may do an action to a resource of an account.
func (a *App) permitOn(ctx context.Context, of fleet.Account, action, kind, name string) error {
	resource := awsapi.AnyResource
	if kind != "" {
		resource = fleet.Scope{Region: a.settings.Region, Account: of}.ARN(kind, name)
	}
	return a.permit(ctx, action, resource)
}

// editedShadows are shadows whose devices are told of each update.
type editedShadows struct{ app *App }

// Desired implements bulkedit.Shadows.
func (e editedShadows) Desired(ctx context.Context, account fleet.Account, thing, name string) (json.RawMessage, error) {
	document, err := e.app.shadows.Get(ctx, account, thing, name)
	if fault.CodeOf(err) == fault.ResourceNotFound {
		return json.RawMessage("{}"), nil
	}
	if err != nil {
		return nil, err
	}
	return document.Desired(), nil
}

// Update implements bulkedit.Shadows.
func (e editedShadows) Update(ctx context.Context, c shadow.UpdateCommand) (*shadow.Updated, error) {
	c.Committed = func(u *shadow.Updated) { e.app.topics.AnnounceUpdate(ctx, u) }
	return e.app.shadows.Update(ctx, c)
}

// ThingDeleted implements bulkedit.Shadows.
func (e editedShadows) ThingDeleted(ctx context.Context, account fleet.Account, thing string) error {
	if !e.app.settings.Registry.DeleteShadowsWithThing {
		return nil
	}
	_, err := e.app.shadows.DeleteAll(ctx, account, thing)
	return err
}

// searchPatience bounds how long a preview waits for the index to follow the log.
const searchPatience = 10 * time.Second

// searched is the fleet index for edits.
type searched struct{ app *App }

// Fresh implements bulkedit.Index.
func (s searched) Fresh(ctx context.Context) error {
	head, err := s.app.store.Head(ctx)
	if err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, searchPatience)
	defer cancel()
	if err := s.app.index.WaitApplied(within, head); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fault.Wrap(fault.IndexNotReady, err, "the index is being built, or behind; try again")
	}
	return nil
}

// Count implements bulkedit.Index.
func (s searched) Count(account fleet.Account, query string) (int, error) {
	q, err := s.app.index.ParseThings(query)
	if err != nil {
		return 0, err
	}
	return s.app.index.Count(account, q)
}

// Find implements bulkedit.Index.
func (s searched) Find(account fleet.Account, query, after string, limit int) (names []string, next string, err error) {
	q, err := s.app.index.ParseThings(query)
	if err != nil {
		return nil, "", err
	}
	return s.app.index.Search(account, q, after, limit)
}

package app

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/google/uuid"

	"github.com/muster-iot/muster/internal/allowlist"
)

// joinAllowLists keeps what suppliers have made.
func (a *App) joinAllowLists(context.Context) error {
	identity, err := allowListIdentity(a.settings.AllowList.IdentityFile)
	if err != nil {
		return err
	}
	a.allowLists = allowlist.New(allowlist.Options{
		Store: a.store, Identity: identity, Now: now, NewID: uuid.NewString, Logger: a.component("allowlist"), Registerer: a.metrics,
	})
	return nil
}

// allowListIdentity reads the file that opens lists; nil without one.
func allowListIdentity(path string) (*allowlist.Identity, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // an installation without lists is no mistake
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("allow-list.identity-file: %w", err)
	}
	identity, err := allowlist.ParseIdentity(text)
	if err != nil {
		return nil, fmt.Errorf("allow-list.identity-file: %s: %w", path, err)
	}
	return identity, nil
}

// allowListsResumeEvery is how often work is looked for that was interrupted.
const allowListsResumeEvery = time.Minute

// resumeAllowLists goes on with what the end of a process has interrupted.
func (a *App) resumeAllowLists(ctx context.Context) error {
	tick := time.NewTicker(allowListsResumeEvery)
	defer tick.Stop()
	for {
		if err := a.allowLists.Resume(ctx); err != nil && ctx.Err() == nil {
			a.component("allowlist").ErrorContext(ctx, "allow lists that were being accepted or deleted are not finished", slog.Any("err", err))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

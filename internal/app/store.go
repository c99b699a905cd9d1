package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/config"
	"github.com/muster-iot/muster/internal/datadir"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
	"github.com/muster-iot/muster/internal/store/postgres"
)

// restorable is an engine that can be filled from a checkpoint.
type restorable interface {
	store.Store
	Restore(ctx context.Context, r io.Reader) error
}

// openStore opens the engine that the settings name.
func openStore(ctx context.Context, s config.Settings, dir *datadir.Dir, log *slog.Logger, r prometheus.Registerer) (restorable, error) {
	if s.StoreEngine() != config.StorePebble {
		engine, err := postgres.Open(ctx, postgres.Options{URL: s.Store, Logger: log, Registerer: r})
		if err != nil {
			return nil, fmt.Errorf("open PostgreSQL store: %w", err)
		}
		return engine, nil
	}
	folder, err := dir.Sub(datadir.StoreDir)
	if err != nil {
		return nil, err
	}
	return embedded.Open(embedded.Options{Dir: folder, Logger: log, Registerer: r})
}

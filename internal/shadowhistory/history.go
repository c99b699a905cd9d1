package shadowhistory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/store"
)

// Shadows is the part of the shadow service that the history needs.
type Shadows interface {
	// Peek returns a shadow as it is, ResourceNotFound for none.
	Peek(ctx context.Context, account fleet.Account, thing, shadow string) (shadow.Document, error)
	Restore(ctx context.Context, cmd shadow.RestoreCommand) (*shadow.Updated, error)
}

// Options of New.
type Options struct {
	Store   store.Store
	Shadows Shadows
	// CatchUp returns when the history holds what the log held when it was
	// called, or with an error when that takes too long.
	CatchUp func(ctx context.Context) error
	// Versions is how many of the newest versions of a shadow are kept at least;
	// 0 keeps no history.
	Versions int
	// Age is how long versions are kept, and Bytes how much for each account; 0
	// is no limit.
	Age    time.Duration
	Bytes  uint64
	Now    func() time.Time
	Logger *slog.Logger
	// Registerer is optional.
	Registerer prometheus.Registerer
}

// Service is the shadow history of all accounts.
type Service struct {
	o       Options
	store   store.Store
	trimmed prometheus.Counter
	bytes   *prometheus.GaugeVec
}

// New returns a service over the records in a store.
func New(o Options) *Service {
	s := &Service{
		o: o, store: o.Store,
		trimmed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_shadow_history_trimmed_total", Help: "Entries of the shadow history removed by age or size.",
		}),
		bytes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "muster_shadow_history_bytes", Help: "Size of the shadow history at the last look of retention.",
		}, []string{"account"}),
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(s.trimmed, s.bytes)
	}
	return s
}

// readTotal reads one of an account's two counts.
func readTotal(ctx context.Context, r store.Reader, kind string, account fleet.Account) (t total, err error) {
	key := store.K(kind, string(account))
	stored, err := r.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return total{Schema: schema}, nil
	}
	if err != nil {
		return t, fmt.Errorf("read %s: %w", key, err)
	}
	if err := json.Unmarshal(stored.Value, &t); err != nil {
		return t, fmt.Errorf("decode %s: %w", key, err)
	}
	t.version = stored.Version
	return t, nil
}

// writeTotal adds a count to the batch, unless somebody else has written it.
func writeTotal(b *store.Batch, kind string, account fleet.Account, t total) error {
	key := store.K(kind, string(account))
	value, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	b.Expect = append(b.Expect, store.Expect{Key: key, Version: t.version})
	b.Writes = append(b.Writes, store.Write{Key: key, Value: value})
	return nil
}

// kept is how many bytes of an account there are.
func kept(filed, gone total) uint64 {
	if gone.Bytes > filed.Bytes {
		return 0
	}
	return filed.Bytes - gone.Bytes
}

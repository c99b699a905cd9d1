package membership

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Live is a membership as the registry has it.
type Live struct {
	Account      fleet.Account
	Group, Thing string
	Dynamic      bool
}

// Options of New.
type Options struct {
	Store store.Store
	// Live lists the memberships in the state that r shows. Rebuild asks it for
	// what the log no longer tells.
	Live func(ctx context.Context, r store.Reader, fn func(Live) error) error
	// RetentionAge is how long entries are kept after their end, and
	// RetentionBytes how much of them for each account.
	RetentionAge   time.Duration
	RetentionBytes uint64
	Now            func() time.Time
	Logger         *slog.Logger
	// Registerer is optional.
	Registerer prometheus.Registerer
}

// Service is the history of all accounts' memberships.
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
			Name: "muster_membership_trimmed_total", Help: "Entries of the membership history removed by age or size.",
		}),
		bytes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "muster_membership_bytes", Help: "Size of the ended entries of the membership history at the last look of retention.",
		}, []string{"account"}),
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(s.trimmed, s.bytes)
	}
	return s
}

// applied says which events are in the records.
type applied struct {
	Schema int    `json:"v"`
	Cursor string `json:"cursor"`
	// CompleteSince is when the newest gap in the events ended.
	CompleteSince int64 `json:"completeSince,omitempty"`

	cursor  store.Cursor
	version uint64
}

// total counts entries and their bytes.
type total struct {
	Schema  int    `json:"v"`
	Entries uint64 `json:"entries"`
	Bytes   uint64 `json:"bytes"`
	// CompleteSince is, of trimmed entries, the newest end.
	CompleteSince int64 `json:"completeSince,omitempty"`

	version uint64
}

// read decodes a record into v and returns its version, 0 when there is none.
func read(ctx context.Context, r store.Reader, key store.Key, v any) (version uint64, err error) {
	stored, err := r.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", key, err)
	}
	if err := json.Unmarshal(stored.Value, v); err != nil {
		return 0, fmt.Errorf("decode %s: %w", key, err)
	}
	return stored.Version, nil
}

// write adds a record to the batch, unless somebody else has written it.
func write(b *store.Batch, key store.Key, version uint64, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	b.Expect = append(b.Expect, store.Expect{Key: key, Version: version})
	b.Writes = append(b.Writes, store.Write{Key: key, Value: value})
	return nil
}

// readApplied reads how far the records are.
func readApplied(ctx context.Context, r store.Reader) (a applied, err error) {
	if a.version, err = read(ctx, r, store.K(kindApplied), &a); err != nil {
		return a, err
	}
	a.cursor, err = store.ParseCursor(a.Cursor)
	return a, err //nolint:wrapcheck // it says what it is
}

// readTotal reads one of an account's two counts.
func readTotal(ctx context.Context, r store.Reader, kind string, account fleet.Account) (t total, err error) {
	t.version, err = read(ctx, r, store.K(kind, string(account)), &t)
	return t, err
}

// CompleteSince is the time from which on the history knows all memberships of
// an account; zero when it knows those of all times.
func (s *Service) CompleteSince(ctx context.Context, account fleet.Account) (time.Time, error) {
	done, err := readApplied(ctx, s.store)
	if err != nil {
		return time.Time{}, err
	}
	gone, err := readTotal(ctx, s.store, kindTrimmed, account)
	return timeOf(max(done.CompleteSince, gone.CompleteSince)), err
}

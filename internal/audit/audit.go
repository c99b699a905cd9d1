package audit

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Options of New.
type Options struct {
	Store  store.Store
	Region string
	// DefaultAccount has the records that are of no account.
	DefaultAccount fleet.Account
	// Seed is SeedSize secret bytes, the same after a restart; heads are signed
	// with the key that it makes.
	Seed []byte
	// CatchUp returns when the trail holds what the log held when it was called.
	CatchUp func(ctx context.Context) error
	// RetentionAge is how long records are kept, 0 for ever.
	RetentionAge time.Duration
	Now          func() time.Time
	Logger       *slog.Logger
	// Registerer is optional.
	Registerer prometheus.Registerer
}

// Service is the trails of all accounts. It is safe for concurrent use.
type Service struct {
	o       Options
	store   store.Store
	key     ed25519.PrivateKey
	records prometheus.Counter
	trimmed prometheus.Counter
	// closed ends the followers.
	closed chan struct{}
}

// New returns a service over the records in a store.
func New(o Options) (*Service, error) {
	if len(o.Seed) != SeedSize {
		return nil, fmt.Errorf("audit: the seed has %d bytes instead of %d", len(o.Seed), SeedSize)
	}
	s := &Service{
		o: o, store: o.Store, key: ed25519.NewKeyFromSeed(o.Seed), closed: make(chan struct{}),
		records: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_audit_records_total", Help: "Records that were added to the audit trails.",
		}),
		trimmed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_audit_trimmed_total", Help: "Records of the audit trails removed by age.",
		}),
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(s.records, s.trimmed)
	}
	return s, nil
}

// Close ends those who follow a trail. It must be called once at most.
func (s *Service) Close(context.Context) error {
	close(s.closed)
	return nil
}

// Head is the signed end of an account's chain.
func (s *Service) Head(ctx context.Context, account fleet.Account) (Head, error) {
	if err := s.catchUp(ctx); err != nil {
		return Head{}, err
	}
	h, version, err := readHead(ctx, s.store, headKey(account), headOf, account)
	if err == nil && version == 0 {
		return sign(s.key, h, s.o.Now())
	}
	return h, err
}

// catchUp lets an answer hold every call that ended before it was asked for.
func (s *Service) catchUp(ctx context.Context) error {
	if s.o.CatchUp == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, catchUpPatience)
	defer cancel()
	if err := s.o.CatchUp(ctx); err != nil {
		return fault.Wrap(fault.Unavailable, err, "the audit trail is behind; try again")
	}
	return nil
}

// catchUpPatience bounds how long an answer waits for the projection.
const catchUpPatience = 10 * time.Second

// Accounts are those that have a trail.
func (s *Service) Accounts(ctx context.Context) ([]fleet.Account, error) {
	var accounts []fleet.Account
	err := s.store.Scan(ctx, store.Under(kindHead), func(stored store.Record) error {
		accounts = append(accounts, fleet.Account(stored.Key.Last()))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list audit trails: %w", err)
	}
	return accounts, nil
}

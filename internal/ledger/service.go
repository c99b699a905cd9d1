package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Options of New; all are required unless said otherwise.
type Options struct {
	Store store.Store
	// Key is KeySize secret bytes, the same after a restart: ends of chains are sealed
	// with it.
	Key []byte
	// DeviceKey is the key that a provisioning plan gives the device of an event, empty
	// when no plan applies.
	DeviceKey func(ctx context.Context, account fleet.Account, e event.DeviceProvisioned) (string, error)
	// Witnessed are the ends that the audit trail was told of, as far as it can be
	// asked; optional.
	Witnessed func(ctx context.Context, account fleet.Account) ([]Head, error)
	// CatchUp returns when the ledger holds what the log held when it was called;
	// optional.
	CatchUp func(ctx context.Context) error
	// TrustClaims lets a claim or an authority of an operator speak for the devices that
	// join by it.
	TrustClaims bool
	Now         func() time.Time
	Logger      *slog.Logger
	// Registerer is optional.
	Registerer prometheus.Registerer
}

// Service is the ledgers of all accounts. It is safe for concurrent use.
type Service struct {
	o       Options
	entries prometheus.Counter
	rogues  *prometheus.CounterVec
}

// New returns a Service, or an error that names what Options lacks.
func New(o Options) (*Service, error) {
	for _, r := range []struct {
		missing bool
		name    string
	}{
		{o.Store == nil, "Store"},
		{o.DeviceKey == nil, "DeviceKey"},
		{o.Now == nil, "Now"},
		{o.Logger == nil, "Logger"},
	} {
		if r.missing {
			return nil, errors.New("ledger options lack " + r.name)
		}
	}
	if len(o.Key) != KeySize {
		return nil, fmt.Errorf("ledger: the key has %d bytes instead of %d", len(o.Key), KeySize)
	}
	s := &Service{
		o: o,
		entries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_ledger_entries_total", Help: "Entries that were added to the ledgers of devices.",
		}),
		rogues: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_ledger_rogues_total", Help: "Devices that nobody made: those that joined, and those that were refused when they tried.",
		}, []string{"kind"}),
	}
	for _, kind := range []RogueKind{RogueJoined, RogueAttempt} {
		s.rogues.WithLabelValues(string(kind)) // an alarm must see the first one
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(s.entries, s.rogues)
	}
	return s, nil
}

package bulkedit

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/store"
)

// Registry changes things.
type Registry interface {
	Things(ctx context.Context, account fleet.Account, names []string) ([]registry.Thing, error)
	EditThing(ctx context.Context, account fleet.Account, c registry.EditCommand) (registry.Edited, error)
	RemoveThing(ctx context.Context, account fleet.Account, c registry.RemoveCommand) (registry.Thing, error)
	RestoreThing(ctx context.Context, account fleet.Account, c registry.RestoreCommand) (registry.Thing, error)
}

// Shadows changes shadows, and tells the devices.
type Shadows interface {
	// Desired is {} for a shadow that does not exist.
	Desired(ctx context.Context, account fleet.Account, thing, shadow string) (json.RawMessage, error)
	Update(ctx context.Context, c shadow.UpdateCommand) (*shadow.Updated, error)
	// ThingDeleted removes what goes with a thing; it may be repeated.
	ThingDeleted(ctx context.Context, account fleet.Account, thing string) error
}

// Index finds things.
type Index interface {
	// Fresh returns when the index holds all that was committed before the call.
	Fresh(ctx context.Context) error
	Count(account fleet.Account, query string) (int, error)
	Find(account fleet.Account, query, after string, limit int) (names []string, next string, err error)
}

// Decommissioner takes things out of service.
type Decommissioner interface {
	Decommission(ctx context.Context, account fleet.Account, c registry.DecommissionCommand) (registry.PastThing, error)
}

// Tokens seals confirmations.
type Tokens interface {
	Seal(account fleet.Account, operation string, filter []string, last string, now time.Time) string
	Open(account fleet.Account, operation string, filter []string, token string, now time.Time) (string, error)
}

// Options of New.
type Options struct {
	Store          store.Store
	Registry       Registry
	Shadows        Shadows
	Index          Index
	Drift          Drift
	Decommissioner Decommissioner
	Tokens         Tokens
	// Permit asks whether the caller in the context may do an action of AWS or
	// Muster to a resource of the account; an empty kind is any resource.
	Permit func(ctx context.Context, account fleet.Account, action, kind, name string) error
	// PerSecond is how many things all edits together work on in a second.
	PerSecond int
	// RetentionAge is how long finished edits are kept.
	RetentionAge time.Duration
	Now          func() time.Time
	// NewID returns a fresh id.
	NewID  func() string
	Logger *slog.Logger
	// Registerer is optional.
	Registerer prometheus.Registerer
}

// Service is the bulk edits of all accounts.
type Service struct {
	o     Options
	pace  *rate.Limiter
	count *prometheus.CounterVec
	// wake tells Run that an edit may be worked on.
	wake chan struct{}
	// mu guards running and selecting.
	mu      sync.Mutex
	running map[place]*runner
	// selecting are the edits that a call is about to begin.
	selecting map[place]bool
}

// place finds an edit.
type place struct {
	account fleet.Account
	id      string
}

// New returns a service; Run does the work.
func New(o Options) *Service {
	s := &Service{
		o: o, pace: rate.NewLimiter(rate.Limit(o.PerSecond), 1), wake: make(chan struct{}, 1), running: map[place]*runner{}, selecting: map[place]bool{},
		count: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_bulk_edit_things_total", Help: "Things that bulk edits have worked on, by what became of them.",
		}, []string{"outcome"}),
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(s.count)
	}
	return s
}

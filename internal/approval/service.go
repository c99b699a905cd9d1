package approval

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Functions runs what authorities name.
type Functions interface {
	// Has reports whether the operator has configured a function of that name.
	Has(name string) bool
	// Invoke gives a function its input and returns its answer unread, within the
	// limit.
	Invoke(ctx context.Context, name string, input []byte, limit time.Duration) ([]byte, error)
}

// People knows who is in which group.
type People interface {
	// HasGroup reports whether an account has a user group.
	HasGroup(ctx context.Context, account fleet.Account, group string) (bool, error)
	// IsMember reports whether a principal is a user in a group.
	IsMember(ctx context.Context, account fleet.Account, group string, who fleet.Principal) (bool, error)
}

// Certificates keeps what waits for a decision.
type Certificates interface {
	// Prolong lets a certificate wait for its device until a time, in one commit
	// with a batch; one that does not wait by a token is left as it is.
	Prolong(ctx context.Context, account fleet.Account, id string, until time.Time, joined store.Batch) error
}

// Templates knows the provisioning templates.
type Templates interface {
	// Author returns the ARN of who has made or last changed a template, empty when
	// nobody knows, and a fault when there is no such template. Of a CATarget it is
	// empty, and a fault when there is no such authority.
	Author(ctx context.Context, account fleet.Account, template string) (string, error)
}

// Options are what a Service needs; all are required unless said otherwise.
type Options struct {
	Store        store.Store
	Functions    Functions
	People       People
	Certificates Certificates
	Templates    Templates
	Lists        Lists
	// RequireBinding refuses devices of templates without a binding.
	RequireBinding bool
	// Patience is how long a request waits where the binding does not say.
	Patience time.Duration
	Now      func() time.Time
	// NewID returns a fresh UUID.
	NewID  func() string
	Logger *slog.Logger
	// Registerer is optional.
	Registerer prometheus.Registerer
}

// AskLimit bounds the wait for functions.
const AskLimit = 5 * time.Second

// Service keeps the approvals of all accounts. It is safe for concurrent use.
type Service struct {
	o         Options
	decisions *prometheus.CounterVec
}

// New returns a Service.
func New(o Options) *Service {
	s := &Service{o: o, decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "muster_approvals_total",
		Help: "Decisions about devices that want to join by a template with a binding, by outcome.",
	}, []string{"outcome"})}
	if o.Registerer != nil {
		o.Registerer.MustRegister(s.decisions)
	}
	return s
}

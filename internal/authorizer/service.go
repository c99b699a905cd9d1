package authorizer

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Functions runs what authorizers name.
type Functions interface {
	// Has reports whether the operator has configured a function of that name.
	Has(name string) bool
	// Invoke gives a function its input and returns its answer unread, within
	// the limit.
	Invoke(ctx context.Context, name string, input []byte, limit time.Duration) ([]byte, error)
}

// Quotas of AWS, and the time that it gives a function.
const (
	// MaxAuthorizers is the number of authorizers of an account.
	MaxAuthorizers = 10
	// MaxKeys is the number of keys that sign tokens for one authorizer.
	MaxKeys = 2
	// InvokeLimit bounds an invocation.
	InvokeLimit = 5 * time.Second
)

// Options are what a Service needs; all are required unless said otherwise.
type Options struct {
	Store store.Store
	// Region is the one region of this installation, a part of every ARN.
	Region    string
	Functions Functions
	// IsBusy tells a function that has no time now from one that failed.
	IsBusy func(error) bool
	Now    func() time.Time
	// NewID returns a fresh UUID.
	NewID  func() string
	Logger *slog.Logger
	// Registerer is optional.
	Registerer prometheus.Registerer
}

// Service answers for the authorizers of every account. It is safe for
// concurrent use.
type Service struct {
	store     store.Store
	region    string
	functions Functions
	isBusy    func(error) bool
	now       func() time.Time
	newID     func() string
	log       *slog.Logger
	attempts  *prometheus.CounterVec
}

// New returns a Service, or an error that names what Options lacks.
func New(o Options) (*Service, error) {
	required := []struct {
		missing bool
		name    string
	}{
		{o.Store == nil, "Store"},
		{o.Region == "", "Region"},
		{o.Functions == nil, "Functions"},
		{o.IsBusy == nil, "IsBusy"},
		{o.Now == nil, "Now"},
		{o.NewID == nil, "NewID"},
		{o.Logger == nil, "Logger"},
	}
	for _, r := range required {
		if r.missing {
			return nil, errors.New("authorizer options lack " + r.name)
		}
	}
	s := &Service{
		store: o.Store, region: o.Region, functions: o.Functions, isBusy: o.IsBusy, now: o.Now, newID: o.NewID, log: o.Logger,
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_custom_authentications_total",
			Help: "Callers that brought credentials for a custom authorizer, by what became of them.",
		}, []string{"outcome"}),
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(s.attempts)
	}
	return s, nil
}

// scope is the region and account in which an account's names are meant.
func (s *Service) scope(account fleet.Account) fleet.Scope {
	return fleet.Scope{Region: s.region, Account: account}
}

package onboarding

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Seen is a connection with a certificate.
type Seen struct {
	Account       fleet.Account
	CertificateID string
	ClientID      string
	At            time.Time
}

// Options of New; all are required unless said otherwise.
type Options struct {
	Store store.Store
	// Holds asks whether a thing matches a fleet query, in an index that has seen
	// all that was committed before the call. An error decides nothing.
	Holds func(ctx context.Context, account fleet.Account, thing, query string) (bool, error)
	// Connections tells the newest connection of every client that has a
	// certificate, as a state of the store knows it: for a follower that has missed
	// some.
	Connections func(ctx context.Context, r store.Reader, fn func(Seen) error) error
	Now         func() time.Time
	Logger      *slog.Logger
	// Registerer is optional.
	Registerer prometheus.Registerer
}

// Service is the plans and the devices of all accounts. It is safe for concurrent
// use.
type Service struct {
	o      Options
	stuck  *prometheus.GaugeVec
	failed prometheus.Counter
}

// New returns a Service, or an error that names what Options lacks.
func New(o Options) (*Service, error) {
	required := []struct {
		missing bool
		name    string
	}{
		{o.Store == nil, "Store"},
		{o.Holds == nil, "Holds"},
		{o.Connections == nil, "Connections"},
		{o.Now == nil, "Now"},
		{o.Logger == nil, "Logger"},
	}
	for _, r := range required {
		if r.missing {
			return nil, errors.New("onboarding options lack " + r.name)
		}
	}
	s := &Service{
		o: o,
		stuck: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "muster_onboarding_stuck",
			Help: "Devices that are in a stage of their provisioning plan for longer than its limit, by account and stage.",
		}, []string{"account", "stage"}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_onboarding_criteria_failed_total",
			Help: "Exit criteria of provisioning plans that did not come to hold in time.",
		}),
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(s.stuck, s.failed)
	}
	return s, nil
}

// envelope is an event of now.
func (s *Service) envelope(ctx context.Context, account fleet.Account, e event.Event) event.Envelope {
	return event.Envelope{Account: account, At: s.o.Now(), Actor: fleet.ActorFrom(ctx), Event: e}
}

// commit decides a change until its batch commits.
func (s *Service) commit(ctx context.Context, decide func() (store.Batch, error)) error {
	return store.Attempt(ctx, s.o.Store, func(context.Context) (store.Batch, error) {
		b, err := decide()
		return b, store.Fault(err)
	})
}

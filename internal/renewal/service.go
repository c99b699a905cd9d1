package renewal

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// retentionAge is how long an ended renewal is kept: as long as the audit trail
	// is by default.
	retentionAge = 400 * 24 * time.Hour
	// maxUnproven bounds the renewals of one thing that have no proof: what asks
	// again and again does not keep what it gets.
	maxUnproven = 100
)

// Registry ends certificates.
type Registry interface {
	// ReplaceCertificates and CanReplace answer *registry.NotReplacedError for a new
	// certificate that does not let its device act as the thing.
	ReplaceCertificates(ctx context.Context, account fleet.Account, c registry.ReplaceCommand) error
	CanReplace(ctx context.Context, account fleet.Account, thing, id string) error
}

// Seen is a connection with a certificate.
type Seen struct {
	Account       fleet.Account
	CertificateID string
	At            time.Time
	ClientID      string
	ConnectionID  string
	Address       string
}

// Options of New; all are required unless said otherwise.
type Options struct {
	Store    store.Store
	Registry Registry
	// Overlap is how long the old certificate is good after the proof.
	Overlap time.Duration
	// Patience is how long a renewal waits for its proof before it counts as
	// unproven.
	Patience time.Duration
	// Connections tells the newest connection of every client, as a state of the
	// store knows it: for a follower that has missed some.
	Connections func(ctx context.Context, r store.Reader, fn func(Seen) error) error
	// CatchUp waits until Apply has seen all that the log holds: what ends when its
	// time is over may have been proven meanwhile.
	CatchUp func(ctx context.Context) error
	Now     func() time.Time
	Logger  *slog.Logger
	// Registerer is optional.
	Registerer prometheus.Registerer
}

// Service is the renewals of all accounts. It is safe for concurrent use.
type Service struct {
	o     Options
	steps *prometheus.CounterVec
}

// New returns a Service, or an error that names what Options lacks.
func New(o Options) (*Service, error) {
	required := []struct {
		missing bool
		name    string
	}{
		{o.Store == nil, "Store"},
		{o.Registry == nil, "Registry"},
		{o.Overlap <= 0, "Overlap"},
		{o.Patience <= 0, "Patience"},
		{o.Connections == nil, "Connections"},
		{o.CatchUp == nil, "CatchUp"},
		{o.Now == nil, "Now"},
		{o.Logger == nil, "Logger"},
	}
	for _, r := range required {
		if r.missing {
			return nil, errors.New("renewal options lack " + r.name)
		}
	}
	s := &Service{o: o, steps: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "muster_certificate_renewals_total",
		Help: "Steps of certificate renewals after their beginning, by step.",
	}, []string{"step"})}
	if o.Registerer != nil {
		o.Registerer.MustRegister(s.steps)
	}
	return s, nil
}

package certprovider

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Functions runs what providers name.
type Functions interface {
	// Has reports whether the operator has configured a function of that name.
	Has(name string) bool
	// Invoke gives a function its input and returns its answer unread, within
	// the limit.
	Invoke(ctx context.Context, name string, input []byte, limit time.Duration) ([]byte, error)
}

// Authorities knows who may sign for an account.
type Authorities interface {
	// Vouched reads a certificate and finds the active registered authority that
	// has signed it.
	Vouched(ctx context.Context, account fleet.Account, certificatePEM string) (c *x509.Certificate, ca string, err error)
}

// InvokeLimit bounds an invocation, as for the other functions that devices wait
// for.
const InvokeLimit = 5 * time.Second

// Options are what a Service needs; all are required unless said otherwise.
type Options struct {
	Store store.Store
	// Region is the one region of this installation, a part of every ARN.
	Region      string
	Functions   Functions
	Authorities Authorities
	// IsBusy tells a function that has no time now from one that failed, IsLate
	// one that did not answer in time.
	IsBusy, IsLate func(error) bool
	Now            func() time.Time
	// Registerer is optional.
	Registerer prometheus.Registerer
}

// Service answers for the certificate providers of every account. It is safe for
// concurrent use.
type Service struct {
	o Options
	// requests are those of devices, by what became of them.
	requests *prometheus.CounterVec
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
		{o.Authorities == nil, "Authorities"},
		{o.IsBusy == nil, "IsBusy"},
		{o.IsLate == nil, "IsLate"},
		{o.Now == nil, "Now"},
	}
	for _, r := range required {
		if r.missing {
			return nil, errors.New("certificate provider options lack " + r.name)
		}
	}
	s := &Service{o: o, requests: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "muster_certificate_provider_requests_total",
		Help: "Certificate requests of devices that a certificate provider was asked to sign, by outcome.",
	}, []string{"outcome"})}
	if o.Registerer != nil {
		o.Registerer.MustRegister(s.requests)
	}
	return s, nil
}

// scope is the region and account in which an account's names are meant.
func (s *Service) scope(account fleet.Account) fleet.Scope {
	return fleet.Scope{Region: s.o.Region, Account: account}
}

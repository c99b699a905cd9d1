package provisioning

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// Functions runs what hooks name.
type Functions interface {
	// Has reports whether the operator has configured a function of that name.
	Has(name string) bool
	// Invoke gives a function its input and returns its answer unread, within
	// the limit.
	Invoke(ctx context.Context, name string, input []byte, limit time.Duration) ([]byte, error)
}

// Signer signs certificate requests of devices in place of our own authority.
type Signer interface {
	// Sign returns the certificate for a request; signed is false in an account
	// whose requests our own authority signs. ca is the registered authority that
	// the certificate is under.
	Sign(ctx context.Context, r Requester, csr string) (certificatePEM, ca string, signed bool, err error)
}

// Renewals follows the things that exchange their certificates.
type Renewals interface {
	// Begin returns what has to be committed with a new certificate of a thing
	// that has asked for it with another one.
	Begin(ctx context.Context, account fleet.Account, thing, oldID, newID string) (store.Batch, error)
}

// Newcomer is a device whose template has come to a thing.
type Newcomer struct {
	// Template and CA are empty where there is none.
	Template, CA string
	Thing        *provtemplate.Thing
	// CertificateID and ClientID are empty where they are not known.
	CertificateID, ClientID string
}

// Facts knows what was said of devices before they came.
type Facts interface {
	// Announced returns attributes and a thing type for a newcomer; nothing for one
	// that nobody has announced.
	Announced(ctx context.Context, account fleet.Account, n Newcomer) (attributes map[string]string, typeName string, err error)
}

// Limits bound what a claim can ask for; zero is no bound.
type Limits struct {
	// ClaimRate is how many certificates one claim may ask for in a minute.
	ClaimRate int
	// ClaimOutstanding is how many certificates of one claim may wait for their
	// device at a time.
	ClaimOutstanding int
	// TemplateVersions is how many versions a template has at most.
	TemplateVersions int
}

// Times that AWS documents.
const (
	// TokenLife is how long an ownership token is good.
	TokenLife = time.Hour
	// ClaimLife is how long the claim of a trusted user is good.
	ClaimLife = 5 * time.Minute
	// HookLimit bounds the invocation of a pre-provisioning hook.
	HookLimit = 5 * time.Second
)

// Options are what a Service needs; all are required unless said otherwise.
type Options struct {
	Store    store.Store
	Registry *registry.Service
	// Region is the one region of this installation, a part of every ARN.
	Region    string
	Functions Functions
	// Signer is optional; without it our own authority signs.
	Signer Signer
	// Renewals is optional; without it a certificate that replaces another one
	// is like any other.
	Renewals Renewals
	// Facts adds to things what is known of their manufacture; optional.
	Facts Facts
	// Gate decides who may join; optional. What operators register themselves, and a
	// device that exchanges its certificate, it is not asked about.
	Gate Gate
	// Tell is told, after the refusal of a certificate that was introduced, what
	// became of it; optional. It must not wait.
	Tell   func(account fleet.Account, certificateID, what string)
	Limits Limits
	Now    func() time.Time
	// NewID returns a fresh UUID.
	NewID  func() string
	Logger *slog.Logger
	// Registerer is optional.
	Registerer prometheus.Registerer
}

// Service answers for the provisioning of every account. It is safe for
// concurrent use.
type Service struct {
	o       Options
	metrics metrics
	claims  claimUses
	// newcomers register by connecting.
	newcomers newcomers
	parsed    parsedTemplates
	// lastBody is the body of the last call that had one.
	lastBody atomic.Pointer[parsedBody]
}

// New returns a Service, or an error that names what Options lacks.
func New(o Options) (*Service, error) {
	required := []struct {
		missing bool
		name    string
	}{
		{o.Store == nil, "Store"},
		{o.Registry == nil, "Registry"},
		{o.Region == "", "Region"},
		{o.Functions == nil, "Functions"},
		{o.Now == nil, "Now"},
		{o.NewID == nil, "NewID"},
		{o.Logger == nil, "Logger"},
	}
	for _, r := range required {
		if r.missing {
			return nil, errors.New("provisioning options lack " + r.name)
		}
	}
	return &Service{o: o, metrics: newMetrics(o.Registerer), newcomers: newNewcomers()}, nil
}

// scope is the region and account in which an account's names are meant.
func (s *Service) scope(account fleet.Account) fleet.Scope {
	return fleet.Scope{Region: s.o.Region, Account: account}
}

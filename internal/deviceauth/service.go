package deviceauth

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/inlet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// Certificate is what the registry knows about a presented certificate.
type Certificate struct {
	ID  string
	ARN string
	// Status is ACTIVE, INACTIVE and so on.
	Status   string
	NotAfter time.Time
	// PEM is the certificate itself, for answers about devices that are away.
	PEM string
	// SNIOnly marks one that other accounts may have too: a connection with it
	// must name its account.
	SNIOnly bool
	// Boundary is what holds it to provisioning.
	Boundary Boundary
}

// StatusActive is the only certificate state that may connect.
const StatusActive = "ACTIVE"

// Thing is the registry entry that a connection acts as.
type Thing struct {
	Name       string
	TypeName   string
	Attributes map[string]string
	// Exclusive says that the principal may act as this thing only, whatever
	// its client id.
	Exclusive bool
	// Attached says that the thing is attached to the principal.
	Attached bool
	Version  int64
	// Propagating are the properties that messages of the thing gain, in order.
	Propagating []Propagation
}

// Propagation is a property that messages of a thing gain; one of the two
// sources is set.
type Propagation struct {
	Key string
	// ThingAttribute is the name of the attribute whose value is taken.
	ThingAttribute string
	// ConnectionAttribute is iot:ClientId or iot:Thing.ThingName.
	ConnectionAttribute string
}

// Connection attributes that a Propagation can name.
const (
	clientIDAttribute  = "iot:ClientId"
	thingNameAttribute = "iot:Thing.ThingName"
)

// Policy is the default version of an attached policy.
type Policy struct {
	Name      string
	ARN       string
	VersionID string
	Document  []byte
	// Attachments say where it comes from.
	Attachments []iotpolicy.Attachment
}

// Registry answers from committed state. Its answers need not be of one
// moment: an event follows every change, and the session looks again.
type Registry interface {
	// Certificate returns fault.ResourceNotFound for one that the account
	// does not have.
	Certificate(ctx context.Context, account fleet.Account, certificateID string) (Certificate, error)
	// ConnectionThing returns the thing that the principal is attached to
	// exclusively, else the one named like the client id if it is attached,
	// else false.
	ConnectionThing(ctx context.Context, account fleet.Account, principalARN, clientID string) (Thing, bool, error)
	// EffectivePolicies returns the policies of the principal, and of the
	// thing's static groups and all their ancestors unless thing is empty.
	EffectivePolicies(ctx context.Context, account fleet.Account, principalARN, thing string) ([]Policy, error)
	// Policy returns the version in force of a policy that need not be attached
	// to anything, or fault.ResourceNotFound.
	Policy(ctx context.Context, account fleet.Account, name string) (Policy, error)
}

// Options are what a Service needs; all are required unless said otherwise.
type Options struct {
	Registry Registry
	// Region is the one region of this installation, a part of every ARN.
	Region string
	// Account returns the account that a TLS server name selects; an error
	// refuses the connection.
	Account func(serverName string) (fleet.Account, error)
	// Named reports whether a TLS server name is one of this server's: only then
	// has the caller chosen the account. Optional; without it every name is.
	Named func(serverName string) bool
	// AllowAnonymous lets connections of the plain listener do everything in
	// the default account. It is meant for tests and benchmarks.
	AllowAnonymous bool
	// Disconnect ends the connections of a certificate that may no longer
	// connect. It must not call back into the Service.
	Disconnect func(account fleet.Account, certificateID string)
	// Lag is how far Apply is behind the log; optional. It is asked on every
	// decision and must be cheap.
	Lag func() time.Duration
	// Connected returns the principal behind a connected client id; optional.
	Connected func(account fleet.Account, clientID string) (principalID string, ok bool)
	// Holds returns the principal of the connection that a client id has at this
	// moment; optional.
	Holds func(account fleet.Account, clientID string) (principalID string, ok bool)
	// Introduce takes over a peer whose certificate is unknown or waits for
	// activation, after it was refused; optional. It must return soon. What it
	// answers is told of the refusal.
	Introduce func(ctx context.Context, who Stranger) string
	Now       func() time.Time
	// Logger receives every refusal.
	Logger *slog.Logger
	// Registerer is optional.
	Registerer prometheus.Registerer
}

const (
	// maxLag is how late events may be before sets are not trusted.
	maxLag = 5 * time.Second
	// loadTimeout bounds what a packet may wait for the registry.
	loadTimeout = 5 * time.Second
)

// Service identifies and authorizes devices of every account. It is safe for
// concurrent use.
type Service struct {
	registry       Registry
	region         string
	account        func(string) (fleet.Account, error)
	named          func(string) bool
	allowAnonymous bool
	disconnect     func(fleet.Account, string)
	lag            func() time.Duration
	now            func() time.Time
	log            *slog.Logger
	metrics        *metrics
	// open is the guard of all anonymous connections.
	open      Guard
	seed      maphash.Seed
	documents documents
	sessions  sessions
	// told and strangers bound what refusals write to the log, for certificates
	// in good state and for everybody else.
	told, strangers *inlet.Quota
	// explaining bounds the work that refusals cause.
	explaining *inlet.Quota
	connected  func(fleet.Account, string) (string, bool)
	holds      func(fleet.Account, string) (string, bool)
	introducer func(context.Context, Stranger) string
	// known keeps the refusals of registered certificates, strange those of
	// everybody else.
	known, strange ledger
	stamps         atomic.Uint64
}

// New returns a Service, or an error that names what Options lacks.
func New(o Options) (*Service, error) {
	required := []struct {
		missing bool
		name    string
	}{
		{o.Registry == nil, "Registry"},
		{o.Region == "", "Region"},
		{o.Account == nil, "Account"},
		{o.Disconnect == nil, "Disconnect"},
		{o.Now == nil, "Now"},
		{o.Logger == nil, "Logger"},
	}
	for _, r := range required {
		if r.missing {
			return nil, errors.New("device authorization options lack " + r.name)
		}
	}
	if o.Lag == nil {
		o.Lag = func() time.Duration { return 0 }
	}
	if o.Named == nil {
		o.Named = func(string) bool { return true }
	}
	s := &Service{
		registry:       o.Registry,
		region:         o.Region,
		account:        o.Account,
		named:          o.Named,
		allowAnonymous: o.AllowAnonymous,
		disconnect:     o.Disconnect,
		lag:            o.Lag,
		now:            o.Now,
		log:            o.Logger,
		metrics:        newMetrics(o.Registerer),
		seed:           maphash.MakeSeed(),
		sessions:       newSessions(),
		told:           inlet.NewQuota(principalDenials, allDenials, denialWindow),
		strangers:      inlet.NewQuota(denialsPerWindow, allDenials, denialWindow),
		explaining:     inlet.NewQuota(shownRefusals, allDenials, denialWindow),
		connected:      o.Connected,
		holds:          o.Holds,
		introducer:     o.Introduce,
		known:          newLedger(knownBytes),
		strange:        newLedger(strangeBytes),
	}
	s.open.service, s.open.open = s, true
	return s, nil
}

// scope is the region and account in which an account's names are meant.
func (s *Service) scope(account fleet.Account) fleet.Scope {
	return fleet.Scope{Region: s.region, Account: account}
}

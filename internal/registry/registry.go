package registry

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Issuer makes certificates; the registry records them and never keeps a key.
type Issuer interface {
	CreateKeysAndCertificate(ctx context.Context) (certificatePEM, publicPEM, privatePEM []byte, err error)
	SignCSR(ctx context.Context, csrPEM []byte) (certificatePEM []byte, err error)
	// CreateClaim is CreateKeysAndCertificate with an end of validity.
	CreateClaim(ctx context.Context, until time.Time) (certificatePEM, publicPEM, privatePEM []byte, err error)
}

// Barrier tells when the projections that decide about devices have taken
// over what was committed.
type Barrier interface {
	WaitApplied(ctx context.Context, position store.Position) error
}

// barrierPatience bounds how long a call waits for the barrier before it
// answers anyway.
const barrierPatience = 2 * time.Second

// Limits are the counts that an operator may change. The character rules and
// the number of attributes of a thing are not among them: tools rely on those.
type Limits struct {
	// GroupsPerThing counts static and dynamic groups together; 0 is no bound.
	// It must agree with the setting of the index, which decides about dynamic
	// memberships.
	GroupsPerThing int
	// GroupChildren is how many direct children a group may have.
	GroupChildren int
	// GroupDepth is the number of levels of a hierarchy, the root included.
	GroupDepth int
	// DynamicGroups bounds the dynamic groups of an account; 0 is no bound.
	DynamicGroups          int
	PoliciesPerGroup       int
	PoliciesPerCertificate int
	PolicyVersions         int
	// SearchableAttributes is how many a thing type may declare.
	SearchableAttributes int
	// TypeDeletionDelay is how long a thing type must have been deprecated before
	// it can be deleted.
	TypeDeletionDelay time.Duration
}

// DefaultLimits returns AWS's numbers.
func DefaultLimits() Limits {
	return Limits{
		GroupsPerThing:         10,
		GroupChildren:          100,
		GroupDepth:             7,
		DynamicGroups:          100,
		PoliciesPerGroup:       2,
		PoliciesPerCertificate: 10,
		PolicyVersions:         5,
		SearchableAttributes:   3,
		TypeDeletionDelay:      5 * time.Minute,
	}
}

// Options are what a Service needs; all are required unless said otherwise.
type Options struct {
	Store store.Store
	// Region is the one region of this installation, a part of every ARN.
	Region string
	Now    func() time.Time
	// NewID returns a fresh UUID; ids are never used twice.
	NewID  func() string
	Issuer Issuer
	// Barrier is optional; without one a call answers at commit.
	Barrier Barrier
	// Limits are DefaultLimits when zero.
	Limits Limits
	// CheckQuery refuses a dynamic group's query that the index cannot run.
	CheckQuery func(query string) error
	// CheckGroupQuery refuses a query that a dynamic group of that name cannot
	// have; optional.
	CheckGroupQuery func(group, query string) error
	// CheckPolicy refuses a policy document that could not be evaluated.
	CheckPolicy func(document []byte) error
	// GroupStatus tells how far the membership of a dynamic group with this
	// query is built.
	GroupStatus func(account fleet.Account, group, query string) string
	// Indexing is about the configuration of the fleet index.
	Indexing IndexingOptions
	// Endpoints are the host names that devices are told to connect to.
	Endpoints Endpoints
	Logger    *slog.Logger
	// AccountExists tells whether a certificate may be transferred to an
	// account; optional, without it there is no other account.
	AccountExists func(ctx context.Context, account fleet.Account) (bool, error)
	// CheckRegistrationTemplate refuses the name of a provisioning template that
	// an account does not have, or that is not for devices that register
	// themselves; optional, without it there is none.
	CheckRegistrationTemplate func(ctx context.Context, account fleet.Account, name string) error
	// RequireDeclaration keeps an authority that proved nothing from registering
	// devices until an operator has declared why it is trusted.
	RequireDeclaration bool
}

// Service answers for the registry of every account. It is safe for
// concurrent use.
type Service struct {
	store       store.Store
	region      string
	now         func() time.Time
	newID       func() string
	issuer      Issuer
	barrier     Barrier
	limits      Limits
	checkQuery  func(string) error
	checkGroup  func(group, query string) error
	checkPolicy func([]byte) error
	groupStatus func(account fleet.Account, group, query string) string
	endpoints   Endpoints
	indexing    IndexingOptions
	log         *slog.Logger
	patterns    patterns
	// turn holds one token while a command that has lost races tries again.
	turn chan struct{}

	// verifying bounds the signatures that are checked at a time for certificates
	// that nobody vouches for yet, verified counts them.
	verifying chan struct{}
	verified  atomic.Int64

	accountExists             func(ctx context.Context, account fleet.Account) (bool, error)
	checkRegistrationTemplate func(ctx context.Context, account fleet.Account, name string) error
	requireDeclaration        bool
}

// New returns a Service, or an error that names what Options lacks.
func New(o Options) (*Service, error) {
	if o.Limits == (Limits{}) {
		o.Limits = DefaultLimits()
	}
	required := []struct {
		missing bool
		name    string
	}{
		{o.Store == nil, "Store"},
		{o.Region == "", "Region"},
		{o.Now == nil, "Now"},
		{o.NewID == nil, "NewID"},
		{o.Issuer == nil, "Issuer"},
		{o.CheckQuery == nil, "CheckQuery"},
		{o.CheckPolicy == nil, "CheckPolicy"},
		{o.GroupStatus == nil, "GroupStatus"},
		{o.Logger == nil, "Logger"},
	}
	for _, r := range required {
		if r.missing {
			return nil, errors.New("registry options lack " + r.name)
		}
	}
	if o.CheckGroupQuery == nil {
		o.CheckGroupQuery = func(string, string) error { return nil }
	}
	if o.AccountExists == nil {
		o.AccountExists = func(context.Context, fleet.Account) (bool, error) { return false, nil }
	}
	if o.CheckRegistrationTemplate == nil {
		o.CheckRegistrationTemplate = func(_ context.Context, _ fleet.Account, name string) error {
			return notFound("provisioning template", name)
		}
	}
	return &Service{
		turn:        make(chan struct{}, 1),
		store:       o.Store,
		region:      o.Region,
		now:         o.Now,
		newID:       o.NewID,
		issuer:      o.Issuer,
		barrier:     o.Barrier,
		limits:      o.Limits,
		checkQuery:  o.CheckQuery,
		checkGroup:  o.CheckGroupQuery,
		checkPolicy: o.CheckPolicy,
		groupStatus: o.GroupStatus,
		endpoints:   o.Endpoints,
		indexing:    o.Indexing,
		log:         o.Logger,

		verifying:                 make(chan struct{}, maxVerifying),
		accountExists:             o.AccountExists,
		checkRegistrationTemplate: o.CheckRegistrationTemplate,
		requireDeclaration:        o.RequireDeclaration,
	}, nil
}

// scope is the region and account in which the account's names are meant.
func (s *Service) scope(account fleet.Account) fleet.Scope {
	return fleet.Scope{Region: s.region, Account: account}
}

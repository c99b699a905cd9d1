package signin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/muster-iot/muster/internal/account"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Bounds of a session's length.
const (
	MinSession = 15 * time.Minute
	MaxSession = 12 * time.Hour
)

const (
	// hashers is how many passwords are checked at a time: each takes 19 MiB.
	hashers = 2
	// hashQueue is how many wait for that; the rest is told to come again.
	hashQueue = 32
	// hashPatience bounds that wait.
	hashPatience = 10 * time.Second
)

// Accounts are the calls that sign-in makes.
type Accounts interface {
	CheckPassword(ctx context.Context, of fleet.Account, user, password string) (account.PasswordCheck, error)
	SetPassword(ctx context.Context, of fleet.Account, user, password string, mustChange bool) error
	UserSession(ctx context.Context, of fleet.Account, user string, lasts time.Duration) (account.Session, error)
	RoleSession(ctx context.Context, of fleet.Account, role, sessionName string, lasts time.Duration) (account.Session, error)
}

// Options of New.
type Options struct {
	Accounts Accounts
	// Default is the account of people who name none.
	Default fleet.Account
	// Session is how long sessions last.
	Session time.Duration
	Limits  Limits
	// OIDC is nil where no provider vouches for people.
	OIDC   *OIDCOptions
	Now    func() time.Time
	Logger *slog.Logger
}

// Service signs people in. It is safe for concurrent use.
type Service struct {
	o        Options
	throttle throttle
	hashing  chan struct{}
	waiting  chan struct{}
	oidc     *oidcFlow
}

// New returns a service. It reaches no provider yet.
func New(o Options) (*Service, error) {
	if o.Session < MinSession || o.Session > MaxSession || o.Limits.Failures < 1 || o.Limits.Total < 1 || o.Limits.Window <= 0 {
		return nil, errors.New("signin: Session must be from 15m to 12h, Limits at least 1")
	}
	s := &Service{
		o: o, throttle: throttle{limits: o.Limits},
		hashing: make(chan struct{}, hashers), waiting: make(chan struct{}, hashers+hashQueue),
	}
	if o.OIDC != nil {
		s.oidc = newOIDCFlow(o.OIDC)
	}
	return s, nil
}

// DefaultAccount is the account of people who name none.
func (s *Service) DefaultAccount() fleet.Account { return s.o.Default }

// Attempt is a person with a password.
type Attempt struct {
	// Account is the default one when it is empty.
	Account        fleet.Account
	User, Password string
	// NewPassword replaces the password, which it must where MustChange was the
	// answer.
	NewPassword   string
	SourceAddress string
}

// Result is what a person gets whose password is right.
type Result struct {
	Session account.Session
	// MustChange says that there is no session without a new password.
	MustChange bool
	// KnownUser comes with an error: there is such a user. It is for the audit trail,
	// and must not be told.
	KnownUser bool
}

// errWrong is every reason but one for which nobody is let in, in the same words.
func errWrong() error {
	return fault.New(fault.Unauthorized, "The account, the user name or the password is wrong")
}

// Password signs a user in. A wrong password is fault.Unauthorized, too many of
// them are a *ThrottledError.
func (s *Service) Password(ctx context.Context, in Attempt) (Result, error) {
	if in.Account == "" {
		in.Account = s.o.Default
	}
	now := s.o.Now()
	who := string(in.Account) + "\x00" + in.User
	if len(who) > 256 || !in.Account.Valid() {
		who = "?"
	}
	if err := s.throttle.try(who, in.SourceAddress, now); err != nil {
		return Result{}, err
	}
	found, err := s.check(ctx, in)
	if err != nil {
		s.throttle.untried(who, in.SourceAddress, now)
		return Result{}, err
	}
	if !found.Fits {
		return Result{KnownUser: found.Known}, errWrong()
	}
	s.throttle.succeeded(who, in.SourceAddress, now)
	actor := fleet.ActorFrom(ctx)
	actor.Principal, actor.SourceAddress = UserPrincipal(in.Account, in.User), in.SourceAddress
	ctx = fleet.WithActor(ctx, actor)
	// Whatever is refused from here on, the user has proven to be who it says.
	refused := Result{KnownUser: true}
	switch {
	case in.NewPassword != "" && in.NewPassword == in.Password:
		return refused, fault.New(fault.InvalidRequest, "The new password must be another one")
	case in.NewPassword != "":
		if err := s.o.Accounts.SetPassword(ctx, in.Account, in.User, in.NewPassword, false); err != nil {
			return refused, fmt.Errorf("change the password: %w", err)
		}
	case found.MustChange:
		return Result{MustChange: true}, nil
	}
	session, err := s.o.Accounts.UserSession(ctx, in.Account, in.User, s.o.Session)
	if err != nil {
		return refused, fmt.Errorf("begin a session: %w", err)
	}
	return Result{Session: session}, nil
}

// UserPrincipal is a user of an account, for those who tell of sign-ins.
func UserPrincipal(of fleet.Account, user string) fleet.Principal {
	return fleet.Principal{
		Kind: fleet.PrincipalUser, ID: user, ARN: "arn:" + fleet.Partition + ":iam::" + string(of) + ":user/" + user,
	}
}

// check compares the password, a few at a time.
func (s *Service) check(ctx context.Context, in Attempt) (account.PasswordCheck, error) {
	busy := &ThrottledError{After: time.Second}
	select {
	case s.waiting <- struct{}{}:
		defer func() { <-s.waiting }()
	default:
		return account.PasswordCheck{}, busy
	}
	patience := time.NewTimer(hashPatience)
	defer patience.Stop()
	select {
	case s.hashing <- struct{}{}:
		defer func() { <-s.hashing }()
	case <-patience.C:
		return account.PasswordCheck{}, busy
	case <-ctx.Done():
		return account.PasswordCheck{}, ctx.Err() //nolint:wrapcheck // the caller's own
	}
	return s.o.Accounts.CheckPassword(ctx, in.Account, in.User, in.Password) //nolint:wrapcheck // it says what failed
}

// bounded is a map of things under way that forgets the oldest when it is full,
// and everything after its time.
type bounded[T any] struct {
	life time.Duration
	most int

	mu    sync.Mutex
	order []string
	items map[string]dated[T]
}

// dated is a thing and when it came.
type dated[T any] struct {
	value T
	at    time.Time
}

// put keeps a thing under a key that nobody can guess.
func (b *bounded[T]) put(key string, value T, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.items == nil {
		b.items = map[string]dated[T]{}
	}
	for len(b.order) > 0 {
		oldest := b.order[0]
		if item, ok := b.items[oldest]; ok && len(b.order) < b.most && now.Sub(item.at) < b.life {
			break
		}
		delete(b.items, oldest)
		b.order = b.order[1:]
	}
	b.items[key] = dated[T]{value, now}
	b.order = append(b.order, key)
}

// take returns a thing once.
func (b *bounded[T]) take(key string, now time.Time) (T, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	item, ok := b.items[key]
	delete(b.items, key)
	if !ok || now.Sub(item.at) >= b.life {
		var none T
		return none, false
	}
	return item.value, true
}

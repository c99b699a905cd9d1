package signin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/account"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

const home = fleet.Account("000000000042")

// people are users with passwords, and roles.
type people struct {
	mu       sync.Mutex
	password map[string]string
	must     map[string]bool
	actor    fleet.Actor
	role     string
	name     string
	checks   int
}

func (p *people) CheckPassword(_ context.Context, of fleet.Account, user, password string) (account.PasswordCheck, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.checks++
	known := of == home && p.password[user] != ""
	return account.PasswordCheck{Known: known, Fits: known && p.password[user] == password, MustChange: p.must[user]}, nil
}

func (p *people) SetPassword(ctx context.Context, _ fleet.Account, user, password string, mustChange bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(password) < 12 {
		return fault.New(fault.InvalidRequest, "too short")
	}
	p.password[user], p.must[user], p.actor = password, mustChange, fleet.ActorFrom(ctx)
	return nil
}

func (p *people) UserSession(_ context.Context, of fleet.Account, user string, lasts time.Duration) (account.Session, error) {
	return account.Session{Account: of, Token: user + " for " + lasts.String(), Principal: fleet.Principal{Kind: fleet.PrincipalUser, ID: user}}, nil
}

func (p *people) RoleSession(_ context.Context, of fleet.Account, role, name string, lasts time.Duration) (account.Session, error) {
	if role == "gone" {
		return account.Session{}, fault.New(fault.ResourceNotFound, "The role does not exist")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.role, p.name = role, name
	return account.Session{Account: of, Token: role + " for " + lasts.String(), Principal: fleet.Principal{Kind: fleet.PrincipalRole, ID: name}}, nil
}

// door is a service with a clock that tests move.
type door struct {
	*Service
	*people

	mu  sync.Mutex
	now time.Time
}

func (d *door) pass(by time.Duration) { d.mu.Lock(); d.now = d.now.Add(by); d.mu.Unlock() }

func newDoor(t *testing.T, limits Limits, provider *OIDCOptions) *door {
	t.Helper()
	d := &door{
		people: &people{password: map[string]string{"alice": "correct horse", "new": "first password"}, must: map[string]bool{"new": true}},
		now:    time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	if limits == (Limits{}) {
		limits = Limits{Failures: 3, Total: 1000, Window: 5 * time.Minute}
	}
	s, err := New(Options{
		Accounts: d.people, Default: home, Session: time.Hour, Limits: limits, OIDC: provider, Logger: slog.New(slog.DiscardHandler),
		Now: func() time.Time { d.mu.Lock(); defer d.mu.Unlock(); return d.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	d.Service = s
	return d
}

// try signs in and says how it went: in, must change, wrong, or later.
func (d *door) try(t *testing.T, in Attempt) string {
	t.Helper()
	result, err := d.Password(t.Context(), in)
	var throttled *ThrottledError
	switch {
	case errors.As(err, &throttled):
		if throttled.After <= 0 || throttled.After > 5*time.Minute {
			t.Errorf("try again after %v", throttled.After)
		}
		return "later"
	case fault.CodeOf(err) == fault.Unauthorized:
		return "wrong"
	case err != nil:
		return string(fault.CodeOf(err))
	case result.MustChange:
		return "must change"
	}
	return "in"
}

func TestPassword(t *testing.T) {
	t.Parallel()
	d := newDoor(t, Limits{Failures: 100, Total: 100, Window: time.Minute}, nil)
	for _, c := range []struct {
		in   Attempt
		want string
	}{
		{Attempt{User: "alice", Password: "correct horse"}, "in"},
		{Attempt{Account: home, User: "alice", Password: "correct horse"}, "in"},
		{Attempt{Account: "000000000043", User: "alice", Password: "correct horse"}, "wrong"},
		{Attempt{Account: "x", User: "alice", Password: "correct horse"}, "wrong"},
		{Attempt{User: "alice", Password: "wrong horse"}, "wrong"},
		{Attempt{User: "nobody", Password: "correct horse"}, "wrong"},
		{Attempt{User: "", Password: ""}, "wrong"},
		{Attempt{User: "new", Password: "first password"}, "must change"},
		{Attempt{User: "new", Password: "first password", NewPassword: "first password"}, "InvalidRequest"},
		{Attempt{User: "new", Password: "first password", NewPassword: "short"}, "InvalidRequest"},
		{Attempt{User: "new", Password: "wrong", NewPassword: "second password"}, "wrong"},
		{Attempt{User: "new", Password: "first password", NewPassword: "second password"}, "in"},
		{Attempt{User: "new", Password: "first password"}, "wrong"},
		{Attempt{User: "new", Password: "second password"}, "in"},
	} {
		if got := d.try(t, c.in); got != c.want {
			t.Errorf("%+v: %s, want %s", c.in, got, c.want)
		}
	}
	if d.actor.Principal.ARN != "arn:aws:iam::000000000042:user/new" {
		t.Errorf("the password was changed by %+v", d.actor)
	}
}

// TestFailuresAreBounded wants that nobody else suffers from somebody who guesses.
func TestFailuresAreBounded(t *testing.T) {
	t.Parallel()
	d := newDoor(t, Limits{}, nil)
	guess := Attempt{User: "alice", Password: "guess", SourceAddress: "192.0.2.1"}
	for i := range 3 {
		if got := d.try(t, guess); got != "wrong" {
			t.Errorf("guess %d: %s", i, got)
		}
	}
	right := guess
	right.Password = "correct horse"
	if got := d.try(t, right); got != "later" {
		t.Errorf("after the bound: %s", got)
	}
	checks := d.checks
	if d.try(t, guess); d.checks != checks {
		t.Error("a refused attempt costs a hash")
	}
	elsewhere := right
	elsewhere.SourceAddress = "198.51.100.7"
	if got := d.try(t, elsewhere); got != "in" {
		t.Errorf("the right person from elsewhere: %s", got)
	}
	other := Attempt{User: "new", Password: "first password", SourceAddress: "192.0.2.1"}
	if got := d.try(t, other); got != "must change" {
		t.Errorf("another person from there: %s", got)
	}
	d.pass(5 * time.Minute)
	if got := d.try(t, right); got != "in" {
		t.Errorf("after the window: %s", got)
	}
}

func TestAnAddressIsBoundedWhateverTheUser(t *testing.T) {
	t.Parallel()
	d := newDoor(t, Limits{}, nil)
	for i := range 15 {
		if got := d.try(t, Attempt{User: fmt.Sprint("u", i), Password: "x", SourceAddress: fmt.Sprintf("2001:db8::%x", i)}); got != "wrong" {
			t.Errorf("guess %d: %s", i, got)
		}
	}
	if got := d.try(t, Attempt{User: "u99", Password: "x", SourceAddress: "2001:db8::ffff"}); got != "later" {
		t.Errorf("the same network: %s", got)
	}
	if got := d.try(t, Attempt{User: "u99", Password: "x", SourceAddress: "2001:db8:0:1::1"}); got != "wrong" {
		t.Errorf("another network: %s", got)
	}
}

// TestRefusalsNameTheUser is for the audit trail: who exists, and nobody else.
func TestRefusalsNameTheUser(t *testing.T) {
	t.Parallel()
	d := newDoor(t, Limits{Failures: 100, Total: 100, Window: time.Minute}, nil)
	for name, c := range map[string]struct {
		in    Attempt
		known bool
	}{
		"wrong":           {Attempt{User: "alice", Password: "x"}, true},
		"too short":       {Attempt{User: "alice", Password: "correct horse", NewPassword: "short"}, true},
		"the same":        {Attempt{User: "alice", Password: "correct horse", NewPassword: "correct horse"}, true},
		"nobody":          {Attempt{User: "bob", Password: "x"}, false},
		"another account": {Attempt{Account: "000000000043", User: "alice", Password: "correct horse"}, false},
	} {
		if got, err := d.Password(t.Context(), c.in); err == nil || got.KnownUser != c.known {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// TestManyNamesDoNotForgetFailures has one address try more names than there is
// room for, to be let guess again.
func TestManyNamesDoNotForgetFailures(t *testing.T) {
	t.Parallel()
	d := newDoor(t, Limits{}, nil)
	guess := Attempt{User: "alice", Password: "x", SourceAddress: "192.0.2.1"}
	for range 3 {
		d.try(t, guess)
	}
	for i := range maxCounters + 1 {
		_, _ = d.Password(t.Context(), Attempt{User: fmt.Sprint("nobody", i), Password: "x", SourceAddress: "192.0.2.1"})
	}
	if got := d.try(t, guess); got != "later" {
		t.Errorf("the fourth guess: %s", got)
	}
	if len(d.throttle.counters) > 2+15 {
		t.Errorf("%d counters: refused attempts are kept", len(d.throttle.counters))
	}
}

// TestUntriedPasswordsAreNoFailures signs in while the server is busy.
func TestUntriedPasswordsAreNoFailures(t *testing.T) {
	t.Parallel()
	d := newDoor(t, Limits{}, nil)
	for range cap(d.waiting) {
		d.waiting <- struct{}{}
	}
	desk := Attempt{User: "alice", Password: "correct horse", SourceAddress: "192.0.2.1"}
	for range 10 {
		if got := d.try(t, desk); got != "later" {
			t.Errorf("without room: %s", got)
		}
	}
	for range cap(d.waiting) {
		<-d.waiting
	}
	if got := d.try(t, desk); got != "in" {
		t.Errorf("with room: %s", got)
	}
}

// TestTheBoundOnAllSparesTheKnown floods from everywhere.
func TestTheBoundOnAllSparesTheKnown(t *testing.T) {
	t.Parallel()
	d := newDoor(t, Limits{Failures: 3, Total: 50, Window: 5 * time.Minute}, nil)
	desk := Attempt{User: "alice", Password: "correct horse", SourceAddress: "198.51.100.7"}
	if got := d.try(t, desk); got != "in" {
		t.Fatal(got)
	}
	for i := range 60 {
		d.try(t, Attempt{User: "alice", Password: "x", SourceAddress: fmt.Sprintf("203.0.113.%d", i)})
	}
	stranger := desk
	stranger.SourceAddress = "203.0.113.250"
	if got := d.try(t, stranger); got != "later" {
		t.Errorf("from an unknown address: %s", got)
	}
	if got := d.try(t, desk); got != "in" {
		t.Errorf("from the desk: %s", got)
	}
	d.pass(5 * time.Minute)
	if got := d.try(t, stranger); got != "in" {
		t.Errorf("after the window: %s", got)
	}
}

// TestManyAtOnceCountAsMany races guesses.
func TestManyAtOnceCountAsMany(t *testing.T) {
	t.Parallel()
	d := newDoor(t, Limits{}, nil)
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			_, _ = d.Password(t.Context(), Attempt{User: "alice", Password: "x", SourceAddress: "192.0.2.1"})
		})
	}
	wg.Wait()
	if d.checks > 3 {
		t.Errorf("%d passwords were tried, 3 are allowed", d.checks)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	th := throttle{limits: Limits{Failures: 1, Total: 1 << 30, Window: time.Hour}}
	now := time.Unix(1, 0)
	for i := range 3 * maxCounters {
		_ = th.try(fmt.Sprint(i), fmt.Sprint("a", i), now)
	}
	for i := range 2 * maxKnown {
		th.succeeded(fmt.Sprint(i), fmt.Sprint("b", i), now)
	}
	if len(th.counters) > maxCounters+1 || len(th.known) > maxKnown {
		t.Errorf("%d counters, %d known", len(th.counters), len(th.known))
	}
	codes := bounded[int]{life: time.Minute, most: 8}
	for i := range 100 {
		codes.put(fmt.Sprint(i), i, now)
	}
	if len(codes.items) > 8 || len(codes.order) > 8 {
		t.Errorf("%d codes", len(codes.items))
	}
	if v, ok := codes.take("99", now); !ok || v != 99 {
		t.Errorf("got %v %v", v, ok)
	}
	if _, ok := codes.take("99", now); ok {
		t.Error("taken twice")
	}
	if _, ok := codes.take("98", now.Add(time.Minute)); ok {
		t.Error("taken too late")
	}
}

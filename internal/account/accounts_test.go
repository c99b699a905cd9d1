package account

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// logged is memory with an event log that a directory follows at once.
type logged struct {
	*memory
	directory *Directory
	// meddle runs before a commit, to be faster than it.
	meddle func()
	mu     sync.Mutex
	events []event.Envelope
}

func (l *logged) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	if meddle := l.meddle; meddle != nil {
		l.meddle = nil
		meddle()
	}
	at, err := l.memory.Commit(ctx, b)
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.events = append(l.events, b.Events...)
		l.directory.Apply(b.Events)
	}
	return at, err
}

func (l *logged) Scan(_ context.Context, r store.Range, fn func(store.Record) error) error {
	l.memory.mu.Lock()
	defer l.memory.mu.Unlock()
	keys := []store.Key{}
	for k := range l.records {
		if k >= r.From && (r.To == "" || k < r.To) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		if err := fn(l.records[k]); err == store.Stop { //nolint:errorlint // it is handed through
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

const (
	home  = fleet.Account("000000000000")
	north = fleet.Account("210000000001")
)

// newHouse is a service with the default account made.
func newHouse(t *testing.T) (*Service, *logged) {
	t.Helper()
	d := NewDirectory(DirectoryOptions{Default: home, Region: "us-east-1", BaseDomain: "muster.internal", Common: []string{"localhost", "Fleet.Example"}})
	l := &logged{memory: newMemory(), directory: d}
	o := newService(t, l).options
	o.Default = home
	s := New(o)
	if _, err := s.Root(t.Context(), home); err != nil {
		t.Fatal(err)
	}
	return s, l
}

func TestCreateAccount(t *testing.T) {
	t.Parallel()
	s, l := newHouse(t)
	ctx := fleet.WithActor(t.Context(), fleet.Actor{RequestID: "r1"})
	made, key, err := s.CreateAccount(ctx, home, NewAccount{ID: north, Name: "Plant North", Email: "north@plant.example"})
	if err != nil {
		t.Fatal(err)
	}
	if made.ID != north || made.Status != StatusActive || made.Default || made.Created.IsZero() || !made.Modified.IsZero() {
		t.Errorf("made %+v", made)
	}
	secret, of, principal, err := s.SecretKey(ctx, key.ID)
	if err != nil || secret != key.Secret || of != north || principal != RootPrincipal(north) {
		t.Errorf("%v %v %v", of, principal, err)
	}
	if root, err := s.Root(ctx, north); err != nil || root != key {
		t.Errorf("the root key is another one: %v", err)
	}
	last := l.events[len(l.events)-1]
	want := event.Envelope{Account: north, At: made.Created, Actor: fleet.Actor{RequestID: "r1"}, Event: event.AccountChanged{Name: "Plant North", Status: "ACTIVE"}}
	if diff := cmp.Diff(want, last); diff != "" {
		t.Error(diff)
	}
	_, _, err = s.CreateAccount(ctx, home, NewAccount{ID: north, Name: "again"})
	if coded := fault.From(err); coded.Code != fault.ResourceAlreadyExists || coded.ResourceID != string(north) {
		t.Errorf("again: %v", err)
	}
	if again, err := s.DescribeAccount(ctx, home, north); err != nil || again.Name != "Plant North" || again.Email != "north@plant.example" {
		t.Errorf("%+v %v", again, err)
	}
	drawn, _, err := s.CreateAccount(ctx, home, NewAccount{Name: "drawn"})
	if err != nil || !drawn.ID.Valid() || drawn.ID[0] == '0' {
		t.Errorf("drew %q, %v", drawn.ID, err)
	}
}

func TestCreateAccountRefuses(t *testing.T) {
	t.Parallel()
	s, l := newHouse(t)
	before := len(l.records)
	for says, in := range map[string]NewAccount{
		"id must":    {ID: "12", Name: "x"},
		"id  must":   {ID: "12345678901\x00", Name: "x"},
		"name must":  {},
		"name  must": {Name: " x"},
		"name 50":    {Name: strings.Repeat("ä", 51)},
		"name \\n":   {Name: "a\nb"},
		"name utf8":  {Name: "a\xff"},
		"email must": {Name: "x", Email: "nobody"},
		"email Mr":   {Name: "x", Email: "Mr <a@b.c>"},
		"email long": {Name: "x", Email: strings.Repeat("a", 60) + "@b.de"},
	} {
		field, _, _ := strings.Cut(says, " ")
		_, _, err := s.CreateAccount(t.Context(), home, in)
		if fault.CodeOf(err) != fault.InvalidRequest || !strings.HasPrefix(fault.From(err).Message, field+" must") {
			t.Errorf("%s: %v", says, err)
		}
	}
	if len(l.records) != before {
		t.Error("a refused account left records")
	}
	if _, _, err := s.CreateAccount(t.Context(), home, NewAccount{Name: strings.Repeat("ä", 50)}); err != nil {
		t.Error(err)
	}
}

// Others than the default account see themselves and manage nothing.
func TestOthersSeeThemselves(t *testing.T) {
	t.Parallel()
	s, _ := newHouse(t)
	for i := range 5 {
		if _, _, err := s.CreateAccount(t.Context(), home, NewAccount{ID: fleet.Account(fmt.Sprintf("21000000000%d", i)), Name: "x"}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.CreateAccount(t.Context(), north, NewAccount{Name: "x"}); fault.CodeOf(err) != fault.Forbidden {
		t.Error(err)
	}
	for _, id := range []fleet.Account{north, home, "210000000002", "999999999999"} {
		if _, err := s.CloseAccount(t.Context(), north, id); fault.CodeOf(err) != fault.Forbidden {
			t.Errorf("close %s: %v", id, err)
		}
		if _, err := s.ReopenAccount(t.Context(), north, id); fault.CodeOf(err) != fault.Forbidden {
			t.Errorf("reopen %s: %v", id, err)
		}
		_, err := s.DescribeAccount(t.Context(), north, id)
		if id == north && err != nil || id != north && fault.CodeOf(err) != fault.ResourceNotFound {
			t.Errorf("describe %s: %v", id, err)
		}
	}
	if _, err := s.DescribeAccount(t.Context(), home, "999999999999"); fault.CodeOf(err) != fault.ResourceNotFound {
		t.Error(err)
	}
	if _, err := s.DescribeAccount(t.Context(), home, "a\x00b"); fault.CodeOf(err) != fault.InvalidRequest {
		t.Error(err)
	}
	own, err := s.ListAccounts(t.Context(), north, "", 1)
	if err != nil || len(own.Accounts) != 1 || own.Accounts[0].ID != north || own.Next != "" {
		t.Errorf("%+v %v", own, err)
	}
	var all []fleet.Account
	var sizes []int
	for after := ""; ; {
		page, err := s.ListAccounts(t.Context(), home, after, 4)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(page.Accounts))
		for _, a := range page.Accounts {
			all = append(all, a.ID)
		}
		if after = page.Next; after == "" {
			break
		}
	}
	if want := []fleet.Account{home, "210000000000", north, "210000000002", "210000000003", "210000000004"}; !slices.Equal(all, want) || !slices.Equal(sizes, []int{4, 2}) {
		t.Errorf("%v in pages of %v", all, sizes)
	}
	for _, limit := range []int{0, -1, 251} {
		if _, err := s.ListAccounts(t.Context(), home, "", limit); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
}

func TestAccountExists(t *testing.T) {
	t.Parallel()
	s, _ := newHouse(t)
	exists := func(id fleet.Account, want bool) {
		t.Helper()
		if got, err := s.AccountExists(t.Context(), id); got != want || err != nil {
			t.Errorf("%q: %v %v", id, got, err)
		}
	}
	exists(north, false)
	if _, _, err := s.CreateAccount(t.Context(), home, NewAccount{ID: north, Name: "n"}); err != nil {
		t.Fatal(err)
	}
	exists(north, true)
	exists(home, true)
	exists("x", false)
	if _, err := s.CloseAccount(t.Context(), home, north); err != nil {
		t.Fatal(err)
	}
	exists(north, false)
}

func TestCloseAndReopen(t *testing.T) {
	t.Parallel()
	s, l := newHouse(t)
	_, key, err := s.CreateAccount(t.Context(), home, NewAccount{ID: north, Name: "n"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // closing twice changes nothing the second time
		closed, err := s.CloseAccount(t.Context(), home, north)
		if err != nil || closed.Status != StatusClosed || closed.Modified.IsZero() {
			t.Errorf("%+v %v", closed, err)
		}
	}
	if n := len(l.events); n != 3 {
		t.Errorf("%d events, want two accounts made and one closed", n)
	}
	if !l.directory.Closed(north) {
		t.Error("the directory takes the closed account for open")
	}
	// A node that starts now knows.
	fresh := NewDirectory(l.directory.options)
	if err := fresh.Load(t.Context(), l); err != nil || !fresh.Closed(north) || !slices.Equal(fresh.AllClosed(), []fleet.Account{north}) || fresh.Closed(home) {
		t.Errorf("a new directory: %v %v", fresh.AllClosed(), err)
	}
	// Somebody else is faster: the change is tried again on what they left.
	l.meddle = func() {
		if _, err := s.ReopenAccount(t.Context(), home, north); err != nil {
			t.Error(err)
		}
	}
	if again, err := s.ReopenAccount(t.Context(), home, north); err != nil || again.Status != StatusActive {
		t.Errorf("%+v %v", again, err)
	}
	if _, _, _, err := s.SecretKey(t.Context(), key.ID); err != nil || l.directory.Closed(north) {
		t.Errorf("the reopened account: %v", err)
	}
	if _, err := s.CloseAccount(t.Context(), home, home); fault.CodeOf(err) != fault.InvalidRequest {
		t.Errorf("the default account is closed: %v", err)
	}
	for _, do := range []func(context.Context, fleet.Account, fleet.Account) (Account, error){s.CloseAccount, s.ReopenAccount} {
		if _, err := do(t.Context(), home, "999999999999"); fault.CodeOf(err) != fault.ResourceNotFound {
			t.Error(err)
		}
	}
}

// Records from before there were several accounts are of an active one.
func TestOldAccountRecord(t *testing.T) {
	t.Parallel()
	s, l := newHouse(t)
	l.records[store.K("account", string(north))] = store.Record{
		Key: store.K("account", string(north)), Version: 99, Value: []byte(`{"v":1,"rootKeyId":"AKIAOLD","createdAt":"2026-11-23T03:00:00Z"}`),
	}
	if a, err := s.DescribeAccount(t.Context(), home, north); err != nil || a.Status != StatusActive || a.Name != "" {
		t.Errorf("%+v %v", a, err)
	}
}

func TestDirectoryNames(t *testing.T) {
	t.Parallel()
	s, l := newHouse(t)
	d := l.directory
	e := EndpointsOf(north, "us-east-1", "muster.internal")
	if of, named := d.Of(e.Data); of != home || named {
		t.Errorf("before it was made: %s %v", of, named)
	}
	if _, _, err := s.CreateAccount(t.Context(), home, NewAccount{ID: north, Name: "n"}); err != nil {
		t.Fatal(err)
	}
	mine := EndpointsOf(home, "us-east-1", "muster.internal")
	for name, want := range map[string]struct {
		of           fleet.Account
		named, owned bool
	}{
		e.Data: {north, true, true}, strings.ToUpper(e.Jobs): {north, true, true}, e.Credentials + ".": {north, true, true},
		mine.Data: {home, true, true}, "LOCALHOST": {home, true, false}, "fleet.example.": {home, true, false},
		"": {home, false, false}, "127.0.0.1": {home, false, false}, "x." + e.Data: {home, false, false}, e.Data + ".evil.example": {home, false, false},
	} {
		of, named := d.Of(name)
		owner, owned := d.Owner(name)
		if of != want.of || named != want.named || owned != want.owned || owned && owner != want.of {
			t.Errorf("%q: %s named %v, owner %q %v", name, of, named, owner, owned)
		}
	}
}

func TestMayManageInstallation(t *testing.T) {
	t.Parallel()
	s, _ := newHouse(t)
	if err := s.MayManageInstallation(home, "ops:Backup"); err != nil {
		t.Error(err)
	}
	if err := s.MayManageInstallation(north, "ops:Backup"); fault.CodeOf(err) != fault.Forbidden || !strings.Contains(err.Error(), "ops:Backup concerns the whole installation") {
		t.Error(err)
	}
}

// The server certificate's names cover every account there will be.
func TestWildcardsCoverEveryAccount(t *testing.T) {
	t.Parallel()
	certificate := x509.Certificate{DNSNames: Wildcards("us-east-1", "muster.internal"), Raw: []byte{1}}
	for i := range 1000 {
		e := EndpointsOf(fleet.Account(fmt.Sprintf("%012d", i*987654321)), "us-east-1", "muster.internal")
		for _, name := range []string{e.Data, e.Jobs, e.Credentials} {
			if err := certificate.VerifyHostname(name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A server that does not hear of the account in time still tells its key, which
// nobody can ask for again.
func TestKeyIsToldThoughTheDirectoryIsBehind(t *testing.T) {
	t.Parallel()
	s, _ := newHouse(t)
	s.options.Applied = func(context.Context, store.Position) error { return errors.New("stopping") }
	made, key, err := s.CreateAccount(t.Context(), home, NewAccount{ID: north, Name: "Plant North"})
	if err != nil || made.ID != north || key.Secret == "" {
		t.Errorf("%+v, a key of %d characters, %v", made, len(key.Secret), err)
	}
}

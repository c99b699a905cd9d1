package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// errBroken is a store that takes nothing.
var errBroken = errors.New("broken")

// ledger is a store that only commits, or does not.
type ledger struct {
	store.Store
	mu     sync.Mutex
	events []event.Envelope
	// fail answers the next commits, nil for success.
	fail []error
	// broken fails all of them.
	broken bool
}

func (l *ledger) Commit(_ context.Context, b store.Batch) (store.Position, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken {
		return store.Position{}, errBroken
	}
	if len(l.fail) > 0 {
		err := l.fail[0]
		l.fail = l.fail[1:]
		if err != nil {
			return store.Position{}, err
		}
	}
	for i := range b.Events {
		b.Events[i].Seq = uint64(len(l.events) + 1)
		l.events = append(l.events, b.Events[i])
	}
	return store.Position{Seq: uint64(len(l.events))}, nil
}

// told lists what is in the log.
func (l *ledger) told() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, env := range l.events {
		call, ok := env.Event.(event.APICalled)
		if !ok {
			out = append(out, event.TypeName(env.Event))
			continue
		}
		text := call.Name
		if call.ErrorCode != "" {
			text += "!" + call.ErrorCode
		}
		if len(call.Resources) > 0 {
			text += " " + strings.Join(call.Resources, " ")
		}
		out = append(out, text)
	}
	return out
}

func newRecorder(l *ledger, dataEvents bool) *Recorder {
	return NewRecorder(RecorderOptions{
		Store: l, Region: "r", DefaultAccount: account, DataEvents: dataEvents, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
}

// run writes reports until the returned function is called, which drains.
func (r *Recorder) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	return func() {
		if err := r.Drain(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

var ada = fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalUser, ID: "ada"}, SourceAddress: "192.0.2.1"}

// thing is a change of a thing.
func thing(name string) store.Batch {
	return store.Batch{
		Writes: []store.Write{{Key: "k"}},
		Events: []event.Envelope{{Account: account, Event: event.ThingUpdated{Thing: event.Thing{Thing: name}}}},
	}
}

func TestFirstCommitReportsTheCall(t *testing.T) {
	t.Parallel()
	l := &ledger{}
	r := newRecorder(l, false)
	s := Recording(l)
	commit := func(ctx context.Context, b store.Batch) error { _, err := s.Commit(ctx, b); return err }
	for _, c := range []struct {
		name string
		do   func(ctx context.Context, call *Call) error
		want []string
	}{
		{"one commit", func(ctx context.Context, call *Call) error {
			call.About("*", "arn:x")
			call.Grant()
			return commit(ctx, thing("a"))
		}, []string{"Call arn:x arn:aws:iot:r:000000000000:thing/a", "ThingUpdated"}},
		{"two commits", func(ctx context.Context, call *Call) error {
			call.Grant()
			return errors.Join(commit(ctx, thing("a")), commit(ctx, thing("b")))
		}, []string{"Call arn:aws:iot:r:000000000000:thing/a", "ThingUpdated", "ThingUpdated"}},
		{"after a conflict", func(ctx context.Context, call *Call) error {
			call.Grant()
			l.fail = []error{&store.ConflictError{}, &store.ConflictError{}}
			for range 2 {
				if err := commit(ctx, thing("a")); !errors.Is(err, store.ErrConflict) {
					return errBroken
				}
			}
			return commit(ctx, thing("a"))
		}, []string{"Call arn:aws:iot:r:000000000000:thing/a", "ThingUpdated"}},
		{"an error behind the first commit", func(ctx context.Context, call *Call) error {
			call.Grant()
			err := commit(ctx, thing("a"))
			call.Fail("Late", "too late")
			return err
		}, []string{"Call arn:aws:iot:r:000000000000:thing/a", "ThingUpdated", "Call!Late"}},
		{"before it is granted", func(ctx context.Context, call *Call) error {
			err := commit(ctx, store.Batch{Writes: []store.Write{{Key: "last-used"}}})
			call.Fail("AccessDenied", "no")
			return err
		}, []string{"Call!AccessDenied"}},
		{"nothing is committed", func(_ context.Context, call *Call) error { call.Grant(); return nil }, []string{"Call"}},
		{"an empty commit", func(ctx context.Context, call *Call) error {
			call.Grant()
			return commit(ctx, store.Batch{Expect: []store.Expect{{Key: "k"}}})
		}, []string{"Call"}},
		{"behind the end", func(ctx context.Context, call *Call) error {
			call.Grant()
			call.Finish()
			return commit(ctx, thing("a"))
		}, []string{"ThingUpdated", "Call"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l.events, l.fail = nil, nil
			call := r.Begin(account, ada, event.APICalled{Name: "Call"})
			ctx := call.In(t.Context())
			if err := c.do(ctx, call); err != nil {
				t.Error(err)
			}
			call.Finish()
			call.Finish()
			r.run(t)()
			if diff := cmp.Diff(c.want, l.told()); diff != "" {
				t.Errorf("log (-want +got):\n%s", diff)
			}
		})
	}
}

// The caller's slice gets the places of its own events, and the position is that
// of the last of them.
func TestRecordingKeepsTheStoresRules(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, inner store.Store) {
		t.Helper()
		l := &ledger{Store: inner}
		r := newRecorder(l, false)
		s := Recording(inner)
		call := r.Begin(account, ada, event.APICalled{Name: "Call"})
		ctx := call.In(t.Context())
		call.Grant()
		b := thing("a")
		b.Events = append(b.Events, thing("b").Events...)
		kept := slices.Clip(b.Events)
		position, err := s.Commit(ctx, b)
		if err != nil {
			t.Fatal(err)
		}
		if kept[0].Seq != 2 || kept[1].Seq != 3 || position.Seq != 3 {
			t.Errorf("events at %d and %d, position %d; want 2, 3 and 3", kept[0].Seq, kept[1].Seq, position.Seq)
		}
		events, _, err := inner.Events(t.Context(), store.Cursor{}, 10)
		if err != nil || len(events) != 3 {
			t.Fatalf("%d events, %v", len(events), err)
		}
		got, ok := events[0].Event.(event.APICalled)
		if !ok || got.Name != "Call" || got.ID == "" || events[0].Actor != ada {
			t.Errorf("first event %+v", events[0])
		}
	})
}

// Commits of one call at once report it once, before or with the first.
func TestConcurrentCommitsOfOneCall(t *testing.T) {
	t.Parallel()
	l := &ledger{fail: []error{&store.ConflictError{}, errBroken}}
	r := newRecorder(l, false)
	s := Recording(l)
	call := r.Begin(account, ada, event.APICalled{Name: "Call"})
	ctx := call.In(t.Context())
	call.Grant()
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() { _, _ = s.Commit(ctx, thing(fmt.Sprint(n))) })
	}
	all.Wait()
	call.Finish()
	r.run(t)()
	told := l.told()
	if len(told) != 7 || !strings.HasPrefix(told[0], "Call ") {
		t.Errorf("log %q, want the call first and six changes", told)
	}
}

func TestDataEventsAreAskedFor(t *testing.T) {
	t.Parallel()
	for _, asked := range []bool{false, true} {
		l := &ledger{}
		r := newRecorder(l, asked)
		call := r.Begin(account, ada, event.APICalled{Name: "Publish", DataEvent: true})
		call.Ask(map[string]any{"topic": "t"})
		call.About("arn")
		call.Grant()
		call.Finish()
		r.run(t)()
		if got := len(l.told()) == 1; got != asked {
			t.Errorf("asked %v, recorded %v", asked, got)
		}
	}
}

func TestStrangersCannotFillTheTrail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{}
		r := newRecorder(l, false)
		stop := r.run(t)
		refuse := func(address string) {
			call := r.Begin("", fleet.Actor{SourceAddress: address}, event.APICalled{Name: "Call"})
			call.Fail("MissingAuthenticationToken", "no")
			call.Finish()
		}
		for range 100 {
			refuse("192.0.2.9")
		}
		for n := range 100 {
			refuse(fmt.Sprint("192.0.2.1", n))
		}
		time.Sleep(2 * strangerWindow)
		refuse("192.0.2.9")
		stop()
		if n := len(l.told()); n != allStrangerReports+1 {
			t.Errorf("%d records, want %d", n, allStrangerReports+1)
		}
		suppressed := 0
		for _, env := range l.events {
			if call, ok := env.Event.(event.APICalled); ok && env.Account == account {
				suppressed += call.Suppressed
			}
		}
		if suppressed != 200-allStrangerReports {
			t.Errorf("the records tell of %d that were not recorded, want %d", suppressed, 200-allStrangerReports)
		}
	})
}

func TestSignInsAreRecorded(t *testing.T) {
	t.Parallel()
	l := &ledger{}
	r := newRecorder(l, false)
	signIn := func(of fleet.Account, who fleet.Principal, code string) {
		call := r.Begin("", fleet.Actor{SourceAddress: "192.0.2.9"}, event.APICalled{Name: "UnknownOperation"})
		call.Ask(map[string]any{"password": "open-it"})
		call.SignIn(of, who, "password")
		call.Fail(code, code)
		call.Finish()
	}
	noise := func() {
		call := r.Begin("", fleet.Actor{SourceAddress: "192.0.2.9"}, event.APICalled{Name: "Noise"})
		call.Finish()
		call = r.Begin("", fleet.Actor{SourceAddress: "192.0.2.9"}, event.APICalled{Name: "Public"})
		call.Forget()
		call.Finish()
	}
	for range strangerReports {
		noise()
	}
	signIn(other, fleet.Principal{Kind: fleet.PrincipalUser, ID: "ada"}, "")
	for range 2 * strangerReports {
		signIn("made-up", fleet.Principal{Kind: fleet.PrincipalAnonymous}, "Unauthorized")
	}
	for range 2 * strangerReports {
		signIn(other, fleet.Principal{Kind: fleet.PrincipalUser, ID: "ada"}, "Unauthorized")
	}
	signIn(other, fleet.Principal{Kind: fleet.PrincipalUser, ID: "ada"}, "")
	r.run(t)()
	count := map[string]int{}
	for _, env := range l.events {
		call, ok := env.Event.(event.APICalled)
		if !ok || call.Kind != event.CallSignIn {
			continue
		}
		count[string(env.Account)+" "+call.ErrorCode]++
		if string(call.Parameters) != `{"method":"password"}` || call.Name != "ConsoleLogin" {
			t.Errorf("sign-in %+v", call)
		}
	}
	want := map[string]int{string(other) + " ": 2, string(account) + " Unauthorized": strangerReports, string(other) + " Unauthorized": strangerReports}
	if diff := cmp.Diff(want, count); diff != "" || len(l.events) != strangerReports*3+2 {
		t.Errorf("%d records\n%s", len(l.events), diff)
	}
}

// After a commit of which nobody knows whether it was made, the failure has a
// record of its own id.
func TestDoubtfulCommit(t *testing.T) {
	t.Parallel()
	l := &ledger{}
	r := newRecorder(l, false)
	stop := r.run(t)
	call := r.Begin(account, ada, event.APICalled{Name: "Call"})
	call.Grant()
	var tried string
	s := Recording(&lostAnswer{ledger: l, id: &tried})
	if _, err := s.Commit(call.In(t.Context()), thing("a")); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	call.Fail("InternalFailureException", "")
	call.Finish()
	stop()
	if diff := cmp.Diff([]string{"Call arn:aws:iot:r:000000000000:thing/a", "ThingUpdated", "Call!InternalFailureException"}, l.told()); diff != "" {
		t.Fatal(diff)
	}
	if last, ok := l.events[2].Event.(event.APICalled); !ok || last.ID == tried || tried == "" {
		t.Errorf("two records have the id %q", tried)
	}
}

// lostAnswer commits and says that it could not.
type lostAnswer struct {
	*ledger
	id *string
}

func (l *lostAnswer) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	if call, ok := b.Events[0].Event.(event.APICalled); ok {
		*l.id = call.ID
	}
	_, err := l.ledger.Commit(ctx, b)
	return store.Position{}, errors.Join(err, errBroken)
}

// A store that takes nothing for a while delays reports; one that takes nothing
// for long makes callers wait and loses some, which the trail says.
func TestBrokenStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &ledger{broken: true}
		r := newRecorder(l, false)
		stop := r.run(t)
		call := func() {
			call := r.Begin(account, ada, event.APICalled{Name: "Call"})
			call.Finish()
		}
		begun := time.Now()
		call()
		synctest.Wait()
		time.Sleep(2 * gather)
		for range queued {
			call()
		}
		if took := time.Since(begun); took > time.Second {
			t.Errorf("callers waited %v although there was room", took)
		}
		call()
		call()
		if took := time.Since(begun); took < patience || took > patience+time.Second {
			t.Errorf("two callers without room waited %v, want one of them %v and the other nothing", took, patience)
		}
		l.mu.Lock()
		l.broken = false
		l.mu.Unlock()
		stop()
		told := l.told()
		lost := 0
		for _, name := range told {
			if name == "AuditRecordsLost" {
				lost++
			}
		}
		if len(told) != queued+2 || lost != 1 {
			t.Errorf("%d events, %d of them about what is lost; want %d and 1", len(told), lost, queued+2)
		}
	})
}

func TestParametersHoldNoSecrets(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   map[string]any
		want string
	}{
		{nil, ""},
		{map[string]any{"thingName": "a", "n": 1, "on": true}, `{"n":1,"on":true,"thingName":"a"}`},
		{
			map[string]any{"password": "p", "newPassword": "p", "Secret_Access-Key": "s", "sessionToken": "t", "privateKey": "k", "tokenSignature": "s", "token": []any{"t"}},
			`{"Secret_Access-Key":"H","newPassword":"H","password":"H","privateKey":"H","sessionToken":"H","token":"H","tokenSignature":"H"}`,
		},
		{
			map[string]any{"tokenKeyName": "k", "tokenSigningPublicKeys": map[string]any{"a": "PUBLIC"}, "clientRequestToken": "c", "userName": "u"},
			`{"clientRequestToken":"c","tokenKeyName":"k","tokenSigningPublicKeys":{"a":"PUBLIC"},"userName":"u"}`,
		},
		{
			map[string]any{"mqttContext": map[string]any{"username": "u?token=t", "password": "p", "clientId": "c"}, "httpContext": map[string]any{"headers": "h"}},
			`{"httpContext":"H","mqttContext":{"clientId":"c","password":"H","username":"H"}}`,
		},
		{
			map[string]any{"attributePayload": map[string]any{"attributes": map[string]any{"wifiPassword": "p", "colour": "red"}}},
			`{"attributePayload":{"attributes":{"colour":"red","wifiPassword":"H"}}}`,
		},
		{map[string]any{"description": "-----BEGIN EC PRIVATE KEY-----\nMHc"}, `{"description":"H"}`},
		{map[string]any{"certificatePem": "-----BEGIN CERTIFICATE-----"}, `{"certificatePem":"-----BEGIN CERTIFICATE-----"}`},
		{map[string]any{"x": strings.Repeat("ä", maxText)}, `{"x":"` + strings.Repeat("ä", maxText/2) + `… (24576 bytes)"}`},
		{map[string]any{"a": strings.Repeat("a", maxText), "b": strings.Repeat("a", maxText), "c": strings.Repeat("a", maxText)}, `{"omitted":"36886 bytes"}`},
	} {
		if got := strings.ReplaceAll(string(Parameters(c.in)), hidden, "H"); got != c.want {
			t.Errorf("%.200v:\n got %.300s\nwant %.300s", c.in, got, c.want)
		}
	}
	deep := map[string]any{}
	for range 100 {
		deep = map[string]any{"d": deep}
	}
	if got := string(Parameters(deep)); !strings.Contains(got, "nested too deeply") {
		t.Errorf("deep parameters: %.200s", got)
	}
}

func FuzzVerifyExport(f *testing.F) {
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"v":1,"what":"muster audit export"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		verdict, err := VerifyExport(strings.NewReader(string(data)), nil, Witness{
			Found: func(Finding) error { return nil }, Progress: func(int) error { return nil },
		})
		if err == nil && verdict.Findings == 0 && verdict.PublicKey == "" {
			t.Errorf("nothing is wrong with %q", data)
		}
	})
}

package audit

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Call is one call under way, from Recorder.Begin to Finish. A front end tells
// it what becomes known; nil takes everything and keeps nothing. It is safe for
// concurrent use.
type Call struct {
	recorder *Recorder
	// turn is held while a commit carries the report, and while it is decided
	// that none will.
	turn chan struct{}

	mu      sync.Mutex
	account fleet.Account
	// other has the report too, if the call is done.
	other fleet.Account
	actor fleet.Actor
	fact  event.APICalled
	// granted says that commits are the call's own doing.
	granted  bool
	reported bool
	// doubtful says that a commit with the report ended in an error that leaves
	// open whether it was made.
	doubtful bool
	finished bool
}

type callKey struct{}

// From returns the context's call, or nil.
func From(ctx context.Context) *Call {
	call, _ := ctx.Value(callKey{}).(*Call)
	return call
}

// In returns a context in which the first commit reports the call, once it is
// granted.
func (c *Call) In(ctx context.Context) context.Context {
	if c == nil {
		return ctx
	}
	return context.WithValue(ctx, callKey{}, c)
}

// newID returns a version 4 UUID.
func newID() string {
	var b [16]byte
	// Read never fails; it ends the process rather than return weak bytes.
	_, _ = rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Describe says what is called: source and name, and whether it only reads.
func (c *Call) Describe(source, name string, readOnly bool) {
	c.change(func() { c.fact.Source, c.fact.Name, c.fact.ReadOnly = source, name, readOnly })
}

// SignIn says that the call is a person who signs in, in which way, and as whom:
// proven, or when it fails the user that was tried, if there is one. A failed
// sign-in as nobody is recorded in the default account: which one was meant is
// only claimed.
func (c *Call) SignIn(account fleet.Account, principal fleet.Principal, method string) {
	c.Ask(map[string]any{"method": method})
	c.change(func() {
		c.fact.Kind, c.fact.Source, c.fact.Name, c.fact.ReadOnly = event.CallSignIn, "signin.amazonaws.com", "ConsoleLogin", false
		c.account, c.actor.Principal = account, principal
	})
}

// Forget ends the call without a record: it is one that anybody may make and that
// tells and changes nothing.
func (c *Call) Forget() { c.change(func() { c.finished = true }) }

// Caller says who calls, proven.
func (c *Call) Caller(account fleet.Account, actor fleet.Actor) {
	c.change(func() { c.account, c.actor = account, actor })
}

// Session says when the session began whose credentials signed; zero for none.
func (c *Call) Session(began time.Time) { c.change(func() { c.fact.SessionBegan = began }) }

// Secured says by which version and cipher suite of TLS the call came, and which
// server it asked for.
func (c *Call) Secured(version, cipherSuite uint16, serverName string) {
	c.change(func() {
		c.fact.TLSVersion = strings.ReplaceAll(tls.VersionName(version), "TLS 1.", "TLSv1.")
		c.fact.CipherSuite, c.fact.ServerName = tls.CipherSuiteName(cipherSuite), serverName
	})
}

// Ask says what was asked for; see Parameters.
func (c *Call) Ask(parameters map[string]any) {
	if c == nil {
		return
	}
	kept := Parameters(parameters)
	c.change(func() { c.fact.Parameters = kept })
}

// About names resources that the call is about; "*" is none.
func (c *Call) About(resources ...string) {
	c.change(func() { c.fact.Resources = distinct(append(slices.Clone(c.fact.Resources), resources...)) })
}

// Reaches says that the call, once it is done, concerns another account as well,
// whose trail has the same report under the same id.
func (c *Call) Reaches(other fleet.Account) { c.change(func() { c.other = other }) }

// Grant says that the caller may. What is committed from now on is the call's
// doing.
func (c *Call) Grant() { c.change(func() { c.granted = true }) }

// Fail notes why the call is not done; the last one counts.
func (c *Call) Fail(code, message string) {
	c.change(func() { c.fact.ErrorCode, c.fact.ErrorMessage = code, cut(message, maxMessage) })
}

// RequestID is the id that the call's reply carries, "" for nil.
func (c *Call) RequestID() string {
	if c == nil {
		return ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.actor.RequestID
}

// change applies what became known.
func (c *Call) change(apply func()) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	apply()
}

// Finish ends the call. Unless a commit has reported it, or it failed after
// that, it is left to the Recorder; Finish waits while that one's queue is full.
// A second Finish does nothing.
func (c *Call) Finish() {
	if c == nil {
		return
	}
	c.turn <- struct{}{}
	reports := c.finish()
	<-c.turn
	for _, env := range reports {
		c.recorder.enqueue(env)
	}
}

// finish takes the reports that are still to be made.
func (c *Call) finish() (reports []event.Envelope) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.finished {
		return nil
	}
	c.finished = true
	if c.fact.ErrorCode == "" && c.other != "" && c.other != c.account {
		copied := c.envelope(c.fact.Resources)
		copied.Account = c.other
		reports = append(reports, copied)
	}
	if c.reported && c.fact.ErrorCode == "" {
		return reports
	}
	if c.reported || c.doubtful {
		// There may be a record by that id.
		c.fact.ID = newID()
	}
	if !c.recorder.admit(c) {
		return reports
	}
	return append(reports, c.envelope(c.fact.Resources))
}

// envelope is the report as of now; the caller holds mu.
func (c *Call) envelope(resources []string) event.Envelope {
	fact := c.fact
	fact.Resources = slices.Clone(resources)
	return event.Envelope{Account: c.account, At: c.recorder.o.Now(), Actor: c.actor, Event: fact}
}

// ride takes the turn of the commit that will carry the report. It returns false
// when none has to.
func (c *Call) ride(ctx context.Context, events []event.Envelope) (report event.Envelope, ok bool, err error) {
	if !c.pending() {
		return report, false, nil
	}
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return report, false, ctx.Err()
	}
	if !c.pending() {
		<-c.turn
		return report, false, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	made := resourcesOf(fleet.Scope{Region: c.recorder.o.Region}, events)
	report = c.envelope(distinct(append(slices.Clone(c.fact.Resources), made...)))
	if fact, isCall := report.Event.(event.APICalled); isCall {
		// How it ends is not known yet.
		fact.ErrorCode, fact.ErrorMessage = "", ""
		report.Event = fact
	}
	return report, true, nil
}

// alight gives the turn back.
func (c *Call) alight(committed bool, err error) {
	c.change(func() {
		c.reported = c.reported || committed
		c.doubtful = c.doubtful || err != nil && !errors.Is(err, store.ErrConflict)
	})
	<-c.turn
}

// pending reports whether a commit has to carry the report.
func (c *Call) pending() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.granted && !c.reported && !c.finished
}

// recording is a store whose commits report the call that makes them.
type recording struct{ store.Store }

// Recording returns a store that adds, to the first commit that is made in the
// context of a granted call, the report of the call: what was changed and who
// did it become durable together. Domains use it without knowing.
func Recording(inner store.Store) store.Store { return recording{inner} }

// Commit implements store.Store.
func (s recording) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	call := From(ctx)
	if call == nil || len(b.Writes) == 0 && len(b.Events) == 0 {
		return s.Store.Commit(ctx, b) //nolint:wrapcheck // as if it were the store itself
	}
	report, ok, err := call.ride(ctx, b.Events)
	if err != nil {
		return store.Position{}, err
	}
	if !ok {
		return s.Store.Commit(ctx, b) //nolint:wrapcheck // as above
	}
	committed := false
	defer func() { call.alight(committed, err) }()
	// The report comes first, so that the position is that of the caller's last
	// event. The caller's slice is its own: the places go there afterwards.
	joined := append([]event.Envelope{report}, b.Events...)
	position, err := s.Store.Commit(ctx, store.Batch{Expect: b.Expect, Writes: b.Writes, Events: joined})
	if err != nil {
		return position, err //nolint:wrapcheck // as above
	}
	committed = true
	for i := range b.Events {
		b.Events[i].Partition, b.Events[i].Seq = joined[i+1].Partition, joined[i+1].Seq
	}
	return position, nil
}

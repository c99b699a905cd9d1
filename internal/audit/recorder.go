package audit

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/inlet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// queued bounds the reports that wait; a call that meets a full queue waits
	// for room, patience at most, and not at all once one has waited in vain.
	queued   = 4096
	patience = 10 * time.Second
	// gather is how long a report waits for others to share its commit, gathered
	// how many share one.
	gather   = 50 * time.Millisecond
	gathered = 1000
	// firstPause and longestPause bound the wait after a failed commit.
	firstPause   = 50 * time.Millisecond
	longestPause = 5 * time.Second
)

// Reports about callers that nobody has proven to be: of one address, and of
// all, in a window. The rest is counted.
const (
	strangerReports    = 10
	allStrangerReports = 30
	strangerWindow     = time.Minute
	// maxStranger bounds what is kept of the request of one, in bytes.
	maxStranger = 2 << 10
)

// RecorderOptions are what a Recorder needs.
type RecorderOptions struct {
	// Store takes the reports of calls that committed nothing; not one that
	// Recording returned.
	Store  store.Store
	Region string
	// DefaultAccount has the reports of callers that are of no account.
	DefaultAccount fleet.Account
	// DataEvents makes reports of calls of the data plane too.
	DataEvents bool
	Now        func() time.Time
	Logger     *slog.Logger
	// Registerer is optional.
	Registerer prometheus.Registerer
}

// Recorder brings calls into the event log. Those that commit something are
// reported there and then; those that do not go through a bounded queue and
// share commits, so that a crash loses those of the last moment.
type Recorder struct {
	o         RecorderOptions
	queue     chan event.Envelope
	flush     chan chan struct{}
	strangers *inlet.Quota
	// signIns is for failed sign-ins, which other noise must not hide, and guesses
	// for those of users that there are, which made-up names must not hide.
	signIns, guesses *inlet.Quota
	// lost counts reports that found no room, until the log says so; missing is
	// the same for ever.
	lost    atomic.Int64
	missing prometheus.Counter
}

// NewRecorder returns a recorder; Run writes.
func NewRecorder(o RecorderOptions) *Recorder {
	r := &Recorder{
		o: o, queue: make(chan event.Envelope, queued), flush: make(chan chan struct{}),
		strangers: inlet.NewQuota(strangerReports, allStrangerReports, strangerWindow),
		signIns:   inlet.NewQuota(strangerReports, allStrangerReports, strangerWindow),
		guesses:   inlet.NewQuota(strangerReports, allStrangerReports, strangerWindow),
		missing: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muster_audit_lost_total", Help: "Calls that could not be recorded, because the store did not take reports.",
		}),
	}
	if o.Registerer != nil {
		waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "muster_audit_queue", Help: "Calls that wait to be recorded.",
		}, func() float64 { return float64(len(r.queue)) })
		o.Registerer.MustRegister(r.missing, waiting)
	}
	return r
}

// Begin opens a call. A nil recorder, and a call of the data plane where those are
// not asked for, give a nil call.
func (r *Recorder) Begin(account fleet.Account, actor fleet.Actor, fact event.APICalled) *Call {
	if r == nil || fact.DataEvent && !r.o.DataEvents {
		return nil
	}
	fact.ID, fact.UserAgent = newID(), cut(fact.UserAgent, maxUserAgent)
	fact.ErrorMessage = cut(fact.ErrorMessage, maxMessage)
	return &Call{recorder: r, turn: make(chan struct{}, 1), account: account, actor: actor, fact: fact}
}

// Service reports an act of the server itself, at once if the store takes it.
func (r *Recorder) Service(ctx context.Context, account fleet.Account, name string, details map[string]any) {
	fact := serviceEvent(name, details)
	fact.ID = newID()
	env := event.Envelope{Account: account, At: r.o.Now(), Actor: fleet.System, Event: fact}
	if _, err := r.o.Store.Commit(ctx, store.Batch{Events: []event.Envelope{env}}); err != nil {
		r.o.Logger.ErrorContext(ctx, "act of the server is recorded later", slog.String("act", name), slog.Any("err", err))
		r.enqueue(env)
	}
}

// admit gives a report of nobody's the default account, and says no when there
// are too many of them. The caller holds the call's mu.
func (r *Recorder) admit(c *Call) bool {
	kind := c.actor.Principal.Kind
	named := kind != "" && kind != fleet.PrincipalAnonymous && c.account != ""
	signIn := c.fact.Kind == event.CallSignIn
	if named && (!signIn || c.fact.ErrorCode == "") {
		return true
	}
	quota := r.strangers
	switch {
	case signIn && named:
		quota = r.guesses
	case signIn:
		quota = r.signIns
	}
	suppressed, ok := quota.Take(c.actor.SourceAddress, r.o.Now())
	if !ok {
		return false
	}
	if !named {
		c.account = r.o.DefaultAccount
	}
	c.fact.Suppressed = suppressed
	if n := len(c.fact.Parameters); n > maxStranger {
		c.fact.Parameters = fmt.Appendf(nil, `{"omitted":"%d bytes"}`, n)
	}
	return true
}

// enqueue hands a report to Run.
func (r *Recorder) enqueue(env event.Envelope) {
	select {
	case r.queue <- env:
		return
	default:
	}
	wait := patience
	if r.lost.Load() > 0 {
		// Somebody has waited in vain since the store last took reports: nobody
		// else does, so that reading goes on while a disk is full.
		wait = 0
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case r.queue <- env:
	case <-timer.C:
		// The store has taken nothing for as long as that. The trail will say
		// how many there were.
		if r.lost.Add(1) == 1 {
			r.o.Logger.Error("calls are not recorded: the store takes no reports")
		}
		r.missing.Inc()
	}
}

// Run writes reports until ctx ends.
func (r *Recorder) Run(ctx context.Context) error {
	for {
		select {
		case env := <-r.queue:
			if !r.write(ctx, r.gather(ctx, env, gather)) {
				return nil
			}
		case done := <-r.flush:
			for len(r.queue) > 0 {
				if !r.write(ctx, r.gather(ctx, <-r.queue, 0)) {
					return nil
				}
			}
			close(done)
		case <-ctx.Done():
			return nil
		}
	}
}

// gather waits a moment for more.
func (r *Recorder) gather(ctx context.Context, first event.Envelope, moment time.Duration) []event.Envelope {
	events := append(make([]event.Envelope, 0, 16), first)
	timer := time.NewTimer(moment)
	defer timer.Stop()
	for len(events) < gathered {
		if len(r.queue) > 0 {
			events = append(events, <-r.queue)
			continue
		}
		select {
		case env := <-r.queue:
			events = append(events, env)
		case <-timer.C:
			return events
		case <-ctx.Done():
			return events
		}
	}
	return events
}

// write commits reports, however long that takes; false means that ctx ended
// before.
func (r *Recorder) write(ctx context.Context, events []event.Envelope) bool {
	pause := firstPause
	for {
		lost := r.lost.Load()
		batch := events
		if lost > 0 {
			gap := serviceEvent("AuditRecordsLost", map[string]any{"calls": lost})
			gap.ID = newID()
			batch = append(slices.Clip(batch), event.Envelope{Account: r.o.DefaultAccount, At: r.o.Now(), Actor: fleet.System, Event: gap})
		}
		_, err := r.o.Store.Commit(ctx, store.Batch{Events: batch})
		if err == nil {
			r.lost.Add(-lost)
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		r.o.Logger.ErrorContext(ctx, "calls are recorded later", slog.Int("calls", len(events)), slog.Duration("pause", pause), slog.Any("err", err))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		}
		pause = min(2*pause, longestPause)
	}
}

// Drain returns when all reports that were made before it are durable, or ctx
// ends. Run must be running.
func (r *Recorder) Drain(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case r.flush <- done:
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // the caller's own
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // the caller's own
	}
}

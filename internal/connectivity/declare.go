package connectivity

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Operation is what a device declares.
type Operation string

// Operations.
const (
	// Hello says that the device works, Heartbeat that it still does.
	Hello     Operation = "hello"
	Heartbeat Operation = "heartbeat"
	// Goodbye says that the device is about to leave.
	Goodbye Operation = "goodbye"
)

// Declaration is what a device says about itself, or a gateway about a thing
// behind it.
type Declaration struct {
	Account   fleet.Account
	Thing     string
	Operation Operation
	// ClientID and ConnectionID are the publisher's; Indexed says that its
	// connection counts as that of the thing named like the client id.
	ClientID     string
	ConnectionID string
	Indexed      bool
	At           time.Time
	// Interval is that of heartbeats, 0 for none declared.
	Interval time.Duration
	// NextContact and Sleep are the end of an announced absence or its length;
	// at most one is set, with Goodbye.
	NextContact time.Time
	Sleep       time.Duration
	// Lost makes of a gateway's Goodbye for a thing that it does not hear it any
	// more.
	Lost bool
	// Done is called once with the outcome, after the commit.
	Done func(Declared, error)

	held time.Duration
}

// Declared is the outcome of a declaration.
type Declared struct {
	State        State
	StateVersion int64
}

// Bounds of declarations.
const (
	// maxLine bounds the declarations that wait, those for connections whose begin
	// is not known yet included.
	maxLine = 50_000
	// earlyPatience is how long one waits for the begin of its connection.
	earlyPatience = 30 * time.Second
	// MinInterval and MaxInterval bound the interval of heartbeats.
	MinInterval = 5 * time.Second
	MaxInterval = 7 * 24 * time.Hour
	// maxAhead bounds how far ahead a next contact may be.
	maxAhead = longest
	// maxChildren bounds what lies behind one gateway.
	maxChildren = 10_000
)

// connectionKey names a client's connection.
type connectionKey struct {
	account                fleet.Account
	clientID, connectionID string
}

// line holds declarations until Run takes them.
type line struct {
	wake chan struct{}

	mu      sync.Mutex
	waiting []*Declaration
}

func newLine() *line { return &line{wake: make(chan struct{}, 1)} }

// put reports false when the line is full.
func (l *line) put(d *Declaration) bool {
	l.mu.Lock()
	full := len(l.waiting) >= maxLine
	if !full {
		l.waiting = append(l.waiting, d)
	}
	l.mu.Unlock()
	l.again()
	return !full
}

// again makes Run take another step at once.
func (l *line) again() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// take returns up to a batch of declarations.
func (l *line) take() []*Declaration {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(len(l.waiting), batchThings)
	taken := l.waiting[:n:n]
	if l.waiting = l.waiting[n:]; len(l.waiting) == 0 {
		l.waiting = nil
	}
	return taken
}

// back puts declarations in front again.
func (l *line) back(d []*Declaration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = append(slices.Clip(d), l.waiting...)
}

// Declare takes a declaration in. It never blocks; Done may be called at once
// or later, from any goroutine.
func (s *Service) Declare(d Declaration) {
	if err := s.check(&d); err != nil {
		d.Done(Declared{}, err)
		return
	}
	s.metrics.waiting.Inc()
	done := d.Done
	d.Done = func(r Declared, err error) {
		s.metrics.waiting.Dec()
		done(r, err)
	}
	if !s.line.put(&d) {
		d.Done(Declared{}, fault.New(fault.Throttling, "too many declarations are waiting"))
	}
}

// check refuses what can be seen to be wrong without a look at records.
func (s *Service) check(d *Declaration) error {
	switch {
	case !fleet.ValidName(d.Thing):
		return fault.New(fault.InvalidRequest, "thing: %q is no name of a thing", d.Thing)
	case d.ConnectionID == "" || !d.Indexed:
		return fault.New(fault.Forbidden, "only a connection whose client id is a thing and whose certificate is attached to it may declare")
	case d.Interval != 0 && (d.Interval < MinInterval || d.Interval > MaxInterval):
		return fault.New(fault.InvalidRequest, "heartbeatSeconds: must be between %g and %g", MinInterval.Seconds(), MaxInterval.Seconds())
	case d.Sleep < 0 || d.Sleep > maxAhead:
		return fault.New(fault.InvalidRequest, "sleepSeconds: must be between 0 and %g", maxAhead.Seconds())
	case !d.NextContact.IsZero() && (!d.NextContact.After(d.At) || d.NextContact.Sub(d.At) > maxAhead):
		return fault.New(fault.InvalidRequest, "nextContact: must lie in the future and at most %d days ahead", int(maxAhead.Hours()/24))
	case d.Lost && d.Thing == d.ClientID:
		return fault.New(fault.InvalidRequest, "lost: is for a gateway that speaks for a thing behind it")
	}
	return nil
}

// takeDeclarations takes in all that wait, batch by batch.
func (s *Service) takeDeclarations(ctx context.Context) error {
	for {
		taken := s.line.take()
		if len(taken) == 0 {
			return nil
		}
		b := s.newBatch()
		err := s.declareAll(ctx, b, taken)
		if err == nil {
			err = s.commit(ctx, b)
		}
		if err != nil {
			s.line.back(taken)
			return err
		}
	}
}

func (s *Service) declareAll(ctx context.Context, b *batch, taken []*Declaration) error {
	things := make([]thingKey, 0, len(taken))
	for _, d := range taken {
		things = append(things, thingKey{d.Account, d.Thing}, thingKey{d.Account, d.ClientID})
	}
	if err := b.load(ctx, things...); err != nil {
		return err
	}
	for _, d := range taken {
		if err := s.declare(ctx, b, d); err != nil {
			return err
		}
	}
	return nil
}

// declare carries one declaration into the batch, or holds it until the begin of
// its connection is known. A refusal is an answer and no error.
func (s *Service) declare(ctx context.Context, b *batch, d *Declaration) error {
	speaker, err := b.at(ctx, thingKey{d.Account, d.ClientID})
	if err != nil {
		return err
	}
	if speaker.record == nil || speaker.record.Session.ConnectionID != d.ConnectionID {
		s.keepEarly(b, d)
		return nil
	}
	if !speaker.record.Session.Live {
		b.answer(d, Declared{}, fault.New(fault.Conflict, "the connection has ended"))
		return nil
	}
	in := &input{
		at: min(d.At.UnixMilli(), b.now), interval: d.Interval.Milliseconds(), session: session{ConnectionID: d.ConnectionID}, floating: d.Sleep > 0,
	}
	if d.Thing != d.ClientID {
		return s.speakFor(ctx, b, d, in)
	}
	in.kind = inHeard
	if d.Operation == Goodbye {
		in.kind, in.nextContact = inGoodbye, d.contact(in.at)
	}
	return b.declared(ctx, d, in)
}

// contact is the end of the absence that is announced, 0 for none.
func (d *Declaration) contact(at int64) int64 {
	switch {
	case !d.NextContact.IsZero():
		return d.NextContact.UnixMilli()
	case d.Sleep > 0:
		return at + d.Sleep.Milliseconds()
	default:
		return 0
	}
}

// declared decides and answers.
func (b *batch) declared(ctx context.Context, d *Declaration, in *input) error {
	k := thingKey{d.Account, d.Thing}
	ignored, err := b.decide(ctx, k, in)
	if err != nil {
		return err
	}
	now := Declared{State: NeverSeen}
	if r := b.slots[k].record; r != nil {
		now = Declared{State: r.State, StateVersion: r.StateVersion}
	}
	if ignored != "" {
		b.answer(d, now, fault.New(fault.Conflict, "%s is %s and takes no %s now", d.Thing, now.State, d.Operation))
		return nil
	}
	b.answer(d, now, nil)
	return nil
}

// answer tells the outcome after the commit.
func (b *batch) answer(d *Declaration, now Declared, err error) {
	b.done = append(b.done, func() { d.Done(now, err) })
}

// keepEarly keeps a declaration until the begin of its connection is known.
func (s *Service) keepEarly(b *batch, d *Declaration) {
	if s.waiting >= maxLine {
		b.answer(d, Declared{}, fault.New(fault.Throttling, "too many declarations are waiting"))
		return
	}
	k := connectionKey{d.Account, d.ClientID, d.ConnectionID}
	b.done = append(b.done, func() {
		d.held = s.o.Elapsed()
		s.early[k] = append(s.early[k], d)
		s.waiting++
	})
}

// expireEarly answers declarations whose connection nobody has told of.
func (s *Service) expireEarly() {
	if s.waiting == 0 {
		return
	}
	for k, held := range s.early {
		if s.o.Elapsed()-held[0].held < earlyPatience {
			continue
		}
		delete(s.early, k)
		s.waiting -= len(held)
		for _, d := range held {
			d.Done(Declared{}, fault.New(fault.Conflict, "the connection is not the newest of its client"))
		}
	}
}

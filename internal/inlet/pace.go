package inlet

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// wakeEvery is how long a pace sleeps at least while somebody waits: those
	// whose turn came meanwhile go together.
	wakeEvery = 2 * time.Millisecond
	// calmAfter is how long nobody must have waited for a storm to be over.
	calmAfter = 10 * time.Second
	// longestHint bounds what a client is asked to stay away.
	longestHint = 5 * time.Minute
)

// PaceOptions belong to one Pace.
type PaceOptions struct {
	// PerSecond is how many enter on average, Burst how many at once after a
	// quiet time. Both must be above 0.
	PerSecond, Burst int
	// Room is how many may wait at once, Patience how long each.
	Room     int
	Patience time.Duration
	// Shares are the lanes: each is guaranteed this part, out of the sum, of the
	// pace while it has somebody waiting, and of the room always.
	Shares []int
	// Fair gives every source of a lane its turn, and keeps room free for
	// others: no source takes more places than it leaves.
	Fair bool
	Now  func() time.Time
	// Backlog is the number of those who wait elsewhere and will come here; hints
	// leave them their turns. It may be nil, and must not call the pace.
	Backlog func() int
	// Began and Ended are told of a storm, which begins when somebody must wait
	// and ends when nobody has for ten seconds. They must not block and may be
	// nil.
	Began func()
	Ended func(Storm)
}

// Storm is what a pace tells about a time in which more came than could enter.
type Storm struct {
	Took time.Duration
	// Admitted counts all who entered meanwhile, Refused those sent away.
	Admitted, Refused int
	// Waited is the largest number that waited at once.
	Waited int
}

// BusyError is the refusal of somebody for whom there was no room, or whose
// patience ended.
type BusyError struct {
	// RetryAfter is when coming back promises more: each who is refused is told
	// another time, so that they come back at the pace.
	RetryAfter time.Duration
}

// Error says when to come back.
func (e *BusyError) Error() string {
	return fmt.Sprintf("server is busy, retry after %v", e.RetryAfter.Round(time.Second))
}

// Pace lets so many in per second and makes the others wait for their turn, a
// bounded number for a bounded time. It starts no goroutine; timers of the
// runtime drive it while somebody waits.
type Pace struct {
	o    PaceOptions
	rate float64 // per second

	mu       sync.Mutex
	tokens   float64
	filled   time.Time // when tokens was right
	lanes    []lane
	waiting  int
	timer    *time.Timer // set while somebody waits
	promised time.Time   // the last turn that a refused one was told of
	stormy   bool
	began    time.Time
	calm     *time.Timer
	storm    Storm
}

// lane is one class of those who wait.
type lane struct {
	share, room int
	live        int // those who wait
	credit      int // turns that are due, in parts of the sum of shares
	turns       fifo[*waitingSource]
	sources     map[netip.Prefix]*waitingSource
}

// waitingSource is the queue of one source in a lane. It exists while it holds
// somebody, present or gone.
type waitingSource struct {
	key   netip.Prefix
	queue fifo[*waiter]
	live  int
}

// waiter is one who waits.
type waiter struct {
	enter chan struct{} // closed when it is its turn
	// done is set once it has entered or given up; guarded by the pace.
	done bool
}

// NewPace returns a pace with its burst available.
func NewPace(o PaceOptions) *Pace {
	p := &Pace{o: o, rate: float64(o.PerSecond), tokens: float64(o.Burst), filled: o.Now(), lanes: make([]lane, len(o.Shares))}
	sum := 0
	for _, share := range o.Shares {
		sum += share
	}
	for i, share := range o.Shares {
		p.lanes[i] = lane{share: share, room: max(1, o.Room*share/sum), sources: make(map[netip.Prefix]*waitingSource)}
	}
	return p
}

// Enter waits for a turn in a lane until ctx ends. A BusyError says that there
// is none to be had soon.
func (p *Pace) Enter(ctx context.Context, in int, peer net.Addr) error {
	var key netip.Prefix
	if p.o.Fair {
		key = sourceOf(peer)
	}
	w, err := p.arrive(in, key)
	if w == nil {
		return err
	}
	patience := time.NewTimer(p.o.Patience)
	defer patience.Stop()
	select {
	case <-w.enter:
		return nil
	case <-patience.C:
	case <-ctx.Done():
		err = fmt.Errorf("wait for a turn: %w", ctx.Err())
	}
	return p.giveUp(in, key, w, err)
}

// Waiting is the number that waits in a lane.
func (p *Pace) Waiting(in int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lanes[in].live
}

// arrive lets somebody in at once, refuses, or makes it wait.
func (p *Pace) arrive(in int, key netip.Prefix) (*waiter, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.o.Now()
	p.fill(now)
	if p.waiting == 0 && p.tokens >= 1 {
		p.tokens--
		p.storm.Admitted++
		return nil, nil //nolint:nilnil // no wait and no error
	}
	p.begin(now)
	l := &p.lanes[in]
	s := l.sources[key]
	taken := 0
	if s != nil {
		taken = s.live
	}
	if free := l.room - l.live; free <= 0 || p.o.Fair && taken >= free {
		return nil, p.refuse(now)
	}
	if s == nil {
		s = &waitingSource{key: key}
		l.sources[key] = s
		l.turns.push(s)
	}
	w := &waiter{enter: make(chan struct{})}
	s.queue.push(w)
	s.live++
	l.live++
	p.waiting++
	p.storm.Waited = max(p.storm.Waited, p.waiting)
	p.schedule()
	return w, nil
}

// giveUp takes somebody out who does not wait any longer. cause is nil when
// that is for lack of patience; whose turn has come meanwhile enters, unless
// it is leaving anyway.
func (p *Pace) giveUp(in int, key netip.Prefix, w *waiter, cause error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.done {
		return cause
	}
	w.done = true
	l := &p.lanes[in]
	l.sources[key].live--
	l.live--
	p.waiting--
	if p.waiting == 0 {
		p.subside()
	}
	if cause != nil {
		return cause
	}
	return p.refuse(p.o.Now())
}

// fill adds what the time since the last look has brought.
func (p *Pace) fill(now time.Time) {
	p.tokens = min(float64(p.o.Burst), p.tokens+p.rate*max(0, now.Sub(p.filled).Seconds()))
	p.filled = now
}

// schedule makes sure that somebody looks when the next turn has come.
func (p *Pace) schedule() {
	if p.timer != nil {
		return
	}
	next := time.Duration((1 - p.tokens) / p.rate * float64(time.Second))
	p.timer = time.AfterFunc(max(next, wakeEvery), p.wake)
}

// wake lets those in whose turn has come.
func (p *Pace) wake() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = nil
	p.fill(p.o.Now())
	for p.waiting > 0 && p.tokens >= 1 {
		l := p.nextLane()
		w := l.pop()
		w.done = true
		close(w.enter)
		p.waiting--
		p.tokens--
		p.storm.Admitted++
	}
	if p.waiting > 0 {
		p.schedule()
		return
	}
	p.subside()
}

// nextLane chooses among the lanes in which somebody waits so that each gets
// turns in proportion to its share, evenly.
func (p *Pace) nextLane() *lane {
	var best *lane
	sum := 0
	for i := range p.lanes {
		l := &p.lanes[i]
		if l.live == 0 {
			l.credit = 0
			continue
		}
		sum += l.share
		l.credit += l.share
		if best == nil || l.credit > best.credit {
			best = l
		}
	}
	best.credit -= sum
	return best
}

// pop takes out who is next in a lane in which somebody waits.
func (l *lane) pop() *waiter {
	for {
		s := l.turns.pop()
		if s.live == 0 {
			delete(l.sources, s.key)
			continue
		}
		w := s.queue.pop()
		for w.done { // it has given up
			w = s.queue.pop()
		}
		s.live--
		l.live--
		l.turns.push(s)
		return w
	}
}

// refuse counts a refusal and tells it a turn of its own: behind those who
// wait and behind those who were told before, at the pace, and a little later
// by chance.
func (p *Pace) refuse(now time.Time) error {
	p.storm.Refused++
	turn := func(n float64) time.Duration { return time.Duration(n / p.rate * float64(time.Second)) }
	ahead := p.waiting
	if p.o.Backlog != nil {
		ahead += p.o.Backlog()
	}
	if soonest := now.Add(turn(float64(ahead))); p.promised.Before(soonest) {
		p.promised = soonest
	}
	p.promised = p.promised.Add(turn(1))
	after := p.promised.Sub(now)
	chance := rand.Float64() //nolint:gosec // it spreads load and keeps no secret
	if after > longestHint {
		p.promised = p.promised.Add(-turn(1))
		return &BusyError{RetryAfter: longestHint/2 + time.Duration(chance*float64(longestHint/2))}
	}
	return &BusyError{RetryAfter: after + time.Duration(chance*float64(time.Second+after/4))}
}

// begin notes that more come than can enter.
func (p *Pace) begin(now time.Time) {
	if p.calm != nil {
		p.calm.Stop()
		p.calm = nil
	}
	if p.stormy {
		return
	}
	p.stormy, p.began, p.storm = true, now, Storm{}
	if p.o.Began != nil {
		p.o.Began()
	}
}

// subside waits for the end of a storm once nobody waits, and forgets the
// sources.
func (p *Pace) subside() {
	for i := range p.lanes {
		clear(p.lanes[i].sources)
		p.lanes[i].turns = fifo[*waitingSource]{}
	}
	if p.stormy && p.calm == nil {
		p.calm = time.AfterFunc(calmAfter, p.end)
	}
}

// end tells that a storm is over unless it has gone on.
func (p *Pace) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting > 0 || p.calm == nil {
		return
	}
	p.stormy, p.calm = false, nil
	p.storm.Took = p.o.Now().Sub(p.began) - calmAfter
	if p.o.Ended != nil {
		p.o.Ended(p.storm)
	}
}

// fifo is a queue that gives its memory back as it empties.
type fifo[T any] struct {
	items []T
	head  int
}

// push adds at the end.
func (f *fifo[T]) push(v T) { f.items = append(f.items, v) }

// pop takes the first; there must be one.
func (f *fifo[T]) pop() T {
	var none T
	v := f.items[f.head]
	f.items[f.head] = none
	if f.head++; f.head > len(f.items)/2 {
		f.items = append(f.items[:0:0], f.items[f.head:]...)
		f.head = 0
	}
	return v
}

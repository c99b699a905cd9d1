package inlet

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// options are those of a server with two cores.
func options() PaceOptions {
	return PaceOptions{PerSecond: 2000, Burst: 4000, Room: 10000, Patience: 5 * time.Second, Shares: []int{7, 2, 1}, Now: time.Now}
}

// empty takes the burst.
func empty(t *testing.T, p *Pace) {
	t.Helper()
	for range p.o.Burst {
		if err := p.Enter(t.Context(), 0, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// retryAfter is the hint of a refusal, or 0.
func retryAfter(err error) time.Duration {
	if busy, ok := errors.AsType[*BusyError](err); ok {
		return busy.RetryAfter
	}
	return 0
}

// TestCrowdComesBackAtThePace lets 50,000 clients come at once that do as they
// are told: they are in as soon as the pace allows, hardly anybody has to be
// told twice, and no second sees more than the pace.
func TestCrowdComesBackAtThePace(t *testing.T) {
	t.Parallel()
	const crowd = 50000
	synctest.Test(t, func(t *testing.T) {
		var (
			mu       sync.Mutex
			entered  = map[int]int{} // by second
			refusals int
			clients  sync.WaitGroup
			begun    = time.Now()
			p        = NewPace(options())
		)
		for i := range crowd {
			clients.Go(func() {
				for {
					err := p.Enter(t.Context(), i%3, nil)
					if err == nil {
						break
					}
					mu.Lock()
					refusals++
					mu.Unlock()
					time.Sleep(retryAfter(err))
				}
				mu.Lock()
				defer mu.Unlock()
				entered[int(time.Since(begun)/time.Second)]++
			})
		}
		clients.Wait()
		took := time.Since(begun)
		soonest := time.Duration((crowd - p.o.Burst) / p.o.PerSecond * int(time.Second))
		if took < soonest-time.Second || took > soonest*3/2 {
			t.Errorf("the crowd was in after %v, the pace allows %v", took, soonest)
		}
		if most := crowd * 3 / 2; refusals > most {
			t.Errorf("%d refusals, more than %d", refusals, most)
		}
		for second, n := range entered {
			most := p.o.PerSecond + p.o.PerSecond/50
			if second == 0 {
				most += p.o.Burst
			}
			if n > most {
				t.Errorf("%d entered in second %d", n, second)
			}
		}
	})
}

// TestHintsSpread looks at the times that refused clients are told.
func TestHintsSpread(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := options()
		o.Room, o.Shares = 1, []int{1}
		p := NewPace(o)
		empty(t, p)
		go func() { _ = p.Enter(t.Context(), 0, nil) }() // takes the room
		synctest.Wait()
		p.o.Backlog = func() int { return 6000 }
		if after := retryAfter(p.Enter(t.Context(), 0, nil)); after < 3*time.Second || after > 5*time.Second {
			t.Errorf("behind 6,000 at 2,000 per second told to come back after %v", after)
		}
		p.o.Backlog, p.promised = nil, time.Time{}
		perSecond := map[int]int{}
		const refused = 20000
		for range refused {
			after := retryAfter(p.Enter(t.Context(), 0, nil))
			if after <= 0 || after > longestHint {
				t.Fatalf("told to come back after %v", after)
			}
			perSecond[int(after/time.Second)]++
		}
		for second, n := range perSecond {
			if n > o.PerSecond*3/2 {
				t.Errorf("%d are told second %d", n, second)
			}
		}
		if len(perSecond) < refused/o.PerSecond {
			t.Errorf("all are told to come within %d seconds", len(perSecond))
		}
		for range 100 * 300 * 2000 / 1000 { // beyond the longest hint
			if after := retryAfter(p.Enter(t.Context(), 0, nil)); after > longestHint {
				t.Fatalf("told to come back after %v", after)
			}
		}
	})
}

// TestEveryLaneHasItsShare keeps all lanes full: each moves in proportion to
// its share, and none takes the room of another.
func TestEveryLaneHasItsShare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := options()
		o.Patience = time.Hour
		p := NewPace(o)
		empty(t, p)
		var (
			mu      sync.Mutex
			order   []int
			waiters sync.WaitGroup
		)
		room := []int{7000, 2000, 1000}
		for in, n := range room {
			for range n {
				waiters.Go(func() {
					if err := p.Enter(t.Context(), in, nil); err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					order = append(order, in)
				})
			}
		}
		synctest.Wait()
		for in, n := range room {
			if got := p.Waiting(in); got != n {
				t.Errorf("%d wait in lane %d, want %d", got, in, n)
			}
			if after := retryAfter(p.Enter(t.Context(), in, nil)); after == 0 {
				t.Errorf("lane %d has more room", in)
			}
		}
		waiters.Wait()
		for start := 0; start+1000 <= len(order); start += 1000 {
			count := make([]int, 3)
			for _, in := range order[start : start+1000] {
				count[in]++
			}
			for in, want := range []int{700, 200, 100} {
				if count[in] < want-20 || count[in] > want+20 {
					t.Errorf("turns %d on: %v", start, count)
				}
			}
		}
	})
}

// TestLastLaneAloneHasThePace leaves the other lanes empty.
func TestLastLaneAloneHasThePace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := NewPace(options())
		empty(t, p)
		begun := time.Now()
		var waiters sync.WaitGroup
		for range 1000 {
			waiters.Go(func() {
				if err := p.Enter(t.Context(), 2, nil); err != nil {
					t.Error(err)
				}
			})
		}
		waiters.Wait()
		if took := time.Since(begun); took > 510*time.Millisecond {
			t.Errorf("1,000 entered in %v", took)
		}
	})
}

// TestFloodOfOneSource fills what one source may have; another source enters
// at its next turn.
func TestFloodOfOneSource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := options()
		o.PerSecond, o.Burst, o.Room, o.Fair, o.Shares = 10, 1, 100, true, []int{1}
		p := NewPace(o)
		flood, other := peer(t, "192.0.2.1:1"), peer(t, "192.0.2.2:1")
		if err := p.Enter(t.Context(), 0, flood); err != nil {
			t.Fatal(err)
		}
		var waiters sync.WaitGroup
		var refused int
		var mu sync.Mutex
		for range 200 {
			waiters.Go(func() {
				if err := p.Enter(t.Context(), 0, flood); err != nil {
					mu.Lock()
					refused++
					mu.Unlock()
				}
			})
		}
		synctest.Wait()
		if got := p.Waiting(0); got != 50 {
			t.Errorf("one source took %d of 100 places", got)
		}
		begun := time.Now()
		if err := p.Enter(t.Context(), 0, other); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begun); took > 300*time.Millisecond {
			t.Errorf("another source waited %v", took)
		}
		waiters.Wait()
		synctest.Wait()
		if p.waiting != 0 || len(p.lanes[0].sources) != 0 || p.lanes[0].live != 0 {
			t.Errorf("%d wait and %d sources are left", p.waiting, len(p.lanes[0].sources))
		}
		if refused < 150 {
			t.Errorf("%d refused", refused)
		}
	})
}

// TestPatienceEnds waits too long, and for a caller that goes.
func TestPatienceEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := options()
		o.PerSecond, o.Burst, o.Room, o.Patience, o.Shares = 1, 1, 100, 5500*time.Millisecond, []int{1}
		p := NewPace(o)
		empty(t, p)
		var waiters sync.WaitGroup
		var mu sync.Mutex
		entered := 0
		for range 20 {
			waiters.Go(func() {
				if err := p.Enter(t.Context(), 0, nil); err == nil {
					mu.Lock()
					entered++
					mu.Unlock()
				} else if retryAfter(err) < time.Second {
					t.Errorf("refused with %v", err)
				}
			})
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if err := p.Enter(ctx, 0, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller that goes: %v", err)
		}
		waiters.Wait()
		if entered != 5 {
			t.Errorf("%d entered in five and a half seconds", entered)
		}
		time.Sleep(time.Minute)
		begun := time.Now()
		if err := p.Enter(t.Context(), 0, nil); err != nil || time.Since(begun) != 0 {
			t.Errorf("after a quiet time: %v after %v", err, time.Since(begun))
		}
	})
}

// TestStormIsToldOnce has two storms with a pause that is too short, and one
// more much later.
func TestStormIsToldOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := options()
		o.PerSecond, o.Burst, o.Room, o.Shares = 10, 10, 20, []int{1}
		var mu sync.Mutex
		began := 0
		var ended []Storm
		o.Began = func() { mu.Lock(); began++; mu.Unlock() }
		o.Ended = func(s Storm) { mu.Lock(); ended = append(ended, s); mu.Unlock() }
		p := NewPace(o)
		crowd := func() {
			var waiters sync.WaitGroup
			for range 40 {
				waiters.Go(func() { _ = p.Enter(t.Context(), 0, nil) })
			}
			waiters.Wait()
		}
		crowd()
		time.Sleep(5 * time.Second)
		crowd()
		time.Sleep(time.Minute)
		crowd()
		time.Sleep(time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if began != 2 || len(ended) != 2 {
			t.Fatalf("%d began, %d ended", began, len(ended))
		}
		if s := ended[0]; s.Refused != 20 || s.Waited != 20 || s.Took < 8*time.Second || s.Took > 10*time.Second {
			t.Errorf("the first storm: %+v", s)
		}
		if s := ended[1]; s.Refused != 10 || s.Admitted != 20 {
			t.Errorf("the second storm: %+v", s)
		}
	})
}

// TestSourcesComeAndGo mixes sources, turns and lost patience at random, and
// looks for anything that is left over.
func TestSourcesComeAndGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := options()
		o.PerSecond, o.Burst, o.Room, o.Fair, o.Patience = 200, 10, 100, true, 700*time.Millisecond
		p := NewPace(o)
		random := rand.New(rand.NewPCG(1, 2))
		var sources []net.Addr
		for _, text := range []string{"192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1", "[2001:db8::1]:1"} {
			sources = append(sources, peer(t, text))
		}
		var waiters sync.WaitGroup
		for range 5000 {
			in, from, leaves := random.IntN(3), sources[random.IntN(4)], time.Duration(random.IntN(1500))*time.Millisecond
			waiters.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), leaves)
				defer cancel()
				_ = p.Enter(ctx, in, from)
			})
			time.Sleep(time.Duration(random.IntN(6)) * time.Millisecond)
		}
		waiters.Wait()
		synctest.Wait()
		if p.waiting != 0 {
			t.Errorf("%d wait", p.waiting)
		}
		for i := range p.lanes {
			if l := &p.lanes[i]; l.live != 0 || len(l.sources) != 0 {
				t.Errorf("lane %d has %d waiting, %d sources", i, l.live, len(l.sources))
			}
		}
	})
}

func TestMeter(t *testing.T) {
	t.Parallel()
	var m Meter
	rate := NewRate(10, 3)
	var took []bool
	for _, at := range []int{0, 0, 0, 0, 99, 100, 100, 200, 10000, 10000, 10000, 10000} {
		took = append(took, m.Take(rate, 1, time.Duration(at)*time.Millisecond))
	}
	want := []bool{true, true, true, false, false, true, false, true, true, true, true, false}
	if !slices.Equal(took, want) {
		t.Errorf("took %v, want %v", took, want)
	}
	if d := m.Until(rate, 1, 10*time.Second); d != 100*time.Millisecond {
		t.Errorf("the next is left after %v", d)
	}
	if d := m.Until(rate, 1, 11*time.Second); d != 0 {
		t.Errorf("after a pause the next is left after %v", d)
	}
	if m.Idle(10*time.Second) || !m.Idle(11*time.Second) {
		t.Error("idle too early or never")
	}
	var bytes Meter
	slow := NewRate(1000, 1000)
	if d := bytes.Delay(slow, 1000, 0); d != 0 {
		t.Errorf("the burst is delayed by %v", d)
	}
	if d := bytes.Delay(slow, 500, 0); d != 500*time.Millisecond {
		t.Errorf("500 bytes more are delayed by %v", d)
	}
	if d := bytes.Delay(slow, 1, 10*time.Second); d != 0 {
		t.Errorf("delayed by %v after a pause", d)
	}
	var many Meter
	var users sync.WaitGroup
	var mu sync.Mutex
	granted := 0
	for range 8 {
		users.Go(func() {
			for range 1000 {
				if many.Take(NewRate(1000, 500), 1, 0) {
					mu.Lock()
					granted++
					mu.Unlock()
				}
			}
		})
	}
	users.Wait()
	if granted != 500 {
		t.Errorf("%d of 500 granted to eight users at once", granted)
	}
}

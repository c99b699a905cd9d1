package broker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/topic"
)

// The router agrees with topic.Match on random filters and names, while
// subscriptions come and go.
func TestRouterAgreesWithMatch(t *testing.T) {
	t.Parallel()
	for _, profile := range []topic.Profile{topic.AWS, topic.Standard} {
		random := rand.New(rand.NewPCG(1, uint64(profile)))
		levels := []string{"a", "b", "", "+", "$aws"}
		path := func(n int, extra ...string) string {
			parts := make([]string, 1+random.IntN(n))
			for i := range parts {
				parts[i] = slices.Concat(levels, extra)[random.IntN(len(levels)+len(extra))]
			}
			return strings.Join(parts, "/")
		}
		r := newRouter(&Broker{profile: profile}, nil)
		held := map[string]map[*session]*bucket{}
		sessions := make([]*session, 20)
		for i := range sessions {
			sessions[i] = &session{}
		}
		var m matches
		for range 20000 {
			filter := path(4)
			if random.IntN(3) == 0 {
				filter += "/#"
			}
			s := sessions[random.IntN(len(sessions))]
			if b := held[filter][s]; b != nil {
				r.unsubscribe(b, s)
				delete(held[filter], s)
			} else {
				if held[filter] == nil {
					held[filter] = map[*session]*bucket{}
				}
				held[filter][s] = r.subscribe(filter, subscriber{session: s})
			}
			if random.IntN(10) == 0 {
				name := strings.ReplaceAll(path(4), "+", "c")
				checkLookup(t, r, &m, held, name, profile)
			}
		}
		for filter, of := range held {
			for s, b := range of {
				r.unsubscribe(b, s)
				delete(held[filter], s)
			}
		}
		if len(r.exact) != 0 || len(r.root.children) != 0 {
			t.Errorf("profile %d: %d exact filters and %d nodes are left behind", profile, len(r.exact), len(r.root.children))
		}
	}
}

// checkLookup compares one lookup with matching every filter.
func checkLookup(t *testing.T, r *router, m *matches, held map[string]map[*session]*bucket, name string, profile topic.Profile) {
	t.Helper()
	want := map[*session]int{}
	for filter, of := range held {
		if topic.Match(filter, name, profile) {
			for s := range of {
				want[s]++
			}
		}
	}
	got := map[*session]int{}
	r.lookup(name, m)
	for _, list := range m.lists {
		for _, sub := range list {
			got[sub.session]++
		}
	}
	if len(m.ends) > 0 && m.ends[len(m.ends)-1] != len(m.lists) {
		t.Errorf("%q: lists end at %v of %d", name, m.ends, len(m.lists))
	}
	if len(got) != len(want) {
		t.Fatalf("%q: %d sessions, want %d", name, len(got), len(want))
	}
	for s, n := range want {
		if got[s] != n {
			t.Fatalf("%q: a session matched %d times, want %d", name, got[s], n)
		}
	}
}

// A filter with very many subscribers is kept in pieces, so that none of them
// coming or going copies all.
func TestRouterManySubscribers(t *testing.T) {
	t.Parallel()
	const many = 5000
	r := newRouter(&Broker{profile: topic.AWS}, nil)
	sessions := make([]*session, many)
	buckets := make([]*bucket, many)
	for i := range sessions {
		sessions[i] = &session{}
		buckets[i] = r.subscribe("a", subscriber{session: sessions[i]})
	}
	var before matches
	r.lookup("a", &before)
	for i := range sessions {
		if i%2 == 0 {
			r.unsubscribe(buckets[i], sessions[i])
		}
	}
	for range 100 {
		r.subscribe("a", subscriber{session: &session{}})
	}
	count := func(m *matches) (n int) {
		for _, list := range m.lists {
			if len(list) > bucketSize {
				t.Errorf("a slice of %d", len(list))
			}
			n += len(list)
		}
		return n
	}
	if got := count(&before); got != many {
		t.Errorf("a lookup from before shows %d", got)
	}
	var after matches
	r.lookup("a", &after)
	if got := count(&after); got != many/2+100 {
		t.Errorf("%d subscribers, want %d", got, many/2+100)
	}
}

// watched is a deadline that moves on with each sign of life.
type watched struct {
	alarm    alarm
	lastSeen int64
	expired  int64
}

func TestWheel(t *testing.T) {
	t.Parallel()
	var w wheel
	watch := func(idle int64) *watched {
		s := &watched{}
		s.alarm.ring = func(now int64) int64 {
			if due := s.lastSeen + idle; due > now {
				return due
			}
			if s.expired != 0 {
				t.Error("expired twice")
			}
			s.expired = now
			return 0
		}
		w.add(&s.alarm, idle)
		return s
	}
	short, long, kept, removed := watch(3), watch(3*wheelSlots), watch(3), watch(3)
	w.remove(&removed.alarm)
	w.remove(&removed.alarm) // harmless
	for w.now.Load() < 4*wheelSlots {
		kept.lastSeen = w.now.Load()
		w.tick()
	}
	if short.expired != 3 || long.expired != 3*wheelSlots || kept.expired != 0 || removed.expired != 0 {
		t.Errorf("expired at %d, %d, %d, %d", short.expired, long.expired, kept.expired, removed.expired)
	}
	w.remove(&kept.alarm)
	for i, a := range w.slots {
		if a != nil {
			t.Errorf("slot %d is not empty", i)
		}
	}
}

// An alarm may be moved or taken away by whom it rings.
func TestWheelAlarmsMoveThemselves(t *testing.T) {
	t.Parallel()
	var w wheel
	var moved, gone alarm
	rings := 0
	moved.ring = func(now int64) int64 {
		if rings++; rings == 1 {
			w.add(&moved, now+5)
		}
		return 0
	}
	gone.ring = func(now int64) int64 {
		w.remove(&gone)
		return now + 1
	}
	w.add(&moved, 1)
	w.add(&gone, 1)
	for range 10 {
		w.tick()
	}
	if rings != 2 || gone.seated || moved.seated {
		t.Errorf("%d rings, seated %v %v", rings, gone.seated, moved.seated)
	}
}

func TestFinalCause(t *testing.T) {
	t.Parallel()
	if got := finalCause(nil, nil); got.reason != ReasonConnectionLost {
		t.Errorf("without a cause: %s", got.reason)
	}
	if diff := cmp.Diff(ReasonThrottled, finalCause(because(ReasonThrottled), nil).reason); diff != "" {
		t.Error(diff)
	}
	left := fmt.Errorf("read: %w", ErrPeerLeft)
	for reason, recorded := range map[DisconnectReason]*cause{
		ReasonClientInitiated: nil, ReasonThrottled: because(ReasonThrottled),
	} {
		if got := finalCause(recorded, left); got.reason != reason || got.noWill != (recorded == nil) {
			t.Errorf("a peer that left, recorded %v: %+v", recorded, got)
		}
	}
	// The write that failed before the goodbye was read.
	if got := finalCause(because(ReasonConnectionLost), left); got.reason != ReasonClientInitiated || !got.noWill {
		t.Errorf("a peer that left during a write: %+v", got)
	}
}

func BenchmarkLookup(b *testing.B) {
	r := newRouter(&Broker{profile: topic.AWS}, nil)
	for i := range 10000 {
		r.subscribe(fmt.Sprintf("dt/site/a/dev%05d/t", i), subscriber{session: &session{}})
		r.subscribe(fmt.Sprintf("cmd/+/dev%05d/#", i), subscriber{session: &session{}})
	}
	for name, text := range map[string]string{"exact": "dt/site/a/dev05000/t", "wildcard": "cmd/x/dev05000/a/b"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var m matches
			for b.Loop() {
				r.lookup(text, &m)
				if len(m.ends) != 1 {
					b.Fatal(len(m.ends))
				}
			}
		})
	}
}

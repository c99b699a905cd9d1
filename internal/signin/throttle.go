package signin

import (
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// Limits bound failed sign-ins in a window of time. They count per user and
// address, per address whatever the user, and for everybody together.
type Limits struct {
	// Failures are allowed for one user from one address.
	Failures int
	// Total are allowed for everybody. Beyond it only those get on who signed in
	// from their address before.
	Total  int
	Window time.Duration
}

const (
	// addressFactor is how many times a user's failures an address may have, which
	// several people can share.
	addressFactor = 5
	// maxCounters bounds the memory of failures, maxKnown that of successes.
	maxCounters = 16384
	maxKnown    = 16384
	// knownFor is how long a success exempts from the bound on all.
	knownFor = 30 * 24 * time.Hour
)

// ThrottledError is a sign-in that came after too many failures.
type ThrottledError struct {
	// After is when to try again.
	After time.Duration
}

// Error says so.
func (e *ThrottledError) Error() string {
	return fmt.Sprintf("too many failed sign-ins; try again in %v", e.After.Round(time.Second))
}

// counter counts failures since the first of a window.
type counter struct {
	since time.Time
	n     int
}

// throttle counts failed sign-ins.
type throttle struct {
	limits Limits

	mu       sync.Mutex
	counters map[string]*counter
	known    map[string]time.Time
	total    counter
}

// network is what counts as one address: an IPv6 subscriber has a whole /64.
func network(address string) string {
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	prefix, err := addr.Prefix(64)
	if err != nil {
		return address
	}
	return prefix.String()
}

// try counts an attempt as failed until it is known to have succeeded, so that
// many at once count as many. It refuses one beyond the limits without counting
// it.
func (t *throttle) try(user, address string, now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	from := network(address)
	pair := user + "\x00" + from
	if t.total.expired(now, t.limits.Window) {
		t.total = counter{since: now}
	}
	at, recent := t.known[pair]
	recent = recent && now.Sub(at) < knownFor
	// What is refused takes no memory: else many names would push out the counters
	// of those who guess.
	for _, c := range []struct {
		*counter
		most int
	}{{t.present(pair, now), t.limits.Failures}, {t.present("\x00"+from, now), t.limits.Failures * addressFactor}, {&t.total, t.limits.Total}} {
		if c.counter != nil && c.n >= c.most && (c.counter != &t.total || !recent) {
			return &ThrottledError{After: c.since.Add(t.limits.Window).Sub(now)}
		}
	}
	t.counter("\x00"+from, now).n++
	t.counter(pair, now).n++
	t.total.n++
	return nil
}

// succeeded takes the failure back that try counted, and those of the same user
// and address before it.
func (t *throttle) succeeded(user, address string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	from := network(address)
	pair := user + "\x00" + from
	delete(t.counters, pair)
	t.counter("\x00"+from, now).back()
	t.total.back()
	if t.known == nil || len(t.known) >= maxKnown {
		t.known = map[string]time.Time{}
	}
	t.known[pair] = now
}

// untried takes back what try counted of an attempt whose password nobody looked
// at.
func (t *throttle) untried(user, address string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	from := network(address)
	for _, c := range []*counter{t.present(user+"\x00"+from, now), t.present("\x00"+from, now), &t.total} {
		if c != nil {
			c.back()
		}
	}
}

// expired reports whether a window is over.
func (c *counter) expired(now time.Time, window time.Duration) bool {
	return now.Sub(c.since) >= window
}

// back takes one failure back.
func (c *counter) back() { c.n = max(0, c.n-1) }

// present returns the counter of a key in its present window, nil for none.
func (t *throttle) present(key string, now time.Time) *counter {
	if c := t.counters[key]; c != nil && !c.expired(now, t.limits.Window) {
		return c
	}
	return nil
}

// counter is present, and begins a window where there is none.
func (t *throttle) counter(key string, now time.Time) *counter {
	if c := t.present(key, now); c != nil {
		return c
	}
	if t.counters == nil {
		t.counters = map[string]*counter{}
	}
	if len(t.counters) >= maxCounters {
		for k, c := range t.counters {
			if c.expired(now, t.limits.Window) {
				delete(t.counters, k)
			}
		}
	}
	if len(t.counters) >= maxCounters {
		// So many addresses at once are an attack that the bound on all meets.
		clear(t.counters)
	}
	c := &counter{since: now}
	t.counters[key] = c
	return c
}

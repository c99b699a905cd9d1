package inlet

import (
	"math"
	"sync/atomic"
	"time"
)

// Rate is how much may pass in a time: so many units a second on average, and
// so many at once after a quiet time.
type Rate struct {
	// each is the nanoseconds that one unit takes, burst those that may be
	// taken in advance.
	each, burst float64
}

// NewRate returns a rate. Both numbers must be above 0.
func NewRate(perSecond, burst float64) Rate {
	each := float64(time.Second) / perSecond
	return Rate{each: each, burst: each * burst}
}

// Meter measures what one user has taken of a Rate. The zero value is a user
// who has taken nothing. Times are those since any fixed moment on a clock that
// never goes back; those before it count as that moment.
type Meter struct {
	// paid is the time at which everything taken so far is made up for.
	paid atomic.Int64
}

// Take takes n units if the rate leaves them, and reports whether it did.
func (m *Meter) Take(r Rate, n int, at time.Duration) bool {
	for {
		was := m.paid.Load()
		next := float64(max(was, int64(at))) + r.each*float64(n)
		if next > float64(at)+r.burst+1 { // 1 ns for rounding
			return false
		}
		if m.paid.CompareAndSwap(was, int64(next)) {
			return true
		}
	}
}

// Delay takes n units in any case and returns how long to wait until the rate
// has made up for them, its burst aside.
func (m *Meter) Delay(r Rate, n int, at time.Duration) time.Duration {
	for {
		was := m.paid.Load()
		next := min(float64(max(was, int64(at)))+r.each*float64(n), math.MaxInt64/2)
		if m.paid.CompareAndSwap(was, int64(next)) {
			return max(0, time.Duration(next-r.burst)-at)
		}
	}
}

// Until returns how long to wait before the rate leaves n units, 0 when it does
// now. It takes nothing.
func (m *Meter) Until(r Rate, n int, at time.Duration) time.Duration {
	next := float64(max(m.paid.Load(), int64(at))) + r.each*float64(n)
	return max(0, time.Duration(next-r.burst)-at)
}

// Idle reports whether the user has nothing left to make up for: forgetting
// the meter would change nothing.
func (m *Meter) Idle(at time.Duration) bool { return m.paid.Load() <= int64(at) }

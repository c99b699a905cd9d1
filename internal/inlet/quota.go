package inlet

import (
	"sync"
	"time"
)

// Quota bounds how often something is told about callers who can be refused as
// often as they like, such as a line in the log: so often in a window for each
// caller, and so often for all of them together.
type Quota struct {
	each, all int
	window    time.Duration

	mu    sync.Mutex
	began time.Time
	// told holds no more callers than all allows.
	told       map[string]int
	total      int
	suppressed int
}

// NewQuota returns a quota of each per caller and all in total in a window.
func NewQuota(each, all int, window time.Duration) *Quota {
	return &Quota{each: each, all: all, window: window, told: map[string]int{}}
}

// Take reports whether to tell now, and how often that was not done for any
// caller since the last time.
func (q *Quota) Take(caller string, now time.Time) (suppressed int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if now.Sub(q.began) >= q.window {
		q.began, q.total = now, 0
		clear(q.told)
	}
	if q.total >= q.all || q.told[caller] >= q.each {
		q.suppressed++
		return 0, false
	}
	q.told[caller]++
	q.total++
	suppressed, q.suppressed = q.suppressed, 0
	return suppressed, true
}

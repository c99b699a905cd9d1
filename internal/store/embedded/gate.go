package embedded

import (
	"math"
	"sync"
	"sync/atomic"
)

// gate counts the calls inside the engine, so that Close can refuse new ones
// and wait for the others: pebble must not be touched once it is closed.
type gate struct {
	// inside is far below zero once the gate is shut.
	inside atomic.Int64
	once   sync.Once
	empty  chan struct{}
}

// shutBias is what shutting adds; no number of calls outweighs it.
const shutBias = math.MinInt64 / 2

func newGate() *gate { return &gate{empty: make(chan struct{})} }

// enter reports whether the caller may proceed; it then has to call leave.
func (g *gate) enter() bool {
	if g.inside.Add(1) > 0 {
		return true
	}
	g.leave()
	return false
}

func (g *gate) leave() {
	if g.inside.Add(-1) == shutBias {
		g.once.Do(func() { close(g.empty) })
	}
}

// shut refuses new callers and waits for those inside. It reports whether this
// call was the first to shut the gate.
func (g *gate) shut() bool {
	for {
		n := g.inside.Load()
		if n < 0 {
			return false
		}
		if !g.inside.CompareAndSwap(n, n+shutBias) {
			continue
		}
		if n == 0 {
			g.once.Do(func() { close(g.empty) })
		}
		<-g.empty
		return true
	}
}

package mqttapi

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Bounds of an executor.
const (
	defaultWorkers      = 512
	defaultWaiting      = 16384
	defaultWaitingBytes = 64 << 20
	defaultPerThing     = 128
)

// thingKey names a thing for its bound.
type thingKey struct {
	account fleet.Account
	thing   string
}

// laneKey names what must stay in order: one shadow.
type laneKey struct {
	thingKey
	shadow string
}

// task is one request in line.
type task struct {
	bytes int
	run   func(context.Context)
}

// lane is the line of one key. It exists while it holds a task, waiting or
// being carried out, and at most one worker serves it.
type lane struct {
	key   laneKey
	tasks []task
}

// executor carries tasks out, in order within a lane, side by side otherwise.
type executor struct {
	bounds ExecutorLimits
	gauge  prometheus.Gauge

	mu     sync.Mutex
	lanes  map[laneKey]*lane
	things map[thingKey]int
	// ready are the lanes that wait for a worker.
	ready   []*lane
	workers int
	// parked workers wait at work, which is signalled for each ready lane. They
	// are kept: a new goroutine would grow its stack anew.
	parked  int
	work    *sync.Cond
	waiting int
	bytes   int
	closed  bool
	// idle is closed and replaced whenever the last task has ended.
	idle chan struct{}
}

// ExecutorLimits bound the requests that wait or are being carried out; zero
// fields take defaults.
type ExecutorLimits struct {
	// Workers is the number of requests carried out at once.
	Workers int
	// Waiting and WaitingBytes bound all requests together, PerThing those of
	// one thing.
	Waiting      int
	WaitingBytes int
	PerThing     int
}

// withDefaults fills what was left out.
func (l ExecutorLimits) withDefaults() ExecutorLimits {
	fill := func(v *int, standard int) {
		if *v <= 0 {
			*v = standard
		}
	}
	fill(&l.Workers, defaultWorkers)
	fill(&l.Waiting, defaultWaiting)
	fill(&l.WaitingBytes, defaultWaitingBytes)
	fill(&l.PerThing, defaultPerThing)
	return l
}

// newExecutor returns an executor without goroutines; those that it starts end
// after drain.
func newExecutor(bounds ExecutorLimits, gauge prometheus.Gauge) *executor {
	e := &executor{
		bounds: bounds.withDefaults(), gauge: gauge,
		lanes: map[laneKey]*lane{}, things: map[thingKey]int{}, idle: make(chan struct{}),
	}
	e.work = sync.NewCond(&e.mu)
	return e
}

// submit puts a task in line. It never blocks: beyond a bound it refuses.
func (e *executor) submit(key laneKey, t task) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return &fault.Error{Code: fault.Unavailable, Message: "The server is shutting down"}
	case e.things[key.thingKey] >= e.bounds.PerThing:
		return &fault.Error{Code: fault.Throttling, Message: "Too many in-flight requests for the thing"}
	case e.waiting >= e.bounds.Waiting || e.bytes+t.bytes > e.bounds.WaitingBytes:
		return &fault.Error{Code: fault.Throttling, Message: "Too many in-flight requests"}
	}
	e.things[key.thingKey]++
	e.waiting++
	e.bytes += t.bytes
	e.gauge.Inc()
	l := e.lanes[key]
	if l != nil {
		l.tasks = append(l.tasks, t)
		return nil
	}
	l = &lane{key: key, tasks: []task{t}}
	e.lanes[key] = l
	e.ready = append(e.ready, l)
	switch {
	case len(e.ready) <= e.parked:
		e.work.Signal()
	case e.workers < e.bounds.Workers:
		e.workers++
		go e.serve(context.Background())
	}
	return nil
}

// serve carries tasks out until the executor is closed. Lanes take turns.
func (e *executor) serve(ctx context.Context) {
	for l, t := e.next(nil); l != nil; l, t = e.next(l) {
		t.run(ctx)
	}
}

// next ends the first task of a served lane and returns the lane to serve now
// with its first task, once there is one; no lane ends the worker.
func (e *executor) next(served *lane) (*lane, task) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if served != nil {
		e.finishLocked(served)
	}
	for len(e.ready) == 0 {
		if e.closed {
			e.workers--
			return nil, task{}
		}
		e.parked++
		e.work.Wait()
		e.parked--
	}
	l := e.ready[0]
	e.ready[0] = nil
	if e.ready = e.ready[1:]; len(e.ready) == 0 {
		e.ready = nil
	}
	return l, l.tasks[0]
}

// finishLocked takes the first task of a lane off the books.
func (e *executor) finishLocked(l *lane) {
	e.waiting--
	e.bytes -= l.tasks[0].bytes
	e.gauge.Dec()
	if e.things[l.key.thingKey]--; e.things[l.key.thingKey] == 0 {
		delete(e.things, l.key.thingKey)
	}
	l.tasks[0] = task{}
	if l.tasks = l.tasks[1:]; len(l.tasks) > 0 {
		e.ready = append(e.ready, l)
	} else {
		delete(e.lanes, l.key)
	}
	if e.waiting == 0 {
		close(e.idle)
		e.idle = make(chan struct{})
	}
}

// drain refuses new tasks and waits for those in line.
func (e *executor) drain(ctx context.Context) error {
	e.mu.Lock()
	e.closed = true
	e.work.Broadcast()
	idle, waiting := e.idle, e.waiting
	e.mu.Unlock()
	if waiting == 0 {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

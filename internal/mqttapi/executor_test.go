package mqttapi

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func testExecutor(l ExecutorLimits) *executor {
	return newExecutor(l, prometheus.NewGauge(prometheus.GaugeOpts{Name: "waiting"}))
}

func lane1(thing, shadow string) laneKey { return laneKey{thingKey{"000000000001", thing}, shadow} }

func TestLanesKeepOrderAndRunSideBySide(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const lanes, each = 20, 50
		e := testExecutor(ExecutorLimits{Workers: lanes, PerThing: each})
		got := make([][]int, lanes)
		began := time.Now()
		for i := range each {
			for l := range lanes {
				err := e.submit(lane1(fmt.Sprint("t", l), ""), task{run: func(context.Context) {
					<-time.After(time.Millisecond)
					got[l] = append(got[l], i)
				}})
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := e.drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		for l := range got {
			for i, v := range got[l] {
				if i != v {
					t.Fatalf("lane %d ran in order %v", l, got[l])
				}
			}
			if len(got[l]) != each {
				t.Errorf("lane %d ran %d tasks", l, len(got[l]))
			}
		}
		// One lane after the other would take a second.
		if took := time.Since(began); took != each*time.Millisecond {
			t.Errorf("took %v, want %v", took, each*time.Millisecond)
		}
		synctest.Wait()
		if e.workers != 0 || len(e.lanes) != 0 || len(e.things) != 0 || e.bytes != 0 {
			t.Errorf("left: %d workers, %d lanes, %d things, %d bytes", e.workers, len(e.lanes), len(e.things), e.bytes)
		}
	})
}

func TestNoMoreWorkersThanAllowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := testExecutor(ExecutorLimits{Workers: 3})
		var running, most atomic.Int32
		for i := range 30 {
			err := e.submit(lane1(fmt.Sprint("t", i), ""), task{run: func(context.Context) {
				if n := running.Add(1); n > most.Load() {
					most.Store(n)
				}
				<-time.After(time.Millisecond)
				running.Add(-1)
			}})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := e.drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if most.Load() != 3 {
			t.Errorf("%d tasks ran at once, want 3", most.Load())
		}
	})
}

// Lanes take turns: one busy shadow does not hold the others up.
func TestABusyLaneLetsOthersPass(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := testExecutor(ExecutorLimits{Workers: 1})
		var mu sync.Mutex
		var order []string
		put := func(thing string) {
			err := e.submit(lane1(thing, ""), task{run: func(context.Context) {
				<-time.After(time.Millisecond)
				mu.Lock()
				defer mu.Unlock()
				order = append(order, thing)
			}})
			if err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			put("busy")
		}
		put("other")
		if err := e.drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(order); got != "[busy other busy busy]" {
			t.Errorf("order %s", got)
		}
	})
}

func TestBoundsRefuseAtOnce(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	hold := task{bytes: 10, run: func(context.Context) { <-release }}
	e := testExecutor(ExecutorLimits{Workers: 1, Waiting: 5, WaitingBytes: 45, PerThing: 2})
	want := func(key laneKey, code fault.Code) {
		t.Helper()
		if err := e.submit(key, hold); fault.CodeOf(err) != code {
			t.Errorf("submit: %v, want %q", err, code)
		}
	}
	want(lane1("a", ""), "")
	want(lane1("a", "cfg"), "")
	want(lane1("a", "ota"), fault.Throttling)
	want(lane1("b", ""), "")
	want(lane1("c", ""), "")
	want(lane1("d", ""), fault.Throttling) // 50 bytes
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.drain(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("drain with work left: %v", err)
	}
	want(lane1("e", ""), fault.Unavailable)
	close(release)
	if err := e.drain(t.Context()); err != nil {
		t.Error(err)
	}
}

package embedded

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/storetest"
)

// ledger is what the world outside has been told.
type ledger struct {
	mu  sync.Mutex
	ack map[store.Key]int64
}

func (l *ledger) note(key store.Key, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ack[key] = max(l.ack[key], n)
}

// copied returns what was acknowledged until now.
func (l *ledger) copied() map[store.Key]int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.ack)
}

// TestLostPower cuts the power at random moments while eight writers commit:
// the disk keeps what was synced and a random part of what was not. Everything
// acknowledged is there, and state and log agree.
func TestLostPower(t *testing.T) {
	t.Parallel()
	fs := vfs.NewCrashableMem()
	e := openAt(t, fs, "data")
	told := &ledger{ack: map[store.Key]int64{}}
	// Each round allows some increments and cuts the power in the midst of them.
	const perRound = 240
	permits, acks := make(chan struct{}, perRound), make(chan struct{}, perRound)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			key := store.K("c", strconv.Itoa(i))
			for range permits {
				n, err := storetest.Increment(t.Context(), e, key)
				if err != nil {
					t.Error(err)
				}
				told.note(key, n)
				acks <- struct{}{}
			}
		})
	}
	for round := range 12 {
		for range perRound {
			permits <- struct{}{}
		}
		before := rand.IntN(perRound)
		for range before {
			<-acks
		}
		acked := told.copied()
		clone := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 10 * (round % 6), RNG: rand.New(rand.NewPCG(uint64(round), 1))})
		checkAfterCrash(t, clone, acked)
		for range perRound - before {
			<-acks
		}
	}
	close(permits)
	wg.Wait()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	checkAfterCrash(t, fs.CrashClone(vfs.CrashCloneCfg{}), told.copied())
}

// checkAfterCrash opens what the crash left.
func checkAfterCrash(t *testing.T, fs vfs.FS, acked map[store.Key]int64) {
	t.Helper()
	e := openAt(t, fs, "data")
	sum := uint64(0)
	last := map[string]int64{}
	for _, env := range storetest.Log(t, e) {
		name, n := storetest.FactOf(t, env)
		if n != last[name]+1 {
			t.Errorf("log of %q goes from %d to %d", name, last[name], n)
		}
		last[name] = n
	}
	err := e.Scan(t.Context(), store.Under("c"), func(rec store.Record) error {
		n, err := strconv.ParseInt(string(rec.Value), 10, 64)
		sum += uint64(n)
		if n < acked[rec.Key] {
			return fmt.Errorf("%s is %d after a crash, %d was acknowledged", rec.Key, n, acked[rec.Key])
		}
		if n != last[string(rec.Key)] {
			return fmt.Errorf("%s is %d and the log says %d", rec.Key, n, last[string(rec.Key)])
		}
		delete(acked, rec.Key)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if len(acked) > 0 {
		t.Errorf("lost: %v", acked)
	}
	head, err := e.Head(t.Context())
	if err != nil || head.Seq(0) != sum {
		t.Errorf("log ends at %s, state counts %d, %v", head, sum, err)
	}
	// It goes on without any manual step.
	p := storetest.MustCommit(t, e, store.Batch{Events: []event.Envelope{storetest.Fact("after", 1)}})
	if p.Seq != sum+1 {
		t.Errorf("log goes on with %d after %d", p.Seq, sum)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

func TestInterruptedRestoreIsRefused(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	e := openAt(t, fs, "data")
	if err := e.Restore(t.Context(), brokenReader{}); err == nil {
		t.Fatal("restored from a broken reader")
	}
	if _, err := e.Commit(t.Context(), store.Batch{Writes: []store.Write{storetest.Put("a", "")}}); !errors.Is(err, store.ErrRestoreUnfinished) {
		t.Errorf("commit: %v, want ErrRestoreUnfinished", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: "data", FS: fs, Logger: e.log}); !errors.Is(err, store.ErrRestoreUnfinished) {
		t.Errorf("open: %v, want ErrRestoreUnfinished", err)
	}
}

// brokenReader is a source that fails at once.
type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("unplugged") }

package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/storetest"
)

const mib = 1 << 20

// setFree makes a file system in memory report free space.
func setFree(fs *vfs.MemFS, free uint64) {
	fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: 1 << 40, UsedBytes: 1<<40 - free})
}

// put commits one key.
func put(ctx context.Context, e *Engine, key string) error {
	_, err := e.Commit(ctx, store.Batch{Writes: []store.Write{storetest.Put(store.Key(key), "v")}})
	return err
}

func TestCommitsAreRefusedInTheReserve(t *testing.T) {
	t.Parallel()
	fs := vfs.NewMem()
	setFree(fs, 300*mib)
	e, err := Open(Options{Dir: "data", FS: fs, Logger: slog.New(slog.DiscardHandler), LookEvery: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if err := put(t.Context(), e, "before"); err != nil {
		t.Fatal(err)
	}
	setFree(fs, 100*mib)
	eventually(t, "commits are refused", func() bool { return errors.Is(put(t.Context(), e, "during"), store.ErrDiskFull) })
	if got, err := e.Stats(t.Context()); err != nil || got.DiskAvailable != 100*mib {
		t.Errorf("stats are %+v, %v", got, err)
	}
	if _, err := e.Get(t.Context(), "before"); err != nil {
		t.Errorf("reads must go on: %v", err)
	}
	setFree(fs, 300*mib)
	eventually(t, "commits are accepted again", func() bool { return put(t.Context(), e, "after") == nil })
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestWritesWaitOnAFullDisk fills the disk under the engine although the
// reserve looked untouched: writes stall, the ballast goes, nothing that was
// acknowledged is lost, and the engine goes on once there is space.
func TestWritesWaitOnAFullDisk(t *testing.T) {
	t.Parallel()
	mem := vfs.NewCrashableMem()
	setFree(mem, 1<<40)
	var full atomic.Bool
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		grows := op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpFileWriteAt || op.Kind == errorfs.OpCreate
		if full.Load() && grows {
			return syscall.ENOSPC
		}
		return nil
	}))
	e, err := Open(Options{Dir: "data", FS: fs, Logger: slog.New(slog.DiscardHandler), LookEvery: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ballast := func() bool { _, err := mem.Stat("data/" + ballastName); return err == nil }
	eventually(t, "there is a ballast", ballast)
	var acked []string
	for i := range 50 {
		key := fmt.Sprint("k", i)
		if i == 25 {
			full.Store(true)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			if err := put(ctx, e, "stalled"); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, store.ErrDiskFull) {
				t.Errorf("commit to a full disk: %v", err)
			}
			cancel()
			checkAcked(t, mem.CrashClone(vfs.CrashCloneCfg{}), acked)
			full.Store(false)
		}
		eventually(t, key, func() bool { return put(t.Context(), e, key) == nil })
		acked = append(acked, key)
	}
	eventually(t, "the ballast is back", ballast)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	checkAcked(t, mem, acked)
}

// checkAcked opens a store and looks for keys.
func checkAcked(t *testing.T, fs vfs.FS, keys []string) {
	t.Helper()
	e := openAt(t, fs, "data")
	for _, key := range keys {
		if _, err := e.Get(t.Context(), store.Key(key)); err != nil {
			t.Errorf("%s was acknowledged: %v", key, err)
		}
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// eventually polls a condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(20 * time.Second); !holds(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come true that %s", what)
		}
	}
}

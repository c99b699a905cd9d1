package embedded

import (
	"log/slog"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openAt opens an engine on a file system.
func openAt(tb testing.TB, fs vfs.FS, dir string) *Engine {
	tb.Helper()
	e, err := Open(Options{Dir: dir, FS: fs, Logger: slog.New(slog.DiscardHandler), BallastBytes: -1})
	if err != nil {
		tb.Fatalf("open: %v", err)
	}
	return e
}

func TestSuiteInMemory(t *testing.T) {
	t.Parallel()
	storetest.Run(t, storetest.Suite{NewPlace: func(testing.TB) storetest.Place {
		fs := vfs.NewMem()
		return func(tb testing.TB) storetest.Engine {
			tb.Helper()
			return openAt(tb, fs, "data")
		}
	}})
}

func TestSuiteOnDisk(t *testing.T) {
	t.Parallel()
	storetest.Run(t, storetest.Suite{NewPlace: func(tb testing.TB) storetest.Place {
		tb.Helper()
		dir := tb.TempDir()
		return func(tb testing.TB) storetest.Engine {
			tb.Helper()
			return openAt(tb, vfs.Default, dir)
		}
	}})
}

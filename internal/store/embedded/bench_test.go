package embedded

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/muster-iot/muster/internal/store/storetest"
)

func BenchmarkCommitParallel(b *testing.B) {
	storetest.BenchmarkCommitParallel(b, func(tb testing.TB) storetest.Place {
		tb.Helper()
		dir := tb.TempDir()
		return func(tb testing.TB) storetest.Engine {
			tb.Helper()
			return openAt(tb, vfs.Default, dir)
		}
	})
}

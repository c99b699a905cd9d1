package postgres

import (
	"testing"

	"github.com/muster-iot/muster/internal/store/storetest"
)

func BenchmarkCommitParallel(b *testing.B) {
	storetest.BenchmarkCommitParallel(b, func(tb testing.TB) storetest.Place {
		tb.Helper()
		url := shared.Get(tb).Database(tb)
		return func(tb testing.TB) storetest.Engine {
			tb.Helper()
			return openAt(tb, url)
		}
	})
}

package postgres

import (
	"fmt"
	"log/slog"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/store/storetest"
	"github.com/muster-iot/muster/internal/testkit"
)

// shared is the one server of this binary's tests that do not stop theirs.
var shared testkit.PostgresPool

func TestMain(m *testing.M) {
	code := m.Run()
	if err := shared.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// openAt opens an engine on a database.
func openAt(tb testing.TB, url string) *Engine {
	tb.Helper()
	e, err := Open(tb.Context(), Options{URL: url, Logger: slog.New(slog.DiscardHandler), Conns: 4})
	if err != nil {
		tb.Fatalf("open: %v", err)
	}
	return e
}

func TestSuite(t *testing.T) {
	t.Parallel()
	storetest.Run(t, storetest.Suite{Shared: true, NewPlace: func(tb testing.TB) storetest.Place {
		tb.Helper()
		url := shared.Get(tb).Database(tb)
		return func(tb testing.TB) storetest.Engine {
			tb.Helper()
			return openAt(tb, url)
		}
	}})
}

package account

import (
	"errors"
	"fmt"
	"testing"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/store"
)

func TestStorageFaults(t *testing.T) {
	t.Parallel()
	for _, err := range []error{store.ErrDiskFull, store.ErrClosed, store.ErrUnavailable} {
		if got := fault.CodeOf(store.Fault(fmt.Errorf("commit: %w", err))); got != fault.Unavailable {
			t.Errorf("%v is %s", err, got)
		}
	}
	if err := errors.New("broken"); !errors.Is(store.Fault(err), err) || fault.CodeOf(store.Fault(err)) != fault.Internal {
		t.Error("an unknown error is not passed on")
	}
}

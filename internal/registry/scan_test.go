package registry

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/muster-iot/muster/internal/fleet"
)

func TestEachThing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for i := range 5 {
		var lines []ThingImport
		for n := range 500 {
			lines = append(lines, line(fmt.Sprintf("t%04d", i*500+n), "", map[string]string{"n": fmt.Sprint(i*500 + n)}))
		}
		r.outcomes(t, ImportCreate, lines...)
	}
	n := 0
	ok(t, EachThing(t.Context(), r.store, func(account fleet.Account, thing Thing) error {
		if account != acct || thing.Name != fmt.Sprintf("t%04d", n) || thing.Attributes["n"] != fmt.Sprint(n) {
			t.Errorf("thing %d is %s %+v", n, account, thing)
		}
		n++
		return nil
	}))
	wantEqual(t, n, 2500)

	enough, n := errors.New("enough"), 0
	err := EachThing(t.Context(), r.store, func(fleet.Account, Thing) error {
		if n++; n == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || n != 3 {
		t.Errorf("%v after %d things", err, n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = EachThing(ctx, r.store, func(fleet.Account, Thing) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

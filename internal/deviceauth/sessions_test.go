package deviceauth

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
)

// The chains agree with plain sets under random joining, moving and leaving.
func TestSessionsAgreeWithSets(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	s := newSessions()
	const account = fleet.Account("000000000001")
	live := map[*Guard]string{} // guard → thing
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	for step := range 5000 {
		switch random.IntN(4) {
		case 0:
			principal := fmt.Sprint("p", random.IntN(5))
			g := &Guard{id: Identity{Account: account, Principal: fleet.Principal{ID: principal}, notAfter: now}}
			s.add(g)
			live[g] = ""
		case 1:
			thing := []string{"", "t1", "t2"}[random.IntN(3)]
			for g, before := range live {
				if changed := s.setThing(g, thing); changed != (thing != before) {
					t.Fatalf("step %d: set thing %q after %q: changed %v", step, thing, before, changed)
				}
				live[g] = thing
				break
			}
		case 2:
			for g := range live {
				if !s.remove(g) || s.remove(g) || s.setThing(g, "t1") {
					t.Fatalf("step %d: a guard was not removed once", step)
				}
				delete(live, g)
				break
			}
		case 3:
			name := []string{"t1", "t2"}[random.IntN(2)]
			before := map[*Guard]uint64{}
			for g := range live {
				before[g] = g.epoch.Load()
			}
			s.touch(account, byThing, name)
			for g, thing := range live {
				if touched := g.epoch.Load() != before[g]; touched != (thing == name) {
					t.Fatalf("step %d: thing %q touched: %v by %q", step, thing, touched, name)
				}
			}
		}
	}
	for g := range live {
		s.remove(g)
	}
	if len(s.heads) != 0 || len(s.revoked) != 0 {
		t.Errorf("%d chains left over", len(s.heads))
	}
}

package presence

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
)

func TestTrimForgetsStrangers(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	begun := f.now
	for _, client := range []string{"pump-1", "stranger", "connected", "sleeper"} {
		s := f.session(client, client)
		if client == "sleeper" {
			s.SessionExpiry = int64(72 * time.Hour / time.Second)
		}
		f.Connected(s, f.now)
		if client != "connected" {
			f.Disconnected(s, "CLIENT_INITIATED_DISCONNECT", f.now)
		}
	}
	f.flush(t)
	things := func(_ context.Context, _ fleet.Account, names []string) (map[string]bool, error) {
		return map[string]bool{"pump-1": slices.Contains(names, "pump-1")}, nil
	}
	for _, step := range []struct {
		after time.Duration
		left  []string
	}{
		{strangersFor - time.Second, []string{"connected", "pump-1", "sleeper", "stranger"}},
		{strangersFor, []string{"connected", "pump-1", "sleeper"}},
		{72 * time.Hour, []string{"connected", "pump-1"}},
	} {
		f.now = begun.Add(step.after)
		if _, err := f.trim(t.Context(), things); err != nil {
			t.Fatal(err)
		}
		var left []string
		err := EachConnection(t.Context(), f.store, func(_ fleet.Account, c Connection) error {
			left = append(left, c.ClientID)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(left, step.left) {
			t.Errorf("after %v: %v, want %v", step.after, left, step.left)
		}
	}
}

// A client that comes back while its record is being forgotten keeps it.
func TestTrimLosesTheRace(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.session("c", "1")
	f.Connected(s, f.now)
	f.Disconnected(s, "CLIENT_INITIATED_DISCONNECT", f.now)
	f.flush(t)
	f.now = f.now.Add(2 * strangersFor)
	n, err := f.trim(t.Context(), func(context.Context, fleet.Account, []string) (map[string]bool, error) {
		f.Connected(f.session("c", "2"), f.now)
		f.flush(t)
		return map[string]bool{}, nil
	})
	if err != nil || n != 0 {
		t.Fatalf("forgot %d, %v", n, err)
	}
	if c, err := f.Get(t.Context(), account, "c"); err != nil || !c.Connected {
		t.Errorf("got %+v, %v", c, err)
	}
}

package presence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/store"
)

// failing is a store that can be made to refuse commits.
type failing struct {
	store.Store
	down    atomic.Bool
	refused atomic.Int64
}

func (f *failing) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	if f.down.Load() {
		f.refused.Add(1)
		return store.Position{}, errors.New("no disk")
	}
	return f.Store.Commit(ctx, b)
}

// While the store refuses, random clients come, go, subscribe and take over;
// when it is back, each client's newest state is recorded, each disconnect event follows
// its connect with the same version, and versions of a client grow.
func TestOutageEndsWithTheNewestStates(t *testing.T) {
	t.Parallel()
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			broken := &failing{Store: f.store}
			broken.down.Store(true)
			f.Service = New(Options{Store: broken, Now: func() time.Time { return f.now }, Logger: slog.New(slog.DiscardHandler)})
			want := tellAtRandom(f, rand.New(rand.NewPCG(seed, 1)))

			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- f.Run(ctx) }()
			for broken.refused.Load() == 0 {
				select {
				case <-time.After(time.Millisecond):
				case <-t.Context().Done():
					t.Fatal("the store was never asked")
				}
			}
			broken.down.Store(false)
			if err := f.Drain(t.Context()); err != nil {
				t.Fatal(err)
			}
			cancel()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			for client, session := range want {
				got, err := f.Get(t.Context(), account, client)
				if err != nil || got.Connected != (session != "") || session != "" && got.SessionID != session {
					t.Errorf("%s: %+v, %v, want connected by %q", client, got, err, session)
				}
			}
			checkHistory(t, f.told(t))
		})
	}
}

// tellAtRandom returns which session each client has at the end, "" for none.
func tellAtRandom(f *fixture, r *rand.Rand) map[string]string {
	live := map[string]string{}
	for i := range 600 {
		client := fmt.Sprintf("c%d", r.IntN(5))
		old, next := live[client], fmt.Sprintf("%s.s%04d", client, i)
		switch {
		case old == "":
			f.Connected(f.session(client, next), f.now)
			live[client] = next
		case r.IntN(3) == 0:
			f.Subscribed(f.session(client, old), []string{fmt.Sprint("f/", i)}, f.now)
		case r.IntN(3) > 0:
			f.Disconnected(f.session(client, old), "CONNECTION_LOST", f.now)
			live[client] = ""
		case r.IntN(2) > 0:
			f.Disconnected(f.session(client, old), "DUPLICATE_CLIENTID", f.now)
			f.Connected(f.session(client, next), f.now)
			live[client] = next
		default:
			f.Connected(f.session(client, next), f.now)
			f.Disconnected(f.session(client, old), "DUPLICATE_CLIENTID", f.now)
			live[client] = next
		}
	}
	return live
}

// checkHistory checks the order of the events: changed subscriptions belong
// between connect and disconnect of their connection.
func checkHistory(t *testing.T, told []string) {
	t.Helper()
	version, last, over := map[string]int64{}, map[string]int64{}, map[string]bool{}
	for _, line := range told {
		var kind, session string
		var v int64
		if _, err := fmt.Sscan(line, &kind, &session, &v); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		client, _, _ := strings.Cut(session, ".")
		if kind == "subscribed=true" {
			if begun, ok := version[session]; !ok || begun != v || over[session] {
				t.Errorf("%s: connected as %d, %v, over: %v", line, begun, ok, over[session])
			}
			continue
		}
		if kind == "disconnected" {
			over[session] = true
			if begun, ok := version[session]; !ok || begun != v {
				t.Errorf("%s: connected as %d, %v", line, begun, ok)
			}
			continue
		}
		if before, ok := last[client]; ok && v <= before {
			t.Errorf("%s: the version before was %d", line, before)
		}
		version[session], last[client] = v, v
	}
}

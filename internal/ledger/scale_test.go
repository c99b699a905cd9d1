package ledger

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/postgres"
)

// factory puts the lives of many devices into the log: announced, joined by claim,
// connected.
func (r *rig) factory(devices int) {
	r.tb.Helper()
	r.tell(ada, certificate("claim", "ACTIVE"))
	for n := range devices {
		key, name, cert := fmt.Sprintf("SN-%05d", n), fmt.Sprintf("pump-%05d", n), fmt.Sprintf("c%063d", n)
		r.keys[name] = key
		r.tell(kim, event.OnboardingChanged{Device: key, Plan: "line", PlanVersion: 1, State: "EXPECTED", Stage: "make"})
		r.tell(holder("claim"), connect("claim", key), certificate(cert, "PENDING_ACTIVATION"))
		r.tell(holder("claim"), joins(event.DeviceProvisioned{
			Method: event.ProvisioningClaim, Template: "P", Thing: name, ThingCreated: true, CertificateID: cert, ClaimID: "claim", ClientID: key,
		}, true)...)
		r.tell(holder(cert), connect(cert, name))
	}
}

// The ledgers of ten thousand devices are entered and verified in seconds.
func TestTenThousandDevices(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("ten thousand devices take a while")
	}
	devices := 10_000
	if slowdown > 1 {
		devices = 200
	}
	r := newRig(t)
	r.factory(devices)
	began := time.Now()
	r.need(r.follow())
	entered := time.Since(began)
	began = time.Now()
	v, all := r.verify()
	verified := time.Since(began)
	if len(all) > 0 || v.Devices != devices || v.Entries != 6*devices {
		t.Errorf("verdict %+v, findings %+v", v, all)
	}
	t.Logf("%d entries entered in %v, verified in %v", v.Entries, entered, verified)
	if most := 2 * time.Minute; entered > most || verified > most {
		t.Errorf("entered in %v, verified in %v", entered, verified)
	}
}

// BenchmarkApply enters the life of one device after the other.
func BenchmarkApply(b *testing.B) {
	r := newRig(b)
	r.factory(2000)
	var batches [][]event.Envelope
	for cursor := (store.Cursor{}); ; {
		events, next, err := r.store.Events(b.Context(), cursor, 1000)
		r.need(err)
		if len(events) == 0 {
			break
		}
		batches, cursor = append(batches, events), next
	}
	n := 0
	for b.Loop() {
		_, err := r.Apply(b.Context(), batches[n%len(batches)])
		r.need(err)
		n++
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n)/1000, "µs/event")
}

func openPostgres(t *testing.T) store.Store {
	t.Helper()
	engine, err := postgres.Open(t.Context(), postgres.Options{URL: cluster.Get(t).Database(t), Logger: slog.New(slog.DiscardHandler), Conns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return engine
}

// The same on the other engine: random lives, processes that die, and what is done to
// a ledger.
func TestOnPostgreSQL(t *testing.T) {
	t.Parallel()
	cluster.Get(t)
	t.Run("random lives", func(t *testing.T) {
		t.Parallel()
		rnd := rand.New(rand.NewPCG(3, 3))
		r := newRigOn(t, openPostgres(t))
		r.size = 17
		m := newModel(r, rnd)
		m.deferred = true
		m.run(80)
		for {
			r.store.left = rnd.IntN(4)
			err := r.follow()
			r.store.left = -1
			if err == nil {
				break
			}
			r.boot()
		}
		m.compare()
	})
	t.Run("tampering", func(t *testing.T) {
		t.Parallel()
		for n, how := range tamperings() {
			if n%4 != 0 {
				continue // each costs a database
			}
			rnd := rand.New(rand.NewPCG(uint64(n), 4))
			r := newRigOn(t, openPostgres(t))
			m := newModel(r, rnd)
			m.deferred = true
			m.run(30)
			r.need(r.follow())
			r.sound()
			how.do(r, rnd)
			if _, all := r.verify(); len(all) == 0 {
				t.Errorf("%s: it was not found", how.name)
			}
		}
	})
	t.Run("pages and refusals", func(t *testing.T) {
		t.Parallel()
		r := newRigOn(t, openPostgres(t))
		r.happens(ada, certificate("claim", "ACTIVE"))
		for n := range 7 {
			r.tell(holder("claim"), event.ProvisioningRefused{Method: event.ProvisioningClaim, ClientID: fmt.Sprint("r", n), ClaimID: "claim", Code: "Forbidden"})
			name := fmt.Sprint("ghost", n)
			r.tell(holder("c-"+name), event.DeviceConnected{Session: event.Session{ClientID: name, Principal: "c-" + name, Indexed: true}})
		}
		r.need(r.follow())
		for _, kind := range []RogueKind{RogueJoined, RogueAttempt} {
			var all []string
			for after := ""; ; {
				page, next, counts, err := r.Rogues(t.Context(), acct, kind, after, 3)
				r.need(err)
				wantEqual(t, counts, RogueCounts{Devices: 7, Attempts: 7, Refusals: 7})
				for _, one := range page {
					all = append(all, one.Device)
				}
				if after = next; next == "" {
					break
				}
			}
			sorted := slices.Clone(all)
			slices.Sort(sorted)
			if slices.Reverse(sorted); len(all) != 7 || !slices.Equal(all, sorted) {
				t.Errorf("%s: listed %v, want the newest first", kind, all)
			}
		}
		r.sound()
	})
}

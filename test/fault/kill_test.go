package fault_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/testkit"
)

const (
	things = 50
	// every paces one thing, so that all together make about 1,000 a second.
	every = things * time.Second / 1000
)

// kills is how often a run kills the server: as usual, or MUSTER_KILLS for long
// runs.
func kills(t *testing.T, usual int) int {
	t.Helper()
	text := os.Getenv("MUSTER_KILLS")
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("MUSTER_KILLS: %v", err)
	}
	return n
}

// rig is a server under load and its journal.
type rig struct {
	t       *testing.T
	server  *testkit.Server
	journal *journal
	writers []*writer
	// registered numbers the things that register made; it belongs to register.
	registered int
}

func newRig(t *testing.T, flags ...string) *rig {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "accepted"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	r := &rig{
		t:       t,
		server:  testkit.NewServer(t, t.TempDir(), append([]string{"--log.level", "warn"}, flags...)...),
		journal: &journal{file: file, last: map[string]entry{}},
	}
	r.server.Start()
	id, secret := r.server.Credentials()
	api, err := apiclient.New(apiclient.Options{
		Endpoint: "http://" + r.server.HTTPAddr, Credentials: apiclient.Credentials{AccessKeyID: id, Secret: secret, Region: "us-east-1"}, Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer api.CloseIdle()
	for name, query := range map[string]string{"low": "shadow.reported.battery<30", "leeds": "attributes.site:leeds"} {
		request := apiclient.Request{Service: apiclient.ServiceControl, Method: http.MethodPost, Path: "/dynamic-thing-groups/" + name}
		if err := api.JSON(t.Context(), request, map[string]string{"queryString": query}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for i := range things {
		name := fmt.Sprintf("t-%02d", i)
		if _, err := r.server.Muster(t.Context(), "things", "create", name); err != nil {
			t.Fatal(err)
		}
		r.writers = append(r.writers, &writer{thing: name, addr: r.server.PlainMQTTAddr, journal: r.journal})
	}
	return r
}

// load runs all writers until strike returns and the connections have ended.
func (r *rig) load(strike func()) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for _, w := range r.writers {
		wg.Go(func() {
			if err := w.run(ctx, every); err != nil {
				r.t.Error(err)
			}
		})
	}
	wg.Go(func() { r.churn(ctx) })
	wg.Go(func() { r.register(ctx) })
	strike()
	cancel()
	wg.Wait()
}

// churn connects and disconnects a thing's device until ctx ends or the server is
// gone.
func (r *rig) churn(ctx context.Context) {
	for ctx.Err() == nil {
		s, err := open(ctx, r.server.PlainMQTTAddr, "churn")
		if err != nil {
			return
		}
		_ = s.Close()
	}
}

// register makes things with attributes and deletes some, as far as the server
// lives; what became of them is the doctor's to say.
func (r *rig) register(ctx context.Context) {
	for ctx.Err() == nil {
		r.registered++
		name := fmt.Sprintf("r-%05d", r.registered)
		if _, err := r.server.Muster(ctx, "things", "create", name, "site=leeds", "n="+strconv.Itoa(r.registered)); err != nil {
			return
		}
		if r.registered%3 == 0 {
			if _, err := r.server.Muster(ctx, "things", "delete", name); err != nil {
				return
			}
		}
	}
}

// verify checks every acknowledged version and the projections.
func (r *rig) verify(round int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	for _, w := range r.writers {
		if err := w.check(ctx, r.journal.last[w.thing]); err != nil {
			r.t.Errorf("round %d: %v", round, err)
		}
	}
	if out, err := r.server.Muster(ctx, "doctor"); err != nil {
		r.t.Errorf("round %d: %v\n%s", round, err, out)
	}
	if r.t.Failed() {
		r.t.FailNow()
	}
}

func (r *rig) killing(rounds int) {
	r.t.Helper()
	random := rand.New(rand.NewPCG(1, uint64(rounds)))
	for round := range rounds {
		before := r.journal.accepted()
		pause := time.Duration(200+random.IntN(1500)) * time.Millisecond
		r.load(func() {
			<-time.After(pause)
			// A busy machine may need longer to get the load going.
			testkit.Poll(r.t, 30*time.Second, "an update is accepted", func() error {
				if r.journal.accepted() == before {
					return fmt.Errorf("round %d: none", round)
				}
				return nil
			})
			r.server.Kill()
		})
		r.server.Start()
		r.verify(round)
	}
	r.t.Logf("%d kills, %d accepted updates, none lost", rounds, r.journal.count)
	if r.journal.count < rounds*50 {
		r.t.Errorf("only %d updates were accepted: the load was too small to show anything", r.journal.count)
	}
}

// TestKilledServerLosesNothingOnPebble writes index snapshots all the time, so that
// kills fall between two, and into one.
func TestKilledServerLosesNothingOnPebble(t *testing.T) {
	r := newRig(t, "--index.snapshot-every", "1s", "--log.level", "info")
	r.killing(kills(t, 20))
	if !strings.Contains(r.server.Log(), "index begins with its snapshot") {
		t.Error("no start began with a snapshot")
	}
	left, err := filepath.Glob(filepath.Join(r.server.DataDir, "index", ".tmp-*"))
	if err != nil || len(left) > 1 {
		t.Errorf("cut snapshots on the disk: %v, %v", left, err)
	}
}

func TestKilledServerLosesNothingOnPostgreSQL(t *testing.T) {
	database := testkit.StartPostgres(t)
	newRig(t, "--store", database.Database(t)).killing(kills(t, 20))
}

// TestStoppedPostgreSQLLosesNothing stops the database at once under load; the
// server stays up, refuses meanwhile, and goes on by itself.
func TestStoppedPostgreSQLLosesNothing(t *testing.T) {
	database := testkit.StartPostgres(t)
	r := newRig(t, "--store", database.Database(t))
	r.load(func() {
		<-time.After(time.Second)
		database.StopAtOnce(t)
	})
	database.Start(t)
	testkit.Poll(t, 30*time.Second, "the server accepts again", func() error {
		before := r.journal.count
		r.load(func() { <-time.After(300 * time.Millisecond) })
		if r.journal.count == before {
			return fmt.Errorf("no update was accepted")
		}
		return nil
	})
	r.verify(0)
	t.Logf("%d accepted updates across the stop, none lost", r.journal.count)
}

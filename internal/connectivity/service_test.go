package connectivity

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/eventlog"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const account fleet.Account = "000000000000"

// world is a store with things, and a service over it that can be restarted.
type world struct {
	t     *testing.T
	store *embedded.Engine
	*Service
	follower *eventlog.Runner
	stop     func()
	// trouble, when it is set, comes between the service and the store.
	trouble *trouble

	mu sync.Mutex
	// skew is by how much the wall clock was set.
	skew     time.Duration
	live     map[string]Activity
	draining bool
	trips    []RoundTrips
	// things exist; true says that a certificate is attached.
	things  map[string]bool
	blocked map[string]bool
	groups  map[string][]Group
	past    []Past
	newest  map[string]Past
	version map[string]int64
	session map[string]event.Session
}

// inWorld runs a test in virtual time.
func inWorld(t *testing.T, run func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		engine, err := embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, ReserveBytes: -1})
		if err != nil {
			t.Fatal(err)
		}
		w := &world{
			t: t, store: engine, live: map[string]Activity{}, things: map[string]bool{}, blocked: map[string]bool{},
			groups: map[string][]Group{}, version: map[string]int64{}, session: map[string]event.Session{},
		}
		w.start()
		run(w)
		w.stop()
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
}

// start runs a process.
func (w *world) start() {
	w.t.Helper()
	begun := time.Now()
	var under store.Store = w.store
	if w.trouble != nil {
		under = w.trouble
	}
	w.Service = New(Options{
		Store: under, Sessions: w, Registry: w, Now: w.wall, Elapsed: func() time.Duration { return time.Since(begun) },
		Live: func(_ context.Context, _ store.Reader, fn func(Past) error) error {
			for _, p := range w.past {
				if err := fn(p); err != nil {
					return err
				}
			}
			return nil
		},
		Newest: func(_ context.Context, _ fleet.Account, clientID string) (*Past, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if p, ok := w.newest[clientID]; ok {
				return &p, nil
			}
			return nil, nil
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	var err error
	w.follower, err = eventlog.NewRunner(eventlog.Consumer{Name: "connectivity", Apply: w.Apply, Rebuild: w.Rebuild},
		eventlog.Options{Store: under, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{w.follower.Run, w.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				w.t.Error(err)
			}
		})
	}
	w.stop = func() {
		cancel()
		running.Wait()
	}
	w.settle()
}

// restart ends the process, lets time pass and begins another one, which ends the
// connections of the one before as presence does.
func (w *world) restart(away time.Duration) {
	w.t.Helper()
	w.settle()
	w.stop()
	time.Sleep(away)
	w.mu.Lock()
	w.live = map[string]Activity{}
	w.mu.Unlock()
	var cut []event.Event
	for _, thing := range w.sessions() {
		cut = append(cut, event.DeviceDisconnected{Session: w.session[thing], Reason: "SERVER_ERROR"})
		delete(w.session, thing)
	}
	w.tell(cut...)
	w.start()
}

// sessions are the connected things by name.
func (w *world) sessions() []string {
	var names []string
	for name := range w.session {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (w *world) wall() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Round(0).Add(w.skew)
}

func (w *world) Activity(_ fleet.Account, clientID string) (Activity, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a, ok := w.live[clientID]
	// The broker counts back from the clock of this moment.
	a.LastPacket = a.LastPacket.Add(w.skew)
	if !a.LastPublish.IsZero() {
		a.LastPublish = a.LastPublish.Add(w.skew)
	}
	return a, ok
}

func (w *world) Draining() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.draining
}

func (w *world) RoundTrips() []RoundTrips {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.trips
	w.trips = nil
	return all
}

func (w *world) ThingExists(_ context.Context, _ fleet.Account, thing string) (exists, attached bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	attached, exists = w.things[thing]
	return exists, attached, nil
}

func (w *world) Blocked(_ context.Context, _ fleet.Account, thing string) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.blocked[thing], nil
}

// ThingsOf takes a certificate for that of the thing with the same name.
func (w *world) ThingsOf(_ context.Context, _ fleet.Account, certificateID string, fn func(string) error) error {
	return fn(certificateID)
}

func (w *world) Groups(_ context.Context, _ fleet.Account, thing string) ([]Group, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.groups[thing], nil
}

func (w *world) GroupExists(_ context.Context, _ fleet.Account, group string) (bool, error) {
	return group != "ghosts", nil
}

// EachInactive takes blocked things for certificates.
func (w *world) EachInactive(_ context.Context, _ store.Reader, fn func(fleet.Account, string) error) error {
	for thing := range w.blocked {
		if err := fn(account, thing); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) EachThing(_ context.Context, _ store.Reader, fn func(fleet.Account, string) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for thing := range w.things {
		if err := fn(account, thing); err != nil {
			return err
		}
	}
	return nil
}

// tell appends events to the log.
func (w *world) tell(events ...event.Event) {
	w.t.Helper()
	for len(events) > 0 {
		n := min(len(events), 500)
		var b store.Batch
		for _, e := range events[:n] {
			b.Events = append(b.Events, event.Envelope{Account: account, At: w.wall(), Event: e})
		}
		if _, err := w.store.Commit(w.t.Context(), b); err != nil {
			w.t.Fatal(err)
		}
		events = events[n:]
	}
}

// settle waits until everything told is applied.
func (w *world) settle() {
	w.t.Helper()
	head, err := w.store.Head(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.follower.WaitCovered(w.t.Context(), head); err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
}

// create makes a thing with a certificate.
func (w *world) create(things ...string) {
	var all []event.Event
	w.mu.Lock()
	for _, thing := range things {
		w.things[thing] = true
		all = append(all, event.ThingCreated{Thing: event.Thing{Thing: thing}})
	}
	w.mu.Unlock()
	w.tell(all...)
}

// begin makes the next connection of a thing and returns its event.
func (w *world) begin(thing string) event.Event {
	w.version[thing]++
	v := w.version[thing]
	s := event.Session{
		ClientID: thing, SessionID: fmt.Sprintf("%s.s%d", thing, v), ConnectionID: fmt.Sprintf("%s.c%d", thing, v), Version: v, Indexed: true, KeepAlive: 30,
	}
	w.session[thing] = s
	w.mu.Lock()
	w.live[thing] = Activity{ConnectionID: s.ConnectionID, LastPacket: time.Now()}
	w.mu.Unlock()
	return event.DeviceConnected{Session: s}
}

// end makes the end of a thing's connection and returns its event.
func (w *world) end(thing, reason string) event.Event {
	s := w.session[thing]
	delete(w.session, thing)
	w.mu.Lock()
	delete(w.live, thing)
	w.mu.Unlock()
	return event.DeviceDisconnected{Session: s, Reason: reason}
}

// publish lets the broker know of a publish of a thing.
func (w *world) publish(thing string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := w.live[thing]
	a.LastPublish = time.Now()
	w.live[thing] = a
}

// connect connects a thing for the first time and makes it ONLINE.
func (w *world) connect(things ...string) {
	w.t.Helper()
	var all []event.Event
	for _, thing := range things {
		all = append(all, w.begin(thing))
		w.publish(thing)
	}
	w.tell(all...)
	w.settle()
	time.Sleep(2 * time.Second)
	w.settle()
}

// state is a thing's state.
func (w *world) state(thing string) State {
	w.t.Helper()
	v, err := w.Of(w.t.Context(), account, thing)
	if err != nil {
		w.t.Fatal(err)
	}
	return v.State
}

func (w *world) want(thing string, state State) {
	w.t.Helper()
	w.settle()
	if got := w.state(thing); got != state {
		w.t.Errorf("%s is %s, want %s", thing, got, state)
	}
}

// changes are the state changes in the log, "from>to"; it fails for versions
// that are not consecutive.
func (w *world) changes(thing string) []string {
	w.t.Helper()
	w.settle()
	var all []string
	next := int64(1)
	var cursor store.Cursor
	for {
		events, after, err := w.store.Events(w.t.Context(), cursor, 1000)
		if err != nil {
			w.t.Fatal(err)
		}
		if len(events) == 0 {
			return all
		}
		cursor = after
		for _, env := range events {
			e, ok := env.Event.(event.ConnectivityStateChanged)
			if !ok || e.Thing != thing {
				continue
			}
			if e.StateVersion != next {
				w.t.Errorf("%s: version %d, want %d", thing, e.StateVersion, next)
			}
			next++
			all = append(all, e.From+">"+e.To)
		}
	}
}

func (w *world) wantChanges(thing string, want ...string) {
	w.t.Helper()
	if diff := cmp.Diff(want, w.changes(thing)); diff != "" {
		w.t.Errorf("changes of %s (-want +got):\n%s", thing, diff)
	}
}

// life is the beginning of every thing's changes.
func life(then ...string) []string {
	return append([]string{"NEVER_SEEN>FIRST_CONNECTED", "FIRST_CONNECTED>ONLINE"}, then...)
}

func TestBlipIsNoOutage(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		t := w.t
		w.create("pump")
		w.want("pump", NeverSeen)
		w.connect("pump")
		w.tell(w.end("pump", "CONNECTION_LOST"))
		w.want("pump", Suspect)
		time.Sleep(29 * time.Second)
		w.want("pump", Suspect)
		w.tell(w.begin("pump"))
		w.want("pump", Online)
		time.Sleep(time.Hour)
		w.wantChanges("pump", life("ONLINE>SUSPECT", "SUSPECT>ONLINE")...)
		if v, _ := w.Of(t.Context(), account, "pump"); v.Blips != 1 || v.Outages != 0 {
			t.Errorf("%d blips, %d outages", v.Blips, v.Outages)
		}
	})
}

func TestOutageIsConfirmedAndEnds(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		t := w.t
		w.create("pump")
		w.connect("pump")
		w.tell(w.end("pump", "MQTT_KEEP_ALIVE_TIMEOUT"))
		time.Sleep(37 * time.Second) // the keep-alive and a fifth
		w.want("pump", OfflineDirty)
		time.Sleep(10 * time.Minute)
		w.tell(w.begin("pump"))
		w.want("pump", Recovered)
		time.Sleep(11 * time.Minute)
		w.want("pump", Online)
		w.wantChanges("pump", life("ONLINE>SUSPECT", "SUSPECT>OFFLINE_DIRTY", "OFFLINE_DIRTY>RECOVERED", "RECOVERED>ONLINE")...)
		v, err := w.Of(t.Context(), account, "pump")
		if err != nil || v.Outages != 1 || v.LastOutage != 10*time.Minute+37*time.Second {
			t.Errorf("%v, outages %d, last %v", err, v.Outages, v.LastOutage)
		}
		if sum, err := w.Summarize(t.Context(), account); err != nil || sum.Things != 1 || sum.ByState[Online] != 1 || sum.ByState[NeverSeen] != 0 {
			t.Errorf("summary %+v, %v", sum, err)
		}
	})
}

// A restart in the wait state keeps the timer, and the grace after it.
func TestRestartInTheWaitState(t *testing.T) {
	t.Parallel()
	for _, back := range []bool{false, true} {
		t.Run(fmt.Sprint(back), func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(w *world) {
				w.create("pump")
				w.connect("pump")
				w.tell(w.end("pump", "CONNECTION_LOST"))
				w.want("pump", Suspect)
				w.restart(10 * time.Minute)
				time.Sleep(50 * time.Second)
				w.want("pump", Suspect)
				if back {
					w.tell(w.begin("pump"))
					time.Sleep(5 * time.Minute)
					w.wantChanges("pump", life("ONLINE>SUSPECT", "SUSPECT>ONLINE")...)
					return
				}
				time.Sleep(80 * time.Second)
				w.want("pump", OfflineDirty)
				w.restart(time.Second)
				time.Sleep(5 * time.Minute)
				w.wantChanges("pump", life("ONLINE>SUSPECT", "SUSPECT>OFFLINE_DIRTY")...)
			})
		})
	}
}

// Ten thousand devices come back within the grace after a restart, each at its
// own time: nobody was offline.
func TestRestartDeclaresNobodyOffline(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		t := w.t
		const devices = 10_000
		names := make([]string, devices)
		for i := range names {
			names[i] = fmt.Sprintf("d%05d", i)
		}
		w.create(names...)
		w.connect(names...)
		w.restart(2 * time.Minute)
		for at := range 115 { // of the 120 s that are twice the keep-alive, rounded up
			var back []event.Event
			for i := at; i < devices; i += 115 {
				back = append(back, w.begin(names[i]))
			}
			w.tell(back...)
			time.Sleep(time.Second)
		}
		time.Sleep(10 * time.Minute)
		w.settle()
		sum, err := w.Summarize(t.Context(), account)
		if err != nil || sum.ByState[Online] != devices {
			t.Errorf("%+v, %v", sum, err)
		}
		w.wantChanges(names[7], life("ONLINE>SUSPECT", "SUSPECT>ONLINE")...)
		w.wantChanges(names[devices-1], life("ONLINE>SUSPECT", "SUSPECT>ONLINE")...)
		offline := 0
		for _, move := range []State{OfflineDirty, OfflineClean, OfflineOverdue} {
			offline += sum.ByState[move]
		}
		if offline != 0 {
			t.Errorf("%d devices are offline", offline)
		}
	})
}

// What is told twice, late or in the wrong order changes nothing.
func TestDuplicatesAndWrongOrder(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.create("pump")
		w.connect("pump")
		first := w.session["pump"]
		// Take-over: the victim's end is told after the winner's begin.
		second := w.begin("pump")
		w.tell(second, second, event.DeviceDisconnected{Session: first, Reason: "DUPLICATE_CLIENTID"})
		w.want("pump", Online)
		end := w.end("pump", "CONNECTION_LOST")
		w.tell(end, end)
		// The begin of the former connections, once more.
		w.tell(event.DeviceConnected{Session: first}, second)
		w.want("pump", Suspect)
		// An end before its begin.
		third, ended := w.begin("pump"), event.DeviceDisconnected{Session: w.session["pump"], Reason: "CONNECTION_LOST"}
		w.end("pump", "")
		w.tell(ended, third)
		w.want("pump", Suspect)
		time.Sleep(time.Minute)
		w.wantChanges("pump", life("ONLINE>SUSPECT", "SUSPECT>OFFLINE_DIRTY")...)
	})
}

// A client that turns out to be connected when the wait ends is not offline.
func TestLiveSessionAtTheEndOfTheWait(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.create("pump")
		w.connect("pump")
		w.tell(w.end("pump", "CONNECTION_LOST"))
		w.settle()
		late := w.begin("pump")
		time.Sleep(5 * time.Minute) // the log is slow
		w.want("pump", Suspect)
		w.tell(late)
		w.wantChanges("pump", life("ONLINE>SUSPECT", "SUSPECT>ONLINE")...)
	})
}

// Setting the clock neither cuts waiting short nor draws it out.
func TestClockIsSet(t *testing.T) {
	t.Parallel()
	for _, jump := range []time.Duration{time.Hour, -time.Hour, 10 * time.Second, -400 * 24 * time.Hour} {
		t.Run(jump.String(), func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(w *world) {
				t := w.t
				w.create("pump", "lamp")
				w.connect("pump", "lamp")
				w.tell(w.end("pump", "CONNECTION_LOST"))
				w.settle()
				time.Sleep(5 * time.Second)
				// This end is told of just before and applied after the jump.
				w.mu.Lock()
				w.skew += jump
				w.mu.Unlock()
				end := event.Envelope{Account: account, At: w.wall().Add(-jump), Event: w.end("lamp", "CONNECTION_LOST")}
				if _, err := w.store.Commit(t.Context(), store.Batch{Events: []event.Envelope{end}}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(24 * time.Second)
				w.want("pump", Suspect)
				w.want("lamp", Suspect)
				time.Sleep(9 * time.Second)
				w.want("pump", OfflineDirty)
				time.Sleep(5 * time.Second)
				w.want("lamp", OfflineDirty)
			})
		})
	}
}

// A sleep of a length lasts as long whatever becomes of the clock; one to a time
// ends at that time.
func TestClockIsSetWhileDevicesSleep(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.create("long", "until")
		w.connect("long", "until")
		w.mustDeclare(Declaration{Thing: "long", Operation: Goodbye, Sleep: 2 * time.Hour})
		w.mustDeclare(Declaration{Thing: "until", Operation: Goodbye, NextContact: w.wall().Add(2 * time.Hour)})
		w.tell(w.end("long", reasonClean), w.end("until", reasonClean))
		w.settle()
		w.mu.Lock()
		w.skew += time.Hour
		w.mu.Unlock()
		time.Sleep(61*time.Minute + 30*time.Second)
		w.want("until", OfflineOverdue)
		w.want("long", Sleeping)
		time.Sleep(time.Hour)
		w.want("long", OfflineOverdue)
	})
}

// While devices are sent away nobody is offline, and for a while after that.
func TestDrainDeclaresNobodyOffline(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.create("pump")
		w.connect("pump")
		w.mu.Lock()
		w.draining = true
		w.mu.Unlock()
		w.tell(w.end("pump", "SERVER_INITIATED_DISCONNECT"))
		time.Sleep(10 * time.Minute)
		w.want("pump", Suspect)
		w.mu.Lock()
		w.draining = false
		w.mu.Unlock()
		time.Sleep(100 * time.Second)
		w.want("pump", Suspect)
		time.Sleep(2 * time.Minute)
		w.want("pump", OfflineDirty)
	})
}

// declare declares for a thing and returns the answer.
func (w *world) declare(d Declaration) (Declared, error) {
	w.t.Helper()
	type answer struct {
		Declared
		err error
	}
	answers := make(chan answer, 1)
	d.Account, d.At = account, w.wall()
	if d.ClientID == "" {
		d.ClientID = d.Thing
	}
	if d.ConnectionID == "" {
		d.ConnectionID = w.session[d.ClientID].ConnectionID
	}
	d.Indexed = true
	d.Done = func(r Declared, err error) { answers <- answer{r, err} }
	w.Declare(d)
	got := <-answers
	return got.Declared, got.err
}

func (w *world) mustDeclare(d Declaration) {
	w.t.Helper()
	if _, err := w.declare(d); err != nil {
		w.t.Errorf("%s for %s: %v", d.Operation, d.Thing, err)
	}
}

func TestPlannedSleep(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.create("pump")
		w.connect("pump")
		sleep := func() {
			w.mustDeclare(Declaration{Thing: "pump", Operation: Goodbye, Sleep: time.Hour})
			w.tell(w.end("pump", reasonClean))
			w.want("pump", Sleeping)
		}
		sleep()
		time.Sleep(time.Hour)
		w.want("pump", Sleeping) // the grace
		w.tell(w.begin("pump"))
		w.want("pump", Online)
		sleep()
		w.restart(time.Minute)
		time.Sleep(62 * time.Minute)
		w.want("pump", OfflineOverdue)
		w.tell(w.begin("pump"))
		w.want("pump", Recovered)
		// A goodbye without a time, and one that a dirty end belies.
		w.mustDeclare(Declaration{Thing: "pump", Operation: Goodbye})
		w.tell(w.end("pump", reasonClean))
		w.want("pump", OfflineClean)
		w.tell(w.begin("pump"))
		w.want("pump", Recovered)
		w.mustDeclare(Declaration{Thing: "pump", Operation: Goodbye, Sleep: time.Hour})
		w.tell(w.end("pump", "CONNECTION_LOST"))
		w.want("pump", Suspect)
	})
}

func TestHelloHeartbeatAndSilence(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		t := w.t
		w.create("pump", "mute")
		// A declaration may come before the begin of its connection is applied.
		begin := w.begin("pump")
		done := make(chan error, 1)
		w.Declare(Declaration{
			Account: account, Thing: "pump", Operation: Hello, ClientID: "pump", ConnectionID: w.session["pump"].ConnectionID, Indexed: true,
			At: w.wall(), Interval: 20 * time.Second, Done: func(_ Declared, err error) { done <- err },
		})
		time.Sleep(3 * time.Second)
		w.tell(begin, w.begin("mute"))
		w.settle()
		if err := <-done; err != nil {
			t.Error(err)
		}
		w.want("pump", Online)
		w.want("mute", FirstConnected)
		time.Sleep(50 * time.Second)
		w.publish("pump")
		time.Sleep(12 * time.Second)
		w.want("pump", Online) // three intervals since the newest publish
		w.want("mute", Online) // after T_hello
		if v, _ := w.Of(t.Context(), account, "mute"); !v.NoHello {
			t.Error("nobody noticed that there was no hello")
		}
		time.Sleep(50 * time.Second)
		w.want("pump", Stale)
		w.publish("pump")
		time.Sleep(2 * time.Second)
		w.want("pump", Online)
		if v, _ := w.Of(t.Context(), account, "pump"); v.LastGap < 60*time.Second || v.LastGap > 70*time.Second {
			t.Errorf("gap %v", v.LastGap)
		}
		w.wantChanges("pump", life("ONLINE>STALE", "STALE>ONLINE")...)
		w.wantChanges("mute", life()...)
	})
}

func TestBlocked(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		t := w.t
		w.create("pump", "new")
		w.connect("pump")
		for _, thing := range []string{"pump", "new"} {
			w.mu.Lock()
			w.blocked[thing] = true
			w.mu.Unlock()
			w.tell(event.CertificateStatusChanged{CertificateID: thing, Status: "INACTIVE"})
		}
		w.tell(w.end("pump", "AUTH_ERROR"))
		w.want("pump", Blocked)
		w.want("new", Blocked)
		w.mu.Lock()
		w.blocked = map[string]bool{}
		w.mu.Unlock()
		for _, thing := range []string{"pump", "new"} {
			w.tell(event.CertificateStatusChanged{CertificateID: thing, Status: "ACTIVE"})
		}
		w.want("pump", OfflineClean)
		w.want("new", NeverSeen)
		w.tell(w.begin("pump"))
		w.want("pump", Recovered)
		w.wantChanges("pump", life("ONLINE>BLOCKED", "BLOCKED>OFFLINE_CLEAN", "OFFLINE_CLEAN>RECOVERED")...)
		w.connect("new")
		w.wantChanges("new", "NEVER_SEEN>BLOCKED", "BLOCKED>NEVER_SEEN", "NEVER_SEEN>FIRST_CONNECTED", "FIRST_CONNECTED>ONLINE")
		if _, err := w.Of(t.Context(), account, "ghost"); fault.CodeOf(err) != fault.ResourceNotFound {
			t.Errorf("a thing that does not exist: %v", err)
		}
	})
}

// A gateway with more behind it than a commit should hold: what follows from its
// outage and its return is whole all the same, also over a crash in between.
func TestGatewayWithManyThings(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		t := w.t
		const n = 2500
		w.create("gate", "small")
		w.connect("gate", "small")
		for i := range n {
			name := fmt.Sprintf("s%04d", i)
			w.mu.Lock()
			w.things[name] = false
			w.mu.Unlock()
			gateway := "gate"
			if i%10 == 0 {
				gateway = "small"
			}
			w.Declare(Declaration{
				Account: account, Thing: name, Operation: Hello, ClientID: gateway, ConnectionID: w.session[gateway].ConnectionID, Indexed: true, At: w.wall(),
				Done: func(_ Declared, err error) {
					if err != nil {
						t.Error(err)
					}
				},
			})
		}
		time.Sleep(time.Second)
		w.tell(w.end("gate", "CONNECTION_LOST"), w.end("small", "CONNECTION_LOST"))
		time.Sleep(2 * time.Minute)
		w.settle()
		if sum, err := w.Summarize(t.Context(), account); err != nil || sum.ByState[OfflineDirty] != n+2 {
			t.Errorf("%+v, %v", sum, err)
		}
		w.tell(w.begin("gate"))
		w.settle()
		if sum, err := w.Summarize(t.Context(), account); err != nil || sum.ByState[Recovered] != n*9/10+1 || sum.ByState[OfflineDirty] != n/10+1 {
			t.Errorf("%+v, %v", sum, err)
		}
		w.agree()
	})
}

// A gateway's outage is told apart from the silence of what lies behind it.
func TestGatewayAndWhatLiesBehindIt(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		t := w.t
		w.create("gate", "other", "pump")
		w.mu.Lock()
		w.things["s1"], w.things["s2"], w.things["s3"] = false, false, false
		w.mu.Unlock()
		w.connect("gate", "other")
		for _, s := range []string{"s1", "s2"} {
			w.mustDeclare(Declaration{Thing: s, ClientID: "gate", Operation: Hello, Interval: 30 * time.Second})
			w.want(s, Online)
		}
		_, err := w.declare(Declaration{Thing: "pump", ClientID: "gate", Operation: Hello})
		if fault.CodeOf(err) != fault.Forbidden {
			t.Errorf("speaking for a thing with a certificate: %v", err)
		}
		if _, err := w.declare(Declaration{Thing: "ghost", ClientID: "gate", Operation: Hello}); fault.CodeOf(err) != fault.ResourceNotFound {
			t.Errorf("speaking for a thing that does not exist: %v", err)
		}
		if err := w.AssignGateway(t.Context(), account, "s3", "other"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.declare(Declaration{Thing: "s3", ClientID: "gate", Operation: Hello}); fault.CodeOf(err) != fault.Forbidden {
			t.Errorf("speaking for a thing of another gateway: %v", err)
		}
		w.mustDeclare(Declaration{Thing: "s3", ClientID: "other", Operation: Hello})
		// s2 falls silent, s1 does not.
		for range 5 {
			time.Sleep(25 * time.Second)
			w.mustDeclare(Declaration{Thing: "s1", ClientID: "gate", Operation: Heartbeat})
		}
		w.want("s1", Online)
		w.want("s2", Stale)
		// A blip of the gateway reaches nobody.
		w.tell(w.end("gate", "CONNECTION_LOST"))
		w.settle()
		w.tell(w.begin("gate"))
		w.want("s1", Online)
		// Its outage does.
		w.tell(w.end("gate", "CONNECTION_LOST"))
		time.Sleep(50 * time.Second)
		w.want("gate", OfflineDirty)
		w.want("s1", OfflineDirty)
		w.want("s3", Online)
		v, err := w.Of(t.Context(), account, "s1")
		if err != nil || v.DisconnectReason != ReasonGatewayOffline || v.Gateway != "gate" || v.Connected {
			t.Errorf("%+v, %v", v, err)
		}
		w.restart(time.Second)
		w.tell(w.begin("gate"), w.begin("other"))
		w.want("s1", Recovered)
		// What its gateway lost itself does not come back with it.
		w.mustDeclare(Declaration{Thing: "s1", ClientID: "gate", Operation: Goodbye, Lost: true})
		time.Sleep(10 * time.Second)
		w.want("s1", OfflineDirty)
		if v, _ := w.Of(t.Context(), account, "s1"); v.DisconnectReason != ReasonGatewayLost {
			t.Errorf("reason %s", v.DisconnectReason)
		}
		w.tell(w.end("gate", "CONNECTION_LOST"))
		time.Sleep(5 * time.Minute)
		w.want("gate", OfflineDirty)
		w.tell(w.begin("gate"))
		w.want("s1", OfflineDirty)
		if v, _ := w.Of(t.Context(), account, "gate"); v.Children != 2 {
			t.Errorf("%d things behind the gateway", v.Children)
		}
		// A gateway that sleeps puts what is behind it to sleep.
		w.mustDeclare(Declaration{Thing: "s1", ClientID: "gate", Operation: Hello})
		w.mustDeclare(Declaration{Thing: "gate", Operation: Goodbye, Sleep: time.Hour})
		w.tell(w.end("gate", reasonClean))
		w.want("s1", Sleeping)
		w.tell(w.begin("gate"))
		w.want("s1", Online)
		// Without the gateway there is nobody to speak.
		w.mu.Lock()
		delete(w.things, "gate")
		w.mu.Unlock()
		w.tell(event.ThingDeleted{Thing: "gate"})
		w.want("s1", Suspect)
		if v, _ := w.Of(t.Context(), account, "s1"); v.Gateway != "" {
			t.Errorf("behind %s, which is gone", v.Gateway)
		}
	})
}

func TestSettingsByGroup(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		t := w.t
		ctx := t.Context()
		second := func(n float64) *float64 { return &n }
		w.create("pump", "lamp")
		old, young := time.Unix(1000, 0), time.Unix(2000, 0)
		w.groups["pump"] = []Group{{Name: "young", Created: young}, {Name: "old", Created: old}, {Name: "site", Distance: 1, Created: old}}
		w.connect("pump", "lamp")
		for group, s := range map[string]Settings{
			"":      {WaitSeconds: second(100), StaleSeconds: second(600), HelloSeconds: second(5)},
			"site":  {WaitSeconds: second(50), FlapSuppress: second(3)},
			"young": {WaitSeconds: second(20), SleepGraceSeconds: second(7)},
			"old":   {WaitSeconds: second(10)},
		} {
			if err := w.PutSettings(ctx, account, group, s); err != nil {
				t.Fatal(err)
			}
		}
		v, err := w.Of(ctx, account, "pump")
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]string{
			"waitSeconds": "old", "sleepGraceSeconds": "young", "flapSuppress": "site", "staleSeconds": DefaultSource, "helloSeconds": DefaultSource,
			"waitCleanSeconds": BuiltinSource, "flapRelease": BuiltinSource, "alert": BuiltinSource,
		}
		if diff := cmp.Diff(want, v.Settings.From); diff != "" {
			t.Errorf("sources (-want +got):\n%s", diff)
		}
		// The new silence is watched for on connections that there are.
		time.Sleep(11 * time.Minute)
		w.want("pump", Stale)
		w.tell(w.end("pump", "CONNECTION_LOST"), w.end("lamp", "CONNECTION_LOST"))
		time.Sleep(13 * time.Second)
		w.want("pump", OfflineDirty)
		w.want("lamp", Suspect)
		for name, bad := range map[string]Settings{
			"empty": {}, "negative": {WaitSeconds: second(-1)}, "too short": {StaleSeconds: second(1)},
			"release": {FlapSuppress: second(2), FlapRelease: second(2)},
		} {
			if err := w.PutSettings(ctx, account, "", bad); fault.CodeOf(err) != fault.InvalidRequest {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := w.PutSettings(ctx, account, "ghosts", Settings{WaitSeconds: second(1)}); fault.CodeOf(err) != fault.ResourceNotFound {
			t.Errorf("a group that does not exist: %v", err)
		}
		w.tell(event.ThingGroupDeleted{Group: "old"})
		w.settle()
		w.restart(time.Second)
		w.settle()
		if got := len(w.ListSettings(account)); got != 3 {
			t.Errorf("%d settings after a group is gone", got)
		}
		if err := w.DeleteSettings(ctx, account, ""); err != nil {
			t.Error(err)
		}
		if err := w.DeleteSettings(ctx, account, ""); fault.CodeOf(err) != fault.ResourceNotFound {
			t.Errorf("deleted twice: %v", err)
		}
	})
}

func TestLatencyIsTold(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		t := w.t
		w.create("pump")
		w.connect("pump")
		w.mu.Lock()
		w.trips = []RoundTrips{
			{Account: account, Thing: "pump", Last: 20 * time.Millisecond, Mean: 20 * time.Millisecond, Max: 20 * time.Millisecond, Samples: 1},
			{Account: account, Thing: "pump", Last: 40 * time.Millisecond, Mean: 50 * time.Millisecond, Max: 60 * time.Millisecond, Samples: 2},
			{Account: account, Thing: "nobody", Last: time.Millisecond, Mean: time.Millisecond, Max: time.Millisecond, Samples: 1},
		}
		w.mu.Unlock()
		time.Sleep(61 * time.Second)
		v, err := w.Of(t.Context(), account, "pump")
		if err != nil || v.Latency == nil || v.Latency.LastMS != 40 || v.Latency.MeanMS != 40 || v.Latency.MaxMS != 60 || v.Latency.Samples != 3 {
			t.Errorf("%+v, %v", v.Latency, err)
		}
	})
}

// Installed on a store that knows connections already, the state machine begins
// with what presence has, and counts as a thing has lived.
func TestFirstStartOnAnOldStore(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		t := w.t
		w.stop()
		w.things["on"], w.things["off"], w.things["new"], w.things["bad"] = true, true, true, true
		w.blocked["bad"] = true
		at := time.Now().Add(-24 * time.Hour)
		of := func(thing string) event.Session {
			return event.Session{ClientID: thing, SessionID: "s", ConnectionID: "c", Indexed: true, KeepAlive: 30, Version: 4}
		}
		w.past = []Past{
			{Account: account, Session: of("on"), Connected: true, ConnectedAt: at, At: at},
			{Account: account, Session: of("off"), ConnectedAt: at, At: at.Add(time.Hour), Reason: reasonClean},
			{Account: account, Session: of("gone"), ConnectedAt: at, At: at.Add(time.Hour), Reason: reasonClean},
		}
		// As if nothing had ever been applied.
		if _, err := w.store.Commit(t.Context(), store.Batch{Writes: []store.Write{{Key: store.K(kindApplied), Delete: true}}}); err != nil {
			t.Fatal(err)
		}
		w.live["on"] = Activity{ConnectionID: "c", LastPacket: time.Now()}
		w.start()
		w.settle()
		time.Sleep(2 * time.Second)
		w.want("on", Online)
		w.want("off", OfflineClean)
		w.want("new", NeverSeen)
		sum, err := w.Summarize(t.Context(), account)
		want := map[State]int{Online: 1, OfflineClean: 1, NeverSeen: 1, Blocked: 1}
		if diff := cmp.Diff(want, sum.ByState); err != nil || diff != "" || sum.Things != 4 {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	})
}

// Memory agrees with the store: counts are those of the records, and each timer
// row belongs to a record.
func TestRowsAgreeWithRecords(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		names := []string{"a", "b", "c", "d", "e"}
		w.create(names...)
		w.connect(names...)
		for i := range 60 {
			thing := names[i*7%len(names)]
			if _, live := w.session[thing]; live {
				reason := "CONNECTION_LOST"
				if i%3 == 0 {
					reason = reasonClean
				}
				w.tell(w.end(thing, reason))
			} else {
				w.tell(w.begin(thing))
			}
			time.Sleep(time.Duration(i) * time.Second)
			if i%20 == 19 {
				w.restart(time.Second)
			}
		}
		w.agree()
		for _, name := range names {
			w.changes(name) // checks the versions
		}
	})
}

// trouble is a store whose commits fail by chance: without effect, or with one
// that nobody is told of.
type trouble struct {
	store.Store
	mu     sync.Mutex
	dice   *rand.Rand
	often  float64
	failed int
}

func (f *trouble) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	f.mu.Lock()
	refuse, lie := f.dice.Float64() < f.often, f.dice.Float64() < f.often
	if refuse || lie {
		f.failed++
	}
	f.mu.Unlock()
	if refuse {
		return store.Position{}, store.ErrUnavailable
	}
	at, err := f.Store.Commit(ctx, b)
	if err == nil && lie {
		return store.Position{}, store.ErrOutcomeUnknown
	}
	return at, err
}

// Whatever the store does, each change happens once, nothing is lost, and memory,
// rows and records agree.
func TestCommitsThatFail(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(w *world) {
				t := w.t
				w.stop()
				w.trouble = &trouble{Store: w.store, dice: rand.New(rand.NewPCG(seed, 7))}
				w.start()
				names := []string{"a", "b", "c"}
				w.create(names...)
				w.connect(names...)
				w.trouble.mu.Lock()
				w.trouble.often = 0.3
				w.trouble.mu.Unlock()
				want := map[string]State{}
				dice := rand.New(rand.NewPCG(seed, 8))
				for i := range 40 {
					thing := names[dice.IntN(len(names))]
					switch _, live := w.session[thing]; {
					case live && i%2 == 0:
						w.mustDeclare(Declaration{Thing: thing, Operation: Hello, Interval: time.Hour})
					case live:
						w.tell(w.end(thing, "CONNECTION_LOST"))
						want[thing] = OfflineDirty
					default:
						w.tell(w.begin(thing))
						want[thing] = Online
					}
					time.Sleep(time.Duration(i) * time.Second)
				}
				time.Sleep(15 * time.Minute)
				for thing, state := range want {
					w.want(thing, state)
					w.changes(thing)
				}
				w.trouble.mu.Lock()
				if w.trouble.failed < 10 {
					t.Errorf("only %d commits failed", w.trouble.failed)
				}
				w.trouble.mu.Unlock()
				w.agree()
			})
		})
	}
}

// agree compares memory and rows with the records.
func (w *world) agree() {
	w.t.Helper()
	w.settle()
	w.Service.mu.Lock()
	defer w.Service.mu.Unlock()
	want := newCounts()
	want.Things = w.counts[account].Things // the kit counts some things only
	due := map[store.Key]bool{}
	err := w.store.Scan(w.t.Context(), store.Under(kindRecord), func(stored store.Record) error {
		r, err := decode(stored)
		if err != nil {
			return err
		}
		want.add(r, 1)
		for _, which := range []string{timerState, timerFlap} {
			if at := r.timer(which); at != 0 {
				due[timerKey(at, thingKey{account, stored.Key.Last()}, which)] = true
			}
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if diff := cmp.Diff(want, w.counts[account]); diff != "" {
		w.t.Errorf("counts (-records +kept):\n%s", diff)
	}
	rows := map[store.Key]bool{}
	err = w.store.Scan(w.t.Context(), store.Under(kindTimer), func(stored store.Record) error {
		rows[stored.Key] = true
		return nil
	})
	if diff := cmp.Diff(due, rows); err != nil || diff != "" {
		w.t.Errorf("%v, timers (-records +rows):\n%s", err, diff)
	}
}

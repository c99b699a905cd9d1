package connectivity

import (
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/store"
)

// While a device sleeps it is told when it will be back, whatever becomes of the
// clock and of the settings.
func TestSleeperTellsItsNextContact(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		t := w.t
		w.create("gate", "long", "until")
		w.mu.Lock()
		w.things["sensor"] = false
		w.mu.Unlock()
		w.connect("gate", "long", "until")
		until := w.wall().Add(2 * time.Hour).Truncate(time.Millisecond).UTC()
		w.mustDeclare(Declaration{Thing: "long", Operation: Goodbye, Sleep: 2 * time.Hour})
		w.mustDeclare(Declaration{Thing: "until", Operation: Goodbye, NextContact: until})
		w.mustDeclare(Declaration{Thing: "sensor", ClientID: "gate", Operation: Hello})
		w.mustDeclare(Declaration{Thing: "sensor", ClientID: "gate", Operation: Goodbye, NextContact: until})
		w.tell(w.end("long", reasonClean), w.end("until", reasonClean))
		w.settle()
		w.mu.Lock()
		w.skew += time.Hour
		w.mu.Unlock()
		time.Sleep(time.Second)
		w.settle()
		for thing, want := range map[string]time.Time{"long": until.Add(time.Hour), "until": until, "sensor": until} {
			v, err := w.Of(t.Context(), account, thing)
			if err != nil || v.State != Sleeping || !v.NextContact.Equal(want) {
				t.Errorf("%s is %s and comes back at %v, want %v (%v)", thing, v.State, v.NextContact, want, err)
			}
		}
		w.tell(w.begin("until"))
		w.want("until", Online)
		if v, _ := w.Of(t.Context(), account, "until"); !v.NextContact.IsZero() {
			t.Errorf("is back, and comes back at %v", v.NextContact)
		}
	})
}

// What was announced is no outage: that of a sleeper begins when it should have
// been back.
func TestOutageOfASleeperBeginsWhenItIsDue(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		t := w.t
		w.create("pump")
		w.connect("pump")
		w.mustDeclare(Declaration{Thing: "pump", Operation: Goodbye, Sleep: 24 * time.Hour})
		w.tell(w.end("pump", reasonClean))
		w.want("pump", Sleeping)
		time.Sleep(24*time.Hour + 5*time.Minute)
		w.want("pump", OfflineOverdue)
		w.tell(w.begin("pump"))
		w.want("pump", Recovered)
		if v, err := w.Of(t.Context(), account, "pump"); err != nil || (v.LastOutage-5*time.Minute).Abs() > 2*time.Second {
			t.Errorf("an outage of %v, want five minutes (%v)", v.LastOutage, err)
		}
	})
}

// A silent device that speaks again is ONLINE, also when the clock went back
// meanwhile.
func TestClockGoesBackWhileADeviceIsSilent(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.create("pump")
		w.connect("pump")
		w.mustDeclare(Declaration{Thing: "pump", Operation: Hello, Interval: 20 * time.Second})
		time.Sleep(2 * time.Minute)
		w.want("pump", Stale)
		w.mu.Lock()
		w.skew -= time.Hour
		w.mu.Unlock()
		time.Sleep(5 * time.Second)
		w.want("pump", Stale)
		w.publish("pump")
		time.Sleep(3 * time.Second)
		w.want("pump", Online)
	})
}

// Timers of connected devices that came due while the server was away say
// nothing: their connections have ended.
func TestRestartWhileTimersOfConnectedDevicesRun(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.create("back", "mute")
		w.connect("back")
		w.tell(w.end("back", "CONNECTION_LOST"))
		time.Sleep(time.Minute)
		w.want("back", OfflineDirty)
		w.tell(w.begin("back"), w.begin("mute"))
		w.want("back", Recovered)
		w.want("mute", FirstConnected)
		// The ends of their connections are applied late.
		w.stop()
		time.Sleep(20 * time.Minute)
		w.mu.Lock()
		clear(w.live)
		w.mu.Unlock()
		w.start()
		time.Sleep(10 * time.Second)
		w.want("back", Recovered)
		w.want("mute", FirstConnected)
		w.tell(w.end("back", "SERVER_ERROR"), w.end("mute", "SERVER_ERROR"))
		w.wantChanges("back", life("ONLINE>SUSPECT", "SUSPECT>OFFLINE_DIRTY", "OFFLINE_DIRTY>RECOVERED", "RECOVERED>SUSPECT")...)
		w.wantChanges("mute", "NEVER_SEEN>FIRST_CONNECTED", "FIRST_CONNECTED>SUSPECT")
		if v, _ := w.Of(w.t.Context(), account, "mute"); v.NoHello {
			w.t.Error("no hello, but nobody was there to hear one")
		}
	})
}

// The grace after a start is that of the account: a device of another one with a
// long keep-alive draws nothing out.
func TestGraceIsOfTheAccount(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		const other = "210000000001"
		w.create("pump")
		w.connect("pump")
		slow := event.Session{ClientID: "slow", SessionID: "s", ConnectionID: "c", Version: 1, Indexed: true, KeepAlive: 65535}
		w.mu.Lock()
		w.things["slow"] = true
		w.mu.Unlock()
		begin := event.Envelope{Account: other, At: w.wall(), Event: event.DeviceConnected{Session: slow}}
		if _, err := w.store.Commit(w.t.Context(), store.Batch{Events: []event.Envelope{begin}}); err != nil {
			w.t.Fatal(err)
		}
		w.settle()
		w.restart(time.Second)
		time.Sleep(3 * time.Minute)
		w.want("pump", OfflineDirty)
	})
}

// A thing that joins a group with settings for silence is watched from then on,
// without having to connect anew.
func TestSilenceIsWatchedWithTheMembership(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.create("pump", "lamp")
		w.connect("pump", "lamp")
		thirty := 30.0
		if err := w.PutSettings(w.t.Context(), account, "watched", Settings{StaleSeconds: &thirty}); err != nil {
			w.t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w.want("pump", Online)
		w.mu.Lock()
		w.groups["pump"] = []Group{{Name: "watched", Created: time.Unix(1000, 0)}}
		w.mu.Unlock()
		w.tell(event.MembershipChanged{Group: "watched", Thing: "pump", Added: true})
		time.Sleep(time.Minute)
		w.want("pump", Stale)
		w.want("lamp", Online)
	})
}

// A thing that gets a certificate speaks for itself from then on, unless an
// operator said who does.
func TestCertificateEndsTheWordOfAGateway(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		t := w.t
		w.create("gate")
		w.mu.Lock()
		w.things["found"], w.things["assigned"] = false, false
		w.mu.Unlock()
		w.connect("gate")
		if err := w.AssignGateway(t.Context(), account, "assigned", "gate"); err != nil {
			t.Fatal(err)
		}
		if v, _ := w.Of(t.Context(), account, "assigned"); v.State != NeverSeen || !v.Since.Equal(w.wall().Truncate(time.Millisecond)) {
			t.Errorf("%s since %v", v.State, v.Since)
		}
		for _, thing := range []string{"found", "assigned"} {
			w.mustDeclare(Declaration{Thing: thing, ClientID: "gate", Operation: Hello})
			w.want(thing, Online)
			w.mu.Lock()
			w.things[thing] = true
			w.mu.Unlock()
			w.tell(event.PrincipalAttached{Thing: thing})
		}
		w.want("found", OfflineClean)
		w.want("assigned", Online)
		if _, err := w.declare(Declaration{Thing: "found", ClientID: "gate", Operation: Heartbeat}); fault.CodeOf(err) != fault.Forbidden {
			t.Errorf("speaking for a thing that has a certificate by now: %v", err)
		}
		w.mustDeclare(Declaration{Thing: "assigned", ClientID: "gate", Operation: Heartbeat})
		if v, _ := w.Of(t.Context(), account, "gate"); v.Children != 1 {
			t.Errorf("%d things behind the gateway", v.Children)
		}
	})
}

// A device that falls silent is noticed in time, also when the clock went back
// after it connected.
func TestClockGoesBackBeforeADeviceIsSilent(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.create("pump")
		w.tell(w.begin("pump"))
		w.settle()
		w.mustDeclare(Declaration{Thing: "pump", Operation: Hello, Interval: 20 * time.Second})
		w.want("pump", Online)
		w.mu.Lock()
		w.skew -= time.Hour
		w.mu.Unlock()
		time.Sleep(70 * time.Second)
		w.want("pump", Stale)
	})
}

// What a gateway last said of a thing is no older when the clock goes forward.
func TestClockGoesForwardBehindAGateway(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.create("gate")
		w.mu.Lock()
		w.things["sensor"] = false
		w.mu.Unlock()
		w.connect("gate")
		w.mustDeclare(Declaration{Thing: "sensor", ClientID: "gate", Operation: Hello, Interval: 30 * time.Second})
		time.Sleep(80 * time.Second)
		w.mustDeclare(Declaration{Thing: "sensor", ClientID: "gate", Operation: Heartbeat})
		w.mu.Lock()
		w.skew += time.Hour
		w.mu.Unlock()
		time.Sleep(30 * time.Second)
		w.want("sensor", Online)
	})
}

// Nothing differs in a world that has settled; a record behind the back of the
// state machine does, and only it is mended.
func TestDifferencesAreFoundAndMended(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		t := w.t
		w.create("gate", "on", "off", "asleep")
		w.mu.Lock()
		w.things["sensor"] = false
		w.mu.Unlock()
		w.connect("gate", "on", "off", "asleep")
		w.mustDeclare(Declaration{Thing: "sensor", ClientID: "gate", Operation: Hello, Interval: 30 * time.Second})
		w.mustDeclare(Declaration{Thing: "asleep", Operation: Goodbye, Sleep: time.Hour})
		w.past = nil
		for _, thing := range []string{"off", "asleep"} {
			s := w.session[thing]
			w.past = append(w.past, Past{Account: account, Session: s, ConnectedAt: w.wall(), At: w.wall(), Reason: reasonClean})
			w.tell(w.end(thing, reasonClean))
		}
		for _, thing := range []string{"gate", "on"} {
			w.past = append(w.past, Past{Account: account, Session: w.session[thing], Connected: true, ConnectedAt: w.wall(), At: w.wall()})
		}
		w.settle()
		find := func() (keys []store.Key) {
			t.Helper()
			n, _, err := w.Differences(t.Context(), func(d Difference) { keys = append(keys, d.Key) })
			if err != nil || n != 4 {
				t.Errorf("compared %d, %v", n, err)
			}
			return keys
		}
		if keys := find(); len(keys) > 0 {
			t.Errorf("differ: %q", keys)
		}
		// The end of one connection and the begin of another were never told.
		on, off := &w.past[3], &w.past[0]
		on.Connected, on.Reason = false, "CONNECTION_LOST"
		delete(w.live, "on")
		off.Connected, off.Session.ConnectionID, off.Session.Version = true, "off.c2", 2
		w.live["off"] = Activity{ConnectionID: "off.c2"}
		keys := find()
		if len(keys) != 2 {
			t.Fatalf("differ: %q", keys)
		}
		if err := w.Mend(t.Context(), keys); err != nil {
			t.Fatal(err)
		}
		w.want("on", Suspect)
		w.want("off", Recovered)
		w.want("asleep", Sleeping)
		w.want("sensor", Online)
		if keys := find(); len(keys) > 0 {
			t.Errorf("differ after the mending: %q", keys)
		}
		// What the log tells late finds it done.
		w.tell(event.DeviceDisconnected{Session: on.Session, Reason: on.Reason}, event.DeviceConnected{Session: off.Session})
		time.Sleep(time.Minute)
		w.want("on", OfflineDirty)
		w.wantChanges("off", life("ONLINE>OFFLINE_CLEAN", "OFFLINE_CLEAN>RECOVERED")...)
		w.wantChanges("on", life("ONLINE>SUSPECT", "SUSPECT>OFFLINE_DIRTY")...)
	})
}

// A thing that is created while its client is connected, for the first time or
// again, is connected.
func TestThingComesAfterItsConnection(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		begun := w.begin("pump").(event.DeviceConnected)
		w.tell(begun)
		w.settle()
		w.mu.Lock()
		w.newest = map[string]Past{"pump": {Account: account, Session: begun.Session, Connected: true, ConnectedAt: time.Now(), At: time.Now()}}
		w.mu.Unlock()
		w.create("pump", "lamp")
		w.settle()
		w.want("pump", FirstConnected)
		w.want("lamp", NeverSeen)
		w.tell(event.ThingDeleted{Thing: "pump"})
		w.settle()
		w.create("pump")
		w.settle()
		w.want("pump", FirstConnected)
	})
}

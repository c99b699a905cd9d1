package connectivity

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Times of the table, in milliseconds.
const (
	t0      = int64(1_795_000_000_000)
	minute  = int64(60_000)
	present = t0 + 20*minute
)

// stateRecord is a thing in a state, whose newest connection is c7 of session s1
// with version 7.
func stateRecord(state State) *record {
	r := newRecord()
	r.State = state
	if state == NeverSeen {
		return r
	}
	r.StateVersion, r.Since, r.Seen = 3, t0, state != Provisioning
	r.Session = session{ClientID: "pump", SessionID: "s1", ConnectionID: "c7", Version: 7, KeepAlive: 30, ConnectedAt: t0}
	switch state {
	case Provisioning, FirstConnected, Online, Stale, Recovered:
		r.Session.Live = true
	case OfflineClean:
		r.Session.EndedAt, r.Session.Reason, r.OutageBegan = t0+minute, reasonClean, t0+minute
	case Sleeping:
		r.Session.EndedAt, r.Session.Reason = t0+minute, reasonClean
	case OfflineDirty, OfflineOverdue:
		r.OutageBegan = t0 + minute
		fallthrough
	default:
		r.Session.EndedAt, r.Session.Reason = t0+minute, "CONNECTION_LOST"
	}
	switch state {
	case FirstConnected, Suspect, Sleeping, Recovered:
		r.Due = present
	case Online:
		r.Due, r.Interval = present, minute
	default:
	}
	return r
}

// tableEvents are the inputs of the table.
func tableEvents() map[string]func(r *record) *input {
	ended := func(reason string) func(*record) *input {
		return func(*record) *input {
			return &input{kind: inDisconnect, at: present, session: session{ClientID: "pump", SessionID: "s1", ConnectionID: "c7", Version: 7, KeepAlive: 30, Reason: reason}}
		}
	}
	next := session{ClientID: "pump", SessionID: "s2", ConnectionID: "c8", Version: 8, KeepAlive: 30}
	return map[string]func(r *record) *input{
		"connect": func(*record) *input { return &input{kind: inConnect, at: present, session: next} },
		"connect provisioning": func(*record) *input {
			return &input{kind: inConnect, at: present, session: next, provisioning: true}
		},
		"connect older": func(*record) *input {
			return &input{kind: inConnect, at: present, session: session{ClientID: "pump", SessionID: "s0", ConnectionID: "c6", Version: 6}}
		},
		"connect again": func(*record) *input {
			return &input{kind: inConnect, at: present, session: session{ClientID: "pump", SessionID: "s1", ConnectionID: "c7", Version: 7}}
		},
		"disconnect dirty":          ended("MQTT_KEEP_ALIVE_TIMEOUT"),
		"disconnect administrative": ended("SERVER_INITIATED_DISCONNECT"),
		"disconnect clean":          ended(reasonClean),
		"disconnect planned": func(r *record) *input {
			if r.Session.Live {
				r.Plan = &plan{ConnectionID: "c7", NextContact: present + 60*minute}
			}
			return ended(reasonClean)(r)
		},
		"disconnect older": func(*record) *input {
			return &input{kind: inDisconnect, at: present, session: session{ClientID: "pump", SessionID: "s0", ConnectionID: "c6", Version: 6, Reason: "DUPLICATE_CLIENTID"}}
		},
		"disconnect newer": func(*record) *input {
			ahead := next
			ahead.Reason = "CONNECTION_LOST"
			return &input{kind: inDisconnect, at: present, session: ahead}
		},
		"heard": func(*record) *input {
			return &input{kind: inHeard, at: present, session: session{ConnectionID: "c7"}}
		},
		"heard other": func(*record) *input {
			return &input{kind: inHeard, at: present, session: session{ConnectionID: "c6"}}
		},
		"goodbye": func(*record) *input {
			return &input{kind: inGoodbye, at: present, session: session{ConnectionID: "c7"}, nextContact: present + minute}
		},
		"timer": func(*record) *input { return &input{kind: inTimer, at: present, due: present} },
		"timer silent": func(*record) *input {
			return &input{kind: inTimer, at: present, due: present, live: true}
		},
		"timer live": func(*record) *input {
			return &input{kind: inTimer, at: present, due: present, live: true, heard: present}
		},
		"timer held":  func(*record) *input { return &input{kind: inTimer, at: present, due: present, hold: present + minute} },
		"timer stale": func(*record) *input { return &input{kind: inTimer, at: present, due: present - 1} },
		"block":       func(*record) *input { return &input{kind: inBlock, at: present} },
		"unblock":     func(*record) *input { return &input{kind: inUnblock, at: present} },
		"gateway":     func(*record) *input { return &input{kind: inGateway, at: present, gateway: "gw"} },
	}
}

// The table of docs/connectivity.md: what each event makes of each state. A state
// is the next one, "=" the same one with something recorded, a word in lower case
// why the event is ignored.
const table = `
event                      NEVER_SEEN           PROVISIONING          FIRST_CONNECTED  ONLINE           STALE            SUSPECT         SLEEPING        OFFLINE_CLEAN   OFFLINE_DIRTY   OFFLINE_OVERDUE RECOVERED       BLOCKED
connect                    FIRST_CONNECTED      FIRST_CONNECTED       =                =                =                ONLINE          ONLINE          RECOVERED       RECOVERED       RECOVERED       =               blocked
connect_provisioning       PROVISIONING         provisioning_session  provisioning_session provisioning_session provisioning_session provisioning_session provisioning_session provisioning_session provisioning_session provisioning_session provisioning_session provisioning_session
connect_older              FIRST_CONNECTED      older_session         older_session    older_session    older_session    older_session   older_session   older_session   older_session   older_session   older_session   older_session
connect_again              FIRST_CONNECTED      duplicate             duplicate        duplicate        duplicate        superseded      superseded      superseded      superseded      superseded      duplicate       superseded
disconnect_dirty           not_connected        not_connected         SUSPECT          SUSPECT          SUSPECT          duplicate       duplicate       duplicate       duplicate       duplicate       SUSPECT         duplicate
disconnect_administrative  not_connected        not_connected         SUSPECT          SUSPECT          SUSPECT          duplicate       duplicate       duplicate       duplicate       duplicate       SUSPECT         duplicate
disconnect_clean           not_connected        not_connected         OFFLINE_CLEAN    OFFLINE_CLEAN    OFFLINE_CLEAN    duplicate       duplicate       duplicate       duplicate       duplicate       OFFLINE_CLEAN   duplicate
disconnect_planned         not_connected        not_connected         SLEEPING         SLEEPING         SLEEPING         duplicate       duplicate       duplicate       duplicate       duplicate       SLEEPING        duplicate
disconnect_older           not_connected        older_session         older_session    older_session    older_session    older_session   older_session   older_session   older_session   older_session   older_session   older_session
disconnect_newer           not_connected        not_connected         SUSPECT          SUSPECT          SUSPECT          not_connected   not_connected   not_connected   not_connected   not_connected   SUSPECT         blocked
heard                      other_session        not_connected         ONLINE           =                ONLINE           other_session   other_session   other_session   other_session   other_session   =               other_session
heard_other                other_session        other_session         other_session    other_session    other_session    other_session   other_session   other_session   other_session   other_session   other_session   other_session
goodbye                    other_session        not_connected         =                =                =                other_session   other_session   other_session   other_session   other_session   =               other_session
timer                      stale_timer          stale_timer           ended_session    ended_session    stale_timer      OFFLINE_DIRTY   OFFLINE_OVERDUE stale_timer     stale_timer     stale_timer     ended_session   stale_timer
timer_silent               stale_timer          stale_timer           ONLINE           STALE            stale_timer      live_session    live_session    stale_timer     stale_timer     stale_timer     ONLINE          stale_timer
timer_live                 stale_timer          stale_timer           ONLINE           active           stale_timer      live_session    live_session    stale_timer     stale_timer     stale_timer     ONLINE          stale_timer
timer_held                 stale_timer          stale_timer           ended_session    ended_session    stale_timer      restart_grace   restart_grace   stale_timer     stale_timer     stale_timer     ended_session   stale_timer
timer_stale                stale_timer          stale_timer           stale_timer      stale_timer      stale_timer      stale_timer     stale_timer     stale_timer     stale_timer     stale_timer     stale_timer     stale_timer
block                      BLOCKED              BLOCKED               BLOCKED          BLOCKED          BLOCKED          BLOCKED         BLOCKED         BLOCKED         BLOCKED         BLOCKED         BLOCKED         duplicate
unblock                    duplicate            duplicate             duplicate        duplicate        duplicate        duplicate       duplicate       duplicate       duplicate       duplicate       duplicate       OFFLINE_CLEAN
gateway                    =                    =                     =                =                =                =               =               =               =               =               =               =
`

// The page for device authors has the same table.
func TestTableOfThePage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/connectivity.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "<!-- table -->\n")
	rest, _, ok := strings.Cut(rest, "<!-- end -->")
	if !ok {
		t.Fatal("the page has no table")
	}
	var want, got [][]string
	for i, line := range strings.Split(strings.TrimSpace(table), "\n") {
		cells := strings.Fields(line)
		if i > 0 {
			cells[0] = strings.ReplaceAll(cells[0], "_", " ")
		}
		want = append(want, cells)
	}
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, "|---") {
			got = append(got, strings.Split(strings.Trim(strings.TrimSpace(line), "| "), " | "))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the page's table (-tested +page):\n%s", diff)
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	lines := strings.Split(strings.TrimSpace(table), "\n")
	states := strings.Fields(lines[0])[1:]
	if len(states) != len(States()) {
		t.Fatalf("the table has %d states of %d", len(states), len(States()))
	}
	events := tableEvents()
	for _, line := range lines[1:] {
		cells := strings.Fields(line)
		name := strings.ReplaceAll(cells[0], "_", " ")
		event, ok := events[name]
		if !ok || len(cells) != len(states)+1 {
			t.Fatalf("row %q has %d cells, event known: %v", name, len(cells), ok)
		}
		delete(events, name)
		for i, state := range states {
			t.Run(state+"/"+name, func(t *testing.T) {
				t.Parallel()
				r := stateRecord(State(state))
				in := event(r)
				in.base = in.at
				before := *r
				set := resolve(nil, func(string) *Settings { return nil })
				d := &decision{r: r, in: in, set: &set, now: present}
				d.decide()
				if got := outcome(d, &before); got != cells[i+1] {
					t.Errorf("got %s, want %s", got, cells[i+1])
				}
				checkTimer(t, r)
			})
		}
	}
	if len(events) > 0 {
		t.Errorf("events without a row: %v", slices.Collect(maps.Keys(events)))
	}
}

// outcome is what a cell of the table says.
func outcome(d *decision, before *record) string {
	switch {
	case d.ignored != "" && (d.r.State != before.State || len(d.changes) > 0):
		return fmt.Sprintf("%s, and yet %s", d.ignored, d.r.State)
	case d.ignored != "":
		return d.ignored
	case d.r.State == before.State:
		return "="
	case d.r.StateVersion != before.StateVersion+1 || len(d.changes) != 1 || d.changes[0].Version != d.r.StateVersion:
		return fmt.Sprintf("version %d after %d, changes %+v", d.r.StateVersion, before.StateVersion, d.changes)
	default:
		return string(d.r.State)
	}
}

// checkTimer checks that a state that must end by itself has a timer, and that
// one that cannot has none.
func checkTimer(t *testing.T, r *record) {
	t.Helper()
	switch r.State {
	case FirstConnected, Suspect, Sleeping, Recovered:
		if r.Due == 0 {
			t.Errorf("%s without a timer", r.State)
		}
	case Online:
	default:
		if r.Due != 0 {
			t.Errorf("%s with a timer", r.State)
		}
	}
}

// Versions order the connections of one session and those of sessions that
// follow each other, and start over after an hour.
func TestOrderOfSessions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name          string
		live          bool
		session, conn string
		version       int64
		after         int64
		want          order
	}{
		{"the same", true, "s1", "c7", 7, 0, same},
		{"next connection of the session", true, "s1", "c8", 8, 0, newer},
		{"former connection of the session", true, "s1", "c6", 6, 0, older},
		{"next session", true, "s2", "c8", 8, 0, newer},
		{"former session", true, "s0", "c6", 6, 0, older},
		{"version 0 within the hour", false, "s9", "c9", 0, 58 * minute, older},
		{"version 0 after the hour", false, "s9", "c9", 0, 61 * minute, newer},
		{"version 1 after the hour, away", false, "s9", "c9", 1, 61 * minute, newer},
		{"version 1 after the hour, connected", true, "s9", "c9", 1, 61 * minute, older},
		{"version 0 after the hour, connected", true, "s9", "c9", 0, 61 * minute, newer},
	} {
		r := stateRecord(Online)
		if !c.live {
			r = stateRecord(OfflineDirty)
		}
		in := &input{kind: inConnect, at: r.Session.changedAt() + c.after, session: session{ClientID: "pump", SessionID: c.session, ConnectionID: c.conn, Version: c.version}}
		d := &decision{r: r, in: in}
		if got := d.compare(); got != c.want {
			t.Errorf("%s: order %d, want %d", c.name, got, c.want)
		}
	}
}

// Seven interruptions within minutes make a device flapping, and quiet ends it.
func TestFlappingOverlay(t *testing.T) {
	t.Parallel()
	set := resolve(nil, func(string) *Settings { return nil })
	r := stateRecord(Online)
	now := present
	version := r.Session.Version
	step := func(in input) *decision {
		d := &decision{r: r, in: &in, set: &set, now: now}
		in.base = in.at
		d.decide()
		return d
	}
	for i := range 7 {
		if r.Flapping {
			t.Fatalf("flapping after %d interruptions", i)
		}
		current := r.Session
		current.Reason = "CONNECTION_LOST"
		step(input{kind: inDisconnect, at: now, session: current})
		now += 2000
		version++
		step(input{kind: inConnect, at: now, session: session{ClientID: "pump", SessionID: "s1", ConnectionID: fmt.Sprint("c", version), Version: version}})
	}
	if !r.Flapping || r.State != Online || r.Blips != 7 {
		t.Fatalf("after seven: %+v", r)
	}
	current := r.Session
	current.Reason = "CONNECTION_LOST"
	step(input{kind: inDisconnect, at: now, session: current})
	now = r.Due
	if d := step(input{kind: inTimer, at: now, due: r.Due}); r.State != OfflineDirty || d.changes[0].Alert {
		t.Errorf("a flapping device raises an alert: %+v", d.changes)
	}
	due := r.FlapDue
	if hours := float64(due-now) / float64(60*minute); hours < 0.2 || hours > 1 {
		t.Errorf("released after %.2f hours", hours)
	}
	now = due
	d := step(input{kind: inFlapTimer, at: now, due: due})
	if r.Flapping || len(d.changes) != 1 || d.changes[0].From != d.changes[0].To || r.FlapDue != 0 {
		t.Errorf("after release: %+v, %+v", r, d.changes)
	}
}

// What an outage cost is on record, with how long the wait state lasted.
func TestOutageIsRecorded(t *testing.T) {
	t.Parallel()
	set := resolve(nil, func(string) *Settings { return nil })
	r := stateRecord(Suspect)
	r.Since = present - 30_000
	d := &decision{r: r, in: &input{kind: inTimer, at: present, due: r.Due}, set: &set, now: present}
	d.decide()
	if c := d.changes[0]; c.To != OfflineDirty || c.Wait != 30_000 || c.Since != present-30_000 || !c.Alert || c.Reason != "CONNECTION_LOST" {
		t.Errorf("confirmed: %+v", c)
	}
	back := present + 10*minute
	in := &input{kind: inConnect, at: back, base: back, session: session{ClientID: "pump", SessionID: "s2", ConnectionID: "c8", Version: 8}}
	d = &decision{r: r, in: in, set: &set, now: back}
	d.decide()
	want := 10*minute + 30_000
	if c := d.changes[0]; c.To != Recovered || c.Outage != want || r.LastOutage != want || r.Outages != 1 || r.OutageBegan != 0 {
		t.Errorf("recovered: %+v, %+v", c, r)
	}
}

package shadow

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/store"
)

// clock is a time that tests move.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

// told replays a version from the events of a shadow.
func told(t *testing.T, m *memory, thing string, version int64) (Document, error) {
	t.Helper()
	var base json.RawMessage
	var steps []Step
	for _, env := range m.told(t) {
		e, ok := env.Event.(event.ShadowUpdated)
		if !ok || e.Thing != thing || e.Version > version {
			continue
		}
		if e.Document != nil {
			base, steps = e.Document, nil
			continue
		}
		steps = append(steps, Step{Version: e.Version, At: env.At, Timestamp: e.Timestamp, Patch: e.Patch})
	}
	return Replay(scriptAccount, thing, "", base, steps)
}

// Whatever the updates are, events make each version again, with its times and
// the text of its numbers; and a restore to any version gives its state.
func TestEventsMakeEveryVersion(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(5, 5))
	m, c := newMemory(t), &clock{at: fixed()}
	s := New(Options{Store: m, Now: c.now, TellWhole: true})
	var wholes []string
	value := func() string {
		return []string{
			`1`, `1.0`, `1e2`, `"x"`, `null`, `{}`, `[1,{"a":2.50}]`, `{"a":{"b":1},"c":null}`, `{"a":{"b":null}}`, `{"a":{"b":{"c":-0.0}}}`, `true`, `{"a":7}`,
		}[random.IntN(12)]
	}
	for range 150 {
		c.at = c.at.Add(time.Duration(random.IntN(3)) * time.Second)
		if random.IntN(40) == 0 {
			c.at = c.at.Add(25 * time.Hour)
		}
		section := []string{"desired", "reported"}[random.IntN(2)]
		body := fmt.Sprintf(`{"state":{%q:{%q:%s,%q:%s}}}`, section, string(rune('p'+random.IntN(4))), value(), string(rune('p'+random.IntN(4))), value())
		if random.IntN(30) == 0 {
			body = fmt.Sprintf(`{"state":{%q:null}}`, section)
		}
		update(t, s, "pump", "", body)
		wholes = append(wholes, string(get(t, s, "pump", "").GetDocument("", 0)))
	}
	for i, want := range wholes {
		d, err := told(t, m, "pump", int64(i+1))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(d.GetDocument("", 0))); diff != "" {
			t.Fatalf("version %d (-was +replayed):\n%s", i+1, diff)
		}
	}
	last := int64(len(wholes))
	for range 40 {
		to, err := told(t, m, "pump", 1+random.Int64N(last))
		if err != nil {
			t.Fatal(err)
		}
		c.at = c.at.Add(time.Second)
		before := get(t, s, "pump", "")
		u, err := s.Restore(t.Context(), RestoreCommand{Account: scriptAccount, Thing: "pump", To: to})
		if err != nil {
			t.Fatal(err)
		}
		after := get(t, s, "pump", "")
		if string(after.State()) != string(to.State()) {
			t.Fatalf("restored to %s, got %s, by %s", to.State(), after.State(), u.AcceptedDocument())
		}
		if u.Version != before.Version+1 || u.Restored != to.Version {
			t.Errorf("version %d after %d, restored %d instead of %d", u.Version, before.Version, u.Restored, to.Version)
		}
		// What is told of it makes the same.
		if again, err := told(t, m, "pump", u.Version); err != nil || string(again.GetDocument("", 0)) != string(after.GetDocument("", 0)) {
			t.Fatalf("%v\nreplayed %s\nwas %s", err, again.GetDocument("", 0), after.GetDocument("", 0))
		}
	}
}

func TestRestoreIsAnOrdinaryUpdate(t *testing.T) {
	t.Parallel()
	m := newMemory(t)
	s := New(Options{Store: m, Now: fixed, TellWhole: true})
	update(t, s, "pump", "", `{"state":{"desired":{"mode":"eco","rate":1.0},"reported":{"mode":"eco"}}}`)
	old := get(t, s, "pump", "")
	update(t, s, "pump", "", `{"state":{"desired":{"mode":"max","rate":1,"extra":{"a":1}},"reported":{"mode":"max"}}}`)
	restore := func(cmd RestoreCommand) (*Updated, error) {
		cmd.Account, cmd.Thing, cmd.To = scriptAccount, "pump", old
		return s.Restore(t.Context(), cmd)
	}
	if _, err := restore(RestoreCommand{Expect: new(int64(1))}); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("version 1 expected: %v", err)
	}
	u, err := restore(RestoreCommand{Expect: new(int64(2)), DesiredOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(u.AcceptedDocument()), `{"state":{"desired":{"extra":null,"mode":"eco","rate":1.0}},"metadata":{"desired":{"mode":{"timestamp":1795412345},"rate":{"timestamp":1795412345}}},"version":3,"timestamp":1795412345}`; got != want {
		t.Errorf("accepted %s\nwant     %s", got, want)
	}
	if got, want := string(get(t, s, "pump", "").State()), `{"desired":{"mode":"eco","rate":1.0},"reported":{"mode":"max"}}`; got != want {
		t.Errorf("state %s, want %s", got, want)
	}
	if _, err := s.Delete(t.Context(), DeleteCommand{Account: scriptAccount, Thing: "pump"}); err != nil {
		t.Fatal(err)
	}
	if u, err = restore(RestoreCommand{}); err != nil || u.Version != 4 {
		t.Fatalf("after the deletion: %v", err)
	}
	if got := string(get(t, s, "pump", "").State()); got != string(old.State()) {
		t.Errorf("state %s, want %s", got, old.State())
	}
	small := New(Options{Store: m, Now: fixed, Limits: Limits{StateBytes: 20}})
	update(t, small, "pump", "", `{"state":{"desired":null,"reported":null}}`)
	if _, err := small.Restore(t.Context(), RestoreCommand{Account: scriptAccount, Thing: "pump", To: old}); fault.CodeOf(err) != fault.RequestEntityTooLarge {
		t.Errorf("beyond the limit: %v", err)
	}
}

func TestDifferencesOfDocuments(t *testing.T) {
	t.Parallel()
	m := newMemory(t)
	s := New(Options{Store: m, Now: fixed, TellWhole: true})
	update(t, s, "pump", "", `{"state":{"desired":{"a":1,"b":{"c":1,"d":[1]},"gone":{"x":1,"y":{}},"n":{"deep":1}},"reported":{"a/b~":1}}}`)
	before := get(t, s, "pump", "")
	update(t, s, "pump", "", `{"state":{"desired":{"a":1.0,"b":{"c":2,"d":[1,2]},"gone":null,"n":5},"reported":{"q\"":{"r":"s"}}}}`)
	after := get(t, s, "pump", "")
	var lines []string
	for _, d := range Differences(before, after) {
		lines = append(lines, fmt.Sprintf("%s %s -> %s", d.Path, d.Old, d.New))
	}
	want := []string{
		"/desired/b/c 1 -> 2", "/desired/b/d [1] -> [1,2]", "/desired/gone/x 1 -> ", "/desired/gone/y {} -> ",
		`/desired/n {"deep":1} -> 5`, `/reported/q"/r  -> "s"`,
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Error(diff)
	}
	if n := len(Differences(Nothing(scriptAccount, "pump", ""), before)); n != 7 {
		t.Errorf("%d differences from nothing", n)
	}
}

// Rows follow the oldest outstanding leaf of desired.
func TestDriftsAreToldByAge(t *testing.T) {
	t.Parallel()
	m, c := newMemory(t), &clock{at: time.Unix(1_000_000, 0)}
	s := New(Options{Store: m, Now: c.now})
	at := func(second int64, thing, shadow, body string) {
		t.Helper()
		c.at = time.Unix(second, 0)
		update(t, s, thing, shadow, body)
	}
	at(1000, "b", "", `{"state":{"desired":{"led":"on","fan":{"rpm":1,"max":2}},"reported":{"fan":{"rpm":0}}}}`)
	at(2000, "a", "", `{"state":{"desired":{"x/y":1}}}`)
	at(2500, "a", "cfg", `{"state":{"desired":{"m":1}}}`)
	at(2600, "c", "", `{"state":{"desired":{"m":1},"reported":{"m":1.0}}}`)
	at(3000, "b", "", `{"state":{"desired":{"fan":{"rpm":7}},"reported":{"led":"on"}}}`)
	list := func(q DriftQuery) string {
		t.Helper()
		q.Limit = max(q.Limit, 1)
		var out []string
		for {
			page, err := s.Drifts(t.Context(), scriptAccount, q)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range page.Drifts {
				line := fmt.Sprintf("%s/%s@%d %d:", d.Thing, d.Shadow, d.Version, d.Since.Unix())
				for _, l := range d.Leaves {
					line += fmt.Sprintf(" %s=%s|%s@%d", l.Path, l.Desired, l.Reported, l.Since.Unix())
				}
				out = append(out, line)
			}
			if page.Next == "" {
				return strings.Join(out, "\n")
			}
			q.After = page.Next
		}
	}
	b := "b/@2 1000: /fan/max=2|@1000 /fan/rpm=7|0@3000"
	all := b + "\na/@1 2000: /x~1y=1|@2000\na/cfg@1 2500: /m=1|@2500"
	for name, x := range map[string]struct {
		q    DriftQuery
		want string
	}{
		"all":        {DriftQuery{}, all},
		"large page": {DriftQuery{Limit: 250}, all},
		"older":      {DriftQuery{Before: time.Unix(2000, 0)}, b},
		"one thing":  {DriftQuery{Thing: "a"}, all[len(b)+1:]},
		"one, older": {DriftQuery{Thing: "a", Before: time.Unix(2001, 0)}, "a/@1 2000: /x~1y=1|@2000"},
		"matching": {DriftQuery{Match: func(things []string) ([]bool, error) {
			keep := make([]bool, len(things))
			for i := range things {
				keep[i] = things[i] == "b"
			}
			return keep, nil
		}}, b},
	} {
		if diff := cmp.Diff(x.want, list(x.q)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	at(4000, "b", "", `{"state":{"reported":{"fan":{"max":2}}}}`)
	if got := list(DriftQuery{Before: time.Unix(3001, 0), Thing: "b"}); got != "b/@3 3000: /fan/rpm=7|0@3000" {
		t.Error(got)
	}
	if _, err := s.Delete(t.Context(), DeleteCommand{Account: scriptAccount, Thing: "a", Shadow: "cfg"}); err != nil {
		t.Fatal(err)
	}
	at(5000, "a", "", `{"state":{"reported":{"x/y":1}}}`)
	if got := list(DriftQuery{}); got != "b/@3 3000: /fan/rpm=7|0@3000" {
		t.Error(got)
	}
	rows := 0
	for _, key := range m.keys(t) {
		if strings.HasPrefix(key, keyDrift) {
			rows++
		}
	}
	if rows != 1 {
		t.Errorf("%d rows are stored", rows)
	}
	for _, limit := range []int{0, 251} {
		if _, err := s.Drifts(t.Context(), scriptAccount, DriftQuery{Limit: limit}); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
}

// A store written by an earlier version gets its rows once.
func TestDriftsOfAnOlderStoreAreFilled(t *testing.T) {
	t.Parallel()
	m := newMemory(t)
	s := New(Options{Store: m, Now: fixed})
	for i := range 600 {
		update(t, s, fmt.Sprintf("t%03d", i), "", `{"state":{"desired":{"a":1}`+[]string{`}}`, `,"reported":{"a":1}}}`}[i%2])
	}
	var b store.Batch
	if err := m.Scan(t.Context(), store.Under(keyDrift), func(r store.Record) error {
		b.Writes = append(b.Writes, store.Write{Key: r.Key, Delete: true})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	page, err := s.Drifts(t.Context(), scriptAccount, DriftQuery{Limit: 10})
	if err != nil || !page.Filling || len(page.Drifts) != 0 {
		t.Fatalf("before: %+v, %v", page, err)
	}
	if err := s.FillDrifts(t.Context()); err != nil {
		t.Fatal(err)
	}
	n, q := 0, DriftQuery{Limit: 250}
	for {
		page, err := s.Drifts(t.Context(), scriptAccount, q)
		if err != nil || page.Filling {
			t.Fatal(err)
		}
		n += len(page.Drifts)
		if q.After = page.Next; q.After == "" {
			break
		}
	}
	if n != 300 {
		t.Errorf("%d of 300 are there", n)
	}
}

// What is wrong with the rows is told and repaired.
func TestDriftsAreCheckedAndRepaired(t *testing.T) {
	t.Parallel()
	m := newMemory(t)
	s := New(Options{Store: m, Now: fixed})
	for _, thing := range []string{"a", "b", "c"} {
		update(t, s, thing, "", `{"state":{"desired":{"a":1}}}`)
	}
	update(t, s, "same", "", `{"state":{"desired":{"a":1},"reported":{"a":1}}}`)
	check := func() (told []string) {
		t.Helper()
		rows, err := CheckDrifts(t.Context(), m, func(row store.Key, missing bool) { told = append(told, fmt.Sprint(row.Parts()[3], " ", missing)) })
		if err != nil || rows == 0 {
			t.Fatal(rows, err)
		}
		slices.Sort(told)
		return told
	}
	if told := check(); told != nil {
		t.Errorf("at first: %q", told)
	}
	of := func(thing string) identity { return identity{account: scriptAccount, thing: thing} }
	wrong := []store.Write{
		{Key: of("a").driftKey(fixed().Unix()), Delete: true},
		{Key: of("b").driftKey(7), Value: []byte("1")},
		{Key: of("same").driftKey(7), Value: []byte("1")},
		{Key: of("nobody").driftKey(7), Value: []byte("1")},
	}
	if _, err := m.Commit(t.Context(), store.Batch{Writes: wrong}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a true", "b false", "nobody false", "same false"}, check()); diff != "" {
		t.Error(diff)
	}
	if err := s.RepairDrifts(t.Context()); err != nil {
		t.Fatal(err)
	}
	if told := check(); told != nil {
		t.Errorf("after the repair: %q", told)
	}
}

// 4.9: requests per second of one thing, when they are limited.
func TestRequestsPerSecond(t *testing.T) {
	t.Parallel()
	c := &clock{at: fixed()}
	s := New(Options{Store: newMemory(t), Now: c.now, Limits: Limits{PerSecond: 2}})
	try := func(thing, shadow string) fault.Code {
		_, err := s.Update(t.Context(), UpdateCommand{Account: scriptAccount, Thing: thing, Shadow: shadow, Body: []byte(`{"state":{}}`)})
		return fault.CodeOf(err)
	}
	for _, shadow := range []string{"", "cfg"} {
		if code := try("pump", shadow); code != "" {
			t.Fatal(code)
		}
	}
	if code := try("pump", "x"); code != fault.Throttling {
		t.Errorf("third request: %q", code)
	}
	if _, err := s.Get(t.Context(), scriptAccount, "pump", ""); fault.CodeOf(err) != fault.Throttling || !strings.Contains(err.Error(), msgTooMany) {
		t.Errorf("get: %v", err)
	}
	if code := try("other", ""); code != "" {
		t.Errorf("another thing: %s", code)
	}
	c.at = c.at.Add(500 * time.Millisecond)
	if code := try("pump", ""); code != "" {
		t.Errorf("half a second later: %s", code)
	}
	if code := try("pump", ""); code != fault.Throttling {
		t.Errorf("and at once again: %q", code)
	}
	c.at = c.at.Add(time.Hour)
	_ = try("pump", "")
	held := 0
	for i := range s.rate.shards {
		held += len(s.rate.shards[i].buckets)
	}
	if held > 2 {
		t.Errorf("%d buckets are held", held)
	}
}

package index_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/index"
)

// outline renders an explained part: + holds, - does not, ! is to change.
func outline(p *index.Part) string {
	sign := "-"
	if p.Holds {
		sign = "+"
	}
	if p.Change {
		sign += "!"
	}
	if p.Kind != index.PartTest {
		kids := make([]string, len(p.Parts))
		for i, kid := range p.Parts {
			kids[i] = outline(kid)
		}
		return sign + p.Kind + "(" + strings.Join(kids, " ") + ")"
	}
	var values []string
	for _, v := range p.Values {
		text := v.Field + "=" + strings.Join(v.Values, "|")
		if !v.Since.IsZero() {
			text += v.Since.Format("@15:04:05")
		}
		values = append(values, text)
	}
	return sign + p.Text + "{" + strings.Join(values, ",") + "}"
}

func TestExplain(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := newIndex(t, m)
	pump := thing("a")
	pump.TypeName, pump.Attributes = "Pump", map[string]string{"site": "Oslo", "ratio": "7.50", "note": "Main intake pump"}
	stamped := func(shadow string, version, timestamp int64, patch, delta string) event.ShadowUpdated {
		return event.ShadowUpdated{Thing: "a", Shadow: shadow, Version: version, Timestamp: timestamp, Patch: []byte(patch), Delta: []byte(delta)}
	}
	m.clock = time.Date(2026, 3, 1, 4, 5, 6, 0, time.UTC).Unix()
	m.apply(t, x, pump, event.DeviceConnected{Session: event.Session{ClientID: "a", Indexed: true, Version: 1}},
		stamped("", 1, m.clock+1, `{"reported":{"battery":5,"fw":"3.1.2"},"desired":{"mode":"eco"}}`, `{"mode":"eco"}`),
		stamped("gps", 1, m.clock+2, `{"reported":{"at":{"lat":59.9},"tags":["a","b"]}}`, ""))
	for _, c := range []struct{ query, want string }{
		{"shadow.reported.battery<20", "+!shadow.reported.battery<20{shadow.reported.battery=5@04:05:07}"},
		{"shadow.reported.battery:[10 TO 20}", "-!shadow.reported.battery:[10 TO 20}{shadow.reported.battery=5@04:05:07}"},
		{"thingTypeName:Pump AND shadow.reported.fw:3.2.*", "-AND(+thingTypeName:pump{thingTypeName=pump} -!shadow.reported.fw:3.2.*{shadow.reported.fw=3.1.2@04:05:07})"},
		// One alternative is enough, and the one that wants least.
		{"(attributes.site:bergen AND attributes.ratio>8) OR attributes.hw:r1", "-OR(-AND(-attributes.site:bergen{attributes.site=oslo} -attributes.ratio>8{attributes.ratio=7.50}) -!attributes.hw:r1{})"},
		{"connectivity.connected:true NOT shadow.delta.mode:eco", "-AND(+connectivity.connected:true{connectivity.connected=true@04:05:06} -NOT(+!shadow.delta.mode:eco{shadow.delta.mode=eco@04:05:07}))"},
		{"shadow.name.gps.reported.at.lat>=59 AND shadow.name.gps.reported.tags:b", "+AND(+!shadow.name.gps.reported.at.lat>=59{shadow.name.gps.reported.at.lat=59.9@04:05:08} +shadow.name.gps.reported.tags:b{shadow.name.gps.reported.tags=a|b@04:05:08})"},
		{"shadow.name.gps.reported:*", "+!shadow.name.gps.reported:*{shadow.name.gps.reported.at.lat=59.9@04:05:08,shadow.name.gps.reported.tags=a|b@04:05:08}"},
		{`attributes.note:"intake pump"`, `+!attributes.note:"intake pump"{attributes.note=main intake pump}`},
		{"oslo", "+!oslo{attributes.site=oslo}"},
		{"thingName:{a TO b]", "-!thingName:{a TO b]{thingName=a}"},
		{"thingName>a", "-!thingName>a{thingName=a}"},
		{"[* TO 6] AND *", "+AND(+![* TO 6]{shadow.reported.battery=5@04:05:07} +*{})"},
		{"nothing.here:x", "-!nothing.here:x{}"},
	} {
		delete(m.committed, "g") // with the group
		m.apply(t, x, event.ThingGroupDeleted{Group: "g", Dynamic: true}, dynamic("g", c.query, 1))
		got, ok, err := x.Explain(account, "g", "a")
		if err != nil || !ok || !got.Known || got.Query != c.query || got.Status != index.Active {
			t.Fatalf("%s: %v %v %+v", c.query, ok, err, got)
		}
		if got.Fits != strings.HasPrefix(c.want, "+") || got.Member != got.Fits {
			t.Errorf("%s: fits %v, member %v", c.query, got.Fits, got.Member)
		}
		if diff := cmp.Diff(c.want, outline(got.Root)); diff != "" {
			t.Errorf("%s: %s", c.query, diff)
		}
	}
	if got, ok, err := x.Explain(account, "g", "nobody"); !ok || got.Known || got.Member || err != nil {
		t.Errorf("an unknown thing: %v %+v %v", ok, got, err)
	}
	if _, ok, err := x.Explain(account, "none", "a"); ok || err != nil {
		t.Errorf("an unknown group: %v %v", ok, err)
	}
}

// Who has no room is told who has it.
func TestExplainWithoutRoom(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := index.New(index.Options{Committer: m, Source: m, Logger: slog.New(slog.DiscardHandler), GroupLimit: 2})
	m.build(t, x)
	m.apply(t, x, thing("a"), event.MembershipChanged{Group: "Static", Thing: "a", Added: true}, dynamic("old", "*", 1), dynamic("young", "*", 2))
	got, _, err := x.Explain(account, "young", "a")
	want := index.Explanation{
		Query: "*", Status: index.Active, Known: true, Fits: true, Limit: 2, Static: []string{"Static"}, Elder: []string{"old"},
		Root: &index.Part{Kind: index.PartTest, Text: "*", Holds: true, Change: true},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

// A membership carries what made it: the field, the part of the query and the
// value, and the event that it came with.
func TestCause(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := index.New(index.Options{Committer: m, Source: m, Logger: slog.New(slog.DiscardHandler), GroupLimit: 1})
	m.build(t, x)
	check := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, m.causes); diff != "" {
			t.Error(diff)
		}
		m.causes = nil
	}
	m.apply(t, x, thing("a"), reported("a", 1, `{"battery":50}`))
	m.apply(t, x, dynamic("all", "thingName:*", 9))
	check("all a + QUERY    0")
	m.apply(t, x, dynamic("low", "shadow.reported.battery<20 AND thingName:a", 1))
	m.apply(t, x, thing("c"), reported("a", 2, `{"battery":12.5}`), thing("b"))
	check("all a - LIMIT    6", "low a + VALUE shadow.reported.battery shadow.reported.battery<20 12.5 6",
		"all b + VALUE thingName thingName:* b 7", "all c + VALUE thingName thingName:* c 5")
	m.apply(t, x, reported("a", 3, `{"battery":20}`))
	check("all a + LIMIT    8", "low a - VALUE shadow.reported.battery shadow.reported.battery<20 20 8")
	m.apply(t, x, event.ThingGroupUpdated{ThingGroup: event.ThingGroup{Group: "all", Query: "thingName:b", CreatedAt: time.Unix(9, 0)}})
	check("all a - QUERY    0", "all c - QUERY    0")
	m.apply(t, x, event.ThingDeleted{Thing: "b"})
	check("all b - THING    10")
}

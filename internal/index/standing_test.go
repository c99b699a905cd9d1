package index_test

import (
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleetquery"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/store"
)

// domain is how many sites, customers and groups there are.
type domain struct{ sites, customers, groups int }

// standingMix makes n group queries: a quarter narrowed by a site, others by
// firmware, customer, model, manufacturer or group, some by nothing.
func standingMix(r *rand.Rand, n int, of domain) []string {
	out := make([]string, n)
	fw := func() string { return fmt.Sprintf("3.%d.%d", r.IntN(4), r.IntN(30)) }
	for i := range out {
		switch k := i % 100; {
		case k < 25:
			out[i] = fmt.Sprintf("attributes.site:site-%d AND shadow.reported.battery<%d", r.IntN(of.sites), 5+r.IntN(40))
		case k < 40:
			out[i] = fmt.Sprintf("shadow.reported.fw:%s AND thingTypeName:Type%d AND connectivity.connected:false", fw(), r.IntN(20))
		case k < 55:
			out[i] = fmt.Sprintf("attributes.customer:cust-%d AND connectivity.connected:false", r.IntN(of.customers))
		case k < 65:
			out[i] = fmt.Sprintf("attributes.model:M%d AND shadow.reported.fw:3.%d.*", r.IntN(60), r.IntN(4))
		case k < 75:
			out[i] = fmt.Sprintf("attributes.manufacturer:maker%d AND shadow.reported.temp>%d AND shadow.reported.rssi<%d", r.IntN(12), 50+r.IntN(9), -85-r.IntN(14))
		case k < 85:
			out[i] = fmt.Sprintf("thingGroupNames:group-%d AND shadow.reported.fw:%s", r.IntN(of.groups), fw())
		case k < 90:
			switch r.IntN(3) {
			case 0:
				out[i] = fmt.Sprintf("shadow.reported.battery<%d", 1+r.IntN(3))
			case 1:
				out[i] = fmt.Sprintf("shadow.reported.cpu>%d", 96+r.IntN(4))
			default:
				out[i] = fmt.Sprintf("shadow.reported.temp>%.1f", 58.5+r.Float64()*1.5)
			}
		case k < 95:
			out[i] = fmt.Sprintf("attributes.site:site-%d AND (shadow.reported.battery<%d OR shadow.reported.rssi<%d)", r.IntN(of.sites), 5+r.IntN(20), -90-r.IntN(9))
		default:
			out[i] = fmt.Sprintf("attributes.customer:cust-%d AND NOT shadow.reported.fw:3.%d.*", r.IntN(of.customers), r.IntN(4))
		}
	}
	return out
}

// unit is a device as it is, kept in the most obvious way.
type unit struct {
	event.Thing

	name     string
	reported map[string]any
	// shadow is the version of the shadow.
	shadow    int64
	connected bool
	// session numbers connections.
	session int64
	group   string
}

// document is the unit for the reference evaluator.
func (u *unit) document() fleetquery.Document {
	f := map[string][]fleetquery.Value{
		"thingName": {fleetquery.Text(u.name)}, "thingId": {fleetquery.Text(u.ThingID)}, "thingTypeName": {fleetquery.Text(u.TypeName)},
		"thingGroupNames": {fleetquery.Text(u.group)}, "connectivity.connected": {fleetquery.Bool(u.connected)},
	}
	for name, text := range u.Attributes {
		f["attributes."+name] = fleetquery.Attribute(text)
	}
	flatten(f, "shadow.reported", u.reported)
	return fleetquery.Document{Fields: f}
}

// brute compares dynamic groups with what every query says of every device.
type brute struct {
	random  *rand.Rand
	of      domain
	units   []*unit
	queries []fleetquery.Query
	names   []string
	index   *index.Index
	ledger  *ledger
	seq     uint64
}

// newBrute makes a fleet with its groups.
func newBrute(t *testing.T, seed uint64, devices, groups int, of domain) *brute {
	t.Helper()
	b := &brute{random: rand.New(rand.NewPCG(seed, 1)), of: of, ledger: newLedger()}
	b.index = index.New(index.Options{Committer: b.ledger, Source: b.ledger, Logger: slog.New(slog.DiscardHandler)})
	build := b.index.Build()
	for i, text := range standingMix(b.random, groups, of) {
		q, err := b.index.ParseThings(text)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("dyn-%05d", i)
		b.queries, b.names = append(b.queries, q), append(b.names, name)
		build.PutGroup(account, index.Group{Name: name, Query: text, CreatedAt: time.Unix(int64(i%7), 0)})
	}
	for i := range devices {
		u := &unit{name: fmt.Sprintf("device-%06d", i), reported: map[string]any{}, group: b.pick("group-", of.groups), shadow: 1, session: 1}
		u.Thing = event.Thing{Thing: u.name, ThingID: fmt.Sprintf("id-%d", i), TypeName: b.pick("Type", 20), Version: 1}
		b.reattribute(u)
		b.measure(u)
		b.units = append(b.units, u)
		err := build.PutThing(account, index.Thing{
			Name: u.name, ID: u.ThingID, TypeName: u.TypeName, Attributes: u.Attributes, Version: 1,
		}, []string{u.group}, index.State{Shadows: []index.Shadow{{Version: 1, Reported: mustJSON(u.reported)}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := build.Finish(t.Context(), store.Cursor{}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *brute) pick(prefix string, n int) string { return fmt.Sprint(prefix, b.random.IntN(n)) }

// reattribute gives a unit other attributes.
func (b *brute) reattribute(u *unit) {
	u.Attributes = map[string]string{
		"site": b.pick("site-", b.of.sites), "customer": b.pick("cust-", b.of.customers), "model": b.pick("M", 60), "manufacturer": b.pick("maker", 12),
	}
}

// measure sets what a unit reports and returns what changed.
func (b *brute) measure(u *unit) map[string]any {
	r := b.random
	patch := map[string]any{
		"battery": float64(r.IntN(101)), "temp": float64(r.IntN(600)) / 10, "rssi": -float64(r.IntN(100)), "cpu": float64(r.IntN(101)),
	}
	for name := range patch {
		if r.IntN(3) == 0 {
			delete(patch, name)
		}
	}
	if len(u.reported) == 0 || r.IntN(100) < 6 {
		patch["fw"] = fmt.Sprintf("3.%d.%d", r.IntN(4), r.IntN(30))
	}
	if r.IntN(100) < 2 {
		patch[[]string{"battery", "fw", "temp"}[r.IntN(3)]] = nil
	}
	merge(u.reported, patch)
	return patch
}

// update changes one unit: telemetry mostly.
func (b *brute) update() []event.Event {
	u := b.units[b.random.IntN(len(b.units))]
	switch roll := b.random.IntN(1000); {
	case roll < 30:
		u.connected = !u.connected
		if u.connected {
			u.session++
			return []event.Event{event.DeviceConnected{Session: event.Session{ClientID: u.name, Version: u.session, Indexed: true}}}
		}
		return []event.Event{event.DeviceDisconnected{Session: event.Session{ClientID: u.name, Version: u.session, Indexed: true}, Reason: "CONNECTION_LOST"}}
	case roll < 35:
		b.reattribute(u)
		u.Version++
		return []event.Event{event.ThingUpdated{Thing: u.Thing}}
	case roll < 40:
		left := event.MembershipChanged{Group: u.group, Thing: u.name}
		u.group = b.pick("group-", b.of.groups)
		return []event.Event{left, event.MembershipChanged{Group: u.group, Thing: u.name, Added: true}}
	}
	patch := b.measure(u)
	u.shadow++
	return []event.Event{event.ShadowUpdated{Thing: u.name, Version: u.shadow, Patch: mustJSON(map[string]any{"reported": patch}), Timestamp: 1_750_000_000}}
}

// run makes updates in batches and looks at some devices after each.
func (b *brute) run(t *testing.T, updates int) {
	t.Helper()
	for done := 0; done < updates; {
		var batch []event.Envelope
		for range min(1+b.random.IntN(1000), updates-done) {
			for _, e := range b.update() {
				b.seq++
				batch = append(batch, event.Envelope{Seq: b.seq, Account: account, At: time.Unix(int64(b.seq), 0), Event: e})
			}
			done++
		}
		if err := b.index.Apply(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			b.checkOne(t, b.units[b.random.IntN(len(b.units))])
		}
	}
}

// checkOne compares the groups of one device.
func (b *brute) checkOne(t *testing.T, u *unit) {
	t.Helper()
	got, err := b.index.GroupsOf(account, u.name)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	document := u.document()
	var want []string
	for i, q := range b.queries {
		if fleetquery.Eval(q.Root, document) {
			want = append(want, b.names[i])
		}
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%s is in %v, want %v\n%+v", u.name, got, want, u)
	}
}

// checkAll compares all groups, as the index has them and as they are durable,
// and returns how many memberships there are.
func (b *brute) checkAll(t *testing.T) int {
	t.Helper()
	want := make([][]string, len(b.queries))
	n := 0
	for _, u := range b.units {
		document := u.document()
		for i, q := range b.queries {
			if fleetquery.Eval(q.Root, document) {
				want[i] = append(want[i], u.name)
				n++
			}
		}
	}
	for i, name := range b.names {
		got, _, err := b.index.Members(account, name, "", len(b.units)+1)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want[i]) {
			t.Fatalf("%s, %s: %d members, want %d", name, b.queries[i].Text, len(got), len(want[i]))
		}
		if durable := slices.Sorted(maps.Keys(b.ledger.members[name])); !slices.Equal(durable, want[i]) {
			t.Fatalf("%s, %s: %d durable members, want %d", name, b.queries[i].Text, len(durable), len(want[i]))
		}
	}
	return n
}

// TestStandingAgainstBruteForce: after 200,000 updates there is not one
// membership more or less than the queries say.
func TestStandingAgainstBruteForce(t *testing.T) {
	t.Parallel()
	b := newBrute(t, 7, 2000, 300, domain{60, 40, 30})
	for range 4 {
		b.run(t, 50_000/slowdown)
		if n := b.checkAll(t); n < 2000 {
			t.Errorf("only %d memberships were compared", n)
		}
	}
}

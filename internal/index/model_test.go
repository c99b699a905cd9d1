package index_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/store"
)

const account fleet.Account = "000000000001"

// model is a plain fleet: what the stores of other packages would hold, kept
// in the most obvious way. It produces the events that the index follows.
type model struct {
	random  *rand.Rand
	things  map[string]*modelThing
	shadows map[string]map[string]*modelShadow
	// connections holds the last session event of a client.
	connections map[string]*index.Connectivity
	groups      map[string]*modelGroup
	// groupOrder lists dynamic groups so that a query only refers to earlier ones.
	groupOrder   []string
	certificates map[string]*modelCertificate
	seq          uint64
	clock        int64
	// committed is what the index has told to make durable.
	committed map[string]map[string]bool
	failing   bool
	// repeats lets changes be told that are made already, as after errors.
	repeats bool
	// causes are the changes in words.
	causes []string
}

type modelThing struct {
	event.Thing
	groups map[string]bool
}

type modelShadow struct {
	version int64
	state   map[string]any
	// stamps holds the time of each indexed leaf, by section and path.
	stamps map[string]int64
}

type modelGroup struct {
	query string
	root  fleetquery.Node
}

func newModel(seed uint64) *model {
	return &model{
		random: rand.New(rand.NewPCG(seed, 1)), clock: 1_750_000_000,
		things: map[string]*modelThing{}, shadows: map[string]map[string]*modelShadow{},
		connections: map[string]*index.Connectivity{}, groups: map[string]*modelGroup{},
		committed: map[string]map[string]bool{}, certificates: map[string]*modelCertificate{},
	}
}

var errCommit = errors.New("commit refused")

// CommitMembership records changes and checks that each one has a cause, and
// that nothing joins where it is. What is gone may leave again.
func (m *model) CommitMembership(_ context.Context, changes []index.MembershipChange, _ store.Cursor) error {
	if m.failing {
		return errCommit
	}
	for _, c := range changes {
		if m.committed[c.Group] == nil {
			m.committed[c.Group] = map[string]bool{}
		}
		if c.Added && m.committed[c.Group][c.Thing] && !m.repeats {
			return fmt.Errorf("no change: %+v", c)
		}
		if c.Cause == nil || c.Cause.Kind == "" {
			return fmt.Errorf("no cause: %+v", c)
		}
		sign := "-"
		if c.Added {
			sign = "+"
		}
		why := c.Cause
		m.causes = append(m.causes, fmt.Sprint(c.Group, " ", c.Thing, " ", sign, " ", why.Kind, " ", why.Field, " ", why.Predicate, " ", why.Value, " ", why.Seq))
		if c.Added {
			m.committed[c.Group][c.Thing] = true
		} else {
			delete(m.committed[c.Group], c.Thing)
		}
	}
	return nil
}

// CommitComplete records nothing.
func (*model) CommitComplete(context.Context, []index.CompleteGroup) error { return nil }

// ThingState serves the index when a thing is created.
func (m *model) ThingState(_ context.Context, _ fleet.Account, thing string) (index.State, error) {
	state := index.State{Connectivity: m.connections[thing]}
	for name, s := range m.shadows[thing] {
		state.Shadows = append(state.Shadows, s.whole(name))
	}
	return state, nil
}

// ThingCertificates serves the index when an attachment changes.
func (m *model) ThingCertificates(_ context.Context, _ fleet.Account, thing string) ([]index.Certificate, error) {
	var list []index.Certificate
	for _, id := range slices.Sorted(maps.Keys(m.certificates)) {
		if c := m.certificates[id]; c.things[thing] {
			list = append(list, index.Certificate{Status: c.status, NotAfter: time.UnixMilli(c.notAfter)})
		}
	}
	return list, nil
}

// CertificateThings serves the index when a certificate changes.
func (m *model) CertificateThings(_ context.Context, _ fleet.Account, id string) ([]string, error) {
	if c := m.certificates[id]; c != nil {
		return slices.Collect(maps.Keys(c.things)), nil
	}
	return nil, nil
}

// whole renders a shadow as a document.
func (s *modelShadow) whole(name string) index.Shadow {
	out := index.Shadow{Name: name, Version: s.version}
	if v, ok := s.state["desired"]; ok {
		out.Desired = mustJSON(v)
	}
	if v, ok := s.state["reported"]; ok {
		out.Reported = mustJSON(v)
	}
	if d := difference(s.state["desired"], s.state["reported"]); len(d) > 0 {
		out.Delta = mustJSON(d)
	}
	meta := map[string]any{}
	for path, at := range s.stamps {
		parts := strings.Split(path, ".")
		node := meta
		for _, p := range parts {
			if node[p] == nil {
				node[p] = map[string]any{}
			}
			node = node[p].(map[string]any)
		}
		node["timestamp"] = at
	}
	// A stamp of something that is not indexed must not be either.
	if len(meta) > 0 {
		meta["desired2"] = map[string]any{"gone": map[string]any{"timestamp": 1}}
		out.Metadata = mustJSON(meta)
	}
	return out
}

func mustJSON(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

// difference is the delta: what desired has and reported has not, or not so.
func difference(desired, reported any) map[string]any {
	want, _ := desired.(map[string]any)
	have, _ := reported.(map[string]any)
	out := map[string]any{}
	for key, w := range want {
		h, ok := have[key]
		wm, wIsMap := w.(map[string]any)
		hm, hIsMap := h.(map[string]any)
		switch {
		case !ok:
			out[key] = w
		case wIsMap && hIsMap:
			if d := difference(wm, hm); len(d) > 0 {
				out[key] = d
			}
		case !reflect.DeepEqual(w, h):
			out[key] = w
		}
	}
	return out
}

// merge applies a patch to a state.
func merge(state map[string]any, patch map[string]any) {
	for key, v := range patch {
		p, isMap := v.(map[string]any)
		switch {
		case v == nil:
			delete(state, key)
		case isMap:
			child, ok := state[key].(map[string]any)
			if !ok {
				child = map[string]any{}
				state[key] = child
			}
			merge(child, p)
		default:
			state[key] = v
		}
	}
}

// flatten adds indexed leaves under dotted names.
func flatten(fields map[string][]fleetquery.Value, at string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, child := range v {
			flatten(fields, at+"."+key, child)
		}
	case []any:
		for _, child := range v {
			switch child.(type) {
			case string, float64, bool:
			default:
				return
			}
		}
		for _, child := range v {
			flatten(fields, at, child)
		}
	case string:
		fields[at] = append(fields[at], fleetquery.Text(v))
	case float64:
		fields[at] = append(fields[at], fleetquery.Number(v))
	case bool:
		fields[at] = append(fields[at], fleetquery.Bool(v))
	}
}

// document flattens a thing for the reference evaluator, without the dynamic
// groups.
func (m *model) document(name string) fleetquery.Document {
	t := m.things[name]
	f := map[string][]fleetquery.Value{
		"thingName": {fleetquery.Text(name)},
		"thingId":   {fleetquery.Text(t.ThingID)},
	}
	if t.TypeName != "" {
		f["thingTypeName"] = []fleetquery.Value{fleetquery.Text(t.TypeName)}
	}
	for _, g := range slices.Sorted(maps.Keys(t.groups)) {
		f["thingGroupNames"] = append(f["thingGroupNames"], fleetquery.Text(g))
	}
	if t.BillingGroup != "" {
		f["thingGroupNames"] = append(f["thingGroupNames"], fleetquery.Text(t.BillingGroup))
	}
	for key, v := range t.Attributes {
		f["attributes."+key] = fleetquery.Attribute(v)
	}
	for shadow, s := range m.shadows[name] {
		root := "shadow"
		if shadow != "" {
			root = "shadow.name." + shadow
		}
		flatten(f, root, s.state)
		delta := difference(s.state["desired"], s.state["reported"])
		flatten(f, root+".delta", delta)
		f[root+".hasDelta"] = []fleetquery.Value{fleetquery.Bool(len(delta) > 0)}
		for path, at := range s.stamps {
			f[root+".metadata."+path+".timestamp"] = []fleetquery.Value{fleetquery.Number(float64(at))}
		}
	}
	c := m.connections[name]
	f["connectivity.connected"] = []fleetquery.Value{fleetquery.Bool(c != nil && c.Connected)}
	if c != nil {
		f["connectivity.timestamp"] = []fleetquery.Value{fleetquery.Number(float64(c.TimestampMS))}
		if c.Reason != "" {
			f["connectivity.disconnectReason"] = []fleetquery.Value{fleetquery.Text(c.Reason)}
		}
		f["connectivity.clientId"] = []fleetquery.Value{fleetquery.Text(name)}
		f["connectivity.keepAliveDuration"] = []fleetquery.Value{fleetquery.Number(float64(c.KeepAlive))}
		f["connectivity.cleanSession"] = []fleetquery.Value{fleetquery.Bool(c.CleanSession)}
		f["connectivity.sessionExpiry"] = []fleetquery.Value{fleetquery.Number(float64(c.SessionExpiry))}
	}
	f["deviceDefender.violationCount"] = []fleetquery.Value{fleetquery.Number(0)}
	count, first := 0, int64(0)
	for _, c := range m.certificates {
		if !c.things[name] {
			continue
		}
		count++
		f["muster.certificate.status"] = append(f["muster.certificate.status"], fleetquery.Text(c.status))
		if c.status == "ACTIVE" && (first == 0 || c.notAfter < first) {
			first = c.notAfter
			f["muster.certificate.notAfter"] = []fleetquery.Value{fleetquery.Number(float64(first))}
		}
	}
	f["muster.certificate.count"] = []fleetquery.Value{fleetquery.Number(float64(count))}
	return fleetquery.Document{
		Fields: f,
		Unfielded: func(field string) bool {
			return !strings.HasPrefix(field, "connectivity.") && !strings.HasPrefix(field, "muster.") && !strings.HasPrefix(field, "deviceDefender.")
		},
		LonLat: func(field string) bool { return lonLat()[field] },
	}
}

// parse reads a query by the rules of the language only: what the index puts in
// place of some fields is its own business.
func parse(text string) (fleetquery.Node, error) {
	limits := fleetquery.DefaultLimits()
	q, err := fleetquery.Options{Limits: limits, Resolve: func(field string) (string, error) {
		return strings.TrimPrefix(field, "registry."), nil
	}}.Parse(text)
	return q.Root, err
}

// documents flattens the fleet with its dynamic groups by brute force.
func (m *model) documents() (map[string]*oracle, map[string]map[string]bool) {
	docs, members := map[string]*oracle{}, map[string]map[string]bool{}
	for _, group := range m.groupOrder {
		members[group] = map[string]bool{}
	}
	for name := range m.things {
		d := &oracle{doc: m.document(name), shadow: m.shadowTree(name), lonLat: lonLat()}
		for _, group := range m.groupOrder {
			if d.holds(m.groups[group].root) {
				members[group][name] = true
				d.doc.Fields["thingGroupNames"] = append(d.doc.Fields["thingGroupNames"], fleetquery.Text(group))
			}
		}
		docs[name] = d
	}
	return docs, members
}

// envelope numbers an event.
func (m *model) envelope(e event.Event) event.Envelope {
	m.seq++
	return event.Envelope{Seq: m.seq, Account: account, At: time.Unix(m.clock, 0), Event: e}
}

// search returns all matches page by page and checks that pages are in order.
func search(t *testing.T, x *index.Index, q fleetquery.Query, limit int) []string {
	t.Helper()
	all := []string{}
	for after := ""; ; {
		names, next, err := x.Search(account, q, after, limit)
		if err != nil {
			t.Fatalf("%s: %v", q.Text, err)
		}
		if len(names) > limit || !slices.IsSorted(names) || (len(names) > 0 && names[0] <= after) {
			t.Fatalf("%s: page after %q is %v", q.Text, after, names)
		}
		all = append(all, names...)
		if next == "" {
			return all
		}
		after = next
	}
}

// build loads an index from the model.
func (m *model) build(t *testing.T, x *index.Index) {
	t.Helper()
	b := x.Build()
	m.load(t, b)
	for group, things := range m.committed {
		b.LoadMembership(account, group, slices.Collect(maps.Keys(things))...)
	}
	if err := b.Finish(t.Context(), store.CursorAt(store.Position{Seq: m.seq})); err != nil {
		t.Fatal(err)
	}
}

// load hands the model to a builder.
func (m *model) load(t *testing.T, b *index.Builder) {
	t.Helper()
	for _, name := range m.groupOrder {
		b.PutGroup(account, index.Group{Name: name, Query: m.groups[name].query, CreatedAt: time.Unix(1, 0)})
	}
	for name, thing := range m.things {
		state, err := m.ThingState(t.Context(), account, name)
		if err != nil {
			t.Fatal(err)
		}
		v := thing.Thing
		err = b.PutThing(account, index.Thing{
			Name: name, ID: v.ThingID, TypeName: v.TypeName,
			Attributes: v.Attributes, BillingGroup: v.BillingGroup, Version: v.Version,
		}, slices.Collect(maps.Keys(thing.groups)), state)
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range m.certificates {
		for thing := range c.things {
			b.PutCertificate(account, thing, index.Certificate{Status: c.status, NotAfter: time.UnixMilli(c.notAfter)})
		}
	}
}

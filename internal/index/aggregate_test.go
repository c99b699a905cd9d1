package index_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
	"github.com/muster-iot/muster/internal/index"
	"github.com/muster-iot/muster/internal/store"
)

// originals serves the spelling of what a test has built.
type originals struct {
	discard
	things map[string]index.Thing
	states map[string]index.State
}

func (o *originals) OriginalThing(_ context.Context, _ fleet.Account, thing string) (index.Thing, []string, error) {
	t, ok := o.things[thing]
	if !ok {
		return index.Thing{}, nil, fault.New(fault.ResourceNotFound, "gone")
	}
	return t, []string{"North-Pumps"}, nil
}

func (*originals) OriginalGroup(_ context.Context, _ fleet.Account, group string) (index.Group, error) {
	return index.Group{Name: group, Description: "The Pumps", Attributes: map[string]string{"owner": "Ops"}, Ancestors: []string{"Root"}}, nil
}

func (o *originals) ThingState(_ context.Context, _ fleet.Account, thing string) (index.State, error) {
	return o.states[thing], nil
}

// customFields declares fields: names with types, as in attributes.hw:String.
func customFields(fields ...string) []fleet.IndexedField {
	var out []fleet.IndexedField
	for _, text := range fields {
		at := strings.LastIndexByte(text, ':')
		out = append(out, fleet.IndexedField{Name: text[:at], Type: fleet.FieldType(text[at+1:])})
	}
	return out
}

// aggregateRig is an index of things that a test has put together.
type aggregateRig struct {
	*testing.T
	*index.Index
	originals *originals
	log       *bytes.Buffer
}

// newAggregateRig builds things from "name": attributes, reported state.
func newAggregateRig(t *testing.T, fields []fleet.IndexedField, things map[string][2]string) *aggregateRig {
	t.Helper()
	o, log := &originals{things: map[string]index.Thing{}, states: map[string]index.State{}}, &bytes.Buffer{}
	x := index.New(index.Options{Committer: o, Source: o, Originals: o, Logger: slog.New(slog.NewTextHandler(log, nil))})
	b := x.Build()
	config := fleet.DefaultIndexing()
	config.Version, config.Things.CustomFields, config.Groups.CustomFields = 1, fields, customFields("attributes.owner:String")
	b.PutIndexing(account, config)
	for _, name := range slices.Sorted(maps.Keys(things)) {
		thing := index.Thing{Name: name, ID: "Id-" + name, TypeName: "Pump", Version: 3}
		if text := things[name][0]; text != "" {
			if err := json.Unmarshal([]byte(text), &thing.Attributes); err != nil {
				t.Fatal(err)
			}
		}
		state := index.State{Connectivity: &index.Connectivity{Reason: "CONNECTION_LOST", TimestampMS: 1_750_000_000_000, Version: 1}}
		if text := things[name][1]; text != "" {
			state.Shadows = []index.Shadow{{Version: 2, Reported: []byte(text)}, {Name: "gps", Version: 7, Reported: []byte(text)}}
		}
		o.things[name], o.states[name] = thing, state
		if err := b.PutThing(account, thing, []string{"North-Pumps"}, state); err != nil {
			t.Fatal(err)
		}
	}
	b.PutGroup(account, index.Group{Name: "North-Pumps", Description: "The Pumps", Attributes: map[string]string{"owner": "Ops"}, Ancestors: []string{"Root"}, Version: 4})
	if err := b.Finish(t.Context(), store.Cursor{}); err != nil {
		t.Fatal(err)
	}
	return &aggregateRig{t, x, o, log}
}

// over is an aggregation of things.
func (r *aggregateRig) over(query, field string) index.Aggregation {
	r.Helper()
	q, err := r.ParseThings(query)
	if err != nil {
		r.Fatal(err)
	}
	return index.Aggregation{Query: q, Field: field}
}

// shown renders statistics, empty places for what is left out.
func shown(s index.Statistics) string {
	out := fmt.Sprint(s.Count)
	for _, v := range []*float64{s.Average, s.Sum, s.Minimum, s.Maximum, s.SumOfSquares, s.Variance, s.StandardDeviation} {
		out += " "
		if v != nil {
			out += strconv.FormatFloat(*v, 'g', 9, 64)
		} else {
			out += "-"
		}
	}
	return out
}

// TestStatistics: the check vector of §4.5, text, truth values, numbers beyond a
// double, wrong types, arrays and nothing.
func TestStatistics(t *testing.T) {
	t.Parallel()
	r := newAggregateRig(t, customFields(
		"shadow.reported.t:Number", "shadow.reported.on:Boolean", "shadow.reported.mode:String", "attributes.floor:Number",
		"shadow.reported.huge:Number", "shadow.reported.same:Number", "shadow.reported.list:Number", "shadow.reported.none:Number",
	), map[string][2]string{
		"a": {`{"floor":"2"}`, `{"t":-125,"on":true,"mode":"Eco","huge":1e308,"same":1e300,"list":[1,2,"x"]}`},
		"b": {`{"floor":"4.0"}`, `{"t":75,"on":false,"mode":"boost","huge":1e308,"same":1e300,"list":3}`},
		"c": {`{"floor":"top"}`, `{"t":150,"on":true,"mode":5,"huge":-1.5e308,"same":1e300}`},
		"d": {"", `{"t":"150","on":"maybe","mode":true}`},
	})
	for _, c := range [][3]string{
		{"*", "shadow.reported.t", "3 33.3333333 100 -125 150 43750 13472.2222 116.069902"},
		{"thingName:a", "shadow.reported.t", "1 -125 -125 -125 -125 15625 0 0"},
		{"thingName:none", "shadow.reported.t", "0 - - - - - - -"},
		{"*", "shadow.reported.none", "0 - - - - - - -"},
		{"*", "shadow.reported.on", "3 0.666666667 2 0 1 2 0.222222222 0.471404521"},
		{"thingName:b", "shadow.reported.on", "1 0 0 0 0 0 0 0"},
		{"NOT thingName:b", "shadow.reported.on", "2 1 2 1 1 2 0 0"},
		{"*", "shadow.reported.mode", "3 - - - - - - -"},
		{"*", "attributes.floor", "2 3 6 2 4 20 1 1"},
		{"*", "shadow.reported.huge", "3 1.66666667e+307 5e+307 -1.5e+308 1e+308 - - 1.17851130e+308"},
		{"thingName:a OR thingName:b", "shadow.reported.huge", "2 1e+308 - 1e+308 1e+308 - 0 0"},
		{"*", "shadow.reported.same", "3 1e+300 3e+300 1e+300 1e+300 - 0 0"},
		{"*", "shadow.reported.list", "3 2 6 1 3 14 0.666666667 0.816496581"},
		{"*", "", "4 3 12 3 3 36 0 0"},
		{"*", "registry.thingTypeName", "4 - - - - - - -"},
		{"*", "thingGroupNames", "4 - - - - - - -"},
		{"*", "shadow.name.gps.version", "4 7 28 7 7 196 0 0"},
		{"*", "shadow.name.gps.hasDelta", "4 0 0 0 0 0 0 0"},
		{"*", "connectivity.timestamp", "4 1.75e+12 7e+12 1.75e+12 1.75e+12 1.225e+25 0 0"},
		{"*", "deviceDefender.violationCount", "4 0 0 0 0 0 0 0"},
	} {
		got, err := r.Statistics(account, r.over(c[0], c[1]))
		if err != nil || shown(got) != strings.ReplaceAll(c[2], "1.17851130e", "1.1785113e") {
			t.Errorf("%s of %s: got %s, %v, want %s", c[1], c[0], shown(got), err, c[2])
		}
	}
	groups, err := r.ParseGroups("*")
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{"": "1 4 4 4 4 16 0 0", "parentGroupNames": "1 - - - - - - -", "thingGroupDescription": "1 - - - - - - -"} {
		if got, err := r.Statistics(account, index.Aggregation{Groups: true, Query: groups, Field: field}); err != nil || shown(got) != want {
			t.Errorf("groups %s: %s, %v", field, shown(got), err)
		}
	}
}

// TestAggregationField: what may be aggregated, and what a refusal says (§4.5).
func TestAggregationField(t *testing.T) {
	t.Parallel()
	r := newAggregateRig(t, customFields("attributes.hw:String"), map[string][2]string{"a": {`{"hw":"R1","site":"Oslo"}`, `{"t":1}`}})
	all := r.over("*", "")
	for _, field := range []string{"attributes.site", "shadow.reported.t", "shadow.name.*.version", "shadow.name..version", "thingNames", "muster.none", "attributes"} {
		a := all
		a.Field = field
		_, err := r.Statistics(account, a)
		if fault.CodeOf(err) != fault.InvalidAggregation || !strings.Contains(err.Error(), "aggregationField "+field+" is neither") {
			t.Errorf("%s: %v", field, err)
		}
		if _, err := r.Cardinality(account, a); fault.CodeOf(err) != fault.InvalidAggregation {
			t.Errorf("%s: %v", field, err)
		}
		if _, err := r.Buckets(t.Context(), account, a, 10); fault.CodeOf(err) != fault.InvalidAggregation {
			t.Errorf("%s: %v", field, err)
		}
	}
	a := r.over("*", "attributes.hw")
	if _, err := r.Percentiles(account, a, nil); fault.CodeOf(err) != fault.InvalidAggregation || !strings.Contains(err.Error(), "need a Number") {
		t.Errorf("percentiles of text: %v", err)
	}
	for _, percents := range [][]float64{{-0.1}, {100.1}, {math.NaN()}, make([]float64, 101)} {
		if _, err := r.Percentiles(account, all, percents); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%v: %v", percents, err)
		}
	}
	for _, limit := range []int{0, 10_001} {
		if _, err := r.Buckets(t.Context(), account, a, limit); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%d buckets: %v", limit, err)
		}
	}
	// An account without anything has the managed fields.
	if got, err := r.Statistics("000000000002", all); err != nil || shown(got) != "0 - - - - - - -" {
		t.Errorf("an empty account: %s, %v", shown(got), err)
	}
	if got, err := r.Buckets(t.Context(), "000000000002", all, 1); err != nil || got.Total != 0 || len(got.Buckets) != 0 {
		t.Errorf("an empty account: %v, %v", got, err)
	}
	// Any field can be summed up for operators.
	sum, err := r.Summarize(t.Context(), account, r.over("*", "attributes.site"), "", 5)
	if err != nil || sum.Declared || sum.Type != fleet.FieldString || sum.Cardinality != 1 || sum.WithValue != 1 || fmt.Sprint(sum.Buckets) != "[{Oslo 1}]" {
		t.Errorf("summary %+v, %v", sum, err)
	}
	if sum, err = r.Summarize(t.Context(), account, r.over("*", "shadow.reported.t"), "", 5); err != nil || sum.Type != fleet.FieldNumber || len(sum.Percentiles) != 7 {
		t.Errorf("summary %+v, %v", sum, err)
	}
	if sum, err = r.Summarize(t.Context(), account, r.over("*", "connectivity.connected"), "", 5); err != nil || !sum.Declared || sum.WithValue != 1 || fmt.Sprint(sum.Buckets) != "[{false 1}]" {
		t.Errorf("summary %+v, %v", sum, err)
	}
	if _, err := r.Summarize(t.Context(), account, r.over("*", "attributes.none"), "", 5); fault.CodeOf(err) != fault.ResourceNotFound {
		t.Errorf("summary of nothing: %v", err)
	}
}

// TestBucketKeys: keys are spelled as they were written, in every source.
func TestBucketKeys(t *testing.T) {
	t.Parallel()
	r := newAggregateRig(t, customFields("attributes.hw:String", "shadow.reported.conf.mode:String", "shadow.name.gps.reported.tags:String", "shadow.reported.on:Boolean", "shadow.reported.t:Number"),
		map[string][2]string{
			"A": {`{"hw":"R1"}`, `{"conf":{"mode":"ECO"},"tags":["Fast","Ünï","Fast"],"on":true,"t":7.50}`},
			"B": {`{"hw":"r1"}`, `{"conf.mode":"Boost","tags":"Ünï","on":true,"t":-1e300}`},
			"C": {`{"hw":"42"}`, `{"tags":["x",1],"on":false,"t":[3,3,7.5]}`},
		})
	for field, want := range map[string]string{
		"attributes.hw":                 "3 [{R1 2} {42 1}]",
		"shadow.reported.conf.mode":     "3 [{Boost 1} {ECO 1}]",
		"shadow.name.gps.reported.tags": "3 [{Ünï 2} {Fast 1} {x 1}]",
		"shadow.reported.on":            "3 [{true 2} {false 1}]",
		"shadow.reported.t":             "3 [{7.5 2} {-1e+300 1} {3 1}]",
		"thingName":                     "3 [{A 1} {B 1} {C 1}]",
		"thingId":                       "3 [{Id-A 1} {Id-B 1} {Id-C 1}]",
		"registry.thingTypeName":        "3 [{Pump 3}]",
		"registry.thingGroupNames":      "3 [{North-Pumps 3}]",
		"connectivity.disconnectReason": "3 [{CONNECTION_LOST 3}]",
		"connectivity.timestamp":        "3 [{1750000000000 3}]",
	} {
		got, err := r.Buckets(t.Context(), account, r.over("*", field), 10)
		if text := fmt.Sprint(got.Total, got.Buckets); err != nil || text != want {
			t.Errorf("%s: got %s, %v, want %s", field, text, err, want)
		}
	}
	groups, err := r.ParseGroups("*")
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"thingGroupName": "North-Pumps", "description": "The Pumps", "parentGroupNames": "Root", "attributes.owner": "Ops", "thingGroupId": "",
	} {
		got, err := r.Buckets(t.Context(), account, index.Aggregation{Groups: true, Query: groups, Field: field}, 10)
		if want != "" {
			want = " " + want
			want = fmt.Sprintf("1 [{%s 1}]", want[1:])
		} else {
			want = "1 []"
		}
		if text := fmt.Sprint(got.Total, got.Buckets); err != nil || text != want {
			t.Errorf("%s: got %s, %v, want %s", field, text, err, want)
		}
	}
	// What is gone meanwhile stays in lower case.
	clear(r.originals.things)
	if got, err := r.Buckets(t.Context(), account, r.over("thingName:a", "attributes.hw"), 10); err != nil || fmt.Sprint(got) != "{1 [{r1 1}]}" {
		t.Errorf("gone: %v, %v", got, err)
	}
}

// TestMistypedIsLogged: values of a wrong type are logged once for each
// configuration, and not more of them than is useful (§4.1).
func TestMistypedIsLogged(t *testing.T) {
	t.Parallel()
	things := map[string][2]string{"good": {`{"floor":"3"}`, ""}}
	for i := range 30 {
		things[fmt.Sprintf("bad-%02d", i)] = [2]string{fmt.Sprintf(`{"floor":"level %d %s"}`, i, strings.Repeat("x", 100)), ""}
	}
	r := newAggregateRig(t, customFields("attributes.floor:Number"), things)
	for range 3 {
		if got, err := r.Statistics(account, r.over("*", "attributes.floor")); err != nil || got.Count != 1 {
			t.Fatal(got, err)
		}
	}
	lines := strings.Count(r.log.String(), "event_type=IndexingCustomFieldFailed")
	if text := r.log.String(); lines != 10 || !strings.Contains(text, "thing=bad-00 field=attributes.floor value=\"level 0 xxxxx") ||
		!strings.Contains(text, "expected_type=Number mistyped=30") || strings.Contains(text, strings.Repeat("x", 65)) || strings.Contains(text, "thing=good") {
		t.Errorf("%d lines:\n%s", lines, text)
	}
	config := r.Indexing(account)
	config.Version++
	if err := r.Apply(t.Context(), []event.Envelope{{Seq: 1, Account: account, Event: event.IndexingConfigurationChanged{Indexing: config}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Cardinality(account, r.over("*", "attributes.floor")); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(r.log.String(), "IndexingCustomFieldFailed"); n != 2*lines {
		t.Errorf("%d lines after a change", n)
	}
}

// aggregateValue makes a random value of a field.
func aggregateValue(r *rand.Rand) any {
	switch r.IntN(14) {
	case 0:
		return nil
	case 1:
		return r.IntN(2) == 0
	case 2, 3:
		return []string{"Eco", "eco", "BOOST", "a b", "Ünï", "true", "7", ""}[r.IntN(8)]
	case 4:
		return []any{float64(r.IntN(4)), "Eco", true, float64(r.IntN(4))}
	case 5:
		return []any{map[string]any{"x": 1.0}}
	case 6:
		return []float64{1e308, -1e308, 1.7e308, 5e-324, 1e21, 9007199254740991}[r.IntN(6)]
	case 7:
		return map[string]any{"deep": 1.0}
	case 8, 9:
		return r.NormFloat64() * 1000
	}
	return float64(r.IntN(40) - 20)
}

// TestAggregationsDifferential holds all aggregations against an evaluator that
// looks at every value.
func TestAggregationsDifferential(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 7))
			n := []int{3, 60, 700, 700, 5000, 9000}[seed] / min(slowdown, 3)
			things := map[string][2]string{}
			for i := range n {
				state := map[string]any{"pick": float64(r.IntN(50)), "unique": fmt.Sprintf("U%05d", r.IntN(1e6)), "smooth": r.Float64() * 1e6}
				for _, key := range []string{"x", "y"} {
					if r.IntN(4) > 0 {
						state[key] = aggregateValue(r)
					}
				}
				attributes := map[string]string{"n": []string{"5", "-2.50", "1e3", "05", "abc", "TRUE", "false"}[r.IntN(7)]}
				things[fmt.Sprintf("t-%05d", i)] = [2]string{string(mustJSON(attributes)), string(mustJSON(state))}
			}
			var fields []fleet.IndexedField
			for _, of := range []string{"Number", "String", "Boolean"} {
				fields = append(fields, customFields("shadow.reported.x:"+of, "shadow.reported.y:"+of, "attributes.n:"+of)...)
			}
			fields = append(fields, customFields("shadow.reported.unique:String", "shadow.reported.smooth:Number")...)
			for _, f := range fields {
				rig := rigFor(t, f, things)
				for round := range 4 {
					if round == 2 {
						rig.churn(t, things, r)
					}
					low := r.IntN(60) - 5
					query := []string{"*", fmt.Sprintf("shadow.reported.pick>=%d", low), fmt.Sprintf("shadow.reported.pick:%d", low), "NOT shadow.reported.pick:7", "thingName:t-0000*"}[r.IntN(5)]
					rig.compareAggregations(t, f, query, things, r)
				}
			}
		})
	}
}

// churn changes and deletes things, in the index and in what is compared with it,
// while somebody aggregates.
func (r *aggregateRig) churn(t *testing.T, things map[string][2]string, random *rand.Rand) {
	t.Helper()
	a, stop, done := r.over("shadow.reported.pick>3", "thingName"), make(chan struct{}), make(chan error)
	go func() {
		for {
			_, err := r.Summarize(t.Context(), account, a, "", 7)
			select {
			case <-stop:
				done <- err
				return
			default:
			}
		}
	}()
	var batch []event.Envelope
	seq := uint64(0)
	tell := func(e event.Event) {
		seq++
		batch = append(batch, event.Envelope{Seq: seq, Account: account, Event: e})
	}
	for i, name := range slices.Sorted(maps.Keys(things)) {
		switch v := things[name]; {
		case i%20 == 0 && len(things) > 3:
			tell(event.ThingDeleted{Thing: name})
			delete(things, name)
		case i%3 == 0:
			var state map[string]any
			if err := json.Unmarshal([]byte(v[1]), &state); err != nil {
				t.Fatal(err)
			}
			patch := map[string]any{"x": aggregateValue(random), "unique": fmt.Sprintf("new %d", random.IntN(1e6)), "pick": float64(random.IntN(50))}
			tell(event.ShadowUpdated{Thing: name, Version: 3, Timestamp: 1, Patch: mustJSON(map[string]any{"reported": map[string]any{"x": nil}})})
			tell(event.ShadowUpdated{Thing: name, Version: 4, Timestamp: 2, Patch: mustJSON(map[string]any{"reported": patch})})
			maps.Copy(state, patch)
			things[name] = [2]string{v[0], string(mustJSON(state))}
		}
		if len(batch) > 500 {
			if err := r.Apply(t.Context(), batch); err != nil {
				t.Fatal(err)
			}
			batch = batch[:0]
		}
	}
	if err := r.Apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// rigFor is an index where one field is declared.
func rigFor(t *testing.T, f fleet.IndexedField, things map[string][2]string) *aggregateRig {
	t.Helper()
	r := newAggregateRig(t, []fleet.IndexedField{f}, things)
	r.originals.things, r.originals.states = map[string]index.Thing{}, map[string]index.State{} // keys stay folded
	return r
}

// compareAggregations is one comparison of all four.
func (r *aggregateRig) compareAggregations(t *testing.T, f fleet.IndexedField, query string, things map[string][2]string, random *rand.Rand) {
	t.Helper()
	a := r.over(query, f.Name)
	var numbers []float64
	distinct, total, texts := map[string]int{}, 0, 0
	for name, v := range things {
		fields := map[string][]fleetquery.Value{"thingName": {fleetquery.Text(name)}}
		var state any
		var attributes map[string]string
		if json.Unmarshal([]byte(v[1]), &state) != nil || json.Unmarshal([]byte(v[0]), &attributes) != nil {
			t.Fatal(v)
		}
		flatten(fields, "shadow.reported", state)
		fields["attributes.n"] = fleetquery.Attribute(attributes["n"])
		if !fleetquery.Eval(a.Query.Root, fleetquery.Document{Fields: fields}) {
			continue
		}
		total++
		keys := map[string]bool{}
		for _, value := range fields[f.Name] {
			key := strings.ToLower(value.Text)
			switch {
			case f.Type == fleet.FieldNumber && value.IsNumber:
				numbers = append(numbers, value.Number)
				keys[numberKey(value.Number)] = true
			case f.Type == fleet.FieldBoolean && !value.IsNumber && (key == "true" || key == "false"):
				numbers = append(numbers, map[string]float64{"true": 1}[key])
				keys[key] = true
			case f.Type == fleet.FieldString && !value.IsNumber:
				keys[key] = true
			}
		}
		if len(keys) > 0 {
			texts++
		}
		for key := range keys {
			distinct[key]++
		}
	}
	at := fmt.Sprintf("%s as %s of %s", f.Name, f.Type, query)
	got, err := r.Statistics(account, a)
	if err != nil {
		t.Fatal(at, err)
	}
	if want := obviousStatistics(numbers, f.Type, texts); !near(got, want) {
		t.Fatalf("%s: statistics\n got %s\nwant %s", at, shown(got), shown(want))
	}
	if n, err := r.Cardinality(account, a); err != nil || n != len(distinct) {
		t.Fatalf("%s: cardinality %d, %v, want %d", at, n, err, len(distinct))
	}
	keys := slices.SortedFunc(maps.Keys(distinct), func(a, b string) int {
		order := cmp.Compare(a, b)
		if f.Type == fleet.FieldNumber {
			x, _ := strconv.ParseFloat(a, 64)
			y, _ := strconv.ParseFloat(b, 64)
			order = cmp.Compare(x, y)
		}
		return cmp.Or(cmp.Compare(distinct[b], distinct[a]), order)
	})
	limit := 1 + random.IntN(30)
	want := index.Buckets{Total: total, Buckets: []index.Bucket{}}
	for _, key := range keys[:min(limit, len(keys))] {
		want.Buckets = append(want.Buckets, index.Bucket{Key: key, Count: distinct[key]})
	}
	if got, err := r.Buckets(t.Context(), account, a, limit); err != nil || !gocmp.Equal(got, want) {
		t.Fatalf("%s: buckets %v\n%s", at, err, gocmp.Diff(want, got))
	}
	if f.Type != fleet.FieldNumber {
		return
	}
	percents := []float64{0, 100, random.Float64() * 100, 50, 12.5}
	found, err := r.Percentiles(account, a, percents)
	if err != nil || (len(numbers) == 0) != (len(found) == 0) {
		t.Fatal(at, found, err)
	}
	slices.Sort(numbers)
	for i, p := range found {
		place := percents[i] / 100 * float64(len(numbers)-1)
		low, high := numbers[int(math.Floor(place))], numbers[int(math.Ceil(place))]
		part := place - math.Floor(place)
		if want := low*(1-part) + high*part; p.Percent != percents[i] || math.Abs(p.Value-want) > 1e-9*math.Abs(want) {
			t.Fatalf("%s: %v of %d numbers, want %v", at, p, len(numbers), want)
		}
	}
}

// numberKey is a number as a bucket names it.
func numberKey(v float64) string {
	if size := math.Abs(v); size != 0 && (size < 1e-6 || size >= 1e21) {
		return strconv.FormatFloat(v, 'e', -1, 64)
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// obviousStatistics are computed without rounding.
func obviousStatistics(numbers []float64, of fleet.FieldType, documents int) index.Statistics {
	if of == fleet.FieldString {
		return index.Statistics{Count: documents}
	}
	s := index.Statistics{Count: len(numbers)}
	if len(numbers) == 0 {
		return s
	}
	const precision = 5000
	exact := func(v float64) *big.Float { return new(big.Float).SetPrec(precision).SetFloat64(v) }
	round := func(v *big.Float) *float64 {
		f, _ := v.Float64()
		if math.IsInf(f, 0) {
			return nil
		}
		return &f
	}
	sum, squares, count := exact(0), exact(0), exact(float64(len(numbers)))
	for _, v := range numbers {
		sum.Add(sum, exact(v))
		squares.Add(squares, exact(0).Mul(exact(v), exact(v)))
	}
	mean := exact(0).Quo(sum, count)
	variance := exact(0).Sub(exact(0).Quo(squares, count), exact(0).Mul(mean, mean))
	if variance.Sign() < 0 {
		variance = exact(0)
	}
	s.Average, s.Sum, s.SumOfSquares, s.Variance = round(mean), round(sum), round(squares), round(variance)
	s.StandardDeviation = round(exact(0).Sqrt(variance))
	s.Minimum, s.Maximum = new(slices.Min(numbers)), new(slices.Max(numbers))
	return s
}

// near compares statistics up to rounding, relative to the largest value.
func near(a, b index.Statistics) bool {
	scale := 0.0
	for _, v := range []*float64{b.Minimum, b.Maximum} {
		if v != nil {
			scale = max(scale, math.Abs(*v))
		}
	}
	same := func(x, y *float64, unit float64) bool {
		if x == nil || y == nil {
			return x == nil && y == nil
		}
		return math.Abs(*x-*y) <= 1e-9*max(math.Abs(*y), min(unit, math.MaxFloat64/1e3))
	}
	n := float64(b.Count)
	return a.Count == b.Count && same(a.Average, b.Average, scale) && same(a.Sum, b.Sum, scale*n) && same(a.Minimum, b.Minimum, 0) &&
		same(a.Maximum, b.Maximum, 0) && same(a.SumOfSquares, b.SumOfSquares, 0) && same(a.Variance, b.Variance, 1e-300) && same(a.StandardDeviation, b.StandardDeviation, 1e-300)
}

// TestManyNumbers: beyond 100,000 distinct numbers cardinality is estimated
// within 2.5 % and percentiles are exact still.
func TestManyNumbers(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("a large index")
	}
	const n = 130_000
	x := index.New(index.Options{Committer: &discard{}, Source: &discard{}, Logger: slog.New(slog.DiscardHandler)})
	b := x.Build()
	for i := range n {
		if err := b.PutThing(account, index.Thing{Name: fmt.Sprint("t", i), Version: int64(i) * 3}, nil, index.State{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Finish(t.Context(), store.Cursor{}); err != nil {
		t.Fatal(err)
	}
	q, err := x.ParseThings("*")
	if err != nil {
		t.Fatal(err)
	}
	a := index.Aggregation{Query: q}
	if got, err := x.Cardinality(account, a); err != nil || math.Abs(float64(got)/n-1) > 0.025 {
		t.Errorf("cardinality %d, %v", got, err)
	}
	a.Field = "thingName"
	if got, err := x.Cardinality(account, a); err != nil || got != n {
		t.Errorf("names %d, %v", got, err)
	}
	a.Field = ""
	got, err := x.Percentiles(account, a, []float64{0, 25, 50, 100})
	if err != nil || fmt.Sprint(got) != "[{0 0} {25 97499.25} {50 194998.5} {100 389997}]" {
		t.Errorf("percentiles %v, %v", got, err)
	}
}

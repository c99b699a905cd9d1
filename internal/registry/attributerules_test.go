package registry

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
)

// pumpRules has a rule of each kind.
var pumpRules = AttributeRules{
	RefuseUnknown: true,
	Attributes: map[string]AttributeRule{
		"serial": {Required: true, Pattern: "[A-Z]{2}[0-9]{4}|legacy"},
		"hw":     {Enum: []string{"r1", "r2"}},
		"floor":  {Minimum: new(-2.0), Maximum: new(40.5)},
		"note":   {MaxLength: 5},
	},
}

func TestAttributeRulesVerdicts(t *testing.T) {
	t.Parallel()
	set, err := new(patterns).compileRules(&pumpRules)
	ok(t, err)
	for _, c := range []struct {
		attributes string
		want       string
	}{
		{"serial=AB1234", ""},
		{"serial=AB1234 hw=r1 floor=-2 note=12345", ""},
		{"serial=legacy floor=4.05e1", ""},
		{"", "serial.required"},
		{"serial=AB12345", "serial.pattern"},
		{"serial=xAB1234", "serial.pattern"},
		{"serial=legacyx", "serial.pattern"},
		{"serial=AB1234 hw=r3", "hw.enum"},
		{"serial=AB1234 floor=-2.01", "floor.minimum"},
		{"serial=AB1234 floor=41", "floor.maximum"},
		{"serial=AB1234 floor=first", "floor.minimum floor.maximum"},
		{"serial=AB1234 floor=0x10", "floor.minimum floor.maximum"},
		{"serial=AB1234 floor=inf", "floor.minimum floor.maximum"},
		{"serial=AB1234 floor=1e999", "floor.minimum floor.maximum"},
		{"serial=AB1234 note=123456", "note.maxLength"},
		{"serial=AB1234 other=1", "other.refuseUnknown"},
		{"hw=x other=1 note=123456", "hw.enum note.maxLength serial.required other.refuseUnknown"},
	} {
		attributes := map[string]string{}
		for pair := range strings.FieldsSeq(c.attributes) {
			name, value, _ := strings.Cut(pair, "=")
			attributes[name] = value
		}
		var got []string
		for _, v := range set.violations(attributes) {
			got = append(got, v.Attribute+"."+v.Rule)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q: %q, want %q", c.attributes, strings.Join(got, " "), c.want)
		}
	}
}

func TestAttributeRulesAreChecked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	must[ThingType](t)(r.CreateThingType(t.Context(), acct, CreateThingTypeCommand{Name: "Pump"}))
	many := AttributeRules{Attributes: map[string]AttributeRule{}}
	for i := range 51 {
		many.Attributes[strings.Repeat("a", i+1)] = AttributeRule{}
	}
	of := func(rule AttributeRule) AttributeRules {
		return AttributeRules{Attributes: map[string]AttributeRule{"a": rule}}
	}
	for name, c := range map[string]struct {
		rules AttributeRules
		want  string
	}{
		"name":          {AttributeRules{Attributes: map[string]AttributeRule{"a b": {}}}, "names must"},
		"too many":      {many, "at most 50"},
		"pattern":       {of(AttributeRule{Pattern: "("}), "attributes.a.pattern is no RE2"},
		"escape":        {of(AttributeRule{Pattern: "a)|(?:b"}), "attributes.a.pattern is no RE2"},
		"backreference": {of(AttributeRule{Pattern: `(a)\1`}), "attributes.a.pattern is no RE2"},
		"long pattern":  {of(AttributeRule{Pattern: strings.Repeat("a", 257)}), "attributes.a.pattern must have at most 256"},
		"huge pattern":  {of(AttributeRule{Pattern: "((a{100}){100}){100}"}), "attributes.a.pattern is no RE2"},
		"large pattern": {of(AttributeRule{Pattern: "(a{1000}){1,1}" + strings.Repeat("[a-c]{1000}", 22)}), "attributes.a.pattern is too large"},
		"empty enum":    {of(AttributeRule{Enum: []string{}}), "attributes.a.enum must have 1 to 100"},
		"enum value":    {of(AttributeRule{Enum: []string{"a b"}}), "attributes.a.enum has a value"},
		"enum twice":    {of(AttributeRule{Enum: []string{"x", "x"}}), "attributes.a.enum has the value"},
		"large enum":    {of(AttributeRule{Enum: make([]string, 101)}), "attributes.a.enum must have 1 to 100"},
		"range":         {of(AttributeRule{Minimum: new(2.0), Maximum: new(1.0)}), "attributes.a.minimum must not be above"},
		"infinite":      {of(AttributeRule{Maximum: new(math.Inf(1))}), "attributes.a.maximum must be a finite"},
		"length":        {of(AttributeRule{MaxLength: 801}), "attributes.a.maxLength"},
		"negative":      {of(AttributeRule{MaxLength: -1}), "attributes.a.maxLength"},
	} {
		err := r.SetAttributeRules(t.Context(), acct, "Pump", c.rules)
		if fault.CodeOf(err) != fault.InvalidRequest || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantCode(t, r.SetAttributeRules(t.Context(), acct, "None", pumpRules), fault.ResourceNotFound)
	wantCode(t, r.SetAttributeRules(t.Context(), acct, "a b", pumpRules), fault.InvalidRequest)
}

// Ruling 11: rules are opt-in, hold for what is written from then on, and name
// attribute and rule.
func TestAttributeRulesAreEnforced(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	must[ThingType](t)(r.CreateThingType(ctx, acct, CreateThingTypeCommand{Name: "Pump"}))
	must[ThingType](t)(r.CreateThingType(ctx, acct, CreateThingTypeCommand{Name: "Free"}))
	create := func(name, typeName string, attributes map[string]string) error {
		_, err := r.CreateThing(ctx, acct, CreateThingCommand{Name: name, TypeName: typeName, Attributes: attributes})
		return err
	}
	good := map[string]string{"serial": "AB1234"}
	ok(t, create("old", "Pump", map[string]string{"any": "thing"}))
	ok(t, create("free", "Free", map[string]string{"any": "thing"}))
	_, err := r.AttributeRules(ctx, acct, "Pump")
	wantCode(t, err, fault.ResourceNotFound)
	mark := len(r.store.log())
	ok(t, r.SetAttributeRules(ctx, acct, "Pump", pumpRules))
	wantEqual(t, r.eventsAfter(mark), []event.Event{event.AttributeRulesChanged{TypeName: "Pump"}})
	wantEqual(t, must[AttributeRules](t)(r.AttributeRules(ctx, acct, "Pump")), pumpRules)

	refused := func(err error, attribute, rule string) {
		t.Helper()
		wantCode(t, err, fault.InvalidRequest)
		if !strings.Contains(err.Error(), "attribute "+attribute+" ") || !strings.Contains(err.Error(), "rule "+rule+" ") {
			t.Errorf("%v names neither %s nor %s", err, attribute, rule)
		}
	}
	refused(create("new", "Pump", nil), "serial", "required")
	ok(t, create("new", "Pump", good))
	ok(t, create("new", "Pump", good)) // again
	update := func(c UpdateThingCommand) error { return r.UpdateThing(ctx, acct, c) }
	set := func(values map[string]string, merge bool) *Attributes {
		return &Attributes{Values: values, Merge: merge}
	}
	refused(update(UpdateThingCommand{Name: "new", Attributes: set(map[string]string{"serial": ""}, true)}), "serial", "required")
	refused(update(UpdateThingCommand{Name: "new", Attributes: set(map[string]string{"hw": "r9"}, true)}), "hw", "enum")
	ok(t, update(UpdateThingCommand{Name: "new", Attributes: set(map[string]string{"hw": "r2"}, true)}))
	refused(update(UpdateThingCommand{Name: "free", TypeName: "Pump"}), "serial", "required")
	ok(t, update(UpdateThingCommand{Name: "free", TypeName: "Pump", Attributes: set(good, false)}))
	// What was there before the rules stays until its attributes change.
	ok(t, update(UpdateThingCommand{Name: "old"}))
	ok(t, update(UpdateThingCommand{Name: "old", TypeName: "Pump"}))
	refused(update(UpdateThingCommand{Name: "old", Attributes: set(map[string]string{"hw": "r1"}, true)}), "serial", "required")
	ok(t, update(UpdateThingCommand{Name: "old", RemoveType: true, Attributes: set(map[string]string{"x": "y"}, true)}))

	// Other changes of the type leave its rules alone.
	ok(t, r.DeprecateThingType(ctx, acct, "Pump", false))
	ok(t, r.DeprecateThingType(ctx, acct, "Pump", true))
	wantEqual(t, must[AttributeRules](t)(r.AttributeRules(ctx, acct, "Pump")), pumpRules)
	mark = len(r.store.log())
	ok(t, r.RemoveAttributeRules(ctx, acct, "Pump"))
	ok(t, r.RemoveAttributeRules(ctx, acct, "Pump"))
	wantEqual(t, r.eventsAfter(mark), []event.Event{event.AttributeRulesChanged{TypeName: "Pump", Removed: true}})
	ok(t, create("free-again", "Pump", nil))
}

func TestCheckAttributeRules(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	must[ThingType](t)(r.CreateThingType(ctx, acct, CreateThingTypeCommand{Name: "Pump"}))
	for i, serial := range []string{"AB1234", "bad", "CD1234", "", "worse", "legacy"} {
		must[Thing](t)(r.CreateThing(ctx, acct, CreateThingCommand{
			Name: string(rune('a' + i)), TypeName: "Pump", Attributes: map[string]string{"serial": serial},
		}))
	}
	r.addThing(t, "untyped")
	check := func(rules *AttributeRules) map[string]string {
		found := map[string]string{}
		for _, v := range allPages(t, 1, func(p Page) (Listed[Violations], error) {
			return r.CheckAttributeRules(ctx, acct, "Pump", rules, p)
		}) {
			var texts []string
			for _, each := range v.Violations {
				texts = append(texts, each.Attribute+"."+each.Rule)
			}
			found[v.Thing] = strings.Join(texts, " ")
		}
		return found
	}
	_, err := r.CheckAttributeRules(ctx, acct, "Pump", nil, Page{})
	wantCode(t, err, fault.ResourceNotFound)
	want := map[string]string{"b": "serial.pattern", "d": "serial.required", "e": "serial.pattern"}
	wantEqual(t, check(&pumpRules), want)
	ok(t, r.SetAttributeRules(ctx, acct, "Pump", pumpRules))
	wantEqual(t, check(nil), want)
	wantEqual(t, check(&AttributeRules{}), map[string]string{})
	_, err = r.CheckAttributeRules(ctx, acct, "Pump", &AttributeRules{Attributes: map[string]AttributeRule{"a": {Pattern: "("}}}, Page{})
	wantCode(t, err, fault.InvalidRequest)
}

// Rules that are set while things are created: afterwards no thing that was
// created after them breaks them.
func TestRulesRaceWithCreation(t *testing.T) {
	t.Parallel()
	for range rounds(t, 30) {
		r := newRig(t)
		ctx := t.Context()
		must[ThingType](t)(r.CreateThingType(ctx, acct, CreateThingTypeCommand{Name: "Pump"}))
		create := func(name string) func() error {
			return func() error {
				_, err := r.CreateThing(ctx, acct, CreateThingCommand{Name: name, TypeName: "Pump"})
				return err
			}
		}
		together(create("a"), create("b"), create("c"), create("d"),
			func() error { return r.SetAttributeRules(context.WithoutCancel(ctx), acct, "Pump", pumpRules) })
		ruled := false
		for _, e := range r.store.log() {
			if _, ok := e.(event.AttributeRulesChanged); ok {
				ruled = true
			}
			if _, ok := e.(event.ThingCreated); ok && ruled {
				t.Fatal("a thing was created against the rules")
			}
		}
	}
}

func FuzzAttributeRules(f *testing.F) {
	f.Add("[a-z]+", "x", 1.0, 2.0, 3)
	f.Add("", "", math.NaN(), math.Inf(1), -1)
	f.Fuzz(func(t *testing.T, pattern, value string, least, most float64, length int) {
		rules := AttributeRules{Attributes: map[string]AttributeRule{
			"a": {Pattern: pattern, Minimum: &least, Maximum: &most, MaxLength: length},
		}}
		set, err := new(patterns).compileRules(&rules)
		if err != nil {
			return
		}
		found := set.violations(map[string]string{"a": value})
		if length > 0 && len(value) > length && !slices.ContainsFunc(found, func(v Violation) bool { return v.Rule == ruleMaxLength }) {
			t.Error("a long value passed")
		}
		if len(found) == 0 {
			if n, ok := decimal(value); !ok || n < least || n > most {
				t.Errorf("%q passed", value)
			}
		}
		if len(set.violations(map[string]string{})) > 0 {
			t.Error("an attribute that is not there broke a rule")
		}
	})
}

// Rules are followed with patterns that were compiled before, and what is kept
// of them is bounded.
func TestRulesKeepPatterns(t *testing.T) {
	t.Parallel()
	var p patterns
	of := &typeRecord{Rules: &pumpRules}
	attributes := map[string]string{"site": "x"}
	_ = p.followRules(of, attributes)
	kept := maps.Clone(p.compiled)
	if len(kept) == 0 {
		t.Fatal("nothing is kept")
	}
	_ = p.followRules(of, attributes)
	for pattern, compiled := range p.compiled {
		if kept[pattern] != compiled {
			t.Errorf("%q was compiled again", pattern)
		}
	}
	for i := range 400 {
		if _, err := p.anchored(fmt.Sprintf("%d[a-z]{%d}", i, 800)); err != nil {
			t.Fatal(err)
		}
		if p.steps > maxKeptPatterns {
			t.Fatalf("%d steps are kept", p.steps)
		}
	}
}

func BenchmarkFollowRules(b *testing.B) {
	var p patterns
	of := &typeRecord{Rules: &pumpRules}
	attributes := map[string]string{"serial": "AB1234", "hw": "r1"}
	for b.Loop() {
		_ = p.followRules(of, attributes)
	}
}

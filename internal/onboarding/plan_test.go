package onboarding

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// small is the shortest plan that has everything which tests need.
const small = `id: pumps
name: Pumps
appliesTo:
  templates: [pump]
  authorities: [` + authority + `]
  thingTypes: [pump-type]
metadata:
  uniqueId: {attribute: serial, required: true}
  modelNumber: {attribute: model, thingTypes: {P1: pump-type}}
  manufacturingDate: {attribute: made}
stages:
- id: make
  kind: MANUFACTURE
  actor: {role: Maker, organisation: Acme}
  limit: 10d
  steps:
  - {id: announce, title: Announce, mode: PROGRAMMATIC, state: EXPECTED}
  - {id: test, title: Test, mode: MANUAL, instruction: Test it., evidenceRequired: true, dependsOn: [announce], state: MANUFACTURED}
  - {id: label, title: Label, mode: MANUAL, instruction: Label it., dependsOn: [test]}
- id: join
  kind: REGISTRATION
  actor: {role: Operator}
  limit: 2d
  steps:
  - {id: register, title: Register, mode: PROGRAMMATIC, state: REGISTERED, dependsOn: [label]}
  - {id: connect, title: Connect, mode: PROGRAMMATIC, state: ACTIVE}
  exitCriteria:
  - {predicate: "thingName:* AND attributes.ok:yes", within: 10m}
  - {predicate: "connectivity.connected:true", within: 1h}
`

const authority = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func TestTheExampleIsAPlan(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("../../docs/examples/plan.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Parse(source)
	if err != nil {
		t.Fatal(err)
	}
	if p.DeviceKey != KeyUniqueID || len(p.Stages) != 4 || p.Stages[3].Order != 4 || p.Stages[0].Steps[2].Order != 3 || !strings.Contains(p.Stages[0].Steps[1].Instruction, "48 hours") {
		t.Errorf("read %+v", p)
	}
	if got := p.Stages[0].Limit.Duration().Hours(); got != 720 {
		t.Errorf("the limit is %v hours", got)
	}
}

// A mistake is told with its field, the rule, and where it stands.
func TestPlanProblems(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, from, to, want string }{
		{"no id", "id: pumps\n", "", "line 1, column 1: id: must be 1 to 64"},
		{"no name", "name: Pumps", "name: ''", "line 2, column 7: name: is needed"},
		{"unknown field", "name: Pumps", "name: Pumps\ncolour: red", "line 3, column 1: unknown field"},
		{"authority", authority, "abc", "line 5, column 17: appliesTo.authorities[0]: is not an id of a CA"},
		{"twice", "[pump]", "[pump, pump]", "appliesTo.templates[1]: is there twice"},
		{"kind", "kind: MANUFACTURE", "kind: FACTORY", "stages[0].kind: must be MANUFACTURE"},
		{"role", "{role: Operator}", "{organisation: X}", "line 22, column 11: stages[1].actor.role: is needed"},
		{"limit", "limit: 2d", "limit: soon", "line 23, column 10: stages[1].limit: must be a time"},
		{"mode", "title: Label, mode: MANUAL", "title: Label, mode: BY_HAND", "line 19, column 37: stages[0].steps[2].mode: must be MANUAL or PROGRAMMATIC"},
		{"instruction", "instruction: Label it., ", "", "line 19, column 6: stages[0].steps[2].instruction: a MANUAL step needs one"},
		{"depends on nothing", "dependsOn: [test]", "dependsOn: [tset]", `stages[0].steps[2].dependsOn[0]: "tset" is no step that stands before`},
		{"depends on later", "dependsOn: [announce]", "dependsOn: [connect]", `"connect" is no step that stands before`},
		{"depends on itself", "dependsOn: [test]", "dependsOn: [label]", `"label" is no step that stands before`},
		{"same step", "id: connect", "id: announce", "is the id of another step, stages[0].steps[0]"},
		{"same stage", "id: join", "id: make", "stages[1].id: is the id of another stage"},
		{"manual activation", "state: MANUFACTURED", "state: ACTIVE", "the rest the platform has to see"},
		{"state", "state: REGISTERED", "state: SUSPENDED", "stages[1].steps[0].state: must be EXPECTED"},
		{"same state", "state: REGISTERED", "state: ACTIVE", "is the state of another step"},
		{"query", `"connectivity.connected:true"`, `"connected:("`, "exitCriteria[1].predicate: is no fleet query: Invalid query"},
		{"within", "within: 1h", "within: 0s", "exitCriteria[1].within: must be a time of 1s"},
		{"order", "id: join\n", "id: join\n  order: -1\n", "stages[1].order: must be greater"},
		{"attribute", "attribute: serial,", "attribute: 'a b',", "metadata.uniqueId.attribute: is no name"},
		{"attribute twice", "attribute: made", "attribute: serial", "metadata.manufacturingDate.attribute: is the attribute of uniqueId"},
		{"types elsewhere", "{attribute: made}", "{attribute: made, thingTypes: {a: b}}", "only modelNumber has thing types"},
		{"key", "name: Pumps\n", "name: Pumps\ndeviceKey: SERIAL\n", "line 3, column 12: deviceKey: must be UNIQUE_ID"},
		{"alias", "name: Pumps", "name: &n Pumps\nproductLine: *n", "line 2, column 7: anchors, aliases"},
		{"type", "limit: 2d", "limit: [2d]", "line 23, column 10: a value of another kind"},
		{"twice in the text", "name: Pumps", "name: Pumps\nname: Pumps", "line 3, column 1"},
		{"no YAML", "name: Pumps", "name: [", "line "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(small, c.from) {
				t.Fatalf("%q is not in the plan", c.from)
			}
			_, err := Parse([]byte(strings.Replace(small, c.from, c.to, 1)))
			var invalid *InvalidPlanError
			if !errors.As(err, &invalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// Everything that is wrong is told at once.
func TestPlanTellsAllProblems(t *testing.T) {
	t.Parallel()
	_, err := Parse([]byte("id: x y\nname: N\nstages:\n- id: a\n  kind: NONE\n  actor: {}\n  steps: []\n"))
	var invalid *InvalidPlanError
	if !errors.As(err, &invalid) {
		t.Fatal(err)
	}
	var got []string
	for _, p := range invalid.Problems {
		got = append(got, p.Field)
	}
	if diff := cmp.Diff([]string{"id", "stages[0].kind", "stages[0].actor.role", "stages[0].steps"}, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for _, text := range []string{"", "[]", "x", "---\nid: a\n---\nid: b\n", strings.Repeat("a", maxBody+1)} {
		if _, err := Parse([]byte(text)); !errors.As(err, &invalid) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	before, err := Parse([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.NewReplacer("limit: 2d", "limit: 3d", "title: Label", "title: Put the label on",
		"- {id: connect,", "- {id: site, title: Site, mode: PROGRAMMATIC}\n  - {id: connect,").Replace(small)
	after, err := Parse([]byte(changed))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Compare(before, after)
	if err != nil {
		t.Fatal(err)
	}
	want := []Difference{
		{"stages[join].limit", "2d", "3d"},
		{"stages[join].steps[connect].order", "2", "3"},
		{"stages[join].steps[site].id", "", "site"},
		{"stages[join].steps[site].mode", "", "PROGRAMMATIC"},
		{"stages[join].steps[site].order", "", "2"},
		{"stages[join].steps[site].title", "", "Site"},
		{"stages[make].steps[label].title", "Label", "Put the label on"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(small))
	f.Add([]byte("a: &x [*x]"))
	f.Add([]byte("? {}\n: !!binary |"))
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := Parse(body)
		if err != nil {
			return
		}
		if problems := check(p); len(problems) > 0 {
			t.Errorf("a plan that was read has problems: %v", problems)
		}
		again, err := Compare(p, p)
		if err != nil || len(again) > 0 {
			t.Errorf("it differs from itself: %v, %v", again, err)
		}
	})
}

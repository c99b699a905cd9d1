package provtemplate

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/fleet"
)

var kinds = []Kind{FleetProvisioning, JITP, Bulk}

// addSeeds gives whole templates and every function to a fuzz target.
func addSeeds(add func(body string)) {
	for _, body := range []string{
		pumpTemplate, lampTemplate, sensorTemplate, valueBody(doubling(8)),
		resourceBody(`{"Type":"AWS::IoT::Policy","Properties":{"PolicyDocument":{"a":[{"Fn::Split":[",",{"Ref":"P"}]}],"b":{"Fn::Sub":"${!x}${P}"}}}}`),
		valueBody(`{"Fn::Select":[{"Ref":"P"},["a",null,{"Fn::FindInMap":["M",{"Ref":"P"},"x"]}]]}`),
		overrideBody(`{"THING_GROUPS":"MERGE"}`), `{"a":`, `[[[[`,
	} {
		add(body)
	}
}

func FuzzParse(f *testing.F) {
	addSeeds(func(body string) { f.Add([]byte(body)) })
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, kind := range kinds {
			template, err := Parse(body, kind, Limits{})
			if err == nil {
				if utf8.RuneCount(body) > DefaultLimits().MaxBody || len(template.policies) == 0 && template.thing == nil && template.certificate == nil {
					t.Fatalf("%s accepted", kind)
				}
				continue
			}
			found := (*SyntaxError)(nil)
			if !errors.As(err, &found) || template != nil {
				t.Fatalf("%v, %v", template, err)
			}
			if found.Rule == "" || found.Problem == "" || found.Line < 1 || found.Column < 1 || found.Offset < 0 || found.Offset > len(body) {
				t.Fatalf("incomplete error %+v", found)
			}
		}
	})
}

func FuzzEvaluate(f *testing.F) {
	addSeeds(func(body string) {
		f.Add(body, "B7-0042", "leeds")
		f.Add(body, "0", `","x":"*`)
	})
	f.Fuzz(func(t *testing.T, body, first, second string) {
		for _, kind := range kinds {
			template, err := Parse([]byte(body), kind, Limits{})
			if err != nil {
				continue
			}
			given := map[string]string{}
			service := map[string]string{CertificateID: someID}
			for i, p := range template.Parameters() {
				into := given
				if p.FromService {
					into = service
				}
				if p.Name != CertificateID || kind == Bulk {
					into[p.Name] = []string{first, second}[i%2]
				}
			}
			kept := maps.Clone(given)
			plan, err := template.Evaluate(given, service)
			if !maps.Equal(kept, given) {
				t.Fatal("Evaluate changed the parameters")
			}
			if err != nil {
				if found := (*EvaluationError)(nil); !errors.As(err, &found) || found.Problem == "" || plan != nil {
					t.Fatalf("%v, %v", plan, err)
				}
				continue
			}
			checkPlan(t, template, plan)
			again, err := template.Evaluate(given, service)
			if diff := cmp.Diff(plan, again); err != nil || diff != "" {
				t.Fatalf("not the same again: %v %s", err, diff)
			}
		}
	})
}

// checkPlan checks what holds for every plan.
func checkPlan(t *testing.T, template *Template, plan *Plan) {
	t.Helper()
	size := 0
	for k, v := range plan.DeviceConfiguration {
		size += len(k) + len(v)
	}
	if thing := plan.Thing; thing != nil {
		names := append([]string{thing.Name}, thing.Groups...)
		if thing.TypeName != "" {
			names = append(names, thing.TypeName)
		}
		if slices.ContainsFunc(names, func(name string) bool { return !fleet.ValidName(name) }) {
			t.Fatalf("invalid names %q", names)
		}
		for k, v := range thing.Attributes {
			size += len(k) + len(v)
		}
		for _, group := range thing.Groups {
			size += len(group)
		}
	}
	if c := plan.Certificate; c != nil {
		size += len(c.CSR) + len(c.PEM) + len(c.AuthorityPEM)
		if template.Kind() != Bulk && c.ID != someID {
			t.Fatalf("certificate %+v", c)
		}
	} else if template.Kind() != Bulk {
		t.Fatal("no certificate")
	}
	for _, policy := range plan.Policies {
		size += len(policy.Document)
		if !fleet.ValidPolicyName(policy.Name) {
			t.Fatalf("policy %q", policy.Name)
		}
		if policy.Document != "" && checkDocument(policy.Document, DefaultLimits()) != "" {
			t.Fatalf("document %s", policy.Document)
		}
	}
	// Literals come from the body, everything else was charged.
	if limits := DefaultLimits(); size > limits.MaxWork+utf8.UTFMax*limits.MaxBody {
		t.Fatalf("the plan has %d bytes", size)
	}
}

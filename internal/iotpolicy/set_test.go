package iotpolicy_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// mustParse parses a document whose "@:" is the scope of the scripts.
func mustParse(tb testing.TB, document string) *iotpolicy.Document {
	tb.Helper()
	doc, err := iotpolicy.Parse([]byte(strings.ReplaceAll(document, "@:", scriptScope)), iotpolicy.Limits{})
	if err != nil {
		tb.Fatal(err)
	}
	return doc
}

const referencePolicy = `{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":"iot:Connect","Resource":"@:client/${iot:ClientId}"},
 {"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":["@:topic/plant/*/${iot:ClientId}/*","@:topic/all"]},
 {"Effect":"Deny","Action":"iot:Publish","Resource":"@:topic/plant/*/secret"},
 {"Effect":"Allow","Action":"iot:Subscribe","Resource":"@:topicfilter/${iot:Connection.Thing.ThingName}"}]}`

// Counting allocations excludes parallel tests.
func TestDecideDoesNotAllocate(t *testing.T) {
	set := iotpolicy.Compile([]iotpolicy.PolicyRef{{Name: "p", Document: mustParse(t, referencePolicy)}}, &iotpolicy.Context{ClientID: "c"})
	allowed, denied, missing := scriptScope+"topic/plant/x/c/t", scriptScope+"topic/plant/x/secret", scriptScope+"topicfilter/x"
	allocs := testing.AllocsPerRun(100, func() {
		if set.Decide(iotpolicy.ActionPublish, allowed).Outcome != iotpolicy.Allowed ||
			set.Decide(iotpolicy.ActionPublish, denied).Outcome != iotpolicy.ExplicitDeny ||
			len(set.Decide(iotpolicy.ActionSubscribe, missing).Missing) != 1 {
			t.Error("wrong decision")
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations per three decisions", allocs)
	}
}

// Dates on the clock hold for a while only: the set says for how long, and no
// decision changes before that.
func TestValidUntil(t *testing.T) {
	t.Parallel()
	doc := mustParse(t, `{"Version":"2012-10-17","Statement":[
	 {"Effect":"Allow","Action":"iot:Publish","Resource":"*","Condition":{
	  "DateGreaterThan":{"aws:CurrentTime":"2026-11-23T09:00:00Z"},"DateLessThanEquals":{"aws:EpochTime":"2026-11-23T10:00:00Z"}}}]}`)
	start := time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)
	end := start.Add(4 * time.Hour)
	var flips []string
	last := iotpolicy.ImplicitDeny
	steps := 0
	for now := start; now.Before(end); steps++ {
		set := iotpolicy.Compile([]iotpolicy.PolicyRef{{Document: doc}}, &iotpolicy.Context{Now: now})
		outcome := set.Decide(iotpolicy.ActionPublish, "arn:x").Outcome
		if outcome != last {
			flips = append(flips, fmt.Sprint(now.Format(time.RFC3339Nano), " ", outcome))
			last = outcome
		}
		until := set.ValidUntil()
		if until.IsZero() {
			break
		}
		if !until.After(now) {
			t.Fatalf("valid until %v at %v", until, now)
		}
		now = until
	}
	want := []string{"2026-11-23T09:00:00.000000001Z ALLOWED", "2026-11-23T10:00:01Z IMPLICIT_DENY"}
	if diff := cmp.Diff(want, flips); diff != "" {
		t.Errorf("flips (-want +got):\n%s", diff)
	}
	if steps > 12 {
		t.Errorf("%d compilations", steps)
	}
	plain := iotpolicy.Compile([]iotpolicy.PolicyRef{{Document: mustParse(t, referencePolicy)}}, &iotpolicy.Context{})
	if until := plain.ValidUntil(); !until.IsZero() {
		t.Errorf("a set without dates is valid until %v", until)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	base := `{"Statement":{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:%s"}}`
	fixed := len(base) - len("%s")
	for _, c := range []struct {
		name     string
		document string
		limits   iotpolicy.Limits
		ok       bool
	}{
		{"the quota", fmt.Sprintf(base, strings.Repeat("é", 2048-fixed)), iotpolicy.Limits{}, true},
		{"one character more", fmt.Sprintf(base, strings.Repeat("é", 2049-fixed)), iotpolicy.Limits{}, false},
		{"white space is free", fmt.Sprintf(base, strings.Repeat("é", 2048-fixed)) + strings.Repeat(" \t\r\n", 5000), iotpolicy.Limits{}, true},
		{"but not without bounds", fmt.Sprintf(base, "x") + strings.Repeat(" ", 404_600), iotpolicy.Limits{}, false},
		{"a raised quota", fmt.Sprintf(base, strings.Repeat("x", 5000)), iotpolicy.Limits{MaxCharacters: 6000, MaxBytes: 6000}, true},
		{"not UTF-8", fmt.Sprintf(base, "\xff"), iotpolicy.Limits{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := iotpolicy.Parse([]byte(c.document), c.limits)
			if (err == nil) != c.ok {
				t.Errorf("error %v", err)
			}
			if syntax := (*iotpolicy.SyntaxError)(nil); err != nil && !errors.As(err, &syntax) {
				t.Errorf("error of type %T", err)
			}
		})
	}
}

func TestExplainNamesEverything(t *testing.T) {
	t.Parallel()
	policies := []iotpolicy.PolicyRef{
		{Name: "a", ARN: "arn:a", Document: mustParse(t, `{"Version":"2012-10-17","Statement":[
		 {"Sid":"all","Effect":"Allow","Action":"iot:Publish","Resource":"*"},
		 {"Effect":"Allow","Action":"iot:Publish","Resource":"@:topic/${iot:DomainName}"}]}`)},
		{Name: "b", ARN: "arn:b", Document: mustParse(t, `{"Statement":{"Sid":"no","Effect":"Deny","Action":"iot:Pub*","Resource":"@:topic/x*"}}`)},
	}
	ctx := &iotpolicy.Context{}
	set := iotpolicy.Compile(policies, ctx)
	got := set.Explain(ctx, iotpolicy.ActionPublish, scriptScope+"topic/x")
	want := iotpolicy.Explanation{
		Decision:   iotpolicy.Decision{Outcome: iotpolicy.ExplicitDeny, Policy: "b", Sid: "no"},
		Allows:     []iotpolicy.Match{{Policy: policies[0], Sid: "all"}},
		Denies:     []iotpolicy.Match{{Policy: policies[1], Sid: "no"}},
		Considered: policies,
		Unresolved: []string{"iot:DomainName"},
		Variables:  []iotpolicy.VariableValue{{Name: "iot:DomainName"}},
	}
	byIdentity := cmp.Comparer(func(a, b *iotpolicy.Document) bool { return a == b })
	if diff := cmp.Diff(want, got, byIdentity); diff != "" {
		t.Errorf("explanation (-want +got):\n%s", diff)
	}
	bounded := set.Within(iotpolicy.Compile(nil, &iotpolicy.Context{}))
	if e := bounded.Explain(ctx, iotpolicy.ActionPublish, "arn:y"); !e.BoundaryDenied || e.Outcome != iotpolicy.ImplicitDeny {
		t.Errorf("bounded explanation %+v", e)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(referencePolicy), "c")
	f.Add([]byte(`{"Statement":[{"Effect":"Deny","NotAction":"iot:*","NotResource":"*","Condition":{"Null":{"aws:SourceIp":true}}}]}`), "*")
	f.Add([]byte(`{"Version":"2012-10-17","Id":"x","Statement":{"Sid":"s","Effect":"Allow","Action":"*","Resource":"*","Condition":`+
		`{"ForAnyValue:DateLessThanIfExists":{"aws:CurrentTime":["2026","1700000000"]},"ArnLike":{"iot:ClientId":"arn:a:b:c:d:${iot:ClientId}"}}}}`), "\xff")
	f.Add([]byte(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:?","Resource":"arn:${${*}}`), "")
	f.Fuzz(func(t *testing.T, document []byte, clientID string) {
		doc, err := iotpolicy.Parse(document, iotpolicy.Limits{})
		if err != nil {
			syntax := (*iotpolicy.SyntaxError)(nil)
			if !errors.As(err, &syntax) || syntax.Line < 1 || syntax.Column < 1 || syntax.Offset > len(document) {
				t.Fatalf("error %#v", err)
			}
			return
		}
		for _, f := range doc.Lint(iotpolicy.LintOptions{Scope: fleet.Scope{Region: "eu-local-1", Account: "000000000001"}, Now: time.Unix(1_700_000_000, 0)}) {
			if f.Line < 1 || f.Column < 1 || f.Line > strings.Count(string(document), "\n")+1 || f.Text == "" || f.Statement >= len(doc.Statements) {
				t.Fatalf("finding %+v", f)
			}
		}
		ctx := &iotpolicy.Context{ClientID: clientID, Now: time.Unix(1_700_000_000, 0)}
		set := iotpolicy.Compile([]iotpolicy.PolicyRef{{Name: "f", Document: doc}}, ctx)
		for _, action := range []string{iotpolicy.ActionPublish, "iot:Anything", ""} {
			for _, resource := range []string{"*", scriptScope + "topic/a", clientID} {
				e := set.Explain(ctx, action, resource)
				if d := set.Decide(action, resource); d.Outcome != e.Outcome {
					t.Fatalf("decided %v, explained %v", d.Outcome, e.Outcome)
				}
				want := iotpolicy.ImplicitDeny
				if len(e.Allows) > 0 {
					want = iotpolicy.Allowed
				}
				if len(e.Denies) > 0 {
					want = iotpolicy.ExplicitDeny
				}
				if e.Outcome != want {
					t.Fatalf("%v with allows %v and denies %v", e.Outcome, e.Allows, e.Denies)
				}
				for _, n := range e.Near {
					if n.ResourceMatches && len(n.Failed) == 0 {
						t.Fatalf("%+v misses nothing and the outcome is %v", n, e.Outcome)
					}
				}
			}
		}
	})
}

// Whatever a device calls itself, ${iot:ClientId} matches that text only.
func FuzzSubstitutionIsLiteral(f *testing.F) {
	doc := mustParse(f, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:Connect","Resource":"@:client/${iot:ClientId}"}}`)
	for _, seed := range []string{"*", "?", "a*b", "${iot:ClientId}", "\xff", "\xfe", "é", "+", "#"} {
		f.Add(seed, "x")
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, clientID, other string) {
		set := iotpolicy.Compile([]iotpolicy.PolicyRef{{Document: doc}}, &iotpolicy.Context{ClientID: clientID})
		allowed := set.Decide(iotpolicy.ActionConnect, scriptScope+"client/"+other).Outcome == iotpolicy.Allowed
		if allowed && other != clientID {
			t.Errorf("client id %q may connect as %q", clientID, other)
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	set := iotpolicy.Compile([]iotpolicy.PolicyRef{{Name: "p", Document: mustParse(b, referencePolicy)}}, &iotpolicy.Context{ClientID: "c"})
	resource := scriptScope + "topic/plant/leeds/c/t"
	b.ReportAllocs()
	for b.Loop() {
		set.Decide(iotpolicy.ActionPublish, resource)
	}
}

func BenchmarkCompile(b *testing.B) {
	policies := []iotpolicy.PolicyRef{{Name: "p", Document: mustParse(b, referencePolicy)}}
	ctx := &iotpolicy.Context{ClientID: "c", Thing: &iotpolicy.Thing{Name: "c"}}
	b.ReportAllocs()
	for b.Loop() {
		iotpolicy.Compile(policies, ctx)
	}
}

func BenchmarkParse(b *testing.B) {
	document := []byte(strings.ReplaceAll(referencePolicy, "@:", scriptScope))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := iotpolicy.Parse(document, iotpolicy.Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}

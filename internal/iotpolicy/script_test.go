package iotpolicy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/muster-iot/muster/internal/iotpolicy"
)

// scriptScope replaces "@:" in scripts, which keeps their lines readable.
const scriptScope = "arn:aws:iot:eu-local-1:000000000001:"

// TestDecisions runs testdata/decide. A script has sections, applied in order:
//
//	-- policy NAME --   a document, added to those in force
//	-- boundary --      a document that bounds them
//	-- context --       lines "field value"; replaces the earlier context
//	-- decide --        lines "action resource => outcome [by POLICY[n]] [missing NAME…]"
//	-- explain --       lines "action resource => outcome …", then one indented line for each
//	                    near miss, and one each for a hint and for the variables
func TestDecisions(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/decide/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	vectors := 0
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, section := range archive.Files {
			if section.Name == "decide" {
				vectors += len(scriptLines(section.Data))
			}
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			runScript(t, archive)
		})
	}
	if vectors < 75 {
		t.Errorf("%d decision vectors, want at least 75", vectors)
	}
}

// runScript runs one archive.
func runScript(t *testing.T, archive *txtar.Archive) {
	t.Helper()
	var policies, boundary []iotpolicy.PolicyRef
	var ctx iotpolicy.Context
	for _, section := range archive.Files {
		switch kind, name, _ := strings.Cut(section.Name, " "); kind {
		case "policy":
			policies = append(policies, scriptPolicy(t, name, section.Data))
		case "boundary":
			boundary = append(boundary, scriptPolicy(t, "boundary", section.Data))
		case "context":
			ctx = scriptContext(t, section.Data)
		case "decide":
			set := iotpolicy.Compile(policies, &ctx)
			if boundary != nil {
				set = set.Within(iotpolicy.Compile(boundary, &ctx))
			}
			decideLines(t, &ctx, set, section.Data)
		case "explain":
			set := iotpolicy.Compile(policies, &ctx)
			if boundary != nil {
				set = set.Within(iotpolicy.Compile(boundary, &ctx))
			}
			explainLines(t, &ctx, set, section.Data)
		default:
			t.Fatalf("unknown section %q", section.Name)
		}
	}
}

// scriptPolicy parses a document of a script.
func scriptPolicy(t *testing.T, name string, data []byte) iotpolicy.PolicyRef {
	t.Helper()
	doc, err := iotpolicy.Parse(bytes.ReplaceAll(data, []byte("@:"), []byte(scriptScope)), iotpolicy.Limits{MaxCharacters: 8192, MaxBytes: 1 << 16})
	if err != nil {
		t.Fatalf("policy %s: %v", name, err)
	}
	return iotpolicy.PolicyRef{Name: name, ARN: scriptScope + "policy/" + name, Document: doc}
}

// scriptLines returns the lines that are neither empty nor comments.
func scriptLines(data []byte) []string {
	var lines []string
	scanner := bufio.NewScanner(bytes.NewReader(data))
	for scanner.Scan() {
		if line := strings.TrimSpace(scanner.Text()); line != "" && !strings.HasPrefix(line, "//") {
			lines = append(lines, line)
		}
	}
	return lines
}

// scriptContext reads a context section.
func scriptContext(t *testing.T, data []byte) iotpolicy.Context {
	t.Helper()
	ctx := iotpolicy.Context{Certificate: map[string][]string{}}
	thing := func() *iotpolicy.Thing {
		if ctx.Thing == nil {
			ctx.Thing = &iotpolicy.Thing{Attributes: map[string]string{}}
		}
		return ctx.Thing
	}
	for _, line := range scriptLines(data) {
		field, value, _ := strings.Cut(line, " ")
		key, assigned, _ := strings.Cut(value, "=")
		var err error
		switch field {
		case "client_id":
			ctx.ClientID = value
		case "source_ip":
			ctx.SourceIP, err = netip.ParseAddr(value)
		case "domain":
			ctx.DomainName = value
		case "certificate_id":
			ctx.CertificateID = value
		case "certificate":
			ctx.Certificate[key] = append(ctx.Certificate[key], strings.ReplaceAll(assigned, "LONG", strings.Repeat("x", 1025)))
		case "thing":
			thing().Name = value
		case "type":
			thing().TypeName = value
		case "attribute":
			thing().Attributes[key] = assigned
		case "attached":
			thing().Attached = value == "true"
		case "connect_attribute":
			ctx.ConnectAttributes = append(ctx.ConnectAttributes, value)
		case "now":
			ctx.Now, err = time.Parse(time.RFC3339, value)
		default:
			t.Fatalf("unknown context field %q", field)
		}
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return ctx
}

// decideLines checks each line of a decide section, with Decide, Explain and
// Fixed agreeing.
func decideLines(t *testing.T, ctx *iotpolicy.Context, set *iotpolicy.Set, data []byte) {
	t.Helper()
	for _, line := range scriptLines(data) {
		request, _, found := strings.Cut(line, " => ")
		action, resource, ok := strings.Cut(request, " ")
		if !found || !ok {
			t.Fatalf("bad line %q", line)
		}
		if resource != "*" {
			resource = scriptScope + resource
		}
		decision := set.Decide(action, resource)
		if diff := cmp.Diff(line, request+" => "+renderDecision(decision)); diff != "" {
			t.Errorf("decision (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(decision, set.Explain(ctx, action, resource).Decision); diff != "" {
			t.Errorf("%s: Explain differs from Decide:\n%s", line, diff)
		}
		if outcome, fixed := set.Fixed(action); fixed && outcome != decision.Outcome {
			t.Errorf("%s: fixed outcome %v", line, outcome)
		}
	}
}

// explainLines checks an explain section: the lines that are not indented ask.
func explainLines(t *testing.T, ctx *iotpolicy.Context, set *iotpolicy.Set, data []byte) {
	t.Helper()
	var got strings.Builder
	for line := range strings.Lines(string(data)) {
		request, _, asks := strings.Cut(line, " => ")
		if !asks || strings.HasPrefix(line, " ") {
			continue
		}
		action, resource, _ := strings.Cut(request, " ")
		e := set.Explain(ctx, action, scriptScope+resource)
		fmt.Fprintf(&got, "%s => %s\n", request, renderDecision(e.Decision))
		for i := range e.Near {
			got.WriteString("  " + renderNear(&e.Near[i]) + "\n")
		}
		if e.Hint != "" {
			got.WriteString("  hint " + e.Hint + "\n")
		}
		if len(e.Variables) > 0 {
			got.WriteString("  with")
			for _, v := range e.Variables {
				got.WriteString(" " + v.Name + "=" + strings.Join(v.Values, ","))
			}
			got.WriteString("\n")
		}
	}
	if diff := cmp.Diff(string(data), strings.ReplaceAll(got.String(), scriptScope, "@:")); diff != "" {
		t.Errorf("explanations (-want +got):\n%s", diff)
	}
}

// renderNear writes a near miss as scripts do.
func renderNear(n *iotpolicy.Near) string {
	text := fmt.Sprintf("near %s[%d]", n.Policy.Name, n.Statement)
	switch {
	case n.ResourceMatches:
		text += " matches"
	case n.Excluded:
		text += " excludes " + n.Resource
	case len(n.Missing) > 0:
		text += " " + n.Resource + " lacks " + strings.Join(n.Missing, " ")
	default:
		text += fmt.Sprintf(" %s wants %q got %q", n.Resolved, n.Wants, n.Got)
	}
	for _, f := range n.Failed {
		text += fmt.Sprintf(" but %s %s wants %s got %s", f.Operator, f.Key, strings.Join(f.Wanted, ","), strings.Join(f.Actual, ","))
	}
	if n.Hint != "" {
		text += " // " + n.Hint
	}
	return text
}

// renderDecision writes a decision as scripts do.
func renderDecision(d iotpolicy.Decision) string {
	text := d.Outcome.String()
	if d.Policy != "" {
		text += fmt.Sprintf(" by %s[%d]", d.Policy, d.Statement)
	}
	if len(d.Missing) > 0 {
		text += " missing " + strings.Join(d.Missing, " ")
	}
	return text
}

// TestMalformed runs testdata/malformed: each section's name is the start of
// the error about its document.
func TestMalformed(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/malformed/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, section := range archive.Files {
			_, err := iotpolicy.Parse(bytes.TrimSpace(section.Data), iotpolicy.Limits{})
			if err == nil {
				t.Errorf("%s: %s: accepted", file, section.Name)
				continue
			}
			if diff := cmp.Diff(section.Name, err.Error()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		}
	}
}

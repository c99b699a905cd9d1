package iotpolicy_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

var update = flag.Bool("update", false, "write the findings into testdata/lint instead of comparing")

// TestLint runs testdata/lint. A script has pairs of sections:
//
//	-- policy WHY --   a document
//	-- find --         a line "line:column severity code [statement]: text" for each finding
//
// It is checked on 2026-11-23 in the scope of the other scripts. Every code has
// to be found by some script.
func TestLint(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/lint/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	seen := map[string]bool{}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var found string
		for i, section := range archive.Files {
			kind, name, _ := strings.Cut(section.Name, " ")
			switch kind {
			case "policy":
				found = lintScript(t, name, section.Data, seen)
			case "find":
				if *update {
					archive.Files[i].Data = []byte(found)
				} else if diff := cmp.Diff(string(section.Data), found); diff != "" {
					t.Errorf("%s: %s (-want +got):\n%s", file, archive.Files[i-1].Name, diff)
				}
			default:
				t.Fatalf("unknown section %q", section.Name)
			}
		}
		if *update {
			if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, code := range []string{
		iotpolicy.CodeForeignScope, iotpolicy.CodeNoIoTResource, iotpolicy.CodeUnknownAction, iotpolicy.CodeMismatch, iotpolicy.CodeVariablesOff,
		iotpolicy.CodeMQTTWildcard, iotpolicy.CodeNeverTrue, iotpolicy.CodeExpired, iotpolicy.CodeNeverAllows, iotpolicy.CodeAllowEverything,
		iotpolicy.CodeAnyClientID, iotpolicy.CodeSpoofableClient, iotpolicy.CodeForeignCAField, iotpolicy.CodeReachesOthers, iotpolicy.CodeOpenEndedName,
		iotpolicy.CodeDenySubscribe, iotpolicy.CodeMissingReceive, iotpolicy.CodeVacuous, iotpolicy.CodeNotAttached, iotpolicy.CodeEqualsWildcard,
		iotpolicy.CodeAllowNotAction, iotpolicy.CodeAllowNotResource, iotpolicy.CodeRetainAlone, iotpolicy.CodeConnectOnly, iotpolicy.CodeNoConnect,
		iotpolicy.CodeAbsentKey, iotpolicy.CodeHTTPOnly, iotpolicy.CodeNoConnection,
	} {
		if !seen[code] {
			t.Errorf("no script finds %s", code)
		}
	}
}

// lintScript renders the findings about a document.
func lintScript(t *testing.T, name string, data []byte, seen map[string]bool) string {
	t.Helper()
	doc, err := iotpolicy.Parse(bytes.ReplaceAll(data, []byte("@:"), []byte(scriptScope)), iotpolicy.Limits{MaxCharacters: 8192, MaxBytes: 1 << 16})
	if err != nil {
		t.Fatalf("policy %s: %v", name, err)
	}
	var b strings.Builder
	for _, f := range doc.Lint(iotpolicy.LintOptions{
		Scope: fleet.Scope{Region: "eu-local-1", Account: "000000000001"}, Now: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC),
	}) {
		seen[f.Code] = true
		fmt.Fprintf(&b, "%d:%d %s %s [%d]: %s\n", f.Line, f.Column, f.Severity, f.Code, f.Statement, f.Text)
	}
	return strings.ReplaceAll(b.String(), scriptScope, "@:")
}

// What one document is told about is bounded, and so is the work.
func TestLintIsBounded(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(`{"Version":"2012-10-17","Statement":[`)
	for i := range 2000 {
		fmt.Fprintf(&b, `{"Effect":"Deny","Action":["iot:Subscribe","iot:Recv"],"Resource":["@:topicfilter/%d/+/*a*b*c","@:topic/%d/#"]},`, i, i)
	}
	b.WriteString(`{"Effect":"Allow","Action":"*","Resource":"*"}]}`)
	doc, err := iotpolicy.Parse([]byte(strings.ReplaceAll(b.String(), "@:", scriptScope)), iotpolicy.Limits{MaxCharacters: 1 << 20, MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if found := doc.Lint(iotpolicy.LintOptions{}); len(found) != 100 {
		t.Errorf("%d findings, want 100", len(found))
	}
}

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/apiclient"
)

// importServer creates what it is sent, refuses names that begin with bad, and
// may hold a call.
type importServer struct {
	runner

	mu     sync.Mutex
	sent   []string
	asked  []apiclient.Import
	refuse string
	// during runs in the middle of a call with things.
	during func()
}

func newImportServer(t *testing.T) *importServer {
	t.Helper()
	s := &importServer{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in apiclient.Import
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Method+" "+r.URL.Path != "POST /ops/v1/things/import" {
			http.Error(w, "what?", http.StatusNotFound)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.refuse != "" {
			w.Header().Set("x-amzn-ErrorType", "Forbidden")
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `{"message":%q}`, s.refuse)
			return
		}
		s.asked = append(s.asked, in)
		out := apiclient.Imported{Account: "000000000000", Results: []apiclient.ImportResult{}}
		for _, thing := range in.Things {
			s.sent = append(s.sent, thing.Name)
			result := apiclient.ImportResult{Result: apiclient.ImportCreated}
			if strings.HasPrefix(thing.Name, "bad") {
				result = apiclient.ImportResult{Result: apiclient.ImportError, Code: "InvalidRequest", Message: "not \x1b[31mthis"}
			}
			out.Results = append(out.Results, result)
		}
		if s.during != nil && len(in.Things) > 0 {
			s.during()
		}
		_ = json.NewEncoder(w).Encode(out)
	}))
	t.Cleanup(server.Close)
	s.runner = runner{env: map[string]string{"MUSTER_ENDPOINT_URL": server.URL, "AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "s"}}
	return s
}

// fleetFile writes a file into a folder of its own.
func fleetFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestImportThings(t *testing.T) {
	t.Parallel()
	s := newImportServer(t)
	path := fleetFile(t, "fleet.csv", "name,type,groups,attr.site\na,Pump,g;h,leeds\nbad1,,,\nb,,,\n")
	got := s.run(t.Context(), "import", "things", path)
	if got.code != 1 || !strings.HasPrefix(got.out, "imported 3 lines: 2 created, 0 updated, 0 unchanged, 1 failed, in ") {
		t.Errorf("got %+v", got)
	}
	for _, want := range []string{`line 3 bad1: InvalidRequest: not \x1b[31mthis`, "100 %: 3 lines, 1 failed", "1 of 3 lines failed; --errors FILE keeps them"} {
		if !strings.Contains(got.err, want) {
			t.Errorf("no %q in %q", want, got.err)
		}
	}
	want := apiclient.Import{Mode: "create", Things: []apiclient.ImportThing{
		{Name: "a", TypeName: "Pump", Groups: []string{"g", "h"}, Attributes: map[string]string{"site": "leeds"}},
		{Name: "bad1", Attributes: map[string]string{"site": ""}},
		{Name: "b", Attributes: map[string]string{"site": ""}},
	}}
	if diff := cmp.Diff(want, s.asked[1]); diff != "" {
		t.Error(diff)
	}
	if _, err := os.Stat(path + journalSuffix); !os.IsNotExist(err) {
		t.Errorf("a journal stays: %v", err)
	}

	report := filepath.Join(t.TempDir(), "failed.csv")
	if got := s.run(t.Context(), "import", "things", path, "--errors", report); got.code != 1 || !strings.Contains(got.err, "they are in "+report) {
		t.Errorf("got %+v", got)
	}
	text, err := os.ReadFile(report)
	if diff := cmp.Diff("error.line,error.code,error.message,error.text,name,type,groups,attr.site\n3,InvalidRequest,not \x1b[31mthis,,bad1,,,\n", string(text)); diff != "" {
		t.Error(err, diff)
	}
	if got := s.run(t.Context(), "import", "things", path, "--errors", report); got.code != 1 || !strings.Contains(got.err, "exists") {
		t.Errorf("got %+v", got)
	}
	if again, err := os.ReadFile(report); err != nil || string(again) != string(text) {
		t.Errorf("the report is now %q, %v", again, err)
	}

	ndjson := fleetFile(t, "fleet.ndjson", `{"name":"x"}`)
	s.asked = nil
	if got := s.run(t.Context(), "import", "things", ndjson, "--mode", "upsert", "--dry-run"); got.code != 0 || !strings.HasPrefix(got.out, "checked, nothing changed: 1 lines: 1 created") {
		t.Errorf("got %+v", got)
	}
	if len(s.asked) != 2 || s.asked[1].Mode != "upsert" || !s.asked[1].DryRun {
		t.Errorf("asked %+v", s.asked)
	}
	s.refuse = "User: x is not authorized"
	if got := s.run(t.Context(), "import", "things", path); got.code != 1 || !strings.Contains(got.err, s.refuse) {
		t.Errorf("got %+v", got)
	}
}

func TestImportThingsMistakes(t *testing.T) {
	t.Parallel()
	s := newImportServer(t)
	path := fleetFile(t, "fleet.csv", "name\nx\n")
	for want, args := range map[string][]string{
		"does not tell its format":   {"-"},
		"--mode \"merge\"":           {path, "--mode", "merge"},
		"--batch 0":                  {path, "--batch", "0"},
		"--batch 1001":               {path, "--batch", "1001"},
		"--concurrency 65":           {path, "--concurrency", "65"},
		"--format \"xml\"":           {path, "--format", "xml"},
		"--journal makes no sense":   {"-", "--format", "csv", "--journal", "j"},
		"--errors would overwrite":   {path, "--errors", filepath.Dir(path) + "/./fleet.csv"},
		"no such file":               {path + "x.csv"},
		"is none of name, type":      {fleetFile(t, "odd.csv", "name,colour\n")},
		"the file is empty":          {fleetFile(t, "empty.csv", "")},
		"accepts 1 arg(s)":           {},
		"is no journal of an import": {path, "--journal", fleetFile(t, "letter", "Dear all\n")},
	} {
		got := s.run(t.Context(), append([]string{"import", "things"}, args...)...)
		if got.code != 1 || !strings.Contains(got.err, want) {
			t.Errorf("%v: no %q in %+v", args, want, got)
		}
	}
	if len(s.sent) > 0 {
		t.Errorf("sent %v", s.sent)
	}
}

// Interrupted in the middle, the same command goes on where it was.
func TestImportThingsGoesOn(t *testing.T) {
	t.Parallel()
	s := newImportServer(t)
	var text strings.Builder
	text.WriteString("name\n")
	for i := range 100 {
		fmt.Fprintf(&text, "t%d\n", i)
	}
	text.WriteString("bad\n")
	path := fleetFile(t, "fleet.csv", text.String())
	report := filepath.Join(t.TempDir(), "failed.csv")
	args := []string{"import", "things", path, "--batch", "10", "--concurrency", "1", "--errors", report}
	ctx, cancel := context.WithCancel(t.Context())
	calls := 0
	s.during = func() {
		if calls++; calls == 4 {
			cancel()
		}
	}
	got := s.run(ctx, args...)
	if got.code != 1 || !strings.Contains(got.err, "interrupted") || !strings.Contains(got.err, "the same command goes on") {
		t.Fatalf("got %+v", got)
	}
	s.during = nil
	if got := s.run(t.Context(), append(args, "--mode", "upsert")...); got.code != 1 || !strings.Contains(got.err, "differs in the --mode") {
		t.Errorf("another mode: %+v", got)
	}
	got = s.run(t.Context(), args...)
	if got.code != 1 || !strings.Contains(got.out, "imported 101 lines: 100 created, 0 updated, 0 unchanged, 1 failed") ||
		!strings.Contains(got.err, " lines are done already") {
		t.Errorf("got %+v", got)
	}
	seen := map[string]int{}
	for _, name := range s.sent {
		seen[name]++
	}
	for name, n := range seen {
		if n != 1 {
			t.Errorf("%s was sent %d times", name, n)
		}
	}
	if len(seen) != 101 {
		t.Errorf("%d things were sent", len(seen))
	}
	if _, err := os.Stat(path + journalSuffix); !os.IsNotExist(err) {
		t.Errorf("a journal stays: %v", err)
	}
}

// A file that is not the one of the journal is not gone on with.
func TestImportThingsOfAChangedFile(t *testing.T) {
	t.Parallel()
	s := newImportServer(t)
	path := fleetFile(t, "fleet.csv", "name\na\nb\n")
	ctx, cancel := context.WithCancel(t.Context())
	s.during = cancel
	if got := s.run(ctx, "import", "things", path, "--batch", "1", "--concurrency", "1"); got.code != 1 {
		t.Fatalf("got %+v", got)
	}
	if err := os.WriteFile(path, []byte("name\nz\na\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := s.run(t.Context(), "import", "things", path); got.code != 1 || !strings.Contains(got.err, "differs in the content of the file") {
		t.Errorf("got %+v", got)
	}
}

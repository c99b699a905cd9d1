package cli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/testkit"
)

// TestShadows: shadows by the AWS command line, and what became of them by ours.
func TestShadows(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "aws")
	o := newOperator(t, testkit.StartServer(t))
	out := filepath.Join(t.TempDir(), "out.json")
	shadow := func(operation string, args ...string) map[string]any {
		t.Helper()
		o.must(append(append([]string{"iot-data", operation, "--thing-name", "pump"}, args...), out)...)
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		var answer map[string]any
		if err := json.Unmarshal(data, &answer); err != nil {
			t.Fatal(err)
		}
		return answer
	}
	refused := func(code, message, operation string, args ...string) {
		t.Helper()
		_, err := o.try(t.Context(), append(append([]string{"iot-data", operation, "--thing-name", "pump"}, args...), out)...)
		if err == nil || !strings.Contains(err.Error(), code) || !strings.Contains(err.Error(), message) {
			t.Errorf("%s %q: %v, want %s %s", operation, args, err, code, message)
		}
	}
	for _, name := range [][]string{nil, {"--shadow-name", "config"}} {
		with := func(args ...string) []string { return append(args, name...) }
		refused("ResourceNotFoundException", "No shadow exists with name", "get-thing-shadow", name...)
		if got := shadow("update-thing-shadow", with("--payload", `{"state":{"desired":{"mode":"eco","rate":1.50},"reported":{"mode":"max"}}}`)...); got["version"] != 1.0 {
			t.Errorf("update answers %v", got)
		}
		refused("ConflictException", "Version conflict", "update-thing-shadow", with("--payload", `{"state":{},"version":9}`)...)
		refused("InvalidRequestException", "Missing required node: state", "update-thing-shadow", with("--payload", `{}`)...)
		got := shadow("get-thing-shadow", name...)
		if diff := cmp.Diff(map[string]any{
			"desired": map[string]any{"mode": "eco", "rate": 1.5}, "reported": map[string]any{"mode": "max"}, "delta": map[string]any{"mode": "eco", "rate": 1.5},
		}, got["state"]); diff != "" {
			t.Error(diff)
		}
	}
	if got := o.must("iot-data", "list-named-shadows-for-thing", "--thing-name", "pump"); len(got["results"].([]any)) != 1 { //nolint:forcetypeassert // fails the test
		t.Errorf("named shadows %v", got)
	}
	shadow("update-thing-shadow", "--payload", `{"state":{"desired":{"mode":"max","rate":null}}}`)
	ours := func(args ...string) string {
		t.Helper()
		out, err := o.server.Muster(t.Context(), append([]string{"shadow"}, args...)...)
		if err != nil {
			t.Fatalf("muster shadow %q: %v", args, err)
		}
		return out
	}
	if got := ours("diff", "pump"); !strings.Contains(got, `changed  /desired/mode  "eco"  "max"`) || !strings.Contains(got, "removed  /desired/rate  1.50") {
		t.Errorf("diff:\n%s", got)
	}
	o.must("iot", "create-thing", "--thing-name", "pump")
	testkit.Poll(t, 10*time.Second, "the index", func() error {
		if got := names(o.must("iot", "search-index", "--query-string", "shadow.name.config.hasDelta:true"), "things", "thingName"); len(got) != 1 {
			return fmt.Errorf("found %q", got)
		}
		return nil
	})
	for query, want := range map[string]int{"": 2, "shadow.name.config.hasDelta:true": 2, "shadow.hasDelta:true": 0} {
		if got := ours("drift", "--query", query, "-o", "csv"); strings.Count(got, "pump,config,") != want || strings.Contains(got, "pump,,") {
			t.Errorf("drift of %q:\n%s", query, got)
		}
	}
	if got := ours("restore", "pump", "1", "--expect", "2"); !strings.Contains(got, `{"desired":{"mode":"eco","rate":1.50}}`) {
		t.Errorf("restore:\n%s", got)
	}
	if got := shadow("get-thing-shadow"); got["version"] != 3.0 {
		t.Errorf("restored: %v", got)
	}
	shadow("delete-thing-shadow")
	refused("ResourceNotFoundException", "No shadow exists with name: 'pump'", "delete-thing-shadow")
	got := ours("history", "pump", "-o", "csv")
	for i, want := range []string{"3,", "3,", "2,", "1,"} {
		if lines := strings.Split(got, "\n"); len(lines) < 5 || !strings.HasPrefix(lines[i+1], want) {
			t.Fatalf("history:\n%s", got)
		}
	}
	for _, want := range []string{",deleted,user ", ",restored 1,user ", ",updated,user "} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in the history:\n%s", want, got)
		}
	}
}

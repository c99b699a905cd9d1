package sdk

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iot"
)

// TestPolicyLint has the command look at policies of a server: stored ones, by
// name, version and all together, and a file that no server would take.
func TestPolicyLint(t *testing.T) {
	t.Parallel()
	o := newOperator(t, startServer(t))
	text, err := os.ReadFile("testdata/vectors/reference.txtar")
	if err != nil {
		t.Fatal(err)
	}
	_, reference, _ := strings.Cut(string(text), "-- policy reference --\n")
	reference, _, _ = strings.Cut(reference, "-- fleet --")
	reference = strings.ReplaceAll(reference, "@:", arnPrefix)
	must(o, o.CreatePolicy, &iot.CreatePolicyInput{PolicyName: new("reference"), PolicyDocument: &reference})
	if found, err := o.lint("--name", "reference"); err != nil || len(found) > 0 {
		t.Errorf("the reference policy of 6.1: %v, %v", found, err)
	}
	must(o, o.CreatePolicy, &iot.CreatePolicyInput{PolicyName: new("foreign"), PolicyDocument: new(
		"{\"Version\":\"2012-10-17\",\n \"Statement\":{\"Effect\":\"Allow\",\"Action\":\"iot:Publish\",\"Resource\":\"arn:aws:iot:eu-west-9:000000000000:topic/a\"}}")})
	must(o, o.CreatePolicyVersion, &iot.CreatePolicyVersionInput{PolicyName: new("foreign"), PolicyDocument: allowedTopic("a")})
	want := []string{"foreign:1 2:14 info no-connect", "foreign:1 2:66 error foreign-scope"}
	for _, args := range [][]string{{"--name", "foreign"}, {"--name", "foreign:1,reference"}, {"--all"}} {
		found, err := o.lint(args...)
		if err == nil || !strings.Contains(err.Error(), "1 error found") || !slices.Equal(found, want) {
			t.Errorf("%v: %v, %v", args, found, err)
		}
	}
	if found, err := o.lint("--name", "foreign:2"); err != nil || len(found) != 1 || !strings.HasPrefix(found[0], "foreign:2 ") {
		t.Errorf("version 2: %v, %v", found, err)
	}
	file := filepath.Join(t.TempDir(), "p.json")
	if err := os.WriteFile(file, []byte("{\"Version\":\"2012-10-17\",\n \"Statement\":{\"Effect\":\"Maybe\"}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if found, err := o.lint(file); err == nil || len(found) != 1 || found[0] != file+" 2:24 error malformed" {
		t.Errorf("file: %v, %v", found, err)
	}
	if _, err := o.lint("--name", "nothing"); err == nil || !strings.Contains(err.Error(), "nothing does not exist") {
		t.Errorf("unknown policy: %v", err)
	}
}

// lint runs the command and returns "SOURCE LINE:COLUMN SEVERITY CODE" for each
// finding.
func (o *operator) lint(args ...string) ([]string, error) {
	o.t.Helper()
	out, failed := o.server.Muster(o.t.Context(), append([]string{"policy", "lint", "-o", "json"}, args...)...)
	var found []struct {
		Source   string      `json:"source"`
		Severity string      `json:"severity"`
		Code     string      `json:"code"`
		Line     json.Number `json:"line"`
		Column   json.Number `json:"column"`
	}
	if out != "" {
		if err := json.Unmarshal([]byte(out), &found); err != nil {
			o.t.Fatalf("%s: %v", out, err)
		}
	}
	lines := make([]string, len(found))
	for i, f := range found {
		lines[i] = f.Source + " " + f.Line.String() + ":" + f.Column.String() + " " + f.Severity + " " + f.Code
	}
	return lines, failed
}

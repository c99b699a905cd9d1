package bulk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// reportText is the report of failures.
func reportText(t *testing.T, format Format, of *Reader, failures []Failure) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "report")
	r, err := OpenReport(path, format, of, nil)
	if err != nil {
		t.Fatal(err)
	}
	size, err := r.Add(failures)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil || int64(len(text)) != size {
		t.Fatalf("%d bytes of %d, %v", len(text), size, err)
	}
	return string(text)
}

// failAll reports every line.
func failAll(t *testing.T, format Format, text string) string {
	t.Helper()
	lines, err := read(t, format, text)
	if err != nil {
		t.Fatal(err)
	}
	of, err := NewReader(strings.NewReader(text), format)
	if err != nil {
		t.Fatal(err)
	}
	var failures []Failure
	for _, l := range lines {
		failures = append(failures, Failure{Line: l, Code: "Bad", Message: "no, not so"})
	}
	return reportText(t, format, of, failures)
}

func TestReportCSV(t *testing.T) {
	t.Parallel()
	first := failAll(t, CSV, "name,attr.a\nx,\"1,2\"\n\"open,3\n")
	want := `error.line,error.code,error.message,error.text,name,attr.a
2,Bad,"no, not so",,x,"1,2"
3,Bad,"no, not so","""open,3",,
`
	if diff := cmp.Diff(want, first); diff != "" {
		t.Error(diff)
	}
	// A report of a report has the columns once, and still all that was there.
	if diff := cmp.Diff(want, failAll(t, CSV, first)); diff != "" {
		t.Error(diff)
	}
}

func TestReportNDJSON(t *testing.T) {
	t.Parallel()
	first := failAll(t, NDJSON, `{"name":"x","attributes":{"a":"1"}}`+"\n"+`{"name":"y","name":"z"}`+"\nbro\xffken\n")
	want := `{"attributes":{"a":"1"},"error":{"line":1,"code":"Bad","message":"no, not so"},"name":"x"}
{"error":{"line":2,"code":"Bad","message":"no, not so","text":"{\"name\":\"y\",\"name\":\"z\"}"}}
{"error":{"line":3,"code":"Bad","message":"no, not so","text":"bro\ufffdken"}}
`
	if diff := cmp.Diff(want, first); diff != "" {
		t.Error(diff)
	}
	lines, err := read(t, NDJSON, first)
	if err != nil || len(lines) != 3 || lines[0].Thing.Name != "x" || lines[0].Err != nil {
		t.Errorf("read again: %v, %v", summaries(lines), err)
	}
}

// A report overwrites nothing.
func TestReportLeavesFilesAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "fleet.csv")
	if err := os.WriteFile(path, []byte("name\nx\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	of, err := NewReader(strings.NewReader("name\n"), CSV)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenReport(path, CSV, of, nil); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("got %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "name\nx\n" {
		t.Errorf("left %q, %v", text, err)
	}
}

// A report that was there before the import is left alone however often the
// import is tried: no journal may make it look like the import's own.
func TestReportOfAnotherImportIsLeftAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	report := filepath.Join(dir, "failed.csv")
	if err := os.WriteFile(report, []byte("somebody's work\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := OpenJournal(filepath.Join(dir, "journal"), Heading{Report: report}); err == nil || !strings.Contains(err.Error(), "exists") {
			t.Errorf("got %v", err)
		}
	}
	if text, err := os.ReadFile(report); err != nil || string(text) != "somebody's work\n" {
		t.Errorf("left %q, %v", text, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
}

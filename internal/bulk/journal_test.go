package bulk

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func openJournal(t *testing.T, path string, h Heading) *Journal {
	t.Helper()
	j, err := OpenJournal(path, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.file.Close() })
	return j
}

func TestJournalGoesOn(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	h := Heading{SHA256: "s", Mode: "create", Account: "1"}
	j := openJournal(t, path, h)
	if j.Resumed() {
		t.Error("a new journal is gone on with")
	}
	for _, s := range []Span{
		{From: 10, To: 19, Totals: Totals{Created: 10}},
		{From: 0, To: 4, Totals: Totals{Created: 4, Failed: 1}, Report: 70},
		{From: 20, To: 29, Totals: Totals{Unchanged: 10}, Report: 70},
	} {
		if err := j.Record(s); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenJournal(path, h); !errors.Is(err, ErrJournalLocked) {
		t.Errorf("opened twice: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	// A crash in the middle of an entry, and what a lost page would leave.
	for _, tail := range []string{"", `{"from":5,"t`, "\x00\x00\x00\n{\"from\":5,\"to\":9}\n", `{"from":9,"to":5}` + "\n"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(text, tail...), 0o600); err != nil {
			t.Fatal(err)
		}
		j = openJournal(t, path, h)
		if !j.Resumed() || j.ReportSize() != 70 {
			t.Errorf("resumed %v, report %d", j.Resumed(), j.ReportSize())
		}
		if diff := cmp.Diff(Totals{Created: 14, Unchanged: 10, Failed: 1}, j.Totals()); diff != "" {
			t.Error(diff)
		}
		done := j.Done()
		for i := range int64(40) {
			if want := i <= 4 || i >= 10 && i <= 29; done.Has(i) != want {
				t.Errorf("behind %q: line %d is done: %v", tail, i, !want)
			}
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
	j = openJournal(t, path, h)
	if err := j.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("left: %v", err)
	}
}

func TestJournalOfAnotherImport(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "journal")
	h := Heading{SHA256: "s", Format: CSV, Mode: "create", Server: "http://a", Account: "1", Report: "/r"}
	if err := openJournal(t, path, h).Close(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Heading){
		"content of the file": func(h *Heading) { h.SHA256 = "other" },
		"format":              func(h *Heading) { h.Format = NDJSON },
		"--mode":              func(h *Heading) { h.Mode = "upsert" },
		"server":              func(h *Heading) { h.Server = "http://b" },
		"account":             func(h *Heading) { h.Account = "2" },
		"--errors":            func(h *Heading) { h.Report = "" },
	} {
		other := h
		change(&other)
		if _, err := OpenJournal(path, other); err == nil || !strings.Contains(err.Error(), "differs in the "+want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	letter := filepath.Join(t.TempDir(), "letter")
	if err := os.WriteFile(letter, []byte("Dear all,\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenJournal(letter, h); err == nil || !strings.Contains(err.Error(), "no journal") {
		t.Errorf("got %v", err)
	}
	if text, err := os.ReadFile(letter); err != nil || string(text) != "Dear all,\n" {
		t.Errorf("left %q, %v", text, err)
	}
}

// Spans in any order come to the same.
func TestJournalJoinsSpans(t *testing.T) {
	t.Parallel()
	for range 200 {
		var want [200]bool
		j := &Journal{}
		for _, n := range rand.Perm(20)[:12] {
			from := int64(n * 10)
			j.add(Span{From: from, To: from + 9})
			for i := range 10 {
				want[n*10+i] = true
			}
		}
		for i := range want {
			if j.Done().Has(int64(i)) != want[i] {
				t.Fatalf("line %d is done: %v; %v", i, !want[i], j.done)
			}
		}
		for i := 1; i < len(j.done); i++ {
			if j.done[i].From <= j.done[i-1].To+1 {
				t.Fatalf("not joined: %v", j.done)
			}
		}
	}
}

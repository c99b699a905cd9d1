package shadow

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/muster-iot/muster/internal/fault"
)

// script runs one file of testdata. Its sections, in order, are
//
//	update [shadow]   a request; what follows describes its results
//	accepted, delta, documents   the documents, "none" where there is none
//	rejected          code and text of the refusal
//	get, delete, list             as named, with the expected answer
//	wait              a duration by which the clock moves on
type script struct {
	t       *testing.T
	service *Service
	now     time.Time
	updated *Updated
	err     error
}

const scriptAccount = "000000000001"

func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 40 {
		t.Fatalf("found %d scripts, want at least 40 (%v)", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := &script{t: t, now: time.Unix(1795412345, 0)}
			s.service = New(Options{Store: newMemory(t), Now: func() time.Time { return s.now }})
			for _, section := range txtar.Parse(data).Files {
				s.step(section.Name, strings.TrimSpace(string(section.Data)))
			}
		})
	}
}

func (s *script) step(name, data string) {
	s.t.Helper()
	verb, shadow, _ := strings.Cut(name, " ")
	switch verb {
	case "update":
		s.updated, s.err = s.service.Update(s.t.Context(), UpdateCommand{
			Account: scriptAccount, Thing: "pump-7", Shadow: shadow, Body: []byte(data),
		})
	case "accepted":
		s.same(name, data, s.result().AcceptedDocument())
	case "delta":
		s.same(name, data, s.result().DeltaDocument())
	case "documents":
		s.same(name, data, s.result().DocumentsDocument())
	case "rejected":
		s.refused(data)
	case "get":
		d, err := s.service.Get(s.t.Context(), scriptAccount, "pump-7", shadow)
		if s.err = err; err == nil {
			s.same(name, data, d.GetDocument("", s.now.Unix()))
		} else {
			s.refused(data)
		}
	case "delete":
		d, err := s.service.Delete(s.t.Context(), DeleteCommand{Account: scriptAccount, Thing: "pump-7", Shadow: shadow})
		if s.err = err; err == nil {
			s.same(name, data, d.AcceptedDocument(""))
		} else {
			s.refused(data)
		}
	case "list":
		names, _, err := s.service.ListNamed(s.t.Context(), scriptAccount, "pump-7", "", 100)
		if err != nil {
			s.t.Fatal(err)
		}
		if got := strings.Join(names, " "); got != data {
			s.t.Errorf("list = %q, want %q", got, data)
		}
	case "wait":
		d, err := time.ParseDuration(data)
		if err != nil {
			s.t.Fatal(err)
		}
		s.now = s.now.Add(d)
	default:
		s.t.Fatalf("unknown section %q", name)
	}
}

func (s *script) result() *Updated {
	s.t.Helper()
	if s.err != nil {
		s.t.Fatalf("update refused: %v", s.err)
	}
	return s.updated
}

func (s *script) refused(want string) {
	s.t.Helper()
	got := "accepted"
	if s.err != nil {
		got = fmt.Sprintf("%s %s", fault.CodeOf(s.err), fault.From(s.err).Message)
	}
	if got != want {
		s.t.Errorf("refusal = %q, want %q", got, want)
	}
}

// same compares documents as text without white space: order and the spelling
// of numbers count.
func (s *script) same(name, want string, got []byte) {
	s.t.Helper()
	if want == "none" {
		if got != nil {
			s.t.Errorf("%s = %s, want none", name, got)
		}
		return
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, []byte(want)); err != nil {
		s.t.Fatalf("%s: expected document: %v", name, err)
	}
	if diff := cmp.Diff(compact.String(), string(got)); diff != "" {
		s.t.Errorf("%s differs (-want +got):\n%s", name, diff)
	}
}

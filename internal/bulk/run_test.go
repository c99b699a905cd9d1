package bulk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/apiclient"
)

// server keeps things as a server would: things by name, with the last value.
type server struct {
	mu sync.Mutex
	// things are the attributes "n" by name, times how often each was sent.
	things map[string]string
	sent   map[string]int
	// answer may decide on a call instead, before it is carried out.
	answer func(call int, in apiclient.Import) error
	// lose may take the answer away after the call was carried out.
	lose func(call int) error
	// line may decide on a line.
	line  func(call int, thing apiclient.ImportThing) *apiclient.ImportResult
	calls int
	most  int
}

func (s *server) ImportThings(ctx context.Context, in apiclient.Import) (apiclient.Imported, error) {
	s.mu.Lock()
	s.calls++
	call := s.calls
	s.most = max(s.most, len(in.Things))
	s.mu.Unlock()
	// Batches overtake each other.
	timer := time.NewTimer(rand.N(20 * time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return apiclient.Imported{}, ctx.Err()
	}
	if s.answer != nil {
		if err := s.answer(call, in); err != nil {
			return apiclient.Imported{}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := apiclient.Imported{Results: make([]apiclient.ImportResult, len(in.Things))}
	for i, thing := range in.Things {
		if s.line != nil {
			if result := s.line(call, thing); result != nil {
				out.Results[i] = *result
				continue
			}
		}
		s.sent[thing.Name]++
		before, ok := s.things[thing.Name]
		after := thing.Attributes["n"]
		switch {
		case !ok:
			out.Results[i].Result = apiclient.ImportCreated
		case before == after:
			out.Results[i].Result = apiclient.ImportUnchanged
		case in.Mode == "upsert":
			out.Results[i].Result = apiclient.ImportUpdated
		default:
			out.Results[i] = apiclient.ImportResult{Result: apiclient.ImportError, Code: "ResourceAlreadyExists", Message: "differs"}
			continue
		}
		s.things[thing.Name] = after
	}
	if s.lose != nil {
		return out, s.lose(call)
	}
	return out, nil
}

func newServer() *server { return &server{things: map[string]string{}, sent: map[string]int{}} }

// names is a file of n things; every name stands there repeat times.
func names(n, repeat int) string {
	var b strings.Builder
	b.WriteString("name,attr.n\n")
	for i := range n {
		fmt.Fprintf(&b, "t%d,%d\n", i%(n/repeat), i)
	}
	return b.String()
}

// options of a run of a file.
func options(t *testing.T, s *server, text string) Options {
	t.Helper()
	r, err := NewReader(strings.NewReader(text), CSV)
	if err != nil {
		t.Fatal(err)
	}
	var last int64
	return Options{
		Sender: s, Reader: r, Mode: "create", Batch: 7, Concurrency: 4, Patience: time.Minute, Now: time.Now,
		Failed: func(f []Failure) (int64, error) {
			return 0, fmt.Errorf("line %d failed: %s", f[0].Number, f[0].Message)
		},
		Progress: func(_ Totals, offset int64) {
			if offset < last || offset > int64(len(text)) {
				t.Errorf("offset %d behind %d", offset, last)
			}
			last = offset
		},
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		totals, err := Run(t.Context(), options(t, s, names(1000, 1)))
		if err != nil || totals != (Totals{Created: 1000}) || len(s.things) != 1000 || s.most != 7 {
			t.Errorf("%+v, %v, %d things, %d at most", totals, err, len(s.things), s.most)
		}
		totals, err = Run(t.Context(), options(t, s, names(1000, 1)))
		if err != nil || totals != (Totals{Unchanged: 1000}) {
			t.Errorf("again: %+v, %v", totals, err)
		}
		if totals, err := Run(t.Context(), options(t, s, "name\n")); err != nil || totals.Lines() != 0 {
			t.Errorf("empty: %+v, %v", totals, err)
		}
	})
}

// No request is longer than a server takes, whatever the file makes of it.
func TestRunBoundsRequests(t *testing.T) {
	t.Parallel()
	for name, fill := range map[string]func(column int) (header, value string){
		"long names of columns": func(column int) (string, string) { return fmt.Sprintf("%0100d", column), "v" },
		"escapes":               func(column int) (string, string) { return strconv.Itoa(column), strings.Repeat("<\x01", 400) },
		"long values":           func(column int) (string, string) { return strconv.Itoa(column), strings.Repeat("x", 800) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				header, values := "name", ""
				for column := range 50 {
					h, v := fill(column)
					header, values = header+",attr."+h, values+","+v
				}
				var text strings.Builder
				text.WriteString(header + "\n")
				for i := range 300 {
					fmt.Fprintf(&text, "t%d%s\n", i, values)
				}
				s := newServer()
				s.answer = func(_ int, in apiclient.Import) error {
					body, err := json.Marshal(in)
					if len(body) > 4<<20 {
						t.Errorf("a request of %d bytes", len(body))
					}
					return err
				}
				o := options(t, s, text.String())
				o.Batch = MaxBatch
				if totals, err := Run(t.Context(), o); err != nil || totals.Created != 300 {
					t.Errorf("%+v, %v", totals, err)
				}
			})
		})
	}
}

// The last line of a name wins, although batches overtake each other.
func TestRunKeepsTheOrderOfAName(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.line = func(call int, _ apiclient.ImportThing) *apiclient.ImportResult {
			if call%5 == 0 && rand.IntN(3) == 0 {
				return &apiclient.ImportResult{Result: apiclient.ImportError, Code: "Throttling"}
			}
			return nil
		}
		o := options(t, s, names(600, 20))
		o.Mode = "upsert"
		totals, err := Run(t.Context(), o)
		if err != nil || totals.Lines() != 600 {
			t.Fatalf("%+v, %v", totals, err)
		}
		for i := range 30 {
			if got, want := s.things[fmt.Sprintf("t%d", i)], fmt.Sprint(570+i); got != want {
				t.Errorf("t%d is %s, want %s", i, got, want)
			}
		}
	})
}

// Calls that fail on the way or at the server are tried again; those that the
// server refuses are not.
func TestRunTriesAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		lost := []error{
			errors.New("connection refused"), &apiclient.Error{Status: http.StatusServiceUnavailable}, &apiclient.Error{Status: http.StatusTooManyRequests},
		}
		s.answer = func(call int, _ apiclient.Import) error {
			if call%3 == 0 {
				return lost[call/3%len(lost)]
			}
			return nil
		}
		// Answers that are lost after the commit.
		s.lose = func(call int) error {
			if call%7 == 0 {
				return errors.New("connection reset")
			}
			return nil
		}
		o := options(t, s, names(500, 1))
		retries := 0
		var mu sync.Mutex
		o.Retried = func(error, time.Duration) { mu.Lock(); retries++; mu.Unlock() }
		totals, err := Run(t.Context(), o)
		if err != nil || totals.Created+totals.Unchanged != 500 || len(s.things) != 500 || retries == 0 {
			t.Errorf("%+v, %v, %d things, %d retries", totals, err, len(s.things), retries)
		}

		refused := &apiclient.Error{Status: http.StatusForbidden, Type: "AccessDeniedException"}
		s.answer = func(int, apiclient.Import) error { return refused }
		calls := s.calls
		if _, err := Run(t.Context(), options(t, s, names(500, 1))); !errors.Is(err, refused) || s.calls > calls+4 {
			t.Errorf("%v after %d calls", err, s.calls-calls)
		}

		s.answer = func(int, apiclient.Import) error { return errors.New("connection refused") }
		begun := time.Now()
		if _, err := Run(t.Context(), options(t, s, names(500, 1))); err == nil || !strings.Contains(err.Error(), "given up") {
			t.Errorf("got %v", err)
		}
		if took := time.Since(begun); took < time.Minute || took > 2*time.Minute {
			t.Errorf("given up after %v", took)
		}
	})
}

// A line on which the server fails again and again is reported, not tried for
// ever.
func TestRunGivesALineUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		tries := 0
		s.line = func(_ int, thing apiclient.ImportThing) *apiclient.ImportResult {
			if thing.Name != "t3" {
				return nil
			}
			tries++
			return &apiclient.ImportResult{Result: apiclient.ImportError, Code: "InternalFailure", Message: "oops"}
		}
		o := options(t, s, names(20, 1))
		var failed []Failure
		o.Failed = func(f []Failure) (int64, error) { failed = append(failed, f...); return 0, nil }
		totals, err := Run(t.Context(), o)
		if err != nil || totals != (Totals{Created: 19, Failed: 1}) || tries != internalTries {
			t.Errorf("%+v, %v, %d tries", totals, err, tries)
		}
		if len(failed) != 1 || failed[0].Number != 5 || failed[0].Code != "InternalFailure" || failed[0].Message != "oops" {
			t.Errorf("failed %+v", failed)
		}
		for name, n := range s.sent {
			if n != 1 {
				t.Errorf("%s was sent %d times", name, n)
			}
		}
	})
}

// Interrupted again and again, wherever it is, an import ends with each line
// done once, and with the totals of all its runs.
func TestRunGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		path := filepath.Join(t.TempDir(), "journal")
		text := names(700, 1) + "bad\nt0,other\n"
		var failed []int64
		for run := range 200 {
			o := options(t, s, text)
			o.Batch = 1 + run%9
			o.Journal = openJournal(t, path, Heading{})
			o.Failed = func(f []Failure) (int64, error) {
				for _, each := range f {
					failed = append(failed, each.Number)
				}
				return int64(len(failed)), nil
			}
			ctx, cancel := context.WithTimeout(t.Context(), rand.N(60*time.Millisecond))
			totals, err := Run(ctx, o)
			cancel()
			if o.Journal.Totals() != totals {
				t.Fatalf("totals %+v, the journal has %+v", totals, o.Journal.Totals())
			}
			if err := o.Journal.Close(); err != nil {
				t.Fatal(err)
			}
			if err == nil {
				if totals != (Totals{Created: 700, Failed: 2}) {
					t.Errorf("%+v", totals)
				}
				break
			}
			if !errors.Is(err, ErrInterrupted) || errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
		slices.Sort(failed)
		if diff := cmp.Diff([]int64{702, 703}, failed); diff != "" {
			t.Error(diff)
		}
		for name, n := range s.sent {
			if n != 1 && (name != "t0" || n != 2) {
				t.Errorf("%s was sent %d times", name, n)
			}
		}
		if len(s.things) != 700 {
			t.Errorf("%d things", len(s.things))
		}
	})
}

// A server that does not answer any more does not hold an interrupted import.
func TestRunInterruptedWithoutAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := options(t, nil, names(100, 1))
		o.Sender = silent{}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		if _, err := Run(ctx, o); !errors.Is(err, ErrInterrupted) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(begun); took != time.Second+grace {
			t.Errorf("took %v", took)
		}
	})
}

type silent struct{}

func (silent) ImportThings(ctx context.Context, _ apiclient.Import) (apiclient.Imported, error) {
	<-ctx.Done()
	return apiclient.Imported{}, ctx.Err()
}

// What cannot be reported is not noted as done.
func TestRunReportFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := options(t, newServer(), names(100, 1)+"bad\n")
		full := errors.New("disk is full")
		o.Failed = func([]Failure) (int64, error) { return 0, full }
		o.Journal = openJournal(t, filepath.Join(t.TempDir(), "journal"), Heading{})
		if _, err := Run(t.Context(), o); !errors.Is(err, full) {
			t.Errorf("got %v", err)
		}
		if o.Journal.Done().Has(100) {
			t.Error("the line counts as done")
		}
	})
}

// A file that cannot be read to its end is imported up to there.
func TestRunFileBreaks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		o := options(t, s, names(100, 1)+"\"open\n"+strings.Repeat("x", 2*maxRecord))
		if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "line 102: a quoted field does not end") {
			t.Errorf("got %v", err)
		}
		if len(s.things) != 100 {
			t.Errorf("%d things", len(s.things))
		}
	})
}

package function

import (
	"context"
	"crypto/hmac"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var secret = []byte("0123456789abcdef")

func newSet(t *testing.T, definitions ...Definition) *Set {
	t.Helper()
	s, err := New(Options{
		Definitions: definitions, Secret: secret, Now: time.Now, Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// local is a script of testdata.
func local(t *testing.T, name string) Definition {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name+".sh"))
	if err != nil {
		t.Fatal(err)
	}
	return Definition{Name: name, Path: path}
}

func TestProcessAnswers(t *testing.T) {
	t.Parallel()
	s := newSet(t, local(t, "echo"))
	input := strings.Repeat("x", maxOutput)
	output, err := s.Invoke(t.Context(), "echo", []byte(input), time.Minute)
	if err != nil || string(output) != input {
		t.Errorf("%d bytes, %v", len(output), err)
	}
	if n := series(s.seconds); n != 1 {
		t.Errorf("%d series, want 1", n)
	}
}

func TestProcessSeesNoEnvironment(t *testing.T) {
	t.Setenv("MUSTER_STORE", "postgres://user:password@host")
	s := newSet(t, local(t, "env"))
	output, err := s.Invoke(t.Context(), "env", nil, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(string(output)) {
		name, _, _ := strings.Cut(line, "=")
		// The shell adds these by itself.
		if name != "PWD" && name != "SHLVL" && name != "_" && name != "OLDPWD" {
			names = append(names, name)
		}
	}
	if diff := cmp.Diff([]string{"LANG", "MUSTER_FUNCTION", "PATH"}, names, cmp.Transformer("sort", sorted)); diff != "" {
		t.Error(diff)
	}
}

func sorted(in []string) map[string]bool {
	out := map[string]bool{}
	for _, s := range in {
		out[s] = true
	}
	return out
}

func TestProcessFailures(t *testing.T) {
	t.Parallel()
	s := newSet(t, local(t, "fail"), local(t, "hang"), local(t, "flood"), local(t, "leave"))
	for name, c := range map[string]struct {
		limit time.Duration
		want  error
	}{
		"fail": {time.Minute, ErrFailed}, "hang": {200 * time.Millisecond, ErrTimeout}, "flood": {time.Minute, ErrFailed},
		"leave": {time.Minute, ErrFailed}, "nobody": {time.Minute, ErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun := time.Now()
			output, err := s.Invoke(t.Context(), name, []byte("{}"), c.limit)
			if !errors.Is(err, c.want) || output != nil {
				t.Errorf("%q, %v; want %v", output, err, c.want)
			}
			if took := time.Since(begun); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestPlacesAreBounded(t *testing.T) {
	t.Parallel()
	s := newSet(t)
	inside, leave := make(chan struct{}), make(chan struct{})
	f := &function{name: "slow", places: make(chan struct{}, maxRunning), run: func(context.Context, []byte) ([]byte, error) {
		inside <- struct{}{}
		<-leave
		return nil, nil
	}}
	s.functions["slow"] = f
	var calls sync.WaitGroup
	defer calls.Wait()
	call := func() { _, _ = s.Invoke(t.Context(), "slow", nil, time.Minute) }
	for range maxRunning {
		calls.Go(call)
		<-inside
	}
	// Nobody else gets in: this one waits for a place in vain.
	if _, err := s.Invoke(t.Context(), "slow", nil, 10*time.Millisecond); !errors.Is(err, ErrTimeout) {
		t.Errorf("got %v, want %v", err, ErrTimeout)
	}
	f.waiting.Add(maxWaiting)
	if _, err := s.Invoke(t.Context(), "slow", nil, time.Minute); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v, want %v", err, ErrBusy)
	}
	f.waiting.Add(-maxWaiting)
	close(leave)
}

func TestCallerGoesAway(t *testing.T) {
	t.Parallel()
	s := newSet(t, local(t, "hang"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Invoke(ctx, "hang", nil, time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestWebService(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		switch r.URL.Path {
		case "/good":
			if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || r.Header.Get(HeaderFunction) != "good" ||
				!hmac.Equal([]byte(r.Header.Get(HeaderSignature)), []byte(Sign(secret, time.Unix(1795412345, 0), body))) {
				w.WriteHeader(http.StatusForbidden)
			}
			_, _ = w.Write(body)
		case "/moved":
			http.Redirect(w, r, "/good", http.StatusTemporaryRedirect)
		case "/flood":
			_, _ = w.Write(make([]byte, maxOutput+1))
		case "/hang":
			<-r.Context().Done()
		default:
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(server.Close)
	var definitions []Definition
	for _, name := range []string{"good", "moved", "flood", "hang", "broken"} {
		definitions = append(definitions, Definition{Name: name, URL: server.URL + "/" + name})
	}
	definitions = append(definitions, Definition{Name: "away", URL: "http://127.0.0.1:1/?key=hidden"})
	s := newSet(t, definitions...)
	s.web.now = func() time.Time { return time.Unix(1795412345, 0) }
	output, err := s.Invoke(t.Context(), "good", []byte(`{"token":"a"}`), time.Minute)
	if err != nil || string(output) != `{"token":"a"}` {
		t.Errorf("%q, %v", output, err)
	}
	for name, want := range map[string]error{"moved": ErrFailed, "flood": ErrFailed, "broken": ErrFailed, "away": ErrFailed} {
		if _, err := s.Invoke(t.Context(), name, nil, time.Minute); !errors.Is(err, want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
	}
	if _, err := s.Invoke(t.Context(), "hang", nil, 50*time.Millisecond); !errors.Is(err, ErrTimeout) {
		t.Errorf("hang: got %v", err)
	}
}

func TestDefinitionsAreChecked(t *testing.T) {
	t.Parallel()
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]Options{
		"absent":     {Definitions: []Definition{{Name: "f", Path: "/nowhere/f"}}},
		"folder":     {Definitions: []Definition{{Name: "f", Path: t.TempDir()}}},
		"plain file": {Definitions: []Definition{{Name: "f", Path: plain}}},
		"twice":      {Definitions: []Definition{local(t, "echo"), local(t, "echo")}},
		"no secret":  {Definitions: []Definition{{Name: "f", URL: "https://example.com/f"}}},
	} {
		o.Now, o.Logger = time.Now, slog.New(slog.DiscardHandler)
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// series counts what a metric has to show.
func series(c prometheus.Collector) int {
	all := make(chan prometheus.Metric, 100)
	c.Collect(all)
	return len(all)
}

package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestBulkEditScripts runs testdata/bulkedits against a server that answers a
// request with the file named like its method and path, with - for /, and leaves
// what it was asked in the file requests, a line each. The variable TYPED is what
// somebody types.
func TestBulkEditScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/bulkedits",
		Setup: func(env *testscript.Env) error {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					return
				}
				log, err := os.OpenFile(filepath.Join(env.WorkDir, "requests"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
				if err != nil {
					return
				}
				_, err = fmt.Fprintf(log, "%s %s %s\n", r.Method, r.URL.Path, body)
				if err := log.Close(); err != nil {
					return
				}
				if err != nil {
					return
				}
				name := strings.ReplaceAll(r.Method+r.URL.Path, "/", "-")
				answer, err := os.ReadFile(filepath.Join(env.WorkDir, name))
				if err != nil {
					w.Header().Set("X-Amzn-ErrorType", "ResourceNotFound")
					w.WriteHeader(http.StatusNotFound)
					_, _ = fmt.Fprintf(w, `{"message":"no file %s"}`, name)
					return
				}
				_, _ = w.Write(answer)
			}))
			env.Defer(server.Close)
			env.Setenv("MUSTER_ENDPOINT_URL", server.URL)
			env.Setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
			env.Setenv("AWS_SECRET_ACCESS_KEY", "s")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"muster": func(ts *testscript.TestScript, neg bool, args []string) {
				o := Options{
					Out: ts.Stdout(), Err: ts.Stderr(), In: strings.NewReader(ts.Getenv("TYPED")),
					Now:       func() time.Time { return time.Date(2026, 11, 23, 3, 0, 0, 0, time.UTC) },
					LookupEnv: func(name string) (string, bool) { v := ts.Getenv(name); return v, v != "" },
				}
				if code := Execute(t.Context(), o, args); (code != 0) != neg {
					ts.Fatalf("muster ended with code %d", code)
				}
			},
		},
	})
}

// Whoever is asked for the number of things can interrupt instead of typing.
func TestInterruptedConfirmation(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/preview") {
			t.Errorf("unexpected %s %s", r.Method, r.URL.Path)
		}
		_, _ = io.WriteString(w, `{"things":3,"examined":3,"changes":3,"confirmationToken":"t"}`)
	}))
	defer server.Close()
	typed, terminal := io.Pipe()
	defer terminal.Close()
	asked, says := io.Pipe()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	ended := make(chan int, 1)
	go func() {
		defer says.Close()
		env := map[string]string{"MUSTER_ENDPOINT_URL": server.URL, "AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "s"}
		ended <- Execute(ctx, Options{
			Out: io.Discard, Err: says, In: typed, Now: time.Now,
			LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		}, []string{"things", "edit", "--query", "q", "--set-attribute", "a=b"})
	}()
	question, err := bufio.NewReader(asked).ReadString(':')
	if err != nil || question != "Type the number of things, 3, to go on:" {
		t.Fatalf("%q, %v", question, err)
	}
	interrupt()
	rest, err := io.ReadAll(asked)
	if err != nil || !strings.Contains(string(rest), "interrupted, nothing is changed") {
		t.Errorf("%q, %v", rest, err)
	}
	if code := <-ended; code == 0 {
		t.Error("it ended with code 0")
	}
}

package cli

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestConnectionScripts runs the command lines in testdata/connections against answers that the
// scripts hold: a file under answers/, named like the escaped path and query
// with _ for /, ? and &. Every request has to be one of them.
func TestConnectionScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/connections",
		Setup: func(env *testscript.Env) error {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				data, err := os.ReadFile(env.WorkDir + "/answers/" + fileName(r))
				if err != nil {
					w.WriteHeader(http.StatusNotFound)
					_, _ = fmt.Fprintf(w, `{"message":"no answer %s"}`, fileName(r))
					return
				}
				_, _ = w.Write(data)
			}))
			env.Defer(server.Close)
			env.Setenv("MUSTER_ENDPOINT_URL", server.URL)
			env.Setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
			env.Setenv("AWS_SECRET_ACCESS_KEY", "s")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"muster": func(ts *testscript.TestScript, neg bool, args []string) {
				code := Execute(t.Context(), Options{
					Out: ts.Stdout(), Err: ts.Stderr(), Now: func() time.Time { return time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC) },
					LookupEnv: func(name string) (string, bool) { v := ts.Getenv(name); return v, v != "" },
				}, args)
				if (code != 0) != neg {
					ts.Fatalf("exit code %d", code)
				}
			},
		},
	})
}

// fileName is where a request's answer is.
func fileName(r *http.Request) string {
	name := []byte(r.URL.EscapedPath()[1:])
	if r.URL.RawQuery != "" {
		name = append(append(name, '?'), r.URL.RawQuery...)
	}
	for i, c := range name {
		if c == '/' || c == '?' || c == '&' {
			name[i] = '_'
		}
	}
	return string(name)
}

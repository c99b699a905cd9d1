package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs testdata/script against a server that answers each request
// with the file answer.json and leaves what it was asked in the file request.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					return
				}
				asked := fmt.Sprintf("%s %s %s\n", r.Method, r.URL.EscapedPath(), body)
				if err := os.WriteFile(filepath.Join(env.WorkDir, "request"), []byte(asked), 0o600); err != nil {
					return
				}
				answer, err := os.ReadFile(filepath.Join(env.WorkDir, "answer.json"))
				if err != nil {
					w.WriteHeader(http.StatusNotFound)
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
					Out: ts.Stdout(), Err: ts.Stderr(),
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

package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs testdata/script against a server that answers each request
// with the file answer.json and leaves what it was asked in the file request, and
// all that it was ever asked, with queries, in the file requests. A file answers
// has lines of method, path and answer that come first; of several for one request
// each is used once and the last one stays. REFUSE before the answer makes it a
// refusal with 400, of a type whose name may follow, and SERVER in it stands for the
// server's address. The command mode wants files that only their owner can read.
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
				if err := record(filepath.Join(env.WorkDir, "requests"), r, body); err != nil {
					return
				}
				if listed, ok := listedAnswer(filepath.Join(env.WorkDir, "answers"), r.Method+" "+r.URL.EscapedPath()); ok {
					text, refused := strings.CutPrefix(listed, "REFUSE ")
					if refused {
						if name, rest, ok := strings.Cut(text, " "); ok && unicode.IsUpper(rune(name[0])) {
							w.Header().Set("X-Amzn-ErrorType", name)
							text = rest
						}
						w.WriteHeader(http.StatusBadRequest)
					}
					_, _ = io.WriteString(w, strings.ReplaceAll(text, "SERVER", "http://"+r.Host)+"\n")
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
			"mode": func(ts *testscript.TestScript, _ bool, files []string) {
				for _, file := range files {
					info, err := os.Stat(ts.MkAbs(file))
					ts.Check(err)
					if info.Mode() != 0o600 {
						ts.Fatalf("%s has mode %v", file, info.Mode())
					}
				}
			},
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

// record appends a request, and whether it was signed.
func record(path string, r *http.Request, body []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	signed := ""
	if r.Header.Get("Authorization") == "" {
		signed = "unsigned "
	}
	_, err = fmt.Fprintf(f, "%s%s %s %s\n", signed, r.Method, r.URL.RequestURI(), body)
	return errors.Join(err, f.Close())
}

// listedAnswer takes the answer to a request from a file of them.
func listedAnswer(path, request string) (string, bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", false
	}
	lines := strings.Split(string(data), "\n")
	found := []int{}
	for i, line := range lines {
		if strings.HasPrefix(line, request+" ") {
			found = append(found, i)
		}
	}
	if len(found) == 0 {
		return "", false
	}
	answer := strings.TrimPrefix(lines[found[0]], request+" ")
	if len(found) > 1 {
		lines = slices.Delete(lines, found[0], found[0]+1)
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
			return "", false
		}
	}
	return answer, true
}

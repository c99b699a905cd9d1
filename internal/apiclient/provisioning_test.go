package apiclient

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestCallerAccount asks in the query protocol and understands no other answer.
func TestCallerAccount(t *testing.T) {
	t.Parallel()
	answer := `<R xmlns="x"><GetCallerIdentityResult><Account>210000000001</Account></GetCallerIdentityResult></R>`
	c := serve(t, "sts", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != "Action=GetCallerIdentity&Version=2011-06-15" || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
			t.Errorf("asked %q, %v", body, err)
		}
		fmt.Fprint(w, answer)
	})
	if got, err := c.CallerAccount(t.Context()); err != nil || got != "210000000001" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, answer = range []string{`{}`, `<R></R>`} {
		if got, err := c.CallerAccount(t.Context()); err == nil {
			t.Errorf("%s gave %q", answer, got)
		}
	}
}

// TestReportBreaksOff: a report that ends early is no report, and its links are
// followed without credentials.
func TestReportBreaksOff(t *testing.T) {
	t.Parallel()
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.Header["Authorization"]) > 0 {
			t.Error("credentials went to the link")
		}
		w.Header().Set("Content-Length", "100")
		fmt.Fprintln(w, "{}")
	}))
	t.Cleanup(store.Close)
	c := serve(t, "iot", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"resourceLinks":["%s/part"]}`, store.URL)
	})
	var out strings.Builder
	if err := c.Report(t.Context(), &out, "t1", "ERRORS"); err == nil || !strings.Contains(err.Error(), "part 1 of 1") {
		t.Errorf("got %v after %q", err, out.String())
	}
}

package awsapi

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// plots are names that belong to accounts.
type plots map[string]fleet.Account

func (p plots) Owner(name string) (fleet.Account, bool) {
	of, ok := p[name]
	return of, ok
}

func (p plots) Closed(of fleet.Account) bool { return of == "000000000009" }

// Proven callers are refused at the names of other accounts.
func TestMisdirected(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	caller := &Caller{Account: testAccount}
	for _, c := range []struct {
		host, serverName string
		refused          bool
	}{
		{"mine", "", false},
		{"theirs", "", true},
		{"theirs:8443", "", true},
		{"localhost", "", false},
		{"mine", "mine", false},
		{"mine", "theirs", true},
		{"theirs", "mine", true},
		{"localhost", "theirs", true},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/things", nil)
		r.Host = c.host
		if c.serverName != "" {
			r.TLS = &tls.ConnectionState{ServerName: c.serverName}
		}
		if s.options.Directory = nil; s.misdirected(r, caller) != nil {
			t.Errorf("%+v: refused without a directory", c)
		}
		s.options.Directory = plots{"mine": testAccount, "theirs": "000000000002"}
		p := s.misdirected(r, caller)
		if (p != nil) != c.refused || p != nil && p.status != http.StatusForbidden {
			t.Errorf("%+v: %+v", c, p)
		}
		if err := s.misdirectedFault(r, caller); (err != nil) != c.refused || err != nil && fault.CodeOf(err) != fault.Unauthorized {
			t.Errorf("%+v: %v", c, err)
		}
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/things", nil)
	if p := s.misdirected(r, &Caller{Account: "000000000009"}); p == nil || p.name != "UnrecognizedClientException" {
		t.Errorf("a closed account: %+v", p)
	}
}

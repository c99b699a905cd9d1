package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseRole(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]RoleFor{
		"ops=operator":    {Value: "ops", Role: "operator"},
		"cn=ops=operator": {Value: "cn=ops", Role: "operator"},
		"ops=arn:aws:iam::000000000042:role/watcher": {Value: "ops", Account: "000000000042", Role: "watcher"},
	} {
		got, err := ParseRole(text)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Error(diff, err)
		}
	}
	for _, text := range []string{"", "ops", "=x", "x=", "x=arn:aws:iam::12:role/a", "x=arn:aws:iam::000000000042:user/a"} {
		if got, err := ParseRole(text); err == nil {
			t.Errorf("%q is %+v", text, got)
		}
	}
}

func TestSignInIsChecked(t *testing.T) {
	t.Parallel()
	whole := OIDC{
		Issuer: "https://id.example", ClientID: "muster", RedirectURL: "https://iot.example" + OIDCCallback, Claim: "groups", Roles: []string{"a=b"},
	}
	for says, change := range map[string]func(*SignIn){
		"":                                  func(*SignIn) {},
		"sign-in.session":                   func(s *SignIn) { s.Session = 13 * time.Hour },
		"sign-in.max-failures":              func(s *SignIn) { s.MaxFailures = 0 },
		"sign-in.max-failures-total":        func(s *SignIn) { s.MaxFailuresTotal = 1 },
		"sign-in.failure-window":            func(s *SignIn) { s.FailureWindow = 0 },
		"sign-in.oidc.issuer":               func(s *SignIn) { s.OIDC.Issuer = "http://id.example" },
		"sign-in.oidc.issuer must":          func(s *SignIn) { s.OIDC.Issuer = "" },
		"sign-in.oidc.client-id":            func(s *SignIn) { s.OIDC.ClientID = "" },
		"sign-in.oidc.redirect-url":         func(s *SignIn) { s.OIDC.RedirectURL = "https://iot.example/" },
		"sign-in.oidc.redirect-url address": func(s *SignIn) { s.OIDC.RedirectURL = "http://iot.example" + OIDCCallback },
		"sign-in.oidc.claim":                func(s *SignIn) { s.OIDC.Claim = "" },
		"sign-in.oidc.role-map":             func(s *SignIn) { s.OIDC.Roles = nil },
		"sign-in.oidc.role-map entry":       func(s *SignIn) { s.OIDC.Roles = []string{"a=b", "x"} },
	} {
		s := Default()
		s.SignIn.OIDC = whole
		change(&s.SignIn)
		problems := s.validate()
		path, _, _ := strings.Cut(says, " ")
		if says == "" && len(problems) > 0 || says != "" && (len(problems) != 1 || problems[0].Path != path) {
			t.Errorf("%q: %v", says, problems)
		}
	}
}

package config

import (
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
)

// SignIn is how people sign in to the console.
type SignIn struct {
	// Session is how long they are in.
	Session time.Duration
	// MaxFailures bounds failures of one user from one address in FailureWindow,
	// MaxFailuresTotal those of everybody.
	MaxFailures      int
	MaxFailuresTotal int
	FailureWindow    time.Duration
	OIDC             OIDC
}

// OIDC is a provider of OpenID Connect that vouches for people; none without an
// Issuer.
type OIDC struct {
	Issuer, ClientID, ClientSecretFile, RedirectURL string

	Scopes []string
	// Claim is what Roles are mapped by: VALUE=ROLE, read by ParseRole.
	Claim string
	Roles []string
}

// RoleFor is a role for those of whom the provider says Value. Account is empty
// for the default one.
type RoleFor struct {
	Value   string
	Account fleet.Account
	Role    string
}

// OIDCCallback is the path that redirect-url must have.
const OIDCCallback = "/ops/v1/sign-in/oidc/callback"

// Bounds of a session, those of the credentials behind it.
const (
	shortestSession = 15 * time.Minute
	longestSession  = 12 * time.Hour
)

// ParseRole reads VALUE=ROLE, where ROLE is a name or the ARN of a role. The value
// may have equals signs.
func ParseRole(text string) (RoleFor, error) {
	at := strings.LastIndexByte(text, '=')
	if at < 1 || at == len(text)-1 {
		return RoleFor{}, errors.New("is not VALUE=ROLE")
	}
	found := RoleFor{Value: text[:at], Role: text[at+1:]}
	if rest, ok := strings.CutPrefix(found.Role, "arn:"+fleet.Partition+":iam::"); ok {
		account, role, ok := strings.Cut(rest, ":role/")
		found.Account, found.Role = fleet.Account(account), role
		if !ok || !found.Account.Valid() || role == "" {
			return RoleFor{}, errors.New("has an ARN that is none of a role")
		}
	}
	return found, nil
}

// validateSignIn checks bounds, and that a provider is described as a whole.
func (s *Settings) validateSignIn(c *checker) {
	in := &s.SignIn
	c.require(in.Session >= shortestSession && in.Session <= longestSession, "sign-in.session", "must be from %v to %v", shortestSession, longestSession)
	c.require(in.MaxFailures >= 1, "sign-in.max-failures", "must be at least 1")
	c.require(in.MaxFailuresTotal >= in.MaxFailures, "sign-in.max-failures-total", "must be at least sign-in.max-failures")
	c.require(in.FailureWindow >= time.Second && in.FailureWindow <= 24*time.Hour, "sign-in.failure-window", "must be from 1s to 24h")
	o := &in.OIDC
	if o.Issuer == "" {
		c.require(o.ClientID == "" && o.ClientSecretFile == "" && o.RedirectURL == "" && len(o.Roles) == 0, "sign-in.oidc.issuer", "must be set when another setting of sign-in.oidc is")
		return
	}
	c.require(secureURL(o.Issuer), "sign-in.oidc.issuer", "%q is not an https:// URL; without TLS it must be on this machine", o.Issuer)
	c.require(o.ClientID != "", "sign-in.oidc.client-id", "must be set with sign-in.oidc.issuer")
	u, err := url.Parse(o.RedirectURL)
	c.require(err == nil && secureURL(o.RedirectURL) && u.Path == OIDCCallback && u.RawQuery == "", "sign-in.oidc.redirect-url",
		"must be the address of %s on this server", OIDCCallback)
	c.require(o.Claim != "", "sign-in.oidc.claim", "must not be empty")
	c.require(len(o.Roles) > 0, "sign-in.oidc.role-map", "must map at least one value, or nobody gets in")
	for i, text := range o.Roles {
		_, err := ParseRole(text)
		c.require(err == nil, "sign-in.oidc.role-map", "entry %d %v", i+1, err)
	}
}

// secureURL reports whether an address has TLS or stays on this machine.
func secureURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Host != "" && u.User == nil && u.Fragment == "" && (u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()))
}

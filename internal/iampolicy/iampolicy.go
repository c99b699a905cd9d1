// Package iampolicy is the language of operators' policies: what users, groups
// and roles may do, and who may take a role. Grammar, patterns, operators and
// decisions are those of iotpolicy; the condition keys and variables are of
// operators' requests.
//
// A condition key or variable that is not known is refused with its place, also
// where it could only narrow: a condition that never holds is a mistake that
// would be found on the day it is needed.
//
// The package is pure: no clock, no input or output, no goroutines. It knows no
// store and no wire.
package iampolicy

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// MaxCharacters bounds a document, without white space.
const MaxCharacters = 6144

// maxBytes bounds the whole text of a document.
const maxBytes = 65536

// Condition keys of operators' requests.
const (
	keyPrincipalARN     = "aws:PrincipalArn"
	keyPrincipalAccount = "aws:PrincipalAccount"
	keyPrincipalType    = "aws:PrincipalType"
	keyUserName         = "aws:username"
	keyUserID           = "aws:userid"
	keyTokenIssueTime   = "aws:TokenIssueTime"
	keySecureTransport  = "aws:SecureTransport"
	keyRequestedRegion  = "aws:RequestedRegion"
	keyExternalID       = "sts:ExternalId"
	keySessionName      = "sts:RoleSessionName"
)

// Principal types, the values of aws:PrincipalType.
const (
	TypeAccount     = "Account"
	TypeUser        = "User"
	TypeAssumedRole = "AssumedRole"
)

// requestKeys are the keys that every request of an operator can have.
func requestKeys() []iotpolicy.Key {
	return []iotpolicy.Key{
		{Name: keyPrincipalARN, Variable: true},
		{Name: keyPrincipalAccount, Variable: true},
		{Name: keyPrincipalType, Variable: true},
		{Name: keyUserName, Variable: true},
		{Name: keyUserID, Variable: true},
		{Name: keyTokenIssueTime},
		{Name: keySecureTransport},
		{Name: keyRequestedRegion},
	}
}

// Request is what policies can know about who asks, and how. A zero field has
// no value.
type Request struct {
	// PrincipalARN is that of the role for a session in a role.
	PrincipalARN string
	Account      fleet.Account
	// Type is TypeAccount, TypeUser or TypeAssumedRole.
	Type string
	// UserName is empty for sessions in a role and for root.
	UserName string
	// UserID is the user's unique id, or that of a role with the session's name.
	UserID   string
	SourceIP netip.Addr
	// TokenIssued is when the session began.
	TokenIssued time.Time
	Secure      bool
	Region      string
	Now         time.Time
	// ExternalID and SessionName are those of AssumeRole.
	ExternalID, SessionName string
}

// Context is the request as policies are compiled for it.
func (r *Request) Context() *iotpolicy.Context {
	keys := map[string][]string{keySecureTransport: {strconv.FormatBool(r.Secure)}}
	set := func(name, value string) {
		if value != "" {
			keys[name] = []string{value}
		}
	}
	set(keyPrincipalARN, r.PrincipalARN)
	set(keyPrincipalAccount, string(r.Account))
	set(keyPrincipalType, r.Type)
	set(keyUserName, r.UserName)
	set(keyUserID, r.UserID)
	set(keyRequestedRegion, r.Region)
	set(keyExternalID, r.ExternalID)
	set(keySessionName, r.SessionName)
	if !r.TokenIssued.IsZero() {
		set(keyTokenIssueTime, r.TokenIssued.UTC().Format(time.RFC3339))
	}
	return &iotpolicy.Context{SourceIP: r.SourceIP, Now: r.Now, Keys: keys}
}

// limits of every document.
func limits() iotpolicy.Limits {
	return iotpolicy.Limits{MaxCharacters: MaxCharacters, MaxBytes: maxBytes}
}

// Parse checks a policy of operators. The error is an *iotpolicy.SyntaxError.
func Parse(document string) (*iotpolicy.Document, error) {
	return iotpolicy.ParseDialect([]byte(document), limits(), &iotpolicy.Dialect{ //nolint:wrapcheck // it says what and where
		Noun: "an operator policy", Keys: requestKeys(),
	})
}

// ParseTrust checks the policy of a role that says who may take it: its
// statements name principals and the action sts:AssumeRole.
func ParseTrust(document string) (*iotpolicy.Document, error) {
	return iotpolicy.ParseDialect([]byte(document), limits(), &iotpolicy.Dialect{ //nolint:wrapcheck // it says what and where
		Noun: "a trust policy", Keys: append(requestKeys(), iotpolicy.Key{Name: keyExternalID}, iotpolicy.Key{Name: keySessionName}),
		Principal: trusted,
	})
}

// trusted turns a principal of a trust policy into a pattern of ARNs: an account
// stands for everybody in it.
func trusted(name string) (string, error) {
	if name == "*" {
		return name, nil
	}
	if account := fleet.Account(name); account.Valid() {
		return wholeAccount(account), nil
	}
	parts := strings.SplitN(name, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[1] != fleet.Partition || parts[3] != "" || !fleet.Account(parts[4]).Valid() {
		return "", errors.New("a principal is an account, the ARN of a root, a user, a role or a session in a role, or an asterisk")
	}
	if strings.ContainsAny(name, "*?$") {
		return "", errors.New("the ARN of a principal takes neither wildcards nor variables; name an account and add a condition on aws:PrincipalArn")
	}
	kind, rest, _ := strings.Cut(parts[5], "/")
	switch {
	case parts[2] == "iam" && parts[5] == "root":
		return wholeAccount(fleet.Account(parts[4])), nil
	case parts[2] == "iam" && (kind == "user" || kind == "role") && rest != "":
		return name, nil
	case parts[2] == "sts" && kind == "assumed-role" && strings.Count(rest, "/") == 1:
		return name, nil
	}
	return "", errors.New("a principal is an account, the ARN of a root, a user, a role or a session in a role, or an asterisk")
}

// wholeAccount matches everybody in an account.
func wholeAccount(account fleet.Account) string {
	return "arn:" + fleet.Partition + ":*::" + string(account) + ":*"
}

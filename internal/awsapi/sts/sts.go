// Package sts is the adapter of the security token service: who a caller is, and
// sessions in a role. It decodes, calls, encodes, and decides nothing; it starts
// no goroutines.
package sts

import (
	"context"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/account"
	"github.com/muster-iot/muster/internal/audit"
	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// version is that of the service's model.
const version = "2011-06-15"

// Operators is what this adapter calls.
type Operators interface {
	Assume(ctx context.Context, caller fleet.Principal, in account.AssumeRole) (account.Session, error)
	Whoami(ctx context.Context, caller fleet.Principal) (string, error)
}

// Deps are what Register needs.
type Deps struct {
	Operators Operators
	// Proven adds to a context how the caller was proven.
	Proven func(ctx context.Context, caller awsapi.Caller) context.Context
}

// Register adds the operations to a server.
func Register(s *awsapi.Server, d Deps) {
	a := &adapter{d}
	s.HandleQuery(catalog.STS, version, "GetCallerIdentity", a.callerIdentity)
	s.HandleQuery(catalog.STS, version, "AssumeRole", a.assumeRole)
}

type adapter struct{ Deps }

// callerIdentity is the result of GetCallerIdentity.
type callerIdentity struct {
	Arn     string `xml:"Arn"`
	UserID  string `xml:"UserId"`
	Account string `xml:"Account"`
}

// callerIdentity needs no permission: everybody may know who they are.
func (a *adapter) callerIdentity(ctx context.Context, call *awsapi.QueryCall) (any, error) {
	if err := only(call); err != nil {
		return nil, err
	}
	id, err := a.Operators.Whoami(a.Proven(ctx, call.Caller), call.Caller.Principal)
	if err != nil {
		return nil, err //nolint:wrapcheck // it is a fault
	}
	return callerIdentity{Arn: call.Caller.Principal.ARN, UserID: id, Account: string(call.Caller.Account)}, nil
}

// assumedRole is the result of AssumeRole.
type assumedRole struct {
	Credentials     credentials `xml:"Credentials"`
	AssumedRoleUser struct {
		AssumedRoleID string `xml:"AssumedRoleId"`
		Arn           string `xml:"Arn"`
	} `xml:"AssumedRoleUser"`
}

// credentials of a session.
type credentials struct {
	AccessKeyID     string `xml:"AccessKeyId"`
	SecretAccessKey string `xml:"SecretAccessKey"`
	SessionToken    string `xml:"SessionToken"`
	Expiration      string `xml:"Expiration"`
}

// assumeRole takes a role.
func (a *adapter) assumeRole(ctx context.Context, call *awsapi.QueryCall) (any, error) {
	if err := only(call, "RoleArn", "RoleSessionName", "DurationSeconds", "ExternalId"); err != nil {
		return nil, err
	}
	in := account.AssumeRole{
		RoleARN: call.Form.Get("RoleArn"), SessionName: call.Form.Get("RoleSessionName"), ExternalID: call.Form.Get("ExternalId"),
	}
	if text := call.Form.Get("DurationSeconds"); text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil || seconds <= 0 {
			return nil, fault.New(fault.InvalidRequest, "DurationSeconds must be a positive number")
		}
		in.Seconds = seconds
	}
	trail := audit.From(ctx)
	if found := roleARN.FindStringSubmatch(in.RoleARN); found != nil {
		trail.About(in.RoleARN)
		trail.Reaches(fleet.Account(found[1]))
	}
	session, err := a.Operators.Assume(a.Proven(ctx, call.Caller), call.Caller.Principal, in)
	if err != nil {
		return nil, err //nolint:wrapcheck // it is a fault
	}
	var out assumedRole
	out.Credentials = credentials{
		AccessKeyID: session.ID, SecretAccessKey: session.Secret, SessionToken: session.Token,
		Expiration: session.Until.UTC().Format(time.RFC3339),
	}
	out.AssumedRoleUser.AssumedRoleID, out.AssumedRoleUser.Arn = session.Principal.ID, session.Principal.ARN
	return out, nil
}

// roleARN is how roles are named; the account is its group.
var roleARN = regexp.MustCompile(`^arn:[a-z-]+:iam::([0-9]{12}):role/[\w+=,.@-]{1,64}$`)

// only refuses members that are not modelled, rather than to ignore what may
// have been meant as a restriction, and members that come twice.
func only(call *awsapi.QueryCall, known ...string) error {
	for name, values := range call.Form {
		member, _, _ := strings.Cut(name, ".")
		found := false
		for _, k := range known {
			found = found || k == name
		}
		switch {
		case !found && offeredByAWS(member):
			return fault.New(fault.NotOffered, "The member %s is not offered by this version of Muster", member)
		case !found:
			return fault.New(fault.InvalidRequest, "The parameter %.64q is not known", name)
		case len(values) != 1:
			return fault.New(fault.InvalidRequest, "The parameter %s is given twice", name)
		}
	}
	return nil
}

// offeredByAWS tells members that exist from those that do not.
func offeredByAWS(member string) bool {
	switch member {
	case "Policy", "PolicyArns", "Tags", "TransitiveTagKeys", "SerialNumber", "TokenCode", "SourceIdentity", "ProvidedContexts":
		return true
	}
	return false
}

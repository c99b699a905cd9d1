package account

import (
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// trust lets a principal take a role, under a condition if there is one.
func trust(principal, condition string) string {
	if condition != "" {
		condition = `,"Condition":` + condition
	}
	return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"` + principal + `"},"Action":"sts:AssumeRole"` + condition + `}]}`
}

const roleARN = "arn:aws:iam::000000000042:role/fixer"

// role makes a role that may update things.
func (r *rig) role(trust string) {
	r.t.Helper()
	_, err := r.CreateRole(r.t.Context(), acct, "fixer", RoleSpec{Trust: trust})
	r.ok(err)
	r.ok(r.PutInlinePolicy(r.t.Context(), acct, Owner{"role", "fixer"}, "work", allow("iot:UpdateThing", "*")))
}

// assume takes the role for an hour.
func (r *rig) assume(p fleet.Principal) (Session, error) {
	return r.Assume(r.t.Context(), p, AssumeRole{RoleARN: roleARN, SessionName: "night-shift"})
}

func TestWhoMayTakeARole(t *testing.T) {
	t.Parallel()
	const (
		root  = "arn:aws:iam::000000000042:root"
		alice = "arn:aws:iam::000000000042:user/alice"
	)
	denied := `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"sts:*","Resource":"*"}}`
	for name, c := range map[string]struct {
		trust, own string
		ok         bool
	}{
		"account trusted, user may":      {trust(root, ""), allow("sts:AssumeRole", roleARN), true},
		"account number":                 {trust("000000000042", ""), allow("sts:AssumeRole", roleARN), true},
		"account trusted, user may not":  {trust(root, ""), "", false},
		"user named":                     {trust(alice, ""), "", true},
		"user named, own denial":         {trust(alice, ""), denied, false},
		"other user named":               {trust(alice+"2", ""), allow("sts:AssumeRole", "*"), false},
		"other account":                  {trust("000000000043", ""), allow("sts:AssumeRole", "*"), false},
		"other role allowed":             {trust(root, ""), allow("sts:AssumeRole", roleARN+"2"), false},
		"condition that does not hold":   {trust(alice, `{"StringEquals":{"sts:ExternalId":"x"}}`), "", false},
		"condition on the session":       {trust(alice, `{"StringLike":{"sts:RoleSessionName":"night-*"}}`), "", true},
		"everybody, with own permission": {trust("*", ""), allow("sts:AssumeRole", "*"), true},
		"everybody, without":             {trust("*", ""), "", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.role(c.trust)
			p, _ := r.user("alice")
			if c.own != "" {
				r.ok(r.PutInlinePolicy(t.Context(), acct, Owner{"user", "alice"}, "own", c.own))
			}
			_, err := r.assume(p)
			if (err == nil) != c.ok || err != nil && fault.CodeOf(err) != fault.Forbidden {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestNamedUnderAFailingCondition holds that naming somebody under a condition
// that fails does not spare the own permission.
func TestNamedUnderAFailingCondition(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.role(`{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::000000000042:root"},"Action":"sts:AssumeRole"},
		{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::000000000042:user/alice"},"Action":"sts:AssumeRole","Condition":{"Bool":{"aws:SecureTransport":"true"}}}]}`)
	p, _ := r.user("alice")
	_, err := r.assume(p)
	want(t, err, "not authorized to perform: sts:AssumeRole")
}

func TestExternalID(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.role(trust("arn:aws:iam::000000000042:user/alice", `{"StringEquals":{"sts:ExternalId":"s3cret"}}`))
	p, _ := r.user("alice")
	for id, ok := range map[string]bool{"s3cret": true, "other": false, "": false} {
		_, err := r.Assume(t.Context(), p, AssumeRole{RoleARN: roleARN, SessionName: "s1", ExternalID: id})
		if (err == nil) != ok {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestTrustPoliciesAreChecked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for document, text := range map[string]string{
		"": "needs a trust policy",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole"}]}`:                                    "neither Principal",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"iot.amazonaws.com"},"Action":"sts:*"}]}`: `kind "Service" are not offered`,
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","NotPrincipal":"*","Action":"sts:*"}]}`:                          "has no NotPrincipal",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"sts:*","Resource":"*"}]}`:              "has no Resource",
		trust("arn:aws:iam::000000000042:user/*", ""):                                                                            "takes neither wildcards",
		trust("arn:aws:iam::000000000042:group/all", ""):                                                                         "a principal is",
		trust("alice", ""): "a principal is",
	} {
		_, err := r.CreateRole(t.Context(), acct, "fixer", RoleSpec{Trust: document})
		if fault.CodeOf(err) != fault.MalformedPolicy || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: got %v", document, err)
		}
	}
}

func TestSessionsActAsTheRole(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.role(trust("arn:aws:iam::000000000042:user/alice", ""))
	p, _ := r.user("alice", "MusterViewer")
	s, err := r.assume(p)
	r.ok(err)
	if !strings.HasPrefix(s.ID, "ASIA") || s.Until.Sub(r.now) != time.Hour || s.Principal.ARN != "arn:aws:sts::000000000042:assumed-role/fixer/night-shift" {
		t.Errorf("got %+v", s)
	}
	if strings.Contains(s.Token, s.Secret) {
		t.Error("the token shows the secret")
	}
	open, err := New(r.options).OpenSession(t.Context(), s.ID, s.Token) // a restart
	r.ok(err)
	if open != s {
		t.Errorf("got %+v, want %+v", open, s)
	}
	proof := Proof{AccessKeyID: s.ID, SessionBegan: s.Began}
	want(t, r.may(s.Principal, proof, "iot:UpdateThing", thing+"a"), "")
	want(t, r.may(s.Principal, proof, "iot:ListThings", "*"), "User: arn:aws:sts::000000000042:assumed-role/fixer/night-shift is not authorized")
	for name, c := range map[string][2]string{
		"other key":  {"ASIAAAAAAAAAAAAAAAAA", s.Token},
		"altered":    {s.ID, s.Token[:40] + "AAAA" + s.Token[44:]},
		"no base64":  {s.ID, "?" + s.Token},
		"too long":   {s.ID, strings.Repeat("A", 10000)},
		"short":      {s.ID, "AAAA"},
		"of another": {s.ID, ""},
	} {
		if _, err := r.OpenSession(t.Context(), c[0], c[1]); fault.CodeOf(err) != fault.Unauthorized {
			t.Errorf("%s: %v", name, err)
		}
	}
	stranger := newRig(t)
	stranger.options.SessionKey = []byte(strings.Repeat("k", 32))
	if _, err := stranger.OpenSession(t.Context(), s.ID, s.Token); fault.CodeOf(err) != fault.Unauthorized {
		t.Errorf("another installation takes the token: %v", err)
	}
}

func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*rig) error{
		"revoked": func(r *rig) error { return r.RevokeSessions(r.t.Context(), acct, Owner{"role", "fixer"}) },
		"deleted": func(r *rig) error { return r.DeleteRole(r.t.Context(), acct, "fixer") },
		"made anew": func(r *rig) error {
			r.ok(r.DeleteRole(r.t.Context(), acct, "fixer"))
			r.role(trust("arn:aws:iam::000000000042:user/alice", ""))
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.role(trust("arn:aws:iam::000000000042:user/alice", ""))
			p, _ := r.user("alice")
			s, err := r.assume(p)
			r.ok(err)
			proof := Proof{AccessKeyID: s.ID, SessionBegan: s.Began}
			want(t, r.may(s.Principal, proof, "iot:UpdateThing", thing+"a"), "")
			r.pass(time.Minute)
			r.ok(end(r))
			want(t, r.may(s.Principal, proof, "iot:UpdateThing", thing+"a"), "no longer in force")
			if _, err := r.OpenSession(t.Context(), s.ID, s.Token); fault.CodeOf(err) != fault.Unauthorized {
				t.Errorf("got %v", err)
			}
			if name != "revoked" {
				return
			}
			r.pass(time.Minute)
			again, err := r.assume(p)
			r.ok(err)
			want(t, r.may(again.Principal, Proof{AccessKeyID: again.ID, SessionBegan: again.Began}, "iot:UpdateThing", thing+"a"), "")
		})
	}
}

func TestUserSessions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user("alice", "MusterViewer")
	s, err := r.UserSession(t.Context(), acct, "alice", time.Hour)
	r.ok(err)
	proof := Proof{AccessKeyID: s.ID, SessionBegan: s.Began}
	want(t, r.may(s.Principal, proof, "iot:ListThings", "*"), "")
	r.ok(r.DeleteUser(t.Context(), acct, "alice"))
	r.user("alice", "MusterViewer") // another person
	if _, err := r.OpenSession(t.Context(), s.ID, s.Token); fault.CodeOf(err) != fault.Unauthorized {
		t.Errorf("the session of the one is good for the other: %v", err)
	}
}

func TestSessionLengths(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.role(trust("000000000042", ""))
	root := RootPrincipal(acct)
	var proof Proof
	try := func(p fleet.Principal, seconds int) error {
		_, err := r.Assume(WithProof(t.Context(), proof), p, AssumeRole{RoleARN: roleARN, SessionName: "s1", Seconds: seconds})
		return err
	}
	for seconds, ok := range map[int]bool{0: true, 899: false, 900: true, 3600: true, 3601: false, 43200: false, 43201: false} {
		if err := try(root, seconds); (err == nil) != ok || err != nil && fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%d: %v", seconds, err)
		}
	}
	_, err := r.UpdateRole(t.Context(), acct, "fixer", RoleSpec{MaxSession: 43200})
	r.ok(err)
	r.ok(try(root, 43200))
	s, err := r.assume(root)
	r.ok(err)
	r.ok(r.PutInlinePolicy(t.Context(), acct, Owner{"role", "fixer"}, "chain", allow("sts:AssumeRole", "*")))
	if err := try(s.Principal, 3600); fault.CodeOf(err) != fault.Forbidden {
		t.Errorf("a session that nobody says the begin of: %v", err)
	}
	proof = Proof{AccessKeyID: s.ID, SessionBegan: s.Began}
	r.ok(try(s.Principal, 3600))
	if err := try(s.Principal, 3601); fault.CodeOf(err) != fault.InvalidRequest {
		t.Errorf("chained for longer than an hour: %v", err)
	}
	for _, in := range []AssumeRole{{RoleARN: roleARN, SessionName: "x"}, {RoleARN: roleARN, SessionName: "a b"}, {RoleARN: "fixer", SessionName: "ab"}, {RoleARN: roleARN, SessionName: "ab", ExternalID: "é!"}} {
		if _, err := r.Assume(t.Context(), root, in); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%+v: %v", in, err)
		}
	}
	if _, err := r.Assume(t.Context(), root, AssumeRole{RoleARN: roleARN + "x", SessionName: "ab"}); fault.CodeOf(err) != fault.Forbidden {
		t.Errorf("a role that is not there: %v", err)
	}
}

// TestConditionsSpeakOfTheRole: aws:PrincipalArn of a session is the role's ARN,
// as IAM has it, for own policies and for trust policies.
func TestConditionsSpeakOfTheRole(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const role = "arn:aws:iam::000000000042:role/"
	r.role(trust("000000000042", ""))
	s, err := r.assume(RootPrincipal(acct))
	r.ok(err)
	proof := Proof{AccessKeyID: s.ID, SessionBegan: s.Began}
	r.ok(r.PutInlinePolicy(t.Context(), acct, Owner{"role", "fixer"}, "work", `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":["iot:*","sts:*"],"Resource":"*"},
		{"Effect":"Deny","Action":"iot:DeleteThing","Resource":"*","Condition":{"ArnNotLike":{"aws:PrincipalArn":"`+role+`fixer"}}},
		{"Effect":"Deny","Action":"iot:CreateThing","Resource":"*","Condition":{"ArnLike":{"aws:PrincipalArn":"`+role+`fix*"}}}]}`))
	want(t, r.may(s.Principal, proof, "iot:DeleteThing", thing+"a"), "")
	want(t, r.may(s.Principal, proof, "iot:CreateThing", thing+"a"), "explicit deny")
	for name, ok := range map[string]bool{"fixer": true, "other": false} {
		next := "next-" + name
		_, err := r.CreateRole(t.Context(), acct, next, RoleSpec{Trust: trust("000000000042", `{"ArnEquals":{"aws:PrincipalArn":"`+role+name+`"}}`)})
		r.ok(err)
		_, err = r.Assume(WithProof(t.Context(), proof), s.Principal, AssumeRole{RoleARN: role + next, SessionName: "chained"})
		if (err == nil) != ok {
			t.Errorf("a trust in %s: %v", name, err)
		}
	}
}

// TestSessionsOfAnotherUserOfTheName holds that who is connected by a session of a
// user that is gone does not act as the next one.
func TestSessionsOfAnotherUserOfTheName(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user("alice", "MusterViewer")
	s, err := r.UserSession(t.Context(), acct, "alice", time.Hour)
	r.ok(err)
	r.pass(time.Minute)
	r.ok(r.DeleteUser(t.Context(), acct, "alice"))
	r.user("alice", "MusterViewer")
	ctx := WithProof(t.Context(), Proof{AccessKeyID: s.ID, SessionBegan: s.Began})
	want(t, r.Authorize(ctx, s.Principal, "iot:ListThings", "*"), "no longer in force")
	want(t, r.Valid(ctx, s.Principal), "no longer in force")
}

// TestClosedAccountsGiveNoSessions: they would be good once it is opened again.
func TestClosedAccountsGiveNoSessions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const other = fleet.Account("000000000043")
	r.options.Default = other
	_, err := r.Root(t.Context(), acct)
	r.ok(err)
	r.role(trust("000000000042", ""))
	r.user("alice")
	for _, closed := range []bool{false, true, false} {
		change := r.ReopenAccount
		if closed {
			change = r.CloseAccount
		}
		_, err := change(t.Context(), other, acct)
		r.ok(err)
		_, assumed := r.assume(RootPrincipal(acct))
		_, mapped := r.RoleSession(t.Context(), acct, "fixer", "night-shift", time.Hour)
		_, signedIn := r.UserSession(t.Context(), acct, "alice", time.Hour)
		for what, err := range map[string]error{"AssumeRole": assumed, "OpenID": mapped, "password": signedIn} {
			if (err != nil) != closed || closed && fault.CodeOf(err) != fault.Forbidden {
				t.Errorf("%s, closed %v: %v", what, closed, err)
			}
		}
	}
}

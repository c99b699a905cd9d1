package account

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

const acct = fleet.Account("000000000042")

// rig is a service over a real store with a clock that a test moves.
type rig struct {
	*Service

	t   *testing.T
	mu  sync.Mutex
	now time.Time
	st  store.Store
}

func newRig(t *testing.T) *rig {
	t.Helper()
	st, err := embedded.Open(embedded.Options{Dir: filepath.Join(t.TempDir(), "store"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	sealer, err := OpenSealer(filepath.Join(t.TempDir(), "seal.key"))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, now: time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC), st: st}
	r.Service = New(Options{
		Store: st, Sealer: sealer, Region: "eu-local-1", SessionKey: make([]byte, SessionKeySize),
		Now: func() time.Time { r.mu.Lock(); defer r.mu.Unlock(); return r.now },
	})
	return r
}

// pass moves the clock.
func (r *rig) pass(d time.Duration) { r.mu.Lock(); r.now = r.now.Add(d); r.mu.Unlock() }

// ok fails the test for an error.
func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// user makes a user with an access key and returns how it acts.
func (r *rig) user(name string, policies ...string) (fleet.Principal, AccessKey) {
	r.t.Helper()
	_, err := r.CreateUser(r.t.Context(), acct, name)
	r.ok(err)
	for _, p := range policies {
		r.ok(r.AttachPolicy(r.t.Context(), acct, Owner{"user", name}, p))
	}
	key, err := r.CreateAccessKey(r.t.Context(), acct, name)
	r.ok(err)
	_, account, principal, err := r.SecretKey(r.t.Context(), key.ID)
	r.ok(err)
	if account != acct {
		r.t.Fatalf("key of account %s", account)
	}
	return principal, key
}

// may asks as the holder of a key would.
func (r *rig) may(p fleet.Principal, proof Proof, action, resource string) error {
	return r.Authorize(WithProof(r.t.Context(), proof), p, action, resource)
}

// want checks an answer of Authorize: "" for allowed, else text of the refusal.
func want(t *testing.T, err error, text string) {
	t.Helper()
	switch {
	case text == "" && err != nil:
		t.Errorf("refused: %v", err)
	case text != "" && err == nil:
		t.Errorf("allowed, want %q", text)
	case text != "" && (fault.CodeOf(err) != fault.Forbidden || !strings.Contains(err.Error(), text)):
		t.Errorf("got %v, want %q", err, text)
	}
}

const thing = "arn:aws:iot:eu-local-1:000000000042:thing/"

func allow(action, resource string) string {
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":%q,"Resource":%q}]}`, action, resource)
}

func TestDefaultIsNo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	alice, key := r.user("alice")
	want(t, r.may(alice, Proof{AccessKeyID: key.ID}, "iot:DescribeThing", thing+"a"),
		"User: arn:aws:iam::000000000042:user/alice is not authorized to perform: iot:DescribeThing on resource: "+thing+"a because no identity-based policy allows the iot:DescribeThing action")
}

func TestViewerSeesAndChangesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	alice, key := r.user("alice", "MusterViewer")
	proof := Proof{AccessKeyID: key.ID}
	for _, action := range []string{"iot:DescribeThing", "iot:ListThings", "iot:SearchIndex", "iot:GetThingShadow", "ops:GetDenials"} {
		want(t, r.may(alice, proof, action, "*"), "")
	}
	for _, action := range []string{"iot:CreateThing", "iot:DeleteThing", "iot:UpdateThingShadow", "iot:Publish", "iot:Connect", "ops:Backup", "ops:CreateUser", "sts:AssumeRole"} {
		want(t, r.may(alice, proof, action, "*"), "no identity-based policy allows")
	}
	want(t, r.may(alice, proof, "iot:DescribeThing", "arn:aws:iot:eu-local-1:000000000043:thing/a"), "not authorized")
}

func TestExplicitDenyWins(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	alice, key := r.user("alice", "MusterFleetAdmin")
	ctx := t.Context()
	_, err := r.CreateGroup(ctx, acct, "careful")
	r.ok(err)
	r.ok(r.PutInlinePolicy(ctx, acct, Owner{"group", "careful"}, "keep", `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"iot:DeleteThing","Resource":"`+thing+`prod-*"}}`))
	want(t, r.may(alice, Proof{AccessKeyID: key.ID}, "iot:DeleteThing", thing+"prod-1"), "")
	r.ok(r.AddUserToGroup(ctx, acct, "careful", "alice"))
	want(t, r.may(alice, Proof{AccessKeyID: key.ID}, "iot:DeleteThing", thing+"prod-1"), "with an explicit deny in an identity-based policy")
	want(t, r.may(alice, Proof{AccessKeyID: key.ID}, "iot:DeleteThing", thing+"test-1"), "")
	r.ok(r.RemoveUserFromGroup(ctx, acct, "careful", "alice"))
	want(t, r.may(alice, Proof{AccessKeyID: key.ID}, "iot:DeleteThing", thing+"prod-1"), "")
}

func TestConditions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	alice, key := r.user("alice")
	r.ok(r.PutInlinePolicy(t.Context(), acct, Owner{"user", "alice"}, "own", `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"iot:*","Resource":"arn:aws:iot:*:*:thing/${aws:username}-*","Condition":{
			"IpAddress":{"aws:SourceIp":"10.0.0.0/8"},"Bool":{"aws:SecureTransport":"true"},
			"DateLessThan":{"aws:CurrentTime":"2027-01-02T04:00:00Z"}}}]}`))
	good := Proof{AccessKeyID: key.ID, SourceAddress: "10.1.2.3", Secure: true}
	want(t, r.may(alice, good, "iot:UpdateThing", thing+"alice-1"), "")
	want(t, r.may(alice, good, "iot:UpdateThing", thing+"bob-1"), "no identity-based policy")
	away, plain := good, good
	away.SourceAddress, plain.Secure = "192.0.2.1", false
	want(t, r.may(alice, away, "iot:UpdateThing", thing+"alice-1"), "no identity-based policy")
	want(t, r.may(alice, plain, "iot:UpdateThing", thing+"alice-1"), "no identity-based policy")
	r.pass(time.Hour) // what was compiled before the hour is over must not answer after it
	want(t, r.may(alice, good, "iot:UpdateThing", thing+"alice-1"), "no identity-based policy")
}

func TestMistakesInDocumentsAreRefusedWithTheirPlace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for document, text := range map[string]string{
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*"}]}`:                                                                           "line 1, column 38: the statement has neither Resource",
		"{\"Version\":\"2012-10-17\",\"Statement\":[{\"Effect\":\"Allow\",\"Action\":\"iot:*\",\"Resource\":\"*\",\n\"Principal\":\"*\"}]}":                    "line 2, column 1: an operator policy has no Principal",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*","Condition":{"Bool":{"aws:MultiFactorAuthPresent":"true"}}}]}`: `the condition key "aws:MultiFactorAuthPresent" is not known`,
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"arn:aws:iot:*:*:thing/${iot:Connection.Thing.ThingName}"}]}`:      "the policy variable ${iot:Connection.Thing.ThingName} is not known",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*","Condition":{"StringEquals":{"iot:ClientId":"a"}}}]}`:          `"iot:ClientId" is not known`,
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`:                                                                "Separation of duties",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*","Sid":"` + strings.Repeat("x", 6200) + `"}]}`:                  "6144 are allowed",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*","Condition":{"StringEquals":{"sts:ExternalId":"a"}}}]}`:        `"sts:ExternalId" is not known`,
	} {
		_, err := r.CreatePolicy(t.Context(), acct, "p", "", document)
		if code := fault.CodeOf(err); code != fault.MalformedPolicy && code != fault.InvalidRequest || !strings.Contains(err.Error(), text) {
			t.Errorf("%.120s: got %v, want %q", document, err, text)
		}
	}
}

func TestChangesActAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	alice, key := r.user("alice")
	proof := Proof{AccessKeyID: key.ID}
	ask := func() error { return r.may(alice, proof, "iot:Publish", "arn:aws:iot:eu-local-1:000000000042:topic/a") }
	want(t, ask(), "no identity-based policy")
	p, err := r.CreatePolicy(ctx, acct, "pub", "", allow("iot:Publish", "*"))
	r.ok(err)
	r.ok(r.AttachPolicy(ctx, acct, Owner{"user", "alice"}, p.ARN))
	want(t, ask(), "")
	_, err = r.UpdatePolicy(ctx, acct, "pub", allow("iot:Subscribe", "*"))
	r.ok(err)
	want(t, ask(), "no identity-based policy")
	_, err = r.UpdatePolicy(ctx, acct, "pub", allow("iot:Publish", "*"))
	r.ok(err)
	want(t, ask(), "")
	if err := r.DeletePolicy(ctx, acct, "pub"); fault.CodeOf(err) != fault.DeleteConflict {
		t.Errorf("an attached policy was deleted: %v", err)
	}
	r.ok(r.SetAccessKeyStatus(ctx, acct, key.ID, KeyInactive))
	want(t, ask(), "no longer in force")
	if _, _, _, err := r.SecretKey(ctx, key.ID); fault.CodeOf(err) != fault.Unauthorized {
		t.Errorf("an inactive key signs: %v", err)
	}
	r.ok(r.SetAccessKeyStatus(ctx, acct, key.ID, KeyActive))
	want(t, ask(), "")
	r.ok(r.DetachPolicy(ctx, acct, Owner{"user", "alice"}, "pub"))
	want(t, ask(), "no identity-based policy")
	r.ok(r.DeletePolicy(ctx, acct, "pub"))
	r.ok(r.DeleteAccessKey(ctx, acct, key.ID))
	want(t, ask(), "no longer in force")
}

// TestAnotherNodesChangeActsByItsEvent applies the events of one service to
// another over the same store.
func TestAnotherNodesChangeActsByItsEvent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	alice, key := r.user("alice", "MusterViewer")
	other := New(r.options)
	ask := func() error {
		return other.Authorize(WithProof(ctx, Proof{AccessKeyID: key.ID}), alice, "iot:ListThings", "*")
	}
	want(t, ask(), "")
	head, err := r.st.Head(ctx)
	r.ok(err)
	r.ok(r.DetachPolicy(ctx, acct, Owner{"user", "alice"}, "MusterViewer"))
	want(t, ask(), "") // it has not heard yet
	events, _, err := r.st.Events(ctx, head, 10)
	r.ok(err)
	if changed := other.Apply(events); !slices.Equal(changed, []fleet.Account{acct}) {
		t.Errorf("changed %v", changed)
	}
	want(t, ask(), "no identity-based policy")
	late := New(r.options)
	late.options.Lag = func() time.Duration { return time.Minute }
	r.ok(r.AttachPolicy(ctx, acct, Owner{"user", "alice"}, "MusterViewer"))
	want(t, late.Authorize(WithProof(ctx, Proof{AccessKeyID: key.ID}), alice, "iot:ListThings", "*"), "")
	r.ok(r.DetachPolicy(ctx, acct, Owner{"user", "alice"}, "MusterViewer"))
	want(t, late.Authorize(WithProof(ctx, Proof{AccessKeyID: key.ID}), alice, "iot:ListThings", "*"), "no identity-based policy")
}

func TestSeparationOfDuties(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	refuse := func(err error) {
		t.Helper()
		if fault.CodeOf(err) != fault.InvalidRequest || !strings.Contains(err.Error(), "Separation of duties") {
			t.Errorf("got %v", err)
		}
	}
	r.user("alice", "MusterProvisioningApprover")
	refuse(r.AttachPolicy(ctx, acct, Owner{"user", "alice"}, "MusterFleetAdmin"))
	refuse(r.AttachPolicy(ctx, acct, Owner{"user", "alice"}, "MusterSecurityAdmin"))
	refuse(r.PutInlinePolicy(ctx, acct, Owner{"user", "alice"}, "x", allow("iot:Create*", "*")))
	for _, g := range []string{"admins", "approvers", "plain"} {
		_, err := r.CreateGroup(ctx, acct, g)
		r.ok(err)
	}
	r.ok(r.AttachPolicy(ctx, acct, Owner{"group", "admins"}, "MusterFleetAdmin"))
	refuse(r.AddUserToGroup(ctx, acct, "admins", "alice"))
	refuse(r.AttachPolicy(ctx, acct, Owner{"group", "admins"}, "MusterProvisioningApprover"))
	r.ok(r.AddUserToGroup(ctx, acct, "plain", "alice"))
	refuse(r.AttachPolicy(ctx, acct, Owner{"group", "plain"}, "MusterFleetAdmin"))
	_, err := r.CreatePolicy(ctx, acct, "mine", "", allow("iot:ListThings", "*"))
	r.ok(err)
	r.ok(r.AttachPolicy(ctx, acct, Owner{"group", "plain"}, "mine"))
	_, err = r.UpdatePolicy(ctx, acct, "mine", allow("ops:PutAllowList", "*"))
	refuse(err)
	// A denial on everything takes the one duty away.
	r.user("bob", "MusterFleetAdmin")
	_, err = r.CreatePolicy(ctx, acct, "no-supply", "", `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Resource":"*",
		"Action":["ops:PutAllowList","ops:DeleteAllowList","ops:CreateAllowListLink","ops:PutSupplier","iot:*ProvisioningTemplate*"]}}`)
	r.ok(err)
	r.ok(r.AttachPolicy(ctx, acct, Owner{"user", "bob"}, "no-supply"))
	r.ok(r.AttachPolicy(ctx, acct, Owner{"user", "bob"}, "MusterProvisioningApprover"))
	refuse(r.DetachPolicy(ctx, acct, Owner{"user", "bob"}, "no-supply"))
}

func TestLimitsAndNames(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	for _, name := range []string{"", "root", "a b", strings.Repeat("x", 65), "a\x00b", "a/b"} {
		if _, err := r.CreateUser(ctx, acct, name); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%q: %v", name, err)
		}
		if _, err := r.User(ctx, acct, name); fault.CodeOf(err) != fault.ResourceNotFound {
			t.Errorf("%q: %v", name, err)
		}
	}
	r.user("alice")
	if _, err := r.CreateUser(ctx, acct, "alice"); fault.CodeOf(err) != fault.ResourceAlreadyExists {
		t.Errorf("twice: %v", err)
	}
	_, err := r.CreateAccessKey(ctx, acct, "alice")
	r.ok(err)
	if _, err := r.CreateAccessKey(ctx, acct, "alice"); fault.CodeOf(err) != fault.LimitExceeded {
		t.Errorf("third key: %v", err)
	}
	for i := range maxGroupsPerUser + 1 {
		name := fmt.Sprintf("g%02d", i)
		_, err := r.CreateGroup(ctx, acct, name)
		r.ok(err)
		if err := r.AddUserToGroup(ctx, acct, name, "alice"); (i < maxGroupsPerUser) != (err == nil) {
			t.Errorf("group %d: %v", i, err)
		}
	}
	if err := r.DeleteGroup(ctx, acct, "g00"); fault.CodeOf(err) != fault.DeleteConflict {
		t.Errorf("group with a member: %v", err)
	}
	if _, err := r.User(ctx, "000000000043", "alice"); fault.CodeOf(err) != fault.ResourceNotFound {
		t.Errorf("another account sees the user: %v", err)
	}
	page, next, err := r.Groups(ctx, acct, "", 4)
	r.ok(err)
	rest, end, err := r.Groups(ctx, acct, next, 100)
	r.ok(err)
	if len(page) != 4 || len(rest) != 7 || end != "" || rest[0].Name != "g04" {
		t.Errorf("pages of %d and %d, %q", len(page), len(rest), end)
	}
	keys, err := r.AccessKeys(ctx, acct, "alice")
	r.ok(err)
	r.ok(r.DeleteUser(ctx, acct, "alice"))
	if _, _, _, err := r.SecretKey(ctx, keys[0].ID); fault.CodeOf(err) != fault.Unauthorized {
		t.Errorf("the key of a deleted user signs: %v", err)
	}
	r.ok(r.DeleteGroup(ctx, acct, "g00"))
}

// TestConcurrentChangesKeepSeparation races the two halves of what must not be
// joined.
func TestConcurrentChangesKeepSeparation(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	for i := range 10 {
		name, group := fmt.Sprintf("u%d", i), fmt.Sprintf("g%d", i)
		_, err := r.CreateUser(ctx, acct, name)
		r.ok(err)
		_, err = r.CreateGroup(ctx, acct, group)
		r.ok(err)
		r.ok(r.AddUserToGroup(ctx, acct, group, name))
		var wg sync.WaitGroup
		var errs [2]error
		wg.Go(func() { errs[0] = r.AttachPolicy(ctx, acct, Owner{"user", name}, "MusterProvisioningApprover") })
		wg.Go(func() { errs[1] = r.AttachPolicy(ctx, acct, Owner{"group", group}, "MusterFleetAdmin") })
		wg.Wait()
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("want exactly one: %v, %v", errs[0], errs[1])
		}
	}
}

func TestLastUsedIsKnownToTheHour(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, key := r.user("alice")
	at := func() time.Time {
		keys, err := r.AccessKeys(t.Context(), acct, "alice")
		r.ok(err)
		return keys[0].LastUsed
	}
	if !at().IsZero() {
		t.Error("used before use")
	}
	r.Used(t.Context(), key.ID)
	first := at()
	r.pass(5 * time.Minute)
	r.Used(t.Context(), key.ID)
	if first != r.now.Truncate(time.Hour) || at() != first {
		t.Errorf("got %v and %v", first, at())
	}
	r.pass(time.Hour)
	r.Used(t.Context(), key.ID)
	if at() != first.Add(time.Hour) {
		t.Errorf("got %v", at())
	}
	r.ok(r.DeleteAccessKey(t.Context(), acct, key.ID))
	r.pass(time.Hour)
	r.Used(t.Context(), key.ID)
	if _, err := r.st.Get(t.Context(), store.K(keyUsed, key.ID)); err == nil {
		t.Error("a deleted key left its use behind")
	}
}

func TestEventsCarryNoSecret(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, key := r.user("alice")
	r.ok(r.SetPassword(t.Context(), acct, "alice", "correct horse battery", false))
	events, _, err := r.st.Events(t.Context(), store.Cursor{}, 100)
	r.ok(err)
	var kinds []string
	for _, e := range events {
		c, ok := e.Event.(event.OperatorChanged)
		if !ok {
			t.Fatalf("%T", e.Event)
		}
		kinds = append(kinds, string(c.Kind)+" "+c.Change)
		if strings.Contains(fmt.Sprintf("%+v", e), key.Secret) || strings.Contains(fmt.Sprintf("%+v", e), "horse") {
			t.Errorf("secret in %+v", e)
		}
	}
	if !slices.Equal(kinds, []string{"user CREATED", "access-key CREATED", "user PASSWORD_SET"}) {
		t.Errorf("events %v", kinds)
	}
}

func TestPasswords(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.user("alice")
	fits := func(user, password string) (bool, bool) {
		t.Helper()
		check, err := r.CheckPassword(ctx, acct, user, password)
		r.ok(err)
		if check.Known != (user == "alice") && check.Known {
			t.Errorf("%q is known", user)
		}
		return check.Fits, check.MustChange
	}
	if ok, _ := fits("alice", ""); ok {
		t.Error("signed in without a password")
	}
	for _, bad := range []string{"short", strings.Repeat("x", 2000), "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"} {
		if err := r.SetPassword(ctx, acct, "alice", bad, false); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%.10q: %v", bad, err)
		}
	}
	r.ok(r.SetPassword(ctx, acct, "alice", "correct horse battery", true))
	if ok, change := fits("alice", "correct horse battery"); !ok || !change {
		t.Errorf("got %v %v", ok, change)
	}
	for _, c := range [][2]string{{"alice", "correct horse batterx"}, {"bob", "correct horse battery"}, {"", ""}, {"root", "x"}} {
		if ok, _ := fits(c[0], c[1]); ok {
			t.Errorf("%v fits", c)
		}
	}
	r.ok(r.DeletePassword(ctx, acct, "alice"))
	if ok, _ := fits("alice", "correct horse battery"); ok {
		t.Error("signed in with a deleted password")
	}
}

func BenchmarkAuthorizePacket(b *testing.B) {
	st, err := embedded.Open(embedded.Options{Dir: b.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	sealer, err := OpenSealer(filepath.Join(b.TempDir(), "seal.key"))
	if err != nil {
		b.Fatal(err)
	}
	s := New(Options{Store: st, Sealer: sealer, Now: time.Now})
	ctx := b.Context()
	_, _ = s.CreateUser(ctx, acct, "alice")
	_ = s.AttachPolicy(ctx, acct, Owner{"user", "alice"}, "MusterOperator")
	key, _ := s.CreateAccessKey(ctx, acct, "alice")
	ctx = WithProof(ctx, Proof{AccessKeyID: key.ID})
	p := userPrincipal(acct, "alice")
	for b.Loop() {
		if err := s.Authorize(ctx, p, "iot:Publish", "arn:aws:iot:eu-local-1:000000000042:topic/a"); err != nil {
			b.Fatal(err)
		}
	}
}

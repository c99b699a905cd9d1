package approval

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/muster-iot/muster/internal/allowlist"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provisioning"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

const account = fleet.Account("000000000042")

// rig is a Service with people, functions and templates of the test's.
type rig struct {
	*Service

	t      *testing.T
	store  store.Store
	mu     sync.Mutex
	now    time.Time
	author string
	// answers are of functions by name; one that is missing fails.
	answers map[string]string
	// prolonged is until when certificates wait.
	prolonged map[string]time.Time
	ids       int
	lists     *allowlist.Service
}

func newRig(t *testing.T, requireBinding bool) *rig {
	t.Helper()
	engine, err := embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &rig{
		t: t, store: engine, now: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC), author: userARN("tom"), answers: map[string]string{}, prolonged: map[string]time.Time{},
	}
	r.lists = newLists(r)
	r.Service = New(Options{
		Store: engine, Functions: r, People: r, Certificates: r, Templates: r, Lists: r.lists, RequireBinding: requireBinding, Patience: 72 * time.Hour,
		Now: func() time.Time { r.mu.Lock(); defer r.mu.Unlock(); return r.now },
		NewID: func() string {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.ids++
			return fmt.Sprintf("%08d", r.ids)
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	return r
}

func userARN(name string) string { return "arn:aws:iam::" + string(account) + ":user/" + name }

// as is a context in which a user calls.
func (r *rig) as(name string) context.Context {
	return fleet.WithActor(r.t.Context(), fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalUser, ID: name, ARN: userARN(name)}})
}

// Who is in which group: a-… are in group a, ab-… in a and b.
func (*rig) HasGroup(_ context.Context, _ fleet.Account, group string) (bool, error) {
	return len(group) == 1, nil
}

func (*rig) IsMember(_ context.Context, _ fleet.Account, group string, who fleet.Principal) (bool, error) {
	groups, _, _ := strings.Cut(who.ID, "-")
	return strings.Contains(groups, group), nil
}

func (r *rig) Has(name string) bool { return strings.HasPrefix(name, "f") }

func (r *rig) Invoke(_ context.Context, name string, _ []byte, _ time.Duration) ([]byte, error) {
	answer, ok := r.answers[name]
	if !ok {
		return nil, errors.New("it died")
	}
	return []byte(answer), nil
}

func (r *rig) Author(_ context.Context, _ fleet.Account, template string) (string, error) {
	if template == "none" {
		return "", fault.New(fault.ResourceNotFound, "no such template")
	}
	return r.author, nil
}

func (r *rig) Prolong(ctx context.Context, _ fleet.Account, id string, until time.Time, joined store.Batch) error {
	r.mu.Lock()
	r.prolonged[id] = until
	r.mu.Unlock()
	_, err := r.store.Commit(ctx, joined)
	return err
}

func (r *rig) need(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// bind makes authorities of groups (one letter), functions (f…) and lists, and a binding of
// template T.
func (r *rig) bind(b Binding) {
	r.t.Helper()
	for _, id := range b.Authorities {
		a := Authority{ID: id, Kind: UserGroup, Group: id}
		switch {
		case strings.HasPrefix(id, "f"):
			a = Authority{ID: id, Kind: Webhook, Function: id}
		case id == "lists":
			a = Authority{ID: id, Kind: AllowList}
		case id == "acme":
			a = Authority{ID: id, Kind: SupplierLists, Supplier: id}
		}
		_, err := r.PutAuthority(r.as("boss"), account, a)
		r.need(err)
	}
	b.Template = "T"
	_, err := r.PutBinding(r.as("boss"), account, b)
	r.need(err)
}

func device(n int) provisioning.Candidate {
	return provisioning.Candidate{
		Account: account, Method: event.ProvisioningClaim, Template: "T", CertificateID: fmt.Sprintf("%064d", n), ClaimID: strings.Repeat("c", 64),
		ClientID: "new", Address: "10.1.2.3:4711", Parameters: map[string]string{"SerialNumber": fmt.Sprint(n)}, Thing: fmt.Sprintf("pump-%d", n),
	}
}

// joins lets a device try, and carries out what a pass says. It returns the id of
// the request that it waits for.
func (r *rig) joins(c provisioning.Candidate) (waits string, err error) {
	r.t.Helper()
	pass, err := r.Decide(r.t.Context(), c)
	if errors.Is(err, provisioning.ErrPending) {
		return strings.TrimPrefix(fault.From(err).Message, "request "), nil
	}
	if err != nil || pass.Join == nil {
		return "", err
	}
	for range 20 {
		b, err := pass.Join(r.t.Context())
		if err != nil {
			return "", err
		}
		for i := range b.Events {
			b.Events[i].Account, b.Events[i].At = account, r.now
		}
		if len(b.Writes) == 0 {
			return "", nil
		}
		if _, err = r.store.Commit(r.t.Context(), b); !errors.Is(err, store.ErrConflict) {
			return "", err
		}
	}
	return "", errors.New("always overtaken")
}

// wait demands that a device waits.
func (r *rig) wait(c provisioning.Candidate) string {
	r.t.Helper()
	id, err := r.joins(c)
	if err != nil || id == "" {
		r.t.Fatalf("it does not wait: %q, %v", id, err)
	}
	return id
}

// in demands that a device joins.
func (r *rig) in(c provisioning.Candidate) {
	r.t.Helper()
	if id, err := r.joins(c); err != nil || id != "" {
		r.t.Errorf("%s: waits for %q, %v", c.Thing, id, err)
	}
}

// out demands that a device is refused with words.
func (r *rig) out(c provisioning.Candidate, words string) {
	r.t.Helper()
	id, err := r.joins(c)
	if fault.CodeOf(err) != fault.Forbidden || !strings.Contains(err.Error(), words) {
		r.t.Errorf("%s: waits for %q, %v, want a refusal with %q", c.Thing, id, err, words)
	}
}

// vote demands that a vote is taken, and returns the state after it.
func (r *rig) vote(who, id string, v Verdict) State {
	r.t.Helper()
	after, err := r.Vote(r.as(who), account, VoteCommand{ID: id, Verdict: v, Reason: "because"})
	r.need(err)
	return after.State
}

func TestWithoutBinding(t *testing.T) {
	t.Parallel()
	newRig(t, false).in(device(1))
	newRig(t, true).out(device(1), "require-binding")
}

func TestTally(t *testing.T) {
	t.Parallel()
	const y, n, d = Yes, No, Abstain
	for name, c := range map[string]struct {
		rule  Rule
		k     int
		votes map[string]Verdict // a, b, c are people, f is a function
		want  Verdict
	}{
		"all, nobody":                {AllOf, 0, nil, d},
		"all, two of four":           {AllOf, 0, map[string]Verdict{"a": y, "f": y}, d},
		"all, all":                   {AllOf, 0, map[string]Verdict{"a": y, "b": y, "c": y, "f": y}, y},
		"all, one no":                {AllOf, 0, map[string]Verdict{"a": n}, n},
		"all, the function defers":   {AllOf, 0, map[string]Verdict{"f": d}, n},
		"any, nobody":                {AnyOf, 0, map[string]Verdict{"f": n}, d},
		"any, one":                   {AnyOf, 0, map[string]Verdict{"f": n, "a": y}, y},
		"any, all no":                {AnyOf, 0, map[string]Verdict{"a": n, "b": n, "c": n, "f": n}, n},
		"two of four, one":           {KOfN, 2, map[string]Verdict{"a": y, "f": n}, d},
		"two of four, two":           {KOfN, 2, map[string]Verdict{"a": y, "b": y, "f": n}, y},
		"two of four, three no":      {KOfN, 2, map[string]Verdict{"a": y, "b": n, "c": n, "f": n}, n},
		"two of four, one withdraws": {KOfN, 2, map[string]Verdict{"a": y, "b": d, "f": d}, d},
	} {
		binding := &bindingRecord{Rule: c.rule, K: c.k, Asked: []string{"a", "b", "c", "f"}}
		var votes []Vote
		for id, v := range c.votes {
			votes = append(votes, Vote{Authority: id, Verdict: v, By: map[bool]string{true: "", false: id}[id == "f"]})
		}
		// People who abstain can still speak; a function has spoken.
		votes = slices.DeleteFunc(votes, func(v Vote) bool { return v.Verdict == Abstain && v.Authority != "f" })
		if _, asked := c.votes["f"]; !asked {
			votes = append(votes, Vote{Authority: "f", Verdict: Yes})
			if c.rule == AnyOf || c.rule == KOfN {
				continue
			}
		}
		if got := tally(binding, votes, []string{"a", "b", "c"}, "tom"); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestFunctionsDecideAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	r.bind(Binding{Rule: AllOf, Authorities: []string{"f1", "f2"}})
	r.answers["f1"], r.answers["f2"] = `{"verdict":"APPROVED"}`, `{"verdict":"APPROVED"}`
	r.in(device(1))
	for name, answer := range map[string]string{
		"no": `{"verdict":"DENIED","reason":"not on the list"}`, "later": `{"verdict":"DEFER"}`, "garbage": `yes`, "nothing": `{}`, "other letters": `{"verdict":"approved"}`,
	} {
		r.answers["f2"] = answer
		words := "f2: "
		if name == "no" {
			words = "not on the list"
		}
		r.out(device(2), words)
	}
	delete(r.answers, "f2")
	r.out(device(2), "it gave no verdict")
	if _, err := r.Decide(t.Context(), device(2)); fault.From(err).Message != "The authorities do not let the device in" {
		t.Errorf("the device is told %q", fault.From(err).Message)
	}
	if page, _, err := r.Requests(t.Context(), account, Pending, "", "", 0); err != nil || len(page) != 0 {
		t.Errorf("requests %+v, %v", page, err)
	}
}

func TestPeopleDecide(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	r.bind(Binding{Rule: KOfN, K: 2, Authorities: []string{"a", "b", "c"}})
	c := device(1)
	id := r.wait(c)
	if again := r.wait(c); again != id {
		t.Errorf("a second request %q beside %q", again, id)
	}
	if until := r.prolonged[c.CertificateID]; !until.Equal(r.now.Add(72 * time.Hour)) {
		t.Errorf("its token is good until %v", until)
	}
	if got := r.vote("a-ann", id, Yes); got != Pending {
		t.Errorf("after one of two: %s", got)
	}
	// She withdraws, and somebody else of her group cannot be a second voice.
	r.vote("a-ann", id, Abstain)
	r.vote("b-bob", id, Yes)
	if got := r.vote("b-bea", id, Yes); got != Pending {
		t.Errorf("two of one group: %s", got)
	}
	r.wait(c)
	if got := r.vote("c-cy", id, Yes); got != Approved {
		t.Errorf("after two of three: %s", got)
	}
	other := c
	other.Thing = "pump-2"
	r.out(other, "about another thing or other parameters")
	other = c
	other.Parameters = map[string]string{"SerialNumber": "1", "Site": "york"}
	r.out(other, "about another thing or other parameters")
	r.in(c)
	found, err := r.Request(t.Context(), account, id)
	if err != nil || found.State != Used || len(found.Votes) != 3 {
		t.Errorf("request %+v, %v", found, err)
	}
	// It is used up: the device would have to ask again.
	if next := r.wait(c); next == id {
		t.Error("a used request let it in")
	}
	if page, _, err := r.Requests(t.Context(), account, Used, "T", "", 0); err != nil || len(page) != 1 || page[0].ID != id {
		t.Errorf("used %+v, %v", page, err)
	}
}

func TestVotesAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	r.bind(Binding{Rule: AllOf, Authorities: []string{"a", "b"}})
	id := r.wait(device(1))
	for name, c := range map[string]struct {
		who  string
		vote VoteCommand
		code fault.Code
	}{
		"a stranger":          {"z-zoe", VoteCommand{ID: id, Verdict: Yes}, fault.Forbidden},
		"for another group":   {"a-ann", VoteCommand{ID: id, Authority: "b", Verdict: Yes}, fault.Forbidden},
		"for an unknown one":  {"a-ann", VoteCommand{ID: id, Authority: "x", Verdict: Yes}, fault.Forbidden},
		"in two groups":       {"ab-joe", VoteCommand{ID: id, Verdict: Yes}, fault.InvalidRequest},
		"no without a reason": {"a-ann", VoteCommand{ID: id, Verdict: No}, fault.InvalidRequest},
		"a long reason":       {"a-ann", VoteCommand{ID: id, Verdict: Yes, Reason: strings.Repeat("x", 1025)}, fault.InvalidRequest},
		"no verdict":          {"a-ann", VoteCommand{ID: id, Verdict: "MAYBE"}, fault.InvalidRequest},
		"about nothing":       {"a-ann", VoteCommand{ID: "apr_x", Verdict: Yes}, fault.ResourceNotFound},
	} {
		if _, err := r.Vote(r.as(c.who), account, c.vote); fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
	if _, err := r.Vote(r.as("ab-joe"), account, VoteCommand{ID: id, Authority: "b", Verdict: No, Reason: "stolen"}); err != nil {
		t.Error(err)
	}
	r.out(device(1), "was denied")
	if _, err := r.Vote(r.as("a-ann"), account, VoteCommand{ID: id, Verdict: Yes}); fault.CodeOf(err) != fault.InvalidRequest {
		t.Errorf("a vote after the end: %v", err)
	}
}

// Who has made the template cannot be the only one to say yes.
func TestAuthorIsNotAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	r.author = userARN("a-tom")
	r.bind(Binding{Rule: AnyOf, Authorities: []string{"a", "b"}})
	id := r.wait(device(1))
	if got := r.vote("a-tom", id, Yes); got != Pending {
		t.Errorf("after the author's yes: %s", got)
	}
	if got := r.vote("b-bob", id, Yes); got != Approved {
		t.Errorf("after another's: %s", got)
	}
	r.bind(Binding{Rule: AllOf, Authorities: []string{"a"}})
	id = r.wait(device(2))
	if got := r.vote("a-tom", id, Yes); got != Denied {
		t.Errorf("nobody else is asked: %s", got)
	}
}

func TestTimeEndsRequests(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	r.bind(Binding{Rule: AnyOf, Authorities: []string{"a"}, Patience: time.Hour})
	waiting, approved := r.wait(device(1)), r.wait(device(2))
	r.vote("a-ann", approved, Yes)
	// The device has left, and comes back late.
	r.now = r.now.Add(time.Hour)
	if _, err := r.Vote(r.as("a-ann"), account, VoteCommand{ID: waiting, Verdict: Yes}); fault.CodeOf(err) != fault.InvalidRequest {
		t.Errorf("a late vote: %v", err)
	}
	if next := r.wait(device(2)); next == approved {
		t.Error("an approval is good for ever")
	}
	r.need(r.Sweep(t.Context()))
	for _, id := range []string{waiting, approved} {
		if found, err := r.Request(t.Context(), account, id); err != nil || found.State != Expired {
			t.Errorf("%s is %s, %v", id, found.State, err)
		}
	}
	page, _, err := r.Requests(t.Context(), account, Pending, "", "", 0)
	if err != nil || len(page) != 1 {
		t.Errorf("%d wait, %v", len(page), err)
	}
}

func TestWhatNoAuthorityAllows(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	c := device(1)
	r.bind(Binding{Rule: AnyOf, Authorities: []string{"a"}, Claims: []string{strings.Repeat("d", 64)}, AutoApproveIf: "*"})
	r.out(c, "not one of those")
	r.bind(Binding{Rule: AnyOf, Authorities: []string{"a"}, Networks: []string{"10.2.0.0/16", "192.168.0.0/24"}, AutoApproveIf: "*"})
	r.out(c, "network")
	r.bind(Binding{Rule: AnyOf, Authorities: []string{"a"}, Networks: []string{"10.1.0.0/16"}, From: 13 * 60, Until: 14 * 60, AutoApproveIf: "*"})
	r.out(c, "time of the day")
	r.bind(Binding{Rule: AnyOf, Authorities: []string{"a"}, From: 22 * 60, Until: 12*60 + 1, AutoApproveIf: "*"})
	r.in(c)
	r.bind(Binding{Rule: AnyOf, Authorities: []string{"a"}, AutoApproveIf: "parameters.SerialNumber:[1 TO 5] AND NOT clientId:old"})
	r.in(c)
	r.wait(device(7))
}

// Of many that come at once no more join than the day's quota says.
func TestQuotaInARush(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	r.bind(Binding{Rule: AnyOf, Authorities: []string{"a"}, AutoApproveIf: "*", DailyQuota: 3})
	var joined, refused int
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			_, err := r.joins(device(i))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				joined++
			case fault.CodeOf(err) == fault.Forbidden:
				refused++
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if joined != 3 || refused != 7 {
		t.Errorf("%d joined, %d were refused", joined, refused)
	}
	r.now = r.now.Add(12 * time.Hour)
	r.in(device(11))
}

func TestBindingsAndAuthoritiesAreChecked(t *testing.T) {
	t.Parallel()
	r := newRig(t, false)
	for name, a := range map[string]Authority{
		"no name": {Kind: UserGroup, Group: "a"}, "a bad name": {ID: "a b", Kind: UserGroup, Group: "a"}, "no kind": {ID: "x"}, "no such group": {ID: "x", Kind: UserGroup, Group: "none"},
		"no such function": {ID: "x", Kind: Webhook, Function: "none"}, "both": {ID: "x", Kind: Webhook, Function: "f", Group: "a"}, "the other": {ID: "x", Kind: UserGroup, Group: "a", Function: "f"},
	} {
		if _, err := r.PutAuthority(t.Context(), account, a); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.bind(Binding{Rule: AnyOf, Authorities: []string{"a"}})
	for name, b := range map[string]Binding{
		"nobody": {Rule: AnyOf}, "no rule": {Authorities: []string{"a"}}, "k of all": {Rule: AllOf, K: 1, Authorities: []string{"a"}}, "k beyond": {Rule: KOfN, K: 2, Authorities: []string{"a"}},
		"twice": {Rule: AllOf, Authorities: []string{"a", "a"}}, "an unknown one": {Rule: AllOf, Authorities: []string{"x"}}, "no claim": {Rule: AllOf, Authorities: []string{"a"}, Claims: []string{"x"}},
		"no network": {Rule: AllOf, Authorities: []string{"a"}, Networks: []string{"10.0.0.1"}}, "no query": {Rule: AllOf, Authorities: []string{"a"}, AutoApproveIf: "a:("},
		"no time": {Rule: AllOf, Authorities: []string{"a"}, From: 1440}, "long": {Rule: AllOf, Authorities: []string{"a"}, Patience: 31 * 24 * time.Hour},
	} {
		b.Template = "T"
		if _, err := r.PutBinding(t.Context(), account, b); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.PutBinding(t.Context(), account, Binding{Template: "none", Rule: AnyOf, Authorities: []string{"a"}}); fault.CodeOf(err) != fault.ResourceNotFound {
		t.Errorf("no template: %v", err)
	}
	if err := r.DeleteAuthority(t.Context(), account, "a"); fault.CodeOf(err) != fault.DeleteConflict {
		t.Errorf("an authority that is asked: %v", err)
	}
	// Without a binding nobody decides about who waits.
	id := r.wait(device(1))
	r.need(r.DeleteBinding(t.Context(), account, "T"))
	if _, err := r.Vote(r.as("a-ann"), account, VoteCommand{ID: id, Verdict: Yes}); fault.CodeOf(err) != fault.InvalidRequest {
		t.Errorf("a vote without a binding: %v", err)
	}
	r.need(r.DeleteAuthority(t.Context(), account, "a"))
	if err := r.DeleteAuthority(t.Context(), account, "a"); fault.CodeOf(err) != fault.ResourceNotFound {
		t.Errorf("a second time: %v", err)
	}
}

// What people have said about a version of the template, and a binding that is
// changed before the commit, let nobody in.
func TestChangesMeanwhile(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	r.bind(Binding{Rule: AnyOf, Authorities: []string{"a"}})
	c := device(1)
	id := r.wait(c)
	r.vote("a-ann", id, Yes)
	c.Version = 2
	if next := r.wait(c); next == id {
		t.Error("the approval of an earlier version counts")
	}
	r.bind(Binding{Rule: AnyOf, Authorities: []string{"a"}, AutoApproveIf: "*"})
	pass, err := r.Decide(t.Context(), device(2))
	r.need(err)
	r.bind(Binding{Rule: AllOf, Authorities: []string{"a"}})
	if _, err := pass.Join(t.Context()); fault.CodeOf(err) != fault.Throttling {
		t.Errorf("a pass of a binding that is gone: %v", err)
	}
}

// A pass says why: the rule, the functions, or the people of a request.
func TestPassSaysWhy(t *testing.T) {
	t.Parallel()
	r := newRig(t, true)
	why := func(c provisioning.Candidate, want event.ProvisioningEvidence) {
		t.Helper()
		pass, err := r.Decide(t.Context(), c)
		if err != nil || len(pass.Evidence) != 1 || pass.Evidence[0] != want {
			t.Errorf("%+v, %v, want %+v", pass.Evidence, err, want)
		}
	}
	r.bind(Binding{Rule: AnyOf, Authorities: []string{"a"}, AutoApproveIf: "parameters.SerialNumber:1"})
	why(device(1), event.ProvisioningEvidence{Kind: event.EvidenceRule, Ref: "template T", Detail: "its rule lets the device in unasked"})
	r.bind(Binding{Rule: AllOf, Authorities: []string{"a", "b"}})
	id := r.wait(device(2))
	r.vote("ann", id, Yes)
	r.vote("ben", id, Yes)
	arn := func(who string) string { return fleet.ActorFrom(r.as(who)).Principal.ARN }
	why(device(2), event.ProvisioningEvidence{Kind: event.EvidenceApproval, Ref: id, Detail: "a by " + arn("ann") + ", b by " + arn("ben")})
	r.bind(Binding{Rule: KOfN, K: 1, Authorities: []string{"f1", "f2"}})
	r.answers["f1"], r.answers["f2"] = `{"verdict":"DENIED"}`, `{"verdict":"APPROVED","reason":"words"}`
	why(device(3), event.ProvisioningEvidence{Kind: event.EvidenceApproval, Ref: "template T", Detail: "f2"})
}

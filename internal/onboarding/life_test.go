package onboarding

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	claim    = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
	first    = "1111111111111111111111111111111111111111111111111111111111111111"
	second   = "2222222222222222222222222222222222222222222222222222222222222222"
	okQuery  = "thingName:* AND attributes.ok:yes"
	conQuery = "connectivity.connected:true"
)

// joins is a device that joins by claim.
func joins(serial, certificate string) event.DeviceProvisioned {
	return event.DeviceProvisioned{
		Method: event.ProvisioningClaim, Template: "pump", TemplateVersion: 1, Thing: "thing-" + serial, ThingCreated: true,
		CertificateID: certificate, ClaimID: claim, ClientID: serial, TypeName: "pump-type",
		Attributes: map[string]string{"serial": serial, "model": "P1", "made": "2026-11-01"},
	}
}

func connects(client, certificate string) event.DeviceConnected {
	return event.DeviceConnected{Session: event.Session{ClientID: client, Principal: certificate}}
}

// expect announces a device.
func (r *rig) expect(serial string) {
	r.t.Helper()
	_, err := r.Expect(as(r.t, "maker"), acct, ExpectCommand{
		Plan: "pumps", Metadata: map[string]string{"uniqueId": serial, "modelNumber": "P1", "manufacturingDate": "2026-11-01"},
	})
	r.need(err)
}

// way is a device's way through the plan, step by step, with the state after each.
func way(r *rig, serial string) []struct {
	name  string
	do    func() error
	state State
	stage string
} {
	happens := func(e ...event.Event) func() error {
		told := false
		return func() error {
			if !told { // what has happened stays in the log when the follower dies
				r.tell(e...)
				told = true
			}
			return r.follow()
		}
	}
	type step = struct {
		name  string
		do    func() error
		state State
		stage string
	}
	return []step{
		{"announce", func() error {
			_, err := r.Expect(as(r.t, "maker"), acct, ExpectCommand{Plan: "pumps", Metadata: map[string]string{"uniqueId": serial, "modelNumber": "P1"}})
			return err
		}, StateExpected, "make"},
		{"test", func() error { return r.complete(serial, "test", "protocol 7") }, StateManufactured, "make"},
		{"label", func() error { return r.complete(serial, "label", "") }, StateManufactured, "join"},
		{"claim connects", happens(connects(serial, claim)), StateShipped, "join"},
		{"register", happens(joins(serial, first)), StateRegistered, "join"},
		{"connect", happens(connects(serial, first)), StateActive, ""},
	}
}

// mission M20, M21; security-provisioning §5.1: each device shows where it stands,
// and each step who did it, when and with what evidence.
func TestADeviceComesIntoService(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(small)
	for _, step := range way(r, "S-1") {
		r.clock.Add(int64(time.Hour))
		r.need(step.do())
		d := r.device("S-1")
		if d.State != step.state || d.Stage != step.stage {
			t.Errorf("after %s it is %s in %q, want %s in %q", step.name, d.State, d.Stage, step.state, step.stage)
		}
	}
	d := r.device("S-1")
	if d.Thing != "thing-S-1" || d.Certificate != first || !d.Completed.Equal(start.Add(6*time.Hour)) || len(d.Problems) > 0 || d.PlanVersion != 1 {
		t.Errorf("it is %+v", d)
	}
	var lines []string
	for _, e := range d.History {
		lines = append(lines, fmt.Sprintf("%s %s %s %s | %s | %s | %s", e.At.Format("15:04"), e.Step, e.State, e.Result, e.Actor, e.Principal.ID, e.Evidence))
	}
	wantEqual(t, lines, []string{
		"08:00 announce EXPECTED COMPLETED | Maker, Acme | maker | ",
		"09:00 test MANUFACTURED COMPLETED | Maker, Acme | worker | protocol 7",
		"10:00 label  COMPLETED | Maker, Acme | worker | ",
		"11:00  SHIPPED REACHED |  | " + claim + " | " + evidenceOf(t, r, "DeviceConnected", 0),
		"12:00 register REGISTERED COMPLETED | Operator |  | " + evidenceOf(t, r, "DeviceProvisioned", 0),
		"13:00 connect ACTIVE COMPLETED | Operator | " + first + " | " + evidenceOf(t, r, "DeviceConnected", 1),
	})
	var states []string
	for _, e := range r.events() {
		if c, ok := e.(event.OnboardingChanged); ok {
			states = append(states, fmt.Sprintf("%s>%s %v %s", c.PreviousState, c.State, c.Steps, c.Stage))
		}
	}
	wantEqual(t, states, []string{
		">EXPECTED [announce] make", "EXPECTED>MANUFACTURED [test] make", "MANUFACTURED>MANUFACTURED [label] join",
		"MANUFACTURED>SHIPPED [] join", "SHIPPED>REGISTERED [register] join", "REGISTERED>ACTIVE [connect] ",
	})
	// It connects again and again: nothing is read and written for that.
	b, err := r.Apply(t.Context(), []event.Envelope{{Account: acct, Actor: fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalCertificate}}, Event: connects("S-1", first)}})
	r.need(err)
	wantEqual(t, len(b.Writes)+len(b.Expect), 0)
}

// evidenceOf is the reference to the nth event of a name.
func evidenceOf(t *testing.T, r *rig, name string, n int) string {
	t.Helper()
	all, _, err := r.store.Events(t.Context(), store.Cursor{}, 100_000)
	r.need(err)
	for _, env := range all {
		if event.TypeName(env.Event) == name {
			if n == 0 {
				return fmt.Sprintf("event %d:%d", env.Partition, env.Seq)
			}
			n--
		}
	}
	t.Fatalf("no such %s", name)
	return ""
}

// issue 7: restart at every step. A process that dies before a commit of any step
// loses nothing, and does nothing twice, in the next one.
func TestRestartAtEveryStep(t *testing.T) {
	t.Parallel()
	want := ""
	for dies := -1; dies < 6; dies++ {
		r := newRig(t)
		r.publish(small)
		for i, step := range way(r, "S-1") {
			if i == dies {
				r.store.live(0)
				if err := step.do(); !errors.Is(err, errDied) {
					t.Errorf("%s: %v, want the end", step.name, err)
				}
				r.store.live(-1)
				r.boot()
			}
			r.need(step.do())
			if d := r.device("S-1"); d.State != step.state {
				t.Errorf("died at %d: after %s it is %s", dies, step.name, d.State)
			}
		}
		// The cursor's commit is the device's: applied again from the beginning, the
		// log changes nothing.
		r.cursor = store.Cursor{}
		before := r.device("S-1")
		r.need(r.follow())
		after := r.device("S-1")
		wantEqual(t, after.State, before.State)
		var got strings.Builder
		for _, e := range before.History {
			fmt.Fprintln(&got, e.Step, e.State, e.Result)
		}
		if want == "" {
			want = got.String()
		}
		wantEqual(t, got.String(), want)
	}
}

func TestStepsKeepTheirOrder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(small)
	r.expect("S-1")
	wantCode(t, r.complete("S-1", "label", ""), fault.Conflict)        // test is not done
	wantCode(t, r.complete("S-1", "test", ""), fault.InvalidRequest)   // no evidence
	wantCode(t, r.complete("S-1", "none", ""), fault.ResourceNotFound) // no such step
	wantCode(t, r.complete("S-2", "test", "x"), fault.ResourceNotFound)
	wantCode(t, r.complete("S/2", "test", "x"), fault.InvalidRequest)
	wantCode(t, r.complete("S-1", "register", "x"), fault.InvalidRequest) // the platform sees it
	wantCode(t, r.complete("S-1", "test", strings.Repeat("x", maxNote+1)), fault.InvalidRequest)
	r.need(r.complete("S-1", "test", "p"))
	wantCode(t, r.complete("S-1", "test", "p"), fault.Conflict) // done
	// What the platform sees is a fact, and says so that it came too early.
	r.happens(joins("S-1", first))
	d := r.device("S-1")
	last := d.History[len(d.History)-1]
	if last.Step != "register" || last.Result != ResultOutOfOrder || !strings.Contains(last.Note, "seen before label was done") || d.State != StateRegistered || d.Stage != "make" {
		t.Errorf("it is %s in %s, the last entry %+v", d.State, d.Stage, last)
	}
	// The missing step can be made up for.
	r.need(r.complete("S-1", "label", ""))
	wantEqual(t, r.device("S-1").Stage, "join")
}

// A device of which nothing is done has a record that can be gone on with.
func TestTheFirstStepOfAll(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(strings.Replace(small, "mode: PROGRAMMATIC, state: EXPECTED}", "mode: MANUAL, instruction: Do it.}", 1))
	r.expect("S-1")
	r.need(r.complete("S-1", "announce", ""))
	wantEqual(t, r.device("S-1").State, StateExpected)
}

// Of many that report a step at the same moment, one is taken.
func TestOneOfManyCompletesAStep(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(small)
	r.expect("S-1")
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = r.Complete(t.Context(), acct, CompleteCommand{Device: "S-1", Step: "test", Evidence: fmt.Sprint(i)})
		})
	}
	wg.Wait()
	taken := 0
	for _, err := range errs {
		if err == nil {
			taken++
		} else {
			wantCode(t, err, fault.Conflict)
		}
	}
	wantEqual(t, taken, 1)
	wantEqual(t, len(r.device("S-1").History), 2)
}

// A person and the log change the same record at the same moment: neither change is
// lost.
func TestAReportDuringAnEvent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(small)
	r.expect("S-1")
	r.tell(joins("S-1", first))
	r.store.before = func() { r.need(r.complete("S-1", "test", "p")) }
	if err := r.follow(); !errors.Is(err, store.ErrConflict) {
		t.Errorf("the follower says %v", err)
	}
	r.need(r.follow())
	d := r.device("S-1")
	if d.State != StateRegistered || d.Steps[1].Completed.IsZero() || d.Steps[3].Completed.IsZero() {
		t.Errorf("it is %+v", d)
	}
}

// A device that nobody announced follows the plan of its template, its authority or
// its type; one of none is not followed.
func TestWhichPlanADeviceFollows(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(small)
	byTemplate, byAuthority, byType, none := joins("S-1", first), joins("S-2", second), joins("S-3", claim), joins("S-4", authority)
	byAuthority.Template, byAuthority.TypeName, byAuthority.CACertificateID = "x", "", authority
	byType.Template, byType.Method = "", event.ProvisioningBulk
	none.Template, none.TypeName = "x", ""
	r.happens(byTemplate, byAuthority, byType, none)
	all, _, err := r.Devices(t.Context(), acct, Query{Limit: 10})
	r.need(err)
	var got []string
	for _, d := range all {
		got = append(got, d.Key+" "+string(d.State))
	}
	wantEqual(t, got, []string{"S-1 REGISTERED", "S-2 REGISTERED", "S-3 REGISTERED"})
	// A plan that is retired takes nobody up.
	_, err = r.Retire(t.Context(), acct, "pumps")
	r.need(err)
	r.happens(joins("S-5", strings.Repeat("5", 64)))
	_, err = r.Device(t.Context(), acct, "S-5")
	wantCode(t, err, fault.ResourceNotFound)
}

// A device goes on by the version that it began with.
func TestADeviceKeepsItsVersion(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(small)
	r.expect("S-1")
	_, err := r.Update(t.Context(), acct, "pumps", strings.Replace(small, "id: label", "id: sticker", 1))
	wantCode(t, err, fault.InvalidRequest) // register depends on label
	_, err = r.Update(t.Context(), acct, "pumps", strings.NewReplacer("id: label", "id: sticker", "dependsOn: [label]", "dependsOn: [sticker]").Replace(small))
	r.need(err)
	_, err = r.Publish(t.Context(), acct, "pumps")
	r.need(err)
	r.expect("S-2")
	wantEqual(t, r.device("S-1").PlanVersion, int64(1))
	wantEqual(t, r.device("S-2").PlanVersion, int64(2))
	r.need(r.complete("S-1", "test", "p"))
	r.need(r.complete("S-1", "label", ""))
	wantCode(t, r.complete("S-2", "label", ""), fault.ResourceNotFound)
}

// security-provisioning §5.1, mission M22: what manufacture said and what the thing
// says have to agree, and what the plan requires is refused when it is missing.
func TestMetadata(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(small)
	for facts, want := range map[string]string{
		"modelNumber=P1":                    "deviceKey",
		"uniqueId=S-1 modelNumber=P9":       `no thing type for model "P9"`,
		"uniqueId=S-1 manufacturingDate=1x": "is no date",
		"uniqueId=S-1 generation=2":         "does not say to which attribute",
		"uniqueId=S/1":                      "deviceKey",
	} {
		metadata := map[string]string{}
		for pair := range strings.SplitSeq(facts, " ") {
			name, value, _ := strings.Cut(pair, "=")
			metadata[name] = value
		}
		_, err := r.Expect(t.Context(), acct, ExpectCommand{Plan: "pumps", Metadata: metadata})
		if fault.CodeOf(err) != fault.InvalidRequest || !strings.Contains(fault.From(err).Message, want) {
			t.Errorf("%s: %v, want %q", facts, err, want)
		}
	}
	r.expect("S-1")
	_, err := r.Expect(t.Context(), acct, ExpectCommand{Plan: "pumps", Metadata: map[string]string{"uniqueId": "S-1"}})
	wantCode(t, err, fault.ResourceAlreadyExists)
	e := joins("S-1", first)
	e.TypeName, e.Attributes = "other", map[string]string{"serial": "S-1", "model": "P1", "made": "2026-11-02"}
	r.happens(e)
	wantEqual(t, r.device("S-1").Problems, []string{
		`things of model P1 have type pump-type, this one has "other"`, "manufacturingDate was announced as 2026-11-01, the thing says 2026-11-02",
	})
	// Without its serial a device is kept by its certificate.
	e = joins("S-2", second)
	delete(e.Attributes, "serial")
	r.happens(e)
	d := r.device(second)
	if d.State != StateRegistered || !strings.Contains(d.History[0].Note, "kept by its certificate") || len(d.Problems) != 1 {
		t.Errorf("it is %+v", d)
	}
	plan, err := Parse([]byte(small))
	r.need(err)
	attributes, typeName, err := plan.Attributes(map[string]string{"uniqueId": "S-1", "modelNumber": "P1"})
	r.need(err)
	wantEqual(t, attributes, map[string]string{"serial": "S-1", "model": "P1"})
	wantEqual(t, typeName, "pump-type")
}

// Just-in-time registration knows a device by its certificate.
func TestAutoRegistered(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(strings.Replace(small, "name: Pumps\n", "name: Pumps\ndeviceKey: CERTIFICATE\n", 1))
	announced := event.CertificateAutoRegistered{CertificateID: first, CACertificateID: authority}
	r.happens(announced)
	wantEqual(t, r.device(first).State, StateRegistered)
	r.happens(announced, event.CertificateStatusChanged{CertificateID: first, Status: "ACTIVE", PreviousStatus: "PENDING_ACTIVATION"}, connects("anything", first))
	d := r.device(first)
	wantEqual(t, d.State, StateActive)
	wantEqual(t, len(d.History), 3)
}

// A device after its activation: suspended with its certificate, renewed,
// decommissioned, and back.
func TestAfterActivation(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(small)
	r.happens(joins("S-1", first), connects("S-1", first))
	status := func(id, status string) event.Event {
		return event.CertificateStatusChanged{CertificateID: id, Status: status, PreviousStatus: "x"}
	}
	for _, c := range []struct {
		what  string
		tell  []event.Event
		state State
	}{
		{"its certificate is deactivated", []event.Event{status(first, "INACTIVE")}, StateSuspended},
		{"and comes back", []event.Event{status(first, "ACTIVE")}, StateActive},
		{"it renews", []event.Event{event.CertificateRenewalChanged{Thing: "thing-S-1", OldCertificateID: first, NewCertificateID: second, Step: event.RenewalProven}, status(first, "INACTIVE")}, StateActive},
		{"the new one is revoked", []event.Event{status(second, "REVOKED")}, StateSuspended},
		{"it is provisioned again", []event.Event{joins("S-1", claim)}, StateActive},
		{"the refusal of another attempt", []event.Event{event.ProvisioningRefused{CertificateID: claim, Code: "AccessDenied", Reason: "no"}}, StateActive},
		{"the certificate is deleted", []event.Event{event.CertificateDeleted{CertificateID: claim}}, StateSuspended},
		{"decommissioned", []event.Event{event.ThingDeleted{Thing: "thing-S-1"}, event.ThingDecommissioned{Thing: "thing-S-1", Reason: "worn out"}}, StateDecommissioned},
		{"it connects", []event.Event{connects("S-1", claim)}, StateDecommissioned},
	} {
		r.happens(c.tell...)
		if d := r.device("S-1"); d.State != c.state {
			t.Errorf("%s: it is %s, want %s", c.what, d.State, c.state)
		}
	}
	d := r.device("S-1")
	if last := d.History[len(d.History)-1]; !strings.Contains(last.Note, "decommissioned: worn out") {
		t.Errorf("the last entry is %+v", last)
	}
	wantCode(t, r.complete("S-1", "test", "p"), fault.Conflict)
	before := len(d.History)
	r.happens(joins("S-1", second))
	d = r.device("S-1")
	if d.Life != 2 || d.State != StateRegistered || len(d.History) <= before || d.Steps[1].Completed != (time.Time{}) {
		t.Errorf("back, it is %+v", d)
	}
	r.happens(connects("S-1", second))
	wantEqual(t, r.device("S-1").State, StateActive)
}

// Who is refused is REJECTED until it is let in. The same refusal counts, and does
// not fill the history.
func TestRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(small)
	r.expect("S-1")
	no := func(code, reason string) event.Event {
		return event.ProvisioningRefused{Method: event.ProvisioningClaim, ClaimID: claim, ClientID: "S-1", CertificateID: first, Code: code, Reason: reason}
	}
	r.happens(no("ApprovalPending", "request 1"))
	wantEqual(t, r.device("S-1").State, StateExpected)
	for range 3 {
		r.happens(no("AccessDenied", "the hook says no"))
	}
	d := r.device("S-1")
	wantEqual(t, d.State, StateRejected)
	if last := d.History[len(d.History)-1]; len(d.History) != 2 || last.Count != 3 || last.Note != "AccessDenied: the hook says no" {
		t.Errorf("history %+v", d.History)
	}
	for i := range maxRefusals + 10 {
		r.happens(no("AccessDenied", fmt.Sprint("reason ", i)))
	}
	if d = r.device("S-1"); len(d.History) != 1+maxRefusals || d.Lost != 11 {
		t.Errorf("%d entries, %d lost", len(d.History), d.Lost)
	}
	// A stranger leaves no record.
	r.happens(event.ProvisioningRefused{ClientID: "S-9", CertificateID: second, Code: "AccessDenied", Reason: "no"})
	_, err := r.Device(t.Context(), acct, "S-9")
	wantCode(t, err, fault.ResourceNotFound)
	r.happens(joins("S-1", first))
	wantEqual(t, r.device("S-1").State, StateRegistered)
}

// An approval that lets a device in comes with its registration.
func TestApproved(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(small)
	r.expect("S-1")
	voted := event.ApprovalChanged{Request: "apr_7", State: "APPROVED", Template: "pumps", CertificateID: first, Thing: "pump-1"}
	r.happens(voted)
	wantEqual(t, r.device("S-1").State, StateExpected)
	used := voted
	used.State = "USED"
	r.happens(joins("S-1", first), used)
	wantEqual(t, r.device("S-1").State, StateApproved)
	r.happens(used)
	wantEqual(t, r.device("S-1").State, StateApproved)
}

// The batch of Expected makes the announcement part of another commit.
func TestExpected(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(small)
	c := ExpectCommand{Plan: "pumps", Metadata: map[string]string{"uniqueId": "S-1"}}
	b, err := r.Expected(t.Context(), acct, c)
	r.need(err)
	r.expect("S-1")
	if _, err := r.store.Commit(t.Context(), b); !errors.Is(err, store.ErrConflict) {
		t.Errorf("announced twice: %v", err)
	}
	_, err = r.Expected(t.Context(), acct, c)
	wantCode(t, err, fault.ResourceAlreadyExists)
	_, err = r.Expected(t.Context(), acct, ExpectCommand{Plan: "none", Device: "x"})
	wantCode(t, err, fault.ResourceNotFound)
}

// security-provisioning §5.1: devices that are in a stage for too long are found.
func TestStuck(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(small)
	r.expect("S-1")
	r.pass(24 * time.Hour)
	r.expect("S-2")
	names := func(q Query) string {
		t.Helper()
		var out []string
		for q.Limit = 1; ; {
			found, next, err := r.Devices(t.Context(), acct, q)
			r.need(err)
			for _, d := range found {
				out = append(out, d.Key)
			}
			if next == "" {
				return strings.Join(out, " ")
			}
			q.After = next
		}
	}
	wantEqual(t, names(Query{Stage: "make"}), "S-1 S-2")
	wantEqual(t, names(Query{Stage: "make", OlderThan: 23 * time.Hour}), "S-1")
	wantEqual(t, names(Query{Stage: "join"}), "")
	wantEqual(t, names(Query{Stuck: true}), "")
	r.pass(9*24*time.Hour - time.Second)
	wantEqual(t, names(Query{Stuck: true}), "")
	r.pass(time.Second)
	wantEqual(t, names(Query{Stuck: true}), "S-1")
	if d := r.device("S-1"); !d.Stuck || !d.StuckAt.Equal(start.Add(240*time.Hour)) {
		t.Errorf("it is %+v", d)
	}
	metric := func() int {
		r.need(r.count(t.Context()))
		return value(t, r.stuck.WithLabelValues(string(acct), "make"))
	}
	wantEqual(t, metric(), 1)
	r.pass(24 * time.Hour)
	wantEqual(t, names(Query{Stuck: true}), "S-1 S-2")
	wantEqual(t, metric(), 2)
	// Who goes on, or is refused, is not stuck.
	r.need(r.complete("S-1", "test", "p"))
	r.need(r.complete("S-1", "label", ""))
	r.happens(event.ProvisioningRefused{ClientID: "S-2", Code: "AccessDenied", Reason: "no"})
	wantEqual(t, names(Query{Stuck: true}), "")
	wantEqual(t, metric(), 0)
	wantEqual(t, names(Query{State: StateRejected}), "S-2")
	for _, q := range []Query{
		{State: "X"}, {Stage: "a b"}, {State: StateActive, Stage: "make"}, {OlderThan: time.Hour}, {Stuck: true, Stage: "make"}, {Stage: "make", OlderThan: -1},
	} {
		q.Limit = 1
		_, _, err := r.Devices(t.Context(), acct, q)
		wantCode(t, err, fault.InvalidRequest)
	}
	_, _, err := r.Devices(t.Context(), acct, Query{Limit: maxListed + 1})
	wantCode(t, err, fault.InvalidRequest)
}

// value reads a metric.
func value(t *testing.T, m prometheus.Metric) int {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return int(out.GetGauge().GetValue() + out.GetCounter().GetValue())
}

// mission M19: exit criteria hold within their time, or the device is reported. A
// restart in between changes nothing.
func TestExitCriteria(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(small)
	r.happens(joins("S-1", first), connects("S-1", first))
	d := r.device("S-1")
	if len(d.Criteria) != 2 || !d.Criteria[0].Deadline.Equal(start.Add(10*time.Minute)) || !d.Criteria[1].Deadline.Equal(start.Add(time.Hour)) {
		t.Errorf("criteria %+v", d.Criteria)
	}
	r.pass(4 * time.Second)
	wantEqual(t, r.asked, 0)
	r.holds[conQuery] = true
	r.pass(time.Second)
	wantEqual(t, r.asked, 2)
	if d = r.device("S-1"); !d.Criteria[1].Met.Equal(start.Add(5*time.Second)) || !d.Criteria[0].Met.IsZero() {
		t.Errorf("criteria %+v", d.Criteria)
	}
	r.boot()
	// An index that is being built decides nothing, even past the deadline.
	r.holdsErr = fault.New(fault.IndexNotReady, "wait")
	r.clock.Add(int64(10 * time.Minute))
	if err := r.Sweep(t.Context()); fault.CodeOf(err) == "" {
		t.Error("nobody says that criteria could not be looked at")
	}
	if d = r.device("S-1"); !d.Criteria[0].Failed.IsZero() {
		t.Errorf("criteria %+v", d.Criteria)
	}
	// A process that dies at the decision decides again.
	r.holdsErr = nil
	r.store.live(0)
	if err := r.Sweep(t.Context()); !errors.Is(err, errDied) {
		t.Errorf("got %v", err)
	}
	r.store.live(-1)
	r.boot()
	r.pass(0)
	d = r.device("S-1")
	if !d.Criteria[0].Failed.Equal(r.now()) || d.State != StateActive {
		t.Errorf("it is %s, criteria %+v", d.State, d.Criteria)
	}
	last := d.History[len(d.History)-1]
	if last.Result != ResultFailed || last.Note != okQuery+" did not hold within 10m0s of the activation" {
		t.Errorf("last entry %+v", last)
	}
	r.holds[okQuery] = true
	r.pass(time.Hour) // it is decided
	var failed []event.Event
	for _, e := range r.events() {
		if f, ok := e.(event.OnboardingCriteriaFailed); ok {
			failed = append(failed, f)
		}
	}
	wantEqual(t, failed, []event.Event{event.OnboardingCriteriaFailed{
		Device: "S-1", Plan: "pumps", PlanVersion: 1, Thing: "thing-S-1", CertificateID: first, Stage: "join", Predicate: okQuery,
		Within: 10 * time.Minute, ActivatedAt: start,
	}})
	wantEqual(t, value(t, r.failed), 1)
}

// Criteria are looked at ever more seldom, and exactly at the deadline.
func TestCriteriaAreLookedAtSeldom(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(small)
	r.happens(joins("S-1", first), connects("S-1", first))
	for range 3600 {
		r.pass(time.Second)
	}
	if r.asked > 30 {
		t.Errorf("the index was asked %d times in an hour", r.asked)
	}
	d := r.device("S-1")
	if !d.Criteria[0].Failed.Equal(d.Criteria[0].Deadline) || !d.Criteria[1].Failed.Equal(d.Criteria[1].Deadline) {
		t.Errorf("criteria %+v", d.Criteria)
	}
}

// Events that were trimmed before they were applied: who is connected is active.
func TestRebuild(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(small)
	r.happens(joins("S-1", first))
	r.expect("S-2")
	r.connections = []Seen{
		{Account: acct, CertificateID: first, ClientID: "S-1", At: start},
		{Account: acct, CertificateID: claim, ClientID: "S-2", At: start},
		{Account: acct, CertificateID: second, ClientID: "S-3", At: start},
	}
	head, err := r.store.Head(t.Context())
	r.need(err)
	cursor, err := r.Rebuild(t.Context())
	r.need(err)
	wantEqual(t, cursor.String(), head.String())
	wantEqual(t, r.device("S-1").State, StateActive)
	wantEqual(t, r.device("S-2").State, StateShipped)
}

package deviceauth_test

import (
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// byClient returns the refusals of a client id.
func (w *world) byClient(clientID string) []deviceauth.Refusal {
	return w.service.ClientRefusals(account, clientID).Refusals
}

// one returns the only refusal of a client id.
func (w *world) one(tb testing.TB, clientID string) deviceauth.Refusal {
	tb.Helper()
	all := w.byClient(clientID)
	if len(all) != 1 {
		tb.Fatalf("%d refusals of %s, want 1: %+v", len(all), clientID, all)
	}
	return all[0]
}

func TestRefusalSaysEverything(t *testing.T) {
	t.Parallel()
	w := newWorld(t, reference)
	w.policies["stop"] = deviceauth.Policy{
		Name: "stop", VersionID: "3", Document: []byte(`{"Statement":{"Effect":"Deny","Action":"iot:Receive","Resource":"*"}}`),
		Attachments: []iotpolicy.Attachment{{Target: scope + "thinggroup/parent", Through: "child"}},
	}
	w.targets["parent"] = []string{"stop"}
	guard := w.connect(t, "pump-7").Guard
	guard.CanPublish("plant/leeds/pump-8/t", false)
	w.now.Store(start.Add(time.Second).UnixNano())
	guard.CanPublish("plant/leeds/pump-8/t", false)
	guard.CanReceive(topicOfPump7)
	all := w.byClient("pump-7")
	if len(all) != 2 {
		t.Fatalf("%d refusals, want 2", len(all))
	}
	policies := []deviceauth.PolicyInForce{
		{Name: "reference", Version: "1"},
		{Name: "stop", Version: "3", From: []deviceauth.Source{{Kind: "group", Name: "parent", Through: "child"}}},
	}
	principal := fleet.Principal{Kind: fleet.PrincipalCertificate, ID: w.id, ARN: w.arn}
	want := []deviceauth.Refusal{
		{
			FirstAt: start.Add(time.Second), LastAt: start.Add(time.Second), Count: 1, Packet: deviceauth.PacketDelivery,
			ClientID: "pump-7", Principal: principal, SourceIP: "192.0.2.7",
			Explanation: deviceauth.Explanation{
				Action: "iot:Receive", Resource: scope + "topic/" + topicOfPump7, Name: topicOfPump7, Outcome: "EXPLICIT_DENY",
				Reason: "statement 0 of policy stop version 3 denies it", Thing: "pump-7",
				DeniedBy:  []deviceauth.Statement{{Policy: "stop", Version: "3"}},
				AllowedBy: []deviceauth.Statement{{Policy: "reference", Version: "1", Index: 1}},
				Variables: []deviceauth.Variable{
					{Name: "iot:Connection.Thing.Attributes[site]", Values: []string{"leeds"}},
					{Name: "iot:Connection.Thing.ThingName", Values: []string{"pump-7"}},
				},
				Policies: policies,
				Fixes: []deviceauth.Fix{{
					Text: "Change statement 0 of policy stop version 3, or detach the policy from group parent, above child; a Deny wins over every Allow.",
				}},
			},
		},
		{
			FirstAt: start, LastAt: start.Add(time.Second), Count: 2, Packet: deviceauth.PacketPublish,
			ClientID: "pump-7", Principal: principal, SourceIP: "192.0.2.7",
			Explanation: deviceauth.Explanation{
				Action: "iot:Publish", Resource: scope + "topic/plant/leeds/pump-8/t", Name: "plant/leeds/pump-8/t", Outcome: "IMPLICIT_DENY",
				Reason: "no statement allows it", Thing: "pump-7",
				Nearest: []deviceauth.NearMiss{{
					Statement: deviceauth.Statement{Policy: "reference", Version: "1", Index: 1},
					Resource:  scope + "topic/plant/${iot:Connection.Thing.Attributes[site]}/${iot:Connection.Thing.ThingName}/*",
					Resolved:  scope + "topic/plant/leeds/pump-7/*", Wants: "pump-7", Got: "pump-8",
				}},
				Variables: []deviceauth.Variable{
					{Name: "iot:Connection.Thing.Attributes[site]", Values: []string{"leeds"}},
					{Name: "iot:Connection.Thing.ThingName", Values: []string{"pump-7"}},
				},
				Policies: policies,
				Fixes: []deviceauth.Fix{{
					Text:      "Allow it in a policy in force.",
					Statement: `{"Effect":"Allow","Action":"iot:Publish","Resource":"` + scope + `topic/plant/leeds/pump-8/t"}`,
				}},
			},
		},
	}
	slices.SortStableFunc(all, func(a, b deviceauth.Refusal) int { return strings.Compare(string(a.Packet), string(b.Packet)) })
	if diff := cmp.Diff(want, all); diff != "" {
		t.Errorf("refusals (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(all, w.service.PrincipalRefusals(account, w.id).Refusals, cmp.Transformer("sort", func(r []deviceauth.Refusal) map[string]int64 {
		m := map[string]int64{}
		for i := range r {
			m[r[i].Resource] = r[i].Count
		}
		return m
	})); diff != "" {
		t.Errorf("by principal (-client +principal):\n%s", diff)
	}
}

// Each cause of a refusal names what would lift it.
func TestRefusalsNameTheFix(t *testing.T) {
	t.Parallel()
	condition := `{"Version":"2012-10-17","Statement":[
	 {"Effect":"Allow","Action":"iot:Connect","Resource":"*","Condition":{"ForAllValues:StringEquals":{"iot:ConnectAttributes":["LastWill"]}}}]}`
	for _, c := range []struct {
		name     string
		document string
		arrange  func(*world, *deviceauth.Request)
		outcome  string
		reason   string
		hint     string
		fix      string
	}{
		{
			"attach the thing", reference, func(_ *world, r *deviceauth.Request) { r.ClientID = "pump-8" },
			"IMPLICIT_DENY", "no statement allows it", "attached to no thing named like the client id", "attach-thing-principal --thing-name pump-8 --principal " + scope + "cert/",
		},
		{
			"persistent session", condition, func(_ *world, r *deviceauth.Request) { r.Persistent = true },
			"IMPLICIT_DENY", "no statement", "", "ForAllValues:StringEquals iot:ConnectAttributes must have LastWill and has PersistentConnect",
		},
		{
			"will elsewhere", condition, func(_ *world, r *deviceauth.Request) { r.Will = &deviceauth.Will{Topic: "w"} },
			"IMPLICIT_DENY", "no statement", "", `"Action":"iot:Publish","Resource":"` + scope + "topic/w",
		},
		{
			"no policy", everything, func(w *world, _ *deviceauth.Request) { w.targets = nil },
			"IMPLICIT_DENY", "no policy applies", "", "aws iot attach-policy --policy-name POLICY --target " + scope + "cert/",
		},
		{
			"inactive", everything, func(w *world, _ *deviceauth.Request) {
				w.certificates[w.id] = deviceauth.Certificate{ID: w.id, ARN: w.arn, Status: "INACTIVE"}
			}, "UNAUTHENTICATED", "is INACTIVE, not ACTIVE", "", "--new-status ACTIVE",
		},
		{
			"unregistered", everything, func(w *world, _ *deviceauth.Request) { delete(w.certificates, w.id) },
			"UNAUTHENTICATED", "is not registered", "", "register-certificate-without-ca",
		},
		{
			"no certificate", everything, func(_ *world, r *deviceauth.Request) { r.Certificate = nil },
			"UNAUTHENTICATED", "certificate is required", "", "it presented none",
		},
		{
			"expired", everything, func(w *world, _ *deviceauth.Request) { w.now.Store(start.Add(25 * time.Hour).UnixNano()) },
			"UNAUTHENTICATED", "expired at", "", "Issue a new certificate",
		},
		{
			"server name", everything, func(_ *world, r *deviceauth.Request) { r.ServerName = "refused" },
			"UNAUTHENTICATED", "selects no account", "", `it asked for "refused"`,
		},
		{
			"store away", everything, func(w *world, _ *deviceauth.Request) { w.failure = errors.New("disk on fire") },
			"UNAVAILABLE", "cannot be read now", "", "Look at the store",
		},
		{
			"another region", strings.ReplaceAll(everything, `"Resource":"*"`, `"Resource":"arn:aws:iot:us-east-1:000000000001:*"`), func(*world, *deviceauth.Request) {},
			"IMPLICIT_DENY", "no statement", "in another region or account", "Correct statement 0 of policy reference version 1: the resource is in another region or account",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.document)
			r := deviceauth.Request{Certificate: w.certificate, ClientID: "pump-7", RemoteAddr: "192.0.2.7:1"}
			c.arrange(w, &r)
			if _, err := w.service.Admit(t.Context(), r); err == nil {
				t.Fatal("admitted")
			}
			got := w.one(t, r.ClientID)
			fixes := fmt.Sprint(got.Fixes)
			if got.Packet != deviceauth.PacketConnect || got.Outcome != c.outcome || !strings.Contains(got.Reason, c.reason) || !strings.Contains(fmt.Sprint(got.Hints), c.hint) ||
				!strings.Contains(fixes, c.fix) || got.Incomplete {
				t.Errorf("refusal %+v", got)
			}
			if r.Certificate != nil && len(w.service.PrincipalRefusals(account, w.id).Refusals) != 1 {
				t.Error("not kept for the certificate")
			}
		})
	}
}

// A refusal tells of the policies that refused last, not of older ones, and
// does not lose its count when they change.
func TestRefusalFollowsPolicies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, reference)
	guard := w.connect(t, "pump-7").Guard
	for range 3 {
		guard.CanPublish("x", false)
	}
	w.setPolicy("reference", `{"Statement":{"Sid":"no","Effect":"Deny","Action":"iot:*","Resource":"*"}}`)
	guard.CanPublish("x", false)
	got := w.one(t, "pump-7")
	if got.Count != 4 || got.Outcome != "EXPLICIT_DENY" || len(got.DeniedBy) != 1 || got.DeniedBy[0].Sid != "no" {
		t.Errorf("refusal %+v", got)
	}
	w.mu.Lock()
	w.failure = errors.New("disk on fire")
	w.mu.Unlock()
	w.change(event.PolicyDetached{Policy: "reference", Target: w.arn}, func() {})
	guard.CanPublish("x", false)
	if got := w.one(t, "pump-7"); got.Count != 5 || got.Outcome != "UNAVAILABLE" {
		t.Errorf("refusal %+v", got)
	}
}

func TestRefusalsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, reference)
	guard := w.connect(t, "pump-7").Guard
	for i := range 1000 {
		w.now.Add(1000)
		guard.CanPublish(fmt.Sprint("x/", i), false)
	}
	all := w.byClient("pump-7")
	if len(all) != 32 || all[0].Name != "x/999" || all[31].Name != "x/968" {
		t.Fatalf("%d refusals, newest %s", len(all), all[0].Name)
	}
	// Explaining is bounded too, and the newest says so.
	if !all[0].Incomplete || all[0].Outcome != "IMPLICIT_DENY" || w.service.ClientRefusals(account, "pump-7").Evicted != 968 {
		t.Errorf("newest %+v", all[0])
	}
	// With time there is room to explain it.
	w.now.Store(start.Add(time.Minute).UnixNano())
	guard.CanPublish("x/999", false)
	if got := w.byClient("pump-7")[0]; got.Incomplete || got.Count != 2 || len(got.Nearest) == 0 {
		t.Errorf("again %+v", got)
	}
	w.now.Add(1000)
	guard.CanPublish(strings.Repeat("ü", 30000), false)
	if got := w.byClient("pump-7")[0]; len(got.Name) > 600 || !strings.Contains(got.Name, "bytes") || got.Outcome != "IMPLICIT_DENY" {
		t.Errorf("long topic %+v", got)
	}
}

// One certificate under many client ids leaves the refusals of others alone, and
// strangers leave those of devices alone.
func TestRefusalsOfOthersStay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, reference)
	w.connect(t, "pump-7").Guard.CanPublish("mine", false)
	other := newCertificate(t, pkix.Name{CommonName: "other"})
	arn := scope + "cert/" + deviceauth.CertificateID(other)
	w.certificates[deviceauth.CertificateID(other)] = deviceauth.Certificate{ID: deviceauth.CertificateID(other), ARN: arn, Status: "ACTIVE"}
	stranger := newCertificate(t, pkix.Name{CommonName: "stranger"})
	for i := range 5000 {
		w.now.Add(1000)
		_, _ = w.service.Admit(t.Context(), deviceauth.Request{Certificate: other, ClientID: fmt.Sprint("o", i)})
		_, _ = w.service.Admit(t.Context(), deviceauth.Request{Certificate: stranger, ClientID: fmt.Sprint("s", i)})
		_, _ = w.service.Admit(t.Context(), deviceauth.Request{ClientID: fmt.Sprint("n", i)})
	}
	if got := w.one(t, "pump-7"); got.Name != "mine" {
		t.Errorf("refusal %+v", got)
	}
	kept := 0
	for i := range 5000 {
		kept += len(w.byClient(fmt.Sprint("o", i)))
	}
	if kept != 256 {
		t.Errorf("%d refusals of one certificate, want 256", kept)
	}
	if len(w.byClient("n4999")) != 1 || len(w.byClient("n0")) != 0 {
		t.Error("the newest stranger is not kept, or the oldest is")
	}
}

// What-if: the answer is from the registry as it is, for a live session with its
// own values, else for the certificate.
func TestExplain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, reference)
	stored := w.certificates[w.id]
	stored.PEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.certificate.Raw}))
	w.certificates[w.id] = stored
	for _, c := range []struct {
		name string
		q    deviceauth.Question
		code fault.Code
		want string
	}{
		{"connect", deviceauth.Question{ClientID: "pump-7", CertificateID: w.id, Action: "iot:Connect"}, "", "ALLOWED"},
		{"topic", deviceauth.Question{ClientID: "pump-7", CertificateID: w.id, Action: "iot:Publish", Topic: topicOfPump7}, "", "ALLOWED"},
		{"filter", deviceauth.Question{ClientID: "pump-7", CertificateID: w.id, Action: "iot:Subscribe", Topic: "plant/leeds/pump-7/#"}, "", "ALLOWED"},
		{"short", deviceauth.Question{ClientID: "pump-7", CertificateID: w.id, Action: "iot:Receive", Resource: "topic/x"}, "", "IMPLICIT_DENY"},
		{"ARN", deviceauth.Question{ClientID: "pump-7", CertificateID: w.id, Action: "iot:RetainPublish", Resource: scope + "topic/x"}, "", "EXPLICIT_DENY"},
		{"other client", deviceauth.Question{ClientID: "pump-8", CertificateID: w.id, Action: "iot:Connect"}, "", "IMPLICIT_DENY"},
		{"nobody", deviceauth.Question{ClientID: "pump-9", Action: "iot:Connect"}, fault.InvalidRequest, "certificateId must be given"},
		{"no certificate", deviceauth.Question{ClientID: "c", CertificateID: strings.Repeat("0", 64), Action: "iot:Connect"}, fault.ResourceNotFound, ""},
		{"bad id", deviceauth.Question{ClientID: "c", CertificateID: "x", Action: "iot:Connect"}, fault.InvalidRequest, "hexadecimal"},
		{"bad action", deviceauth.Question{ClientID: "c", Action: "iot:Dance"}, fault.InvalidRequest, "action must be"},
		{"two", deviceauth.Question{ClientID: "c", Action: "iot:Publish", Topic: "a", Resource: "topic/a"}, fault.InvalidRequest, "topic cannot"},
		{"none", deviceauth.Question{ClientID: "c", Action: "iot:Publish"}, fault.InvalidRequest, "topic or resource"},
	} {
		a, err := w.service.Explain(t.Context(), account, c.q)
		if fault.CodeOf(err) != c.code || (err == nil && a.Outcome != c.want) || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %+v, %v", c.name, a, err)
		}
	}
	// A live session has values that its certificate has not.
	w.setPolicy("reference", strings.Replace(everything, `"*"`, `"*","Condition":{"IpAddress":{"aws:SourceIp":"192.0.2.7"}}`, 1))
	ask := deviceauth.Question{ClientID: "pump-7", CertificateID: w.id, Action: "iot:Publish", Topic: "a"}
	if a, err := w.service.Explain(t.Context(), account, ask); err != nil || a.Connected || a.Outcome != "IMPLICIT_DENY" {
		t.Errorf("away: %+v, %v", a, err)
	}
	guard := w.connect(t, "pump-7").Guard
	if a, err := w.service.Explain(t.Context(), account, ask); err != nil || !a.Connected || a.Outcome != "ALLOWED" {
		t.Errorf("connected: %+v, %v", a, err)
	}
	guard.Close()
	// Who was refused lately needs no certificate id; an inactive certificate is
	// the answer.
	w.setPolicy("reference", reference)
	if _, err := w.service.Admit(t.Context(), deviceauth.Request{Certificate: w.certificate, ClientID: "pump-8"}); err == nil {
		t.Fatal("admitted")
	}
	stored.Status = "INACTIVE"
	w.certificates[w.id] = stored
	a, err := w.service.Explain(t.Context(), account, deviceauth.Question{ClientID: "pump-8", Action: "iot:Connect"})
	if err != nil || a.Outcome != "UNAUTHENTICATED" || len(a.Fixes) != 1 || a.Principal.ID != w.id {
		t.Errorf("inactive: %+v, %v", a, err)
	}
}

// A call over HTTPS has no client: it is kept for its certificate.
func TestRefusedCallIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.Replace(reference, "iot:Connect", "iot:GetThingShadow", 1))
	id, err := w.service.Identify(t.Context(), "", w.certificate)
	if err != nil {
		t.Fatal(err)
	}
	call := deviceauth.Call{Action: iotpolicy.ActionGetThingShadow, Kind: fleet.ARNThing, Name: "pump-7", RemoteAddr: "192.0.2.9:1"}
	if err := w.service.Authorize(t.Context(), id, call); fault.CodeOf(err) != fault.Forbidden {
		t.Fatal(err)
	}
	all := w.service.PrincipalRefusals(account, w.id).Refusals
	if len(all) != 1 || all[0].Packet != deviceauth.PacketCall || all[0].ClientID != "" || !strings.Contains(fmt.Sprint(all[0].Hints), "no connection") {
		t.Errorf("refusals %+v", all)
	}
}

// Repeats of a refusal cost as much as an allowed packet: no allocation, no lock
// of the ledger.
func TestRepeatedRefusalDoesNotAllocate(t *testing.T) {
	w := newWorld(t, reference)
	guard := w.connect(t, "pump-7").Guard
	guard.CanPublish("x", false)
	if allocs := testing.AllocsPerRun(100, func() { guard.CanPublish("x", false) }); allocs > 0 {
		t.Errorf("%v allocations for a repeat", allocs)
	}
}

// Many sessions are refused, and asked about, at once; no repeat is lost.
func TestConcurrentRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t, reference)
	guards := []*deviceauth.Guard{w.connect(t, "pump-7").Guard, w.connect(t, "pump-7").Guard}
	var running sync.WaitGroup
	for i := range 8 {
		running.Go(func() {
			for n := range 500 {
				guards[i%2].CanPublish("same", false)
				guards[i%2].CanReceive(fmt.Sprint("other/", n%20))
				if n%100 == 0 {
					w.service.PrincipalRefusals(account, w.id)
				}
			}
		})
	}
	for i := range 50 {
		w.change(event.PolicyAttached{Policy: "p", Target: w.arn}, func() {
			w.policies["p"] = policy(fmt.Sprint("p", i), reference)
		})
	}
	running.Wait()
	for _, r := range w.byClient("pump-7") {
		if r.Name == "same" && r.Count != 4000 {
			t.Errorf("%d refusals counted, want 4000", r.Count)
		}
	}
}

// What a refusal costs: the same again, another topic that is explained no more,
// and one that is explained.
func BenchmarkRefusal(b *testing.B) {
	topics := make([]string, 4096)
	for i := range topics {
		topics[i] = fmt.Sprint("x/", i)
	}
	for _, c := range []struct {
		name  string
		kinds int
		step  time.Duration
	}{{"same", 1, 0}, {"unexplained", len(topics), 0}, {"explained", len(topics), time.Minute}} {
		b.Run(c.name, func(b *testing.B) {
			w := newWorld(b, reference)
			a, err := w.service.Admit(b.Context(), deviceauth.Request{Certificate: w.certificate, ClientID: "pump-7"})
			if err != nil {
				b.Fatal(err)
			}
			defer a.Guard.Close()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				w.now.Add(int64(c.step))
				w.log.buffer.Reset()
				a.Guard.CanPublish(topics[i%c.kinds], false)
			}
		})
	}
}

package deviceauth_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// reference is the device policy of security-provisioning 6.1.
const reference = `{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":"iot:Connect","Resource":"@:client/${iot:Connection.Thing.ThingName}",
  "Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"true"}}},
 {"Effect":"Allow","Action":["iot:Publish","iot:Receive"],
  "Resource":"@:topic/plant/${iot:Connection.Thing.Attributes[site]}/${iot:Connection.Thing.ThingName}/*"},
 {"Effect":"Allow","Action":"iot:Subscribe",
  "Resource":"@:topicfilter/plant/${iot:Connection.Thing.Attributes[site]}/${iot:Connection.Thing.ThingName}/*"},
 {"Effect":"Deny","Action":"iot:RetainPublish","Resource":"*"}]}`

const everything = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:*","Resource":"*"}}`

const topicOfPump7 = "plant/leeds/pump-7/t"

func TestReferenceVectors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, reference)
	admission := w.connect(t, "pump-7") // vector 1
	guard := admission.Guard
	if admission.ThingName != "" || !admission.Indexed || admission.Account != account || admission.Principal.ID != w.id {
		t.Errorf("admission %+v", admission)
	}
	for _, c := range []struct {
		vector int
		got    bool
		want   bool
	}{
		{4, guard.CanPublish(topicOfPump7, false), true},
		{5, guard.CanPublish(topicOfPump7, true), false},
		{6, guard.CanSubscribe("plant/leeds/pump-7/#"), true},
		{7, guard.CanSubscribe("plant/leeds/+/t"), false},
		{8, guard.CanReceive("plant/leeds/pump-8/t"), false},
	} {
		if c.got != c.want {
			t.Errorf("vector %d: %v, want %v", c.vector, c.got, c.want)
		}
	}
	_, err := w.service.Admit(t.Context(), deviceauth.Request{Certificate: w.certificate, ClientID: "pump-8"})
	var denied *deviceauth.DeniedError
	if fault.CodeOf(err) != fault.Forbidden || !errors.As(err, &denied) {
		t.Fatalf("vector 2: %v", err)
	}
	want := &deviceauth.DeniedError{
		Account: account, Principal: fleet.Principal{Kind: fleet.PrincipalCertificate, ID: w.id, ARN: w.arn}, ClientID: "pump-8",
		Action: "iot:Connect", Resource: scope + "client/pump-8", Considered: []string{"reference"},
		Missing: []string{"iot:Connection.Thing.ThingName"},
	}
	if diff := cmp.Diff(want, denied); diff != "" {
		t.Errorf("vector 2 (-want +got):\n%s", diff)
	}
}

// Vectors 3, 9, 10, 11 and 12: what changes under a live session applies to
// its next packet.
func TestLiveSessionFollowsEveryChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t, reference)
	guard := w.connect(t, "pump-7").Guard
	expect := func(step string, topic string, want bool) {
		t.Helper()
		for range 2 { // computed, then from the cache
			if got := guard.CanPublish(topic, false); got != want {
				t.Errorf("%s: publish %s %v, want %v", step, topic, got, want)
			}
		}
	}
	site := func(attributes map[string]string) {
		w.change(event.ThingUpdated{Thing: event.Thing{Thing: "pump-7"}}, func() {
			w.things["pump-7"] = deviceauth.Thing{Name: "pump-7", Attributes: attributes}
		})
	}
	expect("at first", topicOfPump7, true)
	site(nil)
	expect("vector 9", topicOfPump7, false)
	site(map[string]string{"site": "*"})
	expect("vector 10", "plant/x/pump-7/t", false)
	site(map[string]string{"site": "leeds"})
	expect("restored", topicOfPump7, true)

	w.change(event.PolicyAttached{Policy: "stop", Target: scope + "thinggroup/parent"}, func() {
		w.policies["stop"] = policy("stop", `{"Statement":{"Effect":"Deny","Action":"iot:Publish","Resource":"@:topic/plant/leeds/*"}}`)
		w.targets["parent"] = []string{"stop"}
	})
	expect("vector 11", topicOfPump7, false)
	w.change(event.MembershipChanged{Group: "child", Thing: "pump-7"}, func() { delete(w.groups, "pump-7") })
	expect("left the group", topicOfPump7, true)
	w.setPolicy("reference", `{"Statement":{"Effect":"Allow","Action":"iot:Publish","Resource":"@:topic/other"}}`)
	expect("vector 12", topicOfPump7, false)
	expect("vector 12", "other", true)
	w.change(event.PolicyDetached{Policy: "reference", Target: w.arn}, func() { delete(w.targets, w.arn) })
	expect("detached", "other", false)
	w.change(event.PolicyAttached{Policy: "reference", Target: w.arn}, func() { w.targets[w.arn] = []string{"reference"} })
	w.setPolicy("reference", reference)
	expect("attached again", topicOfPump7, true)

	w.change(event.PrincipalDetached{Thing: "pump-7", Principal: w.arn}, func() { delete(w.attached, w.arn) })
	expect("thing detached", topicOfPump7, false)
}

// An exclusive thing is the connection's whatever the client id: vector 3, and
// trap 21 of the device plane.
func TestExclusiveThing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, reference)
	w.attached[w.arn] = map[string]bool{"pump-7": true}
	if _, err := w.service.Admit(t.Context(), deviceauth.Request{Certificate: w.certificate, ClientID: "pump-8"}); fault.CodeOf(err) != fault.Forbidden {
		t.Errorf("vector 3: %v", err)
	}
	w.setPolicy("reference", strings.Replace(reference, "client/${iot:Connection.Thing.ThingName}", "client/*", 1))
	a := w.connect(t, "anything")
	if a.ThingName != "pump-7" || a.Indexed || !a.Guard.CanPublish(topicOfPump7, false) {
		t.Errorf("admission %+v", a)
	}
	// The session follows the thing, though nothing of it is named so.
	w.change(event.ThingUpdated{Thing: event.Thing{Thing: "pump-7"}}, func() {
		w.things["pump-7"] = deviceauth.Thing{Name: "pump-7"}
	})
	if a.Guard.CanPublish(topicOfPump7, false) {
		t.Error("the session missed an update of its exclusive thing")
	}
}

func TestIdentityIsRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		arrange func(*world, *deviceauth.Request)
		code    fault.Code
		reason  string
	}{
		{"no certificate", func(_ *world, r *deviceauth.Request) { r.Certificate = nil }, fault.Unauthorized, "certificate is required"},
		{"not registered", func(w *world, _ *deviceauth.Request) { delete(w.certificates, w.id) }, fault.Unauthorized, "is not registered"},
		{"inactive", func(w *world, _ *deviceauth.Request) {
			w.certificates[w.id] = deviceauth.Certificate{ID: w.id, ARN: w.arn, Status: "PENDING_ACTIVATION"}
		}, fault.Unauthorized, "PENDING_ACTIVATION"},
		{"expired", func(w *world, _ *deviceauth.Request) { w.now.Store(start.Add(25 * time.Hour).UnixNano()) }, fault.Unauthorized, "expired at 2026-11-24T09:00:00Z"},
		{"not yet valid", func(w *world, _ *deviceauth.Request) { w.now.Store(start.Add(-2 * time.Hour).UnixNano()) }, fault.Unauthorized, "not valid before"},
		{"no account", func(_ *world, r *deviceauth.Request) { r.ServerName = "refused" }, fault.Unauthorized, "selects no account"},
		{"registry down", func(w *world, _ *deviceauth.Request) { w.failure = errors.New("disk on fire") }, fault.Unavailable, "disk on fire"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, everything)
			r := deviceauth.Request{Certificate: w.certificate, ClientID: "pump-7"}
			c.arrange(w, &r)
			_, err := w.service.Admit(t.Context(), r)
			if fault.CodeOf(err) != c.code {
				t.Errorf("error %v, want %s", err, c.code)
			}
			if !strings.Contains(w.log.String(), c.reason) {
				t.Errorf("log %s lacks %q", w.log, c.reason)
			}
		})
	}
}

// The will's topic needs what publishing to it needs, at CONNECT; the features
// of a CONNECT are the values of iot:ConnectAttributes.
func TestConnectFeatures(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `{"Version":"2012-10-17","Statement":[
	 {"Effect":"Allow","Action":"iot:Connect","Resource":"*","Condition":{"ForAllValues:StringEquals":{"iot:ConnectAttributes":["LastWill"]}}},
	 {"Effect":"Allow","Action":["iot:Publish"],"Resource":"@:topic/will/*"},
	 {"Effect":"Allow","Action":["iot:RetainPublish"],"Resource":"@:topic/will/retained"}]}`)
	for _, c := range []struct {
		name       string
		persistent bool
		will       *deviceauth.Will
		refusedFor string
	}{
		{"plain", false, nil, ""},
		{"persistent", true, nil, "iot:Connect"},
		{"will", false, &deviceauth.Will{Topic: "will/a"}, ""},
		{"will elsewhere", false, &deviceauth.Will{Topic: "b"}, "iot:Publish"},
		{"retained will", false, &deviceauth.Will{Topic: "will/a", Retain: true}, "iot:RetainPublish"},
		{"retained will allowed", false, &deviceauth.Will{Topic: "will/retained", Retain: true}, ""},
	} {
		a, err := w.service.Admit(t.Context(), deviceauth.Request{Certificate: w.certificate, ClientID: "c", Persistent: c.persistent, Will: c.will})
		action := ""
		if denied := (*deviceauth.DeniedError)(nil); errors.As(err, &denied) {
			action = denied.Action
		}
		if action != c.refusedFor {
			t.Errorf("%s: refused for %q (%v), want %q", c.name, action, err, c.refusedFor)
		}
		if err == nil {
			a.Guard.Close()
		}
	}
}

// The plain listener lets anybody do anything, and only it.
func TestAnonymous(t *testing.T) {
	t.Parallel()
	w := newWorld(t, reference)
	a, err := w.service.Admit(t.Context(), deviceauth.Request{ClientID: "x", Plain: true})
	if err != nil || a.Account != account || a.Principal.Kind != fleet.PrincipalAnonymous {
		t.Fatalf("admission %+v, %v", a, err)
	}
	if !a.Guard.CanPublish("a", true) || !a.Guard.CanSubscribe("#") || !a.Guard.CanReceive("$share/g/a") {
		t.Error("an anonymous session of the plain listener was refused something")
	}
	a.Guard.Close()
	if _, err := w.service.Admit(t.Context(), deviceauth.Request{ClientID: "x"}); fault.CodeOf(err) != fault.Unauthorized {
		t.Errorf("elsewhere: %v", err)
	}
}

// A certificate that leaves ACTIVE loses its connections, and its packets are
// refused before they are gone.
func TestRevocation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything)
	guard := w.connect(t, "pump-7").Guard
	if !guard.CanPublish("a", false) {
		t.Fatal("refused before the change")
	}
	status := func(s string) {
		w.change(event.CertificateStatusChanged{CertificateID: w.id, Status: s}, func() {
			w.certificates[w.id] = deviceauth.Certificate{ID: w.id, ARN: w.arn, Status: s}
		})
	}
	status("INACTIVE")
	if got := <-w.disconnected; got != w.id {
		t.Errorf("disconnected %s", got)
	}
	if guard.CanPublish("a", false) || guard.CanReceive("a") {
		t.Error("a session of an inactive certificate may go on")
	}
	if !strings.Contains(w.log.String(), "is INACTIVE") {
		t.Errorf("log lacks the reason: %s", w.log)
	}
	// A connection that slipped through is caught by the timer.
	w.service.Sweep(start)
	if got := <-w.disconnected; got != w.id {
		t.Errorf("swept %s", got)
	}
	status("ACTIVE")
	w.service.Sweep(start)
	if !guard.CanPublish("a", false) {
		t.Error("refused after reactivation")
	}
	w.change(event.CertificateDeleted{CertificateID: w.id}, func() { delete(w.certificates, w.id) })
	<-w.disconnected
	guard.Close()
	w.service.Sweep(start)
	if len(w.disconnected) != 0 {
		t.Error("a certificate without sessions was swept")
	}
}

// Expiry ends live sessions at notAfter: 2.2.
func TestSweepAtNotAfter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything)
	w.connect(t, "pump-7")
	w.service.Sweep(start.Add(24 * time.Hour))
	if len(w.disconnected) != 0 {
		t.Error("disconnected within the validity")
	}
	w.service.Sweep(start.Add(24*time.Hour + time.Second))
	if len(w.disconnected) != 1 {
		t.Errorf("%d disconnections after the end", len(w.disconnected))
	}
}

// Sessions are subject to their own certificate and thing only.
func TestOtherSessionsAreNotTouched(t *testing.T) {
	t.Parallel()
	w := newWorld(t, reference)
	guard := w.connect(t, "pump-7").Guard
	guard.CanPublish(topicOfPump7, false)
	reads := w.reads
	for _, e := range []event.Event{
		event.ThingUpdated{Thing: event.Thing{Thing: "pump-8"}},
		event.ThingDeleted{Thing: "pump-8"},
		event.MembershipChanged{Thing: "pump-8"},
		event.MembershipChanged{Thing: "pump-7", Dynamic: true},
		event.PrincipalAttached{Thing: "pump-7", Principal: scope + "cert/" + strings.Repeat("0", 64)},
		event.CertificateStatusChanged{CertificateID: strings.Repeat("0", 64), Status: "ACTIVE"},
		event.PolicyChanged{Policy: "reference", Change: event.PolicyVersionCreated, VersionID: "2", DefaultVersionID: "1"},
		event.ShadowUpdated{Thing: "pump-7"},
	} {
		w.change(e, func() {})
		guard.CanPublish(topicOfPump7, false)
		if w.reads != reads {
			t.Errorf("%T made the session read its permissions again", e)
			reads = w.reads
		}
	}
	w.service.Apply([]event.Envelope{{Account: "000000000002", Event: event.PolicyChanged{Change: event.PolicyDeleted}}})
	guard.CanPublish(topicOfPump7, false)
	if w.reads != reads {
		t.Error("another account's policy concerned the session")
	}
	w.change(event.PolicyChanged{Policy: "reference", Change: event.PolicyVersionCreated, VersionID: "2", DefaultVersionID: "2"}, func() {})
	guard.CanPublish(topicOfPump7, false)
	if w.reads == reads {
		t.Error("a new default version did not concern the session")
	}
}

// Events more than 5 s late are no basis for a decision: design 3.3.
func TestLateEventsMeanUncachedDecisions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything)
	guard := w.connect(t, "pump-7").Guard
	if !guard.CanPublish("a", false) {
		t.Fatal("refused at first")
	}
	w.policies["reference"] = policy("reference", reference) // without its event
	w.lag.Store(int64(5 * time.Second))
	if !guard.CanPublish("a", false) {
		t.Error("at 5 s the set still holds")
	}
	w.lag.Store(int64(5*time.Second + 1))
	if guard.CanPublish("a", false) {
		t.Error("decided from an old set though the events are late")
	}
	w.policies["reference"] = policy("reference", everything)
	if !guard.CanPublish("a", false) {
		t.Error("kept an answer though the events are late")
	}
}

// Without an answer from the registry every packet is refused, and none of
// those answers is kept.
func TestRegistryFailureRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything)
	guard := w.connect(t, "pump-7").Guard
	w.change(event.PolicyChanged{Change: event.PolicyDefaultVersionSet}, func() { w.failure = errors.New("disk on fire") })
	if guard.CanPublish("a", false) || guard.CanSubscribe("a") || guard.CanReceive("$share/g/a") {
		t.Error("allowed without permissions")
	}
	if !strings.Contains(w.log.String(), "disk on fire") {
		t.Errorf("log %s", w.log)
	}
	w.failure = nil
	if !guard.CanPublish("a", false) {
		t.Error("refused after the registry recovered")
	}
	// A stored document that cannot be read may hold a Deny.
	w.setPolicy("reference", "{")
	if guard.CanPublish("a", false) {
		t.Error("allowed with an unreadable policy")
	}
}

// A condition on the clock turns without any event.
func TestConditionOnTheClock(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*",
	 "Condition":{"DateLessThan":{"aws:CurrentTime":"2026-11-23T10:00:00Z"}}}]}`)
	guard := w.connect(t, "pump-7").Guard
	if !guard.CanPublish("a", false) {
		t.Error("refused before the date")
	}
	w.now.Store(start.Add(time.Hour).UnixNano())
	if guard.CanPublish("a", false) {
		t.Error("allowed after the date")
	}
}

// A shared subscription is asked for with its prefix; a delivery may be
// allowed in either form and is refused by a Deny of either: device-plane 2.5.
func TestSharedSubscriptions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `{"Statement":[
	 {"Effect":"Allow","Action":"iot:Connect","Resource":"*"},
	 {"Effect":"Allow","Action":"iot:Subscribe","Resource":"@:topicfilter/$share/*/a/b"},
	 {"Effect":"Allow","Action":"iot:Receive","Resource":["@:topic/bare/*","@:topic/$share/g/prefixed/*"]},
	 {"Effect":"Deny","Action":"iot:Receive","Resource":["@:topic/prefixed/no","@:topic/$share/g/bare/no"]}]}`)
	guard := w.connect(t, "pump-7").Guard
	if !guard.CanSubscribe("$share/g/a/b") || guard.CanSubscribe("a/b") {
		t.Error("the filter's prefix does not count")
	}
	for topic, want := range map[string]bool{
		"bare/x": true, "$share/g/bare/x": true, "$share/g/prefixed/x": true, "prefixed/x": false,
		"$share/g/prefixed/no": false, "$share/g/bare/no": false, "$share/g/other": false, "$share/g": false,
	} {
		if got := guard.CanReceive(topic); got != want {
			t.Errorf("receive %s: %v, want %v", topic, got, want)
		}
	}
}

func TestAuthorizeCalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `{"Version":"2012-10-17","Statement":[
	 {"Effect":"Allow","Action":["iot:GetThingShadow","iot:UpdateThingShadow"],"Resource":["@:thing/pump-7","@:thing/${iot:Connection.Thing.ThingName}"]},
	 {"Effect":"Allow","Action":"iot:GetThingShadow","Resource":"@:thing/pump-9/cfg"},
	 {"Effect":"Deny","Action":"iot:*","Resource":["@:thing/pump-7/keys","@:thing/pump-10"]},
	 {"Effect":"Allow","Action":"iot:GetThingShadow","Resource":"@:thing/pump-10/*"},
	 {"Effect":"Allow","Action":"iot:ListNamedShadowsForThing","Resource":"*"},
	 {"Effect":"Allow","Action":"iot:Publish","Resource":"@:topic/${iot:ClientId}","Condition":{"IpAddress":{"aws:SourceIp":"192.0.2.0/24"}}},
	 {"Effect":"Allow","Action":"iot:Publish","Resource":"@:topic/sn/${iot:Certificate.SerialNumber}","Condition":{"IpAddress":{"aws:SourceIp":"192.0.2.0/24"}}}]}`)
	id, err := w.service.Identify(t.Context(), "", w.certificate)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		call deviceauth.Call
		want fault.Code
	}{
		{deviceauth.Call{Action: iotpolicy.ActionGetThingShadow, Kind: fleet.ARNThing, Name: "pump-7"}, ""},
		{deviceauth.Call{Action: iotpolicy.ActionGetThingShadow, Kind: fleet.ARNThing, Name: "pump-8"}, fault.Forbidden},
		{deviceauth.Call{Action: iotpolicy.ActionDeleteThingShadow, Kind: fleet.ARNThing, Name: "pump-7"}, fault.Forbidden},
		// Named shadows, by either ARN of security-provisioning 1.2.
		{deviceauth.Call{Action: iotpolicy.ActionGetThingShadow, Kind: fleet.ARNThing, Name: "pump-7/cfg"}, ""},
		{deviceauth.Call{Action: iotpolicy.ActionGetThingShadow, Kind: fleet.ARNThing, Name: "pump-7/keys"}, fault.Forbidden},
		{deviceauth.Call{Action: iotpolicy.ActionGetThingShadow, Kind: fleet.ARNThing, Name: "pump-9/cfg"}, ""},
		{deviceauth.Call{Action: iotpolicy.ActionGetThingShadow, Kind: fleet.ARNThing, Name: "pump-9/keys"}, fault.Forbidden},
		{deviceauth.Call{Action: iotpolicy.ActionGetThingShadow, Kind: fleet.ARNThing, Name: "pump-9"}, fault.Forbidden},
		{deviceauth.Call{Action: iotpolicy.ActionGetThingShadow, Kind: fleet.ARNThing, Name: "pump-10/cfg"}, fault.Forbidden},
		{deviceauth.Call{Action: iotpolicy.ActionListNamedShadows}, ""},
		{deviceauth.Call{Action: iotpolicy.ActionPublish, Kind: fleet.ARNTopic, Name: "sn/10525622389124227206", RemoteAddr: "192.0.2.9:1"}, ""},
		{deviceauth.Call{Action: iotpolicy.ActionPublish, Kind: fleet.ARNTopic, Name: "sn/10525622389124227206", RemoteAddr: "192.0.3.9"}, fault.Forbidden},
		{deviceauth.Call{Action: iotpolicy.ActionPublish, Kind: fleet.ARNTopic, Name: "", RemoteAddr: "192.0.2.9"}, fault.Forbidden},
	} {
		if err := w.service.Authorize(t.Context(), id, c.call); fault.CodeOf(err) != c.want {
			t.Errorf("%+v: %v, want %q", c.call, err, c.want)
		}
	}
	w.certificates[w.id] = deviceauth.Certificate{ID: w.id, ARN: w.arn, Status: "REVOKED"}
	err = w.service.Authorize(t.Context(), id, deviceauth.Call{Action: iotpolicy.ActionListNamedShadows})
	if fault.CodeOf(err) != fault.Unauthorized {
		t.Errorf("after revocation: %v", err)
	}
	if err := w.service.Authorize(t.Context(), deviceauth.Identity{}, deviceauth.Call{}); fault.CodeOf(err) != fault.Unauthorized {
		t.Errorf("without identity: %v", err)
	}
}

// The log says which permission was missing, and a device that is refused in a
// loop cannot flood it.
func TestDenialsInTheLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, strings.Replace(reference, `[
 {"Effect"`, `[{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:us-east-1:000000000001:topic/x"},
 {"Effect"`, 1))
	guard := w.connect(t, "pump-7").Guard
	for range 1000 {
		guard.CanPublish("x", false)
	}
	lines := strings.Split(strings.TrimSpace(w.log.String()), "\n")
	if len(lines) != 1 {
		t.Fatalf("%d lines for one denial repeated", len(lines))
	}
	var line map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &line); err != nil {
		t.Fatal(err)
	}
	hints, _ := line["hints"].([]any)
	if len(hints) != 1 || !strings.Contains(fmt.Sprint(hints[0]), "another region") {
		t.Errorf("hints %v", line["hints"])
	}
	delete(line, "hints")
	delete(line, "time")
	want := map[string]any{
		"level": "INFO", "msg": "denied", "account": string(account), "action": "iot:Publish", "resource": scope + "topic/x",
		"client_id": "pump-7", "principal": w.id, "outcome": "IMPLICIT_DENY", "policies": []any{"reference"},
	}
	if diff := cmp.Diff(want, line); diff != "" {
		t.Errorf("line (-want +got):\n%s", diff)
	}
	for i := range 1000 {
		guard.CanPublish(fmt.Sprint("y/", i), false)
	}
	if n := strings.Count(w.log.String(), "\n"); n != 10 {
		t.Errorf("%d lines in ten seconds, want 10", n)
	}
	w.now.Store(start.Add(time.Minute).UnixNano())
	guard.CanPublish("z", false)
	if !strings.Contains(w.log.String(), `"suppressed":991`) {
		t.Error("the log does not say how much it left out")
	}
}

func TestCheckPolicy(t *testing.T) {
	t.Parallel()
	if err := deviceauth.CheckPolicy([]byte(everything), iotpolicy.Limits{}); err != nil {
		t.Errorf("valid document: %v", err)
	}
	err := deviceauth.CheckPolicy([]byte(`{"Version":"2012-10-17"}`), iotpolicy.Limits{})
	if fault.CodeOf(err) != fault.MalformedPolicy || !strings.Contains(fault.From(err).Message, "line 1, column 1") {
		t.Errorf("error %v", err)
	}
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	if _, err := deviceauth.New(deviceauth.Options{Registry: &fleetFake{}}); err == nil || !strings.Contains(err.Error(), "Region") {
		t.Errorf("error %v", err)
	}
}

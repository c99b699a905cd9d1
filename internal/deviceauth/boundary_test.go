package deviceauth_test

import (
	"encoding/pem"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// confine puts the certificate of a world under a boundary, as an operator's mark
// does.
func (w *world) confine(b deviceauth.Boundary) {
	w.change(event.CertificatePurposeChanged{CertificateID: w.id, Purpose: b.Kind}, func() { w.bind(b) })
}

// bind changes what the registry says, without telling.
func (w *world) bind(b deviceauth.Boundary) {
	c := w.certificates[w.id]
	c.Boundary = b
	w.certificates[w.id] = c
}

// readable lets the registry answer with the certificate itself.
func (w *world) readable() {
	c := w.certificates[w.id]
	c.PEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.certificate.Raw}))
	w.certificates[w.id] = c
}

// boundWorld has a certificate under a boundary with a policy that allows
// everything.
func boundWorld(tb testing.TB, b deviceauth.Boundary) *world {
	tb.Helper()
	w := newWorld(tb, everything)
	w.readable()
	w.bind(b)
	return w
}

// security-provisioning §6.1 vector 13.
func TestBoundaryLeavesProvisioningAlone(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{deviceauth.BoundaryBirth, deviceauth.BoundaryClaim, deviceauth.BoundaryQuarantine} {
		for _, template := range []string{"", "Pumps"} {
			w := boundWorld(t, deviceauth.Boundary{Kind: kind, Template: template})
			g := w.connect(t, "anything").Guard
			for _, name := range []string{
				"$aws/certificates/create/json", "$aws/certificates/create/cbor", "$aws/certificates/create-from-csr/json", "$aws/certificates/create-from-csr/cbor",
				"$aws/provisioning-templates/Pumps/provision/json", "$aws/provisioning-templates/Pumps/provision/cbor", "$muster/bootstrap/get",
			} {
				if !g.CanPublish(name, false) {
					t.Errorf("%s %q: publish %s is refused", kind, template, name)
				}
				if g.CanPublish(name, true) {
					t.Errorf("%s %q: retained publish %s is allowed", kind, template, name)
				}
				for _, answer := range []string{name + "/accepted", name + "/rejected"} {
					if !g.CanSubscribe(answer) || !g.CanReceive(answer) {
						t.Errorf("%s %q: %s cannot be heard", kind, template, answer)
					}
					if g.CanPublish(answer, false) {
						t.Errorf("%s %q: publish %s is allowed", kind, template, answer)
					}
				}
			}
			for _, filter := range []string{
				"$aws/certificates/create/#", "$aws/certificates/create/json/+", "$aws/certificates/create/+/accepted", "$aws/certificates/create-from-csr/#",
				"$aws/provisioning-templates/Pumps/provision/#", "$aws/provisioning-templates/Pumps/provision/+/rejected", "$muster/bootstrap/get/#", "$muster/bootstrap/get/+",
			} {
				if !g.CanSubscribe(filter) {
					t.Errorf("%s %q: subscribe %s is refused", kind, template, filter)
				}
			}
			if other := "$aws/provisioning-templates/Valves/provision/json"; g.CanPublish(other, false) != (template == "") {
				t.Errorf("%s %q: publish %s", kind, template, other)
			}
		}
	}
}

// forbiddenTopics are topics of every family.
var forbiddenTopics = []string{
	"plant/leeds/pump-7/t", "a", "/", "$aws", "$aws/", "$SYS/broker/uptime",
	"$aws/things/pump-7/shadow/update", "$aws/things/pump-7/shadow/get", "$aws/things/pump-7/shadow/delete", "$aws/things/pump-7/shadow/name/n/update",
	"$aws/things/pump-7/shadow/update/delta", "$aws/things/pump-7/jobs/get", "$aws/things/pump-7/jobs/start-next", "$aws/things/pump-7/jobs/notify-next",
	"$aws/things/pump-7/defender/metrics/json", "$aws/things/pump-7/streams/s/get/json", "$aws/things/pump-7/greengrass/health/json",
	"$aws/rules/r", "$aws/rules/r/plant/leeds", "$aws/events/presence/connected/pump-7", "$aws/events/thing/pump-7/created",
	"$aws/events/certificates/registered/x", "$aws/certificates", "$aws/certificates/", "$aws/certificates/delete/json", "$aws/certificates/createx",
	"$aws/certificates/create", "$aws/certificates/create/json/accepted/x", "$aws/certificates/create-from-csr", "$aws/certificates/create/xml",
	"$aws/provisioning-templates/Pumps", "$aws/provisioning-templates/Pumps/provision", "$aws/provisioning-templates/Pumps/provision/xml",
	"$aws/commands/things/pump-7/executions/e/request/json", "$aws/sitewise/asset-models/m", "$aws/device_location/pump-7/get_position_estimate",
	"$muster/things/pump-7/connectivity", "$muster/connectivity/pump-7/hello", "$muster/bootstrap", "$muster/bootstrap/put", "$muster/bootstrap/get/accepted", "$muster/bootstrap/get/x/y",
	"x$aws/certificates/create/json", "a/$aws/certificates/create/json",
}

func TestBoundaryRefusesAllElse(t *testing.T) {
	t.Parallel()
	w := boundWorld(t, deviceauth.Boundary{Kind: deviceauth.BoundaryBirth})
	g := w.connect(t, "pump-7").Guard
	for _, name := range forbiddenTopics {
		if g.CanPublish(name, false) || g.CanPublish(name, true) {
			t.Errorf("publish %s is allowed", name)
		}
		// What ends like an answer to a request is one of no request, and nobody
		// publishes there.
		answer := strings.HasPrefix(name, "$aws/certificates/create/") || strings.HasPrefix(name, "$aws/provisioning-templates/Pumps/provision/") || strings.HasPrefix(name, "$muster/bootstrap/get/")
		if !answer && (g.CanReceive(name) || g.CanSubscribe(name)) {
			t.Errorf("receive or subscribe %s is allowed", name)
		}
		if g.CanSubscribe("$share/g/"+name) || g.CanReceive("$share/g/"+name) && !answer {
			t.Errorf("$share/g/%s is allowed", name)
		}
	}
	for _, filter := range []string{
		"#", "+", "+/#", "/#", "$aws/#", "$aws/+/create/json/accepted", "$aws/certificates/#", "$aws/certificates/+/json/accepted", "$aws/certificates/+/#",
		"$aws/provisioning-templates/#", "$aws/provisioning-templates/+/provision/json/accepted", "$aws/provisioning-templates/+/provision/#", "$aws/provisioning-templates/+/+/#",
		"$aws/provisioning-templates/Pumps/#", "$aws/provisioning-templates/Pumps/+/json/accepted", "$aws/provisioning-templates/a/+/provision/json/accepted",
		"$muster/#", "$muster/+/get/accepted", "$muster/bootstrap/#", "$muster/bootstrap/+/accepted",
		"$share/g/#", "$share/g/$aws/certificates/create/#", "$share/g/$aws/provisioning-templates/Pumps/provision/json/accepted", "$share/$aws/certificates/create/json/accepted",
	} {
		if g.CanSubscribe(filter) {
			t.Errorf("subscribe %s is allowed", filter)
		}
	}
}

// actions are all that device policies know.
var actions = []string{
	iotpolicy.ActionPublish, iotpolicy.ActionRetainPublish, iotpolicy.ActionSubscribe, iotpolicy.ActionReceive,
	iotpolicy.ActionGetThingShadow, iotpolicy.ActionUpdateThingShadow, iotpolicy.ActionDeleteThingShadow, iotpolicy.ActionListNamedShadows,
	iotpolicy.ActionGetRetainedMessage, iotpolicy.ActionListRetainedMessages, iotpolicy.ActionAssumeRoleByCertificate,
	"iot:DescribeJobExecution", "iot:GetPendingJobExecutions", "iot:StartNextPendingJobExecution", "iot:UpdateJobExecution",
}

func TestBoundaryRefusesCallsOverHTTPS(t *testing.T) {
	t.Parallel()
	w := boundWorld(t, deviceauth.Boundary{Kind: deviceauth.BoundaryBirth, Serial: "pump-7"})
	id, err := w.service.Identify(t.Context(), "", w.certificate)
	if err != nil {
		t.Fatal(err)
	}
	for _, action := range actions {
		for kind, names := range map[string][]string{
			"": {""}, fleet.ARNTopic: {"a", "$aws/certificates/create/json", "$aws/provisioning-templates/Pumps/provision/json", "*"},
			fleet.ARNTopicFilter: {"#"}, fleet.ARNThing: {"pump-7", "pump-7/named", "*"}, fleet.ARNClient: {"pump-7"},
		} {
			for _, name := range names {
				if err := w.service.Authorize(t.Context(), id, deviceauth.Call{Action: action, Kind: kind, Name: name}); fault.CodeOf(err) != fault.Forbidden {
					t.Errorf("%s on %s/%s: %v", action, kind, name, err)
				}
			}
		}
	}
}

func TestBoundaryGrantsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"iot:Connect","Resource":"*"},
		{"Effect":"Allow","Action":"iot:Publish","Resource":"@:topic/$aws/certificates/create/*"},
		{"Effect":"Deny","Action":"iot:Subscribe","Resource":"@:topicfilter/$aws/certificates/create/*"}]}`)
	w.bind(deviceauth.Boundary{Kind: deviceauth.BoundaryBirth})
	g := w.connect(t, "pump-7").Guard
	if !g.CanPublish("$aws/certificates/create/json", false) || g.CanPublish("$aws/certificates/create-from-csr/json", false) ||
		g.CanSubscribe("$aws/certificates/create/json/accepted") || g.CanReceive("$aws/certificates/create/json/accepted") {
		t.Error("the boundary allows what no policy does")
	}
}

func TestBoundaryAtConnect(t *testing.T) {
	t.Parallel()
	networks := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	for name, c := range map[string]struct {
		boundary deviceauth.Boundary
		request  deviceauth.Request
		says     string // empty when it is let in
	}{
		"any client id":     {deviceauth.Boundary{Kind: deviceauth.BoundaryClaim}, deviceauth.Request{ClientID: "whatever"}, ""},
		"own serial":        {deviceauth.Boundary{Kind: deviceauth.BoundaryBirth, Serial: "B7*"}, deviceauth.Request{ClientID: "B7*"}, ""},
		"another serial":    {deviceauth.Boundary{Kind: deviceauth.BoundaryBirth, Serial: "B7*"}, deviceauth.Request{ClientID: "B7-1"}, "Not authorized to perform iot:Connect"},
		"variable":          {deviceauth.Boundary{Kind: deviceauth.BoundaryBirth, Serial: "${iot:ClientId}"}, deviceauth.Request{ClientID: "x"}, "Not authorized"},
		"own network":       {deviceauth.Boundary{Kind: deviceauth.BoundaryBirth, Networks: networks}, deviceauth.Request{ClientID: "x", RemoteAddr: "192.0.2.9:1"}, ""},
		"own network, IPv6": {deviceauth.Boundary{Kind: deviceauth.BoundaryBirth, Networks: networks}, deviceauth.Request{ClientID: "x", RemoteAddr: "[2001:db8::9]:1"}, ""},
		"another network":   {deviceauth.Boundary{Kind: deviceauth.BoundaryBirth, Networks: networks}, deviceauth.Request{ClientID: "x", RemoteAddr: "198.51.100.9:1"}, "may not connect from 198.51.100.9"},
		"unknown network":   {deviceauth.Boundary{Kind: deviceauth.BoundaryBirth, Networks: networks}, deviceauth.Request{ClientID: "x"}, "may not connect from"},
		"unreadable":        {deviceauth.Boundary{Kind: deviceauth.BoundaryBirth, Networks: []netip.Prefix{{}}}, deviceauth.Request{ClientID: "x", RemoteAddr: "192.0.2.9:1"}, "may not connect from"},
		"will": {
			deviceauth.Boundary{Kind: deviceauth.BoundaryBirth},
			deviceauth.Request{ClientID: "x", Will: &deviceauth.Will{Topic: "$aws/certificates/create/json"}}, "has a will",
		},
		"another's client id": {deviceauth.Boundary{Kind: deviceauth.BoundaryClaim}, deviceauth.Request{ClientID: "taken"}, "is connected with another certificate"},
		"own client id":       {deviceauth.Boundary{Kind: deviceauth.BoundaryClaim}, deviceauth.Request{ClientID: "mine"}, ""},
		"persistent":          {deviceauth.Boundary{Kind: deviceauth.BoundaryClaim}, deviceauth.Request{ClientID: "x", Persistent: true}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := boundWorld(t, c.boundary)
			c.request.Certificate = w.certificate
			a, err := w.service.Admit(t.Context(), c.request)
			if c.says == "" {
				if err != nil {
					t.Fatal(err)
				}
				a.Guard.Close()
				if !a.Provisioning || a.Indexed {
					t.Errorf("the connection counts as that of a device in service: %+v", a)
				}
				return
			}
			if err == nil || !strings.Contains(fault.From(err).Message, c.says) {
				t.Fatalf("got %v, want %q", err, c.says)
			}
			if refused := w.service.PrincipalRefusals(account, w.id).Refusals; len(refused) != 1 || len(refused[0].Fixes) == 0 {
				t.Errorf("the refusal is not explained: %+v", refused)
			}
		})
	}
}

func TestConnectionsUnderABoundaryEnd(t *testing.T) {
	t.Parallel()
	w := boundWorld(t, deviceauth.Boundary{Kind: deviceauth.BoundaryBirth, Session: time.Minute})
	if until := w.connect(t, "a").Until; !until.Equal(start.Add(time.Minute)) {
		t.Errorf("it lasts until %s", until)
	}
	w.bind(deviceauth.Boundary{Kind: deviceauth.BoundaryBirth, Session: time.Minute, Until: start.Add(time.Second)})
	if until := w.connect(t, "b").Until; !until.Equal(start.Add(time.Second)) {
		t.Errorf("it lasts until %s", until)
	}
	w.bind(deviceauth.Boundary{})
	if a := w.connect(t, "pump-7"); !a.Until.IsZero() || a.Provisioning || !a.Indexed {
		t.Errorf("an operational connection is held to limits: %+v", a)
	}
}

// A live session obeys at once and comes back within the limits.
func TestMarkOfALiveSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything)
	g := w.connect(t, "pump-7").Guard
	if !g.CanPublish("plant/t", false) {
		t.Fatal("refused before the mark")
	}
	w.confine(deviceauth.Boundary{Kind: deviceauth.BoundaryBirth})
	if g.CanPublish("plant/t", false) || !g.CanPublish("$aws/certificates/create/json", false) {
		t.Error("the session does not obey")
	}
	if id := <-w.disconnected; id != w.id {
		t.Errorf("%s was told to leave", id)
	}
}

// By its authority, too, without an event of its own.
func TestMarkOfALiveSessionByItsAuthority(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything)
	g := w.connect(t, "pump-7").Guard
	w.change(event.CACertificateChanged{Change: event.CACertificatePurposeSet}, func() { w.bind(deviceauth.Boundary{Kind: deviceauth.BoundaryBirth}) })
	if g.CanPublish("plant/t", false) {
		t.Error("the session does not obey")
	}
	w.service.Sweep(start)
	if id := <-w.disconnected; id != w.id {
		t.Errorf("%s was told to leave", id)
	}
}

// A quarantine holds a live session without ending it, and lets it go again.
func TestQuarantineOfALiveSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything)
	a := w.connect(t, "pump-7")
	w.change(event.ThingQuarantined{Thing: "pump-7", Certificates: []string{w.id}}, func() { w.bind(deviceauth.Boundary{Kind: deviceauth.BoundaryQuarantine}) })
	if a.Guard.CanPublish("plant/t", false) || a.Guard.CanReceive("plant/t") {
		t.Error("the session does not obey")
	}
	w.service.Sweep(start)
	again := w.connect(t, "pump-7")
	if again.Provisioning || !again.Indexed || !again.Until.IsZero() {
		t.Errorf("a device in quarantine is connected as itself: %+v", again)
	}
	w.change(event.ThingReleased{Thing: "pump-7", Certificates: []string{w.id}}, func() { w.bind(deviceauth.Boundary{}) })
	if !a.Guard.CanPublish("plant/t", false) {
		t.Error("the session is not released")
	}
	select {
	case <-w.disconnected:
		t.Error("the session was ended")
	default:
	}
}

// A certificate that has done what it is for has a moment to hear so.
func TestUsedCertificateHearsTheAnswer(t *testing.T) {
	t.Parallel()
	const answer = "$aws/provisioning-templates/Pumps/provision/json/accepted"
	w := boundWorld(t, deviceauth.Boundary{Kind: deviceauth.BoundaryBirth})
	g := w.connect(t, "pump-7").Guard
	w.change(event.CertificateStatusChanged{CertificateID: w.id, Status: "INACTIVE", Used: true}, func() {
		c := w.certificates[w.id]
		c.Status = "INACTIVE"
		w.certificates[w.id] = c
	})
	w.service.Sweep(start)
	if !g.CanReceive(answer) || len(w.disconnected) != 0 {
		t.Error("the connection ended before the answer")
	}
	w.service.Sweep(start.Add(5 * time.Second))
	if id := <-w.disconnected; id != w.id {
		t.Errorf("%s was told to leave", id)
	}
	if _, err := w.service.Admit(t.Context(), deviceauth.Request{Certificate: w.certificate, ClientID: "pump-7"}); fault.CodeOf(err) != fault.Unauthorized {
		t.Errorf("it comes in again: %v", err)
	}
}

func TestBoundaryIsTheReason(t *testing.T) {
	t.Parallel()
	for name, document := range map[string]string{
		"allowed by a policy": everything,
		"allowed by none":     `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, document)
			w.readable()
			w.bind(deviceauth.Boundary{Kind: deviceauth.BoundaryBirth, Template: "Pumps"})
			question := deviceauth.Question{ClientID: "pump-7", CertificateID: w.id, Action: iotpolicy.ActionPublish, Topic: "plant/t"}
			explains := func(e deviceauth.Explanation) {
				t.Helper()
				if !strings.Contains(e.Reason, "system/Birth") || !strings.Contains(e.Reason, "template Pumps") || len(e.Fixes) != 1 ||
					!strings.Contains(e.Fixes[0].Text, "policies cannot reach beyond") {
					t.Errorf("got %+v", e)
				}
			}
			absent, err := w.service.Explain(t.Context(), account, question)
			if err != nil || absent.Connected {
				t.Fatal(absent, err)
			}
			explains(absent.Explanation)
			g := w.connect(t, "pump-7").Guard
			live, err := w.service.Explain(t.Context(), account, question)
			if err != nil || !live.Connected {
				t.Fatal(live, err)
			}
			explains(live.Explanation)
			g.CanPublish("plant/t", false)
			explains(w.service.PrincipalRefusals(account, w.id).Refusals[0].Explanation)
			if !strings.Contains(w.log.String(), "for provisioning only") {
				t.Errorf("the log does not tell: %s", w.log)
			}
		})
	}
}

// TestAuthorization of the AWS API says what the device would be told.
func TestTrialOfABoundCertificate(t *testing.T) {
	t.Parallel()
	w := boundWorld(t, deviceauth.Boundary{Kind: deviceauth.BoundaryClaim})
	verdicts, err := w.service.Try(t.Context(), account, deviceauth.Trial{Principal: w.arn, ClientID: "pump-7", Checks: []deviceauth.Check{
		{Action: iotpolicy.ActionPublish, Resources: []string{scope + "topic/$aws/certificates/create/json"}},
		{Action: iotpolicy.ActionPublish, Resources: []string{scope + "topic/$aws/certificates/create/json", scope + "topic/plant/t"}},
		{Action: iotpolicy.ActionUpdateThingShadow, Resources: []string{scope + "thing/pump-7"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if verdicts[0].Outcome != iotpolicy.Allowed || len(verdicts[0].Silent) != 0 {
		t.Errorf("got %+v", verdicts[0])
	}
	for _, v := range verdicts[1:] {
		if v.Outcome != iotpolicy.ImplicitDeny || len(v.Silent) != 1 || v.Silent[0].Name != "system/Claim" || v.Silent[0].ARN != scope+"policy/system/Claim" {
			t.Errorf("got %+v", v)
		}
	}
}

func TestBoundCertificateAndOtherCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything)
	stranger := newWorld(t, everything).certificate
	bound := func() error { return w.service.Bound(t.Context(), "", w.certificate) }
	if err := bound(); err != nil {
		t.Errorf("an operational certificate: %v", err)
	}
	if err := w.service.Bound(t.Context(), "", nil); err != nil {
		t.Errorf("no certificate: %v", err)
	}
	if err := w.service.Bound(t.Context(), "", stranger); err != nil {
		t.Errorf("an unknown certificate: %v", err)
	}
	w.bind(deviceauth.Boundary{Kind: deviceauth.BoundaryBirth})
	if err := bound(); fault.CodeOf(err) != fault.Unauthorized || !strings.Contains(fault.From(err).Message, "cannot stand in") {
		t.Errorf("a birth certificate: %v", err)
	}
	w.failure = fault.New(fault.Unavailable, "away")
	if err := bound(); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("what cannot be read is taken for nothing: %v", err)
	}
}

package deviceauth_test

import (
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// customOf is a custom caller with one policy.
func customOf(t *testing.T, principal, document string) deviceauth.Custom {
	t.Helper()
	parsed, err := iotpolicy.Parse([]byte(document), iotpolicy.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return deviceauth.Custom{
		Account: account, Principal: fleet.Principal{Kind: fleet.PrincipalCustom, ID: principal},
		Policies: []iotpolicy.PolicyRef{{Name: "gate[0]", Document: parsed}},
	}
}

// A custom caller is neither certificate nor thing: variables of both have no
// value, even when its client id is a thing's name and its principal is called
// like a certificate.
func TestCustomCallerHasNoThingAndNoCertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `{"Version":"2012-10-17","Statement":[]}`)
	custom := customOf(t, strings.Repeat("a", 64), `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"iot:Connect","Resource":"*"},
		{"Effect":"Allow","Action":"iot:Publish","Resource":[
			"`+scope+`topic/client/${iot:ClientId}","`+scope+`topic/thing/${iot:Connection.Thing.ThingName}","`+scope+`topic/cert/${iot:CertificateId}"]}]}`)
	admitted, err := w.service.AdmitCustom(t.Context(), custom, deviceauth.Request{ClientID: "pump-7", RemoteAddr: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	defer admitted.Guard.Close()
	for topic, want := range map[string]bool{
		"client/pump-7": true, "client/pump-8": false, "thing/pump-7": false, "cert/" + custom.Principal.ID: false,
	} {
		if got := admitted.Guard.CanPublish(topic, false); got != want {
			t.Errorf("publish to %s: %v", topic, got)
		}
	}
	if admitted.Indexed || admitted.ThingName != "" || admitted.Principal != custom.Principal {
		t.Errorf("admission %+v", admitted)
	}
	// The fate of a certificate of that name is not the connection's.
	w.service.Apply([]event.Envelope{{Account: account, Event: event.CertificateDeleted{CertificateID: custom.Principal.ID}}})
	if !admitted.Guard.CanPublish("client/pump-7", false) {
		t.Error("a deleted certificate took a permission away")
	}
}

func TestCustomPoliciesAreReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `{"Version":"2012-10-17","Statement":[]}`)
	document := func(topic string) string {
		return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"},
			{"Effect":"Allow","Action":"iot:Publish","Resource":"` + scope + `topic/` + topic + `"}]}`
	}
	admitted, err := w.service.AdmitCustom(t.Context(), customOf(t, "p", document("old")), deviceauth.Request{ClientID: "c"})
	if err != nil {
		t.Fatal(err)
	}
	defer admitted.Guard.Close()
	may := func(want ...bool) {
		t.Helper()
		for i, topic := range []string{"old", "new"} {
			if got := admitted.Guard.CanPublish(topic, false); got != want[i] {
				t.Errorf("publish to %s: %v", topic, got)
			}
		}
	}
	may(true, false)
	admitted.Guard.Replace(customOf(t, "p", document("new")).Policies)
	may(false, true)
	admitted.Guard.Replace(nil)
	may(false, false)
}

// Refusals of a CONNECT are told with the policy that decided, like those of a
// certificate.
func TestCustomConnectIsRefusedInWords(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `{"Version":"2012-10-17","Statement":[]}`)
	custom := customOf(t, "p1", `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"iot:Connect","Resource":"*"},
		{"Sid":"NotYou","Effect":"Deny","Action":"iot:Connect","Resource":"`+scope+`client/c"}]}`)
	_, err := w.service.AdmitCustom(t.Context(), custom, deviceauth.Request{ClientID: "c"})
	if fault.CodeOf(err) != fault.Forbidden {
		t.Errorf("got %v", err)
	}
	for _, text := range []string{"gate[0]", "NotYou", `"p1"`} {
		if !strings.Contains(w.log.String(), text) {
			t.Errorf("log lacks %s: %s", text, w.log)
		}
	}
	_, err = w.service.AdmitCustom(t.Context(), custom, deviceauth.Request{ClientID: "d", Will: &deviceauth.Will{Topic: "will"}})
	if fault.CodeOf(err) != fault.Forbidden {
		t.Errorf("a will without permission: %v", err)
	}
	w.service.CustomRefused(t.Context(), account, deviceauth.Request{ClientID: "stranger", RemoteAddr: "127.0.0.9:1"}, fault.New(fault.Unauthorized, "no such authorizer"))
	if !strings.Contains(w.log.String(), "no such authorizer") || !strings.Contains(w.log.String(), "stranger") {
		t.Errorf("log lacks the stranger: %s", w.log)
	}
	for client, fix := range map[string]string{"d": "Let the custom authorizer answer a policy", "stranger": "credentials that a custom authorizer accepts"} {
		kept := w.service.ClientRefusals(account, client).Refusals
		if len(kept) != 1 || len(kept[0].Fixes) == 0 || !strings.Contains(kept[0].Fixes[len(kept[0].Fixes)-1].Text, fix) {
			t.Errorf("%s: kept %+v, want a fix that says %q", client, kept, fix)
		}
	}
}

func TestCustomCalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `{"Version":"2012-10-17","Statement":[]}`)
	custom := customOf(t, "p", `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"iot:GetThingShadow","Resource":"`+scope+`thing/pump-7"},
		{"Effect":"Deny","Action":"iot:GetThingShadow","Resource":"`+scope+`thing/pump-7/secret"}]}`)
	for name, want := range map[string]fault.Code{"pump-7": "", "pump-7/config": "", "pump-7/secret": fault.Forbidden, "pump-8": fault.Forbidden} {
		err := w.service.AuthorizeCustom(t.Context(), custom, deviceauth.Call{Action: iotpolicy.ActionGetThingShadow, Kind: fleet.ARNThing, Name: name})
		if fault.CodeOf(err) != want {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
}

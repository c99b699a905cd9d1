package provisioning

import (
	"reflect"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// Mission M19: whichever way a device joins, what its template said of it is kept,
// with the version that was in force.
func TestEveryWayKeepsThePromise(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", flowBody)
	r.equipped()
	promise := func(rg *registry.Service, thing, certificateID string, want registry.PromiseOrigin, attributes map[string]string) {
		t.Helper()
		p, err := rg.Promised(t.Context(), flowAccount, thing)
		r.need(err)
		if p.Promise.PromiseOrigin != want || p.Promise.CertificateID != certificateID || !reflect.DeepEqual(p.Promise.Attributes, attributes) {
			t.Errorf("%s: promised %+v", thing, p.Promise)
		}
		if !p.Promise.Active || len(p.Promise.Policies) != 1 {
			t.Errorf("%s: promised of its certificate: %+v", thing, p.Promise)
		}
	}
	site := map[string]string{"site": "leeds"}

	claim := r.claim()
	made := r.issued(claim)
	// A server that dies in between promises nothing.
	lost := func() bool { return false }
	r.disk.dies.Store(&lost)
	if _, err := r.join(claim, made.Token, "1"); err == nil {
		t.Fatal("the commit was lost and nobody noticed")
	}
	r.disk.dies.Store(nil)
	r.boot()
	_, err := r.registry.Promised(t.Context(), flowAccount, "pump-1")
	wantCode(t, err, fault.ResourceNotFound)
	_, err = r.join(claim, made.Token, "1")
	r.need(err)
	promise(r.registry, "pump-1", made.CertificateID, registry.PromiseOrigin{Template: "pumps", Version: 1, Method: event.ProvisioningClaim}, site)

	_, _, err = r.CreateTemplateVersion(t.Context(), flowAccount, "pumps", flowBody, true)
	r.need(err)
	phone, err := r.CreateClaim(t.Context(), flowAccount, "pumps")
	r.need(err)
	user := Requester{Account: flowAccount, Principal: fleet.Principal{Kind: fleet.PrincipalCertificate, ID: phone.CertificateID}, ClientID: "phone"}
	made = r.issued(user)
	_, err = r.join(user, made.Token, "2")
	r.need(err)
	promise(r.registry, "pump-2", made.CertificateID, registry.PromiseOrigin{Template: "pumps", Version: 2, Method: event.ProvisioningTrustedUser}, site)

	// The device's own certificate asks for another one.
	own := Requester{Account: flowAccount, Principal: fleet.Principal{Kind: fleet.PrincipalCertificate, ID: made.CertificateID}, ClientID: "pump-2"}
	made = r.issued(own)
	_, err = r.join(own, made.Token, "2")
	r.need(err)
	promise(r.registry, "pump-2", made.CertificateID, registry.PromiseOrigin{Template: "pumps", Version: 2, Method: event.ProvisioningRenewal}, site)

	for _, method := range []event.ProvisioningMethod{event.ProvisioningRegisterThing, event.ProvisioningBulk} {
		name := string(method)
		_, err := r.RegisterThing(t.Context(), flowAccount, RegisterCommand{
			Body: strings.Replace(registerBody, "OVERRIDES", "", 1), Parameters: map[string]string{"Name": name, "CSR": request(t)}, Method: method,
		})
		r.need(err)
		p, err := r.registry.Promised(t.Context(), flowAccount, name)
		r.need(err)
		promise(r.registry, name, p.Certificate.ID, registry.PromiseOrigin{Method: method}, map[string]string{"site": "york", "new": "1"})
		if p.Promise.TypeName != "pump" || !reflect.DeepEqual(p.Promise.Groups, []string{"york"}) {
			t.Errorf("%s: promised %+v", name, p.Promise)
		}
	}

	j := newJITRig(t)
	found, err := j.JustInTime(t.Context(), jitAccount, j.authority(jitBody).device("lamp-1"))
	r.need(err)
	promise(j.registry, "lamp-1", found.CertificateID, registry.PromiseOrigin{Method: event.ProvisioningJITP}, site)
}

package app

import (
	"crypto/x509"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/onboarding"
	"github.com/muster-iot/muster/internal/provisioning"
	"github.com/muster-iot/muster/internal/registry"
)

// manufacturePlan finds devices by their serial, which their template states.
const manufacturePlan = `id: pumps
name: Pumps
appliesTo: {templates: [join]}
metadata:
  uniqueId: {attribute: serial, required: true}
  modelNumber: {attribute: model, required: true, thingTypes: {P-200: pump-g2}}
  manufacturingDate: {attribute: manufacturingDate, required: true}
stages:
- id: join
  kind: REGISTRATION
  actor: {role: Operator}
  steps: [{id: register, title: Register, mode: PROGRAMMATIC, state: REGISTERED}]
`

// manufactureTemplate states the serial and nothing else.
const manufactureTemplate = `{"Parameters":{"Serial":{"Type":"String"},"AWS::IoT::Certificate::Id":{"Type":"String"}},
 "Resources":{
  "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"Serial"},"AttributePayload":{"serial":{"Ref":"Serial"}}}},
  "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"Active"}},
  "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"all"}}}}`

// Mission M22: a device that joins by a claim gets what was announced of its
// manufacture, in the commit that makes its thing, and keeps it as a promise through
// an exchange of certificates.
func TestManufactureByClaim(t *testing.T) {
	t.Parallel()
	s := startSite(t, settings(t))
	_, err := s.registry.CreateThingType(t.Context(), s.account, registry.CreateThingTypeCommand{Name: "pump-g2"})
	s.need(err)
	_, err = s.provisioning.CreateTemplate(t.Context(), s.account, provisioning.CreateTemplateCommand{
		Name: "join", Body: manufactureTemplate, RoleARN: "arn:aws:iam::000000000000:role/p", Enabled: true,
	})
	s.need(err)
	claim := s.badge(&x509.Certificate{})
	s.policy("all", mayAll, claim.arn)
	_, err = s.onboarding.Create(t.Context(), s.account, manufacturePlan)
	s.need(err)
	_, err = s.onboarding.Publish(t.Context(), s.account, "pumps")
	s.need(err)
	_, err = s.onboarding.Expect(t.Context(), s.account, onboarding.ExpectCommand{
		Plan: "pumps", Metadata: map[string]string{"uniqueId": "S-1", "modelNumber": "P-200", "manufacturingDate": "2026-11-09"},
	})
	s.need(err)
	own := s.asking(claim, "S-1").renew("S-1")
	want := map[string]string{"serial": "S-1", "model": "P-200", "manufacturingDate": "2026-11-09"}
	thing, err := s.registry.DescribeThing(t.Context(), s.account, "S-1")
	s.need(err)
	if diff := cmp.Diff(want, thing.Attributes); diff != "" || thing.TypeName != "pump-g2" || thing.Version != 1 {
		t.Errorf("it is a %s, version %d (-want +got):\n%s", thing.TypeName, thing.Version, diff)
	}
	s.eventually("its record", func() bool {
		d, err := onboardedDevices{s.onboarding, s.App}.Device(t.Context(), s.account, "S-1")
		return err == nil && d.Thing == "S-1" && len(d.Problems) == 0
	})
	s.asking(own, "S-1").renew("S-1")
	report, err := s.drift.Show(t.Context(), s.account, "S-1")
	s.need(err)
	if diff := cmp.Diff(want, report.Promise.Attributes); diff != "" || report.Promise.TypeName != "pump-g2" || report.Drifts() {
		t.Errorf("promised are %+v (-want +got):\n%s", report, diff)
	}
	// One that nobody has announced is what its template says, and the record says
	// what is missing.
	s.asking(claim, "S-2").renew("S-2")
	thing, err = s.registry.DescribeThing(t.Context(), s.account, "S-2")
	s.need(err)
	if diff := cmp.Diff(map[string]string{"serial": "S-2"}, thing.Attributes); diff != "" || thing.TypeName != "" {
		t.Errorf("it is a %s (-want +got):\n%s", thing.TypeName, diff)
	}
	d, err := onboardedDevices{s.onboarding, s.App}.Device(t.Context(), s.account, "S-2")
	s.need(err)
	if len(d.Problems) != 2 {
		t.Errorf("problems %q", d.Problems)
	}
}

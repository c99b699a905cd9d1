package provisioning

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// registerBody has a thing with everything that an override is about; settings go
// into the place of OVERRIDES.
const registerBody = `{"Parameters":{"Name":{"Type":"String"},"CSR":{"Type":"String"}},
 "Resources":{
  "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"Name"},"AttributePayload":{"site":"york","new":"1"},
    "ThingTypeName":"pump","ThingGroups":["york"]},"OverrideSettings":{OVERRIDES}},
  "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateSigningRequest":{"Ref":"CSR"}}},
  "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"device"}}}}`

// request is a certificate request of a new device.
func request(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "d"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// equipped makes what registerBody refers to, and one thing that exists.
func (r *flowRig) equipped() {
	r.t.Helper()
	ctx := r.t.Context()
	for _, name := range []string{"pump", "valve"} {
		_, err := r.registry.CreateThingType(ctx, flowAccount, registry.CreateThingTypeCommand{Name: name})
		r.need(err)
	}
	for _, name := range []string{"york", "leeds"} {
		_, err := r.registry.CreateThingGroup(ctx, flowAccount, registry.CreateThingGroupCommand{Name: name})
		r.need(err)
	}
	_, err := r.registry.CreatePolicy(ctx, flowAccount, "device", `{}`)
	r.need(err)
	thing, err := r.registry.CreateThing(ctx, flowAccount, registry.CreateThingCommand{
		Name: "old", TypeName: "valve", Attributes: map[string]string{"site": "leeds", "kept": "1"},
	})
	r.need(err)
	r.need(r.registry.AddThingToThingGroup(ctx, flowAccount, registry.ThingAndGroup{ThingARN: thing.ARN, GroupName: "leeds"}, false))
}

func (r *flowRig) register(body, name, csr string) (Registered, error) {
	return r.RegisterThing(r.t.Context(), flowAccount, RegisterCommand{
		Body: body, Parameters: map[string]string{"Name": name, "CSR": csr}, Method: event.ProvisioningRegisterThing,
	})
}

// A body that is none, a device that does not fit it, and what the call says of
// each; nothing is left behind.
func TestRegisterThingRefuses(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.equipped()
	body := strings.Replace(registerBody, "OVERRIDES", "", 1)
	csr := request(t)
	part := func(old, by string) string { return strings.Replace(body, old, by, 1) }
	for name, c := range map[string]struct {
		body, thing, csr string
		code             fault.Code
	}{
		"no body":               {"", "new", csr, fault.InvalidRequest},
		"no JSON":               {"{", "new", csr, fault.InvalidRequest},
		"unknown section":       {part(`"Parameters"`, `"Conditions":{},"Parameters"`), "new", csr, fault.InvalidRequest},
		"unknown resource":      {part("AWS::IoT::Policy", "AWS::S3::Bucket"), "new", csr, fault.InvalidRequest},
		"undeclared reference":  {part(`"Ref":"Name"`, `"Ref":"name"`), "new", csr, fault.InvalidRequest},
		"configuration":         {part(`{"Parameters"`, `{"DeviceConfiguration":{},"Parameters"`), "new", csr, fault.InvalidRequest},
		"too long":              {body + strings.Repeat(" ", 10241), "new", csr, fault.InvalidRequest},
		"CSR is none":           {body, "new", "x", fault.RegistrationFailure},
		"CSR is empty":          {body, "new", "", fault.RegistrationFailure},
		"CSR is a certificate":  {body, "new", strings.ReplaceAll(csr, "CERTIFICATE REQUEST", "CERTIFICATE"), fault.RegistrationFailure},
		"CSR is cut":            {body, "new", csr[:len(csr)/2], fault.RegistrationFailure},
		"CSR is too long":       {body, "new", csr + strings.Repeat("\n", 4096), fault.RegistrationFailure},
		"bad name":              {body, "a b", csr, fault.RegistrationFailure},
		"no such type":          {part(`"pump"`, `"none"`), "new", csr, fault.RegistrationFailure},
		"no such group":         {part(`["york"]`, `["york","none"]`), "new", csr, fault.RegistrationFailure},
		"no such policy":        {part(`"device"`, `"none"`), "new", csr, fault.RegistrationFailure},
		"no such billing group": {part(`"ThingTypeName"`, `"BillingGroup":"none","ThingTypeName"`), "new", csr, fault.RegistrationFailure},
		"unknown certificate": {
			part(`"CertificateSigningRequest":{"Ref":"CSR"}`, `"CertificateId":"`+strings.Repeat("a", 64)+`"`), "new", csr, fault.RegistrationFailure,
		},
	} {
		at := r.head()
		_, err := r.register(c.body, c.thing, c.csr)
		if fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v of code %q, want %s", name, err, fault.CodeOf(err), c.code)
		}
		if envelopes, _, err := r.disk.Events(t.Context(), at, 10); err != nil || len(envelopes) != 0 {
			t.Errorf("%s: events %v, %v", name, envelopes, err)
		}
	}
	_, err := r.RegisterThing(t.Context(), flowAccount, RegisterCommand{Body: body, Parameters: map[string]string{"Name": "new"}})
	wantCode(t, err, fault.RegistrationFailure)
	made, err := r.register(body, "new", csr)
	r.need(err)
	if len(made.ResourceARNs) != 3 || made.ResourceARNs["thing"] != "arn:aws:iot:us-east-1:000000000000:thing/new" || made.CertificatePEM == "" {
		t.Errorf("made %+v", made)
	}
}

// What becomes of a thing that exists, by the override settings (§3.2). Whatever
// they say, the new certificate is attached to it; FAIL leaves it as it was.
func TestRegisterThingThatExists(t *testing.T) {
	t.Parallel()
	old := map[string]string{"site": "leeds", "kept": "1"}
	for name, c := range map[string]struct {
		settings   string
		code       fault.Code
		attributes map[string]string
		typed      string
		groups     []string
	}{
		"none":                   {``, "", old, "valve", []string{"leeds"}},
		"DO_NOTHING":             {`"AttributePayload":"DO_NOTHING","ThingTypeName":"DO_NOTHING","ThingGroups":"DO_NOTHING"`, "", old, "valve", []string{"leeds"}},
		"REPLACE":                {`"AttributePayload":"REPLACE","ThingTypeName":"REPLACE","ThingGroups":"REPLACE"`, "", map[string]string{"site": "york", "new": "1"}, "pump", []string{"york"}},
		"MERGE":                  {`"AttributePayload":"MERGE","ThingGroups":"MERGE"`, "", map[string]string{"site": "york", "new": "1", "kept": "1"}, "valve", []string{"leeds", "york"}},
		"FAIL for attributes":    {`"AttributePayload":"FAIL","ThingTypeName":"REPLACE"`, fault.Conflict, old, "valve", []string{"leeds"}},
		"FAIL for the type":      {`"ThingTypeName":"FAIL","AttributePayload":"REPLACE"`, fault.Conflict, old, "valve", []string{"leeds"}},
		"FAIL for the groups":    {`"ThingGroups":"FAIL","AttributePayload":"REPLACE"`, fault.Conflict, old, "valve", []string{"leeds"}},
		"in letters of the docs": {`"ATTRIBUTE_PAYLOAD":"MERGE"`, "", map[string]string{"site": "york", "new": "1", "kept": "1"}, "valve", []string{"leeds"}},
	} {
		r := newFlowRig(t, Limits{})
		r.equipped()
		made, err := r.register(strings.Replace(registerBody, "OVERRIDES", c.settings, 1), "old", request(t))
		if fault.CodeOf(err) != c.code {
			t.Errorf("%s: %v of code %q, want %q", name, err, fault.CodeOf(err), c.code)
			continue
		}
		thing, err := r.registry.DescribeThing(t.Context(), flowAccount, "old")
		r.need(err)
		var groups []string
		for _, m := range thing.Groups {
			groups = append(groups, m.Group)
		}
		slices.Sort(groups)
		if !maps.Equal(thing.Attributes, c.attributes) || thing.TypeName != c.typed || !slices.Equal(groups, c.groups) {
			t.Errorf("%s: the thing is %+v", name, thing)
		}
		ids := r.certificates("old")
		if c.code != "" {
			if len(ids) != 0 {
				t.Errorf("%s: the thing has the certificates %v", name, ids)
			}
			continue
		}
		if len(ids) != 1 || made.ResourceARNs["certificate"] != r.scope(flowAccount).ARN(fleet.ARNCertificate, ids[0]) || r.status(ids[0]) != registry.StatusActive {
			t.Errorf("%s: the thing has the certificates %v, made %v", name, ids, made.ResourceARNs)
		}
	}
	for _, settings := range []string{`"ThingTypeName":"MERGE"`, `"AttributePayload":"REPLACE","ATTRIBUTE_PAYLOAD":"FAIL"`, `"AttributePayload":"x"`, `"Other":"FAIL"`} {
		r := newFlowRig(t, Limits{})
		_, err := r.register(strings.Replace(registerBody, "OVERRIDES", settings, 1), "old", request(t))
		wantCode(t, err, fault.InvalidRequest)
	}
}

// What somebody else keeps of a registration commits with it, or neither does.
func TestRegisterThingJoined(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.equipped()
	body := strings.Replace(registerBody, "OVERRIDES", "", 1)
	k := store.K("test", "receipt")
	c := RegisterCommand{Body: body, Parameters: map[string]string{"Name": "new", "CSR": request(t)}, Method: event.ProvisioningBulk, Task: "t"}
	broken := errors.New("broken")
	c.Joined = func(Registered) (store.Batch, error) { return store.Batch{}, broken }
	_, err := r.RegisterThing(t.Context(), flowAccount, c)
	if !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	if exists, err := r.registry.ThingExists(t.Context(), flowAccount, "new"); err != nil || exists {
		t.Errorf("the thing exists: %v, %v", exists, err)
	}
	c.Joined = func(made Registered) (store.Batch, error) {
		return store.Batch{Expect: []store.Expect{{Key: k}}, Writes: []store.Write{{Key: k, Value: []byte(made.ResourceARNs["thing"])}}}, nil
	}
	_, err = r.RegisterThing(t.Context(), flowAccount, c)
	r.need(err)
	found, err := r.disk.Get(t.Context(), k)
	if err != nil || string(found.Value) != "arn:aws:iot:us-east-1:000000000000:thing/new" {
		t.Errorf("kept %q, %v", found.Value, err)
	}
	// The receipt is in the way of a second time, and nothing else happens.
	c.Parameters = map[string]string{"Name": "other", "CSR": request(t)}
	_, err = r.RegisterThing(t.Context(), flowAccount, c)
	wantCode(t, err, fault.Throttling)
	if exists, err := r.registry.ThingExists(t.Context(), flowAccount, "other"); err != nil || exists {
		t.Errorf("the other thing exists: %v, %v", exists, err)
	}
}

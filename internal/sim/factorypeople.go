package sim

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/fleet"
)

// people are who a run needs: nobody does what another must check.
type people struct {
	uploader, vetter, approver *apiclient.Client
	keys                       []string
}

// ops calls an operation of /ops/v1.
func ops(ctx context.Context, api *apiclient.Client, method, path string, query url.Values, in, out any) error {
	return api.JSON(ctx, apiclient.Request{Service: apiclient.ServiceControl, Method: method, Path: path, Query: query}, in, out) //nolint:wrapcheck // the server's own words
}

// hire makes a user with a policy and a key.
func (f *Factory) hire(ctx context.Context, who, policy string) (*apiclient.Client, error) {
	user := f.name(who)
	if err := ops(ctx, f.o.API, http.MethodPost, apiclient.Path("ops", "v1", "users"), nil, map[string]string{"userName": user}, nil); err != nil {
		return nil, fmt.Errorf("create user %s: %w", user, err)
	}
	if err := ops(ctx, f.o.API, http.MethodPut, apiclient.Path("ops", "v1", "users", user, "policies"), url.Values{"policy": {policy}}, nil, nil); err != nil {
		return nil, fmt.Errorf("attach %s to user %s: %w", policy, user, err)
	}
	var key struct {
		ID     string `json:"accessKeyId"`
		Secret string `json:"secretAccessKey"`
	}
	if err := ops(ctx, f.o.API, http.MethodPost, apiclient.Path("ops", "v1", "users", user, "access-keys"), nil, nil, &key); err != nil {
		return nil, fmt.Errorf("create a key of user %s: %w", user, err)
	}
	f.people.keys = append(f.people.keys, key.ID)
	return f.o.As(key.ID, key.Secret)
}

// leave takes the keys back.
func (p *people) leave(ctx context.Context, api *apiclient.Client) error {
	var failures []error
	for _, id := range p.keys {
		failures = append(failures, ops(ctx, api, http.MethodDelete, apiclient.Path("ops", "v1", "access-keys", id), nil, nil, nil))
	}
	return errors.Join(failures...)
}

// factoryTemplate makes a thing of what joins.
const factoryTemplate = `{"Parameters":{"SerialNumber":{"Type":"String"},"Model":{"Type":"String"},"Made":{"Type":"String"},"Inspect":{"Type":"String"},"AWS::IoT::Certificate::Id":{"Type":"String"}},
 "Resources":{
  "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"SerialNumber"},"ThingTypeName":"` + typeName + `","ThingGroups":["RUN-fleet"],
    "AttributePayload":{"serialNumber":{"Ref":"SerialNumber"},"manufacturer":"RUN-works","model":{"Ref":"Model"},"manufacturingDate":{"Ref":"Made"},"site":"unassigned"}}},
  "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"ACTIVE"}}}}`

// factoryPlan is how the devices come into service.
const factoryPlan = `id: RUN-plan
name: Pumps of the simulated works
productLine: Pumps
selfProvisioned: true
ownershipCheck: |
  A pump is ours if an accepted list of the works, signed with the key of its line,
  has its serial number and, where the list knows it, its key. The entry is used up
  when the pump joins; a second pump with it is refused, and both go to quarantine.
appliesTo:
  templates: [RUN-pumps]
metadata:
  uniqueId: {attribute: serialNumber, required: true}
  manufacturer: {attribute: manufacturer, required: true}
  modelNumber: {attribute: model, required: true}
  manufacturingDate: {attribute: manufacturingDate, required: true}
stages:
  - id: manufacture
    title: Manufacture
    kind: MANUFACTURE
    actor: {role: Manufacturer, organisation: RUN works, contact: line-1@works.example}
    limit: 30d
    steps:
      - id: announce
        title: Announce the serial number
        mode: PROGRAMMATIC
        apiRef: POST /ops/v1/onboarding
        state: EXPECTED
      - id: list
        title: Sign the list of the shift
        mode: MANUAL
        instruction: |
          Sign the list with the key of the line and upload it. Somebody else compares
          its number of entries with the counter of the line and accepts it; list and
          revision are the evidence.
        evidenceRequired: true
        dependsOn: [announce]
        state: MANUFACTURED
  - id: shipping
    title: Shipping
    kind: CUSTOM
    actor: {role: Carrier, organisation: Northern Freight, contact: dispatch@freight.example}
    limit: 14d
    steps:
      - id: hand-over
        title: Hand over to the carrier
        mode: MANUAL
        instruction: Seal the box. The number of the consignment note is the evidence.
        evidenceRequired: true
        dependsOn: [list]
  - id: registration
    title: Registration
    kind: REGISTRATION
    actor: {role: Service provider, organisation: Leeds Water, contact: iot@water.example}
    limit: 7d
    steps:
      - id: register
        title: Provision by claim
        mode: PROGRAMMATIC
        apiRef: RegisterThing
        state: REGISTERED
  - id: activation
    title: Activation
    kind: ACTIVATION
    actor: {role: End user, organisation: Leeds Water, contact: operations@water.example}
    limit: 2d
    steps:
      - id: connect
        title: Connect with the operational certificate
        mode: PROGRAMMATIC
        dependsOn: [register]
        state: ACTIVE
    exitCriteria:
      - predicate: thingTypeName:` + typeName + ` AND thingGroupNames:RUN-fleet
        within: 1h
`

// factoryClaimPolicy is for what every device has when it leaves the works; deviceRules
// are what it may once it has joined.
const (
	factoryClaimPolicy = `{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":"iot:Connect","Resource":"ARN:client/*"},
 {"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":["ARN:topic/$aws/certificates/create-from-csr/*","ARN:topic/$aws/provisioning-templates/RUN-pumps/provision/*"]},
 {"Effect":"Allow","Action":"iot:Subscribe","Resource":["ARN:topicfilter/$aws/certificates/create-from-csr/*","ARN:topicfilter/$aws/provisioning-templates/RUN-pumps/provision/*"]}]}`
)

// prepare makes what a factory needs before it makes its first device.
func (f *Factory) prepare(ctx context.Context) error {
	for _, p := range []struct {
		who, policy string
		into        **apiclient.Client
	}{
		{"uploader", "MusterAllowListUploader", &f.people.uploader},
		{"vetter", "MusterAllowListVetter", &f.people.vetter},
		{"approver", "MusterProvisioningApprover", &f.people.approver},
	} {
		var err error
		if *p.into, err = f.hire(ctx, p.who, p.policy); err != nil {
			return err
		}
	}
	group := f.name("leads")
	if err := ops(ctx, f.o.API, http.MethodPost, apiclient.Path("ops", "v1", "user-groups"), nil, map[string]string{"groupName": group}, nil); err != nil {
		return fmt.Errorf("create user group %s: %w", group, err)
	}
	if err := ops(ctx, f.o.API, http.MethodPut, apiclient.Path("ops", "v1", "user-groups", group, "users", f.name("approver")), nil, nil, nil); err != nil {
		return fmt.Errorf("add to user group %s: %w", group, err)
	}
	if err := exists(f.o.API.CreateThingType(ctx, typeName, "pump of the simulator", []string{"site"})); err != nil {
		return fmt.Errorf("create thing type: %w", err)
	}
	if err := f.o.API.CreateGroup(ctx, f.name("fleet"), "", "devices of a simulated factory"); err != nil {
		return fmt.Errorf("create group: %w", err)
	}
	detail, err := f.o.API.DescribeGroup(ctx, f.name("fleet"))
	if err != nil {
		return fmt.Errorf("describe group: %w", err)
	}
	parsed, ok := fleet.ParseARN(detail.ARN)
	if !ok {
		return fmt.Errorf("the server answers %q, which is not an ARN", detail.ARN)
	}
	if err := f.o.API.CreatePolicy(ctx, f.name("device"), policyDocument(devicePolicy, parsed.Scope)); err != nil {
		return fmt.Errorf("create policy: %w", err)
	}
	if err := f.o.API.AttachPolicy(ctx, f.name("device"), detail.ARN); err != nil {
		return fmt.Errorf("attach policy: %w", err)
	}
	role := fmt.Sprintf("arn:%s:iam::%s:role/simulator", fleet.Partition, parsed.Account)
	if err := f.o.API.CreateTemplate(ctx, apiclient.TemplateCreation{Name: f.name("pumps"), Body: f.filled(factoryTemplate), RoleARN: role, Enabled: true}); err != nil {
		return fmt.Errorf("create provisioning template: %w", err)
	}
	if _, err := f.o.API.CreatePlan(ctx, f.filled(factoryPlan)); err != nil {
		return fmt.Errorf("create plan: %w", err)
	}
	if _, err := f.o.API.PublishPlan(ctx, f.name("plan")); err != nil {
		return fmt.Errorf("publish plan: %w", err)
	}
	if err := f.o.API.CreatePolicy(ctx, f.name("claim"), policyDocument(f.filled(factoryClaimPolicy), parsed.Scope)); err != nil {
		return fmt.Errorf("create policy: %w", err)
	}
	id, err := newIdentity(ctx, f.o.API, f.name("claim"))
	if err != nil {
		return err
	}
	f.claim = id.certificate
	if err := f.o.API.AttachPolicy(ctx, f.name("claim"), id.arn); err != nil {
		return fmt.Errorf("attach policy: %w", err)
	}
	return nil
}

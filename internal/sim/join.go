package sim

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
)

// joinTimeout bounds how long a device takes from its claim to its certificate.
const joinTimeout = 30 * time.Second

// claimPolicy is for what every device has when it leaves the factory.
const claimPolicy = `{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":"iot:Connect","Resource":"ARN:client/*"},
 {"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":["ARN:topic/$aws/certificates/create-from-csr/*","ARN:topic/$aws/provisioning-templates/` + templateName + `/provision/*"]},
 {"Effect":"Allow","Action":"iot:Subscribe","Resource":["ARN:topicfilter/$aws/certificates/create-from-csr/*","ARN:topicfilter/$aws/provisioning-templates/` + templateName + `/provision/*"]}]}`

// templateBody makes a device of what joins: a thing at a site, whose policy it
// inherits from there.
const templateBody = `{"Parameters":{"Name":{"Type":"String"},"Site":{"Type":"String"},"Hardware":{"Type":"String"},"SerialNumber":{"Type":"String"},"AWS::IoT::Certificate::Id":{"Type":"String"}},
 "Resources":{
  "thing":{"Type":"AWS::IoT::Thing",
   "Properties":{"ThingName":{"Ref":"Name"},"ThingTypeName":"` + typeName + `","ThingGroups":[{"Ref":"Site"}],
    "AttributePayload":{"site":{"Ref":"Site"},"hw":{"Ref":"Hardware"},"serial":{"Ref":"SerialNumber"}}},
   "OverrideSettings":{"AttributePayload":"REPLACE","ThingTypeName":"DO_NOTHING","ThingGroups":"MERGE"}},
  "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"ACTIVE"}}}}`

// ensureClaim makes the template and the claim with which devices join.
func ensureClaim(ctx context.Context, o *Options, scope fleet.Scope) (tls.Certificate, error) {
	role := fmt.Sprintf("arn:%s:iam::%s:role/simulator", fleet.Partition, scope.Account)
	if err := exists(o.API.CreateTemplate(ctx, apiclient.TemplateCreation{Name: templateName, Body: templateBody, RoleARN: role, Enabled: true})); err != nil {
		return tls.Certificate{}, fmt.Errorf("create provisioning template: %w", err)
	}
	certFile, keyFile := filepath.Join(o.StateDir, "claim.pem"), filepath.Join(o.StateDir, "claim.key")
	id, err := loadIdentity(ctx, o.API, certFile, keyFile)
	if !errors.Is(err, errNoIdentity) {
		return id.certificate, err
	}
	if err := exists(o.API.CreatePolicy(ctx, claimPolicyName, policyDocument(claimPolicy, scope))); err != nil {
		return tls.Certificate{}, fmt.Errorf("create policy: %w", err)
	}
	if id, err = newIdentity(ctx, o.API, "claim"); err != nil {
		return tls.Certificate{}, err
	}
	if err := o.API.AttachPolicy(ctx, claimPolicyName, id.arn); err != nil {
		return tls.Certificate{}, fmt.Errorf("attach policy: %w", err)
	}
	return id.certificate, id.save(certFile, keyFile)
}

// joining is a connection with the claim.
type joining struct {
	*client.Client

	answers  chan joinAnswer
	template string
}

// provisionTopic is where the device asks to be provisioned.
func (j *joining) provisionTopic() string {
	return "$aws/provisioning-templates/" + j.template + "/provision/json"
}

// request asks for a certificate.
func (j *joining) request(ctx context.Context, csr []byte) (joinAnswer, error) {
	return j.ask(ctx, "$aws/certificates/create-from-csr/json", map[string]string{"certificateSigningRequest": string(csr)})
}

// provision asks to be provisioned with the token of a certificate.
func (j *joining) provision(ctx context.Context, token string, parameters map[string]string) (joinAnswer, error) {
	return j.ask(ctx, j.provisionTopic(), map[string]any{"certificateOwnershipToken": token, "parameters": parameters})
}

// joinAnswer is what either request is answered with, or why not.
type joinAnswer struct {
	Certificate string `json:"certificatePem"`
	Token       string `json:"certificateOwnershipToken"`
	Thing       string `json:"thingName"`
	Code        string `json:"errorCode"`
	Message     string `json:"errorMessage"`
	problem     error
}

// join lets a device exchange the claim for a certificate of its own.
func (f *Fleet) join(ctx context.Context, name string, parameters map[string]string) (identity, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	key, request, err := newRequest(name)
	if err != nil {
		return identity{}, err
	}
	j, err := f.door.asClaim(ctx, f.claim, "new-"+name, templateName)
	if err != nil {
		return identity{}, err
	}
	defer j.Disconnect() //nolint:errcheck // it has what it came for
	issued, err := j.request(ctx, request)
	if err != nil {
		return identity{}, fmt.Errorf("ask for a certificate: %w", err)
	}
	made, err := j.provision(ctx, issued.Token, parameters)
	if err != nil {
		return identity{}, fmt.Errorf("provision: %w", err)
	}
	if made.Thing != name {
		return identity{}, fmt.Errorf("provisioned as %q", made.Thing)
	}
	return assemble([]byte(issued.Certificate), key, "")
}

// receive runs in the client's reader.
func (j *joining) receive(p *mqtt.Publish) {
	var a joinAnswer
	if err := json.Unmarshal(p.Payload, &a); err != nil {
		a.problem = fmt.Errorf("read the answer: %w", err)
	} else if strings.HasSuffix(string(p.Topic), "/rejected") {
		a.problem = fmt.Errorf("%s: %s", a.Code, a.Message)
	}
	select {
	case j.answers <- a:
	default: // one was asked for
	}
}

// ask publishes a request and waits for its answer.
func (j *joining) ask(ctx context.Context, topic string, in any) (joinAnswer, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return joinAnswer{}, fmt.Errorf("encode request: %w", err)
	}
	if err := j.Publish(ctx, topic, 1, body); err != nil {
		return joinAnswer{}, err //nolint:wrapcheck // the caller does
	}
	select {
	case a := <-j.answers:
		return a, a.problem
	case <-j.Done():
		return joinAnswer{}, j.Err() //nolint:wrapcheck // the caller does
	case <-ctx.Done():
		return joinAnswer{}, context.Cause(ctx)
	}
}

package sdk

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/testkit"
)

// pumpTemplate is the template of security-provisioning §6.2.
const pumpTemplate = `{"Parameters":{"SerialNumber":{"Type":"String"},"Site":{"Type":"String","Default":"unassigned"},"AWS::IoT::Certificate::Id":{"Type":"String"}},
 "Mappings":{"Endpoints":{"leeds":{"ntp":"ntp.leeds.example"},"unassigned":{"ntp":"ntp.example"}}},
 "Resources":{
  "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Fn::Join":["-",["pump",{"Ref":"SerialNumber"}]]},"ThingTypeName":"pump-g2",
    "AttributePayload":{"serial":{"Ref":"SerialNumber"},"site":{"Ref":"Site"},"batch":{"Fn::Select":["0",{"Fn::Split":["-",{"Ref":"SerialNumber"}]}]}},
    "ThingGroups":["pumps",{"Ref":"Site"}],"BillingGroup":"ops"},
   "OverrideSettings":{"AttributePayload":"MERGE","ThingTypeName":"DO_NOTHING","ThingGroups":"REPLACE"}},
  "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"ACTIVE"}},
  "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"pump-device"}}},
 "DeviceConfiguration":{"ntp":{"Fn::FindInMap":["Endpoints",{"Ref":"Site"},"ntp"]},"ota":{"Fn::Sub":"pumps/${SerialNumber}"}}}`

// claimPolicy is what devices carry before they have joined (device-plane §5.3).
const claimPolicy = `{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":"iot:Connect","Resource":"*"},
 {"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":[
  "arn:aws:iot:us-east-1:000000000000:topic/$aws/certificates/create/*","arn:aws:iot:us-east-1:000000000000:topic/$aws/certificates/create-from-csr/*",
  "arn:aws:iot:us-east-1:000000000000:topic/$aws/provisioning-templates/Pumps/provision/*"]},
 {"Effect":"Allow","Action":"iot:Subscribe","Resource":[
  "arn:aws:iot:us-east-1:000000000000:topicfilter/$aws/certificates/create/*","arn:aws:iot:us-east-1:000000000000:topicfilter/$aws/certificates/create-from-csr/*",
  "arn:aws:iot:us-east-1:000000000000:topicfilter/$aws/provisioning-templates/Pumps/provision/*"]}]}`

// pumpDevicePolicy lets a device be its thing.
const pumpDevicePolicy = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect",
 "Resource":"arn:aws:iot:us-east-1:000000000000:client/${iot:Connection.Thing.ThingName}","Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"true"}}}]}`

// factory makes what the pumps' template refers to, and the template itself.
func (o *operator) factory() {
	o.t.Helper()
	must(o, o.CreateThingType, &iot.CreateThingTypeInput{ThingTypeName: aws.String("pump-g2")})
	must(o, o.CreateBillingGroup, &iot.CreateBillingGroupInput{BillingGroupName: aws.String("ops")})
	for _, group := range []string{"pumps", "leeds", "unassigned"} {
		must(o, o.CreateThingGroup, &iot.CreateThingGroupInput{ThingGroupName: &group})
	}
	must(o, o.CreatePolicy, &iot.CreatePolicyInput{PolicyName: aws.String("pump-device"), PolicyDocument: aws.String(pumpDevicePolicy)})
	must(o, o.CreateProvisioningTemplate, &iot.CreateProvisioningTemplateInput{
		TemplateName: aws.String("Pumps"), TemplateBody: aws.String(pumpTemplate), Enabled: new(true),
		ProvisioningRoleArn: aws.String("arn:aws:iam::000000000000:role/provisioning"),
	})
}

// keyPair writes a certificate and its key into a new folder.
func keyPair(t *testing.T, certificate, key string) (cert, private string) {
	t.Helper()
	dir := t.TempDir()
	cert, private = filepath.Join(dir, "claim.pem"), filepath.Join(dir, "claim.key")
	for file, text := range map[string]string{cert: certificate, private: key} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, private
}

// claim makes a claim certificate that is built into devices.
func (o *operator) claim() (cert, key string) {
	o.t.Helper()
	made := must(o, o.CreateKeysAndCertificate, &iot.CreateKeysAndCertificateInput{SetAsActive: true})
	must(o, o.CreatePolicy, &iot.CreatePolicyInput{PolicyName: aws.String("claim"), PolicyDocument: aws.String(claimPolicy)})
	must(o, o.AttachPolicy, &iot.AttachPolicyInput{PolicyName: aws.String("claim"), Target: made.CertificateArn})
	return keyPair(o.t, *made.CertificatePem, *made.KeyPair.PrivateKey)
}

// trustedUser makes the claim of a trusted user.
func (o *operator) trustedUser() (cert, key string) {
	o.t.Helper()
	made := must(o, o.CreateProvisioningClaim, &iot.CreateProvisioningClaimInput{TemplateName: aws.String("Pumps")})
	return keyPair(o.t, *made.CertificatePem, *made.KeyPair.PrivateKey)
}

// deviceRequest writes a key and a certificate request for it.
func deviceRequest(t *testing.T) (csr, key string) {
	t.Helper()
	dir := t.TempDir()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	csr, key = filepath.Join(dir, "device.csr"), filepath.Join(dir, "device.key")
	for file, block := range map[string]*pem.Block{csr: {Type: "CERTIFICATE REQUEST", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: encoded}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return csr, key
}

// TestIdentityClients: devices join by claim and by trusted user, with keys made
// by the server and with their own, by both identity clients of the device SDK on
// both protocols (device plane §5, security-provisioning §3.3 and §6.2).
func TestIdentityClients(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "node", "npm")
	if err := needDevice(); err != nil {
		t.Fatal(err)
	}
	server := startServer(t)
	newOperator(t, server).factory()
	cert, key := newOperator(t, server).claim()
	for _, client := range []string{"service", "requests"} {
		for _, protocol := range []string{"3.1.1", "5"} {
			for _, claim := range []string{"claim", "trusted"} {
				for _, keys := range []string{"keys", "csr"} {
					name := strings.Join([]string{client, protocol, claim, keys}, "-")
					t.Run(name, func(t *testing.T) {
						t.Parallel()
						o := newOperator(t, server)
						cert, key := cert, key
						if claim == "trusted" {
							cert, key = o.trustedUser()
						}
						serial := "B7-" + strings.ReplaceAll(name, ".", "")
						env := []string{
							"CLIENT=" + client, "PROTOCOL=" + protocol, "TEMPLATE=Pumps", "SERIAL=" + serial, "THING=pump-" + serial, "PORT=" + portOf(t, server.MQTTAddr),
							"CERT=" + cert, "KEY=" + key, "CA=" + filepath.Join(server.DataDir, "ca.pem"), "DIR=" + t.TempDir(),
						}
						if keys == "csr" {
							csr, own := deviceRequest(t)
							env = append(env, "CSR="+csr, "CSR_KEY="+own)
						}
						d := startJavaScript(t, "identity.mjs", env...)
						id := d.next("issued").ClientToken
						// Negative vectors of §6.2: no mapping for york; a token is good once.
						if l := d.next("provisioned"); l.Accepted || l.Code != 400 || l.Message != "InvalidParameters" {
							t.Errorf("for york: %+v", l)
						}
						l := d.next("provisioned")
						want := map[string]any{"ntp": "ntp.leeds.example", "ota": "pumps/" + serial}
						if !l.Accepted || l.Message != "pump-"+serial || !cmp.Equal(l.State, want) {
							t.Fatalf("for leeds: %+v", l)
						}
						if l := d.next("provisioned"); l.Accepted || l.Code != 400 || l.Message != "InvalidCertificateOwnershipToken" {
							t.Errorf("again: %+v", l)
						}
						d.next("connected")
						d.next("closed")
						o.joined("pump-"+serial, id)
					})
				}
			}
		}
	}
}

// joined checks all that the pumps' template makes.
func (o *operator) joined(thing, certificateID string) {
	o.t.Helper()
	described := must(o, o.DescribeThing, &iot.DescribeThingInput{ThingName: &thing})
	serial := strings.TrimPrefix(thing, "pump-")
	if diff := cmp.Diff(map[string]string{"serial": serial, "site": "leeds", "batch": "B7"}, described.Attributes); diff != "" {
		o.t.Errorf("attributes (-want +got):\n%s", diff)
	}
	if aws.ToString(described.ThingTypeName) != "pump-g2" || aws.ToString(described.BillingGroupName) != "ops" {
		o.t.Errorf("type %q, billing group %q", aws.ToString(described.ThingTypeName), aws.ToString(described.BillingGroupName))
	}
	var groups []string
	for _, g := range must(o, o.ListThingGroupsForThing, &iot.ListThingGroupsForThingInput{ThingName: &thing}).ThingGroups {
		groups = append(groups, *g.GroupName)
	}
	if diff := cmp.Diff([]string{"leeds", "pumps"}, groups); diff != "" {
		o.t.Errorf("groups (-want +got):\n%s", diff)
	}
	certificate := must(o, o.DescribeCertificate, &iot.DescribeCertificateInput{CertificateId: &certificateID}).CertificateDescription
	if certificate.Status != types.CertificateStatusActive {
		o.t.Errorf("the certificate is %s", certificate.Status)
	}
	principals := must(o, o.ListThingPrincipals, &iot.ListThingPrincipalsInput{ThingName: &thing}).Principals
	if diff := cmp.Diff([]string{*certificate.CertificateArn}, principals); diff != "" {
		o.t.Errorf("principals (-want +got):\n%s", diff)
	}
	policies := must(o, o.ListAttachedPolicies, &iot.ListAttachedPoliciesInput{Target: certificate.CertificateArn}).Policies
	if len(policies) != 1 || *policies[0].PolicyName != "pump-device" {
		o.t.Errorf("policies %+v", policies)
	}
}

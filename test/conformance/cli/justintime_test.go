package cli_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/testkit"
)

// pumpJITP provisions a device by what stands in its certificate.
const pumpJITP = `{"Parameters":{"AWS::IoT::Certificate::CommonName":{"Type":"String"},"AWS::IoT::Certificate::Organization":{"Type":"String"},"AWS::IoT::Certificate::Id":{"Type":"String"}},
 "Resources":{
  "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"AWS::IoT::Certificate::CommonName"},"ThingGroups":["makers"],"AttributePayload":{"maker":{"Ref":"AWS::IoT::Certificate::Organization"}}}},
  "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"ACTIVE"}},
  "policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"own-topics"}}}}`

const ownTopics = `{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":"iot:Connect","Resource":"arn:aws:iot:us-east-1:000000000000:client/${iot:Connection.Thing.ThingName}"},
 {"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":"arn:aws:iot:us-east-1:000000000000:topic/pumps/${iot:Connection.Thing.ThingName}"},
 {"Effect":"Allow","Action":"iot:Subscribe","Resource":"arn:aws:iot:us-east-1:000000000000:topicfilter/pumps/${iot:Connection.Thing.ThingName}"}]}`

// madeBy is a device with a certificate that its maker issued and nobody
// registered.
func (m *maker) madeBy(server *testkit.Server, name, subject, authority string) *device {
	m.t.Helper()
	m.openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", name+".key", "-out", name+".csr", "-subj", subject)
	m.openssl("x509", "-req", "-in", name+".csr", "-CA", authority+".pem", "-CAkey", authority+".key", "-CAcreateserial", "-sha256", "-days", "30", "-out", name+".pem")
	return &device{
		t: m.t, server: server, cert: filepath.Join(m.dir, name+".pem"), key: filepath.Join(m.dir, name+".key"), ca: filepath.Join(server.DataDir, "ca.pem"),
	}
}

// comesIn tries until a device that joins is let in, as devices do.
func (d *device) comesIn(clientID, topic string) {
	d.t.Helper()
	testkit.Poll(d.t, 15*time.Second, clientID+" comes in", func() error { return d.publish(clientID, topic, "hello") })
}

// TestJustInTime registers an authority with the commands of security-provisioning
// §6.5 word for word; its devices come with nothing but their certificates.
func TestJustInTime(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "aws", "openssl", "mosquitto_sub", "mosquitto_pub")
	server := testkit.StartServer(t)
	o := newOperator(t, server)
	m := &maker{t: t, dir: t.TempDir()}
	o.must("iot", "create-thing-group", "--thing-group-name", "makers")
	o.must("iot", "create-policy", "--policy-name", "own-topics", "--policy-document", ownTopics)
	o.must("iot", "create-provisioning-template", "--template-name", "pump-jitp", "--type", "JITP", "--enabled", "--template-body", pumpJITP,
		"--provisioning-role-arn", "arn:aws:iam::000000000000:role/provisioning")

	code, _ := o.must("iot", "get-registration-code")["registrationCode"].(string)
	m.authority("ca", "CA:TRUE", 365)
	m.signed("vc", code, "ca")
	o.must("iot", "register-ca-certificate", "--ca-certificate", m.file("ca.pem"), "--verification-cert", m.file("vc.pem"), "--set-as-active",
		"--allow-auto-registration", "--registration-config", "templateName=pump-jitp")

	d := m.madeBy(server, "pump-1", "/O=Acme/CN=pump-1", "ca")
	if err := d.publish("pump-1", "pumps/pump-1", "x"); err == nil {
		t.Error("the first connection was let in; AWS IoT ends it")
	}
	d.comesIn("pump-1", "pumps/pump-1")
	thing := o.must("iot", "describe-thing", "--thing-name", "pump-1")
	if attributes := fmt.Sprint(thing["attributes"]); attributes != "map[maker:Acme]" {
		t.Errorf("attributes %s", attributes)
	}
	if got := names(o.must("iot", "list-things-in-thing-group", "--thing-group-name", "makers"), "things", ""); strings.Join(got, " ") != "pump-1" {
		t.Errorf("things of the group: %v", got)
	}
	if got := names(o.must("iot", "list-thing-principals", "--thing-name", "pump-1"), "principals", ""); len(got) != 1 || !strings.Contains(got[0], ":cert/") {
		t.Errorf("principals %v", got)
	}

	// What the template asks for is not in this certificate: it waits.
	stranger := m.madeBy(server, "nameless", "/CN=nameless", "ca")
	for range 3 {
		if err := stranger.publish("nameless", "pumps/nameless", "x"); err == nil {
			t.Error("a device without the subject that the template needs was let in")
		}
	}
	o.refused("ResourceNotFoundException", "iot", "describe-thing", "--thing-name", "nameless")

	// Without a template, whoever listens decides; the second mode needs no proof.
	m.authority("waiting", "CA:TRUE", 365)
	made := o.must("iot", "register-ca-certificate", "--ca-certificate", m.file("waiting.pem"), "--certificate-mode", "SNI_ONLY", "--set-as-active", "--allow-auto-registration")
	ca, _ := made["certificateId"].(string)
	watcher := o.newDevice()
	o.must("iot", "create-policy", "--policy-name", "all", "--policy-document", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`)
	o.must("iot", "attach-policy", "--policy-name", "all", "--target", watcher.certARN)
	events := watcher.subscribe("watcher", "$aws/events/certificates/registered/"+ca)
	events.waitFor(t, "SUBACK")
	d = m.madeBy(server, "pump-2", "/CN=pump-2", "waiting")
	if err := d.publish("pump-2", "t", "x"); err == nil {
		t.Error("the first connection was let in")
	}
	events.waitFor(t, "registered/"+ca, `"certificateStatus":"PENDING_ACTIVATION"`, `"caCertificateId":"`+ca+`"`, `"awsAccountId":"000000000000"`)
	listed, _ := o.must("iot", "list-certificates-by-ca", "--ca-certificate-id", ca)["certificates"].([]any)
	if len(listed) != 1 {
		t.Fatalf("certificates of the authority: %v", listed)
	}
	waiting, _ := listed[0].(map[string]any)
	if waiting["status"] != "PENDING_ACTIVATION" {
		t.Errorf("certificate %v", waiting)
	}
	o.must("iot", "attach-policy", "--policy-name", "all", "--target", fmt.Sprint(waiting["certificateArn"]))
	o.must("iot", "update-certificate", "--certificate-id", fmt.Sprint(waiting["certificateId"]), "--new-status", "ACTIVE")
	d.comesIn("pump-2", "t")

	// An authority that is no longer trusted brings nobody in, and keeps whom it has.
	o.must("iot", "update-ca-certificate", "--certificate-id", ca, "--new-auto-registration-status", "DISABLE")
	late := m.madeBy(server, "pump-3", "/CN=pump-3", "waiting")
	for range 3 {
		if err := late.publish("pump-3", "t", "x"); err == nil {
			t.Error("a newcomer of a closed authority was let in")
		}
	}
	if err := d.publish("pump-2", "t", "still here"); err != nil {
		t.Error(err)
	}
}

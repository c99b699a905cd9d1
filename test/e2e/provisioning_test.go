package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/testkit"
)

// Bodies of the templates: for devices with a claim, for those under an
// authority, and for the lines of a file.
const (
	claimBody = `{
 "Parameters": {"Serial": {"Type": "String"}},
 "Resources": {
  "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Fn::Join": ["-", ["pump", {"Ref": "Serial"}]]},
   "ThingTypeName": "Pump", "AttributePayload": {"serial": {"Ref": "Serial"}}}},
  "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}},
  "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": {"Version": "2012-10-17",
   "Statement": [{"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}]}}}
 }
}`
	makerBody = `{"Parameters":{"AWS::IoT::Certificate::CommonName":{"Type":"String"},"AWS::IoT::Certificate::Id":{"Type":"String"}},"Resources":{
 "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"AWS::IoT::Certificate::CommonName"}}},
 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}}}}}`
	lineBody = `{"Parameters":{"Name":{"Type":"String"}},"Resources":{
 "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"Name"},"ThingTypeName":"Pump"}}}}`
)

// commands runs the binary against a server and reads what it says.
type commands struct {
	t      *testing.T
	server *testkit.Server
}

// run wants a command to succeed and to print lines that match each pattern.
func (c commands) run(args []string, patterns ...string) string {
	c.t.Helper()
	out, err := c.server.Muster(c.t.Context(), args...)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, pattern := range patterns {
		if !regexp.MustCompile("(?m)" + pattern).MatchString(out) {
			c.t.Errorf("muster %s: no %q in\n%s", strings.Join(args, " "), pattern, out)
		}
	}
	return out
}

// refused wants a command to fail, and to say why.
func (c commands) refused(args []string, why string) {
	c.t.Helper()
	_, err := c.server.Muster(c.t.Context(), args...)
	if err == nil || !strings.Contains(err.Error(), why) {
		c.t.Errorf("muster %s: got %v, want %q", strings.Join(args, " "), err, why)
	}
}

// file writes a file of the test and returns its path.
func (c commands) file(folder, name, text string) string {
	c.t.Helper()
	path := filepath.Join(folder, name)
	must(c.t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// words are the arguments of a command.
func words(line string, more ...string) []string { return append(strings.Fields(line), more...) }

// TestProvisioningByCommand: templates with their versions, dry runs, claims,
// authorities and registration tasks from the command line, against a server.
func TestProvisioningByCommand(t *testing.T) {
	t.Parallel()
	folder, objects := t.TempDir(), t.TempDir()
	server := testkit.StartServer(t, "--log.level", "warn", "--objects.dir", objects)
	c := commands{t, server}
	claim, maker, line := c.file(folder, "claim.json", claimBody), c.file(folder, "maker.json", makerBody), c.file(folder, "line.json", lineBody)

	// A dry run says what is missing, until nothing is.
	test := words("template test", claim, "--param", "Serial=7")
	c.refused(test, "the device would be refused: ResourceNotFound: thing type Pump does not exist")
	must(t, newAPI(t, server).CreateThingType(t.Context(), "Pump", "", nil))
	c.run(test, `^thing +pump-7 +new$`, `^type +Pump$`, `^attribute +serial=7$`, `^certificate +the device's +ACTIVE$`, `^policy +[0-9a-f]{64} +new$`)
	c.refused(words("template test", claim), "claim.json:2:27: parameter Serial: there is no value and no Default")
	c.refused(words("template test", claim, "--type", "JITP"), `(rule: kind)`)
	c.run(words("things list"), `\A(?s)THING[^\n]*\n\z`)

	// Templates and their versions.
	c.run(words("template create pumps --description 'x' --body", claim), `^enabled +false$`, `^version in force +1$`, `^role +arn:aws:iam::000000000000:role/provisioning$`)
	c.refused(words("claim issue pumps --out", folder), "is not enabled")
	c.run(words("template update pumps --enable --default --body", claim), `^enabled +true$`, `^version in force +2$`)
	c.run(words("template versions pumps"), `^2 +true `, `^1 +false `)
	c.run(words("template delete-version pumps 1"), "deleted version 1")
	c.refused(words("template show pumps --version 1"), "ResourceNotFoundException")
	if got := c.run(words("template show pumps --body")); strings.TrimSpace(got) != claimBody {
		t.Errorf("the body is now %s", got)
	}
	c.run(words("template test pumps --param Serial=8"), `^thing +pump-8 +new$`)
	c.run(words("template list"), `^pumps +FLEET_PROVISIONING +true `)
	c.run(words("doctor"), `^no differences$`, `^note: template pumps of account 000000000000: no authority is bound to decide about it: its devices join without approval`)

	// A claim that opens the door, in files of its own.
	c.run(words("claim issue pumps --out", folder), `claim\.crt`)
	if _, err := tls.LoadX509KeyPair(filepath.Join(folder, "claim.crt"), filepath.Join(folder, "claim.key")); err != nil {
		t.Error(err)
	}

	c.authority(folder, maker)
	c.task(objects, line)

	// What is deleted is gone.
	c.refused(words("template delete pumps"), "nobody confirmed")
	c.run(words("template delete pumps --yes"))
	c.refused(words("template show pumps"), "ResourceNotFoundException")
}

// authority has an authority whose devices join, and revokes one of them.
func (c commands) authority(folder, maker string) {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(c.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Acme"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(c.t, err)
	ca := c.file(folder, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	c.run(words("template create maker --type JITP --enable --body", maker), `^type +JITP$`)
	var registered struct {
		ID string `json:"certificateId"`
	}
	out := c.run(words("ca register --mode SNI_ONLY --set-as-active --allow-auto-registration --template maker -o json", ca), `"autoRegistrationStatus": "ENABLE"`, `"templateName": "maker"`)
	must(c.t, json.Unmarshal([]byte(out), &registered))
	c.run(words("ca auto-registration "+registered.ID+" disable"), ` DISABLE +maker$`)
	c.run(words("ca template "+registered.ID+" none"), ` DISABLE$`)
	c.run(words("ca template "+registered.ID+" maker"), ` DISABLE +maker$`)
	c.run(words("ca auto-registration "+registered.ID+" enable"), ` ENABLE +maker$`)
	c.refused(words("ca template "+registered.ID+" pumps"), "JITP")
	c.run(words("ca declare "+registered.ID, "contract 4711"), `^basis +TRUST$`, `^statement +contract 4711$`, `^stated by +arn:aws:iam::000000000000:root$`)
	c.run(words("ca declaration "+registered.ID), `^statement +contract 4711$`)

	made, err := newAPI(c.t, c.server).CertificateFromCSR(c.t.Context(), request(c.t))
	must(c.t, err)
	c.run(words("certificates deactivate --yes "+made.ID), ` INACTIVE `)
	c.run(words("certificates activate "+made.ID), ` ACTIVE `)
	c.refused(words("certificates revoke "+made.ID), "nobody confirmed")
	c.run(words("certificates revoke --yes "+made.ID), ` REVOKED `)
}

// request is a certificate request in PEM.
func request(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "e2e"}}, key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// task registers things from a file, of whose lines one fails.
func (c commands) task(objects, line string) {
	c.t.Helper()
	must(c.t, os.Mkdir(filepath.Join(objects, "lines"), 0o700))
	c.file(filepath.Join(objects, "lines"), "in.ndjson", `{"Name":"enlisted-1"}`+"\n"+`{"Name":"no name"}`+"\n"+`{"Name":"enlisted-2"}`+"\n")
	c.refused(words("bulk start --bucket lines --key other", line), `there is no object "other" in bucket "lines"`)
	start := words("bulk start --watch --bucket lines --key in.ndjson", line)
	c.refused(start, "1 line was not registered")
	c.refused(start, "1 line was not registered") // the lines that are done are no trouble
	ids := regexp.MustCompile(`(?m)^([0-9a-f-]{36}) +Completed +100 +2 +1 +lines/in\.ndjson `).FindAllStringSubmatch(c.run(words("bulk list --status Completed")), -1)
	if len(ids) != 2 {
		c.t.Fatalf("tasks %v", ids)
	}
	id := ids[0][1]
	c.run(words("bulk status "+id), `^`+id+` +Completed `)
	c.run(words("bulk report --errors "+id), `\A\{"errorMessage":"[^\n]*"lineNumber":2,[^\n]*\}\n\z`)
	c.run(words("bulk report --results "+id), `"lineNumber":1,.*"thing":"arn:aws:iot:us-east-1:000000000000:thing/enlisted-1"`, `"lineNumber":3,`)
	c.refused(words("bulk stop "+id), "is Completed")
	c.run(words("things list"), `^enlisted-1 +Pump `, `^enlisted-2 +Pump `)
}

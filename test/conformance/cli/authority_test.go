package cli_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/testkit"
)

// maker is a device maker with openssl and a folder.
type maker struct {
	t   *testing.T
	dir string
}

// openssl runs a command in the folder.
func (m *maker) openssl(args ...string) {
	m.t.Helper()
	cmd := exec.CommandContext(m.t.Context(), "openssl", args...)
	cmd.Dir = m.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		m.t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// file is what the AWS command line calls a file of the folder.
func (m *maker) file(name string) string { return "file://" + filepath.Join(m.dir, name) }

// authority makes NAME.pem and NAME.key, a CA unless extensions say otherwise.
func (m *maker) authority(name, constraints string, days int) {
	m.t.Helper()
	m.openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", name+".key", "-out", name+".pem", "-subj", "/O=Acme/CN="+name,
		"-days", fmt.Sprint(days), "-addext", "basicConstraints=critical,"+constraints, "-addext", "keyUsage=critical,keyCertSign,cRLSign")
}

// signed makes NAME.pem and NAME.key under an authority.
func (m *maker) signed(name, commonName, authority string) {
	m.t.Helper()
	m.openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", name+".key", "-out", name+".csr", "-subj", "/CN="+commonName)
	m.openssl("x509", "-req", "-in", name+".csr", "-CA", authority+".pem", "-CAkey", authority+".key", "-CAcreateserial", "-sha256", "-days", "30", "-out", name+".pem")
}

// revoke writes NAME.crl of an authority that names some certificates.
func (m *maker) revoke(authority, number string, certificates ...string) {
	m.t.Helper()
	for file, text := range map[string]string{
		"crl.cnf":   "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\ncrlnumber=crlnumber\ndefault_md=sha256\ndefault_crl_days=30\n",
		"index.txt": "", "crlnumber": number + "\n",
	} {
		if err := os.WriteFile(filepath.Join(m.dir, file), []byte(text), 0o600); err != nil {
			m.t.Fatal(err)
		}
	}
	as := []string{"ca", "-config", "crl.cnf", "-cert", authority + ".pem", "-keyfile", authority + ".key"}
	for _, c := range certificates {
		m.openssl(append(as, "-revoke", c+".pem")...)
	}
	m.openssl(append(as, "-gencrl", "-out", authority+".crl")...)
}

// TestRegisterAuthority cites security-provisioning §6.5: the four steps with
// openssl and the AWS command line, and the four mistakes.
func TestRegisterAuthority(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "aws", "openssl", "mosquitto_sub", "mosquitto_pub")
	server := testkit.StartServer(t)
	o := newOperator(t, server)
	m := &maker{t: t, dir: t.TempDir()}

	// The four steps: code, request with that name, signature, registration.
	code, _ := o.must("iot", "get-registration-code")["registrationCode"].(string)
	m.authority("acme", "CA:TRUE", 365)
	m.signed("proof", code, "acme")
	made := o.must("iot", "register-ca-certificate", "--ca-certificate", m.file("acme.pem"), "--verification-cert", m.file("proof.pem"), "--set-as-active")
	ca, _ := made["certificateId"].(string)
	described, _ := o.must("iot", "describe-ca-certificate", "--certificate-id", ca)["certificateDescription"].(map[string]any)
	if described["status"] != "ACTIVE" || described["certificateMode"] != "DEFAULT" || described["ownedBy"] != "000000000000" {
		t.Errorf("described %v", described)
	}
	m.authority("apex", "CA:TRUE", 365)
	o.must("iot", "register-ca-certificate", "--ca-certificate", m.file("apex.pem"), "--certificate-mode", "SNI_ONLY")

	// The four mistakes.
	m.authority("expired", "CA:TRUE", 365)
	m.authority("leaf", "CA:FALSE", 365)
	m.openssl("req", "-new", "-key", "expired.key", "-out", "expired.csr", "-subj", "/CN=expired")
	m.openssl("x509", "-req", "-in", "expired.csr", "-signkey", "expired.key", "-days", "-1", "-out", "expired.pem", "-extfile", extensions(t, m))
	m.signed("wrong-name", "somebody", "apex")
	m.signed("wrong-signer", code, "acme")
	register := func(authority, proof string) []string {
		return []string{"iot", "register-ca-certificate", "--ca-certificate", m.file(authority + ".pem"), "--verification-cert", m.file(proof + ".pem")}
	}
	o.refused("RegistrationCodeValidationException", register("apex", "wrong-name")...)
	o.refused("not signed by the key of caCertificate", register("apex", "wrong-signer")...)
	o.refused("caCertificate: the certificate expired on", register("expired", "proof")...)
	o.refused("caCertificate is no CA certificate", register("leaf", "proof")...)

	// Two devices of the maker connect; the maker's list ends one of them.
	o.must("iot", "create-policy", "--policy-name", "all", "--policy-document", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`)
	devices := map[string]*device{}
	for _, name := range []string{"pump-1", "pump-2"} {
		m.signed(name, name, "acme")
		answer := o.must("iot", "register-certificate", "--certificate-pem", m.file(name+".pem"), "--status", "ACTIVE")
		d := &device{
			t: t, server: server, cert: filepath.Join(m.dir, name+".pem"), key: filepath.Join(m.dir, name+".key"), ca: filepath.Join(server.DataDir, "ca.pem"),
		}
		d.certARN, d.certificateID = answer["certificateArn"].(string), answer["certificateId"].(string)
		o.must("iot", "attach-policy", "--policy-name", "all", "--target", d.certARN)
		devices[name] = d
	}
	listed := o.must("iot", "list-certificates-by-ca", "--ca-certificate-id", ca)
	if n := len(names(listed, "certificates", "certificateId")); n != 2 {
		t.Errorf("%d certificates under the authority", n)
	}
	sub := devices["pump-1"].subscribe("pump-1", "t")
	sub.waitFor(t, "SUBACK")
	m.revoke("acme", "01", "pump-1")
	out := o.muster("ca", "crl", "import", ca, filepath.Join(m.dir, "acme.crl"))
	if !strings.Contains(out, "REVOKED NOW") || strings.Fields(out[strings.Index(out, "\n"):])[4] != "1" {
		t.Errorf("import says\n%s", out)
	}
	sub.waitFor(t, "CONNACK (5)") // it lost its connection and tried again
	if err := devices["pump-1"].publish("pump-1", "t", "x"); err == nil {
		t.Error("a revoked device published")
	}
	if err := devices["pump-2"].publish("pump-2", "t", "x"); err != nil {
		t.Errorf("a device that is not listed: %v", err)
	}
	if out := o.muster("certificates", "expiring", "--within", "31d", "--format", "json"); strings.Count(out, `"kind": "certificate"`) != 2 {
		t.Errorf("expiring within a month:\n%s", out)
	}

	// Our own list is one that openssl takes for signed by our authority.
	own := o.must("iot", "create-keys-and-certificate")["certificateId"].(string)
	o.must("iot", "update-certificate", "--certificate-id", own, "--new-status", "REVOKED")
	testkit.Poll(t, 10*time.Second, "the server's own list names the certificate", func() error {
		if out := o.muster("ca", "crl", "show"); strings.Count(out, "\n") != 2 {
			return fmt.Errorf("it is\n%s", out)
		}
		return nil
	})

	// One step does all four.
	m.authority("helper", "CA:TRUE", 365)
	out = o.muster("ca", "register", filepath.Join(m.dir, "helper.pem"), "--key", filepath.Join(m.dir, "helper.key"), "--set-as-active")
	if !strings.Contains(out, "ACTIVE") {
		t.Errorf("muster ca register says\n%s", out)
	}
	if n := len(names(o.must("iot", "list-ca-certificates"), "certificates", "certificateId")); n != 3 {
		t.Errorf("%d authorities", n)
	}
}

// extensions writes those of an authority into a file.
func extensions(t *testing.T, m *maker) string {
	t.Helper()
	const name = "ca.ext"
	if err := os.WriteFile(filepath.Join(m.dir, name), []byte("basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// muster runs the product's own command line against the server and returns
// what it writes to standard output.
func (o *operator) muster(args ...string) string {
	o.t.Helper()
	cmd := exec.CommandContext(o.t.Context(), testkit.Binary(o.t), append(args, "--data-dir", o.server.DataDir, "--endpoint-url", "http://"+o.server.HTTPAddr)...)
	cmd.Env = append(o.env, "AWS_DEFAULT_REGION=us-east-1")
	out, err := cmd.Output()
	if err != nil {
		o.t.Fatalf("muster %s: %v\n%s", strings.Join(args, " "), err, stderrOf(err))
	}
	return string(out)
}

// stderrOf is what a failed command complained about.
func stderrOf(err error) string {
	if failed, ok := err.(*exec.ExitError); ok { //nolint:errorlint // exec returns it bare
		return string(failed.Stderr)
	}
	return ""
}

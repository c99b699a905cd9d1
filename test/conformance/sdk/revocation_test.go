package sdk

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
)

// revokes signs a list of certificates and writes it to a file.
func (a *authority) revokes(number int64, certificates ...string) string {
	a.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour)}
	for _, text := range certificates {
		block, _ := pem.Decode([]byte(text))
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			a.t.Fatal(err)
		}
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	path := filepath.Join(a.t.TempDir(), "maker.crl")
	if err := os.WriteFile(path, der, 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// A maker's list ends devices, also those on their way to another account, and
// keeps others out; a crash changes nothing of that.
func TestRevocationListAcrossRestarts(t *testing.T) {
	t.Parallel()
	checkRevocationList(t)
}

// checkRevocationList does that on a server with the flags.
func checkRevocationList(t *testing.T, flags ...string) {
	t.Helper()
	o := newOperator(t, startServerWith(t, flags...))
	maker, ca := o.authority()
	number, receiver := o.anotherAccount()
	texts := map[string]string{"listed": maker.device(), "travelling": maker.device(), "spared": maker.device(), "late": maker.device()}
	ids := map[string]*string{}
	for _, name := range []string{"listed", "travelling", "spared"} {
		status := types.CertificateStatusActive
		if name == "travelling" {
			status = types.CertificateStatusInactive
		}
		ids[name] = must(o, o.RegisterCertificate, &iot.RegisterCertificateInput{CertificatePem: new(texts[name]), Status: status}).CertificateId
	}
	must(o, o.TransferCertificate, &iot.TransferCertificateInput{CertificateId: ids["travelling"], TargetAwsAccount: &number})
	list := maker.revokes(2, texts["listed"], texts["travelling"], texts["late"])
	if out, err := o.server.Muster(t.Context(), "ca", "crl", "import", *ca, list); err != nil || !strings.Contains(out, "REVOKED NOW") {
		t.Fatalf("%v\n%s", err, out)
	}
	for range 2 {
		for name, want := range map[string]types.CertificateStatus{
			"listed": types.CertificateStatusRevoked, "travelling": types.CertificateStatusRevoked, "spared": types.CertificateStatusActive,
		} {
			if d := must(o, o.DescribeCertificate, &iot.DescribeCertificateInput{CertificateId: ids[name]}).CertificateDescription; d.Status != want {
				t.Errorf("%s is %s", name, d.Status)
			}
		}
		if left := must(o, o.ListOutgoingCertificates, &iot.ListOutgoingCertificatesInput{}).OutgoingCertificates; len(left) > 0 {
			t.Errorf("on their way: %+v", left)
		}
		_, err := receiver.AcceptCertificateTransfer(t.Context(), &iot.AcceptCertificateTransferInput{CertificateId: ids["travelling"]})
		if code, _ := answered(err); code != "ResourceNotFoundException" {
			t.Errorf("accept what was revoked: %v", err)
		}
		_, err = o.RegisterCertificate(t.Context(), &iot.RegisterCertificateInput{CertificatePem: new(texts["late"])})
		if code, _ := answered(err); code != "CertificateValidationException" {
			t.Errorf("register what is listed: %v", err)
		}
		o.server.Kill()
		o.server.Start()
	}
	if out, err := o.server.Muster(t.Context(), "ca", "crl", "import", *ca, maker.revokes(1)); err == nil {
		t.Errorf("an older list was taken over:\n%s", out)
	}
	if out, err := o.server.Muster(t.Context(), "ca", "crl", "import", *ca, maker.revokes(3, texts["listed"])); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	must(o, o.RegisterCertificate, &iot.RegisterCertificateInput{CertificatePem: new(texts["late"])})
	if out, err := o.server.Muster(t.Context(), "doctor"); err != nil {
		t.Errorf("doctor: %v\n%s", err, out)
	}
}

package registry

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
)

func TestCreateKeysAndCertificate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := must[KeysAndCertificate](t)(r.CreateKeysAndCertificate(t.Context(), acct, false))
	wantEqual(t, c.PrivatePEM, "private")
	wantEqual(t, c.PublicPEM, "public")
	// security-provisioning §2.2: INACTIVE is the default at creation.
	wantEqual(t, c.Status, StatusInactive)
	wantEqual(t, c.Mode, ModeDefault)
	wantEqual(t, c.ARN, "arn:aws:iot:us-east-1:000000000000:cert/"+c.ID)
	block, _ := pem.Decode([]byte(c.PEM))
	wantEqual(t, CertificateID(block.Bytes), c.ID)
	wantEqual(t, must[Certificate](t)(r.DescribeCertificate(t.Context(), acct, c.ID)), c.Certificate)
	for _, record := range r.store.records() {
		if strings.Contains(string(record.Value), "private") {
			t.Fatal("the private key is in the store")
		}
	}
	wantEqual(t, r.store.log(), []event.Event{event.CertificateCreated{CertificateID: c.ID, Status: StatusInactive, NotAfter: c.NotAfter}})
}

// request returns a PEM signing request.
func request(t *testing.T, k crypto.Signer) string {
	t.Helper()
	der := must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k))
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// security-provisioning §2.3: RSA from 2048 bits and the NIST curves.
func TestCreateCertificateFromCSR(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p256 := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	p224 := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	big := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	small := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 1024))
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	ok(t, err)
	for name, text := range map[string]string{"P-256": request(t, p256), "RSA 2048": request(t, big)} {
		c, err := r.CreateCertificateFromCSR(t.Context(), acct, text, true)
		if err != nil || c.Status != StatusActive {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	good := request(t, p256)
	block, _ := pem.Decode([]byte(good))
	block.Bytes[len(block.Bytes)-1] ^= 1
	for name, text := range map[string]string{
		"empty":     "",
		"too long":  strings.Repeat("x", 4097),
		"no PEM":    "hello",
		"not a CSR": string(selfSigned(p256, start.AddDate(1, 0, 0))),
		"garbage":   "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
		"signature": string(pem.EncodeToMemory(block)),
		"P-224":     request(t, p224),
		"RSA 1024":  request(t, small),
		"Ed25519":   request(t, edwards),
	} {
		if _, err := r.CreateCertificateFromCSR(t.Context(), acct, text, true); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRegisterCertificateWithoutCA(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	k := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	text := string(selfSigned(k, start.AddDate(1, 0, 0)))
	c := must[Certificate](t)(r.RegisterCertificateWithoutCA(ctx, acct, text, StatusActive))
	wantEqual(t, c.Mode, ModeSNIOnly)
	wantEqual(t, c.Status, StatusActive)
	_, err := r.RegisterCertificateWithoutCA(ctx, acct, text, "")
	wantCode(t, err, fault.ResourceAlreadyExists)
	wantEqual(t, fault.From(err).ResourceARN, c.ARN)
	// An SNI_ONLY certificate may be registered in several accounts.
	must[Certificate](t)(r.RegisterCertificateWithoutCA(ctx, "000000000001", text, ""))
	for name, bad := range map[string]struct {
		pem, status string
		code        fault.Code
	}{
		"no PEM":   {"hello", "", fault.CertificateValidation},
		"garbage":  {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "", fault.CertificateValidation},
		"two":      {text + text, "", fault.CertificateValidation},
		"expired":  {string(selfSigned(k, start.Add(-time.Hour))), "", fault.CertificateValidation},
		"too long": {strings.Repeat("x", 65537), "", fault.InvalidRequest},
		"status":   {text, StatusRevoked, fault.InvalidRequest},
	} {
		if _, err := r.RegisterCertificateWithoutCA(ctx, acct, bad.pem, bad.status); fault.CodeOf(err) != bad.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// security-provisioning §2.2: revocation is final, repeating a state is fine,
// and the pending states cannot be set.
func TestUpdateCertificate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	c := r.addCertificate(t)
	mark := len(r.store.log())
	ok(t, r.UpdateCertificate(ctx, acct, c.ID, StatusActive))
	r.pass(time.Hour)
	ok(t, r.UpdateCertificate(ctx, acct, c.ID, StatusInactive))
	got := must[Certificate](t)(r.DescribeCertificate(ctx, acct, c.ID))
	wantEqual(t, got.Modified, start.Add(time.Hour))
	wantEqual(t, got.CustomerVersion, 2)
	ok(t, r.UpdateCertificate(ctx, acct, c.ID, StatusRevoked))
	wantEqual(t, r.eventsAfter(mark), []event.Event{
		event.CertificateStatusChanged{CertificateID: c.ID, Status: StatusInactive, PreviousStatus: StatusActive},
		event.CertificateStatusChanged{CertificateID: c.ID, Status: StatusRevoked, PreviousStatus: StatusInactive},
	})
	ok(t, r.UpdateCertificate(ctx, acct, c.ID, StatusRevoked))
	wantCode(t, r.UpdateCertificate(ctx, acct, c.ID, StatusActive), fault.CertificateState)
	wantCode(t, r.UpdateCertificate(ctx, acct, c.ID, StatusPendingActivation), fault.InvalidRequest)
	wantCode(t, r.UpdateCertificate(ctx, acct, c.ID, "REGISTER_INACTIVE"), fault.InvalidRequest)
	wantCode(t, r.UpdateCertificate(ctx, acct, strings.Repeat("a", 64), StatusActive), fault.ResourceNotFound)
	wantCode(t, r.UpdateCertificate(ctx, acct, "short", StatusActive), fault.InvalidRequest)
}

func TestDeleteCertificate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	c := r.addCertificate(t)
	r.addThing(t, "T")
	r.addPolicy(t, "P")
	ok(t, r.AttachPolicy(ctx, acct, "P", c.ARN))
	ok(t, r.AttachThingPrincipal(ctx, acct, "T", c.ARN, ""))
	wantCode(t, r.DeleteCertificate(ctx, acct, c.ID, true), fault.CertificateState)
	ok(t, r.UpdateCertificate(ctx, acct, c.ID, StatusInactive))
	wantCode(t, r.DeleteCertificate(ctx, acct, c.ID, true), fault.DeleteConflict)
	ok(t, r.DetachThingPrincipal(ctx, acct, "T", c.ARN))
	wantCode(t, r.DeleteCertificate(ctx, acct, c.ID, false), fault.DeleteConflict)
	mark := len(r.store.log())
	ok(t, r.DeleteCertificate(ctx, acct, c.ID, true))
	wantEqual(t, r.eventsAfter(mark), []event.Event{
		event.PolicyDetached{Policy: "P", Target: c.ARN},
		event.CertificateDeleted{CertificateID: c.ID},
	})
	ok(t, r.DeletePolicy(ctx, acct, "P"))
	ok(t, r.DeleteThing(ctx, acct, "T", nil))
	if left := r.store.left(); len(left) > 0 {
		t.Fatalf("stayed behind: %v", left)
	}
	wantCode(t, r.DeleteCertificate(ctx, acct, c.ID, false), fault.ResourceNotFound)
}

func TestListCertificates(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var oldest []string
	for range 5 {
		oldest = append(oldest, r.addCertificate(t).ID)
		r.pass(time.Second)
	}
	for _, ascending := range []bool{true, false} {
		got := allPages(t, 2, func(p Page) (Listed[Certificate], error) { return r.ListCertificates(t.Context(), acct, ascending, p) })
		wantEqual(t, len(got), 5)
		for i, c := range got {
			want := oldest[i]
			if !ascending {
				want = oldest[4-i]
			}
			wantEqual(t, c.ID, want)
		}
	}
}

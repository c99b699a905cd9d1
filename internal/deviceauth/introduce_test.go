package deviceauth_test

import (
	"crypto/x509/pkix"
	"slices"
	"testing"

	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/fault"
)

// Certificates that are unknown or wait are handed over, by MQTT and by HTTPS,
// and stay refused; others are not.
func TestStrangersAreIntroduced(t *testing.T) {
	t.Parallel()
	w := newWorld(t, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`)
	unknown := newCertificate(t, pkix.Name{CommonName: "pump-9"})
	request := deviceauth.Request{Certificate: unknown, ClientID: "pump-9", RemoteAddr: "192.0.2.7:1000"}
	w.answer = "its issuer is unknown"
	for range 2 {
		if _, err := w.service.Admit(t.Context(), request); fault.CodeOf(err) != fault.Unauthorized {
			t.Fatalf("admit: %v", err)
		}
	}
	if _, err := w.service.Identify(t.Context(), "", unknown); fault.CodeOf(err) != fault.Unauthorized {
		t.Fatalf("identify: %v", err)
	}
	want := deviceauth.Stranger{Account: account, Certificate: unknown, Named: true}
	if len(w.strangers) != 3 || slices.ContainsFunc(w.strangers, func(s deviceauth.Stranger) bool { return s != want }) {
		t.Errorf("handed over %+v", w.strangers)
	}

	// What is found out afterwards is told of the refusal, also by client id.
	hints := func() []string {
		t.Helper()
		found := w.service.ClientRefusals(account, "pump-9").Refusals
		if len(found) != 1 || found[0].Outcome != deviceauth.OutcomeUnauthenticated {
			t.Fatalf("refusals %+v", found)
		}
		return found[0].Hints
	}
	if got := hints(); !slices.Equal(got, []string{"its issuer is unknown"}) {
		t.Errorf("hints %q", got)
	}
	w.service.Tell(account, deviceauth.CertificateID(unknown), "the CA certificate is INACTIVE")
	w.service.Tell(account, "somebody else", "x")
	if got := hints(); !slices.Equal(got, []string{"the CA certificate is INACTIVE"}) {
		t.Errorf("hints %q", got)
	}

	for status, handed := range map[string]bool{"PENDING_ACTIVATION": true, "INACTIVE": false, "REVOKED": false, "PENDING_TRANSFER": false, "ACTIVE": false} {
		w.strangers = nil
		w.certificates[w.id] = deviceauth.Certificate{ID: w.id, ARN: w.arn, Status: status}
		_, _ = w.service.Admit(t.Context(), deviceauth.Request{Certificate: w.certificate, ClientID: "pump-7"})
		if handed != (len(w.strangers) == 1) || handed && !w.strangers[0].Registered {
			t.Errorf("%s: handed over %+v", status, w.strangers)
		}
	}
	w.strangers = nil
	_, _ = w.service.Admit(t.Context(), deviceauth.Request{ClientID: "pump-7"})
	_, _ = w.service.Admit(t.Context(), deviceauth.Request{ClientID: "pump-9", Certificate: unknown, ServerName: "refused"})
	if len(w.strangers) != 0 {
		t.Errorf("without certificate or account: %+v", w.strangers)
	}
}

package deviceauth_test

import (
	"crypto/x509/pkix"
	"fmt"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/deviceauth"
)

// TestRefusedConnectsDoNotFloodTheLog connects again and again, with a
// certificate that nobody knows and with one that has no permission: the log
// has some lines of each.
func TestRefusedConnectsDoNotFloodTheLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, reference)
	stranger := newCertificate(t, pkix.Name{CommonName: "stranger"})
	for i := range 1000 {
		request := deviceauth.Request{Certificate: stranger, ClientID: fmt.Sprint("c", i), RemoteAddr: fmt.Sprint("192.0.2.1:", 1000+i)}
		if _, err := w.service.Admit(t.Context(), request); err == nil {
			t.Fatal("a stranger was admitted")
		}
	}
	if n := strings.Count(w.log.String(), "\n"); n != 10 {
		t.Errorf("%d lines about a stranger, want 10", n)
	}
	other := deviceauth.Request{Certificate: stranger, ClientID: "c", RemoteAddr: "192.0.2.2:1"}
	if _, err := w.service.Admit(t.Context(), other); err == nil || !strings.Contains(w.log.String(), `"suppressed":990`) {
		t.Errorf("%v; another source is not in the log, or not what was left out", err)
	}
	before := strings.Count(w.log.String(), "\n")
	for i := range 1000 {
		request := deviceauth.Request{Certificate: w.certificate, ClientID: fmt.Sprint("x", i), RemoteAddr: "192.0.2.3:1"}
		if _, err := w.service.Admit(t.Context(), request); err == nil {
			t.Fatal("a client id without permission was admitted")
		}
	}
	if n := strings.Count(w.log.String(), "\n") - before; n != 100 {
		t.Errorf("%d lines about one certificate, want 100", n)
	}
}

// A refusal that is not told of costs no look for what is odd about policies:
// what is paid does not grow with what there is to find.
func TestUntoldRefusalsAreCheap(t *testing.T) { //nolint:paralleltest // counts allocations
	cost := func(resource string) float64 {
		document := `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:Publish","Resource":[` +
			strings.TrimSuffix(strings.Repeat(`"`+resource+`",`, 30), ",") + `]}}`
		w := newWorld(t, document)
		refused := func() {
			request := deviceauth.Request{Certificate: w.certificate, ClientID: "x", RemoteAddr: "192.0.2.3:1"}
			if _, err := w.service.Admit(t.Context(), request); err == nil {
				t.Fatal("a client id without permission was admitted")
			}
		}
		for range 200 {
			refused()
		}
		return testing.AllocsPerRun(100, refused)
	}
	fine, odd := cost(scope+"topic/a"), cost("arn:aws:iot:us-east-1:000000000001:topic/a")
	if odd > fine+10 {
		t.Errorf("%v allocations for a refusal by odd policies, %v by others", odd, fine)
	}
}

package onboarding

import (
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/event"
)

// A device that asked the bootstrap address is out of the factory; one that was refused
// there by those who decide is rejected, one that came too early is not.
func TestBootstrapIsSeen(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(small)
	for _, serial := range []string{"S-1", "S-2", "S-3"} {
		r.expect(serial)
	}
	r.tell(
		event.BootstrapAnswered{CertificateID: "birth", Serial: "S-1", Target: "000000000007"},
		event.BootstrapAnswered{CertificateID: "birth", Serial: "nobody"},
		event.BootstrapAnswered{CertificateID: "birth"},
		event.BootstrapRefused{CertificateID: "b2", Serial: "S-2", Code: "ResourceNotFound", Reason: "Nothing is assigned to the certificate"},
		event.BootstrapRefused{CertificateID: "b3", Serial: "S-3", Assignment: "ca-1", Code: "Forbidden", Reason: "not on the list"},
	)
	r.need(r.follow())
	for serial, want := range map[string]State{"S-1": StateShipped, "S-2": StateExpected, "S-3": StateRejected} {
		if got := r.device(serial).State; got != want {
			t.Errorf("%s is %s, want %s", serial, got, want)
		}
	}
	noted := false
	for _, e := range r.device("S-1").History {
		noted = noted || strings.Contains(e.Note, "with certificate birth and was sent to account 000000000007")
	}
	if !noted {
		t.Errorf("%+v", r.device("S-1").History)
	}
}

package ledger

import (
	"fmt"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/store"
)

// Fifty devices that nobody made try to join, again and again, among one that was
// announced: they are raised once each, and counted.
func TestRefusedDevicesAreRaised(t *testing.T) {
	t.Parallel()
	r := claimed(t)
	r.happens(kim, event.OnboardingChanged{Device: "SN-1", Plan: "line", PlanVersion: 1, State: "EXPECTED"})
	refuse := func(client, code string) {
		r.happens(holder("claim"), event.ProvisioningRefused{
			Method: event.ProvisioningClaim, Template: "Pumps", CertificateID: "c-" + client, ClaimID: "claim", ClientID: client, Code: code, Reason: "entry 17 of the list: owner ACME",
		})
	}
	for range 3 {
		for n := range 50 {
			refuse(fmt.Sprint("rogue-", n), "Forbidden")
		}
		refuse("SN-1", "Forbidden")
	}
	refuse("clumsy", "InvalidParameters")
	if got := r.raised(); len(got) != 51 || !got[0].Attempt || got[0].Device != "rogue-0" || got[0].Reason != "Forbidden by template Pumps" {
		t.Errorf("raised %d: %+v", len(got), got[:1])
	}
	var all []Rogue
	for after := ""; ; {
		page, next, counts, err := r.Rogues(t.Context(), acct, RogueAttempt, after, 20)
		r.need(err)
		wantEqual(t, counts, RogueCounts{Attempts: 51, Refusals: 153})
		all = append(all, page...)
		if after = next; next == "" {
			break
		}
	}
	if len(all) != 51 || all[0].Device != "SN-1" || !all[0].Known || all[0].Count != 3 || all[1].Known || all[1].Device != "rogue-49" {
		t.Errorf("listed %d, the newest are %+v", len(all), all[:2])
	}
	// Who pretends to be an announced device shows in that one's ledger, once.
	wantEqual(t, r.whats("SN-1"), []What{Expected, Refused})
	if _, err := r.Device(t.Context(), acct, "rogue-1"); fault.CodeOf(err) != fault.ResourceNotFound {
		t.Errorf("a refused stranger has a ledger: %v", err)
	}
	r.sound()
}

// However many come, only so many are kept; all are counted.
func TestRefusalsAreBounded(t *testing.T) {
	t.Parallel()
	r := claimed(t)
	const many = 3*maxAttempts + 17
	var events []event.Event
	for n := range many {
		events = append(events, event.ProvisioningRefused{Method: event.ProvisioningClaim, Template: "P", ClaimID: "claim", ClientID: fmt.Sprintf("r%05d", n), Code: "Forbidden"})
		if len(events) == 250 || n == many-1 {
			r.happens(holder("claim"), events...)
			events = nil
		}
	}
	kept := 0
	r.need(r.store.Scan(t.Context(), store.Under(kindAttempt, string(acct)), func(store.Record) error { kept++; return nil }))
	if kept > maxAttempts {
		t.Errorf("%d attempts are kept, the most is %d", kept, maxAttempts)
	}
	page, _, counts, err := r.Rogues(t.Context(), acct, RogueAttempt, "", 5)
	r.need(err)
	wantEqual(t, counts, RogueCounts{Attempts: many, Refusals: many})
	for _, one := range page {
		if one.Device < fmt.Sprintf("r%05d", many-267) {
			t.Errorf("%s is listed among the newest", one.Device)
		}
	}
}

package quarantine_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/quarantine"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// book takes orders.
type book struct {
	orders []registry.QuarantineOrder
	asked  int
	err    error
}

func (b *book) QuarantineBatch(_ context.Context, orders []registry.QuarantineOrder) (store.Batch, error) {
	b.asked++
	b.orders = append(b.orders, orders...)
	return store.Batch{Writes: make([]store.Write, len(orders))}, b.err
}

func TestFindingsBecomeOrders(t *testing.T) {
	t.Parallel()
	b := &book{}
	s := quarantine.New(b)
	failed := event.OnboardingCriteriaFailed{
		Device: "7", Plan: "pumps", PlanVersion: 2, Thing: "pump-7", Stage: "activate", Predicate: "connectivity.connected:true", Within: time.Hour,
	}
	unregistered := failed
	unregistered.Thing = ""
	batch, err := s.Apply(t.Context(), []event.Envelope{
		{Account: "000000000001", Event: event.ThingCreated{}},
		{Account: "000000000001", Event: failed},
		{Account: "000000000002", Event: failed},
		{Account: "000000000001", Event: unregistered},
	})
	if err != nil || len(batch.Writes) != 2 || b.asked != 1 {
		t.Fatalf("got %d writes of %d questions, %v", len(batch.Writes), b.asked, err)
	}
	for i, account := range []string{"000000000001", "000000000002"} {
		o := b.orders[i]
		if string(o.Account) != account || o.Thing != "pump-7" || o.By != "onboarding" {
			t.Errorf("ordered %+v", o)
		}
		for _, part := range []string{"stage activate", "plan pumps version 2", "1h0m0s", "connectivity.connected:true"} {
			if !strings.Contains(o.Reason, part) {
				t.Errorf("the reason %q lacks %q", o.Reason, part)
			}
		}
	}
	if batch, err := s.Apply(t.Context(), []event.Envelope{{Event: event.ThingCreated{}}}); err != nil || len(batch.Writes) != 0 || b.asked != 1 {
		t.Errorf("nothing was found and the registry asked: %v, %v", batch, err)
	}
	b.err = errors.New("away")
	if _, err := s.Apply(t.Context(), []event.Envelope{{Event: failed}}); !errors.Is(err, b.err) {
		t.Errorf("got %v", err)
	}
}

// Who comes second with an entry names any thing that he likes: it is not put into
// quarantine for that.
func TestSecondUseNamesAnotherThing(t *testing.T) {
	t.Parallel()
	b := &book{}
	_, err := quarantine.New(b).Apply(t.Context(), []event.Envelope{
		{Account: "000000000001", Event: event.DuplicateSerial{Thing: "somebody-else", CertificateID: "2", OtherThing: "pump-1", OtherCertificateID: "1"}},
		{Account: "000000000001", Event: event.DuplicateSerial{Thing: "pump-3", CertificateID: "4", OtherCertificateID: "3"}},
	})
	if err != nil || len(b.orders) != 1 || b.orders[0].Thing != "pump-1" || b.orders[0].By != "allow lists" {
		t.Errorf("ordered %+v, %v", b.orders, err)
	}
}

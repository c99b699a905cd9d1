package claimwatch

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

const (
	account = fleet.Account("000000000042")
	claim   = "c1"
)

var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

// rig is a Service that is told what happened.
type rig struct {
	*Service

	t     *testing.T
	store store.Store
	now   time.Time
}

func newRig(t *testing.T) *rig {
	t.Helper()
	engine, err := embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &rig{t: t, store: engine, now: noon}
	r.Service = New(Options{Store: engine, Now: func() time.Time { return r.now }})
	return r
}

// happen applies events that come from an address, commits what follows from them and
// returns the findings that were raised.
func (r *rig) happen(address string, events ...event.Event) []event.ClaimMisused {
	r.t.Helper()
	var all []event.Envelope
	for _, e := range events {
		all = append(all, event.Envelope{Account: account, At: r.now, Actor: fleet.Actor{SourceAddress: address}, Event: e})
	}
	b, err := r.Apply(r.t.Context(), all)
	if err != nil {
		r.t.Fatal(err)
	}
	var raised []event.ClaimMisused
	for _, env := range b.Events {
		raised = append(raised, env.Event.(event.ClaimMisused))
	}
	if _, err := r.store.Commit(r.t.Context(), b); err != nil {
		r.t.Fatal(err)
	}
	return raised
}

func (r *rig) use(id string) Use {
	r.t.Helper()
	u, err := r.Use(r.t.Context(), account, id)
	if err != nil {
		r.t.Fatal(err)
	}
	return u
}

func joined(id string) event.DeviceProvisioned {
	return event.DeviceProvisioned{Method: event.ProvisioningClaim, Template: "pumps", ClaimID: id, CertificateID: "d1"}
}

func refused(id string, how event.ClaimMisuse) event.ProvisioningRefused {
	return event.ProvisioningRefused{
		Method: event.ProvisioningClaim, Template: "pumps", ClaimID: id, CertificateID: "d2", Code: "Forbidden", Reason: "no", Misuse: how,
	}
}

// TestASecondFactory: the network of the first device is the claim's; another one is
// raised once an hour until somebody settles it, and is the claim's from then on.
func TestASecondFactory(t *testing.T) {
	r := newRig(t)
	if raised := r.happen("192.0.2.7", joined(claim), joined(claim), refused(claim, "")); raised != nil {
		t.Fatalf("raised %+v", raised)
	}
	other := func() event.ClaimMisused {
		return event.ClaimMisused{
			ClaimID: claim, Kind: event.ClaimOtherNetwork, Network: "198.51.100.0/24", Template: "pumps", CertificateID: "d1",
			Reason: "the claim was not used from this network before",
		}
	}
	if diff := cmp.Diff([]event.ClaimMisused{other()}, r.happen("198.51.100.9", joined(claim), joined(claim))); diff != "" {
		t.Error(diff)
	}
	r.now = r.now.Add(59 * time.Minute)
	if raised := r.happen("198.51.100.9", joined(claim)); raised != nil {
		t.Errorf("raised again after 59 minutes: %+v", raised)
	}
	r.now = r.now.Add(time.Minute)
	if diff := cmp.Diff([]event.ClaimMisused{other()}, r.happen("198.51.100.77:4711", joined(claim))); diff != "" {
		t.Error(diff)
	}
	u := r.use(claim)
	want := Use{
		ClaimID: claim, First: noon, Last: r.now, Provisioned: 6, Refused: 1,
		Networks: []Network{
			{Network: "192.0.2.0/24", First: noon, Last: noon, Provisioned: 2, Refused: 1},
			{Network: "198.51.100.0/24", First: noon, Last: r.now, Provisioned: 4},
		},
		Findings: []Finding{{
			Kind: event.ClaimOtherNetwork, Network: "198.51.100.0/24", First: noon, Last: r.now, Times: 4, Template: "pumps", CertificateID: "d1", Reason: other().Reason,
		}},
	}
	if diff := cmp.Diff(want, u); diff != "" {
		t.Error(diff)
	}

	ctx := fleet.WithActor(t.Context(), fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalUser, ID: "kim"}})
	if _, err := r.Settle(ctx, account, claim, ""); fault.CodeOf(err) != fault.InvalidRequest {
		t.Errorf("settled without a note: %v", err)
	}
	after, err := r.Settle(ctx, account, claim, "second plant")
	if err != nil || after.Findings[0].SettledBy != "kim" || after.Findings[0].Settled.IsZero() || after.Findings[0].Note != "second plant" {
		t.Fatalf("%+v, %v", after, err)
	}
	if _, err := r.Settle(ctx, account, claim, "again"); fault.CodeOf(err) != fault.Conflict {
		t.Errorf("settled twice: %v", err)
	}
	if open, _, err := r.Uses(t.Context(), account, true, "", 0); err != nil || len(open) != 0 {
		t.Errorf("misused claims: %+v, %v", open, err)
	}
	if raised := r.happen("198.51.100.9", joined(claim)); raised != nil {
		t.Errorf("raised a settled network: %+v", raised)
	}
	if raised := r.happen("2001:db8::1", joined(claim)); len(raised) != 1 || raised[0].Network != "2001:db8::/48" {
		t.Errorf("a third network: %+v", raised)
	}
}

// TestKinds: what a refusal says of misuse is found by its kind; a refusal that says
// nothing of it, a trusted user's claim and a device without a claim are none.
func TestKinds(t *testing.T) {
	r := newRig(t)
	for _, kind := range []event.ClaimMisuse{
		event.ClaimOtherNetwork, event.ClaimOtherTemplate, event.ClaimAtOtherTime, event.ClaimOverQuota, event.ClaimOtherSerial,
	} {
		if raised := r.happen("", refused(claim, kind)); len(raised) != 1 || raised[0].Kind != kind || raised[0].Reason != "no" {
			t.Errorf("%s: %+v", kind, raised)
		}
		if raised := r.happen("", refused(claim, kind)); raised != nil {
			t.Errorf("%s raised twice", kind)
		}
	}
	trusted := joined("trusted")
	trusted.Method = event.ProvisioningTrustedUser
	r.happen("192.0.2.1", trusted, joined(""), event.ThingDeleted{Thing: "x"})
	all, next, err := r.Uses(t.Context(), account, false, "", 0)
	if err != nil || next != "" || len(all) != 1 || len(all[0].Findings) != 5 || all[0].Refused != 10 {
		t.Errorf("%+v, %q, %v", all, next, err)
	}
	r.happen("", event.CertificateDeleted{CertificateID: claim}, event.CertificateDeleted{CertificateID: "never seen"})
	if _, err := r.Use(t.Context(), account, claim); fault.CodeOf(err) != fault.ResourceNotFound {
		t.Errorf("the use outlived the claim: %v", err)
	}
	if open, _, err := r.Uses(t.Context(), account, true, "", 0); err != nil || len(open) != 0 {
		t.Errorf("its findings outlived the claim: %+v, %v", open, err)
	}
}

// TestBounds: a claim that the whole world uses stays a record of a bounded size.
func TestBounds(t *testing.T) {
	r := newRig(t)
	raised := 0
	for i := range 300 {
		raised += len(r.happen(fmt.Sprintf("10.%d.%d.1", i/256, i%256), joined(claim)))
	}
	u := r.use(claim)
	if len(u.Networks) != maxNetworks || u.Forgotten != 300-maxNetworks || len(u.Findings) != maxFindings || u.Provisioned != 300 {
		t.Errorf("%d networks, %d forgotten, %d findings, %d devices", len(u.Networks), u.Forgotten, len(u.Findings), u.Provisioned)
	}
	if raised != maxFindings {
		t.Errorf("raised %d times, want %d", raised, maxFindings)
	}
	if r.happen("10.0.0.1", refused(claim, event.ClaimOverQuota)) == nil {
		t.Error("no room for another kind")
	}
}

// TestPages: every claim is on one page.
func TestPages(t *testing.T) {
	r := newRig(t)
	for i := range 7 {
		r.happen("192.0.2.1", joined(fmt.Sprintf("c%d", i)))
	}
	var seen []string
	for after := ""; ; {
		page, next, err := r.Uses(context.WithoutCancel(t.Context()), account, false, after, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range page {
			seen = append(seen, u.ClaimID)
		}
		if after = next; after == "" {
			break
		}
	}
	if diff := cmp.Diff([]string{"c0", "c1", "c2", "c3", "c4", "c5", "c6"}, seen); diff != "" {
		t.Error(diff)
	}
}

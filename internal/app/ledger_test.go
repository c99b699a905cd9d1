package app

import (
	"crypto/x509"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/adminapi"
	"github.com/muster-iot/muster/internal/approval"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/ledger"
	"github.com/muster-iot/muster/internal/onboarding"
	"github.com/muster-iot/muster/internal/provisioning"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// life is the ledger of a device.
func (s *site) life(device string) (ledger.Device, []ledger.What) {
	s.t.Helper()
	d, err := s.ledger.Device(s.t.Context(), s.account, device)
	s.need(err)
	entries, _, err := s.ledger.Entries(s.t.Context(), s.account, d.Key, 0, ledger.MaxPage)
	s.need(err)
	var whats []ledger.What
	for _, e := range entries {
		whats = append(whats, e.What)
	}
	return d, whats
}

// Mission B05, M21: the life of a device from its announcement over a claim and an
// approval to its activation and its end, whole and with its evidence; a restart loses
// nothing; the audit trail and doctor know the ledger; whoever changes it is found.
func TestLedgerOfALife(t *testing.T) {
	t.Parallel()
	set := settings(t)
	s := startSite(t, set)
	ctx := t.Context()
	ada := fleet.WithActor(ctx, fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalUser, ID: "ada", ARN: "arn:aws:iam::000000000000:user/ada"}, RequestID: "req-1"})
	_, err := s.provisioning.CreateTemplate(ada, s.account, provisioning.CreateTemplateCommand{
		Name: "join", Body: renewalTemplate, RoleARN: "arn:aws:iam::000000000000:role/p", Enabled: true,
	})
	s.need(err)
	_, err = s.approvals.PutAuthority(ada, s.account, approval.Authority{ID: "leads", Kind: approval.UserGroup, Group: func() string {
		_, err := s.accounts.CreateGroup(ada, s.account, "leads")
		s.need(err)
		return "leads"
	}()})
	s.need(err)
	_, err = s.approvals.PutBinding(ada, s.account, approval.Binding{Template: "join", Rule: approval.AllOf, Authorities: []string{"leads"}, AutoApproveIf: "*"})
	s.need(err)
	_, err = s.onboarding.Create(ada, s.account, pumpPlan)
	s.need(err)
	_, err = s.onboarding.Publish(ada, s.account, "pumps")
	s.need(err)
	_, err = s.onboarding.Expect(ada, s.account, onboarding.ExpectCommand{Device: "pump-7", Plan: "pumps"})
	s.need(err)
	claim := s.badge(&x509.Certificate{})
	s.policy("all", mayAll, claim.arn)
	own := s.asking(claim, "pump-7").renew("pump-7")
	s.connect(own, "pump-7")
	s.eventually("its activation", func() bool { d, _ := s.life("pump-7"); return !d.Activated.IsZero() })
	d, whats := s.life("pump-7")
	if d.Key != "pump-7" || d.Thing != "pump-7" || d.Certificate != own.id || d.Rogue || d.Basis != ledger.ByExpectation {
		t.Errorf("it is %+v", d)
	}
	said := strings.Join(d.Evidence, "\n")
	for _, want := range []string{"EXPECTED pump-7: announced by arn:aws:iam::000000000000:user/ada", "RULE template join: its rule lets the device in unasked", "CLAIM " + claim.id} {
		if !strings.Contains(said, want) {
			t.Errorf("its evidence lacks %q:\n%s", want, said)
		}
	}
	for _, want := range []ledger.What{ledger.Expected, ledger.Seen, ledger.CertificateIssued, ledger.CertificateActivated, ledger.Registered, ledger.Planned, ledger.Activated} {
		if !slices.Contains(whats, want) {
			t.Errorf("its ledger lacks %s: %v", want, whats)
		}
	}
	s.need(s.ledger.Anchor(ctx))
	s.need(s.Stop(ctx))

	s = startSite(t, set)
	if _, again := s.life("pump-7"); !slices.Equal(again[:len(whats)], whats) {
		t.Errorf("after a restart it is %v, before it was %v", again, whats)
	}
	if heads, err := s.ledgerWitnesses(ctx, s.account); err != nil || len(heads) == 0 || heads[len(heads)-1].Entries == 0 {
		t.Errorf("the audit trail knows %+v, %v", heads, err)
	}
	s.need(s.ledger.Anchor(ctx))
	if found := s.doctorOf("ledger"); len(found) > 0 {
		t.Errorf("doctor finds %+v", found)
	}
	_, err = s.newDecommission().Decommission(ada, s.account, registry.DecommissionCommand{Name: "pump-7", Reason: "worn out"})
	s.need(err)
	s.eventually("its end", func() bool { d, _ := s.life("pump-7"); return !d.Ended.IsZero() })

	// Somebody with the database alone changes who announced it.
	key := store.K("ledger-entry", string(s.account), "pump-7", "0000000000000001")
	found, err := s.store.Get(ctx, key)
	s.need(err)
	var e map[string]any
	s.need(json.Unmarshal(found.Value, &e))
	changed := strings.Replace(string(found.Value), "user/ada", "user/eve", 1)
	_, err = s.store.Commit(ctx, store.Batch{Writes: []store.Write{{Key: key, Value: []byte(changed)}}})
	s.need(err)
	if found := s.doctorOf("ledger"); len(found) == 0 || !strings.Contains(found[0].Detail, "changed:") {
		t.Errorf("doctor finds %+v", found)
	}
}

// doctorOf is what doctor finds by one check.
func (s *site) doctorOf(check string) []adminapi.Finding {
	s.t.Helper()
	report, err := s.Doctor(s.t.Context())
	s.need(err)
	return slices.DeleteFunc(report.Findings, func(f adminapi.Finding) bool { return f.Check != check })
}

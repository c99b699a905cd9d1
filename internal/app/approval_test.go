package app

import (
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/approval"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provisioning"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/registry"
)

// A device that comes just in time waits for people, and is told so; when they have
// said yes it comes in at its next attempt.
func TestApprovalOfNewcomers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	_, err := s.provisioning.CreateTemplate(ctx, s.account, provisioning.CreateTemplateCommand{
		Name: "newcomers", Type: provtemplate.JITP, Body: jitTemplate, Enabled: true, RoleARN: "arn:aws:iam::000000000000:role/p",
	})
	s.need(err)
	_, err = s.accounts.CreateGroup(ctx, s.account, "leads")
	s.need(err)
	lee, err := s.accounts.CreateUser(ctx, s.account, "lee")
	s.need(err)
	s.need(s.accounts.AddUserToGroup(ctx, s.account, "leads", "lee"))
	_, err = s.approvals.PutAuthority(ctx, s.account, approval.Authority{ID: "leads", Kind: approval.UserGroup, Group: "leads"})
	s.need(err)
	_, err = s.approvals.PutBinding(ctx, s.account, approval.Binding{Template: "newcomers", Rule: approval.AllOf, Authorities: []string{"leads"}})
	s.need(err)
	a := s.authority(registry.ModeDefault)
	yes := true
	s.need(s.registry.UpdateCACertificate(ctx, s.account, registry.UpdateCACommand{
		ID: a.id, AutoRegistration: &yes, RegistrationConfig: &registry.RegistrationConfig{TemplateName: "newcomers"},
	}))
	b := a.newcomer("pump-1", 100, time.Hour)
	tries := func() bool {
		_, err := s.reach(listenerMQTT, "localhost", "", b, "pump-1")
		return s.may(err)
	}
	if tries() {
		t.Error("let in at once")
	}
	var waiting []approval.Request
	s.eventually("a request", func() bool {
		waiting, _, err = s.approvals.Requests(ctx, s.account, approval.Pending, "newcomers", "", 0)
		s.need(err)
		return len(waiting) == 1
	})
	s.eventually("what the operator is told", func() bool {
		return strings.Contains(s.told(s.account, b.id), "waits for approval: request "+waiting[0].ID)
	})
	if tries() || waiting[0].Thing != "pump-1" || waiting[0].Method != string(event.ProvisioningJITP) {
		t.Errorf("let in, or the request is %+v", waiting[0])
	}
	as := fleet.WithActor(ctx, fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalUser, ID: "lee", ARN: lee.ARN}})
	after, err := s.approvals.Vote(as, s.account, approval.VoteCommand{ID: waiting[0].ID, Verdict: approval.Yes})
	s.need(err)
	if after.State != approval.Approved || s.status(s.account, b.id) != registry.StatusPendingActivation {
		t.Errorf("after the vote: %+v", after)
	}
	s.eventually("the device comes in", tries)
	used, err := s.approvals.Request(ctx, s.account, waiting[0].ID)
	if err != nil || used.State != approval.Used {
		t.Errorf("request %+v, %v", used, err)
	}
}

// An authority without a template can be bound as well: its certificates are registered,
// for somebody else to activate, only when the gate lets them in.
func TestApprovalOfAnAuthoritysNewcomers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx := t.Context()
	_, err := s.accounts.CreateGroup(ctx, s.account, "leads")
	s.need(err)
	lee, err := s.accounts.CreateUser(ctx, s.account, "lee")
	s.need(err)
	s.need(s.accounts.AddUserToGroup(ctx, s.account, "leads", "lee"))
	_, err = s.approvals.PutAuthority(ctx, s.account, approval.Authority{ID: "leads", Kind: approval.UserGroup, Group: "leads"})
	s.need(err)
	a := s.authority(registry.ModeDefault)
	yes := true
	s.need(s.registry.UpdateCACertificate(ctx, s.account, registry.UpdateCACommand{ID: a.id, AutoRegistration: &yes}))
	_, err = s.approvals.PutBinding(ctx, s.account, approval.Binding{Template: approval.CATarget + strings.Repeat("0", 64), Rule: approval.AllOf, Authorities: []string{"leads"}})
	if fault.CodeOf(err) != fault.ResourceNotFound {
		t.Errorf("an authority that does not exist is bound: %v", err)
	}
	_, err = s.approvals.PutBinding(ctx, s.account, approval.Binding{Template: approval.CATarget + a.id, Rule: approval.AllOf, Authorities: []string{"leads"}})
	s.need(err)
	vote := func(b badge, verdict approval.Verdict) approval.Request {
		if _, err := s.reach(listenerMQTT, "localhost", "", b, "pump"); s.may(err) {
			t.Error("let in")
		}
		var waiting []approval.Request
		s.eventually("a request", func() bool {
			waiting, _, err = s.approvals.Requests(ctx, s.account, approval.Pending, "", "", 0)
			s.need(err)
			return len(waiting) == 1
		})
		if _, err := s.registry.Certificate(ctx, s.account, b.id); fault.CodeOf(err) != fault.ResourceNotFound {
			t.Errorf("registered while it waits: %v", err)
		}
		as := fleet.WithActor(ctx, fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalUser, ID: "lee", ARN: lee.ARN}})
		after, err := s.approvals.Vote(as, s.account, approval.VoteCommand{ID: waiting[0].ID, Verdict: verdict, Reason: "seen"})
		s.need(err)
		return after
	}
	good := a.newcomer("pump-1", 100, time.Hour)
	request := vote(good, approval.Yes)
	s.eventually("it is registered", func() bool {
		_, _ = s.reach(listenerMQTT, "localhost", "", good, "pump") // it is not active yet
		found, err := s.registry.Certificate(ctx, s.account, good.id)
		return err == nil && found.Status == registry.StatusPendingActivation
	})
	if used, err := s.approvals.Request(ctx, s.account, request.ID); err != nil || used.State != approval.Used {
		t.Errorf("request %+v, %v", used, err)
	}
	bad := a.newcomer("pump-2", 101, time.Hour)
	vote(bad, approval.No)
	for range 5 {
		_, _ = s.reach(listenerMQTT, "localhost", "", bad, "pump")
	}
	s.eventually("what the operator is told", func() bool { return strings.Contains(s.told(s.account, bad.id), "was denied") })
	if _, err := s.registry.Certificate(ctx, s.account, bad.id); fault.CodeOf(err) != fault.ResourceNotFound {
		t.Errorf("registered although it was denied: %v", err)
	}
}

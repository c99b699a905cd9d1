package app

import (
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/approval"
	"github.com/muster-iot/muster/internal/event"
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

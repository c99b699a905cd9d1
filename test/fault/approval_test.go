package fault_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/apiclient"
)

// pending demands that a device is told to wait, and returns the request.
func (d *joiner) pending(ctx context.Context) string {
	d.r.t.Helper()
	err := d.join(ctx)
	refused, ok := errors.AsType[*joinError](err)
	if !ok || refused.ErrorCode != "ApprovalPending" || !strings.HasPrefix(refused.ErrorMessage, "request apr_") {
		d.r.t.Fatalf("%s: %v, want ApprovalPending", d.serial, err)
	}
	return strings.TrimPrefix(refused.ErrorMessage, "request ")
}

// muster runs a command that has to succeed.
func (r *joinRig) muster(args ...string) string {
	r.t.Helper()
	out, err := r.server.Muster(r.t.Context(), args...)
	r.need(err)
	return out
}

// approver makes a user of a group, who may approve, and a client with its key.
func (r *joinRig) approver(name, group string) *apiclient.Client {
	r.t.Helper()
	api := r.user(name, "MusterProvisioningApprover")
	r.muster("user-group", "add", group, name)
	return api
}

// A device waits for two people; the server dies while it waits, between their votes
// and after them. Outcome: it joins with the token that it was given at the start, and
// one that is denied stays out.
func TestApprovalsSurviveKills(t *testing.T) {
	r := newJoinRig(t, "--provisioning.require-binding")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	d, other := r.joiner("pump-1"), r.joiner("pump-2")
	if err := d.join(ctx); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
		t.Fatalf("without a binding: %v", err)
	}
	for _, group := range []string{"leads", "security"} {
		r.muster("user-group", "create", group)
		r.muster("approvals", "authority", "of-"+group, "--group", group)
	}
	lead, guard := r.approver("lee", "leads"), r.approver("sue", "security")
	r.muster("approvals", "bind", "pumps", "--authority", "of-leads", "--authority", "of-security")
	id, denied := d.pending(ctx), other.pending(ctx)
	token := d.token
	restart := func() {
		r.server.Kill()
		r.server.Start()
	}
	restart()
	if again := d.pending(ctx); again != id {
		t.Errorf("after the kill it waits for %s, before for %s", again, id)
	}
	if out := r.muster("approvals", "list"); strings.Count(out, "PENDING") != 2 || !strings.Contains(out, "pump-1") {
		t.Errorf("waiting:\n%s", out)
	}
	_, err := lead.Vote(ctx, id, "approve", "", "on delivery note 4711")
	r.need(err)
	restart()
	d.pending(ctx)
	if _, err := lead.Vote(ctx, id, "approve", "of-security", ""); !apiclient.Is(err, "Forbidden") {
		t.Errorf("a vote for others: %v", err)
	}
	_, err = guard.Vote(ctx, denied, "deny", "", "nobody knows it")
	r.need(err)
	after, err := guard.Vote(ctx, id, "approve", "", "")
	r.need(err)
	if after.State != "APPROVED" || len(after.Decisions) != 2 {
		t.Errorf("after both: %+v", after)
	}
	restart()
	r.need(d.join(ctx))
	if !d.told || d.token != token || !d.whole(ctx) {
		t.Errorf("the device is %+v", d)
	}
	r.need(d.online(ctx))
	if err := other.join(ctx); err == nil || !strings.Contains(err.Error(), "was denied") {
		t.Errorf("a denied device: %v", err)
	}
	if out := r.muster("approvals", "show", id); !strings.Contains(out, "USED") || !strings.Contains(out, "on delivery note 4711") {
		t.Errorf("show:\n%s", out)
	}
	if out := r.muster("audit", "search", "--name", "ApproveProvisioning", "-o", "json"); !strings.Contains(out, "user/sue") {
		t.Errorf("the audit trail has\n%s", out)
	}
}

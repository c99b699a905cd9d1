package adminapi

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/approval"
	"github.com/muster-iot/muster/internal/fault"
)

// TestBindingBody reads bindings of requests and shows them again.
func TestBindingBody(t *testing.T) {
	t.Parallel()
	in := bindingBody{
		Rule: approval.KOfN, K: 2, Authorities: []string{"a", "b", "c"}, ClaimCertificateIDs: []string{"c1"}, SourceNetworks: []string{"10.0.0.0/8"},
		AutoApproveIf: "thing:x", DailyQuota: 5, WindowStart: "22:30", WindowEnd: "06:05", ApprovalWindow: "90m",
	}
	got, err := in.wish("pumps")
	if err != nil {
		t.Fatal(err)
	}
	want := approval.Binding{
		Template: "pumps", Rule: approval.KOfN, K: 2, Authorities: []string{"a", "b", "c"}, Claims: []string{"c1"}, Networks: []string{"10.0.0.0/8"},
		AutoApproveIf: "thing:x", DailyQuota: 5, From: 22*60 + 30, Until: 6*60 + 5, Patience: 90 * time.Minute,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got.Created, got.Modified = time.Unix(0, 0), time.Unix(1, 0)
	shown := bindingOf(&got)
	in.TemplateName, in.ApprovalWindow, in.CreatedAt, in.ChangedAt = "pumps", "1h30m0s", "1970-01-01T00:00:00.000Z", "1970-01-01T00:00:01.000Z"
	if diff := cmp.Diff(in, shown); diff != "" {
		t.Error(diff)
	}
	for field, body := range map[string]bindingBody{
		"templateName": {TemplateName: "other"}, "windowStart": {WindowStart: "25:00", WindowEnd: "06:00"}, "windowEnd": {WindowStart: "05:00", WindowEnd: "6"},
		"come together": {WindowStart: "05:00"}, "approvalWindow": {ApprovalWindow: "soon"},
	} {
		if _, err := body.wish("pumps"); fault.CodeOf(err) != fault.InvalidRequest || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

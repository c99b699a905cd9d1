package onboarding

import (
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
)

var update = flag.Bool("update", false, "write docs/examples/plan.md and onboarding.md instead of comparing") //nolint:gochecknoglobals // as flags are

// The documents of the example plan and of a device that follows it are in docs.
func TestDocuments(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	source, err := os.ReadFile("../../docs/examples/plan.yaml")
	r.need(err)
	r.publish(string(source))
	const serial = "SN-1042"
	day := func(n int) { r.clock.Store(start.Add(time.Duration(n) * 24 * time.Hour).UnixNano()) }
	_, err = r.Expect(as(t, "acme"), acct, ExpectCommand{Plan: "pumps-line-a", Metadata: map[string]string{
		"uniqueId": serial, "manufacturer": "Acme", "modelNumber": "P-100", "manufacturingDate": "2026-11-20",
	}})
	r.need(err)
	day(3)
	r.need(r.complete(serial, "burn-in", "burn-in/SN-1042.pdf"))
	r.need(r.complete(serial, "birth-certificate", "signing sheet 88 | page 2"))
	day(5)
	r.need(r.complete(serial, "hand-over", "CMR-7781"))
	day(12)
	r.happens(event.ProvisioningRefused{Method: event.ProvisioningClaim, ClaimID: claim, ClientID: serial, Code: "AccessDenied", Reason: "the template is not enabled"})
	day(13)
	e := joins(serial, first)
	e.Template, e.Thing, e.TypeName = "pumps", "pump-1042", "pump"
	e.Attributes = map[string]string{"serialNumber": serial, "manufacturer": "Acme", "model": "P-100", "manufacturingDate": "2026-11-20"}
	r.happens(e, connects(serial, first))
	r.holds["connectivity.connected:true"] = true
	r.pass(time.Minute)
	r.pass(time.Hour)
	day(17)
	v, err := r.Describe(t.Context(), acct, "pumps-line-a", 0)
	r.need(err)
	d := r.device(serial)
	if !d.Stuck || d.State != StateActive {
		t.Errorf("the device is %+v", d)
	}
	for path, got := range map[string]string{"../../docs/examples/plan.md": v.Markdown(), "../../docs/examples/onboarding.md": d.Markdown(&v, r.now())} {
		if *update {
			r.need(os.WriteFile(path, []byte(got), 0o600))
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil || string(want) != got {
			t.Errorf("%s is out of date (%v): run go test ./internal/onboarding -run TestDocuments -update\n%s", path, err, cmp.Diff(string(want), got))
		}
	}
}

// What people and devices write stays within its cell.
func TestDocumentsKeepTextInItsPlace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(strings.NewReplacer("instruction: Test it.", `instruction: "# Heading\n\n<script>x</script>"`, "title: Label", `title: "a | b <b> [x](y)"`).Replace(small))
	r.expect("S-1")
	_, err := r.Complete(t.Context(), acct, CompleteCommand{Device: "S-1", Step: "test", Evidence: "x | y\n# z", Note: "<img>"})
	r.need(err)
	v, err := r.Describe(t.Context(), acct, "pumps", 0)
	r.need(err)
	d := r.device("S-1")
	text := d.Markdown(&v, r.now())
	for _, bad := range []string{"<script>", "<img>", "<b>", "\n# z", "x | y", "\n# Heading"} {
		if strings.Contains(text, bad) {
			t.Errorf("the document has %q", bad)
		}
	}
	for _, good := range []string{`x \| y # z`, "> # Heading", "&lt;img&gt;", `a \| b &lt;b&gt; \[x\](y)`} {
		if !strings.Contains(text, good) {
			t.Errorf("the document lacks %q", good)
		}
	}
}

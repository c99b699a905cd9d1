package cli

import (
	"strings"
	"testing"
)

// TestBulkWatchInterrupted: an interrupt ends the watching, and says that the
// task goes on.
func TestBulkWatchInterrupted(t *testing.T) {
	t.Parallel()
	r := rest(t, map[string]string{"GET /thing-registration-tasks/t1": `{"taskId":"t1","status":"InProgress","percentageProgress":40}`})
	out, errs, end := r.background(t, "bulk", "watch", "t1")
	poll(t, "progress", func() bool { return strings.Contains(errs.String(), "percent 40 of 100") })
	if code := end(); code != 0 || out.String() != "" || !strings.Contains(errs.String(), "The task goes on: muster bulk watch t1") {
		t.Errorf("ended with %d, %q, %q", code, out.String(), errs.String())
	}
}

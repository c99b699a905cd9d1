package app

import (
	"slices"
	"testing"

	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/store"
)

// The doctor finds a row of the drift report that is gone and a history that says
// something else than its shadow; it heals the first.
func TestDoctorLooksAtShadows(t *testing.T) {
	t.Parallel()
	a := newApp(t, settings(t))
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, thing := range []string{"pump-1", "pump-2"} {
		_, err := a.shadows.Update(t.Context(), shadow.UpdateCommand{Account: a.settings.AccountID, Thing: thing, Body: []byte(`{"state":{"desired":{"led":"on"}}}`)})
		if err != nil {
			t.Fatal(err)
		}
	}
	head, err := a.store.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := follow(t.Context(), a.followers.versions, head); err != nil {
		t.Fatal(err)
	}
	report, err := a.Doctor(t.Context())
	if err != nil || len(report.Findings) > 0 || report.Checked["drifts"] != 2 || report.Checked["shadows with a history"] != 2 {
		t.Fatalf("healthy: %+v, %v", report, err)
	}
	// A row of the report is lost, and a record changes behind the log's back.
	var rows []store.Key
	err = a.store.Scan(t.Context(), store.Under("shadow-drift"), func(r store.Record) error {
		rows = append(rows, r.Key)
		return nil
	})
	if err != nil || len(rows) != 2 {
		t.Fatalf("rows %v, %v", rows, err)
	}
	key := store.K("shadow", string(a.settings.AccountID), "pump-2", "")
	record, err := a.store.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	changed := []byte(string(record.Value))
	at := 0
	for i := range changed {
		if string(changed[i:min(i+4, len(changed))]) == `"on"` {
			at = i + 1
		}
	}
	changed[at] = 'i'
	if _, err := a.store.Commit(t.Context(), store.Batch{Writes: []store.Write{{Key: rows[0], Delete: true}, {Key: key, Value: changed}}}); err != nil {
		t.Fatal(err)
	}
	checks := func() []string {
		t.Helper()
		report, err := a.Doctor(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, f := range report.Findings {
			names = append(names, f.Check)
		}
		slices.Sort(names)
		return slices.Compact(names)
	}
	if got := checks(); !slices.Contains(got, "drifts") || !slices.Contains(got, "shadow history") {
		t.Fatalf("found %q", got)
	}
	if err := a.repairDrifts(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got := checks(); slices.Contains(got, "drifts") {
		t.Errorf("after the repair: %q", got)
	}
}

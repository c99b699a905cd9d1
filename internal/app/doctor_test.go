package app

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/adminapi"
	"github.com/muster-iot/muster/internal/config"
	"github.com/muster-iot/muster/internal/connectivity"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/presence"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// patient is a server with a small fleet that has one of everything that is kept
// twice.
func patient(t *testing.T, change ...func(*config.Settings)) *App {
	t.Helper()
	s := settings(t)
	for _, f := range change {
		f(&s)
	}
	a := newApp(t, s)
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, of, r := t.Context(), a.settings.AccountID, a.registry
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err := r.CreateThingType(ctx, of, registry.CreateThingTypeCommand{Name: "pump-type"})
	must(err)
	_, err = r.CreateBillingGroup(ctx, of, registry.CreateBillingGroupCommand{Name: "water"})
	must(err)
	_, err = r.CreateThing(ctx, of, registry.CreateThingCommand{
		Name: "pump", TypeName: "pump-type", BillingGroup: "water", Attributes: map[string]string{"site": "leeds"},
	})
	must(err)
	_, err = r.CreateThingGroup(ctx, of, registry.CreateThingGroupCommand{Name: "north"})
	must(err)
	must(r.AddThingToThingGroup(ctx, of, registry.ThingAndGroup{ThingName: "pump", GroupName: "north"}, false))
	_, err = r.CreateDynamicThingGroup(ctx, of, registry.CreateDynamicThingGroupCommand{Name: "leeds", Query: "attributes.site:leeds"})
	must(err)
	certificate, err := r.CreateKeysAndCertificate(ctx, of, true)
	must(err)
	_, err = r.CreatePolicy(ctx, of, "open", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`)
	must(err)
	must(r.AttachPolicy(ctx, of, "open", certificate.ARN))
	must(r.AttachThingPrincipal(ctx, of, "pump", certificate.ARN, ""))
	return a
}

// rowsOf are the records of a kind, at least one.
func rowsOf(t *testing.T, a *App, kind string) []store.Record {
	t.Helper()
	var found []store.Record
	err := a.store.Scan(t.Context(), store.Under(kind), func(r store.Record) error {
		found = append(found, r)
		return nil
	})
	if err != nil || len(found) == 0 {
		t.Fatalf("%s: %d records, %v", kind, len(found), err)
	}
	return found
}

func write(t *testing.T, a *App, writes ...store.Write) {
	t.Helper()
	if _, err := a.store.Commit(t.Context(), store.Batch{Writes: writes}); err != nil {
		t.Fatal(err)
	}
}

// examine wants the doctor to find something in exactly these checks.
func examine(t *testing.T, a *App, want ...string) adminapi.Report {
	t.Helper()
	report, err := a.Doctor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	checks := map[string]bool{}
	for _, f := range report.Findings {
		checks[f.Check] = true
	}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(checks))); diff != "" {
		t.Errorf("checks with findings (-want +got):\n%s\n%+v", diff, report.Findings)
	}
	return report
}

// treat wants a repair to leave nothing, and the sources as they were.
func treat(t *testing.T, a *App) {
	t.Helper()
	before := sources(t, a)
	done, err := a.Repair(t.Context())
	if err != nil || len(done.Repaired) == 0 || len(done.Remaining.Findings) > 0 {
		t.Errorf("repair: %+v, %v", done, err)
	}
	if diff := cmp.Diff(before, sources(t, a)); diff != "" {
		t.Errorf("repair changed sources:\n%s", diff)
	}
}

// sources are the records that everything else follows from.
func sources(t *testing.T, a *App) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, kind := range []string{"thing", "group", "certificate", "policy"} {
		for _, r := range rowsOf(t, a, kind) {
			all[r.Key.String()] = string(r.Value)
		}
	}
	return all
}

// settleMembers waits until the thing is in its dynamic group and histories know.
func settleMembers(t *testing.T, a *App) {
	t.Helper()
	for {
		thing, err := a.registry.DescribeThing(t.Context(), a.settings.AccountID, "pump")
		if err != nil {
			t.Fatal(err)
		}
		if len(thing.Groups) == 2 {
			break
		}
		if t.Context().Err() != nil {
			t.Fatal(t.Context().Err())
		}
	}
	head, err := a.store.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.followers.memberships.WaitCovered(t.Context(), head); err != nil {
		t.Fatal(err)
	}
}

// TestDoctorHealsRows takes away and adds each kind of row behind the registry's
// back.
func TestDoctorHealsRows(t *testing.T) {
	t.Parallel()
	a := patient(t)
	settleMembers(t, a)
	examine(t, a)
	for _, kind := range []string{
		"thing-by-type", "thing-by-attribute", "billing-group-thing", "group-child", "group-thing", "policy-target",
		"certificate-oldest", "certificate-newest", "certificate-expiry", "policy-oldest", "policy-newest", "thing-principal", "principal-thing",
	} {
		row := rowsOf(t, a, kind)[0]
		write(t, a, store.Write{Key: row.Key, Delete: true})
		report, err := a.Doctor(t.Context())
		if err != nil || len(report.Findings) == 0 || report.Findings[0].Check != "registry rows" ||
			report.Findings[0].Have != "absent" || !report.Findings[0].Repairable || report.Findings[0].Subject != row.Key.String() {
			t.Errorf("%s taken away: %+v, %v", kind, report.Findings, err)
		}
		treat(t, a)
		if again := rowsOf(t, a, kind)[0]; again.Key != row.Key || string(again.Value) != string(row.Value) {
			t.Errorf("%s: %s is %s, was %s", kind, again.Key, again.Value, row.Value)
		}
	}
	of := string(a.settings.AccountID)
	write(t, a,
		store.Write{Key: store.K("thing-by-type", of, "pump-type", "ghost"), Value: []byte(`{"v":1}`)},
		store.Write{Key: store.K("thing-by-attribute", of, "site", "york", "pump"), Value: []byte(`{"v":1}`)},
		store.Write{Key: store.K("policy-target", of, "open", "thinggroup/north"), Value: []byte(`{"v":1}`)},
		store.Write{Key: store.K("thing-principal", of, "pump", "cert/none"), Value: []byte(`{"v":1}`)},
	)
	if report := examine(t, a, "registry rows"); len(report.Findings) != 4 {
		t.Errorf("%d findings: %+v", len(report.Findings), report.Findings)
	}
	treat(t, a)
}

// TestDoctorRefusesToGuess finds an attachment of which both halves are gone, and
// one of nothing, and leaves them alone.
func TestDoctorRefusesToGuess(t *testing.T) {
	t.Parallel()
	a := patient(t)
	settleMembers(t, a)
	of := string(a.settings.AccountID)
	write(t, a,
		store.Write{Key: rowsOf(t, a, "thing-principal")[0].Key, Delete: true},
		store.Write{Key: rowsOf(t, a, "principal-thing")[0].Key, Delete: true},
		store.Write{Key: store.K("thing-principal", of, "zombie", "cert/zombie"), Value: []byte(`{"v":1}`)},
		store.Write{Key: store.K("principal-thing", of, "cert/zombie", "zombie"), Value: []byte(`{"v":1}`)},
	)
	if _, err := a.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	report, err := a.Doctor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for _, f := range report.Findings {
		if f.Check == "registry rows" {
			rows++
			if f.Repairable {
				t.Errorf("can be repaired: %+v", f)
			}
		}
	}
	if rows != 4 {
		t.Errorf("%d findings in rows: %+v", rows, report.Findings)
	}
}

// TestDoctorHealsTheIndex empties the live index.
func TestDoctorHealsTheIndex(t *testing.T) {
	t.Parallel()
	a := patient(t)
	settleMembers(t, a)
	head, err := a.store.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.index.Build().Finish(t.Context(), head); err != nil {
		t.Fatal(err)
	}
	examine(t, a, "index")
	treat(t, a)
	examine(t, a)
}

// TestDoctorKnowsTheLimitOfGroups keeps a thing out of a dynamic group whose query
// it matches; the doctor's own index must do the same.
func TestDoctorKnowsTheLimitOfGroups(t *testing.T) {
	t.Parallel()
	a := patient(t, func(s *config.Settings) { s.Registry.MaxGroupsPerThing = 1 })
	head, err := a.store.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.followers.index.WaitCovered(t.Context(), head); err != nil {
		t.Fatal(err)
	}
	examine(t, a)
	thing, err := a.registry.DescribeThing(t.Context(), a.settings.AccountID, "pump")
	if err != nil || len(thing.Groups) != 1 {
		t.Errorf("groups %v, %v", thing.Groups, err)
	}
}

// TestDoctorHealsMemberships takes a thing out of its dynamic group, record and
// row, and a stranger in.
func TestDoctorHealsMemberships(t *testing.T) {
	t.Parallel()
	a := patient(t)
	settleMembers(t, a)
	out := registry.MembershipChange{Account: a.settings.AccountID, Group: "leeds", Thing: "pump"}
	if err := a.registry.CommitMembership(t.Context(), []registry.MembershipChange{out}); err != nil {
		t.Fatal(err)
	}
	examine(t, a, "dynamic memberships")
	done, err := a.Repair(t.Context())
	if err != nil || done.Repaired["dynamic memberships"] != 1 || len(done.Remaining.Findings) > 0 {
		t.Errorf("repair: %+v, %v", done, err)
	}
}

// TestDoctorHealsHistories opens and closes ends of both histories.
func TestDoctorHealsHistories(t *testing.T) {
	t.Parallel()
	a := patient(t)
	settleMembers(t, a)
	write(t, a, store.Write{Key: rowsOf(t, a, "membership-open")[0].Key, Delete: true})
	examine(t, a, "membership history")
	treat(t, a)

	of := a.settings.AccountID
	connected(t, a, of, "pump")
	open := rowsOf(t, a, "connection-open")[0]
	write(t, a, store.Write{Key: open.Key, Delete: true})
	examine(t, a, "connection history")
	treat(t, a)
	if again := rowsOf(t, a, "connection-open"); len(again) != 1 || again[0].Key != open.Key {
		t.Errorf("open connections: %v", again)
	}
}

// TestDoctorHealsConnectivity falsifies states and timers behind the back of the
// state machine.
func TestDoctorHealsConnectivity(t *testing.T) {
	t.Parallel()
	a := patient(t)
	settleMembers(t, a)
	of := a.settings.AccountID
	connected(t, a, of, "pump")
	healthy := func() {
		t.Helper()
		head, err := a.store.Head(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := follow(t.Context(), a.followers.connectivity, head); err != nil {
			t.Fatal(err)
		}
		if report := examine(t, a); report.Checked["connections of things"] != 1 {
			t.Errorf("compared %d connections", report.Checked["connections of things"])
		}
	}
	healthy()
	state := func(want connectivity.State) {
		t.Helper()
		v, err := a.connectivity.Of(t.Context(), of, "pump")
		if err != nil || v.State != want {
			t.Errorf("pump is %s, want %s (%v)", v.State, want, err)
		}
	}
	state(connectivity.FirstConnected)

	// The row of its timer is lost, and one of nothing is there.
	timer := rowsOf(t, a, "connectivity-timer")[0]
	write(t, a,
		store.Write{Key: timer.Key, Delete: true},
		store.Write{Key: store.K("connectivity-timer", "ffffffffffff", string(of), "ghost", "state"), Value: []byte("{}")},
	)
	if report := examine(t, a, "connectivity"); len(report.Findings) != 2 {
		t.Errorf("%d findings: %+v", len(report.Findings), report.Findings)
	}
	treat(t, a)
	if again := rowsOf(t, a, "connectivity-timer"); len(again) != 1 || again[0].Key != timer.Key {
		t.Errorf("timers: %v", again)
	}

	// The state has it connected, presence does not.
	record := rowsOf(t, a, "connection")[0]
	gone := strings.Replace(string(record.Value), `"connected":true`, `"connected":false,"reason":"CLIENT_INITIATED_DISCONNECT"`, 1)
	open := rowsOf(t, a, "connection-open")[0]
	write(t, a, store.Write{Key: record.Key, Value: []byte(gone)})
	report, err := a.Doctor(t.Context())
	if err != nil || !slices.ContainsFunc(report.Findings, func(f adminapi.Finding) bool {
		return f.Check == "connectivity" && f.Have == "connected by c, FIRST_CONNECTED" && f.Want == "not connected" && f.Repairable
	}) {
		t.Errorf("%+v, %v", report.Findings, err)
	}
	treat(t, a)
	state(connectivity.OfflineClean)
	healthy()

	// And the other way round.
	write(t, a, store.Write{Key: record.Key, Value: record.Value}, store.Write{Key: open.Key, Value: open.Value})
	report, err = a.Doctor(t.Context())
	if err != nil || !slices.ContainsFunc(report.Findings, func(f adminapi.Finding) bool {
		return f.Check == "connectivity" && f.Have == "not connected, OFFLINE_CLEAN" && f.Want == "connected by c" && f.Repairable
	}) {
		t.Errorf("%+v, %v", report.Findings, err)
	}
	treat(t, a)
	state(connectivity.Recovered)
	healthy()
}

// connected records a connection that lasts.
func connected(t *testing.T, a *App, of fleet.Account, client string) {
	t.Helper()
	a.presence.Connected(presence.Session{
		Account: of, ClientID: client, SessionID: "s", ConnectionID: "c", Principal: fleet.Principal{Kind: "certificate", ID: "x"}, Indexed: true,
	}, now())
	if err := a.presence.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := a.catchUpHistory(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
}

package bootstrap

import (
	"crypto/x509/pkix"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

const other = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// TestLifeOfAnAssignment: made, changed under its version, imported without change,
// deleted; each change is told, and nothing else.
func TestLifeOfAnAssignment(t *testing.T) {
	r := newRig(t, newEngine(t))
	ctx := fleet.WithActor(t.Context(), fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalUser, ARN: "arn:kim"}})
	want := Assignment{
		Who: Who{Kind: Serial, CACertificateID: ca, Serial: "B7/42 ü"}, Account: leeds, Template: "pumps", Parameters: map[string]string{"Site": "leeds"}, Enabled: true,
		Expires: noon.Add(time.Hour), Note: "first",
	}
	made, change, err := r.Put(ctx, home, PutCommand{Assignment: want, New: true})
	if err != nil || change != Created {
		t.Fatal(change, err)
	}
	full := want
	full.ID, full.Version, full.Created, full.Modified, full.By = made.ID, 1, noon, noon, "arn:kim"
	if diff := cmp.Diff(full, made); diff != "" {
		t.Error(diff)
	}
	_, _, err = r.Put(ctx, home, PutCommand{Assignment: want, New: true})
	wantFault(t, err, fault.ResourceAlreadyExists, "assignment "+made.ID+" exists")
	if _, change, err := r.Put(ctx, home, PutCommand{Assignment: want}); err != nil || change != Unchanged {
		t.Error(change, err)
	}
	r.now = noon.Add(time.Minute)
	two, one := int64(2), int64(1)
	next := Assignment{Account: porto, Enabled: true}
	_, err = r.Update(ctx, home, made.ID, next, &two)
	wantFault(t, err, fault.VersionConflict, "expectedVersion is 2 but the version is 1")
	changed, err := r.Update(ctx, home, made.ID, next, &one)
	if err != nil || changed.Version != 2 || changed.Account != porto || changed.Template != "" || changed.Serial != "B7/42 ü" || !changed.Created.Equal(noon) || !changed.Modified.Equal(r.now) {
		t.Errorf("%+v, %v", changed, err)
	}
	if found, err := r.Find(ctx, home, want.Who); err != nil || cmp.Diff(changed, found) != "" {
		t.Errorf("%+v, %v", found, err)
	}
	for _, elsewhere := range []fleet.Account{leeds, porto} {
		_, err := r.Assignment(ctx, elsewhere, made.ID)
		wantFault(t, err, fault.ResourceNotFound, fmt.Sprintf("assignment %q does not exist", made.ID))
	}
	wantFault(t, r.Delete(ctx, home, made.ID, &one), fault.VersionConflict, "expectedVersion is 1 but the version is 2")
	if err := r.Delete(ctx, home, made.ID, &two); err != nil {
		t.Fatal(err)
	}
	wantFault(t, r.Delete(ctx, home, made.ID, nil), fault.ResourceNotFound, fmt.Sprintf("assignment %q does not exist", made.ID))
	_, err = r.Update(ctx, home, made.ID, next, nil)
	wantFault(t, err, fault.ResourceNotFound, fmt.Sprintf("assignment %q does not exist", made.ID))
	told, _ := events[event.BootstrapAssignmentChanged](r)
	e := event.BootstrapAssignmentChanged{Assignment: made.ID, Change: event.BootstrapAssignmentCreated, Kind: "SERIAL", Target: leeds, Template: "pumps", Enabled: true, Version: 1}
	updated := event.BootstrapAssignmentChanged{Assignment: made.ID, Change: event.BootstrapAssignmentUpdated, Kind: "SERIAL", Target: porto, Enabled: true, Version: 2}
	deleted := event.BootstrapAssignmentChanged{Assignment: made.ID, Change: event.BootstrapAssignmentDeleted, Kind: "SERIAL", Version: 2}
	if diff := cmp.Diff([]event.BootstrapAssignmentChanged{e, updated, deleted}, told); diff != "" {
		t.Error(diff)
	}
}

// TestRulesOfAssignments: what breaks a rule is refused with the field and the rule.
func TestRulesOfAssignments(t *testing.T) {
	r := newRig(t, newEngine(t))
	many := map[string]string{}
	for i := range maxPairs + 1 {
		many[fmt.Sprint(i)] = ""
	}
	large := map[string]string{}
	for i := range 9 {
		large[fmt.Sprint(i)] = strings.Repeat("x", maxValue)
	}
	serial := Who{Kind: Serial, CACertificateID: ca, Serial: "B7"}
	for _, c := range []struct {
		a     Assignment
		words string
	}{
		{Assignment{}, "kind must be CERTIFICATE, CLAIM, SERIAL or CA"},
		{Assignment{Who: Who{Kind: "X"}}, "kind must be CERTIFICATE, CLAIM, SERIAL or CA"},
		{Assignment{Who: Who{Kind: Certificate, CertificateID: strings.ToUpper(ca)}}, "certificateId must be the SHA-256 of the certificate, 64 lower-case hexadecimal digits"},
		{Assignment{Who: Who{Kind: Claim}}, "certificateId must be the SHA-256 of the certificate, 64 lower-case hexadecimal digits"},
		{Assignment{Who: Who{Kind: Certificate, CertificateID: ca, Serial: "x"}}, "caCertificateId and serial are not for the kind CERTIFICATE"},
		{Assignment{Who: Who{Kind: Serial, Serial: "x"}}, "caCertificateId must be the id of a CA certificate, 64 lower-case hexadecimal digits"},
		{Assignment{Who: Who{Kind: Serial, CACertificateID: ca}}, "serial must have 1 to 128 printable characters"},
		{Assignment{Who: Who{Kind: Serial, CACertificateID: ca, Serial: "a\x00b"}}, "serial must have 1 to 128 printable characters"},
		{Assignment{Who: Who{Kind: Serial, CACertificateID: ca, Serial: "\xff"}}, "serial must have 1 to 128 printable characters"},
		{Assignment{Who: Who{Kind: Authority, CACertificateID: ca, Serial: "x"}}, "serial is not for the kind CA"},
		{Assignment{Who: Who{Kind: Authority, CACertificateID: ca, CertificateID: ca}}, "certificateId is not for the kind CA"},
		{Assignment{Who: serial, Account: "12"}, "account must have twelve digits"},
		{Assignment{Who: serial, Account: "999999999999"}, "account: there is no account 999999999999"},
		{Assignment{Who: serial, Template: "none"}, `templateName: account 000000000000 has no provisioning template "none"`},
		{Assignment{Who: serial, Parameters: map[string]string{"a": "b"}}, "parameters are for a template: templateName is empty"},
		{Assignment{Who: serial, Template: "pumps", Parameters: many}, "parameters must have at most 32 entries"},
		{Assignment{Who: serial, Template: "pumps", Parameters: large}, "parameters must have at most 8192 bytes"},
		{Assignment{Who: serial, Configuration: map[string]string{"": "b"}}, "configuration: a name must have 1 to 128 printable characters"},
		{Assignment{Who: serial, Configuration: map[string]string{"a": strings.Repeat("x", maxValue+1)}}, `configuration: the value of "a" must have at most 1024 characters`},
		{Assignment{Who: serial, Note: strings.Repeat("x", maxNote+1)}, "note must have at most 1024 printable characters"},
		{Assignment{Who: serial, Expires: noon}, "expiresAt must be in the future"},
	} {
		_, _, err := r.Put(t.Context(), home, PutCommand{Assignment: c.a})
		wantFault(t, err, fault.InvalidRequest, c.words)
	}
	if _, err := r.Assignment(t.Context(), home, "x\x00y"); fault.CodeOf(err) != fault.ResourceNotFound {
		t.Errorf("an id with a zero byte: %v", err)
	}
	if page, next, err := r.Assignments(t.Context(), home, "", 0); err != nil || next != "" || len(page) != 0 {
		t.Errorf("%+v, %q, %v", page, next, err)
	}
}

// TestImport: every line by itself, the same lines again without a change, in pages.
func TestImport(t *testing.T) {
	r := newRig(t, newEngine(t))
	lines := []Assignment{{Who: Who{Kind: Authority, CACertificateID: ca}, Account: "999999999999"}}
	for i := range 6 {
		lines = append(lines, Assignment{Who: Who{Kind: Serial, CACertificateID: ca, Serial: fmt.Sprint(i)}, Account: leeds, Enabled: true})
	}
	for _, want := range []Change{Created, Unchanged} {
		done, err := r.Import(t.Context(), home, lines)
		if err != nil || len(done) != 7 || fault.CodeOf(done[0].Err) != fault.InvalidRequest {
			t.Fatalf("%+v, %v", done, err)
		}
		for _, one := range done[1:] {
			if one.Err != nil || one.Change != want || one.ID == "" {
				t.Errorf("%+v, want %s", one, want)
			}
		}
	}
	seen := map[string]bool{}
	for after, pages := "", 0; ; pages++ {
		page, next, err := r.Assignments(t.Context(), home, after, 2)
		if err != nil || pages > 3 {
			t.Fatal(pages, err)
		}
		for _, a := range page {
			seen[a.Serial] = true
		}
		if after = next; after == "" {
			break
		}
	}
	if len(seen) != 6 {
		t.Errorf("listed %v", seen)
	}
	if page, _, err := r.Assignments(t.Context(), leeds, "", 0); err != nil || len(page) != 0 {
		t.Errorf("another account lists %+v, %v", page, err)
	}
	for _, n := range []int{0, MaxPage + 1} {
		_, err := r.Import(t.Context(), home, make([]Assignment, n))
		wantFault(t, err, fault.InvalidRequest, "assignments must have 1 to 250 entries")
	}
}

// TestRaceOfOperators: of those who change one version, one wins.
func TestRaceOfOperators(t *testing.T) {
	r := newRig(t, newEngine(t))
	made := r.put(home, Assignment{Who: Who{Kind: Certificate, CertificateID: other}})
	results := make(chan error)
	for i := range 8 {
		go func() {
			one := int64(1)
			_, err := r.Update(t.Context(), home, made.ID, Assignment{Enabled: true, Note: fmt.Sprint(i)}, &one)
			results <- err
		}()
	}
	won := 0
	for range 8 {
		switch err := <-results; fault.CodeOf(err) {
		case "":
			won++
		case fault.VersionConflict:
		default:
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d have won", won)
	}
}

// TestRestart: assignments, and when devices asked, outlive the server.
func TestRestart(t *testing.T) {
	files := vfs.NewMem()
	open := func() store.Store {
		engine, err := embedded.Open(embedded.Options{Dir: "data", FS: files, Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, ReserveBytes: -1})
		if err != nil {
			t.Fatal(err)
		}
		return engine
	}
	engine := open()
	r := newRig(t, engine)
	r.vouch[home] = registry.Voucher{CA: ca}
	made := r.put(home, Assignment{Who: Who{Kind: Authority, CACertificateID: ca}, Account: leeds, Template: "pumps"})
	c := device(t, pkix.Name{})
	before, err := r.asks(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := engine.Close(); err != nil {
		t.Fatal(err)
	}
	engine = open()
	defer engine.Close()
	r = newRig(t, engine)
	r.vouch[home] = registry.Voucher{CA: ca}
	after, err := r.asks(c)
	if diff := cmp.Diff(before, after); err != nil || diff != "" {
		t.Error(err, diff)
	}
	seen, err := r.Assignment(t.Context(), home, made.ID)
	if err != nil || !seen.Asked.Equal(noon) {
		t.Errorf("%+v, %v", seen, err)
	}
}

package fault_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/testkit"
)

// edited is how many things the tests of edits by query work on.
const edited = 4000

// newEditRig is a server with flags and things that have an attribute.
func newEditRig(t *testing.T, flags ...string) (*testkit.Server, *apiclient.Client) {
	t.Helper()
	server := testkit.StartServer(t, append(flags, "--log.level", "warn", "--bulk-edit.things-per-second", "2000")...)
	id, secret := server.Credentials()
	api, err := apiclient.New(apiclient.Options{
		Endpoint: "http://" + server.HTTPAddr, Credentials: apiclient.Credentials{AccessKeyID: id, Secret: secret, Region: "us-east-1"}, Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.CloseIdle)
	for first := 0; first < edited; first += 1000 {
		in := apiclient.Import{Mode: "create"}
		for i := range 1000 {
			in.Things = append(in.Things, apiclient.ImportThing{Name: fmt.Sprintf("t%06d", first+i), Attributes: map[string]string{"site": "leeds"}})
		}
		if _, err := api.ImportThings(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	return server, api
}

// survive kills the server again and again while an edit runs, and waits for its end.
func survive(t *testing.T, server *testkit.Server, api *apiclient.Client, e apiclient.BulkEdit) apiclient.BulkEdit {
	t.Helper()
	look := func() (apiclient.BulkEdit, error) { return api.DescribeBulkEdit(t.Context(), e.BulkEditID) }
	for range 3 {
		before, err := look()
		if err != nil {
			t.Fatal(err)
		}
		testkit.Poll(t, 30*time.Second, "the edit gets on", func() error {
			now, err := look()
			if err != nil {
				return err
			}
			if now.Status != "RUNNING" {
				t.Fatalf("the edit is %+v before it was killed three times", now)
			}
			if now.Changed < before.Changed+300 {
				return fmt.Errorf("%d changed", now.Changed)
			}
			return nil
		})
		server.Kill()
		server.Start()
	}
	testkit.Poll(t, time.Minute, "the edit ends", func() error {
		now, err := look()
		if err == nil && now.Status == "RUNNING" {
			err = fmt.Errorf("%d left", now.Remaining)
		}
		e = now
		return err
	})
	return e
}

// The server is killed in the middle of an edit by query and of its undo, several
// times: each thing is changed once and brought back once.
func TestKilledServerInABulkEdit(t *testing.T) {
	t.Run("Pebble", func(t *testing.T) { killInABulkEdit(t) })
	t.Run("PostgreSQL", func(t *testing.T) { killInABulkEdit(t, "--store", testkit.StartPostgres(t).Database(t)) })
}

// killInABulkEdit does that to a server with the flags.
func killInABulkEdit(t *testing.T, flags ...string) {
	t.Helper()
	server, api := newEditRig(t, flags...)
	o := apiclient.BulkOperation{SetAttributes: map[string]string{"site": "york"}}
	const query = "attributes.site:leeds"
	p, err := api.PreviewBulkEdit(t.Context(), query, o)
	if err != nil || p.Things != edited {
		t.Fatalf("preview %+v, %v", p, err)
	}
	e, err := api.StartBulkEdit(t.Context(), query, o, p.ConfirmationToken, 0)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(site string, version int64) {
		t.Helper()
		things, err := api.ListThings(t.Context(), apiclient.ThingFilter{}, 0)
		if err != nil || len(things) != edited {
			t.Fatalf("%d things, %v", len(things), err)
		}
		for _, thing := range things {
			if thing.Version != version || thing.Attributes["site"] != site {
				t.Fatalf("%+v, want version %d at %s", thing, version, site)
			}
		}
	}
	if e = survive(t, server, api, e); e.Status != "COMPLETED" || e.Changed != edited || e.Failed+e.Unchanged+e.Remaining != 0 {
		t.Errorf("edit %+v", e)
	}
	verify("york", 2)
	undo, err := api.UndoBulkEdit(t.Context(), e.BulkEditID, 0)
	if err != nil {
		t.Fatal(err)
	}
	if undo = survive(t, server, api, undo); undo.Status != "COMPLETED" || undo.Changed != edited || undo.Conflicts+undo.Failed != 0 {
		t.Errorf("undo %+v", undo)
	}
	verify("leeds", 3)
	if out, err := server.Muster(t.Context(), "doctor"); err != nil {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	// The trail says who and how many.
	for _, name := range []string{"StartBulkEdit", "UndoBulkEdit", "BulkEditChanged"} {
		out, err := server.Muster(t.Context(), "audit", "search", "--name", name, "-o", "json")
		if err != nil || !strings.Contains(out, e.BulkEditID) && name != "StartBulkEdit" || !strings.Contains(out, "york") && name == "StartBulkEdit" {
			t.Errorf("audit of %s: %v\n%s", name, err, out)
		}
	}
}

package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
	"github.com/muster-iot/muster/internal/store/postgres"
	"github.com/muster-iot/muster/internal/testkit"
)

// trailKey is where the default account's record is.
func trailKey(seq uint64) store.Key {
	return store.K("audit", "000000000000", fmt.Sprintf("%016x", seq))
}

// createThings makes things and returns the number of the record of the third.
func createThings(t *testing.T, server *testkit.Server) (third uint64) {
	t.Helper()
	api := newAPI(t, server)
	for n := range 5 {
		_, err := api.Raw(t.Context(), apiclient.Request{
			Service: apiclient.ServiceControl, Method: http.MethodPost, Path: apiclient.Path("things", fmt.Sprint("pump-", n)), Body: []byte("{}"),
		})
		must(t, err)
	}
	out, err := server.Muster(t.Context(), "audit", "search", "--resource", "thing/pump-2", "-o", "json")
	must(t, err)
	var found []struct {
		Seq uint64 `json:"seq"`
	}
	must(t, json.Unmarshal([]byte(out), &found))
	if len(found) != 1 {
		t.Fatalf("search finds %s", out)
	}
	return found[0].Seq
}

// Records are changed, removed and exchanged in the store while the server is
// stopped; verify names each, also doctor does, and so does an export.
func TestAuditVerifyNamesWhatWasDone(t *testing.T) {
	t.Parallel()
	run := func(t *testing.T, open func(t *testing.T, server *testkit.Server) store.Store, flags ...string) {
		t.Helper()
		server := testkit.StartServer(t, flags...)
		third := createThings(t, server)
		head, err := server.Muster(t.Context(), "audit", "head")
		must(t, err)
		dir := t.TempDir()
		headFile, file := filepath.Join(dir, "head.json"), filepath.Join(dir, "trail.ndjson")
		writeFile(t, headFile, []byte(head))
		_, err = server.Muster(t.Context(), "audit", "export", "--to-file", file)
		must(t, err)
		_, err = server.Muster(t.Context(), "audit", "verify", "--head", headFile)
		must(t, err)

		server.Stop()
		engine := open(t, server)
		read := func(seq uint64) []byte {
			stored, err := engine.Get(t.Context(), trailKey(seq))
			must(t, err)
			return bytes.Clone(stored.Value)
		}
		changed, one, two := bytes.Replace(read(third), []byte("pump-2"), []byte("pump-9"), 1), read(third+1), read(third+2)
		_, err = engine.Commit(t.Context(), store.Batch{Writes: []store.Write{
			{Key: trailKey(1), Delete: true},
			{Key: trailKey(third), Value: changed},
			{Key: trailKey(third + 1), Value: two},
			{Key: trailKey(third + 2), Value: one},
		}})
		must(t, errors.Join(err, engine.Close()))
		server.Start()
		out, err := server.Muster(t.Context(), "audit", "verify", "--head", headFile)
		if err == nil {
			t.Error("verify finds nothing")
		}
		for _, want := range []string{
			"missing: record 1 is missing", fmt.Sprintf("changed: record %d:", third),
			fmt.Sprintf("moved: record %d stands where record %d should", third+2, third+1),
			fmt.Sprintf("moved: record %d stands where record %d should", third+1, third+2),
		} {
			if !strings.Contains(out, want) {
				t.Errorf("verify does not say %q:\n%s", want, out)
			}
		}
		if out, err := server.Muster(t.Context(), "doctor"); err == nil || !strings.Contains(out, fmt.Sprintf("audit: 000000000000 record %d", third)) {
			t.Errorf("doctor: %v\n%s", err, out)
		}
		// The file from before is whole without any server; a changed one is not.
		_, err = server.Muster(t.Context(), "audit", "verify", "--file", file, "--head", headFile)
		must(t, err)
		text, err := os.ReadFile(file)
		must(t, err)
		writeFile(t, file+".changed", bytes.Replace(text, []byte(`"thingName":"pump-2"`), []byte(`"thingName":"pump-9"`), 1))
		if out, err := server.Muster(t.Context(), "audit", "verify", "--file", file+".changed"); err == nil || !strings.Contains(out, fmt.Sprintf("changed: record %d:", third)) {
			t.Errorf("verify of the changed file: %v\n%s", err, out)
		}
	}
	t.Run("Pebble", func(t *testing.T) {
		t.Parallel()
		run(t, func(t *testing.T, server *testkit.Server) store.Store {
			t.Helper()
			engine, err := embedded.Open(embedded.Options{Dir: filepath.Join(server.DataDir, "store"), Logger: slog.New(slog.DiscardHandler)})
			must(t, err)
			return engine
		})
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		t.Parallel()
		url := testkit.StartPostgres(t).Database(t)
		run(t, func(t *testing.T, _ *testkit.Server) store.Store {
			t.Helper()
			engine, err := postgres.Open(t.Context(), postgres.Options{URL: url, Logger: slog.New(slog.DiscardHandler)})
			must(t, err)
			return engine
		}, "--store", url)
	})
}

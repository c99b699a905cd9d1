package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/config"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/testkit"
)

// cluster is the PostgreSQL of this binary's tests.
var cluster testkit.PostgresPool

func TestMain(m *testing.M) {
	code := m.Run()
	if err := cluster.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// settings are those of a new server, with an empty PostgreSQL database where
// TestOnPostgreSQL runs a test.
func settings(t *testing.T) config.Settings {
	t.Helper()
	s := config.Default()
	s.DataDir = filepath.Join(t.TempDir(), "data")
	s.HTTPAddr, s.MQTTAddr, s.TLSAddr, s.MQTTInsecureAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	if strings.HasPrefix(t.Name(), "TestOnPostgreSQL/") {
		s.Store = cluster.Get(t).Database(t)
	}
	return s
}

func newApp(t *testing.T, s config.Settings) *App {
	t.Helper()
	a, err := New(t.Context(), Options{Settings: s, LogTo: io.Discard, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return a
}

func get(t *testing.T, a *App, path string) (status int, body string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+a.Addr(listenerHTTP).String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

func TestStartServesAndStopIsIdempotent(t *testing.T) {
	t.Parallel()
	a := newApp(t, settings(t))
	if a.Addr(listenerHTTP) != nil {
		t.Error("New listens already")
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/ops/v1/doctor": 403, "/things": 403} {
		if status, body := get(t, a, path); status != want {
			t.Errorf("GET %s: %d %s, want %d", path, status, body, want)
		}
	}
	for _, name := range []string{datadirCredentials, "ca.pem", "FORMAT"} {
		if _, err := os.Stat(a.dir.Path(name)); err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		if err := a.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

const datadirCredentials = "credentials"

func TestFailedStartUndoesEverything(t *testing.T) {
	t.Parallel()
	taken, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := settings(t)
	s.TLSAddr = taken.Addr().String()
	a, err := New(t.Context(), Options{Settings: s, LogTo: io.Discard, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	err = a.Run(t.Context(), func() { t.Error("ready with a port missing") })
	if err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("error %v does not name the taken address", err)
	}
	// The folder is free again, so a second start on it succeeds.
	s.TLSAddr = "127.0.0.1:0"
	again := newApp(t, s)
	if err := again.Start(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSecondProcessOnTheFolderIsRefused(t *testing.T) {
	t.Parallel()
	s := settings(t)
	newApp(t, s)
	if _, err := New(t.Context(), Options{Settings: s, LogTo: io.Discard, Version: "test"}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("error %v", err)
	}
}

func TestReloadTakesOverOrKeeps(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := settings(t)
	a, err := New(t.Context(), Options{Settings: s, LogTo: &log, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Stop(context.WithoutCancel(t.Context())) })
	next := s
	next.Log.Level, next.Region = "debug", "eu-west-1"
	restart, err := a.Reload(next)
	if err != nil || len(restart) != 1 || restart[0] != "region" {
		t.Errorf("restart needed for %v, %v", restart, err)
	}
	if a.settings.Log.Level != "debug" || a.settings.Region != s.Region {
		t.Errorf("after the reload: level %s, region %s", a.settings.Log.Level, a.settings.Region)
	}
	bad := a.settings
	bad.TLSCert, bad.TLSKey = "/nowhere/cert.pem", "/nowhere/key.pem"
	if _, err := a.Reload(bad); err == nil {
		t.Error("a certificate that does not exist was taken over")
	}
	if a.settings.TLSCert != "" {
		t.Error("a failed reload changed the settings")
	}
}

func TestDoctorFindsAFalsifiedIndex(t *testing.T) {
	t.Parallel()
	a := newApp(t, settings(t))
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := a.registry.CreateThing(t.Context(), a.settings.AccountID, registry.CreateThingCommand{Name: "pump", Attributes: map[string]string{"site": "leeds"}})
	if err != nil {
		t.Fatal(err)
	}
	report, err := a.Doctor(t.Context())
	if err != nil || len(report.Findings) != 0 || report.Checked["index documents"] != 1 {
		t.Fatalf("healthy server: %+v, %v", report, err)
	}
	// Take the thing out of the live index behind the log's back.
	head, err := a.store.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.index.Build().Finish(t.Context(), head); err != nil {
		t.Fatal(err)
	}
	report, err = a.Doctor(t.Context())
	if err != nil || len(report.Findings) != 1 || report.Findings[0].Check != "index" || !strings.Contains(report.Findings[0].Subject, "pump") {
		t.Errorf("falsified index: %+v, %v", report, err)
	}
}

func TestBackupRefusesABadRecipient(t *testing.T) {
	t.Parallel()
	a := newApp(t, settings(t))
	if err := a.Backup(t.Context(), io.Discard, "not-a-key"); fault.CodeOf(err) != fault.InvalidRequest {
		t.Errorf("error %v", err)
	}
}

// A component that ends by itself brings the server down with its reason.
func TestFailedComponentEndsTheServer(t *testing.T) {
	t.Parallel()
	a := newApp(t, settings(t))
	done := make(chan error, 1)
	go func() { done <- a.Run(t.Context(), func() { a.fail(io.ErrUnexpectedEOF) }) }()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), io.ErrUnexpectedEOF.Error()) {
			t.Errorf("error %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the server goes on")
	}
}

func TestFailedRestoreLeavesAFolderThatNobodyStartsOn(t *testing.T) {
	t.Parallel()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	source := newApp(t, settings(t))
	var archive bytes.Buffer
	if err := source.Backup(t.Context(), &archive, identity.Recipient().String()); err != nil {
		t.Fatal(err)
	}
	whole := archive.Bytes()
	s := settings(t)
	if _, err := Restore(t.Context(), s, bytes.NewReader(whole[:len(whole)-100]), []age.Identity{identity}); err == nil {
		t.Fatal("a cut archive was restored")
	}
	if _, err := New(t.Context(), Options{Settings: s, LogTo: io.Discard, Version: "test"}); !errors.Is(err, errRestoring) {
		t.Errorf("start on half a restore: %v", err)
	}
	s = settings(t)
	if _, err := Restore(t.Context(), s, bytes.NewReader(whole), []age.Identity{identity}); err != nil {
		t.Fatal(err)
	}
	newApp(t, s)
}

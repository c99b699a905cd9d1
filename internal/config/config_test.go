package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

// sources builds sources from command line, variables and a settings file.
func sources(t *testing.T, file string, env map[string]string, args ...string) Sources {
	t.Helper()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	AddFlags(flags)
	path := filepath.Join(t.TempDir(), "muster.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := flags.Parse(append([]string{"--config", path}, args...)); err != nil {
		t.Fatal(err)
	}
	return Sources{Flags: flags, LookupEnv: func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}}
}

func TestDefaultsAreValidAndAllSet(t *testing.T) {
	t.Parallel()
	s := Default()
	if p := s.validate(); len(p) > 0 {
		t.Errorf("defaults break rules: %v", p)
	}
	for _, f := range fields() {
		var one Settings
		if err := f.value(&one).Set(f.text); err != nil {
			t.Errorf("%s: default %q %v", f.path, f.text, err)
		}
		if f.usage == "" || f.path != strings.ToLower(f.path) {
			t.Errorf("%q: a path is kebab-case and a setting is described", f.path)
		}
	}
	want := Settings{
		DataDir: "./muster-data", Region: "us-east-1", AccountID: "000000000000",
		HTTPAddr: "127.0.0.1:8080", MQTTAddr: ":8883", TLSAddr: ":8443",
		Store: "pebble", Bus: "embedded", Endpoint: "localhost", BaseDomain: "muster.internal",
		MQTT: MQTT{Profile: "aws", MaxQueuedMessages: 100_000, MaxQueuedBytes: 1 << 30}, Log: Log{Level: "info", Format: "text"},
		EventLog: EventLog{RetentionAge: 168 * time.Hour, RetentionBytes: 1 << 30},
		PKI:      PKI{DeviceKey: DeviceKeyRSA, KeyPool: 4},
		BulkEdit: BulkEdit{ThingsPerSecond: 500, RetentionAge: 720 * time.Hour},

		Provisioning: Provisioning{ClaimOutstanding: 10_000, TaskWorkers: 16, ApprovalWindow: 72 * time.Hour, TasksPerAccount: 1, RenewalOverlap: 24 * time.Hour, RenewalPatience: 168 * time.Hour},
		Bootstrap:    Bootstrap{Window: 24 * time.Hour, CertificateRate: 10, AddressRate: 600},
		Objects:      Objects{MaxBytes: 1 << 30, S3Region: "us-east-1"},
		Ledger:       Ledger{TrustClaims: true},
		History:      History{RetentionAge: 2160 * time.Hour, RetentionBytes: 1 << 30},
		Membership:   Membership{RetentionAge: 2160 * time.Hour, RetentionBytes: 1 << 30},
		Shadow:       Shadow{MaxDocumentBytes: 8 << 10, MaxDepth: 8, HistoryVersions: 100, HistoryAge: 2160 * time.Hour, HistoryBytes: 4 << 30},
		Registry:     Registry{MaxGroupChildren: 100, TypeDeletionDelay: 5 * time.Minute},
		Index:        Index{SnapshotEvery: 5 * time.Minute},
		Audit:        Audit{RetentionAge: 9600 * time.Hour},
		Limits:       Limits{AccountRetained: 500000}, Drain: Drain{Over: 5 * time.Second},
		SignIn: SignIn{Session: time.Hour, MaxFailures: 5, MaxFailuresTotal: 500, FailureWindow: 5 * time.Minute, OIDC: OIDC{Scopes: []string{"profile", "email"}, Claim: "groups"}},
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
}

func TestPrecedence(t *testing.T) {
	t.Parallel()
	file := "mqtt:\n  profile: standard\nlog.level: debug\nregion: eu-central-1\naccount-id: 000000000042\n" +
		"tls-name: [a.example, 10.0.0.1]\neventlog:\n  retention-bytes: 2GiB\nshadow:\n  require-thing: true\n"
	src := sources(t, file,
		map[string]string{"MUSTER_LOG_LEVEL": "warn", "MUSTER_REGION": "us-west-2", "MUSTER_TLS_REQUIRE_SNI": "true"},
		"--region", "local", "--tls-name", "b.example", "--tls-name", "c.example,d.example", "--registry.max-dynamic-groups", "1000")
	got, err := src.Load()
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.MQTT.Profile = "standard"                                  // file, nested
	want.AccountID = "000000000042"                                 // file, leading zeros kept
	want.EventLog.RetentionBytes = 2 << 30                          // file, with a unit
	want.Shadow.RequireThing = true                                 // file
	want.Log.Level = "warn"                                         // variable before file
	want.TLS.RequireSNI = true                                      // variable
	want.Registry.MaxDynamicGroups = 1000                           // flag
	want.Region = "local"                                           // flag before variable
	want.TLSNames = []string{"b.example", "c.example", "d.example"} // flag replaces the file's list
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestBooleanFlagStandsAlone(t *testing.T) {
	t.Parallel()
	got, err := sources(t, "", nil, "--shadow.require-thing", "--tls.require-sni=false").Load()
	if err != nil {
		t.Fatal(err)
	}
	if !got.Shadow.RequireThing || got.TLS.RequireSNI {
		t.Errorf("got %+v %+v", got.Shadow, got.TLS)
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	t.Parallel()
	file := "region: us-east-1\nhttp-adr: 127.0.0.1:1\nlog:\n  level: loud\neventlog:\n  retention-age: week\nregistry:\n  max-dynamic-groups: many\n"
	_, err := sources(t, file, map[string]string{"MUSTER_ACCOUNT_ID": "12"},
		"--http-addr", "0.0.0.0:8080", "--mqtt-insecure-addr", "192.0.2.1:1883", "--bus", "nats://n1", "--tls-cert", "c.pem",
		"--advertise", "somewhere", "--limits.account-connections", "-1", "--limits.connection-bytes-per-second", "100", "--drain.over", "2h").Load()
	var invalid *InvalidError
	if !errors.As(err, &invalid) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{
		"http-adr: is not a setting (", "muster.yaml line 2)",
		`log.level: "loud" is none of debug, info, warn, error (`, "muster.yaml line 4)",
		`eventlog.retention-age: "week" is no duration`, "muster.yaml line 6)",
		`registry.max-dynamic-groups: "many" is no whole number`, "muster.yaml line 8)",
		`account-id: "12" is not twelve digits (MUSTER_ACCOUNT_ID)`,
		`http-addr: "0.0.0.0:8080" is not a loopback address`, "(--http-addr)",
		`mqtt-insecure-addr: "192.0.2.1:1883" is not a loopback address`,
		"bus: several nodes joined by NATS are not offered yet",
		"tls-cert: tls-cert and tls-key belong together",
		`advertise: "somewhere" is not HOST:PORT`,
		"limits.account-connections: must not be negative (--limits.account-connections)",
		"limits.connection-bytes-per-second: must be 0 or at least 16KiB",
		"drain.over: must be between 0s and 1h0m0s",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
	if n := len(invalid.Problems); n != 13 {
		t.Errorf("%d problems, want 13:\n%v", n, err)
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		want string // empty: valid
	}{
		{[]string{"--http-addr", "[::1]:8080"}, ""},
		{[]string{"--http-addr", "127.9.9.9:0"}, ""},
		{[]string{"--http-addr", "localhost:8080"}, ""},
		{[]string{"--http-addr", ""}, ""},
		{[]string{"--http-addr", ":8080"}, "not a loopback"},
		{[]string{"--http-addr", "localhost.example:8080"}, "not a loopback"},
		{[]string{"--http-addr", "8080"}, "not HOST:PORT"},
		{[]string{"--mqtt-addr", "0.0.0.0:8883"}, ""},
		{[]string{"--mqtt-addr", ":70000"}, "not HOST:PORT"},
		{[]string{"--mqtt-addr", ":9", "--tls-addr", ":9"}, "already taken by mqtt-addr"},
		{[]string{"--mqtt-addr", ":0", "--tls-addr", ":0"}, ""},
		{[]string{"--store", "postgres://u:secret@db:5432/muster?sslmode=disable"}, ""},
		{[]string{"--store", "postgres:///muster?host=/run/postgresql"}, ""},
		{[]string{"--store", "mysql://u:secret@db/x"}, "neither pebble nor a postgres://"},
		{[]string{"--store", "postgres://"}, "neither pebble nor a postgres://"},
		{[]string{"--bus", "kafka"}, "neither embedded nor"},
		{[]string{"--region", "US East"}, "not a region"},
		{[]string{"--endpoint", "iot.example.com"}, ""},
		{[]string{"--endpoint", "192.0.2.7"}, ""},
		{[]string{"--endpoint", "*.example.com"}, "endpoint"},
		{[]string{"--endpoint", "a b"}, "endpoint"},
		{[]string{"--tls-name", "*.example.com"}, ""},
		{[]string{"--tls-name", "-x-"}, "tls-name"},
		{[]string{"--data-dir", ""}, "data-dir"},
		{[]string{"--eventlog.retention-age", "1s"}, "at least"},
		{[]string{"--provisioning.renewal-overlap", "0s"}, "must be from 1s to"},
		{[]string{"--provisioning.renewal-overlap", "1s", "--provisioning.renewal-patience", "8784h"}, ""},
		{[]string{"--provisioning.renewal-patience", "8785h"}, "must be from 1s to"},
		{[]string{"--bootstrap.server-name", "join.example.com"}, ""},
		{[]string{"--bootstrap.server-name", "192.0.2.7"}, "not a host name"},
		{[]string{"--bootstrap.server-name", "*.example.com"}, "not a host name"},
		{[]string{"--bootstrap.server-name", "a b"}, "not a host name"},
		{[]string{"--bootstrap.server-name", "LOCALHOST"}, "must not be endpoint"},
		{[]string{"--bootstrap.server-name", "b.example.com", "--tls-name", "b.example.com"}, "must not be endpoint"},
		{[]string{"--bootstrap.server-name", "b.iot.us-east-1.example.com", "--base-domain", "example.com"}, "where the endpoints of accounts are"},
		{[]string{"--bootstrap.server-name", "b.example.com", "--tls-addr", ""}, "needs tls-addr"},
		{[]string{"--bootstrap.window", "59s"}, "must be from 1m"},
		{[]string{"--bootstrap.certificate-rate", "-1"}, "negative"},
		{[]string{"--bootstrap.address-rate", "-1"}, "negative"},
		{[]string{"--eventlog.retention-bytes", "1KiB"}, "at least"},
		{[]string{"--history.retention-age", "1s"}, "history.retention-age"},
		{[]string{"--history.retention-bytes", "1KiB"}, "history.retention-bytes"},
		{[]string{"--membership.retention-age", "1s"}, "membership.retention-age"},
		{[]string{"--membership.retention-bytes", "1KiB"}, "membership.retention-bytes"},
		{[]string{"--registry.max-dynamic-groups", "-1"}, "negative"},
		{[]string{"--registry.max-groups-per-thing", "-1"}, "negative"},
		{[]string{"--registry.max-groups-per-thing", "10"}, ""},
		{[]string{"--registry.max-group-children", "-1"}, "at least"},
		{[]string{"--index.max-named-shadows", "-1"}, "negative"},
		{[]string{"--shadow.max-document-bytes", "64KiB"}, "shadow.max-document-bytes"},
		{[]string{"--shadow.max-document-bytes", "10"}, "shadow.max-document-bytes"},
		{[]string{"--shadow.max-depth", "0"}, "shadow.max-depth"},
		{[]string{"--shadow.max-requests-per-second", "-1"}, "shadow.max-requests-per-second"},
		{[]string{"--shadow.max-in-flight", "-1"}, "shadow.max-in-flight"},
		{[]string{"--shadow.history-versions", "-1"}, "shadow.history-versions"},
		{[]string{"--shadow.history-age", "1s"}, "shadow.history-age"},
		{[]string{"--shadow.history-bytes", "1KiB"}, "shadow.history-bytes"},
		{[]string{"--index.max-geo-locations", "-1"}, "negative"},
		{[]string{"--index.max-custom-fields", "-1"}, "negative"},
		{[]string{"--mqtt.profile", "azure"}, "none of aws, standard"},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			t.Parallel()
			_, err := sources(t, "", nil, c.args...).Load()
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %q", err, c.want)
			case err != nil && strings.Contains(err.Error(), "secret"):
				t.Errorf("the error shows a password: %v", err)
			}
		})
	}
}

func TestStoreFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(path, []byte("postgres://u:p@db/muster\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := sources(t, "", nil, "--store-file", path).Load()
	if err != nil {
		t.Fatal(err)
	}
	if s.Store != "postgres://u:p@db/muster" || s.StoreEngine() != "postgres" {
		t.Errorf("got %q %q", s.Store, s.StoreEngine())
	}
	if _, err := sources(t, "", nil, "--store-file", path, "--store", "pebble").Load(); err == nil {
		t.Error("store and store-file together were accepted")
	}
	if _, err := sources(t, "", nil, "--store-file", path+"x").Load(); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("got %v", err)
	}
}

func TestFileShapes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, want string }{
		"empty":            {"", ""},
		"comment only":     {"# nothing\n", ""},
		"dotted":           {"mqtt.profile: standard\n", ""},
		"quoted":           {"account-id: \"000000000001\"\n", ""},
		"both notations":   {"mqtt.profile: aws\nmqtt:\n  profile: aws\n", "already set in line 1"},
		"scalar root":      {"hello\n", "is not a mapping"},
		"list root":        {"- a\n", "is not a mapping"},
		"syntax":           {"region: [a\n", "line 1"},
		"two documents":    {"region: a\n---\nregion: b\n", "more than one document"},
		"anchor":           {"region: &x a\nendpoint: *x\n", "not a plain value"},
		"mapping for text": {"region:\n  name: a\n", "region.name: is not a setting"},
		"deep":             {"a:\n b:\n  c:\n   d:\n    e:\n     f:\n      g:\n       h:\n        i:\n         j: 1\n", "nested too deeply"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := sources(t, c.file, nil).Load()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestMissingNamedFile(t *testing.T) {
	t.Parallel()
	src := Sources{LookupEnv: func(name string) (string, bool) { return "/no/such/file.yaml", name == "MUSTER_CONFIG" }}
	if _, err := src.Load(); err == nil || !strings.Contains(err.Error(), "/no/such/file.yaml does not exist") {
		t.Errorf("got %v", err)
	}
}

func TestReloadTakesOnlyTheReloadable(t *testing.T) {
	t.Parallel()
	current, next := Default(), Default()
	next.Log.Level = "debug"
	next.TLSCert, next.TLSKey = "c", "k"
	next.Region = "local"
	next.TLSNames = []string{"x"}
	merged, restart := Reload(current, next)
	want := current
	want.Log.Level, want.TLSCert, want.TLSKey = "debug", "c", "k"
	if diff := cmp.Diff(want, merged); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"region", "tls-name"}, restart); diff != "" {
		t.Error(diff)
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	for _, s := range Describe() {
		if s.Path == "mqtt.profile" {
			want := Setting{Path: "mqtt.profile", Env: "MUSTER_MQTT_PROFILE", Default: "aws", Usage: s.Usage}
			if diff := cmp.Diff(want, s); diff != "" {
				t.Error(diff)
			}
			return
		}
	}
	t.Error("mqtt.profile is not described")
}

func TestSizes(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]int64{"0": 0, "1": 1, "1KiB": 1024, "3MiB": 3 << 20, "1TiB": 1 << 40} {
		var s size
		if err := s.Set(in); err != nil || int64(s) != want {
			t.Errorf("%q: %d, %v", in, s, err)
		}
		if s.String() != in {
			t.Errorf("%q came back as %q", in, s.String())
		}
	}
	for _, in := range []string{"", "-1", "1GB", "1.5GiB", "GiB", "9999999TiB", "18446744073709551615"} {
		var s size
		if err := s.Set(in); err == nil {
			t.Errorf("%q was accepted as %d", in, s)
		}
	}
}

func FuzzParseFile(f *testing.F) {
	for _, seed := range []string{
		"mqtt:\n  profile: aws\n", "a.b: c", "x: [1, 2]", "- a", "a: &b c", "{a: {b: c}}", "a: |\n  text\n", "? x\n: y", "a: !!binary x", "\t", "a: *",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 4096 {
			return
		}
		entries, _ := parseFile("f", data)
		for _, e := range entries {
			if e.path == "" || e.source == "" {
				t.Errorf("entry without path or source: %+v", e)
			}
		}
	})
}

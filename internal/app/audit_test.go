package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/account"
	"github.com/muster-iot/muster/internal/adminapi"
	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/audit"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// trailOf is what the trail holds, oldest first.
func trailOf(t *testing.T, a *App) []audit.Record {
	t.Helper()
	var records []audit.Record
	err := a.audit.Export(t.Context(), a.settings.AccountID, time.Time{}, time.Time{}, func(line []byte) error {
		var r audit.Record
		if err := json.Unmarshal(line, &r); err != nil {
			return err
		}
		if r.EventName != "" {
			records = append(records, r)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return records
}

// told is one record as the tests below compare it.
func told(r *audit.Record) string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %s %s", r.EventSource, r.EventName, r.UserIdentity.Type, r.ErrorCode))
}

func TestEveryKindOfCallIsRecorded(t *testing.T) {
	t.Parallel()
	s := settings(t)
	a, stop := started(t, s)
	defer stop()
	api := apiOf(t, a)
	call := func(service, method, path, body string, query url.Values) error {
		_, err := api.Raw(t.Context(), apiclient.Request{Service: service, Method: method, Path: path, Body: []byte(body), Query: query})
		return err
	}
	for _, c := range []struct {
		name, want string
		do         func() error
		// hides and shows are texts that the record must not, and must hold.
		hides, shows string
	}{
		{"ops call", "ops.muster GetDenials Root", func() error {
			return call("iot", http.MethodGet, "/ops/v1/connections/pump/denials", "", nil)
		}, "", `"path":"/ops/v1/connections/pump/denials"`},
		{"ops call that is refused", "ops.muster GetConnectionHistory Root InvalidRequest", func() error {
			return call("iot", http.MethodGet, "/ops/v1/things/a/connections", "", url.Values{"fro": {"x"}})
		}, "", `"fro":"x"`},
		{"ops call with what nobody knows", "ops.muster GetDenials Root InvalidRequest", func() error {
			return call("iot", http.MethodPost, "/ops/v1/connections/pump/explain", `{"action":"iot:Publish","sesame":"open-it"}`, nil)
		}, "open-it", "explain"},
		{"no ops call", "ops.muster UnknownOperation Unknown ResourceNotFound", func() error {
			return call("iot", http.MethodGet, "/ops/v1/nothing", "", nil)
		}, "", "/ops/v1/nothing"},
		{"token of a device", "iot.amazonaws.com TestInvokeAuthorizer Root ResourceNotFoundException", func() error {
			return call("iot", http.MethodPost, "/authorizer/none/test", `{"token":"open-it","tokenSignature":"b3Blbi1pdA==","mqttContext":{"username":"open-it","password":"b3Blbi1pdA=="},"tlsContext":{"serverName":"s"},"sesame":"open-it"}`, nil)
		}, "open-it", `"serverName":"s"`},
		{"unknown operation", "iot.amazonaws.com UnknownOperation Root UnknownOperationException", func() error {
			return call("iot", http.MethodGet, "/no/such/path", "", nil)
		}, "", ""},
		{"service that is not offered", "sns.amazonaws.com Publish Root UnsupportedOperationException", func() error {
			return call("sns", http.MethodPost, "/", "Action=Publish&Message=open-it", nil)
		}, "open-it", ""},
		{"body that is none", "iot.amazonaws.com CreateThing Root InvalidRequestException", func() error {
			return call("iot", http.MethodPost, "/things/pump", "{open-it", nil)
		}, "open-it", `"thingName":"pump"`},
	} {
		before := len(trailOf(t, a))
		err := c.do()
		got := trailOf(t, a)
		if len(got) != before+1 {
			t.Errorf("%s: %d records more (call: %v)", c.name, len(got)-before, err)
			continue
		}
		r := &got[before]
		if diff := cmp.Diff(c.want, told(r)); diff != "" {
			t.Errorf("%s: %s (call: %v)", c.name, diff, err)
		}
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if c.hides != "" && strings.Contains(string(text), c.hides) || !strings.Contains(string(text), c.shows) || r.RequestID == "" {
			t.Errorf("%s: %s", c.name, text)
		}
	}
	_, port, err := net.SplitHostPort(a.Addr(listenerTLS).String())
	if err != nil {
		t.Fatal(err)
	}
	credentials, err := apiclient.CredentialSources{DataDir: s.DataDir}.Load()
	if err != nil {
		t.Fatal(err)
	}
	secured, err := apiclient.New(apiclient.Options{Endpoint: "https://localhost:" + port, Credentials: credentials, CAFile: a.dir.Path("ca.pem"), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer secured.CloseIdle()
	for _, path := range []string{"/things", "/ops/v1/drain"} {
		if _, err := secured.Raw(t.Context(), apiclient.Request{Service: "iot", Method: http.MethodGet, Path: path}); err != nil {
			t.Fatal(err)
		}
		got := trailOf(t, a)
		if d := got[len(got)-1].TLSDetails; d == nil || d.TLSVersion != "TLSv1.3" || !strings.HasPrefix(d.CipherSuite, "TLS_") || d.ClientProvidedHostHeader != "localhost" {
			t.Errorf("%s: TLS details %+v", path, d)
		}
	}
	before := len(trailOf(t, a))
	if err := call("iotdata", http.MethodPost, "/topics/t", "open-it", nil); err != nil {
		t.Fatal(err)
	}
	if n := len(trailOf(t, a)); n != before {
		t.Errorf("a publish has %d records", n-before)
	}
}

func TestDataEventsAreRecordedWhenAskedFor(t *testing.T) {
	t.Parallel()
	s := settings(t)
	s.Audit.DataEvents = true
	a, stop := started(t, s)
	defer stop()
	api := apiOf(t, a)
	before := len(trailOf(t, a))
	for _, r := range []apiclient.Request{
		{Service: "iotdata", Method: http.MethodPost, Path: "/topics/t", Body: []byte("open-it")},
		{Service: "iotdata", Method: http.MethodPost, Path: "/things/pump/shadow", Body: []byte(`{"state":{"desired":{"open-it":1}}}`)},
	} {
		if _, err := api.Raw(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	got := trailOf(t, a)[before:]
	slices.SortFunc(got, func(x, y audit.Record) int { return strings.Compare(x.EventName, y.EventName) })
	if len(got) != 2 || got[0].EventName != "Publish" || got[1].EventName != "UpdateThingShadow" || got[0].ManagementEvent || got[0].EventCategory != "Data" {
		t.Fatalf("records %+v", got)
	}
	if text := fmt.Sprintf("%s%s", got[0].RequestParameters, got[1].RequestParameters); strings.Contains(text, "open-it") || !strings.Contains(text, "7 bytes") {
		t.Errorf("parameters %s", text)
	}
}

// Nobody's calls are recorded in the default account, without anything that was
// only claimed but the key, and not many of them.
func TestStrangersAreRecordedAndBounded(t *testing.T) {
	t.Parallel()
	s := settings(t)
	a, stop := started(t, s)
	defer stop()
	before := len(trailOf(t, a))
	stranger, err := apiclient.New(apiclient.Options{
		Endpoint: "http://" + a.Addr(listenerHTTP).String(), Now: time.Now,
		Credentials: apiclient.Credentials{AccessKeyID: "AKIASTRANGER", Secret: "guessed", Region: "r"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.CloseIdle()
	for range 50 {
		for _, path := range []string{"/things/pump", "/ops/v1/doctor"} {
			if _, err := stranger.Raw(t.Context(), apiclient.Request{Service: "iot", Method: http.MethodGet, Path: path}); err == nil {
				t.Fatal("a stranger is let in")
			}
		}
	}
	got := trailOf(t, a)[before:]
	if n := len(got); n < 2 || n > 20 {
		t.Errorf("%d records of 100 calls of strangers", n)
	}
	r := got[0]
	if told(&r) != "iot.amazonaws.com DescribeThing Unknown UnrecognizedClientException" || r.UserIdentity.AccessKeyID != "AKIASTRANGER" || r.UserIdentity.AccountID != "" {
		t.Errorf("record %+v", r)
	}
}

// Start and settings are in the trail; secrets of settings are not.
func TestStartAndSettingsAreRecorded(t *testing.T) {
	t.Parallel()
	s := settings(t)
	s.Function.Targets = []string{"f=http://127.0.0.1:1/x?key=open-it"}
	s.Function.SecretFile = filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(s.Function.SecretFile, []byte("open-it-open-it-open-it"), 0o600); err != nil {
		t.Fatal(err)
	}
	names := func(a *App) []string {
		var out []string
		for _, r := range trailOf(t, a) {
			if string(r.ServiceEventDetails) != "" && strings.Contains(string(r.ServiceEventDetails), "open-it") {
				t.Errorf("record %+v", r)
			}
			out = append(out, r.EventName)
		}
		return out
	}
	a, stop := started(t, s)
	if diff := cmp.Diff([]string{"AccountChanged", "ServerStarted", "ConfigurationChanged"}, names(a)); diff != "" {
		t.Error(diff)
	}
	stop()
	a, stop = started(t, s)
	if diff := cmp.Diff([]string{"AccountChanged", "ServerStarted", "ConfigurationChanged", "ServerStarted"}, names(a)); diff != "" {
		t.Error(diff)
	}
	next := s
	next.Log.Level = "debug"
	if _, err := a.Reload(next); err != nil {
		t.Fatal(err)
	}
	last := trailOf(t, a)
	if r := last[len(last)-1]; r.EventName != "ConfigurationChanged" || string(r.ServiceEventDetails) != `{"log.level":"debug"}` {
		t.Errorf("after a reload: %+v", r)
	}
	stop()
}

// A trail is looked at although its head, by which trails are known, is gone.
func TestDoctorVerifiesTrailsWithoutHead(t *testing.T) {
	t.Parallel()
	a, _ := started(t, settings(t))
	const north = fleet.Account("210000000001")
	if _, _, err := a.accounts.CreateAccount(t.Context(), a.settings.AccountID, account.NewAccount{ID: north, Name: "North"}); err != nil {
		t.Fatal(err)
	}
	if head, err := a.audit.Head(t.Context(), north); err != nil || head.Seq == 0 {
		t.Fatalf("head %+v, %v", head, err)
	}
	_, err := a.bare.Commit(t.Context(), store.Batch{Writes: []store.Write{{Key: store.K("audit-head", string(north)), Delete: true}}})
	if err != nil {
		t.Fatal(err)
	}
	report, err := a.Doctor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(report.Findings, func(f adminapi.Finding) bool {
		return f.Check == "audit" && strings.Contains(f.Subject, string(north))
	}) {
		t.Errorf("found %+v", report.Findings)
	}
}

// A certificate that a list revokes has a record of that, and the import names
// its authority.
func TestImportedRevocationsAreRecorded(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	acme := s.authority(registry.ModeDefault)
	devices := []badge{acme.badge(2, time.Hour), acme.badge(3, time.Hour)}
	if _, err := s.operator().ImportRevocationList(t.Context(), acme.id, acme.list(1, 2, 3)); err != nil {
		t.Fatal(err)
	}
	of := func(resource string) []string {
		page, err := s.audit.List(t.Context(), s.account, audit.Query{Resource: resource, Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, line := range page.Records {
			var r audit.Record
			if err := json.Unmarshal(line, &r); err != nil {
				t.Fatal(err)
			}
			names = append(names, r.EventName+" by "+r.UserIdentity.Type)
		}
		return names
	}
	for _, device := range devices {
		if names := of(device.arn); !slices.Contains(names, "CertificateStatusChanged by Root") {
			t.Errorf("of the certificate: %v", names)
		}
	}
	if names := of("cacert/" + acme.id); !slices.Contains(names, "ImportRevocationList by Root") {
		t.Errorf("of the authority: %v", names)
	}
}

// A follower hears of calls as they are made and does not hold up a stop.
func TestFollowerDoesNotHoldUpTheStop(t *testing.T) {
	t.Parallel()
	a, stop := started(t, settings(t))
	api := apiOf(t, a)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := api.Stream(ctx, apiclient.Request{Service: "iot", Method: http.MethodGet, Path: "/ops/v1/audit/follow", Query: url.Values{"name": {"CreateThing"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if _, err := api.Raw(ctx, apiclient.Request{Service: "iot", Method: http.MethodPost, Path: "/things/pump", Body: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	var r audit.Record
	if err := json.NewDecoder(stream).Decode(&r); err != nil || r.EventName != "CreateThing" {
		t.Errorf("the follower hears %+v, %v", r, err)
	}
	begun := time.Now()
	stop()
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the stop took %v", took)
	}
}

// Lists go on where they ended, while records are added; what is asked wrongly is
// named.
func TestAuditLists(t *testing.T) {
	t.Parallel()
	a, stop := started(t, settings(t))
	defer stop()
	api := apiOf(t, a)
	ask := func(operation string, query url.Values) (struct {
		Records   []audit.Record `json:"records"`
		NextToken string         `json:"nextToken"`
	}, error,
	) {
		var out struct {
			Records   []audit.Record `json:"records"`
			NextToken string         `json:"nextToken"`
		}
		err := api.JSON(t.Context(), apiclient.Request{Service: "iot", Method: http.MethodGet, Path: "/ops/v1/audit/" + operation, Query: query}, nil, &out)
		return out, err
	}
	for n := range 7 {
		if _, err := api.Raw(t.Context(), apiclient.Request{Service: "iot", Method: http.MethodPost, Path: fmt.Sprint("/things/pump-", n), Body: []byte("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	query := url.Values{"maxResults": {"2"}, "name": {"CreateThing"}}
	for {
		page, err := ask("records", query)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Records {
			names = append(names, strings.TrimPrefix(r.Resources[0].ARN, "arn:aws:iot:us-east-1:000000000000:"))
		}
		if page.NextToken == "" {
			break
		}
		query.Set("nextToken", page.NextToken)
	}
	if diff := cmp.Diff([]string{"thing/pump-6", "thing/pump-5", "thing/pump-4", "thing/pump-3", "thing/pump-2", "thing/pump-1", "thing/pump-0"}, names); diff != "" {
		t.Error(diff)
	}
	query.Set("name", "DeleteThing")
	for operation, wrong := range map[string]url.Values{
		"records": query, "export": {"from": {"yesterday"}}, "verify": {"head": {"{}"}}, "follow": {"after": {"-1"}}, "head": {"maxResults": {"x"}},
	} {
		if _, err := ask(operation, wrong); !apiclient.Is(err, "InvalidRequest") {
			t.Errorf("%s with %v: %v", operation, wrong, err)
		}
	}
	for _, wrong := range []url.Values{{"maxResults": {"0"}}, {"maxResults": {"251"}}, {"actr": {"x"}}, {"from": {"2026-01-02T00:00:00Z"}, "to": {"2026-01-01T00:00:00Z"}}} {
		if _, err := ask("records", wrong); !apiclient.Is(err, "InvalidRequest") {
			t.Errorf("records with %v: %v", wrong, err)
		}
	}
}

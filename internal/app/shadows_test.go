package app

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/shadow"
)

// versionsOf are a shadow's versions, one word each.
func versionsOf(t *testing.T, api *apiclient.Client, thing, name string) []string {
	t.Helper()
	found, err := api.ShadowHistory(t.Context(), thing, name, apiclient.Span{}, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, v := range found.Versions {
		out = append(out, v.Change+" "+v.By.Principal.Kind+" "+string(v.Patch))
	}
	return out
}

// Operators see who changed a shadow, what it was, and bring it back; devices
// are told as of any update. A restart changes nothing, and a decommissioned
// thing keeps its history.
func TestShadowHistoryThroughTheAPI(t *testing.T) {
	t.Parallel()
	s := settings(t)
	a, stop := started(t, s)
	ctx, account := t.Context(), s.AccountID
	if _, err := a.registry.CreateThing(ctx, account, registry.CreateThingCommand{Name: "pump"}); err != nil {
		t.Fatal(err)
	}
	d := newDevice(t, a)
	if err := a.registry.AttachThingPrincipal(ctx, account, "pump", d.arn, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := a.registry.CreatePolicy(ctx, account, "all", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`); err != nil {
		t.Fatal(err)
	}
	if err := a.registry.AttachPolicy(ctx, account, "all", d.arn); err != nil {
		t.Fatal(err)
	}
	api := apiOf(t, a)
	set := func(body string) {
		t.Helper()
		if _, err := api.UpdateShadow(ctx, "pump", "", []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	set(`{"state":{"desired":{"mode":"eco","rate":1.50}}}`)
	told := make(chan string, 16)
	conn, err := client.Dial(ctx, a.Addr(listenerMQTT).String(), &tls.Config{Certificates: []tls.Certificate{d.pair}, InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	device, err := client.Connect(ctx, conn, client.Options{ClientID: "pump", Version: mqtt.V5, OnMessage: func(p *mqtt.Publish) { told <- string(p.Payload) }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := device.Subscribe(ctx, mqtt.Subscription{Filter: "$aws/things/pump/shadow/update/accepted", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	if err := device.Publish(ctx, "$aws/things/pump/shadow/update", 1, []byte(`{"state":{"reported":{"mode":"eco","rate":1.5}}}`)); err != nil {
		t.Fatal(err)
	}
	set(`{"state":{"desired":{"mode":"max"}}}`)
	want := []string{
		`UPDATED user {"desired":{"mode":"max"}}`, `UPDATED certificate {"reported":{"mode":"eco","rate":1.5}}`, `UPDATED user {"desired":{"mode":"eco","rate":1.50}}`,
	}
	if diff := cmp.Diff(want, versionsOf(t, api, "pump", "")); diff != "" {
		t.Fatal(diff)
	}
	found, err := api.ShadowHistory(ctx, "pump", "", apiclient.Span{}, 2)
	if err != nil || found.Versions[1].By.ClientID != "pump" || found.Versions[1].By.Principal.ID != d.id || found.Versions[1].By.SourceAddress == "" || found.Versions[0].By.RequestID == "" {
		t.Errorf("%+v, %v", found, err)
	}
	drifts, err := api.ShadowDrift(ctx, apiclient.DriftFilter{Query: "thingName:pu*"}, 0)
	if err != nil || len(drifts.Shadows) != 1 || drifts.Shadows[0].Leaves[0].Path != "/mode" || string(drifts.Shadows[0].Leaves[0].Reported) != `"eco"` || drifts.Incomplete {
		t.Errorf("%+v, %v", drifts, err)
	}
	for _, filter := range []apiclient.DriftFilter{{Query: "thingName:x*"}, {OlderThan: "1h"}, {Thing: "other"}} {
		if drifts, err := api.ShadowDrift(ctx, filter, 0); err != nil || len(drifts.Shadows) != 0 {
			t.Errorf("%+v: %+v, %v", filter, drifts, err)
		}
	}
	var refused *apiclient.Error
	if _, err := api.ShadowDrift(ctx, apiclient.DriftFilter{Query: "a>>b"}, 0); !errors.As(err, &refused) || refused.Status != http.StatusBadRequest {
		t.Errorf("a query that is none: %v", err)
	}
	if _, err := api.RestoreShadow(ctx, "pump", "", apiclient.RestoreShadow{Version: 1, ExpectVersion: new(int64(2))}); !apiclient.Is(err, "Conflict") {
		t.Errorf("another version than expected: %v", err)
	}
	done, err := api.RestoreShadow(ctx, "pump", "", apiclient.RestoreShadow{Version: 2, ExpectVersion: new(int64(3))})
	if err != nil || done.Version != 4 || !strings.Contains(string(done.Accepted), `{"desired":{"mode":"eco"}}`) {
		t.Errorf("%+v, %v", done, err)
	}
	seen := ""
	for range 3 {
		select {
		case seen = <-told:
		case <-time.After(20 * time.Second):
			t.Fatal("the device is not told")
		}
	}
	if !strings.Contains(seen, `"state":{"desired":{"mode":"eco"}}`) || !strings.Contains(seen, `"version":4`) {
		t.Errorf("the device was told %s", seen)
	}
	diff, err := api.ShadowDiff(ctx, "pump", "", new(int64(0)), nil)
	if err != nil || diff.To != 4 || len(diff.Differences) != 4 || string(diff.Differences[1].New) != "1.50" {
		t.Errorf("%+v, %v", diff, err)
	}
	_ = device.Close()
	stop()
	a, stop = started(t, s)
	defer stop()
	api = apiOf(t, a)
	at, err := api.ShadowAt(ctx, "pump", "", 3)
	if err != nil || !strings.Contains(string(at.Document), `"desired":{"mode":"max","rate":1.50},"reported":{"mode":"eco","rate":1.5},"delta":{"mode":"max"}`) || at.Made.By.Principal.Kind != "user" {
		t.Errorf("%+v, %v", at, err)
	}
	if _, err := api.Decommission(ctx, "pump", apiclient.Decommissioning{}); err != nil {
		t.Fatal(err)
	}
	if got := versionsOf(t, api, "pump", ""); len(got) != 5 || got[0] != "DELETED user " || !strings.HasPrefix(got[1], "RESTORED user") {
		t.Errorf("after the decommission: %q", got)
	}
	if drifts, err := api.ShadowDrift(ctx, apiclient.DriftFilter{}, 0); err != nil || len(drifts.Shadows) != 0 {
		t.Errorf("%+v, %v", drifts, err)
	}
}

// The limits of shadows are settings.
func TestShadowLimitsAreSettings(t *testing.T) {
	t.Parallel()
	s := settings(t)
	s.Shadow.MaxDocumentBytes, s.Shadow.MaxDepth, s.Shadow.MaxRequestsPerSecond, s.Shadow.MaxInFlight, s.Shadow.HistoryVersions = 1<<10, 2, 3, 1, 0
	a := newApp(t, s)
	try := func(thing, body string) string {
		_, err := a.shadows.Update(t.Context(), shadow.UpdateCommand{Account: s.AccountID, Thing: thing, Body: []byte(body)})
		if err == nil {
			return ""
		}
		return string(fault.CodeOf(err)) + ": " + fault.From(err).Message
	}
	for name, x := range map[string]struct{ thing, body, want string }{
		"fits":  {"a", `{"state":{"desired":{"a":{"b":1}}}}`, ""},
		"depth": {"b", `{"state":{"desired":{"a":{"b":{}}}}}`, "InvalidRequest: JSON contains too many levels of nesting; maximum is 2"},
		"size":  {"c", `{"state":{"desired":{"a":"` + strings.Repeat("x", 1100) + `"}}}`, "RequestEntityTooLarge: The payload exceeds the maximum size allowed"},
	} {
		if got := try(x.thing, x.body); got != x.want {
			t.Errorf("%s: %s", name, got)
		}
	}
	refused := 0
	for range 8 {
		if try("d", `{"state":{}}`) == "Throttling: Too many requests for the thing" {
			refused++
		}
	}
	if refused < 4 {
		t.Errorf("%d of 8 requests in a moment are refused", refused)
	}
	if err := a.versions.Trim(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}

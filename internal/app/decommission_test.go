package app

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/store"
)

// ending is everything that a decommission acts on, with a step at which the
// process dies.
type ending struct {
	steps  []string
	dies   string
	lives  []registry.PastThing
	thing  bool
	online map[string]string // client id → principal
	stays  bool              // a session that does not end
}

var errDied = errors.New("died")

func (e *ending) step(name string) error {
	e.steps = append(e.steps, name)
	if e.dies == name {
		return errDied
	}
	return nil
}

func (e *ending) Decommission(_ context.Context, _ fleet.Account, c registry.DecommissionCommand) (registry.PastThing, error) {
	if err := e.step("registry"); err != nil {
		return registry.PastThing{}, err
	}
	if e.thing {
		e.thing = false
		past := registry.PastThing{Name: c.Name, ID: fmt.Sprint(len(e.lives)), Certificates: []registry.PastCertificate{{ID: "own", Revoked: true}, {ID: "shared", Shared: true}}}
		e.lives = append([]registry.PastThing{past}, e.lives...)
	}
	if len(e.lives) == 0 {
		return registry.PastThing{}, fault.New(fault.ResourceNotFound, "no such thing")
	}
	return e.lives[0], nil
}

func (e *ending) CompleteDecommission(_ context.Context, _ fleet.Account, past registry.PastThing) (registry.PastThing, error) {
	if err := e.step("complete " + past.ID); err != nil {
		return past, err
	}
	i := slices.IndexFunc(e.lives, func(p registry.PastThing) bool { return p.ID == past.ID })
	e.lives[i].Completed = time.Unix(1, 0)
	return e.lives[i], nil
}

func (e *ending) PastThings(context.Context, fleet.Account, string, registry.Page) (registry.Listed[registry.PastThing], error) {
	return registry.Listed[registry.PastThing]{Items: slices.Clone(e.lives)}, nil
}

func (e *ending) Connection(_ fleet.Account, clientID string) (broker.ConnectionInfo, bool) {
	principal, ok := e.online[clientID]
	return broker.ConnectionInfo{SessionInfo: broker.SessionInfo{ClientID: clientID, SessionID: "s-" + clientID, Principal: fleet.Principal{ID: principal}}}, ok
}

func (e *ending) Remove(_ fleet.Account, clientID string, o broker.RemoveOptions) bool {
	_, ok := e.online[clientID]
	e.steps = append(e.steps, fmt.Sprintf("remove %s %v", clientID, o.EndSession))
	if !e.stays {
		delete(e.online, clientID)
	}
	return ok
}

func (e *ending) RemovePrincipal(account fleet.Account, principalID string, _ broker.RemoveOptions) (removed []broker.ConnectionInfo) {
	e.steps = append(e.steps, "remove principal "+principalID)
	for id, principal := range e.online {
		if principal == principalID {
			info, _ := e.Connection(account, id)
			removed = append(removed, info)
			delete(e.online, id)
		}
	}
	return removed
}

func (e *ending) Flush(context.Context) error { return e.step("flush") }

func (e *ending) DeleteAll(_ context.Context, _ fleet.Account, thing string) (int, error) {
	return 0, e.step("shadows of " + thing)
}

func (e *ending) run(t *testing.T) (registry.PastThing, error) {
	t.Helper()
	e.steps = nil
	d := &decommission{registry: e, sessions: e, flush: e.Flush, shadows: e}
	return d.Decommission(t.Context(), "000000000000", registry.DecommissionCommand{Name: "T"})
}

// Each step leaves less than the one before; whoever repeats a call that died
// completes it, and what is complete is left alone.
func TestDecommissionCompletesWhatDied(t *testing.T) {
	t.Parallel()
	all := []string{"registry", "remove T true", "remove principal own", "flush", "shadows of T", "complete 0"}
	for _, dies := range []string{"", "registry", "flush", "shadows of T", "complete 0"} {
		e := &ending{thing: true, online: map[string]string{"T": "own", "T-2": "own", "other": "shared"}, dies: dies}
		_, err := e.run(t)
		if (err == nil) != (dies == "") || dies != "" && e.steps[len(e.steps)-1] != dies {
			t.Fatalf("%q: %v after %v", dies, err, e.steps)
		}
		e.dies = ""
		past, err := e.run(t)
		if err != nil || past.ID != "0" || past.Completed.IsZero() {
			t.Fatalf("%q: %+v, %v", dies, past, err)
		}
		if dies == "" {
			all = all[:1] // it was complete
		}
		if diff := cmp.Diff(all, e.steps); diff != "" {
			t.Errorf("%q (-want +got):\n%s", dies, diff)
		}
		if diff := cmp.Diff(map[string]string{"other": "shared"}, e.online); diff != "" {
			t.Errorf("%q: who is online (-want +got):\n%s", dies, diff)
		}
		all = []string{"registry", "remove T true", "remove principal own", "flush", "shadows of T", "complete 0"}
	}
}

// An incomplete former life is completed with the next.
func TestDecommissionCompletesFormerLives(t *testing.T) {
	t.Parallel()
	e := &ending{thing: true, dies: "shadows of T"}
	if _, err := e.run(t); !errors.Is(err, errDied) {
		t.Fatal(err)
	}
	e.dies, e.thing = "", true
	past, err := e.run(t)
	if err != nil || past.ID != "1" || e.lives[0].Completed.IsZero() || e.lives[1].Completed.IsZero() {
		t.Errorf("%+v, %v; lives %+v", past, err, e.lives)
	}
}

// A session that does not end is told, and the call can be repeated.
func TestDecommissionDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := &ending{thing: true, online: map[string]string{"T": "shared"}, stays: true}
		_, err := e.run(t)
		if fault.CodeOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "repeat the call") {
			t.Errorf("got %v", err)
		}
		e.stays = false
		if past, err := e.run(t); err != nil || past.Completed.IsZero() {
			t.Errorf("%+v, %v", past, err)
		}
	})
}

// api is an operator's client of a site.
func (s *site) api() *apiclient.Client {
	s.t.Helper()
	root, err := s.accounts.Root(s.t.Context(), s.account)
	s.need(err)
	api, err := apiclient.New(apiclient.Options{
		Endpoint: "http://" + s.Addr(listenerHTTP).String(), Now: time.Now,
		Credentials: apiclient.Credentials{AccessKeyID: root.ID, Secret: root.Secret, Region: s.settings.Region},
	})
	s.need(err)
	s.t.Cleanup(api.CloseIdle)
	return api
}

// gone waits for the end of a connection and returns why.
func (s *site) gone(c *client.Client) error {
	s.t.Helper()
	select {
	case <-c.Done():
		return c.Err()
	case <-time.After(10 * time.Second):
		s.t.Fatal("the connection stays")
		return nil
	}
}

// One call over the API ends a device: its connections under any client id, the
// stored session, shadows and certificates; another device that shares a
// certificate with it stays connected.
func TestDecommissionOfADevice(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx, api := t.Context(), s.api()
	own, shared := s.badge(&x509.Certificate{}), s.badge(&x509.Certificate{})
	s.policy("all", `{"Effect":"Allow","Action":"iot:*","Resource":"*"}`, own.arn, shared.arn)
	s.thing("pump-7", map[string]string{"site": "leeds"}, own.arn, shared.arn)
	s.thing("pump-8", nil, shared.arn)
	_, err := s.registry.CreateThingGroup(ctx, s.account, registry.CreateThingGroupCommand{Name: "hall"})
	s.need(err)
	s.need(s.registry.AddThingToThingGroup(ctx, s.account, registry.ThingAndGroup{ThingName: "pump-7", GroupName: "hall"}, false))
	for _, name := range []string{"", "config"} {
		_, err := s.shadows.Update(ctx, shadow.UpdateCommand{Account: s.account, Thing: "pump-7", Shadow: name, Body: []byte(`{"state":{"reported":{"a":1}}}`)})
		s.need(err)
	}
	persistent := func(id string) client.Options {
		o := client.Options{ClientID: id, Persistent: true}
		o.Properties.Set, o.Properties.SessionExpiry = mqtt.Of(mqtt.PropSessionExpiry), 300
		return o
	}
	away, _ := s.hears(own, persistent("pump-7/away"), "a")
	s.need(away.Disconnect())
	online, err := s.dial(shared, persistent("pump-7"))
	s.need(err)
	// This one ends by the revocation as well, maybe at the same moment.
	second, err := s.dial(own, persistent("pump-7/second"))
	s.need(err)
	other := s.connect(shared, "pump-8")

	past, err := api.Decommission(ctx, "pump-7", apiclient.Decommissioning{Reason: "scrapped"})
	s.need(err)
	if past.CompletedAt == "" || past.Reason != "scrapped" || past.Attributes["site"] != "leeds" || !slices.Equal(past.ThingGroups, []string{"hall"}) ||
		past.By.Principal.Kind == "" || len(past.Certificates) != 2 {
		t.Errorf("answer %+v", past)
	}
	for _, id := range []string{"pump-7", "pump-7/away", "pump-7/second"} {
		if _, err := s.store.Get(ctx, store.K("mqtt-session", string(s.account), id)); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("the stored session of %s: %v", id, err)
		}
	}
	_, _ = s.gone(online), s.gone(second)
	for _, id := range []string{"pump-7", "pump-7/away", "pump-7/second"} {
		if info, ok := s.broker.Connection(s.account, id); ok {
			t.Errorf("%s is left: %+v", id, info)
		}
	}
	s.need(other.Publish(ctx, "still/here", 1, nil))
	for id, want := range map[string]string{own.id: registry.StatusRevoked, shared.id: registry.StatusActive} {
		c, err := s.registry.DescribeCertificate(ctx, s.account, id)
		s.need(err)
		if c.Status != want {
			t.Errorf("certificate is %s, want %s", c.Status, want)
		}
	}
	if _, err := s.dial(own, client.Options{ClientID: "pump-7"}); err == nil {
		t.Error("the device is back")
	}
	if left, err := s.shadows.Documents(ctx, s.account, "pump-7"); err != nil || len(left) > 0 {
		t.Errorf("shadows %v, %v", left, err)
	}
	if _, err := api.DescribeThing(ctx, "pump-7"); !apiclient.Is(err, "ResourceNotFoundException") {
		t.Errorf("thing: %v", err)
	}

	// The name is free, and its history stays; repeating the act is harmless.
	again, err := api.Decommission(ctx, "pump-7", apiclient.Decommissioning{})
	s.need(err)
	if diff := cmp.Diff(past, again); diff != "" {
		t.Errorf("again (-first +second):\n%s", diff)
	}
	s.thing("pump-7", nil)
	for _, o := range []apiclient.Decommissioning{{Reason: "second"}, {}} {
		_, err = api.Decommission(ctx, "pump-7", o)
		s.need(err)
	}
	lives, err := api.PastThings(ctx, "pump-7", 0)
	s.need(err)
	if len(lives) != 2 || lives[0].Reason != "second" || lives[1].ThingID != past.ThingID || lives[0].ThingID == past.ThingID {
		t.Errorf("lives %+v", lives)
	}
	if _, err := api.Decommission(ctx, "nobody", apiclient.Decommissioning{}); !apiclient.Is(err, "ResourceNotFound") {
		t.Errorf("nobody: %v", err)
	}
	for _, body := range []string{`{"because":1}`, `{"reason":"a\nb"}`, `[]`} {
		err := api.JSON(ctx, apiclient.Request{Service: "iot", Method: http.MethodPost, Path: "/ops/v1/things/pump-8/decommission", Body: []byte(body)}, nil, nil)
		if !apiclient.Is(err, "InvalidRequest") {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// With keepCertificates the connections end and the certificate stays good.
func TestDecommissionThatKeepsCertificates(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	own := s.badge(&x509.Certificate{})
	s.policy("all", `{"Effect":"Allow","Action":"iot:*","Resource":"*"}`, own.arn)
	s.thing("pump-7", nil, own.arn)
	c := s.connect(own, "any")
	past, err := s.api().Decommission(t.Context(), "pump-7", apiclient.Decommissioning{KeepCertificates: true})
	s.need(err)
	if len(past.Certificates) != 1 || past.Certificates[0].Revoked {
		t.Errorf("certificates %+v", past.Certificates)
	}
	_ = s.gone(c)
	s.need(s.connect(own, "any").Publish(t.Context(), "a", 1, nil))
}

// fleet-management §1.2: shadows stay with DeleteThing unless the setting says
// otherwise.
func TestShadowsWithDeletedThings(t *testing.T) {
	t.Parallel()
	for _, together := range []bool{false, true} {
		s := newSite(t, func(a *App) { a.settings.Registry.DeleteShadowsWithThing = together })
		ctx := t.Context()
		s.thing("pump-7", nil)
		for _, name := range []string{"", "config"} {
			_, err := s.shadows.Update(ctx, shadow.UpdateCommand{Account: s.account, Thing: "pump-7", Shadow: name, Body: []byte(`{"state":{"desired":{"a":1}}}`)})
			s.need(err)
		}
		s.need(s.api().DeleteThing(ctx, "pump-7"))
		left, err := s.shadows.Documents(ctx, s.account, "pump-7")
		s.need(err)
		if want := map[bool]int{false: 2, true: 0}[together]; len(left) != want {
			t.Errorf("together %v: %d shadows are left, want %d", together, len(left), want)
		}
	}
}

// The rules of a type over the API: set, seen, enforced, tried, removed.
func TestAttributeRulesOverTheAPI(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ctx, api := t.Context(), s.api()
	_, err := s.registry.CreateThingType(ctx, s.account, registry.CreateThingTypeCommand{Name: "Pump"})
	s.need(err)
	for i := range 5 {
		_, err := api.CreateThing(ctx, fmt.Sprint("old-", i), "Pump", map[string]string{"hw": fmt.Sprint("r", i)})
		s.need(err)
	}
	if _, err := api.AttributeRules(ctx, "Pump"); !apiclient.Is(err, "ResourceNotFound") {
		t.Errorf("no rules: %v", err)
	}
	rules := []byte(`{"attributes":{"hw":{"required":true,"enum":["r1","r2"]},"floor":{"minimum":-2,"maximum":40}},"refuseUnknown":true}`)
	broken, err := api.CheckAttributeRules(ctx, "Pump", rules, 0)
	s.need(err)
	if len(broken) != 3 || broken[0].Thing != "old-0" || broken[0].Violations[0].Rule != "enum" {
		t.Errorf("broken %+v", broken)
	}
	s.need(api.SetAttributeRules(ctx, "Pump", rules))
	got, err := api.AttributeRules(ctx, "Pump")
	s.need(err)
	if diff := cmp.Diff(`{"attributes":{"floor":{"minimum":-2,"maximum":40},"hw":{"required":true,"enum":["r1","r2"]}},"refuseUnknown":true}`, strings.TrimSpace(string(got))); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	_, err = api.CreateThing(ctx, "new", "Pump", map[string]string{"hw": "r9"})
	if !apiclient.Is(err, "InvalidRequestException") || !strings.Contains(err.Error(), "attribute hw must be one of r1, r2: rule enum") {
		t.Errorf("against the rules: %v", err)
	}
	_, err = api.CreateThing(ctx, "new", "Pump", map[string]string{"hw": "r1"})
	s.need(err)
	again, err := api.CheckAttributeRules(ctx, "Pump", nil, 2)
	s.need(err)
	if len(again) != 2 {
		t.Errorf("broken %+v", again)
	}
	for _, bad := range []string{`{"attributes":{"hw":{"patern":"x"}}}`, `{"attributes":{"hw":{"pattern":"("}}}`, `{`, ``} {
		if err := api.SetAttributeRules(ctx, "Pump", []byte(bad)); !apiclient.Is(err, "InvalidRequest") {
			t.Errorf("%s: %v", bad, err)
		}
	}
	for _, query := range []string{"?maxResults=0", "?maxResults=251", "?maxResults=x", "?nextToken=forged", "?filter=x"} {
		err := api.JSON(ctx, apiclient.Request{Service: "iot", Method: http.MethodGet, Path: "/ops/v1/things/new/past", Query: parseQuery(query)}, nil, nil)
		if !apiclient.Is(err, "InvalidRequest") {
			t.Errorf("%s: %v", query, err)
		}
	}
	s.need(api.RemoveAttributeRules(ctx, "Pump"))
	s.need(api.RemoveAttributeRules(ctx, "Pump"))
	if err := api.RemoveAttributeRules(ctx, "None"); !apiclient.Is(err, "ResourceNotFound") {
		t.Errorf("no type: %v", err)
	}
}

func parseQuery(text string) map[string][]string {
	name, value, _ := strings.Cut(strings.TrimPrefix(text, "?"), "=")
	return map[string][]string{name: {value}}
}

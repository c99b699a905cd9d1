package app

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-iot/muster/internal/account"
	"github.com/muster-iot/muster/internal/authorizer"
	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/pki"
	"github.com/muster-iot/muster/internal/store"
)

const gateARN = "arn:aws:lambda:us-east-1:000000000000:function:gate"

// newGate starts a server whose authorizer gate is testdata/gate.sh.
func newGate(t *testing.T) *App {
	t.Helper()
	path, err := filepath.Abs("testdata/gate.sh")
	if err != nil {
		t.Fatal(err)
	}
	s := settings(t)
	s.Function.Targets = []string{"gate=exec:" + path}
	a := newApp(t, s)
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = a.authorizers.Create(t.Context(), a.settings.AccountID, authorizer.CreateCommand{
		Name: "gate", FunctionARN: gateARN, TokenKeyName: "jwt", Status: authorizer.StatusActive, SigningDisabled: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// admit connects to the shared port as a device without certificate.
func admit(t *testing.T, a *App, o client.Options) (*client.Client, error) {
	t.Helper()
	conn, err := client.Dial(t.Context(), a.Addr(listenerTLS).String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{pki.ALPNMQTT}})
	if err != nil {
		t.Fatal(err)
	}
	connected, err := client.Connect(t.Context(), conn, o)
	if err == nil {
		t.Cleanup(func() { _ = connected.Close() })
	}
	return connected, err
}

// TestCustomAuthorizerByALPN cites device plane 1.1 and 1.4: with the ALPN name
// mqtt a device needs no certificate, and the authorizer's policies count.
func TestCustomAuthorizerByALPN(t *testing.T) {
	t.Parallel()
	a := newGate(t)
	const named = "?x-amz-customauthorizer-name=gate"
	for name, o := range map[string]client.Options{
		"wrong password": {ClientID: "pump-1", Username: "u" + named, Password: []byte("close")},
		"no authorizer":  {ClientID: "pump-2", Username: "u", Password: []byte("open")},
		"other name":     {ClientID: "pump-3", Username: "u" + named + "s", Password: []byte("open")},
		"nothing at all": {ClientID: "pump-4"},
		"no permission":  {ClientID: "fan-1", Username: "u" + named, Password: []byte("open")},
	} {
		_, err := admit(t, a, o)
		if refused, ok := errors.AsType[*client.RefusedError](err); !ok || refused.Reason != 5 {
			t.Errorf("%s: got %v, want not authorized", name, err)
		}
	}
	for _, token := range []string{"die", "lie"} {
		_, err := admit(t, a, client.Options{ClientID: "pump-5", Username: "u" + named + "&jwt=" + token, Password: []byte("open")})
		if refused, ok := errors.AsType[*client.RefusedError](err); !ok || refused.Reason != 3 {
			t.Errorf("function that should %s: got %v, want server unavailable", token, err)
		}
	}
	connected, err := admit(t, a, client.Options{ClientID: "pump-7", Username: "u" + named + "&SDK=Go", Password: []byte("open")})
	if err != nil {
		t.Fatal(err)
	}
	if err := connected.Publish(t.Context(), "plant/pump-7/temp", 1, nil); err != nil {
		t.Error(err)
	}
	if _, err := a.authorizers.SetDefault(t.Context(), a.settings.AccountID, "gate"); err != nil {
		t.Fatal(err)
	}
	if _, err := admit(t, a, client.Options{ClientID: "pump-8", Username: "u?jwt=open"}); err != nil {
		t.Errorf("by default: %v", err)
	}
	// Another pump's topic ends the connection, as everywhere in this profile.
	if err := connected.Publish(t.Context(), "plant/pump-8/temp", 1, nil); err == nil {
		t.Error("published to a topic of another client")
	}
	<-connected.Done()
	if err := a.presence.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantPrincipals(t, a, map[string]string{"pump-7": "gatekeeper", "pump-8": "gatekeeper", "refused fan-1": "gatekeeper"})
}

// wantPrincipals compares who the log says has connected or was refused.
func wantPrincipals(t *testing.T, a *App, want map[string]string) {
	t.Helper()
	oldest, err := a.store.Oldest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	events, _, err := a.store.Events(t.Context(), oldest, 1000)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, env := range events {
		switch e := env.Event.(type) { //nolint:gochecksumtype // the others are of no interest
		case event.DeviceConnected:
			got[e.ClientID] = e.Principal
		case event.ConnectRefused:
			got["refused "+e.ClientID] = e.Principal
		}
	}
	for id, principal := range want {
		if got[id] != principal {
			t.Errorf("%s: principal %q, want %q", id, got[id], principal)
		}
	}
	if len(got) != len(want) {
		t.Errorf("the log tells of %v, want %v", got, want)
	}
}

// TestCustomAuthorizerByHTTP cites device plane 1.4: headers or query
// parameters bring the credentials.
func TestCustomAuthorizerByHTTP(t *testing.T) {
	t.Parallel()
	a := newGate(t)
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{pki.ALPNHTTP}}}
	t.Cleanup(transport.CloseIdleConnections)
	call := func(method, path string, headers ...string) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "https://"+a.Addr(listenerTLS).String()+path, strings.NewReader(`{"state":{"reported":{"a":1}}}`))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		answer, err := (&http.Client{Transport: transport}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(body)
	}
	named := []string{authorizer.KeyName, "gate", "jwt"}
	for name, c := range map[string]struct {
		method, path string
		headers      []string
		status       int
		text         string
	}{
		"headers":             {http.MethodPost, "/topics/http?qos=1", append(named, "open"), 200, "OK"},
		"query":               {http.MethodPost, "/topics/http?x-amz-customauthorizer-name=gate&jwt=open", nil, 200, "OK"},
		"bearer beside":       {http.MethodPost, "/topics/http", append(named, "open", "Authorization", "Bearer x"), 200, "OK"},
		"topic not allowed":   {http.MethodPost, "/topics/else", append(named, "open"), 403, "Not authorized to perform iot:Publish"},
		"variable unresolved": {http.MethodPost, "/topics/plant//temp", append(named, "open"), 403, "Not authorized"},
		"shadow":              {http.MethodPost, "/things/pump-7/shadow", append(named, "open"), 200, `"version":1`},
		"other shadow":        {http.MethodPost, "/things/pump-8/shadow", append(named, "open"), 403, "Not authorized"},
		"delete shadow":       {http.MethodDelete, "/things/pump-7/shadow", append(named, "open"), 403, "Not authorized"},
		"wrong token":         {http.MethodPost, "/topics/http", append(named, "close"), 403, "does not let the caller in"},
		"unknown authorizer":  {http.MethodPost, "/topics/http", []string{authorizer.KeyName, "none", "jwt", "open"}, 403, "does not let the caller in"},
		"function fails":      {http.MethodPost, "/topics/http", append(named, "die"), 500, "Internal failure"},
		"no credentials":      {http.MethodPost, "/topics/http", nil, 403, "Missing Authentication Token"},
		"control plane":       {http.MethodGet, "/things", append(named, "open"), 404, ""},
		"operations":          {http.MethodGet, "/ops/v1/doctor", append(named, "open"), 403, "Missing Authentication Token"},
	} {
		status, body := call(c.method, c.path, c.headers...)
		if status != c.status || !strings.Contains(body, c.text) {
			t.Errorf("%s: %d %s, want %d %s", name, status, body, c.status, c.text)
		}
	}
}

// memory is a store of one authorizer that needs no goroutine.
type memory struct {
	store.Store

	records map[store.Key]string
}

func (m *memory) Get(_ context.Context, k store.Key) (store.Record, error) {
	text, ok := m.records[k]
	if !ok {
		return store.Record{}, store.ErrNotFound
	}
	return store.Record{Key: k, Value: []byte(text), Version: 1}, nil
}

// oracle is a function whose answer the test changes.
type oracle struct {
	mu     sync.Mutex
	answer string
	asked  int
}

func (o *oracle) Has(string) bool { return true }

func (o *oracle) Invoke(context.Context, string, []byte, time.Duration) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked++
	if o.answer == "" {
		return nil, errors.New("out of order")
	}
	return []byte(o.answer), nil
}

func (o *oracle) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.asked
}

func (o *oracle) say(answer string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.answer = answer
}

// vouch is an answer that lets a principal publish to one topic.
func vouch(t *testing.T, principal, topic string) string {
	t.Helper()
	data, err := json.Marshal(map[string]any{
		"isAuthenticated": true, "principalId": principal, "disconnectAfterInSeconds": 3600, "refreshAfterInSeconds": 300,
		"policyDocuments": []string{`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"},
			{"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:us-east-1:000000000000:topic/` + topic + `"}]}`},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// newDoor is a door with an oracle behind it, all in virtual time.
func newDoor(t *testing.T, o *oracle, disconnected func(string)) *customDoor {
	t.Helper()
	names := &names{Directory: account.NewDirectory(account.DirectoryOptions{Default: "000000000000"})}
	authorizers, err := authorizer.New(authorizer.Options{
		Store: &memory{records: map[store.Key]string{
			store.K("authorizer", "000000000000", "gate"): `{"v":1,"function":"` + gateARN + `","status":"ACTIVE","signingDisabled":true}`,
		}},
		Region: "us-east-1", Functions: o, IsBusy: func(error) bool { return false }, Now: time.Now,
		NewID: func() string { return "id" }, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	devices, err := deviceauth.New(deviceauth.Options{
		Registry: deviceRegistry{}, Region: "us-east-1", Account: names.of, Disconnect: func(fleet.Account, string) {},
		Now: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return &customDoor{
		authorizers: authorizers, devices: devices, names: names, log: slog.New(slog.DiscardHandler), ctx: t.Context(),
		disconnect: func(_ fleet.Account, clientID string) { disconnected(clientID) },
	}
}

// TestPoliciesAreRefreshed cites device plane 1.4: the authorizer is asked again
// after refreshAfterInSeconds, and the connection ends after
// disconnectAfterInSeconds.
func TestPoliciesAreRefreshed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := &oracle{}
		o.say(vouch(t, "p1", "old"))
		var gone []string
		door := newDoor(t, o, func(id string) { gone = append(gone, id) })
		password := []byte("open")
		request := &broker.ConnectRequest{ClientID: "c", Username: "u?x-amz-customauthorizer-name=gate", Password: password, Transport: broker.TransportTLS}
		begun := time.Now()
		admission, err := door.Admit(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		if admission.Until.Sub(begun) != time.Hour || admission.UntilReason != broker.ReasonCustomAuthorExpired ||
			admission.Principal != (fleet.Principal{Kind: fleet.PrincipalCustom, ID: "p1"}) || admission.Indexed || admission.ThingName != "" {
			t.Errorf("admission %+v", admission)
		}
		may := func(want string) {
			t.Helper()
			synctest.Wait()
			for _, topic := range []string{"old", "new"} {
				if got := admission.Guard.CanPublish(topic, false); got != (topic == want) {
					t.Errorf("after %v: may publish to %s: %v, want only %q", time.Since(begun), topic, got, want)
				}
			}
		}
		may("old")
		o.say(vouch(t, "p1", "new"))
		time.Sleep(299 * time.Second)
		may("old")
		time.Sleep(2 * time.Second)
		may("new")
		// An authorizer that does not answer takes nothing away, and is asked again.
		o.say("")
		time.Sleep(301 * time.Second)
		may("new")
		before := o.count()
		time.Sleep(61 * time.Second)
		if after := o.count(); after == before || len(gone) > 0 {
			t.Errorf("asked %d times before, %d after; disconnected %v", before, after, gone)
		}
		// One that says no ends the connection.
		o.say(`{"isAuthenticated":false}`)
		time.Sleep(61 * time.Second)
		may("")
		if len(gone) != 1 || gone[0] != "c" {
			t.Errorf("disconnected %v", gone)
		}
		admission.Guard.Close()
		before = o.count()
		time.Sleep(time.Hour)
		if o.count() != before {
			t.Error("asked for a connection that has ended")
		}
	})
}

// TestRefreshForSomebodyElse ends the connection of a caller whose principal has
// changed, and asks no more after the connection has ended.
func TestRefreshForSomebodyElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := &oracle{}
		o.say(vouch(t, "p1", "old"))
		var gone []string
		door := newDoor(t, o, func(id string) { gone = append(gone, id) })
		admit := func(id string) broker.Guard {
			admission, err := door.Admit(t.Context(), &broker.ConnectRequest{ClientID: id, Username: "?x-amz-customauthorizer-name=gate"})
			if err != nil {
				t.Fatal(err)
			}
			return admission.Guard
		}
		kept, closed := admit("kept"), admit("closed")
		closed.Close()
		o.say(vouch(t, "p2", "old"))
		time.Sleep(301 * time.Second)
		synctest.Wait()
		if len(gone) != 1 || gone[0] != "kept" || kept.CanPublish("old", false) || o.asked != 3 {
			t.Errorf("disconnected %v, asked %d times", gone, o.asked)
		}
		kept.Close()
	})
}

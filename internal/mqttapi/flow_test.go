package mqttapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/store/embedded"
)

const account fleet.Account = "000000000001"

func instant() time.Time { return time.Unix(1795412345, 0) }

// open admits everybody to everything.
type open struct{}

func (open) Admit(_ context.Context, c *broker.ConnectRequest) (broker.Admission, error) {
	return broker.Admission{Account: account, Principal: fleet.Principal{Kind: fleet.PrincipalCertificate, ID: "c-" + c.ClientID}, Guard: open{}}, nil
}
func (open) CanPublish(string, bool) bool { return true }
func (open) CanSubscribe(string) bool     { return true }
func (open) CanReceive(string) bool       { return true }

func (open) Enrich(own []mqtt.UserProperty) []mqtt.UserProperty { return own }

func (open) Close() {}

// world is handler, shadows, store and broker as they are in the server.
type world struct {
	t       *testing.T
	engine  *embedded.Engine
	shadows *shadow.Service
	handler *Handler
	broker  *broker.Broker
}

func newWorld(t *testing.T, change ...func(*Options)) *world {
	t.Helper()
	w := &world{t: t}
	log := slog.New(slog.DiscardHandler)
	var err error
	w.engine, err = embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: log, CacheBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	w.shadows = shadow.New(shadow.Options{Store: w.engine, Now: instant})
	o := Options{
		Shadows: w.shadows, Now: instant, Logger: log,
		Publish: func(ctx context.Context, a fleet.Account, m broker.Message) error { return w.broker.Publish(ctx, a, m) },
	}
	for _, c := range change {
		c(&o)
	}
	w.handler = New(o)
	w.broker = broker.New(broker.Options{Gatekeeper: open{}, Service: w.handler, Logger: log, Now: time.Now})
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := errors.Join(w.broker.Shutdown(ctx), w.handler.Drain(ctx), w.engine.Close()); err != nil {
			t.Error(err)
		}
	})
	return w
}

// peer is a connected client that keeps what it receives.
type peer struct {
	*client.Client
	w    *world
	mu   sync.Mutex
	got  []string
	more chan struct{}
}

func (w *world) connect(id string, version mqtt.Version, will *mqtt.Will) *peer {
	w.t.Helper()
	near, far := net.Pipe()
	go func() { _ = w.broker.Handle(w.t.Context(), far, broker.ListenerOptions{}) }()
	p := &peer{w: w, more: make(chan struct{}, 1)}
	c, err := client.Connect(w.t.Context(), near, client.Options{
		ClientID: id, Version: version, Will: will, KeepAlive: 60,
		OnMessage: func(m *mqtt.Publish) {
			p.mu.Lock()
			p.got = append(p.got, string(m.Topic)+" "+string(m.Payload))
			p.mu.Unlock()
			select {
			case p.more <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	p.Client = c
	w.t.Cleanup(func() { _ = c.Close() })
	return p
}

func (p *peer) subscribe(filters ...string) {
	p.w.t.Helper()
	for _, f := range filters {
		if _, err := p.Subscribe(p.w.t.Context(), mqtt.Subscription{Filter: f, QoS: 1}); err != nil {
			p.w.t.Fatal(err)
		}
	}
}

// publish sends with QoS 1 and waits for the acknowledgement.
func (p *peer) publish(name, payload string) {
	p.w.t.Helper()
	if err := p.Publish(p.w.t.Context(), name, 1, []byte(payload)); err != nil {
		p.w.t.Fatal(err)
	}
}

// wait returns the first n messages as soon as they are there.
func (p *peer) wait(n int) []string {
	p.w.t.Helper()
	for {
		p.mu.Lock()
		got := append([]string(nil), p.got...)
		p.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-p.more:
		case <-time.After(10 * time.Second):
			p.w.t.Fatalf("received %d messages, waited for %d:\n%s", len(got), n, strings.Join(got, "\n"))
		}
	}
}

func (p *peer) expect(want ...string) {
	p.w.t.Helper()
	if diff := cmp.Diff(want, p.wait(len(want))); diff != "" {
		p.w.t.Errorf("messages differ (-want +got):\n%s", diff)
	}
}

// Device plane, 4.1 and 4.6: update, get and delete of both kinds of shadow.
func TestShadowRequestsAreAnswered(t *testing.T) {
	t.Parallel()
	for name, prefix := range map[string]string{"classic": "$aws/things/pump-7/shadow/", "named": "$aws/things/pump-7/shadow/name/cfg/"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			p := w.connect("pump-7", mqtt.V311, nil)
			p.subscribe(prefix+"+/accepted", prefix+"+/rejected", prefix+"update/delta", prefix+"update/documents")
			missing := map[string]string{"classic": "pump-7", "named": "cfg"}[name]
			p.publish(prefix+"get", `{"clientToken":"t0"}`)
			p.publish(prefix+"update", `{"state":{"desired":{"led":"on"}},"clientToken":"t1"}`)
			p.publish(prefix+"update", `{"state":{"reported":{"led":"on"}},"clientToken":"t2"}`)
			p.publish(prefix+"get", ``)
			p.publish(prefix+"delete", `{"clientToken":"t3"}`)
			p.publish(prefix+"delete", `no JSON`)
			p.expect(
				prefix+`get/rejected {"code":404,"message":"No shadow exists with name: '`+missing+`'","timestamp":1795412345,"clientToken":"t0"}`,
				prefix+`update/accepted {"state":{"desired":{"led":"on"}},"metadata":{"desired":{"led":{"timestamp":1795412345}}},"version":1,"timestamp":1795412345,"clientToken":"t1"}`,
				prefix+`update/delta {"version":1,"timestamp":1795412345,"state":{"led":"on"},"metadata":{"led":{"timestamp":1795412345}},"clientToken":"t1"}`,
				prefix+`update/documents {"previous":{"state":{},"metadata":{},"version":0},"current":{"state":{"desired":{"led":"on"}},"metadata":{"desired":{"led":{"timestamp":1795412345}}},"version":1},"timestamp":1795412345,"clientToken":"t1"}`,
				prefix+`update/accepted {"state":{"reported":{"led":"on"}},"metadata":{"reported":{"led":{"timestamp":1795412345}}},"version":2,"timestamp":1795412345,"clientToken":"t2"}`,
				prefix+`update/documents {"previous":{"state":{"desired":{"led":"on"}},"metadata":{"desired":{"led":{"timestamp":1795412345}}},"version":1},"current":{"state":{"desired":{"led":"on"},"reported":{"led":"on"}},"metadata":{"desired":{"led":{"timestamp":1795412345}},"reported":{"led":{"timestamp":1795412345}}},"version":2},"timestamp":1795412345,"clientToken":"t2"}`,
				prefix+`get/accepted {"state":{"desired":{"led":"on"},"reported":{"led":"on"}},"metadata":{"desired":{"led":{"timestamp":1795412345}},"reported":{"led":{"timestamp":1795412345}}},"version":2,"timestamp":1795412345}`,
				prefix+`delete/accepted {"version":2,"timestamp":1795412345,"clientToken":"t3"}`,
				prefix+`delete/rejected {"code":404,"message":"No shadow exists with name: '`+missing+`'","timestamp":1795412345}`,
			)
		})
	}
}

// Device plane, 4.8: numbers and texts; trap 11: the token is echoed.
func TestRejectedUpdates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const prefix = "$aws/things/pump-7/shadow/update"
	p := w.connect("c", mqtt.V5, nil)
	p.subscribe(prefix + "/rejected")
	p.publish(prefix, `{"state":{"reported":{"a":1}}}`)
	var want []string
	for _, c := range []struct{ body, answer string }{
		{`{`, `{"code":400,"message":"Invalid JSON","timestamp":1795412345}`},
		{`{"clientToken":"t"}`, `{"code":400,"message":"Missing required node: state","timestamp":1795412345,"clientToken":"t"}`},
		{`{"state":{"reported":{"a":2}},"version":9,"clientToken":"t"}`, `{"code":409,"message":"Version conflict","timestamp":1795412345,"clientToken":"t"}`},
		{`{"state":{"reported":{"a":"` + strings.Repeat("x", 9000) + `"}},"clientToken":"t"}`, `{"code":413,"message":"The payload exceeds the maximum size allowed","timestamp":1795412345,"clientToken":"t"}`},
		{"{\"state\":\"\xff\"}", `{"code":415,"message":"Unsupported documented encoding; supported encoding is UTF-8","timestamp":1795412345}`},
	} {
		p.publish(prefix, c.body)
		want = append(want, prefix+"/rejected "+c.answer)
	}
	p.expect(want...)
	if d, err := w.shadows.Get(t.Context(), account, "pump-7", ""); err != nil || d.Version != 1 {
		t.Errorf("after refusals: version %d, %v", d.Version, err)
	}
}

// The thing's name is checked by the domain; its refusal is an answer.
func TestBadThingNameIsRejected(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.connect("c", mqtt.V5, nil)
	p.subscribe("$aws/things/bad name/shadow/update/rejected")
	p.publish("$aws/things/bad name/shadow/update", `{"state":{},"clientToken":"t"}`)
	p.expect(`$aws/things/bad name/shadow/update/rejected {"code":400,"message":"Invalid thing name","timestamp":1795412345,"clientToken":"t"}`)
}

func TestManyUpdatesKeepOrderPerThing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const things, each = 8, 40
	watcher := w.connect("watcher", mqtt.V311, nil)
	watcher.subscribe("$aws/things/+/shadow/update/accepted")
	var wg sync.WaitGroup
	for i := range things {
		p := w.connect(fmt.Sprintf("t%d", i), mqtt.V311, nil)
		wg.Go(func() {
			for n := range each {
				name, body := fmt.Sprintf("$aws/things/t%d/shadow/update", i), fmt.Sprintf(`{"state":{"reported":{"n":%d}}}`, n)
				if err := p.Publish(t.Context(), name, 1, []byte(body)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	next := map[string]int{}
	for _, m := range watcher.wait(things * each) {
		name, payload, _ := strings.Cut(m, " ")
		want := fmt.Sprintf(`{"state":{"reported":{"n":%d}},"metadata":{"reported":{"n":{"timestamp":1795412345}}},"version":%d,`, next[name], next[name]+1)
		if !strings.HasPrefix(payload, want) {
			t.Fatalf("%s: %s, want %s…", name, payload, want)
		}
		next[name]++
	}
	for name, n := range next {
		if n != each {
			t.Errorf("%s: %d updates", name, n)
		}
	}
}

// A publish is acknowledged after its commit: what PUBACK confirms is stored.
func TestAcknowledgedIsStored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.connect("c", mqtt.V311, nil)
	for n := range 20 {
		p.publish("$aws/things/pump-7/shadow/update", fmt.Sprintf(`{"state":{"reported":{"n":%d}}}`, n))
		var stored []shadow.Document
		err := shadow.EachShadow(t.Context(), w.engine, account, func(d shadow.Document) error {
			stored = append(stored, d)
			return nil
		})
		if err != nil || len(stored) != 1 || string(stored[0].Reported()) != fmt.Sprintf(`{"n":%d}`, n) {
			t.Fatalf("after the acknowledgement of %d: %v, %v", n, stored, err)
		}
	}
}

// Device plane, 2.7: a will to a shadow topic is delivered and not processed.
func TestWillIsNoShadowRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const name = "$aws/things/pump-7/shadow/update"
	watcher := w.connect("watcher", mqtt.V311, nil)
	watcher.subscribe(name)
	body := `{"state":{"reported":{"gone":true}}}`
	p := w.connect("c", mqtt.V311, &mqtt.Will{Topic: name, Payload: []byte(body)})
	_ = p.Close()
	watcher.expect(name + " " + body)
	if err := w.handler.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.shadows.Get(t.Context(), account, "pump-7", ""); fault.CodeOf(err) != fault.ResourceNotFound {
		t.Errorf("the will made a shadow: %v", err)
	}
}

func TestPublishToAnOutputEndsTheConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, name := range []string{"$aws/things/pump-7/shadow/update/delta", "$aws/events/presence/connected/x", "$aws/things/pump-7/jobs/get", "$nothing"} {
		p := w.connect("c", mqtt.V5, nil)
		_ = p.Publish(t.Context(), name, 0, []byte(`{}`))
		select {
		case <-p.Done():
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: still connected", name)
		}
	}
}

// broken is a shadow service whose store does not answer.
type broken struct{ Shadows }

func (broken) Update(context.Context, shadow.UpdateCommand) (*shadow.Updated, error) {
	return nil, errors.New("no disk")
}

func TestFailureIsRejectedAndNotAcknowledged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *Options) { o.Shadows = broken{o.Shadows} })
	watcher := w.connect("watcher", mqtt.V311, nil)
	watcher.subscribe("$aws/things/pump-7/shadow/update/rejected")
	p := w.connect("c", mqtt.V5, nil)
	err := p.Publish(t.Context(), "$aws/things/pump-7/shadow/update", 1, []byte(`{"state":{}}`))
	var refused *client.RefusedError
	if !errors.As(err, &refused) || refused.Reason != mqtt.UnspecifiedError {
		t.Errorf("acknowledged with %v", err)
	}
	watcher.expect(`$aws/things/pump-7/shadow/update/rejected {"code":500,"message":"Internal service failure","timestamp":1795412345}`)
}

// slow holds updates until it is let go.
type slow struct {
	Shadows
	release chan struct{}
}

func (s slow) Update(ctx context.Context, cmd shadow.UpdateCommand) (*shadow.Updated, error) {
	<-s.release
	return s.Shadows.Update(ctx, cmd)
}

func TestTooManyRequestsOfAThingAreRejected(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	w := newWorld(t, func(o *Options) {
		o.Shadows, o.Limits = slow{o.Shadows, release}, ExecutorLimits{PerThing: 2}
	})
	const name = "$aws/things/pump-7/shadow/update"
	p := w.connect("c", mqtt.V311, nil)
	p.subscribe(name+"/rejected", name+"/accepted")
	for i := range 3 {
		if err := p.Publish(t.Context(), name, 0, fmt.Appendf(nil, `{"state":{},"clientToken":"t%d"}`, i)); err != nil {
			t.Fatal(err)
		}
	}
	p.wait(1)
	close(release)
	p.expect(
		name+`/rejected {"code":429,"message":"Too many in-flight requests for the thing","timestamp":1795412345,"clientToken":"t2"}`,
		name+`/accepted {"state":{},"metadata":{},"version":1,"timestamp":1795412345,"clientToken":"t0"}`,
		name+`/accepted {"state":{},"metadata":{},"version":2,"timestamp":1795412345,"clientToken":"t1"}`,
	)
}

// Device plane, 3.1: members and their order.
func TestLifecycleEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.connect("watcher", mqtt.V311, nil)
	p.subscribe("$aws/events/presence/#")
	s := event.Session{ClientID: "pump-7", SessionID: "7f0c", Principal: "9b1f", IPAddress: "192.0.2.44", Version: 12}
	exclusive := s
	exclusive.ThingName = "thing-7"
	wild := s
	wild.ClientID = "a/+"
	var batch []event.Envelope
	for _, e := range []event.Event{
		event.DeviceConnected{Session: s},
		event.DeviceDisconnected{Session: s, Reason: "MQTT_KEEP_ALIVE_TIMEOUT"},
		event.DeviceDisconnected{Session: exclusive, Reason: "CLIENT_INITIATED_DISCONNECT"},
		event.DeviceConnected{Session: wild},
		event.ShadowDeleted{Thing: "pump-7"},
		event.ConnectRefused{Session: s, Reason: "AUTHORIZATION_FAILED"},
	} {
		batch = append(batch, event.Envelope{Account: account, At: time.UnixMilli(1795412345123), Event: e})
	}
	if err := w.handler.Apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	p.expect(
		`$aws/events/presence/connected/pump-7 {"clientId":"pump-7","timestamp":1795412345123,"eventType":"connected","sessionIdentifier":"7f0c","principalIdentifier":"9b1f","ipAddress":"192.0.2.44","versionNumber":12}`,
		`$aws/events/presence/disconnected/pump-7 {"clientId":"pump-7","timestamp":1795412345123,"eventType":"disconnected","sessionIdentifier":"7f0c","principalIdentifier":"9b1f","clientInitiatedDisconnect":false,"disconnectReason":"MQTT_KEEP_ALIVE_TIMEOUT","versionNumber":12}`,
		`$aws/events/presence/disconnected/pump-7 {"clientId":"pump-7","thingName":"thing-7","timestamp":1795412345123,"eventType":"disconnected","sessionIdentifier":"7f0c","principalIdentifier":"9b1f","clientInitiatedDisconnect":true,"disconnectReason":"CLIENT_INITIATED_DISCONNECT","versionNumber":12}`,
		`$aws/events/presence/connect_failed/pump-7 {"clientId":"pump-7","timestamp":1795412345123,"eventType":"connect_failed","connectFailureReason":"AUTHORIZATION_FAILED","sessionIdentifier":"7f0c","principalIdentifier":"9b1f","ipAddress":"192.0.2.44"}`,
	)
}

// Device plane, 3.2: one message for each packet, behind the connect of the
// same connection; thingName as in presence; no topic for client ids with a
// wildcard.
func TestSubscriptionEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.connect("watcher", mqtt.V311, nil)
	p.subscribe("$aws/events/#")
	s := event.Session{ClientID: "pump-7", SessionID: "7f0c", ConnectionID: "1", Principal: "9b1f", IPAddress: "192.0.2.44", Version: 12}
	exclusive, wild := s, s
	exclusive.ThingName = "thing-7"
	wild.ClientID = "a#"
	long := strings.Repeat("x", 200)
	var many []string
	for range 100 {
		many = append(many, long)
	}
	var batch []event.Envelope
	for _, e := range []event.Event{
		event.DeviceConnected{Session: s},
		event.SubscriptionsChanged{Session: s, Subscribed: true, Filters: []string{"cmd/pump-7", "$aws/things/pump-7/jobs/notify-next"}},
		event.SubscriptionsChanged{Session: wild, Subscribed: true, Filters: []string{"a"}},
		event.SubscriptionsChanged{Session: exclusive, Filters: []string{"cmd/pump-7"}},
		event.SubscriptionsChanged{Session: s, Subscribed: true, Filters: many},
	} {
		batch = append(batch, event.Envelope{Account: account, At: time.UnixMilli(1795412345200), Event: e})
	}
	if err := w.handler.Apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	quoted := func(n int) string { return strings.Repeat(`,"`+long+`"`, n)[1:] }
	head := `{"clientId":"pump-7","timestamp":1795412345200,"eventType":"subscribed","sessionIdentifier":"7f0c","principalIdentifier":"9b1f","topics":[`
	p.expect(
		`$aws/events/presence/connected/pump-7 {"clientId":"pump-7","timestamp":1795412345200,"eventType":"connected","sessionIdentifier":"7f0c","principalIdentifier":"9b1f","ipAddress":"192.0.2.44","versionNumber":12}`,
		`$aws/events/subscriptions/subscribed/pump-7 `+head+`"cmd/pump-7","$aws/things/pump-7/jobs/notify-next"]}`,
		`$aws/events/subscriptions/unsubscribed/pump-7 {"clientId":"pump-7","thingName":"thing-7","timestamp":1795412345200,"eventType":"unsubscribed","sessionIdentifier":"7f0c","principalIdentifier":"9b1f","topics":["cmd/pump-7"]}`,
		`$aws/events/subscriptions/subscribed/pump-7 `+head+quoted(81)+`]}`,
		`$aws/events/subscriptions/subscribed/pump-7 `+head+quoted(19)+`]}`,
	)
}

// Device plane, 3.1: the thirteen reasons as they are; one of them is clean.
func TestEveryReasonIsPublished(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.connect("watcher", mqtt.V311, nil)
	p.subscribe("$aws/events/presence/#")
	var batch []event.Envelope
	var want []string
	for _, reason := range []string{
		"AUTH_ERROR", "CLIENT_INITIATED_DISCONNECT", "CLIENT_ERROR", "CONNECTION_LOST", "DUPLICATE_CLIENTID", "FORBIDDEN_ACCESS",
		"MQTT_KEEP_ALIVE_TIMEOUT", "SERVER_ERROR", "SERVER_INITIATED_DISCONNECT", "API_INITIATED_DISCONNECT", "THROTTLED",
		"WEBSOCKET_TTL_EXPIRATION", "CUSTOMAUTH_TTL_EXPIRATION",
	} {
		e := event.DeviceDisconnected{Session: event.Session{ClientID: "p", SessionID: "s", Principal: "c"}, Reason: reason}
		batch = append(batch, event.Envelope{Account: account, At: time.UnixMilli(1), Event: e})
		want = append(want, fmt.Sprintf(
			`$aws/events/presence/disconnected/p {"clientId":"p","timestamp":1,"eventType":"disconnected","sessionIdentifier":"s","principalIdentifier":"c","clientInitiatedDisconnect":%v,"disconnectReason":%q,"versionNumber":0}`,
			reason == "CLIENT_INITIATED_DISCONNECT", reason))
	}
	if err := w.handler.Apply(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	p.expect(want...)
}

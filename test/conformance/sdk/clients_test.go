package sdk

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/testkit"
)

// library is one of the clients that people use, in one version of MQTT.
type library interface {
	connect(t *testing.T, o *opening) (connection, error)
}

// connection is a client that has connected.
type connection interface {
	// resumed reports whether the server had a session; libraries that do not
	// tell say no.
	resumed() bool
	subscribe(filter string) error
	// publish sends with QoS 1 and waits for the acknowledgement.
	publish(topic, payload string, retain bool) error
	received() <-chan delivery
	leave() error
	// lives is how often the client connects for a publish, a subscription and
	// its end.
	lives() int
}

// delivery is a message that a client has received. properties are its user
// properties as "key=value", where the library tells them.
type delivery struct{ topic, payload, properties string }

// receive waits for a message.
func receive(c connection) (delivery, error) {
	select {
	case d := <-c.received():
		return d, nil
	case <-time.After(15 * time.Second):
		return delivery{}, fmt.Errorf("nothing was received")
	}
}

// matrix says which ways a library can take. What it leaves out, the library
// does not offer, or is not tested with; docs/connecting.md has the same table.
type matrix struct {
	name    string
	version int
	make    func(t *testing.T) library
	ways    []way
	// says is what the library says when each proof is refused.
	says map[wrong]string
	// tells whether the library says that a session was resumed.
	tells bool
}

// direct are all ways without WebSocket.
func direct() []way {
	return []way{overMQTT, overALPN, overShared, overPlain, customMQTT, customMQTTSigned}
}

// every is all the ways there are.
func every() []way {
	return append(direct(), signedQuery, signedHeader, signedWithoutTLS, customHeader, customQuery, customUsername, customUsernameToken)
}

func matrices() []matrix {
	sdkV2 := []way{overMQTT, overALPN, signedQuery, customMQTT, customMQTTSigned, customUsername, customUsernameToken}
	return []matrix{
		{name: "mqttjs", version: 4, make: javascript("mqttjs", 4), ways: every(), tells: true, says: map[wrong]string{
			inactive: "Not authorized", anothersSecret: "403", anothersPassword: "Not authorized", anothersToken: "Not authorized",
		}},
		{name: "mqttjs", version: 5, make: javascript("mqttjs", 5), ways: every(), tells: true, says: map[wrong]string{
			inactive: "Not authorized", anothersSecret: "403", anothersPassword: "Not authorized", anothersToken: "Not authorized",
		}},
		{name: "sdk-v1", version: 4, make: javascript("sdk-v1", 4), ways: []way{overMQTT, overALPN, signedQuery, customHeader, customQuery}, tells: true, says: map[wrong]string{
			inactive: "Not authorized", anothersSecret: "closed", anothersPassword: "Not authorized", anothersToken: "Not authorized",
		}},
		{name: "sdk-v2-311", version: 4, make: javascript("sdk-v2-311", 4), ways: sdkV2, tells: true, says: map[wrong]string{
			inactive: "AWS_ERROR_MQTT_PROTOCOL_ERROR", anothersSecret: "AWS_ERROR_HTTP_WEBSOCKET_UPGRADE_FAILURE", anothersPassword: "AWS_ERROR_MQTT_PROTOCOL_ERROR", anothersToken: "AWS_ERROR_MQTT_PROTOCOL_ERROR",
		}},
		{name: "sdk-v2-5", version: 5, make: javascript("sdk-v2-5", 5), ways: sdkV2, tells: true, says: map[wrong]string{
			inactive: "135", anothersSecret: "AWS_ERROR_HTTP_WEBSOCKET_UPGRADE_FAILURE", anothersPassword: "135", anothersToken: "135",
		}},
		{name: "paho.golang", version: 5, make: func(*testing.T) library { return autoPaho{} }, ways: every(), tells: true, says: map[wrong]string{
			inactive: "135", anothersSecret: "bad handshake", anothersPassword: "135", anothersToken: "135",
		}},
		{name: "mosquitto", version: 4, make: mosquitto(4), ways: direct(), says: map[wrong]string{
			inactive: "not authorised", anothersPassword: "not authorised", anothersToken: "not authorised",
		}},
		{name: "mosquitto", version: 5, make: mosquitto(5), ways: direct(), says: map[wrong]string{
			inactive: "Not authorized", anothersPassword: "Not authorized", anothersToken: "Not authorized",
		}},
	}
}

// TestClients takes every way with every client that can take it: connect,
// publish and be heard, subscribe and receive, leave so that the server sees it;
// every kind of proof is also refused once. By mutual TLS each client resumes a
// session, receives a retained message, and shares a subscription.
func TestClients(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for _, m := range matrices() {
		t.Run(fmt.Sprintf("%s MQTT %s", m.name, map[int]string{4: "3.1.1", 5: "5"}[m.version]), func(t *testing.T) {
			t.Parallel()
			l := m.make(t)
			// The example's authorizer wants letters and digits.
			prefix := strings.NewReplacer("-", "", ".", "").Replace(fmt.Sprintf("%sv%dx", m.name, m.version))
			for i, w := range m.ways {
				t.Run(w.name, func(t *testing.T) { p.converse(t, l, w, fmt.Sprintf("%s%d", prefix, i)) })
			}
			tried := map[wrong]bool{}
			for i, w := range m.ways {
				for _, is := range wrongs[w.proof] {
					if tried[is] || is == anothersToken && !w.signed {
						continue
					}
					tried[is] = true
					t.Run("refused with "+string(is), func(t *testing.T) { p.refuse(t, l, w, fmt.Sprintf("%sr%d", prefix, i), is, m.says[is]) })
				}
			}
			t.Run("resumes", func(t *testing.T) { p.resume(t, l, prefix+"resumes", m.tells) })
			t.Run("retained", func(t *testing.T) { p.retain(t, l, prefix+"retained") })
			t.Run("shares", func(t *testing.T) { p.share(t, l, prefix+"shares") })
		})
	}
}

// connect opens a connection that must succeed.
func (p *place) connect(t *testing.T, l library, w way, id string, persistent bool) connection {
	t.Helper()
	o := p.opening(t, w, id, nothingWrong)
	o.Persistent = persistent
	c, err := l.connect(t, o)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	return c
}

// converse goes through a life of a client.
func (p *place) converse(t *testing.T, l library, w way, id string) {
	t.Helper()
	c := p.connect(t, l, w, id, false)
	if err := c.publish("devices/"+id+"/up", "hello", false); err != nil {
		t.Fatalf("publish: %v", err)
	}
	if err := c.subscribe("commands/" + id); err != nil {
		t.Fatalf("subscribe: %v", err)
	}
	if err := p.watcher.Publish(t.Context(), "commands/"+id, 1, []byte("do "+id)); err != nil {
		t.Fatal(err)
	}
	if got, err := receive(c); err != nil || got != (delivery{topic: "commands/" + id, payload: "do " + id}) {
		t.Errorf("received %+v, %v", got, err)
	}
	if err := c.leave(); err != nil {
		t.Errorf("leave: %v", err)
	}
	connected, heard, ended := 0, false, 0
	p.waitFor(t, id, "connected, published and disconnected", func(s sighting) bool {
		switch {
		case s.Payload == "hello" && s.Topic == "devices/"+id+"/up":
			heard = true
		case s.EventType == "connected":
			connected++
			if want := p.principal(w, id); want != "" && s.Principal != want {
				t.Errorf("came as %q, want %q", s.Principal, want)
			}
		case s.EventType == "disconnected":
			ended++
			if !s.Clean || s.Reason != "CLIENT_INITIATED_DISCONNECT" {
				t.Errorf("left as %+v", s.farewell)
			}
		}
		// Presence and messages come by different roads.
		return heard && ended == c.lives()
	})
	if connected != c.lives() {
		t.Errorf("connected %d times, want %d", connected, c.lives())
	}
}

// refuse shows something wrong and demands to be told.
func (p *place) refuse(t *testing.T, l library, w way, id string, is wrong, says string) {
	t.Helper()
	o := p.opening(t, w, id, is)
	c, err := l.connect(t, o)
	if err == nil {
		err = c.publish("devices/"+id+"/up", "hello", false)
	}
	if err == nil || says == "" || !strings.Contains(err.Error(), says) {
		t.Errorf("%s: got %v, want %q", w.name, err, says)
	}
}

// resume leaves a session behind and finds in it what came meanwhile.
func (p *place) resume(t *testing.T, l library, id string, tells bool) {
	t.Helper()
	c := p.connect(t, l, overMQTT, id, true)
	if c.resumed() {
		t.Error("a session of before")
	}
	if err := c.subscribe("commands/" + id); err != nil {
		t.Fatal(err)
	}
	if err := c.leave(); err != nil {
		t.Fatal(err)
	}
	p.waitFor(t, id, "disconnected", func(s sighting) bool { return s.EventType == "disconnected" })
	for i := range 3 {
		if err := p.watcher.Publish(t.Context(), "commands/"+id, 1, fmt.Appendf(nil, "m%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	c = p.connect(t, l, overMQTT, id, true)
	if tells && !c.resumed() {
		t.Error("the session is not there")
	}
	if !tells { // mosquitto_sub cannot connect without subscribing
		if err := c.subscribe("commands/" + id); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		if got, err := receive(c); err != nil || got.payload != fmt.Sprintf("m%d", i) {
			t.Errorf("received %+v, %v, want message %d", got, err, i)
		}
	}
	if err := c.leave(); err != nil {
		t.Error(err)
	}
}

// retain keeps a message, and gets it as a newcomer.
func (p *place) retain(t *testing.T, l library, id string) {
	t.Helper()
	c := p.connect(t, l, overMQTT, id, false)
	topic := "devices/" + id + "/kept"
	if err := c.publish(topic, "kept", true); err != nil {
		t.Fatal(err)
	}
	if err := c.subscribe(topic); err != nil {
		t.Fatal(err)
	}
	if got, err := receive(c); err != nil || got != (delivery{topic: topic, payload: "kept"}) {
		t.Errorf("received %+v, %v", got, err)
	}
	if err := c.leave(); err != nil {
		t.Error(err)
	}
}

// share has two members of a group, of which one receives each message.
func (p *place) share(t *testing.T, l library, id string) {
	t.Helper()
	const messages = 20
	got := map[string]int{}
	members := []connection{p.connect(t, l, overMQTT, id+"A", false), p.connect(t, l, overMQTT, id+"B", false)}
	for _, c := range members {
		if err := c.subscribe("$share/crew/commands/" + id); err != nil {
			t.Fatal(err)
		}
	}
	for i := range messages {
		if err := p.watcher.Publish(t.Context(), "commands/"+id, 1, fmt.Appendf(nil, "m%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	counts := [2]int{}
	for range messages {
		select {
		case d := <-members[0].received():
			got[d.payload]++
			counts[0]++
		case d := <-members[1].received():
			got[d.payload]++
			counts[1]++
		case <-time.After(15 * time.Second):
			t.Fatalf("received %v, of members %v", got, counts)
		}
	}
	if len(got) != messages || counts[0] == 0 || counts[1] == 0 {
		t.Errorf("received %v, of members %v", got, counts)
	}
	for _, c := range members {
		if err := c.leave(); err != nil {
			t.Error(err)
		}
	}
	for i, c := range members {
		for len(c.received()) > 0 {
			// What a member had not acknowledged when it left goes to the other, once.
			if d := <-c.received(); got[d.payload] != 1 {
				t.Errorf("member %d received %+v besides", i, d)
			} else {
				got[d.payload]++
			}
		}
	}
}

// needJavaScript skips or fails without node and the libraries.
func needJavaScript(t *testing.T) {
	t.Helper()
	testkit.Need(t, "node", "npm")
	if err := needDevice(); err != nil {
		t.Fatal(err)
	}
}

package broker_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// device-plane §0.1: an answer that is for the requester alone reaches it once,
// subscribed or not, and nobody else; nor is its request routed.
func TestReplyIsForTheRequesterAlone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		subscribe *mqtt.Subscription
		connect   func(*mqtt.Connect)
		qos       byte
	}{
		"not subscribed":         {nil, nil, 1},
		"subscribed with 1":      {&mqtt.Subscription{Filter: "$aws/things/x/private/later/accepted", QoS: 1}, nil, 1},
		"subscribed with 0":      {&mqtt.Subscription{Filter: "$aws/things/+/private/later/+", QoS: 0}, nil, 0},
		"a session that lasts":   {nil, func(p *mqtt.Connect) { p.CleanStart = false }, 0},
		"subscribed and it last": {&mqtt.Subscription{Filter: "$aws/things/#", QoS: 1}, func(p *mqtt.Connect) { p.CleanStart = false }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, topic.AWS, func(w *world) {
				t := w.t
				curious := w.connect(mqtt.V311, "curious")
				curious.subscribe(mqtt.Subscription{Filter: "$aws/things/#", QoS: 1})
				var change []func(*mqtt.Connect)
				if c.connect != nil {
					change = append(change, c.connect)
				}
				p := w.connect(mqtt.V311, "device", change...)
				if c.subscribe != nil {
					p.subscribe(*c.subscribe)
				}
				p.send(&mqtt.Publish{QoS: 1, PacketID: 3, Topic: []byte("$aws/things/x/private/later"), Payload: []byte("request")})
				if got := curious.messages(); got != nil {
					t.Errorf("the request was routed: %q", got)
				}
				w.service.finish(0, nil)
				w.service.taken()[0].Reply("$aws/things/x/private/later/accepted", []byte("secret"))
				var lines []string
				var qos byte
				for _, packet := range p.all() {
					switch packet := packet.(type) {
					case *mqtt.Publish:
						lines, qos = append(lines, string(packet.Topic)+" "+string(packet.Payload)), packet.QoS
					default:
						lines = append(lines, "ack")
					}
				}
				if diff := cmp.Diff([]string{"ack", "$aws/things/x/private/later/accepted secret"}, lines); diff != "" {
					t.Errorf("received (-want +got):\n%s", diff)
				}
				if qos != c.qos {
					t.Errorf("QoS %d, want %d", qos, c.qos)
				}
				if got := curious.messages(); got != nil {
					t.Errorf("the answer was routed: %q", got)
				}
			})
		})
	}
}

// An answer is worth nothing to another connection of the client.
func TestReplyAfterTheConnection(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		lasting := func(p *mqtt.Connect) { p.CleanStart = false }
		p := w.connect(mqtt.V311, "device", lasting)
		p.subscribe(mqtt.Subscription{Filter: "$aws/things/#", QoS: 1})
		p.send(&mqtt.Publish{QoS: 1, PacketID: 3, Topic: []byte("$aws/things/x/private/later")})
		p.send(&mqtt.Disconnect{})
		w.service.taken()[0].Reply("$aws/things/x/private/later/accepted", []byte("secret"))
		again := w.connect(mqtt.V311, "device", lasting)
		w.service.taken()[0].Reply("$aws/things/x/private/later/accepted", []byte("secret"))
		if got := again.messages(); got != nil {
			t.Errorf("the next connection got %q", got)
		}
		w.service.finish(0, nil)
	})
}

// Policy decides about an answer as about any delivery.
func TestReplyNeedsReceive(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		t := w.t
		w.gate.refuse("receive $aws/things/x/private/now/accepted")
		p := w.connect(mqtt.V311, "device")
		p.send(&mqtt.Publish{Topic: []byte("$aws/things/x/private/now")})
		w.service.taken()[0].Reply("$aws/things/x/private/now/accepted", []byte("secret"))
		if got := p.messages(); got != nil {
			t.Errorf("received %q", got)
		}
	})
}

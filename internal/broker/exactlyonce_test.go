package broker_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// twice returns a message of QoS 2.
func twice(id uint16, name, payload string, dup bool) *mqtt.Publish {
	return &mqtt.Publish{QoS: 2, PacketID: id, Dup: dup, Topic: []byte(name), Payload: []byte(payload)}
}

// ack2 is one packet of the exchange for QoS 2.
func ack2(kind mqtt.Type, id uint16) *mqtt.Ack { return &mqtt.Ack{Kind: kind, PacketID: id} }

// answers takes one packet and demands that it is this acknowledgement.
func (p *peer) answers(kind mqtt.Type, id uint16) {
	p.t.Helper()
	got, ok := p.next().(*mqtt.Ack)
	if !ok || got.Kind != kind || got.PacketID != id || got.Reason.Failed() && kind != mqtt.TypePubcomp {
		p.t.Fatalf("%+v, want %s %d", got, kind, id)
	}
}

// The AWS profile has no QoS 2, in neither direction.
func TestNoQoS2OnAWS(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		p := w.connect(mqtt.V5, "c")
		p.send(twice(1, "a", "x", false))
		checkFarewell(w.t, p, mqtt.QoSNotSupported)
		old := w.connect(mqtt.V311, "old")
		old.send(twice(1, "a", "x", false))
		old.waitClosed()
	})
}

// A publisher's repetition before PUBREL is the same message, after it a new
// one; on a new connection of the session the exchange goes on where it was.
func TestQoS2FromPublisher(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		inWorld(t, topic.Standard, func(w *world) {
			sub := w.connect(v, "sub")
			sub.grants(mqtt.Subscription{Filter: "#"})
			p, _ := w.attach(v, "pub", false, resuming(3600))
			p.send(twice(5, "a", "1", false))
			p.answers(mqtt.TypePubrec, 5)
			p.send(twice(5, "a", "1", true))
			p.answers(mqtt.TypePubrec, 5)
			p.drop()
			p, _ = w.attach(v, "pub", true, resuming(3600))
			p.send(twice(5, "a", "1", true))
			p.answers(mqtt.TypePubrec, 5)
			p.send(ack2(mqtt.TypePubrel, 5))
			p.answers(mqtt.TypePubcomp, 5)
			p.send(ack2(mqtt.TypePubrel, 5)) // again, as after a loss
			p.answers(mqtt.TypePubcomp, 5)
			p.send(twice(5, "a", "2", false))
			p.answers(mqtt.TypePubrec, 5)
			p.send(ack2(mqtt.TypePubrel, 5))
			p.answers(mqtt.TypePubcomp, 5)
			sub.hears("a 1", "a 2")
		})
	})
}

// A subscriber at QoS 2 gets a message once: before PUBREC it comes again on a
// new connection, after it only PUBREL does.
func TestQoS2ToSubscriber(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		inWorld(t, topic.Standard, func(w *world) {
			p, _ := w.attach(v, "sub", false, resuming(3600))
			p.grants(mqtt.Subscription{Filter: "a", QoS: 2})
			p.drop()
			pub := w.connect(v, "pub")
			for i := range uint16(3) {
				pub.send(twice(i+1, "a", numbers(int(i), int(i)+1)[0], false))
				pub.answers(mqtt.TypePubrec, i+1)
				pub.send(ack2(mqtt.TypePubrel, i+1))
				pub.answers(mqtt.TypePubcomp, i+1)
			}
			pub.publish(plain(1, "a", "one"))
			p, _ = w.attach(v, "sub", true, resuming(3600))
			first := p.publishes()
			if diff := cmp.Diff([]string{"0", "1", "2", "one"}, payloads(first)); diff != "" {
				w.t.Fatalf("delivered (-want +got):\n%s", diff)
			}
			if first[0].QoS != 2 || first[3].QoS != 1 {
				w.t.Fatalf("QoS %d and %d", first[0].QoS, first[3].QoS)
			}
			p.send(ack2(mqtt.TypePubrec, first[0].PacketID))
			p.answers(mqtt.TypePubrel, first[0].PacketID)
			p.send(ack2(mqtt.TypePubrec, first[1].PacketID))
			p.answers(mqtt.TypePubrel, first[1].PacketID)
			p.send(ack2(mqtt.TypePubcomp, first[1].PacketID))
			p.ack(first[3].PacketID)
			if got := p.all(); len(got) != 0 {
				w.t.Fatalf("then %+v", got)
			}
			p.drop()
			p, _ = w.attach(v, "sub", true, resuming(3600))
			var rel []uint16
			var again []*mqtt.Publish
			for _, packet := range p.all() {
				switch packet := packet.(type) {
				case *mqtt.Ack:
					if packet.Kind != mqtt.TypePubrel {
						w.t.Errorf("%s %d", packet.Kind, packet.PacketID)
					}
					rel = append(rel, packet.PacketID)
				case *mqtt.Publish:
					again = append(again, packet)
				default:
					w.t.Errorf("%s", packet.Type())
				}
			}
			if diff := cmp.Diff([]uint16{first[0].PacketID}, rel); diff != "" {
				w.t.Errorf("PUBREL (-want +got):\n%s", diff)
			}
			if len(again) != 1 || again[0].PacketID != first[2].PacketID || !again[0].Dup || string(again[0].Payload) != "2" {
				w.t.Fatalf("again: %+v", again)
			}
			p.send(ack2(mqtt.TypePubcomp, rel[0]), ack2(mqtt.TypePubrec, again[0].PacketID))
			p.answers(mqtt.TypePubrel, again[0].PacketID)
			p.send(ack2(mqtt.TypePubcomp, again[0].PacketID))
			p.drop()
			p, _ = w.attach(v, "sub", true, resuming(3600))
			p.hears()
		})
	})
}

// QoS 2 counts into the window until it is complete, and goes down to what the
// subscription allows.
func TestQoS2AndWindow(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.Standard, func(w *world) {
		p := w.connect(mqtt.V5, "sub", receiving(2))
		p.grants(mqtt.Subscription{Filter: "a", QoS: 2})
		one := w.connect(mqtt.V5, "one")
		one.grants(mqtt.Subscription{Filter: "a", QoS: 1})
		pub := w.connect(mqtt.V5, "pub")
		for i := range uint16(4) {
			pub.send(twice(i+1, "a", "x", false))
		}
		for _, m := range one.publishes() {
			if m.QoS != 1 {
				w.t.Errorf("QoS %d at a subscription of 1", m.QoS)
			}
		}
		got := p.publishes()
		if len(got) != 2 {
			w.t.Fatalf("%d in a window of 2", len(got))
		}
		p.send(ack2(mqtt.TypePubrec, got[0].PacketID))
		p.answers(mqtt.TypePubrel, got[0].PacketID)
		p.hears()
		p.send(ack2(mqtt.TypePubcomp, got[0].PacketID))
		p.hears("a x")
		// A refusal ends the exchange at once.
		p.send(&mqtt.Ack{Kind: mqtt.TypePubrec, PacketID: got[1].PacketID, Reason: mqtt.UnspecifiedError})
		p.hears("a x")
	})
}

package broker_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// everyProperty are all properties that travel with a message.
func everyProperty() mqtt.Properties {
	return mqtt.Properties{
		Set: mqtt.Of(mqtt.PropPayloadFormat, mqtt.PropMessageExpiry, mqtt.PropContentType, mqtt.PropResponseTopic,
			mqtt.PropCorrelationData),
		PayloadFormat: 1, MessageExpiry: 1000, ContentType: "text/plain", ResponseTopic: "answer/here", CorrelationData: []byte{0, 1, 0xFF},
		UserProperties: []mqtt.UserProperty{{Key: "b", Value: "1"}, {Key: "a", Value: "2"}, {Key: "b", Value: "1"}, {Key: "", Value: ""}},
	}
}

// Properties survive the queue and the window of a session, for whoever
// understands them.
func TestPropertiesAreStored(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, v mqtt.Version) {
		t.Helper()
		inWorld(t, topic.AWS, func(w *world) {
			p, _ := w.attach(v, "c", false, resuming(3600))
			p.grants(mqtt.Subscription{Filter: "a", QoS: 1})
			p.drop()
			pub := w.connect(mqtt.V5, "pub")
			m := plain(1, "a", "x")
			m.Properties = everyProperty()
			pub.publish(m)
			var want mqtt.Properties
			if v == mqtt.V5 {
				want = everyProperty()
			}
			for i := range 2 { // from the queue, then from the window
				p, _ = w.attach(v, "c", true, resuming(3600))
				got := p.publishes()
				if len(got) != 1 {
					w.t.Fatalf("%d messages", len(got))
				}
				if diff := cmp.Diff(want, got[0].Properties); diff != "" {
					w.t.Errorf("delivery %d (-want +got):\n%s", i, diff)
				}
				p.drop()
			}
		})
	})
}

// Aliases belong to one connection, in both directions.
func TestAliasesEndWithTheConnection(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		alias := func(name string, n uint16) *mqtt.Publish {
			return &mqtt.Publish{Topic: []byte(name), Properties: mqtt.Properties{Set: mqtt.Of(mqtt.PropTopicAlias), TopicAlias: n}}
		}
		p, _ := w.attach(mqtt.V5, "c", false, resuming(3600))
		p.send(alias("a", 1), alias("", 1))
		p.drop()
		p, _ = w.attach(mqtt.V5, "c", true, resuming(3600))
		p.send(alias("", 1))
		checkFarewell(w.t, p, mqtt.TopicAliasInvalid)
	})
}

// A client gets aliases only if it has said so, within its limit, and each is
// introduced with its topic on every connection anew.
func TestAliasesTowardsClients(t *testing.T) {
	t.Parallel()
	const topics = 4
	for _, maximum := range []uint16{0, 2, 10} {
		t.Run(fmt.Sprint(maximum), func(t *testing.T) {
			t.Parallel()
			inWorld(t, topic.AWS, func(w *world) {
				allow := func(c *mqtt.Connect) {
					c.Properties.Set |= mqtt.Of(mqtt.PropTopicAliasMaximum)
					c.Properties.TopicAliasMaximum = maximum
				}
				p, _ := w.attach(mqtt.V5, "c", false, resuming(3600), allow)
				p.grants(mqtt.Subscription{Filter: "#", QoS: 1})
				pub := w.connect(mqtt.V311, "pub")
				for round := range 3 {
					known := map[uint16]string{}
					for i := range 5 * topics {
						pub.publish(plain(1, fmt.Sprintf("t/%d", i%topics), fmt.Sprint(i%topics)))
					}
					for _, m := range p.publishes() {
						name := string(m.Topic)
						if m.Properties.Set.Has(mqtt.PropTopicAlias) {
							n := m.Properties.TopicAlias
							if n == 0 || n > maximum {
								w.t.Fatalf("alias %d, the maximum is %d", n, maximum)
							}
							if name != "" {
								known[n] = name
							}
							name = known[n]
						}
						if name != "t/"+string(m.Payload) {
							w.t.Fatalf("round %d: topic %q for %s, message %+v", round, name, m.Payload, m)
						}
					}
					// Everything is unacknowledged and comes again.
					p.drop()
					p, _ = w.attach(mqtt.V5, "c", true, resuming(3600), allow)
				}
			})
		})
	}
}

package broker_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// script is a connection that delivers given bytes and swallows answers.
type script struct {
	*bytes.Reader
	once   sync.Once
	closed chan struct{}
}

func (*script) Write(b []byte) (int, error)      { return len(b), nil }
func (*script) LocalAddr() net.Addr              { return &net.UnixAddr{Name: "script"} }
func (*script) RemoteAddr() net.Addr             { return &net.UnixAddr{Name: "script"} }
func (*script) SetDeadline(time.Time) error      { return nil }
func (*script) SetReadDeadline(time.Time) error  { return nil }
func (*script) SetWriteDeadline(time.Time) error { return nil }

func (s *script) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// Whatever a client sends, its own session ends and nothing else happens: the
// broker can be shut down in good order.
func FuzzSession(f *testing.F) {
	add := func(v mqtt.Version, packets ...mqtt.Packet) {
		var b []byte
		for _, p := range packets {
			b, _ = p.Append(b, v)
		}
		f.Add(b, v == mqtt.V5, false)
		f.Add(b, v == mqtt.V5, true)
	}
	sub := &mqtt.Subscribe{PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "a/#", QoS: 1}, {Filter: "$aws/things/+"}}}
	for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
		add(v, sub, message(1, "a/b", "x"), message(0, "$aws/things/x", ""), &mqtt.Ack{Kind: mqtt.TypePuback, PacketID: 1},
			&mqtt.Unsubscribe{PacketID: 1, Filters: []string{"a/#"}}, &mqtt.Pingreq{}, &mqtt.Disconnect{})
	}
	add(mqtt.V5, &mqtt.Publish{Topic: []byte("a"), Properties: mqtt.Properties{Set: mqtt.Of(mqtt.PropTopicAlias), TopicAlias: 1}})
	f.Fuzz(func(t *testing.T, input []byte, five, standard bool) {
		profile, version := topic.AWS, mqtt.V311
		if standard {
			profile = topic.Standard
		}
		if five {
			version = mqtt.V5
		}
		b := broker.New(broker.Options{
			Profile: profile, Gatekeeper: &gate{}, Service: &service{}, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
		})
		connect, err := connectPacket(version, "c", withWill("will")).Append(nil, version)
		if err != nil {
			t.Fatal(err)
		}
		conn := &script{Reader: bytes.NewReader(append(connect, input...)), closed: make(chan struct{})}
		_ = b.Handle(t.Context(), conn, broker.ListenerOptions{})
		<-conn.closed
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		if err := b.Shutdown(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

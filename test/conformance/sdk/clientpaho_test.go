package sdk

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"

	"github.com/muster-iot/muster/internal/testkit"
)

// autoPaho is paho.golang with its connection manager; it speaks MQTT 5.
type autoPaho struct{}

// pahoConfig is what the library needs for a way.
func pahoConfig(t *testing.T, o *opening, ca *tls.Config) (autopaho.ClientConfig, error) {
	t.Helper()
	to, err := url.Parse(o.URL)
	if err != nil {
		return autopaho.ClientConfig{}, err
	}
	config := autopaho.ClientConfig{
		ServerUrls: []*url.URL{to}, TlsCfg: ca, KeepAlive: 60, CleanStartOnInitialConnection: !o.Persistent,
		ReconnectBackoff: func(attempt int) time.Duration { return time.Duration(min(attempt, 1)) * 100 * time.Millisecond },
		ConnectUsername:  o.Username, ConnectPassword: []byte(o.Password),
		WebSocketCfg: &autopaho.WebSocketConfig{Header: func(*url.URL, *tls.Config) http.Header {
			h := http.Header{}
			for name, value := range o.Headers {
				h.Set(name, value)
			}
			return h
		}},
		ClientConfig: paho.ClientConfig{ClientID: o.ClientID},
	}
	if o.Persistent {
		config.SessionExpiryInterval = 3600
	}
	if o.Cert != "" {
		config.TlsCfg.Certificates = []tls.Certificate{identity{cert: o.Cert, key: o.Key}.pair(t)}
	}
	if o.ALPN != "" {
		config.TlsCfg.NextProtos = []string{o.ALPN}
	}
	return config, nil
}

// trust is a TLS configuration with the server's CA alone.
func trust(t *testing.T, o *opening) *tls.Config {
	t.Helper()
	return &tls.Config{MinVersion: tls.VersionTLS12, ServerName: "localhost", RootCAs: pool(t, o.CA)}
}

func (autoPaho) connect(t *testing.T, o *opening) (connection, error) {
	t.Helper()
	config, err := pahoConfig(t, o, trust(t, o))
	if err != nil {
		return nil, err
	}
	c := &pahoConnection{ctx: t.Context(), deliveries: make(chan delivery, 64)}
	up, failed := make(chan *paho.Connack, 1), make(chan error, 1)
	config.OnConnectionUp = func(_ *autopaho.ConnectionManager, ack *paho.Connack) { up <- ack }
	config.OnConnectError = func(err error) {
		select {
		case failed <- err:
		default: // the first one counts
		}
	}
	config.OnPublishReceived = []func(paho.PublishReceived) (bool, error){func(m paho.PublishReceived) (bool, error) {
		c.deliveries <- delivery{m.Packet.Topic, string(m.Packet.Payload), userProperties(m.Packet)}
		return true, nil
	}}
	ctx, cancel := context.WithCancel(t.Context())
	if c.manager, err = autopaho.NewConnection(ctx, config); err != nil {
		cancel()
		return nil, err
	}
	t.Cleanup(func() {
		cancel()
		<-c.manager.Done()
	})
	select {
	case ack := <-up:
		c.wasResumed = ack.SessionPresent
		return c, nil
	case err := <-failed:
		cancel()
		if refused, ok := errors.AsType[*autopaho.ConnackError](err); ok {
			err = fmt.Errorf("reason code %d: %w", refused.ReasonCode, err)
		}
		return nil, err
	case <-time.After(15 * time.Second):
		return nil, errors.New("neither connected nor refused")
	}
}

// pahoConnection is a connection manager.
type pahoConnection struct {
	ctx        context.Context //nolint:containedctx // it is the test's
	manager    *autopaho.ConnectionManager
	wasResumed bool
	deliveries chan delivery
}

func (c *pahoConnection) resumed() bool { return c.wasResumed }

func (c *pahoConnection) subscribe(filter string) error {
	_, err := c.manager.Subscribe(c.ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: 1}}})
	return err
}

func (c *pahoConnection) publish(topic, payload string, retain bool) error {
	_, err := c.manager.Publish(c.ctx, &paho.Publish{Topic: topic, Payload: []byte(payload), QoS: 1, Retain: retain})
	return err
}

func (c *pahoConnection) received() <-chan delivery { return c.deliveries }

func (c *pahoConnection) leave() error { return c.manager.Disconnect(c.ctx) }

func (c *pahoConnection) lives() int { return 1 }

// TestPahoSurvivesACrash has a client that reconnects by itself: the server is
// killed while a message is unacknowledged, and the session goes on.
func TestPahoSurvivesACrash(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	o := p.opening(t, overMQTT, "survivor", nothingWrong)
	o.Persistent = true
	config, err := pahoConfig(t, o, trust(t, o))
	if err != nil {
		t.Fatal(err)
	}
	up := make(chan bool, 16)
	deliveries := make(chan *paho.Publish, 64)
	acknowledge := make(chan struct{})
	config.OnConnectionUp = func(_ *autopaho.ConnectionManager, ack *paho.Connack) { up <- ack.SessionPresent }
	config.EnableManualAcknowledgment = true
	config.OnPublishReceived = []func(paho.PublishReceived) (bool, error){func(m paho.PublishReceived) (bool, error) {
		deliveries <- m.Packet
		select {
		case <-acknowledge:
			return true, m.Client.Ack(m.Packet)
		default:
			return true, nil
		}
	}}
	manager, err := autopaho.NewConnection(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	next := func() *paho.Publish {
		select {
		case m := <-deliveries:
			return m
		case <-time.After(20 * time.Second):
			t.Fatal("nothing was received")
			panic("unreachable")
		}
	}
	wait := func(want bool) {
		select {
		case got := <-up:
			if got != want {
				t.Errorf("session present: %v, want %v", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("not connected")
		}
	}
	wait(false)
	if _, err := manager.Subscribe(t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "commands/survivor", QoS: 1}}}); err != nil {
		t.Fatal(err)
	}
	if err := p.watcher.Publish(t.Context(), "commands/survivor", 1, []byte("before")); err != nil {
		t.Fatal(err)
	}
	if m := next(); string(m.Payload) != "before" || m.Duplicate() {
		t.Errorf("received %v", m)
	}
	p.server.Kill()
	close(acknowledge)
	p.server.Start()
	wait(true)
	if m := next(); string(m.Payload) != "before" {
		t.Errorf("received %q again, want what was not acknowledged", m.Payload)
	}
	p.watch()
	if err := p.watcher.Publish(t.Context(), "commands/survivor", 1, []byte("after")); err != nil {
		t.Fatal(err)
	}
	if m := next(); string(m.Payload) != "after" {
		t.Errorf("received %q", m.Payload)
	}
	if err := manager.Disconnect(t.Context()); err != nil {
		t.Error(err)
	}
	testkit.Poll(t, 10*time.Second, "nothing is left to be received", func() error {
		if len(deliveries) > 0 {
			return fmt.Errorf("received besides: %q", (<-deliveries).Payload)
		}
		return nil
	})
}

// userProperties are those of a message, as deliveries have them.
func userProperties(p *paho.Publish) string {
	if p.Properties == nil {
		return ""
	}
	var pairs []string
	for _, property := range p.Properties.User {
		pairs = append(pairs, property.Key+"="+property.Value)
	}
	return strings.Join(pairs, " ")
}

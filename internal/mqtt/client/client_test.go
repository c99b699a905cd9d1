package client_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open admits everybody but "stranger" and lets nobody publish to "no".
type open struct{}

func (open) Admit(_ context.Context, c *broker.ConnectRequest) (broker.Admission, error) {
	if c.ClientID == "stranger" {
		return broker.Admission{}, fault.New(fault.Forbidden, "no")
	}
	return broker.Admission{Guard: allow{}}, nil
}

type allow struct{}

func (allow) CanPublish(name string, _ bool) bool { return name != "no" }
func (allow) CanSubscribe(string) bool            { return true }
func (allow) CanReceive(string) bool              { return true }

func (allow) Enrich(own []mqtt.UserProperty) []mqtt.UserProperty { return own }

func (allow) Close() {}

// serve returns a function that opens connections to a fresh broker.
func serve(t *testing.T) func() net.Conn {
	t.Helper()
	b := broker.New(broker.Options{Gatekeeper: open{}, Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	ctx := context.WithoutCancel(t.Context())
	t.Cleanup(func() {
		if err := b.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return func() net.Conn {
		ours, theirs := net.Pipe()
		go func() { _ = b.Handle(ctx, theirs, broker.ListenerOptions{}) }()
		return ours
	}
}

// connect connects a client that is closed at the end of the test.
func connect(t *testing.T, conn net.Conn, o client.Options) *client.Client {
	t.Helper()
	c, err := client.Connect(t.Context(), conn, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestPublishAndSubscribe(t *testing.T) {
	t.Parallel()
	for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
		synctest.Test(t, func(t *testing.T) {
			dial := serve(t)
			got := make(chan string, 10)
			sub := connect(t, dial(), client.Options{ClientID: "sub", Version: v, OnMessage: func(p *mqtt.Publish) { got <- string(p.Topic) + string(p.Payload) }})
			codes, err := sub.Subscribe(t.Context(), mqtt.Subscription{Filter: "a/+", QoS: 1}, mqtt.Subscription{Filter: "$share/g/b"})
			if err != nil || len(codes) != 2 || codes[0] != mqtt.GrantedQoS1 || codes[1].Failed() {
				t.Fatalf("codes %v, %v", codes, err)
			}
			pub := connect(t, dial(), client.Options{ClientID: "pub", Version: v})
			for qos := range byte(2) {
				if err := pub.Publish(t.Context(), "a/b", qos, []byte{'0' + qos}); err != nil {
					t.Fatal(err)
				}
				if text := <-got; text != "a/b"+string('0'+rune(qos)) {
					t.Errorf("message %q", text)
				}
			}
			if err := sub.Unsubscribe(t.Context(), "a/+"); err != nil {
				t.Error(err)
			}
			if err := errors.Join(pub.Publish(t.Context(), "a/b", 1, nil), pub.Ping(t.Context()), sub.Ping(t.Context())); err != nil {
				t.Error(err)
			}
			if len(got) != 0 {
				t.Errorf("message after UNSUBSCRIBE: %q", <-got)
			}
			if err := pub.Publish(t.Context(), "a", 2, nil); !errors.Is(err, client.ErrQoS) {
				t.Errorf("QoS 2: %v", err)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dial := serve(t)
		var refused *client.RefusedError
		_, err := client.Connect(t.Context(), dial(), client.Options{ClientID: "stranger"})
		if !errors.As(err, &refused) || refused.Packet != mqtt.TypeConnack || refused.Reason != 5 {
			t.Errorf("CONNECT: %v", err)
		}
		c := connect(t, dial(), client.Options{Version: mqtt.V5})
		if c.ID() == "" || c.ID() != c.Connack().Properties.AssignedClientID {
			t.Errorf("assigned id %q", c.ID())
		}
		if err := c.Publish(t.Context(), "no", 1, nil); !errors.As(err, &refused) || refused.Reason != mqtt.NotAuthorized {
			t.Errorf("PUBLISH: %v", err)
		}
		if err := c.Publish(t.Context(), "no", 0, nil); err != nil {
			t.Error(err)
		}
		<-c.Done()
		if err := c.Err(); !errors.As(err, &refused) || refused.Packet != mqtt.TypeDisconnect || refused.Reason != mqtt.NotAuthorized {
			t.Errorf("end: %v", err)
		}
		if err := c.Publish(t.Context(), "a", 1, nil); err == nil {
			t.Error("publish after the end succeeds")
		}
	})
}

// A clean end publishes no will, a dirty one does.
func TestEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dial := serve(t)
		var wills atomic.Int32
		watcher := connect(t, dial(), client.Options{ClientID: "watcher", OnMessage: func(*mqtt.Publish) { wills.Add(1) }})
		if _, err := watcher.Subscribe(t.Context(), mqtt.Subscription{Filter: "will"}); err != nil {
			t.Fatal(err)
		}
		end := func(end func(*client.Client) error) {
			c := connect(t, dial(), client.Options{ClientID: "c", Will: &mqtt.Will{Topic: "will"}})
			if c.Err() != nil {
				t.Errorf("Err of a living client: %v", c.Err())
			}
			if err := end(c); err != nil {
				t.Error(err)
			}
			if !errors.Is(c.Err(), client.ErrClosed) {
				t.Errorf("Err = %v", c.Err())
			}
			synctest.Wait()
		}
		end((*client.Client).Disconnect)
		if wills.Load() != 0 {
			t.Error("clean end published the will")
		}
		end((*client.Client).Close)
		if wills.Load() != 1 {
			t.Error("dirty end did not publish the will")
		}
	})
}

// The broker of the service wants a packet every 45 s at least; the client
// keeps an idle connection alive for hours.
func TestKeepAlive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dial := serve(t)
		c := connect(t, dial(), client.Options{ClientID: "c", KeepAlive: 30})
		told := connect(t, dial(), client.Options{ClientID: "told", KeepAlive: 5, Version: mqtt.V5})
		silent := connect(t, dial(), client.Options{ClientID: "silent"})
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if c.Err() != nil || told.Err() != nil {
			t.Errorf("ended: %v, %v", c.Err(), told.Err())
		}
		if silent.Err() == nil {
			t.Error("a client without keep-alive outlived the broker's maximum")
		}
	})
}

// server is the other end of a pipe, played by the test.
func server(t *testing.T, play func(conn net.Conn)) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		defer func() { _ = theirs.Close() }()
		if _, err := theirs.Read(make([]byte, 1024)); err != nil {
			return
		}
		play(theirs)
	}()
	return ours
}

func TestServerThatMisbehaves(t *testing.T) {
	t.Parallel()
	accept := []byte{0x20, 2, 0, 0}
	tests := map[string]struct {
		before []byte // instead of CONNACK
		after  []byte
	}{
		"closes at once":       {before: nil},
		"other packet first":   {before: []byte{0xD0, 0}},
		"malformed CONNACK":    {before: []byte{0x20, 1, 0}},
		"packet of a client":   {before: accept, after: []byte{0xC0, 0}},
		"malformed PUBLISH":    {before: accept, after: []byte{0x30, 1, 0}},
		"message of QoS 2":     {before: accept, after: []byte{0x34, 5, 0, 1, 'a', 0, 1}},
		"oversized":            {before: accept, after: []byte{0x30, 0xFF, 0x7F}},
		"ends inside a packet": {before: accept, after: []byte{0x30, 50, 0}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				conn := server(t, func(conn net.Conn) {
					_, _ = conn.Write(tt.before)
					_, _ = conn.Write(tt.after)
				})
				c, err := client.Connect(t.Context(), conn, client.Options{ClientID: "c", MaxPacket: 1000})
				if tt.after == nil {
					if err == nil {
						t.Error("connected")
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				<-c.Done()
				if c.Err() == nil || errors.Is(c.Err(), client.ErrClosed) {
					t.Errorf("Err = %v", c.Err())
				}
			})
		})
	}
}

// A server that falls silent is noticed by keep-alive, and every wait can be
// given up.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		silent := func(conn net.Conn) {
			_, _ = conn.Write([]byte{0x20, 2, 0, 0})
			_, _ = io.Copy(io.Discard, conn)
		}
		c, err := client.Connect(t.Context(), server(t, silent), client.Options{ClientID: "c", KeepAlive: 10})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Publish(ctx, "a", 1, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("publish: %v", err)
		}
		if _, err := c.Subscribe(ctx, mqtt.Subscription{Filter: "a"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("subscribe: %v", err)
		}
		if err := c.Ping(t.Context()); !errors.Is(err, client.ErrNoPingResponse) {
			t.Errorf("ping: %v", err)
		}
		mute := server(t, func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) })
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := client.Connect(ctx, mute, client.Options{ClientID: "c"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("connect: %v", err)
		}
	})
}

// The receive maximum of the server bounds what is on its way.
func TestReceiveMaximum(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var most, now atomic.Int32
		conn := server(t, func(conn net.Conn) {
			_, _ = conn.Write([]byte{0x20, 6, 0, 0, 3, 0x21, 0, 2}) // receive maximum 2
			buf := make([]byte, 1024)
			for {
				n, err := conn.Read(buf)
				if err != nil {
					return
				}
				packet, _, err := mqtt.Frame(buf[:n], 1024)
				var p mqtt.Publish
				if err != nil || packet == nil || p.Decode(packet, mqtt.V5) != nil {
					return
				}
				most.Store(max(most.Load(), now.Add(1)))
				time.AfterFunc(time.Second, func() {
					now.Add(-1)
					_, _ = conn.Write(mqtt.AppendAck(nil, mqtt.TypePuback, p.PacketID, 0, mqtt.V5))
				})
			}
		})
		c := connect(t, conn, client.Options{ClientID: "c", Version: mqtt.V5})
		results := make(chan error, 10)
		for range 10 {
			go func() { results <- c.Publish(t.Context(), "a", 1, nil) }()
		}
		for range 10 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if most.Load() != 2 {
			t.Errorf("%d on their way", most.Load())
		}
	})
}

func TestDialFails(t *testing.T) {
	t.Parallel()
	if _, err := client.Dial(t.Context(), "127.0.0.1:1", nil); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("Dial = %v", err)
	}
}

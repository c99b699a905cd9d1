package mqttseq

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/topic"
)

const patience = 2 * time.Second

func TestSequencesStandard(t *testing.T) {
	t.Parallel()
	play(t, topic.Standard, "standard")
}

func TestSequencesAWS(t *testing.T) {
	t.Parallel()
	play(t, topic.AWS, "aws")
}

// folder returns where the data is, or skips.
func folder(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("MUSTER_MQTT_SEQUENCES")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "..", "shared", "mqtt-sequences")
	}
	if _, err := os.Stat(filepath.Join(dir, "CONNECT.json")); err != nil {
		t.Skipf("packet sequences are not at %s; set MUSTER_MQTT_SEQUENCES to run this", dir)
	}
	return dir
}

// play runs all sequences. Those that are answered otherwise than the data
// wants are just the ones that testdata lists for the profile, each with its
// reason.
func play(t *testing.T, profile topic.Profile, name string) {
	t.Helper()
	sequences, err := load(folder(t))
	if err != nil {
		t.Fatal(err)
	}
	known := differences(t, name)
	addr := serve(t, profile)
	var next, passed atomic.Int64
	var mu sync.Mutex
	failures := map[string]error{}
	var workers sync.WaitGroup
	const parallel = 16
	for range parallel {
		workers.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(sequences) {
					return
				}
				p := player{addr: addr, local: net.IPv4(127, 1, byte(i>>8), byte(i))}
				if err := p.run(t.Context(), &sequences[i]); err != nil {
					mu.Lock()
					failures[strings.TrimSpace(sequences[i].Name)] = err
					mu.Unlock()
					continue
				}
				passed.Add(1)
			}
		})
	}
	workers.Wait()
	for name, err := range failures {
		if !known[name] {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name := range known {
		if failures[name] == nil {
			t.Errorf("%s is answered as the data wants, and listed as a difference", name)
		}
	}
	t.Logf("%d of %d sequences answered as the data wants", passed.Load(), len(sequences))
}

// differences reads the names of the sequences that a profile answers in its
// own way. A line that begins with # gives the reason for those that follow.
func differences(t *testing.T, profile string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", profile+"-differences.txt"))
	if err != nil {
		t.Fatal(err)
	}
	names, reason := map[string]bool{}, ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
			reason = ""
		case strings.HasPrefix(line, "#"):
			reason = line
		case reason == "":
			t.Errorf("%s has no reason", line)
		default:
			names[line] = true
		}
	}
	return names
}

// player plays one sequence from a source address, which is its account: what
// others retain does not reach it.
type player struct {
	addr  string
	local net.IP
}

// dial opens a connection from the player's address.
func (p *player) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: p.local}}
	return d.DialContext(ctx, "tcp", p.addr)
}

// run plays one sequence.
func (p *player) run(ctx context.Context, s *sequence) error {
	conn, err := p.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	in := &reader{conn: conn}
	if s.Connect {
		connect := mqtt.Connect{Version: mqtt.Version(s.Ver), CleanStart: true, KeepAlive: 60, ClientID: "sequence"}
		b, err := connect.Append(nil, 0)
		if err != nil {
			return err
		}
		if _, err := conn.Write(b); err != nil {
			return err
		}
		if packet, err := in.next(); err != nil || mqtt.TypeOf(packet) != mqtt.TypeConnack || packet[3] != 0 {
			return fmt.Errorf("CONNACK: %x, %w", packet, err)
		}
	}
	for i := range s.Messages {
		if err := p.step(ctx, conn, in, &s.Messages[i]); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return verdict(conn, in, s.Disconnect)
}

// step plays one message.
func (p *player) step(ctx context.Context, conn net.Conn, in *reader, m *message) error {
	switch m.Type {
	case "send":
		b, err := parse(m.Payload)
		if err != nil {
			return err
		}
		_, err = conn.Write(b)
		return err
	case "recv":
		want, err := parse(m.Payload)
		if err != nil {
			return err
		}
		got, err := in.next()
		if err != nil {
			return fmt.Errorf("nothing received, want %x: %w", want, err)
		}
		if !same(want, got) {
			return fmt.Errorf("received %x, want %x", got, want)
		}
		return nil
	case "external_publish":
		return p.publish(ctx, m)
	default:
		return fmt.Errorf("unknown message type %q", m.Type)
	}
}

// publish sends a message as a second client.
func (p *player) publish(ctx context.Context, m *message) error {
	conn, err := p.dial(ctx)
	if err != nil {
		return err
	}
	c, err := client.Connect(ctx, conn, client.Options{ClientID: "helper"})
	if err != nil {
		return err
	}
	packet := &mqtt.Publish{Topic: []byte(m.Topic), QoS: m.QoS, Retain: m.Retain, Payload: []byte(m.Payload)}
	if m.QoS == 2 {
		return errors.Join(publishTwice(conn, packet), c.Close())
	}
	return errors.Join(c.PublishPacket(ctx, packet), c.Disconnect())
}

// publishTwice sends a message of QoS 2, which our client does not speak, past
// it; its answers are of no interest.
func publishTwice(conn net.Conn, p *mqtt.Publish) error {
	p.PacketID = 1
	b, err := p.Append(nil, mqtt.V311)
	if err != nil {
		return err
	}
	b = mqtt.AppendAck(b, mqtt.TypePubrel, p.PacketID, mqtt.Success, mqtt.V311)
	_, err = conn.Write(b)
	return err
}

// same compares a packet with what the data has: a CONNACK by its code, since
// properties are each server's own, and a DISCONNECT by being an error.
func same(want, got []byte) bool {
	if len(want) > 3 && len(got) > 3 && mqtt.TypeOf(want) == mqtt.TypeConnack && mqtt.TypeOf(got) == mqtt.TypeConnack {
		return want[3] == got[3]
	}
	if len(want) > 2 && len(got) > 2 && mqtt.TypeOf(want) == mqtt.TypeDisconnect && mqtt.TypeOf(got) == mqtt.TypeDisconnect {
		return want[2] >= 0x80 && got[2] >= 0x80
	}
	return bytes.Equal(want, got)
}

// verdict checks that the server has closed the connection, or still answers.
func verdict(conn net.Conn, in *reader, closed bool) error {
	if closed {
		for {
			packet, err := in.next()
			var timeout net.Error
			switch {
			case errors.As(err, &timeout) && timeout.Timeout():
				return errors.New("connection is still open")
			case err != nil:
				return nil
			case mqtt.TypeOf(packet) == mqtt.TypeDisconnect || mqtt.TypeOf(packet) == mqtt.TypeConnack:
			default:
				return fmt.Errorf("received %x, want the end", packet)
			}
		}
	}
	if _, err := conn.Write([]byte{0xC0, 0}); err != nil {
		return err
	}
	packet, err := in.next()
	if err != nil {
		return fmt.Errorf("no answer to PINGREQ: %w", err)
	}
	if mqtt.TypeOf(packet) != mqtt.TypePingresp {
		return fmt.Errorf("received %x, want PINGRESP", packet)
	}
	return nil
}

// reader cuts what the server sends into packets.
type reader struct {
	conn net.Conn
	buf  []byte
}

// next returns the next packet.
func (r *reader) next() ([]byte, error) {
	for {
		packet, rest, err := mqtt.Frame(r.buf, 1<<20)
		if err != nil {
			return nil, err
		}
		if packet != nil {
			r.buf = rest
			return packet, nil
		}
		chunk := make([]byte, 4096)
		n, err := r.conn.Read(chunk)
		if n == 0 {
			return nil, err
		}
		r.buf = append(r.buf, chunk[:n]...)
	}
}

// serve runs a broker for one profile.
func serve(t *testing.T, profile topic.Profile) string {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := broker.New(broker.Options{
		Profile: profile, Gatekeeper: open{}, Service: system{}, Now: time.Now,
		Logger: slog.New(slog.DiscardHandler),
	})
	served := make(chan error, 1)
	go func() { served <- b.Serve(context.WithoutCancel(t.Context()), l, broker.ListenerOptions{Name: "test"}) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()
		if err := errors.Join(b.Shutdown(ctx), <-served); err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// open lets everybody do everything, in an account for each source address.
type open struct{}

func (open) Admit(_ context.Context, c *broker.ConnectRequest) (broker.Admission, error) {
	host, _, err := net.SplitHostPort(c.RemoteAddr)
	if err != nil {
		return broker.Admission{}, err
	}
	return broker.Admission{Account: fleet.Account(host), Guard: allow{}}, nil
}

type allow struct{}

func (allow) CanPublish(string, bool) bool { return true }
func (allow) CanSubscribe(string) bool     { return true }
func (allow) CanReceive(string) bool       { return true }

func (allow) Enrich(own []mqtt.UserProperty) []mqtt.UserProperty { return own }

func (allow) Close() {}

// system is a service with a $SYS tree that nobody writes to.
type system struct{}

func (system) Reserved(*broker.Publish, broker.Done) (deferred, ok bool) { return false, false }

// CanPublishReserved reports that the broker's own topics are read only.
func (system) CanPublishReserved(string) bool { return false }

func (system) Private(string) bool { return false }

func (system) CanSubscribeReserved(filter string) bool { return strings.HasPrefix(filter, "$SYS/") }

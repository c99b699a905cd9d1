package broker_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// admissions sets one world's pace.
func admissions(perSecond, room int) func(*broker.Options) {
	return func(o *broker.Options) {
		o.Admission = broker.AdmissionOptions{ConnectsPerSecond: perSecond, WaitingRoom: room}
	}
}

// certified is a connection that has shown a certificate.
type certified struct {
	net.Conn
	certificate *x509.Certificate
	// handshake is what the handshake takes; it is done before when there is none.
	handshake func()
	done      bool
}

func (c *certified) HandshakeContext(context.Context) error {
	c.handshake()
	c.done = true
	return nil
}

func (c *certified) ConnectionState() tls.ConnectionState {
	return tls.ConnectionState{HandshakeComplete: c.done || c.handshake == nil, PeerCertificates: []*x509.Certificate{c.certificate}}
}

// attempt is one CONNECT and when it was answered.
type attempt struct {
	id     string
	answer *mqtt.Connack
	at     time.Time
}

// crowd connects clients at once and returns the answers in their order. Those
// with certificate are known.
func (w *world) crowd(v mqtt.Version, certificate *x509.Certificate, ids []string) []attempt {
	var mu sync.Mutex
	var answers []attempt
	var running sync.WaitGroup
	for _, id := range ids {
		running.Go(func() {
			ours, theirs := net.Pipe()
			w.t.Cleanup(func() { _ = ours.Close() })
			conn := theirs
			if certificate != nil {
				conn = &certified{Conn: theirs, certificate: certificate}
			}
			go func() {
				_ = w.broker.Handle(context.WithoutCancel(w.t.Context()), conn, broker.ListenerOptions{
					Name: "pipe", Account: func(string) fleet.Account { return account },
				})
			}()
			p := &peer{t: w.t, conn: ours, version: v}
			p.send(connectPacket(v, id))
			buf := make([]byte, 512)
			n, err := ours.Read(buf)
			if err != nil {
				w.t.Errorf("%s: %v", id, err)
				return
			}
			decoded, err := mqtt.Decode(buf[:n], v)
			if err != nil {
				w.t.Errorf("%s: %v", id, err)
				return
			}
			go func() { // takes what comes later
				for _, err := ours.Read(buf); err == nil; _, err = ours.Read(buf) {
				}
			}()
			mu.Lock()
			defer mu.Unlock()
			answers = append(answers, attempt{id, decoded.(*mqtt.Connack), time.Now()}) //nolint:forcetypeassert // the answer to CONNECT
		})
	}
	running.Wait()
	return answers
}

func ids(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprint(prefix, i)
	}
	return all
}

// TestCrowdIsPaced connects more clients than may come at once: the burst enters
// at once, the others at the pace, and who finds no room is told when to come.
func TestCrowdIsPaced(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		begun := time.Now()
		accepted, at := 0, map[int]int{}
		hints := map[int]int{}
		for _, a := range w.crowd(mqtt.V5, nil, ids("new", 1000)) {
			switch a.answer.Reason {
			case mqtt.Success:
				accepted++
				at[int(a.at.Sub(begun)/time.Second)]++
			case mqtt.ServerBusy:
				hints[hint(w.t, a.answer)]++
			default:
				w.t.Fatalf("%s: 0x%02X", a.id, byte(a.answer.Reason))
			}
		}
		// Nobody but strangers is there; their part of the room is a tenth of 100.
		if accepted != 200+10 {
			w.t.Errorf("%d accepted", accepted)
		}
		for second, n := range at {
			if second > 0 && n > 110 {
				w.t.Errorf("%d accepted in second %d", n, second)
			}
		}
		for second, n := range hints {
			if n > 200 {
				w.t.Errorf("%d are told %d seconds", n, second)
			}
		}
		if len(hints) < 7 {
			w.t.Errorf("790 are told to come within %d seconds", len(hints))
		}
		pass(time.Minute)
		for _, a := range w.crowd(mqtt.V311, nil, ids("old", 1000)) {
			if got := byte(a.answer.Reason); got != mqtt.ReturnAccepted && got != mqtt.ReturnServerUnavailable {
				w.t.Fatalf("%s: 0x%02X", a.id, got)
			}
		}
	}, admissions(100, 0))
}

// TestReturningComeFirst lets a fleet come back together with strangers and
// with others that have certificates: the fleet has most of the turns, nobody
// has none, and a borrowed client id is not taken for the fleet.
func TestReturningComeFirst(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		mine, thieves := &x509.Certificate{Raw: []byte("mine")}, &x509.Certificate{Raw: []byte("thief's")}
		all := ids("fleet", 400)
		for _, batch := range [][]string{all[:200], all[200:]} {
			for _, a := range w.crowd(mqtt.V5, mine, batch) {
				if a.answer.Reason != mqtt.Success {
					w.t.Fatalf("%s: 0x%02X", a.id, byte(a.answer.Reason))
				}
			}
			pass(10 * time.Second)
		}
		for _, id := range all {
			w.broker.Disconnect(account, id, broker.ReasonConnectionLost)
		}
		synctest.Wait()
		if n := len(w.broker.Sessions(account)); n != 0 {
			w.t.Fatalf("%d are connected", n)
		}
		w.crowd(mqtt.V5, nil, ids("burst", 200)) // takes the burst
		var running sync.WaitGroup
		begun := time.Now()
		took := make([][]attempt, 4)
		running.Go(func() { took[0] = w.crowd(mqtt.V5, nil, ids("stranger", 300)) })
		running.Go(func() { took[1] = w.crowd(mqtt.V5, &x509.Certificate{Raw: []byte("other")}, ids("known", 300)) })
		running.Go(func() { took[2] = w.crowd(mqtt.V5, mine, all[:300]) })
		running.Go(func() { took[3] = w.crowd(mqtt.V5, thieves, all[300:]) })
		running.Wait()
		// Each class has its part of the room, and of the turns of the next second.
		const window = 500 * time.Millisecond
		early, entered := make([]int, 4), make([]int, 4)
		for i := range took {
			for _, a := range took[i] {
				if a.answer.Reason != mqtt.Success {
					continue
				}
				entered[i]++
				if a.at.Sub(begun) <= window {
					early[i]++
				}
			}
		}
		if entered[2] != 70 || early[2] < 32 || early[2] > 38 {
			w.t.Errorf("of the fleet %d entered, %d of them early", entered[2], early[2])
		}
		if all, known := entered[1]+entered[3], early[1]+early[3]; all != 20 || known < 8 || known > 12 {
			w.t.Errorf("of those with certificates %d entered, %d of them early", all, known)
		}
		if entered[0] != 10 || early[0] < 3 || early[0] > 7 {
			w.t.Errorf("of the strangers %d entered, %d of them early", entered[0], early[0])
		}
	}, admissions(100, 0))
}

// TestStoredSessionReturns counts the owner of a stored session as returning
// without a certificate.
func TestStoredSessionReturns(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		p := w.connect(mqtt.V5, "keeper", func(c *mqtt.Connect) {
			c.Properties.Set |= mqtt.Of(mqtt.PropSessionExpiry)
			c.Properties.SessionExpiry = 7200
		})
		_ = p.conn.Close()
		pass(40 * time.Minute) // longer than the memory of who was connected
		w.crowd(mqtt.V5, nil, ids("burst", 20))
		begun := time.Now()
		var running sync.WaitGroup
		running.Go(func() { w.crowd(mqtt.V5, nil, ids("stranger", 1)) })
		synctest.Wait()
		got := w.crowd(mqtt.V5, nil, []string{"keeper"})
		if took := got[0].at.Sub(begun); got[0].answer.Reason != mqtt.Success || took > 300*time.Millisecond {
			w.t.Errorf("0x%02X after %v", byte(got[0].answer.Reason), took)
		}
		running.Wait()
	}, admissions(10, 0))
}

// TestHandshakesArePaced bounds the handshakes per second before they cost
// anything, and closes what finds no room.
func TestHandshakesArePaced(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		var mu sync.Mutex
		var begun []time.Duration
		start := time.Now()
		closed := 0
		var running sync.WaitGroup
		for range 1000 {
			running.Go(func() {
				ours, theirs := net.Pipe()
				defer ours.Close()
				conn := &certified{Conn: theirs, certificate: &x509.Certificate{}, handshake: func() {
					mu.Lock()
					defer mu.Unlock()
					begun = append(begun, time.Since(start))
				}}
				go func() {
					_ = ours.SetReadDeadline(start.Add(30 * time.Second))
					if _, err := ours.Read(make([]byte, 1)); err != nil && time.Since(start) < time.Second {
						mu.Lock()
						defer mu.Unlock()
						closed++
					}
				}()
				_ = w.broker.Handle(w.t.Context(), conn, broker.ListenerOptions{Name: "pipe"})
			})
		}
		running.Wait()
		perSecond := map[int]int{}
		for _, at := range begun {
			perSecond[int(at/time.Second)]++
		}
		for second, n := range perSecond {
			if most := 127; n > most && second > 0 || n > most+31 {
				w.t.Errorf("%d handshakes in second %d", n, second)
			}
		}
		// All come from one source, which leaves half of the room to others.
		if len(begun) < 31+300 || len(begun) > 31+320 || closed < 500 {
			w.t.Errorf("%d handshakes, %d closed at once", len(begun), closed)
		}
	}, admissions(100, 0))
}

// TestAnswerFitsTheClient sends the code alone to a client that takes tiny
// packets only.
func TestAnswerFitsTheClient(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		go func() { _ = w.broker.Drain(w.t.Context(), 0) }()
		synctest.Wait()
		p := w.dial(mqtt.V5)
		p.send(connectPacket(mqtt.V5, "tiny", func(c *mqtt.Connect) {
			c.Properties.Set |= mqtt.Of(mqtt.PropMaximumPacketSize)
			c.Properties.MaximumPacketSize = 20
		}))
		got, ok := p.next().(*mqtt.Connack)
		if !ok || got.Reason != mqtt.ServerBusy || !got.Properties.Empty() {
			w.t.Errorf("answer %+v", got)
		}
	})
}

// TestShutdownEndsTheWait shuts down while clients wait for their turn.
func TestShutdownEndsTheWait(t *testing.T) {
	t.Parallel()
	inWorld(t, topic.AWS, func(w *world) {
		w.crowd(mqtt.V5, nil, ids("burst", 2))
		var peers []*peer
		for i := range 3 {
			p := w.dial(mqtt.V5)
			p.send(connectPacket(mqtt.V5, fmt.Sprint(i)))
			peers = append(peers, p)
		}
		synctest.Wait()
		begun := time.Now()
		if err := w.broker.Shutdown(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		if took := time.Since(begun); took > 0 {
			w.t.Errorf("shut down in %v", took)
		}
		for i, p := range peers {
			if !p.isClosed() {
				w.t.Errorf("client %d is connected", i)
			}
		}
	}, admissions(1, 30))
}

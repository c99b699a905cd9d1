package fault_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/testkit"
)

const (
	publishers = 6
	// betweenPublishes paces one publisher, so that all together make about 600 a
	// second.
	betweenPublishes = publishers * time.Second / 600
)

// ledger is the file of acknowledged publishes: topic and number a line.
type ledger struct {
	mu   sync.Mutex
	file *os.File
	// last and sent are the last number acknowledged and sent, by topic; all are
	// all that were acknowledged.
	last, sent map[string]int
	all        map[string][]int
	count      int
}

func (l *ledger) sending(topic string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent[topic]++
	return l.sent[topic]
}

func (l *ledger) acknowledged(topic string, n int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := fmt.Fprintf(l.file, "%s %d\n", topic, n); err != nil {
		return err
	}
	l.last[topic], l.all[topic] = n, append(l.all[topic], n)
	l.count++
	return nil
}

// subscriber is a client with a persistent session. It subscribes once, before
// the first kill; what comes later proves that the session is kept.
type subscriber struct {
	id      string
	version mqtt.Version
	addr    string

	mu sync.Mutex
	// first are the numbers in the order of their first delivery, by topic.
	first map[string][]int
	seen  map[string]map[int]bool
	// newest is the last number of the present connection, by topic.
	newest  map[string]int
	repeats int
	errs    []string
}

func newSubscriber(id string, v mqtt.Version, addr string) *subscriber {
	return &subscriber{id: id, version: v, addr: addr, first: map[string][]int{}, seen: map[string]map[int]bool{}}
}

// connect opens the session, and fails when it is not the stored one unless it
// is to be new.
func (s *subscriber) connect(ctx context.Context, fresh bool) (*client.Client, error) {
	conn, err := client.Dial(ctx, s.addr, nil)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.newest = map[string]int{}
	s.mu.Unlock()
	o := client.Options{ClientID: s.id, Version: s.version, Persistent: true, KeepAlive: 60, OnMessage: s.receive}
	if s.version == mqtt.V5 {
		o.Properties = mqtt.Properties{Set: mqtt.Of(mqtt.PropSessionExpiry), SessionExpiry: 3600}
	}
	c, err := client.Connect(ctx, conn, o)
	if err != nil {
		return nil, err
	}
	if ack := c.Connack(); ack.SessionPresent == fresh {
		s.wrong("session present is %v", ack.SessionPresent)
	}
	return c, nil
}

// subscribe makes the session.
func (s *subscriber) subscribe(ctx context.Context) error {
	c, err := s.connect(ctx, true)
	if err != nil {
		return err
	}
	codes, err := c.Subscribe(ctx, mqtt.Subscription{Filter: "fault/+", QoS: 1})
	if err == nil && (len(codes) != 1 || codes[0] != mqtt.GrantedQoS1) {
		err = fmt.Errorf("granted %v", codes)
	}
	return errors.Join(err, c.Close())
}

func (s *subscriber) wrong(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.errs) < 10 {
		s.errs = append(s.errs, s.id+": "+fmt.Sprintf(format, args...))
	}
}

// receive notes a message and demands the order: upwards on one connection,
// repetitions included, and upwards over all for what is new.
func (s *subscriber) receive(p *mqtt.Publish) {
	topic := string(p.Topic)
	n, err := strconv.Atoi(string(p.Payload))
	if err != nil {
		s.wrong("%s: payload %q", topic, p.Payload)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n <= s.newest[topic] {
		s.errs = append(s.errs, fmt.Sprintf("%s: %s: %d after %d on one connection", s.id, topic, n, s.newest[topic]))
	}
	s.newest[topic] = n
	if s.seen[topic] == nil {
		s.seen[topic] = map[int]bool{}
	}
	if s.seen[topic][n] {
		s.repeats++
		return
	}
	s.seen[topic][n] = true
	if f := s.first[topic]; len(f) > 0 && n < f[len(f)-1] {
		s.errs = append(s.errs, fmt.Sprintf("%s: %s: %d came after %d", s.id, topic, n, f[len(f)-1]))
	}
	s.first[topic] = append(s.first[topic], n)
}

// stay keeps the client connected, over all kills, until ctx ends.
func (s *subscriber) stay(ctx context.Context) {
	for ctx.Err() == nil {
		c, err := s.connect(ctx, false)
		if err != nil {
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		select {
		case <-c.Done():
		case <-ctx.Done():
			_ = c.Close()
		}
	}
}

// visit connects and breaks off in the middle of what comes.
func (s *subscriber) visit(ctx context.Context, d time.Duration) {
	c, err := s.connect(ctx, false)
	if err != nil {
		return
	}
	select {
	case <-c.Done():
	case <-time.After(d):
	case <-ctx.Done():
	}
	_ = c.Close()
}

// missing returns what was acknowledged to publishers and not delivered.
func (s *subscriber) missing(l *ledger) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for topic, numbers := range l.all {
		if !strings.HasPrefix(topic, "fault/") {
			continue
		}
		for _, n := range numbers {
			if !s.seen[topic][n] {
				all = append(all, fmt.Sprintf("%s %d", topic, n))
			}
		}
	}
	slices.Sort(all)
	return all
}

// sessionRig is a server, publishers with their ledger, and subscribers with
// sessions: two that stay, two that come for a moment, and two that are away
// until the end.
type sessionRig struct {
	t      *testing.T
	server *testkit.Server
	ledger *ledger
	stay   []*subscriber
	visit  []*subscriber
	away   []*subscriber
}

func newSessionRig(t *testing.T, flags ...string) *sessionRig {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "acknowledged"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	r := &sessionRig{
		t:      t,
		server: testkit.NewServer(t, t.TempDir(), append([]string{"--log.level", "warn"}, flags...)...),
		ledger: &ledger{file: file, last: map[string]int{}, sent: map[string]int{}, all: map[string][]int{}},
	}
	r.server.Start()
	for name, group := range map[string]*[]*subscriber{"stay": &r.stay, "visit": &r.visit, "away": &r.away} {
		for _, v := range []mqtt.Version{mqtt.V311, mqtt.V5} {
			s := newSubscriber(fmt.Sprintf("%s-%d", name, v), v, r.server.PlainMQTTAddr)
			if err := s.subscribe(t.Context()); err != nil {
				t.Fatalf("%s: %v", s.id, err)
			}
			*group = append(*group, s)
		}
	}
	return r
}

func (r *sessionRig) subscribers() []*subscriber { return slices.Concat(r.stay, r.visit, r.away) }

// publish sends numbers one after the other until the connection breaks or
// ctx ends. A number that is not acknowledged is not sent again.
func (r *sessionRig) publish(ctx context.Context, i int) error {
	conn, err := client.Dial(ctx, r.server.PlainMQTTAddr, nil)
	if err != nil {
		return nil //nolint:nilerr // the server may be gone already
	}
	v := mqtt.V311
	if i%2 == 1 {
		v = mqtt.V5
	}
	c, err := client.Connect(ctx, conn, client.Options{ClientID: fmt.Sprintf("pub-%d", i), Version: v, KeepAlive: 60})
	if err != nil {
		return nil //nolint:nilerr // the same
	}
	defer c.Close()
	tick := time.NewTicker(betweenPublishes)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		// Every fourth publisher retains; "gone" is deleted every second time.
		topic := fmt.Sprintf("fault/%d", i)
		switch i % 4 {
		case 2:
			topic = fmt.Sprintf("kept/%d", i)
		case 3:
			topic = fmt.Sprintf("gone/%d", i)
		}
		n := r.ledger.sending(topic)
		p := &mqtt.Publish{Topic: []byte(topic), QoS: 1, Retain: i%4 >= 2, Payload: []byte(strconv.Itoa(n))}
		if i%4 == 3 && n%2 == 0 {
			p.Payload = nil
		}
		if err := c.PublishPacket(ctx, p); err != nil {
			if refused, ok := errors.AsType[*client.RefusedError](err); ok && refused.Packet == mqtt.TypePuback {
				continue // refused in words: nothing was promised
			}
			return nil //nolint:nilerr // killed in the middle: nothing was promised
		}
		if err := r.ledger.acknowledged(topic, n); err != nil {
			return err
		}
	}
}

// load runs publishers and visitors until strike returns.
func (r *sessionRig) load(strike func()) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for i := range publishers {
		wg.Go(func() {
			if err := r.publish(ctx, i); err != nil {
				r.t.Error(err)
			}
		})
	}
	for i, s := range r.visit {
		wg.Go(func() { s.visit(ctx, time.Duration(100+i*150)*time.Millisecond) })
	}
	strike()
	cancel()
	wg.Wait()
}

// retained demands that each topic retains what was acknowledged last, or what
// was sent after that.
func (r *sessionRig) retained(round int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	conn, err := client.Dial(ctx, r.server.PlainMQTTAddr, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	var mu sync.Mutex
	got := map[string]string{}
	c, err := client.Connect(ctx, conn, client.Options{ClientID: "looker", KeepAlive: 60, OnMessage: func(p *mqtt.Publish) {
		mu.Lock()
		defer mu.Unlock()
		if p.Retain {
			got[string(p.Topic)] = string(p.Payload)
		}
	}})
	if err != nil {
		r.t.Fatal(err)
	}
	defer c.Close()
	for topic, last := range r.ledger.last {
		if strings.HasPrefix(topic, "fault/") {
			continue
		}
		if _, err := c.Subscribe(ctx, mqtt.Subscription{Filter: topic, QoS: 1}); err != nil {
			r.t.Fatal(err)
		}
		if err := c.Ping(ctx); err != nil { // what is retained has come by then
			r.t.Fatal(err)
		}
		want := map[string]bool{}
		for n := last; n <= r.ledger.sent[topic]; n++ {
			if strings.HasPrefix(topic, "gone/") && n%2 == 0 {
				want[""] = true
			} else {
				want[strconv.Itoa(n)] = true
			}
		}
		mu.Lock()
		if !want[got[topic]] {
			r.t.Errorf("round %d: %s retains %q, acknowledged was %d, sent %d", round, topic, got[topic], last, r.ledger.sent[topic])
		}
		mu.Unlock()
	}
}

// check demands the order so far.
func (r *sessionRig) check(round int) {
	r.t.Helper()
	for _, s := range r.subscribers() {
		s.mu.Lock()
		for _, err := range s.errs {
			r.t.Errorf("round %d: %s", round, err)
		}
		s.mu.Unlock()
	}
	if r.t.Failed() {
		r.t.FailNow()
	}
}

func (r *sessionRig) killing(rounds int) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	var staying sync.WaitGroup
	for _, s := range r.stay {
		staying.Go(func() { s.stay(ctx) })
	}
	random := rand.New(rand.NewPCG(3, uint64(rounds)))
	for round := range rounds {
		before := r.ledger.count
		pause := time.Duration(200+random.IntN(700)) * time.Millisecond
		r.load(func() {
			<-time.After(pause)
			r.server.Kill()
		})
		r.server.Start()
		r.retained(round)
		r.check(round)
		if r.ledger.count == before {
			r.t.Errorf("round %d: nothing was acknowledged in %v", round, pause)
		}
	}
	r.load(func() { <-time.After(300 * time.Millisecond) }) // subscriptions still work
	for _, s := range slices.Concat(r.visit, r.away) {
		staying.Go(func() { s.stay(ctx) })
	}
	for _, s := range r.subscribers() {
		testkit.Poll(r.t, 30*time.Second, s.id+" has everything", func() error {
			if missing := s.missing(r.ledger); len(missing) > 0 {
				return fmt.Errorf("%d acknowledged messages are missing: %v", len(missing), missing[:min(len(missing), 20)])
			}
			return nil
		})
	}
	cancel()
	staying.Wait()
	r.check(rounds)
	repeats := 0
	for _, s := range r.subscribers() {
		repeats += s.repeats
	}
	r.t.Logf("%d kills, %d acknowledged messages, none lost; %d repetitions at %d subscribers", rounds, r.ledger.count, repeats, len(r.subscribers()))
	if r.ledger.count < rounds*50 {
		r.t.Errorf("only %d messages were acknowledged: the load was too small to show anything", r.ledger.count)
	}
}

// TestKilledServerKeepsSessionsOnPebble kills the server under publishers and
// subscribers with persistent sessions.
func TestKilledServerKeepsSessionsOnPebble(t *testing.T) {
	newSessionRig(t).killing(kills(t, 10))
}

func TestKilledServerKeepsSessionsOnPostgreSQL(t *testing.T) {
	database := testkit.StartPostgres(t)
	newSessionRig(t, "--store", database.Database(t)).killing(kills(t, 10))
}

package mqttstore_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqttstore"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const account fleet.Account = "000000000001"

// gate is a store whose commits can be held up and made to fail.
type gate struct {
	store.Store
	mu      sync.Mutex
	fail    error
	hold    chan struct{}
	commits int
	// lost makes commits succeed that are told to fail.
	lost bool
}

func (g *gate) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	g.mu.Lock()
	hold, fail, lost := g.hold, g.fail, g.lost
	g.commits++
	g.mu.Unlock()
	if hold != nil {
		<-hold
	}
	if lost {
		if at, err := g.Store.Commit(ctx, b); err != nil {
			return at, err
		}
	}
	if fail != nil {
		return store.Position{}, fail
	}
	return g.Store.Commit(ctx, b)
}

func (g *gate) set(fail error, hold chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fail, g.hold = fail, hold
}

// start returns a running keeper over a fresh store.
func start(t *testing.T) (*mqttstore.Keeper, *gate) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	engine, err := embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: log, CacheBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{Store: engine}
	k := mqttstore.New(mqttstore.Options{Store: g, Logger: log, MaxWaiting: 1 << 20})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, engine.Close()); err != nil {
			t.Error(err)
		}
	})
	return k, g
}

// save saves a change and waits for its end.
func save(k *mqttstore.Keeper, c broker.Change) error {
	c.Account = account
	done := make(chan error, 1)
	k.Save(c, func(err error) { done <- err })
	return <-done
}

// load returns everything kept.
func load(t *testing.T, k *mqttstore.Keeper) []broker.Change {
	t.Helper()
	var all []broker.Change
	if err := k.Load(t.Context(), func(c broker.Change) error { all = append(all, c); return nil }); err != nil {
		t.Fatal(err)
	}
	return all
}

func message(topic, payload string) *broker.Kept {
	at := time.UnixMilli(1795412345678).UTC()
	return &broker.Kept{
		Topic: topic, Payload: []byte(payload), QoS: 1, StoredAt: at, ExpiresAt: at.Add(time.Hour),
		Properties: &mqtt.Properties{
			Set: mqtt.Of(mqtt.PropContentType, mqtt.PropCorrelationData), ContentType: "text/plain", CorrelationData: []byte{1, 2},
			UserProperties: []mqtt.UserProperty{{Key: "a", Value: "1"}, {Key: "a", Value: "2"}},
		},
	}
}

// What is kept comes back whole and in order; what is dropped does not.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	k, _ := start(t)
	session := &broker.SessionRecord{
		SessionID: "s", Version: 5, Expiry: broker.NeverExpires, After: 7, Principal: fleet.Principal{Kind: fleet.PrincipalCertificate, ID: "c"}, ThingName: "t", Indexed: true,
		KeepAlive: 30, ConnectedAt: time.UnixMilli(1).UTC(), DisconnectedAt: time.UnixMilli(2).UTC(), Reason: broker.ReasonConnectionLost,
		Subscriptions: []broker.SubscriptionRecord{{Filter: "a/+", QoS: 1, Identifier: 7, NoLocal: true, RetainAsPublished: true}},
		Will:          &broker.WillRecord{Message: broker.Message{Topic: "w", Payload: []byte("gone"), QoS: 1, Retain: true}, Delay: 5, Due: time.UnixMilli(9).UTC()},
	}
	var want []broker.Change
	add := func(c broker.Change) {
		if err := save(k, c); err != nil {
			t.Fatal(err)
		}
		c.Account = account
		want = append(want, c)
	}
	add(broker.Change{Kind: broker.PutSession, Box: "pump/7", Session: session})
	for _, seq := range []uint64{1, 2, 255, 256, 1 << 40} {
		add(broker.Change{Kind: broker.PutMessage, Box: "pump/7", Seq: seq, Message: message("a/b", fmt.Sprint(seq)), Retain: seq == 2})
	}
	add(broker.Change{Kind: broker.PutRetained, Box: "a/b", Message: message("a/b", "kept")})
	for _, kind := range []broker.ChangeKind{broker.PutMessage, broker.DropMessage} {
		if err := save(k, broker.Change{Kind: kind, Box: "other", Seq: 1, Message: message("x", "y")}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, load(t, k)); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	for _, c := range want {
		c.Kind++ // each Put is followed by its Drop
		if err := save(k, c); err != nil {
			t.Fatal(err)
		}
	}
	if got := load(t, k); len(got) != 0 {
		t.Errorf("left over: %+v", got)
	}
}

// A message that is acknowledged before its turn is never written, and whoever
// waits for it is told all the same.
func TestWithdrawn(t *testing.T) {
	t.Parallel()
	k, g := start(t)
	hold := make(chan struct{})
	g.set(nil, hold)
	first := make(chan error, 1)
	k.Save(broker.Change{Kind: broker.PutMessage, Account: account, Box: "c", Seq: 1, Message: message("a", "1")}, func(err error) { first <- err })
	for { // until the first is being committed
		g.mu.Lock()
		n := g.commits
		g.mu.Unlock()
		if n == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	second := make(chan error, 1)
	k.Save(broker.Change{Kind: broker.PutMessage, Account: account, Box: "c", Seq: 2, Message: message("a", "2")}, func(err error) { second <- err })
	k.Save(broker.Change{Kind: broker.DropMessage, Account: account, Box: "c", Seq: 2}, nil)
	g.set(nil, nil)
	close(hold)
	if err := errors.Join(<-first, <-second); err != nil {
		t.Error(err)
	}
	if err := k.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if got := load(t, k); len(got) != 1 || got[0].Seq != 1 || g.commits != 1 {
		t.Errorf("%d commits, kept %+v", g.commits, got)
	}
}

// While the store fails, those who wait are refused and the others are written
// later.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	k, g := start(t)
	if err := save(k, broker.Change{Kind: broker.PutMessage, Box: "c", Seq: 1, Message: message("a", "1")}); err != nil {
		t.Fatal(err)
	}
	g.set(store.ErrDiskFull, nil)
	if err := save(k, broker.Change{Kind: broker.PutMessage, Box: "c", Seq: 2, Message: message("a", "2")}); !errors.Is(err, store.ErrDiskFull) {
		t.Errorf("error %v", err)
	}
	k.Save(broker.Change{Kind: broker.DropMessage, Account: account, Box: "c", Seq: 1}, nil)
	k.Save(broker.Change{Kind: broker.PutMessage, Account: account, Box: "c", Seq: 3, Message: message("a", "3")}, nil)
	g.set(nil, nil)
	if err := k.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if got := load(t, k); len(got) != 1 || got[0].Seq != 3 {
		t.Errorf("kept %+v", got)
	}
}

// The memory for changes in line is bounded, for those who add.
func TestBounded(t *testing.T) {
	t.Parallel()
	k, g := start(t)
	hold := make(chan struct{})
	g.set(nil, hold)
	big := string(make([]byte, 10<<10))
	refused, done := 0, make(chan error, 400)
	for seq := range uint64(400) {
		k.Save(broker.Change{Kind: broker.PutMessage, Account: account, Box: "c", Seq: seq + 1, Message: message("a", big)}, func(err error) { done <- err })
	}
	g.set(nil, nil)
	close(hold)
	for range 400 {
		if err := <-done; err != nil {
			refused++
		}
	}
	if refused == 0 || refused > 310 {
		t.Errorf("%d refused of 400 that take 10 KiB each, with room for 1 MiB", refused)
	}
}

// A commit that is said to have failed may have been made: what it wrote is
// removed again.
func TestAnswerOfACommitIsLost(t *testing.T) {
	t.Parallel()
	k, g := start(t)
	g.set(errors.New("connection lost"), nil)
	g.mu.Lock()
	g.lost = true
	g.mu.Unlock()
	k.Save(broker.Change{Kind: broker.PutMessage, Account: account, Box: "c", Seq: 1, Message: message("a", "1")}, nil)
	within(t, "several commits", func() bool { return g.begun() > 3 })
	k.Save(broker.Change{Kind: broker.DropMessage, Account: account, Box: "c", Seq: 1}, nil)
	g.set(nil, nil)
	g.mu.Lock()
	g.lost = false
	g.mu.Unlock()
	if err := k.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if got := load(t, k); len(got) != 0 {
		t.Errorf("kept %+v", got)
	}
}

// Sessions find room when messages have taken all of it.
func TestSessionsFindRoom(t *testing.T) {
	t.Parallel()
	k, g := start(t)
	hold := make(chan struct{})
	g.set(nil, hold)
	big := string(make([]byte, 10<<10))
	for seq := range uint64(400) {
		k.Save(broker.Change{Kind: broker.PutMessage, Account: account, Box: "c", Seq: seq + 1, Message: message("a", big)}, nil)
	}
	for seq := range uint64(100) {
		k.Save(broker.Change{Kind: broker.PutMessage, Account: account, Box: "c", Seq: seq + 401, Message: message("a", "")}, nil)
	}
	k.Save(broker.Change{Kind: broker.PutSession, Account: account, Box: "c", Session: &broker.SessionRecord{SessionID: "s"}}, nil)
	g.set(nil, nil)
	close(hold)
	if err := k.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	if got := load(t, k); len(got) == 0 || got[0].Kind != broker.PutSession {
		t.Errorf("%d changes kept, no session", len(got))
	}
}

// FuzzMessage: what is on disk cannot hurt, and a message that can be read is
// written the same again.
func FuzzMessage(f *testing.F) {
	for _, m := range []*broker.Kept{message("a", "b"), {Topic: "x"}} {
		b, err := mqttstore.EncodeMessage(m, true)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, retain, err := mqttstore.DecodeMessage(b)
		if err != nil {
			return
		}
		again, err := mqttstore.EncodeMessage(m, retain)
		if err != nil {
			t.Fatal(err)
		}
		back, _, err := mqttstore.DecodeMessage(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, back); diff != "" {
			t.Error(diff)
		}
	})
}

// Flush waits for what was saved before it, whatever comes meanwhile, and
// leaves nothing behind.
func TestFlush(t *testing.T) {
	t.Parallel()
	k, g := start(t)
	if err := k.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	release := standStill(t, g)
	put := broker.Change{Kind: broker.PutMessage, Account: account, Box: "c", Seq: 1, Message: message("a", "x")}
	k.Save(put, nil)
	flushed := make(chan error, 1)
	go func() { flushed <- k.Flush(t.Context()) }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := k.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while the disk stands still: %v", err)
	}
	select {
	case err := <-flushed:
		t.Fatalf("flushed before the commit: %v", err)
	default:
	}
	release()
	if err := <-flushed; err != nil {
		t.Fatal(err)
	}
	if got := load(t, k); len(got) != 1 || got[0].Seq != 1 {
		t.Errorf("kept %+v", got)
	}
	g.set(errors.New("broken"), nil)
	k.Save(put, nil)
	if err := k.Flush(t.Context()); err == nil {
		t.Error("a store that fails was flushed")
	}
	g.set(nil, nil)
}

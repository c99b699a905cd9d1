package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/inlet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/topic"
)

// ErrClosed is returned once Shutdown has begun.
var ErrClosed = errors.New("broker is shut down")

// Broker holds the sessions of all accounts. New starts it, Shutdown ends it.
type Broker struct {
	profile    topic.Profile
	limits     Limits
	gatekeeper Gatekeeper
	service    Service
	observer   Observer
	logger     *slog.Logger
	metrics    *metrics
	now        func() time.Time
	wheel      wheel
	stop       chan struct{} // closed by Shutdown
	handshakes *inlet.Gate   // one place for each TLS handshake
	keeper     Keeper
	sweeper    alarm        // clears expired retained messages
	queued     atomic.Int64 // bytes that wait for sessions and groups
	// numbers counts the messages that were made durable: a number is never used
	// twice, so that what is written for a session cannot meet what is left of
	// the one before it.
	numbers  atomic.Uint64
	door     *door   // nil when admissions are not paced
	quotas   *quotas // nil when all are off
	draining atomic.Pointer[drain]
	// departed are the round trips of connections that have ended.
	departed departedTrips

	buffers sync.Pool
	reads   sync.Pool
	batches sync.Pool

	running sync.WaitGroup // all goroutines

	mu        sync.Mutex
	closing   bool
	realms    map[fleet.Account]*realm
	listeners map[net.Listener]struct{}
	admitting map[net.Conn]context.CancelFunc
}

// New returns a running broker without listeners.
func New(o Options) *Broker {
	b := &Broker{
		profile: o.Profile, gatekeeper: o.Gatekeeper, service: o.Service, observer: o.Observer, logger: o.Logger,
		now: o.Now, keeper: o.Keeper, stop: make(chan struct{}),
		buffers: newBufferPool(), reads: newReadPool(),
		realms: make(map[fleet.Account]*realm), listeners: make(map[net.Listener]struct{}), admitting: make(map[net.Conn]context.CancelFunc),
	}
	b.metrics = newMetrics(o.Registerer, func() float64 { return float64(b.queued.Load()) })
	if b.keeper == nil {
		b.keeper = noKeeper{}
	}
	b.batches.New = func() any { return &batch{broker: b, index: make(map[*session]int)} }
	if o.Limits != nil {
		b.limits = *o.Limits
	} else {
		b.limits = DefaultLimits(o.Profile)
	}
	if b.service == nil {
		b.service = noService{}
	}
	if b.observer == nil {
		b.observer = noObserver{}
	}
	b.door = newDoor(o.Admission, o.Now, o.Logger, o.Registerer)
	b.quotas = newQuotas(o.Quotas, sinceNow(o.Now), b.metrics.overQuota)
	b.handshakes = inlet.NewGate(b.limits.MaxHandshakes, b.limits.MaxSourceHandshakes)
	b.watchRetained()
	b.running.Go(func() { b.turn(b.stop) })
	return b
}

// noService knows no reserved topic.
type noService struct{}

// Reserved reports that there is no such topic.
func (noService) Reserved(*Publish, Done) (deferred, ok bool) { return false, false }

// CanSubscribeReserved reports that no filter can match.
func (noService) CanSubscribeReserved(string) bool { return false }

// Private implements Service.
func (noService) Private(string) bool { return false }

// CanPublishReserved reports that nobody may.
func (noService) CanPublishReserved(string) bool { return false }

// noObserver is told and forgets.
type noObserver struct{}

// Connected does nothing.
func (noObserver) Connected(*SessionInfo) {}

// Disconnected does nothing.
func (noObserver) Disconnected(*SessionInfo, DisconnectReason, bool, time.Time) {}

// ConnectFailed does nothing.
func (noObserver) ConnectFailed(*SessionInfo, string) {}

// Subscribed does nothing.
func (noObserver) Subscribed(*SessionInfo, []string, time.Time) {}

// Unsubscribed does nothing.
func (noObserver) Unsubscribed(*SessionInfo, []string, time.Time) {}

// Denied does nothing.
func (noObserver) Denied(Denial) {}

// Publish routes a message of the server's own. It waits for nobody; policy is
// asked on the receivers' side only. Quality of service is the lower of the
// message's and the subscription's. PublishDurably waits until it is stored.
func (b *Broker) Publish(_ context.Context, account fleet.Account, m Message) error {
	if err := b.checkMessage(&m); err != nil {
		return err
	}
	r := b.realmIfAny(account)
	if r == nil && !m.Retain {
		return nil
	}
	if r == nil {
		r = b.realm(account)
	}
	w := b.batch()
	defer b.release(w)
	w.begin(&m)
	if m.Retain {
		if err := w.retain(r, nil); err != nil {
			return err
		}
	}
	w.route(r.router)
	return nil
}

// Disconnect ends the connection of a client id and reports whether there was
// one.
func (b *Broker) Disconnect(account fleet.Account, clientID string, reason DisconnectReason) bool {
	r := b.realmIfAny(account)
	if r == nil {
		return false
	}
	s := r.find(clientID)
	if s == nil {
		return false
	}
	c := s.link.Load()
	if c == nil {
		return false
	}
	c.end(because(reason))
	return true
}

// DisconnectPrincipal ends all connections of a principal and returns their
// number.
func (b *Broker) DisconnectPrincipal(account fleet.Account, principalID string, reason DisconnectReason) int {
	r := b.realmIfAny(account)
	if r == nil {
		return 0
	}
	n := 0
	for _, c := range r.connections() {
		if c.info.Principal.ID == principalID {
			c.end(because(reason))
			n++
		}
	}
	return n
}

// DisconnectAccount ends all connections of an account and returns their
// number. Stored sessions stay.
func (b *Broker) DisconnectAccount(account fleet.Account, reason DisconnectReason) int {
	r := b.realmIfAny(account)
	if r == nil {
		return 0
	}
	all := r.connections()
	for _, c := range all {
		c.end(because(reason))
	}
	return len(all)
}

// Recheck asks about every connection and ends those that may not stay, with
// AUTH_ERROR.
func (b *Broker) Recheck(mayStay func(SessionInfo) bool) {
	for _, r := range b.allRealms() {
		for _, c := range r.connections() {
			if !mayStay(c.info) {
				c.end(because(ReasonAuthError))
			}
		}
	}
}

// Sessions returns the connections of an account, in no order.
func (b *Broker) Sessions(account fleet.Account) []SessionInfo {
	r := b.realmIfAny(account)
	if r == nil {
		return nil
	}
	all := r.connections()
	infos := make([]SessionInfo, len(all))
	for i, c := range all {
		infos[i] = c.info
	}
	return infos
}

// Shutdown refuses new connections, dismisses every session with
// SERVER_INITIATED_DISCONNECT and returns when all goroutines are gone. When
// ctx ends first, connections are cut and the goroutines still waited for. A
// Gatekeeper's Admit is told by its context.
func (b *Broker) Shutdown(ctx context.Context) error {
	b.mu.Lock()
	first := !b.closing
	b.closing = true
	if first {
		close(b.stop)
	}
	for l := range b.listeners {
		_ = l.Close()
	}
	for conn, cancel := range b.admitting {
		cancel()
		_ = conn.Close()
	}
	b.mu.Unlock()
	for _, r := range b.allRealms() {
		for _, c := range r.connections() {
			c.end(because(ReasonServerInitiated))
		}
	}
	done := make(chan struct{})
	go func() {
		b.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	for _, r := range b.allRealms() {
		for _, c := range r.connections() {
			_ = c.conn.Close()
		}
	}
	<-done
	return fmt.Errorf("shut down broker: %w", ctx.Err())
}

// realm returns the sessions and subscriptions of an account, making them when
// there are none.
func (b *Broker) realm(account fleet.Account) *realm {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.realms[account]
	if r == nil {
		r = b.newRealm(account)
		b.realms[account] = r
	}
	return r
}

// realmIfAny returns an account's realm, or nil.
func (b *Broker) realmIfAny(account fleet.Account) *realm {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.realms[account]
}

// allRealms returns the realms of all accounts.
func (b *Broker) allRealms() []*realm {
	b.mu.Lock()
	defer b.mu.Unlock()
	realms := make([]*realm, 0, len(b.realms))
	for _, r := range b.realms {
		realms = append(realms, r)
	}
	return realms
}

// logEnd tells the log of ends that somebody may have to look into.
func (b *Broker) logEnd(c *connection, why cause) {
	if why.reason != ReasonClientError && why.reason != ReasonServerError && why.reason != ReasonThrottled {
		return
	}
	b.logger.Info("connection ended by an error", slog.String("client_id", c.info.ClientID),
		slog.String("account", string(c.info.Account)), slog.String("reason", string(why.reason)), slog.Int("code", int(why.code)), slog.Any("err", why.err))
}

// versionedCode returns a SUBACK code as the client's version has it.
func versionedCode(v mqtt.Version, code mqtt.ReasonCode) mqtt.ReasonCode {
	if v != mqtt.V5 && code.Failed() {
		return mqtt.SubackFailure
	}
	return code
}

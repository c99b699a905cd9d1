package broker

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/inlet"
	"github.com/muster-iot/muster/internal/mqtt"
)

// AdmissionOptions bound how fast clients are let in, so that a crowd that comes
// back at once leaves those who are connected the time that they need.
type AdmissionOptions struct {
	// ConnectsPerSecond is the pace, 0 for none. Handshakes go a little faster, so
	// that some of those who cannot be let in can be told when to come back.
	ConnectsPerSecond int
	// WaitingRoom is how many may wait for the turn of their handshake, 0 for as
	// many as have theirs while one has patience. Behind it there is room for
	// those whose CONNECT has come, for a second: they cost more memory, and those
	// who find no room there are told when to come back.
	WaitingRoom int
	// Storm is told when a stage begins to make clients wait, and when it is over,
	// from any goroutine; nil for nobody.
	Storm func(began bool)
}

const (
	// admissionPatience is how long a client waits for each of its turns: less
	// than devices wait for a handshake or an answer to their CONNECT.
	admissionPatience = 5 * time.Second
	// connectBurst is how many seconds' worth of clients may come at once.
	connectBurst = 2
	// handshakePercent is the pace of handshakes in parts of that of CONNECTs.
	handshakePercent = 125
	// handshakeBurst is the part of a second's handshakes that may come at once:
	// those who wait for a moment lose nothing, those who are connected would.
	handshakeBurst = 4
)

// class is how urgently a client is let in.
type class int

// Classes: clients that have a session, or that were connected a short time ago;
// others that have shown a certificate or proven who they are before their
// CONNECT; and everybody else.
const (
	classReturning class = iota
	classKnown
	classOther
)

// classes returns the names for metrics, and the parts of the pace that each is
// guaranteed.
func classes() (names []string, shares []int) {
	return []string{"returning", "known", "other"}, []int{7, 2, 1}
}

// Stages of an admission, for metrics and log.
const (
	stageHandshake = "handshake"
	stageConnect   = "connect"
)

// Outcomes of a stage.
const (
	outcomeAdmitted = "admitted"
	outcomeRefused  = "refused"
	outcomeGone     = "gone"
)

// door paces admissions.
type door struct {
	handshakes, connects *inlet.Pace
	recent               recent
	total                *prometheus.CounterVec
}

// newDoor returns nil when there is no pace.
func newDoor(o AdmissionOptions, now func() time.Time, logger *slog.Logger, r prometheus.Registerer) *door {
	if o.ConnectsPerSecond <= 0 {
		return nil
	}
	names, shares := classes()
	d := &door{
		recent: newRecent(now),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_broker_admissions_total", Help: "Turns that connections came for, by stage, class and outcome.",
		}, []string{"stage", "class", "outcome"}),
	}
	told := o.Storm
	if told == nil {
		told = func(bool) {}
	}
	pace := func(stage string, o inlet.PaceOptions) *inlet.Pace {
		o.Patience, o.Now = admissionPatience, now
		o.Began = func() {
			told(true)
			logger.Warn("more connections come than are admitted at once, they wait for their turn",
				slog.String("stage", stage), slog.Int("per_second", o.PerSecond))
		}
		o.Ended = func(s inlet.Storm) {
			told(false)
			logger.Info("connections are admitted at once again", slog.String("stage", stage), slog.Duration("took", s.Took),
				slog.Int("admitted", s.Admitted), slog.Int("refused", s.Refused), slog.Int("waited", s.Waited))
		}
		return inlet.NewPace(o)
	}
	handshakes := max(1, o.ConnectsPerSecond*handshakePercent/100)
	room := o.WaitingRoom
	if room == 0 {
		room = handshakes * int(admissionPatience/time.Second)
	}
	d.handshakes = pace(stageHandshake, inlet.PaceOptions{PerSecond: handshakes, Burst: max(1, handshakes/handshakeBurst), Room: room, Shares: []int{1}, Fair: true})
	d.connects = pace(stageConnect, inlet.PaceOptions{
		PerSecond: o.ConnectsPerSecond, Burst: connectBurst * o.ConnectsPerSecond, Room: o.ConnectsPerSecond, Shares: shares,
		Backlog: func() int { return d.handshakes.Waiting(0) },
	})
	if r != nil {
		r.MustRegister(d.total, d.waiting(stageHandshake, "any", d.handshakes, 0))
		for i, name := range names {
			r.MustRegister(d.waiting(stageConnect, name, d.connects, i))
		}
	}
	return d
}

// waiting shows how many wait in a lane.
func (d *door) waiting(stage, class string, p *inlet.Pace, in int) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "muster_broker_admissions_waiting", Help: "Connections that wait for their turn, by stage and class.",
		ConstLabels: prometheus.Labels{"stage": stage, "class": class},
	}, func() float64 { return float64(p.Waiting(in)) })
}

// count counts the outcome of a stage.
func (d *door) count(stage, class string, ctx context.Context, err error) { //nolint:revive // the context says which outcome it was
	outcome := outcomeAdmitted
	switch {
	case err != nil && ctx.Err() != nil:
		outcome = outcomeGone
	case err != nil:
		outcome = outcomeRefused
	}
	d.total.WithLabelValues(stage, class, outcome).Inc()
}

// handshake waits for the turn to begin a handshake.
func (d *door) handshake(ctx context.Context, peer net.Addr) error {
	if d == nil {
		return nil
	}
	err := d.handshakes.Enter(ctx, 0, peer)
	d.count(stageHandshake, "any", ctx, err)
	if err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	return nil
}

// connect waits for the turn of a CONNECT.
func (d *door) connect(ctx context.Context, of class) error {
	err := d.connects.Enter(ctx, int(of), nil)
	names, _ := classes()
	d.count(stageConnect, names[of], ctx, err)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

// recent remembers who was connected a short time ago, in two generations of
// bounded size, as numbers that mean nothing outside of this process.
type recent struct {
	seed maphash.Seed
	now  func() time.Time

	mu           sync.Mutex
	newer, older map[uint64]struct{}
	began        time.Time // of the newer
}

const (
	// generation is how long a client is remembered at least.
	generation = 15 * time.Minute
	// maxRecent bounds each generation.
	maxRecent = 1 << 20
)

// newRecent remembers nobody yet.
func newRecent(now func() time.Time) recent {
	return recent{seed: maphash.MakeSeed(), now: now, newer: make(map[uint64]struct{}), began: now()}
}

// key stands for a client id together with the certificate that it is used
// with: whoever borrows another's client id is not taken for it.
func (r *recent) key(account fleet.Account, clientID string, certificate *x509.Certificate) uint64 {
	var h maphash.Hash
	h.SetSeed(r.seed)
	_, _ = h.WriteString(string(account))
	_ = h.WriteByte(0)
	_, _ = h.WriteString(clientID)
	if certificate != nil {
		_ = h.WriteByte(0)
		_, _ = h.Write(certificate.Raw)
	}
	return h.Sum64()
}

// remember notes that a client was connected until now.
func (d *door) remember(key uint64) {
	if d != nil {
		d.recent.remember(key)
	}
}

// remember notes that a client was connected until now.
func (r *recent) remember(key uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	r.newer[key] = struct{}{}
}

// knows reports whether a client was connected a short time ago.
func (r *recent) knows(key uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	_, ok := r.newer[key]
	if !ok {
		_, ok = r.older[key]
	}
	return ok
}

// turn begins a new generation when it is time.
func (r *recent) turn() {
	now := r.now()
	age := now.Sub(r.began)
	if age < generation && len(r.newer) < maxRecent {
		return
	}
	r.older, r.newer, r.began = r.newer, make(map[uint64]struct{}), now
	if age >= 2*generation {
		r.older = nil
	}
}

// retryAfter is the name of the user property with the seconds after which a
// client should come back.
const retryAfter = "retry-after"

// busy returns the CONNACK that asks a client to come back later.
func busy(v mqtt.Version, after time.Duration, text string) *mqtt.Connack {
	if v != mqtt.V5 {
		return &mqtt.Connack{Reason: mqtt.ReasonCode(mqtt.ReturnServerUnavailable)}
	}
	seconds := strconv.Itoa(max(1, int(math.Ceil(after.Seconds()))))
	return &mqtt.Connack{Reason: mqtt.ServerBusy, Properties: mqtt.Properties{
		Set: mqtt.Of(mqtt.PropReasonString), ReasonString: text + ", retry after " + seconds + " seconds",
		UserProperties: []mqtt.UserProperty{{Key: retryAfter, Value: seconds}},
	}}
}

// BeginHandshake waits for the turn of a TLS handshake, and for a place among
// those under way, as the broker's own listeners do. leave must be called once
// when it returns nil.
func (b *Broker) BeginHandshake(ctx context.Context, peer net.Addr) (leave func(), err error) {
	if err := b.door.handshake(ctx, peer); err != nil {
		return nil, err
	}
	if leave, err = b.handshakes.Enter(ctx, peer); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return leave, nil
}

// slim lets go of the input buffer while the CONNECT waits for its turn, unless
// more has arrived behind it.
func (a *admission) slim(packet, rest []byte) (copied, behind []byte) {
	if len(rest) > 0 {
		return packet, rest
	}
	packet = bytes.Clone(packet)
	a.in.release()
	return packet, nil
}

// awaitTurn waits until the client may be let in, or sends it away with the
// time to come back at.
func (a *admission) awaitTurn(ctx context.Context) error {
	b := a.broker
	if d := b.draining.Load(); d != nil {
		return a.sendAway(&inlet.BusyError{RetryAfter: d.comeBackAfter(b.now())}, "server is going away")
	}
	if b.door == nil {
		return nil
	}
	err := b.door.connect(ctx, a.class())
	if away, ok := errors.AsType[*inlet.BusyError](err); ok {
		return a.sendAway(away, "server is busy")
	}
	return err
}

// class tells how urgently the client is let in.
func (a *admission) class() class {
	b, r := a.broker, &a.request
	a.key = b.door.recent.key(r.Account, r.ClientID, r.PeerCertificate)
	switch {
	case b.door.recent.knows(a.key) || b.sessionOf(r.Account, r.ClientID) != nil:
		return classReturning
	case r.PeerCertificate != nil || r.Attachment != nil:
		return classKnown
	default:
		return classOther
	}
}

// sendAway answers the CONNECT with the time to come back at. A client that
// takes no packet of that size gets the code alone.
func (a *admission) sendAway(away *inlet.BusyError, text string) error {
	answer := busy(a.connect.Version, away.RetryAfter, text)
	if most := a.connect.Properties.MaximumPacketSize; a.connect.Properties.Set.Has(mqtt.PropMaximumPacketSize) {
		if encoded, err := answer.Append(nil, a.connect.Version); err != nil || len(encoded) > int(most) {
			answer.Properties = mqtt.Properties{}
		}
	}
	a.answer(answer, a.connect.Version)
	return fmt.Errorf("%w: %w", errRefused, away)
}

package index

import (
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
)

// Fields of settled connectivity, as opposed to connectivity.connected, which is
// the raw session.
const (
	fieldState        = "muster.connectivity.state"
	fieldStateVersion = "muster.connectivity.stateVersion"
	fieldStateSince   = "muster.connectivity.since"
	fieldFlapping     = "muster.connectivity.flapping"
	fieldLastSeen     = "muster.connectivity.lastSeen"
	fieldBlips        = "muster.connectivity.blips"
	fieldGateway      = "muster.connectivity.gateway"
	fieldNoHello      = "muster.connectivity.noHello"
	fieldStateReason  = "muster.connectivity.disconnectReason"
	fieldLatencyLast  = "muster.latency.lastMs"
	fieldLatencyMean  = "muster.latency.meanMs"
	fieldLatencyMax   = "muster.latency.maxMs"
)

// neverSeen is the state of a thing that nobody has told of, folded.
const neverSeen = "never_seen"

// ConnectivityState is a thing's settled state as the newest change told it.
type ConnectivityState struct {
	State string
	// StateVersion counts changes; an older one than the index has is passed over.
	StateVersion int64
	Since        time.Time
	Flapping     bool
	// LastSeen is zero for never.
	LastSeen time.Time
	Blips    int64
	// Gateway is empty for a thing that speaks for itself.
	Gateway string
	NoHello bool
	// Reason is empty unless the end of a connection led to the state.
	Reason string
}

// Latency is the newest summary of a thing's round trips, in milliseconds.
type Latency struct{ LastMS, MeanMS, MaxMS float64 }

// PutConnectivityState adds the settled state of a thing.
func (b *Builder) PutConnectivityState(account fleet.Account, thing string, v ConnectivityState) {
	b.shard(account).setConnectivityState(thing, v)
}

// PutLatency adds the round trips of a thing.
func (b *Builder) PutLatency(account fleet.Account, thing string, v Latency) {
	b.shard(account).setLatency(thing, v)
}

// setConnectivityState sets the fields of a thing that exists.
func (s *shard) setConnectivityState(name string, v ConnectivityState) {
	doc, ok := s.things.doc(name)
	if !ok {
		return
	}
	if known, ok := s.things.number(fieldStateVersion, doc); ok && float64(v.StateVersion) <= known {
		return
	}
	c := s.things
	c.putText(fieldState, doc, fleetquery.Fold(v.State))
	c.putNumber(fieldStateVersion, doc, float64(v.StateVersion))
	c.putNumber(fieldStateSince, doc, float64(v.Since.UnixMilli()))
	c.put(fieldFlapping, doc, values{texts: fleetTexts(v.Flapping)})
	c.putNumber(fieldBlips, doc, float64(v.Blips))
	c.putText(fieldGateway, doc, fleetquery.Fold(v.Gateway))
	c.putText(fieldStateReason, doc, fleetquery.Fold(v.Reason))
	if v.NoHello {
		c.put(fieldNoHello, doc, values{texts: fleetTexts(true)})
	} else {
		c.put(fieldNoHello, doc, values{})
	}
	if !v.LastSeen.IsZero() {
		c.putNumber(fieldLastSeen, doc, float64(v.LastSeen.UnixMilli()))
	}
}

// setLatency sets the round trips of a thing that exists.
func (s *shard) setLatency(name string, v Latency) {
	doc, ok := s.things.doc(name)
	if !ok {
		return
	}
	s.things.putNumber(fieldLatencyLast, doc, v.LastMS)
	s.things.putNumber(fieldLatencyMean, doc, v.MeanMS)
	s.things.putNumber(fieldLatencyMax, doc, v.MaxMS)
}

// applyConnectivity applies a settled change.
func (s *shard) applyConnectivity(e *event.ConnectivityStateChanged) {
	s.setConnectivityState(e.Thing, ConnectivityState{
		State: e.To, StateVersion: e.StateVersion, Since: e.Since, Flapping: e.Flapping, LastSeen: e.LastSeen,
		Blips: e.Blips, Gateway: e.Gateway, NoHello: e.NoHello, Reason: e.DisconnectReason,
	})
}

// applyLatency applies measured round trips.
func (s *shard) applyLatency(e *event.LatencyMeasured) {
	for _, one := range e.Things {
		s.setLatency(one.Thing, Latency{LastMS: one.LastMS, MeanMS: one.MeanMS, MaxMS: one.MaxMS})
	}
}

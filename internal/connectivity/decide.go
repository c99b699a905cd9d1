package connectivity

import (
	"math"
	"time"
)

// reasonClean is the one clean end of a connection.
const reasonClean = "CLIENT_INITIATED_DISCONNECT"

// Disconnect reasons of things behind a gateway.
const (
	// ReasonGatewayOffline is that of a thing whose gateway is offline,
	// ReasonGatewayLeft the same when the gateway left as it wished: they say
	// nothing about the thing itself.
	ReasonGatewayOffline = "GATEWAY_OFFLINE"
	ReasonGatewayLeft    = "GATEWAY_LEFT"
	// ReasonGatewayGoodbye is that of a thing for which its gateway said goodbye,
	// ReasonGatewayLost of one that its gateway does not hear any more.
	ReasonGatewayGoodbye = "GATEWAY_GOODBYE"
	ReasonGatewayLost    = "GATEWAY_LOST_DEVICE"
)

// cleanEnd reports whether a disconnect reason is that of a device that left as
// it wished.
func cleanEnd(reason string) bool {
	return reason == reasonClean || reason == ReasonGatewayGoodbye || reason == ReasonGatewayLeft
}

// byGateway reports whether a disconnect reason is about the gateway only.
func byGateway(reason string) bool {
	return reason == ReasonGatewayOffline || reason == ReasonGatewayLeft
}

// forgetAfter is how long a client must be away for the versions of its
// connections to start over; forgetSlack allows for rounding.
const (
	forgetAfter = time.Hour
	forgetSlack = time.Second
)

// kind is what an input reports.
type kind uint8

// Kinds of inputs.
const (
	// inConnect and inDisconnect are a session's begin and end.
	inConnect kind = iota
	inDisconnect
	// inHeard is a hello, a heartbeat or any publish.
	inHeard
	// inGoodbye announces an absence.
	inGoodbye
	// inTimer and inFlapTimer are timers that have come due.
	inTimer
	inFlapTimer
	// inBlock says that no certificate of the thing is in force, inUnblock that
	// one is.
	inBlock
	inUnblock
	// inGateway says that another gateway, or none, speaks for the thing.
	inGateway
)

// input is something that happened to a thing.
type input struct {
	kind kind
	// at is when it happened, in milliseconds; base is the time from which
	// waiting counts, which differs from it after a jump of the clock.
	at, base int64
	// session is that of inConnect, inDisconnect, inHeard and inGoodbye.
	session session
	// virtual says that a gateway speaks for the thing.
	virtual bool
	// provisioning says that the session is one of birth or claim and not
	// operational.
	provisioning bool
	// plan is the end of an absence that the gateway before the thing announced.
	plan int64
	// floating says that plan or nextContact was given as a length of time.
	floating bool
	// interval is that of declared heartbeats, 0 for not declared.
	interval int64
	// nextContact is the end of an announced absence, 0 for none.
	nextContact int64
	// due is that of the timer.
	due int64
	// live says that the thing's client is connected at this moment, heard when
	// it last published, begun when the newest session did, listening since when
	// somebody would have noticed.
	live                    bool
	heard, begun, listening int64
	// hold is until when nobody is declared offline.
	hold int64
	// gateway and assigned are for inGateway.
	gateway  string
	assigned bool
}

// Reasons for which an input changes nothing.
const (
	ignoredOlder        = "older_session"
	ignoredDuplicate    = "duplicate"
	ignoredSuperseded   = "superseded"
	ignoredBlocked      = "blocked"
	ignoredProvisioning = "provisioning_session"
	ignoredNotConnected = "not_connected"
	ignoredOther        = "other_session"
	ignoredTimer        = "stale_timer"
	ignoredHold         = "restart_grace"
	ignoredLive         = "live_session"
	ignoredEnded        = "ended_session"
	ignoredActive       = "active"
	ignoredOwn          = "own_session"
	ignoredNoThing      = "no_thing"
)

// decision carries one input into a record.
type decision struct {
	r   *record
	in  *input
	set *InForce
	now int64
	// jitter is between 0 and 1, the same for the same record.
	jitter float64
	// changes are the transitions, in order; overlay says that only flapping or
	// gateway changed.
	changes []change
	ignored string
}

// decide changes the record by the input. It reads no clock and rolls no dice.
func (d *decision) decide() {
	switch d.in.kind {
	case inConnect:
		d.connect()
	case inDisconnect:
		d.disconnect()
	case inHeard:
		d.heard()
	case inGoodbye:
		d.goodbye()
	case inTimer:
		d.timer()
	case inFlapTimer:
		d.release()
	case inBlock:
		d.block()
	case inUnblock:
		d.unblock()
	case inGateway:
		d.gateway()
	}
}

// ignore notes why nothing changes.
func (d *decision) ignore(why string) { d.ignored = why }

// to changes the state. Timers of the state before end.
func (d *decision) to(next State, since int64) *change {
	r := d.r
	c := change{Version: r.StateVersion + 1, From: r.State, To: next, Since: since, At: d.now}
	if next.away() && r.State != Blocked {
		c.Reason = r.Session.Reason
	}
	if r.State == Suspect {
		c.Wait = max(0, d.now-r.Since)
	}
	if next == Stale || next == OfflineDirty || next == OfflineOverdue {
		c.Alert = *d.set.Alert && !r.Flapping
	}
	r.State, r.StateVersion, r.Since, r.Settled, r.Due = next, c.Version, since, d.now, 0
	return d.record(c)
}

// overlay tells a change that is none of the state.
func (d *decision) overlay() {
	if d.r.Since == 0 {
		d.r.Since = d.in.at // this is the first that is known of it
	}
	d.r.StateVersion++
	d.record(change{Version: d.r.StateVersion, From: d.r.State, To: d.r.State, Since: d.r.Since, At: d.now})
}

func (d *decision) record(c change) *change {
	r := d.r
	r.Told = told{Blips: r.Blips, LastSeen: r.LastSeen}
	if r.Recent = append(r.Recent, c); len(r.Recent) > maxRecent {
		r.Recent = r.Recent[len(r.Recent)-maxRecent:]
	}
	d.changes = append(d.changes, c)
	return &d.changes[len(d.changes)-1]
}

// order of a session against the newest that is known.
type order uint8

const (
	older order = iota
	same
	newer
)

// compare orders by session first and by version then, since versions start
// over when a client was away for an hour.
func (d *decision) compare() order {
	known, in := &d.r.Session, &d.in.session
	switch {
	case known.ConnectionID == "" && known.SessionID == "":
		return newer
	case in.ConnectionID != "" && in.ConnectionID == known.ConnectionID:
		return same
	case d.in.virtual || known.ClientID == "":
		// A gateway's word has no version: the newest one counts.
		return newer
	case in.Version > known.Version:
		return newer
	case in.SessionID == known.SessionID && in.Version == known.Version:
		return same
	}
	away := d.in.at-known.changedAt() >= (forgetAfter - forgetSlack).Milliseconds()
	if d.in.kind == inConnect && away && (in.Version == 0 || !known.Live) {
		return newer
	}
	return older
}

// connect takes in the begin of a session.
func (d *decision) connect() {
	r := d.r
	if d.in.virtual && r.Session.Live && r.Session.ClientID != "" {
		d.ignore(ignoredOwn)
		return
	}
	switch d.compare() {
	case older:
		d.ignore(ignoredOlder)
		return
	case same:
		if r.Session.Live {
			d.ignore(ignoredDuplicate)
		} else {
			d.ignore(ignoredSuperseded)
		}
		return
	case newer:
	}
	if d.in.provisioning && r.State != NeverSeen {
		d.ignore(ignoredProvisioning)
		return
	}
	r.Session = d.in.session
	r.Session.Live, r.Session.ConnectedAt = true, d.in.at
	r.LastSeen, r.Plan = max(r.LastSeen, d.in.at), nil
	switch r.State {
	case NeverSeen, Provisioning:
		if d.in.provisioning {
			d.to(Provisioning, d.in.at)
			return
		}
		r.Seen = true
		d.to(FirstConnected, d.in.at)
		r.Due = d.in.base + millis(*d.set.HelloSeconds)
	case FirstConnected, Stale, Recovered:
		r.Blips++
	case Online:
		r.Blips++
		d.armStale(d.in.base)
	case Suspect:
		r.Blips++
		d.score()
		d.to(Online, d.in.at)
		d.armStale(d.in.base)
	case Sleeping:
		d.to(Online, d.in.at)
		d.armStale(d.in.base)
	case OfflineClean, OfflineDirty, OfflineOverdue:
		outage := d.endOutage()
		c := d.to(Recovered, d.in.at)
		c.Outage = outage
		r.Recent[len(r.Recent)-1] = *c
		r.Due = d.in.base + recoveredHold.Milliseconds()
	case Blocked:
		d.ignore(ignoredBlocked)
	}
}

// endOutage records how long the thing was offline.
func (d *decision) endOutage() int64 {
	r := d.r
	if r.OutageBegan == 0 {
		return 0
	}
	r.LastOutage = max(0, d.in.at-r.OutageBegan)
	r.TotalOutage += r.LastOutage
	r.Outages++
	r.OutageBegan = 0
	return r.LastOutage
}

// disconnect takes in the end of a session.
func (d *decision) disconnect() {
	r := d.r
	if d.in.virtual && r.Session.ClientID != "" {
		d.ignore(ignoredOwn)
		return
	}
	how := d.compare()
	if d.in.provisioning && how != same {
		d.ignore(ignoredProvisioning)
		return
	}
	switch how {
	case older:
		d.ignore(ignoredOlder)
		return
	case same:
		if !r.Session.Live {
			d.ignore(ignoredDuplicate)
			return
		}
	case newer:
		// Its begin was not told, or comes later and is superseded then.
		if !d.in.virtual {
			r.Session = d.in.session
		}
	}
	planned, floating := d.in.plan, d.in.floating
	if r.Plan != nil && r.Plan.ConnectionID == r.Session.ConnectionID {
		planned, floating = r.Plan.NextContact, r.Plan.Floating
	}
	r.Session.Live, r.Session.EndedAt, r.Session.Reason = false, d.in.at, d.in.session.Reason
	r.LastSeen = max(r.LastSeen, d.lastSeen())
	r.Plan, r.Floating = nil, floating
	switch r.State {
	case FirstConnected, Online, Stale, Recovered:
		d.leave(planned)
	case Blocked:
		d.ignore(ignoredBlocked)
	case NeverSeen, Provisioning, Suspect, Sleeping, OfflineClean, OfflineDirty, OfflineOverdue:
		d.ignore(ignoredNotConnected)
	}
}

// lastSeen is when a device was last heard of whose session has ended: a
// connection that ended by its keep-alive was silent for one and a half of it,
// and of one that a failing server cut, or whose end was missed, nobody knows.
func (d *decision) lastSeen() int64 {
	switch d.in.session.Reason {
	case "MQTT_KEEP_ALIVE_TIMEOUT":
		return d.in.at - int64(d.r.Session.KeepAlive)*1500
	case "SERVER_ERROR", reasonUnknown, ReasonGatewayOffline, ReasonGatewayLeft, ReasonGatewayLost:
		return 0
	default:
		return d.in.at
	}
}

// leave is the change of state when the current session has ended.
func (d *decision) leave(planned int64) {
	r := d.r
	clean := r.Session.clean()
	wait := d.set.wait(clean, r.Session.KeepAlive)
	switch {
	case clean && planned > 0:
		d.to(Sleeping, d.in.at)
		r.Plan = &plan{ConnectionID: r.Session.ConnectionID, NextContact: planned, Floating: r.Floating}
		r.Due = max(planned, d.in.base) + millis(*d.set.SleepGraceSeconds)
	case clean && wait == 0:
		d.to(OfflineClean, d.in.at)
		r.OutageBegan = d.in.at
	default:
		d.to(Suspect, d.in.at)
		r.Due = d.in.base + d.jittered(wait)
	}
}

// jittered adds up to a fifth.
func (d *decision) jittered(wait int64) int64 { return wait + int64(float64(wait)*d.jitter/5) }

// heard takes in a sign of life of the current session.
func (d *decision) heard() {
	r := d.r
	if d.in.session.ConnectionID != r.Session.ConnectionID || !r.Session.Live {
		d.ignore(ignoredOther)
		return
	}
	before := r.LastSeen
	r.LastSeen = max(r.LastSeen, d.in.at)
	rearm := false
	if d.in.interval != 0 && d.in.interval != r.Interval {
		r.Interval, rearm = d.in.interval, true
	}
	switch r.State {
	case FirstConnected:
		d.to(Online, d.in.at)
		rearm = true
	case Stale:
		r.LastGap = max(0, d.in.at-before)
		d.to(Online, d.in.at)
		rearm = true
	case Online:
	case Recovered:
		rearm = false
	case Blocked:
		d.ignore(ignoredBlocked)
		return
	default:
		d.ignore(ignoredNotConnected)
		return
	}
	if rearm {
		d.armStale(d.in.base)
	}
}

// armStale begins to watch for silence where the settings want it.
func (d *decision) armStale(from int64) {
	d.r.Due = 0
	if silence := d.set.stale(d.r.Interval); silence > 0 {
		d.r.Due = from + silence
	}
}

// goodbye takes in that the device is about to leave.
func (d *decision) goodbye() {
	r := d.r
	switch {
	case d.in.session.ConnectionID != r.Session.ConnectionID || !r.Session.Live:
		d.ignore(ignoredOther)
	case !r.State.connected():
		d.ignore(ignoredNotConnected)
	default:
		r.LastSeen = max(r.LastSeen, d.in.at)
		r.Plan = &plan{ConnectionID: r.Session.ConnectionID, NextContact: d.in.nextContact, Floating: d.in.floating}
	}
}

// liveAgain is how long a timer is put off when the client turns out to be
// connected at the end of a wait, or not to be connected in a state that needs
// it: its connect or disconnect is on its way through the log.
const liveAgain = 5 * time.Second

// timer acts on the timer of the state.
func (d *decision) timer() {
	r := d.r
	if r.Due != d.in.due {
		d.ignore(ignoredTimer)
		return
	}
	if r.State.connected() && r.Session.ClientID != "" && !d.in.live {
		r.Due = d.now + liveAgain.Milliseconds()
		d.ignore(ignoredEnded)
		return
	}
	switch r.State {
	case FirstConnected:
		r.NoHello = true
		d.to(Online, d.now)
		d.armStale(d.now)
	case Recovered:
		d.to(Online, d.now)
		d.armStale(d.now)
	case Online:
		d.silent()
	case Suspect, Sleeping:
		d.confirm()
	default:
		r.Due = 0
		d.ignore(ignoredTimer)
	}
}

// silent decides whether a connected device has been silent for too long.
func (d *decision) silent() {
	r := d.r
	silence := d.set.stale(r.Interval)
	last := max(d.in.heard, d.in.listening, d.in.begun)
	switch {
	case silence == 0:
		r.Due = 0
		d.ignore(ignoredActive)
	case last+silence > d.now:
		r.Due = last + silence
		d.ignore(ignoredActive)
	default:
		r.LastSeen = max(r.LastSeen, d.in.heard)
		d.to(Stale, last)
	}
}

// confirm decides whether a device that went is offline. Nobody is while the
// server has just started or is about to stop, or while its client is connected.
func (d *decision) confirm() {
	r := d.r
	switch {
	case d.in.live:
		r.Due = d.now + liveAgain.Milliseconds()
		d.ignore(ignoredLive)
		return
	case d.in.hold > d.now:
		r.Due = d.in.hold + int64(d.jitter*leastWait.Seconds()*1000)
		d.ignore(ignoredHold)
		return
	}
	if r.State == Sleeping {
		// What was announced is no outage.
		if r.OutageBegan = d.in.due; r.Plan != nil {
			r.OutageBegan = r.Plan.NextContact
		}
		d.to(OfflineOverdue, d.in.due)
		return
	}
	r.OutageBegan = r.Since
	switch {
	case r.Session.clean():
		d.score()
		d.to(OfflineClean, r.Since)
	default:
		d.score()
		d.to(OfflineDirty, r.Since)
	}
}

// score counts one interruption and begins the overlay where there are too many.
func (d *decision) score() {
	r := d.r
	r.Flap, r.FlapAt = r.flapScore(d.now)+1, d.now
	if r.Flap > *d.set.FlapSuppress {
		r.Flapping = true
	}
	if r.Flapping {
		r.FlapDue = d.now + d.untilReleased()
	}
}

// untilReleased is when the score will have come down far enough.
func (d *decision) untilReleased() int64 {
	halves := math.Log2(d.r.flapScore(d.now) / *d.set.FlapRelease)
	return max(1000, int64(math.Ceil(halves*float64(halfLife.Milliseconds())))+1)
}

// release ends the overlay when the score has come down.
func (d *decision) release() {
	r := d.r
	if r.FlapDue != d.in.due {
		d.ignore(ignoredTimer)
		return
	}
	if r.FlapDue = 0; !r.Flapping {
		d.ignore(ignoredTimer)
		return
	}
	if r.flapScore(d.now) >= *d.set.FlapRelease {
		r.FlapDue = d.now + d.untilReleased()
		d.ignore(ignoredTimer)
		return
	}
	r.Flapping = false
	d.overlay()
}

// block takes a thing out of which no certificate is in force.
func (d *decision) block() {
	if d.r.State == Blocked {
		d.ignore(ignoredDuplicate)
		return
	}
	if d.r.Seen && d.r.OutageBegan == 0 {
		d.r.OutageBegan = d.in.at
	}
	d.r.Plan = nil
	d.to(Blocked, d.in.at)
}

// unblock lets a thing in again. The table has it OFFLINE_CLEAN; a device that
// was never seen has still not been, and one that is connected is not offline.
func (d *decision) unblock() {
	r := d.r
	switch {
	case r.State != Blocked:
		d.ignore(ignoredDuplicate)
	case r.Session.Live:
		r.Seen = true
		c := d.to(Online, d.in.at)
		c.Outage = d.endOutage()
		r.Recent[len(r.Recent)-1] = *c
		d.armStale(d.now)
	case r.Seen:
		d.to(OfflineClean, d.in.at)
	default:
		d.to(NeverSeen, d.in.at)
	}
}

// gateway changes who speaks for the thing.
func (d *decision) gateway() {
	r := d.r
	if r.Gateway == d.in.gateway && r.Assigned == d.in.assigned {
		d.ignore(ignoredDuplicate)
		return
	}
	moved := r.Gateway != d.in.gateway
	r.Gateway, r.Assigned = d.in.gateway, d.in.assigned
	if moved {
		d.overlay()
	}
}

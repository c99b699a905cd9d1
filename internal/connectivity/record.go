package connectivity

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/store"
)

// State is what a thing's connectivity has settled to.
type State string

// States; docs/connectivity.md tells what leads from one to another.
const (
	NeverSeen      State = "NEVER_SEEN"
	Provisioning   State = "PROVISIONING"
	FirstConnected State = "FIRST_CONNECTED"
	Online         State = "ONLINE"
	Stale          State = "STALE"
	Suspect        State = "SUSPECT"
	Sleeping       State = "SLEEPING"
	OfflineClean   State = "OFFLINE_CLEAN"
	OfflineDirty   State = "OFFLINE_DIRTY"
	OfflineOverdue State = "OFFLINE_OVERDUE"
	Recovered      State = "RECOVERED"
	Blocked        State = "BLOCKED"
)

// States returns all states in the order of a device's life.
func States() []State {
	return []State{
		NeverSeen, Provisioning, FirstConnected, Online, Stale, Suspect, Sleeping,
		OfflineClean, OfflineDirty, OfflineOverdue, Recovered, Blocked,
	}
}

// connected reports whether a device in the state has a session.
func (s State) connected() bool {
	switch s {
	case FirstConnected, Online, Stale, Recovered:
		return true
	default:
		return false
	}
}

// away reports whether the end of a session led to the state.
func (s State) away() bool {
	switch s {
	case Suspect, Sleeping, OfflineClean, OfflineDirty, OfflineOverdue:
		return true
	default:
		return false
	}
}

// schema is the version of stored records.
const schema = 1

// maxRecent bounds the changes that a record remembers.
const maxRecent = 10

// halfLife is that of the flap score.
const halfLife = 10 * time.Minute

// record is what is known of one thing; times in milliseconds, 0 for never.
type record struct {
	Schema       int   `json:"v"`
	State        State `json:"state"`
	StateVersion int64 `json:"stateVersion"`
	// Since is when the cause of the state happened, Settled when it was found.
	Since   int64   `json:"since,omitempty"`
	Settled int64   `json:"settled,omitempty"`
	Session session `json:"session,omitzero"`
	// Seen says that it has had an operational session.
	Seen    bool  `json:"seen,omitempty"`
	NoHello bool  `json:"noHello,omitempty"`
	Blips   int64 `json:"blips,omitempty"`
	// Flap is the flap score as it was at FlapAt.
	Flap     float64 `json:"flap,omitempty"`
	FlapAt   int64   `json:"flapAt,omitempty"`
	Flapping bool    `json:"flapping,omitempty"`
	LastSeen int64   `json:"lastSeen,omitempty"`
	// Due and FlapDue are the times of the timers, 0 for none; what the first one
	// is for follows from the state.
	Due     int64 `json:"due,omitempty"`
	FlapDue int64 `json:"flapDue,omitempty"`
	// Interval is that of the heartbeats that the device declared.
	Interval int64 `json:"interval,omitempty"`
	Plan     *plan `json:"plan,omitempty"`
	// Floating says that the device named the length of its sleep, and no time.
	Floating bool `json:"floating,omitempty"`
	// OutageBegan is set while it is offline.
	OutageBegan int64 `json:"outageBegan,omitempty"`
	Outages     int64 `json:"outages,omitempty"`
	LastOutage  int64 `json:"lastOutage,omitempty"`
	TotalOutage int64 `json:"totalOutage,omitempty"`
	// LastGap is the newest silence that was longer than allowed.
	LastGap int64 `json:"lastGap,omitempty"`
	// Gateway is the thing that speaks for this one; Assigned says that an
	// operator said so.
	Gateway  string `json:"gateway,omitempty"`
	Assigned bool   `json:"assigned,omitempty"`
	// Told is what the newest event told beside the state.
	Told   told     `json:"told,omitzero"`
	Recent []change `json:"recent,omitempty"`
}

// told is what projections know from the newest event.
type told struct {
	Blips    int64 `json:"blips,omitempty"`
	LastSeen int64 `json:"lastSeen,omitempty"`
}

// session is the newest connection that is known of.
type session struct {
	// ClientID is empty for a thing that a gateway speaks for.
	ClientID     string `json:"clientId,omitempty"`
	SessionID    string `json:"sessionId,omitempty"`
	ConnectionID string `json:"connectionId,omitempty"`
	Version      int64  `json:"version,omitempty"`
	// KeepAlive is in seconds.
	KeepAlive   int    `json:"keepAlive,omitempty"`
	Live        bool   `json:"live,omitempty"`
	ConnectedAt int64  `json:"connectedAt,omitempty"`
	EndedAt     int64  `json:"endedAt,omitempty"`
	Reason      string `json:"reason,omitempty"`
	// Process is that of the server in which the session began.
	Process int64 `json:"process,omitempty"`
}

// clean reports whether the session ended as its device wished.
func (s *session) clean() bool { return !s.Live && cleanEnd(s.Reason) }

// changedAt is when it last began or ended.
func (s *session) changedAt() int64 { return max(s.ConnectedAt, s.EndedAt) }

// plan is an announced absence; it holds for the connection that announced it,
// and is kept until the next one.
type plan struct {
	ConnectionID string `json:"connectionId,omitempty"`
	// NextContact is 0 for a goodbye without one.
	NextContact int64 `json:"nextContact,omitempty"`
	// Floating says that it was given as a length of time.
	Floating bool `json:"floating,omitempty"`
}

// change is one settled change of state.
type change struct {
	Version int64  `json:"version"`
	From    State  `json:"from"`
	To      State  `json:"to"`
	Since   int64  `json:"since"`
	At      int64  `json:"at"`
	Reason  string `json:"reason,omitempty"`
	// Wait is how long the wait state lasted, Outage the time offline that ends.
	Wait   int64 `json:"wait,omitempty"`
	Outage int64 `json:"outage,omitempty"`
	Alert  bool  `json:"alert,omitempty"`
}

// newRecord is that of a thing of which nothing is known.
func newRecord() *record { return &record{Schema: schema, State: NeverSeen} }

// clone copies a record so that a decision can be dropped.
func (r *record) clone() *record {
	next := *r
	next.Recent = slices.Clone(r.Recent)
	return &next
}

// decode reads a stored record.
func decode(stored store.Record) (*record, error) {
	var r record
	if err := json.Unmarshal(stored.Value, &r); err != nil {
		return nil, fmt.Errorf("decode %s: %w", stored.Key, err)
	}
	if r.Schema != schema {
		return nil, fmt.Errorf("decode %s: schema version %d is not known to this program", stored.Key, r.Schema)
	}
	return &r, nil
}

// flapScore is the score at a time. A clock that went back does not raise it.
func (r *record) flapScore(now int64) float64 {
	if r.Flap == 0 {
		return 0
	}
	elapsed := float64(max(0, now-r.FlapAt)) / float64(halfLife.Milliseconds())
	return r.Flap * math.Exp2(-elapsed)
}

package history

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// schema is the version of stored records.
const schema = 1

// Connection is one entry: a connection, or a connect that was refused.
type Connection struct {
	event.Session
	// PrincipalKind says what Principal names.
	PrincipalKind string
	// Refused marks a connect that was not let in; Began and Ended are both
	// when that was.
	Refused bool
	// Began is zero for a connection whose begin was never told.
	Began time.Time
	// Ended is zero while the connection lasts.
	Ended time.Time
	// Reason is why it ended or was refused.
	Reason string
}

// Thing is the thing that the entry is listed under, "" for none. A
// connection counts for the thing of its name or of its exclusive principal.
// A refused connect, which nobody could decide about, is listed under the
// thing named like its client id.
func (c *Connection) Thing() string {
	switch {
	case c.ThingName != "":
		return c.ThingName
	case c.Indexed, c.Refused:
		return c.ClientID
	default:
		return ""
	}
}

// Duration is how long it lasted, or has lasted by now.
func (c *Connection) Duration(now time.Time) time.Duration {
	if c.Began.IsZero() {
		return 0
	}
	if !c.Ended.IsZero() {
		now = c.Ended
	}
	return max(0, now.Sub(c.Began))
}

// record is the stored form; times in milliseconds, 0 for none.
type record struct {
	Schema int `json:"v"`
	// Seq is the sequence of the event that made the record.
	Seq     uint64        `json:"seq"`
	Began   int64         `json:"began,omitempty"`
	Ended   int64         `json:"ended,omitempty"`
	Refused bool          `json:"refused,omitempty"`
	Reason  string        `json:"reason,omitempty"`
	Kind    string        `json:"kind,omitempty"`
	Session event.Session `json:"session"`
}

// decode reads a stored record.
func decode(stored store.Record) (*record, error) {
	var r record
	if err := json.Unmarshal(stored.Value, &r); err != nil {
		return nil, fmt.Errorf("decode %s: %w", stored.Key, err)
	}
	if r.Schema != schema {
		return nil, fmt.Errorf("decode %s: schema version %d is not %d", stored.Key, r.Schema, schema)
	}
	return &r, nil
}

// time turns milliseconds into a time, 0 into none.
func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// connection is the record as callers see it.
func (r *record) connection() Connection {
	return Connection{
		Session: r.Session, PrincipalKind: r.Kind, Refused: r.Refused, Began: timeOf(r.Began), Ended: timeOf(r.Ended), Reason: r.Reason,
	}
}

// reference names the record. One without begin lies where it ended.
func (r *record) reference() reference {
	at := r.Began
	if at == 0 {
		at = r.Ended
	}
	return reference{named(r.Session.ClientID), place{at, r.Seq}}
}

// rows are the keys that point to the record as it is now, and make it found.
func (r *record) rows(account fleet.Account) []store.Key {
	of, ref := string(account), r.reference()
	at := placeText(ref.place)
	var keys []store.Key
	c := r.connection()
	if thing := c.Thing(); thing != "" {
		keys = append(keys, thingKey(account, thing, ref.clientID, ref.place))
	}
	if r.Ended == 0 {
		return keys
	}
	keys = append(keys, store.K(kindEnded, of, upTime(r.Ended), ref.clientID, at))
	if r.Began != 0 && r.Ended > r.Began {
		node := upTime(fork(r.Began, r.Ended-1))
		keys = append(keys, store.K(kindFrom, of, node, at, ref.clientID), store.K(kindUntil, of, node, upTime(r.Ended), ref.clientID, at))
	}
	return keys
}

// present is the value of rows, which say no more than that they exist.
func present() []byte { return []byte("1") }

// put writes the record with its rows and returns what both take.
func (r *record) put(account fleet.Account, b *store.Batch) (bytes uint64, err error) {
	r.Schema = schema
	value, err := json.Marshal(r)
	if err != nil {
		return 0, fmt.Errorf("encode connection: %w", err)
	}
	key := r.reference().key(account)
	b.Writes = append(b.Writes, store.Write{Key: key, Value: value})
	bytes = uint64(len(key) + len(value))
	for _, row := range r.rows(account) {
		b.Writes = append(b.Writes, store.Write{Key: row, Value: present()})
		bytes += uint64(len(row) + len(present()))
	}
	return bytes, nil
}

// remove deletes a stored record with its rows and returns what both took.
func (r *record) remove(account fleet.Account, stored store.Record, b *store.Batch) (bytes uint64) {
	b.Writes = append(b.Writes, store.Write{Key: stored.Key, Delete: true})
	bytes = uint64(len(stored.Key) + len(stored.Value))
	for _, row := range r.rows(account) {
		b.Writes = append(b.Writes, store.Write{Key: row, Delete: true})
		bytes += uint64(len(row) + len(present()))
	}
	return bytes
}

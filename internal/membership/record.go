package membership

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// First parts of the keys; the account is always the second. Times are
// milliseconds; ~ counts down, so that the newest comes first. A membership
// whose begin was never told lies where it ended.
//
//	membership-of-thing/A/<thing>/<~begin>/<~seq>/<group>   record
//	membership-of-group/A/<group>/<~begin>/<~seq>/<thing>   row
//	membership-open/A/<thing>/<group>                       where the record of a membership is that lasts
//	membership-ended/A/<end>/<thing>/<~begin>/<~seq>/<group>  row by end, for retention
//	membership-size/A, membership-trimmed/A                 how much was filed as ended, and removed
//	membership-applied                                      which events are in the records
const (
	kindOfThing = "membership-of-thing"
	kindOfGroup = "membership-of-group"
	kindOpen    = "membership-open"
	kindEnded   = "membership-ended"
	kindSize    = "membership-size"
	kindTrimmed = "membership-trimmed"
	kindApplied = "membership-applied"
)

// schema is the version of stored records.
const schema = 1

// Kinds of causes.
const (
	// CauseRequest is a call that named the thing and the group.
	CauseRequest = "REQUEST"
	// CauseValue is a value of the thing that met a group's query, or no longer.
	CauseValue = "VALUE"
	// CauseQuery is the definition of a dynamic group, or a rebuilt index.
	CauseQuery = "QUERY"
	// CauseThing is that the thing was registered, or deleted.
	CauseThing = "THING"
	// CauseGroup is that the dynamic group was deleted.
	CauseGroup = "GROUP"
	// CauseLimit is the number of groups that a thing may be in.
	CauseLimit = "LIMIT"
	// CauseUnknown is something that nobody told: events were trimmed.
	CauseUnknown = "UNKNOWN"
)

// Cause is why a membership began or ended.
type Cause struct {
	Kind string `json:"kind"`
	// Actor is who asked for it; for REQUEST, and for THING and GROUP when
	// somebody deleted one.
	Actor *fleet.Actor `json:"actor,omitempty"`
	// Field is what changed, Predicate the part of the query that looks at it,
	// Value what the field came to hold; for VALUE.
	Field     string `json:"field,omitempty"`
	Predicate string `json:"predicate,omitempty"`
	Value     string `json:"value,omitempty"`
	// Seq is the event in the log that it follows from, SourceAt its time in
	// milliseconds; 0 where there is none.
	Seq      uint64 `json:"seq,omitempty"`
	SourceAt int64  `json:"sourceAt,omitempty"`
}

// Entry is one membership.
type Entry struct {
	Group, Thing string
	Dynamic      bool
	// Began is zero for a membership whose begin was never told.
	Began time.Time
	// Ended is zero while it lasts.
	Ended time.Time
	// Joined says why it began, Left why it ended; Left is nil while it lasts.
	Joined, Left *Cause
}

// record is the stored form.
type record struct {
	Schema  int    `json:"v"`
	Group   string `json:"group"`
	Thing   string `json:"thing"`
	Dynamic bool   `json:"dynamic,omitempty"`
	// Seq is the sequence of the event that made the record.
	Seq    uint64 `json:"seq"`
	Began  int64  `json:"began,omitempty"`
	Ended  int64  `json:"ended,omitempty"`
	Joined *Cause `json:"joined,omitempty"`
	Left   *Cause `json:"left,omitempty"`
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

// entry is the record as callers see it.
func (r *record) entry() Entry {
	return Entry{
		Group: r.Group, Thing: r.Thing, Dynamic: r.Dynamic, Began: timeOf(r.Began), Ended: timeOf(r.Ended), Joined: r.Joined, Left: r.Left,
	}
}

// millis is a time as it is stored.
func millis(t time.Time) int64 { return max(t.UnixMilli(), 1) }

// timeOf turns milliseconds into a time, 0 into none.
func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// up renders a number so that text order is the numbers' order, down the other
// way round.
func up(n uint64) string   { return fmt.Sprintf("%016x", n) }
func down(n uint64) string { return up(math.MaxUint64 - n) }

// place is where a record lies among those of its thing: its last parts.
func (r *record) place() [2]string {
	at := r.Began
	if at == 0 {
		at = r.Ended
	}
	return [2]string{down(uint64(at)), down(r.Seq)}
}

// key is where the record is.
func (r *record) key(account fleet.Account) store.Key {
	p := r.place()
	return store.K(kindOfThing, string(account), r.Thing, p[0], p[1], r.Group)
}

// rows are the keys that make the record, as it is now, found.
func (r *record) rows(account fleet.Account) []store.Key {
	p := r.place()
	keys := []store.Key{store.K(kindOfGroup, string(account), r.Group, p[0], p[1], r.Thing)}
	if r.Ended != 0 {
		keys = append(keys, store.K(kindEnded, string(account), up(uint64(r.Ended)), r.Thing, p[0], p[1], r.Group))
	}
	return keys
}

// keyBehind is the key of the record that a row points to.
func keyBehind(row store.Key) (store.Key, error) {
	parts := row.Parts()
	switch {
	case parts[0] == kindOfThing && len(parts) == 6:
		return row, nil
	case parts[0] == kindOfGroup && len(parts) == 6:
		return store.K(kindOfThing, parts[1], parts[5], parts[3], parts[4], parts[2]), nil
	case parts[0] == kindEnded && len(parts) == 7:
		return store.K(kindOfThing, parts[1], parts[3], parts[4], parts[5], parts[6]), nil
	}
	return "", fmt.Errorf("row %s points to no record", row)
}

// openKey says that a membership lasts.
func openKey(account fleet.Account, thing, group string) store.Key {
	return store.K(kindOpen, string(account), thing, group)
}

// keyBehindOpen is the key of the record that an open row points to.
func keyBehindOpen(row store.Record) (store.Key, error) {
	parts, value := row.Key.Parts(), store.Key(row.Value).Parts()
	if len(parts) != 4 || len(value) != 2 {
		return "", fmt.Errorf("row %s points to no record", row.Key)
	}
	return store.K(kindOfThing, parts[1], parts[2], value[0], value[1], parts[3]), nil
}

// present is the value of rows, which say no more than that they exist.
func present() []byte { return []byte("1") }

// put writes the record with its rows and returns what both take.
func (r *record) put(account fleet.Account, b *store.Batch) (bytes uint64, err error) {
	r.Schema = schema
	value, err := json.Marshal(r)
	if err != nil {
		return 0, fmt.Errorf("encode membership: %w", err)
	}
	key := r.key(account)
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
	key := r.key(account)
	b.Writes = append(b.Writes, store.Write{Key: key, Delete: true})
	bytes = uint64(len(key) + len(stored.Value))
	for _, row := range r.rows(account) {
		b.Writes = append(b.Writes, store.Write{Key: row, Delete: true})
		bytes += uint64(len(row) + len(present()))
	}
	return bytes
}

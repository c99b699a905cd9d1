package history

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// First parts of keys; the account follows in all but the last.
const (
	// kindEntry holds the records, newest first for each client id.
	kindEntry = "connection-history"
	// kindOpen finds the record of a connection that has not ended.
	kindOpen = "connection-open"
	// kindThing lists a thing's entries, newest first.
	kindThing = "connection-by-thing"
	// kindEnded lists entries by their end, for retention.
	kindEnded = "connection-ended"
	// kindFrom and kindUntil list ended connections under a number of the
	// tree, by begin and by end.
	kindFrom  = "connection-from"
	kindUntil = "connection-until"
	// kindSize counts what was ever filed, kindTrimmed what retention removed
	// of it: each has one writer.
	kindSize    = "connection-history-size"
	kindTrimmed = "connection-history-trimmed"
	// kindApplied says which events are in the records.
	kindApplied = "connection-history-applied"
)

// maxName is the longest name that keys hold as it is, in bytes. The standard
// profile allows client ids of 65,535, more than an engine takes as a key.
const maxName = 256

// named is a client id or thing as a part of keys: itself, or a digest of what
// is too long.
func named(name string) string {
	if len(name) <= maxName {
		return name
	}
	digest := sha256.Sum256([]byte(name))
	return "\x01" + hex.EncodeToString(digest[:])
}

// place is where a record lies within its client: when it began, in
// milliseconds, and the sequence of the event that told so.
type place struct {
	at  int64
	seq uint64
}

// upTime and upSeq order by growing, downTime and downSeq by falling number.
func upTime(ms int64) string    { return fmt.Sprintf("%012x", ms) }
func downTime(ms int64) string  { return upTime(1<<48 - 1 - ms) }
func upSeq(seq uint64) string   { return fmt.Sprintf("%016x", seq) }
func downSeq(seq uint64) string { return upSeq(^seq) }

// entryKey is where a record is.
func entryKey(account fleet.Account, clientID string, p place) store.Key {
	return store.K(kindEntry, string(account), named(clientID), downTime(p.at), downSeq(p.seq))
}

// openKey is how a disconnect finds its connection: both carry the same
// version and session.
func openKey(account fleet.Account, clientID string, version int64, sessionID string) store.Key {
	return store.K(kindOpen, string(account), named(clientID), strconv.FormatInt(version, 10), sessionID)
}

// thingKey is a thing's row for an entry.
func thingKey(account fleet.Account, thing, clientID string, p place) store.Key {
	return store.K(kindThing, string(account), named(thing), downTime(p.at), downSeq(p.seq), named(clientID))
}

// placeText is a place as the last two parts of a key, or as a value.
func placeText(p place) string { return string(store.K(upTime(p.at), upSeq(p.seq))) }

// parsePlace reads a place's two parts.
func parsePlace(at, seq string) (place, error) {
	ms, err := strconv.ParseInt(at, 16, 64)
	if err != nil {
		return place{}, fmt.Errorf("parse place: %w", err)
	}
	n, err := strconv.ParseUint(seq, 16, 64)
	if err != nil {
		return place{}, fmt.Errorf("parse place: %w", err)
	}
	return place{ms, n}, nil
}

// reference names one record.
type reference struct {
	// clientID is as in keys: see named.
	clientID string
	place    place
}

// key is where the record is.
func (r reference) key(account fleet.Account) store.Key {
	return entryKey(account, r.clientID, r.place)
}

// referenceOf reads the record that a row of any kind points to.
func referenceOf(row store.Record) (reference, error) {
	parts := row.Key.Parts()
	var clientID, at, seq string
	down := false
	switch {
	case parts[0] == kindOpen && len(parts) == 5:
		value := store.Key(row.Value).Parts()
		if len(value) != 2 {
			return reference{}, fmt.Errorf("row %s has no place", row.Key)
		}
		clientID, at, seq = parts[2], value[0], value[1]
	case parts[0] == kindThing && len(parts) == 6:
		clientID, at, seq, down = parts[5], parts[3], parts[4], true
	case parts[0] == kindFrom && len(parts) == 6:
		clientID, at, seq = parts[5], parts[3], parts[4]
	case parts[0] == kindUntil && len(parts) == 7:
		clientID, at, seq = parts[4], parts[5], parts[6]
	case parts[0] == kindEnded && len(parts) == 6:
		clientID, at, seq = parts[3], parts[4], parts[5]
	default:
		return reference{}, fmt.Errorf("row %s points to no record", row.Key)
	}
	p, err := parsePlace(at, seq)
	if down {
		p = place{1<<48 - 1 - p.at, ^p.seq}
	}
	return reference{clientID, p}, err
}

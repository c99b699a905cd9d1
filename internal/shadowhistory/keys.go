package shadowhistory

import (
	"fmt"
	"strconv"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// First parts of this package's keys. A sequence is 16 hexadecimal digits; ~
// counts down.
const (
	// kindEntry is followed by account, thing, shadow and ~sequence.
	kindEntry = "shadow-history"
	// kindSegment is followed by account, thing, shadow and sequence: the first
	// entry of a segment, and the document that its event told, if any.
	kindSegment = "shadow-history-segment"
	// kindTime is followed by account, time, sequence, thing and shadow: when a
	// segment began.
	kindTime = "shadow-history-time"
	// kindSize and kindTrimmed are followed by account: counts.
	kindSize    = "shadow-history-size"
	kindTrimmed = "shadow-history-trimmed"
)

// subject is one shadow.
type subject struct {
	account       fleet.Account
	thing, shadow string
}

// up and down write a number so that text order is its order, or the reverse.
func up(n uint64) string {
	text := strconv.FormatUint(n, 16)
	return "0000000000000000"[len(text):] + text
}

func down(n uint64) string { return up(^n) }

// parse reads what up wrote.
func parse(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("read key of the shadow history: %w", err)
	}
	return n, nil
}

func (s subject) entry(seq uint64) store.Key {
	return store.K(kindEntry, string(s.account), s.thing, s.shadow, down(seq))
}

func (s subject) segment(seq uint64) store.Key {
	return store.K(kindSegment, string(s.account), s.thing, s.shadow, up(seq))
}

func (s subject) time(at int64, seq uint64) store.Key {
	return store.K(kindTime, string(s.account), up(uint64(max(at, 0))), up(seq), s.thing, s.shadow)
}

// entries is the range of a shadow's entries, newest first.
func (s subject) entries() store.Range {
	return store.Under(kindEntry, string(s.account), s.thing, s.shadow)
}

// segments is the range of a shadow's segments, oldest first.
func (s subject) segments() store.Range {
	return store.Under(kindSegment, string(s.account), s.thing, s.shadow)
}

// seqOfSegment reads the sequence in a key.
func seqOfSegment(key store.Key) (uint64, error) { return parse(key.Last()) }

// timeRow is a read row by time.
type timeRow struct {
	subject
	at  int64
	seq uint64
}

// parseTime reads a row by time.
func parseTime(key store.Key) (r timeRow, err error) {
	parts := key.Parts()
	if len(parts) != 6 || parts[0] != kindTime {
		return r, fmt.Errorf("key %s is no row by time", key)
	}
	at, err := parse(parts[2])
	if err != nil {
		return r, err
	}
	seq, err := parse(parts[3])
	return timeRow{subject{fleet.Account(parts[1]), parts[4], parts[5]}, int64(at), seq}, err
}

package shadowhistory

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// schema is the version of the stored forms.
const schema = 1

// entry is the stored form of one change. It is written by hand, since there is
// one for each update of each device.
type entry struct {
	Schema  int   `json:"v"`
	Version int64 `json:"n"`
	// At is in Unix nanoseconds, Second the time that leaves of the patch carry.
	At       int64           `json:"at"`
	Second   int64           `json:"s,omitempty"`
	Actor    fleet.Actor     `json:"by"`
	Patch    json.RawMessage `json:"p,omitempty"`
	Delta    bool            `json:"d,omitempty"`
	Restored int64           `json:"r,omitempty"`
	Deleted  bool            `json:"x,omitempty"`
}

// encode writes the entry; by is the author's JSON.
func (e *entry) encode(by []byte) []byte {
	out := make([]byte, 0, 96+len(by)+len(e.Patch))
	number := func(name string, n int64) {
		out = append(out, name...)
		out = strconv.AppendInt(out, n, 10)
	}
	number(`{"v":`, schema)
	number(`,"n":`, e.Version)
	number(`,"at":`, e.At)
	if e.Second != 0 {
		number(`,"s":`, e.Second)
	}
	out = append(append(out, `,"by":`...), by...)
	if e.Patch != nil {
		out = append(append(out, `,"p":`...), e.Patch...)
	}
	if e.Delta {
		out = append(out, `,"d":true`...)
	}
	if e.Restored != 0 {
		number(`,"r":`, e.Restored)
	}
	if e.Deleted {
		out = append(out, `,"x":true`...)
	}
	return append(out, '}')
}

// decode reads a stored entry.
func decode(stored store.Record) (*entry, error) {
	var e entry
	if err := json.Unmarshal(stored.Value, &e); err != nil {
		return nil, fmt.Errorf("decode %s: %w", stored.Key, err)
	}
	if e.Schema != schema {
		return nil, fmt.Errorf("decode %s: schema version %d is not %d", stored.Key, e.Schema, schema)
	}
	if strings.HasSuffix(e.Actor.Principal.ARN, "/") {
		e.Actor.Principal.ARN += e.Actor.Principal.ID
	}
	return &e, nil
}

// shortARN leaves out the id at the end of an ARN, which is there already; what
// is left then ends with a slash, as no ARN does.
func shortARN(p fleet.Principal) string {
	if rest, ok := strings.CutSuffix(p.ARN, p.ID); ok && strings.HasSuffix(rest, "/") {
		return rest
	}
	return p.ARN
}

// segment is the stored form of the begin of a segment.
type segment struct {
	Schema  int   `json:"v"`
	Version int64 `json:"n"`
	// At is when it began, in Unix milliseconds.
	At int64 `json:"at"`
	// Document is the shadow at that version as package shadow stores it; absent
	// when nobody told it. It is kept as text: nobody but package shadow reads it.
	Document json.RawMessage `json:"document,omitempty"`

	seq     uint64
	key     store.Key
	version uint64
	bytes   int
}

// encode writes the segment.
func (s *segment) encode() []byte {
	out := make([]byte, 0, 64+len(s.Document))
	out = strconv.AppendInt(append(out, `{"v":`...), schema, 10)
	out = strconv.AppendInt(append(out, `,"n":`...), s.Version, 10)
	out = strconv.AppendInt(append(out, `,"at":`...), s.At, 10)
	if s.Document != nil {
		out = append(append(out, `,"document":`...), s.Document...)
	}
	return append(out, '}')
}

// decodeSegment reads a stored segment.
func decodeSegment(stored store.Record) (*segment, error) {
	s := &segment{key: stored.Key, version: stored.Version, bytes: len(stored.Key) + len(stored.Value)}
	if err := json.Unmarshal(stored.Value, s); err != nil {
		return nil, fmt.Errorf("decode %s: %w", stored.Key, err)
	}
	if s.Schema != schema {
		return nil, fmt.Errorf("decode %s: schema version %d is not %d", stored.Key, s.Schema, schema)
	}
	var err error
	s.seq, err = seqOfSegment(stored.Key)
	return s, err
}

// authors writes authors and keeps the text of the last, who has often made
// several changes in a row.
type authors struct {
	last fleet.Actor
	text []byte
}

// encode returns the author's JSON.
func (a *authors) encode(actor fleet.Actor) ([]byte, error) {
	if a.text != nil && a.last == actor {
		return a.text, nil
	}
	short := actor
	short.Principal.ARN = shortARN(actor.Principal)
	text, err := json.Marshal(short)
	if err != nil {
		return nil, fmt.Errorf("encode author: %w", err)
	}
	a.last, a.text = actor, bytes.Clone(text)
	return text, nil
}

// total counts entries and segments and their bytes.
type total struct {
	Schema  int    `json:"v"`
	Entries uint64 `json:"entries"`
	Bytes   uint64 `json:"bytes"`

	version uint64
}

// millis is a time as keys have it.
func millis(at time.Time) int64 { return at.UnixMilli() }

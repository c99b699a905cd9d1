package shadow

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
)

// Document is one shadow as a reader sees it.
type Document struct {
	Account fleet.Account
	Thing   string
	// Shadow is empty for the classic shadow.
	Shadow  string
	Version int64
	// At is the time of the last update.
	At time.Time
	d  *document
}

// newDocument dresses a version for readers.
func newDocument(id identity, d *document) Document {
	return Document{
		Account: id.account,
		Thing:   id.thing,
		Shadow:  id.shadow,
		Version: d.version,
		At:      time.Unix(0, d.at).UTC(),
		d:       d,
	}
}

// GetDocument is the answer to a get request: state with the remaining delta,
// metadata, version, and the time of the answer in seconds.
func (v Document) GetDocument(token Token, timestamp int64) []byte {
	out := append(make([]byte, 0, len(v.d.current)+512), `{"state":`...)
	out = appendSections(out, v.d.desired, v.d.reported)
	if len(v.d.delta) > 0 {
		out = append(out[:len(out)-1], `,"delta":`...)
		out = appendMembers(out, v.d.delta)
		out = append(out, '}')
	}
	out = append(out, `,"metadata":`...)
	out = appendSectionTimes(out, v.d.desired, v.d.reported)
	out = append(out, `,"version":`...)
	out = strconv.AppendInt(out, v.d.version, 10)
	out = append(out, `,"timestamp":`...)
	out = strconv.AppendInt(out, timestamp, 10)
	return appendToken(out, token)
}

// State returns {"desired":…,"reported":…} without empty sections.
func (v Document) State() json.RawMessage { return appendSections(nil, v.d.desired, v.d.reported) }

// Metadata returns the times that mirror State.
func (v Document) Metadata() json.RawMessage {
	return appendSectionTimes(nil, v.d.desired, v.d.reported)
}

// Desired returns the section, {} when there is none.
func (v Document) Desired() json.RawMessage { return appendMembers(nil, v.d.desired) }

// Reported returns the section, {} when there is none.
func (v Document) Reported() json.RawMessage { return appendMembers(nil, v.d.reported) }

// HasDelta reports whether desired asks for something that reported lacks.
func (v Document) HasDelta() bool { return len(v.d.delta) > 0 }

// Delta returns the remaining difference, {} when there is none.
func (v Document) Delta() json.RawMessage { return appendMembers(nil, v.d.delta) }

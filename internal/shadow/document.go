package shadow

import (
	"strconv"
	"time"

	"github.com/muster-iot/muster/internal/fault"
)

// retention is how long a deleted shadow's version is remembered.
const retention = 48 * time.Hour

// document is one version of a shadow. It is immutable, and so are its trees.
type document struct {
	desired, reported []node
	// delta is what remains of desired.
	delta []node
	// version is 0 for a shadow that was never there.
	version int64
	// at is when this version was made, in Unix nanoseconds.
	at int64
	// gone is true for a shadow that does not exist; its version is that of
	// the deleted one.
	gone bool
	// based is the newest version that an event told whole, basedAt its second;
	// 0 for none.
	based, basedAt int64
	// since is the second of the oldest difference between desired and reported;
	// 0 when there is none.
	since int64
	// stateSize is the length of the compact state text.
	stateSize int
	// current is {"state":…,"metadata":…,"version":…}, kept because the next
	// update reports it as the previous document.
	current []byte
	// pinned is how many bytes of request text and nodes the trees keep
	// alive at most.
	pinned int
}

// absent is the document of a shadow that never was.
func absent() *document { return (&document{gone: true}).finish(0) }

// seconds is the document's time as answers give it.
func (d *document) seconds() int64 { return d.at / int64(time.Second) }

// finish computes what follows from sections and version; expected is about the
// length of the current document.
func (d *document) finish(expected int) *document {
	d.delta = difference(d.desired, d.reported)
	d.since = d.driftSince()
	out := append(make([]byte, 0, 64+expected), `{"state":`...)
	mark := len(out)
	out = appendSections(out, d.desired, d.reported)
	d.stateSize = len(out) - mark
	out = append(out, `,"metadata":`...)
	out = appendSectionTimes(out, d.desired, d.reported)
	out = append(out, `,"version":`...)
	out = strconv.AppendInt(out, d.version, 10)
	d.current = append(out, '}')
	return d
}

// asOf returns the document as a request at this time meets it: the version of
// a deleted shadow is forgotten after the retention.
func (d *document) asOf(at time.Time) *document {
	if d.gone && d.version > 0 && at.Sub(time.Unix(0, d.at)) >= retention {
		return absent()
	}
	return d
}

// update applies a request and returns the next version. A supplied version
// must be the present one; a shadow that does not exist has the version it was
// deleted at, or 0.
func (d *document) update(r *request, at time.Time, limits Limits) (*document, error) {
	if r.version >= 0 && r.version != d.version {
		return nil, &fault.Error{Code: fault.Conflict, Message: msgConflict}
	}
	next := &document{
		version: d.version + 1,
		at:      at.UnixNano(),
		pinned:  d.pinned + r.bytes + r.nodes*nodeBytes,
		based:   d.based,
		basedAt: d.basedAt,
	}
	next.desired = r.desired.applyTo(d.desired)
	next.reported = r.reported.applyTo(d.reported)
	next.finish(len(d.current) + 3*r.bytes)
	if err := limits.checkState(d.stateSize, next.stateSize); err != nil {
		return nil, err
	}
	return next, nil
}

// remove returns the mark that a deleted shadow leaves behind.
func (d *document) remove(at time.Time) *document {
	return (&document{version: d.version, at: at.UnixNano(), gone: true}).finish(0)
}

// applyTo merges a request's section into a stored one.
func (s section) applyTo(base []node) []node {
	switch {
	case !s.named:
		return base
	case s.removed:
		return nil
	default:
		return merge(base, s.kids)
	}
}

// appendSections writes {"desired":…,"reported":…} without empty sections.
func appendSections(dst []byte, desired, reported []node) []byte {
	dst = append(dst, '{')
	if len(desired) > 0 {
		dst = append(dst, `"desired":`...)
		dst = appendMembers(dst, desired)
	}
	if len(reported) > 0 {
		if len(desired) > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `"reported":`...)
		dst = appendMembers(dst, reported)
	}
	return append(dst, '}')
}

// appendSectionTimes writes the metadata of both sections.
func appendSectionTimes(dst []byte, desired, reported []node) []byte {
	var s stamp
	dst = append(dst, '{')
	if len(desired) > 0 {
		dst = append(dst, `"desired":`...)
		dst = s.members(dst, desired)
	}
	if len(reported) > 0 {
		if len(desired) > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `"reported":`...)
		dst = s.members(dst, reported)
	}
	return append(dst, '}')
}

// compact rebuilds the trees from the stored form when they keep far more
// memory alive than they need: every request leaves its text behind as long as
// one leaf refers to it.
func (d *document) compact(stored []byte) *document {
	text, nodes := size(d.desired)
	t, n := size(d.reported)
	if d.pinned <= 4*(text+t+(nodes+n)*nodeBytes)+2048 {
		return d
	}
	fresh, err := decodeRecord(stored)
	if err != nil {
		return d
	}
	return fresh
}

// footprint is what a cached document costs in memory.
func (d *document) footprint() int64 { return int64(d.pinned + cap(d.current) + 512) }

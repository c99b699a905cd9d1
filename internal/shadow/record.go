package shadow

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// recordSchema is the version of the stored form.
const recordSchema = 1

// errRecord is a stored value that this program cannot have written.
var errRecord = errors.New("shadow record is malformed")

// encodeRecord writes the stored form of a document:
//
//	{"v":1,"version":8,"at":ns,"base":[5,s],"desired":{…},"reported":{…},"ages":[0,30,…]}
//
// base is the newest version that an event told whole, and its second; it is
// absent when there is none.
// ages holds, for each leaf in the order of the text, how many seconds before
// the record its last change was. A deleted shadow has "deleted":true and no
// state.
func encodeRecord(d *document) []byte {
	out := make([]byte, 0, d.stateSize+d.stateSize/4+96)
	out = appendHeader(out, d)
	if d.gone {
		return append(out, `,"deleted":true}`...)
	}
	if d.based > 0 {
		out = append(out, `,"base":[`...)
		out = strconv.AppendInt(out, d.based, 10)
		out = append(out, ',')
		out = strconv.AppendInt(out, d.basedAt, 10)
		out = append(out, ']')
	}
	if len(d.desired) > 0 {
		out = append(out, `,"desired":`...)
		out = appendMembers(out, d.desired)
	}
	if len(d.reported) > 0 {
		out = append(out, `,"reported":`...)
		out = appendMembers(out, d.reported)
	}
	out = append(out, `,"ages":[`...)
	base := len(out)
	out = appendAges(out, d.desired, d.seconds())
	out = appendAges(out, d.reported, d.seconds())
	if len(out) > base {
		out = out[:len(out)-1]
	}
	return append(out, "]}"...)
}

// appendHeader writes the leading members, which no two versions share.
func appendHeader(dst []byte, d *document) []byte {
	dst = append(dst, `{"v":`...)
	dst = strconv.AppendInt(dst, recordSchema, 10)
	dst = append(dst, `,"version":`...)
	dst = strconv.AppendInt(dst, d.version, 10)
	dst = append(dst, `,"at":`...)
	return strconv.AppendInt(dst, d.at, 10)
}

// sameRecord reports whether a stored value is the one of the document, by its
// header: version and nanosecond never come twice for one shadow.
func sameRecord(value []byte, d *document) bool {
	header := appendHeader(make([]byte, 0, 64), d)
	return len(value) > len(header) && bytes.HasPrefix(value, header) && value[len(header)] == ','
}

// appendAges writes the ages of all leaves, each with a comma behind.
func appendAges(dst []byte, kids []node, now int64) []byte {
	for i := range kids {
		if kids[i].kind == kindObject {
			dst = appendAges(dst, kids[i].kids, now)
			continue
		}
		dst = strconv.AppendInt(dst, now-kids[i].at, 10)
		dst = append(dst, ',')
	}
	return dst
}

// decodeRecord reads a stored document.
func decodeRecord(value []byte) (*document, error) {
	if !utf8.Valid(value) {
		return nil, errRecord
	}
	p := &parser{s: string(value), room: math.MaxInt}
	root, ok := p.value(1, false)
	if !ok || p.i != len(p.s) || root.kind != kindObject {
		return nil, errRecord
	}
	if schema, err := number(root.kids, "v"); err != nil || schema != recordSchema {
		return nil, fmt.Errorf("decode shadow record: schema version %d is not known to this program: %w", schema, errRecord)
	}
	d := &document{}
	var err error
	if d.version, err = number(root.kids, "version"); err != nil {
		return nil, err
	}
	if d.at, err = number(root.kids, "at"); err != nil {
		return nil, err
	}
	if deleted, found := member(root.kids, "deleted"); found && deleted.text == "true" {
		d.gone = true
		return d.finish(0), nil
	}
	if err := d.readBase(root.kids); err != nil {
		return nil, err
	}
	desired, _ := member(root.kids, "desired")
	reported, _ := member(root.kids, "reported")
	ages, _ := member(root.kids, "ages")
	d.desired, d.reported = desired.kids, reported.kids
	rest, err := setTimes(d.desired, ages.kids, d.seconds())
	if err == nil {
		rest, err = setTimes(d.reported, rest, d.seconds())
	}
	if err != nil || len(rest) > 0 {
		return nil, errRecord
	}
	_, nodes := size(root.kids)
	d.pinned = len(value) + nodes*nodeBytes
	return d.finish(3 * len(value)), nil
}

// readBase reads which version was told whole; older records do not say.
func (d *document) readBase(kids []node) error {
	base, found := member(kids, "base")
	if !found {
		return nil
	}
	if len(base.kids) != 2 {
		return errRecord
	}
	var err1, err2 error
	d.based, err1 = strconv.ParseInt(base.kids[0].text, 10, 64)
	d.basedAt, err2 = strconv.ParseInt(base.kids[1].text, 10, 64)
	if err1 != nil || err2 != nil {
		return fmt.Errorf("decode shadow record: member base: %w", errRecord)
	}
	return nil
}

// number returns an integer member of a record.
func number(kids []node, key string) (int64, error) {
	n, _ := member(kids, key)
	v, err := strconv.ParseInt(n.text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("decode shadow record: member %s: %w", key, errRecord)
	}
	return v, nil
}

// setTimes gives each leaf of freshly read trees its time and returns the ages
// that are left over.
func setTimes(kids, ages []node, now int64) ([]node, error) {
	var err error
	for i := range kids {
		if kids[i].kind == kindObject {
			if ages, err = setTimes(kids[i].kids, ages, now); err != nil {
				return nil, err
			}
			continue
		}
		if len(ages) == 0 {
			return nil, errRecord
		}
		age, err := strconv.ParseInt(ages[0].text, 10, 64)
		if err != nil {
			return nil, errRecord
		}
		kids[i].at = now - age
		ages = ages[1:]
	}
	return ages, nil
}

// isGone reports whether a stored value is the mark of a deleted shadow
// without decoding it: only there the deletion follows the header.
func isGone(value []byte) bool { return bytes.HasSuffix(value, []byte(`,"deleted":true}`)) }

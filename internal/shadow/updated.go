package shadow

import (
	"strconv"

	"github.com/muster-iot/muster/internal/fleet"
)

// Updated is the result of an accepted update. It writes each document that
// announces the update; none of them is computed before it is asked for.
type Updated struct {
	Account fleet.Account
	Thing   string
	// Shadow is empty for the classic shadow.
	Shadow  string
	Version int64
	// Timestamp is the time of the update in whole seconds.
	Timestamp int64
	// Restored is the version that a restore brought back, 0 for any other update.
	Restored int64
	// Token is the request's client token, echoed by every document.
	Token         Token
	patch         request
	before, after *document
}

// AcceptedDocument is the answer to the request: what it contained, nulls
// included, with the new times.
func (u *Updated) AcceptedDocument() []byte {
	out := append(make([]byte, 0, 192+4*u.patch.bytes), `{"state":`...)
	out = u.appendPatch(out)
	out = append(out, `,"metadata":`...)
	out = appendSectionTimes(out, u.patch.desired.kids, u.patch.reported.kids)
	out = append(out, `,"version":`...)
	out = strconv.AppendInt(out, u.Version, 10)
	return u.appendTail(out)
}

// HasDelta reports whether desired and reported differ after the update.
func (u *Updated) HasDelta() bool { return len(u.after.delta) > 0 }

// DeltaDocument tells the device every difference that remains; nil when there
// is none.
func (u *Updated) DeltaDocument() []byte {
	if !u.HasDelta() {
		return nil
	}
	out := append(make([]byte, 0, 512), `{"version":`...)
	out = strconv.AppendInt(out, u.Version, 10)
	out = append(out, `,"timestamp":`...)
	out = strconv.AppendInt(out, u.Timestamp, 10)
	out = append(out, `,"state":`...)
	out = appendMembers(out, u.after.delta)
	out = append(out, `,"metadata":`...)
	out = (&stamp{}).members(out, u.after.delta)
	return appendToken(out, u.Token)
}

// DocumentsDocument holds the whole shadow before and after the update.
func (u *Updated) DocumentsDocument() []byte {
	out := make([]byte, 0, len(u.before.current)+len(u.after.current)+192)
	out = append(out, `{"previous":`...)
	out = append(out, u.before.current...)
	out = append(out, `,"current":`...)
	out = append(out, u.after.current...)
	return u.appendTail(out)
}

// appendPatch writes the request's state in its normal form.
func (u *Updated) appendPatch(dst []byte) []byte {
	dst = append(dst, '{')
	if u.patch.desired.named {
		dst = u.patch.desired.appendTo(append(dst, `"desired":`...))
	}
	if u.patch.reported.named {
		if u.patch.desired.named {
			dst = append(dst, ',')
		}
		dst = u.patch.reported.appendTo(append(dst, `"reported":`...))
	}
	return append(dst, '}')
}

// appendTo writes a section as the request had it.
func (s section) appendTo(dst []byte) []byte {
	if s.removed {
		return append(dst, "null"...)
	}
	return appendMembers(dst, s.kids)
}

// appendTail writes time, token and the closing brace.
func (u *Updated) appendTail(dst []byte) []byte {
	dst = append(dst, `,"timestamp":`...)
	dst = strconv.AppendInt(dst, u.Timestamp, 10)
	return appendToken(dst, u.Token)
}

// appendToken writes the client token, if there is one, and the closing brace.
func appendToken(dst []byte, token Token) []byte {
	if token != "" {
		dst = append(dst, `,"clientToken":`...)
		dst = append(dst, token...)
	}
	return append(dst, '}')
}

// Deleted is the result of a deletion.
type Deleted struct {
	Account fleet.Account
	Thing   string
	Shadow  string
	// Version is the one that was deleted.
	Version   int64
	Timestamp int64
}

// AcceptedDocument is the answer to the request.
func (d *Deleted) AcceptedDocument(token Token) []byte {
	out := append(make([]byte, 0, 128), `{"version":`...)
	out = strconv.AppendInt(out, d.Version, 10)
	out = append(out, `,"timestamp":`...)
	out = strconv.AppendInt(out, d.Timestamp, 10)
	return appendToken(out, token)
}

// RejectedDocument is the answer to a refused request over MQTT; the numeric
// code is the front end's.
func RejectedDocument(code int, message string, timestamp int64, token Token) []byte {
	out := append(make([]byte, 0, 192), `{"code":`...)
	out = strconv.AppendInt(out, int64(code), 10)
	out = append(out, `,"message":`...)
	out = appendText(out, message)
	out = append(out, `,"timestamp":`...)
	out = strconv.AppendInt(out, timestamp, 10)
	return appendToken(out, token)
}

// appendText writes a string with quotes.
func appendText(dst []byte, text string) []byte {
	dst = append(dst, '"')
	for _, r := range text {
		dst = appendRune(dst, r)
	}
	return append(dst, '"')
}

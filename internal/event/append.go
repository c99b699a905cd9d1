package event

import (
	"encoding/json"
	"errors"
	"strconv"

	"github.com/muster-iot/muster/internal/fleet"
)

// envelopeSize is about what an encoded envelope takes beside its event.
const envelopeSize = 384

// errDocument is an event whose document is not JSON: stored, it would stop
// every reader of the log.
var errDocument = errors.New("document is not JSON")

// appendEvent writes any event in the form that its tags describe.
func appendEvent(dst []byte, e Event) ([]byte, error) {
	body, err := json.Marshal(e)
	return append(dst, body...), err
}

// appendShadowUpdated writes by hand what nearly all events of a busy server
// are, in the form that the tags describe.
func appendShadowUpdated(dst []byte, e *ShadowUpdated) ([]byte, error) {
	dst = appendText(dst, `{"thing":`, e.Thing)
	dst = appendOptional(dst, `,"shadow":`, e.Shadow)
	dst = appendNumber(dst, `,"version":`, e.Version)
	if !json.Valid(e.Patch) || len(e.Delta) > 0 && !json.Valid(e.Delta) {
		return nil, errDocument
	}
	dst = append(append(dst, `,"patch":`...), e.Patch...)
	if len(e.Delta) > 0 {
		dst = append(append(dst, `,"delta":`...), e.Delta...)
	}
	dst = appendNumber(dst, `,"timestamp":`, e.Timestamp)
	if e.Restored != 0 {
		dst = appendNumber(dst, `,"restored":`, e.Restored)
	}
	if e.Base != 0 {
		dst = appendNumber(dst, `,"base":`, e.Base)
	}
	if len(e.Document) > 0 {
		if !json.Valid(e.Document) {
			return nil, errDocument
		}
		dst = append(append(dst, `,"document":`...), e.Document...)
	}
	return append(dst, '}'), nil
}

// appendActor writes who acted.
func appendActor(dst []byte, a *fleet.Actor) []byte {
	dst = appendText(dst, `{"principal":{"kind":`, a.Principal.Kind)
	dst = appendOptional(dst, `,"id":`, a.Principal.ID)
	dst = append(appendOptional(dst, `,"arn":`, a.Principal.ARN), '}')
	dst = appendOptional(dst, `,"sourceAddress":`, a.SourceAddress)
	dst = appendOptional(dst, `,"accessKeyId":`, a.AccessKeyID)
	dst = appendOptional(dst, `,"requestId":`, a.RequestID)
	dst = appendOptional(dst, `,"clientId":`, a.ClientID)
	return append(appendOptional(dst, `,"trace":`, a.Trace), '}')
}

// appendNumber writes a member; name comes with its punctuation.
func appendNumber(dst []byte, name string, n int64) []byte {
	return strconv.AppendInt(append(dst, name...), n, 10)
}

// appendOptional writes a member unless it is empty.
func appendOptional(dst []byte, name, text string) []byte {
	if text == "" {
		return dst
	}
	return appendText(dst, name, text)
}

// appendText writes a member with the text quoted.
func appendText(dst []byte, name, text string) []byte {
	dst = append(dst, name...)
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(text) // a string always has a form
			return append(dst, quoted...)
		}
	}
	return append(append(append(dst, '"'), text...), '"')
}

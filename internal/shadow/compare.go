package shadow

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
)

// Step is an update that was made after a told document.
type Step struct {
	Version int64
	At      time.Time
	// Timestamp and Patch are those of the event.
	Timestamp int64
	Patch     json.RawMessage
}

// Replay makes a version of a shadow from a document that an event told whole
// and the updates behind it, whose versions must follow each other.
func Replay(account fleet.Account, thing, shadow string, told json.RawMessage, steps []Step) (Document, error) {
	d, err := decodeRecord(told)
	if err != nil {
		return Document{}, err
	}
	for _, step := range steps {
		if step.Version != d.version+1 {
			return Document{}, fmt.Errorf("replay shadow %q of %q: version %d follows %d: %w", shadow, thing, step.Version, d.version, errRecord)
		}
		next, err := d.replay(step)
		if err != nil {
			return Document{}, fmt.Errorf("replay shadow %q of %q: version %d: %w", shadow, thing, step.Version, err)
		}
		d = next
	}
	return newDocument(identity{account: account, thing: thing, shadow: shadow}, d.finish(0)), nil
}

// replay applies what was accepted once, whatever the limits are now.
func (d *document) replay(step Step) (*document, error) {
	body := append(append([]byte(`{"state":`), step.Patch...), '}')
	unlimited := Limits{StateBytes: 1 << 30, BodyBytes: 1 << 30, Depth: maxNesting}
	r, err := parseRequest(body, step.Timestamp, unlimited)
	if err != nil {
		return nil, err
	}
	return &document{
		version: step.Version, at: step.At.UnixNano(),
		desired: r.desired.applyTo(d.desired), reported: r.reported.applyTo(d.reported),
	}, nil
}

// Difference is a value that two documents do not have alike.
type Difference struct {
	// Path is a JSON Pointer that begins with the section.
	Path string
	// Old and New are the values; nil where there is none.
	Old, New json.RawMessage
}

// Nothing is the document of a shadow before its first version.
func Nothing(account fleet.Account, thing, shadow string) Document {
	return newDocument(identity{account: account, thing: thing, shadow: shadow}, absent())
}

// Differences lists in order of paths what changed between two documents.
// Arrays are compared whole, numbers by their value.
func Differences(before, after Document) []Difference {
	var out []Difference
	for _, section := range []struct {
		name     string
		old, new []node
	}{{"/desired", before.d.desired, after.d.desired}, {"/reported", before.d.reported, after.d.reported}} {
		out = differences(out, section.name, section.old, section.new)
	}
	return out
}

// differences adds those of two objects.
func differences(out []Difference, path string, before, after []node) []Difference {
	for i, j := 0, 0; i < len(before) || j < len(after); {
		switch {
		case j == len(after) || i < len(before) && before[i].key < after[j].key:
			out = added(out, path, &before[i], func(d *Difference, v json.RawMessage) { d.Old = v })
			i++
		case i == len(before) || after[j].key < before[i].key:
			out = added(out, path, &after[j], func(d *Difference, v json.RawMessage) { d.New = v })
			j++
		default:
			at := path + "/" + pointerPart(after[j].key)
			switch was, is := &before[i], &after[j]; {
			case was.kind == kindObject && is.kind == kindObject && (len(was.kids) > 0 || len(is.kids) > 0):
				out = differences(out, at, was.kids, is.kids)
			case !equal(was, is):
				out = append(out, Difference{Path: at, Old: appendValue(nil, was), New: appendValue(nil, is)})
			}
			i++
			j++
		}
	}
	return out
}

// added adds the leaves of a member that only one side has.
func added(out []Difference, path string, n *node, set func(*Difference, json.RawMessage)) []Difference {
	at := path + "/" + pointerPart(n.key)
	if n.kind == kindObject && len(n.kids) > 0 {
		for i := range n.kids {
			out = added(out, at, &n.kids[i], set)
		}
		return out
	}
	d := Difference{Path: at}
	set(&d, appendValue(nil, n))
	return append(out, d)
}

// pointerPart is a member's name as a part of a JSON Pointer. Names are kept
// as canonical JSON text.
func pointerPart(key string) string {
	if strings.IndexByte(key, '\\') >= 0 {
		var name string
		if json.Unmarshal([]byte(`"`+key+`"`), &name) == nil {
			key = name
		}
	}
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}

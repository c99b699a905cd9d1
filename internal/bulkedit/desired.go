package bulkedit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
)

// object is a JSON object whose numbers keep their text.
type object = map[string]any

// parseObject reads exactly one object.
func parseObject(text []byte) (object, error) {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var out object
	if err := decoder.Decode(&out); err != nil {
		return nil, fmt.Errorf("read a JSON object: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("read a JSON object: something follows it")
	}
	if out == nil {
		return nil, errors.New("read a JSON object: null is none")
	}
	return out, nil
}

// writeObject is the compact text of an object.
func writeObject(o object) (json.RawMessage, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(o); err != nil {
		return nil, fmt.Errorf("write a JSON object: %w", err)
	}
	return bytes.TrimSpace(out.Bytes()), nil
}

// merge is a state after a patch as shadows merge: null removes, objects are
// merged, everything else replaces.
func merge(state, patch object) object {
	out := make(object, len(state)+len(patch))
	maps.Copy(out, state)
	for name, value := range patch {
		inner, isObject := value.(object)
		switch {
		case value == nil:
			delete(out, name)
		case isObject:
			present, _ := out[name].(object)
			out[name] = merge(present, inner)
		default:
			out[name] = value
		}
	}
	return out
}

// touched returns what lies at the places that a patch can change, in the state
// before it and in the one after: the same members in both, null for what is not
// there. Merging was into left gives the state before.
func touched(before, after, patch object) (was, left object) {
	was, left = object{}, object{}
	for name, value := range patch {
		inner, patches := value.(object)
		from, hadObject := before[name].(object)
		to, hasObject := after[name].(object)
		if patches && hadObject && hasObject {
			was[name], left[name] = touched(from, to, inner)
			continue
		}
		was[name], left[name] = before[name], after[name]
	}
	return was, left
}

// holds reports whether a state has, at the places of left, what left says.
func holds(state, left, was object) bool {
	for name, value := range left {
		inner, isObject := value.(object)
		undone, undoesObject := was[name].(object)
		present, hasObject := state[name].(object)
		if isObject && undoesObject && hasObject {
			if !holds(present, inner, undone) {
				return false
			}
			continue
		}
		if !reflect.DeepEqual(state[name], value) {
			return false
		}
	}
	return true
}

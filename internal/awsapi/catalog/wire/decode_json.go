package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"slices"

	"github.com/muster-iot/muster/internal/fault"
)

// parseObject reads a body that must be one JSON object. Its nesting is
// checked before anything is built from it.
func parseObject(text []byte) (map[string]any, error) {
	if tooDeep(text) {
		return nil, fault.New(fault.InvalidRequest, "The request body is nested more than %d levels deep", MaxDepth)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var node any
	if err := decoder.Decode(&node); err != nil {
		return nil, fault.Wrap(fault.InvalidRequest, err, "The request body is not valid JSON")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, fault.New(fault.InvalidRequest, "The request body holds more than one JSON value")
	}
	object, ok := node.(map[string]any)
	if !ok {
		return nil, fault.New(fault.InvalidRequest, "The request body must be a JSON object")
	}
	return object, nil
}

// tooDeep counts brackets outside strings, without allocating.
func tooDeep(text []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch b := text[i]; {
		case quoted && b == '\\':
			i++
		case b == '"':
			quoted = !quoted
		case quoted:
		case b == '{' || b == '[':
			if depth++; depth > MaxDepth {
				return true
			}
		case b == '}' || b == ']':
			depth--
		}
	}
	return false
}

// structure fills a struct, or the pointer to one, from an object.
func (d *decoder) structure(v reflect.Value, node map[string]any, path string) error {
	v = settle(v)
	p, err := d.codec.plan(v.Type())
	if err != nil {
		return err
	}
	d.object(p, v, node, path)
	return nil
}

// object fills the body members of a struct and notes those that are missing.
func (d *decoder) object(p *plan, target reflect.Value, node map[string]any, path string) {
	for _, f := range p.fields {
		if f.place != placeBody {
			continue
		}
		value, ok := node[f.name]
		if !ok || value == nil {
			if f.required {
				d.found.add(at(path, f.name), "is required")
			}
			continue
		}
		d.value(target.Field(f.index), f.rule, value, at(path, f.name))
	}
}

// value sets anything from the JSON value that node is.
func (d *decoder) value(v reflect.Value, r *rule, node any, path string) {
	v = settle(v)
	if isTime(v.Type()) {
		d.jsonTime(v, node, path)
		return
	}
	switch v.Kind() {
	case reflect.String:
		if text, ok := d.asText(node, path); ok {
			v.SetString(text)
			d.found.text(r, path, text)
		}
	case reflect.Bool:
		if on, ok := node.(bool); ok {
			v.SetBool(on)
		} else {
			d.found.add(path, "must be true or false")
		}
	case reflect.Int32, reflect.Int64, reflect.Float64:
		d.jsonNumber(v, r, node, path)
	case reflect.Slice:
		d.slice(v, r, node, path)
	case reflect.Map:
		d.mapping(v, r, node, path)
	case reflect.Struct:
		object, ok := node.(map[string]any)
		if !ok {
			d.found.add(path, "must be an object")
			return
		}
		if err := d.structure(v, object, path); err != nil {
			d.found.add(path, "cannot be read")
		}
	default:
		d.found.add(path, "cannot be read")
	}
}

// asText returns a JSON string.
func (d *decoder) asText(node any, path string) (string, bool) {
	text, ok := node.(string)
	if !ok {
		d.found.add(path, "must be a string")
	}
	return text, ok
}

// jsonNumber sets an integer or a float.
func (d *decoder) jsonNumber(v reflect.Value, r *rule, node any, path string) {
	number, ok := node.(json.Number)
	switch {
	case !ok:
		d.found.add(path, "must be a number")
	case v.Kind() == reflect.Float64:
		d.float(v, r, path, number.String())
	default:
		d.integer(v, r, path, number.String())
	}
}

// jsonTime sets a time, which the body carries as seconds since 1970.
func (d *decoder) jsonTime(v reflect.Value, node any, path string) {
	number, ok := node.(json.Number)
	if !ok {
		d.found.add(path, "must be a number of seconds since 1970")
		return
	}
	when, err := seconds(number.String())
	if err != nil {
		d.found.add(path, "must be a number of seconds since 1970")
		return
	}
	v.Set(reflect.ValueOf(when))
}

// slice sets a list, or bytes from base64.
func (d *decoder) slice(v reflect.Value, r *rule, node any, path string) {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		d.blob(v, r, node, path)
		return
	}
	list, ok := node.([]any)
	if !ok {
		d.found.add(path, "must be a list")
		return
	}
	d.found.length(r, path, len(list), "elements")
	v.Set(reflect.MakeSlice(v.Type(), len(list), len(list)))
	for i, element := range list {
		if element == nil {
			d.found.add(atIndex(path, i), "must not be null")
			continue
		}
		d.value(v.Index(i), elemRule(r), element, atIndex(path, i))
	}
}

// blob sets bytes.
func (d *decoder) blob(v reflect.Value, r *rule, node any, path string) {
	text, ok := d.asText(node, path)
	if !ok {
		return
	}
	blob, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		d.found.add(path, "must be base64")
		return
	}
	d.found.length(r, path, len(blob), "bytes")
	v.SetBytes(blob)
}

// mapping sets a map with string keys. Keys are visited in order, so that a
// message does not depend on chance.
func (d *decoder) mapping(v reflect.Value, r *rule, node any, path string) {
	object, ok := node.(map[string]any)
	if !ok {
		d.found.add(path, "must be an object")
		return
	}
	d.found.length(r, path, len(object), "entries")
	v.Set(reflect.MakeMapWithSize(v.Type(), len(object)))
	keys := make([]string, 0, len(object))
	for key := range object {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		if r != nil {
			d.found.text(r.key, path+" key", key)
		}
		if object[key] == nil {
			d.found.add(at(path, key), "must not be null")
			continue
		}
		element := reflect.New(v.Type().Elem()).Elem()
		d.value(element, elemRule(r), object[key], at(path, key))
		v.SetMapIndex(reflect.ValueOf(key), element)
	}
}

// elemRule returns the rule of a list's or map's elements.
func elemRule(r *rule) *rule {
	if r == nil {
		return nil
	}
	return r.elem
}

package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"time"
)

// Reply is an encoded wire struct.
type Reply struct {
	// Header holds the members that travel as headers; nil without any.
	Header http.Header
	Body   []byte
}

// Encode writes the struct that from points to. Absent members are left out,
// times become numbers of seconds, and a struct without body members is {}.
func (c *Codec) Encode(from any) (Reply, error) {
	source := reflect.ValueOf(from).Elem()
	p, err := c.plan(source.Type())
	if err != nil {
		return Reply{}, err
	}
	e := &encoder{codec: c}
	reply := Reply{Header: e.headers(p, source)}
	if p.payload >= 0 {
		v := source.Field(p.fields[p.payload].index)
		if v.Kind() == reflect.Slice {
			reply.Body = v.Bytes()
			return reply, nil
		}
		err = e.value(v)
	} else {
		err = e.structure(source)
	}
	reply.Body = e.out.Bytes()
	return reply, err
}

// encoder is one run of Encode.
type encoder struct {
	codec *Codec
	out   bytes.Buffer
}

// headers collects the members that travel as headers.
func (e *encoder) headers(p *plan, source reflect.Value) http.Header {
	var header http.Header
	for _, f := range p.fields {
		v := source.Field(f.index)
		if f.place != placeHeader || absent(v) {
			continue
		}
		if header == nil {
			header = http.Header{}
		}
		header.Set(f.name, fmt.Sprint(reflect.Indirect(v).Interface()))
	}
	return header
}

// structure writes the body members that are present.
func (e *encoder) structure(v reflect.Value) error {
	p, err := e.codec.plan(v.Type())
	if err != nil {
		return err
	}
	e.out.WriteByte('{')
	first := true
	for _, f := range p.fields {
		member := v.Field(f.index)
		if f.place != placeBody || absent(member) && !f.required {
			continue
		}
		e.key(f.name, &first)
		if err := e.value(member); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	e.out.WriteByte('}')
	return nil
}

// key writes a member name and what separates it from the one before.
func (e *encoder) key(name string, first *bool) {
	if !*first {
		e.out.WriteByte(',')
	}
	*first = false
	e.text(name)
	e.out.WriteByte(':')
}

// value writes anything.
func (e *encoder) value(v reflect.Value) error {
	v = reflect.Indirect(v)
	if !v.IsValid() {
		e.out.WriteString("null")
		return nil
	}
	if when, ok := reflect.TypeAssert[time.Time](v); ok {
		e.out.WriteString(strconv.FormatFloat(float64(when.UnixMilli())/1e3, 'f', -1, 64))
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		e.text(v.String())
	case reflect.Bool:
		e.out.WriteString(strconv.FormatBool(v.Bool()))
	case reflect.Int32, reflect.Int64:
		e.out.WriteString(strconv.FormatInt(v.Int(), 10))
	case reflect.Float64:
		return e.float(v.Float())
	case reflect.Slice:
		return e.slice(v)
	case reflect.Map:
		return e.mapping(v)
	case reflect.Struct:
		return e.structure(v)
	default:
		return fmt.Errorf("cannot encode %s", v.Type())
	}
	return nil
}

// float writes a number that JSON can carry.
func (e *encoder) float(x float64) error {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return fmt.Errorf("%v is not a JSON number", x)
	}
	e.out.WriteString(strconv.FormatFloat(x, 'f', -1, 64))
	return nil
}

// slice writes a list, or bytes as base64.
func (e *encoder) slice(v reflect.Value) error {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		e.text(base64.StdEncoding.EncodeToString(v.Bytes()))
		return nil
	}
	e.out.WriteByte('[')
	for i := range v.Len() {
		if i > 0 {
			e.out.WriteByte(',')
		}
		if err := e.value(v.Index(i)); err != nil {
			return err
		}
	}
	e.out.WriteByte(']')
	return nil
}

// mapping writes a map in the order of its keys.
func (e *encoder) mapping(v reflect.Value) error {
	keys := make([]string, 0, v.Len())
	for _, key := range v.MapKeys() {
		keys = append(keys, key.String())
	}
	slices.Sort(keys)
	e.out.WriteByte('{')
	first := true
	for _, key := range keys {
		e.key(key, &first)
		if err := e.value(v.MapIndex(reflect.ValueOf(key))); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	e.out.WriteByte('}')
	return nil
}

// text writes a JSON string, with <, > and & as they are.
func (e *encoder) text(s string) {
	encoder := json.NewEncoder(&e.out)
	encoder.SetEscapeHTML(false)
	// A string always encodes; the encoder only adds a line feed.
	if err := encoder.Encode(s); err == nil {
		e.out.Truncate(e.out.Len() - 1)
	}
}

// absent reports whether a member was left out.
func absent(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return v.IsNil()
	default:
		return false
	}
}

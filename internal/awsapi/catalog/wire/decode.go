package wire

import (
	"fmt"
	"math"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/fault"
)

// Request is the parts of an HTTP request that carry members. The body has
// been read and bounded by the caller.
type Request struct {
	// Labels are the decoded path labels by name.
	Labels map[string]string
	Query  url.Values
	Header http.Header
	Body   []byte
}

// timeType is the only struct type that is a scalar on the wire.
func isTime(t reflect.Type) bool { return t == reflect.TypeFor[time.Time]() }

// Decode fills the struct that into points to and checks every limit. Its
// error is a fault that names each offending member.
func (c *Codec) Decode(into any, req Request) error {
	target := reflect.ValueOf(into).Elem()
	p, err := c.plan(target.Type())
	if err != nil {
		return err
	}
	d := &decoder{codec: c}
	body, err := d.body(p, target, req.Body)
	if err != nil {
		return err
	}
	for _, f := range p.fields {
		switch f.place {
		case placeURI:
			d.plain(f, target, req.Labels[f.name], req.Labels[f.name] != "")
		case placeQuery:
			d.values(f, target, req.Query[f.name])
		case placeHeader:
			d.values(f, target, req.Header.Values(f.name))
		}
	}
	if len(p.body) > 0 {
		d.object(p, target, body, "")
	}
	return d.found.err()
}

// decoder is one run of Decode.
type decoder struct {
	codec *Codec
	found violations
}

// body parses what the body must hold: the members, the payload, or nothing.
func (d *decoder) body(p *plan, target reflect.Value, text []byte) (map[string]any, error) {
	if p.payload < 0 {
		if len(p.body) == 0 || len(text) == 0 {
			return nil, nil
		}
		return parseObject(text)
	}
	f := p.fields[p.payload]
	v := target.Field(f.index)
	if v.Kind() == reflect.Slice {
		if len(text) > 0 {
			v.SetBytes(text)
		} else if f.required {
			d.found.add(f.name, "must not be empty")
		}
		return nil, nil
	}
	if len(text) == 0 {
		if f.required {
			d.found.add(f.name, "is required")
		}
		return nil, nil
	}
	node, err := parseObject(text)
	if err != nil {
		return nil, err
	}
	return nil, d.structure(v, node, f.name)
}

// values handles a member of the query or a header, which must not repeat.
func (d *decoder) values(f field, target reflect.Value, values []string) {
	switch {
	case len(values) == 0:
		d.plain(f, target, "", false)
	case len(values) > 1 && target.Field(f.index).Kind() == reflect.Slice:
		d.found.add(f.name, "cannot be a list here")
	case len(values) > 1:
		d.found.add(f.name, "is given more than once")
	default:
		d.plain(f, target, values[0], true)
	}
}

// plain sets a member from text outside the body.
func (d *decoder) plain(f field, target reflect.Value, text string, present bool) {
	if !present {
		if f.required {
			d.found.add(f.name, "is required")
		}
		return
	}
	v := settle(target.Field(f.index))
	if isTime(v.Type()) {
		d.textTime(v, f.name, text)
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
		d.found.text(f.rule, f.name, text)
	case reflect.Bool:
		d.textBool(v, f.name, text)
	case reflect.Int32, reflect.Int64:
		d.integer(v, f.rule, f.name, text)
	case reflect.Float64:
		d.float(v, f.rule, f.name, text)
	default:
		d.found.add(f.name, "cannot travel here")
	}
}

// textBool reads a boolean of the query, where clients write any case.
func (d *decoder) textBool(v reflect.Value, path, text string) {
	switch {
	case strings.EqualFold(text, "true"):
		v.SetBool(true)
	case strings.EqualFold(text, "false"):
		v.SetBool(false)
	default:
		d.found.add(path, "must be true or false")
	}
}

// textTime reads a time outside the body: ISO 8601, or seconds since 1970.
func (d *decoder) textTime(v reflect.Value, path, text string) {
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		v.Set(reflect.ValueOf(at.UTC()))
		return
	}
	at, err := seconds(text)
	if err != nil {
		d.found.add(path, "must be a time such as 2026-01-31T12:00:00Z")
		return
	}
	v.Set(reflect.ValueOf(at))
}

// integer reads a whole number that fits the field.
func (d *decoder) integer(v reflect.Value, r *rule, path, text string) {
	n, err := strconv.ParseInt(text, 10, v.Type().Bits())
	if err != nil {
		d.found.add(path, "must be a whole number of %d bits", v.Type().Bits())
		return
	}
	v.SetInt(n)
	d.found.number(r, path, float64(n))
}

// float reads a finite number.
func (d *decoder) float(v reflect.Value, r *rule, path, text string) {
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(x, 0) || math.IsNaN(x) {
		d.found.add(path, "must be a finite number")
		return
	}
	v.SetFloat(x)
	d.found.number(r, path, x)
}

// settle returns what an optional member's pointer points to, made if needed.
func settle(v reflect.Value) reflect.Value {
	if v.Kind() != reflect.Pointer {
		return v
	}
	if v.IsNil() {
		v.Set(reflect.New(v.Type().Elem()))
	}
	return v.Elem()
}

// seconds reads a number of seconds since 1970 as a time of the years 1 to 9999.
func seconds(text string) (time.Time, error) {
	const earliest, latest = -62135596800, 253402300799
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(x) || x < earliest || x > latest {
		return time.Time{}, fault.New(fault.InvalidRequest, "%q is no time", text)
	}
	whole, fraction := math.Modf(x)
	return time.Unix(int64(whole), int64(math.Round(fraction*1e3))*1e6).UTC(), nil
}

// at appends a member to a path.
func at(path, member string) string {
	if path == "" {
		return member
	}
	return path + "." + member
}

// atIndex appends a list position to a path.
func atIndex(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

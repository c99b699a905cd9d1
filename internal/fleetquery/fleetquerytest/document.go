package fleetquerytest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/muster-iot/muster/internal/fleetquery"
)

// Document flattens a thing for the plain evaluator.
func (t *Thing) Document(places map[string]bool) (fleetquery.Document, error) {
	f := fields{}
	for _, prefix := range []string{"", "registry."} {
		f.text(prefix+"thingName", t.Name)
		f.text(prefix+"thingId", t.ID)
		f.text(prefix+"thingTypeName", t.TypeName)
		f.text(prefix+"thingGroupNames", t.Groups...)
	}
	for name, v := range t.Attributes {
		f["attributes."+name] = fleetquery.Attribute(v)
	}
	if t.Shadow != nil {
		if err := f.shadows(t.Shadow); err != nil {
			return fleetquery.Document{}, fmt.Errorf("shadow of %s: %w", t.Name, err)
		}
	}
	f["connectivity.connected"] = []fleetquery.Value{fleetquery.Bool(t.Connectivity != nil && t.Connectivity.Connected)}
	if c := t.Connectivity; c != nil {
		f.text("connectivity.disconnectReason", c.Reason)
		f.text("connectivity.clientId", t.Name)
		f.number("connectivity.timestamp", c.Timestamp)
		f.number("connectivity.keepAliveDuration", c.KeepAlive)
		f.number("connectivity.sessionExpiry", c.SessionExpiry)
		f["connectivity.cleanSession"] = []fleetquery.Value{fleetquery.Bool(c.CleanSession)}
	}
	f.number("deviceDefender.violationCount", 0)
	f.certificates(t.Certificates)
	return fleetquery.Document{
		Fields: f,
		Unfielded: func(field string) bool {
			return !slices.ContainsFunc([]string{"connectivity.", "deviceDefender.", "muster."}, func(p string) bool { return strings.HasPrefix(field, p) })
		},
		LonLat: func(field string) bool { return places[field] },
	}, nil
}

// Document flattens a group for the plain evaluator.
func (g *Group) Document() fleetquery.Document {
	f := fields{}
	f.text("thingGroupName", g.Name)
	f.text("thingGroupNames", g.Name)
	f.text("thingGroupId", g.ID)
	f.text("description", g.Description)
	f.text("thingGroupDescription", g.Description)
	f.text("parentGroupNames", g.Parents...)
	for name, v := range g.Attributes {
		f["attributes."+name] = fleetquery.Attribute(v)
	}
	return fleetquery.Document{Fields: f}
}

// fields are the values of a flattened document.
type fields map[string][]fleetquery.Value

// text adds texts that are not empty.
func (f fields) text(name string, texts ...string) {
	for _, text := range texts {
		if text != "" {
			f[name] = append(f[name], fleetquery.Text(text))
		}
	}
}

func (f fields) number(name string, n int64) {
	f[name] = []fleetquery.Value{fleetquery.Number(float64(n))}
}

// shadows adds the classic shadow, if it is one, and the named ones.
func (f fields) shadows(s *Shadow) error {
	if s.Desired != nil || s.Reported != nil {
		if err := f.shadow("shadow", s); err != nil {
			return err
		}
	}
	for name, named := range s.Named {
		if err := f.shadow("shadow.name."+name, &named); err != nil {
			return err
		}
	}
	return nil
}

func (f fields) shadow(root string, s *Shadow) error {
	f[root+".hasDelta"] = []fleetquery.Value{fleetquery.Bool(len(s.Delta) > 0)}
	for section, text := range map[string]json.RawMessage{"desired": s.Desired, "reported": s.Reported, "delta": s.Delta} {
		if err := f.flatten(root+"."+section, text); err != nil {
			return err
		}
	}
	// Metadata is indexed only where the state is.
	all := fields{}
	if err := all.flatten(root+".metadata", s.Metadata); err != nil {
		return err
	}
	for path, v := range all {
		state := strings.Replace(strings.TrimSuffix(path, ".timestamp"), ".metadata.", ".", 1)
		if len(f[state]) > 0 {
			f[path] = v
		}
	}
	return nil
}

// flatten adds the leaves of JSON text.
func (f fields) flatten(at string, text json.RawMessage) error {
	if len(text) == 0 {
		return nil
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		return err //nolint:wrapcheck // the callers say where
	}
	f.leaf(at, v)
	return nil
}

// leaf adds a value: objects by their members, arrays of scalars as several
// values, other arrays and null not at all.
func (f fields) leaf(at string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, child := range v {
			f.leaf(at+"."+key, child)
		}
	case []any:
		for _, child := range v {
			switch child.(type) {
			case string, float64, bool:
			default:
				return
			}
		}
		for _, child := range v {
			f.leaf(at, child)
		}
	case string:
		f[at] = append(f[at], fleetquery.Text(v))
	case float64:
		f[at] = append(f[at], fleetquery.Number(v))
	case bool:
		f[at] = append(f[at], fleetquery.Bool(v))
	}
}

// certificates adds what is known of a thing's certificates.
func (f fields) certificates(list []Certificate) {
	f.number("muster.certificate.count", int64(len(list)))
	first := int64(0)
	for _, c := range list {
		f.text("muster.certificate.status", c.Status)
		if c.Status == "ACTIVE" && (first == 0 || c.NotAfter < first) {
			first = c.NotAfter
		}
	}
	if first != 0 {
		f.number("muster.certificate.notAfter", first)
	}
}

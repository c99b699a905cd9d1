package index_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
)

// placeFields are the fields of the model's fleet that hold places.
func placeFields() []fleet.GeoLocation {
	return []fleet.GeoLocation{{Name: "shadow.reported.pos"}, {Name: "shadow.name.gps.reported.pos", LonLat: true}, {Name: "shadow.desired.stats.pos", LonLat: true}}
}

// withPlaces is the default configuration with those fields.
func withPlaces() fleet.Indexing {
	config := fleet.DefaultIndexing()
	config.Things.GeoLocations = placeFields()
	return config
}

// lonLat are the orders of the fields with places.
func lonLat() map[string]bool {
	orders := map[string]bool{}
	for _, l := range placeFields() {
		orders[l.Name] = l.LonLat
	}
	return orders
}

// coordinate is a multiple of half a degree most of the time, so that borders
// of boxes are hit, and out of range at times.
func (m *model) coordinate(most int) float64 {
	switch m.random.IntN(20) {
	case 0:
		return float64(most)
	case 1:
		return -float64(most)
	case 2:
		return float64(most) + 0.5
	case 3, 4, 5:
		return float64(most) * (2*m.random.Float64() - 1)
	}
	return float64(m.random.IntN(4*most+1)-2*most) / 2
}

// place is a value for a field with places, or next to one.
func (m *model) place() any {
	a, b := m.coordinate(90), m.coordinate(180)
	if m.random.IntN(2) == 0 {
		a, b = b, a
	}
	number := func(v float64) string { return fmt.Sprintf("%.4f", v) }
	switch m.random.IntN(14) {
	case 0, 1:
		return number(a) + "," + number(b)
	case 2:
		return " " + number(a) + " , " + number(b)
	case 3:
		return "POINT(" + number(b) + " " + number(a) + ")"
	case 4:
		return "point (" + number(a) + "  " + number(b) + " )"
	case 5, 6:
		return []any{a, b}
	case 7:
		return []any{number(a) + "," + number(b), number(b) + "," + number(a), "x"}
	case 8:
		return one[any](m, []any{a, b, a}, []any{a, true}, a, "POINT(1)", "1 2", "NaN,1", "1,2,3", nil)
	case 9:
		return map[string]any{"latitude": a, "longitude": b}
	case 10:
		return map[string]any{"lat": a, "long": b, "alt": 3.0}
	}
	// One coordinate at a time.
	return map[string]any{one(m, "lat", "lon", "lat", "lon", "longitude", "latitude"): one[any](m, a, b, a, b, nil, "x")}
}

// area is a random function on places.
func (m *model) area() string {
	if m.random.IntN(2) == 0 {
		unit := one(m, "km", "mi")
		return fmt.Sprintf("geo_distance,%v,%v,%.3f%s", clamp(m.coordinate(90), 90), clamp(m.coordinate(180), 180), m.random.ExpFloat64()*2500, unit)
	}
	north, south := clamp(m.coordinate(90), 90), clamp(m.coordinate(90), 90)
	if north < south {
		north, south = south, north
	}
	return fmt.Sprintf("geo_bounding_box,%v,%v,%v,%v", north, clamp(m.coordinate(180), 180), south, clamp(m.coordinate(180), 180))
}

func clamp(v, most float64) float64 { return max(-most, min(most, v)) }

// placeQuery is a random query on places.
func (m *model) placeQuery() string {
	return one(m, placeFields()...).Name + ":" + m.area()
}

// shadowTree is what a thing's shadows hold, the named ones under name.
func (m *model) shadowTree(thing string) map[string]any {
	tree, named := map[string]any{}, map[string]any{}
	for name, s := range m.shadows[thing] {
		if name == "" {
			maps.Copy(tree, s.state)
		} else {
			named[name] = s.state
		}
	}
	tree["name"] = named
	return tree
}

// certificate is one of the model's, with the things that it acts as.
type modelCertificate struct {
	status   string
	notAfter int64
	things   map[string]bool
}

// changeCertificate attaches, detaches or changes one of a few certificates.
func (m *model) changeCertificate(thing string) []event.Envelope {
	id := fmt.Sprintf("cert%d", m.random.IntN(8))
	c := m.certificates[id]
	if c == nil {
		c = &modelCertificate{status: "ACTIVE", notAfter: (m.clock + int64(m.random.IntN(1000))) * 1000, things: map[string]bool{}}
		m.certificates[id] = c
	}
	if m.random.IntN(3) == 0 {
		before := c.status
		c.status = one(m, "ACTIVE", "INACTIVE", "REVOKED")
		return []event.Envelope{m.envelope(event.CertificateStatusChanged{CertificateID: id, Status: c.status, PreviousStatus: before})}
	}
	arn := "arn:aws:iot:eu-local-1:000000000001:cert/" + id
	if m.things[thing] == nil || c.things[thing] {
		delete(c.things, thing)
		return []event.Envelope{m.envelope(event.PrincipalDetached{Thing: thing, Principal: arn})}
	}
	c.things[thing] = true
	return []event.Envelope{m.envelope(event.PrincipalAttached{Thing: thing, Principal: arn})}
}

// detachAll ends the attachments of a thing that is to be deleted.
func (m *model) detachAll(thing string) []event.Envelope {
	var out []event.Envelope
	for _, id := range slices.Sorted(maps.Keys(m.certificates)) {
		if c := m.certificates[id]; c.things[thing] {
			delete(c.things, thing)
			out = append(out, m.envelope(event.PrincipalDetached{Thing: thing, Principal: "arn:aws:iot:eu-local-1:000000000001:cert/" + id}))
		}
	}
	return out
}

// certificateQuery is a random query on certificates or sessions.
func (m *model) certificateQuery() string {
	return strings.ReplaceAll(one(m,
		"muster.certificate.notAfter<N", "muster.certificate.notAfter:*", "muster.certificate.count:1", "muster.certificate.count>1",
		"muster.certificate.status:ACTIVE", "muster.certificate.status:(ACTIVE INACTIVE)", "muster.certificate.status:rev*",
		"connectivity.keepAliveDuration>=60", "connectivity.cleanSession:true", "connectivity.sessionExpiry:0", "connectivity.clientId:pump-*",
		"connectivity.clientId:*", "connectivity.clientId:[pump-1 TO x-2]", "deviceDefender.violationCount:0", "deviceDefender.violationCount>0",
		"deviceDefender.p.b.inViolation:true", "deviceDefender:*",
	), "N", fmt.Sprint((m.clock+int64(m.random.IntN(1000)))*1000))
}

package fleetquery

import (
	"math"
	"strings"
)

// EarthRadius is the mean radius of the earth in meters; distances are those on
// a sphere of this size.
const EarthRadius = 6_371_008.8

// Place is a point on the earth in degrees, within -90..90 and -180..180.
type Place struct{ Lat, Lon float64 }

// MakePlace returns the place at these degrees and whether there is one. The
// poles have one place each.
func MakePlace(lat, lon float64) (Place, bool) {
	// Not a number passes no comparison.
	if !(lat >= -90 && lat <= 90 && lon >= -180 && lon <= 180) {
		return Place{}, false
	}
	if lat == 90 || lat == -90 {
		lon = 0
	}
	return Place{Lat: lat, Lon: lon}, true
}

// makePair makes a place of two numbers without names.
func makePair(a, b float64, lonLat bool) (Place, bool) {
	if lonLat {
		return MakePlace(b, a)
	}
	return MakePlace(a, b)
}

// ParsePlace reads a text that holds a place: POINT(lon lat), or two numbers
// with a comma between them, the latitude first unless lonLat is true.
func ParsePlace(text string, lonLat bool) (Place, bool) {
	text = strings.TrimSpace(text)
	const point = "point"
	if len(text) > len(point) && strings.EqualFold(text[:len(point)], point) {
		inside, ok := strings.CutPrefix(strings.TrimSpace(text[len(point):]), "(")
		if !ok {
			return Place{}, false
		}
		if inside, ok = strings.CutSuffix(inside, ")"); !ok {
			return Place{}, false
		}
		parts := strings.Fields(inside)
		if len(parts) != 2 {
			return Place{}, false
		}
		return parsePair(parts[0], parts[1], true, true)
	}
	a, b, ok := strings.Cut(text, ",")
	return parsePair(a, b, ok, lonLat)
}

// parsePair makes a place of two texts.
func parsePair(a, b string, both, lonLat bool) (Place, bool) {
	first, ok := ParseNumber(strings.TrimSpace(a))
	second, also := ParseNumber(strings.TrimSpace(b))
	if !both || !ok || !also {
		return Place{}, false
	}
	return makePair(first, second, lonLat)
}

// PlacesIn appends the places in the values of one field: each text that is
// one, and an array of exactly two numbers in the given order.
func PlacesIn(into []Place, texts []string, numbers []float64, lonLat bool) []Place {
	for _, text := range texts {
		if p, ok := ParsePlace(text, lonLat); ok {
			into = append(into, p)
		}
	}
	if len(numbers) == 2 && len(texts) == 0 {
		if p, ok := makePair(numbers[0], numbers[1], lonLat); ok {
			into = append(into, p)
		}
	}
	return into
}

// LatitudeNames and LongitudeNames return the members of an object that hold a
// place, in the order in which they are looked at: the first that is a number
// counts.
func LatitudeNames() []string { return []string{"lat", "latitude"} }

// LongitudeNames is LatitudeNames for the other half.
func LongitudeNames() []string { return []string{"lon", "long", "longitude"} }

// Area is a part of the earth that a query asks for; the set is closed.
//
//sumtype:decl
type Area interface {
	// Contains reports whether a place lies in the area, borders included.
	Contains(p Place) bool
	isArea()
}

// Circle is all places within a distance of its center.
type Circle struct {
	Center Place
	Meters float64
	// at is the center as a vector, reach the longest chord from there.
	at    [3]float64
	reach float64
}

// NewCircle returns a circle; meters is not negative.
func NewCircle(center Place, meters float64) Circle {
	c := Circle{Center: center, Meters: meters, at: center.vector(), reach: 2}
	if !c.Everywhere() {
		c.reach = 2 * math.Sin(meters/(2*EarthRadius))
	}
	return c
}

// Everywhere reports whether the circle is the whole earth.
func (c Circle) Everywhere() bool { return c.Meters >= math.Pi*EarthRadius }

// Contains implements Area. It compares chords, which is exact to less than a
// millimeter but near the far side of the earth.
func (c Circle) Contains(p Place) bool {
	v := p.vector()
	x, y, z := v[0]-c.at[0], v[1]-c.at[1], v[2]-c.at[2]
	return x*x+y*y+z*z <= c.reach*c.reach || c.Everywhere()
}

// vector is the place on the unit sphere.
func (p Place) vector() [3]float64 {
	const degree = math.Pi / 180
	sinLat, cosLat := math.Sincos(p.Lat * degree)
	sinLon, cosLon := math.Sincos(p.Lon * degree)
	return [3]float64{cosLat * cosLon, cosLat * sinLon, sinLat}
}

// Box is all places between two parallels and two meridians. It goes east from
// West to East, so over the antimeridian when West is the greater one.
type Box struct{ North, West, South, East float64 }

// Contains implements Area. Both signs of 180 are one meridian, and a pole
// belongs to every box that reaches it.
func (b Box) Contains(p Place) bool {
	if p.Lat < b.South || p.Lat > b.North {
		return false
	}
	if p.Lat == 90 || p.Lat == -90 {
		return true
	}
	return b.spans(p.Lon) || ((p.Lon == 180 || p.Lon == -180) && b.spans(-p.Lon))
}

// spans reports whether a meridian lies between the sides.
func (b Box) spans(lon float64) bool {
	if b.West > b.East {
		return lon >= b.West || lon <= b.East
	}
	return lon >= b.West && lon <= b.East
}

func (Circle) isArea() {}
func (Box) isArea()    {}

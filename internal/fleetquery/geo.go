package fleetquery

import "strings"

// The functions that ask for places. geo_distance is the documented one,
// geo_bounding_box our own.
const (
	distanceFunction = "geo_distance"
	boxFunction      = "geo_bounding_box"
)

// geoFunction reports whether a word is the name of a function.
func geoFunction(name string) bool { return name == distanceFunction || name == boxFunction }

// units are the units of distances in meters, those with a common end from the
// longest on.
var units = []struct { //nolint:gochecknoglobals // a table
	name   string
	meters float64
}{{"km", 1000}, {"mi", 1609.344}, {"m", 1}}

// argument is one argument of a function and where it stands.
type argument struct {
	text string
	at   int
}

// geo makes the test for a function.
func (p *parser) geo(field string, w word) (Node, error) {
	name, rest, _ := strings.Cut(w.text, ",")
	if field == "" {
		return nil, p.errorAt(w.at, "%s needs a field before it", name)
	}
	var args []argument
	at := w.at + len(name) + 1
	for text := range strings.SplitSeq(rest, ",") {
		args = append(args, argument{text, at})
		at += len(text) + 1
	}
	area, err := p.circle(w, args)
	if name == boxFunction {
		area, err = p.box(w, args)
	}
	if err != nil {
		return nil, err
	}
	return p.leaf(w.at, Geo{Field: field, Area: area, At: p.character(w.at)})
}

// circle reads latitude, longitude and distance.
func (p *parser) circle(w word, args []argument) (Area, error) {
	if len(args) != 3 {
		return nil, p.errorAt(w.at, "geo_distance takes a latitude, a longitude and a distance, as in geo_distance,59.91,10.75,15.5km,")
	}
	lat, err := p.degrees(args[0], "latitude", 90)
	if err != nil {
		return nil, err
	}
	lon, err := p.degrees(args[1], "longitude", 180)
	if err != nil {
		return nil, err
	}
	meters, err := p.distance(args[2])
	if err != nil {
		return nil, err
	}
	center, _ := MakePlace(lat, lon)
	return NewCircle(center, meters), nil
}

// box reads the four sides.
func (p *parser) box(w word, args []argument) (Area, error) {
	if len(args) != 4 {
		return nil, p.errorAt(w.at, "geo_bounding_box takes north, west, south and east, as in geo_bounding_box,60.1,10.2,59.7,11,")
	}
	var sides [4]float64
	for i, name := range []string{"north", "west", "south", "east"} {
		var err error
		if sides[i], err = p.degrees(args[i], name, []float64{90, 180}[i%2]); err != nil {
			return nil, err
		}
	}
	b := Box{North: sides[0], West: sides[1], South: sides[2], East: sides[3]}
	if b.North < b.South {
		return nil, p.errorAt(args[0].at, "north %s lies south of south %s", args[0].text, args[2].text)
	}
	return b, nil
}

// degrees reads a number of degrees.
func (p *parser) degrees(a argument, name string, most float64) (float64, error) {
	n, ok := ParseNumber(a.text)
	if !ok || n < -most || n > most {
		return 0, p.errorAt(a.at, "%s %q is no number from -%g to %g", name, a.text, most, most)
	}
	return n, nil
}

// distance reads a number with a unit as meters.
func (p *parser) distance(a argument) (float64, error) {
	for _, unit := range units {
		text, ok := strings.CutSuffix(a.text, unit.name)
		if !ok {
			continue
		}
		if n, ok := ParseNumber(text); ok && n >= 0 {
			return n * unit.meters, nil
		}
		break
	}
	return 0, p.errorAt(a.at, "distance %q is no number with one of the units km, m and mi", a.text)
}

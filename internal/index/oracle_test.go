package index_test

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/muster-iot/muster/internal/fleetquery"
)

// oracle decides queries on one document in the most obvious way. It takes the
// parsed query and shares nothing else with the index, nor with the evaluator
// beside the parser: patterns are regular expressions, phrases substrings,
// places come from the shadow as it was sent, distances from vectors.
type oracle struct {
	doc fleetquery.Document
	// shadow is the classic shadow with the named ones under name.
	shadow map[string]any
	// lonLat tells the fields with places and their order.
	lonLat map[string]bool
}

func (o *oracle) holds(n fleetquery.Node) bool {
	switch n := n.(type) {
	case fleetquery.And:
		all := true
		for _, part := range n.Nodes {
			all = o.holds(part) && all
		}
		return all
	case fleetquery.Or:
		some := false
		for _, part := range n.Nodes {
			some = o.holds(part) || some
		}
		return some
	case fleetquery.Not:
		return !o.holds(n.Node)
	case fleetquery.All:
		return true
	case fleetquery.Exists:
		for name, v := range o.doc.Fields {
			if len(v) > 0 && strings.HasPrefix(name+".", n.Field+".") {
				return true
			}
		}
		return false
	case fleetquery.Match:
		return o.any(n.Field, func(text string) bool { return hasRun(text, n.Word) }, func(v float64) bool { return n.IsNumber && v == n.Number })
	case fleetquery.Phrase:
		return o.any(n.Field, func(text string) bool { return hasRun(text, strings.Join(n.Words, " ")) }, nil)
	case fleetquery.Wildcard:
		return o.anyWord(n.Field, expression(n.Pattern.String()).MatchString)
	case fleetquery.TextRange:
		return o.anyWord(n.Field, func(word string) bool {
			return between(n.Low.Open, n.High.Open, strings.Compare(word, n.Low.Value), strings.Compare(word, n.High.Value), n.Low.Inclusive, n.High.Inclusive)
		})
	case fleetquery.NumberRange:
		return o.any(n.Field, nil, func(v float64) bool {
			return between(n.Low.Open, n.High.Open, sign(v-n.Low.Value), sign(v-n.High.Value), n.Low.Inclusive, n.High.Inclusive)
		})
	case fleetquery.Geo:
		for _, p := range o.places(n.Field) {
			if inside(n.Area, p[0], p[1]) {
				return true
			}
		}
		return false
	}
	return false
}

// expressions are the regular expressions of patterns met before.
var expressions sync.Map

func expression(pattern string) *regexp.Regexp {
	if e, ok := expressions.Load(pattern); ok {
		return e.(*regexp.Regexp)
	}
	e := regexp.MustCompile("(?s)^" + strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(pattern)) + "$")
	expressions.Store(pattern, e)
	return e
}

func sign(v float64) int {
	switch {
	case v < 0:
		return -1
	case v > 0:
		return 1
	}
	return 0
}

func between(lowOpen, highOpen bool, toLow, toHigh int, lowIn, highIn bool) bool {
	low := lowOpen || toLow > 0 || (toLow == 0 && lowIn)
	high := highOpen || toHigh < 0 || (toHigh == 0 && highIn)
	return low && high
}

// spaced is text with one space around each word.
func spaced(text string) string {
	return " " + strings.Join(strings.Fields(strings.ToLower(text)), " ") + " "
}

func hasRun(text, run string) bool { return strings.Contains(spaced(text), spaced(run)) }

func (o *oracle) any(field string, text func(string) bool, number func(float64) bool) bool {
	for name, list := range o.doc.Fields {
		if name != field && (field != "" || !o.doc.Unfielded(name)) {
			continue
		}
		for _, v := range list {
			if (v.IsNumber && number != nil && number(v.Number)) || (!v.IsNumber && text != nil && text(v.Text)) {
				return true
			}
		}
	}
	return false
}

func (o *oracle) anyWord(field string, test func(string) bool) bool {
	return o.any(field, func(text string) bool {
		return slices.ContainsFunc(strings.Fields(spaced(text)), test)
	}, nil)
}

// places returns the latitudes and longitudes at a path of the shadow.
func (o *oracle) places(field string) [][2]float64 {
	lonLat, ok := o.lonLat[field]
	if !ok {
		return nil
	}
	var at any = o.shadow
	for _, key := range strings.Split(field, ".")[1:] {
		object, _ := at.(map[string]any)
		at = object[key]
	}
	var found [][2]float64
	add := func(lat, lon float64) {
		if math.Abs(lat) <= 90 && math.Abs(lon) <= 180 {
			found = append(found, [2]float64{lat, lon})
		}
	}
	pair := func(a, b float64) {
		if lonLat {
			a, b = b, a
		}
		add(a, b)
	}
	text := func(text string) {
		if m := pointText.FindStringSubmatch(text); m != nil {
			add(mustFloat(m[2]), mustFloat(m[1]))
		} else if m := pairText.FindStringSubmatch(text); m != nil {
			pair(mustFloat(m[1]), mustFloat(m[2]))
		}
	}
	switch v := at.(type) {
	case string:
		text(v)
	case []any:
		if len(v) == 2 {
			a, ok := v[0].(float64)
			b, also := v[1].(float64)
			if ok && also {
				pair(a, b)
			}
		}
		for _, element := range v {
			if s, ok := element.(string); ok {
				text(s)
			}
		}
	case map[string]any:
		lat, ok := firstFloat(v, "lat", "latitude")
		lon, also := firstFloat(v, "lon", "long", "longitude")
		if ok && also {
			add(lat, lon)
		}
	}
	return found
}

const decimal = `\s*(-?(?:0|[1-9]\d*)(?:\.\d+)?)\s*`

var (
	pointText = regexp.MustCompile(`(?i)^\s*point\s*\(` + decimal + `\s` + decimal + `\)\s*$`)
	pairText  = regexp.MustCompile(`^` + decimal + `,` + decimal + `$`)
)

func mustFloat(text string) float64 {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		panic(err)
	}
	return v
}

func firstFloat(object map[string]any, names ...string) (float64, bool) {
	for _, name := range names {
		if v, ok := object[name].(float64); ok {
			return v, true
		}
	}
	return 0, false
}

// inside decides an area: the angle between two vectors, or degrees east of the
// western side.
func inside(area fleetquery.Area, lat, lon float64) bool {
	switch a := area.(type) {
	case fleetquery.Circle:
		p, q := direction(lat, lon), direction(a.Center.Lat, a.Center.Lon)
		cross := math.Sqrt(square(p[1]*q[2]-p[2]*q[1]) + square(p[2]*q[0]-p[0]*q[2]) + square(p[0]*q[1]-p[1]*q[0]))
		angle := math.Atan2(cross, p[0]*q[0]+p[1]*q[1]+p[2]*q[2])
		return angle*fleetquery.EarthRadius <= a.Meters
	case fleetquery.Box:
		if lat > a.North || lat < a.South {
			return false
		}
		wide := eastward(a.West, a.East)
		if a.East-a.West == 360 {
			wide = 360
		}
		return math.Abs(lat) == 90 || eastward(a.West, lon) <= wide
	}
	return false
}

func square(v float64) float64 { return v * v }

func direction(lat, lon float64) [3]float64 {
	lat, lon = lat*math.Pi/180, lon*math.Pi/180
	return [3]float64{math.Cos(lat) * math.Cos(lon), math.Cos(lat) * math.Sin(lon), math.Sin(lat)}
}

// eastward is how many degrees one goes east from one meridian to another.
func eastward(from, to float64) float64 {
	if to -= from; to < 0 {
		to += 360
	}
	return math.Mod(to, 360)
}

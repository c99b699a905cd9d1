package index

import (
	"math"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/golang/geo/r1"
	"github.com/golang/geo/s1"
	"github.com/golang/geo/s2"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
)

const (
	// geoMargin is how far, in radians, a cell must stay from the border of an
	// area to be decided as a whole: less than a meter, far more than rounding.
	geoMargin = 1e-7
	// fewPlaces is how many places are tested one by one rather than their cell
	// be divided.
	fewPlaces = 32
	// standingCells is how many cells stand for the area of a standing query.
	standingCells = 8
)

// geoField keeps the places of one configured field. It follows from the nodes
// of the field and of its members, so it is filled anew after a load.
type geoField struct {
	path       string
	lonLat     bool
	lats, lons []string
	// places holds the only place of a document, lists several ones.
	places column[fleetquery.Place]
	lists  column[[]fleetquery.Place]
	cells  cellList
	// values, old and now are buffers.
	values   values
	old, now []fleetquery.Place
}

// locate sets the fields that hold places, before the first value comes.
func (c *corpus) locate(locations []fleet.GeoLocation) {
	c.geo, c.geoBy = map[string]*geoField{}, map[string][]*geoField{}
	for _, l := range locations {
		g := &geoField{path: l.Name, lonLat: l.LonLat}
		for _, name := range fleetquery.LatitudeNames() {
			g.lats = append(g.lats, l.Name+"."+name)
		}
		for _, name := range fleetquery.LongitudeNames() {
			g.lons = append(g.lons, l.Name+"."+name)
		}
		c.geo[l.Name] = g
		for _, path := range g.sources() {
			c.geoBy[path] = append(c.geoBy[path], g)
		}
	}
	for path, n := range c.nodes {
		n.geo = c.geoBy[path]
	}
}

// sources are the paths that places come from.
func (g *geoField) sources() []string { return slices.Concat([]string{g.path}, g.lats, g.lons) }

// derive appends the places that a document's nodes hold.
func (g *geoField) derive(c *corpus, doc uint32, into []fleetquery.Place) []fleetquery.Place {
	if n := c.nodes[g.path]; n != nil && n.field != nil {
		g.values.texts, g.values.numbers = g.values.texts[:0], g.values.numbers[:0]
		n.field.appendTo(doc, &g.values)
		into = fleetquery.PlacesIn(into, g.values.texts, g.values.numbers, g.lonLat)
	}
	lat, ok := c.firstNumber(g.lats, doc)
	if !ok {
		return into
	}
	lon, ok := c.firstNumber(g.lons, doc)
	if !ok {
		return into
	}
	if p, ok := fleetquery.MakePlace(lat, lon); ok {
		into = append(into, p)
	}
	return into
}

// firstNumber returns the number at the first of the paths that has one alone.
func (c *corpus) firstNumber(paths []string, doc uint32) (float64, bool) {
	for _, path := range paths {
		if n := c.nodes[path]; n != nil && n.field != nil {
			v, ok := n.field.numbers.get(doc)
			_, also := n.field.texts.get(doc)
			_, several := n.field.textLists.get(doc)
			if ok && !also && !several {
				return v, true
			}
		}
	}
	return 0, false
}

// appendTo appends the places of a document as they are kept.
func (g *geoField) appendTo(doc uint32, into []fleetquery.Place) []fleetquery.Place {
	if p, ok := g.places.get(doc); ok {
		return append(into, p)
	}
	list, _ := g.lists.get(doc)
	return append(into, list...)
}

// put keeps the places of a document that has none.
func (g *geoField) put(doc uint32, now []fleetquery.Place) {
	switch len(now) {
	case 0:
	case 1:
		g.places.set(doc, now[0])
	default:
		g.lists.set(doc, slices.Clone(now))
	}
}

// moved follows a change at a node that the field's places come from.
func (g *geoField) moved(c *corpus, from *node, doc uint32) {
	g.old, g.now = g.appendTo(doc, g.old[:0]), g.derive(c, doc, g.now[:0])
	if slices.Equal(g.old, g.now) {
		return
	}
	if n := c.nodes[g.path]; n != nil && c.watch != nil {
		c.watch.moved(n, from, doc, g.old, g.now)
	}
	for _, cell := range cellsOf(g.old) {
		g.cells.remove(cellEntry{cell, doc})
	}
	if len(g.old) == 1 {
		g.places.remove(doc)
	} else if len(g.old) > 1 {
		g.lists.remove(doc)
	}
	g.put(doc, g.now)
	for _, cell := range cellsOf(g.now) {
		g.cells.insert(cellEntry{cell, doc})
	}
}

// fillPlaces derives all places from the nodes, after a load.
func (c *corpus) fillPlaces() {
	for _, g := range c.geo {
		g.fill(c)
	}
}

// fill derives the places of all documents.
func (g *geoField) fill(c *corpus) {
	g.places, g.lists = column[fleetquery.Place]{}, column[[]fleetquery.Place]{}
	docs := roaring.New()
	for _, path := range g.sources() {
		if n := c.nodes[path]; n != nil && n.field != nil {
			docs.Or(n.field.exists)
		}
	}
	var entries []cellEntry
	for it := docs.Iterator(); it.HasNext(); {
		doc := it.Next()
		g.now = g.derive(c, doc, g.now[:0])
		g.put(doc, g.now)
		for _, cell := range cellsOf(g.now) {
			entries = append(entries, cellEntry{cell, doc})
		}
	}
	g.cells.fill(entries)
}

// cellOf returns the smallest cell around a place.
func cellOf(p fleetquery.Place) s2.CellID {
	return s2.CellIDFromLatLng(s2.LatLngFromDegrees(p.Lat, p.Lon))
}

// cellsOf returns the distinct cells of places.
func cellsOf(places []fleetquery.Place) []uint64 {
	cells := make([]uint64, len(places))
	for i, p := range places {
		cells[i] = uint64(cellOf(p))
	}
	slices.Sort(cells)
	return slices.Compact(cells)
}

// holds reports whether one of a document's places lies in the area.
func (g *geoField) holds(area fleetquery.Area, doc uint32) bool {
	if p, ok := g.places.get(doc); ok {
		return area.Contains(p)
	}
	list, _ := g.lists.get(doc)
	return slices.ContainsFunc(list, area.Contains)
}

// search returns the documents with a place in the area.
func (g *geoField) search(area fleetquery.Area) *roaring.Bitmap {
	s := geoSearch{field: g, area: area, inner: region(area, -geoMargin), outer: region(area, geoMargin)}
	for face := range 6 {
		s.collect(s2.CellIDFromFace(face))
	}
	return s.found.result()
}

// run returns the part of the list within a cell.
func (g *geoField) run(cell s2.CellID) (from, to cellPos) {
	return g.cells.seek(cellEntry{cell: uint64(cell.RangeMin())}), g.cells.seek(cellEntry{cell: uint64(cell.RangeMax()) + 1})
}

// geoSearch is one search for an area: cells that lie inside count as a whole,
// cells on the border are divided until they hold few places.
type geoSearch struct {
	field *geoField
	area  fleetquery.Area
	// inner is surely inside the area, outer surely around it.
	inner, outer s2.Region
	found        union
}

func (s *geoSearch) collect(id s2.CellID) {
	from, to := s.field.run(id)
	n := s.field.cells.between(from, to)
	switch {
	case n == 0:
		return
	case n <= fewPlaces:
		s.try(from, to)
		return
	}
	cell := s2.CellFromCellID(id)
	switch {
	case s.inner.ContainsCell(cell):
		s.field.cells.each(from, to, s.found.addDoc)
	case !s.outer.IntersectsCell(cell):
	case id.IsLeaf():
		s.try(from, to)
	default:
		for _, child := range id.Children() {
			s.collect(child)
		}
	}
}

// try tests the documents of a run one by one.
func (s *geoSearch) try(from, to cellPos) {
	s.field.cells.each(from, to, func(doc uint32) {
		if s.field.holds(s.area, doc) {
			s.found.addDoc(doc)
		}
	})
}

// region returns an area, made wider by a margin, in the form of S2.
func region(area fleetquery.Area, margin float64) s2.Region {
	switch a := area.(type) {
	case fleetquery.Circle:
		if a.Everywhere() {
			return s2.FullCap()
		}
		center := s2.PointFromLatLng(s2.LatLngFromDegrees(a.Center.Lat, a.Center.Lon))
		return s2.CapFromCenterAngle(center, s1.Angle(a.Meters/fleetquery.EarthRadius+margin))
	case fleetquery.Box:
		const degree = math.Pi / 180
		lat := r1.Interval{Lo: a.South * degree, Hi: a.North * degree}.Expanded(margin)
		lat = lat.Intersection(r1.Interval{Lo: -math.Pi / 2, Hi: math.Pi / 2})
		west := a.West
		if west == 180 && a.East < 180 {
			west = -180 // from 180 to -180 is no interval to S2
		}
		lon := s1.IntervalFromEndpoints(west*degree, a.East*degree).Expanded(margin)
		if lat.IsEmpty() || lon.IsEmpty() {
			return s2.EmptyRect()
		}
		return s2.Rect{Lat: lat, Lng: lon}
	}
	return s2.EmptyRect()
}

// geoAtoms are the tests of standing queries on the places of one field, by the
// cells that cover their areas.
type geoAtoms struct {
	byCell map[s2.CellID][]*atom
	// levels counts the entries of each level of cells.
	levels map[int]int
}

// add registers a test.
func (a *geoAtoms) add(at *atom) {
	if a.byCell == nil {
		a.byCell, a.levels = map[s2.CellID][]*atom{}, map[int]int{}
	}
	coverer := s2.RegionCoverer{MaxLevel: 30, MaxCells: standingCells}
	for _, cell := range coverer.Covering(region(at.test.area, geoMargin)) {
		a.byCell[cell] = append(a.byCell[cell], at)
		a.levels[cell.Level()]++
	}
}

// remove forgets the tests of a group.
func (a *geoAtoms) remove(group uint32) {
	for cell, list := range a.byCell {
		kept := slices.DeleteFunc(list, func(at *atom) bool { return at.group == group })
		if a.levels[cell.Level()] -= len(list) - len(kept); a.levels[cell.Level()] == 0 {
			delete(a.levels, cell.Level())
		}
		if len(kept) == 0 {
			delete(a.byCell, cell)
		} else {
			a.byCell[cell] = kept
		}
	}
}

// flips marks the groups whose test has another answer for now than for old:
// only tests around one of the places can.
func (a *geoAtoms) flips(old, now []fleetquery.Place, mark func(group uint32)) {
	if len(a.byCell) == 0 {
		return
	}
	for _, places := range [2][]fleetquery.Place{old, now} {
		for _, p := range places {
			leaf := cellOf(p)
			for level := range a.levels {
				for _, at := range a.byCell[leaf.Parent(level)] {
					contains := at.test.area.Contains
					if slices.ContainsFunc(old, contains) != slices.ContainsFunc(now, contains) {
						mark(at.group)
					}
				}
			}
		}
	}
}

// moved implements watcher.
func (s *standing) moved(n, from *node, doc uint32, old, now []fleetquery.Place) {
	if s.paused || n.atoms == nil {
		return
	}
	mark := func(group uint32) { s.marks = append(s.marks, mark{pair(doc, group), from}) }
	n.atoms.forDocument(doc, func(a *atoms) { a.geo.flips(old, now, mark) })
}

// areaText renders an area in the query language.
func areaText(area fleetquery.Area) string {
	switch a := area.(type) {
	case fleetquery.Circle:
		return "geo_distance," + formatNumber(a.Center.Lat) + "," + formatNumber(a.Center.Lon) + "," + formatNumber(a.Meters) + "m"
	case fleetquery.Box:
		return "geo_bounding_box," + formatNumber(a.North) + "," + formatNumber(a.West) + "," + formatNumber(a.South) + "," + formatNumber(a.East)
	}
	return ""
}

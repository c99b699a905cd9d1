package index

import (
	"slices"
	"strings"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
)

// Fields that are answered without being kept for each thing.
const (
	prefixViolations   = "deviceDefender"
	fieldViolations    = prefixViolations + ".violationCount"
	suffixInViolation  = ".inViolation"
	fieldConnClientID  = "connectivity.clientId"
	prefixConnectivity = "connectivity."
	prefixOwn          = "muster."
)

// deriveThing puts another test in the place of one on a field that is not kept
// for each thing.
func deriveThing(n fleetquery.Node) fleetquery.Node {
	field, _ := fieldOf(n)
	switch {
	case field == fieldConnClientID:
		return clientIDTest(n)
	case field == prefixViolations || strings.HasPrefix(field, prefixViolations+"."):
		return violationTest(n)
	}
	return n
}

// checkPlaces refuses a query that looks for places in a field that holds none
// by the configuration.
func checkPlaces(q fleetquery.Query, config *fleet.ThingIndexing) error {
	var refused error
	fleetquery.Walk(q.Root, func(n fleetquery.Node) {
		g, ok := n.(fleetquery.Geo)
		if !ok || refused != nil || slices.ContainsFunc(config.GeoLocations, func(l fleet.GeoLocation) bool { return l.Name == g.Field }) {
			return
		}
		refused = fault.New(fault.InvalidQuery,
			"Invalid query: field %s holds no places: the geoLocations of the indexing configuration do not list it, at character %d", g.Field, g.At)
	})
	return refused
}

// checkViolation refuses the one test on violations that is no query.
func checkViolation(n fleetquery.Node) (fleetquery.Node, error) {
	m, ok := n.(fleetquery.Match)
	if ok && strings.HasPrefix(m.Field, prefixViolations+".") && strings.HasSuffix(m.Field, suffixInViolation) && m.Word == "false" {
		return nil, fault.New(fault.InvalidQuery,
			"%s:false is no query, since only things in violation have the field; use NOT %s:true,", m.Field, m.Field)
	}
	return n, nil
}

// clientIDTest asks for the client id of a thing's connection. Only a client
// that is named like the thing counts for it, so it is the thing's name, once
// there was a connection.
func clientIDTest(n fleetquery.Node) fleetquery.Node {
	seen := fleetquery.Exists{Field: fieldConnTimestamp}
	if _, ok := n.(fleetquery.Exists); ok {
		return seen
	}
	return fleetquery.And{Nodes: []fleetquery.Node{withField(n, fieldThingName), seen}}
}

// violationTest decides a test on violations: no thing has one as long as
// nothing detects them, so every thing has a count of zero and no thing has any
// of the other fields.
func violationTest(n fleetquery.Node) fleetquery.Node {
	none := fleetquery.Document{Fields: map[string][]fleetquery.Value{fieldViolations: {fleetquery.Number(0)}}}
	if fleetquery.Eval(n, none) {
		return fleetquery.All{}
	}
	return fleetquery.Not{Node: fleetquery.All{}}
}

// withField returns a test for another field.
func withField(n fleetquery.Node, field string) fleetquery.Node {
	switch n := n.(type) {
	case fleetquery.Exists:
		n.Field = field
		return n
	case fleetquery.Match:
		n.Field = field
		return n
	case fleetquery.Phrase:
		n.Field = field
		return n
	case fleetquery.Wildcard:
		n.Field = field
		return n
	case fleetquery.NumberRange:
		n.Field = field
		return n
	case fleetquery.TextRange:
		n.Field = field
		return n
	case fleetquery.Geo:
		n.Field = field
		return n
	case fleetquery.And, fleetquery.Or, fleetquery.Not, fleetquery.All:
	}
	return n
}

// refusePlaces refuses areas in queries on groups, which have no places.
func refusePlaces(n fleetquery.Node) (fleetquery.Node, error) {
	if g, ok := n.(fleetquery.Geo); ok {
		return nil, fault.New(fault.InvalidQuery, "field %s holds no places: thing groups have none,", g.Field)
	}
	return n, nil
}

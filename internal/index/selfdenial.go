package index

import (
	"slices"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleetquery"
)

// CheckGroupQuery refuses a query that no members can have: one under which a
// thing leaves the group because it is in it. Several groups that deny each
// other in a ring are not found here; Stats.Unstable counts what comes of them.
func (x *Index) CheckGroupQuery(group, query string) error {
	q, err := x.ParseThings(query)
	if err != nil {
		return err
	}
	if part := denial(q.Root, fleetquery.Fold(group), false); part != nil {
		return fault.New(fault.InvalidQuery,
			"queryString: the query excludes the things of %s itself by NOT %s, so that a thing would leave the group by entering it", group, part.text())
	}
	return nil
}

// denial returns a test that holds for the members of a group by its name alone
// and stands under an odd number of negations; nil when there is none.
func denial(n fleetquery.Node, name string, negated bool) *plan {
	anyOf := func(nodes []fleetquery.Node) *plan {
		for _, kid := range nodes {
			if found := denial(kid, name, negated); found != nil {
				return found
			}
		}
		return nil
	}
	looks := func(field string) bool { return negated && (field == fieldGroups || field == "") }
	at := &node{path: fieldGroups}
	switch n := n.(type) {
	case fleetquery.And:
		return anyOf(n.Nodes)
	case fleetquery.Or:
		return anyOf(n.Nodes)
	case fleetquery.Not:
		return denial(n.Node, name, !negated)
	case fleetquery.Exists:
		if looks(n.Field) {
			return &plan{op: opExists, at: at}
		}
	case fleetquery.Match:
		if looks(n.Field) && n.Word == name {
			return &plan{op: opMatch, at: at, match: n}
		}
	case fleetquery.Wildcard:
		if looks(n.Field) && n.Pattern.Match(name) {
			return &plan{op: opWildcard, at: at, pattern: n.Pattern}
		}
	case fleetquery.TextRange:
		if looks(n.Field) && n.Contains(name) {
			return &plan{op: opTexts, at: at, texts: n}
		}
	case fleetquery.Phrase:
		if looks(n.Field) && slices.Equal(n.Words, fleetquery.Words(name)) {
			return &plan{op: opPhrase, at: at, phrase: n.Words}
		}
	case fleetquery.All, fleetquery.NumberRange, fleetquery.Geo:
	}
	return nil
}

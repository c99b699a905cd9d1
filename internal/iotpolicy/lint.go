package iotpolicy

import (
	"fmt"
	"strings"

	"github.com/muster-iot/muster/internal/fleet"
)

// Warning is about a statement that is valid and probably not meant so.
type Warning struct {
	// Statement counts from 0; Line and Column are where it begins.
	Statement, Line, Column int
	Text                    string
}

// Lint returns what the author of a document should know before attaching it
// in the given scope.
func (d *Document) Lint(scope fleet.Scope) []Warning {
	var all []Warning
	for i := range d.Statements {
		st := &d.Statements[i]
		warn := func(format string, args ...any) {
			all = append(all, Warning{Statement: i, Line: st.Line, Column: st.Column, Text: fmt.Sprintf(format, args...)})
		}
		for _, resource := range st.Resources {
			if foreign(resource, scope) {
				warn("the resource %q is in another region or account than %s and %s and matches nothing",
					clip(resource), scope.Region, scope.Account)
			}
		}
		for _, c := range st.conditions {
			if c.qualifier == forAll && st.Effect == Allow {
				warn("%s holds when %s is absent; add a Null condition to require it", c.name, c.key.name)
			}
		}
		if d.Version == Version2008 && strings.Contains(strings.Join(st.Resources, " "), "${") {
			warn("variables are plain text under version %s", Version2008)
		}
	}
	return all
}

// foreign reports whether an ARN can only be outside the scope.
func foreign(resource string, scope fleet.Scope) bool {
	parts := strings.SplitN(resource, ":", 6)
	if len(parts) < 6 || parts[0] != "arn" {
		return false
	}
	region, account := newPattern(encode(parts[3])), newPattern(encode(parts[4]))
	return !region.match(scope.Region) || !account.match(string(scope.Account))
}

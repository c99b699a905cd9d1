package iotpolicy

import "slices"

// Match names a statement that matched a request.
type Match struct {
	Policy    PolicyRef
	Statement int
	Sid       string
}

// Explanation is a decision with everything that took part in it.
type Explanation struct {
	Decision
	// Allows and Denies are the matching statements, in policy order.
	Allows []Match
	Denies []Match
	// Considered are all policies in force.
	Considered []PolicyRef
	// BoundaryDenied says that the policies allow the request and the
	// permission boundary does not.
	BoundaryDenied bool
	// Unresolved names every variable and key without a value that the
	// statements about the action refer to.
	Unresolved []string
}

// Explain answers like Decide and says why.
func (s *Set) Explain(action, resource string) Explanation {
	own := s.decide(action, resource)
	e := Explanation{Decision: s.Decide(action, resource), Considered: slices.Clone(s.policies)}
	e.BoundaryDenied = own.Outcome == Allowed && e.Outcome != Allowed
	b := s.bucket(action)
	e.Denies = s.matches(b.deny, resource)
	e.Allows = s.matches(b.allow, resource)
	e.Unresolved = slices.Clone(b.missing)
	return e
}

// matches lists the rules that match a resource.
func (s *Set) matches(rules []*rule, resource string) []Match {
	var found []Match
	for _, r := range rules {
		if r.matches(resource) {
			found = append(found, Match{Policy: s.policies[r.policy], Statement: r.index, Sid: r.statement.Sid})
		}
	}
	return found
}

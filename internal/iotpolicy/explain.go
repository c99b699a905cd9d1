package iotpolicy

import (
	"cmp"
	"slices"
	"strings"
)

// Bounds of an explanation, so that it can be kept.
const (
	maxNear      = 3
	maxVariables = 32
	maxValues    = 8
)

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
	// Near are the Allow statements about the action that come closest to the
	// request without allowing it, best first, three at most.
	Near []Near
	// Variables are the values, for this caller, of what the statements about
	// the action refer to, by name.
	Variables []VariableValue
	// Hint says that no statement is about the action though one is about the
	// resource; empty otherwise.
	Hint string
}

// VariableValue is a variable or condition key as one caller has it.
type VariableValue struct {
	Name string
	// Values is empty for one without a value.
	Values []string
}

// Near is an Allow statement that misses a request.
type Near struct {
	Match
	// Resource is the closest of the statement's resources as written, Resolved
	// the same for the caller; with Missing it is empty.
	Resource, Resolved string
	// ResourceMatches says that only Failed stands in the way.
	ResourceMatches bool
	// Excluded says that Resource is a NotResource that names the request's.
	Excluded bool
	// Missing are the variables of Resource without a value.
	Missing []string
	// Wants and Got are the parts in which Resolved and the request differ.
	Wants, Got string
	// Failed are the conditions that do not hold.
	Failed []FailedCondition
	// Hint says what is probably meant; empty when nothing stands out.
	Hint  string
	score float64
}

// FailedCondition is a condition that does not hold for a caller.
type FailedCondition struct {
	// Operator is as written, with prefix and suffix.
	Operator, Key string
	// Wanted are the policy's values as written, Actual the caller's.
	Wanted, Actual []string
}

// Explain answers like Decide and says why. ctx is what the set was compiled
// with; the time in it may have moved on.
func (s *Set) Explain(ctx *Context, action, resource string) Explanation {
	own := s.decide(action, resource)
	e := Explanation{Decision: s.Decide(action, resource), Considered: slices.Clone(s.policies)}
	e.BoundaryDenied = own.Outcome == Allowed && e.Outcome != Allowed
	b := s.bucket(action)
	e.Denies = s.matches(b.deny, resource)
	e.Allows = s.matches(b.allow, resource)
	e.Unresolved = slices.Clone(b.missing)
	asked := s
	if e.BoundaryDenied {
		asked = s.boundary
	}
	e.Variables = asked.variables(ctx, strings.ToLower(action))
	if e.Outcome == ImplicitDeny {
		e.Near, e.Hint = asked.near(ctx, action, resource)
	}
	return e
}

// matches lists the rules that match a resource.
func (s *Set) matches(rules []*rule, resource string) []Match {
	var found []Match
	for _, r := range rules {
		if r.matches(resource) {
			found = append(found, s.match(r.policy, r.index))
		}
	}
	return found
}

// match names a statement.
func (s *Set) match(policy, index int) Match {
	ref := s.policies[policy]
	return Match{Policy: ref, Statement: index, Sid: ref.Document.Statements[index].Sid}
}

// near finds the statements that come closest; the hint is for when there are
// none.
func (s *Set) near(ctx *Context, action, resource string) (found []Near, hint string) {
	name := strings.ToLower(action)
	for i := range s.policies {
		doc := s.policies[i].Document
		for j := range doc.Statements {
			st := &doc.Statements[j]
			switch {
			case st.Effect != Allow:
			case !st.covers(name):
				if hint == "" && len(st.Actions) > 0 && !st.NotAction && st.allows(ctx, resource) {
					hint = "no statement is about " + action + "; " + s.policies[i].Name + " allows " + brief(strings.Join(st.Actions, ", ")) + " on this resource"
				}
			default:
				n := st.near(ctx, resource, doc.Version)
				n.Match = s.match(i, j)
				found = append(found, n)
			}
		}
	}
	if len(found) > 0 {
		hint = ""
	}
	slices.SortStableFunc(found, func(a, b Near) int { return cmp.Compare(b.score, a.score) })
	return found[:min(len(found), maxNear)], hint
}

// allows reports whether the statement would match but for its actions; one
// about everything says nothing of the resource.
func (st *Statement) allows(ctx *Context, resource string) bool {
	if slices.Contains(st.Resources, "*") || st.NotResource {
		return false
	}
	n := st.near(ctx, resource, Version2012)
	return n.ResourceMatches && len(n.Failed) == 0
}

// near measures how far a statement is from a resource.
func (st *Statement) near(ctx *Context, resource, version string) Near {
	n := Near{score: -1}
	for i := range st.conditions {
		c := &st.conditions[i]
		if v := c.evaluate(ctx); !v.holds || v.widened {
			n.Failed = append(n.Failed, FailedCondition{
				Operator: c.name, Key: c.key.name, Wanted: c.written(), Actual: clipped(ctx.values(c.key)),
			})
		}
	}
	if st.NotResource {
		st.nearExcluded(ctx, resource, &n)
	} else {
		for i := range st.resources {
			st.resources[i].near(ctx, resource, version, &n)
		}
	}
	if n.ResourceMatches {
		n.score = 1
	}
	n.score -= 0.01 * float64(len(n.Failed))
	return n
}

// nearExcluded looks for the excluded resource that is in the way.
func (st *Statement) nearExcluded(ctx *Context, resource string, n *Near) {
	n.ResourceMatches = true
	for i := range st.resources {
		p, missing := st.resources[i].resolve(ctx)
		if missing == nil && !p.match(resource) {
			continue
		}
		n.ResourceMatches, n.Excluded, n.score = false, missing == nil, 0.5
		n.Resource, n.Missing = brief(st.resources[i].source), missing
		if missing == nil {
			n.Resolved = brief(decode(p.text))
			return
		}
	}
}

// near compares one resource of a statement and keeps the better answer.
func (t *template) near(ctx *Context, resource, version string, n *Near) {
	p, missing := t.resolve(ctx)
	if missing != nil {
		p = t.loose(ctx)
	}
	if p.match(resource) {
		if missing == nil {
			n.ResourceMatches = true
			n.Resource, n.Resolved, n.Missing, n.Wants, n.Got, n.Hint = brief(t.source), brief(decode(p.text)), nil, "", "", ""
			return
		}
	}
	score, wants, got := distance(p.text, resource)
	hint := t.hint(p.text, resource, version, wants, got)
	if hint != "" {
		score = 0.97 // it would match but for a usual mistake
	}
	if n.ResourceMatches || score <= n.score {
		return
	}
	n.score = score
	n.Resource, n.Missing, n.Resolved, n.Wants, n.Got = brief(t.source), missing, "", "", ""
	if missing == nil {
		n.Resolved, n.Wants, n.Got = brief(decode(p.text)), brief(wants), brief(got)
	}
	n.Hint = hint
}

// loose is the pattern with an asterisk for each variable without a value.
func (t *template) loose(ctx *Context) pattern {
	var b strings.Builder
	for _, p := range t.parts {
		text := p.literal
		if p.variable != nil {
			var ok bool
			if text, ok = ctx.substitute(*p.variable); !ok {
				text = anyRun
			}
		}
		b.WriteString(text)
	}
	return newPattern(b.String())
}

// hint names the usual mistakes.
func (t *template) hint(encoded, resource, version, wants, got string) string {
	wantKind, wantName, _ := strings.Cut(lastPart(encoded), "/")
	gotKind, gotName, _ := strings.Cut(lastPart(resource), "/")
	samePlace := prefixOf(encoded) == "" || newPattern(prefixOf(encoded)).match(prefixOf(resource))
	unshared, shared := cutShare(gotName)
	switch {
	case version == Version2008 && strings.Contains(t.source, "${"):
		return "variables are plain text under version " + Version2008 + "; the document needs Version " + Version2012
	case !samePlace && newPattern(lastPart(encoded)).match(lastPart(resource)):
		return "the resource is in another region or account"
	case samePlace && wantKind != gotKind && newPattern(wantName).match(gotName):
		return "the action is on " + gotKind + "/…, the statement names " + brief(decode(wantKind)) + "/…"
	case samePlace && shared && wantKind == gotKind && newPattern(wantName).match(unshared):
		return "a shared subscription is matched with its prefix: " + gotKind + "/$share/*/" + brief(decode(wantName))
	case samePlace && wantKind == gotKind && strings.ContainsAny(wantName, "+#") && newPattern(asFilter(wantName)).match(gotName):
		return "+ and # are plain characters in policies; * matches any run of characters"
	case wants != "" && strings.EqualFold(wants, got):
		return "they differ in case only, and case counts"
	}
	return ""
}

// lastPart is an ARN without what leads to its resource type.
func lastPart(arn string) string { return arn[len(prefixOf(arn)):] }

// prefixOf is what an ARN has before its resource type, with the colon.
func prefixOf(arn string) string {
	end := 0
	for range 5 {
		i := strings.IndexByte(arn[end:], ':')
		if i < 0 {
			return ""
		}
		end += i + 1
	}
	return arn[:end]
}

// cutShare takes the prefix of a shared subscription off a filter.
func cutShare(filter string) (rest string, shared bool) {
	if rest, shared = strings.CutPrefix(filter, "$share/"); !shared {
		return "", false
	}
	_, rest, shared = strings.Cut(rest, "/")
	return rest, shared
}

// asFilter reads the wildcards of MQTT as if they were those of policies.
func asFilter(encoded string) string {
	levels := strings.Split(encoded, "/")
	for i, level := range levels {
		if level == "+" || level == "#" {
			levels[i] = anyRun
		}
	}
	return strings.Join(levels, "/")
}

// distance compares a pattern and a resource level by level, from both ends,
// and returns the share of levels that agree and the parts that do not.
func distance(encoded, resource string) (score float64, wants, got string) {
	p, r := levelsOf(encoded), levelsOf(resource)
	least := min(len(p), len(r))
	head := 0
	for head < least && newPattern(p[head]).match(r[head]) {
		head++
	}
	tail := 0
	for tail < least-head && newPattern(p[len(p)-1-tail]).match(r[len(r)-1-tail]) {
		tail++
	}
	endP, endR := len(p)-tail, len(r)-tail
	if arnParts := 5; head < arnParts && least > arnParts {
		endP, endR = head+1, head+1 // region or account
	}
	wants = decode(strings.Join(p[head:endP], "/"))
	got = strings.Join(r[head:endR], "/")
	return float64(head+tail) / float64(max(len(p), len(r), 1)), wants, got
}

// levelsOf splits an ARN into its parts and the last of these into levels.
func levelsOf(arn string) []string {
	prefix := prefixOf(arn)
	var levels []string
	if prefix != "" {
		levels = strings.Split(prefix[:len(prefix)-1], ":")
	}
	return append(levels, strings.Split(arn[len(prefix):], "/")...)
}

// written returns the policy's values of a condition.
func (c *condition) written() []string {
	values := make([]string, 0, min(len(c.values), maxValues))
	for i := range c.values[:min(len(c.values), maxValues)] {
		values = append(values, brief(c.values[i].source))
	}
	return values
}

// clipped bounds the caller's values.
func clipped(values []string) []string {
	var out []string
	for _, v := range values[:min(len(values), maxValues)] {
		out = append(out, brief(v))
	}
	return out
}

// variables lists what the statements about an action in lower case refer to.
func (s *Set) variables(ctx *Context, name string) []VariableValue {
	found := map[string]variable{}
	note := func(t *template) {
		for _, p := range t.parts {
			if p.variable != nil {
				found[p.variable.name] = *p.variable
			}
		}
	}
	for i := range s.policies {
		statements := s.policies[i].Document.Statements
		for j := range statements {
			st := &statements[j]
			if !st.covers(name) {
				continue
			}
			for k := range st.resources {
				note(&st.resources[k])
			}
			for k := range st.conditions {
				found[st.conditions[k].key.name] = st.conditions[k].key
				for l := range st.conditions[k].values {
					note(&st.conditions[k].values[l])
				}
			}
		}
	}
	list := make([]VariableValue, 0, len(found))
	for name, v := range found {
		list = append(list, VariableValue{Name: name, Values: clipped(ctx.values(v))})
	}
	slices.SortFunc(list, func(a, b VariableValue) int { return strings.Compare(a.Name, b.Name) })
	return list[:min(len(list), maxVariables)]
}

// brief shortens text for an explanation.
func brief(text string) string {
	const limit = 256
	if len(text) <= limit {
		return text
	}
	runes := []rune(text)
	if len(runes) <= limit {
		return text
	}
	return string(runes[:limit]) + "…"
}

package iotpolicy

import (
	"slices"
	"strings"
	"time"
)

// Actions of the device data plane.
const (
	ActionConnect                 = "iot:Connect"
	ActionPublish                 = "iot:Publish"
	ActionRetainPublish           = "iot:RetainPublish"
	ActionSubscribe               = "iot:Subscribe"
	ActionReceive                 = "iot:Receive"
	ActionGetThingShadow          = "iot:GetThingShadow"
	ActionUpdateThingShadow       = "iot:UpdateThingShadow"
	ActionDeleteThingShadow       = "iot:DeleteThingShadow"
	ActionListNamedShadows        = "iot:ListNamedShadowsForThing"
	ActionGetRetainedMessage      = "iot:GetRetainedMessage"
	ActionListRetainedMessages    = "iot:ListRetainedMessages"
	ActionAssumeRoleByCertificate = "iot:AssumeRoleWithCertificate"
)

// Outcome is what a set of policies says about a request.
type Outcome uint8

// Outcomes. The zero value refuses.
const (
	// ImplicitDeny means that no statement allows the request.
	ImplicitDeny Outcome = iota
	// ExplicitDeny means that a Deny statement matches, whatever else does.
	ExplicitDeny
	// Allowed means that an Allow statement matches and no Deny does.
	Allowed
)

// String returns the outcome as the service writes it.
func (o Outcome) String() string {
	switch o {
	case ImplicitDeny:
		return "IMPLICIT_DENY"
	case ExplicitDeny:
		return "EXPLICIT_DENY"
	case Allowed:
		return "ALLOWED"
	}
	return "UNKNOWN"
}

// PolicyRef is a document under the name that it is attached by.
type PolicyRef struct {
	Name string
	ARN  string
	// Version is the document's version id. Neither it nor the attachments take
	// part in decisions: they are for explanations.
	Version     string
	Document    *Document
	Attachments []Attachment
}

// Attachment is why a policy applies to a caller.
type Attachment struct {
	// Target is the ARN of what the policy is attached to.
	Target string
	// Through is the caller's own group when Target is a group above it.
	Through string
}

// Decision is the answer about one request.
type Decision struct {
	Outcome Outcome
	// Policy and Statement name what decided; Policy is empty when nothing
	// matched. Statement counts from 0.
	Policy    string
	Statement int
	Sid       string
	// Missing names the variables and condition keys without which some
	// statement about the action could not match; set on ImplicitDeny only.
	// It is shared: do not change it.
	Missing []string
}

// Set is the policies of one connection, ready to decide. It is immutable and
// safe for concurrent use.
type Set struct {
	policies []PolicyRef
	rules    []rule
	hot      [hotActions]bucket
	until    time.Time
	boundary *Set
}

// rule is a statement resolved for one connection.
type rule struct {
	statement *Statement
	policy    int
	index     int
	// live is false when a condition fails; only missing matters then.
	live     bool
	patterns []pattern
	missing  []string
}

// bucket holds the live rules about one action.
type bucket struct {
	deny, allow []*rule
	// fixed is the rule that decides for every resource, if there is one.
	fixed   *rule
	missing []string
}

// hotActions is the number of actions checked on packets.
const hotActions = 5

// hotAction numbers the actions that have a bucket of their own.
func hotAction(action string) (int, bool) {
	switch action {
	case ActionConnect:
		return 0, true
	case ActionPublish:
		return 1, true
	case ActionRetainPublish:
		return 2, true
	case ActionSubscribe:
		return 3, true
	case ActionReceive:
		return 4, true
	}
	return 0, false
}

// Compile resolves policies for one caller.
func Compile(policies []PolicyRef, ctx *Context) *Set {
	s := &Set{policies: slices.Clone(policies)}
	for i := range policies {
		statements := policies[i].Document.Statements
		for j := range statements {
			s.add(i, j, &statements[j], ctx)
		}
	}
	for _, action := range []string{ActionConnect, ActionPublish, ActionRetainPublish, ActionSubscribe, ActionReceive} {
		n, _ := hotAction(action)
		s.hot[n] = s.bucket(action)
	}
	return s
}

// Within returns a set that allows only what both s and the boundary allow.
// The boundary is a permission boundary: it grants nothing by itself.
func (s *Set) Within(boundary *Set) *Set {
	bounded := *s
	bounded.boundary = boundary
	bounded.until = earlier(s.until, boundary.until)
	return &bounded
}

// ValidUntil is when a condition on the clock may turn and the set must be
// compiled anew; zero when that never happens.
func (s *Set) ValidUntil() time.Time { return s.until }

// Policies returns the policies that the set was compiled from, in order.
func (s *Set) Policies() []PolicyRef { return slices.Clone(s.policies) }

// add resolves one statement.
func (s *Set) add(policy, index int, statement *Statement, ctx *Context) {
	r := rule{statement: statement, policy: policy, index: index, live: true}
	widened := false
	for i := range statement.conditions {
		v := statement.conditions[i].evaluate(ctx)
		r.live = r.live && v.holds
		r.missing = append(r.missing, v.missing...)
		widened = widened || v.widened
		s.until = earlier(s.until, v.until)
	}
	for i := range statement.resources {
		p, missing := statement.resources[i].resolve(ctx)
		if missing != nil {
			r.missing = append(r.missing, missing...)
			widened = widened || statement.NotResource
			continue
		}
		r.patterns = append(r.patterns, p)
	}
	if widened && statement.Effect == Allow {
		r.live = false
	}
	if r.live || len(r.missing) > 0 {
		s.rules = append(s.rules, r)
	}
}

// bucket collects the rules about one action.
func (s *Set) bucket(action string) bucket {
	var b bucket
	name := strings.ToLower(action)
	for i := range s.rules {
		r := &s.rules[i]
		if !r.statement.covers(name) {
			continue
		}
		if r.statement.Effect == Allow {
			b.missing = append(b.missing, r.missing...)
		}
		switch {
		case !r.live:
		case r.statement.Effect == Deny:
			b.deny = append(b.deny, r)
		default:
			b.allow = append(b.allow, r)
		}
	}
	slices.Sort(b.missing)
	b.missing = slices.Compact(b.missing)
	b.fixed = b.decisive()
	return b
}

// decisive finds the rule that makes the resource irrelevant.
func (b *bucket) decisive() *rule {
	candidates := b.deny
	if len(b.deny) == 0 {
		candidates = b.allow
	}
	for _, r := range candidates {
		if r.coversEverything() {
			return r
		}
	}
	return nil
}

// covers reports whether the statement is about an action in lower case.
func (st *Statement) covers(action string) bool {
	for i := range st.actions {
		if st.actions[i].match(action) {
			return !st.NotAction
		}
	}
	return st.NotAction
}

// matches reports whether the rule is about a resource.
func (r *rule) matches(resource string) bool {
	for i := range r.patterns {
		if r.patterns[i].match(resource) {
			return !r.statement.NotResource
		}
	}
	return r.statement.NotResource
}

// coversEverything reports whether the rule is about any resource.
func (r *rule) coversEverything() bool {
	if r.statement.NotResource {
		return false
	}
	return slices.ContainsFunc(r.patterns, func(p pattern) bool { return p.kind == kindEverything })
}

// Decide answers whether the action on the resource is allowed. The resource
// is a whole ARN, or an asterisk for actions without one. It does not allocate
// for the five actions of packets.
func (s *Set) Decide(action, resource string) Decision {
	d := s.decide(action, resource)
	if d.Outcome != Allowed || s.boundary == nil {
		return d
	}
	if limit := s.boundary.Decide(action, resource); limit.Outcome != Allowed {
		return limit
	}
	return d
}

// decide answers without regard to the boundary.
func (s *Set) decide(action, resource string) Decision {
	n, hot := hotAction(action)
	if hot {
		return s.decideIn(&s.hot[n], resource)
	}
	b := s.bucket(action)
	return s.decideIn(&b, resource)
}

// decideIn answers from the rules about the action.
func (s *Set) decideIn(b *bucket, resource string) Decision {
	if b.fixed != nil {
		return s.decision(b.fixed)
	}
	for _, r := range b.deny {
		if r.matches(resource) {
			return s.decision(r)
		}
	}
	for _, r := range b.allow {
		if r.matches(resource) {
			return s.decision(r)
		}
	}
	return Decision{Missing: b.missing}
}

// decision is the answer of the rule that matched.
func (s *Set) decision(r *rule) Decision {
	outcome := Allowed
	if r.statement.Effect == Deny {
		outcome = ExplicitDeny
	}
	return Decision{Outcome: outcome, Policy: s.policies[r.policy].Name, Statement: r.index, Sid: r.statement.Sid}
}

// Share is what one policy of a set says about a request.
type Share struct{ Allows, Denies bool }

// ByPolicy tells for each policy, in the order of Policies, whether a statement
// of it matches the request. The boundary has no part in it. It serves
// explanations: packets are decided by Decide.
func (s *Set) ByPolicy(action, resource string) []Share {
	shares := make([]Share, len(s.policies))
	name := strings.ToLower(action)
	for i := range s.rules {
		r := &s.rules[i]
		if !r.live || !r.statement.covers(name) || !r.matches(resource) {
			continue
		}
		if r.statement.Effect == Deny {
			shares[r.policy].Denies = true
		} else {
			shares[r.policy].Allows = true
		}
	}
	return shares
}

// Fixed returns the outcome for an action when it is the same for every
// resource, so that the caller need not name one.
func (s *Set) Fixed(action string) (Outcome, bool) {
	n, hot := hotAction(action)
	if !hot {
		return ImplicitDeny, false
	}
	b := &s.hot[n]
	if b.fixed == nil {
		return ImplicitDeny, len(b.deny) == 0 && len(b.allow) == 0
	}
	outcome := s.decision(b.fixed).Outcome
	if outcome != Allowed || s.boundary == nil {
		return outcome, true
	}
	return s.boundary.Fixed(action)
}

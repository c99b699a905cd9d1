package deviceauth

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// identityProblem is which check refused a caller before policies were asked.
type identityProblem string

// Checks of a caller's identity.
const (
	problemServerName   identityProblem = "server name"
	problemAbsent       identityProblem = "no certificate"
	problemUnregistered identityProblem = "not registered"
	problemStatus       identityProblem = "status"
	problemNotYetValid  identityProblem = "not yet valid"
	problemExpired      identityProblem = "expired"
	problemCustom       identityProblem = "custom authorizer"
	problemNameless     identityProblem = "no endpoint name"
	problemNetwork      identityProblem = "source network"
	problemWill         identityProblem = "will"
	problemTaken        identityProblem = "client id in use"
)

// identityError is the cause of a fault.Unauthorized that names the check.
type identityError struct {
	problem identityProblem
	cause   error
}

// Error returns the check, and what lies behind it.
func (e *identityError) Error() string {
	if e.cause != nil {
		return e.cause.Error()
	}
	return string(e.problem)
}

// Unwrap returns what lies behind.
func (e *identityError) Unwrap() error { return e.cause }

// problemOf returns the check that refused; empty when none did.
func problemOf(err error) identityProblem {
	if found := (*identityError)(nil); errors.As(err, &found) {
		return found.problem
	}
	return ""
}

// Bounds of an explanation.
const (
	maxPolicies   = 64
	maxHints      = 8
	maxStatements = 8
)

// explain tells why the subject may do something or not, and what would change
// that.
func (s *Service) explain(sub *subject, q request) Explanation {
	ctx := policyContext(sub.id, sub.by, sub.thing, sub.id.certificate, s.now())
	found := sub.set.Explain(ctx, q.action, q.resource)
	e := Explanation{
		Action: q.action, Resource: brief(q.resource), Name: brief(nameIn(q.resource)), Outcome: found.Outcome.String(),
		DeniedBy: statements(found.Denies), AllowedBy: statements(found.Allows), Policies: policiesInForce(found.Considered),
	}
	if sub.thing != nil {
		e.Thing = sub.thing.Name
	}
	for i := range found.Near {
		e.Nearest = append(e.Nearest, nearMiss(&found.Near[i]))
	}
	for _, v := range found.Variables {
		e.Variables = append(e.Variables, Variable{Name: v.Name, Values: nonNil(v.Values)})
	}
	if sub.refusal != "" {
		e.Outcome = OutcomeUnauthenticated
		e.Reason = sub.refusal
		e.Fixes = identityFixes(sub.problem, sub.id)
		return e
	}
	e.Reason = reason(&e, &found)
	e.Hints = s.hints(sub, q, &found)
	if found.Outcome != iotpolicy.Allowed && len(e.DeniedBy) == 0 && sub.bounds.refuses(q) {
		e.Reason = "the boundary " + sub.bounds.name() + " refuses it: " + sub.bounds.says()
		e.Fixes = []Fix{sub.bounds.fix(sub.id)}
		return e
	}
	if found.Outcome != iotpolicy.Allowed {
		e.Fixes = policyFixes(sub, q, &e, &found)
	}
	return e
}

// explainIdentity tells why a caller was refused before policies were asked.
func (s *Service) explainIdentity(sub *subject, q request, err error) Explanation {
	e := Explanation{
		Action: q.action, Resource: brief(q.resource), Name: brief(nameIn(q.resource)), Outcome: OutcomeUnauthenticated,
		Reason: brief(fault.From(err).Message),
	}
	if fault.CodeOf(err) != fault.Unauthorized {
		e.Outcome = OutcomeUnavailable
		e.Fixes = []Fix{{Text: "Look at the store, or at the function of the custom authorizer: the server's log has the error. The device may try again."}}
		return e
	}
	e.Fixes = identityFixes(problemOf(err), sub.id)
	return e
}

// reason is the decision in one sentence.
func reason(e *Explanation, found *iotpolicy.Explanation) string {
	switch {
	case len(e.DeniedBy) > 0:
		return named(e.DeniedBy[0]) + " denies it"
	case found.Outcome == iotpolicy.Allowed && len(e.AllowedBy) > 0:
		return named(e.AllowedBy[0]) + " allows it"
	case len(e.Policies) == 0:
		return "no policy applies to the device"
	}
	return "no statement allows it"
}

// named is a statement as people name it.
func named(st Statement) string {
	text := "statement " + strconv.Itoa(st.Index)
	if st.Sid != "" {
		text += " (" + st.Sid + ")"
	}
	text += " of policy " + st.Policy
	if st.Version != "" {
		text += " version " + st.Version
	}
	return text
}

// hints names what is odd about the request and the policies.
func (s *Service) hints(sub *subject, q request, found *iotpolicy.Explanation) []string {
	var hints []string
	if found.Outcome == iotpolicy.Allowed {
		return nil
	}
	if found.Hint != "" {
		hints = append(hints, found.Hint)
	}
	if ofThing(found.Unresolved) {
		switch {
		case q.packet == PacketCall:
			hints = append(hints, "calls over HTTPS are no connection: the client id and the variables of its thing have no value, and policies of groups do not apply")
		case sub.id.Principal.Kind == fleet.PrincipalCustom:
			hints = append(hints, "nothing can be attached to the principal of a custom authorizer, so the variables of the connection's thing have no value")
		case sub.thing == nil:
			hints = append(hints, "the certificate is attached to no thing named like the client id, so the variables of the connection's thing have no value and policies of groups do not apply")
		}
	}
	for _, p := range found.Considered {
		for _, f := range s.ineffective(p.Document, sub.id.Account) {
			if len(hints) < maxHints {
				hints = append(hints, p.Name+" statement "+strconv.Itoa(f.Statement)+": "+brief(f.Text))
			}
		}
	}
	return hints
}

// ofThing reports whether a variable of a connection is among the names.
func ofThing(names []string) bool {
	for _, name := range names {
		if strings.HasPrefix(name, "iot:Connection.Thing.") || name == "iot:ClientId" {
			return true
		}
	}
	return false
}

// policyFixes says what would allow a request.
func policyFixes(sub *subject, q request, e *Explanation, found *iotpolicy.Explanation) []Fix {
	if found.Outcome == iotpolicy.ExplicitDeny {
		return denyFixes(e)
	}
	var fixes []Fix
	if sub.thing == nil && q.packet != PacketCall && sub.id.Principal.ARN != "" && needsThing(e) && fleet.ValidName(sub.by.clientID) {
		fixes = append(fixes, Fix{
			Text:    "Attach the certificate to the thing " + sub.by.clientID + ", which must exist.",
			Command: "aws iot attach-thing-principal --thing-name " + sub.by.clientID + " --principal " + sub.id.Principal.ARN,
		})
	}
	if len(e.Nearest) > 0 {
		if fix, ok := nearFix(&e.Nearest[0]); ok {
			fixes = append(fixes, fix)
		}
	}
	allow := Fix{Text: "Allow it in a policy in force.", Statement: minimalStatement(sub, q)}
	if sub.id.Principal.Kind == fleet.PrincipalCustom {
		allow.Text = "Let the custom authorizer answer a policy that allows it."
	} else if len(e.Policies) == 0 {
		allow.Text = "Attach a policy that allows it to the certificate."
		if sub.id.Principal.ARN != "" {
			allow.Command = "aws iot attach-policy --policy-name POLICY --target " + sub.id.Principal.ARN
		}
	}
	return append(fixes, allow)
}

// needsThing reports whether the nearest statement waits for the connection's
// thing.
func needsThing(e *Explanation) bool {
	for i := range e.Nearest {
		n := &e.Nearest[i]
		if ofThing(n.Missing) {
			return true
		}
		for _, c := range n.Conditions {
			if strings.HasPrefix(c.Key, "iot:Connection.Thing.") {
				return true
			}
		}
	}
	return false
}

// nearFix says what the nearest statement lacks.
func nearFix(n *NearMiss) (Fix, bool) {
	switch {
	case len(n.Conditions) > 0 && n.ResourceMatches:
		c := n.Conditions[0]
		return Fix{Text: "Or meet the condition of " + named(n.Statement) + ": " + c.Operator + " " + c.Key + " must have " +
			listed(c.Wanted) + " and has " + listed(c.Actual) + "."}, true
	case n.Hint != "":
		return Fix{Text: "Correct " + named(n.Statement) + ": " + n.Hint + "."}, true
	case n.Excluded:
		return Fix{Text: "Take " + n.Resource + " out of NotResource in " + named(n.Statement) + "."}, true
	case len(n.Missing) > 0:
		return Fix{Text: "Give " + listed(n.Missing) + " a value; " + named(n.Statement) + " needs it."}, true
	}
	return Fix{}, false
}

// listed writes values one after the other.
func listed(values []string) string {
	if len(values) == 0 {
		return "no value"
	}
	return strings.Join(values, ", ")
}

// denyFixes says where a denial can be lifted.
func denyFixes(e *Explanation) []Fix {
	fixes := make([]Fix, 0, len(e.DeniedBy))
	for _, st := range e.DeniedBy {
		fix := Fix{Text: "Change " + named(st) + "; a Deny wins over every Allow."}
		for _, p := range e.Policies {
			if p.Name == st.Policy && len(p.From) > 0 {
				fix.Text = "Change " + named(st) + ", or detach the policy from " + p.From[0].String() + "; a Deny wins over every Allow."
			}
		}
		fixes = append(fixes, fix)
	}
	return fixes
}

// String is a source as people name it.
func (s Source) String() string {
	text := s.Kind + " " + s.Name
	if s.Kind == sourceCertificate {
		text = "the " + s.Kind
	}
	if s.Through != "" {
		text += ", above " + s.Through
	}
	return text
}

// minimalStatement is the narrowest statement that allows a request. The thing's
// name gives way to its variable, so that a policy of many devices can have it.
func minimalStatement(sub *subject, q request) string {
	scope, ok := fleet.ParseARN(q.resource)
	resource := q.resource
	if ok {
		const variable = "${iot:Connection.Thing.ThingName}"
		levels := strings.Split(scope.Name, "/")
		for i := range levels {
			if sub.thing != nil && levels[i] == sub.thing.Name {
				levels[i] = variable
			} else {
				levels[i] = literal(levels[i])
			}
		}
		resource = scope.ARN(scope.Kind, strings.Join(levels, "/"))
	}
	statement, err := json.Marshal(struct {
		Effect   string `json:"Effect"`
		Action   string `json:"Action"`
		Resource string `json:"Resource"`
	}{string(iotpolicy.Allow), q.action, brief(resource)})
	if err != nil {
		return ""
	}
	return string(statement)
}

// literal writes a text so that a policy of version 2012-10-17 takes it as it
// is.
func literal(text string) string {
	return strings.NewReplacer("${", "${$}{", "*", "${*}", "?", "${?}").Replace(text)
}

// identityFixes says what would make a certificate acceptable.
func identityFixes(problem identityProblem, id *Identity) []Fix {
	certificate := id.Principal.ID
	switch problem {
	case problemServerName:
		return []Fix{{Text: "Let the device connect to one of the server's own names; it asked for " + strconv.Quote(brief(id.ServerName)) + "."}}
	case problemNameless:
		return []Fix{{
			Text: "Let the device connect by name (SNI) to its account's endpoint, or to a name of the setting tls-name; it asked for " +
				strconv.Quote(brief(id.ServerName)) + ".",
			Command: "aws iot describe-endpoint --endpoint-type iot:Data-ATS",
		}}
	case problemAbsent:
		return []Fix{{Text: "Give the device its certificate and key: it presented none."}}
	case problemUnregistered:
		return []Fix{{
			Text:    "Register the certificate " + certificate + " and attach a policy, or give the device the one that is registered for it.",
			Command: "aws iot register-certificate-without-ca --certificate-pem file://device.pem --status ACTIVE",
		}}
	case problemStatus:
		return []Fix{{
			Text:    "Activate the certificate, unless it left that state on purpose.",
			Command: "aws iot update-certificate --certificate-id " + certificate + " --new-status " + StatusActive,
		}}
	case problemNotYetValid:
		return []Fix{{Text: "Compare the server's clock with the certificate's beginning; wait, or issue another certificate."}}
	case problemCustom:
		return []Fix{{
			Text:    "Give the device a certificate, or credentials that a custom authorizer accepts.",
			Command: "aws iot test-invoke-authorizer --authorizer-name NAME",
		}}
	case problemNetwork:
		return []Fix{{
			Text:    "Let the device connect from a network of its certificate, or give the certificate others.",
			Command: "muster certificates purpose " + certificate,
		}}
	case problemWill:
		return []Fix{{Text: "Let the device connect without a will as long as it is not provisioned."}}
	case problemTaken:
		return []Fix{{Text: "Give the device another client id while it is provisioned, or wait until the connection of the other certificate has ended."}}
	case problemExpired:
		return []Fix{{Text: "Issue a new certificate to the device; compare the server's clock if it should be valid."}}
	}
	return nil
}

// statements names matches.
func statements(matches []iotpolicy.Match) []Statement {
	var out []Statement
	for _, m := range matches[:min(len(matches), maxStatements)] {
		out = append(out, statementOf(m))
	}
	return out
}

func statementOf(m iotpolicy.Match) Statement {
	return Statement{Policy: m.Policy.Name, Version: m.Policy.Version, Index: m.Statement, Sid: brief(m.Sid)}
}

// nearMiss copies what the language says.
func nearMiss(n *iotpolicy.Near) NearMiss {
	out := NearMiss{
		Statement: statementOf(n.Match), Resource: n.Resource, Resolved: n.Resolved, ResourceMatches: n.ResourceMatches,
		Excluded: n.Excluded, Missing: n.Missing, Wants: n.Wants, Got: n.Got, Hint: n.Hint,
	}
	for _, c := range n.Failed[:min(len(n.Failed), maxStatements)] {
		out.Conditions = append(out.Conditions, Condition{Operator: c.Operator, Key: c.Key, Wanted: nonNil(c.Wanted), Actual: nonNil(c.Actual)})
	}
	return out
}

// Kinds of sources.
const (
	sourceCertificate = "certificate"
	sourceGroup       = "group"
)

// policiesInForce lists policies with where they come from.
func policiesInForce(refs []iotpolicy.PolicyRef) []PolicyInForce {
	out := make([]PolicyInForce, 0, min(len(refs), maxPolicies))
	for i := range refs[:min(len(refs), maxPolicies)] {
		p := PolicyInForce{Name: refs[i].Name, Version: refs[i].Version}
		for _, a := range refs[i].Attachments[:min(len(refs[i].Attachments), maxStatements)] {
			source := Source{Kind: a.Target, Through: a.Through}
			if arn, ok := fleet.ParseARN(a.Target); ok {
				source.Kind, source.Name = sourceGroup, arn.Name
				if arn.Kind == fleet.ARNCertificate {
					source.Kind = sourceCertificate
				}
			}
			p.From = append(p.From, source)
		}
		out = append(out, p)
	}
	return out
}

// nameIn is what an ARN of ours says behind its type; other texts are their own.
func nameIn(resource string) string {
	if arn, ok := fleet.ParseARN(resource); ok {
		return arn.Name
	}
	return resource
}

// nonNil makes an absent list an empty one for JSON.
func nonNil(values []string) []string {
	if values == nil {
		return []string{}
	}
	return values
}

package iotpolicy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
)

// Severity says how sure a finding is of itself.
type Severity uint8

const (
	// Info is worth knowing: the document is right if it was meant so.
	Info Severity = iota
	// Warning is a statement that grants more, or does less, than its author
	// probably meant.
	Warning
	// Error is a part of a document that can have no effect, or not the one that
	// it says.
	Error
)

// String returns the severity in lower case.
func (s Severity) String() string {
	switch s {
	case Info:
		return "info"
	case Warning:
		return "warning"
	case Error:
		return "error"
	}
	return "unknown"
}

// Codes of findings. They are part of the interface: tools filter by them.
const (
	CodeMalformed        = "malformed"
	CodeForeignScope     = "foreign-scope"
	CodeNoIoTResource    = "no-iot-resource"
	CodeUnknownAction    = "unknown-action"
	CodeMismatch         = "action-resource-mismatch"
	CodeVariablesOff     = "variables-off"
	CodeNoConnection     = "no-connection-over-https"
	CodeMQTTWildcard     = "mqtt-wildcard-in-topic"
	CodeNeverTrue        = "condition-never-true"
	CodeExpired          = "condition-expired"
	CodeNeverAllows      = "never-allows"
	CodeAllowEverything  = "allow-everything"
	CodeAnyClientID      = "any-client-id"
	CodeSpoofableClient  = "spoofable-client-id"
	CodeForeignCAField   = "foreign-ca-field"
	CodeReachesOthers    = "reaches-other-devices"
	CodeOpenEndedName    = "open-ended-name"
	CodeDenySubscribe    = "deny-subscribe-alone"
	CodeMissingReceive   = "missing-receive"
	CodeVacuous          = "vacuous-for-all-values"
	CodeNotAttached      = "not-attached-allowed"
	CodeEqualsWildcard   = "wildcard-is-literal"
	CodeAllowNotAction   = "allow-not-action"
	CodeAllowNotResource = "allow-not-resource"
	CodeRetainAlone      = "retain-without-publish"
	CodeConnectOnly      = "connect-only"
	CodeNoConnect        = "no-connect"
	CodeAbsentKey        = "absent-key-holds"
	CodeHTTPOnly         = "http-only-action"
)

// Finding is about a part of a document that is valid and probably not meant
// so.
type Finding struct {
	Code     string
	Severity Severity
	// Statement counts from 0 and is negative when no statement is meant; Sid is
	// its label.
	Statement int
	Sid       string
	// Place is that of the part in question.
	Place
	// Text says what is wrong and what to do.
	Text string
}

// maxFindings bounds what one document is told about.
const maxFindings = 100

// LintOptions are where and when a document would be in force.
type LintOptions struct {
	Scope fleet.Scope
	// Now finds dates that are over; the zero value finds none.
	Now time.Time
}

// Lint returns what the author of a document should know before attaching it,
// in the order of the document.
func (d *Document) Lint(o LintOptions) []Finding {
	l := &linter{doc: d, o: o, shapes: make([][]shape, len(d.Statements))}
	for i := range d.Statements {
		for _, resource := range d.Statements[i].Resources {
			l.shapes[i] = append(l.shapes[i], shapeOf(resource, o.Scope))
		}
	}
	for i := range d.Statements {
		l.index, l.st = i, &d.Statements[i]
		l.actions()
		l.resources()
		l.conditions()
		l.grants()
		l.effects()
	}
	slices.SortStableFunc(l.found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return l.found
}

// linter walks one document.
type linter struct {
	doc *Document
	o   LintOptions
	// shapes are the resources of each statement, taken apart.
	shapes [][]shape
	// index and st are the statement at hand.
	index int
	st    *Statement
	found []Finding
}

// tell adds a finding.
func (l *linter) tell(code string, severity Severity, at Place, format string, args ...any) {
	if len(l.found) < maxFindings {
		l.found = append(l.found, Finding{
			Code: code, Severity: severity, Statement: l.index, Sid: l.st.Sid, Place: at, Text: fmt.Sprintf(format, args...),
		})
	}
}

// ruled returns the statements with the effect that are about an action, by
// index.
func (l *linter) ruled(effect Effect, action string) []int {
	var found []int
	for i := range l.doc.Statements {
		if st := &l.doc.Statements[i]; st.Effect == effect && st.covers(strings.ToLower(action)) {
			found = append(found, i)
		}
	}
	return found
}

// about reports whether the statement at hand is about an action.
func (l *linter) about(action string) bool { return l.st.covers(strings.ToLower(action)) }

// resourcePlace is where a resource of the statement at hand stands.
func (l *linter) resourcePlace(i int) Place { return l.st.resourcePlaces[i] }

// everything reports whether the statement at hand is about every resource.
func (l *linter) everything() bool {
	return !l.st.NotResource && slices.ContainsFunc(l.shapes[l.index], func(s shape) bool { return s.everything })
}

// shape is a resource of a policy, taken apart as a text: variables stand as
// they are written.
type shape struct {
	source string
	// everything matches any ARN.
	everything bool
	// incomplete texts have fewer parts than an ARN and no wildcard to stand for
	// them; other marks a service or partition that is not ours, foreign a region
	// or an account.
	incomplete, other, foreign bool
	// rest is what follows the account, name what follows the kind in it.
	rest, name string
}

// shapeOf takes a resource apart.
func shapeOf(source string, scope fleet.Scope) shape {
	s := shape{source: source}
	if strings.Trim(source, "*") == "" {
		s.everything = true
		return s
	}
	parts := strings.SplitN(source, ":", 6)
	if len(parts) < 6 {
		s.everything = strings.HasSuffix(source, "*")
		s.incomplete = !strings.ContainsAny(source, "*?")
		return s
	}
	is := func(part, want string) bool { return newPattern(encode(part)).match(want) }
	s.other = !is(parts[0], "arn") || !is(parts[1], fleet.Partition) || !is(parts[2], "iot")
	s.foreign = !is(parts[3], scope.Region) || !is(parts[4], string(scope.Account))
	s.rest = parts[5]
	_, s.name, _ = strings.Cut(s.rest, "/")
	s.everything = !s.other && !s.foreign && strings.Trim(s.rest, "*") == ""
	return s
}

// mayBe reports whether the resource can be of a kind.
func (s *shape) mayBe(kind string) bool {
	if s.everything || s.rest == "" {
		return !s.incomplete
	}
	start, _ := literalStart(s.rest)
	want := kind + "/"
	return strings.HasPrefix(start, want) || strings.HasPrefix(want, start)
}

// is reports whether the kind is written out.
func (s *shape) is(kind string) bool { return strings.HasPrefix(s.rest, kind+"/") }

// literalStart is a text up to its first wildcard or variable, and whether that
// is all of it.
func literalStart(text string) (start string, whole bool) {
	end := len(text)
	if i := strings.IndexAny(text, "*?"); i >= 0 {
		end = i
	}
	if i := strings.Index(text, "${"); i >= 0 && i < end {
		end = i
	}
	return text[:end], end == len(text)
}

package provtemplate

import (
	"fmt"
	"strings"
)

// Rule names the rule of the grammar that a body breaks. Its text is stable.
type Rule string

// Rules.
const (
	// RuleSize is a body, a text or a number of things over its limit.
	RuleSize Rule = "size"
	// RuleSyntax is a body that is not JSON in UTF-8.
	RuleSyntax Rule = "syntax"
	// RuleDepth is nesting over the limit.
	RuleDepth Rule = "depth"
	// RuleDuplicate is a member that comes twice, or a second resource of a
	// type that a template has once.
	RuleDuplicate Rule = "duplicate"
	// RuleUnknown is a member, type, function or setting that the grammar does
	// not have.
	RuleUnknown Rule = "unknown"
	// RuleMissing is something that must be there.
	RuleMissing Rule = "missing"
	// RuleExclusive is two things of which a template may have one.
	RuleExclusive Rule = "exclusive"
	// RuleType is a value of another type than its place takes.
	RuleType Rule = "type"
	// RuleReference is a name that is not declared.
	RuleReference Rule = "reference"
	// RuleFunction is a function with arguments that it does not take.
	RuleFunction Rule = "function"
	// RuleValue is a literal that its place does not allow.
	RuleValue Rule = "value"
	// RuleKind is something that another kind of template may have.
	RuleKind Rule = "kind"
)

// SyntaxError says what is wrong with a body and where.
type SyntaxError struct {
	// Offset counts bytes from 0; Line and Column, in characters, from 1.
	Offset, Line, Column int
	// Pointer is the JSON pointer of the value or member, "" for the whole.
	Pointer string
	Rule    Rule
	// Problem is safe for callers.
	Problem string
}

// Error returns the place and the problem.
func (e *SyntaxError) Error() string {
	if e.Pointer == "" {
		return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Problem)
	}
	return fmt.Sprintf("line %d, column %d, %s: %s", e.Line, e.Column, e.Pointer, e.Problem)
}

// EvaluationError says why a template cannot be resolved with the parameters
// of one device. It never repeats their values.
type EvaluationError struct {
	// Pointer is the JSON pointer of what could not be resolved; "" when the
	// parameter itself is at fault.
	Pointer string
	// Parameter is the parameter at fault, if one is.
	Parameter string
	// Function is the function that failed, if one did.
	Function string
	// Problem is safe for callers.
	Problem string
}

// Error names the parameter, function and place at fault, and the problem.
func (e *EvaluationError) Error() string {
	var where []string
	if e.Parameter != "" {
		where = append(where, fmt.Sprintf("parameter %q", clip(e.Parameter)))
	}
	if e.Function != "" {
		where = append(where, e.Function)
	}
	if e.Pointer != "" {
		where = append(where, "at "+e.Pointer)
	}
	if len(where) == 0 {
		return e.Problem
	}
	return strings.Join(where, " ") + ": " + e.Problem
}

// clip shortens what a message repeats of a body.
func clip(text string) string {
	const most = 64
	count := 0
	for i := range text {
		if count == most {
			return text[:i] + "…"
		}
		count++
	}
	return text
}

package onboarding

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/muster-iot/muster/internal/fault"
)

// maxBody bounds the text of a plan in bytes.
const maxBody = 48 << 10

// Problem is a mistake in a plan: which field breaks which rule, and where that
// stands. Line and Column count from 1 and are 0 for no place.
type Problem struct {
	Field        string
	Rule         string
	Line, Column int
}

// String puts it into words.
func (p Problem) String() string {
	text := p.Field + ": " + p.Rule
	if p.Field == "" {
		text = p.Rule
	}
	if p.Line == 0 {
		return text
	}
	return fmt.Sprintf("line %d, column %d: %s", p.Line, p.Column, text)
}

// InvalidPlanError has all problems that were found with a plan, at least one.
type InvalidPlanError struct{ Problems []Problem }

// Error lists the problems.
func (e *InvalidPlanError) Error() string {
	parts := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		parts[i] = p.String()
	}
	return strings.Join(parts, "; ")
}

// Parse reads a plan and checks it. Every error is an *InvalidPlanError. Plans
// have no anchors and aliases: a reader should see what is meant where it stands.
func Parse(body []byte) (*Plan, error) {
	if len(body) > maxBody {
		return nil, &InvalidPlanError{[]Problem{{Rule: fmt.Sprintf("a plan has %d bytes at most", maxBody)}}}
	}
	if deep(body) {
		return nil, &InvalidPlanError{[]Problem{{Rule: fmt.Sprintf("more than %d brackets are open at a time", maxOpen)}}}
	}
	file, err := parser.ParseBytes(body, 0)
	if err != nil {
		return nil, unreadable(err)
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return nil, &InvalidPlanError{[]Problem{{Rule: "a plan is one YAML document"}}}
	}
	root := file.Docs[0].Body
	finder := &aliasFinder{}
	ast.Walk(finder, root)
	if finder.found != nil {
		line, column := placeOf(finder.found)
		return nil, &InvalidPlanError{[]Problem{{Rule: "anchors, aliases, merge keys and tags are not offered in plans", Line: line, Column: column}}}
	}
	if !isMapping(root) {
		return nil, &InvalidPlanError{[]Problem{{Rule: "a plan is a mapping that begins with its id", Line: 1, Column: 1}}}
	}
	var p Plan
	if err := yaml.NodeToValue(root, &p, yaml.Strict()); err != nil {
		return nil, unreadable(err)
	}
	problems := check(&p)
	if len(problems) > 0 {
		for i := range problems {
			problems[i].Line, problems[i].Column = locate(root, problems[i].Field)
		}
		return nil, &InvalidPlanError{problems}
	}
	p.normalize()
	return &p, nil
}

// maxOpen bounds the brackets that are open at a time, in text as well: the time
// that the parser takes grows with their square.
const maxOpen = 64

// deep reports more of them.
func deep(body []byte) bool {
	open := 0
	for _, c := range body {
		switch c {
		case '[', '{':
			open++
		case ']', '}':
			open = max(open-1, 0)
		}
		if open > maxOpen {
			return true
		}
	}
	return false
}

// isMapping tells what a plan is: a mapping of one key is a node of another kind.
func isMapping(n ast.Node) bool {
	return n.Type() == ast.MappingType || n.Type() == ast.MappingValueType
}

// unreadable is the error for text that is no YAML or does not have a plan's form.
func unreadable(err error) error {
	p := Problem{Rule: err.Error()}
	if at, ok := errors.AsType[yaml.Error](err); ok {
		p.Rule = at.GetMessage()
		if t := at.GetToken(); t != nil && t.Position != nil {
			p.Line, p.Column = t.Position.Line, t.Position.Column
		}
	}
	if kind, ok := errors.AsType[*yaml.TypeError](err); ok {
		p.Rule = "a value of another kind belongs here: " + kindOf(kind.DstType)
	}
	return &InvalidPlanError{[]Problem{p}}
}

// kindOf puts the kind of a value into words.
func kindOf(t reflect.Type) string {
	if t == nil {
		return "another one"
	}
	switch t.Kind() { //nolint:exhaustive // plans have no others
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	case reflect.Slice:
		return "a list"
	}
	return "a mapping"
}

// aliasFinder finds the first node that stands for something elsewhere.
type aliasFinder struct{ found ast.Node }

// Visit implements ast.Visitor.
func (f *aliasFinder) Visit(n ast.Node) ast.Visitor {
	switch n.Type() { //nolint:exhaustive // all others are plain
	case ast.AnchorType, ast.AliasType, ast.MergeKeyType, ast.TagType, ast.DirectiveType:
		if f.found == nil {
			f.found = n
		}
		return nil
	}
	return f
}

// locate finds where a field stands, or else what it would stand in.
func locate(root ast.Node, field string) (line, column int) {
	for path := field; path != ""; path = parent(path) {
		if line, column = find(root, path); line != 0 {
			return line, column
		}
	}
	return placeOf(root)
}

// find is the place of a path, 0 for one that is not there.
func find(root ast.Node, path string) (line, column int) {
	// A name with dots or brackets is a map's key, which parent leaves out.
	at, err := yaml.PathString("$." + path)
	if err != nil {
		return 0, 0
	}
	node, err := at.FilterNode(root)
	if err != nil || node == nil {
		return 0, 0
	}
	return placeOf(node)
}

// parent is a path without its last part.
func parent(path string) string {
	i := strings.LastIndexAny(path, ".[")
	if i < 0 {
		return ""
	}
	return path[:i]
}

// placeOf is where a node begins.
func placeOf(n ast.Node) (line, column int) {
	switch m := n.(type) {
	case *ast.MappingNode:
		if len(m.Values) > 0 {
			n = m.Values[0].Key
		}
	case *ast.MappingValueNode:
		n = m.Key
	}
	t := n.GetToken()
	if t == nil || t.Position == nil {
		return 0, 0
	}
	return t.Position.Line, t.Position.Column
}

// planFault is the fault for a plan that was handed in.
func planFault(err error) error {
	return fault.Wrap(fault.InvalidRequest, err, "the plan is refused: %v", err)
}

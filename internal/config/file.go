package config

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxDepth bounds the nesting of a settings file; no setting needs more
// than three levels.
const maxDepth = 8

// entry is one value of a settings file.
type entry struct{ path, text, source string }

// fileReader flattens a YAML document into dotted paths.
type fileReader struct {
	name     string
	entries  []entry
	problems []Problem
	// lines remembers where a path was set, to refuse a second time in the
	// other notation.
	lines map[string]int
}

// parseFile reads a document of nested or dotted keys.
func parseFile(name string, data []byte) ([]entry, []Problem) {
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return nil, []Problem{{Source: name, Rule: syntaxText(err)}}
	}
	r := &fileReader{name: name, lines: map[string]int{}}
	if len(file.Docs) > 1 {
		r.fail("", 0, "holds more than one document")
		return nil, r.problems
	}
	for _, doc := range file.Docs {
		r.body(doc.Body)
	}
	return r.entries, r.problems
}

// syntaxText shortens the parser's error to position and reason, without the
// drawing of the source around it.
func syntaxText(err error) string {
	var syntax *yaml.SyntaxError
	if errors.As(err, &syntax) && syntax.Token != nil && syntax.Token.Position != nil {
		return fmt.Sprintf("line %d: %s", syntax.Token.Position.Line, syntax.Message)
	}
	return err.Error()
}

// body reads the document's root.
func (r *fileReader) body(node ast.Node) {
	if node == nil || node.Type() == ast.NullType || node.Type() == ast.CommentType {
		return
	}
	r.node("", node, 0)
}

// node reads a value below a path.
func (r *fileReader) node(path string, node ast.Node, depth int) {
	if depth > maxDepth {
		r.fail(path, line(node), "is nested too deeply")
		return
	}
	switch n := node.(type) {
	case *ast.MappingNode:
		for _, pair := range n.Values {
			r.pair(path, pair, depth)
		}
	case *ast.MappingValueNode:
		r.pair(path, n, depth)
	case *ast.SequenceNode:
		r.sequence(path, n)
	default:
		if text, ok := r.scalar(path, node); ok {
			r.add(path, text, line(node))
		}
	}
}

// pair reads one key and its value.
func (r *fileReader) pair(path string, pair *ast.MappingValueNode, depth int) {
	key, ok := scalarText(pair.Key)
	if !ok || key == "" {
		r.fail(path, line(pair), "has a key that is not a name")
		return
	}
	if path != "" {
		key = path + "." + key
	}
	r.node(key, pair.Value, depth+1)
}

// sequence reads a list of scalars into its comma-separated form.
func (r *fileReader) sequence(path string, n *ast.SequenceNode) {
	items := make([]string, 0, len(n.Values))
	for _, item := range n.Values {
		text, ok := r.scalar(path, item)
		if !ok {
			return
		}
		items = append(items, text)
	}
	r.add(path, strings.Join(items, ","), line(n))
}

// scalar returns a plain value, or reports what stands there instead.
func (r *fileReader) scalar(path string, node ast.Node) (string, bool) {
	text, ok := scalarText(node)
	if !ok {
		r.fail(path, line(node), "is not a plain value")
	}
	return text, ok
}

// add records a value once.
func (r *fileReader) add(path, text string, at int) {
	if path == "" {
		r.fail("", at, "is not a mapping of settings")
		return
	}
	if first, seen := r.lines[path]; seen {
		r.fail(path, at, fmt.Sprintf("is already set in line %d", first))
		return
	}
	r.lines[path] = at
	r.entries = append(r.entries, entry{path: path, text: text, source: r.source(at)})
}

// fail records a problem.
func (r *fileReader) fail(path string, at int, rule string) {
	r.problems = append(r.problems, Problem{Path: path, Source: r.source(at), Rule: rule})
}

// source names file and line.
func (r *fileReader) source(at int) string {
	if at == 0 {
		return r.name
	}
	return fmt.Sprintf("%s line %d", r.name, at)
}

// scalarText returns the value as it was written. Numbers keep their text, so
// that an account id keeps its leading zeros.
func scalarText(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return n.GetToken().Value, true
	case *ast.NullNode:
		return "", true
	default:
		return "", false
	}
}

// line is where a node begins, 0 when unknown.
func line(node ast.Node) int {
	if node == nil || node.GetToken() == nil || node.GetToken().Position == nil {
		return 0
	}
	return node.GetToken().Position.Line
}

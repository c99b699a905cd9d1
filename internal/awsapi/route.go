package awsapi

import (
	"net/url"
	"strings"

	"github.com/muster-iot/muster/internal/awsapi/catalog"
)

// maxPath bounds the escaped path of a request.
const maxPath = 8 << 10

// router finds operations of one service by method and escaped path.
type router struct {
	root node
}

// node is one segment of the paths. Fixed segments win over labels, and these
// over labels that take the rest.
type node struct {
	fixed map[string]*node
	label *node
	// ends and rest hold, by method, the routes that end here and the routes
	// whose last label takes everything from here.
	ends map[string]*route
	rest map[string]*route
}

// route is an operation with the names of its labels in order.
type route struct {
	op     *catalog.Operation
	labels []string
}

// newRouter builds the tree of a service's operations.
func newRouter(operations []catalog.Operation) *router {
	r := &router{}
	for i := range operations {
		r.add(&operations[i])
	}
	return r
}

// add inserts one operation.
func (r *router) add(op *catalog.Operation) {
	at, found := &r.root, &route{op: op}
	for segment := range strings.SplitSeq(strings.Trim(op.URI, "/"), "/") {
		name, isLabel := strings.CutPrefix(segment, "{")
		name = strings.TrimSuffix(name, "}")
		if !isLabel {
			at = at.child(segment)
			continue
		}
		if rest, greedy := strings.CutSuffix(name, "+"); greedy {
			found.labels = append(found.labels, rest)
			if at.rest == nil {
				at.rest = map[string]*route{}
			}
			at.rest[op.Method] = found
			return
		}
		found.labels = append(found.labels, name)
		if at.label == nil {
			at.label = &node{}
		}
		at = at.label
	}
	if at.ends == nil {
		at.ends = map[string]*route{}
	}
	at.ends[op.Method] = found
}

// child returns the node below a fixed segment, made if needed.
func (n *node) child(segment string) *node {
	if n.fixed == nil {
		n.fixed = map[string]*node{}
	}
	if n.fixed[segment] == nil {
		n.fixed[segment] = &node{}
	}
	return n.fixed[segment]
}

// match is the result of a look-up.
type match struct {
	op     *catalog.Operation
	labels map[string]string
	// otherMethod tells that the path exists, but not with this method.
	otherMethod bool
}

// find looks a request up. Segments are split before they are decoded, so that
// an escaped slash stays inside its label.
func (r *router) find(method, escapedPath string) (match, bool) {
	if len(escapedPath) > maxPath {
		return match{}, false
	}
	s := search{method: method}
	if s.walk(&r.root, strings.TrimPrefix(escapedPath, "/"), nil) {
		return match{op: s.found.op, labels: s.labels}, true
	}
	return match{otherMethod: s.otherMethod}, false
}

// search is one look-up under way.
type search struct {
	method      string
	found       *route
	labels      map[string]string
	otherMethod bool
}

// walk descends with what is left of the path. Its depth is bounded by the
// patterns, not by the path.
func (s *search) walk(n *node, path string, values []string) bool {
	if path == "" && s.take(n.ends, values) {
		return true
	}
	if path == "" {
		return false
	}
	raw, rest, _ := strings.Cut(path, "/")
	segment, err := url.PathUnescape(raw)
	if err != nil || raw == "." || raw == ".." {
		// Signatures cover the path without dot segments: one for another path
		// would be good for this one.
		return false
	}
	if next, ok := n.fixed[segment]; ok && s.walk(next, rest, values) {
		return true
	}
	if n.label != nil && segment != "" && s.walk(n.label, rest, append(values, segment)) {
		return true
	}
	if n.rest == nil {
		return false
	}
	whole, err := url.PathUnescape(path)
	return err == nil && !dotted(path) && s.take(n.rest, append(values, whole))
}

// dotted reports whether a path has dot segments that are not escaped.
func dotted(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// take ends the search at a route of the request's method.
func (s *search) take(routes map[string]*route, values []string) bool {
	found, ok := routes[s.method]
	if !ok {
		s.otherMethod = s.otherMethod || len(routes) > 0
		return false
	}
	s.found = found
	s.labels = make(map[string]string, len(values))
	for i, name := range found.labels {
		s.labels[name] = values[i]
	}
	return true
}

package index

import (
	"strings"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/muster-iot/muster/internal/fleetquery"
)

// Bounds of what is indexed.
const (
	// maxTextBytes bounds an indexed text; a longer one is left out.
	maxTextBytes = 4096
	// maxPathBytes and maxPathParts bound a path.
	maxPathBytes = 1024
	maxPathParts = 32
	// DefaultMaxPaths bounds the distinct paths of one account.
	DefaultMaxPaths = 10_000
)

// corpus is a set of named documents with their fields: the things or the
// groups of one account. It is not safe for concurrent use by itself.
type corpus struct {
	// names numbers the documents; a document's number is that of its name.
	names dict
	live  *roaring.Bitmap
	nodes map[string]*node
	// open are the nodes with values that terms without a field look at.
	open []*node
	// touched are the nodes changed since the last tidy.
	touched  []*node
	maxPaths int
	// unfielded and hidden classify new paths.
	unfielded func(path string) bool
	hidden    func(path string) bool
	// derive gives the test to use for one on a field that is not kept for each
	// document; nil for none.
	derive func(fleetquery.Node) fleetquery.Node
	// exempt tells paths that devices cannot make up: the bound on paths does
	// not hold for them.
	exempt func(path string) bool
	// watch is told of every change; nil for none.
	watch watcher
	// geo are the fields that hold places, geoBy those that a path is part of.
	geo   map[string]*geoField
	geoBy map[string][]*geoField
	// dropped counts values left out by a bound.
	dropped uint64
	// full is how many new paths to refuse before prune is tried again.
	full int
	old  values
}

// watcher sees each change of a field's values before it is made, and each
// change of a field's places, from one of its nodes, after that.
type watcher interface {
	changed(n *node, doc uint32, old, now values)
	moved(n, from *node, doc uint32, old, now []fleetquery.Place)
}

// node is one path with the paths below it.
type node struct {
	path   string
	parent *node
	kids   []*node
	// field is nil until the path has had a value.
	field *field
	// atoms are the tests of standing queries on this path; nil for none.
	atoms *atoms
	// lookout is set while standing queries are narrowed by words here.
	lookout *lookout
	// stamp is where the times of a shadow's values here are kept, once known.
	stamp *node
	// geo are the fields whose places this path is part of.
	geo []*geoField
	// unfielded tells that terms without a field look here; hidden, that the
	// path cannot be queried at all.
	unfielded, hidden bool
	// forgotten tells that prune took the node away.
	forgotten bool
	touched   bool
}

// newCorpus returns an empty corpus in its bulk phase.
func newCorpus(maxPaths int, unfielded, hidden, exempt func(string) bool) *corpus {
	return &corpus{
		names: newDict(true), live: roaring.New(), nodes: map[string]*node{},
		maxPaths: maxPaths, unfielded: unfielded, hidden: hidden, exempt: exempt,
	}
}

// doc returns the number of a document.
func (c *corpus) doc(name string) (uint32, bool) {
	id, ok := c.names.find(name)
	return id, ok && c.live.Contains(id)
}

// create returns the number of a document that exists from now on.
func (c *corpus) create(name string) uint32 {
	id, lingers := c.names.find(name)
	if !lingers {
		id = c.names.add(name)
	}
	if c.live.CheckedAdd(id) && lingers {
		c.names.dead--
	}
	return id
}

// remove ends a document and all its values.
func (c *corpus) remove(doc uint32) {
	for _, n := range c.nodes {
		c.clear(n, doc)
	}
	if c.live.CheckedRemove(doc) {
		c.names.dead++
	}
}

// node returns the node of a path, made if need be, or nil when a bound is
// reached. A standing query gets its nodes by force: queries are few and short.
func (c *corpus) node(path string, force bool) *node {
	if n, ok := c.nodes[path]; ok {
		return n
	}
	if len(path) > maxPathBytes || strings.Count(path, ".") >= maxPathParts {
		return nil
	}
	if len(c.nodes) >= c.maxPaths && !force && !c.exempt(path) && !c.prune() {
		return nil
	}
	var parent *node
	if dot := strings.LastIndexByte(path, '.'); dot >= 0 {
		if parent = c.node(path[:dot], force); parent == nil {
			return nil
		}
	}
	n := &node{path: strings.Clone(path), parent: parent, unfielded: c.unfielded(path), hidden: c.hidden(path), geo: c.geoBy[path]}
	if parent != nil {
		parent.kids = append(parent.kids, n)
	}
	c.nodes[n.path] = n
	return n
}

// prune forgets paths that hold nothing and reports whether there is room. It
// rests for a while after a failure, since it looks at every path.
func (c *corpus) prune() bool {
	if c.full > 0 {
		c.full--
		return false
	}
	for again := true; again; {
		again = false
		for path, n := range c.nodes {
			if len(n.kids) > 0 || n.atoms != nil || n.touched || (n.field != nil && !n.field.exists.IsEmpty()) {
				continue
			}
			delete(c.nodes, path)
			n.forgotten = true
			if n.field != nil && n.unfielded {
				c.open = deleteNode(c.open, n)
			}
			if n.parent != nil {
				n.parent.kids = deleteNode(n.parent.kids, n)
				again = true
			}
		}
	}
	if len(c.nodes) < c.maxPaths {
		return true
	}
	c.full = c.maxPaths
	return false
}

// deleteNode removes one node from a list without keeping its order.
func deleteNode(list []*node, n *node) []*node {
	for i, other := range list {
		if other == n {
			list[i] = list[len(list)-1]
			return list[:len(list)-1]
		}
	}
	return list
}

// put sets the values at a path of a document; none removes it.
func (c *corpus) put(path string, doc uint32, now values) {
	n, ok := c.nodes[path]
	if !ok {
		if now.empty() {
			return
		}
		if n = c.node(path, false); n == nil {
			c.dropped++
			return
		}
	}
	c.set(n, doc, now)
}

// putText sets a single text, folded; the empty string removes it.
func (c *corpus) putText(path string, doc uint32, text string) {
	if text == "" {
		c.put(path, doc, values{})
		return
	}
	c.put(path, doc, values{texts: []string{text}})
}

// putNumber sets a single number.
func (c *corpus) putNumber(path string, doc uint32, number float64) {
	c.put(path, doc, values{numbers: []float64{number}})
}

// number returns the single number at a path.
func (c *corpus) number(path string, doc uint32) (float64, bool) {
	if n := c.nodes[path]; n != nil && n.field != nil {
		return n.field.numbers.get(doc)
	}
	return 0, false
}

// set changes the values of a node and tells the watcher.
func (c *corpus) set(n *node, doc uint32, now values) {
	if n.field == nil {
		if now.empty() {
			return
		}
		n.field = newField(c.names.bulk)
		if n.unfielded {
			c.open = append(c.open, n)
		}
	}
	now.texts = c.indexable(now.texts)
	c.old.texts, c.old.numbers = c.old.texts[:0], c.old.numbers[:0]
	n.field.appendTo(doc, &c.old)
	if same(c.old, now) {
		return
	}
	if c.watch != nil && !n.hidden {
		c.watch.changed(n, doc, c.old, now)
	}
	n.field.replace(doc, c.old, now)
	if !n.touched {
		n.touched = true
		c.touched = append(c.touched, n)
	}
	if len(n.geo) > 0 && !c.names.bulk {
		for _, g := range n.geo {
			g.moved(c, n, doc)
		}
	}
}

// indexable leaves out texts that are too long and counts them.
func (c *corpus) indexable(texts []string) []string {
	for i, text := range texts {
		if len(text) <= maxTextBytes {
			continue
		}
		kept := append([]string(nil), texts[:i]...)
		for _, rest := range texts[i:] {
			if len(rest) <= maxTextBytes {
				kept = append(kept, rest)
			} else {
				c.dropped++
			}
		}
		return kept
	}
	return texts
}

// same reports whether two sets of values are equal, order included.
func same(a, b values) bool {
	if len(a.texts) != len(b.texts) || len(a.numbers) != len(b.numbers) {
		return false
	}
	for i := range a.numbers {
		if a.numbers[i] != b.numbers[i] {
			return false
		}
	}
	for i := range a.texts {
		if a.texts[i] != b.texts[i] {
			return false
		}
	}
	return true
}

// clear removes the values at a node.
func (c *corpus) clear(n *node, doc uint32) {
	if n != nil && n.field != nil && n.field.exists.Contains(doc) {
		c.set(n, doc, values{})
	}
}

// clearTree removes the values at a node and everywhere below it.
func (c *corpus) clearTree(n *node, doc uint32) {
	if n == nil {
		return
	}
	c.clear(n, doc)
	for _, kid := range n.kids {
		c.clearTree(kid, doc)
	}
}

// tidy settles what a batch has changed. Document numbers may be given to
// other names after it.
func (c *corpus) tidy() {
	c.names.settle(c.live.Contains)
	for _, n := range c.touched {
		n.touched = false
		n.field.tidy()
	}
	c.touched = c.touched[:0]
}

// finish ends the bulk phase.
func (c *corpus) finish() {
	c.names.finish()
	c.live.RunOptimize()
	for _, n := range c.nodes {
		if n.field != nil {
			n.field.finish()
		}
	}
	c.fillPlaces()
}

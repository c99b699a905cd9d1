package index

import (
	"fmt"

	"github.com/muster-iot/muster/internal/fleetquery"
)

// Sections of a shadow document.
const (
	sectionDesired  = "desired"
	sectionReported = "reported"
	sectionDelta    = "delta"
	sectionMetadata = "metadata"
)

// shadowRoot returns the path under which a shadow's fields stand.
func shadowRoot(name string) string {
	if name == "" {
		return prefixShadow
	}
	return prefixNamedShadow + name
}

// shadowPatch is a change of a shadow by leaves.
type shadowPatch struct {
	thing, shadow string
	version       int64
	// state is {"desired":{…},"reported":{…}} where null removes.
	state []byte
	// delta is the whole difference after the change.
	delta []byte
	// timestamp is the metadata time of the leaves, in seconds.
	timestamp int64
}

// putShadow replaces a whole shadow of a thing that exists.
func (s *shard) putShadow(thing string, v Shadow) error {
	doc, ok := s.things.doc(thing)
	if !ok || !s.config.Things.HasShadow(v.Name) {
		return nil
	}
	root := shadowRoot(v.Name)
	if known, ok := s.things.number(root+".version", doc); ok && float64(v.Version) < known {
		return nil
	}
	s.clearShadow(root, doc)
	hasDelta := false
	for _, part := range []struct {
		section string
		text    []byte
	}{{sectionDesired, v.Desired}, {sectionReported, v.Reported}, {sectionDelta, v.Delta}, {sectionMetadata, v.Metadata}} {
		leaves, err := s.reader.flatten(part.text)
		if err != nil {
			return fmt.Errorf("index %s of shadow %q of %q: %w", part.section, v.Name, thing, err)
		}
		hasDelta = hasDelta || (part.section == sectionDelta && len(leaves) > 0)
		for _, l := range leaves {
			if l.kind == leafValue && (part.section != sectionMetadata || s.hasState(root, doc, l.path)) {
				s.putLeaf(root+"."+part.section+".", l, doc)
			}
		}
	}
	s.putShadowState(root, doc, v.Version, hasDelta)
	return nil
}

// hasState reports whether the state field that a metadata leaf tells about
// is indexed: only then is the metadata.
func (s *shard) hasState(root string, doc uint32, metadata []byte) bool {
	const suffix = ".timestamp"
	n := len(metadata) - len(suffix)
	if n <= 0 || string(metadata[n:]) != suffix {
		return false
	}
	s.path = append(append(append(s.path[:0], root...), '.'), metadata[:n]...)
	at := s.things.nodes[string(s.path)]
	return at != nil && at.field != nil && at.field.exists.Contains(doc)
}

// putShadowState sets what every shadow has.
func (s *shard) putShadowState(root string, doc uint32, version int64, hasDelta bool) {
	s.things.putNumber(root+".version", doc, float64(version))
	s.things.put(root+".hasDelta", doc, values{texts: fleetTexts(hasDelta)})
}

// deleteShadow removes a shadow's fields unless a later shadow is known.
func (s *shard) deleteShadow(thing, shadow string, version int64) {
	doc, ok := s.things.doc(thing)
	if !ok || !s.config.Things.HasShadow(shadow) {
		return
	}
	root := shadowRoot(shadow)
	if known, ok := s.things.number(root+".version", doc); ok && float64(version) < known {
		return
	}
	s.clearShadow(root, doc)
	s.things.clear(s.things.nodes[root+".hasDelta"], doc)
	s.things.clear(s.things.nodes[root+".version"], doc)
}

// clearShadow removes the sections of a shadow.
func (s *shard) clearShadow(root string, doc uint32) {
	for _, section := range []string{sectionDesired, sectionReported, sectionDelta, sectionMetadata} {
		s.things.clearTree(s.things.nodes[root+"."+section], doc)
	}
}

// putLeaf sets a leaf under a prefix.
func (s *shard) putLeaf(prefix string, l leaf, doc uint32) {
	s.path = append(append(s.path[:0], prefix...), l.path...)
	c := s.things
	if n := c.nodes[string(s.path)]; n != nil {
		c.set(n, doc, l.values)
		return
	}
	c.put(string(s.path), doc, l.values)
}

// patchShadow applies an accepted update by its leaves. A version that is
// already in the index changes nothing.
func (s *shard) patchShadow(p shadowPatch) error {
	doc, ok := s.things.doc(p.thing)
	if !ok || !s.config.Things.HasShadow(p.shadow) {
		return nil
	}
	root := shadowRoot(p.shadow)
	if known, ok := s.things.number(root+".version", doc); ok && float64(p.version) <= known {
		return nil
	}
	leaves, err := s.reader.flatten(p.state)
	if err != nil {
		return fmt.Errorf("index patch of shadow %q of %q: %w", p.shadow, p.thing, err)
	}
	for _, l := range leaves {
		s.patchLeaf(root, doc, l, p.timestamp)
	}
	hasDelta, err := s.replaceDelta(root, doc, p.delta)
	if err != nil {
		return fmt.Errorf("index delta of shadow %q of %q: %w", p.shadow, p.thing, err)
	}
	s.putShadowState(root, doc, p.version, hasDelta)
	return nil
}

// patchLeaf merges one leaf of a patch: null and arrays that are not indexed
// remove everything at and below the path, an object or a value replaces what
// was a value there or above.
func (s *shard) patchLeaf(root string, doc uint32, l leaf, timestamp int64) {
	c := s.things
	s.path = append(append(append(s.path[:0], root...), '.'), l.path...)
	s.meta = append(append(append(s.meta[:0], root...), ".metadata."...), l.path...)
	n := c.nodes[string(s.path)]
	if n != nil && n.stamp != nil && !n.stamp.forgotten && l.kind == leafValue && len(n.kids) == 0 {
		// What most updates are: a value in the place of a value.
		c.set(n, doc, l.values)
		if n.field != nil && n.field.exists.Contains(doc) {
			s.one[0] = float64(timestamp)
			c.set(n.stamp, doc, values{numbers: s.one[:]})
		}
		return
	}
	meta := c.nodes[string(s.meta)]
	if l.kind == leafObject {
		s.dropValue(n, meta, doc)
		return
	}
	if l.kind != leafValue {
		c.clearTree(n, doc)
		c.clearTree(meta, doc)
		return
	}
	if n == nil {
		if n = c.node(string(s.path), false); n == nil {
			c.dropped++
			return
		}
	}
	for _, kid := range n.kids {
		c.clearTree(kid, doc)
	}
	if len(n.kids) > 0 {
		c.clearTree(meta, doc)
	}
	c.set(n, doc, l.values)
	if n.field == nil || !n.field.exists.Contains(doc) {
		return // nothing in it can be indexed
	}
	s.meta = append(s.meta, ".timestamp"...)
	s.one[0] = float64(timestamp)
	if at := c.nodes[string(s.meta)]; at != nil {
		n.stamp = at
		c.set(at, doc, values{numbers: s.one[:]})
		return
	}
	c.putNumber(string(s.meta), doc, float64(timestamp))
}

// dropValue removes a value whose place an object takes.
func (s *shard) dropValue(n, meta *node, doc uint32) {
	if n == nil || n.field == nil || !n.field.exists.Contains(doc) {
		return
	}
	s.things.clear(n, doc)
	if meta != nil {
		s.things.clear(s.things.nodes[meta.path+".timestamp"], doc)
	}
}

// replaceDelta sets the delta section and reports whether there is one.
func (s *shard) replaceDelta(root string, doc uint32, delta []byte) (bool, error) {
	c := s.things
	leaves, err := s.reader.flatten(delta)
	if err != nil {
		return false, err
	}
	at := c.nodes[root+"."+sectionDelta]
	if len(leaves) == 0 {
		if s.hadDelta(root, doc) {
			c.clearTree(at, doc)
		}
		return false, nil
	}
	prefix := root + "." + sectionDelta + "."
	kept := make(map[string]bool, len(leaves))
	for _, l := range leaves {
		if l.kind == leafValue {
			kept[prefix+string(l.path)] = true
		}
	}
	c.forget(at, doc, func(path string) bool { return kept[path] })
	for _, l := range leaves {
		if l.kind == leafValue {
			s.putLeaf(prefix, l, doc)
		}
	}
	return true, nil
}

// hadDelta reports whether the shadow had a delta before.
func (s *shard) hadDelta(root string, doc uint32) bool {
	n := s.things.nodes[root+".hasDelta"]
	return n != nil && n.passes(trueTest(), doc, &s.standing.scratch)
}

// trueTest is the test for the word true.
func trueTest() *plan {
	return &plan{op: opMatch, match: fleetquery.Match{Word: "true"}}
}

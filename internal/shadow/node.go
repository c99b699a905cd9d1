package shadow

import (
	"cmp"
	"slices"
	"strconv"
)

// kind is the JSON type of a node.
type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindArray
	kindObject
)

// node is one JSON value. Nodes are immutable once built.
type node struct {
	// key is the member name as canonical JSON text without its quotes, so
	// that equal names have equal keys; empty for array elements.
	key string
	// text is the canonical JSON text of a scalar; numbers stay as written.
	text string
	// kids are the members of an object sorted by key, or the elements of an
	// array.
	kids []node
	// at is the second in which a leaf was last written. Arrays are leaves.
	at   int64
	kind kind
	// nulls says that a null lies somewhere below or here: in a patch it
	// removes.
	nulls bool
}

// nodeBytes is the approximate size of one node in memory.
const nodeBytes = 72

// compareKeys orders members by name.
func compareKeys(a, b node) int { return cmp.Compare(a.key, b.key) }

// member returns the named member.
func member(kids []node, key string) (node, bool) {
	i, ok := slices.BinarySearchFunc(kids, key, func(n node, k string) int { return cmp.Compare(n.key, k) })
	if !ok {
		return node{}, false
	}
	return kids[i], true
}

// appendValue writes a value as compact JSON.
func appendValue(dst []byte, n *node) []byte {
	switch n.kind {
	case kindObject:
		return appendMembers(dst, n.kids)
	case kindArray:
		dst = append(dst, '[')
		for i := range n.kids {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendValue(dst, &n.kids[i])
		}
		return append(dst, ']')
	default:
		return append(dst, n.text...)
	}
}

// appendMembers writes an object as compact JSON.
func appendMembers(dst []byte, kids []node) []byte {
	dst = append(dst, '{')
	for i := range kids {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendKey(dst, kids[i].key)
		dst = appendValue(dst, &kids[i])
	}
	return append(dst, '}')
}

// appendKey writes a member name with its colon.
func appendKey(dst []byte, key string) []byte {
	dst = append(dst, '"')
	dst = append(dst, key...)
	return append(dst, '"', ':')
}

// stamp writes the metadata of leaves. Leaves written together are alike, so
// it keeps the text of the last one.
type stamp struct {
	text []byte
	at   int64
}

// members writes the tree of times that mirrors an object. Nulls of a patch
// have none.
func (s *stamp) members(dst []byte, kids []node) []byte {
	dst = append(dst, '{')
	first := true
	for i := range kids {
		if kids[i].kind == kindNull {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = appendKey(dst, kids[i].key)
		dst = s.value(dst, &kids[i])
	}
	return append(dst, '}')
}

// value writes the metadata of one value: an object mirrors its members, an
// array has one time for each element.
func (s *stamp) value(dst []byte, n *node) []byte {
	switch n.kind {
	case kindObject:
		return s.members(dst, n.kids)
	case kindArray:
		dst = append(dst, '[')
		for i := range n.kids {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = s.leaf(dst, n.at)
		}
		return append(dst, ']')
	default:
		return s.leaf(dst, n.at)
	}
}

// leaf writes the metadata of one leaf.
func (s *stamp) leaf(dst []byte, at int64) []byte {
	if at != s.at || s.text == nil {
		s.at = at
		s.text = append(s.text[:0], `{"timestamp":`...)
		s.text = strconv.AppendInt(s.text, at, 10)
		s.text = append(s.text, '}')
	}
	return append(dst, s.text...)
}

// size returns the length of an object's compact JSON text and the number of
// nodes below it.
func size(kids []node) (text, nodes int) {
	text = 2 + max(len(kids)-1, 0)
	for i := range kids {
		k := &kids[i]
		if k.key != "" {
			text += len(k.key) + 3
		}
		nodes++
		if k.kind == kindObject || k.kind == kindArray {
			t, n := size(k.kids)
			text, nodes = text+t, nodes+n
			continue
		}
		text += len(k.text)
	}
	return text, nodes
}

// equal compares two values as JSON: numbers by value, objects without regard
// to order. Times and keys do not count.
func equal(a, b *node) bool {
	if a.kind != b.kind {
		return false
	}
	switch a.kind {
	case kindNumber:
		return equalNumbers(a.text, b.text)
	case kindArray, kindObject:
		return slices.EqualFunc(a.kids, b.kids, func(x, y node) bool {
			return x.key == y.key && equal(&x, &y)
		})
	default:
		return a.text == b.text
	}
}

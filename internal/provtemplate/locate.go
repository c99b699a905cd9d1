package provtemplate

import (
	"strconv"
	"strings"
)

// Locate returns where the value under a JSON pointer stands in a body that
// Parse accepts: line and column, in characters, from 1. It is false for a
// pointer to nothing, and for "", which points to no place in particular.
func Locate(body []byte, pointer string, limits Limits) (line, column int, found bool) {
	if pointer == "" {
		return 0, 0, false
	}
	if limits == (Limits{}) {
		limits = DefaultLimits()
	}
	t, n, err := readTree(body, limits)
	if err != nil {
		return 0, 0, false
	}
	for name := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		if n = n.child(strings.NewReplacer("~1", "/", "~0", "~").Replace(name)); n == nil {
			return 0, 0, false
		}
	}
	at := t.at(n.at, pointer, "", "")
	return at.Line, at.Column, true
}

// child returns the member or element under one step of a pointer, nil if there
// is none.
func (n *node) child(name string) *node {
	if n.shape != shapeList {
		return n.member(name)
	}
	i, err := strconv.Atoi(name)
	if err != nil || i < 0 || i >= len(n.elements) {
		return nil
	}
	return n.elements[i]
}

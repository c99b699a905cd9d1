package main

import (
	"fmt"
	"strconv"
	"strings"
)

// limited reports whether a shape, or an element of it, has any limit.
func (g *generator) limited(id string) bool {
	s := g.m.Shapes[id]
	if s == nil || s.Type == "structure" {
		return false
	}
	own := s.Min != nil || s.Max != nil || s.Pattern != "" || len(s.Enum) > 0 || s.Secret
	return own || g.limited(s.Member.Shape) || g.limited(s.Key.Shape) || g.limited(s.Value.Shape)
}

// rulesFile renders the limits of every limited shape that a struct refers to.
func (g *generator) rulesFile() (string, error) {
	used := map[string]bool{}
	for _, ids := range g.files {
		for _, id := range ids {
			for _, r := range g.m.Shapes[id].Members {
				g.useRule(r.Shape, used)
			}
		}
	}
	var b strings.Builder
	b.WriteString(header)
	fmt.Fprintf(&b, "// Package %s holds the wire structs of the service %s: one pair of\n// request and reply per operation, and what these contain. Field tags say where\n// each value travels; package wire reads them. It holds no behaviour and\n// starts no goroutines.\n", g.svc.Package, g.svc.Name)
	fmt.Fprintf(&b, "package %s\n\nimport %q\n\n", g.svc.Package, module+"/wire")
	b.WriteString("// Rules returns the limits that the field tags refer to, by shape name.\nfunc Rules() map[string]wire.Rule {\n\treturn map[string]wire.Rule{\n")
	for _, id := range sortedKeys(used) {
		line, err := g.rule(id)
		if err != nil {
			return "", fmt.Errorf("shape %s: %w", id, err)
		}
		fmt.Fprintf(&b, "\t\t%q: {%s},\n", id, line)
	}
	b.WriteString("\t}\n}\n")
	return b.String(), nil
}

// useRule marks a limited shape and the limited shapes of its elements.
func (g *generator) useRule(id string, used map[string]bool) {
	if !g.limited(id) || used[id] {
		return
	}
	used[id] = true
	s := g.m.Shapes[id]
	for _, r := range []ref{s.Member, s.Key, s.Value} {
		g.useRule(r.Shape, used)
	}
}

// rule renders the fields of one wire.Rule literal.
func (g *generator) rule(id string) (string, error) {
	s := g.m.Shapes[id]
	var parts []string
	number := func(name string, v *float64) {
		if v != nil {
			parts = append(parts, name+": new(float64("+strconv.FormatFloat(*v, 'f', -1, 64)+"))")
		}
	}
	number("Min", s.Min)
	number("Max", s.Max)
	if s.Pattern != "" {
		pattern, err := portable(s.Pattern)
		if err != nil {
			return "", err
		}
		parts = append(parts, "Pattern: "+quote(pattern))
		if pattern != s.Pattern {
			parts = append(parts, "Shown: "+quote(s.Pattern))
		}
	}
	if len(s.Enum) > 0 {
		parts = append(parts, fmt.Sprintf("Enum: %#v", s.Enum))
	}
	if s.Secret {
		parts = append(parts, "Secret: true")
	}
	element := s.Member.Shape
	if s.Type == "map" {
		element = s.Value.Shape
	}
	if g.limited(element) {
		parts = append(parts, fmt.Sprintf("Elem: %q", element))
	}
	if s.Type == "map" && g.limited(s.Key.Shape) {
		parts = append(parts, fmt.Sprintf("Key: %q", s.Key.Shape))
	}
	return strings.Join(parts, ", "), nil
}

// quote prefers a raw literal, which shows a pattern as it is.
func quote(text string) string {
	if strconv.CanBackquote(text) {
		return "`" + text + "`"
	}
	return strconv.Quote(text)
}

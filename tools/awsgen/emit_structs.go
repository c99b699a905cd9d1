package main

import (
	"fmt"
	"strings"
)

// structFile renders the structs of one domain.
func (g *generator) structFile(domain string) string {
	var body strings.Builder
	for _, id := range g.files[domain] {
		g.structDecl(&body, id)
	}
	var b strings.Builder
	b.WriteString(header + "package " + g.svc.Package + "\n\n")
	if strings.Contains(body.String(), "time.Time") {
		b.WriteString("import \"time\"\n\n")
	}
	b.WriteString(body.String())
	return b.String()
}

// structDecl renders one struct. Members that the model requires are plain
// values; the others are pointers, slices or maps whose nil means absent.
func (g *generator) structDecl(b *strings.Builder, id string) {
	s := g.m.Shapes[id]
	about := g.about[id]
	if about == "" {
		about = "is the structure that the " + g.svc.Name + " model calls " + id + "."
	}
	fmt.Fprintf(b, "// %s %s\ntype %s struct {\n", g.names[id], about, g.names[id])
	for _, member := range sortedKeys(s.Members) {
		r := s.Members[member]
		if r.Location == "statusCode" {
			continue
		}
		fmt.Fprintf(b, "\t%s %s `%s`\n", goName(member), g.goType(r.Shape, !s.required(member)), g.tag(s, member))
	}
	b.WriteString("}\n\n")
}

// tag renders a field's struct tag: its name on the wire, where it travels
// when not in the body, the limits that apply, and whether it is required.
func (g *generator) tag(s *shape, member string) string {
	r := s.Members[member]
	name := member
	if r.LocationName != "" {
		name = r.LocationName
	}
	tag := fmt.Sprintf("wire:%q", name)
	places := map[string]string{"uri": "uri", "querystring": "query", "header": "header"}
	place := places[r.Location]
	if s.Payload == member {
		place = "payload"
	}
	if place != "" {
		tag += fmt.Sprintf(" in:%q", place)
	}
	if g.limited(r.Shape) {
		tag += fmt.Sprintf(" rule:%q", r.Shape)
	}
	if s.required(member) {
		tag += ` required:"true"`
	}
	return tag
}

// goType returns the Go type of a shape.
func (g *generator) goType(id string, optional bool) string {
	s := g.m.Shapes[id]
	star := ""
	if optional {
		star = "*"
	}
	scalars := map[string]string{
		"string": "string", "boolean": "bool", "integer": "int32", "long": "int64",
		"double": "float64", "float": "float64", "timestamp": "time.Time",
	}
	if t, ok := scalars[s.Type]; ok {
		return star + t
	}
	switch s.Type {
	case "blob":
		return "[]byte"
	case "list":
		return "[]" + g.goType(s.Member.Shape, false)
	case "map":
		return "map[string]" + g.goType(s.Value.Shape, false)
	default:
		if optional {
			return "*" + g.names[id]
		}
		return g.names[id]
	}
}

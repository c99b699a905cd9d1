package main

import (
	"go/ast"
	"slices"
	"strings"
)

// addTo brings a model up to the newer client: operations it lacks, members
// that existing structures have gained, and new enumeration values. Limits
// and patterns are not in the client's source, so new members have none.
func (s *sdkv2) addTo(m *model) {
	for _, op := range sortedKeys(s.calls) {
		s.addOperation(m, op)
	}
	for _, name := range sortedKeys(s.structs) {
		if strings.HasSuffix(name, "Exception") {
			continue
		}
		if existing, ok := m.Shapes[name]; ok && existing.Type == "structure" {
			s.addMembers(m, name, existing)
		}
	}
	for _, name := range sortedKeys(s.enums) {
		if existing, ok := m.Shapes[name]; ok && len(existing.Enum) > 0 {
			addValues(existing, s.enums[name])
		}
	}
}

// addOperation adds the operation when it is new, and new members and
// exceptions when not.
func (s *sdkv2) addOperation(m *model, name string) {
	call := s.calls[name]
	op, ok := m.Operations[name]
	if !ok {
		op = call
		op.Input = ref{Shape: name + "Input"}
		op.Output = ref{Shape: name + "Output"}
		m.Operations[name] = op
	}
	for _, r := range call.Errors {
		_, known := m.Shapes[r.Shape]
		if known && !slices.ContainsFunc(op.Errors, func(listed ref) bool { return listed.Shape == r.Shape }) {
			op.Errors = append(op.Errors, r)
		}
	}
	for suffix, r := range map[string]*ref{"Input": &op.Input, "Output": &op.Output} {
		if r.Shape == "" {
			r.Shape = name + suffix
		}
		target, ok := m.Shapes[r.Shape]
		if !ok {
			target = &shape{Type: "structure", Members: map[string]ref{}}
			m.Shapes[r.Shape] = target
		}
		s.addMembers(m, name+suffix, target)
	}
}

// addMembers adds the members of the Go struct called name that target lacks.
func (s *sdkv2) addMembers(m *model, name string, target *shape) {
	st, ok := s.structs[name]
	if !ok {
		return
	}
	known := map[string]bool{}
	for member := range target.Members {
		known[strings.ToLower(member)] = true
	}
	for _, field := range st.Fields.List {
		if len(field.Names) != 1 || !field.Names[0].IsExported() {
			continue
		}
		goName := field.Names[0].Name
		binding, ok := s.wire[name][goName]
		if !ok || known[strings.ToLower(goName)] {
			continue
		}
		member := strings.ToLower(goName[:1]) + goName[1:]
		if binding.Location == "" {
			member = binding.LocationName
			binding.LocationName = ""
		}
		if known[strings.ToLower(member)] {
			continue
		}
		binding.Shape = s.shapeOf(m, field.Type)
		if target.Members == nil {
			target.Members = map[string]ref{}
		}
		target.Members[member] = binding
		if strings.Contains(field.Doc.Text(), "This member is required.") {
			target.Required = append(target.Required, member)
		}
	}
}

// shapeOf returns the name of the shape for a Go type, adding it when new.
func (s *sdkv2) shapeOf(m *model, e ast.Expr) string {
	switch t := e.(type) {
	case *ast.StarExpr:
		return s.shapeOf(m, t.X)
	case *ast.ArrayType:
		if id, ok := t.Elt.(*ast.Ident); ok && id.Name == "byte" {
			return m.add("Blob", &shape{Type: "blob"})
		}
		elem := s.shapeOf(m, t.Elt)
		return m.add("ListOf"+elem, &shape{Type: "list", Member: ref{Shape: elem}})
	case *ast.MapType:
		key, value := s.shapeOf(m, t.Key), s.shapeOf(m, t.Value)
		return m.add("MapOf"+value, &shape{Type: "map", Key: ref{Shape: key}, Value: ref{Shape: value}})
	case *ast.SelectorExpr:
		if t.Sel.Name == "Time" {
			return m.add("Time", &shape{Type: "timestamp"})
		}
		return s.named(m, t.Sel.Name)
	case *ast.Ident:
		return s.named(m, t.Name)
	}
	panic("awsgen: unexpected field type in the SDK source")
}

// named returns the shape of a Go type that has a name.
func (s *sdkv2) named(m *model, name string) string {
	plain := map[string]string{"string": "string", "bool": "boolean", "int32": "integer", "int64": "long", "float32": "float", "float64": "double"}
	if kind, ok := plain[name]; ok {
		return m.add("Plain"+strings.ToUpper(kind[:1])+kind[1:], &shape{Type: kind})
	}
	if _, ok := m.Shapes[name]; ok {
		return name
	}
	if values, ok := s.enums[name]; ok {
		return m.add(name, &shape{Type: "string", Enum: values})
	}
	added := &shape{Type: "structure", Members: map[string]ref{}}
	m.Shapes[name] = added
	s.addMembers(m, name, added)
	return name
}

// add stores a shape under name unless one is there, and returns the name.
func (m *model) add(name string, s *shape) string {
	if _, ok := m.Shapes[name]; !ok {
		m.Shapes[name] = s
	}
	return name
}

// addValues appends the enumeration values that s lacks.
func addValues(s *shape, values []string) {
	known := map[string]bool{}
	for _, v := range s.Enum {
		known[v] = true
	}
	for _, v := range values {
		if !known[v] {
			s.Enum = append(s.Enum, v)
		}
	}
}

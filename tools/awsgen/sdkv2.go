package main

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
)

// sdkv2 is what the generated client of the newer SDK says about an API. It
// has no models in its module, so names and bindings are read from its Go
// source: types from the struct declarations, JSON names from the serializers
// and deserializers, paths and methods from the request builders.
type sdkv2 struct {
	structs map[string]*ast.StructType
	enums   map[string][]string
	// wire maps a struct's Go fields to the place they travel in.
	wire map[string]map[string]ref
	// calls maps operation names to the methods, paths and errors.
	calls map[string]*operation
}

const (
	serializerPrefix   = "awsRestjson1_serialize"
	deserializerPrefix = "awsRestjson1_deserialize"
)

// loadSDKv2 parses the client package of module and its types package.
func loadSDKv2(ctx context.Context, module string) (*sdkv2, error) {
	dir, err := moduleDir(ctx, module)
	if err != nil {
		return nil, err
	}
	s := &sdkv2{
		structs: map[string]*ast.StructType{}, enums: map[string][]string{},
		wire: map[string]map[string]ref{}, calls: map[string]*operation{},
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	types, err := filepath.Glob(filepath.Join(dir, "types", "*.go"))
	if err != nil {
		return nil, err
	}
	set := token.NewFileSet()
	for _, path := range append(files, types...) {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", path, err)
		}
		for _, decl := range file.Decls {
			s.visit(decl)
		}
	}
	if len(s.calls) == 0 || len(s.structs) == 0 {
		return nil, fmt.Errorf("no operations found in %s", dir)
	}
	return s, nil
}

// visit sorts one declaration into the tables.
func (s *sdkv2) visit(decl ast.Decl) {
	switch d := decl.(type) {
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if st, ok := spec.Type.(*ast.StructType); ok {
					s.structs[spec.Name.Name] = st
				}
			case *ast.ValueSpec:
				s.visitConst(spec)
			}
		}
	case *ast.FuncDecl:
		s.visitFunc(d)
	}
}

// visitConst collects the values of string enumerations.
func (s *sdkv2) visitConst(spec *ast.ValueSpec) {
	name, ok := spec.Type.(*ast.Ident)
	if !ok || len(spec.Values) != 1 {
		return
	}
	if text, ok := stringLiteral(spec.Values[0]); ok {
		s.enums[name.Name] = append(s.enums[name.Name], text)
	}
}

// visitFunc recognizes the generated (de)serializers by their names.
func (s *sdkv2) visitFunc(d *ast.FuncDecl) {
	name := d.Name.Name
	if d.Recv != nil {
		if name == "HandleSerialize" {
			s.visitRequestBuilder(d)
		}
		return
	}
	if op, ok := strings.CutPrefix(name, deserializerPrefix+"OpError"); ok {
		s.visitErrors(op, d)
		return
	}
	for _, prefix := range []string{"OpDocument", "OpHttpBindings", "Document"} {
		if target, ok := strings.CutPrefix(name, serializerPrefix+prefix); ok {
			s.visitSerializer(target, d)
			return
		}
		if target, ok := strings.CutPrefix(name, deserializerPrefix+prefix); ok {
			s.visitDeserializer(target, d)
			return
		}
	}
}

// visitRequestBuilder takes method and path from an operation's serializer.
func (s *sdkv2) visitRequestBuilder(d *ast.FuncDecl) {
	star, ok := d.Recv.List[0].Type.(*ast.StarExpr)
	if !ok {
		return
	}
	name, ok := star.X.(*ast.Ident)
	if !ok {
		return
	}
	op, ok := strings.CutPrefix(name.Name, serializerPrefix+"Op")
	if !ok {
		return
	}
	call := s.call(op)
	ast.Inspect(d.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			if selectorName(n.Fun) == "SplitURI" {
				call.HTTP.URI, _ = stringLiteral(n.Args[0])
			}
		case *ast.AssignStmt:
			if len(n.Lhs) == 1 && selectorName(n.Lhs[0]) == "Method" {
				call.HTTP.Method, _ = stringLiteral(n.Rhs[0])
			}
		}
		return true
	})
}

// visitErrors collects the exceptions that an operation's client recognizes.
func (s *sdkv2) visitErrors(op string, d *ast.FuncDecl) {
	call := s.call(op)
	ast.Inspect(d.Body, func(n ast.Node) bool {
		if c, ok := n.(*ast.CallExpr); ok && selectorName(c.Fun) == "EqualFold" {
			if name, ok := stringLiteral(c.Args[0]); ok && strings.HasSuffix(name, "Exception") {
				call.Errors = append(call.Errors, ref{Shape: name})
			}
		}
		return true
	})
}

// visitSerializer pairs each Go field with its JSON key, query name, header or
// path label. Every generated statement deals with exactly one field.
func (s *sdkv2) visitSerializer(target string, d *ast.FuncDecl) {
	for _, stmt := range d.Body.List {
		field := fieldOf(stmt, "v")
		if field == "" {
			continue
		}
		var header string
		ast.Inspect(stmt, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if id, ok := n.Lhs[0].(*ast.Ident); ok && id.Name == "locationName" {
					header, _ = stringLiteral(n.Rhs[0])
				}
			case *ast.CallExpr:
				s.bindCall(target, field, header, n)
			}
			return true
		})
	}
}

// bindCall records the binding that one encoder call makes.
func (s *sdkv2) bindCall(target, field, header string, c *ast.CallExpr) {
	locations := map[string]string{"Key": "", "SetQuery": "querystring", "AddQuery": "querystring", "SetURI": "uri", "SetHeader": "header", "AddHeader": "header"}
	location, ok := locations[selectorName(c.Fun)]
	if !ok || len(c.Args) != 1 {
		return
	}
	name, ok := stringLiteral(c.Args[0])
	if !ok {
		name = strings.ToLower(header)
	}
	if name != "" {
		s.bind(target, field, ref{Location: location, LocationName: name})
	}
}

// visitDeserializer pairs each Go field with the JSON key that fills it.
func (s *sdkv2) visitDeserializer(target string, d *ast.FuncDecl) {
	ast.Inspect(d.Body, func(n ast.Node) bool {
		clause, ok := n.(*ast.CaseClause)
		if !ok || len(clause.List) != 1 {
			return true
		}
		name, ok := stringLiteral(clause.List[0])
		if !ok {
			return true
		}
		for _, stmt := range clause.Body {
			if field := fieldOf(stmt, "sv"); field != "" {
				s.bind(target, field, ref{LocationName: name})
				break
			}
		}
		return true
	})
}

// bind remembers where a field travels; the first finding stays.
func (s *sdkv2) bind(target, field string, r ref) {
	if s.wire[target] == nil {
		s.wire[target] = map[string]ref{}
	}
	if _, ok := s.wire[target][field]; !ok {
		s.wire[target][field] = r
	}
}

// call returns the entry of an operation, created on first use.
func (s *sdkv2) call(op string) *operation {
	if s.calls[op] == nil {
		s.calls[op] = &operation{}
	}
	return s.calls[op]
}

// fieldOf returns the first field selected on the named variable.
func fieldOf(root ast.Node, variable string) string {
	field := ""
	ast.Inspect(root, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if field != "" || !ok {
			return field == ""
		}
		if id, ok := sel.X.(*ast.Ident); ok && id.Name == variable {
			field = sel.Sel.Name
		}
		return true
	})
	return field
}

// selectorName returns b for an expression a.b.
func selectorName(e ast.Expr) string {
	if sel, ok := e.(*ast.SelectorExpr); ok {
		return sel.Sel.Name
	}
	return ""
}

// stringLiteral returns the value of a string literal.
func stringLiteral(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

package main

import (
	"fmt"
	"sort"
	"strings"
)

// catalogFile renders the rows of one service and its exceptions.
func (g *generator) catalogFile() string {
	var b strings.Builder
	b.WriteString(header + "package catalog\n\n")
	fmt.Fprintf(&b, "import %q\n\n", module+"/"+g.svc.Package)
	lower := strings.ToLower(g.svc.Const)
	fmt.Fprintf(&b, "// %sModel returns the operations, exceptions and limits of %s.\n", lower, g.svc.Name)
	fmt.Fprintf(&b, "func %sModel() Model {\n\treturn Model{Service: %s, Operations: %sOperations(), Exceptions: %sExceptions(), Rules: %s.Rules}\n}\n\n", lower, g.svc.Const, lower, lower, g.svc.Package)
	fmt.Fprintf(&b, "// %sOperations returns one row per operation, ordered by name.\nfunc %sOperations() []Operation {\n\treturn []Operation{\n", lower, lower)
	used := map[string]bool{}
	for _, name := range sortedKeys(g.m.Operations) {
		g.row(&b, name, used)
	}
	b.WriteString("\t}\n}\n\n")
	fmt.Fprintf(&b, "// %sExceptions returns status and extra members of every exception.\nfunc %sExceptions() map[string]Exception {\n\treturn map[string]Exception{\n", lower, lower)
	for _, name := range sortedKeys(used) {
		g.exception(&b, name)
	}
	b.WriteString("\t}\n}\n")
	return b.String()
}

// row renders one operation.
func (g *generator) row(b *strings.Builder, name string, used map[string]bool) {
	op := g.m.Operations[name]
	status := op.HTTP.Status
	if status == 0 {
		status = 200
	}
	uri, _, _ := strings.Cut(op.HTTP.URI, "?")
	fmt.Fprintf(b, "\t\t{\n\t\t\tService: %s, Name: %q, Method: %q, URI: %q, Status: %d, Domain: %q, Scope: %q,\n", g.svc.Const, name, op.HTTP.Method, uri, status, op.domain, op.scope)
	if op.Deprecated {
		b.WriteString("\t\t\tDeprecated: true,\n")
	}
	fmt.Fprintf(b, "\t\t\tInput: func() any { return new(%s.%s) }, Output: func() any { return new(%s.%s) },\n", g.svc.Package, g.names[op.Input.Shape], g.svc.Package, g.names[op.Output.Shape])
	var names []string
	for _, r := range op.Errors {
		names = append(names, r.Shape)
		used[r.Shape] = true
	}
	sort.Strings(names)
	fmt.Fprintf(b, "\t\t\tErrors: %#v,\n\t\t},\n", names)
}

// exception renders one exception with its members beside the message.
func (g *generator) exception(b *strings.Builder, name string) {
	s := g.m.Shapes[name]
	fmt.Fprintf(b, "\t\t%q: {Status: %d", name, s.Error.Status)
	var extra []string
	for _, member := range sortedKeys(s.Members) {
		if !strings.EqualFold(member, "message") {
			extra = append(extra, member)
		}
	}
	if len(extra) > 0 {
		fmt.Fprintf(b, ", Members: %#v", extra)
	}
	b.WriteString("},\n")
}

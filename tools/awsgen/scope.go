package main

import (
	"fmt"
	"strings"
)

// loadScopes reads data/scope.tsv: the subsystem that owns each operation and
// how much Muster cares for it.
func loadScopes() (map[string][2]string, error) {
	text, err := data.ReadFile("data/scope.tsv")
	if err != nil {
		return nil, err
	}
	scopes := map[string][2]string{}
	for i, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		fields := strings.Split(line, "\t")
		if len(fields) != 4 {
			return nil, fmt.Errorf("scope.tsv:%d: want 4 columns, got %d", i+1, len(fields))
		}
		scopes[fields[0]+" "+fields[1]] = [2]string{fields[2], fields[3]}
	}
	return scopes, nil
}

// assignScopes fails unless operations and scope.tsv name the same set, so
// that a new operation cannot appear without someone deciding about it.
func assignScopes(m *model, service string, scopes map[string][2]string) error {
	for name, op := range m.Operations {
		scope, ok := scopes[service+" "+name]
		if !ok {
			return fmt.Errorf("scope.tsv has no row for %s %s", service, name)
		}
		op.domain, op.scope = scope[0], scope[1]
		delete(scopes, service+" "+name)
	}
	for key := range scopes {
		if strings.HasPrefix(key, service+" ") {
			return fmt.Errorf("scope.tsv names %s, which no model has", key)
		}
	}
	return nil
}

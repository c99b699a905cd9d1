package onboarding

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// Difference is a field that is not the same in two versions of a plan. Before is
// empty for one that came, After for one that went.
type Difference struct {
	Field  string `json:"field"`
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// Compare lists what differs between two plans, by field. Stages and steps are
// named by their ids, so that one that moved shows by its order only.
func Compare(before, after *Plan) ([]Difference, error) {
	was, err := flat(before)
	if err != nil {
		return nil, err
	}
	is, err := flat(after)
	if err != nil {
		return nil, err
	}
	all := maps.Clone(was)
	maps.Copy(all, is)
	out := []Difference{}
	for _, field := range slices.Sorted(maps.Keys(all)) {
		if was[field] != is[field] {
			out = append(out, Difference{Field: field, Before: was[field], After: is[field]})
		}
	}
	return out, nil
}

// flat is a plan as fields with values.
func flat(p *Plan) (map[string]string, error) {
	data, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("compare plans: %w", err)
	}
	var tree any
	if err := json.Unmarshal(data, &tree); err != nil {
		return nil, fmt.Errorf("compare plans: %w", err)
	}
	fields := map[string]string{}
	flatten(fields, "", tree)
	return fields, nil
}

// flatten adds the leaves of a tree.
func flatten(into map[string]string, at string, tree any) {
	switch v := tree.(type) {
	case map[string]any:
		for name, each := range v {
			if at != "" {
				name = at + "." + name
			}
			flatten(into, name, each)
		}
	case []any:
		for i, each := range v {
			name := strconv.Itoa(i)
			if m, ok := each.(map[string]any); ok {
				if id, ok := m["id"].(string); ok {
					name = id
				}
			}
			flatten(into, at+"["+name+"]", each)
		}
	case string:
		into[at] = v
	case float64:
		into[at] = strconv.FormatFloat(v, 'f', -1, 64)
	case bool:
		into[at] = strconv.FormatBool(v)
	}
}

// Package wire turns HTTP requests into the generated wire structs and these
// into replies. It owns the REST-JSON rules that all services share: where a
// value travels, how it is written there, and which limits it must keep. It
// knows no operation and no domain. It starts no goroutines; a Codec is safe
// for concurrent use.
//
// A struct describes itself by field tags:
//
//	wire:"name"      the member's name in the body, query, header or path
//	in:"uri"         uri, query, header or payload; the JSON body without it
//	rule:"shape"     the Rule that the value must keep
//	required:"true"  the request is refused without it
//
// A pointer, slice or map that is nil was absent; a required member is a plain
// value. Unknown members are ignored, as the service does.
package wire

import (
	"fmt"
	"reflect"
	"regexp"
	"sync"
)

// Rule is the limits that the published model sets for one shape.
type Rule struct {
	// Min and Max bound a number, or the length of anything else.
	Min, Max *float64
	// Pattern must match a whole string. Shown is the model's own spelling of
	// it for messages, when Go's regexp needs another one.
	Pattern, Shown string
	Enum           []string
	// Secret keeps the value out of messages.
	Secret bool
	// Elem and Key name the rules of elements and map keys.
	Elem, Key string
}

// Limits that hold for every request, whatever its model says.
const (
	// MaxDepth bounds the nesting of a JSON body.
	MaxDepth = 64
	// maxViolations bounds how many mistakes one message names.
	maxViolations = 8
)

// Codec decodes and encodes the wire structs of one service.
type Codec struct {
	rules map[string]*rule
	// plans caches how a struct type is laid out: reflect.Type to *plan.
	plans sync.Map
}

// rule is a Rule ready for use.
type rule struct {
	Rule
	pattern   *regexp.Regexp
	elem, key *rule
}

// NewCodec prepares the limits of a service.
func NewCodec(rules map[string]Rule) (*Codec, error) {
	c := &Codec{rules: make(map[string]*rule, len(rules))}
	for name, r := range rules {
		compiled := &rule{Rule: r}
		if r.Pattern != "" {
			pattern, err := regexp.Compile("^(?:" + r.Pattern + ")$")
			if err != nil {
				return nil, fmt.Errorf("rule %s: %w", name, err)
			}
			compiled.pattern = pattern
		}
		if compiled.Shown == "" {
			compiled.Shown = r.Pattern
		}
		c.rules[name] = compiled
	}
	for name, r := range c.rules {
		for _, link := range []struct {
			to   string
			into **rule
		}{{r.Elem, &r.elem}, {r.Key, &r.key}} {
			if link.to == "" {
				continue
			}
			target, ok := c.rules[link.to]
			if !ok {
				return nil, fmt.Errorf("rule %s refers to unknown rule %s", name, link.to)
			}
			*link.into = target
		}
	}
	return c, nil
}

// plan is the layout of one struct type.
type plan struct {
	fields []field
	// body maps JSON names to positions in fields.
	body map[string]int
	// payload is the position of the member that is the whole body, or -1.
	payload int
}

// field is one member.
type field struct {
	index    int
	name     string
	place    string
	rule     *rule
	required bool
}

// plan returns the layout of t, from the cache after the first time.
func (c *Codec) plan(t reflect.Type) (*plan, error) {
	if cached, ok := c.plans.Load(t); ok {
		if p, ok := cached.(*plan); ok {
			return p, nil
		}
	}
	p := &plan{body: map[string]int{}, payload: -1}
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		f := field{index: i, name: tag.Get("wire"), place: tag.Get("in"), required: tag.Get("required") == "true"}
		if f.name == "" {
			return nil, fmt.Errorf("%s.%s has no wire tag", t, t.Field(i).Name)
		}
		if name := tag.Get("rule"); name != "" {
			f.rule = c.rules[name]
			if f.rule == nil {
				return nil, fmt.Errorf("%s.%s refers to unknown rule %s", t, t.Field(i).Name, name)
			}
		}
		switch f.place {
		case placeBody:
			p.body[f.name] = len(p.fields)
		case placePayload:
			p.payload = len(p.fields)
		}
		p.fields = append(p.fields, f)
	}
	c.plans.Store(t, p)
	return p, nil
}

// Places a member can travel in.
const (
	placeBody    = ""
	placeURI     = "uri"
	placeQuery   = "query"
	placeHeader  = "header"
	placePayload = "payload"
)

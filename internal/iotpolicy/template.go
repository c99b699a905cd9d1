package iotpolicy

import (
	"fmt"
	"slices"
	"strings"
)

// template is a policy text, split at its variables.
type template struct {
	// source is the text as written.
	source string
	parts  []part
	// constant says that there is no variable, and ready is then the pattern
	// that every connection shares.
	constant bool
	ready    pattern
}

// part is a literal, encoded when it may contain wildcards, or a variable.
type part struct {
	literal  string
	variable *variable
}

// templateRules say what a text may contain where it stands.
type templateRules struct {
	// wildcards makes * and ? match other characters.
	wildcards bool
	// variables makes ${…} a variable; false under version 2008-10-17.
	variables bool
	// dialect knows the variables, nil those of device policies.
	dialect *Dialect
}

// parseTemplate splits a text. The error is about the first bad variable.
func parseTemplate(source string, rules templateRules) (template, error) {
	t := template{source: source}
	rest := source
	for rules.variables {
		before, after, found := strings.Cut(rest, "${")
		if !found {
			break
		}
		name, tail, closed := strings.Cut(after, "}")
		if !closed {
			return template{}, fmt.Errorf("the variable that begins with %q has no closing brace", clip("${"+after))
		}
		t.addLiteral(before, rules.wildcards)
		if err := t.addVariable(name, rules.dialect); err != nil {
			return template{}, err
		}
		rest = tail
	}
	t.addLiteral(rest, rules.wildcards)
	if t.constant = !slices.ContainsFunc(t.parts, func(p part) bool { return p.variable != nil }); t.constant {
		t.ready = newPattern(t.joined())
	}
	return t, nil
}

// addLiteral appends text between variables.
func (t *template) addLiteral(text string, wildcards bool) {
	if wildcards {
		text = encode(text)
	}
	if text != "" {
		t.parts = append(t.parts, part{literal: text})
	}
}

// addVariable appends a variable, or the character that ${*}, ${?} and ${$}
// stand for.
func (t *template) addVariable(name string, dialect *Dialect) error {
	if name == "*" || name == "?" || name == "$" {
		t.parts = append(t.parts, part{literal: name})
		return nil
	}
	v, ok := dialect.variable(name)
	if !ok {
		return fmt.Errorf("the policy variable ${%s} is not known", clip(name))
	}
	if !v.substitutes() {
		return fmt.Errorf("the policy variable ${%s} can be used as a condition key only", v.name)
	}
	t.parts = append(t.parts, part{variable: &v})
	return nil
}

// joined returns the encoded text of a constant template.
func (t *template) joined() string {
	var b strings.Builder
	for _, p := range t.parts {
		b.WriteString(p.literal)
	}
	return b.String()
}

// resolve returns the pattern for one connection. Without a value for some
// variable there is none, and missing names the variables concerned.
func (t *template) resolve(c *Context) (p pattern, missing []string) {
	if t.constant {
		return t.ready, nil
	}
	var b strings.Builder
	for _, p := range t.parts {
		if p.variable == nil {
			b.WriteString(p.literal)
			continue
		}
		value, ok := c.substitute(*p.variable)
		if !ok {
			missing = append(missing, p.variable.name)
			continue
		}
		b.WriteString(value)
	}
	if missing != nil {
		return pattern{}, missing
	}
	return newPattern(b.String()), nil
}

// clip shortens text of the caller's for a message.
func clip(text string) string {
	const limit = 60
	runes := []rune(text)
	if len(runes) <= limit {
		return text
	}
	return string(runes[:limit]) + "…"
}

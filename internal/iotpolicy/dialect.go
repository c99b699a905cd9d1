package iotpolicy

import (
	"slices"
	"strings"
)

// Dialect is what documents of a kind other than device policies may say. The
// grammar, patterns, operators and decisions are the same.
type Dialect struct {
	// Noun is what errors call a document of this kind, with its article.
	Noun string
	// Keys are its condition keys and variables beside aws:SourceIp,
	// aws:CurrentTime and aws:EpochTime, which every dialect has.
	Keys []Key
	// Principal is set for documents whose statements name principals instead of
	// resources. It returns the text, with wildcards, that the resource of a
	// decision must match for the caller to be meant.
	Principal func(name string) (string, error)
}

// Key is a condition key, answered by Context.Keys.
type Key struct {
	Name string
	// Variable says that ${Name} may stand in texts.
	Variable bool
}

// ParseDialect is Parse for a document of another kind.
func ParseDialect(document []byte, limits Limits, dialect *Dialect) (*Document, error) {
	return parse(document, limits, dialect)
}

// variable recognizes a variable or condition key; without a dialect those of
// device policies.
func (d *Dialect) variable(text string) (variable, bool) {
	if d == nil {
		return parseVariable(text)
	}
	for _, v := range scalars() {
		common := v.kind == fromSourceIP || v.kind == fromCurrentTime || v.kind == fromEpochTime
		if common && strings.EqualFold(v.name, text) {
			return v, true
		}
	}
	for _, k := range d.Keys {
		if strings.EqualFold(k.Name, text) {
			v := variable{kind: fromKey, name: k.Name}
			if !k.Variable {
				v.index = wholeList
			}
			return v, true
		}
	}
	return variable{}, false
}

// noun is what errors call the document.
func (d *Dialect) noun() string {
	if d == nil {
		return "a device policy"
	}
	return d.Noun
}

// why ends the sentence that a document has no principals.
func (d *Dialect) why() string {
	if d.target()[0] == "Principal" {
		return ""
	}
	return ": it applies to what it is attached to"
}

// target is the pair of members that say what a statement is about.
func (d *Dialect) target() [2]string {
	if d != nil && d.Principal != nil {
		return [2]string{"Principal", "NotPrincipal"}
	}
	return [2]string{"Resource", "NotResource"}
}

// principal parses the value of Principal: an asterisk, or an object whose only
// member is AWS.
func (p *parser) principal(d *draft) error {
	v, err := p.next()
	if err != nil {
		return err
	}
	if star, ok := v.token.(string); ok {
		if star != "*" {
			return p.problem(v.at, `Principal must be "*" or {"AWS": …}`)
		}
		d.resources = append(d.resources, text{source: star, at: v.at})
		return nil
	}
	err = p.object(v, "Principal", func(name value, key string) error {
		if key != "AWS" {
			return p.problem(name.at, "principals of the kind %q are not offered; AWS is", clip(key))
		}
		return p.list("Principal", &d.resources)
	})
	if err == nil && len(d.resources) == 0 {
		err = p.problem(v.at, "Principal is empty")
	}
	return err
}

// finishPrincipals turns principals into what decisions match.
func (p *parser) finishPrincipals(d *draft) error {
	for _, source := range d.resources {
		wanted, err := p.dialect.Principal(source.source)
		if err != nil {
			return p.problem(source.at, "%v", err)
		}
		t, err := parseTemplate(wanted, templateRules{wildcards: true})
		if err != nil {
			return p.problem(source.at, "%v", err)
		}
		d.statement.Resources = append(d.statement.Resources, source.source)
		d.statement.resources = append(d.statement.resources, t)
	}
	return nil
}

// Touches reports whether a statement of the effect is about the action,
// whatever its resources and conditions.
func (d *Document) Touches(effect Effect, action string) bool {
	name := strings.ToLower(action)
	for i := range d.Statements {
		if d.Statements[i].Effect == effect && d.Statements[i].covers(name) {
			return true
		}
	}
	return false
}

// AlwaysDenies reports whether a statement denies the action on everything and
// under no condition.
func (d *Document) AlwaysDenies(action string) bool {
	name := strings.ToLower(action)
	for i := range d.Statements {
		st := &d.Statements[i]
		if st.Effect != Deny || st.NotResource || len(st.conditions) > 0 || !st.covers(name) {
			continue
		}
		for j := range st.resources {
			if st.resources[j].constant && st.resources[j].ready.kind == kindEverything {
				return true
			}
		}
	}
	return false
}

// Conditional reports whether a document's decisions depend on more than action
// and resource: whether a statement has a condition or a variable.
func (d *Document) Conditional() bool {
	for i := range d.Statements {
		st := &d.Statements[i]
		if len(st.conditions) > 0 {
			return true
		}
		for j := range st.resources {
			if !st.resources[j].constant {
				return true
			}
		}
	}
	return false
}

// Naming returns the part of a document whose statements have one of the names
// as a resource or principal, literally.
func (d *Document) Naming(names []string) *Document {
	part := &Document{Version: d.Version, ID: d.ID}
	for _, st := range d.Statements {
		if slices.ContainsFunc(st.Resources, func(r string) bool { return slices.Contains(names, r) }) {
			part.Statements = append(part.Statements, st)
		}
	}
	return part
}

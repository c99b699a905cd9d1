package iotpolicy

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Parse checks a document and returns it. Every error is a *SyntaxError. Zero
// limits mean DefaultLimits.
func Parse(document []byte, limits Limits) (*Document, error) { return parse(document, limits, nil) }

// parse checks a document of a dialect, nil for device policies.
func parse(document []byte, limits Limits, dialect *Dialect) (*Document, error) {
	r, err := newReader(document, limits)
	if err != nil {
		return nil, err
	}
	p := &parser{reader: r, dialect: dialect, doc: &Document{Version: Version2008}}
	if err := p.document(); err != nil {
		return nil, err
	}
	return p.doc, nil
}

// parser builds a document. Texts with variables wait in drafts, because the
// version that gives ${…} its meaning may come last.
type parser struct {
	*reader
	dialect *Dialect
	doc     *Document
	drafts  []draft
}

// draft is a statement whose texts are not interpreted yet.
type draft struct {
	at                 int
	statement          Statement
	actions, resources []text
	conditions         []conditionDraft
	has                map[string]bool
}

// text is a string of the document and its place.
type text struct {
	source string
	at     int
	place  Place
}

// document parses the top level.
func (p *parser) document() error {
	top, err := p.next()
	if err != nil {
		return err
	}
	hasStatement := false
	err = p.object(top, "a policy document", func(name value, key string) error {
		var err error
		switch key {
		case "Version":
			err = p.version()
		case "Id":
			p.doc.ID, _, err = p.text("Id")
		case "Statement":
			hasStatement = true
			err = p.elements(p.statement)
		default:
			err = p.problem(name.at, "a policy document has no member %q", clip(key))
		}
		return err
	})
	if err != nil {
		return err
	}
	if !hasStatement || len(p.drafts) == 0 {
		return p.problem(top.at, "the policy document has no Statement")
	}
	return p.finish()
}

// version accepts the two published language versions.
func (p *parser) version() error {
	version, v, err := p.text("Version")
	if err != nil {
		return err
	}
	if version != Version2008 && version != Version2012 {
		return p.problem(v.at, "Version must be %q or %q", Version2012, Version2008)
	}
	p.doc.Version = version
	return nil
}

// statement parses one element of Statement.
func (p *parser) statement(v value) error {
	d := draft{at: v.at, statement: Statement{Place: v.place}, has: map[string]bool{}}
	err := p.object(v, "a statement", func(name value, key string) error {
		d.has[key] = true
		switch key {
		case "Sid":
			return p.sid(&d)
		case "Effect":
			return p.effect(&d)
		case "Action", "NotAction":
			d.statement.NotAction = key == "NotAction"
			return p.list(key, &d.actions)
		case "Principal":
			if p.dialect.target()[0] == key {
				return p.principal(&d)
			}
		case "Resource", "NotResource":
			if p.dialect.target()[0] != "Resource" {
				return p.problem(name.at, "%s has no %s: it is about what it is attached to", p.dialect.noun(), key)
			}
			d.statement.NotResource = key == "NotResource"
			return p.list(key, &d.resources)
		case "Condition":
			return p.condition(&d)
		}
		if key == "NotPrincipal" || key == "Principal" {
			return p.problem(name.at, "%s has no %s%s", p.dialect.noun(), key, p.dialect.why())
		}
		return p.problem(name.at, "a statement has no member %q", clip(key))
	})
	if err != nil {
		return err
	}
	if err := p.complete(&d); err != nil {
		return err
	}
	p.drafts = append(p.drafts, d)
	return nil
}

// complete checks that a statement has what it must have, once.
func (p *parser) complete(d *draft) error {
	if !d.has["Effect"] {
		return p.problem(d.at, "the statement has no Effect")
	}
	for _, pair := range [][2]string{{"Action", "NotAction"}, p.dialect.target()} {
		if d.has[pair[0]] && d.has[pair[1]] {
			return p.problem(d.at, "the statement has both %s and %s", pair[0], pair[1])
		}
		if !d.has[pair[0]] && !d.has[pair[1]] {
			return p.problem(d.at, "the statement has neither %s nor %s", pair[0], pair[1])
		}
	}
	return nil
}

// sid parses a statement id; it is a label, unique in its document.
func (p *parser) sid(d *draft) error {
	sid, v, err := p.text("Sid")
	if err != nil {
		return err
	}
	for i := range p.drafts {
		if sid != "" && p.drafts[i].statement.Sid == sid {
			return p.problem(v.at, "two statements have the Sid %q", clip(sid))
		}
	}
	d.statement.Sid = sid
	return nil
}

// effect parses Allow or Deny, which are case-sensitive.
func (p *parser) effect(d *draft) error {
	effect, v, err := p.text("Effect")
	if err != nil {
		return err
	}
	d.statement.Effect = Effect(effect)
	if d.statement.Effect != Allow && d.statement.Effect != Deny {
		return p.problem(v.at, "Effect must be %q or %q", Allow, Deny)
	}
	return nil
}

// list parses a string or a non-empty array of strings.
func (p *parser) list(what string, into *[]text) error {
	at := int(p.dec.InputOffset())
	err := p.elements(func(v value) error {
		source, ok := v.token.(string)
		if !ok {
			return p.problem(v.at, "%s must be a string or an array of strings", what)
		}
		*into = append(*into, text{source: source, at: v.at, place: v.place})
		return nil
	})
	if err == nil && len(*into) == 0 {
		err = p.problem(at, "%s is empty", what)
	}
	return err
}

// finish interprets the texts now that the version is known.
func (p *parser) finish() error {
	for i := range p.drafts {
		d := &p.drafts[i]
		if err := p.finishActions(d); err != nil {
			return err
		}
		finishTarget := p.finishResources
		if p.dialect.target()[0] == "Principal" {
			finishTarget = p.finishPrincipals
		}
		if err := finishTarget(d); err != nil {
			return err
		}
		if err := p.finishConditions(d); err != nil {
			return err
		}
		p.doc.Statements = append(p.doc.Statements, d.statement)
	}
	return nil
}

// finishActions checks action names and makes them case-insensitive.
func (p *parser) finishActions(d *draft) error {
	for _, a := range d.actions {
		if err := checkAction(a.source); err != nil {
			return p.problem(a.at, "%v", err)
		}
		d.statement.Actions = append(d.statement.Actions, a.source)
		d.statement.actionPlaces = append(d.statement.actionPlaces, a.place)
		d.statement.actions = append(d.statement.actions, newPattern(encode(strings.ToLower(a.source))))
	}
	return nil
}

// checkAction accepts an asterisk or vendor:name with wildcards in the name.
// Names that no service defines pass: they match nothing.
func checkAction(action string) error {
	if action == "*" {
		return nil
	}
	vendor, name, found := strings.Cut(action, ":")
	if !found || vendor == "" || name == "" {
		return fmt.Errorf("the action %q is not of the form vendor:name", clip(action))
	}
	if strings.Trim(vendor, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
		return fmt.Errorf("the vendor of the action %q has characters that no vendor has", clip(action))
	}
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789*?") != "" {
		return fmt.Errorf("the name of the action %q has characters that no action has", clip(action))
	}
	return nil
}

// finishResources checks resource names and their variables.
func (p *parser) finishResources(d *draft) error {
	for _, source := range d.resources {
		if !strings.HasPrefix(source.source, "arn:") && !strings.HasPrefix(source.source, "*") {
			return p.problem(source.at, "the resource %q is neither an ARN nor an asterisk", clip(source.source))
		}
		t, err := parseTemplate(source.source, p.rules(true))
		if err != nil {
			return p.problem(source.at, "%v", err)
		}
		d.statement.Resources = append(d.statement.Resources, source.source)
		d.statement.resourcePlaces = append(d.statement.resourcePlaces, source.place)
		d.statement.resources = append(d.statement.resources, t)
	}
	return nil
}

// rules returns how texts of this document are read.
func (p *parser) rules(wildcards bool) templateRules {
	return templateRules{wildcards: wildcards, variables: p.doc.Version == Version2012, dialect: p.dialect}
}

// scalar returns a condition value as text; numbers and booleans may stand
// without quotes.
func (p *parser) scalar(v value) (text, error) {
	switch t := v.token.(type) {
	case string:
		return text{source: t, at: v.at, place: v.place}, nil
	case json.Number:
		return text{source: t.String(), at: v.at, place: v.place}, nil
	case bool:
		return text{source: strconv.FormatBool(t), at: v.at, place: v.place}, nil
	}
	return text{}, p.problem(v.at, "a condition value must be a string, a number or a boolean")
}

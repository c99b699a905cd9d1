package iotpolicy

import (
	"slices"
	"strings"

	"github.com/muster-iot/muster/internal/fleet"
)

// effects looks at what statements do to each other.
func (l *linter) effects() {
	if l.st.Effect == Deny {
		l.denySubscribe()
		return
	}
	l.overruled()
	l.receive()
	l.companions()
}

// denySubscribe looks for a denial of filters that leaves messages to wider
// ones.
func (l *linter) denySubscribe() {
	if !l.about(ActionSubscribe) || l.st.NotResource {
		return
	}
	for i := range l.shapes[l.index] {
		s := &l.shapes[l.index][i]
		if !s.is(fleet.ARNTopicFilter) || l.denied(ActionReceive, strings.Replace(s.source, ":"+fleet.ARNTopicFilter+"/"+s.name, ":"+fleet.ARNTopic+"/"+topicsOf(s.name), 1)) {
			continue
		}
		l.tell(CodeDenySubscribe, Warning, l.resourcePlace(i),
			"this refuses filters with that text only: a wider one such as # still gets the messages; deny iot:Receive on topic/%s as well", clip(topicsOf(s.name)))
	}
}

// topicsOf writes the topics of a filter as a policy does.
func topicsOf(filter string) string {
	levels := strings.Split(filter, "/")
	for i := range levels {
		if levels[i] == "+" || levels[i] == "#" {
			levels[i] = "*"
		}
	}
	return strings.Join(levels, "/")
}

// maxCompared bounds the statements that one is compared with.
const maxCompared = 64

// denied reports whether some Deny without conditions covers an action on a
// resource, which may itself have wildcards and variables.
func (l *linter) denied(action, resource string) bool {
	rules := l.ruled(Deny, action)
	return slices.ContainsFunc(rules[:min(len(rules), maxCompared)], func(i int) bool {
		st := &l.doc.Statements[i]
		return len(st.conditions) == 0 && !st.NotResource && slices.ContainsFunc(st.resources, func(t template) bool { return t.contains(resource) })
	})
}

// contains reports whether everything that the other text can match is matched
// by this one too; false when that is not plain to see.
func (t *template) contains(other string) bool {
	if t.source == other {
		return true
	}
	// An asterisk stands for whatever the other text has there, its wildcards
	// included; a question mark does not.
	return t.constant && !strings.Contains(t.source, "?") && t.ready.match(other)
}

// overruled looks for an Allow that a Deny leaves nothing of.
func (l *linter) overruled() {
	if l.st.NotAction || l.st.NotResource {
		return
	}
	for i, p := range l.st.actions {
		if p.kind != kindExact || !slices.ContainsFunc(deviceActions(), func(name string) bool { return strings.EqualFold(name, p.text) }) {
			continue
		}
		if !slices.ContainsFunc(l.st.Resources, func(resource string) bool { return !l.denied(p.text, resource) }) {
			l.tell(CodeNeverAllows, Error, l.st.actionPlaces[i], "a Deny of this document covers %s on all resources of this statement; take one of them out", l.st.Actions[i])
		}
	}
}

// receive looks for subscriptions of which nothing may be delivered.
func (l *linter) receive() {
	if !l.about(ActionSubscribe) || l.st.NotResource {
		return
	}
	receives := l.ruled(Allow, ActionReceive)
	if len(receives) == 0 {
		l.tell(CodeMissingReceive, Warning, l.st.Place, "this lets a device subscribe, and nothing here lets it receive: no message arrives; allow iot:Receive on the topics")
		return
	}
	for i := range l.shapes[l.index] {
		s := &l.shapes[l.index][i]
		if !s.is(fleet.ARNTopicFilter) || slices.ContainsFunc(receives[:min(len(receives), maxCompared)], func(j int) bool { return l.mayReceive(j, s.name) }) {
			continue
		}
		l.tell(CodeMissingReceive, Warning, l.resourcePlace(i), "nothing here lets a device receive what it subscribes to by %q; allow iot:Receive on topic/%s",
			clip(s.rest), clip(topicsOf(s.name)))
	}
}

// mayReceive reports whether a statement may be about some topic of a filter.
// For a shared subscription a topic may be named with the filter's prefix or
// without: a delivery takes either for permission.
func (l *linter) mayReceive(statement int, filter string) bool {
	if l.doc.Statements[statement].NotResource {
		return true
	}
	filters := []string{filter}
	if rest, shared := strings.CutPrefix(filter, "$share/"); shared {
		_, plain, _ := strings.Cut(rest, "/")
		filters = append(filters, plain)
	}
	return slices.ContainsFunc(l.shapes[statement], func(s shape) bool {
		if s.everything || !s.is(fleet.ARNTopic) {
			return s.mayBe(fleet.ARNTopic)
		}
		return slices.ContainsFunc(filters, func(filter string) bool {
			a, b := beforeWildcard(topicsOf(filter)), beforeWildcard(s.name)
			return strings.HasPrefix(a, b) || strings.HasPrefix(b, a) || (strings.Contains(a, "${") != strings.Contains(b, "${"))
		})
	})
}

// beforeWildcard is a text up to its first asterisk or question mark.
func beforeWildcard(text string) string {
	if i := strings.IndexAny(text, "*?"); i >= 0 {
		return text[:i]
	}
	return text
}

// companions looks for permissions that need another one.
func (l *linter) companions() {
	none := func(actions ...string) bool {
		return !slices.ContainsFunc(actions, func(action string) bool { return len(l.ruled(Allow, action)) > 0 })
	}
	named := func(action string) bool {
		return slices.ContainsFunc(l.st.actions, func(p pattern) bool { return p.kind == kindExact && strings.EqualFold(p.text, action) }) && !l.st.NotAction
	}
	switch {
	case named(ActionRetainPublish) && none(ActionPublish):
		l.tell(CodeRetainAlone, Warning, l.st.Place, "a retained message needs iot:Publish too, which nothing here allows")
	case named(ActionConnect) && none(ActionPublish, ActionSubscribe, ActionReceive):
		l.tell(CodeConnectOnly, Info, l.st.Place, "a device may connect and then do nothing unless another policy allows iot:Publish or iot:Subscribe")
	case (named(ActionPublish) || named(ActionSubscribe)) && none(ActionConnect) && l.first(Allow):
		l.tell(CodeNoConnect, Info, l.st.Place, "nothing here allows iot:Connect; over MQTT another policy has to")
	}
	shadows := named(ActionGetThingShadow) || named(ActionUpdateThingShadow) || named(ActionDeleteThingShadow)
	if shadows && !l.namesShadowTopics() {
		l.tell(CodeHTTPOnly, Info, l.st.Place, "these actions are asked over HTTPS only; over MQTT a shadow needs iot:Publish, iot:Subscribe and iot:Receive on $aws/things/…/shadow/…")
	}
}

// first reports whether the statement at hand is the first with its effect.
func (l *linter) first(effect Effect) bool {
	return slices.IndexFunc(l.doc.Statements, func(st Statement) bool { return st.Effect == effect }) == l.index
}

// namesShadowTopics reports whether some Allow may be about reserved topics.
func (l *linter) namesShadowTopics() bool {
	return slices.ContainsFunc(l.ruled(Allow, ActionPublish), func(i int) bool {
		return l.doc.Statements[i].NotResource || slices.ContainsFunc(l.shapes[i], func(s shape) bool {
			return s.everything || s.is(fleet.ARNTopic) && (strings.HasPrefix(s.name, "$aws") || strings.HasPrefix(s.name, "*"))
		})
	})
}

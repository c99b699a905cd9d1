package iotpolicy

import (
	"slices"
	"strings"

	"github.com/muster-iot/muster/internal/fleet"
)

// resources looks for resources that can match nothing.
func (l *linter) resources() {
	for i := range l.shapes[l.index] {
		s, at := &l.shapes[l.index][i], l.resourcePlace(i)
		switch {
		case s.incomplete:
			l.tell(CodeNoIoTResource, Error, at, "%q is no whole ARN and matches nothing; write %s", clip(s.source), l.o.Scope.ARN("<kind>", "<name>"))
		case s.other:
			l.tell(CodeNoIoTResource, Error, at, "%q is no resource of aws:iot and matches nothing; write %s", clip(s.source), l.o.Scope.ARN("<kind>", "<name>"))
		case s.foreign:
			l.tell(CodeForeignScope, Error, at, "the resource %q is in another region or account than %s and %s and matches nothing; rewrite it",
				clip(s.source), l.o.Scope.Region, l.o.Scope.Account)
		}
		if l.doc.Version == Version2008 && strings.Contains(s.source, "${") {
			l.tell(CodeVariablesOff, Error, at, "variables are plain text under version %s, so this matches nothing; write Version %s", Version2008, Version2012)
		}
		if l.doc.Version == Version2012 && ofConnection(s.source) && l.callsOnly() {
			l.tell(CodeNoConnection, Error, at, "these actions are asked over HTTPS, where the client id and the connection's thing have no value, so this matches nothing; "+
				"name the thing, or use MQTT's topics")
		}
		if s.is(fleet.ARNTopic) && mqttWildcard(s.name) {
			l.tell(CodeMQTTWildcard, Error, at, "+ and # are plain characters in a policy and no topic contains them, so %q matches nothing; write * for them", clip(s.rest))
		}
	}
}

// ofConnection reports whether a text has a variable that only a connection has
// a value for.
func ofConnection(text string) bool {
	lower := strings.ToLower(text)
	return strings.Contains(lower, "${iot:connection.") || spoofable(lower)
}

// callsOnly reports whether the statement is about calls over HTTPS alone.
func (l *linter) callsOnly() bool {
	packets := slices.ContainsFunc([]string{ActionConnect, ActionPublish, ActionRetainPublish, ActionSubscribe, ActionReceive}, l.about)
	return !packets && slices.ContainsFunc(deviceActions(), l.about)
}

// mqttWildcard reports whether a level of a name is + or #.
func mqttWildcard(name string) bool {
	return slices.ContainsFunc(strings.Split(name, "/"), func(level string) bool { return level == "+" || level == "#" })
}

// grants looks for Allow statements that reach beyond the device they are for.
func (l *linter) grants() {
	if l.st.Effect != Allow {
		return
	}
	if l.st.NotAction {
		l.tell(CodeAllowNotAction, Warning, l.st.Place, "this allows every action but those named, also ones that are added later; name what is allowed")
	}
	if l.st.NotResource {
		l.tell(CodeAllowNotResource, Info, l.st.Place, "this allows every resource but those named; name what is allowed if that is known")
		return
	}
	if l.everything() && len(l.st.conditions) == 0 && !slices.ContainsFunc(
		[]string{ActionConnect, ActionPublish, ActionSubscribe, ActionReceive}, func(action string) bool { return !l.about(action) }) {
		l.tell(CodeAllowEverything, Warning, l.st.Place, "this lets a device do everything as every client; name actions, and resources with ${iot:Connection.Thing.ThingName}")
		return
	}
	for i := range l.shapes[l.index] {
		s, at := &l.shapes[l.index][i], l.resourcePlace(i)
		if s.other || s.foreign || s.incomplete {
			continue
		}
		l.clientIDs(s, at)
		l.others(s, at)
		l.variables(s, at)
		l.openEnded(s, at)
	}
}

// clientIDs looks for permission to connect as anybody.
func (l *linter) clientIDs(s *shape, at Place) {
	if !l.about(ActionConnect) || !s.mayBe(fleet.ARNClient) || l.st.attachedOnly() || l.unattachedDenied() {
		return
	}
	const instead = `; write client/${iot:Connection.Thing.ThingName}, or add the condition {"Bool":{"iot:Connection.Thing.IsAttached":"true"}}`
	switch name := strings.ToLower(s.name); {
	case l.provisionsOnly():
		if s.everything || wild(s.name) || strings.HasPrefix(name, "${iot:clientid}") {
			l.tell(CodeAnyClientID, Info, at, "who provisions itself may connect under the client id of a device that is in service, and so end its connection; "+
				"a beginning of its own, such as client/new-*, keeps it apart")
		}
	case s.everything, strings.ContainsAny(withoutVariables(s.name), "*?"):
		l.tell(CodeAnyClientID, Warning, at, "a device may connect under client ids that are not its own, and so end the connections of others"+instead)
	case strings.Contains(name, "${iot:clientid}"):
		l.tell(CodeAnyClientID, Warning, at, "${iot:ClientId} is what the device says it is, so this allows every client id"+instead)
	}
}

// provisionsOnly reports whether the document allows messages on the topics of
// provisioning alone. Its devices are no things yet, so that nothing can bind
// their client ids.
func (l *linter) provisionsOnly() bool {
	some := false
	for _, action := range []string{ActionPublish, ActionSubscribe, ActionReceive} {
		for _, i := range l.ruled(Allow, action) {
			if l.doc.Statements[i].NotResource {
				return false
			}
			for _, s := range l.shapes[i] {
				switch {
				case s.other || s.foreign || s.incomplete:
				case s.everything || !strings.Contains(s.rest, "/"):
					return false
				case s.is(fleet.ARNTopic), s.is(fleet.ARNTopicFilter):
					if !strings.HasPrefix(s.name, "$aws/certificates/create") && !strings.HasPrefix(s.name, "$aws/provisioning-templates/") {
						return false
					}
					some = true
				case s.mayBe(fleet.ARNTopic), s.mayBe(fleet.ARNTopicFilter):
					return false
				}
			}
		}
	}
	return some
}

// attachedOnly reports whether the statement holds for a connection of an
// attached thing only, or names the client id by what the device cannot choose.
func (st *Statement) attachedOnly() bool {
	return slices.ContainsFunc(st.conditions, func(c condition) bool {
		if c.operator.negated || c.ifExists || c.qualifier == forAll || len(c.values) == 0 {
			return false
		}
		switch c.key.kind {
		case fromIsAttached:
			return !slices.ContainsFunc(c.values, func(t template) bool { return !strings.EqualFold(t.source, "true") })
		case fromClientID:
			return !slices.ContainsFunc(c.values, func(t template) bool {
				return strings.ContainsAny(withoutVariables(t.source), "*?") || spoofable(t.source)
			})
		case fromThingName, fromCertificateID:
			return true
		case fromSourceIP, fromThingTypeName, fromAttribute, fromDomainName, fromCertificate, fromAvailableKeys,
			fromConnectAttributes, fromCurrentTime, fromEpochTime, fromKey:
		}
		return false
	})
}

// unattachedDenied reports whether a Deny keeps every connection of no attached
// thing out, whose client id is therefore that of its thing.
func (l *linter) unattachedDenied() bool {
	rules := l.ruled(Deny, ActionConnect)
	return slices.ContainsFunc(rules[:min(len(rules), maxCompared)], func(i int) bool {
		st := &l.doc.Statements[i]
		if st.NotResource || len(st.conditions) != 1 || !slices.ContainsFunc(l.shapes[i], func(s shape) bool {
			return s.everything || !s.other && !s.foreign && s.rest == fleet.ARNClient+"/*"
		}) {
			return false
		}
		c := &st.conditions[0]
		return c.key.kind == fromIsAttached && !c.operator.negated && c.operator.family != nullFamily &&
			slices.ContainsFunc(c.values, func(t template) bool { return strings.EqualFold(t.source, "false") })
	})
}

// spoofable reports whether a text follows what the device says of itself.
func spoofable(text string) bool { return strings.Contains(strings.ToLower(text), "${iot:clientid}") }

// withoutVariables drops ${…} from a text, so that what is left is literal or a
// wildcard.
func withoutVariables(text string) string {
	for {
		before, after, found := strings.Cut(text, "${")
		if !found {
			return text
		}
		_, tail, closed := strings.Cut(after, "}")
		if !closed {
			return text
		}
		text = before + tail
	}
}

// others looks for wildcards where the name of a device stands.
func (l *linter) others(s *shape, at Place) {
	const instead = "; put ${iot:Connection.Thing.ThingName} where the device's name stands"
	messages := l.about(ActionPublish) || l.about(ActionReceive) || l.about(ActionSubscribe)
	things := l.about(ActionGetThingShadow) || l.about(ActionUpdateThingShadow) || l.about(ActionDeleteThingShadow)
	switch {
	case s.everything && messages:
		l.tell(CodeReachesOthers, Warning, at, "this reaches the topics of every device, those of shadows and jobs included"+instead)
	case s.everything && things, things && s.is(fleet.ARNThing) && wild(firstLevel(s.name)):
		l.tell(CodeReachesOthers, Warning, at, "this reaches the shadows of every device; name the thing, as these calls have no connection whose variables could")
	case !messages || !s.is(fleet.ARNTopic) && !s.is(fleet.ARNTopicFilter):
	case wild(firstLevel(s.name)) && !namesDevice(s.name):
		l.tell(CodeReachesOthers, Warning, at, "%q begins with a wildcard and reaches the topics of every device"+instead, clip(s.rest))
	case reservedOfOthers(s.name):
		l.tell(CodeReachesOthers, Warning, at, "%q reaches the reserved topics of other things, such as their shadows"+instead, clip(s.rest))
	}
}

// namesDevice reports whether a level of a name, behind its first, is the name
// of the connection's own device and nothing else.
func namesDevice(name string) bool {
	return slices.ContainsFunc(strings.Split(name, "/")[1:], func(level string) bool {
		inner, found := strings.CutPrefix(level, "${")
		if !found {
			return false
		}
		variable, tail, _ := strings.Cut(inner, "}")
		v, ok := parseVariable(variable)
		return ok && tail == "" && names(v)
	})
}

// firstLevel is a name up to its first slash.
func firstLevel(name string) string {
	level, _, _ := strings.Cut(name, "/")
	return level
}

// wild reports whether a level can be that of several devices: it begins with a
// wildcard of policies, or is one of MQTT, which matters in filters.
func wild(level string) bool {
	return strings.HasPrefix(level, "*") || strings.HasPrefix(level, "?") || level == "+" || level == "#"
}

// reservedOfOthers reports whether a name has a wildcard where a reserved topic
// has the thing's name.
func reservedOfOthers(name string) bool {
	const things = "$aws/things/"
	if rest, ok := strings.CutPrefix(name, things); ok {
		level := firstLevel(rest)
		return wild(level) || strings.ContainsAny(withoutVariables(level), "*?") && !strings.Contains(level, "${")
	}
	start, whole := literalStart(name)
	return !whole && strings.HasPrefix(name, "$") && strings.HasPrefix(things, start) && start != name && !strings.HasPrefix(name[len(start):], "${")
}

// variables looks for names that the device, or who issued its certificate,
// chooses.
func (l *linter) variables(s *shape, at Place) {
	connects := s.is(fleet.ARNClient)
	if spoofable(s.source) && !connects && !l.st.attachedOnly() {
		switch bound, some := l.clientBound(); {
		case bound:
		case some:
			l.tell(CodeSpoofableClient, Warning, at, "${iot:ClientId} is what the device says it is and this document lets it choose; use ${iot:Connection.Thing.ThingName}")
		default:
			l.tell(CodeSpoofableClient, Info, at, "${iot:ClientId} is what the device says it is; use ${iot:Connection.Thing.ThingName} unless another policy limits iot:Connect")
		}
	}
	if name := strings.ToLower(s.source); strings.Contains(name, "${iot:certificate.") && !l.st.pinsIssuer() {
		l.tell(CodeForeignCAField, Warning, at, "who issues a certificate, or asks for one with a request of its own, chooses its fields; add a condition on an iot:Certificate.Issuer key, "+
			"or use ${iot:Connection.Thing.ThingName}")
	}
}

// clientBound reports whether every Allow of iot:Connect in the document, of
// which there is any, leaves the device no choice of its client id.
func (l *linter) clientBound() (bound, some bool) {
	connects := l.ruled(Allow, ActionConnect)
	for _, i := range connects {
		st := &l.doc.Statements[i]
		if st.attachedOnly() || l.unattachedDenied() {
			continue
		}
		if st.NotResource || slices.ContainsFunc(l.shapes[i], func(s shape) bool {
			return s.mayBe(fleet.ARNClient) && (s.everything || spoofable(s.name) || strings.ContainsAny(withoutVariables(s.name), "*?"))
		}) {
			return false, true
		}
	}
	return len(connects) > 0, len(connects) > 0
}

// pinsIssuer reports whether the statement says who must have issued the
// certificate.
func (st *Statement) pinsIssuer() bool {
	return slices.ContainsFunc(st.conditions, func(c condition) bool {
		return c.key.kind == fromCertificate && strings.HasPrefix(c.key.field, "Issuer.") && !c.operator.negated && !c.ifExists && c.qualifier != forAll ||
			c.key.kind == fromCertificateID && !c.operator.negated
	})
}

// openEnded looks for a device's name that a wildcard prolongs.
func (l *linter) openEnded(s *shape, at Place) {
	rest := s.name
	for {
		_, after, found := strings.Cut(rest, "${")
		if !found {
			return
		}
		variable, tail, _ := strings.Cut(after, "}")
		if v, ok := parseVariable(variable); ok && names(v) && (strings.HasPrefix(tail, "*") || strings.HasPrefix(tail, "?")) {
			l.tell(CodeOpenEndedName, Warning, at, "the wildcard right after ${%s} lets pump-7 reach what is of pump-70; put a separator such as / between them", v.name)
			return
		}
		rest = tail
	}
}

// names reports whether a variable tells one device from another.
func names(v variable) bool {
	return v.kind == fromClientID || v.kind == fromThingName || v.kind == fromCertificateID || v.kind == fromCertificate
}

package iotpolicy

import (
	"slices"
	"strings"

	"github.com/muster-iot/muster/internal/fleet"
)

// actionKinds are the actions that device policies decide about, with the kinds
// of resources that each is asked on. None means an asterisk only.
func actionKinds() map[string][]string {
	client, topic, thing := []string{fleet.ARNClient}, []string{fleet.ARNTopic}, []string{fleet.ARNThing}
	return map[string][]string{
		ActionConnect: client, "iot:DeleteConnection": client, "iot:GetConnection": client,
		"iot:ListSubscriptions": client, "iot:SendDirectMessage": client,
		ActionPublish: topic, ActionRetainPublish: topic, ActionReceive: topic, ActionGetRetainedMessage: topic,
		ActionSubscribe:      {fleet.ARNTopicFilter},
		ActionGetThingShadow: thing, ActionUpdateThingShadow: thing, ActionDeleteThingShadow: thing, ActionListNamedShadows: thing,
		"iot:DescribeJobExecution": thing, "iot:GetPendingJobExecutions": thing, "iot:StartNextPendingJobExecution": thing,
		"iot:UpdateJobExecution": thing, ActionAssumeRoleByCertificate: {"rolealias"}, ActionListRetainedMessages: nil,
	}
}

// deviceActions are the names of actionKinds in order.
func deviceActions() []string {
	var names []string
	for name := range actionKinds() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// actions looks at the names of actions and whether the resources suit them.
func (l *linter) actions() {
	known := deviceActions()
	for i, p := range l.st.actions {
		if slices.ContainsFunc(known, func(name string) bool { return p.match(strings.ToLower(name)) }) {
			if !l.st.NotAction {
				l.suits(i, p, known)
			}
			continue
		}
		at, written := l.st.actionPlaces[i], l.st.Actions[i]
		switch vendor, _, _ := strings.Cut(written, ":"); {
		case !strings.EqualFold(vendor, "iot"):
			l.tell(CodeUnknownAction, Warning, at, "%q is an action of another service, which no device asks for here; take it out", clip(written))
		case closest(written, known) != "":
			l.tell(CodeUnknownAction, Error, at, "no device action is called %q, so this matches nothing; write %q", clip(written), closest(written, known))
		default:
			l.tell(CodeUnknownAction, Error, at, "no device action is called %q, so this matches nothing; such are iot:Connect, iot:Publish, iot:Receive and iot:Subscribe", clip(written))
		}
	}
	l.resourcesSuit(known)
}

// suits looks whether an action has a resource that it can be asked on.
func (l *linter) suits(i int, p pattern, known []string) {
	if l.st.NotResource {
		return
	}
	kinds := actionKinds()
	var wanted []string
	for _, name := range known {
		if !p.match(strings.ToLower(name)) {
			continue
		}
		if l.suitable(kinds[name]) {
			return
		}
		wanted = append(wanted, kinds[name]...)
	}
	slices.Sort(wanted)
	wanted = slices.Compact(wanted)
	if len(wanted) == 0 {
		l.tell(CodeMismatch, Error, l.st.actionPlaces[i], `%s is asked on the resource "*" only and no resource here is that; add "*" in a statement of its own`, l.st.Actions[i])
		return
	}
	l.tell(CodeMismatch, Error, l.st.actionPlaces[i], "%s is asked on %s/… and no resource of this statement can be one; it matches nothing",
		l.st.Actions[i], strings.Join(wanted, "/… or "))
}

// suitable reports whether some resource of the statement can be of a kind.
func (l *linter) suitable(kinds []string) bool {
	return slices.ContainsFunc(l.shapes[l.index], func(s shape) bool {
		if len(kinds) == 0 {
			return s.everything
		}
		return s.other || s.foreign || s.incomplete || // told apart
			slices.ContainsFunc(kinds, func(kind string) bool { return s.mayBe(kind) })
	})
}

// resourcesSuit looks whether each resource has an action that can be asked on
// it.
func (l *linter) resourcesSuit(known []string) {
	if l.st.NotResource {
		return
	}
	kinds := actionKinds()
	var covered, asked []string
	for _, name := range known {
		if l.about(name) {
			covered, asked = append(covered, name), append(asked, kinds[name]...)
		}
	}
	slices.Sort(asked)
	asked = slices.Compact(asked)
	for i, s := range l.shapes[l.index] {
		suits := func(kind string) bool { return s.mayBe(kind) }
		if len(covered) == 0 || s.everything || s.other || s.foreign || s.incomplete || slices.ContainsFunc(asked, suits) {
			continue
		}
		if slices.ContainsFunc(l.shapes[l.index], func(s shape) bool { return slices.ContainsFunc(asked, func(kind string) bool { return s.mayBe(kind) }) }) {
			l.tell(CodeMismatch, Error, l.resourcePlace(i), "no action of this statement is asked on %q, so it matches nothing; the actions are asked on %s/…",
				clip(s.rest), strings.Join(asked, "/…, "))
		}
	}
}

// closest is the known name that differs from a text by case, or by the fewest
// letters; empty when none is near.
func closest(text string, known []string) string {
	best, distance := "", 3
	for _, name := range known {
		if d := editDistance(strings.ToLower(text), strings.ToLower(name), distance); d < distance {
			best, distance = name, d
		}
	}
	return best
}

// editDistance counts the letters to change, add or drop; at least limit when
// the lengths alone differ by that much.
func editDistance(a, b string, limit int) int {
	if max(len(a), len(b))-min(len(a), len(b)) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}

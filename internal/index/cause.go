package index

import (
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
)

// CauseKind says what kind of thing changed a membership.
type CauseKind string

// Causes of a membership's begin or end.
const (
	// CauseValue is a value of the thing.
	CauseValue CauseKind = "VALUE"
	// CauseQuery is the group: it was made, has another query, or is gone; or the
	// index was built anew and found a difference.
	CauseQuery CauseKind = "QUERY"
	// CauseThing is that the thing was registered or is gone.
	CauseThing CauseKind = "THING"
	// CauseLimit is the number of groups that a thing may be in.
	CauseLimit CauseKind = "LIMIT"
)

// maxCauseText bounds a value that a cause shows.
const maxCauseText = 256

// cause is why a membership changed; at is the field for CauseValue.
type cause struct {
	kind CauseKind
	at   *node
}

// causeOf is the cause of a decision that a changed field led to; nil is a new
// document.
func causeOf(n *node) cause {
	if n == nil {
		return cause{kind: CauseThing}
	}
	return cause{kind: CauseValue, at: n}
}

// settleShard ends a batch of changes of a shard, whose lock is held: what is
// decided goes to the outbox.
func (x *Index) settleShard(account fleet.Account, s *shard, events []event.Envelope) {
	drop, sure := x.replay.state()
	if drop {
		// It was decided before the restart; what is durable of it is compared later.
		s.settle(func(*dynamicGroup, uint32, bool, cause) {})
		s.standing.takeCompleted()
		return
	}
	o := x.outbox
	var last map[string]*event.Envelope
	noted := 0
	o.mu.Lock()
	defer o.mu.Unlock()
	var doc0 uint32
	var thing string
	s.settle(func(g *dynamicGroup, doc uint32, certain bool, why cause) {
		if last == nil {
			last = lastEvents(events)
		}
		if noted == 0 || doc != doc0 {
			doc0, thing = doc, strings.Clone(s.things.names.text(doc))
		}
		noted++
		at := membership{account: account, group: g.name, thing: thing}
		d := decision{added: g.members.Contains(doc), certain: certain && sure, cause: s.standing.explainCause(g, doc, why)}
		if env := last[thing]; env != nil {
			d.cause.Partition, d.cause.Seq, d.cause.At = env.Partition, env.Seq, env.At
		}
		o.note(at, d)
	})
	for _, group := range s.standing.unsettled {
		x.options.Logger.Error("dynamic group does not settle, its query and those of other groups deny each other",
			slog.String("account", string(account)), slog.String("group", group))
	}
	s.standing.unsettled = nil
	completed := s.standing.takeCompleted()
	for _, id := range completed {
		if !sure {
			break // what was dropped of its members is durable after the comparison, which tells it
		}
		o.complete[groupKey{account, s.standing.groups[id].name}] = s.standing.groups[id].query
	}
	if len(s.standing.filling) > 0 {
		o.defined++
	}
	if noted+len(completed)+len(s.standing.filling) > 0 {
		o.wake()
	}
}

// lastEvents are the last events of a batch by the thing that they are about.
func lastEvents(events []event.Envelope) map[string]*event.Envelope {
	last := make(map[string]*event.Envelope, len(events))
	for i := range events {
		if thing := thingOfEvent(events[i].Event); thing != "" {
			last[thing] = &events[i]
		}
	}
	return last
}

// thingOfEvent is the thing that an event changes in the index, "" for others.
func thingOfEvent(e event.Event) string {
	switch v := e.(type) { //nolint:gochecksumtype // only what changes one thing
	case event.ThingCreated:
		return v.Thing.Thing
	case event.ThingUpdated:
		return v.Thing.Thing
	case event.ThingDeleted:
		return v.Thing
	case event.MembershipChanged:
		return v.Thing
	case event.BillingGroupMembershipChanged:
		return v.Thing
	case event.ShadowUpdated:
		return v.Thing
	case event.ShadowDeleted:
		return v.Thing
	case event.DeviceConnected:
		return v.ClientID
	case event.DeviceDisconnected:
		return v.ClientID
	}
	return ""
}

// explainCause puts a cause into words, with the field's value as it is now.
func (s *standing) explainCause(g *dynamicGroup, doc uint32, why cause) *event.MembershipCause {
	told := &event.MembershipCause{Kind: string(why.kind)}
	if why.at == nil {
		return told
	}
	told.Field = why.at.path
	if number, ok := why.at.onlyNumber(doc); ok {
		told.Value = formatNumber(number)
	} else {
		told.Value = strings.Join(why.at.texts(doc, maxCauseText), " ")
	}
	if leaf := g.plan.leafOn(why.at); leaf != nil {
		if leaf.label == "" {
			leaf.label = leaf.text()
		}
		told.Predicate = leaf.label
	}
	return told
}

// onlyNumber returns the value of a field that holds one number and nothing else.
func (n *node) onlyNumber(doc uint32) (float64, bool) {
	if n.field == nil || n.field.vocab.len() > 0 {
		return 0, false
	}
	return n.field.numbers.get(doc)
}

// leafOn returns the first test of a plan that looks at a field, or nil.
func (p *plan) leafOn(n *node) *plan {
	if p == nil {
		return nil
	}
	if p.op != opAnd && p.op != opOr && p.op != opNot {
		if p.looksAt(n) {
			return p
		}
		return nil
	}
	for _, kid := range p.kids {
		if leaf := kid.leafOn(n); leaf != nil {
			return leaf
		}
	}
	return nil
}

// looksAt reports whether a change of a field can change a test's answer.
func (p *plan) looksAt(n *node) bool {
	if p.everywhere {
		return n.unfielded
	}
	if p.op == opGeo {
		return slices.Contains(n.geo, p.geo)
	}
	if p.op != opExists {
		return p.at == n
	}
	for up := n; up != nil; up = up.parent {
		if up == p.at {
			return true
		}
	}
	return false
}

// texts are a field's values as they are indexed, each and all of bounded length.
func (n *node) texts(doc uint32, most int) []string {
	if n == nil || n.field == nil {
		return nil
	}
	var v values
	n.field.appendTo(doc, &v)
	out := make([]string, 0, len(v.texts)+len(v.numbers))
	left := most
	add := func(text string) {
		if len(text) > left {
			text = strings.ToValidUTF8(text[:max(left, 0)], "") + "…"
		}
		if left >= 0 {
			out = append(out, strings.Clone(text))
		}
		left -= len(text) + 1
	}
	for _, text := range v.texts {
		add(text)
	}
	// An attribute such as 7.50 is a text and a number: one of them is enough.
	if len(v.texts) == 0 || len(v.numbers) > len(v.texts) {
		for _, number := range v.numbers {
			add(formatNumber(number))
		}
	}
	return out
}

// formatNumber writes a number as people do.
func formatNumber(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

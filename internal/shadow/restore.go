package shadow

import (
	"context"
	"fmt"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
)

// RestoreCommand asks that a shadow becomes again what it was.
type RestoreCommand struct {
	Account fleet.Account
	Thing   string
	// Shadow is empty for the classic shadow.
	Shadow string
	// To is the document to come back to.
	To Document
	// DesiredOnly leaves reported, which is the device's to say, as it is.
	DesiredOnly bool
	// Expect, if set, is the version that the shadow must have now; that of a
	// deleted one is the one that it was deleted at, else 0.
	Expect *int64
	// Committed is as in UpdateCommand.
	Committed func(*Updated)
}

// Restore makes a new version with the state of an earlier one. It is an update
// like any other, with the values that differ, in one commit; leaves that are
// the same keep their times. A deleted shadow comes to be again.
func (s *Service) Restore(ctx context.Context, cmd RestoreCommand) (*Updated, error) {
	u, err := s.restore(ctx, cmd)
	s.metrics.count("restore", err)
	return u, err
}

// restore is Restore without counting.
func (s *Service) restore(ctx context.Context, cmd RestoreCommand) (*Updated, error) {
	id, err := newIdentity(cmd.Account, cmd.Thing, cmd.Shadow)
	if err != nil {
		return nil, err
	}
	if err := s.checkThing(ctx, id); err != nil {
		return nil, err
	}
	release, err := s.locks.acquire(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("wait for shadow: %w", err)
	}
	defer release()
	now := s.now()
	u := &Updated{Account: id.account, Thing: id.thing, Shadow: id.shadow, Timestamp: now.Unix(), Restored: cmd.To.Version}
	err = s.change(ctx, id, now, func(d *document) (*document, event.Event, error) {
		u.patch = cmd.request(d, now)
		return u.apply(now, s)(d)
	})
	if err != nil {
		return nil, err
	}
	if cmd.Committed != nil {
		cmd.Committed(u)
	}
	return u, nil
}

// request is the update that brings the document back.
func (cmd *RestoreCommand) request(d *document, now time.Time) request {
	r := request{version: -1}
	if cmd.Expect != nil {
		r.version = *cmd.Expect
	}
	r.desired = sectionTo(d.desired, cmd.To.d.desired, now.Unix())
	if !cmd.DesiredOnly {
		r.reported = sectionTo(d.reported, cmd.To.d.reported, now.Unix())
	}
	for _, kids := range [][]node{r.desired.kids, r.reported.kids} {
		text, nodes := size(kids)
		r.bytes, r.nodes = r.bytes+text, r.nodes+nodes
	}
	return r
}

// sectionTo is what turns a section into another.
func sectionTo(from, to []node, at int64) section {
	if len(to) == 0 {
		return section{named: len(from) > 0, removed: len(from) > 0}
	}
	kids := patchTo(from, to, at)
	return section{named: len(kids) > 0, kids: kids}
}

// patchTo is the patch that turns an object's members into others.
func patchTo(from, to []node, at int64) []node {
	var out []node
	for i, j := 0, 0; i < len(from) || j < len(to); {
		switch {
		case j == len(to) || i < len(from) && from[i].key < to[j].key:
			out = append(out, node{key: from[i].key, text: "null", kind: kindNull, nulls: true})
			i++
		case i == len(from) || to[j].key < from[i].key:
			out = append(out, stamped(to[j], at))
			j++
		default:
			if n, differs := memberTo(&from[i], &to[j], at); differs {
				out = append(out, n)
			}
			i++
			j++
		}
	}
	return out
}

// memberTo is the patch of a member that both have. Numbers count as they are
// written: what was 1.0 becomes 1.0 again.
func memberTo(from, to *node, at int64) (node, bool) {
	if from.kind == kindObject && to.kind == kindObject {
		kids := patchTo(from.kids, to.kids, at)
		out := node{key: to.key, kind: kindObject, kids: kids, at: at}
		for i := range kids {
			out.nulls = out.nulls || kids[i].nulls
		}
		return out, len(kids) > 0
	}
	if from.kind == to.kind && string(appendValue(nil, from)) == string(appendValue(nil, to)) {
		return node{}, false
	}
	return stamped(*to, at), true
}

// stamped is a value as if it were written now.
func stamped(n node, at int64) node {
	n.at, n.nulls = at, false
	if n.kind != kindObject && n.kind != kindArray {
		return n
	}
	kids := make([]node, len(n.kids))
	for i := range n.kids {
		kids[i] = stamped(n.kids[i], at)
	}
	n.kids = kids
	return n
}

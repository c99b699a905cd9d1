package bulkedit

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Status is where an edit is in its course.
type Status string

// Statuses. An edit begins SELECTING; the last three are final.
const (
	// Selecting finds the things and writes down which they are.
	Selecting Status = "SELECTING"
	Running   Status = "RUNNING"
	Paused    Status = "PAUSED"
	Completed Status = "COMPLETED"
	Canceled  Status = "CANCELED"
	// Failed was stopped by a trouble of the server's; what was done stays done.
	Failed Status = "FAILED"
)

// final reports whether nothing more will happen.
func (s Status) final() bool { return s == Completed || s == Canceled || s == Failed }

// Counts are things by what became of them.
type Counts struct {
	Changed int `json:"changed"`
	// Unchanged were as the edit wants them already.
	Unchanged int `json:"unchanged"`
	Failed    int `json:"failed"`
	// Conflicts were left alone because others have changed them meanwhile.
	Conflicts int `json:"conflicts"`
}

// Total is the number of things that are done with.
func (c Counts) Total() int { return c.Changed + c.Unchanged + c.Failed + c.Conflicts }

func (c Counts) plus(o Counts) Counts {
	return Counts{c.Changed + o.Changed, c.Unchanged + o.Unchanged, c.Failed + o.Failed, c.Conflicts + o.Conflicts}
}

// with counts one thing more.
func (c Counts) with(did outcome) Counts {
	switch did {
	case changed:
		c.Changed++
	case unchanged:
		c.Unchanged++
	case failed:
		c.Failed++
	case conflicted:
		c.Conflicts++
	}
	return c
}

// Edit is one edit as readers see it.
type Edit struct {
	ID        string
	Status    Status
	UndoOf    string
	UndoneBy  string
	Query     string
	Operation Operation
	StartedBy fleet.Principal
	Created   time.Time
	Finished  time.Time
	Things    int
	Done      Counts
	PerSecond int
	// Rate is how many things it works on per second at present.
	Rate   float64
	Reason string
}

// Remaining is how many things are still to be worked on.
func (e Edit) Remaining() int { return max(0, e.Things-e.Done.Total()) }

// edit is the public form of a record.
func (s *Service) edit(account fleet.Account, id string, r *editRecord) Edit {
	e := Edit{
		ID: id, Status: r.Status, UndoOf: r.UndoOf, UndoneBy: r.UndoneBy, Query: r.Query, Operation: r.Operation,
		StartedBy: r.Actor.Principal, Created: moment(r.Created), Finished: moment(r.Finished), Things: r.Things,
		Done: r.Done.plus(r.Partly), PerSecond: r.PerSecond, Reason: r.Reason,
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if at := s.running[place{account, id}]; at != nil && r.Status == Running {
		e.Done, e.Rate = at.progress(s.o.Now())
	}
	return e
}

// maxAttempts bounds how often a change of an edit's record is decided again
// after a race.
const maxAttempts = 32

// notFound is the fault for an edit that is not there.
func notFound(id string) error {
	return fault.New(fault.ResourceNotFound, "bulk edit %s does not exist", id)
}

// find reads an edit.
func (s *Service) find(ctx context.Context, account fleet.Account, id string) (*editRecord, uint64, error) {
	if !fleet.ValidName(id) {
		return nil, 0, notFound(id)
	}
	var r editRecord
	version, err := read(ctx, s.o.Store, editKey(account, id), &r)
	if err == nil && version == 0 {
		err = notFound(id)
	}
	return &r, version, err
}

// step changes an edit's record; decide returns false for no change. A step into
// another status is reported, and a final one makes room for another edit.
func (s *Service) step(ctx context.Context, account fleet.Account, id string, decide func(*editRecord) (bool, error)) (*editRecord, error) {
	for range maxAttempts {
		r, version, err := s.find(ctx, account, id)
		if err != nil {
			return nil, err
		}
		before := r.Status
		changed, err := decide(r)
		if err != nil || !changed {
			return r, err
		}
		b := store.Batch{Expect: []store.Expect{{Key: editKey(account, id), Version: version}}}
		if r.Status != before {
			if r.Status.final() {
				r.Finished = millis(s.o.Now())
				if err := s.leave(ctx, &b, account, id); err != nil {
					return nil, err
				}
			}
			b.Events = append(b.Events, s.report(ctx, account, id, r))
		}
		if err := put(&b, editKey(account, id), r); err != nil {
			return nil, err
		}
		_, err = s.o.Store.Commit(ctx, b)
		if err == nil {
			return r, nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return nil, store.Fault(err)
		}
	}
	return nil, fault.New(fault.Throttling, "Too many concurrent changes of bulk edit %s; try again", id)
}

// report is the event of an edit's new status.
func (s *Service) report(ctx context.Context, account fleet.Account, id string, r *editRecord) event.Envelope {
	done := r.Done.plus(r.Partly)
	return event.Envelope{Account: account, At: s.o.Now(), Actor: fleet.ActorFrom(ctx), Event: event.BulkEditChanged{
		ID: id, Status: string(r.Status), Query: r.Query, Things: r.Things, UndoOf: r.UndoOf, StartedBy: r.Actor.Principal.ARN,
		Changed: done.Changed, Unchanged: done.Unchanged, Failed: done.Failed, Conflicts: done.Conflicts, Reason: r.Reason,
	}}
}

// maxActive is how many edits of an account may be unfinished at a time.
const maxActive = 10

// join takes a place among the unfinished edits.
func (s *Service) join(ctx context.Context, b *store.Batch, account fleet.Account, id string) error {
	var active activeRecord
	version, err := read(ctx, s.o.Store, activeKey(account), &active)
	if err != nil {
		return err
	}
	if len(active.IDs) >= maxActive {
		return fault.New(fault.LimitExceeded, "an account may have at most %d bulk edits that are not finished; cancel one or wait", maxActive)
	}
	b.Expect = append(b.Expect, store.Expect{Key: activeKey(account), Version: version})
	return put(b, activeKey(account), activeRecord{Schema: schemaVersion, IDs: append(active.IDs, id)})
}

// leave gives that place up.
func (s *Service) leave(ctx context.Context, b *store.Batch, account fleet.Account, id string) error {
	var active activeRecord
	version, err := read(ctx, s.o.Store, activeKey(account), &active)
	if err != nil {
		return err
	}
	kept := slices.DeleteFunc(active.IDs, func(other string) bool { return other == id })
	b.Expect = append(b.Expect, store.Expect{Key: activeKey(account), Version: version})
	return put(b, activeKey(account), activeRecord{Schema: schemaVersion, IDs: kept})
}

// Pause lets an edit rest until Resume. Things under way are finished first.
func (s *Service) Pause(ctx context.Context, account fleet.Account, id string) (Edit, error) {
	return s.control(ctx, account, id, "paused", Paused, Running)
}

// Resume goes on with a paused edit.
func (s *Service) Resume(ctx context.Context, account fleet.Account, id string) (Edit, error) {
	return s.control(ctx, account, id, "resumed", Running, Paused)
}

// Cancel ends an edit; what it has done stays done, and can be undone.
func (s *Service) Cancel(ctx context.Context, account fleet.Account, id string) (Edit, error) {
	return s.control(ctx, account, id, "canceled", Canceled, Running, Paused)
}

// control brings an edit from one of some statuses into another. To repeat a call
// is no error.
func (s *Service) control(ctx context.Context, account fleet.Account, id, verb string, to Status, from ...Status) (Edit, error) {
	r, err := s.step(ctx, account, id, func(r *editRecord) (bool, error) {
		if r.Status == to {
			return false, nil
		}
		if slices.Contains(from, r.Status) {
			r.Status = to
			return true, nil
		}
		return false, fault.New(fault.Conflict, "bulk edit %s is %s and cannot be %s", id, r.Status, verb)
	})
	if err != nil {
		return Edit{}, err
	}
	if to != Running {
		// The answer holds what the things under way have become.
		if err := s.halt(ctx, place{account, id}); err != nil {
			return Edit{}, err
		}
		if r, _, err = s.find(ctx, account, id); err != nil {
			return Edit{}, err
		}
	}
	s.rouse()
	return s.edit(account, id, r), nil
}

// rouse tells Run to look again.
func (s *Service) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

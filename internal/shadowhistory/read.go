package shadowhistory

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// MaxPage is the most entries that a page may hold.
	MaxPage = 250
	// maxLook is after how many entries a page ends that finds nothing.
	maxLook = 5000
	// disorder is how far the clock may have gone back between two versions.
	disorder = time.Minute
	// patience is how long a reader waits for the consumer.
	patience = 2 * time.Second
)

// Version is one change of a shadow.
type Version struct {
	// Version is the number that it made, or the deleted one.
	Version int64
	At      time.Time
	Actor   fleet.Actor
	// Patch is what was accepted, null removes; nil for a deletion.
	Patch json.RawMessage
	// Delta says that desired and reported differed afterwards.
	Delta bool
	// Restored is the version that was brought back, 0 for none.
	Restored int64
	Deleted  bool
}

// Query asks for a part of a shadow's versions.
type Query struct {
	// From and To bound the time, From included; zero is no bound.
	From, To time.Time
	// After is Page.Next of the page before, empty for the first.
	After string
	// Limit is how many entries to return, 1 to MaxPage.
	Limit int
}

// Page is a part of a list, newest first.
type Page struct {
	Versions []Version
	// Next is where the list goes on; empty at its end. A page may be short or
	// empty and still have a next one.
	Next string
	// Truncated is set at the end of the list when the shadow had earlier
	// versions: they were trimmed, or made before the history began.
	Truncated bool
	// Behind says that the newest versions may be missing still.
	Behind bool
}

// subjectOf checks the names of a request.
func subjectOf(account fleet.Account, thing, name string) (subject, error) {
	if !fleet.ValidName(thing) {
		return subject{}, &fault.Error{Code: fault.InvalidRequest, Message: "Invalid thing name"}
	}
	if name != "" && !fleet.ValidShadowName(name) {
		return subject{}, &fault.Error{Code: fault.InvalidRequest, Message: "Invalid shadow name"}
	}
	return subject{account, thing, name}, nil
}

// behind waits a little for the consumer and reports whether it is late.
func (s *Service) behind(ctx context.Context) (bool, error) {
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := s.o.CatchUp(waiting)
	if ctx.Err() != nil {
		return false, ctx.Err() //nolint:wrapcheck // the caller's own
	}
	return err != nil, nil
}

// enabled refuses where no history is kept.
func (s *Service) enabled() error {
	if s.o.Versions == 0 {
		return fault.New(fault.InvalidRequest, "The history of shadows is off: the setting shadow.history-versions is 0")
	}
	return nil
}

// List returns versions of a shadow, the classic one without a name.
func (s *Service) List(ctx context.Context, account fleet.Account, thing, name string, q Query) (Page, error) {
	of, err := subjectOf(account, thing, name)
	if err != nil {
		return Page{}, err
	}
	if err := s.enabled(); err != nil {
		return Page{}, err
	}
	if q.Limit < 1 || q.Limit > MaxPage {
		return Page{}, fault.New(fault.InvalidRequest, "maxResults: %d is not between 1 and %d", q.Limit, MaxPage)
	}
	if !q.From.IsZero() && !q.To.IsZero() && !q.From.Before(q.To) {
		return Page{}, fault.New(fault.InvalidRequest, "from: must be before to")
	}
	var page Page
	if page.Behind, err = s.behind(ctx); err != nil {
		return Page{}, err
	}
	within := of.entries()
	if q.After != "" {
		within = within.After(store.Key(q.After))
	}
	var last *entry
	var at store.Key
	looked := 0
	err = s.store.Scan(ctx, within, func(stored store.Record) error {
		if len(page.Versions) == q.Limit || looked == maxLook {
			page.Next = string(at)
			return store.Stop
		}
		looked++
		e, err := decode(stored)
		if err != nil {
			return err
		}
		at, last = stored.Key, e
		made := time.Unix(0, e.At)
		if !q.From.IsZero() && made.Before(q.From.Add(-disorder)) {
			last = nil
			return store.Stop
		}
		if !q.From.IsZero() && made.Before(q.From) || !q.To.IsZero() && !made.Before(q.To) {
			return nil
		}
		page.Versions = append(page.Versions, e.told())
		return nil
	})
	if err != nil {
		return Page{}, fmt.Errorf("read shadow history: %w", err)
	}
	page.Truncated = page.Next == "" && last != nil && last.Version != 1
	return page, nil
}

// told is the entry as callers see it.
func (e *entry) told() Version {
	return Version{
		Version: e.Version, At: time.Unix(0, e.At).UTC(), Actor: e.Actor, Patch: e.Patch, Delta: e.Delta, Restored: e.Restored, Deleted: e.Deleted,
	}
}

// State is a shadow as it was.
type State struct {
	shadow.Document
	// Made is what made the version; nil where the history does not tell.
	Made *Version
}

// At returns the whole shadow at a version. Of a number that was used twice it
// is the newest.
func (s *Service) At(ctx context.Context, account fleet.Account, thing, name string, version int64) (State, error) {
	of, err := subjectOf(account, thing, name)
	if err != nil {
		return State{}, err
	}
	if err := s.enabled(); err != nil {
		return State{}, err
	}
	if version < 1 {
		return State{}, fault.New(fault.InvalidRequest, "version: must be at least 1")
	}
	if _, err := s.behind(ctx); err != nil {
		return State{}, err
	}
	return s.at(ctx, of, version)
}

// at is At after the checks.
func (s *Service) at(ctx context.Context, of subject, version int64) (State, error) {
	found, err := s.find(ctx, s.store, of, version)
	if err != nil {
		return State{}, err
	}
	if found.document != nil {
		return State{*found.document, found.made}, nil
	}
	// The present document is known, whatever the history began with.
	now, err := s.o.Shadows.Peek(ctx, of.account, of.thing, of.shadow)
	if err == nil && now.Version == version {
		return State{now, found.made}, nil
	}
	if err != nil && fault.CodeOf(err) != fault.ResourceNotFound {
		return State{}, err //nolint:wrapcheck // coded
	}
	if found.made != nil {
		return State{}, fault.New(fault.ResourceNotFound,
			"The document at version %d cannot be told: the history of the shadow has no whole document before it", version)
	}
	return State{}, fault.New(fault.ResourceNotFound, "Version %d of the shadow is not in its history", version)
}

// found is what the history has of a version.
type found struct {
	made     *Version
	document *shadow.Document
}

// find looks for a version in the newest segment that has it.
func (s *Service) find(ctx context.Context, r store.Reader, of subject, version int64) (found, error) {
	known, err := s.segmentsOf(ctx, r, of)
	if err != nil {
		return found{}, err
	}
	within := of.entries()
	for i := len(known) - 1; i >= -1; i-- {
		var seg *segment
		if i >= 0 {
			seg = known[i]
			within.To = of.entry(seg.seq) + "\x01"
			if seg.Version > version {
				within.From = within.To
				continue
			}
		} else {
			// Entries before the oldest segment, whose own was trimmed.
			within.To = of.entries().To
		}
		entries, err := entriesIn(ctx, r, within)
		if err != nil {
			return found{}, err
		}
		within.From = within.To
		last := slices.IndexFunc(entries, func(e *entry) bool { return !e.Deleted && e.Version == version })
		if last < 0 {
			continue
		}
		out := found{made: new(entries[last].told())}
		if seg != nil && seg.Document != nil {
			out.document, err = replay(of, seg, entries[:last+1])
		}
		return out, err
	}
	return found{}, nil
}

// entriesIn reads a range of entries, oldest first.
func entriesIn(ctx context.Context, r store.Reader, within store.Range) ([]*entry, error) {
	var entries []*entry
	err := r.Scan(ctx, within, func(stored store.Record) error {
		e, err := decode(stored)
		entries = append(entries, e)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read shadow history: %w", err)
	}
	slices.Reverse(entries)
	return entries, nil
}

// replay makes the document after the last entry of a segment's, nil when
// entries are missing.
func replay(of subject, seg *segment, entries []*entry) (*shadow.Document, error) {
	var steps []shadow.Step
	next := seg.Version
	for _, e := range entries {
		if e.Deleted {
			continue
		}
		if e.Version != next {
			return nil, nil //nolint:nilnil // events were lost between: nobody knows
		}
		if next++; e.Version > seg.Version {
			steps = append(steps, shadow.Step{Version: e.Version, At: time.Unix(0, e.At), Timestamp: e.Second, Patch: e.Patch})
		}
	}
	document, err := shadow.Replay(of.account, of.thing, of.shadow, seg.Document, steps)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what it did
	}
	return &document, nil
}

// Diff is what changed between two versions.
type Diff struct {
	// From is 0 for the state before the first version.
	From, To    int64
	Differences []shadow.Difference
}

// Diff compares two versions in any order. Without to it is the newest, without
// from the one before.
func (s *Service) Diff(ctx context.Context, account fleet.Account, thing, name string, from, to *int64) (Diff, error) {
	of, err := subjectOf(account, thing, name)
	if err != nil {
		return Diff{}, err
	}
	if err := s.enabled(); err != nil {
		return Diff{}, err
	}
	if _, err := s.behind(ctx); err != nil {
		return Diff{}, err
	}
	if to == nil {
		if to, err = s.newest(ctx, of); err != nil {
			return Diff{}, err
		}
	}
	if from == nil {
		from = new(max(*to-1, 0))
	}
	var documents [2]shadow.Document
	for i, version := range []int64{*from, *to} {
		switch {
		case version < 0:
			return Diff{}, fault.New(fault.InvalidRequest, "%s: must not be negative", []string{"from", "to"}[i])
		case version == 0:
			documents[i] = shadow.Nothing(of.account, of.thing, of.shadow)
		default:
			state, err := s.at(ctx, of, version)
			if err != nil {
				return Diff{}, err
			}
			documents[i] = state.Document
		}
	}
	return Diff{From: *from, To: *to, Differences: shadow.Differences(documents[0], documents[1])}, nil
}

// newest is the number of the newest version.
func (s *Service) newest(ctx context.Context, of subject) (*int64, error) {
	newest, err := newestIn(ctx, s.store, of)
	if err != nil {
		return nil, err
	}
	if newest != nil {
		return &newest.Version, nil
	}
	now, err := s.o.Shadows.Peek(ctx, of.account, of.thing, of.shadow)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	return &now.Version, nil
}

// newestIn is a shadow's newest entry, nil for none.
func newestIn(ctx context.Context, r store.Reader, of subject) (newest *entry, err error) {
	err = r.Scan(ctx, of.entries(), func(stored store.Record) error {
		if newest, err = decode(stored); err != nil {
			return err
		}
		return store.Stop
	})
	if err != nil {
		return nil, fmt.Errorf("read shadow history: %w", err)
	}
	return newest, nil
}

// RestoreCommand asks that a shadow becomes again what it was at a version.
type RestoreCommand struct {
	Account fleet.Account
	Thing   string
	// Shadow is empty for the classic shadow.
	Shadow  string
	Version int64
	// DesiredOnly, Expect and Committed are as in shadow.RestoreCommand.
	DesiredOnly bool
	Expect      *int64
	Committed   func(*shadow.Updated)
}

// Restore makes a new version with the state of an earlier one.
func (s *Service) Restore(ctx context.Context, cmd RestoreCommand) (*shadow.Updated, error) {
	was, err := s.At(ctx, cmd.Account, cmd.Thing, cmd.Shadow, cmd.Version)
	if err != nil {
		return nil, err
	}
	return s.o.Shadows.Restore(ctx, shadow.RestoreCommand{ //nolint:wrapcheck // coded
		Account: cmd.Account, Thing: cmd.Thing, Shadow: cmd.Shadow, To: was.Document, DesiredOnly: cmd.DesiredOnly, Expect: cmd.Expect, Committed: cmd.Committed,
	})
}

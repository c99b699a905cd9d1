package allowlist

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// commitEntries is how many entries are written or removed in one commit.
	commitEntries = 500
	// uploadLife is how long an upload may take until it is a revision.
	uploadLife = time.Hour
	// maxDiff bounds the serial numbers of a kind in a difference.
	maxDiff = 1000
)

// Accept makes a revision the one that devices are matched against, once all of its
// entries are written; the one before is SUPERSEDED. Who has uploaded it cannot accept
// it, and a revision that nobody has signed only where the supplier's may be. A call
// for a revision that is being accepted goes on with it.
func (s *Service) Accept(ctx context.Context, account fleet.Account, list string, number int64, note string) (Revision, error) {
	if err := checkNote(note); err != nil {
		return Revision{}, err
	}
	if _, err := s.vault(ctx, account); err != nil {
		return Revision{}, err
	}
	by := identityOf(fleet.ActorFrom(ctx).Principal)
	err := s.change(ctx, account, func(b *batch) error {
		l, err := b.list(ctx, list)
		if err != nil {
			return err
		}
		r, err := b.revision(ctx, list, number)
		if err != nil || r.Status == Accepting {
			return err
		}
		supplier, err := b.supplier(ctx, l.Supplier)
		if err != nil {
			return err
		}
		switch {
		case r.Status != Quarantined:
			return fault.New(fault.Conflict, "revision %d of list %s is %s", number, list, r.Status)
		case r.UploadedBy == by:
			return fault.New(fault.Forbidden, "you have uploaded revision %d of list %s; another person accepts it", number, list)
		case r.SignerKey == "" && !supplier.AcceptUnsigned:
			return fault.New(fault.InvalidRequest, "revision %d of list %s is not signed, and the supplier does not have acceptUnsigned", number, list)
		case number < l.Current:
			return fault.New(fault.Conflict, "revision %d of list %s is older than the accepted one, %d", number, list, l.Current)
		case supplier.Status != Active:
			return fault.New(fault.InvalidRequest, "supplier %s is %s", l.Supplier, supplier.Status)
		}
		r.Status, r.VettedBy, r.VettedAt, r.Note = Accepting, by, s.o.Now().UnixMilli(), note
		b.row(workKey(account, list, number))
		return b.put(revisionKey(account, list, number), r)
	})
	if err != nil {
		return Revision{}, err
	}
	return s.finish(ctx, account, list, number)
}

// checkNote is the rule for what people say.
func checkNote(note string) error {
	if utf8.RuneCountInString(note) > maxNote || !utf8.ValidString(note) {
		return fault.New(fault.InvalidRequest, "note must have at most %d characters", maxNote)
	}
	return nil
}

// Reject ends a revision that waits, with a note that says why.
func (s *Service) Reject(ctx context.Context, account fleet.Account, list string, number int64, note string) (Revision, error) {
	if err := checkNote(note); err != nil {
		return Revision{}, err
	}
	if strings.TrimSpace(note) == "" {
		return Revision{}, fault.New(fault.InvalidRequest, "note must say why a revision is rejected")
	}
	by := identityOf(fleet.ActorFrom(ctx).Principal)
	var out Revision
	err := s.change(ctx, account, func(b *batch) error {
		l, err := b.list(ctx, list)
		if err != nil {
			return err
		}
		r, err := b.revision(ctx, list, number)
		if err != nil {
			return err
		}
		if r.Status != Quarantined {
			return fault.New(fault.Conflict, "revision %d of list %s is %s", number, list, r.Status)
		}
		r.Status, r.VettedBy, r.VettedAt, r.Note = Rejected, by, s.o.Now().UnixMilli(), note
		out = revisionOf(list, &r)
		b.emit(ctx, event.AllowListChanged{List: list, Supplier: l.Supplier, Revision: number, Change: event.AllowListRejected, Digest: r.Digest, Reason: note})
		return b.put(revisionKey(account, list, number), r)
	})
	return out, err
}

// finish writes the entries of a revision that is being accepted and makes it the
// current one. It may be called again after any interruption: what is written twice is
// the same. It is not the caller's to break off.
func (s *Service) finish(ctx context.Context, account fleet.Account, list string, number int64) (Revision, error) {
	ctx = context.WithoutCancel(ctx)
	r, err := s.revision(ctx, account, list, number)
	if err != nil || r.Status != Accepting {
		return revisionOf(list, r), err
	}
	v, err := s.vault(ctx, account)
	if err != nil {
		return Revision{}, err
	}
	var l listRecord
	if _, err := read(ctx, s.o.Store, listKey(account, list), &l); err != nil {
		return Revision{}, err
	}
	if l.Deleted != 0 {
		return Revision{}, s.abandon(ctx, account, list, number)
	}
	entries, err := v.entries(ctx, list, r)
	if err == nil {
		err = v.write(ctx, list, r, entries)
	}
	var out Revision
	if err == nil {
		err = s.change(ctx, account, func(b *batch) error { return b.current(ctx, list, number, &out) })
	}
	if fault.CodeOf(err) == fault.ResourceNotFound {
		// It was deleted meanwhile, perhaps ahead of what was written just now.
		err = s.abandon(ctx, account, list, number)
	}
	return out, err
}

// abandon ends the acceptance of a revision whose list is deleted, and says so.
func (s *Service) abandon(ctx context.Context, account fleet.Account, list string, number int64) error {
	if err := s.shred(ctx, account, list); err != nil {
		return err
	}
	_, err := s.o.Store.Commit(ctx, store.Batch{Writes: []store.Write{{Key: workKey(account, list, number), Delete: true}}})
	if err != nil {
		return store.Fault(err)
	}
	return fault.New(fault.ResourceNotFound, "allow list %s was deleted", list)
}

// write keeps the entries of a revision with the rows by which they are found.
func (v *vault) write(ctx context.Context, list string, r *revisionRecord, entries []Entry) error {
	key, err := v.dataKey(list, r)
	if err != nil {
		return err
	}
	sealer, err := newSealer(key)
	if err != nil {
		return err
	}
	for chunk := range slices.Chunk(slices.Collect(indices(len(entries))), commitEntries) {
		b := &batch{s: v.s, account: v.account}
		for _, i := range chunk {
			e, at := &entries[i], entryKey(v.account, list, r.Number, i)
			sealed, err := sealer.seal(at, e)
			if err != nil {
				return err
			}
			b.Writes = append(b.Writes, store.Write{Key: at, Value: sealed})
			b.row(foundKey(kindSerial, v.account, v.hash("serial", e.Serial), list, r.Number, i))
			if e.Fingerprint != "" {
				b.row(foundKey(kindPrint, v.account, v.hash("print", e.Fingerprint), list, r.Number, i))
			}
		}
		if _, err := v.s.o.Store.Commit(ctx, b.Batch); err != nil {
			return store.Fault(err)
		}
	}
	return nil
}

// indices are the numbers from 0 to n-1.
func indices(n int) func(func(int) bool) {
	return func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	}
}

// current ends the acceptance of a revision.
func (b *batch) current(ctx context.Context, list string, number int64, out *Revision) error {
	b.remove(workKey(b.account, list, number))
	l, err := b.list(ctx, list)
	if err != nil {
		return err
	}
	r, err := b.revision(ctx, list, number)
	if err != nil {
		return err
	}
	if r.Status != Accepting {
		*out = revisionOf(list, &r)
		b.Writes = nil // somebody else has ended it
		return nil
	}
	now := b.s.o.Now().UnixMilli()
	r.Status = Accepted
	if l.Current > number {
		r.Status = Superseded // a newer one was faster
	} else if l.Current != 0 {
		before, err := b.revision(ctx, list, l.Current)
		if err != nil {
			return err
		}
		before.Status = Superseded
		if err := b.put(revisionKey(b.account, list, l.Current), before); err != nil {
			return err
		}
	}
	l.Current, l.Modified = max(l.Current, number), now
	*out = revisionOf(list, &r)
	b.emit(ctx, event.AllowListChanged{
		List: list, Supplier: l.Supplier, Revision: number, Change: event.AllowListAccepted, Digest: r.Digest, Entries: r.Entries, KeyID: r.SignerKey, Reason: r.Note,
	})
	if err := b.put(listKey(b.account, list), l); err != nil {
		return err
	}
	return b.put(revisionKey(b.account, list, number), r)
}

// Resume goes on with what the end of the process has interrupted: revisions that were
// being accepted, and lists that were being deleted.
func (s *Service) Resume(ctx context.Context) error {
	var work []store.Key
	err := s.o.Store.Scan(ctx, store.Under(kindWork), func(found store.Record) error {
		work = append(work, found.Key)
		return nil
	})
	if err != nil {
		return store.Fault(err)
	}
	failures := []error{s.sweepUploads(ctx)}
	for _, k := range work {
		parts := k.Parts()
		account, list := fleet.Account(parts[1]), parts[2]
		var number int64
		if _, err := fmt.Sscanf(parts[3], "%d", &number); err != nil {
			failures = append(failures, fmt.Errorf("row %s: %w", k, err))
			continue
		}
		if number == 0 {
			err = s.shred(ctx, account, list)
		} else {
			_, err = s.finish(ctx, account, list, number)
		}
		if err != nil && fault.CodeOf(err) != fault.ResourceNotFound {
			failures = append(failures, fmt.Errorf("allow list %s: %w", list, err))
		}
	}
	return errors.Join(failures...)
}

// Difference is what one revision has otherwise than an earlier one; serial numbers
// with their model behind a slash, at most a thousand of each kind.
type Difference struct {
	Added, Removed, Changed                []string
	AddedCount, RemovedCount, ChangedCount int
}

// Diff compares two revisions of a list. It is a reading like that of an original.
func (s *Service) Diff(ctx context.Context, account fleet.Account, list string, from, to int64) (Difference, error) {
	if from == to {
		return Difference{}, fault.New(fault.InvalidRequest, "to must be another revision than from")
	}
	var sides [2]map[[2]string]Entry
	for i, number := range []int64{from, to} {
		v, r, err := s.reading(ctx, account, list, number, event.AllowListReadDifference)
		if err != nil {
			return Difference{}, err
		}
		entries, err := v.entries(ctx, list, r)
		if err != nil {
			return Difference{}, err
		}
		sides[i] = make(map[[2]string]Entry, len(entries))
		for _, e := range entries {
			sides[i][[2]string{e.Serial, e.Model}] = e
		}
	}
	var d Difference
	for k, before := range sides[0] {
		if after, ok := sides[1][k]; !ok {
			d.Removed = append(d.Removed, deviceOf(k))
		} else if after != before {
			d.Changed = append(d.Changed, deviceOf(k))
		}
	}
	for k := range sides[1] {
		if _, ok := sides[0][k]; !ok {
			d.Added = append(d.Added, deviceOf(k))
		}
	}
	d.AddedCount, d.RemovedCount, d.ChangedCount = len(d.Added), len(d.Removed), len(d.Changed)
	for _, all := range []*[]string{&d.Added, &d.Removed, &d.Changed} {
		slices.Sort(*all)
		*all = append([]string{}, (*all)[:min(len(*all), maxDiff)]...)
	}
	return d, nil
}

func deviceOf(k [2]string) string { return strings.TrimSuffix(k[0]+"/"+k[1], "/") }

// Delete asks for the deletion of a list, or agrees to it: two people are needed. What
// is left is a tombstone with the digests of its originals, and what became of its
// devices. No device is matched against the list from the second word on.
func (s *Service) Delete(ctx context.Context, account fleet.Account, list string) (List, error) {
	by := identityOf(fleet.ActorFrom(ctx).Principal)
	var out List
	err := s.change(ctx, account, func(b *batch) error {
		l, err := b.list(ctx, list)
		if err != nil {
			return err
		}
		now := s.o.Now().UnixMilli()
		change := event.AllowListDeleteAsked
		switch l.DeleteBy {
		case "":
			l.DeleteBy, l.DeleteAt = by, now
		case by:
			return fault.New(fault.Forbidden, "you have asked for the deletion of list %s; another person agrees", list)
		default:
			change = event.AllowListDeleted
			l.Deleted, l.ConfirmedBy, l.Current = now, by, 0
			b.row(workKey(account, list, 0))
		}
		l.Modified = now
		out = listOf(list, &l)
		b.emit(ctx, event.AllowListChanged{List: list, Supplier: l.Supplier, Change: change})
		return b.put(listKey(account, list), l)
	})
	if err != nil || out.Deleted.IsZero() {
		return out, err
	}
	return out, s.shred(context.WithoutCancel(ctx), account, list)
}

// KeepList takes back a request for deletion that nobody has agreed to.
func (s *Service) KeepList(ctx context.Context, account fleet.Account, list string) (List, error) {
	var out List
	err := s.change(ctx, account, func(b *batch) error {
		l, err := b.list(ctx, list)
		if err != nil {
			return err
		}
		if l.DeleteBy == "" {
			return fault.New(fault.Conflict, "nobody has asked for the deletion of list %s", list)
		}
		l.DeleteBy, l.DeleteAt, l.Modified = "", 0, s.o.Now().UnixMilli()
		out = listOf(list, &l)
		b.emit(ctx, event.AllowListChanged{List: list, Supplier: l.Supplier, Change: event.AllowListKept})
		return b.put(listKey(account, list), l)
	})
	return out, err
}

// shred removes originals, entries and rows of a deleted list.
func (s *Service) shred(ctx context.Context, account fleet.Account, list string) error {
	all := func(store.Key) bool { return true }
	var uploads []string
	err := s.o.Store.Scan(ctx, store.Under(kindRevision, string(account), list), func(found store.Record) error {
		var r revisionRecord
		err := decode(found, &r)
		uploads = append(uploads, r.Upload)
		return err
	})
	if err != nil {
		return store.Fault(err)
	}
	for _, upload := range uploads {
		if err := s.removeAll(ctx, store.Under(kindOriginal, string(account), upload), all); err != nil {
			return err
		}
	}
	if err := s.removeAll(ctx, store.Under(kindEntry, string(account), list), all); err != nil {
		return err
	}
	for _, kind := range []string{kindSerial, kindPrint} {
		of := func(k store.Key) bool { return k.Parts()[3] == list }
		if err := s.removeAll(ctx, store.Under(kind, string(account)), of); err != nil {
			return err
		}
	}
	_, err = s.o.Store.Commit(ctx, store.Batch{Writes: []store.Write{{Key: workKey(account, list, 0), Delete: true}}})
	return store.Fault(err)
}

// sweepUploads removes what was left of uploads that the end of the process cut off.
// A young one may be another node's.
func (s *Service) sweepUploads(ctx context.Context) error {
	var left []store.Key
	err := s.o.Store.Scan(ctx, store.Under(kindUpload), func(found store.Record) error {
		var r uploadRecord
		if err := decode(found, &r); err != nil {
			return err
		}
		if s.o.Now().Sub(moment(r.Begun)) > uploadLife {
			left = append(left, found.Key)
		}
		return nil
	})
	if err != nil {
		return store.Fault(err)
	}
	for _, k := range left {
		if err := s.forget(ctx, fleet.Account(k.Parts()[1]), k.Last()); err != nil {
			return err
		}
	}
	return nil
}

// removeAll removes the keys of a range that are meant, some at a time.
func (s *Service) removeAll(ctx context.Context, within store.Range, meant func(store.Key) bool) error {
	for {
		var b store.Batch
		last := store.Key("")
		seen := 0
		err := s.o.Store.Scan(ctx, within, func(found store.Record) error {
			if len(b.Writes) == commitEntries {
				return store.Stop
			}
			seen++
			last = found.Key
			if meant(found.Key) {
				b.Writes = append(b.Writes, store.Write{Key: found.Key, Delete: true})
			}
			return nil
		})
		if err != nil {
			return store.Fault(err)
		}
		if len(b.Writes) > 0 {
			if _, err := s.o.Store.Commit(ctx, b); err != nil {
				return store.Fault(err)
			}
		}
		if seen == 0 {
			return nil
		}
		within = within.After(last)
	}
}

package shadow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// keyDrift is followed by account, the second of the oldest difference,
	// thing and shadow: rows in order of age, changed in the commits of their
	// shadows.
	keyDrift = "shadow-drift"
	// keyDriftWhole says that every shadow that differs has its row, also those
	// that earlier versions of the program wrote last.
	keyDriftWhole = "shadow-drift-whole"

	// MaxDrifts is the most entries of a page of drifts.
	MaxDrifts = 250
	// driftLook bounds the rows that one page looks at.
	driftLook = 5000
	// driftChunk is how many are looked at together.
	driftChunk = 250
	// driftFill is how many shadows one step of the first filling looks at.
	driftFill = 250
)

// driftSince is the oldest time of a leaf of desired that reported does not
// have, in seconds, 0 when there is no difference. An empty object has no time
// of its own: it counts with that of the document.
func (d *document) driftSince() int64 {
	if len(d.delta) == 0 {
		return 0
	}
	if since := oldest(d.delta, 0); since > 0 {
		return since
	}
	return max(d.seconds(), 1)
}

// oldest is the least time of a leaf below, or so far.
func oldest(kids []node, so int64) int64 {
	for i := range kids {
		if kids[i].kind == kindObject {
			so = oldest(kids[i].kids, so)
			continue
		}
		if at := kids[i].at; at > 0 && (so == 0 || at < so) {
			so = at
		}
	}
	return so
}

// driftStamp writes a second so that text order is time order.
func driftStamp(second int64) string {
	text := strconv.FormatInt(max(second, 0), 10)
	return "00000000000"[:max(11-len(text), 0)] + text
}

// driftKey is the shadow's row.
func (id identity) driftKey(since int64) store.Key {
	return store.K(keyDrift, string(id.account), driftStamp(since), id.thing, id.shadow)
}

// driftOf reads a row's key back.
func driftOf(key store.Key) (id identity, since int64, err error) {
	parts := key.Parts()
	if len(parts) != 5 {
		return id, 0, fmt.Errorf("key %s: %w", key, errRecord)
	}
	since, err = strconv.ParseInt(parts[2], 10, 64)
	if err != nil {
		return id, 0, fmt.Errorf("key %s: %w", key, errRecord)
	}
	return identity{account: fleet.Account(parts[1]), thing: parts[3], shadow: parts[4]}, since, nil
}

// moveDrift brings the shadow's row to where it belongs.
func (id identity) moveDrift(before, after int64) []store.Write {
	if before == after {
		return nil
	}
	var out []store.Write
	if before != 0 {
		out = append(out, store.Write{Key: id.driftKey(before), Delete: true})
	}
	if after != 0 {
		out = append(out, store.Write{Key: id.driftKey(after), Value: []byte("1")})
	}
	return out
}

// Drift is a shadow whose reported state is not what is desired.
type Drift struct {
	Thing string
	// Shadow is empty for the classic shadow.
	Shadow  string
	Version int64
	// Since is when the oldest outstanding leaf of desired was written.
	Since  time.Time
	Leaves []DriftLeaf
}

// DriftLeaf is one outstanding value of desired.
type DriftLeaf struct {
	// Path is a JSON Pointer below the sections.
	Path string
	// Desired is wanted, Reported what the device says, nil for nothing.
	Desired, Reported json.RawMessage
	// Since is when it was desired; zero for an empty object, which has no time.
	Since time.Time
}

// DriftQuery asks for a page of drifts, oldest first.
type DriftQuery struct {
	// Thing narrows to one thing.
	Thing string
	// Before keeps what is outstanding since before this time; zero for all.
	Before time.Time
	// Match keeps things for which it says true; nil keeps all.
	Match func(things []string) ([]bool, error)
	// After is DriftPage.Next of the page before.
	After string
	// Limit is how many entries to return, 1 to MaxDrifts.
	Limit int
}

// DriftPage is a part of the report.
type DriftPage struct {
	Drifts []Drift
	// Next is where the report goes on; empty at its end. A page may be short
	// or empty and still have a next one.
	Next string
	// Filling says that shadows last written by an earlier version of the
	// program may be missing still.
	Filling bool
}

// Drifts reports shadows that differ, oldest first. What changes while pages
// are turned may be told twice or be passed over.
func (s *Service) Drifts(ctx context.Context, account fleet.Account, q DriftQuery) (DriftPage, error) {
	if q.Limit < 1 || q.Limit > MaxDrifts {
		return DriftPage{}, fault.New(fault.InvalidRequest, "maxResults: %d is not between 1 and %d", q.Limit, MaxDrifts)
	}
	if q.Thing != "" {
		return s.driftsOf(ctx, account, q)
	}
	within := store.Under(keyDrift, string(account))
	if !q.Before.IsZero() {
		within.To = store.K(keyDrift, string(account), driftStamp(q.Before.Unix()))
	}
	if q.After != "" {
		within = within.After(store.Key(q.After))
	}
	page := DriftPage{}
	_, err := s.store.Get(ctx, store.K(keyDriftWhole))
	switch {
	case errors.Is(err, store.ErrNotFound):
		page.Filling = true
	case err != nil:
		return DriftPage{}, storeFault(err, "read drifts")
	}
	chunk := driftChunk
	if q.Match != nil {
		chunk = driftLook // what decides evaluates a query, whatever the number
	}
	for looked := 0; looked < driftLook; looked += chunk {
		rows, err := s.driftRows(ctx, within, chunk)
		if err != nil {
			return DriftPage{}, err
		}
		keep, err := matching(rows, q.Match)
		if err != nil {
			return DriftPage{}, err
		}
		for i, row := range rows {
			page.Next = string(row)
			if keep != nil && !keep[i] {
				continue
			}
			d, ok, err := s.drift(ctx, row)
			if err != nil {
				return DriftPage{}, err
			}
			if ok {
				page.Drifts = append(page.Drifts, d)
			}
			if len(page.Drifts) == q.Limit {
				return page, nil
			}
		}
		if len(rows) < chunk {
			page.Next = ""
			return page, nil
		}
		within = within.After(rows[len(rows)-1])
	}
	return page, nil
}

// driftRows reads the next rows, up to n.
func (s *Service) driftRows(ctx context.Context, within store.Range, n int) ([]store.Key, error) {
	var rows []store.Key
	err := s.store.Scan(ctx, within, func(row store.Record) error {
		if rows = append(rows, row.Key); len(rows) == n {
			return store.Stop
		}
		return nil
	})
	if err != nil {
		return nil, storeFault(err, "read drifts")
	}
	return rows, nil
}

// matching asks which rows are wanted; nil is all.
func matching(rows []store.Key, match func([]string) ([]bool, error)) ([]bool, error) {
	if match == nil || len(rows) == 0 {
		return nil, nil
	}
	things := make([]string, len(rows))
	for i, row := range rows {
		id, _, err := driftOf(row)
		if err != nil {
			return nil, err
		}
		things[i] = id.thing
	}
	return match(things)
}

// drift describes the shadow behind a row, if the row still holds.
func (s *Service) drift(ctx context.Context, row store.Key) (Drift, bool, error) {
	id, since, err := driftOf(row)
	if err != nil {
		return Drift{}, false, err
	}
	d, err := s.committed(ctx, id)
	if err != nil || d.since != since {
		return Drift{}, false, err
	}
	return describeDrift(id, d), true, nil
}

// describeDrift lists what is outstanding.
func describeDrift(id identity, d *document) Drift {
	out := Drift{Thing: id.thing, Shadow: id.shadow, Version: d.version, Since: time.Unix(d.since, 0).UTC()}
	out.leaves("", d.delta, d.reported)
	return out
}

// leaves adds the outstanding leaves below a path.
func (v *Drift) leaves(path string, delta, reported []node) {
	for i := range delta {
		want := &delta[i]
		at := path + "/" + pointerPart(want.key)
		have, found := member(reported, want.key)
		if want.kind == kindObject && len(want.kids) > 0 && (!found || have.kind == kindObject) {
			v.leaves(at, want.kids, have.kids)
			continue
		}
		leaf := DriftLeaf{Path: at, Desired: appendValue(nil, want)}
		if found {
			leaf.Reported = appendValue(nil, &have)
		}
		if since := oldest([]node{*want}, 0); since > 0 {
			leaf.Since = time.Unix(since, 0).UTC()
		}
		v.Leaves = append(v.Leaves, leaf)
	}
}

// driftsOf reports the shadows of one thing.
func (s *Service) driftsOf(ctx context.Context, account fleet.Account, q DriftQuery) (DriftPage, error) {
	if q.Match != nil {
		keep, err := q.Match([]string{q.Thing})
		if err != nil || !keep[0] {
			return DriftPage{}, err
		}
	}
	documents, err := s.Documents(ctx, account, q.Thing)
	if err != nil {
		return DriftPage{}, err
	}
	var page DriftPage
	rows := map[store.Key]*document{}
	for _, v := range documents {
		if v.d.since == 0 || !q.Before.IsZero() && v.d.since >= q.Before.Unix() {
			continue
		}
		id := identity{account: account, thing: q.Thing, shadow: v.Shadow}
		if row := id.driftKey(v.d.since); string(row) > q.After {
			rows[row] = v.d
		}
	}
	keys := make([]store.Key, 0, len(rows))
	for row := range rows {
		keys = append(keys, row)
	}
	slices.Sort(keys)
	for i, row := range keys {
		id, _, err := driftOf(row)
		if err != nil {
			return DriftPage{}, err
		}
		page.Drifts = append(page.Drifts, describeDrift(id, rows[row]))
		if len(page.Drifts) == q.Limit && i < len(keys)-1 {
			page.Next = string(row)
			break
		}
	}
	return page, nil
}

// FillDrifts writes the rows of shadows that an earlier version of the program
// wrote last. It does so once for a store; an interrupted call begins anew.
func (s *Service) FillDrifts(ctx context.Context) error {
	done := store.K(keyDriftWhole)
	if _, err := s.store.Get(ctx, done); !errors.Is(err, store.ErrNotFound) {
		return storeFaultOrNil(err, "read drifts")
	}
	within := store.Under(keyShadow)
	for {
		last, err := s.fillDrifts(ctx, within)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return storeFault(err, "write drifts")
		}
		if last == "" {
			break
		}
		within = within.After(last)
	}
	_, err := s.store.Commit(ctx, store.Batch{Writes: []store.Write{{Key: done, Value: []byte(`{"v":1}`)}}})
	return storeFaultOrNil(err, "write drifts")
}

// fillDrifts looks at some shadows and returns the last, none at the end. A
// shadow that changes meanwhile is a conflict.
func (s *Service) fillDrifts(ctx context.Context, within store.Range) (last store.Key, err error) {
	var b store.Batch
	n := 0
	err = s.store.Scan(ctx, within, func(record store.Record) error {
		n++
		last = record.Key
		id, ok := identityOf(record.Key)
		if !ok {
			return fmt.Errorf("key %s: %w", record.Key, errRecord)
		}
		d, err := decodeRecord(record.Value)
		if err != nil {
			return fmt.Errorf("shadow %s: %w", record.Key, err)
		}
		if d.since != 0 {
			b.Expect = append(b.Expect, store.Expect{Key: record.Key, Version: record.Version})
			b.Writes = append(b.Writes, id.moveDrift(0, d.since)...)
		}
		if n == driftFill {
			return store.Stop
		}
		return nil
	})
	if err != nil {
		return "", err //nolint:wrapcheck // the caller says what it did
	}
	if len(b.Writes) > 0 {
		if _, err := s.store.Commit(ctx, b); err != nil {
			return "", err //nolint:wrapcheck // as above
		}
	}
	if n < driftFill {
		return "", nil
	}
	return last, nil
}

// storeFaultOrNil is storeFault for what may have gone well.
func storeFaultOrNil(err error, doing string) error {
	if err == nil {
		return nil
	}
	return storeFault(err, doing)
}

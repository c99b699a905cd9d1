package registry

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Promised is what is promised of a thing beside what is.
type Promised struct {
	Name    string
	Promise Promise
	// Thing is the life that is meant, nil when it is gone.
	Thing *Thing
	// Instead are groups that the thing is in and that keep it out of a promised one:
	// a thing may be in one group of a hierarchy.
	Instead map[string]string
	// Certificate is the one by which the thing is judged, nil when it has none: the
	// promised one while it is attached and ACTIVE, else the newest that is, else
	// the promised one if it is attached, else the newest.
	Certificate *PromisedCertificate
}

// PromisedCertificate is a certificate of a thing, as a promise sees it.
type PromisedCertificate struct {
	ID, Status string
	// Policies are in order of their names.
	Policies []string
}

// maxJudged bounds the principals of a thing among which its certificate is
// looked for; those beyond are not seen.
const maxJudged = 100

// promisedOf brings together what belongs to a promise. Reading is by the attempt,
// so that what is decided by it commits only while it holds. It returns no record
// for a thing that nothing is promised of.
func (s *Service) promisedOf(ctx context.Context, a *attempt, name string) (Promised, *promiseRecord, error) {
	record, err := load[promiseRecord](ctx, a, key(kindThingPromise, a.account, name))
	if err != nil || record == nil {
		return Promised{}, nil, err
	}
	p := Promised{Name: name, Promise: record.promise()}
	thing, err := load[thingRecord](ctx, a, key(kindThing, a.account, name))
	if err != nil || thing == nil || thing.ID != record.ThingID {
		return p, record, err
	}
	present := s.thing(a.account, name, thing)
	p.Thing = &present
	if p.Instead, err = instead(ctx, a, record.Groups, thing); err != nil {
		return p, record, err
	}
	if record.Certificate == "" {
		return p, record, nil
	}
	p.Certificate, err = judged(ctx, a, name, record.Certificate)
	return p, record, err
}

// instead finds the groups that keep a thing out of promised ones.
func instead(ctx context.Context, a *attempt, promised []string, thing *thingRecord) (map[string]string, error) {
	var out map[string]string
	for _, name := range promised {
		if slices.ContainsFunc(thing.Groups, func(l groupLink) bool { return l.Group == name }) {
			continue
		}
		group, err := load[groupRecord](ctx, a, key(kindGroup, a.account, name))
		if err != nil {
			return nil, err
		}
		if group == nil {
			continue
		}
		if other, in := rival(thing, rootedLink(name, group)); in {
			if out == nil {
				out = map[string]string{}
			}
			out[name] = other
		}
	}
	return out, nil
}

// judged finds the certificate by which a thing is judged. The thing's record
// counts its attachments, so that whoever expects it sees each that comes or goes.
func judged(ctx context.Context, a *attempt, thing, promised string) (*PromisedCertificate, error) {
	of := reference{kind: fleet.ARNCertificate, name: promised}
	row, err := load[rowRecord](ctx, a, key(kindThingPrincipal, a.account, thing, of.ref()))
	if err != nil {
		return nil, err
	}
	if row != nil {
		record, err := load[certificateRecord](ctx, a, key(kindCertificate, a.account, promised))
		if err != nil || record != nil && record.Status == StatusActive {
			return promisedCertificate(promised, record), err
		}
	}
	rows, _, err := keysOf(ctx, a.reader, under(kindThingPrincipal, a.account, thing), "", maxJudged)
	if err != nil {
		return nil, err
	}
	best, bestID, bestRank := (*certificateRecord)(nil), "", 0
	for _, row := range rows {
		of := parseRef(row.Last())
		if of.kind != fleet.ARNCertificate {
			continue
		}
		record, err := load[certificateRecord](ctx, a, key(kindCertificate, a.account, of.name))
		if err != nil {
			return nil, err
		}
		if record == nil {
			continue
		}
		rank := 1
		switch {
		case record.Status == StatusActive:
			rank = 3
		case of.name == promised:
			rank = 2
		}
		if rank > bestRank || rank == bestRank && (record.Created > best.Created || record.Created == best.Created && of.name > bestID) {
			best, bestID, bestRank = record, of.name, rank
		}
	}
	return promisedCertificate(bestID, best), nil
}

func promisedCertificate(id string, r *certificateRecord) *PromisedCertificate {
	if r == nil {
		return nil
	}
	return &PromisedCertificate{ID: id, Status: r.Status, Policies: slices.Sorted(slices.Values(r.Policies))}
}

// Promised returns what is promised of a thing beside what is, all of one moment.
func (s *Service) Promised(ctx context.Context, account fleet.Account, name string) (Promised, error) {
	if err := checkName("thingName", name); err != nil {
		return Promised{}, err
	}
	found, err := s.PromisedAll(ctx, account, []string{name})
	if err == nil && len(found) == 0 {
		err = noPromise(name)
	}
	if err != nil {
		return Promised{}, err
	}
	return found[0], nil
}

func noPromise(name string) error { return notFound("promise of a template for thing", name) }

// PromisedAll is Promised for several things, in the order given and without those
// that nothing is promised of.
func (s *Service) PromisedAll(ctx context.Context, account fleet.Account, names []string) ([]Promised, error) {
	view, err := s.store.Snapshot(ctx)
	if err != nil {
		return nil, store.Fault(err)
	}
	defer func() { _ = view.Close() }()
	a := s.attempt(ctx, account)
	if a.reader, err = readAhead(ctx, view, account, names); err != nil {
		return nil, store.Fault(err)
	}
	all := make([]Promised, 0, len(names))
	for _, name := range names {
		p, record, err := s.promisedOf(ctx, a, name)
		if err != nil {
			return nil, store.Fault(err)
		}
		if record != nil {
			all = append(all, p)
		}
	}
	return all, nil
}

// ahead is a reader that has read some records together.
type ahead struct {
	store.Reader

	known map[store.Key]store.Record
}

// Get implements store.Reader.
func (r ahead) Get(ctx context.Context, k store.Key) (store.Record, error) {
	record, ok := r.known[k]
	switch {
	case !ok:
		return r.Reader.Get(ctx, k) //nolint:wrapcheck // the store's own
	case record.Version == 0:
		return record, store.ErrNotFound
	}
	return record, nil
}

// readAhead reads what most of the promises need, in two reads for all of them.
func readAhead(ctx context.Context, view store.Reader, account fleet.Account, names []string) (ahead, error) {
	r := ahead{Reader: view, known: make(map[store.Key]store.Record, 5*len(names))}
	read := func(keys []store.Key) error {
		if len(keys) == 0 {
			return nil
		}
		records, err := view.GetMany(ctx, keys)
		if err != nil {
			return fmt.Errorf("read what is promised of %d things: %w", len(names), err)
		}
		for i, record := range records {
			record.Key = keys[i]
			r.known[keys[i]] = record
		}
		return nil
	}
	var keys []store.Key
	for _, name := range names {
		keys = append(keys, key(kindThingPromise, account, name), key(kindThing, account, name))
	}
	if err := read(keys); err != nil {
		return r, err
	}
	keys = nil
	for _, name := range names {
		of := r.known[key(kindThingPromise, account, name)]
		if of.Version == 0 {
			continue
		}
		record, err := decode[promiseRecord](of)
		if err != nil {
			return r, err
		}
		if record.Certificate != "" {
			by := reference{kind: fleet.ARNCertificate, name: record.Certificate}
			keys = append(keys, key(kindThingPrincipal, account, name, by.ref()), key(kindCertificate, account, record.Certificate))
		}
	}
	return r, read(keys)
}

// PromiseFilter selects promises.
type PromiseFilter struct {
	// Template is empty for all.
	Template string
	// Version is one of the template's, 0 for all of them.
	Version int64
}

// PromisedNames returns one page of the names of things that something is promised
// of, by name, and of a template by version and name.
func (s *Service) PromisedNames(ctx context.Context, account fleet.Account, f PromiseFilter, p Page) (Listed[string], error) {
	within := under(kindThingPromise, account)
	switch {
	case f.Template != "" && f.Version != 0:
		within = under(kindThingPromiseBy, account, f.Template, promiseVersion(f.Version))
	case f.Template != "":
		within = under(kindThingPromiseBy, account, f.Template)
	}
	keys, more, err := keysOf(ctx, s.store, within, p.After, p.size())
	if err != nil {
		return Listed[string]{}, store.Fault(err)
	}
	listed := Listed[string]{Items: make([]string, len(keys))}
	for i, k := range keys {
		listed.Items[i] = k.Last()
	}
	if more {
		listed.Next = string(keys[len(keys)-1])
	}
	return listed, nil
}

// PromiseCount is how many things one version of a template has promised.
type PromiseCount struct {
	Version int64
	Things  int
}

// CountPromises counts the things of up to limit promises of a template by
// version; next, unless it is empty, is where to go on.
func (s *Service) CountPromises(ctx context.Context, account fleet.Account, template, after string, limit int) (counts []PromiseCount, next string, err error) {
	keys, more, err := keysOf(ctx, s.store, under(kindThingPromiseBy, account, template), after, limit)
	if err != nil {
		return nil, "", store.Fault(err)
	}
	for _, k := range keys {
		version, err := strconv.ParseInt(k.Parts()[3], 10, 64)
		if err != nil {
			return nil, "", fmt.Errorf("read row %s: %w", k, err)
		}
		if n := len(counts); n > 0 && counts[n-1].Version == version {
			counts[n-1].Things++
			continue
		}
		counts = append(counts, PromiseCount{Version: version, Things: 1})
	}
	if more {
		next = string(keys[len(keys)-1])
	}
	return counts, next, nil
}

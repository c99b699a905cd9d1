package renewal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// attempt is one try of a step: the records that it reads are expected unchanged,
// those that it changes are written with their rows and events.
type attempt struct {
	s      *Service
	now    time.Time
	actor  fleet.Actor
	slots  map[place]*slot
	order  []place
	events []event.Envelope
	steps  []event.CertificateRenewal
}

// slot is a record in an attempt.
type slot struct {
	at      place
	version uint64
	// before is what is stored, nil for nothing; now is what the attempt makes of
	// it.
	before, now *record
	changed     bool
}

func (s *Service) attempt(ctx context.Context) *attempt {
	return &attempt{s: s, now: s.o.Now(), actor: fleet.ActorFrom(ctx), slots: map[place]*slot{}}
}

// add takes a stored record in, unless the attempt has it.
func (a *attempt) add(at place, found store.Record) (*slot, error) {
	if known := a.slots[at]; known != nil {
		return known, nil
	}
	made := &slot{at: at, version: found.Version}
	if found.Version != 0 {
		var before record
		if err := decode(found, &before, &before.Schema); err != nil {
			return nil, err
		}
		now := before
		made.before, made.now = &before, &now
	}
	a.slots[at] = made
	a.order = append(a.order, at)
	return made, nil
}

// load reads one renewal.
func (a *attempt) load(ctx context.Context, at place) (*slot, error) {
	if known := a.slots[at]; known != nil {
		return known, nil
	}
	found, err := a.s.o.Store.Get(ctx, at.key())
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, store.Fault(fmt.Errorf("read renewal %s: %w", at.key(), err))
	}
	return a.add(at, found)
}

// loadAll reads all renewals of a thing, in order of their beginning.
func (a *attempt) loadAll(ctx context.Context, account fleet.Account, thing string) ([]*slot, error) {
	var found []store.Record
	err := a.s.o.Store.Scan(ctx, store.Under(kindRenewal, string(account), thing), func(r store.Record) error {
		found = append(found, r)
		return nil
	})
	if err != nil {
		return nil, store.Fault(fmt.Errorf("read the renewals of thing %s: %w", thing, err))
	}
	all := make([]*slot, 0, len(found))
	for _, r := range found {
		one, err := a.add(placeOf(r.Key), r)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	slices.SortStableFunc(all, func(x, y *slot) int { return int(x.now.Begun - y.now.Begun) })
	return all, nil
}

// take lets a renewal take a step and reports it.
func (a *attempt) take(one *slot, step event.CertificateRenewal, reason string) {
	r := one.now
	if step == event.RenewalUnproven {
		r.Proof = nil
	}
	r.Step, r.Changed, r.Reason, r.Due = step, a.now.UnixMilli(), reason, 0
	switch step {
	case event.RenewalBegun:
		r.Due = a.now.Add(a.s.o.Patience).UnixMilli()
	case event.RenewalProven:
		r.Due = r.Proof.At + a.s.o.Overlap.Milliseconds()
	case event.RenewalCompleted, event.RenewalAbandoned:
		r.Due = a.now.Add(retentionAge).UnixMilli()
	case event.RenewalUnproven, event.RenewalSuperseded:
	}
	one.changed = true
	e := event.CertificateRenewalChanged{
		Thing: one.at.thing, OldCertificateID: r.Old, NewCertificateID: one.at.renewed, Step: step, Reason: reason,
	}
	if r.Proof != nil {
		e.ProvenAt, e.ClientID = moment(r.Proof.At), r.Proof.ClientID
	}
	a.steps = append(a.steps, step)
	a.events = append(a.events, event.Envelope{Account: one.at.account, At: a.now, Actor: a.actor, Event: e})
}

// forget removes a renewal.
func (a *attempt) forget(one *slot) { one.now, one.changed = nil, true }

// batch is what the attempt comes to: nothing when it has changed nothing.
func (a *attempt) batch() (store.Batch, error) {
	b := store.Batch{Events: a.events}
	for _, at := range a.order {
		one := a.slots[at]
		if !one.changed {
			continue
		}
		b.Expect = append(b.Expect, store.Expect{Key: at.key(), Version: one.version})
		if err := one.write(&b); err != nil {
			return store.Batch{}, err
		}
	}
	return b, nil
}

// write adds the record and the rows that differ.
func (one *slot) write(b *store.Batch) error {
	before, after := map[store.Key]string{}, map[store.Key]string{}
	var err error
	if one.before != nil {
		if before, err = one.before.rows(one.at); err != nil {
			return err
		}
	}
	if one.now == nil {
		b.Writes = append(b.Writes, store.Write{Key: one.at.key(), Delete: true})
	} else {
		if after, err = one.now.rows(one.at); err != nil {
			return err
		}
		one.now.Schema = schemaVersion
		value, err := json.Marshal(one.now)
		if err != nil {
			return fmt.Errorf("encode renewal: %w", err)
		}
		b.Writes = append(b.Writes, store.Write{Key: one.at.key(), Value: value})
	}
	for _, k := range slices.Sorted(maps.Keys(before)) {
		if _, stays := after[k]; !stays {
			b.Writes = append(b.Writes, store.Write{Key: k, Delete: true})
		}
	}
	for _, k := range slices.Sorted(maps.Keys(after)) {
		if before[k] != after[k] {
			b.Writes = append(b.Writes, store.Write{Key: k, Value: []byte(after[k])})
		}
	}
	return nil
}

// count adds what was committed to the metrics.
func (a *attempt) count() {
	for _, step := range a.steps {
		a.s.steps.WithLabelValues(string(step)).Inc()
	}
}

// change decides a step until its batch commits.
func (s *Service) change(ctx context.Context, decide func(*attempt) error) error {
	var last *attempt
	err := store.Attempt(ctx, s.o.Store, func(ctx context.Context) (store.Batch, error) {
		last = s.attempt(ctx)
		if err := decide(last); err != nil {
			return store.Batch{}, err
		}
		return last.batch()
	})
	if err == nil {
		last.count()
	}
	return err
}

package onboarding

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// attempt is one try of a change: the devices that it reads are expected
// unchanged, those that it changes are written with their rows and events.
type attempt struct {
	s      *Service
	slots  map[place]*slot
	order  []place
	plans  map[store.Key]*Plan
	events []event.Envelope
	failed int
	// evidence refers to what the attempt follows from, for what the platform saw.
	evidence string
}

// slot is a device in an attempt.
type slot struct {
	at      place
	version uint64
	// before is what is stored, nil for nothing; now is what the attempt makes of
	// it, nil for nothing.
	before, now *record
	changed     bool
}

func (s *Service) attempt() *attempt {
	return &attempt{s: s, slots: map[place]*slot{}, plans: map[store.Key]*Plan{}}
}

// load reads a device.
func (a *attempt) load(ctx context.Context, at place) (*slot, error) {
	if known := a.slots[at]; known != nil {
		return known, nil
	}
	found, err := a.s.o.Store.Get(ctx, at.record())
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, store.Fault(fmt.Errorf("read device %s: %w", at.key, err))
	}
	made := &slot{at: at, version: found.Version}
	if found.Version != 0 {
		var before, now record
		if err := decode(found, &before, &before.Schema); err != nil {
			return nil, err
		}
		// now shares nothing with before, whose rows are compared.
		if err := decode(found, &now, &now.Schema); err != nil {
			return nil, err
		}
		if now.Steps == nil {
			now.Steps = map[string]int64{} // an empty one is not stored
		}
		made.before, made.now = &before, &now
	}
	a.slots[at] = made
	a.order = append(a.order, at)
	return made, nil
}

// plan reads a version of a plan once.
func (a *attempt) plan(ctx context.Context, account fleet.Account, id string, number int64) (*Plan, error) {
	key := versionKey(account, id, number)
	if known := a.plans[key]; known != nil {
		return known, nil
	}
	v, _, err := a.s.version(ctx, a.s.o.Store, account, id, number)
	if err != nil {
		return nil, err
	}
	a.plans[key] = &v.Plan
	return &v.Plan, nil
}

// act lets something happen to a device that has a record, as who and when, and
// reports what it comes to.
func (a *attempt) act(ctx context.Context, one *slot, by fleet.Actor, at time.Time, do func(*life) error) error {
	plan, err := a.plan(ctx, one.at.account, one.now.Plan, one.now.Version)
	if err != nil {
		return err
	}
	evidence := a.evidence
	if evidence == "" && by.RequestID != "" {
		evidence = "call " + by.RequestID
	}
	l := &life{record: one.now, key: one.at.key, plan: plan, at: at, by: by.Principal, evidence: evidence}
	var before State
	if one.now.Life > 0 {
		before = one.now.state()
	}
	if err := do(l); err != nil || !l.changed {
		return err
	}
	one.changed = true
	emit := func(e event.Event) {
		a.events = append(a.events, event.Envelope{Account: one.at.account, At: at, Actor: by, Event: e})
	}
	if after := l.state(); after != before || len(l.steps) > 0 {
		emit(event.OnboardingChanged{
			Device: one.at.key, Plan: l.Plan, PlanVersion: l.Version, Thing: l.Thing,
			State: string(after), PreviousState: string(before), Stage: l.Stage, Steps: l.steps,
		})
	}
	for _, c := range l.failed {
		a.failed++
		emit(event.OnboardingCriteriaFailed{
			Device: one.at.key, Plan: l.Plan, PlanVersion: l.Version, Thing: l.Thing, CertificateID: l.Certificate,
			Stage: c.Stage, Predicate: c.Predicate, Within: time.Duration(c.Within) * time.Millisecond, ActivatedAt: moment(l.Reached[StateActive]),
		})
	}
	return nil
}

// batch is what the attempt comes to: nothing when it has changed nothing.
func (a *attempt) batch() (store.Batch, error) {
	b := store.Batch{Events: a.events}
	for _, at := range a.order {
		one := a.slots[at]
		if !one.changed {
			continue
		}
		b.Expect = append(b.Expect, store.Expect{Key: at.record(), Version: one.version})
		if err := one.write(&b); err != nil {
			return store.Batch{}, err
		}
	}
	return b, nil
}

// write adds the record and the rows that differ.
func (one *slot) write(b *store.Batch) error {
	before := map[store.Key]string{}
	var err error
	if one.before != nil {
		if before, err = one.before.rows(one.at); err != nil {
			return err
		}
	}
	after, err := one.now.rows(one.at)
	if err != nil {
		return err
	}
	one.now.Schema = schemaVersion
	value, err := json.Marshal(one.now)
	if err != nil {
		return fmt.Errorf("encode device: %w", err)
	}
	b.Writes = append(b.Writes, store.Write{Key: one.at.record(), Value: value})
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

// change decides a change of devices until its batch commits.
func (s *Service) change(ctx context.Context, decide func(*attempt) error) error {
	failed := 0
	err := s.commit(ctx, func() (store.Batch, error) {
		a := s.attempt()
		if err := decide(a); err != nil {
			return store.Batch{}, err
		}
		failed = a.failed
		return a.batch()
	})
	if err == nil {
		s.failed.Add(float64(failed))
	}
	return err
}

// device finds the record of a device, which exists.
func (a *attempt) device(ctx context.Context, account fleet.Account, key string) (*slot, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	one, err := a.load(ctx, place{account: account, key: key})
	if err == nil && one.now == nil {
		err = fault.New(fault.ResourceNotFound, "there is no onboarding of device %s", key)
	}
	return one, err
}

func checkKey(key string) error {
	if !keyPattern.MatchString(key) {
		return fault.New(fault.InvalidRequest, "deviceKey: must have 1 to 128 letters, digits and :_.#=@-, and begin with a letter or digit")
	}
	return nil
}

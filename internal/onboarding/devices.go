package onboarding

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// maxNote bounds evidence and remarks in characters.
const maxNote = 1024

// ExpectCommand announces a device.
type ExpectCommand struct {
	// Device is its key; empty for the unique id of the metadata.
	Device string
	// Plan has a version in force, which the device follows.
	Plan string
	// Metadata are facts of manufacture by their names.
	Metadata map[string]string
}

// Expect begins the record of a device that is going to come.
func (s *Service) Expect(ctx context.Context, account fleet.Account, c ExpectCommand) (Device, error) {
	key := c.Device
	if key == "" {
		key = c.Metadata[factUniqueID]
	}
	err := s.change(ctx, func(a *attempt) error { return a.expect(ctx, account, key, c) })
	if err != nil {
		return Device{}, err
	}
	return s.Device(ctx, account, key)
}

// Expected is the batch of Expect for a caller that commits it with what announces
// the device, as an allow list does. A device that has a record already is
// ResourceAlreadyExists.
func (s *Service) Expected(ctx context.Context, account fleet.Account, c ExpectCommand) (store.Batch, error) {
	key := c.Device
	if key == "" {
		key = c.Metadata[factUniqueID]
	}
	a := s.attempt()
	if err := a.expect(ctx, account, key, c); err != nil {
		return store.Batch{}, err
	}
	return a.batch()
}

func (a *attempt) expect(ctx context.Context, account fleet.Account, key string, c ExpectCommand) error {
	if err := checkKey(key); err != nil {
		return err
	}
	k, err := a.s.plan(ctx, a.s.o.Store, account, c.Plan)
	if err != nil {
		return err
	}
	if k.Published == 0 {
		return fault.New(fault.Conflict, "provisioning plan %s is %s: devices follow one that is published", c.Plan, k.Status)
	}
	plan, err := a.plan(ctx, account, c.Plan, k.Published)
	if err != nil {
		return err
	}
	if _, _, err := plan.Attributes(c.Metadata); err != nil {
		return err
	}
	if id := c.Metadata[factUniqueID]; plan.DeviceKey == KeyUniqueID && id != "" && id != key {
		return fault.New(fault.InvalidRequest, "deviceKey: is %s, and plan %s finds devices by their unique id, which is %s", key, c.Plan, id)
	}
	one, err := a.load(ctx, place{account: account, key: key})
	if err != nil {
		return err
	}
	if one.now != nil {
		return fault.New(fault.ResourceAlreadyExists, "device %s is %s in provisioning plan %s", key, one.now.state(), one.now.Plan)
	}
	one.now = &record{Plan: c.Plan, Version: k.Published, Metadata: maps.Clone(c.Metadata)}
	return a.act(ctx, one, fleet.ActorFrom(ctx), a.s.o.Now(), func(l *life) error {
		l.begin()
		l.reach(StateExpected, "announced")
		return nil
	})
}

// CompleteCommand reports that a step was done.
type CompleteCommand struct {
	Device, Step string
	// Evidence refers to the proof: a document, a ticket, an address.
	Evidence string
	Note     string
}

// Complete completes a step of a device's plan. Of two that report the same step,
// one is refused; so is who comes before what the step depends on.
func (s *Service) Complete(ctx context.Context, account fleet.Account, c CompleteCommand) (Device, error) {
	for _, each := range []struct{ name, text string }{{"evidence", c.Evidence}, {"note", c.Note}} {
		if utf8.RuneCountInString(each.text) > maxNote {
			return Device{}, fault.New(fault.InvalidRequest, "%s: has %d characters at most", each.name, maxNote)
		}
	}
	err := s.change(ctx, func(a *attempt) error {
		one, err := a.device(ctx, account, c.Device)
		if err != nil {
			return err
		}
		return a.act(ctx, one, fleet.ActorFrom(ctx), s.o.Now(), func(l *life) error { return l.report(c.Step, c.Evidence, c.Note) })
	})
	if err != nil {
		return Device{}, err
	}
	return s.Device(ctx, account, c.Device)
}

// Device is how far a device is.
type Device struct {
	Key         string
	Plan        string
	PlanVersion int64
	State       State
	// Stage is the first that is not done, StageSince when the device came into it;
	// empty when all are.
	Stage      string
	StageSince time.Time
	// StuckAt is when the stage's limit is or was over; zero for none.
	StuckAt time.Time
	Stuck   bool
	// Life is 1, and more for a device that came back after it was decommissioned.
	Life  int
	Begun time.Time
	// Completed is when the last step was done; zero for one that is under way.
	Completed          time.Time
	Thing, Certificate string
	Metadata           map[string]string
	// Problems are differences between the thing and what the plan wants it to say.
	Problems []string
	Steps    []StepState
	Criteria []CriterionState
	History  []Entry
	// Lost counts entries that the history had no room for.
	Lost int
}

// StepState is a step of the device's plan.
type StepState struct {
	Stage, Step, Title string
	// Completed is zero for one that is not done.
	Completed time.Time
	// WaitsFor are the steps that it depends on and that are not done.
	WaitsFor []string
}

// CriterionState is an exit criterion; Met and Failed are zero while it is open.
type CriterionState struct {
	Stage, Predicate string
	Within           time.Duration
	Deadline         time.Time
	Met, Failed      time.Time
}

// Entry is a line of a device's history.
type Entry struct {
	At          time.Time
	Life        int
	Stage, Step string
	State       State
	Result      Result
	// Actor is who is answerable for the stage, Principal who did it.
	Actor     string
	Principal fleet.Principal
	Evidence  string
	Note      string
	// Last and Count are of a refusal that came more than once.
	Last  time.Time
	Count int
}

// Device returns the record of a device with its history.
func (s *Service) Device(ctx context.Context, account fleet.Account, key string) (Device, error) {
	a := s.attempt()
	one, err := a.device(ctx, account, key)
	if err != nil {
		return Device{}, err
	}
	plan, err := a.plan(ctx, account, one.now.Plan, one.now.Version)
	if err != nil {
		return Device{}, err
	}
	d := s.summary(key, one.now)
	l := &life{record: one.now, plan: plan}
	for i := range plan.Stages {
		for j := range plan.Stages[i].Steps {
			step := &plan.Stages[i].Steps[j]
			st := StepState{Stage: plan.Stages[i].ID, Step: step.ID, Title: step.Title, Completed: moment(one.now.Steps[step.ID])}
			if st.Completed.IsZero() {
				st.WaitsFor = l.missing(step)
			}
			d.Steps = append(d.Steps, st)
		}
	}
	for _, c := range one.now.Criteria {
		d.Criteria = append(d.Criteria, CriterionState{
			Stage: c.Stage, Predicate: c.Predicate, Within: time.Duration(c.Within) * time.Millisecond,
			Deadline: moment(c.Deadline), Met: moment(c.Met), Failed: moment(c.Failed),
		})
	}
	for _, e := range one.now.History {
		actor := ""
		if stage := plan.stage(e.Stage); stage != nil {
			actor = stage.Actor.who()
		}
		d.History = append(d.History, Entry{
			At: moment(e.At), Life: e.Life, Stage: e.Stage, Step: e.Step, State: e.State, Result: e.Result, Actor: actor,
			Principal: e.Principal, Evidence: e.Evidence, Note: e.Note, Last: moment(e.Last), Count: e.Count,
		})
	}
	return d, nil
}

// summary is a device without what is long.
func (s *Service) summary(key string, r *record) Device {
	return Device{
		Key: key, Plan: r.Plan, PlanVersion: r.Version, State: r.state(), Stage: r.Stage, StageSince: moment(r.StageSince),
		StuckAt: moment(r.StuckAt), Stuck: r.StuckAt != 0 && r.StuckAt <= s.o.Now().UnixMilli(),
		Life: r.Life, Begun: moment(r.Begun), Completed: moment(r.Completed), Thing: r.Thing, Certificate: r.Certificate,
		Metadata: r.Metadata, Problems: r.Problems, Lost: r.Lost,
	}
}

// Query narrows a list of devices; empty members do not.
type Query struct {
	State State
	Stage string
	// OlderThan wants devices that have been in Stage for longer.
	OlderThan time.Duration
	// Stuck wants those that are in their stage for longer than its limit.
	Stuck bool
	After string
	Limit int
}

// check refuses what cannot be answered by one list.
func (q *Query) check() error {
	switch {
	case q.State != "" && !slices.Contains(states(), q.State):
		return fault.New(fault.InvalidRequest, "state: must be one of %v", states())
	case q.Stage != "" && !idPattern.MatchString(q.Stage):
		return fault.New(fault.InvalidRequest, "stage: is no id of a stage")
	case q.State != "" && (q.Stage != "" || q.Stuck):
		return fault.New(fault.InvalidRequest, "state: does not go together with stage and stuck")
	case q.OlderThan < 0:
		return fault.New(fault.InvalidRequest, "olderThan: is negative")
	case q.OlderThan > 0 && (q.Stage == "" || q.Stuck):
		return fault.New(fault.InvalidRequest, "olderThan: needs stage, and does not go together with stuck")
	case q.Stuck && q.Stage != "":
		return fault.New(fault.InvalidRequest, "stuck: does not go together with stage")
	}
	return nil
}

// Devices returns one page of an account's devices, without their steps, criteria
// and history: those of a stage by how long they are in it, stuck ones by how long
// they are stuck, others by key.
func (s *Service) Devices(ctx context.Context, account fleet.Account, q Query) (devices []Device, next string, err error) {
	if err := q.check(); err != nil {
		return nil, "", err
	}
	now := s.o.Now().UnixMilli()
	a := string(account)
	within := store.Under(kindDevice, a)
	switch {
	case q.State != "":
		within = store.Under(kindState, a, string(q.State))
	case q.Stuck:
		within = store.Under(kindLimit, a)
		within.To = store.K(kindLimit, a, rising(now+1))
	case q.Stage != "":
		within = store.Under(kindStage, a, q.Stage)
		if q.OlderThan > 0 {
			within.To = store.K(kindStage, a, q.Stage, rising(now-q.OlderThan.Milliseconds()))
		}
	}
	rows, next, err := s.page(ctx, within, q.After, q.Limit)
	if err != nil || len(rows) == 0 {
		return nil, "", err
	}
	keys := make([]store.Key, len(rows))
	for i, row := range rows {
		keys[i] = placeIn(row.Key).record()
	}
	found, err := s.o.Store.GetMany(ctx, keys)
	if err != nil {
		return nil, "", store.Fault(fmt.Errorf("list devices: %w", err))
	}
	for _, row := range found {
		if row.Version == 0 {
			continue // it is gone meanwhile
		}
		var r record
		if err := decode(row, &r, &r.Schema); err != nil {
			return nil, "", err
		}
		devices = append(devices, s.summary(row.Key.Last(), &r))
	}
	return devices, next, nil
}

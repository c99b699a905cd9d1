package onboarding

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// maxPlans bounds the plans of an account, maxVersions the versions of one.
	maxPlans    = 500
	maxVersions = 1000
	// maxListed bounds a page of a list.
	maxListed = 250
)

// Version is one version of a plan.
type Version struct {
	Plan   Plan
	Status Status
	Number int64
	// Source is the text as it was handed in.
	Source      string
	Written     time.Time
	WrittenBy   fleet.Principal
	Published   time.Time
	PublishedBy fleet.Principal
	// Retired is when another version took its place, or the plan was retired.
	Retired   time.Time
	RetiredBy fleet.Principal
}

// Summary is a plan in a list. Version numbers are 0 for none.
type Summary struct {
	ID, Name                 string
	Status                   Status
	Published, Draft, Newest int64
	Created, Changed         time.Time
}

// known is a plan's record with its place in the store.
type known struct {
	planRecord
	key     store.Key
	version uint64
}

// plan reads a plan's record.
func (s *Service) plan(ctx context.Context, r store.Reader, account fleet.Account, id string) (*known, error) {
	if !idPattern.MatchString(id) {
		return nil, fault.New(fault.InvalidRequest, "plan: is no id of a plan")
	}
	found, err := r.Get(ctx, planKey(account, id))
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.New(fault.ResourceNotFound, "provisioning plan %s does not exist", id)
	}
	if err != nil {
		return nil, store.Fault(fmt.Errorf("read plan: %w", err))
	}
	p := &known{key: found.Key, version: found.Version}
	return p, decode(found, &p.planRecord, &p.Schema)
}

// version reads a version of a plan; it exists.
func (s *Service) version(ctx context.Context, r store.Reader, account fleet.Account, id string, number int64) (*versionRecord, uint64, error) {
	found, err := r.Get(ctx, versionKey(account, id, number))
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, fault.New(fault.ResourceNotFound, "provisioning plan %s has no version %d", id, number)
	}
	if err != nil {
		return nil, 0, store.Fault(fmt.Errorf("read version of plan: %w", err))
	}
	var v versionRecord
	return &v, found.Version, decode(found, &v, &v.Schema)
}

// Create makes a plan from its text, as the draft of version 1.
func (s *Service) Create(ctx context.Context, account fleet.Account, source string) (Version, error) {
	plan, err := Parse([]byte(source))
	if err != nil {
		return Version{}, planFault(err)
	}
	err = s.commit(ctx, func() (store.Batch, error) {
		switch _, err := s.plan(ctx, s.o.Store, account, plan.ID); {
		case err == nil:
			return store.Batch{}, fault.New(fault.ResourceAlreadyExists, "provisioning plan %s exists; change it instead", plan.ID)
		case fault.CodeOf(err) != fault.ResourceNotFound:
			return store.Batch{}, err
		}
		b := store.Batch{Expect: []store.Expect{{Key: planKey(account, plan.ID)}}}
		if err := s.countPlan(ctx, &b, account); err != nil {
			return store.Batch{}, err
		}
		now := s.o.Now().UnixMilli()
		k := &known{key: planKey(account, plan.ID), planRecord: planRecord{Created: now, Status: StatusDraft}}
		return b, s.draft(ctx, &b, account, k, plan, source)
	})
	if err != nil {
		return Version{}, err
	}
	return s.Describe(ctx, account, plan.ID, 0)
}

// countPlan keeps the limit of plans.
func (s *Service) countPlan(ctx context.Context, b *store.Batch, account fleet.Account) error {
	key := store.K(kindPlans, string(account))
	found, err := s.o.Store.Get(ctx, key)
	var plans plansRecord
	if err == nil {
		err = decode(found, &plans, &plans.Schema)
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return store.Fault(err)
	}
	if plans.Count >= maxPlans {
		return fault.New(fault.LimitExceeded, "an account has %d provisioning plans at most", maxPlans)
	}
	b.Expect = append(b.Expect, store.Expect{Key: key, Version: found.Version})
	return put(b, key, plansRecord{Schema: schemaVersion, Count: plans.Count + 1})
}

// draft writes the draft of a plan.
func (s *Service) draft(ctx context.Context, b *store.Batch, account fleet.Account, k *known, plan *Plan, source string) error {
	now := s.o.Now().UnixMilli()
	if k.Draft == 0 {
		k.Newest++
		k.Draft = k.Newest
	}
	k.Schema, k.Name, k.Changed = schemaVersion, plan.Name, now
	err := put(b, versionKey(account, plan.ID, k.Draft), versionRecord{
		Schema: schemaVersion, Status: StatusDraft, Source: source, Plan: *plan, Written: now, WrittenBy: fleet.ActorFrom(ctx).Principal,
	})
	if err != nil {
		return err
	}
	b.Events = append(b.Events, s.envelope(ctx, account, event.ProvisioningPlanChanged{Plan: plan.ID, Change: event.PlanDrafted, Version: k.Draft}))
	return put(b, k.key, k.planRecord)
}

// Update replaces a plan's draft, or begins one of the next version. What was
// published stays as it is.
func (s *Service) Update(ctx context.Context, account fleet.Account, id, source string) (Version, error) {
	plan, err := Parse([]byte(source))
	if err != nil {
		return Version{}, planFault(err)
	}
	if plan.ID != id {
		return Version{}, fault.New(fault.InvalidRequest, "id: is %s in the plan's text, and the plan that is changed is %s", plan.ID, id)
	}
	var number int64
	err = s.commit(ctx, func() (store.Batch, error) {
		k, err := s.plan(ctx, s.o.Store, account, id)
		if err != nil {
			return store.Batch{}, err
		}
		if k.Draft == 0 && k.Newest >= maxVersions {
			return store.Batch{}, fault.New(fault.LimitExceeded, "a provisioning plan has %d versions at most", maxVersions)
		}
		b := store.Batch{Expect: []store.Expect{{Key: k.key, Version: k.version}}}
		err = s.draft(ctx, &b, account, k, plan, source)
		number = k.Draft
		return b, err
	})
	if err != nil {
		return Version{}, err
	}
	return s.Describe(ctx, account, id, number)
}

// Publish freezes a plan's draft and puts it in force: devices that begin from now
// on follow it. Those under way go on with the version that they have. No template,
// authority or thing type has two plans.
func (s *Service) Publish(ctx context.Context, account fleet.Account, id string) (Version, error) {
	var number int64
	err := s.commit(ctx, func() (store.Batch, error) {
		k, err := s.plan(ctx, s.o.Store, account, id)
		if err != nil {
			return store.Batch{}, err
		}
		if number = k.Draft; number == 0 {
			return store.Batch{}, fault.New(fault.Conflict, "provisioning plan %s has no draft to publish", id)
		}
		b := store.Batch{Expect: []store.Expect{{Key: k.key, Version: k.version}}}
		draft, version, err := s.version(ctx, s.o.Store, account, id, number)
		if err != nil {
			return store.Batch{}, err
		}
		b.Expect = append(b.Expect, store.Expect{Key: versionKey(account, id, number), Version: version})
		if err := s.unbind(ctx, &b, account, k, id, draft.Plan.bindings(account)); err != nil {
			return store.Batch{}, err
		}
		if err := s.bind(ctx, &b, id, draft.Plan.bindings(account)); err != nil {
			return store.Batch{}, err
		}
		now, by := s.o.Now().UnixMilli(), fleet.ActorFrom(ctx).Principal
		draft.Status, draft.Published, draft.PublishedBy = StatusPublished, now, by
		if err := put(&b, versionKey(account, id, number), draft); err != nil {
			return store.Batch{}, err
		}
		k.Status, k.Published, k.Draft, k.Changed = StatusPublished, number, 0, now
		b.Events = append(b.Events, s.envelope(ctx, account, event.ProvisioningPlanChanged{Plan: id, Change: event.PlanPublished, Version: number}))
		return b, put(&b, k.key, k.planRecord)
	})
	if err != nil {
		return Version{}, err
	}
	return s.Describe(ctx, account, id, number)
}

// bind writes a plan's rows where nobody else's are.
func (s *Service) bind(ctx context.Context, b *store.Batch, id string, keys []store.Key) error {
	if len(keys) == 0 {
		return nil
	}
	found, err := s.o.Store.GetMany(ctx, keys)
	if err != nil {
		return store.Fault(fmt.Errorf("read bindings of plans: %w", err))
	}
	for i, row := range found {
		if row.Version != 0 {
			var other nameRow
			if err := decode(row, &other, &other.Schema); err != nil {
				return err
			}
			if other.Name != id {
				parts := keys[i].Parts()
				return fault.New(fault.Conflict, "appliesTo: %s %s follows provisioning plan %s already", parts[2], parts[3], other.Name)
			}
		}
		b.Expect = append(b.Expect, store.Expect{Key: keys[i], Version: row.Version})
		if err := put(b, keys[i], nameRow{Schema: schemaVersion, Name: id}); err != nil {
			return err
		}
	}
	return nil
}

// unbind retires the version in force, and removes its rows except those to keep.
func (s *Service) unbind(ctx context.Context, b *store.Batch, account fleet.Account, k *known, id string, keep []store.Key) error {
	if k.Published == 0 {
		return nil
	}
	v, version, err := s.version(ctx, s.o.Store, account, id, k.Published)
	if err != nil {
		return err
	}
	v.Status, v.Retired, v.RetiredBy = StatusRetired, s.o.Now().UnixMilli(), fleet.ActorFrom(ctx).Principal
	key := versionKey(account, id, k.Published)
	b.Expect = append(b.Expect, store.Expect{Key: key, Version: version})
	for _, row := range v.Plan.bindings(account) {
		if !slices.Contains(keep, row) {
			b.Writes = append(b.Writes, store.Write{Key: row, Delete: true})
		}
	}
	return put(b, key, v)
}

// Retire lets no further device follow a plan. Those under way go on. A draft
// stays, and publishing it puts the plan in force again.
func (s *Service) Retire(ctx context.Context, account fleet.Account, id string) (Version, error) {
	var number int64
	err := s.commit(ctx, func() (store.Batch, error) {
		k, err := s.plan(ctx, s.o.Store, account, id)
		if err != nil {
			return store.Batch{}, err
		}
		if number = k.Published; number == 0 {
			return store.Batch{}, fault.New(fault.Conflict, "provisioning plan %s is %s: only one that is published can be retired", id, k.Status)
		}
		b := store.Batch{Expect: []store.Expect{{Key: k.key, Version: k.version}}}
		if err := s.unbind(ctx, &b, account, k, id, nil); err != nil {
			return store.Batch{}, err
		}
		k.Status, k.Published, k.Changed = StatusRetired, 0, s.o.Now().UnixMilli()
		b.Events = append(b.Events, s.envelope(ctx, account, event.ProvisioningPlanChanged{Plan: id, Change: event.PlanRetired, Version: number}))
		return b, put(&b, k.key, k.planRecord)
	})
	if err != nil {
		return Version{}, err
	}
	return s.Describe(ctx, account, id, number)
}

// Describe returns a version of a plan: for 0 the one in force, or else the newest.
func (s *Service) Describe(ctx context.Context, account fleet.Account, id string, number int64) (Version, error) {
	k, err := s.plan(ctx, s.o.Store, account, id)
	if err != nil {
		return Version{}, err
	}
	if number < 0 {
		return Version{}, fault.New(fault.InvalidRequest, "version: counts from 1")
	}
	if number == 0 {
		if number = k.Published; number == 0 {
			number = k.Newest
		}
	}
	v, _, err := s.version(ctx, s.o.Store, account, id, number)
	if err != nil {
		return Version{}, err
	}
	return versionOf(v, number), nil
}

// versionOf is the public form of a version.
func versionOf(v *versionRecord, number int64) Version {
	return Version{
		Plan: v.Plan, Status: v.Status, Number: number, Source: v.Source,
		Written: moment(v.Written), WrittenBy: v.WrittenBy,
		Published: moment(v.Published), PublishedBy: v.PublishedBy, Retired: moment(v.Retired), RetiredBy: v.RetiredBy,
	}
}

// Diff compares two versions of a plan. For to 0 that is the newest, for from 0 the
// one before it.
func (s *Service) Diff(ctx context.Context, account fleet.Account, id string, from, to int64) (used [2]int64, diff []Difference, err error) {
	k, err := s.plan(ctx, s.o.Store, account, id)
	if err != nil {
		return used, nil, err
	}
	if to == 0 {
		to = k.Newest
	}
	if from == 0 {
		from = to - 1
	}
	if from < 1 || to < 1 {
		return used, nil, fault.New(fault.InvalidRequest, "from and to: version %d has none before it to compare with", to)
	}
	before, _, err := s.version(ctx, s.o.Store, account, id, from)
	if err != nil {
		return used, nil, err
	}
	after, _, err := s.version(ctx, s.o.Store, account, id, to)
	if err != nil {
		return used, nil, err
	}
	diff, err = Compare(&before.Plan, &after.Plan)
	return [2]int64{from, to}, diff, err
}

// Plans returns one page of an account's plans, by id.
func (s *Service) Plans(ctx context.Context, account fleet.Account, after string, limit int) (plans []Summary, next string, err error) {
	rows, next, err := s.page(ctx, store.Under(kindPlan, string(account)), after, limit)
	if err != nil {
		return nil, "", err
	}
	for _, row := range rows {
		var p planRecord
		if err := decode(row, &p, &p.Schema); err != nil {
			return nil, "", err
		}
		plans = append(plans, Summary{
			ID: row.Key.Last(), Name: p.Name, Status: p.Status, Published: p.Published, Draft: p.Draft, Newest: p.Newest,
			Created: moment(p.Created), Changed: moment(p.Changed),
		})
	}
	return plans, next, nil
}

// page reads the rows of a page.
func (s *Service) page(ctx context.Context, within store.Range, after string, limit int) (rows []store.Record, next string, err error) {
	if limit < 1 || limit > maxListed {
		return nil, "", fault.New(fault.InvalidRequest, "maxResults: must be from 1 to %d", maxListed)
	}
	if after != "" {
		within = within.After(store.Key(after))
	}
	err = s.o.Store.Scan(ctx, within, func(r store.Record) error {
		if len(rows) == limit {
			next = string(rows[limit-1].Key)
			return store.Stop
		}
		rows = append(rows, r)
		return nil
	})
	if err != nil {
		return nil, "", store.Fault(fmt.Errorf("read list: %w", err))
	}
	return rows, next, nil
}

package onboarding

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/store"
)

// other is a second plan of the same template.
func other(id string) string { return strings.Replace(small, "id: pumps\n", "id: "+id+"\n", 1) }

func TestLifeOfAPlan(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := as(t, "author")
	v, err := r.Create(ctx, acct, small)
	r.need(err)
	if v.Status != StatusDraft || v.Number != 1 || v.Source != small || v.WrittenBy.ID != "author" || !v.Written.Equal(start) {
		t.Errorf("created %+v", v)
	}
	_, err = r.Create(ctx, acct, small)
	wantCode(t, err, fault.ResourceAlreadyExists)
	// A draft can be changed.
	_, err = r.Update(ctx, acct, "pumps", strings.Replace(small, "limit: 2d", "limit: 3d", 1))
	r.need(err)
	_, err = r.Update(ctx, acct, "valves", small)
	wantCode(t, err, fault.InvalidRequest)
	_, err = r.Update(ctx, acct, "pumps", "id: pumps\n")
	wantCode(t, err, fault.InvalidRequest)
	r.clock.Add(int64(time.Hour))
	v, err = r.Publish(as(t, "publisher"), acct, "pumps")
	r.need(err)
	if v.Status != StatusPublished || v.Number != 1 || v.PublishedBy.ID != "publisher" || v.Plan.Stages[1].Limit != "3d" {
		t.Errorf("published %+v", v)
	}
	_, err = r.Publish(ctx, acct, "pumps")
	wantCode(t, err, fault.Conflict)
	// An edit begins the next version; the one in force stays as it is.
	v, err = r.Update(ctx, acct, "pumps", strings.Replace(small, "limit: 2d", "limit: 4d", 1))
	r.need(err)
	wantEqual(t, v.Number, int64(2))
	v, err = r.Describe(ctx, acct, "pumps", 0)
	r.need(err)
	if v.Number != 1 || v.Plan.Stages[1].Limit != "3d" {
		t.Errorf("in force is %+v", v)
	}
	used, diff, err := r.Diff(ctx, acct, "pumps", 0, 0)
	r.need(err)
	wantEqual(t, used, [2]int64{1, 2})
	wantEqual(t, diff, []Difference{{"stages[join].limit", "3d", "4d"}})
	_, err = r.Publish(ctx, acct, "pumps")
	r.need(err)
	v, err = r.Describe(ctx, acct, "pumps", 1)
	r.need(err)
	wantEqual(t, v.Status, StatusRetired)
	list, next, err := r.Plans(ctx, acct, "", 10)
	r.need(err)
	wantEqual(t, next, "")
	wantEqual(t, list, []Summary{{ID: "pumps", Name: "Pumps", Status: StatusPublished, Published: 2, Newest: 2, Created: start, Changed: start.Add(time.Hour)}})
	_, err = r.Retire(ctx, acct, "pumps")
	r.need(err)
	_, err = r.Retire(ctx, acct, "pumps")
	wantCode(t, err, fault.Conflict)
	wantEqual(t, r.events(), []event.Event{
		event.ProvisioningPlanChanged{Plan: "pumps", Change: event.PlanDrafted, Version: 1},
		event.ProvisioningPlanChanged{Plan: "pumps", Change: event.PlanDrafted, Version: 1},
		event.ProvisioningPlanChanged{Plan: "pumps", Change: event.PlanPublished, Version: 1},
		event.ProvisioningPlanChanged{Plan: "pumps", Change: event.PlanDrafted, Version: 2},
		event.ProvisioningPlanChanged{Plan: "pumps", Change: event.PlanPublished, Version: 2},
		event.ProvisioningPlanChanged{Plan: "pumps", Change: event.PlanRetired, Version: 2},
	})
	for _, err := range []error{
		func() error { _, err := r.Describe(ctx, acct, "pumps", 3); return err }(),
		func() error { _, err := r.Describe(ctx, acct, "none", 0); return err }(),
		func() error { _, err := r.Describe(ctx, "111111111111", "pumps", 0); return err }(),
		func() error { _, err := r.Publish(ctx, acct, "none"); return err }(),
	} {
		wantCode(t, err, fault.ResourceNotFound)
	}
}

// A template has one plan: of two published for it, one is refused, until the other
// is retired.
func TestATemplateHasOnePlan(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		id := "p" + string(rune('a'+i))
		_, err := r.Create(t.Context(), acct, other(id))
		r.need(err)
		wg.Go(func() { _, errs[i] = r.Publish(t.Context(), acct, id) })
	}
	wg.Wait()
	published, loser := "", ""
	for i, err := range errs {
		id := "p" + string(rune('a'+i))
		if err == nil {
			if published != "" {
				t.Errorf("%s and %s are published", published, id)
			}
			published = id
			continue
		}
		loser = id
		wantCode(t, err, fault.Conflict)
	}
	if published == "" {
		t.Fatal("none is published")
	}
	_, err := r.Retire(t.Context(), acct, published)
	r.need(err)
	_, err = r.Publish(t.Context(), acct, loser)
	r.need(err)
	// In its next version it lets go of what it does not name any more.
	_, err = r.Update(t.Context(), acct, loser, strings.Replace(other(loser), "  templates: [pump]\n", "", 1))
	r.need(err)
	_, err = r.Publish(t.Context(), acct, loser)
	r.need(err)
	_, err = r.Create(t.Context(), acct, "id: next\nname: N\nappliesTo: {templates: [pump]}\nstages:\n- {id: a, kind: CUSTOM, actor: {role: R}, steps: [{id: s, title: T, mode: PROGRAMMATIC}]}\n")
	r.need(err)
	_, err = r.Publish(t.Context(), acct, "next")
	r.need(err)
}

// A process that dies at any commit leaves a plan that goes on.
func TestPublishRestartedAtEveryCommit(t *testing.T) {
	t.Parallel()
	for left := range 3 {
		r := newRig(t)
		r.store.live(left)
		_, errCreate := r.Create(t.Context(), acct, small)
		_, errPublish := r.Publish(t.Context(), acct, "pumps")
		if (errCreate == nil) != (left > 0) || (errPublish == nil) != (left > 1) {
			t.Errorf("with %d commits: %v, %v", left, errCreate, errPublish)
		}
		r.store.live(-1)
		r.boot()
		if _, err := r.Create(t.Context(), acct, small); err != nil {
			wantCode(t, err, fault.ResourceAlreadyExists)
		}
		if _, err := r.Publish(t.Context(), acct, "pumps"); err != nil {
			wantCode(t, err, fault.Conflict)
		}
		v, err := r.Describe(t.Context(), acct, "pumps", 0)
		r.need(err)
		wantEqual(t, v.Status, StatusPublished)
		wantEqual(t, v.Number, int64(1))
	}
}

func TestPlansHaveALimit(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var b store.Batch
	r.need(put(&b, store.K(kindPlans, string(acct)), plansRecord{Schema: schemaVersion, Count: maxPlans}))
	_, err := r.store.Commit(t.Context(), b)
	r.need(err)
	_, err = r.Create(t.Context(), acct, small)
	wantCode(t, err, fault.LimitExceeded)
}

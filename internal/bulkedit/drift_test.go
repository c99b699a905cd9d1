package bulkedit

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/drift"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// repairs and accepts are the operations.
func repairs(kinds ...drift.Kind) Operation {
	return Operation{Drift: &drift.Choice{Action: drift.Repair, Kinds: kinds}}
}

func accepts() Operation { return Operation{Drift: &drift.Choice{Action: drift.Accept}} }

// provisioned makes things by a template that states site and group.
func (r *rig) provisioned(names ...string) {
	r.t.Helper()
	r.group("leeds", "")
	for _, name := range names {
		_, err := r.registry.Provision(r.t.Context(), account, registry.ProvisionCommand{
			Plan: &provtemplate.Plan{Thing: &provtemplate.Thing{
				LogicalName: "thing", Name: name, Attributes: map[string]string{"site": "leeds"}, Groups: []string{"leeds"},
			}},
			Origin: registry.PromiseOrigin{Template: "T", Version: 1},
		})
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

// moved gives things another site.
func (r *rig) moved(site string, names ...string) {
	r.t.Helper()
	for _, name := range names {
		err := r.registry.UpdateThing(r.t.Context(), account, registry.UpdateThingCommand{
			Name: name, Attributes: &registry.Attributes{Values: map[string]string{"site": site}, Merge: true},
		})
		if err != nil {
			r.t.Fatal(err)
		}
	}
}

// settled are the things of which drift was settled, in order.
func (r *rig) settled() []string {
	r.t.Helper()
	var names []string
	for _, e := range events[event.PromiseSettled](r.t, r.disk) {
		names = append(names, e.Thing)
	}
	slices.Sort(names)
	return names
}

func TestDriftIsRepairedByQuery(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		all := pumps(20)
		r.provisioned(all...)
		r.things("pump-by-hand")
		r.moved("york", all[3:9]...)
		p, err := r.Preview(t.Context(), account, "pump-", repairs())
		if err != nil {
			t.Fatal(err)
		}
		got := []int{p.Things, p.Examined, p.Changes, p.Unchanged, p.Refused}
		if diff := cmp.Diff([]int{6, 20, 6, 14, 0}, got); diff != "" {
			t.Errorf("preview (-want +got):\n%s", diff)
		}
		want := []drift.Difference{{Kind: drift.Attribute, Name: "site", Promised: "leeds", Found: "york"}}
		if diff := cmp.Diff(want, p.Sample[0].Before.Drift); diff != "" || p.Sample[0].Thing != all[3] {
			t.Errorf("sample (-want +got):\n%s", diff)
		}
		e, err := r.Start(t.Context(), account, StartCommand{Query: "pump-", Operation: repairs(), Token: p.Token})
		if err != nil {
			t.Fatal(err)
		}
		r.ends(e, Completed, Counts{Changed: 6})
		if diff := cmp.Diff(all[3:9], r.settled()); diff != "" {
			t.Errorf("settled (-want +got):\n%s", diff)
		}
		receipts, _, err := r.Changes(t.Context(), account, e.ID, "", 100)
		if err != nil || len(receipts) != 6 || !cmp.Equal(receipts[0].Before.Drift, want) || receipts[0].Before.ThingID == "" {
			t.Errorf("receipts %+v, %v", receipts, err)
		}
		if again, err := r.Preview(t.Context(), account, "pump-", repairs()); err != nil || again.Things != 0 {
			t.Errorf("after the repair %d things differ, %v", again.Things, err)
		}
		_, err = r.Undo(t.Context(), account, e.ID, 0)
		wantCode(t, err, fault.Conflict, "is not undone")
		// What is becomes what was promised.
		r.moved("hull", all[:2]...)
		r.ends(r.begin("pump-", accepts(), 0), Completed, Counts{Changed: 2})
		if got := r.thing(all[0]).Attributes["site"]; got != "hull" {
			t.Errorf("an acceptance has made it %s", got)
		}
		if again, err := r.Preview(t.Context(), account, "pump-", repairs()); err != nil || again.Things != 0 {
			t.Errorf("after the acceptance %d things differ, %v", again.Things, err)
		}
	})
}

// Nobody's change after the preview is overwritten: neither of a thing that was
// shown, nor of one that was not.
func TestDriftThatChangesIsNotOverwritten(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		all := pumps(10)
		r.provisioned(all...)
		r.moved("york", all[:4]...)
		start := func(change func()) error {
			t.Helper()
			p, err := r.Preview(t.Context(), account, "pump-", repairs())
			if err != nil {
				t.Fatal(err)
			}
			change()
			_, err = r.Start(t.Context(), account, StartCommand{Query: "pump-", Operation: repairs(), Token: p.Token})
			return err
		}
		wantCode(t, start(func() { r.moved("hull", all[0]) }), fault.Conflict, "preview again")
		wantCode(t, start(func() { r.moved("hull", all[9]) }), fault.Conflict, "which showed 4 things; 5 differ now")
		wantCode(t, start(func() { r.moved("leeds", all[9]) }), fault.Conflict, "preview again")
		// One more and one less.
		wantCode(t, start(func() {
			r.moved("leeds", all[3])
			r.moved("york", all[9])
		}), fault.Conflict, "preview again")
		if left := r.left(); len(left) > 0 {
			t.Errorf("of edits that did not begin is left %v", left)
		}
		// After the start: the first commit of the work finds another one faster.
		r.stop()
		e := r.begin("pump-", repairs(), 0)
		r.moved("bath", all[1])
		r.moved("leeds", all[2])
		r.runs()
		r.ends(e, Completed, Counts{Changed: 2, Unchanged: 1, Conflicts: 1})
		if got := r.thing(all[1]).Attributes["site"]; got != "bath" {
			t.Errorf("the change was overwritten by %s", got)
		}
		failures, _, err := r.Failures(t.Context(), account, e.ID, "", 9)
		if err != nil || len(failures) != 1 || failures[0].Thing != all[1] || !failures[0].Conflict {
			t.Errorf("failures %+v, %v", failures, err)
		}
	})
}

func TestDriftNeedsPermissionsAndPolicies(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		all := pumps(3)
		r.provisioned(all...)
		r.moved("york", all...)
		p, err := r.Preview(t.Context(), account, "pump-", repairs())
		if err != nil {
			t.Fatal(err)
		}
		for _, denied := range []string{"ops:RepairDrift", "iot:UpdateThing thing/" + all[1], "iot:SearchIndex"} {
			r.denied[denied] = true
			_, err = r.Start(t.Context(), account, StartCommand{Query: "pump-", Operation: repairs(), Token: p.Token})
			wantCode(t, err, fault.Forbidden, "")
			delete(r.denied, denied)
		}
		r.denied["ops:AcceptDrift"] = true
		shown, err := r.Preview(t.Context(), account, "pump-", accepts())
		if err != nil || shown.Refused != 3 {
			t.Errorf("an acceptance is shown as %+v, %v", shown, err)
		}
		// The token is for what was previewed.
		_, err = r.Start(t.Context(), account, StartCommand{Query: "pump-", Operation: repairs(drift.ThingGroup), Token: p.Token})
		wantCode(t, err, fault.InvalidRequest, "confirmationToken")
		_, err = r.Preview(t.Context(), account, "pump-", repairs("COLOUR"))
		wantCode(t, err, fault.InvalidRequest, "operation.drift.kinds")
		// What the registry would refuse is shown: the group is gone.
		if err := r.registry.DeleteThingGroup(t.Context(), account, "leeds", nil); err != nil {
			t.Fatal(err)
		}
		shown, err = r.Preview(t.Context(), account, "pump-", repairs())
		if err != nil || shown.Changes != 0 || shown.Refused != 3 || shown.Refusals[0].Code != fault.ResourceNotFound {
			t.Errorf("with the group gone: %+v, %v", shown, err)
		}
		e := r.begin("pump-", repairs(), 0)
		r.ends(e, Completed, Counts{Failed: 3})
	})
}

// A server that dies at any commit repairs each thing once.
func TestAKilledRepairSettlesEachThingOnce(t *testing.T) {
	t.Parallel()
	const n = 12
	for dies := 0; dies < 18; dies += strides(t, 3) {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d/%v", dies, after), func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T) { //nolint:thelper // the test itself
					d := disk(t)
					defer d.Close()
					r, e := dying(t, d, dies, after, repairs(), func(r *rig) {
						prepareAgain(r)
						r.provisioned(pumps(n)...)
						r.moved("york", pumps(n)...)
					})
					if e.Status != Completed || e.Done != (Counts{Changed: n}) {
						t.Errorf("edit %+v", e)
					}
					once(t, r.settled(), n)
				})
			})
		}
	}
}

// A page that is full in the middle of a match loses and doubles nothing.
func TestDriftOfMoreThanAPage(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		all := pumps(2*pageSize + 7)
		r.provisioned(all...)
		r.moved("york", all...)
		var pages []int
		r.store.before(func(b store.Batch) {
			for _, w := range b.Writes {
				if w.Key.Parts()[0] == kindThings {
					var page pageRecord
					if err := decode(store.Record{Key: w.Key, Value: w.Value}, &page); err != nil {
						t.Error(err)
					}
					pages = append(pages, len(page.Things))
				}
			}
		})
		e := r.begin("pump-", repairs(), 0)
		if diff := cmp.Diff([]int{pageSize, pageSize, 7}, pages); diff != "" {
			t.Errorf("pages (-want +got):\n%s", diff)
		}
		r.ends(e, Completed, Counts{Changed: len(all)})
		once(t, r.settled(), len(all))
	})
}

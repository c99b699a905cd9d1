package bulkedit

import (
	"context"
	"encoding/json"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/store"
)

// An undo restores exactly what the edit has changed and nobody has changed since;
// what the edit did not touch may be another by then.
func TestUndoRestoresWhatIsAsTheEditLeftIt(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		r.things("pump-1", "pump-2", "pump-3", "pump-4")
		r.group("east", "")
		o := Operation{SetAttributes: map[string]string{"n": "x", "site": "leeds"}, AddToThingGroups: []string{"east"}}
		set := func(thing, name, value string) {
			t.Helper()
			err := r.registry.UpdateThing(t.Context(), account, registry.UpdateThingCommand{Name: thing, Attributes: &registry.Attributes{Values: map[string]string{name: value}, Merge: true}})
			if err != nil {
				t.Fatal(err)
			}
		}
		e := r.ends(r.begin("pump-", o, 0), Completed, Counts{Changed: 4})
		set("pump-2", "site", "york") // a conflict
		set("pump-3", "other", "1")   // none
		if err := r.registry.DeleteThing(t.Context(), account, "pump-4", nil); err != nil {
			t.Fatal(err)
		}
		undo, err := r.Undo(t.Context(), account, e.ID, 0)
		if err != nil {
			t.Fatal(err)
		}
		done := r.ends(undo, Completed, Counts{Changed: 2, Conflicts: 2})
		if done.UndoOf != e.ID {
			t.Errorf("undo %+v", done)
		}
		one, two, three := r.thing("pump-1"), r.thing("pump-2"), r.thing("pump-3")
		if diff := cmp.Diff(map[string]string{"n": "0"}, one.Attributes); diff != "" || len(one.Groups) != 0 {
			t.Errorf("pump-1: %s, groups %v", diff, one.Groups)
		}
		if diff := cmp.Diff(map[string]string{"n": "x", "site": "york"}, two.Attributes); diff != "" || len(two.Groups) != 1 {
			t.Errorf("pump-2: %s, groups %v", diff, two.Groups)
		}
		if diff := cmp.Diff(map[string]string{"n": "2", "other": "1"}, three.Attributes); diff != "" {
			t.Errorf("pump-3: %s", diff)
		}
		failures, _, err := r.Failures(t.Context(), account, undo.ID, "", 10)
		if err != nil || len(failures) != 2 || !failures[0].Conflict || failures[0].Thing != "pump-2" || failures[1].Thing != "pump-4" {
			t.Errorf("failures %+v, %v", failures, err)
		}
		_, err = r.Undo(t.Context(), account, undo.ID, 0)
		wantCode(t, err, fault.Conflict, "is an undo")
		if was, err := r.Describe(t.Context(), account, e.ID); err != nil || was.UndoneBy != undo.ID {
			t.Errorf("the edit is %+v, %v", was, err)
		}
	})
}

// Deleted things come back with another id, with attributes, type and memberships;
// a name that somebody has taken since is a conflict.
func TestUndoOfADeletionMakesThingsAnew(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		r.deletesShadows = true
		r.things("pump-1", "pump-2", "pump-3")
		r.group("east", "")
		if _, err := r.registry.CreateBillingGroup(t.Context(), account, registry.CreateBillingGroupCommand{Name: "bill"}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.registry.CreateThingType(t.Context(), account, registry.CreateThingTypeCommand{Name: "Pump"}); err != nil {
			t.Fatal(err)
		}
		r.ends(r.begin("pump-1", Operation{SetThingType: "Pump", AddToThingGroups: []string{"east"}, SetBillingGroup: "bill"}, 0), Completed, Counts{Changed: 1})
		if _, err := r.shadows.Update(t.Context(), shadow.UpdateCommand{Account: account, Thing: "pump-1", Body: []byte(`{"state":{"desired":{"a":1}}}`)}); err != nil {
			t.Fatal(err)
		}
		was := r.thing("pump-1")
		e := r.ends(r.begin("pump-", Operation{Delete: &Deletion{}}, 0), Completed, Counts{Changed: 3})
		if listed, err := r.registry.ListThings(t.Context(), account, registry.ListThingsFilter{}, registry.Page{}); err != nil || len(listed.Items) != 0 {
			t.Fatalf("things left: %v, %v", listed.Items, err)
		}
		if _, err := r.shadows.Get(t.Context(), account, "pump-1", ""); fault.CodeOf(err) != fault.ResourceNotFound {
			t.Errorf("the shadow: %v", err)
		}
		r.things("pump-3")
		undo, err := r.Undo(t.Context(), account, e.ID, 0)
		if err != nil {
			t.Fatal(err)
		}
		r.ends(undo, Completed, Counts{Changed: 2, Conflicts: 1})
		now := r.thing("pump-1")
		if now.ID == was.ID {
			t.Error("the id is the same")
		}
		was.ID, was.Version, now.ID, now.Version = "", 0, "", 0
		if diff := cmp.Diff(was, now); diff != "" {
			t.Errorf("made anew (-was +now):\n%s", diff)
		}
	})
}

// Things with principals are refused, unless decommission is chosen; a thing that
// has taken the name since is another one.
func TestDeletionKeepsTheRules(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		r.things("pump-1", "pump-2", "pump-3")
		r.attach("pump-2")
		o := Operation{Delete: &Deletion{}}
		p, err := r.Preview(t.Context(), account, "pump-", o)
		if err != nil || p.Changes != 2 || p.Refused != 1 || p.Sample[0].Before.Thing == nil || p.Sample[0].After.Thing != nil {
			t.Fatalf("preview %+v, %v", p, err)
		}
		e := r.begin("pump-", o, 1)
		if _, err := r.Pause(t.Context(), account, e.ID); err != nil {
			t.Fatal(err)
		}
		_ = r.registry.DeleteThing(t.Context(), account, "pump-3", nil)
		r.things("pump-3")
		if _, err := r.Resume(t.Context(), account, e.ID); err != nil {
			t.Fatal(err)
		}
		r.ends(e, Completed, Counts{Changed: 1, Failed: 2})
		r.thing("pump-3")
		e = r.ends(r.begin("pump-2", Operation{Delete: &Deletion{Decommission: true, Reason: "scrapped"}}, 0), Completed, Counts{Changed: 1})
		past, err := r.registry.PastThings(t.Context(), account, "pump-2", registry.Page{})
		if err != nil || len(past.Items) != 1 || past.Items[0].Reason != "scrapped" {
			t.Errorf("past %+v, %v", past, err)
		}
		changes, _, err := r.Changes(t.Context(), account, e.ID, "", 10)
		if err != nil || len(changes) != 1 || changes[0].Pending || changes[0].Before.Thing.Attributes["n"] != "1" {
			t.Errorf("changes %+v, %v", changes, err)
		}
	})
}

// attach counts a principal at a thing, as AttachThingPrincipal does.
func (r *rig) attach(thing string) {
	r.t.Helper()
	k := store.K("thing", string(account), thing)
	stored, err := r.disk.Get(r.t.Context(), k)
	if err != nil {
		r.t.Fatal(err)
	}
	var record map[string]any
	if err := json.Unmarshal(stored.Value, &record); err != nil {
		r.t.Fatal(err)
	}
	record["principals"] = 1
	var b store.Batch
	if err := put(&b, k, record); err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.disk.Commit(r.t.Context(), b); err != nil {
		r.t.Fatal(err)
	}
}

// A decommission that meets trouble after its first commit is completed when the
// trouble is over.
func TestDecommissionIsTriedAgain(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		r.things("pump-1")
		calls := 0
		r.retires = func() error {
			if calls++; calls < 3 {
				return fault.New(fault.Unavailable, "sessions are left")
			}
			return nil
		}
		r.ends(r.begin("pump-", Operation{Delete: &Deletion{Decommission: true}}, 0), Completed, Counts{Changed: 1})
		if n := r.decommissioned.Load(); n != 3 {
			t.Errorf("%d calls", n)
		}
	})
}

// Undo asks for the permissions that it needs itself.
func TestUndoNeedsPermissions(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		r.things("pump-1")
		r.group("east", "")
		if _, err := r.registry.CreateBillingGroup(t.Context(), account, registry.CreateBillingGroupCommand{Name: "bill"}); err != nil {
			t.Fatal(err)
		}
		begin := func(o Operation) Edit { return r.ends(r.begin("pump-", o, 0), Completed, Counts{Changed: 1}) }
		refused := func(e Edit, denied string) {
			t.Helper()
			r.denied[denied] = true
			_, err := r.Undo(t.Context(), account, e.ID, 0)
			wantCode(t, err, fault.Forbidden, denied)
			delete(r.denied, denied)
			if was, err := r.Describe(t.Context(), account, e.ID); err != nil || was.UndoneBy != "" {
				t.Errorf("the edit is %+v, %v", was, err)
			}
		}
		e := begin(Operation{SetAttributes: map[string]string{"a": "b"}, AddToThingGroups: []string{"east"}, SetBillingGroup: "bill"})
		refused(e, actionUpdateThing)
		refused(e, actionRemoveFromGroup)
		refused(e, actionRemoveBilling)
		refused(begin(Operation{RemoveFromThingGroups: []string{"east"}}), actionAddToGroup)
		refused(begin(Operation{Shadow: &ShadowPatch{Desired: json.RawMessage(`{"a":1}`)}}), actionUpdateShadow)
		refused(begin(Operation{Delete: &Deletion{}}), actionCreateThing)
	})
}

// An edit under way cannot be undone, and an undo under way not be repeated.
func TestUndoWaitsForItsTurn(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		r.things(pumps(20)...)
		e := r.begin("pump-", Operation{SetAttributes: map[string]string{"a": "b"}}, 1)
		_, err := r.Undo(t.Context(), account, e.ID, 0)
		wantCode(t, err, fault.Conflict, "cancel it")
		pass(t.Context(), 5*time.Second)
		canceled, err := r.Cancel(t.Context(), account, e.ID)
		if err != nil || canceled.Status != Canceled || canceled.Done.Changed < 4 || canceled.Done.Changed > 7 {
			t.Fatalf("canceled: %+v, %v", canceled, err)
		}
		undo, err := r.Undo(t.Context(), account, e.ID, 1)
		if err != nil || undo.Things != canceled.Done.Changed {
			t.Fatalf("undo: %+v, %v", undo, err)
		}
		_, err = r.Undo(t.Context(), account, e.ID, 1)
		wantCode(t, err, fault.Conflict, "is being undone")
		r.ends(undo, Completed, Counts{Changed: canceled.Done.Changed})
		_, err = r.Resume(t.Context(), account, e.ID)
		wantCode(t, err, fault.Conflict, "is CANCELED and cannot be resumed")
	})
}

// randomObject makes objects with few names, so that they meet.
func randomObject(r *rand.Rand, depth int, nulls bool) object {
	o := object{}
	for range r.IntN(4) {
		name := string("abcd"[r.IntN(4)])
		switch n := r.IntN(5); {
		case n == 0 && nulls:
			o[name] = nil
		case n < 3 && depth > 0:
			if inner := randomObject(r, depth-1, nulls); len(inner) > 0 {
				o[name] = inner
			}
		case n == 3:
			o[name] = []any{json.Number("1")}
		default:
			o[name] = json.Number(string("123"[r.IntN(3)]))
		}
	}
	return o
}

// clean drops objects that nulls have emptied, which shadows do not keep apart.
func clean(o object) object {
	out := maps.Clone(o)
	for name, value := range out {
		if inner, ok := value.(object); ok {
			if c := clean(inner); len(c) == 0 {
				delete(out, name)
			} else {
				out[name] = c
			}
		}
	}
	return out
}

// Merging a patch and then what was touched gives the state before, and a change
// of what the patch left is always noticed, one of anything else never.
func TestTouchedUndoesAnyPatch(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 20_000 {
		before, patch := randomObject(r, 3, false), randomObject(r, 3, true)
		after := merge(before, patch)
		was, left := touched(before, after, patch)
		if !holds(after, left, was) {
			t.Fatalf("%d: %v after %v is not as it was left: %v", i, after, patch, left)
		}
		if back := merge(after, was); !reflect.DeepEqual(clean(before), clean(back)) {
			t.Fatalf("%d: before %v\npatch %v\nafter %v\nback %v", i, before, patch, after, back)
		}
		apart := maps.Clone(after)
		apart["z"] = "new"
		if !holds(apart, left, was) {
			t.Fatalf("%d: a member apart is taken for a conflict", i)
		}
		for name, value := range patch {
			if _, isObject := value.(object); isObject {
				continue
			}
			spoiled := maps.Clone(after)
			spoiled[name] = "spoiled"
			if holds(spoiled, left, was) {
				t.Fatalf("%d: %s was changed unnoticed", i, name)
			}
		}
		text, err := writeObject(after)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseObject(text); err != nil || !reflect.DeepEqual(again, after) {
			t.Fatalf("%d: %s reads as %v, %v", i, text, again, err)
		}
	}
}

// FuzzParseObject checks that what parses is written as the same.
func FuzzParseObject(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1.50}`, `{"a":{"b":[1,null]}}`, `null`, `[]`, `{"a":1}x`, `{"a":1e400}`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		o, err := parseObject([]byte(text))
		if err != nil {
			return
		}
		written, err := writeObject(o)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseObject(written); err != nil || !reflect.DeepEqual(o, again) {
			t.Errorf("%q is written as %s", text, written)
		}
	})
}

// sorted are the names of things in a list of changes.
func sorted(ctx context.Context, t *testing.T, s *Service, id string) []string {
	t.Helper()
	var names []string
	after := ""
	for {
		changes, next, err := s.Changes(ctx, account, id, after, maxListed)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			names = append(names, c.Thing)
		}
		if next == "" {
			break
		}
		after = next
	}
	slices.Sort(names)
	return names
}

// An undo reads its receipts in long runs, and leaves none out.
func TestUndoOfMoreThanOneRead(t *testing.T) {
	inBubble(t, func(r *rig) {
		const n = findSize + pageSize + 1
		r.things(pumps(n)...)
		e := r.ends(r.begin("pump-", Operation{SetAttributes: map[string]string{"a": "1"}}, 0), Completed, Counts{Changed: n})
		reads := 0
		r.store.mu.Lock()
		r.store.scanned = func(within store.Range) {
			if strings.HasPrefix(within.From.String(), store.K(kindChanged, string(account), e.ID).String()) {
				reads++
			}
		}
		r.store.mu.Unlock()
		undo, err := r.Undo(r.t.Context(), account, e.ID, 0)
		if err != nil || undo.Things != n || reads != 2 {
			r.t.Fatalf("%+v, %v, after %d reads", undo, err, reads)
		}
		if _, err := r.Cancel(r.t.Context(), account, undo.ID); err != nil {
			r.t.Error(err)
		}
	})
}

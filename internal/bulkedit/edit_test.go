package bulkedit

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/store"
)

// All members of a registry edit act on each thing in one commit; the receipt
// says what was and what is; what needs no change is left alone.
func TestEditChangesWhatMatches(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		r.things("pump-1", "pump-2", "pump-3", "valve-1")
		r.group("east", "")
		r.group("west", "")
		for _, b := range []string{"old", "new"} {
			if _, err := r.registry.CreateBillingGroup(t.Context(), account, registry.CreateBillingGroupCommand{Name: b}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := r.registry.CreateThingType(t.Context(), account, registry.CreateThingTypeCommand{Name: "Pump"}); err != nil {
			t.Fatal(err)
		}
		if err := r.registry.AddThingToThingGroup(t.Context(), account, registry.ThingAndGroup{ThingName: "pump-1", GroupName: "west"}, false); err != nil {
			t.Fatal(err)
		}
		if err := r.registry.AddThingToBillingGroup(t.Context(), account, registry.ThingAndGroup{ThingName: "pump-1", GroupName: "old"}); err != nil {
			t.Fatal(err)
		}
		pump, newer, zero, leeds, none := "Pump", "new", "0", "leeds", ""
		old := "old"
		o := Operation{
			SetAttributes: map[string]string{"site": "leeds"}, RemoveAttributes: []string{"n"}, SetThingType: "Pump",
			AddToThingGroups: []string{"east"}, RemoveFromThingGroups: []string{"west"}, SetBillingGroup: "new",
		}
		e := r.ends(r.begin("pump-", o, 0), Completed, Counts{Changed: 3})
		if e.Things != 3 || e.Remaining() != 0 || e.Finished.IsZero() {
			t.Errorf("edit %+v", e)
		}
		got := r.thing("pump-1")
		if got.Version != 2 || got.TypeName != "Pump" || got.BillingGroup != "new" || !slices.Equal(groupsOf(got), []string{"east"}) {
			t.Errorf("got %+v", got)
		}
		if diff := cmp.Diff(map[string]string{"site": "leeds"}, got.Attributes); diff != "" {
			t.Errorf("attributes (-want +got):\n%s", diff)
		}
		if other := r.thing("valve-1"); other.Version != 1 {
			t.Errorf("the other thing is %+v", other)
		}
		changes, next, err := r.Changes(t.Context(), account, e.ID, "", 1)
		if err != nil || next == "" {
			t.Fatalf("%v, next %q", err, next)
		}
		want := Change{
			Thing: "pump-1", At: changes[0].At,
			Before: Image{
				ThingID: got.ID, ThingTypeName: &none, BillingGroupName: &old, Attributes: map[string]*string{"site": nil, "n": &zero},
				ThingGroups: map[string]bool{"east": false, "west": true},
			},
			After: Image{
				ThingID: got.ID, ThingTypeName: &pump, BillingGroupName: &newer, Attributes: map[string]*string{"site": &leeds, "n": nil},
				ThingGroups: map[string]bool{"east": true, "west": false},
			},
		}
		if diff := cmp.Diff([]Change{want}, changes); diff != "" {
			t.Errorf("changes (-want +got):\n%s", diff)
		}
		if rest, _, err := r.Changes(t.Context(), account, e.ID, next, 10); err != nil || len(rest) != 2 {
			t.Errorf("the other page has %v, %v", rest, err)
		}
		// Again there is nothing to do.
		r.ends(r.begin("pump-", o, 0), Completed, Counts{Unchanged: 3})
		if again := r.thing("pump-1"); again.Version != 2 {
			t.Errorf("version %d after an edit that changes nothing", again.Version)
		}
		steps := events[event.BulkEditChanged](t, r.disk)
		if len(steps) != 4 || steps[0].Status != "RUNNING" || steps[0].Things != 3 || steps[1].Status != "COMPLETED" || steps[1].Changed != 3 || steps[1].Query != "pump-" {
			t.Errorf("steps %+v", steps)
		}
	})
}

// Each thing is changed by who started the edit.
func TestEditIsItsStartersDoing(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		r.things("pump-1")
		ctx := fleet.WithActor(t.Context(), fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalUser, ID: "u", ARN: "arn:u"}, RequestID: "q"})
		o := Operation{SetAttributes: map[string]string{"a": "b"}}
		p, err := r.Preview(ctx, account, "pump-", o)
		if err != nil {
			t.Fatal(err)
		}
		e, err := r.Start(ctx, account, StartCommand{Query: "pump-", Operation: o, Token: p.Token})
		if err != nil {
			t.Fatal(err)
		}
		r.ends(e, Completed, Counts{Changed: 1})
		var at store.Cursor
		actors := map[string]string{}
		batch, _, err := r.disk.Events(t.Context(), at, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, each := range batch {
			actors[event.TypeName(each.Event)+" "+string(stepOf(each.Event))] = each.Actor.Principal.ARN + " " + each.Actor.RequestID
		}
		if actors["ThingUpdated "] != "arn:u q" || actors["BulkEditChanged RUNNING"] != "arn:u q" || actors["BulkEditChanged COMPLETED"] != " " {
			t.Errorf("actors %q", actors)
		}
		if steps := events[event.BulkEditChanged](t, r.disk); steps[len(steps)-1].StartedBy != "arn:u" {
			t.Errorf("steps %+v", steps)
		}
	})
}

func stepOf(e event.Event) Status {
	if step, ok := e.(event.BulkEditChanged); ok {
		return Status(step.Status)
	}
	return ""
}

// A thing that breaks a rule fails alone, with the words of the ordinary command;
// the preview knew.
func TestPreviewTellsWhatWillBeRefused(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		r.things(pumps(12)...)
		r.group("site", "")
		r.group("hall-1", "site")
		r.group("hall-2", "site")
		if err := r.registry.AddThingToThingGroup(t.Context(), account, registry.ThingAndGroup{ThingName: "pump-0003", GroupName: "hall-2"}, false); err != nil {
			t.Fatal(err)
		}
		if err := r.registry.AddThingToThingGroup(t.Context(), account, registry.ThingAndGroup{ThingName: "pump-0004", GroupName: "hall-1"}, false); err != nil {
			t.Fatal(err)
		}
		o := Operation{AddToThingGroups: []string{"hall-1"}}
		p, err := r.Preview(t.Context(), account, "pump-", o)
		if err != nil {
			t.Fatal(err)
		}
		if p.Things != 12 || p.Examined != 12 || p.Changes != 10 || p.Unchanged != 1 || p.Refused != 1 || len(p.Sample) != 10 {
			t.Errorf("preview %+v", p)
		}
		if len(p.Refusals) != 1 || p.Refusals[0].Thing != "pump-0003" || !strings.Contains(p.Refusals[0].Message, "same hierarchy") {
			t.Errorf("refusals %+v", p.Refusals)
		}
		if n := len(events[event.MembershipChanged](t, r.disk)); n != 2 {
			t.Errorf("%d memberships changed by a preview", n-2)
		}
		e := r.ends(r.begin("pump-", o, 0), Completed, Counts{Changed: 10, Unchanged: 1, Failed: 1})
		failures, _, err := r.Failures(t.Context(), account, e.ID, "", 10)
		if err != nil || len(failures) != 1 {
			t.Fatalf("failures %+v, %v", failures, err)
		}
		if f := failures[0]; f.Thing != "pump-0003" || f.Code != fault.InvalidRequest || f.Message != p.Refusals[0].Message || f.At.IsZero() {
			t.Errorf("failure %+v", f)
		}
	})
}

// A token is good for the query, operation and caller of its preview, for a
// quarter of an hour, and for as many things as the preview saw.
func TestStartTakesOnlyWhatWasShown(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		r.things(pumps(3)...)
		o := Operation{SetAttributes: map[string]string{"a": "b"}}
		p, err := r.Preview(t.Context(), account, "pump-", o)
		if err != nil {
			t.Fatal(err)
		}
		start := StartCommand{Query: "pump-", Operation: o, Token: p.Token}
		for name, spoil := range map[string]func(c *StartCommand){
			"another query":     func(c *StartCommand) { c.Query = "pump" },
			"another operation": func(c *StartCommand) { c.Operation = Operation{SetAttributes: map[string]string{"a": "c"}} },
			"none":              func(c *StartCommand) { c.Token = "" },
			"a made-up one":     func(c *StartCommand) { c.Token = strings.Repeat("A", 80) },
		} {
			c := start
			spoil(&c)
			if _, err := r.Start(t.Context(), account, c); fault.CodeOf(err) != fault.InvalidRequest || !strings.Contains(err.Error(), "confirmationToken") {
				t.Errorf("%s: %v", name, err)
			}
		}
		other := fleet.WithActor(t.Context(), fleet.Actor{Principal: fleet.Principal{Kind: fleet.PrincipalUser, ID: "x"}})
		_, err = r.Start(other, account, start)
		wantCode(t, err, fault.InvalidRequest, "by this caller")
		_, err = r.Start(t.Context(), "000000000001", start)
		wantCode(t, err, fault.InvalidRequest, "confirmationToken")

		// Fewer are fine, more are not.
		r.things("pump-9")
		_, err = r.Start(t.Context(), account, start)
		wantCode(t, err, fault.Conflict, "the preview showed 3 things and 4 match now")
		if keys := r.left(); len(keys) != 0 {
			t.Errorf("an edit that did not begin left %q", keys)
		}
		for _, gone := range []string{"pump-9", "pump-0001"} {
			if err := r.registry.DeleteThing(t.Context(), account, gone, nil); err != nil {
				t.Fatal(err)
			}
		}
		e, err := r.Start(t.Context(), account, start)
		if err != nil {
			t.Fatal(err)
		}
		// The same call again is the same edit, also when it is done.
		r.ends(e, Completed, Counts{Changed: 2})
		again, err := r.Start(t.Context(), account, start)
		if err != nil || again.ID != e.ID || again.Status != Completed {
			t.Errorf("again: %+v, %v", again, err)
		}
		p, err = r.Preview(t.Context(), account, "pump-", o)
		if err != nil {
			t.Fatal(err)
		}
		pass(t.Context(), confirmationLife+time.Second)
		_, err = r.Start(t.Context(), account, StartCommand{Query: "pump-", Operation: o, Token: p.Token})
		wantCode(t, err, fault.InvalidRequest, "older than 15 minutes")
	})
}

// A selection that takes too long is given up before whoever serves the call does,
// and leaves nothing.
func TestSelectionIsBoundedInTime(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		const n = (pagesAtOnce + 1) * pageSize
		r.things(pumps(n)...)
		o := Operation{SetAttributes: map[string]string{"a": "b"}}
		p, err := r.Preview(t.Context(), account, "pump-", o)
		if err != nil {
			t.Fatal(err)
		}
		r.store.before(func(b store.Batch) {
			if !b.Writes[0].Delete && b.Writes[0].Key.Parts()[0] == kindThings {
				pass(t.Context(), selectWithin+time.Second)
			}
		})
		began := time.Now()
		_, err = r.Start(t.Context(), account, StartCommand{Query: "pump-", Operation: o, Token: p.Token})
		wantCode(t, err, fault.Unavailable, "longer than 1m15s, 5000 are")
		if took := time.Since(began); took > 2*time.Minute-30*time.Second {
			t.Errorf("it took %v", took)
		}
		if keys := r.left(); len(keys) != 0 {
			t.Errorf("left %q", keys)
		}
		// The token was not used.
		r.store.before(nil)
		e, err := r.Start(t.Context(), account, StartCommand{Query: "pump-", Operation: o, Token: p.Token})
		if err != nil {
			t.Fatal(err)
		}
		if e.Things != n {
			t.Errorf("%+v", e)
		}
		if _, err := r.Cancel(t.Context(), account, e.ID); err != nil {
			t.Error(err)
		}
	})
}

// Whoever may not do it to every single thing does it to none.
func TestStartNeedsThePermissionForEachThing(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		r.things(pumps(2*pageSize + 10)...)
		last := pumps(2*pageSize + 10)[2*pageSize+9]
		for name, o := range map[string]Operation{
			"iot:UpdateThing thing/" + last:               {SetAttributes: map[string]string{"a": "b"}},
			"iot:AddThingToThingGroup thinggroup/g":       {AddToThingGroups: []string{"g"}},
			"iot:RemoveThingFromThingGroup thing/" + last: {RemoveFromThingGroups: []string{"g"}},
			"iot:AddThingToBillingGroup billinggroup/b":   {SetBillingGroup: "b"},
			"iot:UpdateThingShadow thing/" + last:         {Shadow: &ShadowPatch{Desired: json.RawMessage(`{"a":1}`)}},
			"iot:DeleteThing thing/" + last:               {Delete: &Deletion{}},
			"ops:DecommissionThing /":                     {Delete: &Deletion{Decommission: true}},
		} {
			p, err := r.Preview(t.Context(), account, "pump-", o)
			if err != nil {
				t.Fatal(err)
			}
			r.denied[name] = true
			_, err = r.Start(t.Context(), account, StartCommand{Query: "pump-", Operation: o, Token: p.Token})
			wantCode(t, err, fault.Forbidden, strings.Fields(name)[0])
			denied, err := r.Preview(t.Context(), account, last, o)
			if err != nil || denied.Refused != 1 || denied.Refusals[0].Code != fault.Forbidden {
				t.Errorf("%s: preview %+v, %v", name, denied, err)
			}
			delete(r.denied, name)
		}
		r.denied[actionSearch] = true
		_, err := r.Preview(t.Context(), account, "pump-", Operation{Delete: &Deletion{}})
		wantCode(t, err, fault.Forbidden, actionSearch)
		if keys := r.left(); len(keys) != 0 {
			t.Errorf("left %q", keys)
		}
		if n := len(events[event.BulkEditChanged](t, r.disk)); n != 0 {
			t.Errorf("%d steps of edits that did not begin", n)
		}
	})
}

// A shadow edit is an ordinary update of each shadow; things whose desired state
// has it already keep their version.
func TestEditOfShadows(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		r.things("pump-1", "pump-2", "pump-3")
		update := func(thing, body string) {
			t.Helper()
			if _, err := r.shadows.Update(t.Context(), shadow.UpdateCommand{Account: account, Thing: thing, Shadow: "cfg", Body: []byte(body)}); err != nil {
				t.Fatal(err)
			}
		}
		update("pump-1", `{"state":{"desired":{"led":"off","limits":{"low":1.50,"high":9},"keep":1},"reported":{"led":"off"}}}`)
		update("pump-2", `{"state":{"desired":{"led":"on","limits":{"high":20}}}}`)
		o := Operation{Shadow: &ShadowPatch{Name: "cfg", Desired: json.RawMessage(` {"led":"on", "limits":{"high":20,"low":null}}`)}}
		p, err := r.Preview(t.Context(), account, "pump-", o)
		if err != nil || p.Changes != 2 || p.Unchanged != 1 {
			t.Fatalf("preview %+v, %v", p, err)
		}
		want := `{"led":"off","limits":{"high":9,"low":1.50}} → {"led":"on","limits":{"high":20,"low":null}}`
		if got := string(p.Sample[0].Before.Desired) + " → " + string(p.Sample[0].After.Desired); got != want {
			t.Errorf("sample %s", got)
		}
		e := r.ends(r.begin("pump-", o, 0), Completed, Counts{Changed: 2, Unchanged: 1})
		desired := func(thing string) string {
			d, err := r.shadows.Get(t.Context(), account, thing, "cfg")
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprintf("%s %d", d.Desired(), d.Version)
		}
		if got := desired("pump-1"); got != `{"keep":1,"led":"on","limits":{"high":20}} 2` {
			t.Errorf("pump-1 has %s", got)
		}
		if got := desired("pump-3"); got != `{"led":"on","limits":{"high":20}} 1` {
			t.Errorf("pump-3 has %s", got)
		}
		changes, _, err := r.Changes(t.Context(), account, e.ID, "", 10)
		if err != nil || len(changes) != 2 || string(changes[0].Before.Desired)+" → "+string(changes[0].After.Desired) != want {
			t.Errorf("changes %+v, %v", changes, err)
		}
		// Somebody changes what the edit left in one, and something else in the other.
		update("pump-3", `{"state":{"desired":{"limits":{"high":21}}}}`)
		update("pump-1", `{"state":{"desired":{"new":1},"reported":{"led":"on"}}}`)
		undo, err := r.Undo(t.Context(), account, e.ID, 0)
		if err != nil {
			t.Fatal(err)
		}
		r.ends(undo, Completed, Counts{Changed: 1, Conflicts: 1})
		if got := desired("pump-1"); got != `{"keep":1,"led":"off","limits":{"high":9,"low":1.50},"new":1} 4` {
			t.Errorf("pump-1 has %s", got)
		}
		if got := desired("pump-3"); got != `{"led":"on","limits":{"high":21}} 2` {
			t.Errorf("pump-3 has %s", got)
		}
	})
}

// An operation that says nothing, two things, or nonsense is refused by name.
func TestOperationsAreChecked(t *testing.T) {
	t.Parallel()
	long := make([]string, maxGroups+1)
	for i := range long {
		long[i] = fmt.Sprint("g", i)
	}
	for want, o := range map[string]Operation{
		"one of the four":                       {},
		"make two edits":                        {SetThingType: "T", Delete: &Deletion{}},
		"removeAttributes removes it":           {SetAttributes: map[string]string{"a": ""}},
		"both in setAttributes":                 {SetAttributes: map[string]string{"a": "b"}, RemoveAttributes: []string{"a"}},
		"empty name":                            {RemoveAttributes: []string{""}},
		"setThingType and removeThingType":      {SetThingType: "T", RemoveThingType: true},
		"setBillingGroup and clearBillingGroup": {SetBillingGroup: "B", ClearBillingGroup: true},
		"at most 20 thing groups":               {AddToThingGroups: long},
		`"a b" is no name`:                      {AddToThingGroups: []string{"a b"}},
		`"" is no name`:                         {RemoveFromThingGroups: []string{""}},
		"both in addToThingGroups":              {AddToThingGroups: []string{"g"}, RemoveFromThingGroups: []string{"g"}},
		"is no name of a shadow":                {Shadow: &ShadowPatch{Name: "a b", Desired: json.RawMessage(`{"a":1}`)}},
		"must be a JSON object":                 {Shadow: &ShadowPatch{Desired: json.RawMessage(`[1]`)}},
		"is not empty":                          {Shadow: &ShadowPatch{Desired: json.RawMessage(`{}`)}},
		"at most 8192 bytes":                    {Shadow: &ShadowPatch{Desired: json.RawMessage(`{"a":"` + strings.Repeat("x", maxDesired) + `"}`)}},
		"keepCertificates and reason":           {Delete: &Deletion{KeepCertificates: true}},
		"operation.delete.reason":               {Delete: &Deletion{Decommission: true, Reason: strings.Repeat("x", maxReason+1)}},
	} {
		wantCode(t, o.Check(), fault.InvalidRequest, want)
	}
	given := []string{"b", "a", "b"}
	inOrder := Operation{RemoveAttributes: given}
	if err := inOrder.Check(); err != nil || !slices.Equal(inOrder.RemoveAttributes, []string{"a", "b"}) || given[0] != "b" {
		t.Errorf("%v, %q of %q", err, inOrder.RemoveAttributes, given)
	}
}

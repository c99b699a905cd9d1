package deviceauth_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/event"
)

// The list of a type, with one attribute that the thing does not have.
var propagated = []deviceauth.Propagation{
	{Key: "site", ThingAttribute: "site"},
	{Key: "hw", ThingAttribute: "hw"},
	{Key: "cid", ConnectionAttribute: "iot:ClientId"},
	{Key: "name", ConnectionAttribute: "iot:Thing.ThingName"},
}

// fleet-management §1.3: what messages gain follows thing and type without a
// new connection; a missing attribute is skipped.
func TestGainFollowsThingAndType(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything)
	w.attached[w.arn] = map[string]bool{"pump-7": true}
	guard := w.connect(t, "anything").Guard
	expect := func(step string, want ...deviceauth.Property) {
		t.Helper()
		for range 2 {
			if diff := cmp.Diff(want, guard.Gain()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", step, diff)
			}
		}
	}
	set := func(e event.Event, attributes map[string]string, list []deviceauth.Propagation) {
		w.change(e, func() {
			w.things["pump-7"] = deviceauth.Thing{Name: "pump-7", TypeName: "Pump", Attributes: attributes, Propagating: list}
		})
	}
	thingChanged := event.ThingUpdated{Thing: event.Thing{Thing: "pump-7"}}
	typeChanged := event.ThingTypeUpdated{ThingType: event.ThingType{TypeName: "Pump"}, PropagatingChanged: true}
	leeds := map[string]string{"site": "leeds"}
	cid, name := deviceauth.Property{Key: "cid", Value: "anything"}, deviceauth.Property{Key: "name", Value: "pump-7"}
	expect("without a type")
	set(thingChanged, leeds, propagated)
	expect("got a type", deviceauth.Property{Key: "site", Value: "leeds"}, cid, name)
	set(thingChanged, map[string]string{"hw": "r2"}, propagated)
	expect("other attributes", deviceauth.Property{Key: "hw", Value: "r2"}, cid, name)
	set(typeChanged, leeds, propagated[2:3])
	expect("other list", cid)
	set(event.ThingTypeUpdated{ThingType: event.ThingType{TypeName: "Pump"}}, leeds, nil)
	expect("a description does not concern connections", cid)
	set(typeChanged, leeds, nil)
	expect("no list")
	set(typeChanged, leeds, propagated)
	w.change(event.PrincipalDetached{Thing: "pump-7", Principal: w.arn}, func() { delete(w.attached, w.arn) })
	expect("no thing any more")
}

// Whoever acts as no thing gains nothing.
func TestNoThingGainsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, everything)
	w.things["pump-7"] = deviceauth.Thing{Name: "pump-7", Attributes: map[string]string{"site": "leeds"}, Propagating: propagated}
	if got := w.connect(t, "somebody").Guard.Gain(); got != nil {
		t.Errorf("a client that is no thing gains %v", got)
	}
	if got := w.connect(t, "pump-7").Guard.Gain(); len(got) != 3 {
		t.Errorf("the thing gains %v", got)
	}
	anonymous, err := w.service.Admit(t.Context(), deviceauth.Request{ClientID: "pump-7", Plain: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := anonymous.Guard.Gain(); got != nil {
		t.Errorf("an anonymous client gains %v", got)
	}
}

// A connection without a gain pays no memory for the question.
func TestGainAllocatesNothing(t *testing.T) {
	w := newWorld(t, everything) //nolint:paralleltest // counts allocations
	guard := w.connect(t, "pump-7").Guard
	if n := testing.AllocsPerRun(100, func() { guard.Gain() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkGain(b *testing.B) {
	w := newWorld(b, everything)
	guard := w.connect(b, "pump-7").Guard
	b.ReportAllocs()
	for b.Loop() {
		guard.Gain()
	}
}

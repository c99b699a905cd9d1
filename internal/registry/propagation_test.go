package registry

import (
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
)

// pumpPropagation is the example of fleet-management §1.3.
var pumpPropagation = []PropagatingAttribute{
	{UserPropertyKey: "site", ThingAttribute: "site"},
	{UserPropertyKey: "cid", ConnectionAttribute: "iot:ClientId"},
}

// fleet-management §1.3: what a type propagates is part of its identity, can be
// replaced and ended, and only such a change concerns connections.
func TestPropagatingAttributes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	c := CreateThingTypeCommand{Name: "Pump", Propagating: pumpPropagation}
	must[ThingType](t)(r.CreateThingType(ctx, acct, c))
	must[ThingType](t)(r.CreateThingType(ctx, acct, c))
	_, err := r.CreateThingType(ctx, acct, CreateThingTypeCommand{Name: "Pump"})
	wantCode(t, err, fault.ResourceAlreadyExists)
	describe := func() []PropagatingAttribute {
		return must[ThingType](t)(r.DescribeThingType(ctx, acct, "Pump")).Propagating
	}
	wantEqual(t, describe(), pumpPropagation)

	mark, text := len(r.store.log()), "new"
	ok(t, r.UpdateThingType(ctx, acct, UpdateThingTypeCommand{Name: "Pump", Description: &text}))
	ok(t, r.UpdateThingType(ctx, acct, UpdateThingTypeCommand{Name: "Pump", Propagating: &pumpPropagation}))
	wantEqual(t, describe(), pumpPropagation)
	wantEqual(t, r.barrier.count(), 0)
	other := pumpPropagation[:1]
	ok(t, r.UpdateThingType(ctx, acct, UpdateThingTypeCommand{Name: "Pump", Propagating: &other}))
	wantEqual(t, describe(), other)
	wantEqual(t, r.barrier.count(), 1)
	ok(t, r.UpdateThingType(ctx, acct, UpdateThingTypeCommand{Name: "Pump", Propagating: &[]PropagatingAttribute{}}))
	wantEqual(t, len(describe()), 0)
	var changed []bool
	for _, e := range r.eventsAfter(mark) {
		changed = append(changed, e.(event.ThingTypeUpdated).PropagatingChanged) //nolint:forcetypeassert // nothing else happened
	}
	wantEqual(t, changed, []bool{false, true, true})
}

func TestPropagatingAttributesAreChecked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	must[ThingType](t)(r.CreateThingType(ctx, acct, CreateThingTypeCommand{Name: "Pump"}))
	one := func(p PropagatingAttribute) []PropagatingAttribute {
		return []PropagatingAttribute{pumpPropagation[0], p}
	}
	for name, c := range map[string]struct {
		list []PropagatingAttribute
		want string
	}{
		"no key":        {one(PropagatingAttribute{ThingAttribute: "a"}), "[1].userPropertyKey"},
		"key":           {one(PropagatingAttribute{UserPropertyKey: "a-b", ThingAttribute: "a"}), "[1].userPropertyKey"},
		"long key":      {one(PropagatingAttribute{UserPropertyKey: strings.Repeat("k", 129), ThingAttribute: "a"}), "[1].userPropertyKey"},
		"no source":     {one(PropagatingAttribute{UserPropertyKey: "k"}), "exactly one"},
		"both":          {one(PropagatingAttribute{UserPropertyKey: "k", ThingAttribute: "a", ConnectionAttribute: "iot:ClientId"}), "exactly one"},
		"attribute":     {one(PropagatingAttribute{UserPropertyKey: "k", ThingAttribute: "a b"}), "[1].thingAttribute"},
		"of connection": {one(PropagatingAttribute{UserPropertyKey: "k", ConnectionAttribute: "iot:SourceIp"}), "[1].connectionAttribute"},
		"too many":      {make([]PropagatingAttribute, 21), "at most 20"},
	} {
		_, create := r.CreateThingType(ctx, acct, CreateThingTypeCommand{Name: "X", Propagating: c.list})
		update := r.UpdateThingType(ctx, acct, UpdateThingTypeCommand{Name: "Pump", Propagating: &c.list})
		for _, err := range []error{create, update} {
			if fault.CodeOf(err) != fault.InvalidRequest || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	twenty := make([]PropagatingAttribute, 20)
	for i := range twenty {
		twenty[i] = PropagatingAttribute{UserPropertyKey: "a:$.Z9", ThingAttribute: "@,#"}
	}
	must[ThingType](t)(r.CreateThingType(ctx, acct, CreateThingTypeCommand{Name: "Most", Propagating: twenty}))
}

// The thing of a connection brings along what its type propagates.
func TestConnectionThingPropagates(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	must[ThingType](t)(r.CreateThingType(ctx, acct, CreateThingTypeCommand{Name: "Pump", Propagating: pumpPropagation}))
	must[Thing](t)(r.CreateThing(ctx, acct, CreateThingCommand{Name: "T", TypeName: "Pump"}))
	r.addThing(t, "U")
	c := r.addCertificate(t)
	for name, want := range map[string][]PropagatingAttribute{"T": pumpPropagation, "U": nil} {
		ok(t, r.AttachThingPrincipal(ctx, acct, name, c.ARN, ""))
		info, found, err := r.ConnectionThing(ctx, acct, c.ARN, name)
		ok(t, err)
		wantEqual(t, found, true)
		wantEqual(t, info.Propagating, want)
	}
}

// The five minutes of fleet-management §1.3 are a setting.
func TestTypeDeletionDelay(t *testing.T) {
	t.Parallel()
	for _, delay := range []time.Duration{0, time.Hour} {
		r := newRig(t, func(o *Options) {
			o.Limits = DefaultLimits()
			o.Limits.TypeDeletionDelay = delay
		})
		ctx := t.Context()
		must[ThingType](t)(r.CreateThingType(ctx, acct, CreateThingTypeCommand{Name: "Pump"}))
		wantCode(t, r.DeleteThingType(ctx, acct, "Pump"), fault.InvalidRequest)
		ok(t, r.DeprecateThingType(ctx, acct, "Pump", false))
		if delay > 0 {
			wantCode(t, r.DeleteThingType(ctx, acct, "Pump"), fault.InvalidRequest)
			r.pass(delay / 2)
			ok(t, r.DeprecateThingType(ctx, acct, "Pump", true))
			ok(t, r.DeprecateThingType(ctx, acct, "Pump", false))
			r.pass(delay/2 + time.Minute)
			wantCode(t, r.DeleteThingType(ctx, acct, "Pump"), fault.InvalidRequest)
			r.pass(delay)
		}
		ok(t, r.DeleteThingType(ctx, acct, "Pump"))
	}
}

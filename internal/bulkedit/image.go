package bulkedit

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/muster-iot/muster/internal/drift"
	"github.com/muster-iot/muster/internal/registry"
)

// Image is what an edit touches of a thing, as it was or as it is left.
type Image struct {
	ThingID string `json:"thingId,omitempty"`
	// ThingTypeName and BillingGroupName are "" for none, absent when the edit does
	// not touch them.
	ThingTypeName    *string `json:"thingTypeName,omitempty"`
	BillingGroupName *string `json:"billingGroupName,omitempty"`
	// Attributes are those that the edit touches, null where there is none.
	Attributes map[string]*string `json:"attributes,omitempty"`
	// ThingGroups says of each group that the edit touches whether the thing is in it.
	ThingGroups map[string]bool `json:"thingGroups,omitempty"`
	// Desired are the members that the edit touches, null where there is none.
	Desired json.RawMessage `json:"desired,omitempty"`
	// Drift is what differs from the promise and is settled; of the after, what is
	// left since it cannot be repaired.
	Drift []drift.Difference `json:"drift,omitempty"`
	// Thing is all of a thing that the edit ends or makes; absent when there is none.
	Thing *WholeThing `json:"thing,omitempty"`
}

// WholeThing is a thing without its principals and shadows.
type WholeThing struct {
	ThingTypeName    string            `json:"thingTypeName,omitempty"`
	Attributes       map[string]string `json:"attributes,omitempty"`
	BillingGroupName string            `json:"billingGroupName,omitempty"`
	// ThingGroups are static ones; queries decide about the others.
	ThingGroups []string `json:"thingGroups,omitempty"`
	Version     int64    `json:"version"`
}

// whole is the image of a thing that ends or begins.
func whole(t registry.Thing) Image {
	w := &WholeThing{ThingTypeName: t.TypeName, Attributes: t.Attributes, BillingGroupName: t.BillingGroup, Version: t.Version}
	for _, m := range t.Groups {
		if !m.Dynamic {
			w.ThingGroups = append(w.ThingGroups, m.Group)
		}
	}
	return Image{ThingID: t.ID, Thing: w}
}

// imageOf is what an operation touches of a thing's entry.
func imageOf(o *Operation, t registry.Thing) Image {
	i := Image{ThingID: t.ID}
	if o.thingType() != nil {
		i.ThingTypeName = &t.TypeName
	}
	if o.billingGroup() != nil {
		i.BillingGroupName = &t.BillingGroup
	}
	if changes := o.attributes(); len(changes) > 0 {
		i.Attributes = make(map[string]*string, len(changes))
		for name := range changes {
			i.Attributes[name] = attribute(t, name)
		}
	}
	if n := len(o.AddToThingGroups) + len(o.RemoveFromThingGroups); n > 0 {
		i.ThingGroups = make(map[string]bool, n)
		for _, group := range slices.Concat(o.AddToThingGroups, o.RemoveFromThingGroups) {
			i.ThingGroups[group] = in(t, group)
		}
	}
	return i
}

// attribute is a thing's value, nil for none.
func attribute(t registry.Thing, name string) *string {
	if value, ok := t.Attributes[name]; ok {
		return &value
	}
	return nil
}

// in reports a static membership.
func in(t registry.Thing, group string) bool {
	return slices.ContainsFunc(t.Groups, func(m registry.Membership) bool { return m.Group == group && !m.Dynamic })
}

// fits reports whether a thing's entry is as the image says.
func (i *Image) fits(t registry.Thing) bool {
	if i.ThingTypeName != nil && *i.ThingTypeName != t.TypeName {
		return false
	}
	if i.BillingGroupName != nil && *i.BillingGroupName != t.BillingGroup {
		return false
	}
	for name, value := range i.Attributes {
		present := attribute(t, name)
		if (value == nil) != (present == nil) || value != nil && *value != *present {
			return false
		}
	}
	for group, member := range i.ThingGroups {
		if in(t, group) != member {
			return false
		}
	}
	return true
}

// restoring is the edit that brings a thing's entry to what the image says.
func (i *Image) restoring() registry.EditCommand {
	c := registry.EditCommand{TypeName: i.ThingTypeName, BillingGroup: i.BillingGroupName}
	if len(i.Attributes) > 0 {
		c.Attributes = make(map[string]string, len(i.Attributes))
	}
	for name, value := range i.Attributes {
		c.Attributes[name] = ""
		if value != nil {
			c.Attributes[name] = *value
		}
	}
	for _, group := range slices.Sorted(maps.Keys(i.ThingGroups)) {
		if i.ThingGroups[group] {
			c.AddGroups = append(c.AddGroups, group)
		} else {
			c.RemoveGroups = append(c.RemoveGroups, group)
		}
	}
	return c
}

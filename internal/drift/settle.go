package drift

import (
	"maps"
	"slices"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// Action says which side gives way.
type Action string

// Actions.
const (
	// Repair changes the thing to what was promised.
	Repair Action = "REPAIR"
	// Accept promises what is.
	Accept Action = "ACCEPT"
)

// Choice is what to do about which differences.
type Choice struct {
	Action Action `json:"action"`
	// Kinds are those that are meant. Empty are all that somebody may not have
	// wanted to be so: for a repair all but CERTIFICATE and EXTRA_POLICY, since a
	// certificate that was deactivated is mostly meant to be, for an acceptance all
	// but EXTRA_POLICY.
	Kinds []Kind `json:"kinds,omitempty"`
}

// Check refuses a choice that says nothing, and brings it into its one form, with
// the kinds that are meant.
func (c *Choice) Check(field string) error {
	switch c.Action {
	case Repair, Accept:
	default:
		return fault.New(fault.InvalidRequest, "%saction: must be %s or %s", field, Repair, Accept)
	}
	if len(c.Kinds) == 0 {
		for _, k := range Kinds() {
			if k != ExtraPolicy && (c.Action == Accept || k != Certificate && k != Thing) {
				c.Kinds = append(c.Kinds, k)
			}
		}
	}
	if len(c.Kinds) > len(Kinds()) {
		return fault.New(fault.InvalidRequest, "%skinds: must have at most %d entries", field, len(Kinds()))
	}
	for _, k := range c.Kinds {
		if !slices.Contains(Kinds(), k) {
			return fault.New(fault.InvalidRequest, "%skinds: %q is none of %v", field, k, Kinds())
		}
	}
	c.Kinds = slices.Sorted(slices.Values(c.Kinds))
	c.Kinds = slices.Compact(c.Kinds)
	return nil
}

// Plan is what a choice comes to for one thing.
type Plan struct {
	// Settles are the differences that go.
	Settles []Difference
	// Leaves are those that are meant and cannot be repaired.
	Leaves []Difference
}

// PlanFor is what a choice that was checked would do about a report.
func (c *Choice) PlanFor(r *Report) Plan {
	var p Plan
	for _, d := range r.selected(c.Kinds) {
		if c.Action == Repair && d.Irreparable() != "" {
			p.Leaves = append(p.Leaves, d)
		} else {
			p.Settles = append(p.Settles, d)
		}
	}
	return p
}

// refusal is the fault for a thing of which nothing can be repaired.
func (p *Plan) refusal() error {
	return fault.New(fault.InvalidRequest, "%s", p.Leaves[0].Irreparable())
}

// keeping is what the registry has to do for a plan.
func (c *Choice) keeping(r *Report, p *Plan) *registry.Keeping {
	k := repairing(p.Settles)
	if c.Action == Accept {
		k = accepting(r, p.Settles)
	}
	k.Event = event.PromiseSettled{
		Thing: r.Thing, Template: r.Promise.Template, TemplateVersion: r.Promise.Version, Action: string(c.Action), Differences: reported(p.Settles),
	}
	return k
}

// repairing brings the thing to what was promised.
func repairing(settles []Difference) *registry.Keeping {
	k := &registry.Keeping{}
	for _, d := range settles {
		switch d.Kind {
		case ThingType:
			k.TypeName = &d.Promised
		case Attribute:
			if k.Attributes == nil {
				k.Attributes = map[string]string{}
			}
			k.Attributes[d.Name] = d.Promised
		case ThingGroup:
			k.AddGroups = append(k.AddGroups, d.Name)
			if d.Found != "" {
				k.RemoveGroups = append(k.RemoveGroups, d.Found)
			}
		case BillingGroup:
			k.BillingGroup = &d.Promised
		case Certificate:
			k.Activate = true
		case Policy:
			k.AttachPolicies = append(k.AttachPolicies, d.Name)
		case ExtraPolicy:
			k.DetachPolicies = append(k.DetachPolicies, d.Name)
		case Thing: // irreparable
		}
	}
	return k
}

// accepting promises what is.
func accepting(r *Report, settles []Difference) *registry.Keeping {
	now := r.Promise
	now.Attributes = maps.Clone(now.Attributes)
	without := func(list []string, name string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(other string) bool { return other == name })
	}
	k := &registry.Keeping{Promise: &now}
	for _, d := range settles {
		switch d.Kind {
		case Thing:
			return &registry.Keeping{Forget: true}
		case ThingType:
			now.TypeName = d.Found
		case Attribute:
			if now.Attributes[d.Name] = d.Found; d.Found == "" {
				delete(now.Attributes, d.Name)
			}
		case ThingGroup:
			if now.Groups = without(now.Groups, d.Name); d.Found != "" {
				now.Groups = append(now.Groups, d.Found)
				slices.Sort(now.Groups)
			}
		case BillingGroup:
			now.BillingGroup = d.Found
		case Certificate:
			if now.Active = false; d.Found == "" {
				now.CertificateID, now.Policies = "", nil
			}
		case Policy:
			now.Policies = without(now.Policies, d.Name)
		case ExtraPolicy:
			now.Policies = append(slices.Clone(now.Policies), d.Name)
			slices.Sort(now.Policies)
		}
	}
	return k
}

// reported are differences as events carry them.
func reported(differences []Difference) []event.PromiseDifference {
	out := make([]event.PromiseDifference, len(differences))
	for i, d := range differences {
		out[i] = event.PromiseDifference{Kind: string(d.Kind), Name: d.Name, Promised: d.Promised, Found: d.Found}
	}
	return out
}

// Need is one permission.
type Need struct{ Action, Kind, Name string }

// Actions that a caller needs, those of the single calls that would do the same
// among them.
const (
	ActionRepair            = "ops:RepairDrift"
	ActionAccept            = "ops:AcceptDrift"
	actionSearch            = "iot:SearchIndex"
	actionUpdateThing       = "iot:UpdateThing"
	actionAddToGroup        = "iot:AddThingToThingGroup"
	actionRemoveFromGroup   = "iot:RemoveThingFromThingGroup"
	actionAddBilling        = "iot:AddThingToBillingGroup"
	actionRemoveBilling     = "iot:RemoveThingFromBillingGroup"
	actionAttachPolicy      = "iot:AttachPolicy"
	actionDetachPolicy      = "iot:DetachPolicy"
	actionUpdateCertificate = "iot:UpdateCertificate"
)

// Needs are the permissions to carry out a choice for a thing.
func (c *Choice) Needs(r *Report) []Need {
	if c.Action == Accept {
		return []Need{{Action: ActionAccept}}
	}
	needs := []Need{{Action: ActionRepair}}
	certificate := ""
	if r.Certificate != nil {
		certificate = r.Certificate.ID
	}
	for _, d := range c.PlanFor(r).Settles {
		switch d.Kind {
		case ThingType, Attribute:
			needs = append(needs, Need{actionUpdateThing, fleet.ARNThing, r.Thing})
		case ThingGroup:
			needs = append(needs, Need{actionAddToGroup, fleet.ARNThing, r.Thing}, Need{actionAddToGroup, fleet.ARNThingGroup, d.Name})
			if d.Found != "" {
				needs = append(needs, Need{actionRemoveFromGroup, fleet.ARNThing, r.Thing}, Need{actionRemoveFromGroup, fleet.ARNThingGroup, d.Found})
			}
		case BillingGroup:
			if d.Found != "" {
				needs = append(needs, Need{actionRemoveBilling, fleet.ARNThing, r.Thing}, Need{actionRemoveBilling, fleet.ARNBillingGroup, d.Found})
			}
			needs = append(needs, Need{actionAddBilling, fleet.ARNThing, r.Thing}, Need{actionAddBilling, fleet.ARNBillingGroup, d.Promised})
		case Certificate:
			needs = append(needs, Need{actionUpdateCertificate, fleet.ARNCertificate, certificate})
		case Policy:
			needs = append(needs, Need{actionAttachPolicy, fleet.ARNCertificate, certificate})
		case ExtraPolicy:
			needs = append(needs, Need{actionDetachPolicy, fleet.ARNCertificate, certificate})
		case Thing: // irreparable
		}
	}
	slices.SortFunc(needs, func(a, b Need) int {
		return slices.Compare([]string{a.Action, a.Kind, a.Name}, []string{b.Action, b.Kind, b.Name})
	})
	return slices.Compact(needs)
}

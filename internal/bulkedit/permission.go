package bulkedit

import (
	"context"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// Actions that an edit needs for each thing that it means, those of the calls
// that would do the same to one thing.
const (
	actionSearch           = "iot:SearchIndex"
	actionCreateThing      = "iot:CreateThing"
	actionUpdateThing      = "iot:UpdateThing"
	actionDeleteThing      = "iot:DeleteThing"
	actionAddToGroup       = "iot:AddThingToThingGroup"
	actionRemoveFromGroup  = "iot:RemoveThingFromThingGroup"
	actionAddBilling       = "iot:AddThingToBillingGroup"
	actionRemoveBilling    = "iot:RemoveThingFromBillingGroup"
	actionUpdateShadow     = "iot:UpdateThingShadow"
	actionDecommission     = "ops:DecommissionThing"
	thingsIndex            = "AWS_Things"
	anyResource            = ""
	anyName                = ""
	thingKind, groupKind   = fleet.ARNThing, fleet.ARNThingGroup
	billingKind, indexKind = fleet.ARNBillingGroup, fleet.ARNIndex
)

// need is one permission.
type need struct{ action, kind, name string }

// permit asks for all of them.
func (s *Service) permit(ctx context.Context, account fleet.Account, needs []need) error {
	for _, n := range needs {
		if err := s.o.Permit(ctx, account, n.action, n.kind, n.name); err != nil {
			return err
		}
	}
	return nil
}

// both is an action that AWS asks for on the thing and on the group.
func both(action, thing, kind, group string) []need {
	return []need{{action, thingKind, thing}, {action, kind, group}}
}

// needsOf are the permissions to do an operation to a thing.
func needsOf(o *Operation, t registry.Thing) []need {
	switch {
	case o.Shadow != nil:
		return []need{{actionUpdateShadow, thingKind, t.Name}}
	case o.Delete != nil && o.Delete.Decommission:
		return []need{{actionDecommission, anyResource, anyName}}
	case o.Delete != nil:
		return []need{{actionDeleteThing, thingKind, t.Name}}
	}
	var needs []need
	if len(o.SetAttributes)+len(o.RemoveAttributes) > 0 || o.thingType() != nil {
		needs = append(needs, need{actionUpdateThing, thingKind, t.Name})
	}
	for _, group := range o.AddToThingGroups {
		needs = append(needs, both(actionAddToGroup, t.Name, groupKind, group)...)
	}
	for _, group := range o.RemoveFromThingGroups {
		needs = append(needs, both(actionRemoveFromGroup, t.Name, groupKind, group)...)
	}
	if group := o.billingGroup(); group != nil {
		needs = append(needs, rebilling(t.Name, t.BillingGroup, *group)...)
	}
	return needs
}

// rebilling are the permissions to move a thing between billing groups.
func rebilling(thing, from, to string) []need {
	var needs []need
	if from != "" && from != to {
		needs = append(needs, both(actionRemoveBilling, thing, billingKind, from)...)
	}
	if to != "" {
		needs = append(needs, both(actionAddBilling, thing, billingKind, to)...)
	}
	return needs
}

// undoNeeds are the permissions to bring a thing from one image to the other.
func undoNeeds(thing string, from, to *Image) []need {
	if to.Thing != nil {
		needs := []need{{actionCreateThing, thingKind, thing}}
		for _, group := range to.Thing.ThingGroups {
			needs = append(needs, both(actionAddToGroup, thing, groupKind, group)...)
		}
		return append(needs, rebilling(thing, "", to.Thing.BillingGroupName)...)
	}
	var needs []need
	if to.Desired != nil {
		needs = append(needs, need{actionUpdateShadow, thingKind, thing})
	}
	if len(to.Attributes) > 0 || to.ThingTypeName != nil {
		needs = append(needs, need{actionUpdateThing, thingKind, thing})
	}
	for group, member := range to.ThingGroups {
		action := actionRemoveFromGroup
		if member {
			action = actionAddToGroup
		}
		needs = append(needs, both(action, thing, groupKind, group)...)
	}
	if from.BillingGroupName != nil && to.BillingGroupName != nil {
		needs = append(needs, rebilling(thing, *from.BillingGroupName, *to.BillingGroupName)...)
	}
	return needs
}

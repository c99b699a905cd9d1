package registry

import (
	"regexp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
)

// PropagatingAttribute is a user property that MQTT 5 messages of a type's
// things gain; one of the two sources is set.
type PropagatingAttribute struct {
	UserPropertyKey string `json:"key"`
	// ThingAttribute is the name of an attribute of the thing.
	ThingAttribute string `json:"attribute,omitempty"`
	// ConnectionAttribute is one of the two that connections have.
	ConnectionAttribute string `json:"connection,omitempty"`
}

// Attributes of a connection that can be propagated.
const (
	connectionClientID  = "iot:ClientId"
	connectionThingName = "iot:Thing.ThingName"
)

// maxPropagating is how many attributes a type may propagate.
const maxPropagating = 20

// userPropertyKeyPattern is the published service model's.
var userPropertyKeyPattern = regexp.MustCompile(`^[a-zA-Z0-9:$.]{1,128}$`)

// checkPropagating refuses what a type cannot propagate, naming entry and rule.
func checkPropagating(list []PropagatingAttribute) error {
	const field = "mqtt5Configuration.propagatingAttributes"
	if len(list) > maxPropagating {
		return fault.New(fault.InvalidRequest, "%s must have at most %d entries", field, maxPropagating)
	}
	for i, p := range list {
		switch {
		case !userPropertyKeyPattern.MatchString(p.UserPropertyKey):
			return fault.New(fault.InvalidRequest, "%s[%d].userPropertyKey must have 1 to 128 characters and match [a-zA-Z0-9:$.]+", field, i)
		case (p.ThingAttribute == "") == (p.ConnectionAttribute == ""):
			return fault.New(fault.InvalidRequest, "%s[%d] must have exactly one of thingAttribute and connectionAttribute", field, i)
		case p.ThingAttribute != "" && !attributeNamePattern.MatchString(p.ThingAttribute):
			return fault.New(fault.InvalidRequest, "%s[%d].thingAttribute must have 1 to 128 characters and match [a-zA-Z0-9_.,@/:#-]+", field, i)
		case p.ConnectionAttribute != "" && p.ConnectionAttribute != connectionClientID && p.ConnectionAttribute != connectionThingName:
			return fault.New(fault.InvalidRequest, "%s[%d].connectionAttribute must be %s or %s", field, i, connectionClientID, connectionThingName)
		}
	}
	return nil
}

// propagatingEvent is the list as events carry it.
func propagatingEvent(list []PropagatingAttribute) []event.PropagatingAttribute {
	if len(list) == 0 {
		return nil
	}
	told := make([]event.PropagatingAttribute, len(list))
	for i, p := range list {
		told[i] = event.PropagatingAttribute(p)
	}
	return told
}

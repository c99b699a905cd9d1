package index

import (
	"strings"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleetquery"
)

// Managed field names of the thing index.
const (
	fieldThingName     = "thingName"
	fieldThingID       = "thingId"
	fieldThingType     = "thingTypeName"
	fieldGroups        = "thingGroupNames"
	fieldVersion       = "registry.version"
	prefixAttributes   = "attributes."
	prefixRegistry     = "registry."
	prefixShadow       = "shadow"
	prefixNamedShadow  = "shadow.name."
	fieldConnected     = "connectivity.connected"
	fieldConnTimestamp = "connectivity.timestamp"
	fieldConnVersion   = "connectivity.version"
	fieldConnReason    = "connectivity.disconnectReason"
)

// Managed field names of the group index.
const (
	fieldGroupName        = "thingGroupName"
	fieldGroupID          = "thingGroupId"
	fieldGroupDescription = "description"
	fieldGroupParents     = "parentGroupNames"
	fieldGroupVersion     = "version"
)

// thingUnfielded reports whether a term without a field looks at the path:
// registry and shadow fields, neither connectivity nor Muster's own.
func thingUnfielded(path string) bool {
	return !strings.HasPrefix(path, "connectivity.") && !strings.HasPrefix(path, prefixMuster) && !thingHidden(path)
}

// thingHidden reports whether the path is a version: kept for results and
// aggregations, but not searchable.
func thingHidden(path string) bool {
	switch path {
	case fieldVersion, fieldConnVersion, prefixShadow + ".version":
		return true
	}
	name, ok := strings.CutPrefix(path, prefixNamedShadow)
	if !ok {
		return false
	}
	_, rest, _ := strings.Cut(name, ".")
	return rest == "version"
}

// thingExempt reports whether the path is managed, or an attribute that an
// operator has made: all but the members of shadows.
func thingExempt(path string) bool {
	return !strings.HasPrefix(path, prefixShadow+".") || path == prefixShadow+".version" || path == prefixShadow+".hasDelta"
}

// resolveThingField maps the names of a query on things to those of the index.
func resolveThingField(field string) (string, error) {
	if short, ok := strings.CutPrefix(field, prefixRegistry); ok {
		switch short {
		case fieldThingName, fieldThingID, fieldThingType, fieldGroups:
			return short, nil
		}
	}
	if thingHidden(field) {
		return "", fault.New(fault.InvalidQuery, "field %s is not searchable", field)
	}
	if field == "deviceDefender" || strings.HasPrefix(field, "deviceDefender.") {
		return "", fault.New(fault.InvalidQuery, "field %s is not offered yet, violations are not indexed", field)
	}
	return field, nil
}

// groupHidden reports whether the path of a group document is not searchable.
func groupHidden(path string) bool { return path == fieldGroupVersion }

// groupExempt lets operators name as many attributes as they like.
func groupExempt(string) bool { return true }

// groupUnfielded reports whether a term without a field looks at the path.
func groupUnfielded(path string) bool { return !groupHidden(path) }

// resolveGroupField maps the names of a query on groups to those of the index;
// two fields go by two names in published examples.
func resolveGroupField(field string) (string, error) {
	switch field {
	case "thingGroupNames":
		return fieldGroupName, nil
	case "thingGroupDescription":
		return fieldGroupDescription, nil
	}
	if groupHidden(field) {
		return "", fault.New(fault.InvalidQuery, "field %s is not searchable", field)
	}
	return field, nil
}

// attributeValues returns an attribute as it is indexed: as text, and as a
// number too when the text is one.
func attributeValues(text string) values {
	v := values{texts: []string{fleetquery.Fold(text)}}
	if n, ok := fleetquery.ParseNumber(text); ok {
		v.numbers = []float64{n}
	}
	return v
}

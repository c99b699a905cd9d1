package fleet

import (
	"slices"
	"strings"
)

// SocketInformationConnectivityData lets GetThingConnectivityData show the
// addresses of connections.
const SocketInformationConnectivityData = "GET_THING_CONNECTIVITY_DATA"

// ManagedFields are the fields of things that are indexed without being asked
// for, by the sources that are on.
func (t *ThingIndexing) ManagedFields() []IndexedField {
	if !t.Registry {
		return nil
	}
	fields := []IndexedField{
		{"thingId", FieldString},
		{"thingName", FieldString},
		{"registry.version", FieldNumber},
		{"registry.thingTypeName", FieldString},
		{"registry.thingGroupNames", FieldString},
	}
	if t.Shadows {
		fields = append(fields, IndexedField{"shadow.version", FieldNumber}, IndexedField{"shadow.hasDelta", FieldBoolean})
	}
	if t.NamedShadows {
		fields = append(fields, IndexedField{"shadow.name.*.version", FieldNumber}, IndexedField{"shadow.name.*.hasDelta", FieldBoolean})
	}
	if t.Connectivity {
		fields = append(fields,
			IndexedField{"connectivity.connected", FieldBoolean}, IndexedField{"connectivity.timestamp", FieldNumber},
			IndexedField{"connectivity.version", FieldNumber}, IndexedField{"connectivity.disconnectReason", FieldString})
	}
	if t.Violations {
		fields = append(fields, IndexedField{"deviceDefender.violationCount", FieldNumber})
	}
	return fields
}

// ManagedFields are the fields of groups that are indexed without being asked
// for.
func (g *GroupIndexing) ManagedFields() []IndexedField {
	if !g.On {
		return nil
	}
	return []IndexedField{
		{"thingGroupName", FieldString},
		{"thingGroupId", FieldString},
		{"description", FieldString},
		{"parentGroupNames", FieldString},
		{"version", FieldNumber},
	}
}

// Uncovered says why no value of a field of things is indexed, "" for a field
// that may have some. The field is named as queries and results name it.
func (t *ThingIndexing) Uncovered(field string) string {
	first, rest, nested := strings.Cut(field, ".")
	switch {
	case !t.Registry:
		return "thingIndexingMode is OFF"
	case first == "connectivity" && !t.Connectivity:
		return "thingConnectivityIndexingMode is OFF"
	case first == "deviceDefender" && !t.Violations:
		return "deviceDefenderIndexingMode is OFF"
	case first != "shadow":
		return ""
	case !nested:
		if !t.Shadows && !t.NamedShadows {
			return "neither thingIndexingMode nor namedShadowIndexingMode has shadows"
		}
		return ""
	}
	section, rest, nested := strings.Cut(rest, ".")
	switch {
	case section != "name" && !t.Shadows:
		return "thingIndexingMode is not REGISTRY_AND_SHADOW"
	case section != "name":
		return ""
	case !t.NamedShadows:
		return "namedShadowIndexingMode is OFF"
	case !nested:
		return ""
	}
	if name, _, _ := strings.Cut(rest, "."); name != "*" && !t.HasShadow(name) {
		return "filter.namedShadowNames does not list the shadow " + name
	}
	return ""
}

// HasShadow reports whether a shadow is indexed; the empty name is the classic
// one.
func (t *ThingIndexing) HasShadow(name string) bool {
	if name == "" {
		return t.Registry && t.Shadows
	}
	return t.Registry && t.NamedShadows && (len(t.ShadowNames) == 0 || slices.Contains(t.ShadowNames, name))
}

// SameContent reports whether two configurations index the same: they differ at
// most in what aggregations may name and in what answers show.
func (i *Indexing) SameContent(o *Indexing) bool {
	a, b := i.Things, o.Things
	return i.Groups.On == o.Groups.On &&
		a.Registry == b.Registry && a.Shadows == b.Shadows && a.Connectivity == b.Connectivity &&
		a.Violations == b.Violations && a.NamedShadows == b.NamedShadows &&
		sameSet(a.ShadowNames, b.ShadowNames) && sameSet(a.GeoLocations, b.GeoLocations)
}

// sameSet reports whether two lists without duplicates have the same members.
func sameSet[T comparable](a, b []T) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(v T) bool { return !slices.Contains(b, v) })
}

// Schema names what the index of things holds, as AWS does.
func (t *ThingIndexing) Schema() string {
	switch {
	case t.NamedShadows || t.Violations:
		return "MULTI_INDEXING_MODE"
	case t.Shadows && t.Connectivity:
		return "REGISTRY_AND_SHADOW_AND_CONNECTIVITY_STATUS"
	case t.Shadows:
		return "REGISTRY_AND_SHADOW"
	case t.Connectivity:
		return "REGISTRY_AND_CONNECTIVITY_STATUS"
	}
	return "REGISTRY"
}

// Schema names what the index of groups holds.
func (*GroupIndexing) Schema() string { return "THING_GROUPS" }

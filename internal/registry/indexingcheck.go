package registry

import (
	"regexp"
	"slices"
	"strings"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Members of the two parts of a configuration, as refusals name them.
const (
	partThings = "thingIndexingConfiguration."
	partGroups = "thingGroupIndexingConfiguration."

	maxFieldName = 1024
)

// fieldRestPattern is what stands behind a field's prefix.
var fieldRestPattern = regexp.MustCompile(`^[a-zA-Z0-9_-]+(\.[a-zA-Z0-9_-]+)*$`)

// checkIndexing applies the rules that need no record.
func (s *Service) checkIndexing(c UpdateIndexingCommand) error {
	if c.Things != nil {
		if err := s.checkThingIndexing(c.Things); err != nil {
			return err
		}
	}
	if c.Groups != nil {
		if err := s.checkGroupIndexing(c.Groups); err != nil {
			return err
		}
	}
	all := fleet.DefaultIndexing()
	if err := checkManaged(partThings, c.ManagedThingFields, all.Things.ManagedFields()); err != nil {
		return err
	}
	return checkManaged(partGroups, c.ManagedGroupFields, all.Groups.ManagedFields())
}

// checkThingIndexing checks the part about things.
func (s *Service) checkThingIndexing(t *fleet.ThingIndexing) error {
	if !t.Registry {
		for _, mode := range []struct {
			name string
			on   bool
		}{
			{"thingConnectivityIndexingMode", t.Connectivity},
			{"deviceDefenderIndexingMode", t.Violations},
			{"namedShadowIndexingMode", t.NamedShadows},
		} {
			if mode.on {
				return fault.New(fault.InvalidRequest, "%s%s must be OFF when thingIndexingMode is OFF", partThings, mode.name)
			}
		}
	}
	if err := s.checkShadowNames(t); err != nil {
		return err
	}
	if err := s.checkGeoLocations(t); err != nil {
		return err
	}
	if len(t.SocketInformation) > 0 && !t.Connectivity {
		return fault.New(fault.InvalidRequest, "%sfilter.connectivity needs thingConnectivityIndexingMode STATUS", partThings)
	}
	for _, name := range t.SocketInformation {
		if name != fleet.SocketInformationConnectivityData {
			return fault.New(fault.InvalidRequest, "%sfilter.connectivity.includeSocketInformation may hold only %s",
				partThings, fleet.SocketInformationConnectivityData)
		}
	}
	const member = partThings + "customFields"
	if err := s.checkCustomFields(member, t.CustomFields); err != nil {
		return err
	}
	for _, f := range t.CustomFields {
		if err := checkThingField(member, f.Name, t); err != nil {
			return err
		}
	}
	return nil
}

// checkShadowNames checks the filter of named shadows.
func (s *Service) checkShadowNames(t *fleet.ThingIndexing) error {
	const member = partThings + "filter.namedShadowNames"
	if len(t.ShadowNames) > 0 && !t.NamedShadows {
		return fault.New(fault.InvalidRequest, "%s needs namedShadowIndexingMode ON", member)
	}
	counted := 0
	for i, name := range t.ShadowNames {
		switch {
		case !fleet.ValidShadowName(name):
			return fault.New(fault.InvalidRequest, "%s: %q is no name of a shadow: 1 to %d characters of [$a-zA-Z0-9:_-]",
				member, name, fleet.MaxShadowNameLength)
		case slices.Contains(t.ShadowNames[:i], name):
			return fault.New(fault.InvalidRequest, "%s: %s is listed twice", member, name)
		}
		if name != reservedPackageShadow {
			counted++
		}
	}
	return checkCount(member, counted, s.indexing.MaxNamedShadows)
}

// reservedPackageShadow does not count against the limit of named shadows.
const reservedPackageShadow = "$package"

// checkGeoLocations checks the fields that hold places.
func (s *Service) checkGeoLocations(t *fleet.ThingIndexing) error {
	const member = partThings + "filter.geoLocations"
	for i, location := range t.GeoLocations {
		if rest, section := shadowRest(location.Name); section == "" || !fieldRestPattern.MatchString(rest) || len(location.Name) > maxFieldName {
			return fault.New(fault.InvalidRequest,
				"%s: %q is no field of a shadow, such as shadow.reported.position or shadow.name.gps.reported.position", member, location.Name)
		}
		if why := t.Uncovered(location.Name); why != "" {
			return fault.New(fault.InvalidRequest, "%s: %s is not covered: %s", member, location.Name, why)
		}
		if slices.ContainsFunc(t.GeoLocations[:i], func(g fleet.GeoLocation) bool { return g.Name == location.Name }) {
			return fault.New(fault.InvalidRequest, "%s: %s is listed twice", member, location.Name)
		}
	}
	return checkCount(member, len(t.GeoLocations), s.indexing.MaxGeoLocations)
}

// checkGroupIndexing checks the part about groups.
func (s *Service) checkGroupIndexing(g *fleet.GroupIndexing) error {
	const member = partGroups + "customFields"
	if err := s.checkCustomFields(member, g.CustomFields); err != nil {
		return err
	}
	for _, f := range g.CustomFields {
		rest, ok := strings.CutPrefix(f.Name, "attributes.")
		if !ok || !fieldRestPattern.MatchString(rest) {
			return fault.New(fault.InvalidRequest, "%s: %q must be attributes. and a name of letters, digits, - and _", member, f.Name)
		}
		if !g.On {
			return fault.New(fault.InvalidRequest, "%s: %s is not covered: thingGroupIndexingMode is OFF", member, f.Name)
		}
	}
	return nil
}

// checkCustomFields checks what fields of things and groups have in common.
func (s *Service) checkCustomFields(member string, fields []fleet.IndexedField) error {
	named := make(map[string]bool, len(fields))
	for _, f := range fields {
		switch f.Type {
		case fleet.FieldNumber, fleet.FieldString, fleet.FieldBoolean:
		default:
			return fault.New(fault.InvalidRequest, "%s: the type of %q must be Number, String or Boolean", member, f.Name)
		}
		if f.Name == "" || len(f.Name) > maxFieldName {
			return fault.New(fault.InvalidRequest, "%s: a name must have 1 to %d characters", member, maxFieldName)
		}
		if named[f.Name] {
			return fault.New(fault.InvalidRequest, "%s: %s is listed twice", member, f.Name)
		}
		named[f.Name] = true
	}
	return checkCount(member, len(fields), s.indexing.MaxCustomFields)
}

// checkThingField checks the name of a custom field of things.
func checkThingField(member, name string, t *fleet.ThingIndexing) error {
	rest, ok := fieldRest(name)
	if !ok {
		return fault.New(fault.InvalidRequest, "%s: %q must begin with attributes., shadow.desired., shadow.reported., "+
			"shadow.name.NAME.desired., shadow.name.NAME.reported. or deviceDefender.", member, name)
	}
	if !fieldRestPattern.MatchString(rest) {
		return fault.New(fault.InvalidRequest, "%s: behind the prefix %q may have letters, digits, - and _, with dots in between", member, name)
	}
	managed := fleet.DefaultIndexing()
	if slices.ContainsFunc(managed.Things.ManagedFields(), func(f fleet.IndexedField) bool { return f.Name == name }) {
		return fault.New(fault.InvalidRequest, "%s: %s is a managed field", member, name)
	}
	if why := t.Uncovered(name); why != "" {
		return fault.New(fault.InvalidRequest, "%s: %s is not covered: %s", member, name, why)
	}
	return nil
}

// fieldRest is what stands behind the prefix of a custom field.
func fieldRest(name string) (rest string, ok bool) {
	for _, prefix := range []string{"attributes.", "deviceDefender."} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			return rest, true
		}
	}
	rest, section := shadowRest(name)
	return rest, section != ""
}

// shadowRest is what stands behind desired or reported of a shadow's field, and
// which of them it is; "" when the name is no such field.
func shadowRest(name string) (rest, section string) {
	rest, ok := strings.CutPrefix(name, "shadow.")
	if !ok {
		return "", ""
	}
	if named, ok := strings.CutPrefix(rest, "name."); ok {
		shadow, below, _ := strings.Cut(named, ".")
		if !fleet.ValidShadowName(shadow) {
			return "", ""
		}
		rest = below
	}
	section, rest, ok = strings.Cut(rest, ".")
	if !ok || section != "desired" && section != "reported" {
		return "", ""
	}
	return rest, section
}

// checkManaged refuses fields that are said to be managed and are not.
func checkManaged(part string, sent, managed []fleet.IndexedField) error {
	for _, f := range sent {
		if !slices.Contains(managed, f) {
			return fault.New(fault.InvalidRequest, "%smanagedFields cannot be changed: there is none with name %q and type %q", part, f.Name, f.Type)
		}
	}
	return nil
}

// checkCount applies a limit of the settings, 0 is none.
func checkCount(member string, count, limit int) error {
	if limit > 0 && count > limit {
		return fault.New(fault.InvalidRequest, "%s may have at most %d entries; these are %d", member, limit, count)
	}
	return nil
}

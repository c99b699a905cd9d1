package iot

import (
	"context"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// Words of an indexing configuration on the wire.
const (
	modeOff               = "OFF"
	modeOn                = "ON"
	modeRegistry          = "REGISTRY"
	modeRegistryAndShadow = "REGISTRY_AND_SHADOW"
	modeStatus            = "STATUS"
	modeViolations        = "VIOLATIONS"
	orderLatLon           = "LatLon"
	orderLonLat           = "LonLat"
)

func (a *api) getIndexingConfiguration(
	ctx context.Context, c *awsapi.Call, _ *iotwire.GetIndexingConfigurationInput,
) (*iotwire.GetIndexingConfigurationOutput, error) {
	config, err := a.Registry.IndexingConfiguration(ctx, c.Account)
	if err != nil {
		return nil, err
	}
	return &iotwire.GetIndexingConfigurationOutput{
		ThingIndexingConfiguration: wireThingIndexing(&config.Things), ThingGroupIndexingConfiguration: wireGroupIndexing(&config.Groups),
	}, nil
}

func (a *api) updateIndexingConfiguration(
	ctx context.Context, c *awsapi.Call, in *iotwire.UpdateIndexingConfigurationInput,
) (*iotwire.UpdateIndexingConfigurationOutput, error) {
	var command registry.UpdateIndexingCommand
	if t := in.ThingIndexingConfiguration; t != nil {
		command.Things, command.ManagedThingFields = thingIndexing(t), indexedFields(t.ManagedFields)
	}
	if g := in.ThingGroupIndexingConfiguration; g != nil {
		command.Groups = &fleet.GroupIndexing{On: g.ThingGroupIndexingMode == modeOn, CustomFields: indexedFields(g.CustomFields)}
		command.ManagedGroupFields = indexedFields(g.ManagedFields)
	}
	_, err := a.Registry.UpdateIndexingConfiguration(ctx, c.Account, command)
	return &iotwire.UpdateIndexingConfigurationOutput{}, err
}

// thingIndexing reads the part about things. A mode that is not given is off.
func thingIndexing(t *iotwire.ThingIndexingConfiguration) *fleet.ThingIndexing {
	read := &fleet.ThingIndexing{
		Registry:     t.ThingIndexingMode != modeOff,
		Shadows:      t.ThingIndexingMode == modeRegistryAndShadow,
		Connectivity: value(t.ThingConnectivityIndexingMode) == modeStatus,
		Violations:   value(t.DeviceDefenderIndexingMode) == modeViolations,
		NamedShadows: value(t.NamedShadowIndexingMode) == modeOn,
		CustomFields: indexedFields(t.CustomFields),
	}
	if f := t.Filter; f != nil {
		read.ShadowNames = f.NamedShadowNames
		for _, g := range f.GeoLocations {
			read.GeoLocations = append(read.GeoLocations, fleet.GeoLocation{Name: value(g.Name), LonLat: value(g.Order) == orderLonLat})
		}
		if f.Connectivity != nil {
			read.SocketInformation = f.Connectivity.IncludeSocketInformation
		}
	}
	return read
}

// wireThingIndexing is the reverse of thingIndexing.
func wireThingIndexing(t *fleet.ThingIndexing) *iotwire.ThingIndexingConfiguration {
	mode := modeOff
	switch {
	case t.Shadows:
		mode = modeRegistryAndShadow
	case t.Registry:
		mode = modeRegistry
	}
	written := &iotwire.ThingIndexingConfiguration{
		ThingIndexingMode:             mode,
		ThingConnectivityIndexingMode: new(either(t.Connectivity, modeStatus)),
		DeviceDefenderIndexingMode:    new(either(t.Violations, modeViolations)),
		NamedShadowIndexingMode:       new(either(t.NamedShadows, modeOn)),
		ManagedFields:                 wireFields(t.ManagedFields()),
		CustomFields:                  wireFields(t.CustomFields),
	}
	if len(t.ShadowNames)+len(t.GeoLocations)+len(t.SocketInformation) == 0 {
		return written
	}
	written.Filter = &iotwire.IndexingFilter{NamedShadowNames: t.ShadowNames}
	for _, g := range t.GeoLocations {
		order := orderLatLon
		if g.LonLat {
			order = orderLonLat
		}
		written.Filter.GeoLocations = append(written.Filter.GeoLocations, iotwire.GeoLocationTarget{Name: &g.Name, Order: &order})
	}
	if len(t.SocketInformation) > 0 {
		written.Filter.Connectivity = &iotwire.ConnectivityFilter{IncludeSocketInformation: t.SocketInformation}
	}
	return written
}

// wireGroupIndexing is the part about groups.
func wireGroupIndexing(g *fleet.GroupIndexing) *iotwire.ThingGroupIndexingConfiguration {
	return &iotwire.ThingGroupIndexingConfiguration{
		ThingGroupIndexingMode: either(g.On, modeOn), ManagedFields: wireFields(g.ManagedFields()), CustomFields: wireFields(g.CustomFields),
	}
}

// either is a mode's word, or the one for off.
func either(on bool, word string) string {
	if on {
		return word
	}
	return modeOff
}

// indexedFields reads fields of the wire.
func indexedFields(fields []iotwire.Field) []fleet.IndexedField {
	return each(fields, func(f iotwire.Field) fleet.IndexedField {
		return fleet.IndexedField{Name: value(f.Name), Type: fleet.FieldType(value(f.Type))}
	})
}

// wireFields is the reverse.
func wireFields(fields []fleet.IndexedField) []iotwire.Field {
	return each(fields, func(f fleet.IndexedField) iotwire.Field {
		return iotwire.Field{Name: &f.Name, Type: new(string(f.Type))}
	})
}

package fleet

// Indexing says what the fleet index of an account holds. The zero value has
// no index at all.
type Indexing struct {
	// Version counts the changes of the configuration; 0 is the one that comes
	// with the settings.
	Version int64         `json:"version"`
	Things  ThingIndexing `json:"things"`
	Groups  GroupIndexing `json:"groups"`
}

// ThingIndexing is what the index of things holds. Sources other than the
// registry need Registry to be true.
type ThingIndexing struct {
	Registry     bool `json:"registry"`
	Shadows      bool `json:"shadows"`
	Connectivity bool `json:"connectivity"`
	Violations   bool `json:"violations"`
	NamedShadows bool `json:"namedShadows"`
	// ShadowNames are the named shadows that are indexed; empty means all.
	ShadowNames []string `json:"shadowNames,omitempty"`
	// GeoLocations are the fields of shadows that queries by distance may name.
	GeoLocations []GeoLocation `json:"geoLocations,omitempty"`
	// SocketInformation lists the interfaces that may show addresses.
	SocketInformation []string       `json:"socketInformation,omitempty"`
	CustomFields      []IndexedField `json:"customFields,omitempty"`
}

// GroupIndexing is what the index of thing groups holds.
type GroupIndexing struct {
	On           bool           `json:"on"`
	CustomFields []IndexedField `json:"customFields,omitempty"`
}

// GeoLocation is a field that holds places.
type GeoLocation struct {
	// Name is the field's path, for example shadow.reported.position.
	Name string `json:"name"`
	// LonLat says that pairs without names begin with the longitude.
	LonLat bool `json:"lonLat,omitempty"`
}

// IndexedField is a field that aggregations may name, with the type that its
// values must have to count.
type IndexedField struct {
	Name string    `json:"name"`
	Type FieldType `json:"type"`
}

// FieldType is the type of an indexed field's values, as AWS names it.
type FieldType string

// Types of indexed fields.
const (
	FieldNumber  FieldType = "Number"
	FieldString  FieldType = "String"
	FieldBoolean FieldType = "Boolean"
)

// DefaultIndexing has every source on and all named shadows.
func DefaultIndexing() Indexing {
	return Indexing{
		Things: ThingIndexing{Registry: true, Shadows: true, Connectivity: true, Violations: true, NamedShadows: true},
		Groups: GroupIndexing{On: true},
	}
}

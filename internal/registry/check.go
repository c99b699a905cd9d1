package registry

import (
	"maps"
	"regexp"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Character rules of the published service model that fleet does not hold.
var (
	attributeNamePattern  = regexp.MustCompile(`^[a-zA-Z0-9_.,@/:#-]{1,128}$`)
	attributeValuePattern = regexp.MustCompile(`^[a-zA-Z0-9_.,@/:#=\[\]-]*$`)
	descriptionPattern    = regexp.MustCompile(`^[\x20-\x7e]*$`)
	versionIDPattern      = regexp.MustCompile(`^[0-9]{1,18}$`)
	templateNamePattern   = regexp.MustCompile(`^[0-9A-Za-z_-]{1,36}$`)
)

const (
	maxAttributeValue = 800
	maxDescription    = 2028
	// maxTypedAttributes and maxUntypedAttributes bound a thing's attributes
	// with and without a thing type.
	maxTypedAttributes   = 50
	maxUntypedAttributes = 3
	maxGroupAttributes   = 50
)

// checkName refuses what may not name a thing, type or group.
func checkName(field, name string) error {
	if fleet.ValidName(name) {
		return nil
	}
	return fault.New(fault.InvalidRequest, "%s must have 1 to 128 characters and match [a-zA-Z0-9:_-]+", field)
}

// checkPolicyName refuses what may not name a policy.
func checkPolicyName(name string) error {
	if fleet.ValidPolicyName(name) {
		return nil
	}
	return fault.New(fault.InvalidRequest, `policyName must have 1 to 128 characters and match [\w+=,.@-]+`)
}

// checkAttributes refuses a name or value that the service model forbids.
func checkAttributes(attributes map[string]string) error {
	for name, value := range attributes {
		if !attributeNamePattern.MatchString(name) {
			return fault.New(fault.InvalidRequest,
				"attribute names must have 1 to 128 characters and match [a-zA-Z0-9_.,@/:#-]+")
		}
		if len(value) > maxAttributeValue || !attributeValuePattern.MatchString(value) {
			return fault.New(fault.InvalidRequest,
				`the value of attribute %q must have at most %d characters and match [a-zA-Z0-9_.,@/:#=\[\]-]*`, name, maxAttributeValue)
		}
	}
	return nil
}

// checkDescription refuses text that is not printable ASCII or too long.
func checkDescription(field, text string) error {
	if utf8.RuneCountInString(text) <= maxDescription && descriptionPattern.MatchString(text) {
		return nil
	}
	return fault.New(fault.InvalidRequest, "%s must have at most %d printable ASCII characters", field, maxDescription)
}

// checkExpected compares the version a caller expects with the one there is;
// nil means that the caller does not care, which is not the same as 0.
func checkExpected(expected *int64, actual int64) error {
	if expected == nil || *expected == actual {
		return nil
	}
	return fault.New(fault.VersionConflict, "expectedVersion is %d but the version is %d", *expected, actual)
}

// Attributes is a change of attributes.
type Attributes struct {
	Values map[string]string
	// Merge keeps what Values does not name; otherwise Values replaces all.
	Merge bool
}

// applyAttributes returns the attributes after a change. An empty value
// removes the attribute.
func applyAttributes(present map[string]string, change Attributes) map[string]string {
	after := make(map[string]string, len(present)+len(change.Values))
	if change.Merge {
		maps.Copy(after, present)
	}
	for name, value := range change.Values {
		if value == "" {
			delete(after, name)
		} else {
			after[name] = value
		}
	}
	return after
}

// checkThingAttributes enforces the number of attributes, which depends on
// whether the thing has a type.
func checkThingAttributes(attributes map[string]string, typeName string) error {
	if len(attributes) > maxTypedAttributes {
		return fault.New(fault.InvalidRequest, "a thing may have at most %d attributes", maxTypedAttributes)
	}
	if typeName == "" && len(attributes) > maxUntypedAttributes {
		return fault.New(fault.InvalidRequest, "a thing without a thing type may have at most %d attributes", maxUntypedAttributes)
	}
	return nil
}

// notFound is the fault for a resource that is not in the registry.
func notFound(kind, name string) error {
	return fault.New(fault.ResourceNotFound, "%s %s does not exist", kind, name)
}

// exists is the fault for a name already taken by something else.
func exists(kind, name, id, arn string) error {
	err := fault.New(fault.ResourceAlreadyExists, "%s %s already exists with a different configuration", kind, name)
	err.ResourceID, err.ResourceARN = id, arn
	return err
}

package bulkedit

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/drift"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

const (
	// maxAttributes and maxGroups bound an operation: a thing cannot have as many.
	maxAttributes = 100
	maxGroups     = 20
	// maxDesired bounds a patch in bytes, as shadows bound their documents.
	maxDesired = 8 << 10
	// maxReason is the longest reason of a decommission, in characters.
	maxReason = 1024
)

// Operation is what is done to each thing: changes of its registry entry, or a
// change of one shadow, or its end, or what a template promised of it.
type Operation struct {
	SetAttributes         map[string]string `json:"setAttributes,omitempty"`
	RemoveAttributes      []string          `json:"removeAttributes,omitempty"`
	SetThingType          string            `json:"setThingType,omitempty"`
	RemoveThingType       bool              `json:"removeThingType,omitempty"`
	AddToThingGroups      []string          `json:"addToThingGroups,omitempty"`
	RemoveFromThingGroups []string          `json:"removeFromThingGroups,omitempty"`
	SetBillingGroup       string            `json:"setBillingGroup,omitempty"`
	ClearBillingGroup     bool              `json:"clearBillingGroup,omitempty"`
	Shadow                *ShadowPatch      `json:"shadow,omitempty"`
	Delete                *Deletion         `json:"delete,omitempty"`
	// Drift settles what differs from what the thing's template promised.
	Drift *drift.Choice `json:"drift,omitempty"`
}

// ShadowPatch is merged into the desired state of a shadow as an update does;
// null removes.
type ShadowPatch struct {
	// Name is empty for the classic shadow.
	Name    string          `json:"name,omitempty"`
	Desired json.RawMessage `json:"desired"`
}

// Deletion is the end of a thing by the rules of DeleteThing, which refuses one
// with attached principals.
type Deletion struct {
	// Decommission ends certificates, connections and shadows too, and keeps a
	// record of the thing.
	Decommission bool `json:"decommission,omitempty"`
	// KeepCertificates and Reason are for a decommission.
	KeepCertificates bool   `json:"keepCertificates,omitempty"`
	Reason           string `json:"reason,omitempty"`
}

// registry reports whether the operation changes entries of the registry.
func (o *Operation) registry() bool {
	return len(o.SetAttributes)+len(o.RemoveAttributes)+len(o.AddToThingGroups)+len(o.RemoveFromThingGroups) > 0 ||
		o.SetThingType != "" || o.RemoveThingType || o.SetBillingGroup != "" || o.ClearBillingGroup
}

// Check refuses an operation that says nothing, or what no thing could follow. It
// brings lists into order and the patch into its compact form, so that the same
// operation has one text; what o refers to is copied before.
func (o *Operation) Check() error {
	for _, list := range []*[]string{&o.RemoveAttributes, &o.AddToThingGroups, &o.RemoveFromThingGroups} {
		*list = slices.Clone(*list)
	}
	if o.Shadow != nil {
		patch := *o.Shadow
		o.Shadow = &patch
	}
	if o.Drift != nil {
		choice := *o.Drift
		o.Drift = &choice
	}
	kinds := 0
	for _, has := range []bool{o.registry(), o.Shadow != nil, o.Delete != nil, o.Drift != nil} {
		if has {
			kinds++
		}
	}
	if kinds != 1 {
		return fault.New(fault.InvalidRequest, "operation: must change registry entries, or shadow, or delete, or settle drift, one of the four; make two edits for two of them")
	}
	switch {
	case o.Shadow != nil:
		return o.Shadow.check()
	case o.Delete != nil:
		return o.Delete.check()
	case o.Drift != nil:
		return o.Drift.Check("operation.drift.")
	}
	return o.checkRegistry()
}

func (o *Operation) checkRegistry() error {
	if len(o.SetAttributes)+len(o.RemoveAttributes) > maxAttributes {
		return fault.New(fault.InvalidRequest, "operation: must name at most %d attributes", maxAttributes)
	}
	for name, value := range o.SetAttributes {
		if value == "" {
			return fault.New(fault.InvalidRequest, "operation.setAttributes: %s has an empty value; removeAttributes removes it", name)
		}
		if slices.Contains(o.RemoveAttributes, name) {
			return fault.New(fault.InvalidRequest, "operation: %s is both in setAttributes and in removeAttributes", name)
		}
	}
	if slices.Contains(o.RemoveAttributes, "") {
		return fault.New(fault.InvalidRequest, "operation.removeAttributes: has an empty name")
	}
	if o.SetThingType != "" && o.RemoveThingType {
		return fault.New(fault.InvalidRequest, "operation: setThingType and removeThingType exclude each other")
	}
	if o.SetBillingGroup != "" && o.ClearBillingGroup {
		return fault.New(fault.InvalidRequest, "operation: setBillingGroup and clearBillingGroup exclude each other")
	}
	if len(o.AddToThingGroups)+len(o.RemoveFromThingGroups) > maxGroups {
		return fault.New(fault.InvalidRequest, "operation: must name at most %d thing groups", maxGroups)
	}
	names := append([]string{o.SetThingType, o.SetBillingGroup}, append(o.AddToThingGroups, o.RemoveFromThingGroups...)...)
	for i, name := range names {
		if (i > 1 || name != "") && !fleet.ValidName(name) {
			return fault.New(fault.InvalidRequest, "operation: %q is no name of a thing type or group", name)
		}
	}
	for _, group := range o.AddToThingGroups {
		if slices.Contains(o.RemoveFromThingGroups, group) {
			return fault.New(fault.InvalidRequest, "operation: thing group %s is both in addToThingGroups and in removeFromThingGroups", group)
		}
	}
	for _, list := range []*[]string{&o.RemoveAttributes, &o.AddToThingGroups, &o.RemoveFromThingGroups} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return nil
}

func (p *ShadowPatch) check() error {
	if p.Name != "" && !fleet.ValidShadowName(p.Name) {
		return fault.New(fault.InvalidRequest, "operation.shadow.name: %q is no name of a shadow", p.Name)
	}
	if len(p.Desired) > maxDesired {
		return fault.New(fault.InvalidRequest, "operation.shadow.desired: must have at most %d bytes", maxDesired)
	}
	patch, err := parseObject(p.Desired)
	if err != nil || len(patch) == 0 {
		return fault.New(fault.InvalidRequest, "operation.shadow.desired: must be a JSON object that is not empty")
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, p.Desired); err != nil {
		return fault.New(fault.InvalidRequest, "operation.shadow.desired: is not JSON")
	}
	p.Desired = compact.Bytes()
	return nil
}

func (d *Deletion) check() error {
	if !d.Decommission && (d.KeepCertificates || d.Reason != "") {
		return fault.New(fault.InvalidRequest, "operation.delete: keepCertificates and reason are for decommission")
	}
	if !utf8.ValidString(d.Reason) || utf8.RuneCountInString(d.Reason) > maxReason {
		return fault.New(fault.InvalidRequest, "operation.delete.reason: must have at most %d characters", maxReason)
	}
	return nil
}

// attributes are the changes as the registry takes them: an empty value removes.
func (o *Operation) attributes() map[string]string {
	out := make(map[string]string, len(o.SetAttributes)+len(o.RemoveAttributes))
	maps.Copy(out, o.SetAttributes)
	for _, name := range o.RemoveAttributes {
		out[name] = ""
	}
	return out
}

// thingType is the type that things get, nil when it stays.
func (o *Operation) thingType() *string {
	if o.SetThingType == "" && !o.RemoveThingType {
		return nil
	}
	return &o.SetThingType
}

// billingGroup is the billing group that things get, nil when it stays.
func (o *Operation) billingGroup() *string {
	if o.SetBillingGroup == "" && !o.ClearBillingGroup {
		return nil
	}
	return &o.SetBillingGroup
}

// text is the operation's one form, for tokens and records.
func (o *Operation) text() (string, error) {
	data, err := json.Marshal(o)
	if err != nil {
		return "", fault.Wrap(fault.InvalidRequest, err, "operation: is not JSON")
	}
	return string(data), nil
}

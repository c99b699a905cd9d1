package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/store"
)

// PromiseOrigin says which template a plan comes from.
type PromiseOrigin struct {
	// Template and Version are zero for a body that has no name.
	Template string
	Version  int64
	Method   event.ProvisioningMethod
}

// Promise is what the template by which a thing was provisioned last says of it:
// what it states and has carried out, nothing else. A part that the template
// leaves alone on a thing that exists keeps what an earlier template has promised
// of it. Zero values promise nothing.
type Promise struct {
	PromiseOrigin

	// ThingID is the life of the name that it is about.
	ThingID      string
	TypeName     string
	Attributes   map[string]string
	Groups       []string
	BillingGroup string
	// CertificateID is the certificate that the template gave the thing; Active says
	// that it was to be ACTIVE. Policies are on whichever certificate the thing has
	// by now.
	CertificateID string
	Active        bool
	Policies      []string
	// Kept are the parts that are promised by an earlier template or version.
	Kept []KeptPromise
	// Made is when the template was carried out, Accepted when somebody said last
	// that what is shall be promised; zero for never.
	Made, Accepted time.Time
}

// KeptPromise is a part of a promise that is older than the rest.
type KeptPromise struct {
	Part     PromisePart `json:"part"`
	Template string      `json:"template,omitempty"`
	Version  int64       `json:"version,omitempty"`
}

// PromisePart is a part of a thing that templates have a say in.
type PromisePart string

// Parts of promises that can outlive their template.
const (
	PromiseType         PromisePart = "TYPE"
	PromiseAttributes   PromisePart = "ATTRIBUTES"
	PromiseGroups       PromisePart = "GROUPS"
	PromiseBillingGroup PromisePart = "BILLING_GROUP"
)

// promiseRecord is the stored form of a Promise. It is bounded as what it is
// about is: by the attributes of a thing, its groups, and the policies of a
// certificate.
type promiseRecord struct {
	schema

	ThingID      string                   `json:"thingId"`
	Template     string                   `json:"template,omitempty"`
	Version      int64                    `json:"version,omitempty"`
	Method       event.ProvisioningMethod `json:"method,omitempty"`
	TypeName     string                   `json:"type,omitempty"`
	Attributes   map[string]string        `json:"attributes,omitempty"`
	Groups       []string                 `json:"groups,omitempty"`
	BillingGroup string                   `json:"billingGroup,omitempty"`
	Certificate  string                   `json:"certificate,omitempty"`
	Active       bool                     `json:"active,omitempty"`
	Policies     []string                 `json:"policies,omitempty"`
	Kept         []KeptPromise            `json:"kept,omitempty"`
	Made         int64                    `json:"made"`
	Accepted     int64                    `json:"accepted,omitempty"`
}

// promise is the public form of a record.
func (r *promiseRecord) promise() Promise {
	p := Promise{
		PromiseOrigin: PromiseOrigin{r.Template, r.Version, r.Method}, ThingID: r.ThingID, TypeName: r.TypeName, Attributes: r.Attributes,
		Groups: r.Groups, BillingGroup: r.BillingGroup, CertificateID: r.Certificate, Active: r.Active, Policies: r.Policies, Kept: r.Kept,
		Made: moment(r.Made),
	}
	if r.Accepted != 0 {
		p.Accepted = moment(r.Accepted)
	}
	return p
}

// promiseRow finds a thing by the template and version that promised it.
func promiseRow(account fleet.Account, template string, version int64, thing string) store.Key {
	return key(kindThingPromiseBy, account, template, promiseVersion(version), thing)
}

// promiseVersion is a version as a part of a key.
func promiseVersion(version int64) string { return fmt.Sprintf("%019d", version) }

// savePromise writes a promise and its row; before is the present one, nil for
// none, after nil for its end.
func savePromise(a *attempt, thing string, before, after *promiseRecord) error {
	if before != nil && before.Template != "" && (after == nil || after.Template != before.Template || after.Version != before.Version) {
		a.remove(promiseRow(a.account, before.Template, before.Version, thing))
	}
	if after == nil {
		if before != nil {
			a.remove(key(kindThingPromise, a.account, thing))
		}
		return nil
	}
	if after.Template != "" && (before == nil || after.Template != before.Template || after.Version != before.Version) {
		a.row(promiseRow(a.account, after.Template, after.Version, thing))
	}
	return save(a, key(kindThingPromise, a.account, thing), after)
}

// dropPromise ends what is promised of a thing that ends.
func dropPromise(ctx context.Context, a *attempt, thing string) error {
	before, err := load[promiseRecord](ctx, a, key(kindThingPromise, a.account, thing))
	if err != nil {
		return err
	}
	return savePromise(a, thing, before, nil)
}

// promising records what a plan that was carried out promises, in place of what
// was promised before.
func promising(ctx context.Context, a *attempt, c *ProvisionCommand, made *Provisioned) error {
	t := c.Plan.Thing
	if t == nil {
		return nil
	}
	thing, err := loadThing(ctx, a, t.Name)
	if err != nil {
		return err
	}
	before, err := load[promiseRecord](ctx, a, key(kindThingPromise, a.account, t.Name))
	if err != nil {
		return err
	}
	now := &promiseRecord{
		ThingID: thing.ID, Template: c.Origin.Template, Version: c.Origin.Version, Method: c.Origin.Method, Made: millis(a.now),
	}
	if made.Renews && c.Asking != made.CertificateID {
		now.Method = event.ProvisioningRenewal
	}
	earlier := before
	if earlier == nil || earlier.ThingID != thing.ID {
		earlier = &promiseRecord{}
	}
	now.ofThing(t, made.ThingCreated, thing, earlier)
	if made.CertificateID != "" {
		certificate, err := loadCertificate(ctx, a, made.CertificateID)
		if err != nil {
			return err
		}
		now.ofCertificate(c.Plan, made.CertificateID, certificate, earlier)
	}
	return savePromise(a, t.Name, before, now)
}

// ofThing takes over what the plan states of the thing. What the override
// settings leave alone stays as it was promised earlier.
func (r *promiseRecord) ofThing(t *provtemplate.Thing, created bool, thing *thingRecord, earlier *promiseRecord) {
	carriedOut := func(on provtemplate.Override) bool {
		return created || on == provtemplate.Merge || on == provtemplate.Replace
	}
	if t.TypeName != "" {
		if carriedOut(t.OnType) {
			r.TypeName = thing.TypeName
		} else if r.TypeName = earlier.TypeName; r.TypeName != "" {
			r.keep(PromiseType, earlier)
		}
	}
	if t.Attributes != nil {
		if carriedOut(t.OnAttributes) {
			r.Attributes = maps.Clone(t.Attributes)
			// An empty value is none.
			maps.DeleteFunc(r.Attributes, func(_, value string) bool { return value == "" })
		} else if r.Attributes = earlier.Attributes; len(r.Attributes) > 0 {
			r.keep(PromiseAttributes, earlier)
		}
	}
	if t.Groups != nil {
		if carriedOut(t.OnGroups) {
			r.Groups = slices.Sorted(slices.Values(t.Groups))
		} else if r.Groups = earlier.Groups; len(r.Groups) > 0 {
			r.keep(PromiseGroups, earlier)
		}
	}
	if t.BillingGroup != "" {
		if created {
			r.BillingGroup = thing.BillingGroup
		} else if r.BillingGroup = earlier.BillingGroup; r.BillingGroup != "" {
			r.keep(PromiseBillingGroup, earlier)
		}
	}
}

// keep notes a part that is promised by what came earlier, if that is another
// template or version.
func (r *promiseRecord) keep(part PromisePart, earlier *promiseRecord) {
	of := KeptPromise{Part: part, Template: earlier.Template, Version: earlier.Version}
	for _, k := range earlier.Kept {
		if k.Part == part {
			of = k
		}
	}
	if of.Template != r.Template || of.Version != r.Version {
		r.Kept = append(r.Kept, of)
	}
}

// ofCertificate takes over what the plan states of the certificate.
func (r *promiseRecord) ofCertificate(plan *provtemplate.Plan, id string, certificate *certificateRecord, earlier *promiseRecord) {
	r.Certificate = id
	r.Active = plan.Certificate.Active && certificate.Status == StatusActive
	if plan.Certificate.Active && earlier.Certificate == id {
		// Its state was left alone.
		r.Active = r.Active || earlier.Active
	}
	for _, p := range plan.Policies {
		r.Policies = append(r.Policies, p.Name)
	}
	slices.Sort(r.Policies)
	r.Policies = slices.Compact(r.Policies)
}

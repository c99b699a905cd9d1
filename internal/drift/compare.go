package drift

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/registry"
)

// Kind says which part of a promise does not hold.
type Kind string

// Kinds of differences.
const (
	// Thing is a promise whose thing is gone, or another one of the name.
	Thing        Kind = "THING"
	ThingType    Kind = "THING_TYPE"
	Attribute    Kind = "ATTRIBUTE"
	ThingGroup   Kind = "THING_GROUP"
	BillingGroup Kind = "BILLING_GROUP"
	// Certificate is a thing without a certificate, or with one that is not ACTIVE.
	Certificate Kind = "CERTIFICATE"
	// Policy is a promised policy that the certificate lacks.
	Policy Kind = "POLICY"
	// ExtraPolicy is a policy of the certificate that nobody promised: no drift, but
	// more than the device should be able to do.
	ExtraPolicy Kind = "EXTRA_POLICY"
)

// Kinds are all of them, ExtraPolicy at the end.
func Kinds() []Kind {
	return []Kind{Thing, ThingType, Attribute, ThingGroup, BillingGroup, Certificate, Policy, ExtraPolicy}
}

// Difference is one thing that was promised and is not so.
type Difference struct {
	Kind Kind `json:"kind"`
	// Name is of the attribute, group, policy or certificate.
	Name string `json:"name,omitempty"`
	// Promised and Found are values, empty for none. Found of a group is another one
	// of its hierarchy, which the thing leaves when it comes back.
	Promised string `json:"promised,omitempty"`
	Found    string `json:"found,omitempty"`
}

// states of a certificate, as differences have them.
const (
	active = registry.StatusActive
	// attached is what is promised of a certificate whose state is not.
	attached = "ATTACHED"
)

// Irreparable says why a difference cannot be repaired, empty when it can.
func (d Difference) Irreparable() string {
	switch {
	case d.Kind == Thing:
		return "the thing is gone: provision the device again, or accept it"
	case d.Kind != Certificate:
		return ""
	case d.Found == "":
		return "no certificate is attached to the thing: attach one, or provision the device again"
	case d.Found == registry.StatusRevoked:
		return "certificate " + d.Name + " is revoked, which is final: provision the device again"
	case d.Found == registry.StatusPendingTransfer:
		return "certificate " + d.Name + " is being transferred to another account"
	}
	return ""
}

// Report is one thing beside what was promised of it.
type Report struct {
	Thing string
	// ThingID is the life that the promise is about.
	ThingID string
	Promise registry.Promise
	// Certificate is the one that was looked at, nil for none.
	Certificate *registry.PromisedCertificate
	// Differences are in order of kind and name.
	Differences []Difference
	// Extra are policies of the certificate beyond what was promised.
	Extra []Difference
	// Revision names exactly these differences: it changes when one of them does.
	Revision string
	// DefaultVersion is the one of the template that is in force, 0 when there is no
	// such template.
	DefaultVersion int64
}

// Drifts reports that something promised is not so.
func (r *Report) Drifts() bool { return len(r.Differences) > 0 }

// Outdated reports that another version of the template is in force.
func (r *Report) Outdated() bool {
	return r.DefaultVersion != 0 && r.Promise.Version != r.DefaultVersion
}

// has reports a difference or an extra policy of one of the kinds.
func (r *Report) has(kinds []Kind) bool { return len(r.selected(kinds)) > 0 }

// selected are the differences of some kinds.
func (r *Report) selected(kinds []Kind) []Difference {
	var out []Difference
	for _, d := range slices.Concat(r.Differences, r.Extra) {
		if slices.Contains(kinds, d.Kind) {
			out = append(out, d)
		}
	}
	return out
}

// Compare finds what was promised and is not so. Attributes and groups beyond the
// promise are no difference.
func Compare(p registry.Promised) Report {
	r := Report{Thing: p.Name, ThingID: p.Promise.ThingID, Promise: p.Promise, Certificate: p.Certificate}
	if p.Thing == nil {
		r.Differences = []Difference{{Kind: Thing, Name: p.Name, Promised: p.Promise.ThingID}}
	} else {
		r.Differences = append(ofThing(&p), ofCertificate(&p)...)
		r.Extra = extra(&p)
	}
	r.Revision = revision(&r)
	return r
}

// ofThing compares the registry's entry.
func ofThing(p *registry.Promised) []Difference {
	promise, t := &p.Promise, p.Thing
	var out []Difference
	if promise.TypeName != "" && promise.TypeName != t.TypeName {
		out = append(out, Difference{ThingType, "", promise.TypeName, t.TypeName})
	}
	for _, name := range slices.Sorted(maps.Keys(promise.Attributes)) {
		if want, is := promise.Attributes[name], t.Attributes[name]; want != is {
			out = append(out, Difference{Attribute, name, want, is})
		}
	}
	for _, group := range promise.Groups {
		if !slices.ContainsFunc(t.Groups, func(m registry.Membership) bool { return m.Group == group }) {
			out = append(out, Difference{ThingGroup, group, group, p.Instead[group]})
		}
	}
	if promise.BillingGroup != "" && promise.BillingGroup != t.BillingGroup {
		out = append(out, Difference{BillingGroup, "", promise.BillingGroup, t.BillingGroup})
	}
	return out
}

// ofCertificate compares the certificate. Of a thing without one there is no more
// to say than that.
func ofCertificate(p *registry.Promised) []Difference {
	if p.Promise.CertificateID == "" {
		return nil
	}
	want := attached
	if p.Promise.Active {
		want = active
	}
	if p.Certificate == nil {
		return []Difference{{Certificate, p.Promise.CertificateID, want, ""}}
	}
	var out []Difference
	if p.Promise.Active && p.Certificate.Status != active {
		out = append(out, Difference{Certificate, p.Certificate.ID, want, p.Certificate.Status})
	}
	for _, policy := range p.Promise.Policies {
		if !slices.Contains(p.Certificate.Policies, policy) {
			out = append(out, Difference{Policy, policy, policy, ""})
		}
	}
	return out
}

// extra are the policies that nobody promised.
func extra(p *registry.Promised) []Difference {
	if p.Promise.CertificateID == "" || p.Certificate == nil {
		return nil
	}
	var out []Difference
	for _, policy := range p.Certificate.Policies {
		if !slices.Contains(p.Promise.Policies, policy) {
			out = append(out, Difference{ExtraPolicy, policy, "", policy})
		}
	}
	return out
}

// revised is all that a revision stands for.
type revised struct {
	ThingID     string       `json:"thingId"`
	Template    string       `json:"template"`
	Version     int64        `json:"version"`
	Made        time.Time    `json:"made"`
	Certificate string       `json:"certificate"`
	Differences []Difference `json:"differences"`
	Extra       []Difference `json:"extra"`
}

// revision is a short name of what was compared and found.
func revision(r *Report) string {
	of := revised{ThingID: r.ThingID, Template: r.Promise.Template, Version: r.Promise.Version, Made: r.Promise.Made, Differences: r.Differences, Extra: r.Extra}
	if r.Certificate != nil {
		of.Certificate = r.Certificate.ID
	}
	data, err := json.Marshal(of)
	if err != nil {
		panic("drift: a report is JSON: " + err.Error())
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16])
}

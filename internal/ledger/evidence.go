package ledger

import (
	"context"
	"fmt"
	"slices"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
)

// Basis is what something that speaks for a device is.
type Basis string

// What speaks for a device, the strongest first.
const (
	ByList     Basis = "ALLOW_LIST"
	ByApproval Basis = "APPROVAL"
	// ByExpectation is a device that was announced.
	ByExpectation Basis = "EXPECTED"
	// ByOperator is a call that made the thing, BySystem the server's own doing.
	ByOperator Basis = "OPERATOR"
	BySystem   Basis = "SYSTEM"
	// ByRule is a binding that lets in without anybody being asked.
	ByRule Basis = "RULE"
	// ByClaim and ByAuthority are a claim and a registered authority, ByAuthorizer a
	// custom authorizer, of an operator: whoever holds them joins.
	ByClaim      Basis = "CLAIM"
	ByAuthority  Basis = "AUTHORITY"
	ByAuthorizer Basis = "AUTHORIZER"
	// ByAge is what is older than the ledger, so that nobody can tell.
	ByAge Basis = "OLDER_THAN_LEDGER"
	// ByNothing is a device that nobody made.
	ByNothing Basis = "NONE"
)

// bases are all but the last, in their order.
func bases() []Basis {
	return []Basis{ByList, ByApproval, ByExpectation, ByOperator, BySystem, ByRule, ByClaim, ByAuthority, ByAuthorizer, ByAge}
}

// Evidence is something that speaks for a device.
type Evidence struct {
	Basis Basis `json:"basis"`
	// Ref names it, Detail says how it speaks for the device.
	Ref    string `json:"ref,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// String is for people.
func (e Evidence) String() string {
	text := string(e.Basis)
	if e.Ref != "" {
		text += " " + e.Ref
	}
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

// maxEvidence bounds what is kept for one life.
const maxEvidence = 32

// speak adds evidence once.
func (d *device) speak(one Evidence) {
	if !slices.Contains(d.Evidence, one) && len(d.Evidence) < maxEvidence {
		d.Evidence, d.changed = append(d.Evidence, one), true
	}
}

// counts reports whether a basis says that somebody has made the device.
func (s *Service) counts(b Basis) bool {
	switch b {
	case ByClaim, ByAuthority, ByAuthorizer:
		return s.o.TrustClaims
	case ByNothing:
		return false
	case ByList, ByApproval, ByExpectation, ByOperator, BySystem, ByRule, ByAge:
	}
	return true
}

// basis is the strongest thing that speaks for a device, and what all say.
func (s *Service) basis(d *device) (Basis, []string) {
	var said []string
	strongest := ByNothing
	for _, b := range bases() {
		for _, e := range d.Evidence {
			if e.Basis != b {
				continue
			}
			said = append(said, e.String())
			if strongest == ByNothing && s.counts(b) {
				strongest = b
			}
		}
	}
	return strongest, said
}

// operates reports whether a principal is an operator.
func operates(p fleet.Principal) bool {
	return p.Kind == fleet.PrincipalUser || p.Kind == fleet.PrincipalRole
}

// maker is what the one who made something is to a device, none for another device.
func maker(p fleet.Principal, ref string) (Evidence, bool) {
	switch {
	case operates(p):
		return Evidence{Basis: ByOperator, Ref: ref, Detail: nameOfPrincipal(p)}, true
	case p.Kind == fleet.PrincipalSystem:
		return Evidence{Basis: BySystem, Ref: ref}, true
	}
	return Evidence{}, false
}

// nameOfPrincipal is the shortest that tells who it is.
func nameOfPrincipal(p fleet.Principal) string {
	switch {
	case p.ARN != "":
		return p.ARN
	case p.ID != "":
		return p.Kind + " " + p.ID
	}
	return p.Kind
}

// given is the evidence of a gate.
func given(e event.ProvisioningEvidence) Evidence {
	basis := ByRule
	switch e.Kind {
	case event.EvidenceList:
		basis = ByList
	case event.EvidenceApproval:
		basis = ByApproval
	case event.EvidenceRule:
	}
	return Evidence{Basis: basis, Ref: e.Ref, Detail: e.Detail}
}

// unbound says what a claim or an authority is worth.
const unbound = "template without binding, so whoever holds it joins"

// vouch collects what speaks for a device that a template has let in, and why nothing
// does.
func (f *follower) vouch(ctx context.Context, d *device, e *event.DeviceProvisioned) (against string, err error) {
	for _, one := range e.Evidence {
		d.speak(given(one))
	}
	suffix := ""
	if len(e.Evidence) == 0 {
		suffix = "; " + unbound
	}
	switch e.Method {
	case event.ProvisioningRegisterThing, event.ProvisioningBulk:
		ref := "call " + f.env.Actor.RequestID
		if e.Task != "" {
			ref = "registration task " + e.Task
		}
		if one, ok := maker(f.env.Actor.Principal, ref); ok {
			d.speak(one)
		}
	case event.ProvisioningClaim, event.ProvisioningTrustedUser:
		return f.vouchClaim(ctx, d, e.ClaimID, suffix)
	case event.ProvisioningJITP, event.ProvisioningJITR:
		return f.vouchAuthority(ctx, d, e.CACertificateID, suffix)
	case event.ProvisioningRenewal:
	}
	return "", nil
}

// vouchClaim looks at the certificate with which a device has asked.
func (f *follower) vouchClaim(ctx context.Context, d *device, claim, suffix string) (against string, err error) {
	if claim == "" {
		if f.env.Actor.Principal.Kind == fleet.PrincipalCustom {
			d.speak(Evidence{Basis: ByAuthorizer, Ref: nameOfPrincipal(f.env.Actor.Principal), Detail: "vouched for by a custom authorizer" + suffix})
			return "", nil
		}
		return "it asked without any certificate", nil
	}
	n, err := f.certificate(ctx, f.env.Account, claim)
	if err != nil {
		return "", err
	}
	c := n.certificate
	switch {
	case c == nil || c.Origin == nil:
		return f.older(d, "claim "+claim, "no event tells of the certificate with which it asked"), nil
	case operates(c.Origin.By):
		d.speak(Evidence{Basis: ByClaim, Ref: claim, Detail: "made by " + nameOfPrincipal(c.Origin.By) + ", " + c.Origin.Event + suffix})
		return "", nil
	case c.Authority != "":
		return f.vouchAuthority(ctx, d, c.Authority, suffix)
	case c.Device != "":
		return fmt.Sprintf("it asked with the certificate of device %s, which is no claim", c.Device), nil
	case c.Origin.By.Kind == fleet.PrincipalSystem:
		d.speak(Evidence{Basis: ByClaim, Ref: claim, Detail: "made by the server" + suffix})
		return "", nil
	}
	return "it asked with a certificate that a device has asked for", nil
}

// vouchAuthority looks at who has registered an authority.
func (f *follower) vouchAuthority(ctx context.Context, d *device, id, suffix string) (against string, err error) {
	if id == "" {
		return "its certificate is of no registered authority", nil
	}
	n, err := f.name(ctx, authorityKey(f.env.Account, id))
	if err != nil {
		return "", err
	}
	a := n.authority
	switch {
	case a == nil:
		return f.older(d, "authority "+id, "no event tells of the authority of its certificate"), nil
	case operates(a.Origin.By) || a.Declared:
		detail := "registered by " + nameOfPrincipal(a.Origin.By) + ", " + a.Origin.Event
		if a.Declared {
			detail += ", declared as trusted"
		}
		d.speak(Evidence{Basis: ByAuthority, Ref: id, Detail: detail + suffix})
	default:
		d.speak(Evidence{Basis: ByAuthority, Ref: id, Detail: "registered by the server" + suffix})
	}
	return "", nil
}

// older lets what the ledger cannot know speak for a device, unless it has seen
// everything.
func (f *follower) older(d *device, ref, against string) string {
	if f.began.Complete {
		return against
	}
	d.speak(Evidence{Basis: ByAge, Ref: ref, Detail: "the ledger has not seen where it comes from"})
	return ""
}

// judge raises a device of which nothing says that somebody has made it.
func (f *follower) judge(ctx context.Context, d *device, against string) error {
	if basis, said := f.s.basis(d); basis != ByNothing || d.Rogue {
		return nil
	} else if against == "" {
		against = "nothing says that somebody has made it"
		if len(said) > 0 {
			against = "only a claim or an authority speaks for it, and ledger.trust-claims is off"
		}
	}
	d.Rogue = true
	if err := f.add(ctx, d, f.draft(Raised, map[string]string{"reason": against})); err != nil {
		return err
	}
	return f.raise(ctx, d, against)
}

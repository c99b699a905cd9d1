package ledger

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/muster-iot/muster/internal/event"
)

// refused enters that a device was not let in, once for each code, and raises who was
// refused by a gate.
func (f *follower) refused(ctx context.Context, e *event.ProvisioningRefused) error {
	d, err := f.ofCertificate(ctx, e.CertificateID)
	if err == nil && d == nil && e.ClientID != "" && len(e.ClientID) <= maxReason {
		if d, err = f.ofKey(ctx, e.ClientID); err == nil && d.Seq == 0 {
			d = nil
		}
	}
	if err != nil {
		return err
	}
	if e.Code == codeRefused {
		if err := f.attempt(ctx, e, d != nil); err != nil {
			return err
		}
	}
	if d == nil || d.Life == 0 || slices.Contains(d.Refusals, e.Code) || len(d.Refusals) >= maxRefusals {
		return nil
	}
	d.Refusals, d.changed = append(d.Refusals, e.Code), true
	return f.add(ctx, d, f.draft(Refused, map[string]string{
		"code": e.Code, "means": string(e.Method), "template": e.Template, labelCert: e.CertificateID, "claim": e.ClaimID,
	}))
}

// approval enters what became of a request.
func (f *follower) approval(ctx context.Context, e *event.ApprovalChanged) error {
	what := ApprovalRequested
	switch {
	case e.Authority != "":
		what = ApprovalVoted
	case e.State == approvalUsed:
		what = ApprovalUsed
	case e.State == approvalExpired:
		what = ApprovalExpired
	}
	return f.tell(ctx, e.CertificateID, e.Thing, f.draft(what, map[string]string{
		labelRequest: e.Request, "state": e.State, "template": e.Template, "authority": e.Authority, labelVerdict: e.Verdict,
	}))
}

// listed enters what became of the entry of an allow list that a device has used. One
// that no device has used is no part of a life.
func (f *follower) listed(ctx context.Context, e *event.AllowListEntryChanged) error {
	what := ListChanged
	if e.State == listClaimed {
		what = ListClaimed
	}
	return f.tell(ctx, e.CertificateID, e.Thing, f.draft(what, map[string]string{
		"list": e.List, "revision": strconv.FormatInt(e.Revision, 10), "supplier": e.Supplier, "state": e.State, "found": e.Found,
	}))
}

// duplicated enters on both sides that two came with the same entry of a list.
func (f *follower) duplicated(ctx context.Context, e *event.DuplicateSerial) error {
	told := func(id, otherID, otherThing string) Draft {
		return f.draft(Duplicated, map[string]string{
			labelCert: id, "otherCertificate": otherID, "otherThing": otherThing, "list": e.ListID, "revision": strconv.FormatInt(e.Revision, 10), "supplier": e.Supplier,
		})
	}
	// What the second one calls itself may be the name of the first.
	if err := f.tell(ctx, e.CertificateID, "", told(e.CertificateID, e.OtherCertificateID, e.OtherThing)); err != nil {
		return err
	}
	d, err := f.ofCertificate(ctx, e.OtherCertificateID)
	if err != nil || d == nil || d.Unproven >= maxUnproven {
		return err
	}
	d.Unproven++
	return f.add(ctx, d, told(e.OtherCertificateID, e.CertificateID, e.Thing))
}

// note takes over what an entry says of the votes about a device.
func (d *device) note(entry *Draft) {
	if entry.What != ApprovalVoted {
		return
	}
	request, authority := entry.Facts[labelRequest], entry.Facts["authority"]
	one := vote{Request: request, Authority: authority, By: nameOfPrincipal(entry.Principal), Verdict: entry.Facts[labelVerdict]}
	d.Votes = slices.DeleteFunc(d.Votes, func(v vote) bool { return v.Request == request && v.Authority == authority })
	if len(d.Votes) >= maxVotes {
		d.Votes = d.Votes[1:]
	}
	d.Votes, d.changed = append(d.Votes, one), true
	if entry.Facts["state"] != approvalApproved {
		return
	}
	var who []string
	for _, v := range d.Votes {
		if v.Request == request && v.Verdict == approvalApproved {
			who = append(who, v.Authority+" by "+v.By)
		}
	}
	d.speak(Evidence{Basis: ByApproval, Ref: request, Detail: strings.Join(who, ", ")})
}

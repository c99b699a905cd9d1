package registry

import (
	"context"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// maxRetired bounds the certificates that one decommission ends, since all of
	// it is one commit.
	maxRetired = 1000
	// maxReason bounds the reason of a decommission in characters.
	maxReason = 1024
)

// tombstoneRecord is a thing as it was when it was decommissioned.
type tombstoneRecord struct {
	schema

	TypeName   string            `json:"type,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	// BillingGroup is empty for none.
	BillingGroup string      `json:"billing,omitempty"`
	Version      int64       `json:"version"`
	Groups       []groupLink `json:"groups,omitempty"`
	// Certificates are those that it was attached to.
	Certificates []PastCertificate `json:"certificates,omitempty"`
	Created      int64             `json:"created"`
	Ended        int64             `json:"ended"`
	Actor        fleet.Actor       `json:"actor"`
	Reason       string            `json:"reason,omitempty"`
	// Completed is when sessions and shadows were gone as well, 0 before.
	Completed int64 `json:"completed,omitempty"`
}

// PastThing is a thing that was decommissioned.
type PastThing struct {
	Name         string
	ID           string
	TypeName     string
	Attributes   map[string]string
	BillingGroup string
	Version      int64
	Groups       []Membership
	Certificates []PastCertificate
	Created      time.Time
	Ended        time.Time
	// Actor ended it, for Reason.
	Actor  fleet.Actor
	Reason string
	// Completed is zero until its sessions and shadows are gone as well.
	Completed time.Time
}

// PastCertificate is a certificate that a decommissioned thing was attached to.
type PastCertificate struct {
	ID string `json:"id"`
	// Revoked says that it was revoked with the thing.
	Revoked bool `json:"revoked,omitempty"`
	// Shared says that it was attached to other things too.
	Shared bool `json:"shared,omitempty"`
}

// pastThing is the public form of a record at its key.
func pastThing(k store.Key, r *tombstoneRecord) PastThing {
	of := thingOf("", &thingRecord{Groups: r.Groups})
	p := PastThing{
		Name: k.Parts()[2], ID: k.Last(), TypeName: r.TypeName, Attributes: r.Attributes, BillingGroup: r.BillingGroup,
		Version: r.Version, Groups: of.Groups, Certificates: r.Certificates, Created: moment(r.Created), Ended: moment(r.Ended), Actor: r.Actor, Reason: r.Reason,
	}
	if r.Completed != 0 {
		p.Completed = moment(r.Completed)
	}
	return p
}

// tombstoneKey finds the record of a life of a thing; the newest comes first.
func tombstoneKey(account fleet.Account, name, id string, ended time.Time) store.Key {
	return key(kindThingTombstone, account, name, falling(ended), id)
}

// DecommissionCommand asks for the end of a thing.
type DecommissionCommand struct {
	Name string
	// ThingID, unless it is empty, is the id of the life that is meant: a thing
	// that has the name by now is left alone.
	ThingID string
	// Reason is for those who look back; it may be empty.
	Reason string
	// KeepCertificates detaches certificates without revoking them.
	KeepCertificates bool
}

// Decommission ends a thing's life in the registry in one commit: certificates
// that act as no other thing are revoked, all are detached, the thing goes with
// its memberships, and a record of it stays under its name. What other domains
// hold of the thing is left to the caller, who tells with CompleteDecommission
// when that is done. For a thing that is gone already the record of it is
// answered, without an id the newest one of the name, so that the act can be
// repeated.
func (s *Service) Decommission(ctx context.Context, account fleet.Account, c DecommissionCommand) (PastThing, error) {
	if err := checkDecommission(c); err != nil {
		return PastThing{}, err
	}
	var past PastThing
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := load[thingRecord](ctx, a, key(kindThing, account, c.Name))
		if err != nil {
			return err
		}
		if record == nil || c.ThingID != "" && record.ID != c.ThingID {
			past, err = s.pastLife(ctx, account, c.Name, c.ThingID)
			return err
		}
		past, err = retire(ctx, a, c, record)
		return err
	})
	return past, err
}

// checkDecommission checks what needs no record.
func checkDecommission(c DecommissionCommand) error {
	if err := checkName("thingName", c.Name); err != nil {
		return err
	}
	if !utf8.ValidString(c.Reason) || utf8.RuneCountInString(c.Reason) > maxReason {
		return fault.New(fault.InvalidRequest, "reason must have at most %d characters", maxReason)
	}
	for _, r := range c.Reason {
		if unicode.IsControl(r) {
			return fault.New(fault.InvalidRequest, "reason must have no control characters")
		}
	}
	return nil
}

// pastLife returns the record of a name with an id, without one the newest, or
// ResourceNotFound.
func (s *Service) pastLife(ctx context.Context, account fleet.Account, name, id string) (PastThing, error) {
	var page Page
	for {
		listed, err := s.PastThings(ctx, account, name, page)
		if err != nil {
			return PastThing{}, err
		}
		for _, past := range listed.Items {
			if id == "" || past.ID == id {
				return past, nil
			}
		}
		if listed.Next == "" {
			return PastThing{}, notFound("thing", name)
		}
		page.After = listed.Next
	}
}

// retire decides all that a decommission changes. The thing's record counts its
// attachments, so that none comes or goes unseen.
func retire(ctx context.Context, a *attempt, c DecommissionCommand, record *thingRecord) (PastThing, error) {
	rows, more, err := keysOf(ctx, a.reader, under(kindThingPrincipal, a.account, c.Name), "", maxRetired)
	if err != nil {
		return PastThing{}, err
	}
	if more {
		return PastThing{}, fault.New(fault.InvalidRequest, "thing %s has more than %d attached principals; detach some first", c.Name, maxRetired)
	}
	certificates, revoked, err := retireCertificates(ctx, a, c, rows, record.Quarantine != nil)
	if err != nil {
		return PastThing{}, err
	}
	tombstone := &tombstoneRecord{
		TypeName: record.TypeName, Attributes: record.Attributes, BillingGroup: record.BillingGroup,
		Version: record.Version, Groups: record.Groups,
		Certificates: certificates, Created: record.Created, Ended: millis(a.now), Actor: a.actor, Reason: c.Reason,
	}
	if err := dropThing(ctx, a, c.Name, record); err != nil {
		return PastThing{}, err
	}
	a.emit(event.ThingDecommissioned{Thing: c.Name, ThingID: record.ID, Certificates: revoked, Reason: c.Reason})
	k := tombstoneKey(a.account, c.Name, record.ID, a.now)
	return pastThing(k, tombstone), save(a, k, tombstone)
}

// retireCertificates revokes and detaches the certificates behind the rows of a
// thing. A certificate without a record is only detached.
func retireCertificates(ctx context.Context, a *attempt, c DecommissionCommand, rows []store.Key, quarantined bool) (past []PastCertificate, revoked []string, err error) {
	keys := make([]store.Key, len(rows))
	for i, row := range rows {
		keys[i] = key(kindCertificate, a.account, parseRef(row.Last()).name)
	}
	records, err := loadMany[certificateRecord](ctx, a, keys)
	if err != nil {
		return nil, nil, err
	}
	for i, row := range rows {
		of, r := parseRef(row.Last()), records[i]
		a.remove(row)
		a.remove(key(kindPrincipalThing, a.account, of.ref(), c.Name))
		ended := PastCertificate{ID: of.name}
		if r != nil {
			ended.Shared = r.Things > 1
			ended.Revoked = !ended.Shared && !c.KeepCertificates && r.Status != StatusRevoked
			r.Things--
			r.ExclusiveThing = ""
			if quarantined {
				r.Quarantined = max(0, r.Quarantined-1)
			}
			if err := endCertificate(a, of.name, r, ended.Revoked); err != nil {
				return nil, nil, err
			}
		}
		if ended.Revoked {
			revoked = append(revoked, of.name)
		}
		past = append(past, ended)
		a.emit(event.PrincipalDetached{Thing: c.Name, Principal: of.arn(a.scope)})
	}
	return past, revoked, nil
}

// endCertificate saves a certificate that a thing has lost, revoked or as it
// was.
func endCertificate(a *attempt, id string, r *certificateRecord, revoke bool) error {
	if revoke {
		return setStatus(a, a.account, id, r, StatusRevoked)
	}
	return save(a, key(kindCertificate, a.account, id), r)
}

// CompleteDecommission records that nothing is left of a past thing in other
// domains. It may be repeated.
func (s *Service) CompleteDecommission(ctx context.Context, account fleet.Account, past PastThing) (PastThing, error) {
	k := tombstoneKey(account, past.Name, past.ID, past.Ended)
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := load[tombstoneRecord](ctx, a, k)
		if err != nil {
			return err
		}
		if record == nil {
			return notFound("past thing", past.Name)
		}
		if record.Completed == 0 {
			record.Completed = millis(a.now)
			err = save(a, k, record)
		}
		past = pastThing(k, record)
		return err
	})
	return past, err
}

// PastThings returns one page of the decommissioned things that had a name,
// the newest first.
func (s *Service) PastThings(ctx context.Context, account fleet.Account, name string, p Page) (Listed[PastThing], error) {
	if err := checkName("thingName", name); err != nil {
		return Listed[PastThing]{}, err
	}
	self := func(k store.Key) store.Key { return k }
	listed, err := listRecords[tombstoneRecord](ctx, s.store, under(kindThingTombstone, account, name), p, self,
		func(k store.Key, r *tombstoneRecord) (PastThing, bool) { return pastThing(k, r), true })
	return listed, store.Fault(err)
}

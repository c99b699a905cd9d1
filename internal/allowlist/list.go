package allowlist

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// RevisionStatus is how a revision stands.
type RevisionStatus string

// Statuses of a revision.
const (
	// Quarantined waits for a second person.
	Quarantined RevisionStatus = "QUARANTINED"
	// Accepting is being made ready; it goes on by itself after a restart.
	Accepting RevisionStatus = "ACCEPTING"
	// Accepted is what devices are matched against.
	Accepted RevisionStatus = "ACCEPTED"
	Rejected RevisionStatus = "REJECTED"
	// Superseded was accepted before another one.
	Superseded RevisionStatus = "SUPERSEDED"
)

// List is a supplier's list of devices.
type List struct {
	ID, Supplier, Name string
	// Current is the revision that devices are matched against, 0 for none; Last the
	// newest.
	Current, Last     int64
	Created, Modified time.Time
	// DeleteBy and DeleteAt are set while a second person has to agree to a deletion.
	DeleteBy string
	DeleteAt time.Time
	// Deleted is set for the tombstone of a list, ConfirmedBy is who agreed.
	Deleted     time.Time
	ConfirmedBy string
}

// Revision is an upload.
type Revision struct {
	List      string
	Number    int64
	Status    RevisionStatus
	Format    Format
	Entries   int
	Bytes     int
	Digest    string
	SignerKey string
	Issued    time.Time
	// UploadedBy stands for the upload: its caller, or who has made its Link.
	UploadedBy, Link string
	UploadedAt       time.Time
	VettedBy         string
	VettedAt         time.Time
	Note             string
}

const (
	// partBytes is the length of the parts in which an upload is kept.
	partBytes = 256 << 10
	// maxNote bounds what a person says about a revision, in characters.
	maxNote = 1024
	// maxRevisions bounds a list.
	maxRevisions = 10_000
)

// Upload is a list as it comes in.
type Upload struct {
	Supplier, List string
	// Name is the list's for people; empty keeps the one that it has.
	Name string
	// Body is the list, a JWS of it, or either encrypted with age.
	Body []byte
	// Signature is a detached one; empty for a JWS or a list that nobody has signed.
	Signature string
	// KeyID is which of the supplier's keys has made a plain signature; empty for any.
	KeyID string

	// by and link are who stands for the upload, and the link that it came by; empty
	// for the caller.
	by, link string
}

// Upload takes a revision of a list and keeps it bit for bit. It waits for a second
// person, unless it is signed and the supplier's lists are accepted without one. A
// signature that is not the supplier's, bytes that were uploaded before, and a document
// that is not newer than the last one are refused, on record.
func (s *Service) Upload(ctx context.Context, account fleet.Account, u Upload) (Revision, error) {
	if u.by == "" {
		u.by = identityOf(fleet.ActorFrom(ctx).Principal)
	}
	r, err := s.upload(ctx, account, &u)
	if err != nil {
		if fault.CodeOf(err) == fault.InvalidRequest || fault.CodeOf(err) == fault.Conflict {
			s.refusedUpload(ctx, account, &u, err)
		}
		return Revision{}, err
	}
	if r.Status == Accepting {
		return s.finish(ctx, account, u.List, r.Number)
	}
	return r, nil
}

// identityOf is who acts, for two roles that must not be one person's.
func identityOf(p fleet.Principal) string {
	if p.ARN != "" {
		return p.ARN
	}
	return p.ID
}

// refusedUpload leaves on record that somebody has tried; a refusal stands also when the
// record is lost.
func (s *Service) refusedUpload(ctx context.Context, account fleet.Account, u *Upload, why error) {
	sum := sha256.Sum256(u.Body)
	err := s.change(ctx, account, func(b *batch) error {
		b.emit(ctx, event.AllowListChanged{
			List: clipName(u.List), Supplier: clipName(u.Supplier), Change: event.AllowListUploadRefused, Link: u.link, Digest: hex.EncodeToString(sum[:]), Reason: fault.From(why).Message,
		})
		return nil
	})
	if err != nil {
		s.o.Logger.ErrorContext(ctx, "refusal of an allow list is not recorded", slog.Any("err", err))
	}
}

func clipName(name string) string { return name[:min(len(name), 64)] } //nolint:mnd // the length of names

func (s *Service) upload(ctx context.Context, account fleet.Account, u *Upload) (Revision, error) {
	v, err := s.vault(ctx, account)
	if err != nil {
		return Revision{}, err
	}
	switch {
	case !namePattern.MatchString(u.List):
		return Revision{}, fault.New(fault.InvalidRequest, "list must have 1 to 64 letters, digits, _, . and -")
	case utf8.RuneCountInString(u.Name) > maxName:
		return Revision{}, fault.New(fault.InvalidRequest, "name must have at most %d characters", maxName)
	case len(u.Body) == 0 || len(u.Body) > MaxBytes:
		return Revision{}, fault.New(fault.InvalidRequest, "list: must have 1 to %d bytes", MaxBytes)
	}
	plain, err := v.identity.decrypted(u.Body)
	if err != nil {
		return Revision{}, err
	}
	w, err := unwrap(plain, u.Signature)
	if err != nil {
		return Revision{}, err
	}
	if w.kid == "" {
		w.kid = u.KeyID
	}
	// Who has signed it is asked first: a list of somebody else is not even read.
	var supplier supplierRecord
	if version, err := read(ctx, s.o.Store, supplierKey(account, u.Supplier), &supplier); err != nil || version == 0 {
		if err == nil {
			err = noSupplier(u.Supplier)
		}
		return Revision{}, err
	}
	kid := ""
	if len(w.signature) > 0 {
		if kid, err = supplier.signer(&w, s.o.Now()); err != nil {
			return Revision{}, err
		}
	}
	d, err := parse(w.content)
	if err != nil {
		return Revision{}, err
	}
	if d.format == JSON && d.list != u.List {
		return Revision{}, fault.New(fault.InvalidRequest, "list: the document is of another list")
	}
	sealed, err := v.identity.seal(u.Body)
	if err != nil {
		return Revision{}, err
	}
	_, dataKey, err := v.newKey()
	if err != nil {
		return Revision{}, err
	}
	sum := sha256.Sum256(w.content)
	original := sha256.Sum256(u.Body)
	made := revisionRecord{
		Schema: schemaVersion, Status: Quarantined, Format: d.format, Upload: s.o.NewID(), Entries: len(d.entries), Bytes: len(u.Body), Parts: (len(sealed) + partBytes - 1) / partBytes,
		Digest: hex.EncodeToString(original[:]), Signature: u.Signature, SignerKey: kid, Issued: milliseconds(d.issued), UploadedBy: u.by, Link: u.link, DataKey: dataKey,
	}
	content := hex.EncodeToString(sum[:])
	commit := func(kept bool) func(b *batch) error {
		return func(b *batch) error { return b.upload(ctx, u, &made, content, kept) }
	}
	// What would be refused is, before its bytes are kept.
	probe := &batch{s: s, account: account}
	if err := commit(false)(probe); err != nil {
		return Revision{}, err
	}
	if err := s.keep(ctx, account, made.Upload, sealed); err != nil {
		return Revision{}, err
	}
	if err := s.change(ctx, account, commit(true)); err != nil {
		return Revision{}, errors.Join(err, s.forget(context.WithoutCancel(ctx), account, made.Upload))
	}
	return revisionOf(u.List, &made), nil
}

// keep writes the parts of an upload, which is no revision yet.
func (s *Service) keep(ctx context.Context, account fleet.Account, upload string, sealed []byte) error {
	var first store.Batch
	if err := put(&first, uploadKey(account, upload), uploadRecord{Schema: schemaVersion, Begun: s.o.Now().UnixMilli()}); err != nil {
		return err
	}
	if _, err := s.o.Store.Commit(ctx, first); err != nil {
		return store.Fault(err)
	}
	part := 0
	for bytes := range slices.Chunk(sealed, partBytes) {
		if _, err := s.o.Store.Commit(ctx, store.Batch{Writes: []store.Write{{Key: originalKey(account, upload, part), Value: bytes}}}); err != nil {
			return store.Fault(err)
		}
		part++
	}
	return nil
}

// forget removes the parts of an upload that is no revision.
func (s *Service) forget(ctx context.Context, account fleet.Account, upload string) error {
	if err := s.removeAll(ctx, store.Under(kindOriginal, string(account), upload), func(store.Key) bool { return true }); err != nil {
		return err
	}
	_, err := s.o.Store.Commit(ctx, store.Batch{Writes: []store.Write{{Key: uploadKey(account, upload), Delete: true}}})
	return store.Fault(err)
}

// upload decides about a revision; kept says that its bytes are there.
func (b *batch) upload(ctx context.Context, u *Upload, made *revisionRecord, content string, kept bool) error {
	supplier, err := b.supplier(ctx, u.Supplier)
	if err != nil {
		return err
	}
	if supplier.Status != Active {
		return fault.New(fault.InvalidRequest, "supplier %s is %s", u.Supplier, supplier.Status)
	}
	now := b.s.o.Now().UnixMilli()
	var list listRecord
	found, err := b.load(ctx, listKey(b.account, u.List), &list)
	if err != nil {
		return err
	}
	switch {
	case !found:
		list = listRecord{Schema: schemaVersion, Supplier: u.Supplier, Created: now}
	case list.Deleted != 0:
		return fault.New(fault.Conflict, "allow list %s was deleted; a new list gets a new id", u.List)
	case list.Supplier != u.Supplier:
		return fault.New(fault.InvalidRequest, "allow list %s is of another supplier", u.List)
	case list.Last >= maxRevisions:
		return fault.New(fault.LimitExceeded, "a list has at most %d revisions", maxRevisions)
	case made.Issued != 0 && made.Issued <= list.Issued:
		return fault.New(fault.InvalidRequest, "issuedAt: the document is not newer than the last one, of %s", moment(list.Issued).Format(time.RFC3339))
	}
	var before digestRecord
	if again, err := b.load(ctx, digestKey(b.account, content), &before); err != nil || again {
		if err == nil {
			err = fault.New(fault.Conflict, "list: these bytes are revision %d of list %s already", before.Revision, before.List)
		}
		return err
	}
	if !kept {
		return nil
	}
	list.Last++
	list.Modified, list.Issued = now, max(list.Issued, made.Issued)
	if u.Name != "" {
		list.Name = u.Name
	}
	made.Number, made.UploadedAt = list.Last, now
	if made.Status = Quarantined; made.SignerKey != "" && supplier.AcceptSigned {
		made.Status, made.VettedBy, made.VettedAt = Accepting, "signature of key "+made.SignerKey, now
		b.row(workKey(b.account, u.List, made.Number))
	}
	b.remove(uploadKey(b.account, made.Upload))
	b.emit(ctx, event.AllowListChanged{
		List: u.List, Supplier: u.Supplier, Revision: made.Number, Change: event.AllowListUploaded, Digest: made.Digest, Entries: made.Entries, KeyID: made.SignerKey, Link: u.link,
	})
	if err := b.put(digestKey(b.account, content), digestRecord{Schema: schemaVersion, List: u.List, Revision: made.Number}); err != nil {
		return err
	}
	if err := b.put(revisionKey(b.account, u.List, made.Number), made); err != nil {
		return err
	}
	return b.put(listKey(b.account, u.List), list)
}

func revisionOf(list string, r *revisionRecord) Revision {
	return Revision{
		List: list, Number: r.Number, Status: r.Status, Format: r.Format, Entries: r.Entries, Bytes: r.Bytes, Digest: r.Digest, SignerKey: r.SignerKey,
		Issued: moment(r.Issued), UploadedBy: r.UploadedBy, Link: r.Link, UploadedAt: moment(r.UploadedAt), VettedBy: r.VettedBy, VettedAt: moment(r.VettedAt), Note: r.Note,
	}
}

func listOf(id string, r *listRecord) List {
	return List{
		ID: id, Supplier: r.Supplier, Name: r.Name, Current: r.Current, Last: r.Last, Created: moment(r.Created), Modified: moment(r.Modified),
		DeleteBy: r.DeleteBy, DeleteAt: moment(r.DeleteAt), Deleted: moment(r.Deleted), ConfirmedBy: r.ConfirmedBy,
	}
}

// List returns one, also a deleted one.
func (s *Service) List(ctx context.Context, account fleet.Account, id string) (List, error) {
	var r listRecord
	version, err := read(ctx, s.o.Store, listKey(account, id), &r)
	if err == nil && version == 0 {
		err = noList(id)
	}
	return listOf(id, &r), err
}

// Lists returns a page in the order of ids, and what the next one begins after.
func (s *Service) Lists(ctx context.Context, account fleet.Account, after string, limit int) (page []List, next string, err error) {
	page = []List{}
	next, err = s.page(ctx, []string{kindList, string(account)}, after, limit, func(found store.Record) error {
		var r listRecord
		if err := decode(found, &r); err != nil {
			return err
		}
		page = append(page, listOf(found.Key.Last(), &r))
		return nil
	})
	return page, next, err
}

// Revision returns one.
func (s *Service) Revision(ctx context.Context, account fleet.Account, list string, number int64) (Revision, error) {
	r, err := s.revision(ctx, account, list, number)
	if err != nil {
		return Revision{}, err
	}
	return revisionOf(list, r), nil
}

func (s *Service) revision(ctx context.Context, account fleet.Account, list string, number int64) (*revisionRecord, error) {
	var r revisionRecord
	version, err := read(ctx, s.o.Store, revisionKey(account, list, number), &r)
	if err == nil && version == 0 {
		err = noRevision(list, number)
	}
	return &r, err
}

// Revisions returns a page of a list's, the first ones first, and what the next one
// begins after.
func (s *Service) Revisions(ctx context.Context, account fleet.Account, list, after string, limit int) (page []Revision, next string, err error) {
	if _, err := s.List(ctx, account, list); err != nil {
		return nil, "", err
	}
	page = []Revision{}
	next, err = s.page(ctx, []string{kindRevision, string(account), list}, after, limit, func(found store.Record) error {
		var r revisionRecord
		if err := decode(found, &r); err != nil {
			return err
		}
		page = append(page, revisionOf(list, &r))
		return nil
	})
	return page, next, err
}

// original opens an upload as it came.
func (v *vault) original(ctx context.Context, list string, r *revisionRecord) ([]byte, error) {
	var sealed []byte
	for part := range r.Parts {
		found, err := v.s.o.Store.Get(ctx, originalKey(v.account, r.Upload, part))
		if errors.Is(err, store.ErrNotFound) {
			return nil, fault.New(fault.ResourceNotFound, "the original of revision %d of list %s is gone with its list", r.Number, list)
		}
		if err != nil {
			return nil, store.Fault(err)
		}
		sealed = append(sealed, found.Value...)
	}
	body, err := v.identity.open(sealed, MaxBytes)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "The file of allow-list.identity-file does not open revision %d of list %s", r.Number, list)
	}
	if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != r.Digest {
		return nil, fault.New(fault.Unavailable, "revision %d of list %s is not what was uploaded", r.Number, list)
	}
	return body, nil
}

// entries reads the list in an upload.
func (v *vault) entries(ctx context.Context, list string, r *revisionRecord) ([]Entry, error) {
	body, err := v.original(ctx, list, r)
	if err != nil {
		return nil, err
	}
	plain, err := v.identity.decrypted(body)
	if err != nil {
		return nil, err
	}
	w, err := unwrap(plain, r.Signature)
	if err != nil {
		return nil, err
	}
	d, err := parse(w.content)
	if err != nil {
		return nil, err
	}
	return d.entries, nil
}

// Original returns an upload bit for bit. Who has uploaded it cannot read it back, and
// each reading is on record before anything is given out.
func (s *Service) Original(ctx context.Context, account fleet.Account, list string, number int64) ([]byte, error) {
	v, r, err := s.reading(ctx, account, list, number, event.AllowListReadOriginal)
	if err != nil {
		return nil, err
	}
	return v.original(ctx, list, r)
}

// reading records that somebody reads a revision.
func (s *Service) reading(ctx context.Context, account fleet.Account, list string, number int64, what event.AllowListReading) (*vault, *revisionRecord, error) {
	v, err := s.vault(ctx, account)
	if err != nil {
		return nil, nil, err
	}
	r, err := s.revision(ctx, account, list, number)
	if err != nil {
		return nil, nil, err
	}
	if r.UploadedBy == identityOf(fleet.ActorFrom(ctx).Principal) {
		return nil, nil, fault.New(fault.Forbidden, "you have uploaded revision %d of list %s; another person reads it", number, list)
	}
	err = s.change(ctx, account, func(b *batch) error {
		b.emit(ctx, event.AllowListRead{List: list, Revision: number, What: what})
		return nil
	})
	return v, r, err
}

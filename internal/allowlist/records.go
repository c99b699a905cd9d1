package allowlist

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// First parts of keys; the account is the second. H is a keyed hash.
//
//	allow-supplier/A/<supplier>             record with its signing keys
//	allow-list/A/<list>                     record; guard of its revisions
//	allow-revision/A/<list>/<rev>           record
//	allow-original/A/<upload>/<n>           part of an upload, sealed with age
//	allow-upload/A/<upload>                 row of an upload that is no revision yet; value is when it began
//	allow-entry/A/<list>/<rev>/<n>          entry, sealed with the key of its revision
//	allow-serial/A/H/<list>/<rev>/<n>       row: entries by serial number
//	allow-print/A/H/<list>/<rev>/<n>        row: entries by key fingerprint
//	allow-use/A/H                           record: what became of a supplier's device, in whichever revision it is
//	allow-blocked/A/H                       row of a device that is blocked, by key or serial number
//	allow-double/A/<certificate>            row of a certificate that has raised a duplicate
//	allow-digest/A/<digest>                 row: value is list and revision that had these bytes
//	allow-work/A/<list>/<rev>               row of a revision that is being accepted, or of a list that is being deleted (rev 0)
//	allow-link/A/<id>                       record of an upload link
//	allow-hash-key/A                        record: the sealed key of the hashes
const (
	kindSupplier = "allow-supplier"
	kindList     = "allow-list"
	kindRevision = "allow-revision"
	kindOriginal = "allow-original"
	kindUpload   = "allow-upload"
	kindEntry    = "allow-entry"
	kindSerial   = "allow-serial"
	kindPrint    = "allow-print"
	kindUse      = "allow-use"
	kindBlocked  = "allow-blocked"
	kindDouble   = "allow-double"
	kindDigest   = "allow-digest"
	kindWork     = "allow-work"
	kindLink     = "allow-link"
	kindHashKey  = "allow-hash-key"
)

// schemaVersion is written into every record.
const schemaVersion = 1

// plainRow is the value of a row.
const plainRow = `{"v":1}`

// namePattern is the rule for ids of suppliers and lists, and of their keys.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// supplierRecord is the stored form of a supplier.
type supplierRecord struct {
	Schema         int            `json:"v"`
	Name           string         `json:"name"`
	Status         SupplierStatus `json:"status"`
	Templates      []string       `json:"templates,omitempty"`
	AcceptUnsigned bool           `json:"acceptUnsigned,omitempty"`
	AcceptSigned   bool           `json:"acceptSigned,omitempty"`
	Keys           []keyOfRecord  `json:"keys,omitempty"`
	Created        int64          `json:"created"`
	Modified       int64          `json:"modified"`
}

// keyOfRecord is a signing key of a supplier.
type keyOfRecord struct {
	ID        string    `json:"kid"`
	Algorithm Algorithm `json:"alg"`
	PublicKey string    `json:"publicKey"`
	From      int64     `json:"from"`
	Until     int64     `json:"until,omitempty"`
}

// listRecord is the stored form of a list.
type listRecord struct {
	Schema   int    `json:"v"`
	Supplier string `json:"supplier"`
	Name     string `json:"name,omitempty"`
	// Current is the revision that devices are matched against, 0 for none; Last the
	// newest.
	Current int64 `json:"current,omitempty"`
	Last    int64 `json:"last,omitempty"`
	// Issued is the time in the newest document that was taken.
	Issued   int64 `json:"issued,omitempty"`
	Created  int64 `json:"created"`
	Modified int64 `json:"modified"`
	// DeleteBy is who wants it deleted, Deleted when a second one agreed.
	DeleteBy    string `json:"deleteBy,omitempty"`
	DeleteAt    int64  `json:"deleteAt,omitempty"`
	Deleted     int64  `json:"deleted,omitempty"`
	ConfirmedBy string `json:"confirmedBy,omitempty"`
}

// revisionRecord is the stored form of a revision.
type revisionRecord struct {
	Schema     int            `json:"v"`
	Number     int64          `json:"number"`
	Status     RevisionStatus `json:"status"`
	Format     Format         `json:"format"`
	Upload     string         `json:"upload"`
	Entries    int            `json:"entries"`
	Bytes      int            `json:"bytes"`
	Parts      int            `json:"parts"`
	Digest     string         `json:"digest"`
	Signature  string         `json:"signature,omitempty"`
	SignerKey  string         `json:"signerKid,omitempty"`
	Issued     int64          `json:"issued,omitempty"`
	UploadedBy string         `json:"uploadedBy"`
	Link       string         `json:"link,omitempty"`
	UploadedAt int64          `json:"uploadedAt"`
	VettedBy   string         `json:"vettedBy,omitempty"`
	VettedAt   int64          `json:"vettedAt,omitempty"`
	Note       string         `json:"note,omitempty"`
	// DataKey is the sealed key of the entries.
	DataKey []byte `json:"dataKey"`
}

// uploadRecord is an upload that has begun.
type uploadRecord struct {
	Schema int   `json:"v"`
	Begun  int64 `json:"begun"`
}

// digestRecord is where bytes were uploaded before.
type digestRecord struct {
	Schema   int    `json:"v"`
	List     string `json:"list"`
	Revision int64  `json:"revision"`
}

func supplierKey(account fleet.Account, id string) store.Key {
	return store.K(kindSupplier, string(account), id)
}

func listKey(account fleet.Account, id string) store.Key {
	return store.K(kindList, string(account), id)
}

// rising sorts numbers as text.
func rising(n int64) string { return fmt.Sprintf("%010d", n) }

func revisionKey(account fleet.Account, list string, number int64) store.Key {
	return store.K(kindRevision, string(account), list, rising(number))
}

func originalKey(account fleet.Account, upload string, part int) store.Key {
	return store.K(kindOriginal, string(account), upload, rising(int64(part)))
}

func uploadKey(account fleet.Account, upload string) store.Key {
	return store.K(kindUpload, string(account), upload)
}

func entryKey(account fleet.Account, list string, number int64, i int) store.Key {
	return store.K(kindEntry, string(account), list, rising(number), rising(int64(i)))
}

// foundKey is a row under a hash.
func foundKey(kind string, account fleet.Account, hash, list string, number int64, i int) store.Key {
	return store.K(kind, string(account), hash, list, rising(number), rising(int64(i)))
}

func useKey(account fleet.Account, hash string) store.Key {
	return store.K(kindUse, string(account), hash)
}

func blockedKey(account fleet.Account, hash string) store.Key {
	return store.K(kindBlocked, string(account), hash)
}

func doubleKey(account fleet.Account, certificate string) store.Key {
	return store.K(kindDouble, string(account), certificate)
}

func digestKey(account fleet.Account, digest string) store.Key {
	return store.K(kindDigest, string(account), digest)
}

func workKey(account fleet.Account, list string, number int64) store.Key {
	return store.K(kindWork, string(account), list, rising(number))
}

func linkKey(account fleet.Account, id string) store.Key {
	return store.K(kindLink, string(account), id)
}

func hashKey(account fleet.Account) store.Key { return store.K(kindHashKey, string(account)) }

func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func milliseconds(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return at.UnixMilli()
}

// read decodes a record into v and returns its version, 0 when there is none.
func read(ctx context.Context, r store.Reader, k store.Key, v any) (uint64, error) {
	found, err := r.Get(ctx, k)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, store.Fault(fmt.Errorf("read %s: %w", k, err))
	}
	return found.Version, decode(found, v)
}

func decode(found store.Record, v any) error {
	if err := json.Unmarshal(found.Value, v); err != nil {
		return fmt.Errorf("decode record %s: %w", found.Key, err)
	}
	return nil
}

// put adds a record to a batch.
func put(b *store.Batch, k store.Key, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode record %s: %w", k, err)
	}
	b.Writes = append(b.Writes, store.Write{Key: k, Value: value})
	return nil
}

// batch is one try of a command; what it loads is expected as it was.
type batch struct {
	store.Batch

	s       *Service
	account fleet.Account
}

// load reads a record with the expectation.
func (b *batch) load(ctx context.Context, k store.Key, v any) (found bool, err error) {
	version, err := read(ctx, b.s.o.Store, k, v)
	b.Expect = append(b.Expect, store.Expect{Key: k, Version: version})
	return version != 0, err
}

// supplier loads one that must be there.
func (b *batch) supplier(ctx context.Context, id string) (supplierRecord, error) {
	var r supplierRecord
	found, err := b.load(ctx, supplierKey(b.account, id), &r)
	if err == nil && !found {
		err = noSupplier(id)
	}
	return r, err
}

// list loads one that must be there and not be deleted.
func (b *batch) list(ctx context.Context, id string) (listRecord, error) {
	var r listRecord
	found, err := b.load(ctx, listKey(b.account, id), &r)
	switch {
	case err != nil:
	case !found:
		err = noList(id)
	case r.Deleted != 0:
		err = fault.New(fault.ResourceNotFound, "allow list %s was deleted on %s", id, moment(r.Deleted).Format(time.DateOnly))
	}
	return r, err
}

// revision loads one that must be there.
func (b *batch) revision(ctx context.Context, list string, number int64) (revisionRecord, error) {
	var r revisionRecord
	found, err := b.load(ctx, revisionKey(b.account, list, number), &r)
	if err == nil && !found {
		err = noRevision(list, number)
	}
	return r, err
}

func (b *batch) put(k store.Key, v any) error { return put(&b.Batch, k, v) }

func (b *batch) row(k store.Key) {
	b.Writes = append(b.Writes, store.Write{Key: k, Value: []byte(plainRow)})
}

func (b *batch) remove(k store.Key) { b.Writes = append(b.Writes, store.Write{Key: k, Delete: true}) }

func (b *batch) emit(ctx context.Context, e event.Event) {
	b.Events = append(b.Events, event.Envelope{Account: b.account, At: b.s.o.Now(), Actor: fleet.ActorFrom(ctx), Event: e})
}

// change runs a command until its batch commits or its decision is an error.
func (s *Service) change(ctx context.Context, account fleet.Account, command func(b *batch) error) error {
	return store.Attempt(ctx, s.o.Store, func(context.Context) (store.Batch, error) {
		b := &batch{s: s, account: account}
		err := command(b)
		return b.Batch, err
	})
}

func noSupplier(id string) error {
	return fault.New(fault.ResourceNotFound, "supplier %.64q does not exist", id)
}

func noList(id string) error {
	return fault.New(fault.ResourceNotFound, "allow list %.64q does not exist", id)
}

func noRevision(list string, number int64) error {
	return fault.New(fault.ResourceNotFound, "allow list %.64s has no revision %d", list, number)
}

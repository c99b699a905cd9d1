package bootstrap

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Kind says by what a device is recognised.
type Kind string

// Kinds, the most specific first.
const (
	// Certificate is the certificate of one device, by its id.
	Certificate Kind = "CERTIFICATE"
	// Claim is a certificate that many devices share, by its id.
	Claim Kind = "CLAIM"
	// Serial is a device by the serial number in the subject of its certificate, which
	// counts under the authority that has signed it.
	Serial Kind = "SERIAL"
	// Authority is every device of an authority.
	Authority Kind = "CA"
)

// Who is recognised. CertificateID is for the kinds Certificate and Claim,
// CACertificateID for Serial and Authority, Serial for Serial.
type Who struct {
	Kind            Kind
	CertificateID   string
	CACertificateID string
	Serial          string
}

// id is that of the assignment: each has one at most.
func (w Who) id() string {
	switch w.Kind {
	case Certificate, Claim:
		return "certificate-" + w.CertificateID
	case Serial:
		sum := sha256.Sum256([]byte(w.CACertificateID + "\x00" + w.Serial))
		return "serial-" + hex.EncodeToString(sum[:])
	case Authority:
	}
	return "ca-" + w.CACertificateID
}

// Assignment sends devices somewhere.
type Assignment struct {
	ID string
	Who

	// Account is where they are sent.
	Account fleet.Account
	// Template is what they provision by; empty for devices that go on with the
	// certificate that they have.
	Template string
	// Parameters are for the template, Configuration for the device itself.
	Parameters, Configuration map[string]string
	Enabled                   bool
	// Expires is zero for never.
	Expires time.Time
	Note    string

	// Version counts the changes, from 1.
	Version           int64
	Created, Modified time.Time
	// By is the ARN of who changed it last.
	By string

	// Asked is when a device was told about it last, zero for never; AskedBy and
	// AskedFrom are the id of its certificate and its address.
	Asked              time.Time
	AskedBy, AskedFrom string
}

// Bounds of an assignment.
const (
	maxPairs  = 32
	maxName   = 128
	maxValue  = 1024
	maxBytes  = 8 << 10
	maxNote   = 1024
	maxSerial = 128
	// MaxPage is the most that one page of a list, or one import, has.
	MaxPage = 250
)

// check refuses what breaks a rule by itself.
func (a *Assignment) check() error {
	refuse := func(format string, args ...any) error { return fault.New(fault.InvalidRequest, format, args...) }
	isCertificate := a.Kind == Certificate || a.Kind == Claim
	switch {
	case !isCertificate && a.Kind != Serial && a.Kind != Authority:
		return refuse("kind must be %s, %s, %s or %s", Certificate, Claim, Serial, Authority)
	case isCertificate && !fleet.ValidCertificateID(a.CertificateID):
		return refuse("certificateId must be the SHA-256 of the certificate, 64 lower-case hexadecimal digits")
	case isCertificate && (a.CACertificateID != "" || a.Serial != ""):
		return refuse("caCertificateId and serial are not for the kind %s", a.Kind)
	case !isCertificate && !fleet.ValidCertificateID(a.CACertificateID):
		return refuse("caCertificateId must be the id of a CA certificate, 64 lower-case hexadecimal digits")
	case !isCertificate && a.CertificateID != "":
		return refuse("certificateId is not for the kind %s", a.Kind)
	case a.Kind == Serial && !readable(a.Serial, 1, maxSerial):
		return refuse("serial must have 1 to %d printable characters", maxSerial)
	case a.Kind == Authority && a.Serial != "":
		return refuse("serial is not for the kind %s", Authority)
	case a.Account != "" && !a.Account.Valid():
		return refuse("account must have twelve digits")
	case !readable(a.Note, 0, maxNote):
		return refuse("note must have at most %d printable characters", maxNote)
	case a.Template == "" && len(a.Parameters) > 0:
		return refuse("parameters are for a template: templateName is empty")
	}
	if err := checkPairs("parameters", a.Parameters); err != nil {
		return err
	}
	return checkPairs("configuration", a.Configuration)
}

// checkPairs bounds what a device is told.
func checkPairs(field string, pairs map[string]string) error {
	if len(pairs) > maxPairs {
		return fault.New(fault.InvalidRequest, "%s must have at most %d entries", field, maxPairs)
	}
	bytes := 0
	for name, value := range pairs {
		bytes += len(name) + len(value)
		if !readable(name, 1, maxName) {
			return fault.New(fault.InvalidRequest, "%s: a name must have 1 to %d printable characters", field, maxName)
		}
		if utf8.RuneCountInString(value) > maxValue || !utf8.ValidString(value) {
			return fault.New(fault.InvalidRequest, "%s: the value of %.64q must have at most %d characters", field, name, maxValue)
		}
	}
	if bytes > maxBytes {
		return fault.New(fault.InvalidRequest, "%s must have at most %d bytes", field, maxBytes)
	}
	return nil
}

// readable reports whether a text has so many characters, all of them printable.
func readable(text string, least, most int) bool {
	if !utf8.ValidString(text) {
		return false
	}
	n := 0
	for _, r := range text {
		if n++; n > most || !unicode.IsPrint(r) {
			return false
		}
	}
	return n >= least
}

// Change says what a Put has done.
type Change string

// Changes.
const (
	Created   Change = "CREATED"
	Updated   Change = "UPDATED"
	Unchanged Change = "UNCHANGED"
)

// PutCommand asks for an assignment, by whom it is for.
type PutCommand struct {
	Assignment

	// New refuses one that is there already, Known one that is not.
	New, Known bool
	// Expected is the version that is changed; nil for whichever there is.
	Expected *int64
}

// Put makes an assignment of an account, or changes it.
func (s *Service) Put(ctx context.Context, owner fleet.Account, c PutCommand) (Assignment, Change, error) {
	want := c.Assignment
	if err := s.admissible(ctx, owner, &want); err != nil {
		return Assignment{}, "", err
	}
	now := s.o.Now()
	if !want.Expires.IsZero() && !want.Expires.After(now) {
		return Assignment{}, "", fault.New(fault.InvalidRequest, "expiresAt must be in the future")
	}
	id := want.id()
	k := assignmentKey(owner, id)
	var out Assignment
	var change Change
	err := store.Attempt(ctx, s.o.Store, func(ctx context.Context) (store.Batch, error) {
		var r record
		version, err := read(ctx, s.o.Store, k, &r)
		if err != nil {
			return store.Batch{}, err
		}
		if err := c.agree(id, version > 0, r.Version); err != nil {
			return store.Batch{}, err
		}
		next := recordOf(&want)
		next.Version, next.Created, next.Modified, next.By = r.Version, r.Created, r.Modified, r.By
		if version > 0 && next.equal(&r) {
			out, change = r.assignment(id), Unchanged
			return store.Batch{}, nil
		}
		next.Version, next.Modified, next.By = r.Version+1, now.UnixMilli(), fleet.ActorFrom(ctx).Principal.ARN
		change = Updated
		told := event.BootstrapAssignmentUpdated
		if version == 0 {
			next.Created, change, told = next.Modified, Created, event.BootstrapAssignmentCreated
		}
		out = next.assignment(id)
		b := s.batch(ctx, owner, event.BootstrapAssignmentChanged{
			Assignment: id, Change: told, Kind: string(want.Kind), Target: want.Account, Template: want.Template, Enabled: want.Enabled, Version: next.Version,
		})
		b.Expect = []store.Expect{{Key: k, Version: version}}
		return b, put(&b, k, next)
	})
	return out, change, err
}

// Update changes all of an assignment but whom it is for.
func (s *Service) Update(ctx context.Context, owner fleet.Account, id string, next Assignment, version *int64) (Assignment, error) {
	known, err := s.Assignment(ctx, owner, id)
	if err != nil {
		return Assignment{}, err
	}
	next.Who = known.Who
	changed, _, err := s.Put(ctx, owner, PutCommand{Assignment: next, Known: true, Expected: version})
	return changed, err
}

// agree refuses a command that expects something else than what there is.
func (c *PutCommand) agree(id string, known bool, version int64) error {
	switch {
	case c.New && known:
		taken := fault.New(fault.ResourceAlreadyExists, "assignment %s exists", id)
		taken.ResourceID = id
		return taken
	case c.Known && !known:
		return unknown(id)
	case known:
		return expected(c.Expected, version)
	case c.Expected != nil:
		return expected(c.Expected, 0)
	}
	return nil
}

// expected refuses a version other than the one that there is.
func expected(want *int64, actual int64) error {
	if want == nil || *want == actual {
		return nil
	}
	return fault.New(fault.VersionConflict, "expectedVersion is %d but the version is %d", *want, actual)
}

func unknown(id string) error {
	return fault.New(fault.ResourceNotFound, "assignment %.100q does not exist", id)
}

// admissible refuses what an account may not assign, and completes what it may.
func (s *Service) admissible(ctx context.Context, owner fleet.Account, want *Assignment) error {
	if err := want.check(); err != nil {
		return err
	}
	want.Account = cmp.Or(want.Account, owner)
	if want.Account != owner && owner != s.o.Default {
		return fault.New(fault.Forbidden, "account: only operators of the default account send devices to other accounts than their own")
	}
	if want.Account != owner {
		exists, err := s.o.Accounts.Exists(ctx, want.Account)
		if err != nil {
			return err //nolint:wrapcheck // coded
		}
		if !exists {
			return fault.New(fault.InvalidRequest, "account: there is no account %s", want.Account)
		}
	}
	if want.Template == "" {
		return nil
	}
	known, err := s.o.Templates.TemplateExists(ctx, want.Account, want.Template)
	if err == nil && !known {
		err = fault.New(fault.InvalidRequest, "templateName: account %s has no provisioning template %.64q", want.Account, want.Template)
	}
	return err //nolint:wrapcheck // coded
}

// Assignment returns one of an account.
func (s *Service) Assignment(ctx context.Context, owner fleet.Account, id string) (Assignment, error) {
	var r record
	version, err := read(ctx, s.o.Store, assignmentKey(owner, id), &r)
	if err != nil {
		return Assignment{}, err
	}
	if version == 0 {
		return Assignment{}, unknown(id)
	}
	out := r.assignment(id)
	return out, s.asked(ctx, owner, []*Assignment{&out})
}

// asked adds when devices were told last.
func (s *Service) asked(ctx context.Context, owner fleet.Account, page []*Assignment) error {
	keys := make([]store.Key, len(page))
	for i, a := range page {
		keys[i] = askedKey(owner, a.ID)
	}
	found, err := s.o.Store.GetMany(ctx, keys)
	if err != nil {
		return store.Fault(err)
	}
	for i, a := range page {
		if found[i].Version == 0 {
			continue
		}
		var r askedRecord
		if err := decode(found[i], &r); err != nil {
			return err
		}
		a.Asked, a.AskedBy, a.AskedFrom = moment(r.At), r.By, r.From
	}
	return nil
}

// Find returns the assignment of an account that is made for somebody.
func (s *Service) Find(ctx context.Context, owner fleet.Account, who Who) (Assignment, error) {
	probe := Assignment{Who: who}
	if err := probe.check(); err != nil {
		return Assignment{}, err
	}
	return s.Assignment(ctx, owner, who.id())
}

// Assignments returns a page of an account's in the order of ids, and what the next
// one begins after.
func (s *Service) Assignments(ctx context.Context, owner fleet.Account, after string, limit int) (page []Assignment, next string, err error) {
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	within := store.Under(kindAssignment, string(owner))
	if after != "" {
		within = within.After(store.Key(after))
	}
	page = []Assignment{}
	last := ""
	err = s.o.Store.Scan(ctx, within, func(found store.Record) error {
		if len(page) == limit {
			next = last
			return store.Stop
		}
		var r record
		if err := decode(found, &r); err != nil {
			return err
		}
		page, last = append(page, r.assignment(found.Key.Last())), string(found.Key)
		return nil
	})
	if err != nil {
		return nil, "", store.Fault(err)
	}
	all := make([]*Assignment, len(page))
	for i := range page {
		all[i] = &page[i]
	}
	return page, next, s.asked(ctx, owner, all)
}

// Delete ends an assignment of an account. Devices that were told about it may go on as
// long as they were told.
func (s *Service) Delete(ctx context.Context, owner fleet.Account, id string, version *int64) error {
	k := assignmentKey(owner, id)
	return store.Attempt(ctx, s.o.Store, func(ctx context.Context) (store.Batch, error) {
		var r record
		stored, err := read(ctx, s.o.Store, k, &r)
		if err != nil {
			return store.Batch{}, err
		}
		if stored == 0 {
			return store.Batch{}, unknown(id)
		}
		if err := expected(version, r.Version); err != nil {
			return store.Batch{}, err
		}
		b := s.batch(ctx, owner, event.BootstrapAssignmentChanged{
			Assignment: id, Change: event.BootstrapAssignmentDeleted, Kind: string(r.Kind), Version: r.Version,
		})
		b.Expect = []store.Expect{{Key: k, Version: stored}}
		b.Writes = append(b.Writes, store.Write{Key: k, Delete: true}, store.Write{Key: askedKey(owner, id), Delete: true})
		return b, nil
	})
}

// Imported is what became of one line.
type Imported struct {
	ID     string
	Change Change
	// Err is nil for a line that was taken.
	Err error
}

// Import makes or changes many assignments of an account, each by itself: one that is
// refused says why, and the others are made. It is refused as a whole when there are too
// many, or when the storage fails; what was done stays done and may be sent again.
func (s *Service) Import(ctx context.Context, owner fleet.Account, all []Assignment) ([]Imported, error) {
	if len(all) == 0 || len(all) > MaxPage {
		return nil, fault.New(fault.InvalidRequest, "assignments must have 1 to %d entries", MaxPage)
	}
	out := make([]Imported, len(all))
	for i := range all {
		made, change, err := s.Put(ctx, owner, PutCommand{Assignment: all[i]})
		if code := fault.CodeOf(err); code == fault.Internal || code == fault.Unavailable || ctx.Err() != nil {
			return nil, err
		}
		out[i] = Imported{ID: made.ID, Change: change, Err: err}
	}
	return out, nil
}

// equal reports whether two records send the same devices the same way.
func (r *record) equal(o *record) bool {
	return r.Kind == o.Kind && r.Certificate == o.Certificate && r.CA == o.CA && r.Serial == o.Serial && r.Target == o.Target && r.Template == o.Template &&
		maps.Equal(r.Parameters, o.Parameters) && maps.Equal(r.Configuration, o.Configuration) && r.Enabled == o.Enabled && r.Expires == o.Expires && r.Note == o.Note
}

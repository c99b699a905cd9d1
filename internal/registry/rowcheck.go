package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// rowBatch is how many rows are compared or rewritten at a time.
const rowBatch = 500

// RowDifference is a row that does not say what the records say.
type RowDifference struct {
	Key store.Key
	// Have and Want are what the row says and what it should say: "absent",
	// "present", or "claim" for dynamic or exclusive; for a record that counts
	// its attachments, their number.
	Have, Want string
	// Repairable is false when the records do not tell which side is right.
	Repairable bool
}

// Values of RowDifference.
const (
	rowAbsent  = "absent"
	rowPresent = "present"
	rowClaim   = "claim"
)

// rowSource is a kind of records that rows are made from.
type rowSource struct {
	kind string
	// rows are those that a record should have.
	rows func(account fleet.Account, record store.Record) (map[store.Key]string, error)
}

// rowSources are all of them. Rows of attachments are not made from records but
// from each other, see compareAttachments.
func rowSources() []rowSource {
	return []rowSource{
		{kindThing, thingRows},
		{kindGroup, groupRows},
		{kindThingPromise, promiseRows},
		{kindCertificate, usedCertificateRows},
		{kindCACertificate, listedRows(caRows)},
		{kindPolicy, listedRows(policyRows)},
	}
}

func thingRows(account fleet.Account, stored store.Record) (map[store.Key]string, error) {
	r, err := decode[thingRecord](stored)
	if err != nil {
		return nil, err
	}
	name, rows := stored.Key.Last(), map[store.Key]string{}
	if r.TypeName != "" {
		rows[key(kindThingByType, account, r.TypeName, name)] = rowPresent
	}
	if r.BillingGroup != "" {
		rows[key(kindBillingGroupThing, account, r.BillingGroup, name)] = rowPresent
	}
	if r.Quarantine != nil {
		rows[key(kindQuarantined, account, name)] = rowPresent
	}
	for attribute, value := range r.Attributes {
		rows[key(kindThingByAttribute, account, attribute, value, name)] = rowPresent
	}
	for _, g := range r.Groups {
		rows[key(kindGroupThing, account, g.Group, name)] = claimed(g.Dynamic)
	}
	return rows, nil
}

func groupRows(account fleet.Account, stored store.Record) (map[store.Key]string, error) {
	r, err := decode[groupRecord](stored)
	if err != nil {
		return nil, err
	}
	name := stored.Key.Last()
	rows := map[store.Key]string{key(kindGroupChild, account, parentOf(r.Ancestors), name): rowPresent}
	for _, policy := range r.Policies {
		rows[key(kindPolicyTarget, account, policy, reference{fleet.ARNThingGroup, name}.ref())] = rowPresent
	}
	return rows, nil
}

func promiseRows(account fleet.Account, stored store.Record) (map[store.Key]string, error) {
	r, err := decode[promiseRecord](stored)
	if err != nil || r.Template == "" {
		return nil, err
	}
	return map[store.Key]string{promiseRow(account, r.Template, r.Version, stored.Key.Last()): rowPresent}, nil
}

func usedCertificateRows(account fleet.Account, stored store.Record) (map[store.Key]string, error) {
	r, err := decode[certificateRecord](stored)
	if err != nil {
		return nil, err
	}
	id, rows := stored.Key.Last(), map[store.Key]string{}
	for _, row := range certificateRows(account, id, r) {
		rows[row] = rowPresent
	}
	if r.Status == StatusPendingTransfer && r.Transfer != nil && r.Transfer.From == account {
		for _, row := range outgoingRows(account, id, r.Transfer) {
			rows[row] = rowPresent
		}
	}
	for _, policy := range r.Policies {
		rows[key(kindPolicyTarget, account, policy, reference{fleet.ARNCertificate, id}.ref())] = rowPresent
	}
	return rows, nil
}

// listedRows are the rows of a record that is listed in several orders.
func listedRows[T any, P stored[T]](of func(fleet.Account, string, *T) []store.Key) func(fleet.Account, store.Record) (map[store.Key]string, error) {
	return func(account fleet.Account, record store.Record) (map[store.Key]string, error) {
		r, err := decode[T, P](record)
		if err != nil {
			return nil, err
		}
		rows := map[store.Key]string{}
		for _, row := range of(account, record.Key.Last(), r) {
			rows[row] = rowPresent
		}
		return rows, nil
	}
}

// rowKinds are the kinds of rows that are made from records.
func rowKinds() []string {
	return []string{
		kindThingByType, kindThingByAttribute, kindBillingGroupThing, kindQuarantined, kindGroupThing, kindGroupChild, kindPolicyTarget, kindThingPromiseBy,
		kindCertificateOldest, kindCertificateNewest, kindCertificateExpiry, kindCertificateByCA, kindCertificateByCADown,
		kindCertificateSerial, kindCertificatePending, kindCertificatePendingClaim, kindCertificateReopened, kindCertificateOutgoing, kindCertificateOutgoingDown,
		kindCACertificateOldest, kindCACertificateNewest, kindCACertificateExpiry, kindPolicyOldest, kindPolicyNewest,
	}
}

// sourceOf is the record that a row is made from, and how; false for no row.
func sourceOf(row store.Key) (store.Key, rowSource, bool) {
	parts := row.Parts()
	if len(parts) < 3 {
		return "", rowSource{}, false
	}
	var kind string
	name := row.Last()
	switch parts[0] {
	case kindThingByType, kindThingByAttribute, kindBillingGroupThing, kindQuarantined, kindGroupThing:
		kind = kindThing
	case kindGroupChild:
		kind = kindGroup
	case kindThingPromiseBy:
		kind = kindThingPromise
	case kindPolicyTarget:
		of := parseRef(name)
		kind, name = kindCertificate, of.name
		if of.kind == fleet.ARNThingGroup {
			kind = kindGroup
		}
	case kindCACertificateOldest, kindCACertificateNewest, kindCACertificateExpiry:
		kind = kindCACertificate
	case kindPolicyOldest, kindPolicyNewest:
		kind = kindPolicy
	default:
		kind = kindCertificate
	}
	for _, s := range rowSources() {
		if s.kind == kind {
			return key(kind, fleet.Account(parts[1]), name), s, true
		}
	}
	return "", rowSource{}, false
}

// claimed is what a row with or without its claim says.
func claimed(claim bool) string {
	if claim {
		return rowClaim
	}
	return rowPresent
}

// saidBy is what a stored row says.
func saidBy(row store.Record) (string, error) {
	if row.Version == 0 {
		return rowAbsent, nil
	}
	r, err := decode[rowRecord](row)
	if err != nil {
		return "", err
	}
	return claimed(r.Claim), nil
}

// CompareRows reports every row of all accounts that does not say what the records
// say, both ways, and returns how many rows there are. r is a frozen view; its
// memory does not grow with the fleet.
func CompareRows(ctx context.Context, r store.Reader, report func(RowDifference)) (rows int, err error) {
	for _, s := range rowSources() {
		if err := compareForward(ctx, r, s, report); err != nil {
			return rows, err
		}
	}
	for _, kind := range rowKinds() {
		err := inBatches(ctx, r, kind, func(batch []store.Record) error {
			rows += len(batch)
			return compareBackward(ctx, r, batch, report)
		})
		if err != nil {
			return rows, err
		}
	}
	attached, err := compareAttachments(ctx, r, report)
	return rows + attached, err
}

// inBatches reads all of a kind, some at a time. The view may not be read within
// a Scan on every engine, so each batch is a scan of its own.
func inBatches(ctx context.Context, r store.Reader, kind string, fn func([]store.Record) error) error {
	for within := store.Under(kind); ; {
		batch := make([]store.Record, 0, rowBatch)
		err := r.Scan(ctx, within, func(record store.Record) error {
			batch = append(batch, record)
			if len(batch) == rowBatch {
				return store.Stop
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read %s: %w", kind, err)
		}
		if len(batch) == 0 {
			return nil
		}
		if err := fn(batch); err != nil {
			return err
		}
		within = within.After(batch[len(batch)-1].Key)
	}
}

// compareForward looks for rows that records should have.
func compareForward(ctx context.Context, r store.Reader, s rowSource, report func(RowDifference)) error {
	return inBatches(ctx, r, s.kind, func(batch []store.Record) error {
		want := map[store.Key]string{}
		for _, record := range batch {
			rows, err := s.rows(fleet.Account(record.Key.Parts()[1]), record)
			if err != nil {
				return err
			}
			maps.Copy(want, rows)
		}
		return lookUp(ctx, r, want, func(row store.Key, have, says string) {
			report(RowDifference{Key: row, Have: have, Want: says, Repairable: true})
		})
	})
}

// lookUp reads rows and tells of those that say something else than wanted.
func lookUp(ctx context.Context, r store.Reader, want map[store.Key]string, differ func(row store.Key, have, want string)) error {
	if len(want) == 0 {
		return nil
	}
	keys := make([]store.Key, 0, len(want))
	for row := range want {
		keys = append(keys, row)
	}
	slices.Sort(keys)
	for some := range slices.Chunk(keys, rowBatch) {
		found, err := r.GetMany(ctx, some)
		if err != nil {
			return fmt.Errorf("read %d rows: %w", len(some), err)
		}
		for i, row := range some {
			have, err := saidBy(found[i])
			if err != nil {
				return err
			}
			if have != want[row] {
				differ(row, have, want[row])
			}
		}
	}
	return nil
}

// compareBackward looks for rows that no record has. What a row of a record says
// wrongly is found on the way forward.
func compareBackward(ctx context.Context, r store.Reader, batch []store.Record, report func(RowDifference)) error {
	var sources []store.Key
	for _, row := range batch {
		if source, _, ok := sourceOf(row.Key); ok {
			sources = append(sources, source)
		}
	}
	slices.Sort(sources)
	sources = slices.Compact(sources)
	found, err := r.GetMany(ctx, sources)
	if err != nil {
		return fmt.Errorf("read %d records: %w", len(sources), err)
	}
	records := make(map[store.Key]store.Record, len(sources))
	for i, source := range sources {
		if found[i].Version != 0 {
			records[source] = store.Record{Key: source, Value: found[i].Value, Version: found[i].Version}
		}
	}
	for _, row := range batch {
		want, err := wantedRow(row.Key, func(source store.Key) (store.Record, bool) {
			record, ok := records[source]
			return record, ok
		})
		if err != nil {
			return err
		}
		if want == rowAbsent {
			have, err := saidBy(row)
			if err != nil {
				return err
			}
			report(RowDifference{Key: row.Key, Have: have, Want: want, Repairable: true})
		}
	}
	return nil
}

// wantedRow is what a row should say by its record.
func wantedRow(row store.Key, find func(source store.Key) (store.Record, bool)) (string, error) {
	source, s, ok := sourceOf(row)
	if !ok {
		return rowAbsent, nil
	}
	record, ok := find(source)
	if !ok {
		return rowAbsent, nil
	}
	rows, err := s.rows(fleet.Account(source.Parts()[1]), record)
	if err != nil {
		return "", err
	}
	if want, ok := rows[row]; ok {
		return want, nil
	}
	return rowAbsent, nil
}

// mirror is the other row of the same attachment.
func mirror(row store.Key) store.Key {
	parts := row.Parts()
	kind := kindPrincipalThing
	if parts[0] == kindPrincipalThing {
		kind = kindThingPrincipal
	}
	return store.K(kind, parts[1], parts[3], parts[2])
}

// compareAttachments holds the two rows of each attachment against each other,
// and their numbers against the records, which count them.
func compareAttachments(ctx context.Context, r store.Reader, report func(RowDifference)) (rows int, err error) {
	halved := map[store.Key]bool{}
	tell := func(d RowDifference) {
		parts := d.Key.Parts()
		for _, owner := range [][2]string{{parts[2], parts[3]}, {parts[3], parts[2]}} {
			halved[key(kindThing, fleet.Account(parts[1]), owner[0])] = true
			halved[key(kindCertificate, fleet.Account(parts[1]), parseRef(owner[1]).name)] = true
		}
		report(d)
	}
	for _, kind := range []string{kindThingPrincipal, kindPrincipalThing} {
		err := inBatches(ctx, r, kind, func(batch []store.Record) error {
			rows += len(batch)
			want := map[store.Key]string{}
			for _, row := range batch {
				if len(row.Key.Parts()) != 4 {
					continue
				}
				says, err := saidBy(row)
				if err != nil {
					return err
				}
				want[mirror(row.Key)] = says
			}
			return lookUp(ctx, r, want, func(row store.Key, have, says string) {
				if have != rowAbsent && kind == kindPrincipalThing {
					return // found from the other side
				}
				if have != rowAbsent {
					tell(RowDifference{Key: row, Have: have, Want: says})
					return
				}
				decided, err2 := decideAttachment(ctx, r, mirror(row), says)
				if err2 != nil {
					err = err2
					return
				}
				tell(decided)
			})
		})
		if err != nil {
			return rows, err
		}
	}
	if err != nil {
		return rows, err
	}
	uncounted := func(owner store.Key, have, want int) {
		if !halved[owner] {
			report(RowDifference{Key: owner, Have: fmt.Sprintf("%d attachments", have), Want: fmt.Sprintf("%d attachments", want)})
		}
	}
	err = compareCounts(ctx, r, kindThing, kindThingPrincipal, "", func(record store.Record) (int, error) {
		thing, err := decode[thingRecord](record)
		if err != nil {
			return 0, err
		}
		return thing.Principals, nil
	}, uncounted)
	if err != nil {
		return rows, err
	}
	return rows, compareCounts(ctx, r, kindCertificate, kindPrincipalThing, fleet.ARNCertificate+"/", func(record store.Record) (int, error) {
		certificate, err := decode[certificateRecord](record)
		if err != nil {
			return 0, err
		}
		return certificate.Things, nil
	}, uncounted)
}

// compareCounts holds the numbers in records against those of their rows, which
// lie in the same order: each batch of records is read with the rows up to its end.
func compareCounts(
	ctx context.Context, r store.Reader, kind, rowKind, prefix string, counted func(store.Record) (int, error), differ func(owner store.Key, have, want int),
) error {
	within := store.Under(rowKind)
	pass := func(want map[store.Key]int, upTo store.Key) error {
		have := map[store.Key]int{}
		err := r.Scan(ctx, store.Range{From: within.From, To: upTo}, func(row store.Record) error {
			parts := row.Key.Parts()
			have[store.K(kind, parts[1], strings.TrimPrefix(parts[2], prefix))]++
			return nil
		})
		if err != nil {
			return fmt.Errorf("count %s: %w", rowKind, err)
		}
		within.From = upTo
		for owner, n := range want {
			if have[owner] != n {
				differ(owner, have[owner], n)
			}
			delete(have, owner)
		}
		for owner, n := range have {
			differ(owner, n, 0)
		}
		return nil
	}
	err := inBatches(ctx, r, kind, func(batch []store.Record) error {
		want := make(map[store.Key]int, len(batch))
		for _, record := range batch {
			n, err := counted(record)
			if err != nil {
				return err
			}
			want[record.Key] = n
		}
		last := batch[len(batch)-1].Key
		return pass(want, store.K(rowKind, last.Parts()[1], prefix+last.Last())+"\x01")
	})
	if err != nil {
		return err
	}
	return pass(nil, within.To)
}

// decideAttachment tells from the records' counts whether a row without its
// mirror is an attachment that lost half, or half of one that is gone. When they
// do not agree on one, nobody can tell.
func decideAttachment(ctx context.Context, r store.Reader, half store.Key, says string) (RowDifference, error) {
	parts := half.Parts()
	thing, ref := parts[2], parts[3]
	if parts[0] == kindPrincipalThing {
		thing, ref = ref, thing
	}
	account := fleet.Account(parts[1])
	record, _, err := get[thingRecord](ctx, r, key(kindThing, account, thing))
	if err != nil {
		return RowDifference{}, err
	}
	certificate, _, err := get[certificateRecord](ctx, r, key(kindCertificate, account, parseRef(ref).name))
	if err != nil {
		return RowDifference{}, err
	}
	ofThing, err := countRows(ctx, r, under(kindThingPrincipal, account, thing))
	if err != nil {
		return RowDifference{}, err
	}
	ofPrincipal, err := countRows(ctx, r, under(kindPrincipalThing, account, ref))
	if err != nil {
		return RowDifference{}, err
	}
	var thingHas, principalHas int
	if record != nil {
		thingHas = record.Principals
	}
	if certificate != nil {
		principalHas = certificate.Things
	}
	missing := RowDifference{Key: mirror(half), Have: rowAbsent, Want: says}
	surplus := RowDifference{Key: half, Have: says, Want: rowAbsent}
	near, far := thingHas-ofThing, principalHas-ofPrincipal
	if parts[0] == kindPrincipalThing {
		near, far = far, near
	}
	switch {
	case near == 0 && far == 1 && record != nil && certificate != nil:
		missing.Repairable = true
	case near == -1 && far == 0:
		surplus.Repairable = true
		return surplus, nil
	}
	return missing, nil
}

func countRows(ctx context.Context, r store.Reader, within store.Range) (n int, err error) {
	err = r.Scan(ctx, within, func(store.Record) error {
		n++
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("count rows: %w", err)
	}
	return n, nil
}

// RepairRows makes rows say again what the records say, some at a time, and
// expects rows and records unchanged meanwhile. It never writes a record and tells
// no event. A row that is right by now stays as it is.
func (s *Service) RepairRows(ctx context.Context, rows []store.Key) error {
	for some := range slices.Chunk(rows, changesPerBatch) {
		for _, row := range some {
			if len(row.Parts()) < 3 {
				continue
			}
			err := s.change(ctx, fleet.Account(row.Parts()[1]), func(ctx context.Context, a *attempt) error {
				return repairRow(ctx, a, row)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// repairRow decides one row anew.
func repairRow(ctx context.Context, a *attempt, row store.Key) error {
	var want string
	var err error
	switch row.Parts()[0] {
	case kindThingPrincipal, kindPrincipalThing:
		if want, err = wantedAttachment(ctx, a, row); err != nil {
			return err
		}
	default:
		var failed error
		want, err = wantedRow(row, func(source store.Key) (store.Record, bool) {
			found, err := a.reader.GetMany(ctx, []store.Key{source})
			if err != nil {
				failed = err
				return store.Record{}, false
			}
			a.expect(source, found[0].Version)
			found[0].Key = source
			return found[0], found[0].Version != 0
		})
		if failed != nil {
			return fmt.Errorf("read the record of %s: %w", row, failed)
		}
		if err != nil {
			return err
		}
	}
	found, err := a.reader.GetMany(ctx, []store.Key{row})
	if err != nil {
		return fmt.Errorf("read row %s: %w", row, err)
	}
	a.expect(row, found[0].Version)
	have, err := saidBy(found[0])
	if err != nil || have == want || want == "" {
		return err
	}
	if want == rowAbsent {
		a.remove(row)
		return nil
	}
	a.flagged(row, want == rowClaim)
	return nil
}

// wantedAttachment is what a row of an attachment should say, "" when that cannot
// be told. Every change of an attachment rewrites both records, which are
// expected as they are.
func wantedAttachment(ctx context.Context, a *attempt, row store.Key) (string, error) {
	parts := row.Parts()
	thing, ref := parts[2], parts[3]
	if parts[0] == kindPrincipalThing {
		thing, ref = ref, thing
	}
	for _, k := range []store.Key{key(kindThing, a.account, thing), key(kindCertificate, a.account, parseRef(ref).name)} {
		found, err := a.reader.GetMany(ctx, []store.Key{k})
		if err != nil {
			return "", fmt.Errorf("read the record %s: %w", k, err)
		}
		a.expect(k, found[0].Version)
	}
	found, err := a.reader.GetMany(ctx, []store.Key{row, mirror(row)})
	if err != nil {
		return "", fmt.Errorf("read attachment %s: %w", row, err)
	}
	a.expect(mirror(row), found[1].Version)
	here, err := saidBy(found[0])
	if err != nil {
		return "", err
	}
	there, err := saidBy(found[1])
	if err != nil {
		return "", err
	}
	half, says := row, here
	switch {
	case here != rowAbsent && there == rowAbsent:
	case here == rowAbsent && there != rowAbsent:
		half, says = mirror(row), there
	default:
		return "", nil
	}
	d, err := decideAttachment(ctx, a.reader, half, says)
	if err != nil || !d.Repairable || d.Key != row {
		return "", err
	}
	return d.Want, nil
}

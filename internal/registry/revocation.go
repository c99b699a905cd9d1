package registry

import (
	"context"
	"encoding/hex"
	"fmt"
	"iter"
	"math/big"
	"time"

	"github.com/muster-iot/muster/internal/crl"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// An authority's list is taken over in chunks. First the entries of a chunk are
// committed, which keeps new certificates with these serial numbers out; then
// the certificates that are there are revoked. A registration expects that its
// serial number has no entry, so it either comes too late or is seen by the
// second step. Entries carry the generation of their list: when all are there,
// those of earlier generations go.

const (
	// entriesPerBatch bounds how many entries one commit takes over.
	entriesPerBatch = 500
	// revokedPerBatch bounds how many certificates one commit revokes.
	revokedPerBatch = 100
	// maxListAhead is how far an authority's clock may be ahead of ours.
	maxListAhead = 5 * time.Minute
)

// RevocationImport is what became of a list.
type RevocationImport struct {
	CACertificateID string
	// Number is the CRL number in decimal digits, empty for none.
	Number     string
	ThisUpdate time.Time
	// NextUpdate is zero when the list does not say.
	NextUpdate time.Time
	Entries    int
	// Revoked counts the certificates that this call revoked, Removed the
	// entries of the previous list that are in this one no more.
	Revoked, Removed int
	// Unchanged says that the list was in force already.
	Unchanged bool
}

// ImportRevocationList takes over the complete list of revoked certificates of
// a registered authority: those that are registered become REVOKED for good,
// others with a listed serial number cannot be registered as long as the list
// is in force. The call may be repeated, and goes on where an earlier one with
// the same list broke off.
func (s *Service) ImportRevocationList(ctx context.Context, account fleet.Account, ca string, data []byte) (RevocationImport, error) {
	list, total, err := s.checkList(ctx, account, ca, data)
	if err != nil {
		return RevocationImport{}, err
	}
	state, err := s.beginImport(ctx, account, ca, list)
	if err != nil {
		return RevocationImport{}, err
	}
	out := RevocationImport{
		CACertificateID: ca, Number: state.Number, ThisUpdate: list.ThisUpdate.UTC(), NextUpdate: list.NextUpdate.UTC(),
		Entries: total, Unchanged: state.Complete,
	}
	if list.NextUpdate.IsZero() {
		out.NextUpdate = time.Time{}
	}
	if state.Complete {
		return out, nil
	}
	run := &listImport{service: s, account: account, ca: ca, generation: state.Generation}
	if err := run.takeOver(ctx, list, state.Done); err != nil {
		return out, err
	}
	if out.Removed, err = run.sweep(ctx); err != nil {
		return out, err
	}
	out.Revoked = run.revoked
	return out, run.complete(ctx, list.Number, total)
}

// checkList decides whether a list may be taken over, as far as it can be told
// from the list and its authority, and counts its entries.
func (s *Service) checkList(ctx context.Context, account fleet.Account, ca string, data []byte) (*crl.List, int, error) {
	authority, err := s.DescribeCACertificate(ctx, account, ca)
	if err != nil {
		return nil, 0, err
	}
	issuer, err := storedCertificate(authority.PEM)
	if err != nil {
		return nil, 0, fmt.Errorf("read CA certificate %s: %w", ca, err)
	}
	list, err := crl.Parse(data)
	if err != nil {
		return nil, 0, fault.Wrap(fault.CertificateValidation, err, "%v", err)
	}
	if err := list.CheckSignatureFrom(issuer); err != nil {
		return nil, 0, fault.Wrap(fault.CertificateValidation, err, "%v", err)
	}
	now := s.now()
	if list.ThisUpdate.After(now.Add(maxListAhead)) {
		return nil, 0, fault.New(fault.CertificateValidation, "the list is of %s, which is still to come", list.ThisUpdate.UTC().Format(time.RFC3339))
	}
	if !list.NextUpdate.IsZero() && now.After(list.NextUpdate) {
		return nil, 0, fault.New(fault.CertificateValidation,
			"the list is out of date: its next update was due on %s", list.NextUpdate.UTC().Format(time.RFC3339))
	}
	total := 0
	for _, err := range list.Entries() {
		if err != nil {
			return nil, 0, fault.Wrap(fault.CertificateValidation, err, "entry %d: %v", total+1, err)
		}
		total++
	}
	return list, total, nil
}

// beginImport decides whether a list follows the one in force, and records
// that it is being taken over.
func (s *Service) beginImport(ctx context.Context, account fleet.Account, ca string, list *crl.List) (revocationListRecord, error) {
	var state revocationListRecord
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		k := key(kindRevocationList, account, ca)
		present, err := load[revocationListRecord](ctx, a, k)
		if err != nil {
			return err
		}
		sum := hex.EncodeToString(list.Sum[:])
		if present != nil && present.Sum == sum {
			state = *present
			return nil
		}
		state = revocationListRecord{Sum: sum, ThisUpdate: millis(list.ThisUpdate), Imported: millis(a.now), Generation: 1}
		if list.Number != nil {
			state.Number = list.Number.String()
		}
		if !list.NextUpdate.IsZero() {
			state.NextUpdate = millis(list.NextUpdate)
		}
		if present != nil {
			if err := decideFollows(present, list); err != nil {
				return err
			}
			state.Generation = present.Generation + 1
		}
		return save(a, k, &state)
	})
	return state, err
}

// decideFollows refuses a list that is older than the one that is there.
func decideFollows(present *revocationListRecord, list *crl.List) error {
	if list.Number == nil && present.Number != "" {
		return fault.New(fault.Conflict, "the list has no CRL number; the one in force has %s", present.Number)
	}
	if list.Number != nil && present.Number != "" {
		last, ok := new(big.Int).SetString(present.Number, 10)
		if ok && list.Number.Cmp(last) <= 0 {
			return fault.New(fault.Conflict, "the list has CRL number %s; the one in force has %s", list.Number, present.Number)
		}
	}
	if millis(list.ThisUpdate) < present.ThisUpdate {
		return fault.New(fault.Conflict, "the list is of %s; the one in force is of %s",
			list.ThisUpdate.UTC().Format(time.RFC3339), moment(present.ThisUpdate).Format(time.RFC3339))
	}
	return nil
}

// listImport takes over one list.
type listImport struct {
	service    *Service
	account    fleet.Account
	ca         string
	generation int64
	revoked    int
}

// state loads the import's record and breaks off when a later list came.
func (i *listImport) state(ctx context.Context, a *attempt) (*revocationListRecord, error) {
	record, err := load[revocationListRecord](ctx, a, key(kindRevocationList, i.account, i.ca))
	if err == nil && (record == nil || record.Generation != i.generation) {
		err = fault.New(fault.Conflict, "a later revocation list of the CA certificate %s is being imported", i.ca)
	}
	return record, err
}

// takeOver commits the entries behind the first done ones, chunk by chunk.
func (i *listImport) takeOver(ctx context.Context, list *crl.List, done int) error {
	next, stop := iter.Pull2(list.Entries())
	defer stop()
	for range done {
		_, _, _ = next() // they were read before
	}
	for {
		chunk := make([]crl.Entry, 0, entriesPerBatch)
		for len(chunk) < entriesPerBatch {
			entry, err, ok := next()
			if !ok {
				break
			}
			if err != nil {
				return err // not reached: all entries were read before
			}
			chunk = append(chunk, entry)
		}
		if len(chunk) == 0 {
			return nil
		}
		if err := i.keepOut(ctx, chunk); err != nil {
			return err
		}
		if err := i.revokeListed(ctx, chunk); err != nil {
			return err
		}
		done += len(chunk)
		if err := i.advance(ctx, done); err != nil {
			return err
		}
	}
}

// keepOut commits the entries of a chunk.
func (i *listImport) keepOut(ctx context.Context, chunk []crl.Entry) error {
	return i.service.change(ctx, i.account, func(ctx context.Context, a *attempt) error {
		if _, err := i.state(ctx, a); err != nil {
			return err
		}
		for _, entry := range chunk {
			record := &revokedSerialRecord{Generation: i.generation, Revoked: millis(entry.Revoked), Reason: entry.Reason}
			if err := save(a, key(kindRevokedSerial, i.account, i.ca, entry.Serial), record); err != nil {
				return err
			}
		}
		return nil
	})
}

// revokeListed revokes the registered certificates of a chunk.
func (i *listImport) revokeListed(ctx context.Context, chunk []crl.Entry) error {
	var ids []string
	for _, entry := range chunk {
		err := i.service.store.Scan(ctx, under(kindCertificateSerial, i.account, i.ca, entry.Serial), func(row store.Record) error {
			ids = append(ids, row.Key.Last())
			return nil
		})
		if err != nil {
			return store.Fault(fmt.Errorf("look for serial number %s: %w", entry.Serial, err))
		}
	}
	for len(ids) > 0 {
		some := ids[:min(len(ids), revokedPerBatch)]
		ids = ids[len(some):]
		n, err := i.service.revoke(ctx, i.account, some)
		if err != nil {
			return err
		}
		i.revoked += n
	}
	return nil
}

// revoke gives certificates the state REVOKED, whatever they are in, and says
// how many were not. Whoever is connected by them is told to leave before it
// returns.
func (s *Service) revoke(ctx context.Context, account fleet.Account, ids []string) (revoked int, err error) {
	err = s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		revoked = 0
		// The call is reported with its first commit, which names none of these.
		// As acts that no request asked for by name each has a record in the audit
		// trail, under which the certificate's history is found.
		a.actor.RequestID = ""
		records, err := loadNamed[certificateRecord](ctx, a, kindCertificate, ids)
		if err != nil {
			return err
		}
		for _, id := range compact(ids) {
			record := records[id]
			if record == nil || record.Status == StatusRevoked {
				continue
			}
			if record.Status == StatusPendingTransfer {
				if record.Transfer.From != account {
					continue // not ours yet; accepting looks at the list
				}
				err = cancelTransfer(ctx, a, id, record, StatusRevoked)
			} else {
				err = setStatus(a, account, id, record, StatusRevoked)
			}
			if err != nil {
				return err
			}
			revoked++
		}
		return nil
	})
	return revoked, err
}

// advance records how far the import has come.
func (i *listImport) advance(ctx context.Context, done int) error {
	return i.service.change(ctx, i.account, func(ctx context.Context, a *attempt) error {
		record, err := i.state(ctx, a)
		if err != nil {
			return err
		}
		record.Done = done
		return save(a, key(kindRevocationList, i.account, i.ca), record)
	})
}

// sweep removes the entries of earlier lists and says how many there were.
func (i *listImport) sweep(ctx context.Context) (removed int, err error) {
	within := under(kindRevokedSerial, i.account, i.ca)
	for {
		var stale []store.Key
		var last store.Key
		seen := 0
		err := i.service.store.Scan(ctx, within, func(row store.Record) error {
			record, err := decode[revokedSerialRecord](row)
			if err != nil {
				return err
			}
			last = row.Key
			if record.Generation != i.generation {
				stale = append(stale, row.Key)
			}
			if seen++; len(stale) == entriesPerBatch || seen == maxRowsPerPage {
				return store.Stop
			}
			return nil
		})
		if err != nil {
			return removed, store.Fault(fmt.Errorf("look for entries of earlier lists: %w", err))
		}
		if last == "" {
			return removed, nil
		}
		err = i.service.change(ctx, i.account, func(ctx context.Context, a *attempt) error {
			if _, err := i.state(ctx, a); err != nil {
				return err
			}
			for _, k := range stale {
				a.remove(k)
			}
			return nil
		})
		if err != nil {
			return removed, err
		}
		removed += len(stale)
		within = within.After(last)
	}
}

// complete puts the list in force.
func (i *listImport) complete(ctx context.Context, number *big.Int, entries int) error {
	return i.service.change(ctx, i.account, func(ctx context.Context, a *attempt) error {
		record, err := i.state(ctx, a)
		if err != nil || record.Complete {
			return err
		}
		record.Complete = true
		taken := event.RevocationListImported{CACertificateID: i.ca, Entries: entries}
		if number != nil && number.IsInt64() {
			taken.Number = number.Int64()
		}
		a.emit(taken)
		return save(a, key(kindRevocationList, i.account, i.ca), record)
	})
}

// issuedHere tells whether our own authority made a certificate: others in mode
// DEFAULT came under a registered one.
func issuedHere(r *certificateRecord) bool { return r.Mode == ModeDefault && r.CA == "" }

// listRevoked puts a certificate on our own revocation list.
func listRevoked(a *attempt, account fleet.Account, id string, r *certificateRecord) error {
	parsed, err := storedCertificate(r.PEM)
	if err != nil {
		return fmt.Errorf("read certificate %s: %w", id, err)
	}
	return save(a, key(kindCertificateRevoked, account, id), &revokedRecord{
		Serial: crl.SerialText(parsed.SerialNumber), At: millis(a.now), NotAfter: r.NotAfter,
	})
}

// EachRevoked calls fn for every certificate of every account that our own
// authority issued and that was revoked, also when it was deleted since. Those
// whose validity has ended by now are left out.
func EachRevoked(ctx context.Context, r store.Reader, now time.Time, fn func(serial *big.Int, at time.Time) error) error {
	return each[revokedRecord](ctx, r, kindCertificateRevoked, func(_ fleet.Account, id string, record *revokedRecord) error {
		if !now.Before(moment(record.NotAfter)) {
			return nil
		}
		serial, ok := new(big.Int).SetString(record.Serial, 16)
		if !ok {
			return fmt.Errorf("revoked certificate %s has the serial number %q", id, record.Serial)
		}
		return fn(serial, moment(record.At))
	})
}

// kindRevokedComplete marks, for the installation, that all revoked
// certificates have a record for our own list.
const kindRevokedComplete = "certificate-revoked-complete"

// RecordRevoked puts certificates on our own revocation list that an earlier
// version revoked without writing that down. Once done it costs one read.
func (s *Service) RecordRevoked(ctx context.Context) error {
	done, _, err := get[rowRecord](ctx, s.store, store.K(kindRevokedComplete))
	if err != nil || done != nil {
		return store.Fault(err)
	}
	var found []func(*attempt) error
	flush := func() error {
		a := s.attempt(ctx, "")
		for _, add := range found {
			if err := add(a); err != nil {
				return err
			}
		}
		found = found[:0]
		if len(a.batch.Writes) == 0 {
			return nil
		}
		_, err := s.store.Commit(ctx, a.batch)
		return store.Fault(err)
	}
	err = each[certificateRecord](ctx, s.store, kindCertificate, func(account fleet.Account, id string, r *certificateRecord) error {
		if r.Status != StatusRevoked || !issuedHere(r) {
			return nil
		}
		found = append(found, func(a *attempt) error {
			a.now = moment(r.Modified)
			return listRevoked(a, account, id, r)
		})
		if len(found) < entriesPerBatch {
			return nil
		}
		return flush()
	})
	if err != nil {
		return store.Fault(fmt.Errorf("look for revoked certificates: %w", err))
	}
	found = append(found, func(a *attempt) error {
		a.row(store.K(kindRevokedComplete))
		return nil
	})
	return flush()
}

package approval

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"

	"github.com/muster-iot/muster/internal/allowlist"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provisioning"
	"github.com/muster-iot/muster/internal/store"
)

// Lists knows which devices suppliers have made.
type Lists interface {
	// Match looks for a device in the accepted lists.
	Match(ctx context.Context, account fleet.Account, q allowlist.Query) (*allowlist.Match, error)
	// Supplier describes one.
	Supplier(ctx context.Context, account fleet.Account, id string) (allowlist.Supplier, error)
}

// Listed is where a list authority has found a device. It holds nothing of what the
// list says.
type Listed struct {
	Authority string          `json:"authority"`
	List      string          `json:"listId"`
	Revision  int64           `json:"rev"`
	Supplier  string          `json:"supplierId"`
	Match     allowlist.Found `json:"match"`
	// UploadedBy has no say about the device.
	UploadedBy string `json:"uploadedBy"`
}

// serialParameters are where the serial number of a device is looked for when the
// authority does not say: what fleet provisioning templates call it, and what a
// certificate's subject has.
var serialParameters = []string{"SerialNumber", "AWS::IoT::Certificate::SerialNumber", "AWS::IoT::Certificate::CommonName"}

// query is what lists are asked about a candidate.
func (a *Authority) query(c *provisioning.Candidate) allowlist.Query {
	q := allowlist.Query{Template: c.Template, Supplier: a.Supplier, Thing: c.Thing, CertificateID: c.CertificateID}
	if q.Template == "" && c.CA != "" {
		// Without a template it joins by none that a supplier may be held to.
		q.Template = CATarget + c.CA
	}
	names := serialParameters
	if a.SerialParameter != "" {
		names = []string{a.SerialParameter}
	}
	for _, name := range names {
		if q.Serial = c.Parameters[name]; q.Serial != "" {
			break
		}
	}
	if a.ModelParameter != "" {
		q.Model = c.Parameters[a.ModelParameter]
	}
	for _, text := range []string{c.CertificatePEM, c.ClaimPEM} {
		if key := fingerprint(text); key != "" && !slices.Contains(q.Fingerprints, key) {
			q.Fingerprints = append(q.Fingerprints, key)
		}
	}
	return q
}

// fingerprint is the SHA-256 of the public key in a certificate, empty for none.
func fingerprint(certificatePEM string) string {
	block, _ := pem.Decode([]byte(certificatePEM))
	if block == nil {
		return ""
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// lookUp asks all authorities of a binding that are lists. A second use of an entry is
// raised.
func (s *Service) lookUp(ctx context.Context, asked []Authority, c *provisioning.Candidate) (votes []Vote, found []Listed, err error) {
	for i := range asked {
		a := &asked[i]
		if !a.Kind.isList() {
			continue
		}
		m, err := s.o.Lists.Match(ctx, c.Account, a.query(c))
		if err != nil {
			return nil, nil, err //nolint:wrapcheck // coded
		}
		vote := Vote{Authority: a.ID, Verdict: Yes, At: s.o.Now(), Reason: m.Words(), Check: true}
		if m.Reason != "" {
			vote.Verdict = No
			if err := m.RecordDuplicate(ctx); err != nil {
				return nil, nil, err //nolint:wrapcheck // coded
			}
		} else {
			found = append(found, Listed{Authority: a.ID, List: m.List, Revision: m.Revision, Supplier: m.Supplier, Match: m.Found, UploadedBy: m.UploadedBy})
		}
		votes = append(votes, vote)
	}
	return votes, found, nil
}

// claim adds to a batch that the entries with which lists have said yes are the
// device's. What they say now counts: another device may have been faster.
func (s *Service) claim(ctx context.Context, b *batch, c *provisioning.Candidate, found []Listed) error {
	claimed := map[store.Key]bool{}
	for _, listed := range found {
		// The authority must be the same one until the commit.
		var r authorityRecord
		if known, err := b.load(ctx, authorityKey(c.Account, listed.Authority), &r); err != nil {
			return err
		} else if !known || !r.Kind.isList() {
			return fault.New(fault.Throttling, "Others decide about the device now; try again")
		}
		authority := authorityOf(listed.Authority, &r)
		m, err := s.o.Lists.Match(ctx, c.Account, authority.query(c))
		if err != nil {
			return err //nolint:wrapcheck // coded
		}
		if m.Reason != "" {
			if err := m.RecordDuplicate(ctx); err != nil {
				return err //nolint:wrapcheck // coded
			}
			return unwanted(fmt.Sprintf("authority %s: %s", listed.Authority, m.Words()))
		}
		batch, err := m.Claim(ctx)
		if err != nil {
			return err //nolint:wrapcheck // coded
		}
		if entry := batch.Writes[0].Key; !claimed[entry] {
			claimed[entry] = true
			b.Expect = append(b.Expect, batch.Expect...)
			b.Writes = append(b.Writes, batch.Writes...)
			b.Events = append(b.Events, batch.Events...)
		}
	}
	return nil
}

// checkList refuses an authority of lists that names no supplier where it must.
func (s *Service) checkList(ctx context.Context, account fleet.Account, want *Authority) error {
	switch {
	case want.Group != "" || want.Function != "":
		return fault.New(fault.InvalidRequest, "group and function are not for authorities of kind %s", want.Kind)
	case want.Kind == SupplierLists && want.Supplier == "":
		return fault.New(fault.InvalidRequest, "supplier must be given for kind %s", SupplierLists)
	case len(want.SerialParameter) > maxParameter || len(want.ModelParameter) > maxParameter:
		return fault.New(fault.InvalidRequest, "serialParameter and modelParameter must have at most %d characters", maxParameter)
	case want.Supplier == "":
		return nil
	}
	_, err := s.o.Lists.Supplier(ctx, account, want.Supplier)
	if fault.CodeOf(err) == fault.ResourceNotFound {
		return fault.New(fault.InvalidRequest, "supplier: %s", fault.From(err).Message)
	}
	return err //nolint:wrapcheck // coded
}

// maxParameter bounds names of parameters.
const maxParameter = 128

package registry

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Why devices under an authority are believed.
const (
	// BasisPossession is an authority whose key was proved to be at hand, with the
	// account's registration code.
	BasisPossession = "POSSESSION"
	// BasisTrust is one that nobody has proved anything about.
	BasisTrust = "TRUST"
)

// maxStatement bounds an operator's statement, in characters.
const maxStatement = 2048

// CADeclaration is on record for each authority: that the account owns or trusts
// it, and who says so.
type CADeclaration struct {
	// Basis is BasisPossession or BasisTrust.
	Basis string
	// By is the ARN of who registered the authority, empty when that was before
	// declarations were kept; At is when.
	By string
	At time.Time
	// Statement is an operator's own words, StatedBy the ARN of who said them and
	// StatedAt when; empty and zero for none.
	Statement string
	StatedBy  string
	StatedAt  time.Time
}

// basisOf is what registration in a mode has proved.
func basisOf(mode string) string {
	if mode == ModeSNIOnly {
		return BasisTrust
	}
	return BasisPossession
}

// declarationOf is the public form of a record's declaration.
func declarationOf(r *caRecord) CADeclaration {
	d := r.Declaration
	if d == nil {
		return CADeclaration{Basis: basisOf(r.Mode), At: moment(r.Created)}
	}
	out := CADeclaration{Basis: d.Basis, By: d.By, At: moment(d.At), Statement: d.Statement, StatedBy: d.StatedBy}
	if d.StatedAt != 0 {
		out.StatedAt = moment(d.StatedAt)
	}
	return out
}

// DeclareCA puts an operator's statement about an authority on record, in place
// of an earlier one, which stays in the audit trail.
func (s *Service) DeclareCA(ctx context.Context, account fleet.Account, id, statement string) (CADeclaration, error) {
	if err := checkCAID(id); err != nil {
		return CADeclaration{}, err
	}
	statement = strings.TrimSpace(statement)
	if n := utf8.RuneCountInString(statement); n < 1 || n > maxStatement || !utf8.ValidString(statement) {
		return CADeclaration{}, fault.New(fault.InvalidRequest, "statement must have 1 to %d characters", maxStatement)
	}
	var declared CADeclaration
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := loadCA(ctx, a, id)
		if err != nil {
			return err
		}
		if record.Declaration == nil {
			record.Declaration = &declarationRecord{Basis: basisOf(record.Mode), At: record.Created}
		}
		d := record.Declaration
		d.Statement, d.StatedBy, d.StatedAt = statement, a.actor.Principal.ARN, millis(a.now)
		declared = declarationOf(record)
		changed := caChanged(id, record, event.CACertificateDeclared)
		changed.Statement = statement
		a.emit(changed)
		return save(a, key(kindCACertificate, account, id), record)
	})
	return declared, err
}

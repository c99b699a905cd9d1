package adminapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// Actions on certificates, on resource "*".
const (
	ActionListExpiringCertificates = "ops:ListExpiringCertificates"
	ActionImportRevocationList     = "ops:ImportRevocationList"
)

const (
	// maxRevocationList bounds a list in bytes: about 800,000 entries.
	maxRevocationList = 32 << 20
	// maxImports is how many lists are held at a time.
	maxImports = 2
	// defaultWithin is how far ahead expiry is looked for when nobody says.
	defaultWithin = 30 * 24 * time.Hour
	// maxWithin is longer than any certificate lives.
	maxWithin = 100 * 365 * 24 * time.Hour
	// maxExpiring bounds a page: each certificate costs a look at its things.
	maxExpiring = 1000
)

// Certificates answers about certificates what AWS has no call for.
type Certificates interface {
	ListExpiring(ctx context.Context, account fleet.Account, until time.Time, p registry.Page) (registry.Listed[registry.Expiring], error)
	ImportRevocationList(ctx context.Context, account fleet.Account, ca string, list []byte) (registry.RevocationImport, error)
	DescribeCACertificate(ctx context.Context, account fleet.Account, ca string) (registry.CACertificate, error)
	DeclareCA(ctx context.Context, account fleet.Account, ca, statement string) (registry.CADeclaration, error)
}

// handleCertificates adds the operations on certificates.
func (h *handler) handleCertificates(mux *routes) {
	mux.HandleFunc("GET "+Prefix+"certificates/expiring", h.read(ActionListExpiringCertificates, h.expiring))
	mux.HandleFunc("POST "+Prefix+"ca-certificates/{caCertificateId}/revocation-list", h.importRevocationList)
	h.handleCADeclarations(mux)
	h.handleBirths(mux)
	h.handleRenewals(mux)
	h.handleApprovals(mux)
	h.handleClaimUses(mux)
	h.handleSuppliers(mux)
	h.handleAllowLists(mux)
}

// Kinds of certificates in expiringOutput.
const (
	kindCertificate   = "certificate"
	kindCACertificate = "caCertificate"
)

// expiringCertificate is one whose validity ends. Times are RFC 3339 in UTC.
type expiringCertificate struct {
	Kind           string `json:"kind"`
	CertificateID  string `json:"certificateId"`
	CertificateARN string `json:"certificateArn"`
	Status         string `json:"status"`
	NotAfter       string `json:"notAfter"`
	Expired        bool   `json:"expired"`
	OwnedBy        string `json:"ownedBy"`
	// Things are the first ten; ThingCount counts all.
	Things     []string `json:"things"`
	ThingCount int      `json:"thingCount"`
}

// expiringOutput is a page: CA certificates first, each kind by its end.
type expiringOutput struct {
	Until        string                `json:"until"`
	Certificates []expiringCertificate `json:"certificates"`
	NextToken    string                `json:"nextToken,omitempty"`
}

// expiring lists what is out of validity within a time from now.
func (h *handler) expiring(ctx context.Context, r *http.Request) (any, error) {
	l, err := h.openList(ctx, r, "ops.certificates.expiring", "", "within")
	if err != nil {
		return nil, err
	}
	if l.limit < 1 || l.limit > maxExpiring {
		return nil, fault.New(fault.InvalidRequest, "maxResults: must be from 1 to %d", maxExpiring)
	}
	within := defaultWithin
	if l.values.Has("within") {
		if within, err = parseWithin(l.values.Get("within")); err != nil {
			return nil, err
		}
	}
	now := h.o.Now()
	listed, err := h.o.Certificates.ListExpiring(ctx, l.account, now.Add(within), registry.Page{After: l.after, Limit: l.limit})
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	out := expiringOutput{Until: stamp(now.Add(within)), Certificates: make([]expiringCertificate, len(listed.Items))}
	for i := range listed.Items {
		out.Certificates[i] = expiringOf(&listed.Items[i], now)
	}
	if listed.Next != "" {
		out.NextToken = h.o.Tokens.Seal(l.account, l.operation, l.filter, listed.Next, now)
	}
	return out, nil
}

// expiringOf encodes one certificate.
func expiringOf(e *registry.Expiring, now time.Time) expiringCertificate {
	out := expiringCertificate{
		Kind: kindCertificate, CertificateID: e.ID, CertificateARN: e.ARN, Status: e.Status, NotAfter: stamp(e.NotAfter),
		Expired: !now.Before(e.NotAfter), OwnedBy: string(e.Owner), Things: e.Things, ThingCount: e.ThingCount,
	}
	if e.Authority {
		out.Kind = kindCACertificate
	}
	if out.Things == nil {
		out.Things = []string{}
	}
	return out
}

// parseWithin reads a time span: days such as 30d, or what Go calls a duration.
func parseWithin(text string) (time.Duration, error) {
	span, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n int
		if n, err = strconv.Atoi(days); err == nil {
			n = max(min(n, int(maxWithin/(24*time.Hour))+1), -1)
			span = time.Duration(n) * 24 * time.Hour
		}
	}
	if err != nil || span < 0 || span > maxWithin {
		return 0, fault.New(fault.InvalidRequest, "within: must be a time span such as 30d or 12h, at most 36500d")
	}
	return span, nil
}

// importOutput tells what became of a revocation list.
type importOutput struct {
	CACertificateID string `json:"caCertificateId"`
	Number          string `json:"number,omitempty"`
	ThisUpdate      string `json:"thisUpdate"`
	NextUpdate      string `json:"nextUpdate,omitempty"`
	Entries         int    `json:"entries"`
	// Revoked counts the certificates that are REVOKED by this call.
	Revoked int `json:"revoked"`
	// Removed counts entries of the previous list that this one has no more.
	Removed int `json:"removed"`
	// Unchanged says that the list was in force already.
	Unchanged bool `json:"unchanged"`
}

// admitLong says how long a body may be. A long one is read only when its head proves
// who sends it, and few are held at a time; release gives the place back.
func (h *handler) admitLong(r *http.Request, longest int64) (limit int64, release func(), err error) {
	if r.ContentLength >= 0 && r.ContentLength <= maxBody {
		return maxBody, func() {}, nil
	}
	if h.o.AuthenticateHead != nil {
		if err := h.o.AuthenticateHead(r); err != nil {
			return 0, nil, err
		}
	}
	select {
	case h.imports <- struct{}{}:
		return longest, func() { <-h.imports }, nil
	default:
		return 0, nil, fault.New(fault.Throttling, "%d long lists are being taken; try again", maxImports)
	}
}

// takeTime lets a request that is read take longer than others: what is left of its
// time must not end the import of a long list.
func takeTime(w http.ResponseWriter) error {
	control := http.NewResponseController(w)
	if err := errors.Join(control.SetReadDeadline(time.Time{}), control.SetWriteDeadline(time.Time{})); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// importRevocationList takes over an authority's list in PEM or DER. A long one
// is read only when its head proves who sends it, and few are held at a time.
func (h *handler) importRevocationList(w http.ResponseWriter, r *http.Request) {
	limit, release, err := h.admitLong(r, maxRevocationList)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	defer release()
	r, body, err := h.enterUpTo(w, r, ActionImportRevocationList, limit)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	ctx := r.Context()
	ca := r.PathValue("caCertificateId")
	callOf(w).About(h.o.ARN(ctx, fleet.ARNCACert, ca)) //nolint:contextcheck // enter returned the same request with the actor
	if err := takeTime(w); err != nil {
		h.fail(w, r, err)
		return
	}
	done, err := h.o.Certificates.ImportRevocationList(ctx, h.o.Account(ctx), ca, body) //nolint:contextcheck // enter returned the same request with the actor
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.answer(w, r, importOutput{
		CACertificateID: done.CACertificateID, Number: done.Number, ThisUpdate: stamp(done.ThisUpdate), NextUpdate: stamp(done.NextUpdate),
		Entries: done.Entries, Revoked: done.Revoked, Removed: done.Removed, Unchanged: done.Unchanged,
	})
}

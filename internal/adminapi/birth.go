package adminapi

import (
	"context"
	"math"
	"net/http"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// Actions on what certificates are for and on quarantine, on resource "*".
const (
	ActionGetCertificatePurpose = "ops:GetCertificatePurpose"
	ActionPutCertificatePurpose = "ops:PutCertificatePurpose"
	ActionGetCAPurpose          = "ops:GetCAPurpose"
	ActionPutCAPurpose          = "ops:PutCAPurpose"
	ActionReprovisionThing      = "ops:ReprovisionThing"
	ActionListQuarantine        = "ops:ListQuarantine"
	ActionPutQuarantine         = "ops:PutQuarantine"
	ActionReleaseQuarantine     = "ops:ReleaseQuarantine"
)

// Births answers for certificates that are for provisioning, and for things that
// can do nothing else.
type Births interface {
	CertificatePurpose(ctx context.Context, account fleet.Account, id string) (registry.Purpose, error)
	SetCertificatePurpose(ctx context.Context, account fleet.Account, c registry.SetPurposeCommand) (registry.Purpose, error)
	DescribeCAPurpose(ctx context.Context, account fleet.Account, ca string) (registry.CAPurpose, error)
	SetCAPurpose(ctx context.Context, account fleet.Account, c registry.SetCAPurposeCommand) (registry.CAPurpose, error)
	Reopen(ctx context.Context, account fleet.Account, c registry.ReopenCommand) (registry.Reopened, error)
	Quarantine(ctx context.Context, account fleet.Account, thing, reason, by string) (registry.Quarantined, error)
	Release(ctx context.Context, account fleet.Account, thing, reason string) (registry.Quarantined, error)
	ListQuarantined(ctx context.Context, account fleet.Account, p registry.Page) (registry.Listed[registry.Quarantined], error)
}

// birthLimits are the limits of a certificate for provisioning; zero values are
// the installation's or none.
type birthLimits struct {
	Template string   `json:"template,omitempty"`
	Networks []string `json:"networks,omitempty"`
	// SessionSeconds is how long a connection lasts.
	SessionSeconds    int64 `json:"sessionSeconds,omitempty"`
	RequestsPerMinute int   `json:"requestsPerMinute,omitempty"`
	MaxUses           int   `json:"maxUses,omitempty"`
}

func (l birthLimits) command() registry.BirthLimits {
	return registry.BirthLimits{Template: l.Template, Networks: l.Networks, Session: l.SessionSeconds, Requests: l.RequestsPerMinute, MaxUses: l.MaxUses}
}

func limitsOf(l registry.BirthLimits) birthLimits {
	return birthLimits{Template: l.Template, Networks: l.Networks, SessionSeconds: l.Session, RequestsPerMinute: l.Requests, MaxUses: l.MaxUses}
}

// purposeInput says what a certificate is for.
type purposeInput struct {
	birthLimits

	Purpose string `json:"purpose"`
	Serial  string `json:"serial"`
}

// purposeOutput is what a certificate is for, and how far that has come. Times are
// RFC 3339 in UTC.
type purposeOutput struct {
	birthLimits

	CertificateID string `json:"certificateId"`
	Purpose       string `json:"purpose"`
	// CACertificateID is the authority that it has the purpose from.
	CACertificateID string `json:"caCertificateId,omitempty"`
	Serial          string `json:"serial,omitempty"`
	SetBy           string `json:"setBy,omitempty"`
	SetAt           string `json:"setAt,omitempty"`
	// State is UNUSED, USED or REOPENED; absent for an operational certificate and
	// for one whose uses are not counted.
	State         string `json:"state,omitempty"`
	Uses          int    `json:"uses,omitempty"`
	ThingName     string `json:"thingName,omitempty"`
	ReplacedBy    string `json:"replacedBy,omitempty"`
	UsedAt        string `json:"usedAt,omitempty"`
	ReopenedUntil string `json:"reopenedUntil,omitempty"`
	Quarantined   bool   `json:"quarantined,omitempty"`
}

// caPurposeInput says what the certificates under an authority are for.
type caPurposeInput struct {
	birthLimits

	Purpose     string `json:"purpose"`
	Fingerprint string `json:"fingerprint"`
	SerialFrom  string `json:"serialFrom"`
}

// caPurposeOutput is what the certificates under an authority are for, and on
// whose word.
type caPurposeOutput struct {
	birthLimits

	CACertificateID string            `json:"caCertificateId"`
	Purpose         string            `json:"purpose"`
	Fingerprint     string            `json:"fingerprint,omitempty"`
	SerialFrom      string            `json:"serialFrom,omitempty"`
	SetBy           string            `json:"setBy,omitempty"`
	SetAt           string            `json:"setAt,omitempty"`
	Declaration     declarationOutput `json:"declaration"`
}

// reprovisionInput asks to open a device's birth certificate again.
type reprovisionInput struct {
	ForSeconds int64  `json:"forSeconds"`
	Reason     string `json:"reason"`
}

// reprovisionOutput is an open window.
type reprovisionOutput struct {
	ThingName     string `json:"thingName"`
	CertificateID string `json:"certificateId"`
	Until         string `json:"until"`
}

// quarantineInput is why a thing goes into quarantine, or leaves it.
type quarantineInput struct {
	Reason string `json:"reason"`
}

// quarantinedOutput is a thing in quarantine.
type quarantinedOutput struct {
	ThingName string `json:"thingName"`
	Reason    string `json:"reason"`
	By        string `json:"by"`
	Since     string `json:"since"`
}

// quarantineOutput is a page of them.
type quarantineOutput struct {
	Things    []quarantinedOutput `json:"things"`
	NextToken string              `json:"nextToken,omitempty"`
}

// handleBirths adds the operations.
func (h *handler) handleBirths(mux *routes) {
	const certificate = Prefix + "certificates/{certificateId}/purpose"
	mux.HandleFunc("GET "+certificate, h.read(ActionGetCertificatePurpose, func(ctx context.Context, r *http.Request) (any, error) {
		id := r.PathValue("certificateId")
		p, err := h.o.Births.CertificatePurpose(ctx, h.o.Account(ctx), id)
		return purposeOf(id, &p), err //nolint:wrapcheck // coded
	}))
	mux.HandleFunc("PUT "+certificate, h.operate(ActionPutCertificatePurpose, func(ctx context.Context, r *http.Request, body []byte) (any, error) {
		var in purposeInput
		if err := decodeStrictly(body, &in); err != nil {
			return nil, err
		}
		id := r.PathValue("certificateId")
		p, err := h.o.Births.SetCertificatePurpose(ctx, h.o.Account(ctx), registry.SetPurposeCommand{
			ID: id, Purpose: in.Purpose, Serial: in.Serial, Limits: in.command(),
		})
		return purposeOf(id, &p), err //nolint:wrapcheck // coded
	}))
	const authority = Prefix + "ca-certificates/{caCertificateId}/purpose"
	mux.HandleFunc("GET "+authority, h.read(ActionGetCAPurpose, func(ctx context.Context, r *http.Request) (any, error) {
		id := r.PathValue("caCertificateId")
		p, err := h.o.Births.DescribeCAPurpose(ctx, h.o.Account(ctx), id)
		return caPurposeOf(id, &p), err //nolint:wrapcheck // coded
	}))
	mux.HandleFunc("PUT "+authority, h.operate(ActionPutCAPurpose, func(ctx context.Context, r *http.Request, body []byte) (any, error) {
		var in caPurposeInput
		if err := decodeStrictly(body, &in); err != nil {
			return nil, err
		}
		id := r.PathValue("caCertificateId")
		p, err := h.o.Births.SetCAPurpose(ctx, h.o.Account(ctx), registry.SetCAPurposeCommand{
			CA: id, Purpose: in.Purpose, Fingerprint: in.Fingerprint, SerialFrom: in.SerialFrom, Limits: in.command(),
		})
		return caPurposeOf(id, &p), err //nolint:wrapcheck // coded
	}))
	mux.HandleFunc("POST "+Prefix+"things/{thing}/reprovision", h.operate(ActionReprovisionThing, h.reprovision))
	mux.HandleFunc("GET "+Prefix+"quarantine", h.read(ActionListQuarantine, h.listQuarantine))
	mux.HandleFunc("PUT "+Prefix+"quarantine/{thing}", h.operate(ActionPutQuarantine, func(ctx context.Context, r *http.Request, body []byte) (any, error) {
		var in quarantineInput
		if err := decodeStrictly(body, &in); err != nil {
			return nil, err
		}
		q, err := h.o.Births.Quarantine(ctx, h.o.Account(ctx), r.PathValue("thing"), in.Reason, "")
		return quarantinedOf(&q), err //nolint:wrapcheck // coded
	}))
	mux.HandleFunc("POST "+Prefix+"quarantine/{thing}/release", h.operate(ActionReleaseQuarantine, func(ctx context.Context, r *http.Request, body []byte) (any, error) {
		var in quarantineInput
		if err := decodeStrictly(body, &in); err != nil {
			return nil, err
		}
		q, err := h.o.Births.Release(ctx, h.o.Account(ctx), r.PathValue("thing"), in.Reason)
		return quarantinedOf(&q), err //nolint:wrapcheck // coded
	}))
}

// reprovision opens a window.
func (h *handler) reprovision(ctx context.Context, r *http.Request, body []byte) (any, error) {
	var in reprovisionInput
	if err := decodeStrictly(body, &in); err != nil {
		return nil, err
	}
	if in.ForSeconds < 0 || in.ForSeconds > math.MaxInt64/int64(time.Second) {
		return nil, fault.New(fault.InvalidRequest, "forSeconds must be from 1 to %d", int64(registry.MaxReopening/time.Second))
	}
	made, err := h.o.Births.Reopen(ctx, h.o.Account(ctx), registry.ReopenCommand{
		Thing: r.PathValue("thing"), For: time.Duration(in.ForSeconds) * time.Second, Reason: in.Reason,
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	return reprovisionOutput{ThingName: made.Thing, CertificateID: made.CertificateID, Until: stamp(made.Until)}, nil
}

// listQuarantine lists the things in quarantine by name.
func (h *handler) listQuarantine(ctx context.Context, r *http.Request) (any, error) {
	l, err := h.openList(ctx, r, "ops.quarantine", "")
	if err != nil {
		return nil, err
	}
	page, err := l.registryPage()
	if err != nil {
		return nil, err
	}
	listed, err := h.o.Births.ListQuarantined(ctx, l.account, page)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	out := quarantineOutput{Things: make([]quarantinedOutput, len(listed.Items)), NextToken: h.nextToken(&l, listed.Next)}
	for i := range listed.Items {
		out.Things[i] = quarantinedOf(&listed.Items[i])
	}
	return out, nil
}

func quarantinedOf(q *registry.Quarantined) quarantinedOutput {
	return quarantinedOutput{ThingName: q.Thing, Reason: q.Reason, By: q.By, Since: stamp(q.Since)}
}

// purposeOf encodes what a certificate is for.
func purposeOf(id string, p *registry.Purpose) purposeOutput {
	out := purposeOutput{
		birthLimits: limitsOf(p.BirthLimits), CertificateID: id, Purpose: p.Purpose, CACertificateID: p.CA, Serial: p.Serial,
		SetBy: p.By, SetAt: stamp(p.At), Uses: p.Uses, ThingName: p.Thing, ReplacedBy: p.ReplacedBy,
		UsedAt: stamp(p.UsedAt), ReopenedUntil: stamp(p.ReopenedUntil), Quarantined: p.Quarantined,
	}
	switch {
	case !p.ReopenedUntil.IsZero():
		out.State = "REOPENED"
	case p.Used():
		out.State = "USED"
	case p.Counted():
		out.State = "UNUSED"
	}
	return out
}

// caPurposeOf encodes what the certificates under an authority are for.
func caPurposeOf(id string, p *registry.CAPurpose) caPurposeOutput {
	return caPurposeOutput{
		birthLimits: limitsOf(p.BirthLimits), CACertificateID: id, Purpose: p.Purpose, Fingerprint: p.Fingerprint, SerialFrom: p.SerialFrom,
		SetBy: p.By, SetAt: stamp(p.At), Declaration: declarationOf(id, p.Declaration),
	}
}

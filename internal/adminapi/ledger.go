package adminapi

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/ledger"
)

// Actions on the ledger of devices, on resource "*".
const (
	ActionDescribeLedger = "ops:DescribeLedger"
	ActionListRogues     = "ops:ListRogues"
	// ActionVerifyLedger is to check the ledger and to read where it ends.
	ActionVerifyLedger = "ops:VerifyLedger"
)

// Ledger keeps the lives of devices.
type Ledger interface {
	Device(ctx context.Context, account fleet.Account, name string) (ledger.Device, error)
	Entries(ctx context.Context, account fleet.Account, key string, after uint64, limit int) (page []ledger.Entry, next uint64, err error)
	Rogues(ctx context.Context, account fleet.Account, kind ledger.RogueKind, after string, limit int) (page []ledger.Rogue, next string, counts ledger.RogueCounts, err error)
	Head(ctx context.Context, account fleet.Account) (ledger.Head, error)
	Verify(ctx context.Context, account fleet.Account, kept []ledger.Head, w ledger.Witness) (ledger.Verdict, error)
	VerifyDevice(ctx context.Context, account fleet.Account, name string, w ledger.Witness) (ledger.Verdict, error)
}

// ledgerOutput is a device with a page of its entries, the oldest first. Times are
// RFC 3339 in UTC with milliseconds.
type ledgerOutput struct {
	DeviceKey     string `json:"deviceKey"`
	Life          int    `json:"life"`
	BegunAt       string `json:"begunAt,omitempty"`
	ThingName     string `json:"thingName,omitempty"`
	CertificateID string `json:"certificateId,omitempty"`
	RegisteredAt  string `json:"registeredAt,omitempty"`
	ActivatedAt   string `json:"activatedAt,omitempty"`
	// DecommissionedAt is of the last life; absent while it lasts.
	DecommissionedAt string `json:"decommissionedAt,omitempty"`
	Suspended        bool   `json:"suspended,omitempty"`
	// Rogue says that nobody made it. Basis is the strongest thing that says that
	// somebody did, Evidence all.
	Rogue    bool         `json:"rogue,omitempty"`
	Basis    ledger.Basis `json:"basis"`
	Evidence []string     `json:"evidence"`
	// EntryCount and Hash are where its ledger ends.
	EntryCount uint64        `json:"entryCount"`
	Hash       string        `json:"hash"`
	Entries    []ledgerEntry `json:"entries"`
	NextToken  string        `json:"nextToken,omitempty"`
}

// ledgerEntry is an entry as it is hashed, whose time is in milliseconds, and the
// time for people.
type ledgerEntry struct {
	ledger.Entry

	Time string `json:"time"`
}

// rogueOutput is a device that nobody made.
type rogueOutput struct {
	Kind          ledger.RogueKind `json:"kind"`
	DeviceKey     string           `json:"deviceKey"`
	ThingName     string           `json:"thingName,omitempty"`
	CertificateID string           `json:"certificateId,omitempty"`
	ClaimID       string           `json:"claimCertificateId,omitempty"`
	TemplateName  string           `json:"templateName,omitempty"`
	ClientID      string           `json:"clientId,omitempty"`
	Reason        string           `json:"reason"`
	FirstAt       string           `json:"firstAt"`
	LastAt        string           `json:"lastAt"`
	// Count is how often an attempt was refused. Known says that a device of its name
	// has a ledger.
	Count int64 `json:"count,omitempty"`
	Known bool  `json:"known,omitempty"`
}

// roguesOutput is a page of rogues, the newest first, with how many there were in all.
type roguesOutput struct {
	Rogues    []rogueOutput `json:"rogues"`
	Devices   int64         `json:"devices"`
	Attempts  int64         `json:"attempts"`
	Refusals  int64         `json:"refusals"`
	NextToken string        `json:"nextToken,omitempty"`
}

// ledgerVerifyOutput is a line of the answer to verify: one of the three.
type ledgerVerifyOutput struct {
	Progress int             `json:"progress,omitempty"`
	Finding  *ledger.Finding `json:"finding,omitempty"`
	// Verdict ends the answer; one without was cut.
	Verdict *ledger.Verdict `json:"verdict,omitempty"`
}

// routeLedger adds the operations on /ops/v1/ledger.
func (h *handler) routeLedger(mux *routes) {
	mux.HandleFunc("GET "+Prefix+"ledger/rogues", h.read(ActionListRogues, h.listRogues))
	mux.HandleFunc("GET "+Prefix+"ledger/{device}", h.read(ActionDescribeLedger, h.describeLedger))
	mux.HandleFunc("GET "+Prefix+"ledger/{device}/verify", h.stream(ActionVerifyLedger, func(ctx context.Context, r *http.Request, out *lines) error {
		if _, err := numbersIn(r); err != nil {
			return err
		}
		return ledgerVerdict(out, func(w ledger.Witness) (ledger.Verdict, error) {
			return h.o.Ledger.VerifyDevice(ctx, h.o.Account(ctx), r.PathValue("device"), w)
		})
	}))
	mux.HandleFunc("GET "+Prefix+"ledger:verify", h.stream(ActionVerifyLedger, h.verifyLedger))
	mux.HandleFunc("GET "+Prefix+"ledger:head", h.read(ActionVerifyLedger, func(ctx context.Context, r *http.Request) (any, error) {
		if _, err := numbersIn(r); err != nil {
			return nil, err
		}
		return h.o.Ledger.Head(ctx, h.o.Account(ctx))
	}))
}

func (h *handler) describeLedger(ctx context.Context, r *http.Request) (any, error) {
	l, err := h.openList(ctx, r, "ops.ledger", r.PathValue("device"))
	if err != nil {
		return nil, err
	}
	after := uint64(0)
	if l.after != "" {
		if after, err = strconv.ParseUint(l.after, 10, 64); err != nil {
			return nil, fault.New(fault.InvalidRequest, "nextToken: is none of this operation")
		}
	}
	d, err := h.o.Ledger.Device(ctx, l.account, r.PathValue("device"))
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	entries, next, err := h.o.Ledger.Entries(ctx, l.account, d.Key, after, l.limit)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	out := ledgerOutput{
		DeviceKey: d.Key, Life: d.Life, BegunAt: stamp(d.Begun), ThingName: d.Thing, CertificateID: d.Certificate,
		RegisteredAt: stamp(d.Registered), ActivatedAt: stamp(d.Activated), DecommissionedAt: stamp(d.Ended), Suspended: d.Suspended, Rogue: d.Rogue,
		Basis: d.Basis, Evidence: append([]string{}, d.Evidence...), EntryCount: d.Entries, Hash: d.Hash, Entries: make([]ledgerEntry, len(entries)),
	}
	for i := range entries {
		out.Entries[i] = ledgerEntry{entries[i], stamp(time.UnixMilli(entries[i].At))}
	}
	if next != 0 {
		out.NextToken = h.nextToken(&l, strconv.FormatUint(next, 10))
	}
	return out, nil
}

func (h *handler) listRogues(ctx context.Context, r *http.Request) (any, error) {
	l, err := h.openList(ctx, r, "ops.ledger.rogues", "", "kind")
	if err != nil {
		return nil, err
	}
	kind := ledger.RogueJoined
	if l.values.Has("kind") {
		kind = ledger.RogueKind(l.values.Get("kind"))
	}
	found, next, counts, err := h.o.Ledger.Rogues(ctx, l.account, kind, l.after, l.limit)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	out := roguesOutput{
		Rogues: make([]rogueOutput, len(found)), Devices: counts.Devices, Attempts: counts.Attempts, Refusals: counts.Refusals, NextToken: h.nextToken(&l, next),
	}
	for i := range found {
		f := &found[i]
		out.Rogues[i] = rogueOutput{
			Kind: f.Kind, DeviceKey: f.Device, ThingName: f.Thing, CertificateID: f.CertificateID, ClaimID: f.ClaimID, TemplateName: f.Template,
			ClientID: f.ClientID, Reason: f.Reason, FirstAt: stamp(f.First), LastAt: stamp(f.Last), Count: f.Count, Known: f.Known,
		}
	}
	return out, nil
}

// verifyLedger checks the whole ledger, also against a head that the caller kept.
func (h *handler) verifyLedger(ctx context.Context, r *http.Request, out *lines) error {
	l, err := h.openList(ctx, r, "ops.ledger.verify", "", "head")
	if err != nil {
		return err
	}
	var kept []ledger.Head
	if l.values.Has("head") {
		head, err := ledger.ParseHead([]byte(l.values.Get("head")))
		if err != nil {
			return err //nolint:wrapcheck // coded
		}
		kept = append(kept, head)
	}
	return ledgerVerdict(out, func(w ledger.Witness) (ledger.Verdict, error) { return h.o.Ledger.Verify(ctx, l.account, kept, w) })
}

// ledgerVerdict writes what a verification finds.
func ledgerVerdict(out *lines, verify func(ledger.Witness) (ledger.Verdict, error)) error {
	verdict, err := verify(ledger.Witness{
		Found:    func(f ledger.Finding) error { return out.value(ledgerVerifyOutput{Finding: &f}) },
		Progress: func(n int) error { return errors.Join(out.value(ledgerVerifyOutput{Progress: n}), out.flush()) },
	})
	if err != nil {
		return err //nolint:wrapcheck // coded
	}
	return out.value(ledgerVerifyOutput{Verdict: &verdict})
}

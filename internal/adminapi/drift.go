package adminapi

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/muster-iot/muster/internal/drift"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// Actions on what templates promised of things, on resource "*". A repair needs
// the actions of the calls that would do the same too, on what they are about.
const (
	ActionGetDrift    = "ops:GetDrift"
	ActionListDrift   = "ops:ListDrift"
	ActionRepairDrift = drift.ActionRepair
	ActionAcceptDrift = drift.ActionAccept
)

// Promises compares things with what their templates promised.
type Promises interface {
	Show(ctx context.Context, account fleet.Account, thing string) (drift.Report, error)
	List(ctx context.Context, account fleet.Account, c drift.ListCommand) (drift.Page, error)
	Versions(ctx context.Context, account fleet.Account, template, after string) (drift.VersionCounts, error)
	SettleFor(ctx context.Context, account fleet.Account, c drift.SettleCommand) (drift.Plan, error)
}

// promisedOutput is one thing beside what was promised of it. Times are RFC 3339 in
// UTC with milliseconds.
type promisedOutput struct {
	ThingName string        `json:"thingName"`
	ThingID   string        `json:"thingId"`
	Promise   promiseOutput `json:"promise"`
	// CertificateID is the one that was looked at, absent when the thing has none.
	CertificateID     string            `json:"certificateId,omitempty"`
	CertificateStatus string            `json:"certificateStatus,omitempty"`
	Drifts            bool              `json:"drifts"`
	Differences       []driftDifference `json:"differences"`
	ExtraPolicies     []string          `json:"extraPolicies"`
	Revision          string            `json:"revision"`
}

// promiseOutput is what was promised, and by what.
type promiseOutput struct {
	// TemplateName and TemplateVersion are absent for a body that has no name.
	TemplateName    string                   `json:"templateName,omitempty"`
	TemplateVersion int64                    `json:"templateVersion,omitempty"`
	DefaultVersion  int64                    `json:"defaultVersion,omitempty"`
	Outdated        bool                     `json:"outdated,omitempty"`
	Method          event.ProvisioningMethod `json:"method"`
	MadeAt          string                   `json:"madeAt"`
	AcceptedAt      string                   `json:"acceptedAt,omitempty"`
	ThingTypeName   string                   `json:"thingTypeName,omitempty"`
	Attributes      map[string]string        `json:"attributes,omitempty"`
	ThingGroups     []string                 `json:"thingGroups,omitempty"`
	BillingGroup    string                   `json:"billingGroupName,omitempty"`
	CertificateID   string                   `json:"certificateId,omitempty"`
	Active          bool                     `json:"certificateActive,omitempty"`
	Policies        []string                 `json:"policyNames,omitempty"`
	// Kept are the parts that an earlier template or version has promised.
	Kept []registry.KeptPromise `json:"kept,omitempty"`
}

// driftDifference is something that was promised and is not so.
type driftDifference struct {
	drift.Difference

	// Irreparable is why it cannot be repaired, absent when it can.
	Irreparable string `json:"irreparable,omitempty"`
}

// promisedPageOutput is a page of things; it can be empty and not be the last one. The
// numbers are of the things that were compared for this page.
type promisedPageOutput struct {
	Things    []promisedOutput   `json:"things"`
	Examined  int                `json:"examined"`
	Drifting  int                `json:"drifting"`
	Outdated  int                `json:"outdated"`
	ByKind    map[drift.Kind]int `json:"byKind"`
	NextToken string             `json:"nextToken,omitempty"`
}

// versionCountsOutput are things by the version of their template. A version can
// go on with the next page.
type versionCountsOutput struct {
	TemplateName   string         `json:"templateName"`
	DefaultVersion int64          `json:"defaultVersion,omitempty"`
	Versions       []versionCount `json:"versions"`
	NextToken      string         `json:"nextToken,omitempty"`
}

type versionCount struct {
	Version int64 `json:"version"`
	Things  int   `json:"things"`
}

// settleInput is the body that settles what differs of one thing.
type settleInput struct {
	// Revision is of the report that was seen.
	Revision string       `json:"revision"`
	Kinds    []drift.Kind `json:"kinds"`
	DryRun   bool         `json:"dryRun"`
}

// settledOutput says what was settled, and what is left since it cannot be
// repaired.
type settledOutput struct {
	ThingName string            `json:"thingName"`
	Settled   []driftDifference `json:"settled"`
	Left      []driftDifference `json:"left"`
}

// routeDrift adds the operations. Many things at a time are settled by bulk edits
// with the operation drift.
func (h *handler) routeDrift(mux *routes) {
	const drifts = Prefix + "drift"
	mux.HandleFunc("GET "+drifts, h.read(ActionListDrift, h.listDrift))
	mux.HandleFunc("GET "+drifts+"/templates/{template}/versions", h.read(ActionListDrift, h.driftVersions))
	mux.HandleFunc("GET "+drifts+"/things/{thing}", h.read(ActionGetDrift, func(ctx context.Context, r *http.Request) (any, error) {
		if _, err := numbersIn(r); err != nil {
			return nil, err
		}
		report, err := h.o.Promises.Show(ctx, h.o.Account(ctx), r.PathValue("thing"))
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		return driftOf(&report), nil
	}))
	mux.HandleFunc("POST "+drifts+"/things/{thing}/repair", h.operate(ActionRepairDrift, h.settleDrift(drift.Repair)))
	mux.HandleFunc("POST "+drifts+"/things/{thing}/accept", h.operate(ActionAcceptDrift, h.settleDrift(drift.Accept)))
}

func (h *handler) listDrift(ctx context.Context, r *http.Request) (any, error) {
	l, err := h.openList(ctx, r, "ops.drift", "", "query", "template", "version", "outdated", "all", "kind")
	if err != nil {
		return nil, err
	}
	c := drift.ListCommand{Query: l.values.Get("query"), Template: l.values.Get("template"), After: l.after, Limit: l.limit}
	if l.values.Has("version") {
		if c.Version, err = strconv.ParseInt(l.values.Get("version"), 10, 64); err != nil || c.Version < 1 {
			return nil, fault.New(fault.InvalidRequest, "version: is no number from 1 on")
		}
	}
	for name, flag := range map[string]*bool{"outdated": &c.Outdated, "all": &c.All} {
		if !l.values.Has(name) {
			continue
		}
		if *flag, err = strconv.ParseBool(l.values.Get(name)); err != nil {
			return nil, fault.New(fault.InvalidRequest, "%s: is true or false", name)
		}
	}
	if l.values.Has("kind") {
		for kind := range strings.SplitSeq(l.values.Get("kind"), ",") {
			c.Kinds = append(c.Kinds, drift.Kind(kind))
		}
	}
	page, err := h.o.Promises.List(ctx, l.account, c)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	out := promisedPageOutput{
		Things: make([]promisedOutput, len(page.Reports)), Examined: page.Examined, Drifting: page.Drifting, Outdated: page.Outdated,
		ByKind: page.ByKind, NextToken: h.nextToken(&l, page.Next),
	}
	for i := range page.Reports {
		out.Things[i] = driftOf(&page.Reports[i])
	}
	return out, nil
}

func (h *handler) driftVersions(ctx context.Context, r *http.Request) (any, error) {
	template := r.PathValue("template")
	l, err := h.openList(ctx, r, "ops.drift.versions", template)
	if err != nil {
		return nil, err
	}
	if l.values.Has("maxResults") {
		return nil, fault.New(fault.InvalidRequest, "maxResults: is no parameter of this operation")
	}
	counts, err := h.o.Promises.Versions(ctx, l.account, template, l.after)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	out := versionCountsOutput{
		TemplateName: template, DefaultVersion: counts.DefaultVersion, Versions: make([]versionCount, len(counts.Counts)),
		NextToken: h.nextToken(&l, counts.Next),
	}
	for i, c := range counts.Counts {
		out.Versions[i] = versionCount{c.Version, c.Things}
	}
	return out, nil
}

// settleDrift is an operation that lets one side give way.
func (h *handler) settleDrift(action drift.Action) func(ctx context.Context, r *http.Request, body []byte) (any, error) {
	return func(ctx context.Context, r *http.Request, body []byte) (any, error) {
		var in settleInput
		if err := decodeStrictly(body, &in); err != nil {
			return nil, err
		}
		thing := r.PathValue("thing")
		plan, err := h.o.Promises.SettleFor(ctx, h.o.Account(ctx), drift.SettleCommand{
			Thing: thing, Choice: drift.Choice{Action: action, Kinds: in.Kinds}, Revision: in.Revision, DryRun: in.DryRun,
		})
		if err != nil {
			return nil, err //nolint:wrapcheck // coded
		}
		return settledOutput{ThingName: thing, Settled: differencesOf(plan.Settles), Left: differencesOf(plan.Leaves)}, nil
	}
}

// driftOf is a report as answers show it.
func driftOf(r *drift.Report) promisedOutput {
	p := &r.Promise
	out := promisedOutput{
		ThingName: r.Thing, ThingID: r.ThingID, Drifts: r.Drifts(), Differences: differencesOf(r.Differences), ExtraPolicies: []string{}, Revision: r.Revision,
		Promise: promiseOutput{
			TemplateName: p.Template, TemplateVersion: p.Version, DefaultVersion: r.DefaultVersion, Outdated: r.Outdated(), Method: p.Method,
			MadeAt: stamp(p.Made), AcceptedAt: stamp(p.Accepted), ThingTypeName: p.TypeName, Attributes: p.Attributes, ThingGroups: p.Groups,
			BillingGroup: p.BillingGroup, CertificateID: p.CertificateID, Active: p.Active, Policies: p.Policies, Kept: p.Kept,
		},
	}
	for _, d := range r.Extra {
		out.ExtraPolicies = append(out.ExtraPolicies, d.Name)
	}
	if r.Certificate != nil {
		out.CertificateID, out.CertificateStatus = r.Certificate.ID, r.Certificate.Status
	}
	return out
}

func differencesOf(differences []drift.Difference) []driftDifference {
	out := make([]driftDifference, len(differences))
	for i, d := range differences {
		out[i] = driftDifference{d, d.Irreparable()}
	}
	return out
}

package adminapi

import (
	"context"
	"net/http"
	"strconv"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/onboarding"
)

// Actions on provisioning plans, on resource "*".
const (
	ActionCreatePlan   = "ops:CreateProvisioningPlan"
	ActionUpdatePlan   = "ops:UpdateProvisioningPlan"
	ActionPublishPlan  = "ops:PublishProvisioningPlan"
	ActionRetirePlan   = "ops:RetireProvisioningPlan"
	ActionListPlans    = "ops:ListProvisioningPlans"
	ActionDescribePlan = "ops:DescribeProvisioningPlan"
)

// maxPlanBody bounds a request with a plan in bytes: JSON may need two for one.
const maxPlanBody = 128 << 10

// Plans are documents of how devices come into service.
type Plans interface {
	Create(ctx context.Context, account fleet.Account, source string) (onboarding.Version, error)
	Update(ctx context.Context, account fleet.Account, id, source string) (onboarding.Version, error)
	Publish(ctx context.Context, account fleet.Account, id string) (onboarding.Version, error)
	Retire(ctx context.Context, account fleet.Account, id string) (onboarding.Version, error)
	Describe(ctx context.Context, account fleet.Account, id string, number int64) (onboarding.Version, error)
	Diff(ctx context.Context, account fleet.Account, id string, from, to int64) (used [2]int64, diff []onboarding.Difference, err error)
	Plans(ctx context.Context, account fleet.Account, after string, limit int) (plans []onboarding.Summary, next string, err error)
}

// planInput is the body that makes or changes a plan.
type planInput struct {
	// PlanBody is YAML.
	PlanBody string `json:"planBody"`
}

// planOutput is one version of a plan. Times are RFC 3339 in UTC with
// milliseconds.
type planOutput struct {
	ID          string            `json:"planId"`
	Version     int64             `json:"version"`
	Status      onboarding.Status `json:"status"`
	WrittenAt   string            `json:"writtenAt"`
	WrittenBy   fleet.Principal   `json:"writtenBy"`
	PublishedAt string            `json:"publishedAt,omitempty"`
	PublishedBy *fleet.Principal  `json:"publishedBy,omitempty"`
	RetiredAt   string            `json:"retiredAt,omitempty"`
	RetiredBy   *fleet.Principal  `json:"retiredBy,omitempty"`
	Plan        onboarding.Plan   `json:"plan"`
	// PlanBody is the text as it was handed in.
	PlanBody string `json:"planBody"`
}

// planSummary is a plan in a list.
type planSummary struct {
	ID     string            `json:"planId"`
	Name   string            `json:"name"`
	Status onboarding.Status `json:"status"`
	// PublishedVersion is in force, DraftVersion can be changed; absent for none.
	PublishedVersion int64  `json:"publishedVersion,omitempty"`
	DraftVersion     int64  `json:"draftVersion,omitempty"`
	NewestVersion    int64  `json:"newestVersion"`
	CreatedAt        string `json:"createdAt"`
	ChangedAt        string `json:"changedAt"`
}

// plansOutput is a page of plans, by id.
type plansOutput struct {
	Plans     []planSummary `json:"plans"`
	NextToken string        `json:"nextToken,omitempty"`
}

// planDiffOutput is what differs between two versions.
type planDiffOutput struct {
	From        int64                   `json:"from"`
	To          int64                   `json:"to"`
	Differences []onboarding.Difference `json:"differences"`
}

// documentOutput is a document for people.
type documentOutput struct {
	// Format is md.
	Format   string `json:"format"`
	Document string `json:"document"`
}

// routePlans adds the operations on plans.
func (h *handler) routePlans(mux *routes) {
	const plans = Prefix + "plans"
	mux.HandleFunc("POST "+plans, h.operateUpTo(maxPlanBody, ActionCreatePlan, func(ctx context.Context, _ *http.Request, body []byte) (any, error) {
		var in planInput
		if err := decodeStrictly(body, &in); err != nil {
			return nil, err
		}
		return planAnswer(h.o.Plans.Create(ctx, h.o.Account(ctx), in.PlanBody))
	}))
	mux.HandleFunc("PUT "+plans+"/{plan}", h.operateUpTo(maxPlanBody, ActionUpdatePlan, func(ctx context.Context, r *http.Request, body []byte) (any, error) {
		var in planInput
		if err := decodeStrictly(body, &in); err != nil {
			return nil, err
		}
		return planAnswer(h.o.Plans.Update(ctx, h.o.Account(ctx), r.PathValue("plan"), in.PlanBody))
	}))
	mux.HandleFunc("GET "+plans, h.read(ActionListPlans, h.listPlans))
	mux.HandleFunc("GET "+plans+"/{plan}", h.read(ActionDescribePlan, func(ctx context.Context, r *http.Request) (any, error) {
		return planAnswer(h.planVersion(ctx, r))
	}))
	mux.HandleFunc("GET "+plans+"/{plan}/document", h.read(ActionDescribePlan, func(ctx context.Context, r *http.Request) (any, error) {
		v, err := h.planVersion(ctx, r)
		if err != nil {
			return nil, err
		}
		return documentOutput{Format: "md", Document: v.Markdown()}, nil
	}))
	mux.HandleFunc("GET "+plans+"/{plan}/diff", h.read(ActionDescribePlan, h.diffPlan))
	mux.HandleFunc("POST "+plans+"/{plan}/publish", h.operate(ActionPublishPlan, func(ctx context.Context, r *http.Request, body []byte) (any, error) {
		if err := empty(body); err != nil {
			return nil, err
		}
		return planAnswer(h.o.Plans.Publish(ctx, h.o.Account(ctx), r.PathValue("plan")))
	}))
	mux.HandleFunc("POST "+plans+"/{plan}/retire", h.operate(ActionRetirePlan, func(ctx context.Context, r *http.Request, body []byte) (any, error) {
		if err := empty(body); err != nil {
			return nil, err
		}
		return planAnswer(h.o.Plans.Retire(ctx, h.o.Account(ctx), r.PathValue("plan")))
	}))
}

// empty refuses a body where nothing is taken.
func empty(body []byte) error {
	if len(body) > 0 {
		return fault.New(fault.InvalidRequest, "the body must be empty")
	}
	return nil
}

// planVersion is the version that a request names, or the one in force.
func (h *handler) planVersion(ctx context.Context, r *http.Request) (onboarding.Version, error) {
	numbers, err := numbersIn(r, "version")
	if err != nil {
		return onboarding.Version{}, err
	}
	return h.o.Plans.Describe(ctx, h.o.Account(ctx), r.PathValue("plan"), numbers[0])
}

// numbersIn reads parameters that count from 1, 0 for those that are absent; there
// are no others.
func numbersIn(r *http.Request, names ...string) ([]int64, error) {
	values, out := r.URL.Query(), make([]int64, len(names))
	for i, name := range names {
		if values.Has(name) {
			n, err := strconv.ParseInt(values.Get(name), 10, 64)
			if err != nil || n < 1 || len(values[name]) > 1 {
				return nil, fault.New(fault.InvalidRequest, "%s: is one whole number from 1 on", name)
			}
			out[i] = n
		}
		values.Del(name)
	}
	for name := range values {
		return nil, fault.New(fault.InvalidRequest, "%s: is no parameter of this operation", name)
	}
	return out, nil
}

func (h *handler) listPlans(ctx context.Context, r *http.Request) (any, error) {
	l, err := h.openList(ctx, r, "ops.plans", "")
	if err != nil {
		return nil, err
	}
	found, next, err := h.o.Plans.Plans(ctx, l.account, l.after, l.limit)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	out := plansOutput{Plans: make([]planSummary, len(found)), NextToken: h.nextToken(&l, next)}
	for i := range found {
		p := &found[i]
		out.Plans[i] = planSummary{
			ID: p.ID, Name: p.Name, Status: p.Status, PublishedVersion: p.Published, DraftVersion: p.Draft, NewestVersion: p.Newest,
			CreatedAt: stamp(p.Created), ChangedAt: stamp(p.Changed),
		}
	}
	return out, nil
}

func (h *handler) diffPlan(ctx context.Context, r *http.Request) (any, error) {
	numbers, err := numbersIn(r, "from", "to")
	if err != nil {
		return nil, err
	}
	used, diff, err := h.o.Plans.Diff(ctx, h.o.Account(ctx), r.PathValue("plan"), numbers[0], numbers[1])
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	return planDiffOutput{From: used[0], To: used[1], Differences: diff}, nil
}

// planAnswer is a version as answers show it.
func planAnswer(v onboarding.Version, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	out := planOutput{
		ID: v.Plan.ID, Version: v.Number, Status: v.Status, WrittenAt: stamp(v.Written), WrittenBy: v.WrittenBy,
		PublishedAt: stamp(v.Published), RetiredAt: stamp(v.Retired), Plan: v.Plan, PlanBody: v.Source,
	}
	if !v.Published.IsZero() {
		out.PublishedBy = &v.PublishedBy
	}
	if !v.Retired.IsZero() {
		out.RetiredBy = &v.RetiredBy
	}
	return out, nil
}

package apiclient

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
)

// Plan is one version of a provisioning plan. Times are RFC 3339.
type Plan struct {
	ID          string    `json:"planId"`
	Version     int64     `json:"version"`
	Status      string    `json:"status"`
	WrittenAt   string    `json:"writtenAt"`
	WrittenBy   Principal `json:"writtenBy"`
	PublishedAt string    `json:"publishedAt,omitempty"`
	PublishedBy Principal `json:"publishedBy,omitzero"`
	RetiredAt   string    `json:"retiredAt,omitempty"`
	RetiredBy   Principal `json:"retiredBy,omitzero"`
	// Plan is the plan as the server reads it.
	Plan json.RawMessage `json:"plan"`
	Body string          `json:"planBody"`
}

// Principal is who did something.
type Principal struct {
	Kind string `json:"kind"`
	ID   string `json:"id,omitempty"`
	ARN  string `json:"arn,omitempty"`
}

// PlanSummary is a plan in a list; versions are 0 for none.
type PlanSummary struct {
	ID        string `json:"planId"`
	Name      string `json:"name"`
	Status    string `json:"status"`
	Published int64  `json:"publishedVersion,omitempty"`
	Draft     int64  `json:"draftVersion,omitempty"`
	Newest    int64  `json:"newestVersion"`
	Created   string `json:"createdAt"`
	Changed   string `json:"changedAt"`
}

// PlanDiff is what differs between two versions of a plan.
type PlanDiff struct {
	From        int64            `json:"from"`
	To          int64            `json:"to"`
	Differences []PlanDifference `json:"differences"`
}

// PlanDifference is one field; Before is empty for one that came, After for one
// that went.
type PlanDifference struct {
	Field  string `json:"field"`
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// OnboardedDevice is how far a device is. Times are RFC 3339.
type OnboardedDevice struct {
	Key          string            `json:"deviceKey"`
	Plan         string            `json:"planId"`
	PlanVersion  int64             `json:"planVersion"`
	State        string            `json:"state"`
	Stage        string            `json:"currentStage,omitempty"`
	StageSince   string            `json:"stageSince,omitempty"`
	StuckAt      string            `json:"stuckAt,omitempty"`
	Stuck        bool              `json:"stuck,omitempty"`
	Life         int               `json:"life"`
	Begun        string            `json:"begunAt"`
	Completed    string            `json:"completedAt,omitempty"`
	Thing        string            `json:"thingName,omitempty"`
	Certificate  string            `json:"certificateId,omitempty"`
	Metadata     map[string]string `json:"metadata,omitempty"`
	Problems     []string          `json:"problems,omitempty"`
	Steps        []OnboardingStep  `json:"steps,omitempty"`
	ExitCriteria []ExitCriterion   `json:"exitCriteria,omitempty"`
	History      []OnboardingEntry `json:"history,omitempty"`
	LostEntries  int               `json:"lostEntries,omitempty"`
}

// OnboardingStep is a step of a device's plan.
type OnboardingStep struct {
	Stage     string   `json:"stage"`
	Step      string   `json:"step"`
	Title     string   `json:"title"`
	Completed string   `json:"completedAt,omitempty"`
	WaitsFor  []string `json:"waitsFor,omitempty"`
}

// ExitCriterion is a fleet query; its outcome is OPEN, MET or FAILED.
type ExitCriterion struct {
	Stage         string `json:"stage"`
	Predicate     string `json:"predicate"`
	WithinSeconds int64  `json:"withinSeconds"`
	Deadline      string `json:"deadline"`
	Outcome       string `json:"outcome"`
	Decided       string `json:"decidedAt,omitempty"`
}

// OnboardingEntry is a line of a device's history.
type OnboardingEntry struct {
	At        string    `json:"at"`
	Life      int       `json:"life"`
	Stage     string    `json:"stage,omitempty"`
	Step      string    `json:"step,omitempty"`
	State     string    `json:"state,omitempty"`
	Result    string    `json:"result"`
	Actor     string    `json:"actor,omitempty"`
	Principal Principal `json:"principal"`
	Evidence  string    `json:"evidence,omitempty"`
	Note      string    `json:"note,omitempty"`
	Last      string    `json:"lastAt,omitempty"`
	Count     int       `json:"count,omitempty"`
}

// OnboardingFilter narrows a list of devices; empty members do not. OlderThan is a
// time such as 72h.
type OnboardingFilter struct {
	State, Stage, OlderThan string
	Stuck                   bool
}

func planPath(parts ...string) string {
	return Path(append([]string{"ops", "v1", "plans"}, parts...)...)
}

func onboardingPath(parts ...string) string {
	return Path(append([]string{"ops", "v1", "onboarding"}, parts...)...)
}

// planBody is what makes or changes a plan.
type planBody struct {
	Body string `json:"planBody"`
}

// CreatePlan makes a plan from YAML.
func (c *Client) CreatePlan(ctx context.Context, body string) (p Plan, err error) {
	err = c.JSON(ctx, change(http.MethodPost, planPath(), nil), planBody{body}, &p)
	return p, err
}

// UpdatePlan replaces a plan's draft or begins one.
func (c *Client) UpdatePlan(ctx context.Context, id, body string) (p Plan, err error) {
	err = c.JSON(ctx, change(http.MethodPut, planPath(id), nil), planBody{body}, &p)
	return p, err
}

// PublishPlan puts a plan's draft in force.
func (c *Client) PublishPlan(ctx context.Context, id string) (p Plan, err error) {
	err = c.JSON(ctx, change(http.MethodPost, planPath(id, "publish"), nil), nil, &p)
	return p, err
}

// RetirePlan lets no further device follow a plan.
func (c *Client) RetirePlan(ctx context.Context, id string) (p Plan, err error) {
	err = c.JSON(ctx, change(http.MethodPost, planPath(id, "retire"), nil), nil, &p)
	return p, err
}

// number adds a parameter unless it is 0.
func number(query url.Values, name string, n int64) {
	if n != 0 {
		query.Set(name, strconv.FormatInt(n, 10))
	}
}

// DescribePlan returns a version of a plan; for 0 the one in force, or the newest.
func (c *Client) DescribePlan(ctx context.Context, id string, version int64) (p Plan, err error) {
	query := url.Values{}
	number(query, "version", version)
	err = c.JSON(ctx, get(planPath(id), query), nil, &p)
	return p, err
}

// DiffPlan compares two versions; for 0 the newest with the one before it.
func (c *Client) DiffPlan(ctx context.Context, id string, from, to int64) (d PlanDiff, err error) {
	query := url.Values{}
	number(query, "from", from)
	number(query, "to", to)
	err = c.JSON(ctx, get(planPath(id, "diff"), query), nil, &d)
	return d, err
}

// document reads a document for people.
func (c *Client) document(ctx context.Context, path string, query url.Values) (string, error) {
	var out struct {
		Document string `json:"document"`
	}
	err := c.JSON(ctx, get(path, query), nil, &out)
	return out.Document, err
}

// PlanDocument returns a version of a plan as Markdown.
func (c *Client) PlanDocument(ctx context.Context, id string, version int64) (string, error) {
	query := url.Values{}
	number(query, "version", version)
	return c.document(ctx, planPath(id, "document"), query)
}

// ListPlans returns up to limit plans; all for limit 0.
func (c *Client) ListPlans(ctx context.Context, limit int) ([]PlanSummary, error) {
	all := []PlanSummary{}
	err := pages(nil, limit, func(q url.Values) (int, string, error) {
		var page struct {
			Plans     []PlanSummary `json:"plans"`
			NextToken string        `json:"nextToken"`
		}
		err := c.JSON(ctx, get(planPath(), q), nil, &page)
		all = append(all, page.Plans...)
		return len(page.Plans), page.NextToken, err
	})
	return all, err
}

// ExpectDevice announces a device for a plan.
func (c *Client) ExpectDevice(ctx context.Context, device, plan string, metadata map[string]string) (d OnboardedDevice, err error) {
	in := struct {
		Device   string            `json:"deviceKey,omitempty"`
		Plan     string            `json:"planId"`
		Metadata map[string]string `json:"metadata,omitempty"`
	}{device, plan, metadata}
	err = c.JSON(ctx, change(http.MethodPost, onboardingPath(), nil), in, &d)
	return d, err
}

// CompleteStep reports a step of a device's plan.
func (c *Client) CompleteStep(ctx context.Context, device, step, evidence, note string) (d OnboardedDevice, err error) {
	in := struct {
		Evidence string `json:"evidence,omitempty"`
		Note     string `json:"note,omitempty"`
	}{evidence, note}
	err = c.JSON(ctx, change(http.MethodPost, onboardingPath(device, "steps", step, "complete"), nil), in, &d)
	return d, err
}

// Onboarding returns how far a device is, with its history.
func (c *Client) Onboarding(ctx context.Context, device string) (d OnboardedDevice, err error) {
	err = c.JSON(ctx, get(onboardingPath(device), nil), nil, &d)
	return d, err
}

// OnboardingDocument returns a device's history with its plan as Markdown.
func (c *Client) OnboardingDocument(ctx context.Context, device string) (string, error) {
	return c.document(ctx, onboardingPath(device, "document"), nil)
}

// ListOnboarding returns up to limit devices, without steps and history; all for
// limit 0.
func (c *Client) ListOnboarding(ctx context.Context, filter OnboardingFilter, limit int) ([]OnboardedDevice, error) {
	query := url.Values{}
	for name, value := range map[string]string{"state": filter.State, "stage": filter.Stage, "olderThan": filter.OlderThan} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if filter.Stuck {
		query.Set("stuck", "true")
	}
	all := []OnboardedDevice{}
	err := pages(query, limit, func(q url.Values) (int, string, error) {
		var page struct {
			Devices   []OnboardedDevice `json:"devices"`
			NextToken string            `json:"nextToken"`
		}
		err := c.JSON(ctx, get(onboardingPath(), q), nil, &page)
		all = append(all, page.Devices...)
		return len(page.Devices), page.NextToken, err
	})
	return all, err
}

package adminapi

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/onboarding"
)

// Actions on devices that come into service, on resource "*".
const (
	ActionExpectDevice           = "ops:ExpectDevice"
	ActionListOnboarding         = "ops:ListOnboarding"
	ActionDescribeOnboarding     = "ops:DescribeOnboarding"
	ActionCompleteOnboardingStep = "ops:CompleteOnboardingStep"
)

// Onboarding keeps how far devices are.
type Onboarding interface {
	Expect(ctx context.Context, account fleet.Account, c onboarding.ExpectCommand) (onboarding.Device, error)
	Complete(ctx context.Context, account fleet.Account, c onboarding.CompleteCommand) (onboarding.Device, error)
	Device(ctx context.Context, account fleet.Account, key string) (onboarding.Device, error)
	Devices(ctx context.Context, account fleet.Account, q onboarding.Query) (found []onboarding.Device, next string, err error)
}

// expectInput is the body that announces a device.
type expectInput struct {
	// DeviceKey may be left out for the uniqueId of the metadata.
	DeviceKey string            `json:"deviceKey"`
	PlanID    string            `json:"planId"`
	Metadata  map[string]string `json:"metadata"`
}

// completeInput is the body that reports a step; it may be empty where the step
// needs no evidence.
type completeInput struct {
	// Evidence refers to the proof.
	Evidence string `json:"evidence"`
	Note     string `json:"note"`
}

// onboardingOutput is a device. Times are RFC 3339 in UTC with milliseconds.
type onboardingOutput struct {
	DeviceKey   string           `json:"deviceKey"`
	PlanID      string           `json:"planId"`
	PlanVersion int64            `json:"planVersion"`
	State       onboarding.State `json:"state"`
	// CurrentStage is absent when all stages are done.
	CurrentStage  string            `json:"currentStage,omitempty"`
	StageSince    string            `json:"stageSince,omitempty"`
	StuckAt       string            `json:"stuckAt,omitempty"`
	Stuck         bool              `json:"stuck,omitempty"`
	Life          int               `json:"life"`
	BegunAt       string            `json:"begunAt"`
	CompletedAt   string            `json:"completedAt,omitempty"`
	ThingName     string            `json:"thingName,omitempty"`
	CertificateID string            `json:"certificateId,omitempty"`
	Metadata      map[string]string `json:"metadata,omitempty"`
	Problems      []string          `json:"problems,omitempty"`
	// Steps, ExitCriteria and History are not in lists.
	Steps        []onboardingStep      `json:"steps,omitempty"`
	ExitCriteria []onboardingCriterion `json:"exitCriteria,omitempty"`
	History      []onboardingEntry     `json:"history,omitempty"`
	// LostEntries counts those that the history had no room for.
	LostEntries int `json:"lostEntries,omitempty"`
}

// onboardingStep is a step of the device's plan.
type onboardingStep struct {
	Stage       string   `json:"stage"`
	Step        string   `json:"step"`
	Title       string   `json:"title"`
	CompletedAt string   `json:"completedAt,omitempty"`
	WaitsFor    []string `json:"waitsFor,omitempty"`
}

// onboardingCriterion is an exit criterion; it is OPEN, MET or FAILED.
type onboardingCriterion struct {
	Stage         string `json:"stage"`
	Predicate     string `json:"predicate"`
	WithinSeconds int64  `json:"withinSeconds"`
	Deadline      string `json:"deadline"`
	Outcome       string `json:"outcome"`
	DecidedAt     string `json:"decidedAt,omitempty"`
}

// onboardingEntry is a line of the history.
type onboardingEntry struct {
	At        string            `json:"at"`
	Life      int               `json:"life"`
	Stage     string            `json:"stage,omitempty"`
	Step      string            `json:"step,omitempty"`
	State     onboarding.State  `json:"state,omitempty"`
	Result    onboarding.Result `json:"result"`
	Actor     string            `json:"actor,omitempty"`
	Principal fleet.Principal   `json:"principal"`
	Evidence  string            `json:"evidence,omitempty"`
	Note      string            `json:"note,omitempty"`
	LastAt    string            `json:"lastAt,omitempty"`
	Count     int               `json:"count,omitempty"`
}

// onboardingsOutput is a page of devices.
type onboardingsOutput struct {
	Devices   []onboardingOutput `json:"devices"`
	NextToken string             `json:"nextToken,omitempty"`
}

// routeOnboarding adds the operations on devices.
func (h *handler) routeOnboarding(mux *routes) {
	const devices = Prefix + "onboarding"
	mux.HandleFunc("POST "+devices, h.operate(ActionExpectDevice, func(ctx context.Context, _ *http.Request, body []byte) (any, error) {
		var in expectInput
		if err := decodeStrictly(body, &in); err != nil {
			return nil, err
		}
		return deviceAnswer(h.o.Onboarding.Expect(ctx, h.o.Account(ctx), onboarding.ExpectCommand{Device: in.DeviceKey, Plan: in.PlanID, Metadata: in.Metadata}))
	}))
	mux.HandleFunc("GET "+devices, h.read(ActionListOnboarding, h.listOnboarding))
	mux.HandleFunc("GET "+devices+"/{device}", h.read(ActionDescribeOnboarding, func(ctx context.Context, r *http.Request) (any, error) {
		if _, err := numbersIn(r); err != nil {
			return nil, err
		}
		return deviceAnswer(h.o.Onboarding.Device(ctx, h.o.Account(ctx), r.PathValue("device")))
	}))
	mux.HandleFunc("GET "+devices+"/{device}/document", h.read(ActionDescribeOnboarding, h.onboardingDocument))
	mux.HandleFunc("POST "+devices+"/{device}/steps/{step}/complete", h.operate(ActionCompleteOnboardingStep, h.completeStep))
}

func (h *handler) completeStep(ctx context.Context, r *http.Request, body []byte) (any, error) {
	var in completeInput
	if len(body) > 0 {
		if err := decodeStrictly(body, &in); err != nil {
			return nil, err
		}
	}
	return deviceAnswer(h.o.Onboarding.Complete(ctx, h.o.Account(ctx), onboarding.CompleteCommand{
		Device: r.PathValue("device"), Step: r.PathValue("step"), Evidence: in.Evidence, Note: in.Note,
	}))
}

// onboardingDocument is what an auditor reads: the device's history and the plan in
// the version that it follows.
func (h *handler) onboardingDocument(ctx context.Context, r *http.Request) (any, error) {
	if _, err := numbersIn(r); err != nil {
		return nil, err
	}
	account := h.o.Account(ctx)
	d, err := h.o.Onboarding.Device(ctx, account, r.PathValue("device"))
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	v, err := h.o.Plans.Describe(ctx, account, d.Plan, d.PlanVersion)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	return documentOutput{Format: "md", Document: d.Markdown(&v, h.o.Now())}, nil
}

func (h *handler) listOnboarding(ctx context.Context, r *http.Request) (any, error) {
	l, err := h.openList(ctx, r, "ops.onboarding", "", "state", "stage", "olderThan", "stuck")
	if err != nil {
		return nil, err
	}
	q := onboarding.Query{State: onboarding.State(l.values.Get("state")), Stage: l.values.Get("stage"), After: l.after, Limit: l.limit}
	if l.values.Has("olderThan") {
		if q.OlderThan, err = time.ParseDuration(l.values.Get("olderThan")); err != nil || q.OlderThan <= 0 {
			return nil, fault.New(fault.InvalidRequest, "olderThan: is no time such as 72h")
		}
	}
	if l.values.Has("stuck") {
		if q.Stuck, err = strconv.ParseBool(l.values.Get("stuck")); err != nil {
			return nil, fault.New(fault.InvalidRequest, "stuck: is true or false")
		}
	}
	found, next, err := h.o.Onboarding.Devices(ctx, l.account, q)
	if err != nil {
		return nil, err //nolint:wrapcheck // coded
	}
	out := onboardingsOutput{Devices: make([]onboardingOutput, len(found)), NextToken: h.nextToken(&l, next)}
	for i := range found {
		out.Devices[i] = onboardingOf(&found[i])
	}
	return out, nil
}

// deviceAnswer is a device as answers show it.
func deviceAnswer(d onboarding.Device, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return onboardingOf(&d), nil
}

func onboardingOf(d *onboarding.Device) onboardingOutput {
	out := onboardingOutput{
		DeviceKey: d.Key, PlanID: d.Plan, PlanVersion: d.PlanVersion, State: d.State, CurrentStage: d.Stage, StageSince: stamp(d.StageSince),
		StuckAt: stamp(d.StuckAt), Stuck: d.Stuck, Life: d.Life, BegunAt: stamp(d.Begun), CompletedAt: stamp(d.Completed),
		ThingName: d.Thing, CertificateID: d.Certificate, Metadata: d.Metadata, Problems: d.Problems, LostEntries: d.Lost,
	}
	for _, s := range d.Steps {
		out.Steps = append(out.Steps, onboardingStep{Stage: s.Stage, Step: s.Step, Title: s.Title, CompletedAt: stamp(s.Completed), WaitsFor: s.WaitsFor})
	}
	for _, c := range d.Criteria {
		one := onboardingCriterion{
			Stage: c.Stage, Predicate: c.Predicate, WithinSeconds: int64(c.Within / time.Second), Deadline: stamp(c.Deadline), Outcome: "OPEN",
		}
		switch {
		case !c.Met.IsZero():
			one.Outcome, one.DecidedAt = "MET", stamp(c.Met)
		case !c.Failed.IsZero():
			one.Outcome, one.DecidedAt = "FAILED", stamp(c.Failed)
		}
		out.ExitCriteria = append(out.ExitCriteria, one)
	}
	for i := range d.History {
		e := &d.History[i]
		out.History = append(out.History, onboardingEntry{
			At: stamp(e.At), Life: e.Life, Stage: e.Stage, Step: e.Step, State: e.State, Result: e.Result, Actor: e.Actor, Principal: e.Principal,
			Evidence: e.Evidence, Note: e.Note, LastAt: stamp(e.Last), Count: e.Count,
		})
	}
	return out
}

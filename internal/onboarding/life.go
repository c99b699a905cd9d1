package onboarding

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// State is how far a device is.
type State string

// States of devices, in the order in which they are reached; a later one may come
// without those before it.
const (
	// StateExpected was announced, by whoever makes it or by an allow list.
	StateExpected     State = "EXPECTED"
	StateManufactured State = "MANUFACTURED"
	// StateShipped left the factory, or was seen on the network.
	StateShipped State = "SHIPPED"
	// StateRegistered has its certificate, and a thing if its template makes one.
	StateRegistered State = "REGISTERED"
	StateApproved   State = "APPROVED"
	// StateActive has connected with its operational certificate.
	StateActive State = "ACTIVE"

	// StateSuspended has been REGISTERED, and its certificate is not active now.
	StateSuspended State = "SUSPENDED"
	// StateDecommissioned is taken out of service.
	StateDecommissioned State = "DECOMMISSIONED"
	// StateRejected was refused, and has not joined since.
	StateRejected State = "REJECTED"
)

// ways are the states that follow each other.
func ways() []State {
	return []State{StateExpected, StateManufactured, StateShipped, StateRegistered, StateApproved, StateActive}
}

// states are all of them.
func states() []State {
	return append(ways(), StateSuspended, StateDecommissioned, StateRejected)
}

// rank counts the states that follow each other from 1; 0 for another one.
func (s State) rank() int { return slices.Index(ways(), s) + 1 }

// Result says what an entry of a device's history reports.
type Result string

// Results.
const (
	// ResultCompleted is a step that was done; OutOfOrder one that the platform saw
	// before steps that it depends on were done.
	ResultCompleted  Result = "COMPLETED"
	ResultOutOfOrder Result = "OUT_OF_ORDER"
	// ResultReached is a state without a step of its own.
	ResultReached Result = "REACHED"
	// ResultRefused is a device that was not let in.
	ResultRefused Result = "REFUSED"
	// ResultMet and ResultFailed are about an exit criterion.
	ResultMet    Result = "CRITERION_MET"
	ResultFailed Result = "CRITERION_FAILED"
	// ResultNoted is what should be known and changes nothing.
	ResultNoted Result = "NOTED"
)

const (
	// maxHistory bounds a device's history: beyond it, what may come any number of
	// times is left out. Steps always fit.
	maxHistory = 2000
	// maxRefusals bounds the refusals of it that are kept apart.
	maxRefusals = 50
	// firstLook is when exit criteria are looked at first after the activation.
	firstLook = 5 * time.Second
)

// entry is one line of a device's history. Times are in milliseconds.
type entry struct {
	At     int64  `json:"at"`
	Stage  string `json:"stage,omitempty"`
	Step   string `json:"step,omitempty"`
	State  State  `json:"state,omitempty"`
	Result Result `json:"result"`
	// Principal did it.
	Principal fleet.Principal `json:"principal,omitzero"`
	Evidence  string          `json:"evidence,omitempty"`
	Note      string          `json:"note,omitempty"`
	// Last and Count are of a refusal that came again.
	Last  int64 `json:"last,omitempty"`
	Count int   `json:"count,omitempty"`
	// Life is the device's life that it belongs to, from 1.
	Life int `json:"life"`
}

// criterion is an exit criterion of an active device.
type criterion struct {
	Stage     string `json:"stage"`
	Predicate string `json:"predicate"`
	// Metadata says that it is about the plan's metadata and no query.
	Metadata bool `json:"metadata,omitempty"`
	// Within and Deadline are in milliseconds.
	Within   int64 `json:"within"`
	Deadline int64 `json:"deadline"`
	// Met and Failed are when it was decided, 0 for open.
	Met    int64 `json:"met,omitempty"`
	Failed int64 `json:"failed,omitempty"`
}

// open reports that nothing is decided.
func (c *criterion) open() bool { return c.Met == 0 && c.Failed == 0 }

// record is one device.
type record struct {
	Schema  int    `json:"v"`
	Plan    string `json:"plan"`
	Version int64  `json:"version"`
	// Life counts how often the device joined again after it was decommissioned.
	Life  int   `json:"life"`
	Begun int64 `json:"begun"`
	// Reached are the states of this life and when.
	Reached        map[State]int64 `json:"reached"`
	Suspended      bool            `json:"suspended,omitempty"`
	Rejected       bool            `json:"rejected,omitempty"`
	Decommissioned bool            `json:"decommissioned,omitempty"`
	// Stage is the first that has a step which is not done; empty when all are.
	Stage      string `json:"stage,omitempty"`
	StageSince int64  `json:"stageSince,omitempty"`
	// StuckAt is when the stage's limit is over; 0 for none.
	StuckAt   int64 `json:"stuckAt,omitempty"`
	Completed int64 `json:"completed,omitempty"`
	// Thing and Certificate are what the device acts as now.
	Thing       string            `json:"thing,omitempty"`
	Certificate string            `json:"certificate,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
	// Problems are differences between the thing and the plan's metadata.
	Problems []string         `json:"problems,omitempty"`
	Steps    map[string]int64 `json:"steps,omitempty"`
	Criteria []criterion      `json:"criteria,omitempty"`
	// Look is when the criteria are looked at next; 0 for never.
	Look    int64   `json:"look,omitempty"`
	History []entry `json:"history,omitempty"`
	// Lost counts entries that did not fit.
	Lost int `json:"lost,omitempty"`
}

// state is how far the device is.
func (r *record) state() State {
	best := StateExpected
	for s := range r.Reached {
		if s.rank() > best.rank() {
			best = s
		}
	}
	switch {
	case r.Decommissioned:
		return StateDecommissioned
	case r.Rejected && best.rank() < StateRegistered.rank():
		return StateRejected
	case r.Suspended && best.rank() >= StateRegistered.rank():
		return StateSuspended
	}
	return best
}

// life is a device with its plan at a moment: what happens to it, decided.
type life struct {
	*record

	key  string
	plan *Plan
	at   time.Time
	// by is who does it.
	by fleet.Principal
	// evidence refers to the event that it follows from; empty for none.
	evidence string
	// steps are those that were completed.
	steps []string
	// failed are the criteria that have failed.
	failed  []criterion
	changed bool
}

func (l *life) ms() int64 { return l.at.UnixMilli() }

// note adds an entry to the history.
func (l *life) note(e entry) {
	l.changed = true
	if len(l.History) >= maxHistory && e.Step == "" {
		l.Lost++
		return
	}
	if e.At == 0 {
		e.At = l.ms()
	}
	if e.Principal == (fleet.Principal{}) {
		e.Principal = l.by
	}
	if e.Evidence == "" {
		e.Evidence = l.evidence
	}
	e.Life = l.Life
	l.History = append(l.History, e)
}

// begin starts a device's life, or another one after it was decommissioned.
func (l *life) begin() {
	r := l.record
	r.Life++
	r.Begun = l.ms()
	r.Reached, r.Steps, r.Criteria, r.Problems = map[State]int64{}, map[string]int64{}, nil, nil
	r.Suspended, r.Rejected, r.Decommissioned = false, false, false
	r.Stage, r.StageSince, r.StuckAt, r.Completed, r.Look = "", 0, 0, 0, 0
	l.advance()
	l.changed = true
}

// advance finds the stage that the device is in.
func (l *life) advance() {
	stage := l.firstOpen()
	r := l.record
	switch {
	case stage == nil:
		if r.Completed == 0 {
			r.Completed, r.Stage, r.StageSince = l.ms(), "", 0
		}
	case stage.ID != r.Stage:
		r.Stage, r.StageSince = stage.ID, l.ms()
	}
	r.StuckAt = 0
	if stage != nil && stage.Limit.Duration() > 0 {
		if s := r.state(); s != StateDecommissioned && s != StateRejected {
			r.StuckAt = r.StageSince + stage.Limit.Duration().Milliseconds()
		}
	}
}

// firstOpen is the first stage with a step that is not done.
func (l *life) firstOpen() *Stage {
	for i := range l.plan.Stages {
		for j := range l.plan.Stages[i].Steps {
			if l.Steps[l.plan.Stages[i].Steps[j].ID] == 0 {
				return &l.plan.Stages[i]
			}
		}
	}
	return nil
}

// missing are the steps that a step depends on and that are not done.
func (l *life) missing(s *Step) []string {
	var out []string
	for _, on := range s.DependsOn {
		if l.Steps[on] == 0 {
			out = append(out, on)
		}
	}
	return out
}

// reach brings the device to a state that the platform has seen, or that a step
// brings. It happens once in a life.
func (l *life) reach(s State, note string) {
	if l.Reached[s] != 0 {
		return
	}
	l.Reached[s] = l.ms()
	l.changed = true
	if s.rank() >= StateRegistered.rank() {
		l.Rejected = false
	}
	done := false
	for i := range l.plan.Stages {
		for j := range l.plan.Stages[i].Steps {
			step := &l.plan.Stages[i].Steps[j]
			if step.State != s || step.Mode != Programmatic || l.Steps[step.ID] != 0 {
				continue
			}
			done = true
			e := entry{Stage: l.plan.Stages[i].ID, Step: step.ID, State: s, Result: ResultCompleted, Note: note}
			if missing := l.missing(step); len(missing) > 0 {
				e.Result = ResultOutOfOrder
				e.Note = strings.TrimPrefix(fmt.Sprintf("%s; seen before %s was done", note, strings.Join(missing, " and ")), "; ")
			}
			l.complete(e)
		}
	}
	if !done {
		l.note(entry{State: s, Result: ResultReached, Note: note})
	}
	if s == StateActive {
		l.watch()
	}
	l.advance()
}

// complete marks a step as done.
func (l *life) complete(e entry) {
	l.Steps[e.Step] = l.ms()
	l.steps = append(l.steps, e.Step)
	l.note(e)
}

// watch begins to look after the exit criteria.
func (l *life) watch() {
	if within := l.plan.Metadata.Within.Duration().Milliseconds(); within > 0 {
		l.Criteria = append(l.Criteria, criterion{
			Stage: l.plan.activation(), Predicate: metadataPredicate, Metadata: true, Within: within, Deadline: l.ms() + within,
		})
	}
	for i := range l.plan.Stages {
		for _, c := range l.plan.Stages[i].ExitCriteria {
			within := c.Within.Duration().Milliseconds()
			l.Criteria = append(l.Criteria, criterion{
				Stage: l.plan.Stages[i].ID, Predicate: c.Predicate, Within: within, Deadline: l.ms() + within,
			})
		}
	}
	l.schedule()
}

// schedule decides when the criteria are looked at next: soon after the
// activation, then ever more seldom, and at each deadline.
func (l *life) schedule() {
	l.Look = 0
	if l.Decommissioned {
		return
	}
	elapsed := l.ms() - l.Reached[StateActive]
	next := l.ms() + max(firstLook.Milliseconds(), elapsed/2)
	for i := range l.Criteria {
		if c := &l.Criteria[i]; c.open() {
			next = min(next, max(c.Deadline, l.ms()+1))
			l.Look = next
		}
	}
	if l.Look != 0 {
		l.Look = next
	}
}

// report completes a step that somebody hands in.
func (l *life) report(id, evidence, note string) error {
	stage, step := l.plan.step(id)
	switch {
	case step == nil:
		return fault.New(fault.ResourceNotFound, "plan %s version %d has no step %q", l.Plan, l.Version, id)
	case l.Decommissioned:
		return fault.New(fault.Conflict, "the device is decommissioned")
	case step.Mode == Programmatic && step.State != "":
		return fault.New(fault.InvalidRequest, "step: %s is done when the platform sees that the device is %s; nobody can report it", id, step.State)
	case l.Steps[id] != 0:
		return fault.New(fault.Conflict, "step %s was completed at %s", id, time.UnixMilli(l.Steps[id]).UTC().Format(time.RFC3339))
	case step.EvidenceRequired && evidence == "":
		return fault.New(fault.InvalidRequest, "evidence: step %s needs a reference to it", id)
	}
	if missing := l.missing(step); len(missing) > 0 {
		return fault.New(fault.Conflict, "step %s comes after %s, which %s not done", id, strings.Join(missing, " and "), isAre(missing))
	}
	l.complete(entry{Stage: stage.ID, Step: id, State: step.State, Result: ResultCompleted, Evidence: evidence, Note: note})
	if step.State != "" && l.Reached[step.State] == 0 {
		l.Reached[step.State] = l.ms()
	}
	l.advance()
	return nil
}

func isAre(things []string) string {
	if len(things) == 1 {
		return "is"
	}
	return "are"
}

// refuse notes that the device was not let in. The same refusal again only counts.
func (l *life) refuse(reason string) {
	if l.Reached[StateRegistered] == 0 {
		l.Rejected = true
	}
	refusals := 0
	for i := range l.History {
		e := &l.History[i]
		if e.Result != ResultRefused || e.Life != l.Life {
			continue
		}
		if refusals++; e.Note == reason {
			e.Last, e.Count, l.changed = l.ms(), max(e.Count, 1)+1, true
			l.advance()
			return
		}
	}
	if refusals >= maxRefusals {
		l.Lost++
		l.changed = true
	} else {
		l.note(entry{Result: ResultRefused, Note: reason})
	}
	l.advance()
}

// suspend and resume follow the state of the device's certificate.
func (l *life) suspend(note string) {
	if !l.Suspended {
		l.Suspended = true
		l.note(entry{State: StateSuspended, Result: ResultReached, Note: note})
	}
}

func (l *life) resume(note string) {
	if l.Suspended {
		l.Suspended = false
		l.note(entry{State: l.state(), Result: ResultReached, Note: note})
	}
}

// end takes the device out of service; what is told about it later is added.
func (l *life) end(note string) {
	if l.Decommissioned {
		l.note(entry{Result: ResultNoted, Note: note})
		return
	}
	l.Decommissioned, l.Look = true, 0
	l.note(entry{State: StateDecommissioned, Result: ResultReached, Note: note})
	l.advance()
}

// reviewed notes what of the thing is not as the plan and the announcement say.
func (l *life) reviewed(attributes map[string]string, typeName string) {
	problems := l.plan.review(l.Metadata, attributes, typeName)
	if slices.Equal(problems, l.Problems) {
		return
	}
	l.Problems = problems
	note := "metadata: the thing is as it should be now"
	if len(problems) > 0 {
		note = "metadata: " + strings.Join(problems, "; ")
	}
	l.note(entry{Result: ResultNoted, Note: note})
	for i := range l.Criteria {
		if c := &l.Criteria[i]; c.Metadata && c.open() {
			l.Look = l.ms()
		}
	}
}

// judge decides the criteria that hold, and those whose time is over.
func (l *life) judge(holds func(predicate string) bool) {
	for i := range l.Criteria {
		c := &l.Criteria[i]
		switch {
		case !c.open():
		case c.Metadata && l.Thing != "" && len(l.Problems) == 0, !c.Metadata && holds(c.Predicate):
			c.Met = l.ms()
			l.note(entry{Stage: c.Stage, Result: ResultMet, Note: c.Predicate})
		case c.Deadline <= l.ms():
			c.Failed = l.ms()
			l.failed = append(l.failed, *c)
			l.note(entry{Stage: c.Stage, Result: ResultFailed, Note: fmt.Sprintf(
				"%s did not hold within %s of the activation", c.Predicate, time.Duration(c.Within)*time.Millisecond)})
		}
	}
	l.schedule()
	l.changed = true
}

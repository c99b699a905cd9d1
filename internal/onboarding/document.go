package onboarding

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/markdown"
)

// document is one in the making.
type document struct{ markdown.Document }

// whom names a principal.
func whom(p fleet.Principal) string {
	switch {
	case p.Kind == fleet.PrincipalSystem || p.Kind == "":
		return "Muster"
	case p.ARN != "":
		return p.ARN
	}
	return strings.TrimSpace(p.Kind + " " + p.ID)
}

// Markdown is the plan as a document for people.
func (v *Version) Markdown() string {
	w := &document{}
	w.Line("# Provisioning plan: %s", markdown.Inline(v.Plan.Name))
	w.Line("")
	w.plan(v, "##")
	return w.String()
}

// plan writes what a plan says, under headings of a level.
func (w *document) plan(v *Version, level string) {
	p := &v.Plan
	w.Line("This plan, `%s`, version %d, says how devices%s come into service: who does what, in which order, and what is kept as evidence. %s",
		p.ID, v.Number, of(p.ProductLine), v.standing())
	w.Line("")
	if p.SelfProvisioned {
		w.Line("Devices provision themselves: no user takes part when they join.")
	} else {
		w.Line("Devices do not provision themselves: somebody takes part when they join.")
	}
	w.Line("%s %s", p.AppliesTo.words(), p.DeviceKey.words(&p.Metadata))
	if p.OwnershipCheck != "" {
		w.Line("")
		w.Line("%s How it is made sure that a new device is ours", level)
		w.Line("")
		w.Quote(p.OwnershipCheck)
	}
	if facts := p.Metadata.facts(); len(facts) > 0 {
		w.Line("")
		w.Line("%s What is known from manufacture", level)
		w.Head("Fact", "Thing attribute", "Required", "Thing types by model")
		for _, f := range facts {
			var types []string
			for _, model := range slices.Sorted(maps.Keys(f.ThingTypes)) {
				types = append(types, model+": "+f.ThingTypes[model])
			}
			w.Row(f.name, f.Attribute, yes(f.Required), strings.Join(types, ", "))
		}
		if p.Metadata.Within != "" {
			w.Line("")
			w.Line("The thing has to say so within %s of the activation.", p.Metadata.Within)
		}
	}
	w.Line("")
	w.Line("%s Stages and actors", level)
	w.Head("No.", "Stage", "Kind", "Actor", "Contact", "Time limit")
	for i := range p.Stages {
		s := &p.Stages[i]
		w.Row(strconv.Itoa(s.Order), s.Title, strings.ToLower(string(s.Kind)), s.Actor.who(), s.Actor.Contact, string(s.Limit))
	}
	for i := range p.Stages {
		w.stage(&p.Stages[i], level)
	}
}

// stage writes one stage.
func (w *document) stage(s *Stage, level string) {
	w.Line("")
	w.Line("%s Stage %d: %s", level, s.Order, markdown.Inline(s.Title))
	w.Line("")
	w.Line("%s is answerable for this stage.", markdown.Inline(s.Actor.who()))
	w.Head("Step", "What is done", "How", "Evidence", "Comes after")
	for j := range s.Steps {
		step := &s.Steps[j]
		w.Row(fmt.Sprintf("%d.%d %s", s.Order, step.Order, step.ID), step.Title, step.how(), step.proof(), strings.Join(step.DependsOn, ", "))
	}
	for j := range s.Steps {
		if step := &s.Steps[j]; step.Instruction != "" {
			w.Line("")
			w.Line("%s# Step %d.%d: %s", level, s.Order, step.Order, markdown.Inline(step.Title))
			w.Line("")
			w.Quote(step.Instruction)
		}
	}
	if len(s.ExitCriteria) > 0 {
		w.Line("")
		w.Line("After its activation, the device has to meet these criteria in the time given:")
		w.Head("Fleet query", "Within")
		for _, c := range s.ExitCriteria {
			w.Row(c.Predicate, string(c.Within))
		}
	}
}

// standing says whether a version is in force.
func (v *Version) standing() string {
	switch v.Status {
	case StatusPublished:
		return fmt.Sprintf("It was published on %s by %s and is in force.", markdown.When(v.Published), markdown.Inline(whom(v.PublishedBy)))
	case StatusRetired:
		return fmt.Sprintf("It was published on %s by %s and retired on %s by %s.",
			markdown.When(v.Published), markdown.Inline(whom(v.PublishedBy)), markdown.When(v.Retired), markdown.Inline(whom(v.RetiredBy)))
	case StatusDraft:
	}
	return fmt.Sprintf("**It is a draft**, last changed on %s by %s, and no device follows it.", markdown.When(v.Written), markdown.Inline(whom(v.WrittenBy)))
}

func of(productLine string) string {
	if productLine == "" {
		return ""
	}
	return " of the product line " + markdown.Inline(productLine)
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}

// words say which devices follow a plan.
func (a *AppliesTo) words() string {
	var parts []string
	for _, each := range []struct {
		name  string
		names []string
	}{
		{"that join by provisioning template", a.Templates},
		{"whose certificate is under authority", a.Authorities},
		{"whose thing has type", a.ThingTypes},
	} {
		if len(each.names) > 0 {
			quoted := make([]string, len(each.names))
			for i, n := range each.names {
				quoted[i] = "`" + n + "`"
			}
			parts = append(parts, each.name+" "+strings.Join(quoted, " or "))
		}
	}
	if len(parts) == 0 {
		return "It holds for devices that were announced for it."
	}
	return "It holds for devices that were announced for it, and for those " + strings.Join(parts, ", or ") + "."
}

// words say by what devices are known.
func (k KeySource) words(m *Metadata) string {
	switch k {
	case KeyUniqueID:
		return fmt.Sprintf("Each is known by its unique id, thing attribute `%s`.", m.UniqueID.Attribute)
	case KeyCertificate:
		return "Each is known by the fingerprint of its certificate."
	case KeyThingName:
	}
	return "Each is known by the name of its thing."
}

// how says who does a step.
func (s *Step) how() string {
	if s.Mode == Manual {
		return "by hand"
	}
	how := "by program"
	if s.State != "" {
		how = "seen by Muster: device is " + string(s.State)
	}
	if s.APIRef != "" {
		how += " (" + s.APIRef + ")"
	}
	return how
}

// proof says what evidence a step leaves.
func (s *Step) proof() string {
	switch {
	case s.EvidenceRequired:
		return "required"
	case s.Mode == Programmatic && s.State != "":
		return "the event or call in the log"
	}
	return "not required"
}

// Markdown is the device with its history and the plan that it follows, as an
// auditor reads it.
func (d *Device) Markdown(v *Version, at time.Time) string {
	w := &document{}
	w.Line("# Onboarding of device %s", markdown.Inline(d.Key))
	w.Line("")
	w.Line("As of %s. The device follows provisioning plan %s (`%s`), version %d, which is part of this document. It is **%s**. %s",
		markdown.When(at), markdown.Inline(v.Plan.Name), v.Plan.ID, v.Number, d.State, d.progress(v, at))
	if d.Life > 1 {
		w.Line("It has joined %d times; it was decommissioned in between.", d.Life)
	}
	w.facts(d)
	w.steps(d, v)
	w.criteria(d)
	w.history(d)
	w.Line("")
	w.Line("## The plan")
	w.Line("")
	w.plan(v, "###")
	return w.String()
}

// progress says in words how far a device is.
func (d *Device) progress(v *Version, at time.Time) string {
	done := 0
	for _, s := range d.Steps {
		if !s.Completed.IsZero() {
			done++
		}
	}
	counted := fmt.Sprintf("%d of %d steps are done", done, len(d.Steps))
	if d.Stage == "" {
		return fmt.Sprintf("%s; the last one was done on %s.", counted, markdown.When(d.Completed))
	}
	title := d.Stage
	if s := v.Plan.stage(d.Stage); s != nil {
		title = s.Title
	}
	text := fmt.Sprintf("%s; it has been in stage %q since %s.", counted, markdown.Inline(title), markdown.When(d.StageSince))
	if d.Stuck {
		text += fmt.Sprintf(" **It is stuck**: the time for this stage was over on %s, %s ago.", markdown.When(d.StuckAt), at.Sub(d.StuckAt).Round(time.Second))
	}
	return text
}

// facts writes what the device is.
func (w *document) facts(d *Device) {
	w.Line("")
	w.Line("## The device")
	w.Head("What", "Value")
	w.Row("Device key", d.Key)
	w.Row("Thing", d.Thing)
	w.Row("Certificate (SHA-256)", d.Certificate)
	w.Row("Record begun", markdown.When(d.Begun))
	for _, name := range slices.Sorted(maps.Keys(d.Metadata)) {
		w.Row("Announced: "+name, d.Metadata[name])
	}
	if len(d.Problems) > 0 {
		w.Line("")
		w.Line("**The thing does not say what the plan and the announcement want:**")
		w.Line("")
		for _, p := range d.Problems {
			w.Line("- %s", markdown.Inline(p))
		}
	}
}

// steps writes what was done by whom, and what is not.
func (w *document) steps(d *Device, v *Version) {
	last := map[string]*Entry{}
	for i := range d.History {
		if e := &d.History[i]; e.Step != "" && e.Life == d.Life {
			last[e.Step] = e
		}
	}
	w.Line("")
	w.Line("## Steps and evidence")
	w.Head("Stage", "Step", "Done", "Answerable", "Done by", "Evidence", "Remark")
	for _, s := range d.Steps {
		actor, title := "", s.Stage
		if stage := v.Plan.stage(s.Stage); stage != nil {
			actor, title = stage.Actor.who(), stage.Title
		}
		e := last[s.Step]
		if e == nil {
			remark := ""
			if len(s.WaitsFor) > 0 {
				remark = "waits for " + strings.Join(s.WaitsFor, ", ")
			}
			w.Row(title, s.Title, "not done", actor, "", "", remark)
			continue
		}
		remark := e.Note
		if e.Result == ResultOutOfOrder {
			remark = "OUT OF ORDER: " + remark
		}
		w.Row(title, s.Title, markdown.When(e.At), actor, whom(e.Principal), e.Evidence, remark)
	}
}

// criteria writes how the exit criteria were decided.
func (w *document) criteria(d *Device) {
	if len(d.Criteria) == 0 {
		return
	}
	w.Line("")
	w.Line("## Exit criteria after activation")
	w.Head("Stage", "What", "Had to hold by", "Outcome")
	for _, c := range d.Criteria {
		outcome := "open"
		switch {
		case !c.Met.IsZero():
			outcome = "held, seen on " + markdown.When(c.Met)
		case !c.Failed.IsZero():
			outcome = "FAILED: it did not hold within " + c.Within.String()
		}
		w.Row(c.Stage, c.Predicate, markdown.When(c.Deadline), outcome)
	}
}

// history writes all that is known, in order.
func (w *document) history(d *Device) {
	w.Line("")
	w.Line("## History")
	w.Head("When", "What", "Result", "Done by", "Evidence", "Remark")
	for i := range d.History {
		e := &d.History[i]
		what := cmp.Or(e.Step, string(e.State))
		if e.Step != "" && e.State != "" {
			what = e.Step + " (" + string(e.State) + ")"
		}
		remark := e.Note
		if e.Count > 1 {
			remark += fmt.Sprintf(" (%d times, last on %s)", e.Count, markdown.When(e.Last))
		}
		w.Row(markdown.When(e.At), what, string(e.Result), whom(e.Principal), e.Evidence, remark)
	}
	if d.Lost > 0 {
		w.Line("")
		w.Line("%d further entries did not fit into the history.", d.Lost)
	}
}

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
)

// document writes Markdown.
type document struct{ strings.Builder }

func (w *document) line(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }

// row writes a row of a table. What is in it comes from people and devices, and
// stays in its cell.
func (w *document) row(cells ...string) {
	for i, c := range cells {
		cells[i] = cell(c)
	}
	w.line("| %s |", strings.Join(cells, " | "))
}

// head writes the head of a table.
func (w *document) head(names ...string) {
	w.line("")
	w.line("| %s |", strings.Join(names, " | "))
	w.line("|%s", strings.Repeat("---|", len(names)))
}

// cell is text that cannot leave its cell, nor be taken for markup.
func cell(text string) string {
	if text == "" {
		return "–"
	}
	return inline(text)
}

// inline is text from elsewhere within a line.
func inline(text string) string {
	return strings.NewReplacer(
		"\r\n", " ", "\n", " ", "\r", " ", "\\", "\\\\", "|", "\\|", "<", "&lt;", ">", "&gt;", "`", "\\`", "*", "\\*", "_", "\\_", "[", "\\[", "]", "\\]",
	).Replace(text)
}

// when writes a time for people.
func when(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format("2006-01-02 15:04:05 UTC")
}

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

// quote writes longer text that somebody has written as Markdown, as what somebody
// has written: headings in it are not headings of the document.
func (w *document) quote(text string) {
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		w.line("%s", strings.TrimRight("> "+strings.ReplaceAll(line, "<", "&lt;"), " \r"))
	}
}

// Markdown is the plan as a document for people.
func (v *Version) Markdown() string {
	w := &document{}
	w.line("# Provisioning plan: %s", inline(v.Plan.Name))
	w.line("")
	w.plan(v, "##")
	return w.String()
}

// plan writes what a plan says, under headings of a level.
func (w *document) plan(v *Version, level string) {
	p := &v.Plan
	w.line("This plan, `%s`, version %d, says how devices%s come into service: who does what, in which order, and what is kept as evidence. %s",
		p.ID, v.Number, of(p.ProductLine), v.standing())
	w.line("")
	if p.SelfProvisioned {
		w.line("Devices provision themselves: no user takes part when they join.")
	} else {
		w.line("Devices do not provision themselves: somebody takes part when they join.")
	}
	w.line("%s %s", p.AppliesTo.words(), p.DeviceKey.words(&p.Metadata))
	if p.OwnershipCheck != "" {
		w.line("")
		w.line("%s How it is made sure that a new device is ours", level)
		w.line("")
		w.quote(p.OwnershipCheck)
	}
	if facts := p.Metadata.facts(); len(facts) > 0 {
		w.line("")
		w.line("%s What is known from manufacture", level)
		w.head("Fact", "Thing attribute", "Required", "Thing types by model")
		for _, f := range facts {
			var types []string
			for _, model := range slices.Sorted(maps.Keys(f.ThingTypes)) {
				types = append(types, model+": "+f.ThingTypes[model])
			}
			w.row(f.name, f.Attribute, yes(f.Required), strings.Join(types, ", "))
		}
		if p.Metadata.Within != "" {
			w.line("")
			w.line("The thing has to say so within %s of the activation.", p.Metadata.Within)
		}
	}
	w.line("")
	w.line("%s Stages and actors", level)
	w.head("No.", "Stage", "Kind", "Actor", "Contact", "Time limit")
	for i := range p.Stages {
		s := &p.Stages[i]
		w.row(strconv.Itoa(s.Order), s.Title, strings.ToLower(string(s.Kind)), s.Actor.who(), s.Actor.Contact, string(s.Limit))
	}
	for i := range p.Stages {
		w.stage(&p.Stages[i], level)
	}
}

// stage writes one stage.
func (w *document) stage(s *Stage, level string) {
	w.line("")
	w.line("%s Stage %d: %s", level, s.Order, inline(s.Title))
	w.line("")
	w.line("%s is answerable for this stage.", inline(s.Actor.who()))
	w.head("Step", "What is done", "How", "Evidence", "Comes after")
	for j := range s.Steps {
		step := &s.Steps[j]
		w.row(fmt.Sprintf("%d.%d %s", s.Order, step.Order, step.ID), step.Title, step.how(), step.proof(), strings.Join(step.DependsOn, ", "))
	}
	for j := range s.Steps {
		if step := &s.Steps[j]; step.Instruction != "" {
			w.line("")
			w.line("%s# Step %d.%d: %s", level, s.Order, step.Order, inline(step.Title))
			w.line("")
			w.quote(step.Instruction)
		}
	}
	if len(s.ExitCriteria) > 0 {
		w.line("")
		w.line("After its activation, the device has to meet these criteria in the time given:")
		w.head("Fleet query", "Within")
		for _, c := range s.ExitCriteria {
			w.row(c.Predicate, string(c.Within))
		}
	}
}

// standing says whether a version is in force.
func (v *Version) standing() string {
	switch v.Status {
	case StatusPublished:
		return fmt.Sprintf("It was published on %s by %s and is in force.", when(v.Published), inline(whom(v.PublishedBy)))
	case StatusRetired:
		return fmt.Sprintf("It was published on %s by %s and retired on %s by %s.",
			when(v.Published), inline(whom(v.PublishedBy)), when(v.Retired), inline(whom(v.RetiredBy)))
	case StatusDraft:
	}
	return fmt.Sprintf("**It is a draft**, last changed on %s by %s, and no device follows it.", when(v.Written), inline(whom(v.WrittenBy)))
}

func of(productLine string) string {
	if productLine == "" {
		return ""
	}
	return " of the product line " + inline(productLine)
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
	w.line("# Onboarding of device %s", inline(d.Key))
	w.line("")
	w.line("As of %s. The device follows provisioning plan %s (`%s`), version %d, which is part of this document. It is **%s**. %s",
		when(at), inline(v.Plan.Name), v.Plan.ID, v.Number, d.State, d.progress(v, at))
	if d.Life > 1 {
		w.line("It has joined %d times; it was decommissioned in between.", d.Life)
	}
	w.facts(d)
	w.steps(d, v)
	w.criteria(d)
	w.history(d)
	w.line("")
	w.line("## The plan")
	w.line("")
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
		return fmt.Sprintf("%s; the last one was done on %s.", counted, when(d.Completed))
	}
	title := d.Stage
	if s := v.Plan.stage(d.Stage); s != nil {
		title = s.Title
	}
	text := fmt.Sprintf("%s; it has been in stage %q since %s.", counted, inline(title), when(d.StageSince))
	if d.Stuck {
		text += fmt.Sprintf(" **It is stuck**: the time for this stage was over on %s, %s ago.", when(d.StuckAt), at.Sub(d.StuckAt).Round(time.Second))
	}
	return text
}

// facts writes what the device is.
func (w *document) facts(d *Device) {
	w.line("")
	w.line("## The device")
	w.head("What", "Value")
	w.row("Device key", d.Key)
	w.row("Thing", d.Thing)
	w.row("Certificate (SHA-256)", d.Certificate)
	w.row("Record begun", when(d.Begun))
	for _, name := range slices.Sorted(maps.Keys(d.Metadata)) {
		w.row("Announced: "+name, d.Metadata[name])
	}
	if len(d.Problems) > 0 {
		w.line("")
		w.line("**The thing does not say what the plan and the announcement want:**")
		w.line("")
		for _, p := range d.Problems {
			w.line("- %s", inline(p))
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
	w.line("")
	w.line("## Steps and evidence")
	w.head("Stage", "Step", "Done", "Answerable", "Done by", "Evidence", "Remark")
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
			w.row(title, s.Title, "not done", actor, "", "", remark)
			continue
		}
		remark := e.Note
		if e.Result == ResultOutOfOrder {
			remark = "OUT OF ORDER: " + remark
		}
		w.row(title, s.Title, when(e.At), actor, whom(e.Principal), e.Evidence, remark)
	}
}

// criteria writes how the exit criteria were decided.
func (w *document) criteria(d *Device) {
	if len(d.Criteria) == 0 {
		return
	}
	w.line("")
	w.line("## Exit criteria after activation")
	w.head("Stage", "What", "Had to hold by", "Outcome")
	for _, c := range d.Criteria {
		outcome := "open"
		switch {
		case !c.Met.IsZero():
			outcome = "held, seen on " + when(c.Met)
		case !c.Failed.IsZero():
			outcome = "FAILED: it did not hold within " + c.Within.String()
		}
		w.row(c.Stage, c.Predicate, when(c.Deadline), outcome)
	}
}

// history writes all that is known, in order.
func (w *document) history(d *Device) {
	w.line("")
	w.line("## History")
	w.head("When", "What", "Result", "Done by", "Evidence", "Remark")
	for i := range d.History {
		e := &d.History[i]
		what := cmp.Or(e.Step, string(e.State))
		if e.Step != "" && e.State != "" {
			what = e.Step + " (" + string(e.State) + ")"
		}
		remark := e.Note
		if e.Count > 1 {
			remark += fmt.Sprintf(" (%d times, last on %s)", e.Count, when(e.Last))
		}
		w.row(when(e.At), what, string(e.Result), whom(e.Principal), e.Evidence, remark)
	}
	if d.Lost > 0 {
		w.line("")
		w.line("%d further entries did not fit into the history.", d.Lost)
	}
}

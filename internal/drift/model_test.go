package drift

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/registry"
)

// model is a fleet in maps, with what is promised of it.
type model struct {
	things       map[string]*modelThing
	certificates map[string]*modelCertificate
	promises     map[string]*modelPromise
	made         int
}

type modelThing struct {
	typeName, billing string
	attributes        map[string]string
	groups            map[string]bool
	certificates      []string
}

type modelCertificate struct {
	status   string
	policies map[string]bool
	made     int
}

type modelPromise struct {
	version           int64
	typeName, billing string
	attributes        map[string]string
	groups            map[string]bool
	certificate       string
	active            bool
	policies          map[string]bool
}

func set(names ...string) map[string]bool {
	out := map[string]bool{}
	for _, name := range names {
		out[name] = true
	}
	return out
}

// provision is what a plan does to the model; false when it is refused.
func (m *model) provision(p *provtemplate.Plan, version int64) bool {
	t, c := m.things[p.Thing.Name], (*modelCertificate)(nil)
	if p.Certificate != nil {
		c = m.certificates[p.Certificate.ID]
		want := registry.StatusInactive
		if p.Certificate.Active {
			want = registry.StatusActive
		}
		switch {
		case c.status == registry.StatusRevoked, p.Certificate.OnStatus == provtemplate.Fail:
			return false
		case p.Certificate.OnStatus == provtemplate.Replace:
			defer func(was string) {
				if m.promises[p.Thing.Name].version != version {
					c.status = was
				}
			}(c.status)
			c.status = want
		}
	}
	fresh := t == nil
	if !fresh {
		for on, given := range map[provtemplate.Override]bool{p.Thing.OnAttributes: p.Thing.Attributes != nil} {
			if on == provtemplate.Fail && given {
				return false
			}
		}
		if p.Thing.OnType == provtemplate.Fail && p.Thing.TypeName != "" || p.Thing.OnGroups == provtemplate.Fail && p.Thing.Groups != nil {
			return false
		}
	} else {
		t = &modelThing{typeName: p.Thing.TypeName, billing: p.Thing.BillingGroup, attributes: map[string]string{}, groups: map[string]bool{}}
		m.things[p.Thing.Name] = t
	}
	old := m.promises[p.Thing.Name]
	if old == nil {
		old = &modelPromise{}
	}
	now := &modelPromise{version: version, policies: set()}
	does := func(on provtemplate.Override) bool {
		return fresh || on == provtemplate.Merge || on == provtemplate.Replace
	}
	if p.Thing.TypeName != "" {
		if now.typeName = old.typeName; does(p.Thing.OnType) {
			t.typeName, now.typeName = p.Thing.TypeName, p.Thing.TypeName
		}
	}
	if p.Thing.Attributes != nil {
		if now.attributes = old.attributes; does(p.Thing.OnAttributes) {
			if !fresh && p.Thing.OnAttributes == provtemplate.Replace {
				t.attributes = map[string]string{}
			}
			maps.Copy(t.attributes, p.Thing.Attributes)
			now.attributes = maps.Clone(p.Thing.Attributes)
		}
	}
	if p.Thing.Groups != nil {
		if now.groups = old.groups; does(p.Thing.OnGroups) {
			if !fresh && p.Thing.OnGroups == provtemplate.Replace {
				t.groups = map[string]bool{}
			}
			maps.Copy(t.groups, set(p.Thing.Groups...))
			now.groups = set(p.Thing.Groups...)
		}
	}
	if p.Thing.BillingGroup != "" {
		if now.billing = old.billing; fresh {
			now.billing = p.Thing.BillingGroup
		}
	}
	if c != nil {
		for _, policy := range p.Policies {
			c.policies[policy.Name], now.policies[policy.Name] = true, true
		}
		now.certificate = p.Certificate.ID
		if p.Certificate.Active {
			now.active = c.status == registry.StatusActive || old.certificate == now.certificate && old.active
		}
		if !slices.Contains(t.certificates, now.certificate) {
			t.certificates = append(t.certificates, now.certificate)
		}
	}
	m.promises[p.Thing.Name] = now
	return true
}

// judged is the certificate that counts.
func (m *model) judged(name string) string {
	p, t := m.promises[name], m.things[name]
	if slices.Contains(t.certificates, p.certificate) && m.certificates[p.certificate].status == registry.StatusActive {
		return p.certificate
	}
	newest := func(fits func(id string) bool) string {
		best := ""
		for _, id := range t.certificates {
			if fits(id) && (best == "" || m.certificates[id].made > m.certificates[best].made) {
				best = id
			}
		}
		return best
	}
	if id := newest(func(id string) bool { return m.certificates[id].status == registry.StatusActive }); id != "" {
		return id
	}
	if slices.Contains(t.certificates, p.certificate) {
		return p.certificate
	}
	return newest(func(string) bool { return true })
}

// differs is what Show has to say, as lines.
func (m *model) differs(name string) []string {
	p, t := m.promises[name], m.things[name]
	var out []string
	say := func(kind Kind, name, promised, found string) {
		out = append(out, fmt.Sprintf("%s %q %q %q", kind, name, promised, found))
	}
	if p.typeName != "" && p.typeName != t.typeName {
		say(ThingType, "", p.typeName, t.typeName)
	}
	if p.billing != "" && p.billing != t.billing {
		say(BillingGroup, "", p.billing, t.billing)
	}
	for attribute, value := range p.attributes {
		if t.attributes[attribute] != value {
			say(Attribute, attribute, value, t.attributes[attribute])
		}
	}
	for group := range p.groups {
		if !t.groups[group] {
			say(ThingGroup, group, group, "")
		}
	}
	if p.certificate != "" {
		promised := "ATTACHED"
		if p.active {
			promised = registry.StatusActive
		}
		id := m.judged(name)
		if id == "" {
			say(Certificate, p.certificate, promised, "")
		} else {
			c := m.certificates[id]
			if p.active && c.status != registry.StatusActive {
				say(Certificate, id, promised, c.status)
			}
			for policy := range p.policies {
				if !c.policies[policy] {
					say(Policy, policy, policy, "")
				}
			}
			for policy := range c.policies {
				if !p.policies[policy] {
					say(ExtraPolicy, policy, "", policy)
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

// settle is what a choice does to the model.
func (m *model) settle(name string, c Choice) {
	p, t := m.promises[name], m.things[name]
	chosen := func(k Kind) bool { return slices.Contains(c.Kinds, k) }
	repair := c.Action == Repair
	if chosen(ThingType) && p.typeName != "" {
		if repair {
			t.typeName = p.typeName
		} else {
			p.typeName = t.typeName
		}
	}
	if chosen(BillingGroup) && p.billing != "" {
		if repair {
			t.billing = p.billing
		} else {
			p.billing = t.billing
		}
	}
	if chosen(Attribute) {
		p.attributes = maps.Clone(p.attributes)
		for attribute, value := range p.attributes {
			switch is := t.attributes[attribute]; {
			case repair:
				t.attributes[attribute] = value
			case is == "":
				delete(p.attributes, attribute)
			default:
				p.attributes[attribute] = is
			}
		}
	}
	if chosen(ThingGroup) {
		p.groups = maps.Clone(p.groups)
		for group := range p.groups {
			switch {
			case repair:
				t.groups[group] = true
			case !t.groups[group]:
				delete(p.groups, group)
			}
		}
	}
	if p.certificate == "" {
		return
	}
	id := m.judged(name)
	if id == "" {
		if chosen(Certificate) && !repair {
			p.certificate, p.active, p.policies = "", false, set()
		}
		return
	}
	of := m.certificates[id]
	if chosen(Policy) {
		for policy := range p.policies {
			switch {
			case repair:
				of.policies[policy] = true
			case !of.policies[policy]:
				delete(p.policies, policy)
			}
		}
	}
	if chosen(ExtraPolicy) {
		for policy := range of.policies {
			switch {
			case p.policies[policy]:
			case repair:
				delete(of.policies, policy)
			default:
				p.policies[policy] = true
			}
		}
	}
	if chosen(Certificate) && p.active && of.status != registry.StatusActive {
		switch {
		case !repair:
			p.active = false
		case of.status != registry.StatusRevoked:
			of.status = registry.StatusActive
		}
	}
}

// Random templates, and random changes of things, certificates and policies: what
// differs is what a fleet of maps says; a repair of everything leaves nothing that
// can be repaired; an acceptance of everything leaves nothing.
func TestAgainstAModel(t *testing.T) {
	t.Parallel()
	seeds, steps := 12, 250
	if onPostgres(t) || testing.Short() {
		seeds, steps = 2, 120
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := &walk{rig: newRig(t), rnd: rand.New(rand.NewPCG(uint64(seed), 46)), model: model{
				things: map[string]*modelThing{}, certificates: map[string]*modelCertificate{}, promises: map[string]*modelPromise{},
			}}
			w.stock()
			for range steps {
				w.step()
				w.compare()
			}
			w.finish()
		})
	}
}

type walk struct {
	*rig

	rnd     *rand.Rand
	model   model
	version int64
	did     []string
}

func (w *walk) one(of ...string) string { return of[w.rnd.IntN(len(of))] }
func (w *walk) half() bool              { return w.rnd.IntN(2) == 0 }
func (w *walk) thing() string           { return w.one("pump-1", "pump-2", "pump-3") }

// some is a part of a list, nil in one of four cases.
func (w *walk) some(of ...string) []string {
	if w.rnd.IntN(4) == 0 {
		return nil
	}
	out := []string{}
	for _, name := range of {
		if w.half() {
			out = append(out, name)
		}
	}
	return out
}

func (w *walk) newCertificate() string {
	id := w.certificate()
	w.model.made++
	w.model.certificates[id] = &modelCertificate{status: registry.StatusActive, policies: set(), made: w.model.made}
	return id
}

func (w *walk) anyCertificate(of string) string {
	if t := w.model.things[of]; t != nil && len(t.certificates) > 0 {
		return t.certificates[w.rnd.IntN(len(t.certificates))]
	}
	return ""
}

func (w *walk) plan() *provtemplate.Plan {
	overrides := []provtemplate.Override{provtemplate.DoNothing, provtemplate.DoNothing, provtemplate.Replace, provtemplate.Merge, provtemplate.Fail}
	override := func(n int) provtemplate.Override { return overrides[w.rnd.IntN(n)] }
	p := plan(w.thing(), "")
	p.Thing.TypeName, p.Thing.BillingGroup = w.one("", "type-a", "type-b"), w.one("", "bill-a", "bill-b")
	p.Thing.Groups = w.some("group-a", "group-b", "group-c")
	p.Thing.Attributes = nil
	for _, name := range w.some("site", "line", "owner") {
		if p.Thing.Attributes == nil {
			p.Thing.Attributes = map[string]string{}
		}
		p.Thing.Attributes[name] = w.one("x", "y")
	}
	p.Thing.OnAttributes, p.Thing.OnGroups = override(5), override(5)
	if p.Thing.OnType = override(5); p.Thing.OnType == provtemplate.Merge {
		p.Thing.OnType = provtemplate.Replace
	}
	p.Policies = nil
	for _, name := range w.some("policy-a", "policy-b") {
		p.Policies = append(p.Policies, provtemplate.Policy{LogicalName: name, Name: name})
	}
	if w.rnd.IntN(6) == 0 {
		p.Certificate = nil
		return p
	}
	p.Certificate.ID, p.Certificate.Active = w.anyCertificate(p.Thing.Name), w.rnd.IntN(4) > 0
	p.Certificate.OnStatus = provtemplate.DoNothing
	switch {
	case p.Certificate.ID == "" || w.half():
		p.Certificate.ID = w.newCertificate()
	case w.half():
		p.Certificate.OnStatus = override(3)
	case w.rnd.IntN(5) == 0:
		p.Certificate.OnStatus = provtemplate.Fail
	}
	return p
}

// step does one thing to both.
func (w *walk) step() {
	w.t.Helper()
	ctx, m := w.t.Context(), &w.model
	name := w.thing()
	t := m.things[name]
	id := w.anyCertificate(name)
	switch what := w.rnd.IntN(14); {
	case what < 3:
		w.version++
		p := w.plan()
		w.log("provision %s", p.Thing.Name)
		err := w.provision(p, w.version)
		if done := m.provision(p, w.version); done != (err == nil) {
			w.t.Fatalf("provision: %v, and the model says %v", err, done)
		}
	case t == nil:
	case what == 3:
		attribute, value := w.one("site", "line", "owner"), w.one("", "x", "z")
		w.log("attribute %s %s=%s", name, attribute, value)
		w.need(w.registry.UpdateThing(ctx, account, registry.UpdateThingCommand{
			Name: name, Attributes: &registry.Attributes{Values: map[string]string{attribute: value}, Merge: true},
		}))
		if t.attributes[attribute] = value; value == "" {
			delete(t.attributes, attribute)
		}
	case what == 4:
		t.typeName = w.one("", "type-a", "type-b")
		w.log("type %s %s", name, t.typeName)
		w.need(w.registry.UpdateThing(ctx, account, registry.UpdateThingCommand{Name: name, TypeName: t.typeName, RemoveType: t.typeName == ""}))
	case what == 5:
		group := w.one("group-a", "group-b", "group-c")
		w.log("group %s %s", name, group)
		c := registry.UpdateGroupsCommand{Thing: name, Add: []string{group}}
		if t.groups[group] {
			c.Add, c.Remove = nil, c.Add
		}
		w.need(w.registry.UpdateThingGroupsForThing(ctx, account, c))
		t.groups[group] = !t.groups[group]
	case what == 6:
		w.log("billing %s", name)
		if t.billing != "" {
			w.need(w.registry.RemoveThingFromBillingGroup(ctx, account, registry.ThingAndGroup{ThingName: name, GroupName: t.billing}))
		}
		if t.billing = w.one("", "bill-a", "bill-b"); t.billing != "" {
			w.need(w.registry.AddThingToBillingGroup(ctx, account, registry.ThingAndGroup{ThingName: name, GroupName: t.billing}))
		}
	case what == 7 && id != "":
		policy := w.one("policy-a", "policy-b", "policy-c")
		w.log("policy %s %s", id[:4], policy)
		if of := m.certificates[id]; of.policies[policy] {
			delete(of.policies, policy)
			w.need(w.registry.DetachPolicy(ctx, account, policy, certificateARN(id)))
		} else {
			of.policies[policy] = true
			w.need(w.registry.AttachPolicy(ctx, account, policy, certificateARN(id)))
		}
	case what == 8 && id != "" && m.certificates[id].status != registry.StatusRevoked:
		status := registry.StatusActive
		if m.certificates[id].status == status {
			if status = registry.StatusInactive; w.rnd.IntN(6) == 0 {
				status = registry.StatusRevoked
			}
		}
		w.log("status %s %s", id[:4], status)
		m.certificates[id].status = status
		w.need(w.registry.UpdateCertificate(ctx, account, id, status))
	case what == 9 && id != "":
		// A renewal by hand: one more, and at times one less.
		other := w.newCertificate()
		w.log("attach %s, perhaps detach %s", other[:4], id[:4])
		w.need(w.registry.AttachThingPrincipal(ctx, account, name, certificateARN(other), ""))
		t.certificates = append(t.certificates, other)
		if w.half() {
			w.need(w.registry.DetachThingPrincipal(ctx, account, name, certificateARN(id)))
			t.certificates = slices.DeleteFunc(t.certificates, func(c string) bool { return c == id })
		}
	case what == 10 && id != "":
		w.log("detach %s", id[:4])
		w.need(w.registry.DetachThingPrincipal(ctx, account, name, certificateARN(id)))
		t.certificates = slices.DeleteFunc(t.certificates, func(c string) bool { return c == id })
	case what == 11 && w.rnd.IntN(3) == 0:
		w.log("end of %s", name)
		if w.half() {
			for _, id := range t.certificates {
				if c := m.certificates[id]; c.status != registry.StatusRevoked {
					c.status = registry.StatusRevoked
				}
			}
			_, err := w.registry.Decommission(ctx, account, registry.DecommissionCommand{Name: name})
			w.need(err)
		} else {
			for _, id := range t.certificates {
				w.need(w.registry.DetachThingPrincipal(ctx, account, name, certificateARN(id)))
			}
			w.need(w.registry.DeleteThing(ctx, account, name, nil))
		}
		delete(m.things, name)
		delete(m.promises, name)
	case what >= 12 && m.promises[name] != nil:
		w.settle(name)
	}
	if w.rnd.IntN(40) == 0 {
		w.log("restart")
		w.boot()
	}
}

func (w *walk) log(format string, args ...any) { w.did = append(w.did, fmt.Sprintf(format, args...)) }

// settle repairs or accepts some kinds.
func (w *walk) settle(name string) {
	c := Choice{Action: Repair}
	if w.half() {
		c.Action = Accept
	}
	for _, k := range Kinds() {
		if w.half() {
			c.Kinds = append(c.Kinds, k)
		}
	}
	w.need(c.Check(""))
	r := w.show(name)
	w.log("settle %s %v", name, c)
	plan, err := w.Settle(w.t.Context(), account, SettleCommand{Thing: name, Choice: c, Revision: r.Revision})
	if want := c.PlanFor(&r); len(want.Settles) == 0 && len(want.Leaves) > 0 {
		w.code(err, fault.InvalidRequest)
		return
	}
	w.need(err)
	same(w.t, plan, c.PlanFor(&r))
	w.model.settle(name, c)
}

// compare looks at both.
func (w *walk) compare() {
	w.t.Helper()
	for _, name := range []string{"pump-1", "pump-2", "pump-3"} {
		r, err := w.Show(w.t.Context(), account, name)
		if w.model.promises[name] == nil {
			w.code(err, fault.ResourceNotFound)
			continue
		}
		w.need(err)
		if got, want := lines(&r), w.model.differs(name); !slices.Equal(got, want) {
			w.t.Fatalf("%s differs by\n%q, want\n%q\nafter %q", name, got, want, w.did)
		}
	}
}

// lines are what a report says.
func lines(r *Report) []string {
	var out []string
	for _, d := range slices.Concat(r.Differences, r.Extra) {
		out = append(out, fmt.Sprintf("%s %q %q %q", d.Kind, d.Name, d.Promised, d.Found))
	}
	slices.Sort(out)
	return out
}

// finish brings all together, one way and the other.
func (w *walk) finish() {
	w.t.Helper()
	for name := range w.model.promises {
		for _, c := range []Choice{{Action: Repair, Kinds: Kinds()}, {Action: Accept, Kinds: Kinds()}} {
			r := w.show(name)
			_, err := w.Settle(w.t.Context(), account, SettleCommand{Thing: name, Choice: c, Revision: r.Revision})
			if fault.CodeOf(err) != fault.InvalidRequest {
				w.need(err)
			}
			r = w.show(name)
			for _, d := range slices.Concat(r.Differences, r.Extra) {
				if c.Action == Accept || d.Irreparable() == "" {
					w.t.Errorf("%s is left after %s of everything: %+v", name, c.Action, d)
				}
			}
		}
	}
	var wrong []registry.RowDifference
	view, err := w.disk.Snapshot(w.t.Context())
	w.need(err)
	defer func() { _ = view.Close() }()
	_, err = registry.CompareRows(w.t.Context(), view, func(d registry.RowDifference) { wrong = append(wrong, d) })
	w.need(err)
	if len(wrong) > 0 {
		w.t.Errorf("rows %v", wrong)
	}
}

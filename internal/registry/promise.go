package registry

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/store"
)

// PromiseOrigin says which template a plan comes from.
type PromiseOrigin struct {
	// Template and Version are zero for a body that has no name.
	Template string
	Version  int64
	Method   event.ProvisioningMethod
}

// Promise is what the template by which a thing was provisioned last says of it:
// what it states and has carried out, nothing else. A part that the template
// leaves alone on a thing that exists keeps what an earlier template has promised
// of it. Zero values promise nothing.
type Promise struct {
	PromiseOrigin

	// ThingID is the life of the name that it is about.
	ThingID      string
	TypeName     string
	Attributes   map[string]string
	Groups       []string
	BillingGroup string
	// CertificateID is the certificate that the template gave the thing; Active says
	// that it was to be ACTIVE. Policies are on whichever certificate the thing has
	// by now.
	CertificateID string
	Active        bool
	Policies      []string
	// Kept are the parts that are promised by an earlier template or version.
	Kept []KeptPromise
	// Made is when the template was carried out, Accepted when somebody said last
	// that what is shall be promised; zero for never.
	Made, Accepted time.Time
}

// KeptPromise is a part of a promise that is older than the rest.
type KeptPromise struct {
	Part     PromisePart `json:"part"`
	Template string      `json:"template,omitempty"`
	Version  int64       `json:"version,omitempty"`
}

// PromisePart is a part of a thing that templates have a say in.
type PromisePart string

// Parts of promises that can outlive their template.
const (
	PromiseType         PromisePart = "TYPE"
	PromiseAttributes   PromisePart = "ATTRIBUTES"
	PromiseGroups       PromisePart = "GROUPS"
	PromiseBillingGroup PromisePart = "BILLING_GROUP"
)

// promiseRecord is the stored form of a Promise. It is bounded as what it is
// about is: by the attributes of a thing, its groups, and the policies of a
// certificate.
type promiseRecord struct {
	schema

	ThingID      string                   `json:"thingId"`
	Template     string                   `json:"template,omitempty"`
	Version      int64                    `json:"version,omitempty"`
	Method       event.ProvisioningMethod `json:"method,omitempty"`
	TypeName     string                   `json:"type,omitempty"`
	Attributes   map[string]string        `json:"attributes,omitempty"`
	Groups       []string                 `json:"groups,omitempty"`
	BillingGroup string                   `json:"billingGroup,omitempty"`
	Certificate  string                   `json:"certificate,omitempty"`
	Active       bool                     `json:"active,omitempty"`
	Policies     []string                 `json:"policies,omitempty"`
	Kept         []KeptPromise            `json:"kept,omitempty"`
	Made         int64                    `json:"made"`
	Accepted     int64                    `json:"accepted,omitempty"`
}

// promise is the public form of a record.
func (r *promiseRecord) promise() Promise {
	p := Promise{
		PromiseOrigin: PromiseOrigin{r.Template, r.Version, r.Method}, ThingID: r.ThingID, TypeName: r.TypeName, Attributes: r.Attributes,
		Groups: r.Groups, BillingGroup: r.BillingGroup, CertificateID: r.Certificate, Active: r.Active, Policies: r.Policies, Kept: r.Kept,
		Made: moment(r.Made),
	}
	if r.Accepted != 0 {
		p.Accepted = moment(r.Accepted)
	}
	return p
}

// promiseRow finds a thing by the template and version that promised it.
func promiseRow(account fleet.Account, template string, version int64, thing string) store.Key {
	return key(kindThingPromiseBy, account, template, promiseVersion(version), thing)
}

// promiseVersion is a version as a part of a key.
func promiseVersion(version int64) string { return fmt.Sprintf("%019d", version) }

// savePromise writes a promise and its row; before is the present one, nil for
// none, after nil for its end.
func savePromise(a *attempt, thing string, before, after *promiseRecord) error {
	if before != nil && before.Template != "" && (after == nil || after.Template != before.Template || after.Version != before.Version) {
		a.remove(promiseRow(a.account, before.Template, before.Version, thing))
	}
	if after == nil {
		if before != nil {
			a.remove(key(kindThingPromise, a.account, thing))
		}
		return nil
	}
	if after.Template != "" && (before == nil || after.Template != before.Template || after.Version != before.Version) {
		a.row(promiseRow(a.account, after.Template, after.Version, thing))
	}
	return save(a, key(kindThingPromise, a.account, thing), after)
}

// dropPromise ends what is promised of a thing that ends.
func dropPromise(ctx context.Context, a *attempt, thing string) error {
	before, err := load[promiseRecord](ctx, a, key(kindThingPromise, a.account, thing))
	if err != nil {
		return err
	}
	return savePromise(a, thing, before, nil)
}

// promising records what a plan that was carried out promises, in place of what
// was promised before.
func promising(ctx context.Context, a *attempt, c *ProvisionCommand, made *Provisioned) error {
	t := c.Plan.Thing
	if t == nil {
		return nil
	}
	thing, err := loadThing(ctx, a, t.Name)
	if err != nil {
		return err
	}
	before, err := load[promiseRecord](ctx, a, key(kindThingPromise, a.account, t.Name))
	if err != nil {
		return err
	}
	now := &promiseRecord{
		ThingID: thing.ID, Template: c.Origin.Template, Version: c.Origin.Version, Method: c.Origin.Method, Made: millis(a.now),
	}
	if made.Renews && c.Asking != made.CertificateID {
		now.Method = event.ProvisioningRenewal
	}
	earlier := before
	if earlier == nil || earlier.ThingID != thing.ID {
		earlier = &promiseRecord{}
	}
	now.ofThing(t, made.ThingCreated, thing, earlier)
	if made.CertificateID != "" {
		certificate, err := loadCertificate(ctx, a, made.CertificateID)
		if err != nil {
			return err
		}
		now.ofCertificate(c.Plan, made.CertificateID, certificate, earlier)
	}
	return savePromise(a, t.Name, before, now)
}

// ofThing takes over what the plan states of the thing. What the override
// settings leave alone stays as it was promised earlier.
func (r *promiseRecord) ofThing(t *provtemplate.Thing, created bool, thing *thingRecord, earlier *promiseRecord) {
	carriedOut := func(on provtemplate.Override) bool {
		return created || on == provtemplate.Merge || on == provtemplate.Replace
	}
	if t.TypeName != "" {
		if carriedOut(t.OnType) {
			r.TypeName = thing.TypeName
		} else if r.TypeName = earlier.TypeName; r.TypeName != "" {
			r.keep(PromiseType, earlier)
		}
	}
	if t.Attributes != nil {
		if carriedOut(t.OnAttributes) {
			r.Attributes = maps.Clone(t.Attributes)
			// An empty value is none.
			maps.DeleteFunc(r.Attributes, func(_, value string) bool { return value == "" })
		} else if r.Attributes = earlier.Attributes; len(r.Attributes) > 0 {
			r.keep(PromiseAttributes, earlier)
		}
	}
	if t.Groups != nil {
		if carriedOut(t.OnGroups) {
			r.Groups = slices.Sorted(slices.Values(t.Groups))
		} else if r.Groups = earlier.Groups; len(r.Groups) > 0 {
			r.keep(PromiseGroups, earlier)
		}
	}
	if t.BillingGroup != "" {
		if created {
			r.BillingGroup = thing.BillingGroup
		} else if r.BillingGroup = earlier.BillingGroup; r.BillingGroup != "" {
			r.keep(PromiseBillingGroup, earlier)
		}
	}
}

// keep notes a part that is promised by what came earlier, if that is another
// template or version.
func (r *promiseRecord) keep(part PromisePart, earlier *promiseRecord) {
	of := KeptPromise{Part: part, Template: earlier.Template, Version: earlier.Version}
	for _, k := range earlier.Kept {
		if k.Part == part {
			of = k
		}
	}
	if of.Template != r.Template || of.Version != r.Version {
		r.Kept = append(r.Kept, of)
	}
}

// ofCertificate takes over what the plan states of the certificate.
func (r *promiseRecord) ofCertificate(plan *provtemplate.Plan, id string, certificate *certificateRecord, earlier *promiseRecord) {
	r.Certificate = id
	r.Active = plan.Certificate.Active && certificate.Status == StatusActive
	if plan.Certificate.Active && earlier.Certificate == id {
		// Its state was left alone.
		r.Active = r.Active || earlier.Active
	}
	for _, p := range plan.Policies {
		r.Policies = append(r.Policies, p.Name)
	}
	slices.Sort(r.Policies)
	r.Policies = slices.Compact(r.Policies)
}

// Promised is what is promised of a thing beside what is.
type Promised struct {
	Name    string
	Promise Promise
	// Thing is the life that is meant, nil when it is gone.
	Thing *Thing
	// Instead are groups that the thing is in and that keep it out of a promised one:
	// a thing may be in one group of a hierarchy.
	Instead map[string]string
	// Certificate is the one by which the thing is judged, nil when it has none: the
	// promised one while it is attached and ACTIVE, else the newest that is, else
	// the promised one if it is attached, else the newest.
	Certificate *PromisedCertificate
}

// PromisedCertificate is a certificate of a thing, as a promise sees it.
type PromisedCertificate struct {
	ID, Status string
	// Policies are in order of their names.
	Policies []string
}

// maxJudged bounds the principals of a thing among which its certificate is
// looked for; those beyond are not seen.
const maxJudged = 100

// promisedOf brings together what belongs to a promise. Reading is by the attempt,
// so that what is decided by it commits only while it holds. It returns no record
// for a thing that nothing is promised of.
func (s *Service) promisedOf(ctx context.Context, a *attempt, name string) (Promised, *promiseRecord, error) {
	record, err := load[promiseRecord](ctx, a, key(kindThingPromise, a.account, name))
	if err != nil || record == nil {
		return Promised{}, nil, err
	}
	p := Promised{Name: name, Promise: record.promise()}
	thing, err := load[thingRecord](ctx, a, key(kindThing, a.account, name))
	if err != nil || thing == nil || thing.ID != record.ThingID {
		return p, record, err
	}
	present := s.thing(a.account, name, thing)
	p.Thing = &present
	if p.Instead, err = instead(ctx, a, record.Groups, thing); err != nil {
		return p, record, err
	}
	if record.Certificate == "" {
		return p, record, nil
	}
	p.Certificate, err = judged(ctx, a, name, record.Certificate)
	return p, record, err
}

// instead finds the groups that keep a thing out of promised ones.
func instead(ctx context.Context, a *attempt, promised []string, thing *thingRecord) (map[string]string, error) {
	var out map[string]string
	for _, name := range promised {
		if slices.ContainsFunc(thing.Groups, func(l groupLink) bool { return l.Group == name }) {
			continue
		}
		group, err := load[groupRecord](ctx, a, key(kindGroup, a.account, name))
		if err != nil {
			return nil, err
		}
		if group == nil {
			continue
		}
		if other, in := rival(thing, rootedLink(name, group)); in {
			if out == nil {
				out = map[string]string{}
			}
			out[name] = other
		}
	}
	return out, nil
}

// judged finds the certificate by which a thing is judged. The thing's record
// counts its attachments, so that whoever expects it sees each that comes or goes.
func judged(ctx context.Context, a *attempt, thing, promised string) (*PromisedCertificate, error) {
	of := reference{kind: fleet.ARNCertificate, name: promised}
	row, err := load[rowRecord](ctx, a, key(kindThingPrincipal, a.account, thing, of.ref()))
	if err != nil {
		return nil, err
	}
	if row != nil {
		record, err := load[certificateRecord](ctx, a, key(kindCertificate, a.account, promised))
		if err != nil || record != nil && record.Status == StatusActive {
			return promisedCertificate(promised, record), err
		}
	}
	rows, _, err := keysOf(ctx, a.reader, under(kindThingPrincipal, a.account, thing), "", maxJudged)
	if err != nil {
		return nil, err
	}
	best, bestID, bestRank := (*certificateRecord)(nil), "", 0
	for _, row := range rows {
		of := parseRef(row.Last())
		if of.kind != fleet.ARNCertificate {
			continue
		}
		record, err := load[certificateRecord](ctx, a, key(kindCertificate, a.account, of.name))
		if err != nil {
			return nil, err
		}
		if record == nil {
			continue
		}
		rank := 1
		switch {
		case record.Status == StatusActive:
			rank = 3
		case of.name == promised:
			rank = 2
		}
		if rank > bestRank || rank == bestRank && (record.Created > best.Created || record.Created == best.Created && of.name > bestID) {
			best, bestID, bestRank = record, of.name, rank
		}
	}
	return promisedCertificate(bestID, best), nil
}

func promisedCertificate(id string, r *certificateRecord) *PromisedCertificate {
	if r == nil {
		return nil
	}
	return &PromisedCertificate{ID: id, Status: r.Status, Policies: slices.Sorted(slices.Values(r.Policies))}
}

// Promised returns what is promised of a thing beside what is, all of one moment.
func (s *Service) Promised(ctx context.Context, account fleet.Account, name string) (Promised, error) {
	if err := checkName("thingName", name); err != nil {
		return Promised{}, err
	}
	found, err := s.PromisedAll(ctx, account, []string{name})
	if err == nil && len(found) == 0 {
		err = noPromise(name)
	}
	if err != nil {
		return Promised{}, err
	}
	return found[0], nil
}

func noPromise(name string) error { return notFound("promise of a template for thing", name) }

// PromisedAll is Promised for several things, in the order given and without those
// that nothing is promised of.
func (s *Service) PromisedAll(ctx context.Context, account fleet.Account, names []string) ([]Promised, error) {
	view, err := s.store.Snapshot(ctx)
	if err != nil {
		return nil, store.Fault(err)
	}
	defer func() { _ = view.Close() }()
	a := s.attempt(ctx, account)
	if a.reader, err = readAhead(ctx, view, account, names); err != nil {
		return nil, store.Fault(err)
	}
	all := make([]Promised, 0, len(names))
	for _, name := range names {
		p, record, err := s.promisedOf(ctx, a, name)
		if err != nil {
			return nil, store.Fault(err)
		}
		if record != nil {
			all = append(all, p)
		}
	}
	return all, nil
}

// ahead is a reader that has read some records together.
type ahead struct {
	store.Reader

	known map[store.Key]store.Record
}

// Get implements store.Reader.
func (r ahead) Get(ctx context.Context, k store.Key) (store.Record, error) {
	record, ok := r.known[k]
	switch {
	case !ok:
		return r.Reader.Get(ctx, k) //nolint:wrapcheck // the store's own
	case record.Version == 0:
		return record, store.ErrNotFound
	}
	return record, nil
}

// readAhead reads what most of the promises need, in two reads for all of them.
func readAhead(ctx context.Context, view store.Reader, account fleet.Account, names []string) (ahead, error) {
	r := ahead{Reader: view, known: make(map[store.Key]store.Record, 5*len(names))}
	read := func(keys []store.Key) error {
		if len(keys) == 0 {
			return nil
		}
		records, err := view.GetMany(ctx, keys)
		if err != nil {
			return fmt.Errorf("read what is promised of %d things: %w", len(names), err)
		}
		for i, record := range records {
			record.Key = keys[i]
			r.known[keys[i]] = record
		}
		return nil
	}
	var keys []store.Key
	for _, name := range names {
		keys = append(keys, key(kindThingPromise, account, name), key(kindThing, account, name))
	}
	if err := read(keys); err != nil {
		return r, err
	}
	keys = nil
	for _, name := range names {
		of := r.known[key(kindThingPromise, account, name)]
		if of.Version == 0 {
			continue
		}
		record, err := decode[promiseRecord](of)
		if err != nil {
			return r, err
		}
		if record.Certificate != "" {
			by := reference{kind: fleet.ARNCertificate, name: record.Certificate}
			keys = append(keys, key(kindThingPrincipal, account, name, by.ref()), key(kindCertificate, account, record.Certificate))
		}
	}
	return r, read(keys)
}

// PromiseFilter selects promises.
type PromiseFilter struct {
	// Template is empty for all.
	Template string
	// Version is one of the template's, 0 for all of them.
	Version int64
}

// PromisedNames returns one page of the names of things that something is promised
// of, by name, and of a template by version and name.
func (s *Service) PromisedNames(ctx context.Context, account fleet.Account, f PromiseFilter, p Page) (Listed[string], error) {
	within := under(kindThingPromise, account)
	switch {
	case f.Template != "" && f.Version != 0:
		within = under(kindThingPromiseBy, account, f.Template, promiseVersion(f.Version))
	case f.Template != "":
		within = under(kindThingPromiseBy, account, f.Template)
	}
	keys, more, err := keysOf(ctx, s.store, within, p.After, p.size())
	if err != nil {
		return Listed[string]{}, store.Fault(err)
	}
	listed := Listed[string]{Items: make([]string, len(keys))}
	for i, k := range keys {
		listed.Items[i] = k.Last()
	}
	if more {
		listed.Next = string(keys[len(keys)-1])
	}
	return listed, nil
}

// PromiseCount is how many things one version of a template has promised.
type PromiseCount struct {
	Version int64
	Things  int
}

// CountPromises counts the things of up to limit promises of a template by
// version; next, unless it is empty, is where to go on.
func (s *Service) CountPromises(ctx context.Context, account fleet.Account, template, after string, limit int) (counts []PromiseCount, next string, err error) {
	keys, more, err := keysOf(ctx, s.store, under(kindThingPromiseBy, account, template), after, limit)
	if err != nil {
		return nil, "", store.Fault(err)
	}
	for _, k := range keys {
		version, err := strconv.ParseInt(k.Parts()[3], 10, 64)
		if err != nil {
			return nil, "", fmt.Errorf("read row %s: %w", k, err)
		}
		if n := len(counts); n > 0 && counts[n-1].Version == version {
			counts[n-1].Things++
			continue
		}
		counts = append(counts, PromiseCount{Version: version, Things: 1})
	}
	if more {
		next = string(keys[len(keys)-1])
	}
	return counts, next, nil
}

// Keeping is what is to become of a thing and of what is promised of it, all of it
// in one commit.
type Keeping struct {
	// TypeName, Attributes, the groups and BillingGroup are those of EditCommand.
	TypeName                *string
	Attributes              map[string]string
	AddGroups, RemoveGroups []string
	BillingGroup            *string
	// AttachPolicies and DetachPolicies are of the certificate by which the thing is
	// judged; Activate makes it ACTIVE.
	AttachPolicies, DetachPolicies []string
	Activate                       bool
	// Promise, unless it is nil, takes the place of the present one; Forget ends it.
	Promise *Promise
	Forget  bool
	// Event reports it.
	Event event.Event
}

// KeepCommand asks for a thing to be brought together with what is promised of it.
type KeepCommand struct {
	Thing string
	// Decide says what to do by what is; the answer commits only while that holds. A
	// nil answer changes nothing. It may be asked several times.
	Decide func(Promised) (*Keeping, error)
	// Joined, unless it is nil, adds to the commit what another domain keeps of it.
	Joined func() (store.Batch, error)
	// DryRun decides and commits nothing.
	DryRun bool
}

// KeepPromise changes a thing, its certificate and its promise as decided, by the
// rules of the single commands, or nothing of them.
func (s *Service) KeepPromise(ctx context.Context, account fleet.Account, c KeepCommand) error {
	if err := checkName("thingName", c.Thing); err != nil {
		return err
	}
	command := func(ctx context.Context, a *attempt) error {
		p, record, err := s.promisedOf(ctx, a, c.Thing)
		if err != nil {
			return err
		}
		if record == nil {
			return noPromise(c.Thing)
		}
		k, err := c.Decide(p)
		if err != nil || k == nil {
			return err
		}
		if err := s.keepThing(ctx, a, &p, k); err != nil {
			return err
		}
		if err := s.keepCertificate(ctx, a, &p, k); err != nil {
			return err
		}
		if err := keepRecord(a, &p, record, k); err != nil {
			return err
		}
		a.emit(k.Event)
		if c.Joined == nil {
			return nil
		}
		more, err := c.Joined()
		if err != nil {
			return err
		}
		a.add(more)
		return nil
	}
	if c.DryRun {
		return store.Fault(command(ctx, s.attempt(ctx, account)))
	}
	return s.change(ctx, account, command)
}

// keepThing changes the thing's entry.
func (s *Service) keepThing(ctx context.Context, a *attempt, p *Promised, k *Keeping) error {
	if p.Thing == nil || k.TypeName == nil && len(k.Attributes)+len(k.AddGroups)+len(k.RemoveGroups) == 0 && k.BillingGroup == nil {
		return nil
	}
	edit := EditCommand{
		Thing: p.Name, ThingID: p.Thing.ID, TypeName: k.TypeName, Attributes: k.Attributes, AddGroups: k.AddGroups,
		RemoveGroups: k.RemoveGroups, BillingGroup: k.BillingGroup,
	}
	if err := checkEdit(edit); err != nil {
		return err
	}
	var edited Edited
	return s.editing(a.account, edit, &edited)(ctx, a)
}

// keepCertificate changes policies and state of the certificate.
func (s *Service) keepCertificate(ctx context.Context, a *attempt, p *Promised, k *Keeping) error {
	if p.Certificate == nil {
		return nil
	}
	of := reference{kind: fleet.ARNCertificate, name: p.Certificate.ID}
	for _, policy := range k.DetachPolicies {
		if err := s.detaching(policy, of)(ctx, a); err != nil {
			return err
		}
	}
	for _, policy := range k.AttachPolicies {
		if err := s.attaching(a.account, policy, of)(ctx, a); err != nil {
			return err
		}
	}
	if !k.Activate {
		return nil
	}
	record, err := loadCertificate(ctx, a, p.Certificate.ID)
	if err != nil {
		return err
	}
	return decideStatus(a, p.Certificate.ID, record, StatusActive)
}

// keepRecord changes what is promised.
func keepRecord(a *attempt, p *Promised, before *promiseRecord, k *Keeping) error {
	switch {
	case k.Forget:
		return savePromise(a, p.Name, before, nil)
	case k.Promise == nil:
		return nil
	}
	after := *before
	after.TypeName, after.Attributes, after.Groups = k.Promise.TypeName, k.Promise.Attributes, k.Promise.Groups
	after.BillingGroup, after.Certificate, after.Active = k.Promise.BillingGroup, k.Promise.CertificateID, k.Promise.Active
	after.Policies, after.Accepted = k.Promise.Policies, millis(a.now)
	return savePromise(a, p.Name, before, &after)
}

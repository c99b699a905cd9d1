package registry

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/store"
)

// ProvisionCommand asks for all that a device needs.
type ProvisionCommand struct {
	// Plan is what a template comes to for the device.
	Plan *provtemplate.Plan
	// Proof shows that the plan's certificate is the device's own; nil when the
	// caller needs no proof.
	Proof *OwnershipProof
	// Waiting demands that the plan has a certificate by its id and that it is
	// PENDING_ACTIVATION, so that of several who carry out the same plan one does;
	// the others get ErrNotWaiting.
	Waiting bool
	// Origin is what the thing's promise says of the plan.
	Origin PromiseOrigin
	// Asking is the id of the certificate with which the device asks for another
	// one; empty for none.
	Asking string
	// Joined, unless it is nil, adds to the commit what other domains keep about
	// it, in the account that it is for. It is asked in each attempt.
	Joined func(Provisioned) (store.Batch, error)
}

// Provisioned is what a plan has become.
type Provisioned struct {
	// Thing is empty for a plan without one.
	Thing        string
	ThingCreated bool
	// TypeName and Attributes are the thing's after the plan.
	TypeName   string
	Attributes map[string]string
	// CA is the id of the registered authority of the certificate; empty for one
	// issued here or registered without its authority.
	CA string
	// CertificateID and CertificatePEM are empty for a plan without one.
	CertificateID, CertificatePEM string
	// Renews says that the asking certificate may act as the thing already.
	Renews bool
	// ResourceARNs are by logical name.
	ResourceARNs map[string]string
}

// Provision carries out a plan in one commit, by the rules of the commands that
// would do it one by one: all of it or nothing. A thing that exists is changed as
// the plan's override settings say; FAIL is Conflict. Policies that do not exist
// are created from the plan's documents.
//
// A proof that does not hold is ErrNotOwned.
func (s *Service) Provision(ctx context.Context, account fleet.Account, c ProvisionCommand) (Provisioned, error) {
	certify, err := s.certifying(ctx, account, &c)
	if err != nil {
		return Provisioned{}, err
	}
	if err := s.checkPlan(c.Plan); err != nil {
		return Provisioned{}, err
	}
	var made Provisioned
	carryOut := func(ctx context.Context, a *attempt) error {
		made = Provisioned{ResourceARNs: map[string]string{}}
		if err := mustWait(ctx, a, &c); err != nil {
			return err
		}
		if err := s.makeAll(ctx, a, &c, certify, &made); err != nil {
			return err
		}
		if err := promising(ctx, a, &c, &made); err != nil {
			return err
		}
		if err := useBirth(ctx, a, c.Asking, &made); err != nil || c.Joined == nil {
			return err
		}
		more, err := c.Joined(made)
		if err != nil {
			return err
		}
		a.add(more)
		return nil
	}
	err = s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		err := carryOut(ctx, a)
		if err == nil {
			return nil
		}
		// What is in the way may be what somebody else has just made of the plan.
		if over := mustWait(ctx, s.attempt(ctx, account), &c); over != nil {
			return over
		}
		return err
	})
	if err != nil {
		return Provisioned{}, err
	}
	for _, p := range c.Plan.Policies {
		if p.Document != "" {
			s.warnForeign(ctx, account, p.Name, p.Document)
		}
	}
	return made, nil
}

// certifier makes true what a plan says of its certificate.
type certifier = func(context.Context, *attempt, *Provisioned) error

// makeAll decides all that a plan asks for.
func (s *Service) makeAll(ctx context.Context, a *attempt, c *ProvisionCommand, certify certifier, made *Provisioned) error {
	if err := s.provisionThing(ctx, a, c.Plan.Thing, made); err != nil {
		return err
	}
	if err := certify(ctx, a, made); err != nil {
		return err
	}
	if err := s.provisionPolicies(ctx, a, c.Plan.Policies, made); err != nil {
		return err
	}
	return s.provisionAttachment(ctx, a, c, made)
}

// ActsAs reports whether a certificate is attached to a thing, and not for
// provisioning.
func (s *Service) ActsAs(ctx context.Context, account fleet.Account, certificateID, thing string) (bool, error) {
	if certificateID == "" || thing == "" {
		return false, nil
	}
	of := reference{kind: fleet.ARNCertificate, name: certificateID}
	row, _, err := get[rowRecord](ctx, s.store, key(kindThingPrincipal, account, thing, of.ref()))
	if err != nil || row == nil {
		return false, store.Fault(err)
	}
	_, purpose, err := askingPurpose(ctx, s.attempt(ctx, account), certificateID)
	return purpose == nil, store.Fault(err)
}

// MadeBy is the template by which a thing was provisioned last; empty for a thing that no
// named template has made.
func (s *Service) MadeBy(ctx context.Context, account fleet.Account, thing string) (template string, err error) {
	promise, _, err := get[promiseRecord](ctx, s.store, key(kindThingPromise, account, thing))
	if err != nil || promise == nil {
		return "", store.Fault(err)
	}
	present, _, err := get[thingRecord](ctx, s.store, key(kindThing, account, thing))
	if err != nil || present == nil || present.ID != promise.ThingID {
		return "", store.Fault(err)
	}
	return promise.Template, nil
}

// add takes the batch of another domain into the attempt's own.
func (a *attempt) add(more store.Batch) {
	for _, e := range more.Expect {
		a.expect(e.Key, e.Version)
	}
	a.batch.Writes = append(a.batch.Writes, more.Writes...)
	for _, e := range more.Events {
		a.emit(e.Event)
	}
}

// checkPlan checks what needs no record.
func (s *Service) checkPlan(plan *provtemplate.Plan) error {
	if t := plan.Thing; t != nil {
		if err := checkUpdateThing(UpdateThingCommand{Name: t.Name, TypeName: t.TypeName, Attributes: &Attributes{Values: t.Attributes}}); err != nil {
			return err
		}
		if t.BillingGroup != "" {
			if err := checkName("billingGroupName", t.BillingGroup); err != nil {
				return err
			}
		}
		for _, group := range t.Groups {
			if err := checkName("thingGroups", group); err != nil {
				return err
			}
		}
	}
	for _, p := range plan.Policies {
		if err := checkPolicyName(p.Name); err != nil {
			return err
		}
		if p.Document == "" {
			continue
		}
		if err := s.checkDocument(p.Document); err != nil {
			return err
		}
	}
	return nil
}

// provisionThing makes the thing, or changes the one of the name.
func (s *Service) provisionThing(ctx context.Context, a *attempt, t *provtemplate.Thing, made *Provisioned) error {
	if t == nil {
		return nil
	}
	made.Thing = t.Name
	made.ResourceARNs[t.LogicalName] = a.scope.ARN(fleet.ARNThing, t.Name)
	present, err := load[thingRecord](ctx, a, key(kindThing, a.account, t.Name))
	if err != nil {
		return err
	}
	if present == nil {
		made.ThingCreated = true
		c := CreateThingCommand{Name: t.Name, TypeName: t.TypeName, Attributes: t.Attributes, BillingGroup: t.BillingGroup}
		attributes, err := checkCreateThing(c)
		if err != nil {
			return err
		}
		var created Thing
		if err := s.creation(a.account, c, attributes, &created)(ctx, a); err != nil {
			return err
		}
		made.TypeName, made.Attributes = t.TypeName, attributes
		return s.provisionGroups(ctx, a, t, nil)
	}
	if err := mayOverride(t); err != nil {
		return err
	}
	after, err := s.overrideThing(ctx, a, t, present)
	if err != nil {
		return err
	}
	made.TypeName, made.Attributes = after.TypeName, after.Attributes
	switch t.OnGroups {
	case provtemplate.Merge:
		return s.provisionGroups(ctx, a, t, nil)
	case provtemplate.Replace:
		if t.Groups == nil {
			return nil
		}
		var leaves []string
		for _, link := range present.Groups {
			held := present.Quarantine != nil && link.Group == QuarantineGroup
			if !link.Dynamic && !held && !slices.Contains(t.Groups, link.Group) {
				leaves = append(leaves, link.Group)
			}
		}
		return s.provisionGroups(ctx, a, t, leaves)
	case provtemplate.DoNothing, provtemplate.Fail:
	}
	return nil
}

// mayOverride refuses a thing that exists where the template wants that.
func mayOverride(t *provtemplate.Thing) error {
	for _, part := range []struct {
		name  string
		on    provtemplate.Override
		given bool
	}{
		{"AttributePayload", t.OnAttributes, t.Attributes != nil},
		{"ThingTypeName", t.OnType, t.TypeName != ""},
		{"ThingGroups", t.OnGroups, t.Groups != nil},
	} {
		if part.on == provtemplate.Fail && part.given {
			return fault.New(fault.Conflict, "thing %s exists, and the template's override setting for %s is FAIL", t.Name, part.name)
		}
	}
	return nil
}

// overrideThing changes type and attributes of a thing where they differ, and
// returns it as it is then.
func (s *Service) overrideThing(ctx context.Context, a *attempt, t *provtemplate.Thing, present *thingRecord) (*thingRecord, error) {
	u := UpdateThingCommand{Name: t.Name}
	if t.OnType == provtemplate.Replace && t.TypeName != "" && t.TypeName != present.TypeName {
		u.TypeName = t.TypeName
	}
	if t.Attributes != nil {
		switch t.OnAttributes {
		case provtemplate.Merge:
			u.Attributes = &Attributes{Values: t.Attributes, Merge: true}
		case provtemplate.Replace:
			u.Attributes = &Attributes{Values: t.Attributes}
		case provtemplate.DoNothing, provtemplate.Fail:
		}
	}
	after, err := decideUpdateThing(present, u)
	if err != nil {
		return nil, err
	}
	if after.TypeName == present.TypeName && maps.Equal(after.Attributes, present.Attributes) {
		return present, nil
	}
	return after, s.updating(u)(ctx, a)
}

// provisionGroups lets the thing join the template's groups and leave others.
func (s *Service) provisionGroups(ctx context.Context, a *attempt, t *provtemplate.Thing, leaves []string) error {
	if len(t.Groups) == 0 && len(leaves) == 0 {
		return nil
	}
	c := UpdateGroupsCommand{Thing: t.Name, Add: t.Groups, Remove: leaves}
	if err := checkRegrouping(c); err != nil {
		return err
	}
	return s.regrouping(a.account, c)(ctx, a)
}

// certifying makes the certificate as far as that needs no record, and returns
// the command for the rest.
func (s *Service) certifying(ctx context.Context, account fleet.Account, c *ProvisionCommand) (certifier, error) {
	wanted := c.Plan.Certificate
	if wanted == nil {
		return func(context.Context, *attempt, *Provisioned) error { return nil }, nil
	}
	status := StatusInactive
	if wanted.Active {
		status = StatusActive
	}
	var parsed parsedCertificate
	stand, known := issued, true
	switch {
	case wanted.ID != "":
		if err := checkCertificateID(wanted.ID); err != nil {
			return nil, err
		}
		parsed.id = wanted.ID
	case wanted.CSR != "":
		var err error
		if parsed, err = s.signed(ctx, wanted.CSR); err != nil {
			return nil, err
		}
		known = false
	default:
		var err error
		if parsed, stand, err = s.foreign(RegisterCertificateCommand{CertificatePEM: wanted.PEM, CACertificatePEM: wanted.AuthorityPEM}); err != nil {
			return nil, err
		}
		known = false
	}
	return func(ctx context.Context, a *attempt, made *Provisioned) error {
		made.CertificateID = parsed.id
		made.ResourceARNs[wanted.LogicalName] = a.scope.ARN(fleet.ARNCertificate, parsed.id)
		present, err := load[certificateRecord](ctx, a, key(kindCertificate, account, parsed.id))
		switch {
		case err != nil:
			return err
		case present != nil:
			made.CertificatePEM, made.CA = present.PEM, present.CA
			if err := notSpent(ctx, a, parsed.id, present, status); err != nil {
				return err
			}
			return provisionStatus(a, parsed.id, present, status, c)
		case known && c.Proof != nil:
			return notOwned(parsed.id)
		case known:
			return notFound("certificate", parsed.id)
		}
		made.CertificatePEM = parsed.pem
		var created Certificate
		err = s.registering(account, parsed, status, stand, &created)(ctx, a)
		made.CA = created.CA
		return err
	}, nil
}

// signed issues a certificate for a request.
func (s *Service) signed(ctx context.Context, csr string) (parsedCertificate, error) {
	if err := checkCSR(csr); err != nil {
		return parsedCertificate{}, err
	}
	certificatePEM, err := s.issuer.SignCSR(ctx, []byte(csr))
	if err != nil {
		return parsedCertificate{}, err
	}
	parsed, err := parseCertificate(string(certificatePEM))
	if err != nil {
		return parsedCertificate{}, fault.Wrap(fault.Internal, err, "Internal failure")
	}
	return parsed, nil
}

// ErrNotWaiting is a certificate that does not wait to be activated, or not any
// more; test with errors.Is.
var ErrNotWaiting = errors.New("the certificate does not wait for activation")

// mustWait refuses what ProvisionCommand.Waiting does, before anything else is
// looked at: who comes too late must not be told of what the first has made.
func mustWait(ctx context.Context, a *attempt, c *ProvisionCommand) error {
	if !c.Waiting {
		return nil
	}
	id := c.Plan.Certificate.ID
	present, err := loadCertificate(ctx, a, id)
	if err != nil {
		return err
	}
	if present.Status != StatusPendingActivation || present.Pending != nil {
		return fault.Wrap(fault.CertificateState, ErrNotWaiting, "certificate %s is %s and waits for no template", id, present.Status)
	}
	return nil
}

// provisionStatus gives a certificate that exists the state of the plan. One
// that waits for its device gets it in any case.
func provisionStatus(a *attempt, id string, present *certificateRecord, status string, c *ProvisionCommand) error {
	if c.Proof != nil && !c.Proof.proves(present, a.now) {
		return notOwned(id)
	}
	if present.ClaimTemplate != "" {
		return fault.New(fault.CertificateState, "certificate %s is the claim of a trusted user", id)
	}
	switch present.Status {
	case StatusRevoked:
		return fault.New(fault.CertificateState, "certificate %s is revoked, which is final", id)
	case StatusPendingTransfer:
		return beingTransferred(id)
	case StatusPendingActivation:
		endPending(a, id, present)
		return setStatus(a, a.account, id, present, status)
	}
	switch c.Plan.Certificate.OnStatus {
	case provtemplate.Fail:
		return fault.New(fault.Conflict, "certificate %s exists, and the template's override setting for Status is FAIL", id)
	case provtemplate.Replace:
		if present.Status != status {
			return setStatus(a, a.account, id, present, status)
		}
	case provtemplate.DoNothing, provtemplate.Merge:
	}
	return nil
}

// provisionPolicies creates the policies that do not exist and attaches all to
// the certificate.
func (s *Service) provisionPolicies(ctx context.Context, a *attempt, policies []provtemplate.Policy, made *Provisioned) error {
	for _, p := range policies {
		made.ResourceARNs[p.LogicalName] = a.scope.ARN(fleet.ARNPolicy, p.Name)
		present, err := load[policyRecord](ctx, a, key(kindPolicy, a.account, p.Name))
		if err != nil {
			return err
		}
		if present == nil {
			if p.Document == "" {
				return notFound("policy", p.Name)
			}
			var created Policy
			if err := s.creatingPolicy(a.account, p.Name, p.Document, nil, &created)(ctx, a); err != nil {
				return err
			}
		}
		if made.CertificateID == "" {
			continue
		}
		to := reference{kind: fleet.ARNCertificate, name: made.CertificateID}
		if err := s.attaching(a.account, p.Name, to)(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

// provisionAttachment lets the certificate act as the thing, in the way that the
// asking certificate does if that one acts as it.
func (s *Service) provisionAttachment(ctx context.Context, a *attempt, c *ProvisionCommand, made *Provisioned) error {
	if made.Thing == "" || made.CertificateID == "" {
		return nil
	}
	exclusive := false
	_, purpose, err := askingPurpose(ctx, a, c.Asking)
	if err != nil {
		return err
	}
	// What is for provisioning is no certificate of the thing, attached or not.
	if c.Asking != "" && purpose == nil {
		asking := reference{kind: fleet.ARNCertificate, name: c.Asking}
		held, err := load[rowRecord](ctx, a, key(kindThingPrincipal, a.account, made.Thing, asking.ref()))
		if err != nil {
			return err
		}
		made.Renews = held != nil
		exclusive = held != nil && held.Claim
	}
	of := reference{kind: fleet.ARNCertificate, name: made.CertificateID}
	present, err := load[rowRecord](ctx, a, key(kindThingPrincipal, a.account, made.Thing, of.ref()))
	if err != nil || present != nil {
		return err
	}
	return joining(made.Thing, of, exclusive)(ctx, a)
}

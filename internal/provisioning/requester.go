package provisioning

import (
	"context"
	"errors"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// Reasons why a device is refused; test with errors.Is.
var (
	// ErrToken is an ownership token that is not the requester's, was used, or is
	// older than TokenLife.
	ErrToken = errors.New("ownership token is not valid")
	// ErrParameters are parameters with which the template makes no sense.
	ErrParameters = errors.New("parameters do not fit the template")
)

// Requester is a device that asks over MQTT, with a claim or with a certificate
// of its own.
type Requester struct {
	Account   fleet.Account
	Principal fleet.Principal
	ClientID  string
	// RemoteAddr is the device's address, with or without port.
	RemoteAddr string
}

// certificateID is the id of the certificate with which a requester has
// connected, "" for none.
func (r Requester) certificateID() string {
	if r.Principal.Kind != fleet.PrincipalCertificate {
		return ""
	}
	return r.Principal.ID
}

// Issued is a new certificate that waits for its device to be provisioned.
type Issued struct {
	CertificateID  string
	CertificatePEM string
	// PrivatePEM is empty for a certificate made from a request.
	PrivatePEM string
	// Token proves, once and for TokenLife, that the device has asked for the
	// certificate.
	Token string
}

// ProvisionCommand asks to carry out a template for the device of a token.
type ProvisionCommand struct {
	Template   string
	Token      string
	Parameters map[string]string
}

// Provisioned is what a device is told.
type Provisioned struct {
	// ThingName is empty for a template without a thing.
	ThingName string
	// DeviceConfiguration is never nil.
	DeviceConfiguration map[string]string
}

// RegisterCommand asks to carry out a template's body for one device.
type RegisterCommand struct {
	Body       string
	Parameters map[string]string
	// Method is event.ProvisioningRegisterThing or event.ProvisioningBulk, Task
	// the id of the registration task.
	Method event.ProvisioningMethod
	Task   string
	// Joined, unless it is nil, adds to the commit what somebody else keeps about
	// it, so that both happen or neither. It is asked in each attempt.
	Joined func(Registered) (store.Batch, error)
}

// Registered is what a body has made.
type Registered struct {
	// CertificatePEM is empty for a body without certificate.
	CertificatePEM string
	// ResourceARNs are by logical name.
	ResourceARNs map[string]string
}

// CreateKeys issues a certificate for a key pair made here. The certificate is
// PENDING_ACTIVATION until its token is used; unused, it is deleted after
// TokenLife.
func (s *Service) CreateKeys(ctx context.Context, r Requester) (Issued, error) {
	issued, err := s.issue(ctx, r, func(c registry.PendingCommand) (registry.KeysAndCertificate, error) {
		return s.o.Registry.CreatePendingKeys(ctx, r.Account, c)
	})
	s.metrics.requests.WithLabelValues("CreateKeysAndCertificate", codeOf(err)).Inc()
	return issued, err
}

// CreateFromCSR is CreateKeys for the key of a certificate request.
func (s *Service) CreateFromCSR(ctx context.Context, r Requester, csr string) (Issued, error) {
	issued, err := s.issue(ctx, r, func(c registry.PendingCommand) (made registry.KeysAndCertificate, err error) {
		if s.o.Signer != nil {
			certificatePEM, _, signed, err := s.o.Signer.Sign(ctx, r, csr)
			if err != nil {
				return made, err
			}
			if signed {
				made.Certificate, err = s.o.Registry.RegisterPending(ctx, r.Account, certificatePEM, c)
				return made, err
			}
		}
		made.Certificate, err = s.o.Registry.CreatePendingFromCSR(ctx, r.Account, csr, c)
		return made, err
	})
	s.metrics.requests.WithLabelValues("CreateCertificateFromCsr", codeOf(err)).Inc()
	return issued, err
}

// issue makes a certificate that waits for the requester.
func (s *Service) issue(
	ctx context.Context, r Requester, create func(registry.PendingCommand) (registry.KeysAndCertificate, error),
) (Issued, error) {
	rate, err := s.mayAsk(ctx, r)
	if err != nil {
		return Issued{}, err
	}
	ended, err := s.claims.take(ctx, s, r, rate)
	if err != nil {
		return Issued{}, err
	}
	defer ended()
	secret, hash := newToken()
	made, err := create(registry.PendingCommand{Claim: r.Principal.ID, TokenHash: hash, Until: s.o.Now().Add(TokenLife)})
	if err != nil {
		return Issued{}, err
	}
	return Issued{
		CertificateID: made.ID, CertificatePEM: made.PEM, PrivatePEM: made.PrivatePEM, Token: sealToken(made.ID, secret),
	}, nil
}

// mayAsk refuses a certificate that is not in force any more, and returns how many
// certificates it may ask for in a minute.
func (s *Service) mayAsk(ctx context.Context, r Requester) (rate int, err error) {
	rate = s.o.Limits.ClaimRate
	id := r.certificateID()
	if id == "" {
		return rate, nil
	}
	with, err := s.o.Registry.Certificate(ctx, r.Account, id)
	switch {
	case fault.CodeOf(err) == fault.ResourceNotFound:
		return 0, fault.New(fault.Forbidden, "The certificate %s is not registered any more", id)
	case err != nil:
		return 0, err
	case with.Status != registry.StatusActive:
		return 0, fault.New(fault.Forbidden, "The certificate %s is %s", id, with.Status)
	case with.Purpose.Requests > 0:
		rate = with.Purpose.Requests
	}
	return rate, nil
}

// misused reports a birth certificate that was used for another device, once a
// minute for the same one.
func (s *Service) misused(ctx context.Context, r Requester, err error, e *registry.MisusedError) {
	id := r.certificateID()
	if _, ok := s.newcomers.records.Take(string(r.Account)+id+e.OtherSerial+e.OtherThing, s.o.Now()); !ok {
		return
	}
	s.report(ctx, r.Account, event.BirthCertificateMisused{
		CertificateID: id, ClientID: r.ClientID, Serial: e.Serial, OtherSerial: e.OtherSerial, Thing: e.Thing, OtherThing: e.OtherThing, Reason: reasonOf(err),
	})
}

// Provision carries out a fleet provisioning template for the device that owns a
// token: all of it in one commit, or nothing. The template's version is the one
// in force when the request is read. A device that is refused may try again with
// its token.
func (s *Service) Provision(ctx context.Context, r Requester, c ProvisionCommand) (Provisioned, error) {
	report := event.DeviceProvisioned{
		Method: event.ProvisioningClaim, Template: c.Template, ClaimID: r.certificateID(), ClientID: r.ClientID,
	}
	provisioned, err := s.provision(ctx, r, c, &report)
	code := codeOf(err)
	s.metrics.requests.WithLabelValues("RegisterThing", code).Inc()
	if misused := (*registry.MisusedError)(nil); errors.As(err, &misused) {
		s.misused(ctx, r, err, misused)
	}
	if err != nil && report.CertificateID != "" && code != string(fault.Unavailable) && !errors.Is(err, ErrPending) {
		s.refusedOnce(ctx, r.Account, event.ProvisioningRefused{
			Method: report.Method, Template: report.Template, CertificateID: report.CertificateID,
			ClaimID: report.ClaimID, ClientID: report.ClientID, Code: code, Reason: reasonOf(err), Misuse: misuseOf(err),
		})
	}
	return provisioned, err
}

// provision is Provision; report learns what is known of the device on the way.
func (s *Service) provision(ctx context.Context, r Requester, c ProvisionCommand, report *event.DeviceProvisioned) (Provisioned, error) {
	proved, ok := prove(r, c.Token)
	if !ok {
		return Provisioned{}, badToken()
	}
	owned, err := s.o.Registry.Owned(ctx, r.Account, proved.certificateID, proved.ownership)
	if err != nil {
		return Provisioned{}, tokenFault(err)
	}
	report.CertificateID = owned.ID
	template, err := s.inForce(ctx, r.Account, c.Template, provtemplate.FleetProvisioning)
	if err != nil {
		return Provisioned{}, err
	}
	report.TemplateVersion = template.DefaultVersion
	var claim registry.CertificateInfo
	if report.Method, claim, err = s.methodOf(ctx, r, template.Name); err != nil {
		return Provisioned{}, err
	}
	parameters := c.Parameters
	if template.Hook != nil {
		parameters, err = s.askHook(ctx, template.Hook.TargetARN, hookInput{
			ClaimCertificateID: r.certificateID(), CertificateID: owned.ID, CertificatePEM: owned.PEM,
			TemplateARN: template.ARN, ClientID: r.ClientID, Parameters: parameters,
		})
		if err != nil {
			return Provisioned{}, err
		}
	}
	plan, err := template.parsed.Evaluate(parameters, map[string]string{provtemplate.CertificateID: owned.ID})
	if err != nil {
		return Provisioned{}, parametersFault(err)
	}
	// What the template ignores says nothing about the device.
	parameters = declared(template.parsed, parameters)
	if err := ownSerial(r.certificateID(), claim.Purpose.Serial, parameters); err != nil {
		return Provisioned{}, err
	}
	pass, err := s.admit(ctx, r, plan, claim.Purpose.Quarantined, Candidate{
		Account: r.Account, Method: report.Method, Template: template.Name, Version: template.DefaultVersion, CertificateID: owned.ID, CertificatePEM: owned.PEM,
		ClaimID: r.certificateID(), ClaimPEM: claim.PEM, ClientID: r.ClientID, Address: r.RemoteAddr, Parameters: parameters,
	})
	if err != nil {
		return Provisioned{}, err
	}
	_, err = s.perform(ctx, r.Account, performance{plan: plan, report: *report, proof: &proved.ownership, asking: r.certificateID(), pass: pass})
	if err != nil {
		return Provisioned{}, tokenFault(err)
	}
	provisioned := Provisioned{DeviceConfiguration: plan.DeviceConfiguration}
	if plan.Thing != nil {
		provisioned.ThingName = plan.Thing.Name
	}
	return provisioned, nil
}

// admit asks the gate about a device, unless it asks with the certificate of the thing
// that it is, by the template that has made the thing: another one may give it more than
// anybody has decided. A device in quarantine can be nothing else.
func (s *Service) admit(ctx context.Context, r Requester, plan *provtemplate.Plan, quarantined bool, c Candidate) (Pass, error) {
	acts := false
	if plan.Thing != nil {
		c.Thing = plan.Thing.Name
		var err error
		if acts, err = s.o.Registry.ActsAs(ctx, r.Account, r.certificateID(), c.Thing); err != nil {
			return Pass{}, err
		}
	}
	if acts {
		template, err := s.o.Registry.MadeBy(ctx, r.Account, c.Thing)
		if err != nil || template == c.Template {
			return Pass{}, err
		}
	}
	if quarantined && !acts {
		return Pass{}, fault.New(fault.Forbidden, "The certificate %s is of a thing in quarantine, and of no other one", r.certificateID())
	}
	return s.decide(ctx, c)
}

// methodOf tells by which kind of claim a device asks, and returns it. The claim of a
// trusted user is for one template.
func (s *Service) methodOf(ctx context.Context, r Requester, template string) (event.ProvisioningMethod, registry.CertificateInfo, error) {
	id := r.certificateID()
	if id == "" {
		return event.ProvisioningClaim, registry.CertificateInfo{}, nil
	}
	claim, err := s.o.Registry.Certificate(ctx, r.Account, id)
	switch {
	case fault.CodeOf(err) == fault.ResourceNotFound:
		return "", claim, fault.New(fault.Forbidden, "The claim certificate %s is not registered any more", id)
	case err != nil:
		return "", claim, err
	case claim.Status != registry.StatusActive:
		// Its connection is about to end; requests may have waited in line.
		return "", claim, fault.New(fault.Forbidden, "The claim certificate %s is %s", id, claim.Status)
	}
	method := event.ProvisioningClaim
	if claim.ClaimTemplate != "" {
		method = event.ProvisioningTrustedUser
	}
	if of := claim.Purpose.Template; of != "" && of != template {
		return method, claim, Misused(event.ClaimOtherTemplate, "The claim is for another template")
	}
	return method, claim, nil
}

// declared are the parameters that a template has.
func declared(template *provtemplate.Template, given map[string]string) map[string]string {
	all := map[string]string{}
	for _, p := range template.Parameters() {
		if value, ok := given[p.Name]; ok {
			all[p.Name] = value
		}
	}
	return all
}

// serialParameter is where a template is told a device's serial.
const serialParameter = "SerialNumber"

// ownSerial refuses a device that asks with the birth certificate of another one: a
// certificate that is bound to a serial is for parameters with that serial.
func ownSerial(id, serial string, parameters map[string]string) error {
	if serial == "" {
		return nil
	}
	told, named := parameters[serialParameter]
	if named && told == serial {
		return nil
	}
	if !named {
		for _, value := range parameters {
			if value == serial {
				return nil
			}
		}
	}
	return registry.Misused(id, &registry.MisusedError{Serial: serial, OtherSerial: told})
}

// badToken is the fault for every token that opens nothing, whatever the reason.
func badToken() error {
	return fault.Wrap(fault.InvalidRequest, ErrToken, "Certificate ownership token is not valid")
}

// tokenFault tells that the certificate is not the requester's, or not any more;
// other errors pass.
func tokenFault(err error) error {
	if errors.Is(err, registry.ErrNotOwned) {
		return badToken()
	}
	return err
}

// parametersFault is the fault for parameters that the template cannot use.
func parametersFault(err error) error {
	return fault.Wrap(fault.InvalidRequest, errors.Join(ErrParameters, err), "%s", err.Error())
}

// codeOf is the label of an outcome.
func codeOf(err error) string {
	switch {
	case err == nil:
		return "OK"
	case errors.Is(err, ErrToken):
		return "InvalidCertificateOwnershipToken"
	case errors.Is(err, ErrParameters):
		return "InvalidParameters"
	case errors.Is(err, ErrPending):
		return "ApprovalPending"
	}
	return string(fault.CodeOf(err))
}

// reasonOf is what the operator learns: the message and the cause, which the
// device is not told.
func reasonOf(err error) string {
	message := fault.From(err).Message
	if cause := errors.Unwrap(err); cause != nil && cause.Error() != message {
		return message + ": " + cause.Error()
	}
	return message
}

// RegisterThing carries out a body for one device: all of it in one commit, or
// nothing. A body that is none is InvalidRequest, a device for which it cannot be
// carried out RegistrationFailure, and one that is in the way Conflict.
func (s *Service) RegisterThing(ctx context.Context, account fleet.Account, c RegisterCommand) (Registered, error) {
	parsed, err := s.parseBody(c.Body)
	if err != nil {
		return Registered{}, err
	}
	plan, err := parsed.Evaluate(c.Parameters, nil)
	if err != nil {
		return Registered{}, registrationFault(parametersFault(err))
	}
	report := event.DeviceProvisioned{Method: c.Method, Task: c.Task}
	made, err := s.perform(ctx, account, performance{plan: plan, report: report, joined: c.Joined})
	return made, registrationFault(err)
}

// registrationFault tells what lies in the device or in what its template refers
// to: whatever it is, the call has one error for it. What is in the way of the
// template, and what is the server's, keep theirs.
func registrationFault(err error) error {
	switch fault.CodeOf(err) { //nolint:exhaustive // the others are about the device
	case "", fault.Conflict, fault.Throttling, fault.Unavailable, fault.Internal, fault.Forbidden, fault.Unauthorized:
		return err
	case fault.ResourceAlreadyExists:
		return fault.Wrap(fault.Conflict, err, "%s", fault.From(err).Message)
	}
	return fault.Wrap(fault.RegistrationFailure, err, "%s", fault.From(err).Message)
}

// CheckBody refuses a body that is none, and says where it is wrong.
func (s *Service) CheckBody(body string) error {
	_, err := s.parseBody(body)
	return err
}

// parseBody checks the body of a call. The last one is remembered: a task sends
// the same one for each line.
func (s *Service) parseBody(body string) (*provtemplate.Template, error) {
	if known := s.lastBody.Load(); known != nil && known.body == body {
		return known.parsed, nil
	}
	parsed, err := provtemplate.Parse([]byte(body), provtemplate.Bulk, provtemplate.DefaultLimits())
	if err != nil {
		return nil, bodyFault(err)
	}
	s.lastBody.Store(&parsedBody{body: body, parsed: parsed})
	return parsed, nil
}

// parsedBody is a body with what it says.
type parsedBody struct {
	body   string
	parsed *provtemplate.Template
}

// Sweep deletes what no device came back for, until ctx ends.
func (s *Service) Sweep(ctx context.Context, every time.Duration, report func(error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			deleted, err := s.o.Registry.SweepPending(ctx)
			if err != nil && ctx.Err() == nil {
				report(err)
			}
			s.metrics.swept.Add(float64(deleted))
			if _, err := s.o.Registry.CloseReopened(ctx); err != nil && ctx.Err() == nil {
				report(err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

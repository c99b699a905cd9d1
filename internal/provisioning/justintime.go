package provisioning

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// JustInTime takes up a certificate that has connected and may not: it is
// registered if a registered authority allows that, and if the authority has a
// template the device is provisioned by it, all of it in one commit. What an
// earlier call has left undone this one does; a certificate that waits for
// others to activate it is announced again. The answer is as things are
// afterwards. A refusal is logged and, for a certificate that is registered,
// recorded.
func (s *Service) JustInTime(ctx context.Context, account fleet.Account, n registry.Newcomer) (registry.Introduction, error) {
	n.Admit = func(ctx context.Context, ca string) (func(context.Context) (store.Batch, error), error) {
		id := registry.CertificateID(n.Certificate.Raw)
		pass, err := s.decide(ctx, Candidate{
			Account: account, Method: event.ProvisioningJITR, CertificateID: id, CertificatePEM: pemOf(n.Certificate), CA: ca,
			Parameters: subjectParameters(id, n.Certificate),
		})
		return pass.Join, err
	}
	found, err := s.o.Registry.AutoRegister(ctx, account, n)
	if found.CA != "" && found.Status == "" && err != nil && !transient(err) {
		s.notAdmitted(ctx, account, &found, err)
		return found, err //nolint:wrapcheck // it is a fault
	}
	if err != nil {
		s.notRegistered(ctx, account, n, found, err)
		return found, err //nolint:wrapcheck // it is a fault
	}
	if !found.Waiting || found.Registration == nil {
		s.metrics.introductions.WithLabelValues(outcomeOf(&found)).Inc()
		return found, nil
	}
	report := event.DeviceProvisioned{
		Method: event.ProvisioningJITP, Template: found.Registration.TemplateName, CertificateID: found.CertificateID,
	}
	status, err := s.runRegistration(ctx, account, &found, n.Certificate, &report)
	code := codeOf(err)
	switch {
	case errors.Is(err, registry.ErrNotWaiting):
		// Somebody else was faster.
		found.Waiting = false
		s.metrics.introductions.WithLabelValues(introducedKnown).Inc()
		return found, nil
	case err == nil:
		found.Status, found.Waiting = status, false
		s.metrics.introductions.WithLabelValues(introducedProvisioned).Inc()
		return found, nil
	case transient(err):
		s.metrics.introductions.WithLabelValues(introducedFailed).Inc()
		return found, err
	case errors.Is(err, ErrPending):
		s.metrics.introductions.WithLabelValues(introducedWaiting).Inc()
		return found, err
	}
	s.metrics.introductions.WithLabelValues(introducedRefused).Inc()
	s.refusedOnce(ctx, account, event.ProvisioningRefused{
		Method: report.Method, Template: report.Template, CertificateID: found.CertificateID, Code: code, Reason: reasonOf(err), Misuse: misuseOf(err),
	})
	return found, err
}

// notAdmitted reports a certificate that would be registered for somebody else's
// decision, and that the gate has kept out or waiting.
func (s *Service) notAdmitted(ctx context.Context, account fleet.Account, found *registry.Introduction, err error) {
	if errors.Is(err, ErrPending) {
		s.metrics.introductions.WithLabelValues(introducedWaiting).Inc()
		return
	}
	s.metrics.introductions.WithLabelValues(introducedRefused).Inc()
	s.refusedOnce(ctx, account, event.ProvisioningRefused{
		Method: event.ProvisioningJITR, CertificateID: found.CertificateID, Code: codeOf(err), Reason: reasonOf(err), Misuse: misuseOf(err),
	})
}

// runRegistration carries out an authority's template for one certificate and
// returns the state that the certificate has now.
func (s *Service) runRegistration(
	ctx context.Context, account fleet.Account, found *registry.Introduction, leaf *x509.Certificate, report *event.DeviceProvisioned,
) (status string, err error) {
	var parsed *provtemplate.Template
	if name := found.Registration.TemplateName; name != "" {
		template, err := s.inForce(ctx, account, name, provtemplate.JITP)
		if err != nil {
			return "", err
		}
		parsed, report.TemplateVersion = template.parsed, template.DefaultVersion
	} else {
		parsed, err = provtemplate.Parse([]byte(found.Registration.TemplateBody), provtemplate.JITP, provtemplate.DefaultLimits())
		if err != nil {
			return "", fault.Wrap(fault.InvalidRequest, err, "templateBody: %v", err)
		}
	}
	plan, err := parsed.Evaluate(nil, subjectParameters(found.CertificateID, leaf))
	if err != nil {
		return "", parametersFault(err)
	}
	// The plan's certificate is the device's own: a template of this type cannot
	// name another.
	c := Candidate{
		Account: account, Method: report.Method, Template: report.Template, Version: report.TemplateVersion, CertificateID: found.CertificateID, CertificatePEM: pemOf(leaf), CA: found.CA,
		Parameters: subjectParameters(found.CertificateID, leaf),
	}
	if plan.Thing != nil {
		c.Thing = plan.Thing.Name
	}
	pass, err := s.decide(ctx, c)
	if err != nil {
		return "", err
	}
	if _, err := s.perform(ctx, account, performance{plan: plan, report: *report, ca: found.CA, waiting: true, pass: pass}); err != nil {
		return "", err
	}
	if plan.Certificate.Active {
		return registry.StatusActive, nil
	}
	return registry.StatusInactive, nil
}

// pemOf is a certificate as text.
func pemOf(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

// subjectAttributes are the parts of a subject that a template may be told, by
// their object identifiers in X.520.
var subjectAttributes = map[string]string{
	"2.5.4.6":  "AWS::IoT::Certificate::Country",
	"2.5.4.10": "AWS::IoT::Certificate::Organization",
	"2.5.4.11": "AWS::IoT::Certificate::OrganizationalUnit",
	"2.5.4.46": "AWS::IoT::Certificate::DistinguishedNameQualifier",
	"2.5.4.8":  "AWS::IoT::Certificate::StateName",
	"2.5.4.3":  "AWS::IoT::Certificate::CommonName",
	"2.5.4.5":  "AWS::IoT::Certificate::SerialNumber",
}

// subjectParameters are what a template is told about a certificate. Of several
// values of one attribute the first counts (ours; nothing is documented), and an
// empty one is none.
func subjectParameters(id string, c *x509.Certificate) map[string]string {
	parameters := map[string]string{provtemplate.CertificateID: id}
	for _, attribute := range c.Subject.Names {
		name := subjectAttributes[attribute.Type.String()]
		text, ok := attribute.Value.(string)
		if _, present := parameters[name]; name != "" && ok && text != "" && !present {
			parameters[name] = text
		}
	}
	return parameters
}

// CheckRegistrationTemplate refuses the name of a template that an authority
// cannot have: the account must have it, with type JITP.
func (s *Service) CheckRegistrationTemplate(ctx context.Context, account fleet.Account, name string) error {
	_, err := s.inForce(ctx, account, name, provtemplate.JITP)
	return err
}

// notRegistered reports a certificate that was not taken up. One that nobody
// knows costs no commit.
func (s *Service) notRegistered(ctx context.Context, account fleet.Account, n registry.Newcomer, found registry.Introduction, err error) {
	if transient(err) {
		s.metrics.introductions.WithLabelValues(introducedFailed).Inc()
		return
	}
	s.metrics.introductions.WithLabelValues(introducedNotRegistered).Inc()
	if found.Status != "" {
		s.refusedOnce(ctx, account, event.ProvisioningRefused{
			Method: event.ProvisioningJITR, CertificateID: found.CertificateID, Code: codeOf(err), Reason: reasonOf(err),
		})
		return
	}
	id := registry.CertificateID(n.Certificate.Raw)
	if suppressed, ok := s.newcomers.lines.Take(string(account)+id, s.o.Now()); ok {
		s.o.Logger.InfoContext(ctx, "certificate is not registered automatically", slog.String("account", string(account)), slog.String("certificate", id),
			slog.String("issuer", n.Certificate.Issuer.String()), slog.String("reason", reasonOf(err)), slog.Int("suppressed", suppressed))
	}
}

// refusedOnce is refused, once a minute for the same certificate and reason: a
// device that is refused tries again, often at once.
func (s *Service) refusedOnce(ctx context.Context, account fleet.Account, e event.ProvisioningRefused) {
	if _, ok := s.newcomers.records.Take(string(account)+e.CertificateID+e.Code+e.Reason, s.o.Now()); ok {
		s.refused(ctx, account, e)
	}
}

// transient reports whether an error says nothing about the device.
func transient(err error) bool {
	switch fault.CodeOf(err) { //nolint:exhaustive // the others are about the device
	case fault.Unavailable, fault.Throttling:
		return true
	}
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

package certprovider

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provisioning"
	"github.com/muster-iot/muster/internal/registry"
)

var _ provisioning.Signer = (*Service)(nil)

// Outcomes of a request, as the metric has them.
const (
	outcomeSigned = "signed"
	// outcomeBusy is a function that has no time now.
	outcomeBusy = "busy"
	// outcomeLate is a function that did not answer in time.
	outcomeLate = "timeout"
	// outcomeFailed is a function that could not be asked or gave no answer.
	outcomeFailed = "failed"
	// outcomeUnfit is an answer that is no certificate for the device.
	outcomeUnfit = "unfit"
)

// functionInput is what a function is told.
type functionInput struct {
	CSR string `json:"certificateSigningRequest"`
	// PrincipalID is the id of the certificate, or of whatever else the device has
	// connected with.
	PrincipalID string `json:"principalId"`
	ClientID    string `json:"clientId"`
}

// functionOutput is what a function may answer. Other members are let be.
type functionOutput struct {
	CertificatePEM string `json:"certificatePem"`
}

// Sign implements provisioning.Signer: in an account with a provider its function
// signs, or nobody. What it answers must be one certificate for the key of the
// request, valid now, not that of an authority, and signed by an active registered
// authority of the account.
func (s *Service) Sign(ctx context.Context, r provisioning.Requester, csr string) (certificatePEM, ca string, signed bool, err error) {
	found, _, err := s.read(ctx, r.Account)
	if err != nil || found == nil {
		return "", "", false, err
	}
	key, err := registry.RequestKey(csr)
	if err != nil {
		return "", "", false, err
	}
	answer, err := s.ask(ctx, r, found, csr)
	if err != nil {
		return "", "", false, err
	}
	if ca, err = s.accept(ctx, r.Account, key, answer); err != nil {
		if !isUnfit(err) {
			return "", "", false, err
		}
		s.requests.WithLabelValues(outcomeUnfit).Inc()
		return "", "", false, fault.Wrap(fault.Unavailable, within(r.Account, found, err),
			"The answer of the certificate provider is not used: %s", fault.From(err).Message)
	}
	s.requests.WithLabelValues(outcomeSigned).Inc()
	return answer, ca, true, nil
}

// within says in the log which provider an error is about.
func within(account fleet.Account, r *record, err error) error {
	return fmt.Errorf("certificate provider %s of account %s: %w", r.Name, account, err)
}

// ask invokes the provider's function and returns the certificate in its answer.
func (s *Service) ask(ctx context.Context, r provisioning.Requester, provider *record, csr string) (string, error) {
	input, err := json.Marshal(functionInput{CSR: csr, PrincipalID: r.Principal.ID, ClientID: r.ClientID})
	if err != nil {
		return "", fmt.Errorf("encode the input of a certificate provider: %w", err)
	}
	refuse := func(outcome string, code fault.Code, err error, message string) error {
		s.requests.WithLabelValues(outcome).Inc()
		return fault.Wrap(code, within(r.Account, provider, err), "The certificate provider %s", message)
	}
	name, ok := functionOf(s.scope(r.Account), provider.FunctionARN)
	if !ok {
		return "", refuse(outcomeFailed, fault.Unavailable, errors.New("it names no function of the account"), "has no function that could be asked")
	}
	answer, err := s.o.Functions.Invoke(ctx, name, input, InvokeLimit)
	switch {
	case err == nil:
	case s.o.IsBusy(err):
		return "", refuse(outcomeBusy, fault.Throttling, err, "is busy; try again later")
	case s.o.IsLate(err):
		return "", refuse(outcomeLate, fault.Unavailable, err, "did not answer in time")
	default:
		return "", refuse(outcomeFailed, fault.Unavailable, err, "gave no answer")
	}
	var out functionOutput
	if err := json.Unmarshal(answer, &out); err != nil {
		return "", refuse(outcomeUnfit, fault.Unavailable, err, "gave an answer that is no JSON object with certificatePem")
	}
	if out.CertificatePEM == "" {
		return "", refuse(outcomeUnfit, fault.Unavailable, errors.New("certificatePem is missing or empty"), "gave no certificate")
	}
	return out.CertificatePEM, nil
}

// accept returns the id of the authority of a certificate that a device with the
// key may get.
func (s *Service) accept(ctx context.Context, account fleet.Account, key crypto.PublicKey, certificatePEM string) (ca string, err error) {
	certificate, ca, err := s.o.Authorities.Vouched(ctx, account, certificatePEM)
	if err != nil {
		return "", err
	}
	return ca, fits(certificate, key, s.o.Now())
}

// fits refuses a certificate that is not for the device: of another key, not valid
// yet, or good for signing others. That it has not expired is known.
func fits(c *x509.Certificate, key crypto.PublicKey, now time.Time) error {
	own, ok := c.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	switch {
	case !ok || !own.Equal(key):
		return fault.New(fault.CertificateValidation, "certificatePem is not for the key of the request")
	case now.Before(c.NotBefore):
		return fault.New(fault.CertificateValidation, "certificatePem is not valid before %s", c.NotBefore.UTC().Format(time.RFC3339))
	case c.IsCA:
		return fault.New(fault.CertificateValidation, "certificatePem is the certificate of an authority")
	}
	return nil
}

// isUnfit tells a certificate that is refused from a server that cannot say.
func isUnfit(err error) bool {
	switch fault.CodeOf(err) { //nolint:exhaustive // the others are the server's
	case fault.InvalidRequest, fault.CertificateValidation, fault.CertificateState, fault.CertificateConflict:
		return true
	}
	return false
}

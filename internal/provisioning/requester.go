package provisioning

import (
	"context"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
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
	// it, so that both happen or neither.
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
func (s *Service) CreateKeys(ctx context.Context, r Requester) (Issued, error) { panic("soon") }

// CreateFromCSR is CreateKeys for the key of a certificate request.
func (s *Service) CreateFromCSR(ctx context.Context, r Requester, csr string) (Issued, error) {
	panic("soon")
}

// Provision carries out a fleet provisioning template for the device that owns a
// token: all of it in one commit, or nothing.
func (s *Service) Provision(ctx context.Context, r Requester, c ProvisionCommand) (Provisioned, error) {
	panic("soon")
}

// RegisterThing carries out a body for one device: all of it in one commit, or
// nothing.
func (s *Service) RegisterThing(ctx context.Context, account fleet.Account, c RegisterCommand) (Registered, error) {
	panic("soon")
}

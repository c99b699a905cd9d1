package bootstrap

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/inlet"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// Certificates says whose devices are whose, and lets them in where they are sent.
type Certificates interface {
	MayVouch(ctx context.Context, accounts []fleet.Account, c *x509.Certificate) ([]fleet.Account, error)
	Vouch(ctx context.Context, account fleet.Account, c *x509.Certificate) (registry.Voucher, error)
	AdmitGuest(ctx context.Context, account fleet.Account, c *x509.Certificate, template string, until time.Time) (time.Time, error)
}

// Accounts are those of the installation.
type Accounts interface {
	// Open returns all that are not closed.
	Open() []fleet.Account
	Exists(ctx context.Context, of fleet.Account) (bool, error)
	// Endpoint is the host name by which devices reach an account.
	Endpoint(of fleet.Account) string
}

// Templates are the provisioning templates.
type Templates interface {
	TemplateExists(ctx context.Context, account fleet.Account, name string) (bool, error)
	// Usable is a fault for a template that no claim can provision by now.
	Usable(ctx context.Context, account fleet.Account, name string) error
}

// Device is one that is about to be told where to join.
type Device struct {
	// Account is where it would be sent, Template by what it would provision.
	Account  fleet.Account
	Template string
	// Certificate is the one that it has shown. CertificateID is its id, CA the
	// registered authority that has signed it, Serial that in its subject; the last two
	// may be empty.
	Certificate               *x509.Certificate
	CertificateID, CA, Serial string
	// Shared says that other devices have the same certificate.
	Shared            bool
	Address, ClientID string
	Parameters        map[string]string
}

// Approval is how a device stands with those who decide about it.
type Approval string

// Standings.
const (
	// NotNeeded asks nobody.
	NotNeeded Approval = "NOT_NEEDED"
	// Required asks somebody when the device asks to join.
	Required Approval = "REQUIRED"
	// Pending waits for somebody who was asked.
	Pending Approval = "PENDING"
	// Approved may join.
	Approved Approval = "APPROVED"
)

// Standing is what a gate knows of a device.
type Standing struct {
	Approval Approval
	// Request is the id of the request of Pending and Approved.
	Request string
}

// Gate knows something of devices before they ask to join. A fault of code Forbidden
// refuses one, with a message that the device is told: it must hold nothing about other
// devices. Whether the device joins is decided again when it asks to.
type Gate interface {
	Look(ctx context.Context, d *Device) (Standing, error)
}

// Ports are where an endpoint listens; 0 for a listener that there is not.
type Ports struct{ MQTT, HTTPS int }

// Options of New; all are required unless said otherwise.
type Options struct {
	Store        store.Store
	Certificates Certificates
	Accounts     Accounts
	Templates    Templates
	// Gates may be empty. All are asked; the standing that asks most of a device counts.
	Gates []Gate
	// Default is the account whose operators run the installation.
	Default fleet.Account
	Region  string
	// Roots are the authorities of the endpoints' certificates, PEM; empty for unknown.
	Roots string
	Ports func() Ports
	// Window is how long a device may provision once it was told where.
	Window time.Duration
	// CertificateRate and AddressRate are how often a minute one certificate, and one
	// address, may ask; 0 is no bound.
	CertificateRate, AddressRate int
	Now                          func() time.Time
	// Registerer is optional.
	Registerer prometheus.Registerer
}

// Bounds of rates, each in a minute.
const (
	rateWindow = time.Minute
	// allAsked bounds the questions of all, and with them the memory for each.
	allAsked = 100_000
	// maxAnswered and maxStrangers bound the reports about known certificates and about
	// others.
	maxAnswered  = 10_000
	maxStrangers = 100
	// patience bounds the work for one question.
	patience = 10 * time.Second
)

// Service tells devices where to join. It is safe for concurrent use.
type Service struct {
	o Options
	// certificates and addresses are nil without a bound.
	certificates, addresses *inlet.Quota
	// known and strangers bound what is reported.
	known, strangers *inlet.Quota
	asks             *prometheus.CounterVec
}

// New returns a Service, or an error that names what Options lacks.
func New(o Options) (*Service, error) {
	for _, r := range []struct {
		missing bool
		name    string
	}{
		{o.Store == nil, "Store"},
		{o.Certificates == nil, "Certificates"},
		{o.Accounts == nil, "Accounts"},
		{o.Templates == nil, "Templates"},
		{o.Default == "", "Default"},
		{o.Region == "", "Region"},
		{o.Ports == nil, "Ports"},
		{o.Window <= 0, "Window"},
		{o.Now == nil, "Now"},
	} {
		if r.missing {
			return nil, errors.New("bootstrap options lack " + r.name)
		}
	}
	quota := func(each int) *inlet.Quota {
		if each <= 0 {
			return nil
		}
		return inlet.NewQuota(each, allAsked, rateWindow)
	}
	s := &Service{
		o: o, certificates: quota(o.CertificateRate), addresses: quota(o.AddressRate),
		known: inlet.NewQuota(1, maxAnswered, rateWindow), strangers: inlet.NewQuota(1, maxStrangers, rateWindow),
		asks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_bootstrap_requests_total", Help: "Devices that asked where to join, by transport and outcome.",
		}, []string{"transport", "outcome"}),
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(s.asks)
	}
	return s, nil
}

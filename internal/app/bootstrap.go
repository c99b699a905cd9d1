package app

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/muster-iot/muster/internal/approval"
	"github.com/muster-iot/muster/internal/bootstrap"
	"github.com/muster-iot/muster/internal/bootstrapapi"
	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqttapi"
	"github.com/muster-iot/muster/internal/provisioning"
)

// joinBootstrap tells devices where to join. Assignments can be made before the
// address is switched on.
func (a *App) joinBootstrap(context.Context) error {
	var err error
	a.bootstrap, err = bootstrap.New(bootstrap.Options{
		Store: a.store, Certificates: a.registry, Accounts: installation{a}, Templates: a.provisioning, Gates: []bootstrap.Gate{approvalGate{a.approvals}},
		Default: a.settings.AccountID, Region: a.settings.Region, Roots: string(a.pki.ServerRootsPEM()), Ports: a.ports,
		Window: a.settings.Bootstrap.Window, CertificateRate: a.settings.Bootstrap.CertificateRate, AddressRate: a.settings.Bootstrap.AddressRate,
		Now: now, Registerer: a.metrics,
	})
	return err
}

// bootstrapNames is the name of the bootstrap's address, as a list.
func (a *App) bootstrapNames() []string {
	if a.settings.Bootstrap.ServerName == "" {
		return nil
	}
	return []string{a.settings.Bootstrap.ServerName}
}

// installation is what devices are told about accounts.
type installation struct{ app *App }

// Open implements bootstrap.Accounts.
func (i installation) Open() []fleet.Account { return i.app.names.AllOpen() }

// Exists implements bootstrap.Accounts.
func (i installation) Exists(ctx context.Context, of fleet.Account) (bool, error) {
	return i.app.accounts.AccountExists(ctx, of)
}

// Endpoint implements bootstrap.Accounts.
func (i installation) Endpoint(of fleet.Account) string { return i.app.endpointsOf(of).Data }

// ports are where endpoints listen, the one for MQTT as it is advertised.
func (a *App) ports() bootstrap.Ports {
	bound := func(name string) int {
		addr, ok := a.Addr(name).(*net.TCPAddr)
		if !ok {
			return 0
		}
		return addr.Port
	}
	out := bootstrap.Ports{MQTT: bound(listenerMQTT), HTTPS: bound(listenerTLS)}
	if _, text, err := net.SplitHostPort(a.settings.Advertise); err == nil {
		if port, err := strconv.Atoi(text); err == nil {
			out.MQTT = port
		}
	}
	return out
}

// withSerial are the parameters of a device, with the serial number of its certificate
// where they have none.
func withSerial(d *bootstrap.Device) map[string]string {
	const name = "SerialNumber"
	if d.Parameters[name] != "" || d.Serial == "" {
		return d.Parameters
	}
	all := map[string]string{name: d.Serial}
	maps.Copy(all, d.Parameters)
	return all
}

// approvalGate is what approvals know of a device beforehand.
type approvalGate struct{ approvals *approval.Service }

// Look implements bootstrap.Gate.
func (g approvalGate) Look(ctx context.Context, d *bootstrap.Device) (bootstrap.Standing, error) {
	if d.Template == "" {
		return bootstrap.Standing{Approval: bootstrap.NotNeeded}, nil
	}
	found, err := g.approvals.Standing(ctx, provisioning.Candidate{
		Account: d.Account, Method: event.ProvisioningTrustedUser, Template: d.Template, ClaimID: d.CertificateID, ClientID: d.ClientID, Address: d.Address,
		ClaimPEM: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d.Certificate.Raw})), Parameters: withSerial(d),
	}, !d.Shared)
	switch {
	case err != nil:
		return bootstrap.Standing{}, err
	case !found.Bound:
		return bootstrap.Standing{Approval: bootstrap.NotNeeded}, nil
	case found.Request.ID == "":
		return bootstrap.Standing{Approval: bootstrap.Required}, nil
	}
	return bootstrap.Standing{Approval: bootstrap.Approval(found.Request.State), Request: found.Request.ID}, nil
}

// bootstrapHandler serves the bootstrap's server name, and leaves the rest to others.
func (a *App) bootstrapHandler(others http.Handler) http.Handler {
	name := strings.TrimSuffix(a.settings.Bootstrap.ServerName, ".")
	if name == "" {
		return others
	}
	own := bootstrapapi.New(bootstrapapi.Options{Ask: a.bootstrap.Ask, Logger: a.component("bootstrapapi")})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && strings.EqualFold(strings.TrimSuffix(r.TLS.ServerName, "."), name) {
			own.ServeHTTP(w, r)
			return
		}
		others.ServeHTTP(w, r)
	})
}

// askBootstrap asks for the device behind a publish, nil where that is not offered.
func (a *App) askBootstrap() mqttapi.Bootstrap {
	if a.settings.Bootstrap.ServerName == "" {
		return nil
	}
	return func(ctx context.Context, p *broker.Publish) (any, error) {
		if p.Principal.Kind != fleet.PrincipalCertificate {
			return nil, fault.New(fault.Forbidden, "A client certificate is required")
		}
		found, err := a.registry.Certificate(ctx, p.Account, p.Principal.ID)
		if err != nil {
			return nil, err
		}
		block, _ := pem.Decode([]byte(found.PEM))
		if block == nil {
			return nil, fault.New(fault.Internal, "Internal failure")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		answer, err := a.bootstrap.Ask(ctx, bootstrap.Question{Certificate: c, Transport: bootstrap.MQTT, Address: p.RemoteAddr, ClientID: p.ClientID})
		if err != nil {
			return nil, err
		}
		return bootstrapapi.PayloadOf(&answer), nil
	}
}

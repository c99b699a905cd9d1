package app

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/muster-iot/muster/internal/certprovider"
	"github.com/muster-iot/muster/internal/claimwatch"
	"github.com/muster-iot/muster/internal/function"
	"github.com/muster-iot/muster/internal/onboarding"
	"github.com/muster-iot/muster/internal/provisioning"
)

const (
	// maxTemplateVersions is how many versions a provisioning template has, as on
	// AWS IoT.
	maxTemplateVersions = 5
	// pendingSweepEvery is how often certificates are deleted that no device came
	// back for.
	pendingSweepEvery = 30 * time.Second
)

// joinProvisioning lets devices join.
func (a *App) joinProvisioning(context.Context) error {
	var err error
	a.providers, err = certprovider.New(certprovider.Options{
		Store: a.store, Region: a.settings.Region, Functions: a.functions, Authorities: a.registry, Now: now, Registerer: a.metrics,
		IsBusy: func(err error) bool { return errors.Is(err, function.ErrBusy) },
		IsLate: func(err error) bool { return errors.Is(err, function.ErrTimeout) },
	})
	if err != nil {
		return err
	}
	a.approvals = a.newApprovals()
	a.claimUses = claimwatch.New(claimwatch.Options{Store: a.store, Now: now, Registerer: a.metrics})
	a.provisioning, err = provisioning.New(provisioning.Options{
		Store: a.store, Registry: a.registry, Region: a.settings.Region, Functions: a.functions, Signer: a.providers, Renewals: a.renewals, Facts: manufacture{a.onboarding}, Gate: a.approvals, Now: now, NewID: uuid.NewString,
		Limits: provisioning.Limits{
			ClaimRate: a.settings.Provisioning.ClaimRate, ClaimOutstanding: a.settings.Provisioning.ClaimOutstanding,
			TemplateVersions: maxTemplateVersions,
		},
		Tell:   func(of accountID, certificateID, what string) { a.devices.Tell(of, certificateID, what) },
		Logger: a.component("provisioning"), Registerer: a.metrics,
	})
	return err
}

// manufacture is what was announced of devices.
type manufacture struct{ *onboarding.Service }

// Announced implements provisioning.Facts.
func (m manufacture) Announced(ctx context.Context, of accountID, n provisioning.Newcomer) (attributes map[string]string, typeName string, err error) {
	return m.Service.Announced(ctx, of, onboarding.Newcomer{
		Template: n.Template, Authority: n.CA, Thing: n.Thing.Name, TypeName: n.Thing.TypeName, Attributes: n.Thing.Attributes,
		CertificateID: n.CertificateID, ClientID: n.ClientID,
	})
}

// sweepPending deletes what no device came back for.
func (a *App) sweepPending(ctx context.Context) error {
	return a.provisioning.Sweep(ctx, pendingSweepEvery, func(err error) {
		a.component("provisioning").ErrorContext(ctx, "certificates that nobody came back for are not deleted", slog.Any("err", err))
	})
}

// birthSession is how long a connection for provisioning lasts at most unless its
// certificate says something else.
const birthSession = 15 * time.Minute

package iot

import (
	"context"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// Automatic registration on the wire.
const (
	autoEnable  = "ENABLE"
	autoDisable = "DISABLE"
)

// registerCACertificates offers the operations on authorities and what proves
// that one holds their keys.
func (a *api) registerCACertificates(s *awsapi.Server) {
	offer(s, "GetRegistrationCode", awsapi.All, a.getRegistrationCode)
	offer(s, "DeleteRegistrationCode", awsapi.All, a.deleteRegistrationCode)
	offer(s, "RegisterCACertificate", awsapi.All, a.registerCACertificate)
	offer(s, "DescribeCACertificate", on(fleet.ARNCACert, func(in *iotwire.DescribeCACertificateInput) string { return in.CertificateID }), a.describeCACertificate)
	offer(s, "UpdateCACertificate", on(fleet.ARNCACert, func(in *iotwire.UpdateCACertificateInput) string { return in.CertificateID }),
		a.updateCACertificate)
	offer(s, "DeleteCACertificate", on(fleet.ARNCACert, func(in *iotwire.DeleteCACertificateInput) string { return in.CertificateID }), a.deleteCACertificate)
	offer(s, "ListCACertificates", awsapi.All, a.listCACertificates)
	offer(s, "ListCertificatesByCA", on(fleet.ARNCACert, func(in *iotwire.ListCertificatesByCAInput) string { return in.CACertificateID }), a.listCertificatesByCA)
}

func (a *api) getRegistrationCode(ctx context.Context, c *awsapi.Call, _ *iotwire.GetRegistrationCodeInput) (*iotwire.GetRegistrationCodeOutput, error) {
	code, err := a.Registry.GetRegistrationCode(ctx, c.Account)
	return &iotwire.GetRegistrationCodeOutput{RegistrationCode: &code}, err
}

func (a *api) deleteRegistrationCode(
	ctx context.Context, c *awsapi.Call, _ *iotwire.DeleteRegistrationCodeInput,
) (*iotwire.DeleteRegistrationCodeOutput, error) {
	return &iotwire.DeleteRegistrationCodeOutput{}, a.Registry.DeleteRegistrationCode(ctx, c.Account)
}

// registrationConfig is the domain's form of a configuration.
func registrationConfig(in *iotwire.RegistrationConfig) *registry.RegistrationConfig {
	if in == nil {
		return nil
	}
	return &registry.RegistrationConfig{TemplateBody: value(in.TemplateBody), TemplateName: value(in.TemplateName), RoleARN: value(in.RoleARN)}
}

func (a *api) registerCACertificate(
	ctx context.Context, c *awsapi.Call, in *iotwire.RegisterCACertificateInput,
) (*iotwire.RegisterCACertificateOutput, error) {
	made, err := a.Registry.RegisterCACertificate(ctx, c.Account, registry.RegisterCACommand{
		CertificatePEM: in.CACertificate, VerificationPEM: value(in.VerificationCertificate), Mode: value(in.CertificateMode),
		Active: value(in.SetAsActive), AutoRegistration: value(in.AllowAutoRegistration), RegistrationConfig: registrationConfig(in.RegistrationConfig),
		Tags: tagsOf(in.Tags),
	})
	if err != nil {
		return nil, err
	}
	return &iotwire.RegisterCACertificateOutput{CertificateARN: &made.ARN, CertificateID: &made.ID}, nil
}

func (a *api) describeCACertificate(
	ctx context.Context, c *awsapi.Call, in *iotwire.DescribeCACertificateInput,
) (*iotwire.DescribeCACertificateOutput, error) {
	d, err := a.Registry.DescribeCACertificate(ctx, c.Account, in.CertificateID)
	if err != nil {
		return nil, err
	}
	auto := autoDisable
	if d.AutoRegistration {
		auto = autoEnable
	}
	out := &iotwire.DescribeCACertificateOutput{CertificateDescription: &iotwire.CACertificateDescription{
		CertificateARN: &d.ARN, CertificateID: &d.ID, CertificatePem: &d.PEM, Status: &d.Status, CertificateMode: &d.Mode,
		AutoRegistrationStatus: &auto, CreationDate: &d.Created, LastModifiedDate: &d.Modified, OwnedBy: new(string(c.Account)),
		CustomerVersion: new(int32(d.CustomerVersion)), GenerationID: &d.GenerationID,
		Validity: &iotwire.CertificateValidity{NotBefore: &d.NotBefore, NotAfter: &d.NotAfter},
	}}
	if r := d.RegistrationConfig; r != nil {
		out.RegistrationConfig = &iotwire.RegistrationConfig{
			TemplateBody: optional(r.TemplateBody), TemplateName: optional(r.TemplateName), RoleARN: optional(r.RoleARN),
		}
	}
	return out, nil
}

func (a *api) updateCACertificate(
	ctx context.Context, c *awsapi.Call, in *iotwire.UpdateCACertificateInput,
) (*iotwire.UpdateCACertificateOutput, error) {
	command := registry.UpdateCACommand{
		ID: in.CertificateID, Status: value(in.NewStatus), RegistrationConfig: registrationConfig(in.RegistrationConfig),
		RemoveAutoRegistration: value(in.RemoveAutoRegistration),
	}
	switch value(in.NewAutoRegistrationStatus) {
	case "":
	case autoDisable:
		command.AutoRegistration = new(false)
	case autoEnable:
		command.AutoRegistration = new(true)
	default:
		return nil, fault.New(fault.InvalidRequest, "newAutoRegistrationStatus must be %s or %s", autoEnable, autoDisable)
	}
	return &iotwire.UpdateCACertificateOutput{}, a.Registry.UpdateCACertificate(ctx, c.Account, command)
}

func (a *api) deleteCACertificate(
	ctx context.Context, c *awsapi.Call, in *iotwire.DeleteCACertificateInput,
) (*iotwire.DeleteCACertificateOutput, error) {
	return &iotwire.DeleteCACertificateOutput{}, a.Registry.DeleteCACertificate(ctx, c.Account, in.CertificateID)
}

func (a *api) listCACertificates(
	ctx context.Context, c *awsapi.Call, in *iotwire.ListCACertificatesInput,
) (*iotwire.ListCACertificatesOutput, error) {
	filter := []string{word(in.AscendingOrder), value(in.TemplateName)}
	p, err := markerPage(c, in.Marker, in.PageSize, filter...)
	if err != nil {
		return nil, err
	}
	listed, err := a.Registry.ListCACertificates(ctx, c.Account, value(in.TemplateName), value(in.AscendingOrder), p)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListCACertificatesOutput{
		NextMarker: nextMarker(c, listed.Next, filter...),
		Certificates: each(listed.Items, func(d registry.CACertificate) iotwire.CACertificate {
			return iotwire.CACertificate{CertificateARN: &d.ARN, CertificateID: &d.ID, Status: &d.Status, CreationDate: &d.Created}
		}),
	}, nil
}

func (a *api) listCertificatesByCA(
	ctx context.Context, c *awsapi.Call, in *iotwire.ListCertificatesByCAInput,
) (*iotwire.ListCertificatesByCAOutput, error) {
	filter := []string{in.CACertificateID, word(in.AscendingOrder)}
	p, err := markerPage(c, in.Marker, in.PageSize, filter...)
	if err != nil {
		return nil, err
	}
	listed, err := a.Registry.ListCertificatesByCA(ctx, c.Account, in.CACertificateID, value(in.AscendingOrder), p)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListCertificatesByCAOutput{
		NextMarker: nextMarker(c, listed.Next, filter...), Certificates: each(listed.Items, listedCertificate),
	}, nil
}

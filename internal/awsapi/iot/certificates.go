package iot

import (
	"context"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// registerCertificates offers the operations on device certificates.
func (a *api) registerCertificates(s *awsapi.Server) {
	offer(s, "CreateKeysAndCertificate", awsapi.All, a.createKeysAndCertificate)
	offer(s, "CreateCertificateFromCsr", awsapi.All, a.createCertificateFromCSR)
	offer(s, "RegisterCertificate", awsapi.All, a.registerCertificate)
	offer(s, "RegisterCertificateWithoutCA", awsapi.All, a.registerCertificateWithoutCA)
	offer(s, "DescribeCertificate", on(fleet.ARNCertificate, func(in *iotwire.DescribeCertificateInput) string { return in.CertificateID }), a.describeCertificate)
	offer(s, "UpdateCertificate", on(fleet.ARNCertificate, func(in *iotwire.UpdateCertificateInput) string { return in.CertificateID }), a.updateCertificate)
	offer(s, "DeleteCertificate", on(fleet.ARNCertificate, func(in *iotwire.DeleteCertificateInput) string { return in.CertificateID }), a.deleteCertificate)
	offer(s, "ListCertificates", awsapi.All, a.listCertificates)
}

func (a *api) createKeysAndCertificate(
	ctx context.Context, c *awsapi.Call, in *iotwire.CreateKeysAndCertificateInput,
) (*iotwire.CreateKeysAndCertificateOutput, error) {
	made, err := a.Registry.CreateKeysAndCertificate(ctx, c.Account, value(in.SetAsActive))
	if err != nil {
		return nil, err
	}
	return &iotwire.CreateKeysAndCertificateOutput{
		CertificateARN: &made.ARN, CertificateID: &made.ID, CertificatePem: &made.PEM,
		KeyPair: &iotwire.KeyPair{PublicKey: &made.PublicPEM, PrivateKey: &made.PrivatePEM},
	}, nil
}

func (a *api) createCertificateFromCSR(
	ctx context.Context, c *awsapi.Call, in *iotwire.CreateCertificateFromCsrInput,
) (*iotwire.CreateCertificateFromCsrOutput, error) {
	made, err := a.Registry.CreateCertificateFromCSR(ctx, c.Account, in.CertificateSigningRequest, value(in.SetAsActive))
	if err != nil {
		return nil, err
	}
	return &iotwire.CreateCertificateFromCsrOutput{CertificateARN: &made.ARN, CertificateID: &made.ID, CertificatePem: &made.PEM}, nil
}

func (a *api) registerCertificate(
	ctx context.Context, c *awsapi.Call, in *iotwire.RegisterCertificateInput,
) (*iotwire.RegisterCertificateOutput, error) {
	status, err := registerStatus(in.SetAsActive, value(in.Status))
	if err != nil {
		return nil, err
	}
	made, err := a.Registry.RegisterCertificate(ctx, c.Account, registry.RegisterCertificateCommand{
		CertificatePEM: in.CertificatePem, CACertificatePEM: value(in.CACertificatePem), Status: status,
	})
	if err != nil {
		return nil, err
	}
	return &iotwire.RegisterCertificateOutput{CertificateARN: &made.ARN, CertificateID: &made.ID}, nil
}

// registerStatus joins the deprecated flag of RegisterCertificate and the
// member that took its place.
func registerStatus(setAsActive *bool, status string) (string, error) {
	switch {
	case !value(setAsActive):
		return status, nil
	case status != "" && status != registry.StatusActive:
		return "", fault.New(fault.InvalidRequest, "setAsActive and status %s contradict each other", status)
	}
	return registry.StatusActive, nil
}

func (a *api) registerCertificateWithoutCA(
	ctx context.Context, c *awsapi.Call, in *iotwire.RegisterCertificateWithoutCAInput,
) (*iotwire.RegisterCertificateWithoutCAOutput, error) {
	made, err := a.Registry.RegisterCertificateWithoutCA(ctx, c.Account, in.CertificatePem, value(in.Status))
	if err != nil {
		return nil, err
	}
	return &iotwire.RegisterCertificateWithoutCAOutput{CertificateARN: &made.ARN, CertificateID: &made.ID}, nil
}

func (a *api) describeCertificate(ctx context.Context, c *awsapi.Call, in *iotwire.DescribeCertificateInput) (*iotwire.DescribeCertificateOutput, error) {
	d, err := a.Registry.DescribeCertificate(ctx, c.Account, in.CertificateID)
	if err != nil {
		return nil, err
	}
	return &iotwire.DescribeCertificateOutput{CertificateDescription: &iotwire.CertificateDescription{
		CertificateARN: &d.ARN, CertificateID: &d.ID, CertificatePem: &d.PEM, Status: &d.Status, CertificateMode: &d.Mode,
		CACertificateID: optional(d.CA), PreviousOwnedBy: optional(string(d.PreviousOwner)), TransferData: transferData(d.Transfer),
		CreationDate: &d.Created, LastModifiedDate: &d.Modified, OwnedBy: new(string(d.Owner)),
		CustomerVersion: new(int32(d.CustomerVersion)), GenerationID: &d.GenerationID,
		Validity: &iotwire.CertificateValidity{NotBefore: &d.NotBefore, NotAfter: &d.NotAfter},
	}}, nil
}

func (a *api) updateCertificate(ctx context.Context, c *awsapi.Call, in *iotwire.UpdateCertificateInput) (*iotwire.UpdateCertificateOutput, error) {
	return &iotwire.UpdateCertificateOutput{}, a.Registry.UpdateCertificate(ctx, c.Account, in.CertificateID, in.NewStatus)
}

func (a *api) deleteCertificate(ctx context.Context, c *awsapi.Call, in *iotwire.DeleteCertificateInput) (*iotwire.DeleteCertificateOutput, error) {
	return &iotwire.DeleteCertificateOutput{}, a.Registry.DeleteCertificate(ctx, c.Account, in.CertificateID, value(in.ForceDelete))
}

func (a *api) listCertificates(ctx context.Context, c *awsapi.Call, in *iotwire.ListCertificatesInput) (*iotwire.ListCertificatesOutput, error) {
	p, err := markerPage(c, in.Marker, in.PageSize, word(in.AscendingOrder))
	if err != nil {
		return nil, err
	}
	listed, err := a.Registry.ListCertificates(ctx, c.Account, value(in.AscendingOrder), p)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListCertificatesOutput{
		NextMarker: nextMarker(c, listed.Next, word(in.AscendingOrder)), Certificates: each(listed.Items, listedCertificate),
	}, nil
}

// listedCertificate is a certificate as lists have it.
func listedCertificate(d registry.Certificate) iotwire.Certificate {
	return iotwire.Certificate{
		CertificateARN: &d.ARN, CertificateID: &d.ID, Status: &d.Status, CertificateMode: &d.Mode, CreationDate: &d.Created,
	}
}

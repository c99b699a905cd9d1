package iot

import (
	"context"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/registry"
)

// registerTransfers offers the operations that move certificates between
// accounts.
func (a *api) registerTransfers(s *awsapi.Server) {
	offer(s, "TransferCertificate", on(fleet.ARNCertificate, func(in *iotwire.TransferCertificateInput) string { return in.CertificateID }), a.transferCertificate)
	offer(s, "AcceptCertificateTransfer",
		on(fleet.ARNCertificate, func(in *iotwire.AcceptCertificateTransferInput) string { return in.CertificateID }), a.acceptCertificateTransfer)
	offer(s, "RejectCertificateTransfer",
		on(fleet.ARNCertificate, func(in *iotwire.RejectCertificateTransferInput) string { return in.CertificateID }), a.rejectCertificateTransfer)
	offer(s, "CancelCertificateTransfer",
		on(fleet.ARNCertificate, func(in *iotwire.CancelCertificateTransferInput) string { return in.CertificateID }), a.cancelCertificateTransfer)
	offer(s, "ListOutgoingCertificates", awsapi.All, a.listOutgoingCertificates)
}

// transferData is a transfer as descriptions have it.
func transferData(t *registry.Transfer) *iotwire.TransferData {
	if t == nil {
		return nil
	}
	return &iotwire.TransferData{
		TransferMessage: optional(t.Message), RejectReason: optional(t.Reason),
		TransferDate: moment(t.Began), AcceptDate: moment(t.Accepted), RejectDate: moment(t.Rejected),
	}
}

func (a *api) transferCertificate(
	ctx context.Context, c *awsapi.Call, in *iotwire.TransferCertificateInput,
) (*iotwire.TransferCertificateOutput, error) {
	arn, err := a.Registry.TransferCertificate(ctx, c.Account, in.CertificateID, fleet.Account(in.TargetAWSAccount), value(in.TransferMessage))
	if err != nil {
		return nil, err
	}
	return &iotwire.TransferCertificateOutput{TransferredCertificateARN: &arn}, nil
}

func (a *api) acceptCertificateTransfer(
	ctx context.Context, c *awsapi.Call, in *iotwire.AcceptCertificateTransferInput,
) (*iotwire.AcceptCertificateTransferOutput, error) {
	return &iotwire.AcceptCertificateTransferOutput{},
		a.Registry.AcceptCertificateTransfer(ctx, c.Account, in.CertificateID, value(in.SetAsActive))
}

func (a *api) rejectCertificateTransfer(
	ctx context.Context, c *awsapi.Call, in *iotwire.RejectCertificateTransferInput,
) (*iotwire.RejectCertificateTransferOutput, error) {
	return &iotwire.RejectCertificateTransferOutput{},
		a.Registry.RejectCertificateTransfer(ctx, c.Account, in.CertificateID, value(in.RejectReason))
}

func (a *api) cancelCertificateTransfer(
	ctx context.Context, c *awsapi.Call, in *iotwire.CancelCertificateTransferInput,
) (*iotwire.CancelCertificateTransferOutput, error) {
	return &iotwire.CancelCertificateTransferOutput{}, a.Registry.CancelCertificateTransfer(ctx, c.Account, in.CertificateID)
}

func (a *api) listOutgoingCertificates(
	ctx context.Context, c *awsapi.Call, in *iotwire.ListOutgoingCertificatesInput,
) (*iotwire.ListOutgoingCertificatesOutput, error) {
	p, err := markerPage(c, in.Marker, in.PageSize, word(in.AscendingOrder))
	if err != nil {
		return nil, err
	}
	listed, err := a.Registry.ListOutgoingCertificates(ctx, c.Account, value(in.AscendingOrder), p)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListOutgoingCertificatesOutput{
		NextMarker: nextMarker(c, listed.Next, word(in.AscendingOrder)),
		OutgoingCertificates: each(listed.Items, func(d registry.Certificate) iotwire.OutgoingCertificate {
			return iotwire.OutgoingCertificate{
				CertificateARN: &d.ARN, CertificateID: &d.ID, CreationDate: &d.Created, TransferDate: moment(d.Transfer.Began),
				TransferMessage: optional(d.Transfer.Message), TransferredTo: new(string(d.Transfer.To)),
			}
		}),
	}, nil
}

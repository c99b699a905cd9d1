package sdk

import (
	"context"
	"crypto/rand"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/muster-iot/muster/internal/apiclient"
)

// anotherAccount makes an account and returns its owner, with the number.
func (o *operator) anotherAccount() (number string, owner *operator) {
	o.t.Helper()
	digits, err := rand.Int(rand.Reader, big.NewInt(1e11))
	if err != nil {
		o.t.Fatal(err)
	}
	number = fmt.Sprintf("5%011d", digits)
	id, secret := o.server.Credentials()
	c, err := apiclient.New(apiclient.Options{
		Endpoint: "http://" + o.server.HTTPAddr, Credentials: apiclient.Credentials{AccessKeyID: id, Secret: secret, Region: signingRegion}, Now: time.Now,
	})
	if err != nil {
		o.t.Fatal(err)
	}
	defer c.CloseIdle()
	made, err := c.CreateAccount(o.t.Context(), number, named("account"), "owner@plant.example")
	if err != nil {
		o.t.Fatal(err)
	}
	owner = &operator{t: o.t, server: o.server, Client: controlPlane(o.server, made.AccessKey.ID, made.AccessKey.Secret)}
	return number, owner
}

// idle makes a certificate that may be transferred.
func (o *operator) idle() *iot.CreateCertificateFromCsrOutput {
	o.t.Helper()
	return must(o, o.CreateCertificateFromCsr, &iot.CreateCertificateFromCsrInput{CertificateSigningRequest: new(request(o.t, newKey(o.t)))})
}

// offered makes a certificate that is on its way to an account of its own.
func (o *operator) offered() (id *string, number string, receiver *operator) {
	o.t.Helper()
	number, receiver = o.anotherAccount()
	return o.offers(number), number, receiver
}

// offers makes a certificate that is on its way to an account.
func (o *operator) offers(number string) (id *string) {
	o.t.Helper()
	id = o.idle().CertificateId
	must(o, o.TransferCertificate, &iot.TransferCertificateInput{CertificateId: id, TargetAwsAccount: &number, TransferMessage: new("as agreed")})
	return id
}

// transferAnswers are the cases of certificates that change their account.
func transferAnswers() []answerCase {
	return slices.Concat(transferOfferAnswers(), transferEndAnswers())
}

// transferOfferAnswers are the cases of offers and of their list.
func transferOfferAnswers() []answerCase {
	const op, invalid, state, conflict = "TransferCertificate", "InvalidRequestException", "CertificateStateException", "TransferConflictException"
	type input = iot.TransferCertificateInput
	// offer offers a new certificate to a new account, after prepare.
	offer := func(prepare func(o, receiver *operator, made *iot.CreateCertificateFromCsrOutput, in *input)) func(*operator) error {
		return func(o *operator) error {
			number, receiver := o.anotherAccount()
			made := o.idle()
			in := &input{CertificateId: made.CertificateId, TargetAwsAccount: &number}
			prepare(o, receiver, made, in)
			_, err := o.TransferCertificate(o.t.Context(), in)
			return err
		}
	}
	becomes := func(status types.CertificateStatus) func(*operator, *operator, *iot.CreateCertificateFromCsrOutput, *input) {
		return func(o, _ *operator, _ *iot.CreateCertificateFromCsrOutput, in *input) {
			must(o, o.UpdateCertificate, &iot.UpdateCertificateInput{CertificateId: in.CertificateId, NewStatus: status})
		}
	}
	to := func(number string) func(*operator, *operator, *iot.CreateCertificateFromCsrOutput, *input) {
		return func(_, _ *operator, _ *iot.CreateCertificateFromCsrOutput, in *input) { in.TargetAwsAccount = &number }
	}
	return []answerCase{
		{op: op, do: func(o *operator) error {
			number, receiver := o.anotherAccount()
			made := o.idle()
			out := must(o, o.TransferCertificate, &input{CertificateId: made.CertificateId, TargetAwsAccount: &number, TransferMessage: new("as agreed")})
			if want := "arn:aws:iot:us-east-1:" + number + ":cert/" + *made.CertificateId; val(out.TransferredCertificateArn) != want {
				return fmt.Errorf("transferred %s, want %s", val(out.TransferredCertificateArn), want)
			}
			for _, side := range []*operator{o, receiver} {
				d := must(side, side.DescribeCertificate, &iot.DescribeCertificateInput{CertificateId: made.CertificateId}).CertificateDescription
				if d.Status != types.CertificateStatusPendingTransfer || *d.OwnedBy != "000000000000" || d.PreviousOwnedBy != nil ||
					d.TransferData == nil || val(d.TransferData.TransferMessage) != "as agreed" || d.TransferData.TransferDate == nil ||
					d.TransferData.AcceptDate != nil || d.TransferData.RejectDate != nil || d.TransferData.RejectReason != nil {
					return fmt.Errorf("described %+v with %+v", d, d.TransferData)
				}
			}
			return nil
		}},
		{op: op, want: state, rule: "active", says: "is ACTIVE", do: offer(becomes(types.CertificateStatusActive))},
		{op: op, want: state, rule: "revoked", says: "is REVOKED", do: offer(becomes(types.CertificateStatusRevoked))},
		{op: op, want: state, rule: "twice", says: "being transferred already", do: func(o *operator) error {
			id, number, _ := o.offered()
			_, err := o.TransferCertificate(o.t.Context(), &input{CertificateId: id, TargetAwsAccount: &number})
			return err
		}},
		{op: op, want: conflict, rule: "policies", says: "policies", do: offer(func(o, _ *operator, made *iot.CreateCertificateFromCsrOutput, _ *input) {
			o.attached(made.CertificateArn)
		})},
		{op: op, want: conflict, rule: "things", says: "things", do: offer(func(o, _ *operator, made *iot.CreateCertificateFromCsrOutput, _ *input) {
			must(o, o.AttachThingPrincipal, &iot.AttachThingPrincipalInput{ThingName: new(o.aThing()), Principal: made.CertificateArn})
		})},
		{op: op, want: conflict, rule: "there already", says: "has certificate", do: offer(func(_, receiver *operator, made *iot.CreateCertificateFromCsrOutput, _ *input) {
			must(receiver, receiver.RegisterCertificateWithoutCA, &iot.RegisterCertificateWithoutCAInput{CertificatePem: made.CertificatePem})
		})},
		{op: op, want: invalid, rule: "own account", says: "targetAwsAccount", do: offer(to("000000000000"))},
		{op: op, want: invalid, rule: "no such account", says: "there is no account", do: offer(to("999999999999"))},
		{op: op, want: invalid, rule: "no account", says: "targetAwsAccount", do: offer(to("9"))},
		{op: op, want: invalid, rule: "message", says: "transferMessage", do: offer(func(_, _ *operator, _ *iot.CreateCertificateFromCsrOutput, in *input) {
			in.TransferMessage = new(strings.Repeat("x", 129))
		})},
		{op: op, want: "ResourceNotFoundException", says: "does not exist", do: offer(func(_, _ *operator, _ *iot.CreateCertificateFromCsrOutput, in *input) {
			in.CertificateId = &nowhere
		})},
		// A list is an account's, and this one must hold nothing else.
		{op: "ListOutgoingCertificates", do: func(o *operator) error {
			_, giver := o.anotherAccount()
			var want, got []string
			for range 3 {
				number, _ := o.anotherAccount()
				want = append(want, *giver.offers(number)+" "+number)
			}
			pages := iot.NewListOutgoingCertificatesPaginator(giver.Client, &iot.ListOutgoingCertificatesInput{PageSize: new(int32(2)), AscendingOrder: true})
			for pages.HasMorePages() {
				page, err := pages.NextPage(o.t.Context())
				if err != nil {
					return err
				}
				for _, c := range page.OutgoingCertificates {
					if val(c.TransferMessage) != "as agreed" || c.TransferDate == nil || c.CreationDate == nil || !strings.HasSuffix(val(c.CertificateArn), ":cert/"+*c.CertificateId) {
						return fmt.Errorf("listed %+v", c)
					}
					got = append(got, *c.CertificateId+" "+val(c.TransferredTo))
				}
			}
			if !slices.Equal(got, want) {
				return fmt.Errorf("listed %v, want %v", got, want)
			}
			return nil
		}},
		{op: "ListOutgoingCertificates", want: invalid, do: func(o *operator) error {
			_, err := o.ListOutgoingCertificates(o.t.Context(), &iot.ListOutgoingCertificatesInput{Marker: new("AAAA")})
			return err
		}},
	}
}

// transferEndAnswers are the cases of the three ends of a transfer.
func transferEndAnswers() []answerCase {
	accept := func(ctx context.Context, side *operator, id *string) error {
		_, err := side.AcceptCertificateTransfer(ctx, &iot.AcceptCertificateTransferInput{CertificateId: id})
		return err
	}
	reject := func(ctx context.Context, side *operator, id *string) error {
		_, err := side.RejectCertificateTransfer(ctx, &iot.RejectCertificateTransferInput{CertificateId: id})
		return err
	}
	cancel := func(ctx context.Context, side *operator, id *string) error {
		_, err := side.CancelCertificateTransfer(ctx, &iot.CancelCertificateTransferInput{CertificateId: id})
		return err
	}
	const invalid = "InvalidRequestException"
	all := []answerCase{
		{op: "AcceptCertificateTransfer", do: func(o *operator) error {
			id, number, receiver := o.offered()
			must(receiver, receiver.AcceptCertificateTransfer, &iot.AcceptCertificateTransferInput{CertificateId: id, SetAsActive: true})
			d := must(receiver, receiver.DescribeCertificate, &iot.DescribeCertificateInput{CertificateId: id}).CertificateDescription
			if d.Status != types.CertificateStatusActive || *d.OwnedBy != number || val(d.PreviousOwnedBy) != "000000000000" || d.TransferData == nil || d.TransferData.AcceptDate == nil {
				return fmt.Errorf("described %+v with %+v", d, d.TransferData)
			}
			if _, err := o.DescribeCertificate(o.t.Context(), &iot.DescribeCertificateInput{CertificateId: id}); err == nil {
				return fmt.Errorf("%s is still there", *id)
			}
			return nil
		}},
		{op: "AcceptCertificateTransfer", rule: "inactive", do: func(o *operator) error {
			id, _, receiver := o.offered()
			must(receiver, receiver.AcceptCertificateTransfer, &iot.AcceptCertificateTransferInput{CertificateId: id})
			if d := must(receiver, receiver.DescribeCertificate, &iot.DescribeCertificateInput{CertificateId: id}).CertificateDescription; d.Status != types.CertificateStatusInactive {
				return fmt.Errorf("it is %s", d.Status)
			}
			return nil
		}},
		{op: "RejectCertificateTransfer", do: func(o *operator) error {
			id, _, receiver := o.offered()
			must(receiver, receiver.RejectCertificateTransfer, &iot.RejectCertificateTransferInput{CertificateId: id, RejectReason: new("not ours")})
			d := must(o, o.DescribeCertificate, &iot.DescribeCertificateInput{CertificateId: id}).CertificateDescription
			if d.Status != types.CertificateStatusInactive || *d.OwnedBy != "000000000000" || d.TransferData == nil ||
				val(d.TransferData.RejectReason) != "not ours" || d.TransferData.RejectDate == nil || d.TransferData.AcceptDate != nil {
				return fmt.Errorf("described %+v with %+v", d, d.TransferData)
			}
			if _, err := receiver.DescribeCertificate(o.t.Context(), &iot.DescribeCertificateInput{CertificateId: id}); err == nil {
				return fmt.Errorf("%s is still there", *id)
			}
			return nil
		}},
		{op: "RejectCertificateTransfer", want: invalid, rule: "reason", says: "rejectReason", do: func(o *operator) error {
			id, _, receiver := o.offered()
			_, err := receiver.RejectCertificateTransfer(o.t.Context(), &iot.RejectCertificateTransferInput{CertificateId: id, RejectReason: new(strings.Repeat("x", 129))})
			return err
		}},
		{op: "CancelCertificateTransfer", do: func(o *operator) error {
			id, _, receiver := o.offered()
			must(o, o.CancelCertificateTransfer, &iot.CancelCertificateTransferInput{CertificateId: id})
			if d := must(o, o.DescribeCertificate, &iot.DescribeCertificateInput{CertificateId: id}).CertificateDescription; d.Status != types.CertificateStatusInactive {
				return fmt.Errorf("it is %s", d.Status)
			}
			if _, err := receiver.DescribeCertificate(o.t.Context(), &iot.DescribeCertificateInput{CertificateId: id}); err == nil {
				return fmt.Errorf("%s is still there", *id)
			}
			return nil
		}},
	}
	for op, end := range map[string]func(context.Context, *operator, *string) error{
		"AcceptCertificateTransfer": accept, "RejectCertificateTransfer": reject, "CancelCertificateTransfer": cancel,
	} {
		all = append(all,
			answerCase{op: op, want: invalid, rule: "no transfer", says: "is not being transferred", do: func(o *operator) error {
				return end(o.t.Context(), o, o.idle().CertificateId)
			}},
			answerCase{op: op, want: invalid, rule: "wrong side", says: "this account, which can", do: func(o *operator) error {
				id, _, receiver := o.offered()
				side := o
				if op == "CancelCertificateTransfer" {
					side = receiver
				}
				return end(o.t.Context(), side, id)
			}},
			answerCase{op: op, want: invalid, rule: "id", says: "certificateId", do: func(o *operator) error { return end(o.t.Context(), o, new("x")) }},
			answerCase{op: op, want: "ResourceNotFoundException", says: "does not exist", do: func(o *operator) error { return end(o.t.Context(), o, &nowhere) }},
			answerCase{op: op, want: "TransferAlreadyCompletedException", rule: "accepted", says: "over", do: func(o *operator) error {
				id, _, receiver := o.offered()
				if err := accept(o.t.Context(), receiver, id); err != nil {
					return err
				}
				return end(o.t.Context(), receiver, id)
			}},
			answerCase{op: op, want: "TransferAlreadyCompletedException", rule: "gone", says: "is completed", do: func(o *operator) error {
				id, _, receiver := o.offered()
				if err := accept(o.t.Context(), receiver, id); err != nil {
					return err
				}
				return end(o.t.Context(), o, id)
			}},
			answerCase{op: op, want: "TransferAlreadyCompletedException", rule: "cancelled", says: "over", do: func(o *operator) error {
				id, _, _ := o.offered()
				if err := cancel(o.t.Context(), o, id); err != nil {
					return err
				}
				return end(o.t.Context(), o, id)
			}},
		)
	}
	return all
}

package sdk

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
)

// joiningBody is a template with which devices of an authority join.
const joiningBody = `{"Parameters":{"AWS::IoT::Certificate::Id":{"Type":"String"}},"Resources":{
 "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"AWS::IoT::Certificate::Id"}}},
 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}}}}}`

// nowhere is the id of no certificate.
var nowhere = strings.Repeat("0", 64) //nolint:gochecknoglobals // it is a constant that Go cannot write.

// certificateAnswers are the cases of certificates and authorities.
func certificateAnswers() []answerCase {
	return slices.Concat(authorityAnswers(), authorityChangeAnswers(), registerAnswers(), certificateStateAnswers(), certificateListAnswers(), transferAnswers())
}

// certificatesNotReached are exceptions of theirs that cannot come about here.
func certificatesNotReached() map[string]string {
	return map[string]string{
		"CreateKeysAndCertificate InvalidRequestException":       "its only member is a flag",
		"GetRegistrationCode InvalidRequestException":            "it has no members",
		"RegisterCertificateWithoutCA CertificateStateException": "there is no authority whose state could forbid it",
	}
}

// refusedFor calls an operation with an input that needs nothing made before.
func refusedFor[In, Out any](pick func(*operator) func(context.Context, *In, ...func(*iot.Options)) (*Out, error), in *In) func(*operator) error {
	return func(o *operator) error {
		_, err := pick(o)(o.t.Context(), in)
		return err
	}
}

// registersCA registers an authority with what edit makes of a good request.
func registersCA(edit func(o *operator, a *authority, in *iot.RegisterCACertificateInput)) func(*operator) error {
	return func(o *operator) error {
		a := newAuthority(o.t, named("maker"), newKey(o.t))
		in := &iot.RegisterCACertificateInput{CaCertificate: &a.pem, VerificationCertificate: o.proof(a)}
		edit(o, a, in)
		_, err := o.RegisterCACertificate(o.t.Context(), in)
		return err
	}
}

// replaced registers another authority's certificate instead, with its proof.
func replaced(template func(*x509.Certificate)) func(*operator, *authority, *iot.RegisterCACertificateInput) {
	return func(o *operator, _ *authority, in *iot.RegisterCACertificateInput) {
		a := newAuthority(o.t, named("maker"), newKey(o.t), template)
		in.CaCertificate = &a.pem
	}
}

// authorityAnswers are the cases of registration codes and RegisterCACertificate.
func authorityAnswers() []answerCase {
	const op, invalid = "RegisterCACertificate", "CertificateValidationException"
	type input = iot.RegisterCACertificateInput
	return []answerCase{
		{op: "GetRegistrationCode", do: func(o *operator) error {
			code := must(o, o.GetRegistrationCode, &iot.GetRegistrationCodeInput{}).RegistrationCode
			again := must(o, o.GetRegistrationCode, &iot.GetRegistrationCodeInput{}).RegistrationCode
			if len(*code) != 64 || *again != *code {
				return fmt.Errorf("codes %s and %s", *code, *again)
			}
			return nil
		}},
		// The code is the account's: these two need one that nobody else uses.
		{op: "DeleteRegistrationCode", do: func(o *operator) error {
			own := newOperator(o.t, startServer(o.t))
			code := must(own, own.GetRegistrationCode, &iot.GetRegistrationCodeInput{}).RegistrationCode
			must(own, own.DeleteRegistrationCode, &iot.DeleteRegistrationCodeInput{})
			if next := must(own, own.GetRegistrationCode, &iot.GetRegistrationCodeInput{}).RegistrationCode; *next == *code {
				return fmt.Errorf("the code %s came back", *code)
			}
			return nil
		}},
		{op: "DeleteRegistrationCode", want: "ResourceNotFoundException", says: "no registration code", do: func(o *operator) error {
			own := newOperator(o.t, startServer(o.t))
			_, err := own.DeleteRegistrationCode(o.t.Context(), &iot.DeleteRegistrationCodeInput{})
			return err
		}},
		{op: op, rule: "DEFAULT", do: func(o *operator) error {
			a, id := o.authority()
			d := must(o, o.DescribeCACertificate, &iot.DescribeCACertificateInput{CertificateId: id}).CertificateDescription
			if *d.CertificatePem != a.pem || d.Status != types.CACertificateStatusActive || d.CertificateMode != types.CertificateModeDefault ||
				*d.CertificateArn != arnPrefix+"cacert/"+*id || d.AutoRegistrationStatus != types.AutoRegistrationStatusDisable {
				return fmt.Errorf("described %+v", d)
			}
			return nil
		}},
		{op: op, rule: "SNI_ONLY", do: registersCA(func(_ *operator, _ *authority, in *input) {
			in.CertificateMode, in.VerificationCertificate = types.CertificateModeSniOnly, nil
		})},
		{op: op, rule: "template body", do: registersCA(func(_ *operator, _ *authority, in *input) {
			in.RegistrationConfig = &types.RegistrationConfig{TemplateBody: new(joiningBody), RoleArn: new("arn:aws:iam::000000000000:role/provision")}
		})},
		{op: op, rule: "tags", do: func(o *operator) error {
			a := newAuthority(o.t, named("maker"), newKey(o.t))
			made := must(o, o.RegisterCACertificate, &input{
				CaCertificate: &a.pem, CertificateMode: types.CertificateModeSniOnly, Tags: []types.Tag{{Key: new("site"), Value: new("leeds")}},
			})
			must(o, o.TagResource, &iot.TagResourceInput{ResourceArn: made.CertificateArn, Tags: []types.Tag{{Key: new("line"), Value: new("2")}}})
			if tags := must(o, o.ListTagsForResource, &iot.ListTagsForResourceInput{ResourceArn: made.CertificateArn}).Tags; len(tags) != 2 {
				return fmt.Errorf("tags %+v", tags)
			}
			return nil
		}},
		{op: op, rule: "wrong CN", want: "RegistrationCodeValidationException", says: "common name", do: registersCA(func(_ *operator, a *authority, in *input) {
			in.VerificationCertificate = new(a.device())
		})},
		{op: op, rule: "wrong signer", want: invalid, says: "not signed by the key of caCertificate", do: registersCA(func(o *operator, _ *authority, in *input) {
			in.VerificationCertificate = o.proof(newAuthority(o.t, "somebody else", newKey(o.t)))
		})},
		{op: op, rule: "expired", want: invalid, says: "caCertificate: the certificate expired on", do: registersCA(replaced(func(c *x509.Certificate) {
			c.NotAfter = time.Now().Add(-time.Minute)
		}))},
		{op: op, rule: "no CA", want: invalid, says: "CA:TRUE", do: registersCA(replaced(func(c *x509.Certificate) { c.IsCA = false }))},
		{op: op, rule: "no certificate", want: invalid, says: "caCertificate is no PEM", do: registersCA(func(_ *operator, _ *authority, in *input) {
			in.CaCertificate = new("hello")
		})},
		{op: op, rule: "proof expired", want: invalid, says: "verificationCertificate: the certificate expired on", do: registersCA(func(o *operator, a *authority, in *input) {
			code := must(o, o.GetRegistrationCode, &iot.GetRegistrationCodeInput{}).RegistrationCode
			in.VerificationCertificate = new(a.issue(*code, time.Now().Add(-time.Minute)))
		})},
		{op: op, rule: "no proof", want: "InvalidRequestException", says: "verificationCertificate", do: registersCA(func(_ *operator, _ *authority, in *input) {
			in.VerificationCertificate = nil
		})},
		{op: op, rule: "proof in SNI_ONLY", want: "InvalidRequestException", says: "verificationCertificate", do: registersCA(func(_ *operator, _ *authority, in *input) {
			in.CertificateMode = types.CertificateModeSniOnly
		})},
		{op: op, want: "ResourceAlreadyExistsException", says: "already registered", do: func(o *operator) error {
			a, id := o.authority()
			_, err := o.RegisterCACertificate(o.t.Context(), &input{CaCertificate: &a.pem, VerificationCertificate: o.proof(a)})
			return alreadyThere(err, *id)
		}},
		{op: op, want: "ResourceNotFoundException", says: "provisioning template", do: registersCA(func(_ *operator, _ *authority, in *input) {
			in.RegistrationConfig = &types.RegistrationConfig{TemplateName: new("nothing")}
		})},
		{op: op, want: "LimitExceededException", says: "subject", do: func(o *operator) error {
			name := named("maker")
			var err error
			for range 11 {
				if err != nil {
					return fmt.Errorf("before the limit: %w", err)
				}
				_, err = o.RegisterCACertificate(o.t.Context(), &input{
					CaCertificate: &newAuthority(o.t, name, newKey(o.t)).pem, CertificateMode: types.CertificateModeSniOnly,
				})
			}
			return err
		}},
	}
}

// authorityChangeAnswers are the cases of registered authorities.
func authorityChangeAnswers() []answerCase {
	describe := func(o *operator) func(context.Context, *iot.DescribeCACertificateInput, ...func(*iot.Options)) (*iot.DescribeCACertificateOutput, error) {
		return o.DescribeCACertificate
	}
	update := func(o *operator) func(context.Context, *iot.UpdateCACertificateInput, ...func(*iot.Options)) (*iot.UpdateCACertificateOutput, error) {
		return o.UpdateCACertificate
	}
	remove := func(o *operator) func(context.Context, *iot.DeleteCACertificateInput, ...func(*iot.Options)) (*iot.DeleteCACertificateOutput, error) {
		return o.DeleteCACertificate
	}
	const invalid, absent = "InvalidRequestException", "ResourceNotFoundException"
	return []answerCase{
		{op: "DescribeCACertificate", do: func(o *operator) error {
			_, id := o.authority()
			d := must(o, o.DescribeCACertificate, &iot.DescribeCACertificateInput{CertificateId: id}).CertificateDescription
			if *d.OwnedBy != "000000000000" || d.Validity == nil || *d.CustomerVersion != 1 || d.GenerationId == nil {
				return fmt.Errorf("described %+v", d)
			}
			return nil
		}},
		{op: "DescribeCACertificate", want: invalid, says: "caCertificateId", do: refusedFor(describe, &iot.DescribeCACertificateInput{CertificateId: new("x")})},
		{op: "DescribeCACertificate", want: absent, says: "does not exist", do: refusedFor(describe, &iot.DescribeCACertificateInput{CertificateId: &nowhere})},
		{op: "UpdateCACertificate", do: func(o *operator) error {
			_, id := o.authority()
			config := &types.RegistrationConfig{TemplateBody: new(joiningBody), RoleArn: new("arn:aws:iam::000000000000:role/provision")}
			must(o, o.UpdateCACertificate, &iot.UpdateCACertificateInput{CertificateId: id, NewStatus: types.CACertificateStatusInactive, RegistrationConfig: config})
			d := must(o, o.DescribeCACertificate, &iot.DescribeCACertificateInput{CertificateId: id})
			if d.CertificateDescription.Status != types.CACertificateStatusInactive || d.RegistrationConfig == nil || *d.RegistrationConfig.TemplateBody != joiningBody {
				return fmt.Errorf("described %+v", d)
			}
			must(o, o.UpdateCACertificate, &iot.UpdateCACertificateInput{CertificateId: id, RemoveAutoRegistration: true})
			if d = must(o, o.DescribeCACertificate, &iot.DescribeCACertificateInput{CertificateId: id}); d.RegistrationConfig != nil {
				return fmt.Errorf("the configuration %+v stayed", d.RegistrationConfig)
			}
			return nil
		}},
		{op: "UpdateCACertificate", want: invalid, rule: "automatic registration", says: "newAutoRegistrationStatus", do: refusedFor(update, &iot.UpdateCACertificateInput{
			CertificateId: &nowhere, NewAutoRegistrationStatus: "SOMETIMES",
		})},
		{op: "UpdateCACertificate", want: invalid, rule: "status", says: "newStatus", do: refusedFor(update, &iot.UpdateCACertificateInput{
			CertificateId: &nowhere, NewStatus: "REVOKED",
		})},
		{op: "UpdateCACertificate", want: absent, says: "does not exist", do: refusedFor(update, &iot.UpdateCACertificateInput{
			CertificateId: &nowhere, NewStatus: types.CACertificateStatusActive,
		})},
		{op: "DeleteCACertificate", do: func(o *operator) error {
			_, id := o.authority()
			o.deactivate(id)
			must(o, o.DeleteCACertificate, &iot.DeleteCACertificateInput{CertificateId: id})
			if _, err := o.DescribeCACertificate(o.t.Context(), &iot.DescribeCACertificateInput{CertificateId: id}); err == nil {
				return fmt.Errorf("%s is still there", *id)
			}
			return nil
		}},
		{op: "DeleteCACertificate", want: "CertificateStateException", says: "is ACTIVE", do: func(o *operator) error {
			_, id := o.authority()
			_, err := o.DeleteCACertificate(o.t.Context(), &iot.DeleteCACertificateInput{CertificateId: id})
			return err
		}},
		{op: "DeleteCACertificate", want: invalid, says: "caCertificateId", do: refusedFor(remove, &iot.DeleteCACertificateInput{CertificateId: new("x")})},
		{op: "DeleteCACertificate", want: absent, says: "does not exist", do: refusedFor(remove, &iot.DeleteCACertificateInput{CertificateId: &nowhere})},
	}
}

// registerAnswers are the cases of making and registering certificates.
func registerAnswers() []answerCase {
	const op, bare, invalid = "RegisterCertificate", "RegisterCertificateWithoutCA", "CertificateValidationException"
	type input = iot.RegisterCertificateInput
	under := func(edit func(o *operator, a *authority, in *input)) func(*operator) error {
		return func(o *operator) error {
			a, _ := o.authority()
			in := &input{CertificatePem: new(a.device())}
			edit(o, a, in)
			_, err := o.RegisterCertificate(o.t.Context(), in)
			return err
		}
	}
	without := func(text func(o *operator) string) func(*operator) error {
		return func(o *operator) error {
			_, err := o.RegisterCertificateWithoutCA(o.t.Context(), &iot.RegisterCertificateWithoutCAInput{CertificatePem: new(text(o))})
			return err
		}
	}
	foreign := func(o *operator) *authority { return newAuthority(o.t, named("maker"), newKey(o.t)) }
	return []answerCase{
		{op: "CreateKeysAndCertificate", do: func(o *operator) error {
			made := must(o, o.CreateKeysAndCertificate, &iot.CreateKeysAndCertificateInput{})
			return o.stands(made.CertificateId, types.CertificateStatusInactive, types.CertificateModeDefault, "")
		}},
		{op: "CreateCertificateFromCsr", do: func(o *operator) error {
			made := must(o, o.CreateCertificateFromCsr, &iot.CreateCertificateFromCsrInput{CertificateSigningRequest: new(request(o.t, newKey(o.t))), SetAsActive: true})
			return o.stands(made.CertificateId, types.CertificateStatusActive, types.CertificateModeDefault, "")
		}},
		{op: "CreateCertificateFromCsr", want: "InvalidRequestException", rule: "curve", says: "P-256", do: func(o *operator) error {
			weak, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
			if err != nil {
				return err
			}
			_, err = o.CreateCertificateFromCsr(o.t.Context(), &iot.CreateCertificateFromCsrInput{CertificateSigningRequest: new(request(o.t, weak))})
			return err
		}},
		{op: op, do: func(o *operator) error {
			a, ca := o.authority()
			made := must(o, o.RegisterCertificate, &input{CertificatePem: new(a.device()), CaCertificatePem: &a.pem, Status: types.CertificateStatusActive})
			return o.stands(made.CertificateId, types.CertificateStatusActive, types.CertificateModeDefault, *ca)
		}},
		{op: op, want: "CertificateConflictException", rule: "mismatch", says: "not signed by caCertificatePem", do: under(func(o *operator, _ *authority, in *input) {
			in.CaCertificatePem = &foreign(o).pem
		})},
		{op: op, want: "CertificateConflictException", rule: "several", says: "say with caCertificatePem", do: under(func(o *operator, a *authority, _ *input) {
			renewed := newAuthority(o.t, a.cert.Subject.CommonName, a.key)
			must(o, o.RegisterCACertificate, &iot.RegisterCACertificateInput{CaCertificate: &renewed.pem, CertificateMode: types.CertificateModeSniOnly})
		})},
		{op: op, want: "CertificateStateException", says: "takes no new certificates", do: func(o *operator) error {
			a, id := o.authority()
			o.deactivate(id)
			_, err := o.RegisterCertificate(o.t.Context(), &input{CertificatePem: new(a.device())})
			return err
		}},
		{op: op, want: invalid, rule: "issuer", says: "no registered CA certificate", do: under(func(o *operator, _ *authority, in *input) {
			in.CertificatePem = new(foreign(o).device())
		})},
		{op: op, want: invalid, rule: "expired", says: "expired on", do: under(func(_ *operator, a *authority, in *input) {
			in.CertificatePem = new(a.issue("device", time.Now().Add(-time.Minute)))
		})},
		{op: op, want: "InvalidRequestException", rule: "status", says: "status", do: under(func(_ *operator, _ *authority, in *input) {
			in.Status = types.CertificateStatusRevoked
		})},
		{op: op, want: "InvalidRequestException", rule: "two states", says: "contradict", do: under(func(_ *operator, _ *authority, in *input) {
			in.Status, in.SetAsActive = types.CertificateStatusInactive, new(true) //nolint:staticcheck // deprecated is not gone.
		})},
		{op: op, want: "ResourceAlreadyExistsException", says: "already registered", do: func(o *operator) error {
			a, _ := o.authority()
			in := &input{CertificatePem: new(a.device())}
			id := must(o, o.RegisterCertificate, in).CertificateId
			_, err := o.RegisterCertificate(o.t.Context(), in)
			return alreadyThere(err, *id)
		}},
		{op: bare, do: func(o *operator) error {
			made := must(o, o.RegisterCertificateWithoutCA, &iot.RegisterCertificateWithoutCAInput{CertificatePem: new(foreign(o).device())})
			return o.stands(made.CertificateId, types.CertificateStatusInactive, types.CertificateModeSniOnly, "")
		}},
		{op: bare, want: invalid, says: "certificatePem is no PEM", do: without(func(*operator) string { return "hello" })},
		{op: bare, want: "InvalidRequestException", says: "status", do: func(o *operator) error {
			_, err := o.RegisterCertificateWithoutCA(o.t.Context(), &iot.RegisterCertificateWithoutCAInput{
				CertificatePem: new(foreign(o).device()), Status: types.CertificateStatusPendingTransfer,
			})
			return err
		}},
		{op: bare, want: "ResourceAlreadyExistsException", says: "already registered", do: func(o *operator) error {
			in := &iot.RegisterCertificateWithoutCAInput{CertificatePem: new(foreign(o).device())}
			id := must(o, o.RegisterCertificateWithoutCA, in).CertificateId
			_, err := o.RegisterCertificateWithoutCA(o.t.Context(), in)
			return alreadyThere(err, *id)
		}},
	}
}

// alreadyThere checks that an exception names what is in the way, and returns
// it.
func alreadyThere(err error, id string) error {
	var exists *types.ResourceAlreadyExistsException
	if errors.As(err, &exists) && val(exists.ResourceId) != id {
		return fmt.Errorf("names %s, not %s", val(exists.ResourceId), id)
	}
	return err
}

// stands compares a certificate with what it should be.
func (o *operator) stands(id *string, status types.CertificateStatus, mode types.CertificateMode, ca string) error {
	o.t.Helper()
	d := must(o, o.DescribeCertificate, &iot.DescribeCertificateInput{CertificateId: id}).CertificateDescription
	if d.Status != status || d.CertificateMode != mode || val(d.CaCertificateId) != ca || *d.OwnedBy != "000000000000" || d.PreviousOwnedBy != nil || d.TransferData != nil {
		return fmt.Errorf("described %+v", d)
	}
	return nil
}

// certificateStateAnswers are the cases of registered certificates.
func certificateStateAnswers() []answerCase {
	describe := func(o *operator) func(context.Context, *iot.DescribeCertificateInput, ...func(*iot.Options)) (*iot.DescribeCertificateOutput, error) {
		return o.DescribeCertificate
	}
	update := func(o *operator) func(context.Context, *iot.UpdateCertificateInput, ...func(*iot.Options)) (*iot.UpdateCertificateOutput, error) {
		return o.UpdateCertificate
	}
	remove := func(o *operator) func(context.Context, *iot.DeleteCertificateInput, ...func(*iot.Options)) (*iot.DeleteCertificateOutput, error) {
		return o.DeleteCertificate
	}
	const invalid, absent, state = "InvalidRequestException", "ResourceNotFoundException", "CertificateStateException"
	created := func(o *operator, active bool) *iot.CreateCertificateFromCsrOutput {
		return must(o, o.CreateCertificateFromCsr, &iot.CreateCertificateFromCsrInput{CertificateSigningRequest: new(request(o.t, newKey(o.t))), SetAsActive: active})
	}
	return []answerCase{
		{op: "DescribeCertificate", do: func(o *operator) error {
			made := created(o, true)
			d := must(o, o.DescribeCertificate, &iot.DescribeCertificateInput{CertificateId: made.CertificateId}).CertificateDescription
			if *d.CertificatePem != *made.CertificatePem || d.Validity.NotAfter.UTC() != time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC) {
				return fmt.Errorf("described %+v", d)
			}
			return nil
		}},
		{op: "DescribeCertificate", want: invalid, says: "certificateId", do: refusedFor(describe, &iot.DescribeCertificateInput{CertificateId: new("x")})},
		{op: "DescribeCertificate", want: absent, says: "does not exist", do: refusedFor(describe, &iot.DescribeCertificateInput{CertificateId: &nowhere})},
		{op: "UpdateCertificate", do: func(o *operator) error {
			made := created(o, true)
			for range 2 { // it may be repeated
				must(o, o.UpdateCertificate, &iot.UpdateCertificateInput{CertificateId: made.CertificateId, NewStatus: types.CertificateStatusInactive})
			}
			return o.stands(made.CertificateId, types.CertificateStatusInactive, types.CertificateModeDefault, "")
		}},
		{op: "UpdateCertificate", want: state, says: "final", do: func(o *operator) error {
			made := created(o, true)
			must(o, o.UpdateCertificate, &iot.UpdateCertificateInput{CertificateId: made.CertificateId, NewStatus: types.CertificateStatusRevoked})
			_, err := o.UpdateCertificate(o.t.Context(), &iot.UpdateCertificateInput{CertificateId: made.CertificateId, NewStatus: types.CertificateStatusActive})
			return err
		}},
		{op: "UpdateCertificate", want: invalid, rule: "PENDING_TRANSFER", says: "newStatus", do: refusedFor(update, &iot.UpdateCertificateInput{
			CertificateId: &nowhere, NewStatus: types.CertificateStatusPendingTransfer,
		})},
		{op: "UpdateCertificate", want: invalid, rule: "PENDING_ACTIVATION", says: "newStatus", do: refusedFor(update, &iot.UpdateCertificateInput{
			CertificateId: &nowhere, NewStatus: types.CertificateStatusPendingActivation,
		})},
		{op: "UpdateCertificate", want: absent, says: "does not exist", do: refusedFor(update, &iot.UpdateCertificateInput{
			CertificateId: &nowhere, NewStatus: types.CertificateStatusActive,
		})},
		{op: "DeleteCertificate", do: func(o *operator) error {
			must(o, o.DeleteCertificate, &iot.DeleteCertificateInput{CertificateId: created(o, false).CertificateId})
			return nil
		}},
		{op: "DeleteCertificate", want: state, says: "is ACTIVE", do: func(o *operator) error {
			_, err := o.DeleteCertificate(o.t.Context(), &iot.DeleteCertificateInput{CertificateId: created(o, true).CertificateId})
			return err
		}},
		{op: "DeleteCertificate", want: "DeleteConflictException", says: "policies", do: func(o *operator) error {
			made, policy := created(o, false), named("policy")
			must(o, o.CreatePolicy, &iot.CreatePolicyInput{PolicyName: &policy, PolicyDocument: new(sitePolicy)})
			must(o, o.AttachPolicy, &iot.AttachPolicyInput{PolicyName: &policy, Target: made.CertificateArn})
			_, err := o.DeleteCertificate(o.t.Context(), &iot.DeleteCertificateInput{CertificateId: made.CertificateId})
			return err
		}},
		{op: "DeleteCertificate", want: invalid, says: "certificateId", do: refusedFor(remove, &iot.DeleteCertificateInput{CertificateId: new("x")})},
		{op: "DeleteCertificate", want: absent, says: "does not exist", do: refusedFor(remove, &iot.DeleteCertificateInput{CertificateId: &nowhere})},
	}
}

// certificateListAnswers are the cases of lists.
func certificateListAnswers() []answerCase {
	const invalid = "InvalidRequestException"
	bad := new("AAAA")
	return []answerCase{
		{op: "ListCertificates", do: func(o *operator) error {
			must(o, o.CreateKeysAndCertificate, &iot.CreateKeysAndCertificateInput{})
			if page := must(o, o.ListCertificates, &iot.ListCertificatesInput{PageSize: new(int32(1))}); len(page.Certificates) != 1 {
				return fmt.Errorf("%d on a page of one", len(page.Certificates))
			}
			return nil
		}},
		{op: "ListCertificates", want: invalid, do: func(o *operator) error {
			_, err := o.ListCertificates(o.t.Context(), &iot.ListCertificatesInput{Marker: bad})
			return err
		}},
		{op: "ListCACertificates", do: func(o *operator) error {
			_, id := o.authority()
			pages := iot.NewListCACertificatesPaginator(o.Client, &iot.ListCACertificatesInput{PageSize: new(int32(2)), AscendingOrder: true})
			for pages.HasMorePages() {
				page, err := pages.NextPage(o.t.Context())
				if err != nil {
					return err
				}
				for _, c := range page.Certificates {
					if *c.CertificateId == *id {
						return nil
					}
				}
			}
			return fmt.Errorf("%s is not listed", *id)
		}},
		{op: "ListCACertificates", want: invalid, do: func(o *operator) error {
			_, err := o.ListCACertificates(o.t.Context(), &iot.ListCACertificatesInput{Marker: bad})
			return err
		}},
		{op: "ListCertificatesByCA", do: func(o *operator) error {
			a, id := o.authority()
			want := []string{*o.registered(a), *o.registered(a), *o.registered(a)}
			var got []string
			pages := iot.NewListCertificatesByCAPaginator(o.Client, &iot.ListCertificatesByCAInput{CaCertificateId: id, PageSize: new(int32(2)), AscendingOrder: true})
			for pages.HasMorePages() {
				page, err := pages.NextPage(o.t.Context())
				if err != nil {
					return err
				}
				for _, c := range page.Certificates {
					got = append(got, *c.CertificateId)
				}
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				return fmt.Errorf("listed %v, want %v", got, want)
			}
			return nil
		}},
		{op: "ListCertificatesByCA", want: invalid, says: "caCertificateId", do: func(o *operator) error {
			_, err := o.ListCertificatesByCA(o.t.Context(), &iot.ListCertificatesByCAInput{CaCertificateId: new("x")})
			return err
		}},
	}
}

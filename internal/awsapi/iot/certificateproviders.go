package iot

import (
	"context"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/certprovider"
	"github.com/muster-iot/muster/internal/fleet"
)

// registerCertificateProviders offers the operations on certificate providers.
func (a *api) registerCertificateProviders(s *awsapi.Server) {
	const functions = "lambdaFunctionArn names a function of the setting function.target"
	offer(s, "CreateCertificateProvider", on(fleet.ARNCertificateProvider, func(in *iotwire.CreateCertificateProviderInput) string { return in.CertificateProviderName }),
		a.createCertificateProvider, awsapi.Partial(functions))
	offer(s, "DescribeCertificateProvider", on(fleet.ARNCertificateProvider, func(in *iotwire.DescribeCertificateProviderInput) string { return in.CertificateProviderName }),
		a.describeCertificateProvider)
	offer(s, "UpdateCertificateProvider", on(fleet.ARNCertificateProvider, func(in *iotwire.UpdateCertificateProviderInput) string { return in.CertificateProviderName }),
		a.updateCertificateProvider, awsapi.Partial(functions))
	offer(s, "DeleteCertificateProvider", on(fleet.ARNCertificateProvider, func(in *iotwire.DeleteCertificateProviderInput) string { return in.CertificateProviderName }),
		a.deleteCertificateProvider)
	offer(s, "ListCertificateProviders", awsapi.All, a.listCertificateProviders)
}

func (a *api) createCertificateProvider(
	ctx context.Context, c *awsapi.Call, in *iotwire.CreateCertificateProviderInput,
) (*iotwire.CreateCertificateProviderOutput, error) {
	made, err := a.CertificateProviders.Create(ctx, c.Account, certprovider.CreateCommand{
		Name: in.CertificateProviderName, FunctionARN: in.LambdaFunctionARN, Operations: in.AccountDefaultForOperations,
		ClientToken: value(in.ClientToken), Tags: tagsOf(in.Tags),
	})
	if err != nil {
		return nil, err
	}
	return &iotwire.CreateCertificateProviderOutput{CertificateProviderName: &made.Name, CertificateProviderARN: &made.ARN}, nil
}

func (a *api) describeCertificateProvider(
	ctx context.Context, c *awsapi.Call, in *iotwire.DescribeCertificateProviderInput,
) (*iotwire.DescribeCertificateProviderOutput, error) {
	found, err := a.CertificateProviders.Describe(ctx, c.Account, in.CertificateProviderName)
	if err != nil {
		return nil, err
	}
	return &iotwire.DescribeCertificateProviderOutput{
		CertificateProviderName: &found.Name, CertificateProviderARN: &found.ARN, LambdaFunctionARN: &found.FunctionARN,
		AccountDefaultForOperations: []string{certprovider.Operation}, CreationDate: &found.Created, LastModifiedDate: &found.Modified,
	}, nil
}

func (a *api) updateCertificateProvider(
	ctx context.Context, c *awsapi.Call, in *iotwire.UpdateCertificateProviderInput,
) (*iotwire.UpdateCertificateProviderOutput, error) {
	updated, err := a.CertificateProviders.Update(ctx, c.Account, certprovider.UpdateCommand{
		Name: in.CertificateProviderName, FunctionARN: in.LambdaFunctionARN, Operations: in.AccountDefaultForOperations,
	})
	if err != nil {
		return nil, err
	}
	return &iotwire.UpdateCertificateProviderOutput{CertificateProviderName: &updated.Name, CertificateProviderARN: &updated.ARN}, nil
}

func (a *api) deleteCertificateProvider(
	ctx context.Context, c *awsapi.Call, in *iotwire.DeleteCertificateProviderInput,
) (*iotwire.DeleteCertificateProviderOutput, error) {
	return &iotwire.DeleteCertificateProviderOutput{}, a.CertificateProviders.Delete(ctx, c.Account, in.CertificateProviderName)
}

// listCertificateProviders has one page: an account has one provider. No token
// leads to another one, so that each is somebody else's.
func (a *api) listCertificateProviders(
	ctx context.Context, c *awsapi.Call, in *iotwire.ListCertificateProvidersInput,
) (*iotwire.ListCertificateProvidersOutput, error) {
	if _, err := c.PageKey(in.NextToken, word(in.AscendingOrder)); err != nil {
		return nil, err
	}
	listed, err := a.CertificateProviders.List(ctx, c.Account)
	if err != nil {
		return nil, err
	}
	return &iotwire.ListCertificateProvidersOutput{
		CertificateProviders: each(listed, func(p certprovider.Provider) iotwire.CertificateProviderSummary {
			return iotwire.CertificateProviderSummary{CertificateProviderName: &p.Name, CertificateProviderARN: &p.ARN}
		}),
	}, nil
}

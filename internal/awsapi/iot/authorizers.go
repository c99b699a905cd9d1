package iot

import (
	"context"

	"github.com/muster-iot/muster/internal/authorizer"
	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/fleet"
)

// registerAuthorizers offers the operations on custom authorizers.
func (a *api) registerAuthorizers(s *awsapi.Server) {
	const functions = "authorizerFunctionArn names a function of the setting function.target"
	offer(s, "CreateAuthorizer", on(fleet.ARNAuthorizer, func(in *iotwire.CreateAuthorizerInput) string { return in.AuthorizerName }), a.createAuthorizer,
		awsapi.Partial(functions))
	offer(s, "DescribeAuthorizer", on(fleet.ARNAuthorizer, func(in *iotwire.DescribeAuthorizerInput) string { return in.AuthorizerName }), a.describeAuthorizer)
	offer(s, "UpdateAuthorizer", on(fleet.ARNAuthorizer, func(in *iotwire.UpdateAuthorizerInput) string { return in.AuthorizerName }), a.updateAuthorizer)
	offer(s, "DeleteAuthorizer", on(fleet.ARNAuthorizer, func(in *iotwire.DeleteAuthorizerInput) string { return in.AuthorizerName }), a.deleteAuthorizer)
	offer(s, "ListAuthorizers", awsapi.All, a.listAuthorizers)
	offer(s, "SetDefaultAuthorizer", on(fleet.ARNAuthorizer, func(in *iotwire.SetDefaultAuthorizerInput) string { return in.AuthorizerName }), a.setDefaultAuthorizer)
	offer(s, "ClearDefaultAuthorizer", awsapi.All, a.clearDefaultAuthorizer)
	offer(s, "DescribeDefaultAuthorizer", awsapi.All, a.describeDefaultAuthorizer)
	offer(s, "TestInvokeAuthorizer", on(fleet.ARNAuthorizer, func(in *iotwire.TestInvokeAuthorizerInput) string { return in.AuthorizerName }), a.testInvokeAuthorizer)
}

func (a *api) createAuthorizer(ctx context.Context, c *awsapi.Call, in *iotwire.CreateAuthorizerInput) (*iotwire.CreateAuthorizerOutput, error) {
	made, err := a.Authorizers.Create(ctx, c.Account, authorizer.CreateCommand{
		Name: in.AuthorizerName, FunctionARN: in.AuthorizerFunctionARN, TokenKeyName: value(in.TokenKeyName), Keys: in.TokenSigningPublicKeys,
		Status: value(in.Status), SigningDisabled: value(in.SigningDisabled), CacheHTTP: value(in.EnableCachingForHTTP),
		Tags: tagsOf(in.Tags),
	})
	if err != nil {
		return nil, err
	}
	return &iotwire.CreateAuthorizerOutput{AuthorizerName: &made.Name, AuthorizerARN: &made.ARN}, nil
}

// described is an authorizer in full.
func described(a authorizer.Authorizer) *iotwire.AuthorizerDescription {
	return &iotwire.AuthorizerDescription{
		AuthorizerName: &a.Name, AuthorizerARN: &a.ARN, AuthorizerFunctionARN: &a.FunctionARN, TokenKeyName: optional(a.TokenKeyName),
		TokenSigningPublicKeys: a.Keys, Status: &a.Status, SigningDisabled: &a.SigningDisabled, EnableCachingForHTTP: &a.CacheHTTP,
		CreationDate: &a.Created, LastModifiedDate: &a.Modified,
	}
}

func (a *api) describeAuthorizer(ctx context.Context, c *awsapi.Call, in *iotwire.DescribeAuthorizerInput) (*iotwire.DescribeAuthorizerOutput, error) {
	found, err := a.Authorizers.Describe(ctx, c.Account, in.AuthorizerName)
	if err != nil {
		return nil, err
	}
	return &iotwire.DescribeAuthorizerOutput{AuthorizerDescription: described(found)}, nil
}

func (a *api) updateAuthorizer(ctx context.Context, c *awsapi.Call, in *iotwire.UpdateAuthorizerInput) (*iotwire.UpdateAuthorizerOutput, error) {
	updated, err := a.Authorizers.Update(ctx, c.Account, authorizer.UpdateCommand{
		Name: in.AuthorizerName, FunctionARN: in.AuthorizerFunctionARN, TokenKeyName: in.TokenKeyName, Keys: in.TokenSigningPublicKeys,
		Status: in.Status, CacheHTTP: in.EnableCachingForHTTP,
	})
	if err != nil {
		return nil, err
	}
	return &iotwire.UpdateAuthorizerOutput{AuthorizerName: &updated.Name, AuthorizerARN: &updated.ARN}, nil
}

func (a *api) deleteAuthorizer(ctx context.Context, c *awsapi.Call, in *iotwire.DeleteAuthorizerInput) (*iotwire.DeleteAuthorizerOutput, error) {
	return &iotwire.DeleteAuthorizerOutput{}, a.Authorizers.Delete(ctx, c.Account, in.AuthorizerName)
}

func (a *api) listAuthorizers(ctx context.Context, c *awsapi.Call, in *iotwire.ListAuthorizersInput) (*iotwire.ListAuthorizersOutput, error) {
	filter := []string{word(in.AscendingOrder), value(in.Status)}
	p, err := markerPage(c, in.Marker, in.PageSize, filter...)
	if err != nil {
		return nil, err
	}
	listed, next, err := a.Authorizers.List(ctx, c.Account, authorizer.ListQuery{
		Status: value(in.Status), Ascending: value(in.AscendingOrder), After: p.After, Limit: p.Limit,
	})
	if err != nil {
		return nil, err
	}
	return &iotwire.ListAuthorizersOutput{
		NextMarker: nextMarker(c, next, filter...),
		Authorizers: each(listed, func(a authorizer.Authorizer) iotwire.AuthorizerSummary {
			return iotwire.AuthorizerSummary{AuthorizerName: &a.Name, AuthorizerARN: &a.ARN}
		}),
	}, nil
}

func (a *api) setDefaultAuthorizer(ctx context.Context, c *awsapi.Call, in *iotwire.SetDefaultAuthorizerInput) (*iotwire.SetDefaultAuthorizerOutput, error) {
	chosen, err := a.Authorizers.SetDefault(ctx, c.Account, in.AuthorizerName)
	if err != nil {
		return nil, err
	}
	return &iotwire.SetDefaultAuthorizerOutput{AuthorizerName: &chosen.Name, AuthorizerARN: &chosen.ARN}, nil
}

func (a *api) clearDefaultAuthorizer(
	ctx context.Context, c *awsapi.Call, _ *iotwire.ClearDefaultAuthorizerInput,
) (*iotwire.ClearDefaultAuthorizerOutput, error) {
	return &iotwire.ClearDefaultAuthorizerOutput{}, a.Authorizers.ClearDefault(ctx, c.Account)
}

func (a *api) describeDefaultAuthorizer(
	ctx context.Context, c *awsapi.Call, _ *iotwire.DescribeDefaultAuthorizerInput,
) (*iotwire.DescribeDefaultAuthorizerOutput, error) {
	found, err := a.Authorizers.DescribeDefault(ctx, c.Account)
	if err != nil {
		return nil, err
	}
	return &iotwire.DescribeDefaultAuthorizerOutput{AuthorizerDescription: described(found)}, nil
}

func (a *api) testInvokeAuthorizer(ctx context.Context, c *awsapi.Call, in *iotwire.TestInvokeAuthorizerInput) (*iotwire.TestInvokeAuthorizerOutput, error) {
	command := authorizer.TestCommand{Name: in.AuthorizerName, Token: value(in.Token), Signature: value(in.TokenSignature)}
	if t := in.TLSContext; t != nil {
		command.TLS = &authorizer.TLSData{ServerName: value(t.ServerName)}
	}
	if h := in.HTTPContext; h != nil {
		command.HTTP = &authorizer.HTTPData{Headers: h.Headers, QueryString: value(h.QueryString)}
	}
	if m := in.MQTTContext; m != nil {
		command.MQTT = &authorizer.MQTTData{Username: value(m.Username), Password: m.Password, ClientID: value(m.ClientID)}
	}
	answer, err := a.Authorizers.Test(ctx, c.Account, command)
	if err != nil {
		return nil, err
	}
	out := &iotwire.TestInvokeAuthorizerOutput{IsAuthenticated: &answer.Authenticated}
	if answer.Authenticated {
		out.PrincipalID, out.PolicyDocuments = &answer.PrincipalID, answer.Documents
		out.DisconnectAfterInSeconds = new(int32(answer.DisconnectAfter.Seconds()))
		out.RefreshAfterInSeconds = new(int32(answer.RefreshAfter.Seconds()))
	}
	return out, nil
}

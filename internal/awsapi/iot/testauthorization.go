package iot

import (
	"context"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog/iotwire"
	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// Devices answers what devices may do.
type Devices interface {
	Try(ctx context.Context, account fleet.Account, t deviceauth.Trial) ([]deviceauth.Verdict, error)
}

// registerTestAuthorization offers the operation that tries policies.
func (a *api) registerTestAuthorization(s *awsapi.Server) {
	offer(s, "TestAuthorization", func(_ *awsapi.Call, in *iotwire.TestAuthorizationInput) []string {
		if in.Principal == nil {
			return []string{awsapi.AnyResource}
		}
		return []string{*in.Principal}
	}, a.testAuthorization, awsapi.Partial("cognitoIdentityPoolId and principals of a pool are refused"))
}

func (a *api) testAuthorization(ctx context.Context, c *awsapi.Call, in *iotwire.TestAuthorizationInput) (*iotwire.TestAuthorizationOutput, error) {
	if err := refuse("cognitoIdentityPoolId", in.CognitoIdentityPoolID != nil); err != nil {
		return nil, err
	}
	trial := deviceauth.Trial{
		Principal: value(in.Principal), ClientID: value(in.ClientID), Add: in.PolicyNamesToAdd, Skip: in.PolicyNamesToSkip,
		Checks: make([]deviceauth.Check, len(in.AuthInfos)),
	}
	for i := range in.AuthInfos {
		action, ok := testedAction(value(in.AuthInfos[i].ActionType))
		if !ok {
			return nil, fault.New(fault.InvalidRequest, "authInfos[%d].actionType must be one of CONNECT, PUBLISH, RECEIVE and SUBSCRIBE", i)
		}
		trial.Checks[i] = deviceauth.Check{Action: action, Resources: in.AuthInfos[i].Resources}
	}
	verdicts, err := a.Devices.Try(ctx, c.Account, trial)
	if err != nil {
		return nil, err
	}
	out := &iotwire.TestAuthorizationOutput{AuthResults: make([]iotwire.AuthResult, len(verdicts))}
	for i := range verdicts {
		out.AuthResults[i] = authResult(&in.AuthInfos[i], &verdicts[i])
	}
	return out, nil
}

// testedAction is the policy action that an action type stands for.
func testedAction(actionType string) (string, bool) {
	switch actionType {
	case "CONNECT":
		return iotpolicy.ActionConnect, true
	case "PUBLISH":
		return iotpolicy.ActionPublish, true
	case "RECEIVE":
		return iotpolicy.ActionReceive, true
	case "SUBSCRIBE":
		return iotpolicy.ActionSubscribe, true
	}
	return "", false
}

// authResult is a verdict on the wire.
func authResult(asked *iotwire.AuthInfo, v *deviceauth.Verdict) iotwire.AuthResult {
	return iotwire.AuthResult{
		AuthInfo: asked, AuthDecision: new(v.Outcome.String()),
		Allowed: &iotwire.Allowed{Policies: policyNames(v.Allowing)},
		Denied: &iotwire.Denied{
			ImplicitDeny: &iotwire.ImplicitDeny{Policies: policyNames(v.Silent)},
			ExplicitDeny: &iotwire.ExplicitDeny{Policies: policyNames(v.Denying)},
		},
		MissingContextValues: each(v.Missing, func(name string) string { return name }),
	}
}

// policyNames are policies by name and ARN.
func policyNames(refs []iotpolicy.PolicyRef) []iotwire.Policy {
	return each(refs, func(p iotpolicy.PolicyRef) iotwire.Policy {
		return iotwire.Policy{PolicyName: &p.Name, PolicyARN: &p.ARN}
	})
}

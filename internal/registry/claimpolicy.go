package registry

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/muster-iot/muster/internal/fleet"
)

// claimPolicyName is not the name of a policy that can be created.
const claimPolicyName = "system/ProvisioningClaim"

// claimPolicies returns what the claim of a trusted user may do: connect, ask for
// a certificate and provision by its template; nil for any other principal.
func (s *Service) claimPolicies(ctx context.Context, account fleet.Account, of reference) ([]EffectivePolicy, error) {
	if of.kind != fleet.ARNCertificate {
		return nil, nil
	}
	record, err := s.findCertificate(ctx, account, of.name)
	if err != nil || record.ClaimTemplate == "" {
		return nil, err
	}
	scope := s.scope(account)
	document, err := claimPolicy(scope, record.ClaimTemplate)
	if err != nil {
		return nil, err
	}
	return []EffectivePolicy{{
		Name: claimPolicyName, ARN: scope.ARN(fleet.ARNPolicy, claimPolicyName), VersionID: "1", Document: document,
		Attachments: []PolicyAttachment{{Target: scope.ARN(fleet.ARNCertificate, of.name)}},
	}}, nil
}

// claimPolicy is the document for the claims of one template.
func claimPolicy(scope fleet.Scope, template string) ([]byte, error) {
	type statement struct {
		Effect   string   `json:"Effect"`
		Action   []string `json:"Action"`
		Resource []string `json:"Resource"`
	}
	resources := func(kind string) []string {
		return []string{
			scope.ARN(kind, "$aws/certificates/create/*"),
			scope.ARN(kind, "$aws/certificates/create-from-csr/*"),
			scope.ARN(kind, "$aws/provisioning-templates/"+template+"/provision/*"),
		}
	}
	document, err := json.Marshal(struct {
		Version   string      `json:"Version"`
		Statement []statement `json:"Statement"`
	}{"2012-10-17", []statement{
		{"Allow", []string{"iot:Connect"}, []string{scope.ARN(fleet.ARNClient, "*")}},
		{"Allow", []string{"iot:Publish", "iot:Receive"}, resources(fleet.ARNTopic)},
		{"Allow", []string{"iot:Subscribe"}, resources(fleet.ARNTopicFilter)},
	}})
	if err != nil {
		return nil, fmt.Errorf("encode the policy of claims: %w", err)
	}
	return document, nil
}

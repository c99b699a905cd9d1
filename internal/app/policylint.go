package app

import (
	"context"

	"github.com/muster-iot/muster/internal/deviceauth"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
	"github.com/muster-iot/muster/internal/registry"
)

// policyLint looks for mistakes in documents and in stored policies.
type policyLint struct {
	registry *registry.Service
	devices  *deviceauth.Service
}

// LintDocument implements adminapi.Policies.
func (p policyLint) LintDocument(account fleet.Account, document []byte) []iotpolicy.Finding {
	return p.devices.LintPolicy(account, document)
}

// LintStored implements adminapi.Policies.
func (p policyLint) LintStored(ctx context.Context, account fleet.Account, name, versionID string) (string, []iotpolicy.Finding, error) {
	if versionID == "" {
		found, err := p.registry.DescribePolicy(ctx, account, name)
		if err != nil {
			return "", nil, err
		}
		return found.DefaultVersionID, p.devices.LintPolicy(account, []byte(found.Document)), nil
	}
	found, err := p.registry.DescribePolicyVersion(ctx, account, name, versionID)
	if err != nil {
		return "", nil, err
	}
	return found.ID, p.devices.LintPolicy(account, []byte(found.Document)), nil
}

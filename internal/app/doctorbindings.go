package app

import (
	"context"
	"fmt"

	"github.com/muster-iot/muster/internal/adminapi"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// unboundTemplates tells of the provisioning templates that no authority is bound
// to decide about, and returns how many templates there are. That is as on AWS and
// no difference; an operator who wants approvals should know of each.
func (a *App) unboundTemplates(ctx context.Context, found func(adminapi.Notice)) (int, error) {
	accounts, err := a.accounts.AllAccounts(ctx)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, of := range accounts {
		for after := ""; ; {
			page, next, err := a.provisioning.ListTemplates(ctx, of, after, 0)
			if err != nil {
				return n, err
			}
			for i := range page {
				n++
				_, err := a.approvals.Binding(ctx, of, page[i].Name)
				switch {
				case fault.CodeOf(err) == fault.ResourceNotFound:
					found(a.unbound(of, page[i].Name, page[i].Enabled))
				case err != nil:
					return n, err
				}
			}
			if after = next; after == "" {
				break
			}
		}
	}
	return n, nil
}

// unbound says what it means that a template has no binding.
func (a *App) unbound(of fleet.Account, template string, enabled bool) adminapi.Notice {
	effect := "its devices join without approval, as on AWS, unless the CA certificate that they come under is bound"
	switch {
	case a.settings.Provisioning.RequireBinding:
		effect = "its devices are refused, since provisioning.require-binding is on, unless the CA certificate that they come under is bound"
	case !enabled:
		effect = "it is disabled; enabled, " + effect
	}
	return adminapi.Notice{
		Check: "provisioning templates", Subject: fmt.Sprintf("template %s of account %s", template, of),
		Detail: "no authority is bound to decide about it: " + effect + "; muster approvals bind gives it one",
	}
}

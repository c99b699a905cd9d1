package app

import (
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/approval"
	"github.com/muster-iot/muster/internal/config"
	"github.com/muster-iot/muster/internal/provisioning"
)

// Ruling 1: a template without a binding provisions as on AWS, which doctor says
// and does not count as a difference; with provisioning.require-binding it says
// that the devices are refused. One that is bound is not named.
func TestDoctorNamesUnboundTemplates(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*config.Settings)
		says   string
	}{
		"as on AWS": {func(*config.Settings) {}, "its devices join without approval, as on AWS"},
		"required":  {func(s *config.Settings) { s.Provisioning.RequireBinding = true }, "its devices are refused, since provisioning.require-binding is on"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set := settings(t)
			c.change(&set)
			s := startSite(t, set)
			notices := func() []string {
				t.Helper()
				report := examine(t, s.App)
				var out []string
				for _, n := range report.Notices {
					out = append(out, n.Subject+": "+n.Detail)
				}
				return out
			}
			if got := notices(); len(got) != 0 {
				t.Errorf("without templates doctor notes %q", got)
			}
			for template, enabled := range map[string]bool{"join": true, "off": false} {
				_, err := s.provisioning.CreateTemplate(t.Context(), s.account, provisioning.CreateTemplateCommand{
					Name: template, Body: renewalTemplate, RoleARN: "arn:aws:iam::000000000000:role/p", Enabled: enabled,
				})
				s.need(err)
			}
			got := notices()
			if len(got) != 2 || !strings.HasPrefix(got[0], "template join of account 000000000000: no authority is bound") || !strings.Contains(got[0], c.says) ||
				!strings.HasPrefix(got[1], "template off of account 000000000000: ") {
				t.Errorf("doctor notes %q", got)
			}
			_, err := s.accounts.CreateGroup(t.Context(), s.account, "leads")
			s.need(err)
			_, err = s.approvals.PutAuthority(t.Context(), s.account, approval.Authority{ID: "leads", Kind: approval.UserGroup, Group: "leads"})
			s.need(err)
			_, err = s.approvals.PutBinding(t.Context(), s.account, approval.Binding{Template: "join", Rule: approval.AllOf, Authorities: []string{"leads"}})
			s.need(err)
			if got := notices(); len(got) != 1 || !strings.HasPrefix(got[0], "template off ") {
				t.Errorf("with one bound doctor notes %q", got)
			}
		})
	}
}

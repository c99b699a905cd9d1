package app

import (
	"crypto/x509"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/onboarding"
	"github.com/muster-iot/muster/internal/provisioning"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// pumpPlan is a plan for the devices of the template join.
const pumpPlan = `id: pumps
name: Pumps
appliesTo: {templates: [join]}
stages:
- id: make
  kind: MANUFACTURE
  actor: {role: Maker}
  steps:
  - {id: test, title: Test, mode: MANUAL, instruction: Test it., evidenceRequired: true}
- id: join
  kind: REGISTRATION
  actor: {role: Operator}
  steps:
  - {id: register, title: Register, mode: PROGRAMMATIC, state: REGISTERED, dependsOn: [test]}
  - {id: connect, title: Connect, mode: PROGRAMMATIC, state: ACTIVE}
  exitCriteria:
  - {predicate: "connectivity.connected:true", within: 1h}
  - {predicate: "thingName:other", within: 1s}
`

// Mission M19, M20: a device that joins by claim and connects comes along its plan
// by itself; the index decides its exit criteria; a restart loses nothing.
func TestOnboarding(t *testing.T) {
	t.Parallel()
	set := settings(t)
	s := startSite(t, set)
	_, err := s.provisioning.CreateTemplate(t.Context(), s.account, provisioning.CreateTemplateCommand{
		Name: "join", Body: renewalTemplate, RoleARN: "arn:aws:iam::000000000000:role/p", Enabled: true,
	})
	s.need(err)
	claim := s.badge(&x509.Certificate{})
	s.policy("all", mayAll, claim.arn)
	_, err = s.onboarding.Create(t.Context(), s.account, pumpPlan)
	s.need(err)
	_, err = s.onboarding.Publish(t.Context(), s.account, "pumps")
	s.need(err)
	_, err = s.onboarding.Expect(t.Context(), s.account, onboarding.ExpectCommand{Device: "pump-7", Plan: "pumps"})
	s.need(err)
	_, err = s.onboarding.Complete(t.Context(), s.account, onboarding.CompleteCommand{Device: "pump-7", Step: "test", Evidence: "p.pdf"})
	s.need(err)
	state := func(s *site) onboarding.Device {
		t.Helper()
		d, err := onboardedDevices{s.onboarding, s.App}.Device(t.Context(), s.account, "pump-7")
		s.need(err)
		return d
	}
	device := s.asking(claim, "pump-7")
	s.eventually("its arrival", func() bool { return state(s).State == onboarding.StateShipped })
	own := device.renew("pump-7")
	if d := state(s); d.State != onboarding.StateRegistered || d.Thing != "pump-7" || d.Certificate != own.id {
		t.Errorf("joined, it is %+v", d)
	}
	s.connect(own, "pump-7")
	s.eventually("its activation", func() bool { return state(s).State == onboarding.StateActive })
	s.need(s.Stop(t.Context()))
	s = startSite(t, set)
	s.connect(own, "pump-7")
	s.eventually("its criteria", func() bool {
		c := state(s).Criteria
		return len(c) == 2 && !c[0].Met.IsZero() && !c[1].Failed.IsZero()
	})
	// The log may tell what the state shows already a moment later.
	s.eventually("the event", func() bool {
		var failed []event.OnboardingCriteriaFailed
		all, _, err := s.store.Events(t.Context(), store.Cursor{}, 10_000)
		s.need(err)
		for _, env := range all {
			if f, ok := env.Event.(event.OnboardingCriteriaFailed); ok {
				failed = append(failed, f)
			}
		}
		return len(failed) == 1 && failed[0].Predicate == "thingName:other" && failed[0].Thing == "pump-7"
	})
	s.eventually("its quarantine", func() bool {
		held, err := s.registry.ListQuarantined(t.Context(), s.account, registry.Page{Limit: 10})
		s.need(err)
		return len(held.Items) == 1 && held.Items[0].Thing == "pump-7" && held.Items[0].By == "onboarding" && strings.Contains(held.Items[0].Reason, "thingName:other")
	})
	d := state(s)
	var results []string
	for _, e := range d.History {
		results = append(results, strings.TrimSpace(e.Step+" "+string(e.State)+" "+string(e.Result)))
	}
	got := strings.Join(results, ", ")
	want := "EXPECTED REACHED, test  COMPLETED, SHIPPED REACHED, register REGISTERED COMPLETED, connect ACTIVE COMPLETED, "
	if rest, ok := strings.CutPrefix(got, want); d.Stage != "" || !ok || !strings.Contains(rest, "CRITERION_MET") || !strings.Contains(rest, "CRITERION_FAILED") {
		t.Errorf("its history is %s", got)
	}
}

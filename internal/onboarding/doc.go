// Package onboarding keeps how devices come into service: provisioning plans,
// which say in stages and steps who does what from the factory to the active
// device, and for each device that follows one how far it is and who has done
// what, with evidence.
//
// A plan is written as YAML. A draft may be changed; publishing freezes it as a
// version, and the next change begins a draft of the next one. A device follows
// the version that was in force when its record began. Which plan that is its
// templates, authorities or thing types say (appliesTo), or whoever announced the
// device.
//
// A device's record is the one place where its history is: what the platform saw,
// taken from the event log by Apply, a durable consumer, and what people and
// programs report with Complete. Both write the same record, each expecting the
// version that it read. What the platform saw is a fact and is never refused; a
// step that a person reports is, while others that it depends on are not done.
// life.go decides, as functions of record, plan and time; follow.go says which
// event means what, and is where a further fact is added (see Approved).
//
// The package must not know how devices are provisioned, nor who may be refused:
// it keeps the book. It emits event.ProvisioningPlanChanged, event.OnboardingChanged
// and event.OnboardingCriteriaFailed in the commits of the changes.
//
// Run looks after exit criteria and counts stuck devices; it has no goroutine
// beside its caller's.
package onboarding

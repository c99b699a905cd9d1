// Package provisioning lets devices join: provisioning templates with their
// versions, certificates with ownership tokens that claims ask for, hooks that
// may refuse, and the one commit in which a template becomes a thing with its
// certificate, policies and groups. Fleet provisioning by claim and by trusted
// user, just-in-time provisioning and registration, and RegisterThing are all
// here; a bulk registration task calls RegisterThing line by line.
//
// It owns the templates and what an ownership token opens. It must not know
// topics, payload formats or HTTP, and it leaves the rules of things, groups,
// policies and certificates to the registry, which carries out a plan. It emits
// event.ProvisioningTemplateChanged, event.DeviceProvisioned,
// event.ProvisioningRefused and event.ProvisioningClaimCreated.
package provisioning

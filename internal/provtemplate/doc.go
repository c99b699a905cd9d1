// Package provtemplate is the language of provisioning templates: what a
// template may say, and what it comes to for one device.
//
// Parse checks a body once, when it is stored or handed in. Template.Evaluate
// then turns parameters into a Plan: the thing, the certificate, the policies
// and the device configuration that somebody else makes true. Evaluate decides
// nothing that depends on what exists already; it hands on the template's own
// answer to that, the override settings.
//
// The package is pure: no clock, no input or output, no goroutines, and no
// knowledge of the registry or of how a template came here. A Template is
// immutable and may be shared.
//
// Rules in the comments are marked by where they come from: (documented) is
// stated by the vendor's guide, (recalled) is public knowledge that was not
// found in it, (ours) is a decision where both are silent.
package provtemplate

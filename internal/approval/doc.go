// Package approval decides who may join. A provisioning template has at most one
// binding, which says whose yes is needed: members of user groups, functions that are
// asked, or others that are told what a device claims to be. A device for which
// people have not decided yet waits, with a request that they find.
//
// It owns authorities, bindings and requests. It must not know how devices ask, nor
// how people are found: who may vote for a group is asked of its Options. A request
// is used up in the commit of the registration that it was for. It starts no
// goroutines but those that ask functions, and emits event.ApprovalChanged,
// event.ApprovalAuthorityChanged and event.ApprovalBindingChanged.
package approval

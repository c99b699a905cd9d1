// Package registry is the book of the fleet: things, thing types, static
// groups and the definitions of dynamic ones, memberships, certificates,
// policies, attachments, and the policies that result for a device.
//
// Every command reads records, decides by functions that do no input or
// output, and commits the new records together with the events that report
// them. All records read are expectations of the commit, so a command that
// raced with another decides again on what the other left. Records that many
// commands share (a type, a policy, a group's definition) are expected but not
// rewritten by their users, so a hundred thousand devices of one type do not
// queue behind one key; the deletions of types, policies and groups say how
// they still keep clear of a concurrent use.
//
// The package knows no wire, no storage engine and no index: a dynamic group's
// members are decided elsewhere and only recorded here. The goroutines of
// ImportThings and EachThing end before these do; no others are started.
package registry

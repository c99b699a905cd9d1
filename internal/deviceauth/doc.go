// Package deviceauth says who a device connection is and what it may do. It
// owns the way from a presented certificate to an identity, and from there to
// a decision about a packet or a data plane call: certificate state, the
// connection's thing, the policies in force, and the compiled set of them that
// each session keeps.
//
// A session's set is compiled when it connects and again on its next packet
// after an event that may change it. Service.Apply takes those events; once it
// returns, no later packet of this node is decided by what was before. While
// the events are late (Options.Lag), every packet is decided from the registry.
//
// What is refused is kept by client and by principal, bounded in number and
// bytes, with the reasons of that moment; repeats only count. Service.Explain
// answers the same for what nobody has asked for yet.
//
// The package knows no packets, no transport and no storage: the broker and
// the registry are joined to it by small interfaces and thin adapters. It has
// no goroutines; its callers' do all the work, and Service.Sweep is called by
// a timer of theirs. It emits no events.
package deviceauth

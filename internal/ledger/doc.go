// Package ledger keeps the life of every device from the factory to its end, in a
// form in which nothing can be changed, removed, put in or moved unseen.
//
// Apply, a durable consumer of the event log, turns what happened to devices into
// entries. Each entry names the hash of the device's entry before it and that of the
// account's, so that it stands in two chains: one tells the life of a device, the
// other one holds the ends of all lives. The ends of the chains are records that are
// sealed with a secret of the host. Verify reads everything, VerifyDevice one life.
//
// A device is found by its key (a serial, where a provisioning plan says so, else the
// name of its thing or the id of its certificate), its thing and its certificates.
// What is told of a certificate before a device has it waits in the certificate's
// record. A thing that is deleted ends a life; the same name made again begins the
// next one in the same chain.
//
// Who joins without anything that says that somebody has made it is raised once, as
// event.RogueDevice; so are those whom a gate has refused. evidence.go says what
// counts; follow.go says which event means what, and is where a further one is added.
//
// The package must not know how devices join: it reads events only. Entries hold no
// secret, no attribute of a device, no words of people beside the reasons of a
// decommission and of a quarantine, and nothing of an allow list but its name.
//
// Run tells the audit trail now and then where each chain ends; it has no goroutine
// beside its caller's.
package ledger

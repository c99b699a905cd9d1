// Package renewal follows things from one certificate to the next: a device asks
// for another certificate with the one that it has, connects with it, and then the
// old one is retired.
//
// It owns a record for each renewal, by thing and new certificate. Both
// certificates are good until the new one has proved itself: a connection with it
// is the proof. When the overlap after the proof is over, the old one is detached
// from the thing and deactivated, in one commit with the record, and only while
// the new one lets the device act as the thing. Without a proof nothing is ever
// taken away. It must not know how certificates are asked for, nor where the proof
// is seen: Begin is called by who registers the new one, connections come by the
// event log.
//
// Run has no goroutine beside its caller's. It emits
// event.CertificateRenewalChanged; what happens to certificates has events of its
// own in the same commit.
package renewal

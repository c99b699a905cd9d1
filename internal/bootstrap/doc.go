// Package bootstrap tells a device that knows nothing but one address, and has nothing
// but a certificate, where to join: in which account, at which endpoint, by which
// template and with which parameters.
//
// It owns the assignments: who (a certificate, a serial under an authority, or all
// devices of an authority) is sent where. Each account keeps its own, and sends its own
// devices to itself; only the default account, whose operators run the installation,
// sends devices to other accounts. Whose devices they are the registry says: the account
// that has proved to hold their authority, or that they were issued for; the default
// account for those of whom nobody has proved anything. The most specific assignment
// decides, also when it is disabled or over.
//
// It lets nobody in. The account that a device is sent to decides by its template, hook,
// approvals and lists; what they know beforehand is asked by Gate. So that a device
// can ask there at all, its certificate is admitted as a guest: for the one template,
// for a bounded time.
//
// Every answer and refusal is told by an event, of one certificate once a minute. A
// certificate that nobody knows learns that, and nothing else. The package starts no
// goroutines.
package bootstrap

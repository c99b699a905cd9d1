// Package allowlist keeps what manufacturers say they have made: lists of devices,
// signed by their supplier, of which each entry lets one device join. A list has
// revisions; an upload is one, kept bit for bit and sealed with age, and nothing is
// matched against it before a second person, or the supplier's agreement for signed
// lists, has accepted it.
//
// It owns suppliers with their keys, lists, revisions, entries, what became of the
// entries, and upload links. Details of entries are sealed; entries are found by keyed
// hashes of serial number and key fingerprint, and the key of the hashes is sealed
// too: without the identity file a copy of the store tells nothing of a list. Nothing
// of an entry is in an event, an error or a log line, except to who asks for that
// entry.
//
// It must not know how devices ask, nor who may do what: it only refuses the same
// person in both of two roles. It starts no goroutines but the ones of Resume's caller,
// and emits event.SupplierChanged, event.AllowListChanged, event.AllowListRead,
// event.AllowListEntryChanged and event.DuplicateSerial.
package allowlist

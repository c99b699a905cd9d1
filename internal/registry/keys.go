package registry

import (
	"fmt"
	"math"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// First parts of the registry's keys; the account is always the second. A
// record holds what one aggregate decides on, a row only says that it exists.
//
//	thing/A/<thing>                        record: attributes, type, groups, number of principals
//	thing-by-type/A/<type>/<thing>         row
//	thing-by-attribute/A/<name>/<value>/<thing>  row
//	thing-tombstone/A/<thing>/<time down>/<id>  record: a decommissioned thing as it was
//	thing-promise/A/<thing>                record: what the template that provisioned a thing says of it
//	thing-promise-by/A/<template>/<version>/<thing>  row
//	quarantined/A/<thing>                  row of a thing in quarantine
//	thing-type/A/<type>                    record, with the rules of attributes
//	billing-group/A/<group>                record: description, version
//	billing-group-thing/A/<group>/<thing>  row; the other way round is in the thing's record
//	event-configurations/A                 record: which kinds of registry events are published
//	indexing-configuration/A               record: what the fleet index holds
//	group/A/<group>                        record: parent, ancestors, properties, query, policies, number of children
//	group-child/A/<parent>/<group>         row; the parent of a root is empty
//	group-thing/A/<group>/<thing>          row that says whether the index decided it
//	dynamic-groups/A                       record: how many there are, guard of the account's limit
//	certificate/A/<id>                     record: PEM, state, policies, number of things, exclusive thing
//	certificate-oldest/A/<time>/<id>       row, in order of creation
//	certificate-newest/A/<time down>/<id>  row, in reverse order of creation
//	certificate-expiry/A/<time>/<id>       row, in order of the end of validity
//	certificate-by-ca/A/<ca>/<time>/<id>   row, in order of creation below the authority
//	certificate-by-ca-down/A/<ca>/<time down>/<id>  row, in reverse order
//	certificate-serial/A/<ca>/<serial>/<id>  row; the serial number in hexadecimal digits
//	certificate-revoked/A/<id>             record: what our own revocation list says of a certificate issued here
//	certificate-pending/A/<time>/<id>      row, in order of the end of what waits for its device, and of claims
//	certificate-pending-claim/A/<claim>/<id>  row: what a claim has asked for and no device has used
//	certificate-reopened/A/<time>/<id>     row of a birth certificate that may be used again, by the end of that
//	certificate-outgoing/A/<time>/<id>     row, in order of the transfer's beginning
//	certificate-outgoing-down/A/<time down>/<id>  row, in reverse order
//	certificate-gone/A/<id>                record: to whom a certificate was transferred
//	ca-certificate/A/<id>                  record: PEM, state, mode, registration configuration
//	ca-certificate-oldest/A/<time>/<id>    row, in order of registration
//	ca-certificate-newest/A/<time down>/<id>  row, in reverse order
//	ca-certificate-expiry/A/<time>/<id>    row, in order of the end of validity
//	ca-subject/A/<hash>                    record: the authorities of one subject, guard of their number
//	ca-owner/<id>                          record: the one account that has the authority in mode DEFAULT
//	ca-purpose/A/<id>                      record: what the certificates under the authority are for; outlives it
//	registration-code/A                    record
//	revocation-list/A/<ca>                 record: which list is taken over, and how far
//	revoked-serial/A/<ca>/<serial>         record: an entry of that list
//	thing-principal/A/<thing>/<ref>        row that says whether the attachment is exclusive
//	principal-thing/A/<ref>/<thing>        the same the other way round
//	policy/A/<policy>                      record: all versions with their documents
//	policy-oldest/A/<time>/<policy>        row, in order of creation
//	policy-newest/A/<time down>/<policy>   row, in reverse order of creation
//	policy-target/A/<policy>/<ref>         row; the other way round is in the target's record
//
// A ref is the last part of an ARN, "cert/<id>" or "thinggroup/<name>": short,
// and still right when the region's name changes.
const (
	kindThing             = "thing"
	kindThingByType       = "thing-by-type"
	kindThingByAttribute  = "thing-by-attribute"
	kindThingTombstone    = "thing-tombstone"
	kindThingPromise      = "thing-promise"
	kindThingPromiseBy    = "thing-promise-by"
	kindQuarantined       = "quarantined"
	kindThingType         = "thing-type"
	kindBillingGroup      = "billing-group"
	kindBillingGroupThing = "billing-group-thing"
	kindEventConfig       = "event-configurations"
	kindIndexing          = "indexing-configuration"
	kindGroup             = "group"
	kindGroupChild        = "group-child"
	kindGroupThing        = "group-thing"
	kindDynamicGroups     = "dynamic-groups"
	kindCertificate       = "certificate"
	kindCertificateOldest = "certificate-oldest"
	kindCertificateNewest = "certificate-newest"
	kindCertificateExpiry = "certificate-expiry"

	kindCertificateByCA         = "certificate-by-ca"
	kindCertificateByCADown     = "certificate-by-ca-down"
	kindCertificateSerial       = "certificate-serial"
	kindCertificateRevoked      = "certificate-revoked"
	kindCertificatePending      = "certificate-pending"
	kindCertificatePendingClaim = "certificate-pending-claim"
	kindCertificateReopened     = "certificate-reopened"
	kindCertificateOutgoing     = "certificate-outgoing"
	kindCertificateOutgoingDown = "certificate-outgoing-down"
	kindCertificateGone         = "certificate-gone"
	kindCACertificate           = "ca-certificate"
	kindCACertificateOldest     = "ca-certificate-oldest"
	kindCACertificateNewest     = "ca-certificate-newest"
	kindCACertificateExpiry     = "ca-certificate-expiry"
	kindCASubject               = "ca-subject"
	kindCAOwner                 = "ca-owner"
	kindCAPurpose               = "ca-purpose"
	kindRegistrationCode        = "registration-code"
	kindRevocationList          = "revocation-list"
	kindRevokedSerial           = "revoked-serial"

	kindThingPrincipal = "thing-principal"
	kindPrincipalThing = "principal-thing"
	kindPolicy         = "policy"
	kindPolicyOldest   = "policy-oldest"
	kindPolicyNewest   = "policy-newest"
	kindPolicyTarget   = "policy-target"
)

// key joins a kind, an account and the remaining parts.
func key(kind string, account fleet.Account, parts ...string) store.Key {
	return store.K(append([]string{kind, string(account)}, parts...)...)
}

// under is the range of all keys of a kind and account below the parts.
func under(kind string, account fleet.Account, parts ...string) store.Range {
	return store.Under(append([]string{kind, string(account)}, parts...)...)
}

// withPrefix is the range of all keys whose part behind the parts starts with
// the prefix. The highest byte of a name or value is below 0xff.
func withPrefix(kind string, account fleet.Account, prefix string, parts ...string) store.Range {
	from := key(kind, account, append(parts, prefix)...)
	return store.Range{From: from, To: from + "\xff"}
}

// rising renders a time so that text order is time order.
func rising(t time.Time) string { return fmt.Sprintf("%019d", t.UnixMilli()) }

// falling renders a time so that text order is reverse time order.
func falling(t time.Time) string { return fmt.Sprintf("%019d", math.MaxInt64-t.UnixMilli()) }

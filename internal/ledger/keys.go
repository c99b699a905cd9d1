package ledger

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// First parts of keys; the account is the second.
//
//	ledger-entry/A/<device>/<seq>        record: an entry
//	ledger-chain/A/<number>              row: where the account's entry of that number is
//	ledger-head/A                        record: the end of the account's chain
//	ledger-anchor/A                      record: the end that the audit trail was told of last
//	ledger-device/A/<device>             record: the end of a device's chain, what it has come to
//	ledger-thing/A/<thing>               row that names the device
//	ledger-alias/A/<key>                 row that names the device of a key of onboarding that is kept by another
//	ledger-certificate/A/<id>            record: the device, where it comes from, what waits for its device
//	ledger-authority/A/<id>              record: who registered it
//	ledger-rogue/A/<~time>/<device>      record: a device that nobody made, newest first
//	ledger-attempt/A/<subject>           record: one that was refused
//	ledger-rogues/A                      counts of both
//	ledger-began                         whether the ledger has seen all events
const (
	kindEntry       = "ledger-entry"
	kindChain       = "ledger-chain"
	kindHead        = "ledger-head"
	kindAnchor      = "ledger-anchor"
	kindDevice      = "ledger-device"
	kindThing       = "ledger-thing"
	kindAlias       = "ledger-alias"
	kindCertificate = "ledger-certificate"
	kindAuthority   = "ledger-authority"
	kindRogue       = "ledger-rogue"
	kindAttempt     = "ledger-attempt"
	kindRogues      = "ledger-rogues"
	kindBegan       = "ledger-began"
)

// schemaVersion is written into every record.
const schemaVersion = 1

// place is where a device's ledger is.
type place struct {
	account fleet.Account
	device  string
}

func (p place) record() store.Key { return store.K(kindDevice, string(p.account), p.device) }

func (p place) entry(seq uint64) store.Key {
	return store.K(kindEntry, string(p.account), p.device, number(seq))
}

// number renders a sequence so that text order is its order.
func number(n uint64) string { return fmt.Sprintf("%016x", n) }

func parseNumber(text string) (uint64, bool) {
	n, err := strconv.ParseUint(text, 16, 64)
	return n, err == nil && number(n) == text
}

// falling renders a time so that the newest comes first.
func falling(ms int64) string { return fmt.Sprintf("%012x", 1<<48-1-ms) }

func chainKey(account fleet.Account, n uint64) store.Key {
	return store.K(kindChain, string(account), number(n))
}

func headKey(account fleet.Account) store.Key   { return store.K(kindHead, string(account)) }
func anchorKey(account fleet.Account) store.Key { return store.K(kindAnchor, string(account)) }
func roguesKey(account fleet.Account) store.Key { return store.K(kindRogues, string(account)) }
func beganKey() store.Key                       { return store.K(kindBegan) }

func thingKey(account fleet.Account, name string) store.Key {
	return store.K(kindThing, string(account), name)
}

func aliasKey(account fleet.Account, name string) store.Key {
	return store.K(kindAlias, string(account), name)
}

func certificateKey(account fleet.Account, id string) store.Key {
	return store.K(kindCertificate, string(account), id)
}

func authorityKey(account fleet.Account, id string) store.Key {
	return store.K(kindAuthority, string(account), id)
}

// deviceRecord is the end of a device's chain and what its present life has come to.
// The seal is over the end.
type deviceRecord struct {
	Schema int    `json:"v"`
	Seq    uint64 `json:"seq"`
	Hash   string `json:"hash"`
	Seal   string `json:"seal"`
	Life   int    `json:"life"`
	// Begun is when the present life began.
	Begun       int64  `json:"begun"`
	Thing       string `json:"thing,omitempty"`
	Certificate string `json:"certificate,omitempty"`
	// Status is the certificate's.
	Status     string `json:"status,omitempty"`
	Registered int64  `json:"registered,omitempty"`
	Activated  int64  `json:"activated,omitempty"`
	Ended      int64  `json:"ended,omitempty"`
	Seen       bool   `json:"seen,omitempty"`
	Suspended  bool   `json:"suspended,omitempty"`
	// Rogue says that the life was raised.
	Rogue    bool       `json:"rogue,omitempty"`
	Evidence []Evidence `json:"evidence,omitempty"`
	Votes    []vote     `json:"votes,omitempty"`
	// Unproven counts the entries of this life that others brought about who only said
	// to be the device.
	Unproven int `json:"unproven,omitempty"`
	// Refusals are the codes that have an entry in this life.
	Refusals []string `json:"refusals,omitempty"`
}

// vote is the last word of an authority about a request.
type vote struct {
	Request   string `json:"request"`
	Authority string `json:"authority"`
	By        string `json:"by,omitempty"`
	Verdict   string `json:"verdict"`
}

// nameRow is the value of a row that leads to a device.
type nameRow struct {
	Schema int    `json:"v"`
	Device string `json:"device"`
}

// certificateRecord is what is known of a certificate.
type certificateRecord struct {
	Schema int `json:"v"`
	// Device is empty while no device has it.
	Device string `json:"device,omitempty"`
	Status string `json:"status,omitempty"`
	// Used says that its device has connected with it: further connections tell
	// nothing. It is never set for one that several devices share.
	Used   bool `json:"used,omitempty"`
	Shared bool `json:"shared,omitempty"`
	// Origin is empty for one that is older than the ledger.
	Origin *origin `json:"origin,omitempty"`
	// Authority is the registered one under which it has announced itself.
	Authority string `json:"authority,omitempty"`
	// Waiting is told when a device has it.
	Waiting []Draft `json:"waiting,omitempty"`
}

// origin is how something came to be.
type origin struct {
	At    int64           `json:"at"`
	By    fleet.Principal `json:"by"`
	Event string          `json:"event"`
}

// authorityRecord is a registered authority.
type authorityRecord struct {
	Schema int    `json:"v"`
	Origin origin `json:"origin"`
	// Declared says that an operator has stated that it is trusted.
	Declared bool `json:"declared,omitempty"`
}

// chainRow is where an entry is.
type chainRow struct {
	Schema int    `json:"v"`
	Device string `json:"device"`
	Seq    uint64 `json:"seq"`
}

// endRecord is the end of an account's chain; the seal is over it.
type endRecord struct {
	Schema int    `json:"v"`
	Number uint64 `json:"number"`
	Hash   string `json:"hash"`
	At     int64  `json:"at"`
	Seal   string `json:"seal"`
}

// beganRecord says what the ledger has not seen.
type beganRecord struct {
	Schema int   `json:"v"`
	At     int64 `json:"at"`
	// Complete says that it has seen every event since the installation began.
	Complete bool `json:"complete"`
	// Gap is how far events were trimmed that it has not seen, the last time.
	Gap string `json:"gap,omitempty"`
}

// decode reads a stored value into v, which has the present schema.
func decode(found store.Record, v any, schema *int) error {
	if err := json.Unmarshal(found.Value, v); err != nil {
		return fmt.Errorf("decode record %s: %w", found.Key, err)
	}
	if *schema != schemaVersion {
		return fmt.Errorf("record %s has schema %d, this version reads %d", found.Key, *schema, schemaVersion)
	}
	return nil
}

// put adds a record to a batch.
func put(b *store.Batch, key store.Key, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode record %s: %w", key, err)
	}
	b.Writes = append(b.Writes, store.Write{Key: key, Value: value})
	return nil
}

// moment is the time of a record, zero for 0.
func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

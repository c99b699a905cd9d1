package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/muster-iot/muster/internal/fleet"
)

// What is the kind of an entry.
type What string

// Kinds of entries.
const (
	// Expected announces a device, Manufactured and Planned are states and steps of
	// its provisioning plan.
	Expected     What = "EXPECTED"
	Manufactured What = "MANUFACTURED"
	Planned      What = "PLANNED"
	// CriterionFailed is an exit criterion that did not come to hold in time.
	CriterionFailed What = "CRITERION_FAILED"
	// Seen is a connection by its name before it was registered, as with a claim.
	Seen What = "SEEN"
	// ListClaimed is an entry of an allow list that has let the device in, ListChanged
	// one that an operator has blocked or freed since, Duplicated somebody else who came
	// with the same entry.
	ListClaimed What = "LIST_CLAIMED"
	ListChanged What = "LIST_CHANGED"
	Duplicated  What = "DUPLICATED"
	// Refused is a registration that was not granted.
	Refused           What = "REFUSED"
	ApprovalRequested What = "APPROVAL_REQUESTED"
	ApprovalVoted     What = "APPROVAL_VOTED"
	// ApprovalUsed has let the device in, ApprovalExpired has not in time.
	ApprovalUsed    What = "APPROVAL_USED"
	ApprovalExpired What = "APPROVAL_EXPIRED"
	Registered      What = "REGISTERED"
	// Found is a device that was there before the ledger was.
	Found What = "FOUND"
	// Activated is the first connection with its own certificate.
	Activated What = "ACTIVATED"

	CertificateIssued      What = "CERTIFICATE_ISSUED"
	CertificateAnnounced   What = "CERTIFICATE_ANNOUNCED"
	CertificateActivated   What = "CERTIFICATE_ACTIVATED"
	CertificateAttached    What = "CERTIFICATE_ATTACHED"
	CertificateDetached    What = "CERTIFICATE_DETACHED"
	CertificateRotated     What = "CERTIFICATE_ROTATED"
	CertificateRetired     What = "CERTIFICATE_RETIRED"
	CertificateDeactivated What = "CERTIFICATE_DEACTIVATED"
	CertificateRevoked     What = "CERTIFICATE_REVOKED"
	CertificateDeleted     What = "CERTIFICATE_DELETED"
	// Transferred is a step of a certificate's way to another account.
	Transferred What = "TRANSFERRED"

	// Suspended is a device whose certificate does not let it in, Resumed one that is
	// let in again.
	Suspended What = "SUSPENDED"
	Resumed   What = "RESUMED"
	// Quarantined is a device that can do nothing but be provisioned until it is
	// Released. BirthMisused is a birth certificate that was used for another device.
	Quarantined  What = "QUARANTINED"
	Released     What = "RELEASED"
	BirthMisused What = "BIRTH_MISUSED"
	// Decommissioned ends a life.
	Decommissioned What = "DECOMMISSIONED"
	// Raised is the alarm for a device that nobody made.
	Raised What = "RAISED"
	// Joined takes over what was known of a device under another key, whose ledger
	// ends with Continued.
	Joined    What = "JOINED"
	Continued What = "CONTINUED"

	// Gap tells that events were lost, Mended that a record of the ledger was not what
	// had been written.
	Gap    What = "GAP"
	Mended What = "MENDED"
)

// ledgerItself is the key under which entries about the ledger are; no device can
// have it.
const ledgerItself = "#ledger"

// Draft is what an entry tells.
type Draft struct {
	// At is when it happened, in milliseconds. What waited until its device was known
	// is older than the entry before it.
	At        int64           `json:"at"`
	What      What            `json:"what"`
	Principal fleet.Principal `json:"principal"`
	// Facts are details by name.
	Facts map[string]string `json:"facts,omitempty"`
	// Evidence refers to the event, the call and whatever else it follows from.
	Evidence []string `json:"evidence,omitempty"`
}

// Entry is a draft with its place in both chains.
type Entry struct {
	Schema  int           `json:"v"`
	Account fleet.Account `json:"account"`
	Device  string        `json:"device"`
	// Life counts from 1: a name that is used again begins another one.
	Life int `json:"life"`
	// Seq counts the device's entries over all lives, Number the account's.
	Seq    uint64 `json:"seq"`
	Number uint64 `json:"number"`
	Draft

	// PrevHash is of the device's entry before, ChainHash of the account's.
	PrevHash  string `json:"prevHash"`
	ChainHash string `json:"chainHash"`
	Hash      string `json:"hash"`
}

// genesis is the hash before the first entry.
var genesis = strings.Repeat("0", 2*sha256.Size)

// entryDomain begins what is hashed, so that a hash of an entry is none of anything
// else.
const entryDomain = "muster ledger entry 1"

// digest is the entry's hash: SHA-256 over its members in the order in which they are
// declared, without Hash, each as its length in eight bytes, big-endian, and its
// bytes; numbers are decimal. Lists have their length in front as a number; facts are
// a list of names and values, sorted by name.
func (e *Entry) digest() string {
	h := sha256.New()
	var length [8]byte
	text := func(s string) {
		binary.BigEndian.PutUint64(length[:], uint64(len(s)))
		h.Write(length[:])
		h.Write([]byte(s))
	}
	number := func(n int64) { text(strconv.FormatInt(n, 10)) }
	text(entryDomain)
	number(int64(e.Schema))
	text(string(e.Account))
	text(e.Device)
	number(int64(e.Life))
	text(strconv.FormatUint(e.Seq, 10))
	text(strconv.FormatUint(e.Number, 10))
	number(e.At)
	text(string(e.What))
	text(e.Principal.Kind)
	text(e.Principal.ID)
	text(e.Principal.ARN)
	number(int64(len(e.Facts)))
	for _, name := range slices.Sorted(maps.Keys(e.Facts)) {
		text(name)
		text(e.Facts[name])
	}
	number(int64(len(e.Evidence)))
	for _, one := range e.Evidence {
		text(one)
	}
	text(e.PrevHash)
	text(e.ChainHash)
	return hex.EncodeToString(h.Sum(nil))
}

// encode is the stored form.
func (e *Entry) encode() ([]byte, error) {
	value, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode ledger entry: %w", err)
	}
	return value, nil
}

// errChanged is an entry that does not have its hash.
var errChanged = errors.New("its content does not have its hash")

// parseEntry reads an entry and checks it. With an error it returns what could be
// read, nil for nothing.
func parseEntry(value []byte) (*Entry, error) {
	var e Entry
	if err := json.Unmarshal(value, &e); err != nil {
		return nil, fmt.Errorf("it is no entry: %w", err)
	}
	if e.Schema != schemaVersion {
		return &e, fmt.Errorf("it has schema %d, this version reads %d", e.Schema, schemaVersion)
	}
	// What is not hashed must not be there.
	again, err := e.encode()
	if err != nil || !bytes.Equal(again, value) || e.digest() != e.Hash {
		return &e, errChanged
	}
	return &e, nil
}

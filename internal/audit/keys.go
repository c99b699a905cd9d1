package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// First parts of keys; the account follows in all but the last.
const (
	// kindRecord holds the records in the order of the chain.
	kindRecord = "audit"
	// kindHead and kindAnchor hold the signed ends of the chain.
	kindHead   = "audit-head"
	kindAnchor = "audit-anchor"
	// The rows say that a record exists, newest first.
	kindTime     = "audit-by-time"
	kindActor    = "audit-by-actor"
	kindResource = "audit-by-resource"
	// kindSettings holds the settings that were last reported.
	kindSettings = "audit-settings"
)

// plainRow is the value of rows: they say something by being there.
const plainRow = "1"

// maxPart is the longest name that keys hold as it is, in bytes.
const maxPart = 400

// part is a name as a part of keys: itself, or a digest of what is too long or
// would reach into other keys.
func part(name string) string {
	if len(name) <= maxPart && !strings.ContainsRune(name, 0) {
		return name
	}
	digest := sha256.Sum256([]byte(name))
	return "\x01" + hex.EncodeToString(digest[:])
}

// upSeq orders by growing, downSeq and downTime by falling number.
func upSeq(seq uint64) string   { return fmt.Sprintf("%016x", seq) }
func downSeq(seq uint64) string { return upSeq(^seq) }
func downTime(ms int64) string  { return fmt.Sprintf("%012x", 1<<48-1-min(max(ms, 0), 1<<48-1)) }

func recordKey(account fleet.Account, seq uint64) store.Key {
	return store.K(kindRecord, string(account), upSeq(seq))
}

func headKey(account fleet.Account) store.Key   { return store.K(kindHead, string(account)) }
func anchorKey(account fleet.Account) store.Key { return store.K(kindAnchor, string(account)) }

// seqOfRecord reads the sequence in a record's key.
func seqOfRecord(key store.Key) (uint64, bool) {
	text := key.Last()
	seq, err := strconv.ParseUint(text, 16, 64)
	return seq, err == nil && upSeq(seq) == text
}

// seqOfRow reads the sequence at the end of a row's key.
func seqOfRow(key store.Key) (uint64, bool) {
	text := key.Last()
	down, err := strconv.ParseUint(text, 16, 64)
	return ^down, err == nil && upSeq(down) == text
}

// rows are the keys of everything that points to a record.
func (r *Record) rows() []store.Key {
	account, at, seq := r.RecipientAccountID, downTime(r.millis()), downSeq(r.Seq)
	keys := []store.Key{store.K(kindTime, account, at, seq)}
	for _, actor := range r.actors() {
		keys = append(keys, store.K(kindActor, account, part(actor), at, seq))
	}
	seen := map[string]bool{}
	for _, resource := range r.Resources {
		if seen[resource.ARN] {
			continue
		}
		seen[resource.ARN] = true
		keys = append(keys, store.K(kindResource, account, part(resource.ARN), at, seq))
	}
	return keys
}

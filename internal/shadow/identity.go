package shadow

import (
	"hash/maphash"
	"strconv"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// First parts of this package's keys.
const (
	// keyShadow is followed by account, thing and shadow name; the classic
	// shadow's name is empty.
	keyShadow = "shadow"
	// keyGone is followed by the time of a deletion, account, thing and
	// shadow name, so that forgetting reads only what is due.
	keyGone = "shadow-gone"
)

// identity names one shadow.
type identity struct {
	account       fleet.Account
	thing, shadow string
}

// newIdentity checks the names of a request.
func newIdentity(account fleet.Account, thing, shadow string) (identity, error) {
	if !fleet.ValidName(thing) {
		return identity{}, &fault.Error{Code: fault.InvalidRequest, Message: "Invalid thing name"}
	}
	if shadow != "" && !fleet.ValidShadowName(shadow) {
		return identity{}, &fault.Error{Code: fault.InvalidRequest, Message: "Invalid shadow name"}
	}
	return identity{account: account, thing: thing, shadow: shadow}, nil
}

// key is where the shadow is stored.
func (id identity) key() store.Key {
	return store.K(keyShadow, string(id.account), id.thing, id.shadow)
}

// goneKey is the reminder to forget a version; at is the deletion in Unix
// nanoseconds, written with fixed width so that keys sort by time.
func (id identity) goneKey(at int64) store.Key {
	return store.K(keyGone, goneStamp(at), string(id.account), id.thing, id.shadow)
}

// goneStamp writes a time so that text order is time order until the year 2262.
func goneStamp(at int64) string {
	text := strconv.FormatInt(max(at, 0), 10)
	return "0000000000000000000"[:19-len(text)] + text
}

// identityOf reads a stored key back.
func identityOf(key store.Key) (identity, bool) {
	parts := key.Parts()
	if len(parts) != 4 || parts[0] != keyShadow {
		return identity{}, false
	}
	return identity{account: fleet.Account(parts[1]), thing: parts[2], shadow: parts[3]}, true
}

// missing is the answer when the shadow does not exist. The classic shadow is
// called by the name of its thing.
func (id identity) missing() error {
	name := id.shadow
	if name == "" {
		name = id.thing
	}
	return fault.New(fault.ResourceNotFound, msgNoShadow, name)
}

// hash spreads shadows over shards.
func (id identity) hash(seed maphash.Seed) uint64 { return maphash.Comparable(seed, id) }

// dueBefore is the range of reminders that have come due.
func dueBefore(now time.Time) store.Range {
	r := store.Under(keyGone)
	r.To = store.K(keyGone, goneStamp(now.Add(-retention).UnixNano()))
	return r
}

package connectivity

import (
	"fmt"
	"strconv"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// First parts of keys.
const (
	// kindRecord is followed by account and thing.
	kindRecord = "connectivity"
	// kindTimer rows lie in the order of their time: due, account, thing, which.
	kindTimer = "connectivity-timer"
	// kindChild rows tell what lies behind a gateway: account, gateway, child.
	kindChild = "connectivity-child"
	// kindSettings is followed by account and group, empty for the account's own.
	kindSettings = "connectivity-settings"
	// kindCount is followed by the account.
	kindCount = "connectivity-count"
	// kindLatency is followed by account and thing.
	kindLatency = "connectivity-latency"
	// kindApplied says which events are in the records.
	kindApplied = "connectivity-applied"
)

// Timers of a thing.
const (
	timerState = "state"
	timerFlap  = "flap"
)

// thingKey names a thing across accounts.
type thingKey struct {
	account fleet.Account
	thing   string
}

func recordKey(k thingKey) store.Key { return store.K(kindRecord, string(k.account), k.thing) }

func latencyKey(k thingKey) store.Key { return store.K(kindLatency, string(k.account), k.thing) }

func settingsKey(account fleet.Account, group string) store.Key {
	return store.K(kindSettings, string(account), group)
}

func childKey(account fleet.Account, gateway, child string) store.Key {
	return store.K(kindChild, string(account), gateway, child)
}

// dueText is a time in milliseconds as a part of keys that orders by time.
func dueText(due int64) string { return fmt.Sprintf("%012x", max(0, due)) }

func timerKey(due int64, k thingKey, which string) store.Key {
	return store.K(kindTimer, dueText(due), string(k.account), k.thing, which)
}

// timer is a row of kindTimer.
type timer struct {
	thingKey
	due   int64
	which string
}

// timerOf reads a row's key.
func timerOf(key store.Key) (timer, error) {
	parts := key.Parts()
	if len(parts) != 5 {
		return timer{}, fmt.Errorf("row %s is no timer", key)
	}
	due, err := strconv.ParseInt(parts[1], 16, 64)
	if err != nil {
		return timer{}, fmt.Errorf("row %s is no timer: %w", key, err)
	}
	return timer{thingKey{fleet.Account(parts[2]), parts[3]}, due, parts[4]}, nil
}

// timersBetween is the range of timers due at or between two times.
func timersBetween(from, to int64) store.Range {
	return store.Range{From: store.K(kindTimer, dueText(from)), To: store.K(kindTimer, dueText(max(from, to)+1))}
}

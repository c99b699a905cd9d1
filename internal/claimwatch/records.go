package claimwatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// First parts of keys; the account is the second.
//
//	claim-use/A/<certificate>      record of a claim
//	claim-finding/A/<certificate>  row of a claim with open findings
const (
	kindUse     = "claim-use"
	kindFinding = "claim-finding"
)

// schemaVersion is written into every record.
const schemaVersion = 1

// plainRow is the value of a row.
const plainRow = `{"v":1}`

// record is the stored form of a claim's use. Times are Unix milliseconds.
type record struct {
	Schema      int             `json:"v"`
	First       int64           `json:"first"`
	Last        int64           `json:"last"`
	Provisioned int64           `json:"provisioned,omitempty"`
	Refused     int64           `json:"refused,omitempty"`
	Networks    []networkRecord `json:"networks,omitempty"`
	// Forgotten counts networks that had no room.
	Forgotten int64           `json:"forgotten,omitempty"`
	Findings  []findingRecord `json:"findings,omitempty"`
}

// networkRecord is a network from which a claim was used.
type networkRecord struct {
	Network     string `json:"network"`
	First       int64  `json:"first"`
	Last        int64  `json:"last"`
	Provisioned int64  `json:"provisioned,omitempty"`
	Refused     int64  `json:"refused,omitempty"`
}

// findingRecord is a misuse; Raised is the time of its last event.
type findingRecord struct {
	Kind        event.ClaimMisuse `json:"kind"`
	Network     string            `json:"network,omitempty"`
	First       int64             `json:"first"`
	Last        int64             `json:"last"`
	Times       int64             `json:"times"`
	Raised      int64             `json:"raised"`
	Template    string            `json:"template,omitempty"`
	Certificate string            `json:"certificate,omitempty"`
	Reason      string            `json:"reason,omitempty"`
	// SettledAt is 0 for one that nobody has settled.
	SettledAt int64  `json:"settledAt,omitempty"`
	SettledBy string `json:"settledBy,omitempty"`
	Note      string `json:"note,omitempty"`
}

func useKey(account fleet.Account, claim string) store.Key {
	return store.K(kindUse, string(account), claim)
}

func findingKey(account fleet.Account, claim string) store.Key {
	return store.K(kindFinding, string(account), claim)
}

func moment(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// read decodes the record of a claim and returns its version, 0 for a claim that was
// never used.
func read(ctx context.Context, r store.Reader, k store.Key) (use record, version uint64, err error) {
	found, err := r.Get(ctx, k)
	if errors.Is(err, store.ErrNotFound) {
		return record{}, 0, nil
	}
	if err != nil {
		return record{}, 0, store.Fault(fmt.Errorf("read %s: %w", k, err))
	}
	if err := json.Unmarshal(found.Value, &use); err != nil {
		return record{}, 0, fmt.Errorf("decode record %s: %w", k, err)
	}
	return use, found.Version, nil
}

// open reports whether a finding waits for somebody.
func (r *record) open() bool {
	for i := range r.Findings {
		if r.Findings[i].SettledAt == 0 {
			return true
		}
	}
	return false
}

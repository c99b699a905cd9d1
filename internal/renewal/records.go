package renewal

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// First parts of keys; the account is the second. The rows follow from the
// record and are written with it.
//
//	renewal/A/<thing>/<new>                    record: one renewal
//	renewal-step/A/<step>/<~time>/<thing>/<new>  row, by step, the newest step first
//	renewal-new/A/<new>                        row that names the thing of a renewal that has not ended
//	renewal-due/A/<time>/<thing>/<new>         row, in order of when something is to be done
const (
	kindRenewal = "renewal"
	kindStep    = "renewal-step"
	kindNew     = "renewal-new"
	kindDue     = "renewal-due"
)

// schemaVersion is written into every record.
const schemaVersion = 1

// plainRow is the value of a row that has nothing but its key.
const plainRow = `{"v":1}`

// record is one renewal. Times are in milliseconds.
type record struct {
	Schema int                      `json:"v"`
	Old    string                   `json:"old"`
	Step   event.CertificateRenewal `json:"step"`
	Begun  int64                    `json:"begun"`
	// Changed is when it took its step.
	Changed int64 `json:"changed"`
	// Proof is there from PROVEN on.
	Proof *proof `json:"proof,omitempty"`
	// Due is when its next step is to be taken without anybody's doing, 0 for never.
	Due    int64  `json:"due,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// proof is the connection with the new certificate.
type proof struct {
	At           int64  `json:"at"`
	ClientID     string `json:"clientId"`
	ConnectionID string `json:"connectionId,omitempty"`
	Address      string `json:"address,omitempty"`
}

// newRow is the value of a row of kindNew.
type newRow struct {
	Schema int    `json:"v"`
	Thing  string `json:"thing"`
}

// waits reports a renewal that a connection with the new certificate would prove.
func (r *record) waits() bool {
	switch r.Step {
	case event.RenewalBegun, event.RenewalUnproven, event.RenewalSuperseded:
		return true
	case event.RenewalProven, event.RenewalCompleted, event.RenewalAbandoned:
	}
	return false
}

// open reports a renewal that has not ended.
func (r *record) open() bool { return r.waits() || r.Step == event.RenewalProven }

// place is where a renewal's record is.
type place struct {
	account        fleet.Account
	thing, renewed string
}

func (p place) key() store.Key { return store.K(kindRenewal, string(p.account), p.thing, p.renewed) }

// placeOf reverses key, and finds the place in the rows that end like it.
func placeOf(k store.Key) place {
	parts := k.Parts()
	n := len(parts)
	return place{account: fleet.Account(parts[1]), thing: parts[n-2], renewed: parts[n-1]}
}

func newKey(account fleet.Account, id string) store.Key { return store.K(kindNew, string(account), id) }

// rows are what finds a renewal, with their values.
func (r *record) rows(at place) (map[store.Key]string, error) {
	a := string(at.account)
	rows := map[store.Key]string{
		store.K(kindStep, a, string(r.Step), falling(r.Changed), at.thing, at.renewed): plainRow,
	}
	if r.Due != 0 {
		rows[store.K(kindDue, a, rising(r.Due), at.thing, at.renewed)] = plainRow
	}
	if r.open() {
		value, err := json.Marshal(newRow{Schema: schemaVersion, Thing: at.thing})
		if err != nil {
			return nil, fmt.Errorf("encode row: %w", err)
		}
		rows[newKey(at.account, at.renewed)] = string(value)
	}
	return rows, nil
}

// rising renders a time so that text order is time order, falling so that it is
// reverse time order.
func rising(ms int64) string  { return fmt.Sprintf("%019d", ms) }
func falling(ms int64) string { return fmt.Sprintf("%019d", math.MaxInt64-ms) }

// moment is the time of a record, zero for 0.
func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
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

// thingsOf reads the thing of each certificate that a renewal is under way to; a
// certificate without one is missing.
func (s *Service) thingsOf(ctx context.Context, r store.Reader, keys []store.Key) (map[store.Key]string, error) {
	things := make(map[store.Key]string)
	if len(keys) == 0 {
		return things, nil
	}
	found, err := r.GetMany(ctx, keys)
	if err != nil {
		return nil, store.Fault(fmt.Errorf("read renewals by certificate: %w", err))
	}
	for _, one := range found {
		if one.Version == 0 {
			continue
		}
		var row newRow
		if err := decode(one, &row, &row.Schema); err != nil {
			return nil, err
		}
		things[one.Key] = row.Thing
	}
	return things, nil
}

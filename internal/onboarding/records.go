package onboarding

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// First parts of keys; the account is the second. The rows follow from the
// record and are written with it.
//
//	onboarding-plan/A/<plan>                         record: which versions there are
//	onboarding-plan-version/A/<plan>/<version>       record: one version, as it was written and as it was read
//	onboarding-binding/A/<kind>/<name>               row that names the plan that things so made follow
//	onboarding-plans/A                               guard of the limit of plans
//	onboarding-device/A/<key>                        record: one device
//	onboarding-state/A/<state>/<key>                 row, by state
//	onboarding-stage/A/<stage>/<time>/<key>          row, by stage, the longest in it first
//	onboarding-limit/A/<time>/<stage>/<key>          row, by when the stage's limit is over
//	onboarding-look/A/<time>/<key>                   row, by when exit criteria are looked at
//	onboarding-certificate/A/<id>, onboarding-thing/A/<thing>  row that names the device
const (
	kindPlan        = "onboarding-plan"
	kindVersion     = "onboarding-plan-version"
	kindBinding     = "onboarding-binding"
	kindPlans       = "onboarding-plans"
	kindDevice      = "onboarding-device"
	kindState       = "onboarding-state"
	kindStage       = "onboarding-stage"
	kindLimit       = "onboarding-limit"
	kindLook        = "onboarding-look"
	kindCertificate = "onboarding-certificate"
	kindThing       = "onboarding-thing"
)

// Kinds of bindings, in the order in which they decide.
const (
	bindTemplate  = "template"
	bindAuthority = "authority"
	bindType      = "type"
)

// schemaVersion is written into every record.
const schemaVersion = 1

// plainRow is the value of a row that has nothing but its key.
const plainRow = `{"v":1}`

// planRecord says which versions a plan has. 0 is for none.
type planRecord struct {
	Schema int `json:"v"`
	// Name is the newest version's.
	Name string `json:"name"`
	// Published is the version in force, Draft the one that can be changed, Newest
	// the last of all.
	Published int64  `json:"published,omitempty"`
	Draft     int64  `json:"draft,omitempty"`
	Newest    int64  `json:"newest"`
	Status    Status `json:"status"`
	Created   int64  `json:"created"`
	Changed   int64  `json:"changed"`
}

// versionRecord is one version. Source is frozen once it was published.
type versionRecord struct {
	Schema      int             `json:"v"`
	Status      Status          `json:"status"`
	Source      string          `json:"source"`
	Plan        Plan            `json:"plan"`
	Written     int64           `json:"written"`
	WrittenBy   fleet.Principal `json:"writtenBy"`
	Published   int64           `json:"published,omitempty"`
	PublishedBy fleet.Principal `json:"publishedBy,omitzero"`
	Retired     int64           `json:"retired,omitempty"`
	RetiredBy   fleet.Principal `json:"retiredBy,omitzero"`
}

// nameRow is the value of a row that leads to a plan or a device.
type nameRow struct {
	Schema int    `json:"v"`
	Name   string `json:"name"`
	// Active says of a certificate's row that the device has been ACTIVE: further
	// connections tell nothing, and cost no look at its record.
	Active bool `json:"active,omitempty"`
}

// plansRecord counts the plans of an account.
type plansRecord struct {
	Schema int `json:"v"`
	Count  int `json:"count"`
}

func planKey(account fleet.Account, id string) store.Key {
	return store.K(kindPlan, string(account), id)
}

func versionKey(account fleet.Account, id string, version int64) store.Key {
	return store.K(kindVersion, string(account), id, fmt.Sprintf("%010d", version))
}

func bindingKey(account fleet.Account, kind, name string) store.Key {
	return store.K(kindBinding, string(account), kind, name)
}

func certificateKey(account fleet.Account, id string) store.Key {
	return store.K(kindCertificate, string(account), id)
}

func thingKey(account fleet.Account, name string) store.Key {
	return store.K(kindThing, string(account), name)
}

// bindings are the rows of a plan.
func (p *Plan) bindings(account fleet.Account) []store.Key {
	var keys []store.Key
	for _, each := range []struct {
		kind  string
		names []string
	}{{bindTemplate, p.AppliesTo.Templates}, {bindAuthority, p.AppliesTo.Authorities}, {bindType, p.AppliesTo.ThingTypes}} {
		for _, name := range each.names {
			keys = append(keys, bindingKey(account, each.kind, name))
		}
	}
	return keys
}

// place is where a device's record is.
type place struct {
	account fleet.Account
	key     string
}

func (p place) record() store.Key { return store.K(kindDevice, string(p.account), p.key) }

// placeIn finds the place in a record's key and in the rows that end like it.
func placeIn(k store.Key) place {
	parts := k.Parts()
	return place{account: fleet.Account(parts[1]), key: parts[len(parts)-1]}
}

// rows are what finds a device, with their values.
func (r *record) rows(at place) (map[store.Key]string, error) {
	a := string(at.account)
	name, err := json.Marshal(nameRow{Schema: schemaVersion, Name: at.key, Active: r.Reached[StateActive] != 0})
	if err != nil {
		return nil, fmt.Errorf("encode row: %w", err)
	}
	rows := map[store.Key]string{store.K(kindState, a, string(r.state()), at.key): plainRow}
	if r.Stage != "" {
		rows[store.K(kindStage, a, r.Stage, rising(r.StageSince), at.key)] = plainRow
	}
	if r.StuckAt != 0 {
		rows[store.K(kindLimit, a, rising(r.StuckAt), r.Stage, at.key)] = plainRow
	}
	if r.Look != 0 {
		rows[store.K(kindLook, a, rising(r.Look), at.key)] = plainRow
	}
	if r.Certificate != "" {
		rows[certificateKey(at.account, r.Certificate)] = string(name)
	}
	if r.Thing != "" {
		rows[thingKey(at.account, r.Thing)] = string(name)
	}
	return rows, nil
}

// rising renders a time so that text order is time order.
func rising(ms int64) string { return fmt.Sprintf("%019d", max(ms, 0)) }

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

// put adds a record to a batch.
func put(b *store.Batch, key store.Key, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode record %s: %w", key, err)
	}
	b.Writes = append(b.Writes, store.Write{Key: key, Value: value})
	return nil
}

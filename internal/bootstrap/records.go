package bootstrap

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

// First parts of keys; the account that has made the assignment is the second.
//
//	bootstrap-assignment/A/<id>  record
//	bootstrap-asked/A/<id>       record: when a device was told about it last
const (
	kindAssignment = "bootstrap-assignment"
	kindAsked      = "bootstrap-asked"
)

// schemaVersion is written into every record.
const schemaVersion = 1

// record is the stored form of an assignment. Times are Unix milliseconds.
type record struct {
	Schema        int               `json:"v"`
	Kind          Kind              `json:"kind"`
	Certificate   string            `json:"certificate,omitempty"`
	CA            string            `json:"ca,omitempty"`
	Serial        string            `json:"serial,omitempty"`
	Target        fleet.Account     `json:"target"`
	Template      string            `json:"template,omitempty"`
	Parameters    map[string]string `json:"parameters,omitempty"`
	Configuration map[string]string `json:"configuration,omitempty"`
	Enabled       bool              `json:"enabled"`
	Expires       int64             `json:"expires,omitempty"`
	Note          string            `json:"note,omitempty"`
	Version       int64             `json:"version"`
	Created       int64             `json:"created"`
	Modified      int64             `json:"modified"`
	By            string            `json:"by,omitempty"`
}

// askedRecord is the stored form of the last answer; it is of no version of its
// assignment, so that devices do not stand in the way of operators.
type askedRecord struct {
	Schema int    `json:"v"`
	At     int64  `json:"at"`
	By     string `json:"by"`
	From   string `json:"from,omitempty"`
}

func assignmentKey(owner fleet.Account, id string) store.Key {
	return store.K(kindAssignment, string(owner), part(id))
}

func askedKey(owner fleet.Account, id string) store.Key {
	return store.K(kindAsked, string(owner), part(id))
}

// part is an id as callers give it, as a part of a key: one that cannot be an id is
// that of nobody.
func part(id string) string {
	if readable(id, 1, maxName) {
		return id
	}
	return "-"
}

func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

func recordOf(a *Assignment) *record {
	r := &record{
		Schema: schemaVersion, Kind: a.Kind, Certificate: a.CertificateID, CA: a.CACertificateID, Serial: a.Serial, Target: a.Account, Template: a.Template,
		Parameters: a.Parameters, Configuration: a.Configuration, Enabled: a.Enabled, Note: a.Note,
	}
	if !a.Expires.IsZero() {
		r.Expires = a.Expires.UnixMilli()
	}
	return r
}

func (r *record) assignment(id string) Assignment {
	return Assignment{
		ID: id, Who: Who{Kind: r.Kind, CertificateID: r.Certificate, CACertificateID: r.CA, Serial: r.Serial}, Account: r.Target, Template: r.Template,
		Parameters: r.Parameters, Configuration: r.Configuration, Enabled: r.Enabled, Expires: moment(r.Expires), Note: r.Note,
		Version: r.Version, Created: moment(r.Created), Modified: moment(r.Modified), By: r.By,
	}
}

// read decodes a record into v and returns its version, 0 when there is none.
func read(ctx context.Context, r store.Reader, k store.Key, v any) (uint64, error) {
	found, err := r.Get(ctx, k)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, store.Fault(fmt.Errorf("read %s: %w", k, err))
	}
	return found.Version, decode(found, v)
}

func decode(found store.Record, v any) error {
	if err := json.Unmarshal(found.Value, v); err != nil {
		return fmt.Errorf("decode record %s: %w", found.Key, err)
	}
	return nil
}

// put writes a record.
func put(b *store.Batch, k store.Key, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode record %s: %w", k, err)
	}
	b.Writes = append(b.Writes, store.Write{Key: k, Value: value})
	return nil
}

// batch begins one with an event of an account.
func (s *Service) batch(ctx context.Context, account fleet.Account, e event.Event) store.Batch {
	return store.Batch{Events: []event.Envelope{{Account: account, At: s.o.Now(), Actor: fleet.ActorFrom(ctx), Event: e}}}
}

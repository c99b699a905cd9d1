package approval

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
//	approval-authority/A/<authority>           record
//	approval-binding/A/<template>              record
//	approval-quota/A/<template>/<day>          record: who joined by the template that day; the guard of its number
//	approval/A/<id>                            record: a request and its votes
//	approval-of/A/<certificate>/<template>     row: value is the id of the newest request
//	approval-state/A/<state>/<~time>/<id>      row, newest first
//	approval-end/<time>/A/<id>                 row of a request that waits, by its end
const (
	kindAuthority = "approval-authority"
	kindBinding   = "approval-binding"
	kindQuota     = "approval-quota"
	kindRequest   = "approval"
	kindOf        = "approval-of"
	kindState     = "approval-state"
	kindEnd       = "approval-end"
)

// schemaVersion is written into every record.
const schemaVersion = 1

// plainRow is the value of a row.
const plainRow = `{"v":1}`

// authorityRecord is the stored form of an authority.
type authorityRecord struct {
	Schema   int    `json:"v"`
	Kind     Kind   `json:"kind"`
	Group    string `json:"group,omitempty"`
	Function string `json:"function,omitempty"`
	Supplier string `json:"supplier,omitempty"`
	Serial   string `json:"serialParameter,omitempty"`
	Model    string `json:"modelParameter,omitempty"`
	Created  int64  `json:"created"`
	Modified int64  `json:"modified"`
}

// bindingRecord is the stored form of a binding.
type bindingRecord struct {
	Schema   int         `json:"v"`
	Rule     Rule        `json:"rule"`
	K        int         `json:"k,omitempty"`
	Asked    []string    `json:"authorities"`
	Claims   []string    `json:"claims,omitempty"`
	Networks []string    `json:"networks,omitempty"`
	AutoIf   string      `json:"autoApproveIf,omitempty"`
	Quota    int         `json:"dailyQuota,omitempty"`
	From     int         `json:"from,omitempty"`
	Until    int         `json:"until,omitempty"`
	Patience int64       `json:"patience"`
	Created  int64       `json:"created"`
	Modified int64       `json:"modified"`
	By       fleet.Actor `json:"by"`
	// version is the record's, target what it is of; unbound are those that would come
	// before it and have none.
	version uint64
	target  string
	unbound []string
}

// quotaRecord counts who has joined on a day.
type quotaRecord struct {
	Schema int `json:"v"`
	Joined int `json:"joined"`
}

// requestRecord is the stored form of a request.
type requestRecord struct {
	Schema int `json:"v"`
	Request
}

// ofRecord leads from a certificate to its request.
type ofRecord struct {
	Schema int    `json:"v"`
	ID     string `json:"id"`
}

func authorityKey(account fleet.Account, id string) store.Key {
	return store.K(kindAuthority, string(account), id)
}

func bindingKey(account fleet.Account, template string) store.Key {
	return store.K(kindBinding, string(account), template)
}

func requestKey(account fleet.Account, id string) store.Key {
	return store.K(kindRequest, string(account), id)
}

func ofKey(account fleet.Account, certificate, template string) store.Key {
	return store.K(kindOf, string(account), certificate, template)
}

func quotaKey(account fleet.Account, template string, at time.Time) store.Key {
	return store.K(kindQuota, string(account), template, at.UTC().Format(time.DateOnly))
}

// latest counts down, so that the newest come first.
func latest(at time.Time) string {
	const most = 1<<63 - 1
	return fmt.Sprintf("%019d", most-at.UnixMilli())
}

func stateKey(account fleet.Account, r *Request) store.Key {
	return store.K(kindState, string(account), string(r.State), latest(r.Received), r.ID)
}

func endKey(account fleet.Account, r *Request) store.Key {
	return store.K(kindEnd, fmt.Sprintf("%019d", r.Expires.UnixMilli()), string(account), r.ID)
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
	if err := json.Unmarshal(found.Value, v); err != nil {
		return 0, fmt.Errorf("decode record %s: %w", k, err)
	}
	return found.Version, nil
}

// batch is one try of a command; what it reads is expected as it was.
type batch struct {
	store.Batch

	reader store.Reader
}

// load is read, with the expectation.
func (b *batch) load(ctx context.Context, k store.Key, v any) (found bool, err error) {
	version, err := read(ctx, b.reader, k, v)
	b.Expect = append(b.Expect, store.Expect{Key: k, Version: version})
	return version > 0, err
}

// put writes a record.
func (b *batch) put(k store.Key, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode record %s: %w", k, err)
	}
	b.Writes = append(b.Writes, store.Write{Key: k, Value: value})
	return nil
}

func (b *batch) row(k store.Key) {
	b.Writes = append(b.Writes, store.Write{Key: k, Value: []byte(plainRow)})
}

func (b *batch) remove(k store.Key) { b.Writes = append(b.Writes, store.Write{Key: k, Delete: true}) }

func (b *batch) emit(e event.Event) { b.Events = append(b.Events, event.Envelope{Event: e}) }

// change runs a command until its batch commits or its decision is an error.
func (s *Service) change(ctx context.Context, account fleet.Account, command func(b *batch) error) error {
	return store.Attempt(ctx, s.o.Store, func(ctx context.Context) (store.Batch, error) {
		b := &batch{reader: s.o.Store}
		if err := command(b); err != nil {
			return store.Batch{}, err
		}
		for i := range b.Events {
			b.Events[i].Account, b.Events[i].At, b.Events[i].Actor = account, s.o.Now(), fleet.ActorFrom(ctx)
		}
		return b.Batch, nil
	})
}

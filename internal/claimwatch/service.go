package claimwatch

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// maxPage is the most that one page of a list holds.
	maxPage = 250
	// maxNote bounds what somebody says about a finding, in characters.
	maxNote = 1024
)

// Use is what a claim was used for. Times are in UTC with milliseconds.
type Use struct {
	// ClaimID is the id of its certificate.
	ClaimID     string
	First, Last time.Time
	// Provisioned and Refused count devices' requests; of one that is refused again
	// and again, one a minute counts.
	Provisioned, Refused int64
	// Networks are at most 64, the first ones; Forgotten counts requests from others.
	Networks  []Network
	Forgotten int64
	// Findings are at most ten of a kind; the last takes what more there is.
	Findings []Finding
}

// Network is a network from which a claim was used: /24 of IPv4, /48 of IPv6.
type Network struct {
	Network              string
	First, Last          time.Time
	Provisioned, Refused int64
}

// Finding is a way in which a claim was misused. Network, Template, CertificateID and
// Reason are of the last time.
type Finding struct {
	Kind                            event.ClaimMisuse
	Network                         string
	First, Last                     time.Time
	Times                           int64
	Template, CertificateID, Reason string
	// Settled is zero for a finding that waits for somebody.
	Settled         time.Time
	SettledBy, Note string
}

// Options of New.
type Options struct {
	Store store.Store
	Now   func() time.Time
	// Registerer may be nil.
	Registerer prometheus.Registerer
}

// Service keeps the uses of claims. It is safe for concurrent use.
type Service struct {
	o      Options
	misuse *prometheus.CounterVec
}

// New returns a service.
func New(o Options) *Service {
	s := &Service{o: o, misuse: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "muster_claim_misuse_total", Help: "Uses of provisioning claims that were not meant.",
	}, []string{"kind"})}
	if o.Registerer != nil {
		o.Registerer.MustRegister(s.misuse)
	}
	return s
}

// Use returns that of one claim.
func (s *Service) Use(ctx context.Context, account fleet.Account, claim string) (Use, error) {
	r, version, err := read(ctx, s.o.Store, useKey(account, claim))
	if err == nil && version == 0 {
		err = notUsed(claim)
	}
	return useOf(claim, &r), err
}

func notUsed(claim string) error {
	return fault.New(fault.ResourceNotFound, "certificate %.64q was not used as a claim", claim)
}

// Uses returns a page in the order of ids, and what the next one begins after. With
// misused it has claims only that have findings which nobody has settled.
func (s *Service) Uses(ctx context.Context, account fleet.Account, misused bool, after string, limit int) (page []Use, next string, err error) {
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	kind := kindUse
	if misused {
		kind = kindFinding
	}
	within := store.Under(kind, string(account))
	if after != "" {
		within = within.After(store.K(kind, string(account), after))
	}
	var keys []store.Key
	err = s.o.Store.Scan(ctx, within, func(found store.Record) error {
		if len(keys) == limit {
			next = keys[limit-1].Last()
			return store.Stop
		}
		keys = append(keys, useKey(account, found.Key.Last()))
		return nil
	})
	if err != nil {
		return nil, "", store.Fault(err)
	}
	page = []Use{}
	if len(keys) == 0 {
		return page, "", nil
	}
	found, err := s.o.Store.GetMany(ctx, keys)
	if err != nil {
		return nil, "", store.Fault(err)
	}
	for i, row := range found {
		if row.Version == 0 {
			continue // it went meanwhile
		}
		var r record
		if err := json.Unmarshal(row.Value, &r); err != nil {
			return nil, "", fmt.Errorf("decode record %s: %w", keys[i], err)
		}
		page = append(page, useOf(keys[i].Last(), &r))
	}
	return page, next, nil
}

// Settle says that the open findings of a claim are known, and what was found out.
// Networks that they name belong to the claim from then on. The same misuse again
// makes the finding open again.
func (s *Service) Settle(ctx context.Context, account fleet.Account, claim, note string) (Use, error) {
	if note == "" || utf8.RuneCountInString(note) > maxNote {
		return Use{}, fault.New(fault.InvalidRequest, "note must have 1 to %d characters", maxNote)
	}
	var after Use
	err := store.Attempt(ctx, s.o.Store, func(ctx context.Context) (store.Batch, error) {
		r, version, err := read(ctx, s.o.Store, useKey(account, claim))
		if err != nil {
			return store.Batch{}, err
		}
		if version == 0 {
			return store.Batch{}, notUsed(claim)
		}
		if !r.open() {
			return store.Batch{}, fault.New(fault.Conflict, "no finding of claim %s waits to be settled", claim)
		}
		now, by := s.o.Now(), fleet.ActorFrom(ctx)
		for i := range r.Findings {
			if f := &r.Findings[i]; f.SettledAt == 0 {
				f.SettledAt, f.SettledBy, f.Note = now.UnixMilli(), by.Principal.ID, note
			}
		}
		after = useOf(claim, &r)
		b := store.Batch{Expect: []store.Expect{{Key: useKey(account, claim), Version: version}}}
		b.Events = []event.Envelope{{Account: account, At: now, Actor: by, Event: event.ClaimMisuseSettled{ClaimID: claim, Note: note}}}
		return b, r.write(&b, account, claim)
	})
	return after, err
}

// write adds a record and its row to a batch.
func (r *record) write(b *store.Batch, account fleet.Account, claim string) error {
	r.Schema = schemaVersion
	value, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the use of claim %s: %w", claim, err)
	}
	row := store.Write{Key: findingKey(account, claim), Value: []byte(plainRow)}
	if !r.open() {
		row = store.Write{Key: row.Key, Delete: true}
	}
	b.Writes = append(b.Writes, store.Write{Key: useKey(account, claim), Value: value}, row)
	return nil
}

func useOf(claim string, r *record) Use {
	u := Use{
		ClaimID: claim, First: moment(r.First), Last: moment(r.Last), Provisioned: r.Provisioned, Refused: r.Refused,
		Networks: make([]Network, len(r.Networks)), Forgotten: r.Forgotten, Findings: make([]Finding, len(r.Findings)),
	}
	for i, n := range r.Networks {
		u.Networks[i] = Network{Network: n.Network, First: moment(n.First), Last: moment(n.Last), Provisioned: n.Provisioned, Refused: n.Refused}
	}
	for i, f := range r.Findings {
		u.Findings[i] = Finding{
			Kind: f.Kind, Network: f.Network, First: moment(f.First), Last: moment(f.Last), Times: f.Times,
			Template: f.Template, CertificateID: f.Certificate, Reason: f.Reason, SettledBy: f.SettledBy, Note: f.Note,
		}
		if f.SettledAt != 0 {
			u.Findings[i].Settled = moment(f.SettledAt)
		}
	}
	return u
}

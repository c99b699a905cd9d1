package claimwatch

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// maxNetworks bounds the networks of a record, maxFindings its findings of a kind.
	maxNetworks = 64
	maxFindings = 10
	// raiseEvery is how often the same misuse is told while nobody settles it.
	raiseEvery = time.Hour
	// Networks are told apart by so many bits.
	bits4, bits6 = 24, 48
	// maxReason bounds what is kept of a refusal, in bytes.
	maxReason = 512
)

// Apply counts what the event log tells of claims: it is a durable consumer.
func (s *Service) Apply(ctx context.Context, events []event.Envelope) (store.Batch, error) {
	f := &follower{s: s, uses: map[store.Key]*use{}}
	for i := range events {
		if err := f.apply(ctx, &events[i]); err != nil {
			return store.Batch{}, err
		}
	}
	return f.batch()
}

// follower is one batch of events; uses are the records that they touch, in order.
type follower struct {
	s      *Service
	uses   map[store.Key]*use
	order  []*use
	raised []event.Envelope
}

// use is the record of a claim in a batch.
type use struct {
	account fleet.Account
	claim   string
	record  record
	version uint64
	gone    bool
}

func (f *follower) load(ctx context.Context, account fleet.Account, claim string) (*use, error) {
	k := useKey(account, claim)
	if u := f.uses[k]; u != nil {
		return u, nil
	}
	r, version, err := read(ctx, f.s.o.Store, k)
	if err != nil {
		return nil, err
	}
	u := &use{account: account, claim: claim, record: r, version: version}
	f.uses[k] = u
	f.order = append(f.order, u)
	return u, nil
}

func (f *follower) apply(ctx context.Context, env *event.Envelope) error {
	switch e := env.Event.(type) {
	case event.DeviceProvisioned:
		// A claim of a trusted user is for one device and five minutes.
		if e.ClaimID == "" || e.Method != event.ProvisioningClaim {
			return nil
		}
		return f.used(ctx, env, &request{claim: e.ClaimID, template: e.Template, certificate: e.CertificateID, reason: "the claim was not used from this network before"})
	case event.ProvisioningRefused:
		if e.ClaimID == "" || e.Method != event.ProvisioningClaim && e.Misuse == "" {
			return nil
		}
		return f.used(ctx, env, &request{
			claim: e.ClaimID, template: e.Template, certificate: e.CertificateID, reason: clip(e.Reason), refused: true, misuse: e.Misuse,
		})
	case event.CertificateDeleted:
		u, err := f.load(ctx, env.Account, e.CertificateID)
		if err != nil {
			return err
		}
		u.gone, u.record = true, record{}
	default:
		// The rest is not about claims.
	}
	return nil
}

// request is one use of a claim.
type request struct {
	claim, template, certificate, reason string
	refused                              bool
	misuse                               event.ClaimMisuse
}

// used counts a request.
func (f *follower) used(ctx context.Context, env *event.Envelope, q *request) error {
	u, err := f.load(ctx, env.Account, q.claim)
	if err != nil {
		return err
	}
	r, at := &u.record, env.At.UnixMilli()
	u.gone = false
	if r.First == 0 {
		r.First = at
	}
	r.Last = max(r.Last, at)
	network := networkOf(env.Actor.SourceAddress)
	strange := r.count(network, at, q.refused)
	if known := r.finding(event.ClaimOtherNetwork, network); known != nil && known.Network == network && known.SettledAt == 0 {
		strange = true
	}
	kind := q.misuse
	if kind == "" && strange {
		kind = event.ClaimOtherNetwork
	}
	if kind != "" {
		f.find(env, u, findingRecord{Kind: kind, Network: network, Template: q.template, Certificate: q.certificate, Reason: q.reason})
	}
	return nil
}

// count adds a request to its network, and reports whether the claim was used before
// and never from there.
func (r *record) count(network string, at int64, refused bool) (strange bool) {
	add := func(provisioned, refusals *int64) {
		if refused {
			*refusals++
		} else {
			*provisioned++
		}
	}
	add(&r.Provisioned, &r.Refused)
	if network == "" {
		return false
	}
	for i := range r.Networks {
		if n := &r.Networks[i]; n.Network == network {
			n.Last = max(n.Last, at)
			add(&n.Provisioned, &n.Refused)
			return false
		}
	}
	strange = len(r.Networks) > 0
	if len(r.Networks) == maxNetworks {
		r.Forgotten++
		return strange
	}
	n := networkRecord{Network: network, First: at, Last: at}
	add(&n.Provisioned, &n.Refused)
	r.Networks = append(r.Networks, n)
	return strange
}

// find keeps a misuse, and raises it unless that was done a moment ago.
func (f *follower) find(env *event.Envelope, u *use, found findingRecord) {
	at := env.At.UnixMilli()
	f.s.misuse.WithLabelValues(string(found.Kind)).Inc()
	known := u.record.finding(found.Kind, found.Network)
	if known == nil {
		u.record.Findings = append(u.record.Findings, findingRecord{Kind: found.Kind, First: at})
		known = &u.record.Findings[len(u.record.Findings)-1]
	}
	again := known.SettledAt == 0 && known.Raised != 0 && at-known.Raised < raiseEvery.Milliseconds()
	known.Network, known.Template, known.Certificate, known.Reason = found.Network, found.Template, found.Certificate, found.Reason
	known.Last, known.SettledAt, known.SettledBy, known.Note = max(known.Last, at), 0, "", ""
	known.Times++
	if again {
		return
	}
	known.Raised = at
	f.raised = append(f.raised, event.Envelope{Account: env.Account, At: env.At, Actor: fleet.System, Event: event.ClaimMisused{
		ClaimID: u.claim, Kind: found.Kind, Network: found.Network, Template: found.Template, CertificateID: found.Certificate, Reason: found.Reason,
	}})
}

// finding is the one for a kind of misuse from a network, nil for a new one. When a
// kind has as many as it may, the last one takes the rest.
func (r *record) finding(kind event.ClaimMisuse, network string) *findingRecord {
	var last *findingRecord
	n := 0
	for i := range r.Findings {
		if one := &r.Findings[i]; one.Kind == kind {
			if one.Network == network {
				return one
			}
			last = one
			n++
		}
	}
	if n < maxFindings {
		return nil
	}
	return last
}

// batch is what the events have changed.
func (f *follower) batch() (store.Batch, error) {
	b := store.Batch{Events: f.raised}
	for _, u := range f.order {
		k := useKey(u.account, u.claim)
		if u.gone {
			if u.version != 0 {
				b.Writes = append(b.Writes, store.Write{Key: k, Delete: true}, store.Write{Key: findingKey(u.account, u.claim), Delete: true})
			}
			continue
		}
		b.Expect = append(b.Expect, store.Expect{Key: k, Version: u.version})
		if err := u.record.write(&b, u.account, u.claim); err != nil {
			return store.Batch{}, err
		}
	}
	return b, nil
}

// networkOf is the network of an address with or without port, empty for none.
func networkOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		address = host
	}
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	ip = ip.Unmap().WithZone("")
	bits := bits6
	if ip.Is4() {
		bits = bits4
	}
	network, err := ip.Prefix(bits)
	if err != nil {
		return ""
	}
	return network.String()
}

// clip bounds a text that devices have a hand in.
func clip(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), maxReason)], "")
}

package ledger

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// book is the ledgers of all accounts in one batch: what it reads is expected as it
// was, what it changes is written by batch.
type book struct {
	s       *Service
	chains  map[fleet.Account]*chain
	devices map[place]*device
	// names are rows and records that lead to devices, certificates and authorities
	// among them; nil for none.
	names   map[store.Key]*named
	rogues  map[fleet.Account]*rogues
	written []store.Write
	expects []store.Expect
	events  []event.Envelope
	told    counted
}

// counted is what metrics learn when the batch is made.
type counted struct{ entries, devices, attempts int }

// chain is the end of an account's chain.
type chain struct {
	end     endRecord
	version uint64
	changed bool
}

// device is the end of a device's chain.
type device struct {
	deviceRecord

	at      place
	version uint64
	changed bool
}

// named is what a name leads to.
type named struct {
	key     store.Key
	version uint64
	changed bool
	deleted bool
	// device is of a thing's or an alias's row; the others are of their kinds.
	device      string
	certificate *certificateRecord
	authority   *authorityRecord
}

func (s *Service) open() *book {
	return &book{
		s: s, chains: map[fleet.Account]*chain{}, devices: map[place]*device{},
		names: map[store.Key]*named{}, rogues: map[fleet.Account]*rogues{},
	}
}

// find reads what names lead to, and the devices.
func (b *book) find(ctx context.Context, keys []store.Key) error {
	keys = slices.DeleteFunc(keys, func(k store.Key) bool { return b.names[k] != nil })
	if len(keys) == 0 {
		return nil
	}
	found, err := b.s.o.Store.GetMany(ctx, keys)
	if err != nil {
		return store.Fault(fmt.Errorf("find the ledgers of devices: %w", err))
	}
	var places []place
	for i, row := range found {
		n, err := nameOf(keys[i], row)
		if err != nil {
			// It finds a device, and is no part of what is kept: a later event writes it anew.
			b.s.o.Logger.ErrorContext(ctx, "record of the ledger cannot be read and is left out", slog.Any("err", err))
			n = &named{key: keys[i], version: row.Version}
		}
		b.names[keys[i]] = n
		if name := n.leads(); name != "" {
			places = append(places, place{fleet.Account(keys[i].Parts()[1]), name})
		}
	}
	return b.load(ctx, places)
}

// nameOf reads what a name leads to; row has no version for nothing.
func nameOf(k store.Key, row store.Record) (*named, error) {
	n := &named{key: k, version: row.Version}
	if row.Version == 0 {
		return n, nil
	}
	switch k.Parts()[0] {
	case kindCertificate:
		n.certificate = &certificateRecord{}
		return n, decode(row, n.certificate, &n.certificate.Schema)
	case kindAuthority:
		n.authority = &authorityRecord{}
		return n, decode(row, n.authority, &n.authority.Schema)
	}
	var r nameRow
	err := decode(row, &r, &r.Schema)
	n.device = r.Device
	return n, err
}

// leads is the device that the name leads to, empty for none.
func (n *named) leads() string {
	if n.certificate != nil {
		return n.certificate.Device
	}
	return n.device
}

// name is one of find.
func (b *book) name(ctx context.Context, k store.Key) (*named, error) {
	if err := b.find(ctx, []store.Key{k}); err != nil {
		return nil, err
	}
	return b.names[k], nil
}

// certificate is what is known of a certificate.
func (b *book) certificate(ctx context.Context, account fleet.Account, id string) (*named, error) {
	return b.name(ctx, certificateKey(account, id))
}

// lead lets a thing or an alias lead to a device.
func (b *book) lead(ctx context.Context, k store.Key, to string) error {
	n, err := b.name(ctx, k)
	if err == nil && n.device != to {
		n.device, n.changed = to, true
	}
	return err
}

// load reads devices that are not open yet. Nothing that is stored behind the end of
// a chain is written over: where there is something, the end is not what was
// written.
func (b *book) load(ctx context.Context, places []place) error {
	var keys []store.Key
	var of []place
	for _, at := range places {
		if b.devices[at] == nil && !slices.Contains(of, at) {
			keys, of = append(keys, at.record()), append(of, at)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	found, err := b.s.o.Store.GetMany(ctx, keys)
	if err != nil {
		return store.Fault(fmt.Errorf("read the ends of ledgers: %w", err))
	}
	next := make([]store.Key, len(of))
	problems := make([]string, len(of))
	opened := make([]*device, len(of))
	for i, row := range found {
		d := &device{at: of[i], version: row.Version}
		if row.Version != 0 {
			switch broken := json.Unmarshal(row.Value, &d.deviceRecord); {
			case broken == nil && d.Schema > schemaVersion:
				return fmt.Errorf("record %s has schema %d, this version reads %d", row.Key, d.Schema, schemaVersion)
			case broken != nil || !b.s.whole(d.at, d.deviceRecord):
				problems[i] = "its end is not sealed by this server"
			}
		} else {
			d.Hash = genesis
		}
		opened[i], next[i] = d, d.at.entry(d.Seq+1)
	}
	beyond, err := b.s.o.Store.GetMany(ctx, next)
	if err != nil {
		return store.Fault(fmt.Errorf("read the ends of ledgers: %w", err))
	}
	for i, d := range opened {
		if beyond[i].Version != 0 {
			problems[i] = "its end was removed or set back"
		}
		b.devices[d.at] = d
		if problems[i] != "" {
			if err := b.mendDevice(ctx, d, problems[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// device opens one device; one without any entry has Seq 0.
func (b *book) device(ctx context.Context, at place) (*device, error) {
	if err := b.load(ctx, []place{at}); err != nil {
		return nil, err
	}
	return b.devices[at], nil
}

// chain opens an account's chain.
func (b *book) chain(ctx context.Context, account fleet.Account) (*chain, error) {
	if c := b.chains[account]; c != nil {
		return c, nil
	}
	found, err := b.s.o.Store.GetMany(ctx, []store.Key{headKey(account)})
	if err != nil {
		return nil, store.Fault(fmt.Errorf("read the head of a ledger: %w", err))
	}
	c := &chain{end: endRecord{Hash: genesis}, version: found[0].Version}
	problem := ""
	if c.version != 0 {
		if err := json.Unmarshal(found[0].Value, &c.end); err != nil ||
			!sealsEqual(c.end.Seal, b.s.seal(sealHead, account, "", c.end.Number, c.end.Hash)) {
			problem = "its head is not sealed by this server"
		}
	}
	beyond, err := b.s.o.Store.GetMany(ctx, []store.Key{chainKey(account, c.end.Number+1)})
	if err != nil {
		return nil, store.Fault(fmt.Errorf("read the head of a ledger: %w", err))
	}
	if beyond[0].Version != 0 {
		problem = "its head was removed or set back"
	}
	b.chains[account] = c
	if problem == "" {
		return c, nil
	}
	return c, b.mendChain(ctx, account, c, problem)
}

// add makes a draft the next entry of a device and of its account.
func (b *book) add(ctx context.Context, d *device, draft Draft) error {
	c, err := b.chain(ctx, d.at.account)
	if err != nil {
		return err
	}
	if len(draft.Facts) > 0 {
		draft.Facts = maps.Clone(draft.Facts)
		maps.DeleteFunc(draft.Facts, func(_, value string) bool { return value == "" })
	}
	e := Entry{
		Schema: schemaVersion, Account: d.at.account, Device: d.at.device, Life: max(d.Life, 1), Seq: d.Seq + 1, Number: c.end.Number + 1,
		Draft: draft, PrevHash: d.Hash, ChainHash: c.end.Hash,
	}
	e.Hash = e.digest()
	value, err := e.encode()
	if err != nil {
		return err
	}
	row, err := json.Marshal(chainRow{Schema: schemaVersion, Device: e.Device, Seq: e.Seq})
	if err != nil {
		return fmt.Errorf("encode ledger row: %w", err)
	}
	for _, w := range []store.Write{{Key: d.at.entry(e.Seq), Value: value}, {Key: chainKey(e.Account, e.Number), Value: row}} {
		b.expects = append(b.expects, store.Expect{Key: w.Key})
		b.written = append(b.written, w)
	}
	d.Seq, d.Hash, d.changed = e.Seq, e.Hash, true
	c.end.Number, c.end.Hash, c.changed = e.Number, e.Hash, true
	b.told.entries++
	return nil
}

// sealRecord completes the end of a device's chain.
func (s *Service) sealRecord(at place, r *deviceRecord) error {
	r.Schema, r.Seal = schemaVersion, ""
	value, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the end of a ledger: %w", err)
	}
	r.Seal = s.seal(sealDevice, at.account, at.device, r.Seq, string(value))
	return nil
}

// whole reports whether a record is as this server has sealed it.
func (s *Service) whole(at place, r deviceRecord) bool {
	seal, schema := r.Seal, r.Schema
	return schema == schemaVersion && s.sealRecord(at, &r) == nil && sealsEqual(seal, r.Seal)
}

// batch is what the book comes to.
func (b *book) batch(ctx context.Context) (store.Batch, error) {
	out := store.Batch{Expect: b.expects, Writes: b.written, Events: b.events}
	for _, k := range slices.Sorted(maps.Keys(b.names)) {
		if n := b.names[k]; n.changed {
			if err := n.write(&out); err != nil {
				return store.Batch{}, err
			}
		}
	}
	for _, at := range slices.SortedFunc(maps.Keys(b.devices), comparePlaces) {
		d := b.devices[at]
		if !d.changed {
			continue
		}
		if err := b.s.sealRecord(at, &d.deviceRecord); err != nil {
			return store.Batch{}, err
		}
		out.Expect = append(out.Expect, store.Expect{Key: at.record(), Version: d.version})
		if err := put(&out, at.record(), &d.deviceRecord); err != nil {
			return store.Batch{}, err
		}
	}
	for _, account := range slices.Sorted(maps.Keys(b.chains)) {
		c := b.chains[account]
		if !c.changed {
			continue
		}
		c.end.Schema, c.end.At = schemaVersion, b.s.o.Now().UnixMilli()
		c.end.Seal = b.s.seal(sealHead, account, "", c.end.Number, c.end.Hash)
		out.Expect = append(out.Expect, store.Expect{Key: headKey(account), Version: c.version})
		if err := put(&out, headKey(account), &c.end); err != nil {
			return store.Batch{}, err
		}
	}
	for _, account := range slices.Sorted(maps.Keys(b.rogues)) {
		if err := b.rogues[account].write(ctx, &out); err != nil {
			return store.Batch{}, err
		}
	}
	return out, nil
}

func comparePlaces(a, b place) int {
	return cmp.Or(cmp.Compare(a.account, b.account), cmp.Compare(a.device, b.device))
}

// write adds what the name leads to.
func (n *named) write(out *store.Batch) error {
	out.Expect = append(out.Expect, store.Expect{Key: n.key, Version: n.version})
	switch {
	case n.deleted:
		out.Writes = append(out.Writes, store.Write{Key: n.key, Delete: true})
		return nil
	case n.certificate != nil:
		n.certificate.Schema = schemaVersion
		return put(out, n.key, n.certificate)
	case n.authority != nil:
		n.authority.Schema = schemaVersion
		return put(out, n.key, n.authority)
	}
	return put(out, n.key, nameRow{Schema: schemaVersion, Device: n.device})
}

// mendDevice carries a device's chain on behind what is stored, and says so in it:
// what somebody else wrote is not carried on as if it were ours.
func (b *book) mendDevice(ctx context.Context, d *device, problem string) error {
	claimed := d.Seq
	d.deviceRecord = deviceRecord{Hash: genesis}
	err := b.s.o.Store.Scan(ctx, store.Under(kindEntry, string(d.at.account), d.at.device), func(row store.Record) error {
		if seq, ok := parseNumber(row.Key.Last()); ok && seq > d.Seq {
			d.recall(row.Value)
			d.Seq, d.Hash = seq, claimedHash(row.Value)
		}
		return nil
	})
	if err != nil {
		return store.Fault(fmt.Errorf("find the end of the ledger of %s: %w", d.at.device, err))
	}
	if d.Registered != 0 && !d.Rogue {
		// What spoke for it was in the record.
		d.speak(Evidence{Basis: ByAge, Ref: "device " + d.at.device, Detail: "its record was mended; its entries tell what spoke for it"})
	}
	return b.mended(ctx, d, problem, claimed, d.Seq)
}

// recall brings back what the record of a device's end said, as far as an entry tells.
func (r *deviceRecord) recall(value []byte) {
	var e Entry
	if json.Unmarshal(value, &e) != nil {
		return
	}
	if e.Life > r.Life {
		*r = deviceRecord{Life: e.Life, Begun: e.At}
	}
	if thing := e.Facts["thing"]; thing != "" {
		r.Thing = thing
	}
	switch e.What { //nolint:exhaustive // the others leave nothing that a later event asks for
	case Registered, Found:
		r.Registered = e.At
	case Activated:
		r.Activated, r.Certificate = e.At, e.Facts["certificate"]
	case Suspended:
		r.Suspended = true
	case Resumed:
		r.Suspended = false
	case Decommissioned, Continued:
		r.Ended = e.At
	case Raised:
		r.Rogue = true
	}
}

// mendChain is mendDevice for an account's chain.
func (b *book) mendChain(ctx context.Context, account fleet.Account, c *chain, problem string) error {
	claimed := c.end.Number
	c.end = endRecord{Hash: genesis}
	last := chainRow{}
	err := b.s.o.Store.Scan(ctx, store.Under(kindChain, string(account)), func(row store.Record) error {
		if n, ok := parseNumber(row.Key.Last()); ok {
			c.end.Number, last = n, chainRow{}
			_ = json.Unmarshal(row.Value, &last) // one that cannot be read leads to no entry
		}
		return nil
	})
	if err != nil {
		return store.Fault(fmt.Errorf("find the end of the ledger: %w", err))
	}
	found, err := b.s.o.Store.GetMany(ctx, []store.Key{place{account, last.Device}.entry(last.Seq)})
	if err != nil {
		return store.Fault(fmt.Errorf("find the end of the ledger: %w", err))
	}
	if found[0].Version != 0 {
		c.end.Hash = claimedHash(found[0].Value)
	}
	d, err := b.device(ctx, place{account, ledgerItself})
	if err != nil {
		return err
	}
	return b.mended(ctx, d, problem, claimed, c.end.Number)
}

func (b *book) mended(ctx context.Context, d *device, problem string, claimed, behind uint64) error {
	b.s.o.Logger.ErrorContext(ctx, "end of a ledger is not what was written; run muster ledger verify",
		slog.String("account", string(d.at.account)), slog.String("device", d.at.device), slog.String("reason", problem))
	return b.add(ctx, d, Draft{
		At: b.s.o.Now().UnixMilli(), What: Mended, Principal: fleet.System.Principal,
		Facts: map[string]string{"reason": problem, "endSaid": strconv.FormatUint(claimed, 10), "continuedBehind": strconv.FormatUint(behind, 10)},
	})
}

// claimedHash is the hash that a stored entry says to have.
func claimedHash(value []byte) string {
	var e Entry
	if json.Unmarshal(value, &e) != nil || e.Hash == "" {
		return genesis
	}
	return e.Hash
}

package ledger

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/muster-iot/muster/internal/store"
)

// raw is everything of the ledger in a store.
func (r *rig) raw(kind string) []store.Record {
	r.tb.Helper()
	var all []store.Record
	r.need(r.store.Scan(r.tb.Context(), store.Under(kind, string(acct)), func(row store.Record) error {
		all = append(all, row)
		return nil
	}))
	return all
}

// write changes the store behind the ledger's back.
func (r *rig) write(writes ...store.Write) {
	r.tb.Helper()
	_, err := r.store.Store.Commit(r.tb.Context(), store.Batch{Writes: writes})
	r.need(err)
}

// forge makes an entry anew, with a hash that fits.
func forge(value []byte, change func(*Entry)) []byte {
	var e Entry
	if err := json.Unmarshal(value, &e); err != nil {
		panic(err)
	}
	change(&e)
	e.Hash = e.digest()
	out, err := e.encode()
	if err != nil {
		panic(err)
	}
	return out
}

// tampering is a way to change a ledger. It returns what it did, and whether it did
// something; elsewhere says that only Verify can find it, which looks at more than one
// device.
type tampering struct {
	name      string
	elsewhere bool
	do        func(r *rig, rnd *rand.Rand) (device string)
}

func tamperings() []tampering {
	pick := func(r *rig, rnd *rand.Rand, kind string) store.Record {
		all := r.raw(kind)
		return all[rnd.IntN(len(all))]
	}
	deviceIn := func(k store.Key) string { return k.Parts()[2] }
	return []tampering{
		{name: "a byte of an entry", do: func(r *rig, rnd *rand.Rand) string {
			row := pick(r, rnd, kindEntry)
			value := slices.Clone(row.Value)
			value[rnd.IntN(len(value))] ^= byte(1 + rnd.IntN(127))
			r.write(store.Write{Key: row.Key, Value: value})
			return deviceIn(row.Key)
		}},
		{name: "a member more", do: func(r *rig, rnd *rand.Rand) string {
			row := pick(r, rnd, kindEntry)
			r.write(store.Write{Key: row.Key, Value: append([]byte(`{"note":"vetted",`), row.Value[1:]...)})
			return deviceIn(row.Key)
		}},
		{name: "an entry with its hash", do: func(r *rig, rnd *rand.Rand) string {
			row := pick(r, rnd, kindEntry)
			r.write(store.Write{Key: row.Key, Value: forge(row.Value, func(e *Entry) { e.Principal.ID = "somebody else" })})
			return deviceIn(row.Key)
		}},
		{name: "an entry removed", do: func(r *rig, rnd *rand.Rand) string {
			row := pick(r, rnd, kindEntry)
			r.write(store.Write{Key: row.Key, Delete: true})
			return deviceIn(row.Key)
		}},
		{name: "two entries exchanged", do: func(r *rig, rnd *rand.Rand) string {
			a, b := pick(r, rnd, kindEntry), pick(r, rnd, kindEntry)
			if a.Key == b.Key {
				return ""
			}
			r.write(store.Write{Key: a.Key, Value: b.Value}, store.Write{Key: b.Key, Value: a.Value})
			return deviceIn(a.Key)
		}},
		{name: "an entry put in at the end of a device", do: func(r *rig, rnd *rand.Rand) string {
			row := pick(r, rnd, kindDevice)
			var d deviceRecord
			r.need(json.Unmarshal(row.Value, &d))
			at := place{acct, row.Key.Last()}
			last, err := r.store.Get(r.tb.Context(), at.entry(d.Seq))
			r.need(err)
			r.write(store.Write{Key: at.entry(d.Seq + 1), Value: forge(last.Value, func(e *Entry) { e.Seq, e.PrevHash, e.Number = d.Seq+1, d.Hash, e.Number+1 })})
			return at.device
		}},
		{name: "an entry put in between", do: func(r *rig, rnd *rand.Rand) string {
			row := pick(r, rnd, kindEntry)
			device := deviceIn(row.Key)
			var writes []store.Write
			prev := ""
			for _, each := range r.raw(kindEntry) {
				if deviceIn(each.Key) != device || each.Key < row.Key {
					continue
				}
				if each.Key == row.Key {
					again := forge(each.Value, func(e *Entry) { e.At++ })
					writes = append(writes, store.Write{Key: each.Key, Value: again})
					prev = claimedHash(again)
				}
				var next uint64
				moved := forge(each.Value, func(e *Entry) { e.Seq++; e.PrevHash = prev; next = e.Seq })
				prev = claimedHash(moved)
				writes = append(writes, store.Write{Key: place{acct, device}.entry(next), Value: moved})
			}
			r.write(writes...)
			return device
		}},
		{name: "the end of a device cut off", do: func(r *rig, rnd *rand.Rand) string {
			row := pick(r, rnd, kindDevice)
			var d deviceRecord
			r.need(json.Unmarshal(row.Value, &d))
			r.write(store.Write{Key: place{acct, row.Key.Last()}.entry(d.Seq), Delete: true})
			return row.Key.Last()
		}},
		{name: "the end of a device cut off, its record set back without the secret", do: func(r *rig, rnd *rand.Rand) string {
			row := pick(r, rnd, kindDevice)
			var d deviceRecord
			r.need(json.Unmarshal(row.Value, &d))
			at := place{acct, row.Key.Last()}
			writes := []store.Write{{Key: at.entry(d.Seq), Delete: true}, {Key: row.Key, Delete: true}}
			if d.Seq > 1 {
				before, err := r.store.Get(r.tb.Context(), at.entry(d.Seq-1))
				r.need(err)
				d.Seq, d.Hash = d.Seq-1, claimedHash(before.Value)
				value, err := json.Marshal(d)
				r.need(err)
				writes[1] = store.Write{Key: row.Key, Value: value}
			}
			r.write(writes...)
			if d.Seq == 1 && len(writes) > 0 && writes[1].Delete {
				return "" // nothing of the device is left to look at
			}
			return at.device
		}},
		{name: "the end of a device cut off with its sealed record of before", elsewhere: true, do: func(r *rig, rnd *rand.Rand) string {
			row := pick(r, rnd, kindDevice)
			var d deviceRecord
			r.need(json.Unmarshal(row.Value, &d))
			at := place{acct, row.Key.Last()}
			if d.Seq < 2 {
				r.write(store.Write{Key: at.entry(1), Delete: true}, store.Write{Key: row.Key, Delete: true})
				return at.device
			}
			before, err := r.store.Get(r.tb.Context(), at.entry(d.Seq-1))
			r.need(err)
			d.Seq, d.Hash = d.Seq-1, claimedHash(before.Value)
			r.need(r.sealRecord(at, &d)) // as it was stored once
			value, err := json.Marshal(d)
			r.need(err)
			r.write(store.Write{Key: at.entry(d.Seq + 1), Delete: true}, store.Write{Key: row.Key, Value: value})
			return at.device
		}},
		{name: "the record of a device removed", do: func(r *rig, rnd *rand.Rand) string {
			row := pick(r, rnd, kindDevice)
			r.write(store.Write{Key: row.Key, Delete: true})
			return ""
		}},
		{name: "a device removed with all that is its own", elsewhere: true, do: func(r *rig, rnd *rand.Rand) string {
			row := pick(r, rnd, kindDevice)
			writes := []store.Write{{Key: row.Key, Delete: true}}
			for _, each := range r.raw(kindEntry) {
				if deviceIn(each.Key) == row.Key.Last() {
					writes = append(writes, store.Write{Key: each.Key, Delete: true})
				}
			}
			r.write(writes...)
			return row.Key.Last()
		}},
		{name: "the entries of a device removed", do: func(r *rig, rnd *rand.Rand) string {
			device := pick(r, rnd, kindDevice).Key.Last()
			var writes []store.Write
			for _, each := range r.raw(kindEntry) {
				if deviceIn(each.Key) == device {
					writes = append(writes, store.Write{Key: each.Key, Delete: true})
				}
			}
			r.write(writes...)
			return device
		}},
		{name: "a record of a device that says something else", do: func(r *rig, rnd *rand.Rand) string {
			row := pick(r, rnd, kindDevice)
			var d deviceRecord
			r.need(json.Unmarshal(row.Value, &d))
			d.Rogue = !d.Rogue
			value, err := json.Marshal(d)
			r.need(err)
			r.write(store.Write{Key: row.Key, Value: value})
			return row.Key.Last()
		}},
		{name: "a row of the account's chain removed", do: func(r *rig, rnd *rand.Rand) string {
			row := pick(r, rnd, kindChain)
			r.write(store.Write{Key: row.Key, Delete: true})
			return ""
		}},
		{name: "a row of the account's chain changed", do: func(r *rig, rnd *rand.Rand) string {
			row := pick(r, rnd, kindChain)
			var to chainRow
			r.need(json.Unmarshal(row.Value, &to))
			to.Seq++
			value, err := json.Marshal(to)
			r.need(err)
			r.write(store.Write{Key: row.Key, Value: value})
			return ""
		}},
		{name: "a row put behind the end", do: func(r *rig, rnd *rand.Rand) string {
			all := r.raw(kindChain)
			r.write(store.Write{Key: chainKey(acct, uint64(len(all)+1)), Value: all[rnd.IntN(len(all))].Value})
			return ""
		}},
		{name: "one device written anew by who has the secret", elsewhere: true, do: func(r *rig, rnd *rand.Rand) string {
			row := pick(r, rnd, kindDevice)
			at := place{acct, row.Key.Last()}
			prev := genesis
			var writes []store.Write
			for _, each := range r.raw(kindEntry) {
				if deviceIn(each.Key) == at.device {
					value := forge(each.Value, func(e *Entry) { e.At--; e.PrevHash = prev })
					prev = claimedHash(value)
					writes = append(writes, store.Write{Key: each.Key, Value: value})
				}
			}
			r.write(append(writes, r.resealed(at, func(d *deviceRecord) { d.Hash = prev }))...)
			return at.device
		}},
		{name: "an entry put in at the end by who has the secret", do: func(r *rig, rnd *rand.Rand) string {
			row := pick(r, rnd, kindDevice)
			at := place{acct, row.Key.Last()}
			var d deviceRecord
			r.need(json.Unmarshal(row.Value, &d))
			last, err := r.store.Get(r.tb.Context(), at.entry(d.Seq))
			r.need(err)
			more := forge(last.Value, func(e *Entry) { e.Seq, e.PrevHash = d.Seq+1, d.Hash })
			r.write(store.Write{Key: at.entry(d.Seq + 1), Value: more}, r.resealed(at, func(d *deviceRecord) { d.Seq, d.Hash = d.Seq+1, claimedHash(more) }))
			return at.device
		}},
		{name: "the last entries of the account cut off by who has the secret, but not the head", elsewhere: true, do: func(r *rig, rnd *rand.Rand) string {
			chain := r.raw(kindChain)
			head, err := r.store.Get(r.tb.Context(), headKey(acct))
			r.need(err)
			r.rewrite(func(*Entry) {}, 1+rnd.IntN(min(5, len(chain)-1)))
			r.write(store.Write{Key: headKey(acct), Value: head.Value})
			return ""
		}},
		{name: "the end of a device that never was", elsewhere: true, do: func(r *rig, rnd *rand.Rand) string {
			row := pick(r, rnd, kindDevice)
			r.write(store.Write{Key: place{acct, "never"}.record(), Value: row.Value})
			return "never"
		}},
		{name: "the head removed", do: func(r *rig, _ *rand.Rand) string {
			r.write(store.Write{Key: headKey(acct), Delete: true})
			return ""
		}},
		{name: "the head sealed by somebody else", do: func(r *rig, _ *rand.Rand) string {
			found, err := r.store.Get(r.tb.Context(), headKey(acct))
			r.need(err)
			var end endRecord
			r.need(json.Unmarshal(found.Value, &end))
			end.At++
			end.Seal = end.Seal[1:] + "0"
			value, err := json.Marshal(end)
			r.need(err)
			r.write(store.Write{Key: headKey(acct), Value: value})
			return ""
		}},
	}
}

// Whatever is done to any place of any ledger is found; by a look at the one device
// as well, unless the device alone cannot show it.
func TestTamperingIsFound(t *testing.T) {
	t.Parallel()
	for _, how := range tamperings() {
		t.Run(how.name, func(t *testing.T) {
			t.Parallel()
			for n := range 12/slowdown + 1 {
				seed := uint64(n)
				rnd := rand.New(rand.NewPCG(seed, 45))
				r := newRig(t)
				newModel(r, rnd).run(60)
				r.sound()
				device := how.do(r, rnd)
				if device == "" && how.name == "two entries exchanged" {
					continue
				}
				if _, all := r.verify(); len(all) == 0 {
					t.Fatalf("seed %d: it was not found (device %q)", seed, device)
				}
				if device == "" || how.elsewhere {
					continue
				}
				var all []Finding
				if _, err := r.VerifyDevice(t.Context(), acct, device, collect(&all)); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if len(all) == 0 {
					t.Fatalf("seed %d: a look at device %s did not find it", seed, device)
				}
			}
		})
	}
}

// Who has the secret of the host, too, and rewrites everything, is found by what the
// audit trail was told and by a head that was kept, and else by nothing.
func TestRewrittenLedgerIsWitnessed(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rnd := rand.New(rand.NewPCG(1, 45))
	newModel(r, rnd).run(40)
	kept, err := r.Head(t.Context(), acct)
	r.need(err)
	parsed, err := ParseHead([]byte(fmt.Sprintf(`{"account":"%s","entries":%d,"hash":"%s"}`, acct, kept.Entries, kept.Hash)))
	r.need(err)
	if _, all := r.verify(parsed); len(all) > 0 {
		t.Fatalf("findings: %+v", all)
	}
	r.rewrite(func(e *Entry) { e.At++ }, 0)
	if _, all := r.verify(); len(all) > 0 {
		t.Fatalf("the rewritten ledger is not consistent, so the test shows nothing: %+v", all)
	}
	defer func() {
		// The same for a ledger that was cut off.
		r.rewrite(func(*Entry) {}, 4)
		r.told = nil
		if _, all := r.verify(); len(all) > 0 {
			t.Errorf("the ledger that was cut off is not consistent, so the test shows nothing: %+v", all)
		}
		if _, all := r.verify(parsed); len(all) != 1 || all[0].Problem != Truncated {
			t.Errorf("cut off, with the head that was kept: %+v", all)
		}
	}()
	if _, all := r.verify(parsed); len(all) != 1 || all[0].Problem != Changed || all[0].Number != kept.Entries {
		t.Errorf("with the head that was kept: %+v", all)
	}
	r.told = []Head{{Account: acct, Entries: 3, Hash: kept.Hash}, {Account: acct, Entries: kept.Entries + 5, Hash: kept.Hash}}
	if _, all := r.verify(); len(all) != 2 || all[0].Problem != Changed || all[1].Problem != Truncated {
		t.Errorf("with what the audit trail knows: %+v", all)
	}
}

// rewrite makes the whole ledger anew as who has the secret could, and leaves out
// entries at the end.
func (r *rig) rewrite(change func(*Entry), cut int) {
	r.tb.Helper()
	chain := r.raw(kindChain)
	hashes, seqs := map[string]string{}, map[string]uint64{}
	last := genesis
	var writes []store.Write
	for n, row := range chain {
		var to chainRow
		r.need(json.Unmarshal(row.Value, &to))
		at := place{acct, to.Device}
		if n >= len(chain)-cut {
			writes = append(writes, store.Write{Key: row.Key, Delete: true}, store.Write{Key: at.entry(to.Seq), Delete: true})
			continue
		}
		found, err := r.store.Get(r.tb.Context(), at.entry(to.Seq))
		r.need(err)
		if hashes[to.Device] == "" {
			hashes[to.Device] = genesis
		}
		value := forge(found.Value, func(e *Entry) {
			change(e)
			e.PrevHash, e.ChainHash = hashes[to.Device], last
		})
		last = claimedHash(value)
		hashes[to.Device], seqs[to.Device] = last, to.Seq
		writes = append(writes, store.Write{Key: at.entry(to.Seq), Value: value})
	}
	for _, row := range r.raw(kindDevice) {
		device := row.Key.Last()
		if seqs[device] == 0 {
			writes = append(writes, store.Write{Key: row.Key, Delete: true})
			continue
		}
		writes = append(writes, r.resealed(place{acct, device}, func(d *deviceRecord) { d.Seq, d.Hash = seqs[device], hashes[device] }))
	}
	end := endRecord{Schema: schemaVersion, Number: uint64(len(chain) - cut), Hash: last}
	end.Seal = r.seal(sealHead, acct, "", end.Number, end.Hash)
	value, err := json.Marshal(end)
	r.need(err)
	r.write(append(writes, store.Write{Key: headKey(acct), Value: value})...)
}

// resealed is the record of a device's end, changed by who has the secret.
func (r *rig) resealed(at place, change func(*deviceRecord)) store.Write {
	r.tb.Helper()
	found, err := r.store.Get(r.tb.Context(), at.record())
	r.need(err)
	var d deviceRecord
	r.need(json.Unmarshal(found.Value, &d))
	change(&d)
	r.need(r.sealRecord(at, &d))
	value, err := json.Marshal(d)
	r.need(err)
	return store.Write{Key: at.record(), Value: value}
}

// A ledger whose ends were tampered with goes on behind what is stored, says so, and
// does not write over anything.
func TestTamperedEndsAreMended(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{kindDevice, kindHead} {
		for _, how := range []string{"removed", "another seal", "no JSON"} {
			r := newRig(t)
			r.happens(ada, certificate("c1", "ACTIVE"))
			r.happens(ada, thing("pump-7"), attach("pump-7", "c1"))
			key := headKey(acct)
			if kind == kindDevice {
				key = place{acct, "pump-7"}.record()
			}
			found, err := r.store.Get(t.Context(), key)
			r.need(err)
			w := store.Write{Key: key, Delete: how == "removed", Value: []byte("no JSON")}
			if how == "another seal" {
				w.Value = []byte(tweak(string(found.Value)))
			}
			r.write(w)
			before := r.entriesRaw("pump-7")
			r.happens(holder("c1"), connect("c1", "pump-7"))
			after := r.entriesRaw("pump-7")
			wantEqual(t, after[:len(before)], before)
			where := ledgerItself
			if kind == kindDevice {
				where = "pump-7"
			}
			entries, _, err := r.Entries(t.Context(), acct, where, 0, 100)
			r.need(err)
			if !slices.ContainsFunc(entries, func(e Entry) bool { return e.What == Mended }) {
				t.Errorf("%s, %s: it does not say that it was mended: %v", kind, how, entries)
			}
			wantEqual(t, r.whats("pump-7")[len(r.whats("pump-7"))-1], Activated)
			r.sound()
		}
	}
}

// tweak spoils a seal.
func tweak(text string) string {
	var m map[string]any
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		panic(err)
	}
	m["seal"] = genesis
	out, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(out)
}

// entriesRaw are the stored entries of a device, as text.
func (r *rig) entriesRaw(device string) []string {
	r.tb.Helper()
	var all []string
	for _, row := range r.raw(kindEntry) {
		if row.Key.Parts()[2] == device {
			all = append(all, string(row.Value))
		}
	}
	return all
}

package index

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/fleetquery"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// snapshotMagic begins every snapshot; its end is the version of the format.
	snapshotMagic = "MUSTER INDEX 02\n"
	// sectionHead is kind, length and checksum of a section.
	sectionHead = 1 + 8 + 4
	// maxSection bounds one section.
	maxSection = 1 << 32
)

// Kinds of sections, in the order in which they come.
const (
	sectionHeader   = 'H' // snapshotHeader, once
	sectionAccount  = 'A' // snapshotAccount: what follows is the account's
	sectionNames    = 'N' // names of a corpus: first things, then groups
	sectionField    = 'F' // a field of the corpus before
	sectionDirect   = 'D' // static and billing groups of things
	sectionStanding = 'S' // dynamic groups and who fits them
	sectionEnd      = 'E' // how many sections came before, once
)

// snapshotTable is for checksums.
var snapshotTable = crc32.MakeTable(crc32.Castagnoli) //nolint:gochecknoglobals // a constant that Go has no literal for

// Proof ties a snapshot to the event log that it follows: the last event's place
// and a hash of it. Another history with the same numbers has another one.
type Proof struct {
	Cursor string `json:"cursor"`
	Hash   string `json:"hash"`
}

// snapshotHeader is the first section.
type snapshotHeader struct {
	Proof   Proof     `json:"proof"`
	Written time.Time `json:"written"`
	// Rules are those that the content was made by.
	Rules json.RawMessage `json:"rules"`
}

// snapshotRules are what an index is made by and no event tells of. Under others
// a build would make another one of the same fleet.
type snapshotRules struct {
	// Program reads queries and documents; another version may read them otherwise.
	Program    string `json:"program"`
	GroupLimit int    `json:"groupLimit"`
	MaxPaths   int    `json:"maxPaths"`
	// Default is what is indexed of accounts without a configuration of their own.
	Default fleet.Indexing `json:"default"`
}

// rules are those of this index, as its snapshots have them.
func (x *Index) rules() (json.RawMessage, error) {
	o := &x.options
	rules, err := json.Marshal(snapshotRules{Program: o.Program, GroupLimit: o.GroupLimit, MaxPaths: o.MaxPaths, Default: o.Indexing})
	if err != nil {
		return nil, fmt.Errorf("encode the rules of the index: %w", err)
	}
	return rules, nil
}

// snapshotAccount begins the sections of an account.
type snapshotAccount struct {
	Account fleet.Account  `json:"account"`
	Config  fleet.Indexing `json:"config"`
	// Dropped are the counts of values left out, of things and of groups.
	Dropped [2]uint64 `json:"dropped"`
}

// snapshotGroup is a dynamic group; its place in the list is its number.
type snapshotGroup struct {
	Name  string `json:"name,omitempty"`
	Query string `json:"query,omitempty"`
	Born  int64  `json:"born,omitempty"`
	// Unread says that the query could not be read, so that nothing fits.
	Unread bool `json:"unread,omitempty"`
}

// ErrUnsettled is an index that has no one state to be written: it is being built,
// or a large group is being filled. Try again later.
var ErrUnsettled = errors.New("the index is being built or filled")

// WriteSnapshot writes the index to w as it is at one moment and returns how far
// it had followed the log. Searches go on meanwhile; Apply waits until it has been
// handed to w. An index that is being filled is refused with ErrUnsettled.
func (x *Index) WriteSnapshot(w io.Writer, proof func(store.Cursor) (Proof, error)) (store.Cursor, error) {
	x.following.Lock()
	defer x.following.Unlock()
	x.mu.Lock()
	shards, cursor := maps.Clone(x.shards), x.applied
	x.mu.Unlock()
	if shards == nil {
		return cursor, ErrUnsettled
	}
	for _, s := range shards {
		s.mu.RLock()
		unsettled := s.wanted != nil || len(s.standing.filling) > 0
		s.mu.RUnlock()
		if unsettled {
			return cursor, ErrUnsettled
		}
	}
	of, err := proof(cursor)
	if err != nil {
		return cursor, err
	}
	rules, err := x.rules()
	if err != nil {
		return cursor, err
	}
	out := &sectionWriter{w: bufio.NewWriterSize(w, 1<<20)}
	if _, err := out.w.WriteString(snapshotMagic); err != nil {
		return cursor, fmt.Errorf("write index snapshot: %w", err)
	}
	out.object(sectionHeader, snapshotHeader{Proof: of, Written: time.Now().UTC(), Rules: rules}) //nolint:forbidigo // for people
	for _, account := range slices.Sorted(maps.Keys(shards)) {
		out.shard(account, shards[account])
	}
	out.section(sectionEnd, appendU32(nil, out.count))
	if out.err == nil {
		out.err = out.w.Flush()
	}
	if out.err != nil {
		return cursor, fmt.Errorf("write index snapshot: %w", out.err)
	}
	return cursor, nil
}

// sectionWriter frames sections. It stops at the first error.
type sectionWriter struct {
	w     *bufio.Writer
	count int
	buf   []byte
	err   error
}

func (o *sectionWriter) section(kind byte, payload []byte) {
	if o.err != nil {
		return
	}
	head := make([]byte, 0, sectionHead)
	head = binary.LittleEndian.AppendUint64(append(head, kind), uint64(len(payload)))
	head = binary.LittleEndian.AppendUint32(head, checksum(kind, payload))
	_, err := o.w.Write(head)
	_, err2 := o.w.Write(payload)
	o.err = errors.Join(err, err2)
	o.count++
}

// checksum covers kind and payload; a wrong length makes another payload.
func checksum(kind byte, payload []byte) uint32 {
	return crc32.Update(crc32.Update(0, snapshotTable, []byte{kind}), snapshotTable, payload)
}

func (o *sectionWriter) object(kind byte, v any) {
	payload, err := json.Marshal(v)
	if err != nil && o.err == nil {
		o.err = err
	}
	o.section(kind, payload)
}

// built writes a section that build appends.
func (o *sectionWriter) built(kind byte, build func([]byte) []byte) {
	o.buf = build(o.buf[:0])
	o.section(kind, o.buf)
}

// shard writes the sections of one account.
func (o *sectionWriter) shard(account fleet.Account, s *shard) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	o.object(sectionAccount, snapshotAccount{Account: account, Config: s.config, Dropped: [2]uint64{s.things.dropped, s.groups.dropped}})
	for _, c := range []*corpus{s.things, s.groups} {
		o.built(sectionNames, func(b []byte) []byte { return appendBitmap(appendDict(b, &c.names), c.live) })
		for _, path := range slices.Sorted(maps.Keys(c.nodes)) {
			if f := c.nodes[path].field; f != nil {
				o.built(sectionField, func(b []byte) []byte { return appendField(b, path, f) })
			}
		}
	}
	o.built(sectionDirect, func(b []byte) []byte {
		return appendPacked(appendIDLists(appendDict(b, &s.groupNames), &s.direct), &s.billing.packed)
	})
	o.built(sectionStanding, s.standing.appendTo)
}

// appendTo writes the dynamic groups. Their tests follow from their queries.
func (s *standing) appendTo(b []byte) []byte {
	list := make([]snapshotGroup, len(s.groups))
	for id, g := range s.groups {
		if g != nil {
			list[id] = snapshotGroup{Name: g.name, Query: g.query, Born: g.born, Unread: g.plan == nil}
		}
	}
	text, _ := json.Marshal(list) // strings and numbers only
	b = appendString(b, string(text))
	for _, g := range s.groups {
		if g != nil {
			b = appendBitmap(appendBitmap(b, g.members), g.displaced)
		}
	}
	return appendIDLists(b, &s.eligible)
}

// snapshotReader reads sections.
type snapshotReader struct {
	r io.Reader
	// left is how many bytes there are at most.
	left  int64
	count int
}

// next reads a section into memory of its own.
func (in *snapshotReader) next() (kind byte, payload []byte, err error) {
	var head [sectionHead]byte
	if _, err := io.ReadFull(in.r, head[:]); err != nil {
		return 0, nil, fmt.Errorf("section %d: %w: %w", in.count, errSnapshot, err)
	}
	in.left -= sectionHead
	n := binary.LittleEndian.Uint64(head[1:])
	if n > maxSection || int64(n) > in.left {
		return 0, nil, fmt.Errorf("section %d: %w: %d bytes long", in.count, errSnapshot, n)
	}
	payload = make([]byte, n)
	if _, err := io.ReadFull(in.r, payload); err != nil {
		return 0, nil, fmt.Errorf("section %d: %w: %w", in.count, errSnapshot, err)
	}
	in.left -= int64(n)
	if checksum(head[0], payload) != binary.LittleEndian.Uint32(head[9:]) {
		return 0, nil, fmt.Errorf("section %d: %w: wrong checksum", in.count, errSnapshot)
	}
	in.count++
	return head[0], payload, nil
}

// ReadSnapshot puts the index of a snapshot of so many bytes in place, as Finish
// does, and returns how far it had followed the log, which must be followed from
// there. check decides whether the snapshot belongs to this log, which ends at
// head. Until Apply has come to head no membership is committed: what the index
// decided then may be durable or not, and Run compares afterwards. An error leaves
// the index as it was.
func (x *Index) ReadSnapshot(r io.Reader, size int64, head store.Cursor, check func(Proof) error) (store.Cursor, error) {
	in := &snapshotReader{r: bufio.NewReaderSize(r, 1<<20), left: size - int64(len(snapshotMagic))}
	magic := make([]byte, len(snapshotMagic))
	if _, err := io.ReadFull(in.r, magic); err != nil || !bytes.Equal(magic, []byte(snapshotMagic)) {
		return store.Cursor{}, fmt.Errorf("%w: it begins with %q", errSnapshot, magic)
	}
	header, err := readHeader(in)
	if err != nil {
		return store.Cursor{}, err
	}
	rules, err := x.rules()
	if err != nil {
		return store.Cursor{}, err
	}
	if !bytes.Equal(header.Rules, rules) {
		return store.Cursor{}, fmt.Errorf("the index snapshot was made by other rules: %.400s", header.Rules)
	}
	cursor, err := store.ParseCursor(header.Proof.Cursor)
	if err != nil {
		return store.Cursor{}, err
	}
	if err := check(header.Proof); err != nil {
		return store.Cursor{}, err
	}
	shards, err := x.readShards(in)
	if err != nil {
		return store.Cursor{}, err
	}
	x.following.Lock()
	defer x.following.Unlock()
	x.replay.begin(head)
	x.advance(func() { x.shards, x.applied = shards, cursor })
	x.outbox.replace(map[membership]decision{}, map[groupKey]string{}, cursor, func(membership) bool { return false })
	x.replay.reached(cursor)
	return cursor, nil
}

// readHeader reads the first section.
func readHeader(in *snapshotReader) (snapshotHeader, error) {
	var h snapshotHeader
	kind, payload, err := in.next()
	if err != nil {
		return h, err
	}
	if kind != sectionHeader {
		return h, fmt.Errorf("%w: it begins with section %q", errSnapshot, kind)
	}
	if err := json.Unmarshal(payload, &h); err != nil {
		return h, fmt.Errorf("%w: %w", errSnapshot, err)
	}
	return h, nil
}

// readShards reads everything behind the header. Fields are decoded side by side.
func (x *Index) readShards(in *snapshotReader) (map[fleet.Account]*shard, error) {
	shards := map[fleet.Account]*shard{}
	decoding := &errgroup.Group{}
	decoding.SetLimit(runtime.GOMAXPROCS(0))
	var loads []*shardLoad
	for {
		kind, payload, err := in.next()
		if err != nil {
			_ = decoding.Wait() // the first mistake is told
			return nil, err
		}
		if kind == sectionEnd {
			d := decoder{b: payload}
			if int(d.u32("end")) != in.count-1 || in.left != 0 {
				return nil, errors.Join(fmt.Errorf("%w: it ends early or late", errSnapshot), decoding.Wait())
			}
			break
		}
		if kind == sectionAccount {
			l := &shardLoad{}
			if err := json.Unmarshal(payload, &l.account); err != nil {
				return nil, errors.Join(fmt.Errorf("%w: %w", errSnapshot, err), decoding.Wait())
			}
			l.shard = x.newShard(l.account.Account)
			loads = append(loads, l)
			shards[l.account.Account] = l.shard
			continue
		}
		if len(loads) == 0 {
			return nil, fmt.Errorf("%w: section %q before the first account", errSnapshot, kind)
		}
		if err := loads[len(loads)-1].section(kind, payload, decoding); err != nil {
			return nil, errors.Join(err, decoding.Wait())
		}
	}
	if err := decoding.Wait(); err != nil {
		return nil, err //nolint:wrapcheck // it is an error of a section
	}
	for _, l := range loads {
		if err := l.finish(x); err != nil {
			return nil, err
		}
	}
	return shards, nil
}

// shardLoad is an account that is being read.
type shardLoad struct {
	account snapshotAccount
	shard   *shard
	// parts are the corpora so far, with the fields that belong to them.
	parts    []*corpusLoad
	direct   bool
	standing []byte
}

// corpusLoad is a corpus that is being read.
type corpusLoad struct {
	corpus *corpus
	docs   int
	fields []*loadedField
}

// loadedField is a decoded section.
type loadedField struct {
	path  string
	field *field
}

// section takes over one section or has it decoded.
func (l *shardLoad) section(kind byte, payload []byte, decoding *errgroup.Group) error {
	d := &decoder{b: payload}
	switch kind {
	case sectionNames:
		if len(l.parts) == 2 {
			return fmt.Errorf("%w: a third list of names", errSnapshot)
		}
		part := &corpusLoad{corpus: []*corpus{l.shard.things, l.shard.groups}[len(l.parts)]}
		part.corpus.names = d.dict("names")
		part.docs = len(part.corpus.names.entries)
		part.corpus.live = d.bitmap(part.docs, "names")
		l.parts = append(l.parts, part)
	case sectionField:
		if len(l.parts) == 0 {
			return fmt.Errorf("%w: a field before the names", errSnapshot)
		}
		part := l.parts[len(l.parts)-1]
		slot := &loadedField{}
		part.fields = append(part.fields, slot)
		decoding.Go(func() error {
			slot.path, slot.field = d.field(part.docs)
			return d.end()
		})
		return nil
	case sectionDirect:
		if len(l.parts) == 0 || l.direct {
			return fmt.Errorf("%w: lists of groups in the wrong place", errSnapshot)
		}
		l.direct = true
		l.shard.groupNames = d.dict("group names")
		names := len(l.shard.groupNames.entries)
		l.shard.direct = d.idLists(l.parts[0].docs, names, "static groups")
		l.shard.billing = d.ids(l.parts[0].docs, names, "billing groups")
	case sectionStanding:
		l.standing = payload
		return nil
	default:
		return fmt.Errorf("%w: section %q is not known", errSnapshot, kind)
	}
	return d.end()
}

// end reports the first mistake; bytes that are left are one.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		d.fail("end of section")
	}
	return d.err
}

// finish puts the decoded fields in their places and derives the rest.
func (l *shardLoad) finish(x *Index) error {
	if len(l.parts) != 2 || !l.direct || l.standing == nil {
		return fmt.Errorf("%w: account %s is incomplete", errSnapshot, l.account.Account)
	}
	s := l.shard
	s.configureLoaded(l.account.Config)
	for i, part := range l.parts {
		part.corpus.dropped = l.account.Dropped[i]
		for _, f := range part.fields {
			n := part.corpus.node(f.path, true)
			if n == nil || n.field != nil {
				return fmt.Errorf("%w: field %q", errSnapshot, f.path)
			}
			n.field = f.field
			if n.unfielded {
				part.corpus.open = append(part.corpus.open, n)
			}
		}
	}
	s.things.fillPlaces()
	d := &decoder{b: l.standing}
	if err := s.standing.load(d, l.parts[0].docs, func(g snapshotGroup) *plan {
		root := x.root(l.account.Account, s.config, Group{Name: g.Name, Query: g.Query})
		if root == nil {
			return nil
		}
		return s.things.compile(root, true)
	}); err != nil {
		return err
	}
	return d.end()
}

// configureLoaded sets the configuration of a shard whose fields follow.
func (s *shard) configureLoaded(config fleet.Indexing) { s.index(config) }

// load reads the dynamic groups. Those whose query cannot be read any more lose
// their members, those whose query can be read now get theirs, as in a build.
func (s *standing) load(d *decoder, docs int, compile func(snapshotGroup) *plan) error {
	var list []snapshotGroup
	if err := json.Unmarshal([]byte(d.text("dynamic groups")), &list); err != nil {
		return fmt.Errorf("%w: %w", errSnapshot, err)
	}
	s.paused = false
	s.groups = make([]*dynamicGroup, len(list))
	for id, g := range list {
		if g.Name == "" {
			s.free = append(s.free, uint32(id))
			continue
		}
		if _, twice := s.byName[g.Name]; twice {
			return fmt.Errorf("%w: group %q twice", errSnapshot, g.Name)
		}
		s.byName[g.Name] = uint32(id)
		s.folds[fleetquery.Fold(g.Name)]++
		s.groups[id] = &dynamicGroup{
			name: g.Name, folded: fleetquery.Fold(g.Name), query: g.Query, born: g.Born,
			members: d.bitmap(docs, "members"), displaced: d.bitmap(docs, "displaced"),
		}
	}
	s.eligible = d.idLists(docs, len(list), "eligible")
	s.eligible.each(func(_ uint32, ids []uint32) {
		for _, id := range ids {
			if s.groups[id] == nil {
				d.fail("eligible")
			}
		}
	})
	if d.err != nil {
		return d.err
	}
	for id, g := range s.groups {
		if g == nil {
			continue
		}
		g.plan = compile(list[id])
		if g.plan != nil {
			s.register(uint32(id))
		}
		if (g.plan == nil) != list[id].Unread {
			s.refill(uint32(id))
		}
	}
	// What a small refill decides is part of what is compared at the end of the log.
	s.toggles = s.toggles[:0]
	return nil
}

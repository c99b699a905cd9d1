package deviceauth

import (
	"container/list"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
)

const (
	// shownRefusals is what one client, or one answer, has of refusals at most.
	shownRefusals = 32
	// principalRefusals bounds a certificate's over all of its client ids, so that
	// one device under many names leaves room for the others.
	principalRefusals = 256
	// knownBytes and strangeBytes bound the refusals of registered certificates,
	// and those of everybody else, who can come in any number.
	knownBytes   = 32 << 20
	strangeBytes = 2 << 20
	// entryOverhead is what an entry takes beside its texts.
	entryOverhead = 512
	// maxDetail bounds the explanation of one refusal, in bytes.
	maxDetail = 16 << 10
	// maxName bounds a topic or client id in a refusal, in bytes.
	maxName = 512
	// reprieves bounds how many refusals that go on are passed over in the search
	// for one that gives way.
	reprieves = 64
)

// entryKey says which refusals are the same.
type entryKey struct {
	account           fleet.Account
	client, principal string
	request
}

// bookKey names all refusals of one client or one principal.
type bookKey struct {
	account fleet.Account
	client  bool
	name    string
}

// entry is a refusal with its repeats. Repeats only count: they need no lock.
type entry struct {
	count, last atomic.Int64
	// retry is when to look for a better explanation, 0 when there is none; gone
	// entries count for nothing.
	retry atomic.Int64
	gone  atomic.Bool

	key     entryKey
	first   int64
	stamp   uint64
	detail  []byte // a Refusal, as JSON
	size    int
	touched int64 // last, when the entry got its place in the order
	place   *list.Element
}

// repeat counts a refusal that is like the entry's. It reports false when the
// entry must be looked up anew.
func (e *entry) repeat(now time.Time) bool {
	retry := e.retry.Load()
	if e.gone.Load() || retry != 0 && now.UnixNano() >= retry {
		return false
	}
	e.count.Add(1)
	e.last.Store(now.UnixNano())
	return true
}

// ledger keeps refusals by client and by principal within a number of bytes.
// Each entry is in the book of its client, if it has one, and in that of its
// principal, and leaves both at once.
type ledger struct {
	maxBytes int
	evicted  atomic.Int64

	mu    sync.Mutex
	books map[bookKey][]*entry
	// order has the entry added or changed last in front.
	order *list.List
	bytes int
}

func newLedger(maxBytes int) ledger {
	return ledger{maxBytes: maxBytes, books: map[bookKey][]*entry{}, order: list.New()}
}

// booksOf names the books of an entry.
func booksOf(key *entryKey) []bookKey {
	keys := make([]bookKey, 0, 2)
	if key.client != "" {
		keys = append(keys, bookKey{account: key.account, client: true, name: key.client})
	}
	if key.principal != "" {
		keys = append(keys, bookKey{account: key.account, name: key.principal})
	}
	return keys
}

// limitOf is the number of entries that a book holds.
func limitOf(key bookKey) int {
	if key.client {
		return shownRefusals
	}
	return principalRefusals
}

// find returns the entry of a key; the ledger is locked.
func (l *ledger) find(key *entryKey) *entry {
	books := booksOf(key)
	if len(books) == 0 {
		return nil
	}
	for _, e := range l.books[books[0]] { // the other book has it as well
		if e.key == *key {
			return e
		}
	}
	return nil
}

// repeat counts a refusal that is kept already and was explained by the same
// compiled set; it returns nil for others.
func (l *ledger) repeat(key entryKey, stamp uint64, now time.Time) *entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.find(&key)
	if e == nil || e.stamp != stamp || stamp == 0 || !e.repeat(now) {
		return nil
	}
	return e
}

// add keeps a refusal, or brings a kept one up to date and counts it.
func (l *ledger) add(key entryKey, stamp uint64, now time.Time, r *Refusal) *entry {
	explained := !r.Incomplete
	detail := encode(r)
	books := booksOf(&key)
	if len(books) == 0 {
		return nil // nobody could ask for it
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.find(&key)
	if e == nil {
		e = &entry{key: key, first: now.UnixNano()}
		for _, book := range books {
			l.makeRoom(book)
			l.books[book] = append(l.books[book], e)
		}
		e.place = l.order.PushFront(e)
	} else {
		l.bytes -= e.size
		l.order.MoveToFront(e.place)
	}
	// What was explained before tells more than nothing.
	if e.detail == nil || explained || e.stamp != stamp {
		e.detail, e.stamp = detail, stamp
		e.retry.Store(0)
		if !explained {
			e.retry.Store(now.Add(denialWindow).UnixNano())
		}
	}
	e.count.Add(1)
	e.last.Store(now.UnixNano())
	e.touched = now.UnixNano()
	e.size = len(e.detail) + entryOverhead + 2*(len(key.client)+len(key.principal)) + len(key.resource)
	l.bytes += e.size
	l.shrink(e)
	return e
}

// makeRoom drops the entry of a full book that was refused longest ago.
func (l *ledger) makeRoom(book bookKey) {
	entries := l.books[book]
	if len(entries) < limitOf(book) {
		return
	}
	l.drop(slices.MinFunc(entries, func(a, b *entry) int { return int(min(max(a.last.Load()-b.last.Load(), -1), 1)) }))
}

// shrink drops entries until the rest has room, those first that were neither
// added nor repeated for longest. The newest stays.
func (l *ledger) shrink(newest *entry) {
	spared := 0
	for l.bytes > l.maxBytes && l.order.Len() > 1 {
		e, _ := l.order.Back().Value.(*entry)
		if last := e.last.Load(); e == newest || last > e.touched && spared < reprieves {
			spared++
			e.touched = last
			l.order.MoveToFront(e.place)
			continue
		}
		l.drop(e)
	}
}

// drop forgets an entry.
func (l *ledger) drop(e *entry) {
	e.gone.Store(true)
	for _, book := range booksOf(&e.key) {
		entries := l.books[book]
		if i := slices.Index(entries, e); i >= 0 {
			entries = slices.Delete(entries, i, i+1)
		}
		if len(entries) == 0 {
			delete(l.books, book)
		} else {
			l.books[book] = entries
		}
	}
	l.order.Remove(e.place)
	l.bytes -= e.size
	l.evicted.Add(1)
}

// read returns the refusals of a book, newest first, as many as are shown.
func (l *ledger) read(key bookKey) []Refusal {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := make([]Refusal, 0, len(l.books[key]))
	for _, e := range l.books[key] {
		var r Refusal
		if err := json.Unmarshal(e.detail, &r); err != nil {
			r.Reason = fmt.Sprintf("the explanation cannot be read: %v", err)
		}
		r.FirstAt, r.LastAt, r.Count = time.Unix(0, e.first).UTC(), time.Unix(0, e.last.Load()).UTC(), e.count.Load()
		found = append(found, r)
	}
	newestFirst(found)
	return found[:min(len(found), shownRefusals)]
}

// newestPrincipal returns who was refused last under a client id; empty for
// nobody.
func (l *ledger) newestPrincipal(account fleet.Account, clientID string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	principal, newest := "", int64(0)
	for _, e := range l.books[bookKey{account: account, client: true, name: clientID}] {
		if last := e.last.Load(); last > newest {
			principal, newest = e.key.principal, last
		}
	}
	return principal
}

// newestFirst sorts refusals by their last time.
func newestFirst(refusals []Refusal) {
	slices.SortStableFunc(refusals, func(a, b Refusal) int { return b.LastAt.Compare(a.LastAt) })
}

// encode renders a refusal within maxDetail: details go first. What is left in
// the end is short by itself.
func encode(r *Refusal) []byte {
	for _, cut := range []func(){
		func() {},
		func() { r.Variables, r.Nearest = nil, r.Nearest[:min(len(r.Nearest), 1)] },
		func() { r.Nearest, r.Policies, r.Hints = nil, nil, nil },
		func() { r.DeniedBy, r.AllowedBy, r.Fixes = nil, nil, nil },
	} {
		cut()
		detail, err := json.Marshal(r)
		if err == nil && len(detail) <= maxDetail {
			return detail
		}
		r.Incomplete = true
	}
	return nil
}

// brief cuts a text to a length that can be kept.
func brief(text string) string {
	if len(text) <= maxName {
		return text
	}
	return fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(text[:maxName], ""), len(text))
}

package broker

import (
	"slices"
	"strings"
	"sync"

	"github.com/muster-iot/muster/internal/topic"
)

// subscriber is one session's interest in one filter.
type subscriber struct {
	session *session
	// id is the subscription identifier, 0 for none.
	id      uint32
	qos     byte
	noLocal bool
	// retainAsPublished leaves the retain flag of what is delivered as it came.
	retainAsPublished bool
	// persistent says that the session outlives its connection.
	persistent bool
}

// bucketSize bounds the slice that an unsubscribe copies.
const bucketSize = 256

// bucket is a part of a filter's subscribers. The elements of subs never
// change while a reader may hold the slice: additions go behind its end,
// everything else makes a new slice.
type bucket struct {
	entry *entry
	subs  []subscriber
}

// entry holds the subscribers of one filter. Additions go to the last bucket.
type entry struct {
	filter  string
	buckets []*bucket
	// groups never changes in place: readers may hold it.
	groups []*group
}

// node is one level of the wildcard filters.
type node struct {
	children map[string]*node
	entry    *entry // of the filter that ends here
}

// router maps topics to subscribers: filters without wildcard in a map, the
// others in a trie by levels. Lookups allocate nothing.
type router struct {
	broker  *Broker
	realm   *realm
	profile topic.Profile

	mu    sync.RWMutex
	exact map[string]*entry
	root  node
	// groups are the shared subscriptions by their whole filter.
	groups map[string]*group
}

// newRouter returns an empty router.
func newRouter(b *Broker, r *realm) *router {
	return &router{broker: b, realm: r, profile: b.profile, exact: make(map[string]*entry), groups: make(map[string]*group)}
}

// matches collects a lookup's result: the subscriber slices, and how many of
// them belong to each matching filter; and the shared groups. It is reused
// between lookups.
type matches struct {
	lists [][]subscriber
	// ends[i] is where the lists of filter i end.
	ends   []int
	groups []*group
}

// reset empties the result and drops its references.
func (m *matches) reset() {
	clear(m.lists)
	clear(m.groups)
	m.lists, m.ends, m.groups = m.lists[:0], m.ends[:0], m.groups[:0]
}

// add takes over an entry's slices.
func (m *matches) add(e *entry) {
	m.groups = append(m.groups, e.groups...)
	if len(e.buckets) == 0 {
		return
	}
	for _, b := range e.buckets {
		m.lists = append(m.lists, b.subs)
	}
	m.ends = append(m.ends, len(m.lists))
}

// lookup fills m with the subscribers of a topic.
func (r *router) lookup(name string, m *matches) {
	m.reset()
	r.mu.RLock()
	defer r.mu.RUnlock()
	if e := r.exact[name]; e != nil {
		m.add(e)
	}
	if len(r.root.children) > 0 {
		r.walk(&r.root, name, true, !strings.HasPrefix(name, "$"), m)
	}
}

// walk follows the levels of a topic from a node; more tells whether there is
// one left, wild whether wildcards count on it.
func (r *router) walk(n *node, rest string, more, wild bool, m *matches) {
	hash := n.children["#"]
	if !more {
		if n.entry != nil {
			m.add(n.entry)
		}
		if hash != nil && hash.entry != nil && r.profile == topic.Standard {
			m.add(hash.entry)
		}
		return
	}
	level, rest, more := strings.Cut(rest, "/")
	if wild {
		if hash != nil {
			m.add(hash.entry)
		}
		if plus := n.children["+"]; plus != nil {
			r.walk(plus, rest, more, true, m)
		}
	}
	if child := n.children[level]; child != nil {
		r.walk(child, rest, more, true, m)
	}
}

// subscribe adds a subscriber and returns the bucket it is kept in.
func (r *router) subscribe(filter string, s subscriber) *bucket {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entry(filter)
	if n := len(e.buckets); n > 0 && len(e.buckets[n-1].subs) < bucketSize {
		b := e.buckets[n-1]
		b.subs = append(b.subs, s)
		return b
	}
	b := &bucket{entry: e, subs: append(make([]subscriber, 0, 1), s)}
	e.buckets = append(e.buckets, b)
	return b
}

// entry returns the entry of a filter, making it when there is none.
func (r *router) entry(filter string) *entry {
	if !topic.HasWildcard(filter) {
		e := r.exact[filter]
		if e == nil {
			e = &entry{filter: filter}
			r.exact[filter] = e
		}
		return e
	}
	n := &r.root
	for rest, more := filter, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		child := n.children[level]
		if child == nil {
			if n.children == nil {
				n.children = make(map[string]*node, 1)
			}
			child = &node{}
			n.children[level] = child
		}
		n = child
	}
	if n.entry == nil {
		n.entry = &entry{filter: filter}
	}
	return n.entry
}

// replace changes the options of a subscriber in place of its old ones.
func (r *router) replace(b *bucket, s subscriber) {
	r.mu.Lock()
	defer r.mu.Unlock()
	subs := append([]subscriber(nil), b.subs...)
	for i := range subs {
		if subs[i].session == s.session {
			subs[i] = s
		}
	}
	b.subs = subs
}

// unsubscribe removes a session from the bucket that subscribe returned.
func (r *router) unsubscribe(b *bucket, s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	subs := make([]subscriber, 0, len(b.subs))
	for _, sub := range b.subs {
		if sub.session != s {
			subs = append(subs, sub)
		}
	}
	b.subs = subs
	e := b.entry
	// The bucket with room goes last, where additions look.
	last := len(e.buckets) - 1
	for i := range e.buckets {
		if e.buckets[i] == b {
			e.buckets[i], e.buckets[last] = e.buckets[last], b
			break
		}
	}
	if len(subs) > 0 {
		return
	}
	e.buckets[last] = nil
	e.buckets = e.buckets[:last]
	r.dropEmpty(e)
}

// dropEmpty removes an entry that selects nobody any more.
func (r *router) dropEmpty(e *entry) {
	if len(e.buckets) == 0 && len(e.groups) == 0 {
		r.drop(e.filter)
	}
}

// share adds a member to a shared group, making the group when there is none.
// It returns nil when the group has no room.
func (r *router) share(whole, filter string, sub subscriber) *group {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.groups[whole]
	limits := &r.broker.limits
	if g == nil {
		if len(r.groups) >= limits.MaxGroups {
			return nil
		}
		e := r.entry(filter)
		g = &group{broker: r.broker, realm: r.realm, name: whole, prefix: strings.TrimSuffix(whole, filter), entry: e}
		r.groups[whole] = g
		e.groups = append(slices.Clip(slices.Clone(e.groups)), g)
	}
	if !g.join(sub, limits.MaxGroupMembers) {
		return nil
	}
	return g
}

// group returns the shared group of a whole filter, or nil.
func (r *router) group(whole string) *group {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.groups[whole]
}

// leave ends one subscription of a session.
func (r *router) leave(sub *subscription, s *session) {
	if sub.group == nil {
		r.unsubscribe(sub.bucket, s)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	g := sub.group
	if !g.leave(s) {
		return
	}
	delete(r.groups, g.name)
	kept := make([]*group, 0, len(g.entry.groups))
	for _, other := range g.entry.groups {
		if other != g {
			kept = append(kept, other)
		}
	}
	g.entry.groups = kept
	r.dropEmpty(g.entry)
}

// drop removes the entry of a filter and the nodes that only led to it.
func (r *router) drop(filter string) {
	if !topic.HasWildcard(filter) {
		delete(r.exact, filter)
		return
	}
	r.root.prune(filter, true)
}

// prune removes a filter below n and reports whether n leads nowhere now.
func (n *node) prune(rest string, more bool) bool {
	if !more {
		n.entry = nil
	} else {
		level, rest, more := strings.Cut(rest, "/")
		if child := n.children[level]; child != nil && child.prune(rest, more) {
			delete(n.children, level)
		}
	}
	return n.entry == nil && len(n.children) == 0
}

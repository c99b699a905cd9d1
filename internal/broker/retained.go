package broker

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/topic"
)

// retainedTree holds the retained messages of an account by the levels of
// their topics.
type retainedTree struct {
	broker *Broker
	realm  *realm

	mu    sync.RWMutex
	root  retainedNode
	count int
}

// retainedNode is one level.
type retainedNode struct {
	children map[string]*retainedNode
	message  *Kept
}

// store takes a retained message in, or clears the topic for an empty payload,
// in memory and with the keeper. receipt may be nil. A message that finds no
// room is refused.
func (t *retainedTree) store(k *Kept, done func(error)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.root.find(k.Topic)
	held := n != nil && n.message != nil
	switch {
	case len(k.Payload) == 0 && !held:
		if done != nil {
			go done(nil)
		}
		return nil
	case len(k.Payload) == 0:
		t.root.clear(k.Topic, true)
		t.count--
		t.broker.metrics.retained.Dec()
		t.broker.keeper.Save(Change{Kind: DropRetained, Account: t.realm.account, Box: k.Topic}, done)
		return nil
	case !held && t.count >= t.broker.limits.MaxRetained:
		if done != nil {
			go done(nil)
		}
		return fault.New(fault.Throttling, "The account retains %d messages, which is the most", t.count)
	}
	t.put(k)
	t.broker.keeper.Save(Change{Kind: PutRetained, Account: t.realm.account, Box: k.Topic, Message: k}, done)
	return nil
}

// put replaces what a topic retains; the tree is locked.
func (t *retainedTree) put(k *Kept) {
	n := t.root.make(k.Topic)
	if n.message == nil {
		t.count++
		t.broker.metrics.retained.Inc()
	}
	n.message = k
}

// get returns what a topic retains and is not expired.
func (t *retainedTree) get(name string) *Kept {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := t.root.find(name)
	if n == nil || n.message == nil || n.message.expired(t.broker.expiryClock(n.message)) {
		return nil
	}
	return n.message
}

// match returns what a filter selects: the service's dialect gives nothing to
// wildcards.
func (t *retainedTree) match(filter string) []*Kept {
	if !topic.HasWildcard(filter) {
		if k := t.get(filter); k != nil {
			return []*Kept{k}
		}
		return nil
	}
	if t.broker.profile == topic.AWS {
		return nil
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	var found []*Kept
	t.root.walk(filter, true, true, func(k *Kept) {
		if !k.expired(t.broker.expiryClock(k)) {
			found = append(found, k)
		}
	})
	return found
}

// page lists up to limit messages behind a topic, level by level.
func (t *retainedTree) page(after string, limit int) (found []*Kept, more bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var from []string
	if after != "" {
		from = strings.Split(after, "/")
	}
	t.root.list(from, after != "", func(k *Kept) bool {
		if k.expired(t.broker.expiryClock(k)) {
			return true
		}
		if len(found) == limit {
			more = true
			return false
		}
		found = append(found, k)
		return true
	})
	return found, more
}

// sweep clears messages that have expired; the keeper forgets them too.
func (t *retainedTree) sweep() {
	now := t.broker.now()
	t.mu.RLock()
	var gone []string
	t.root.everything(false, func(k *Kept) {
		if k.expired(now) {
			gone = append(gone, k.Topic)
		}
	})
	t.mu.RUnlock()
	for _, name := range gone {
		t.mu.Lock()
		if n := t.root.find(name); n != nil && n.message != nil && n.message.expired(now) {
			t.root.clear(name, true)
			t.count--
			t.broker.metrics.retained.Dec()
			t.broker.keeper.Save(Change{Kind: DropRetained, Account: t.realm.account, Box: name}, nil)
		}
		t.mu.Unlock()
	}
}

// find returns the node of a topic, or nil.
func (n *retainedNode) find(name string) *retainedNode {
	for rest, more := name, true; more && n != nil; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		n = n.children[level]
	}
	return n
}

// make returns the node of a topic, with all that lead to it.
func (n *retainedNode) make(name string) *retainedNode {
	for rest, more := name, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		child := n.children[level]
		if child == nil {
			child = &retainedNode{}
			if n.children == nil {
				n.children = make(map[string]*retainedNode, 1)
			}
			n.children[strings.Clone(level)] = child
		}
		n = child
	}
	return n
}

// clear removes the message of a topic and the nodes that only led to it. It
// reports whether n leads nowhere now.
func (n *retainedNode) clear(rest string, more bool) bool {
	if !more {
		n.message = nil
	} else {
		level, rest, more := strings.Cut(rest, "/")
		if child := n.children[level]; child != nil && child.clear(rest, more) {
			delete(n.children, level)
		}
	}
	return n.message == nil && len(n.children) == 0
}

// walk calls fn for the messages that a filter of the standard's dialect
// selects. first says that wildcards do not count for `$` topics yet.
func (n *retainedNode) walk(filter string, more, first bool, fn func(*Kept)) {
	if !more {
		if n.message != nil {
			fn(n.message)
		}
		return
	}
	level, rest, more := strings.Cut(filter, "/")
	switch level {
	case "#":
		n.everything(first, fn)
	case "+":
		for name, child := range n.children {
			if !first || !strings.HasPrefix(name, "$") {
				child.walk(rest, more, false, fn)
			}
		}
	default:
		if child := n.children[level]; child != nil {
			child.walk(rest, more, false, fn)
		}
	}
}

// everything calls fn for all messages at and below n.
func (n *retainedNode) everything(first bool, fn func(*Kept)) {
	if n.message != nil {
		fn(n.message)
	}
	for name, child := range n.children {
		if !first || !strings.HasPrefix(name, "$") {
			child.everything(false, fn)
		}
	}
}

// list calls fn in order for the messages behind a topic, given by its levels;
// bounded says that from counts. It ends when fn returns false.
func (n *retainedNode) list(from []string, bounded bool, fn func(*Kept) bool) bool {
	if n.message != nil && !bounded && !fn(n.message) {
		return false
	}
	names := slices.Sorted(maps.Keys(n.children))
	for _, name := range names {
		switch {
		case !bounded || len(from) == 0 || name > from[0]:
			if !n.children[name].list(nil, false, fn) {
				return false
			}
		case name == from[0]:
			// What stands at the topic itself was in the page before.
			if !n.children[name].list(from[1:], true, fn) {
				return false
			}
		}
	}
	return true
}

package broker

import (
	"maps"
	"slices"
	"sync"

	"github.com/muster-iot/muster/internal/fleet"
)

// realm is one account's part of the broker.
type realm struct {
	account  fleet.Account
	router   *router
	retained retainedTree
	usage    usage

	mu sync.Mutex
	// sessions are those of connected clients and the stored ones of clients
	// that are away.
	sessions map[string]*session
}

// newRealm returns an account's part without anything in it.
func (b *Broker) newRealm(account fleet.Account) *realm {
	r := &realm{account: account, sessions: make(map[string]*session)}
	r.router = newRouter(b, r)
	r.retained = retainedTree{broker: b, realm: r}
	return r
}

// joined is the outcome of join.
type joined struct {
	session *session
	// resumed says that the session was there before.
	resumed bool
	// before is the connection that was taken over, replaced the session that
	// the new one takes the place of; nil when there was none.
	before   *connection
	replaced *session
}

// join gives an admitted connection its session: the stored one when it may be
// resumed, else a new one. enter runs with the session locked, before anybody
// can deliver to the connection. tell runs before anybody else can join: of
// connections that come at once, the last one told of is the one that stays.
func (r *realm) join(c *connection, expiry uint32, tell func(), enter func(j *joined)) joined {
	r.mu.Lock()
	defer r.mu.Unlock()
	var j joined
	if old := r.sessions[c.info.ClientID]; old != nil {
		old.mu.Lock()
		if !old.over && !c.info.CleanStart && old.persistentLocked() && old.version == c.version {
			j.session, j.resumed = old, true
			c.info.SessionID = old.id
			old.expiry = expiry
			c.session = old
			enter(&j)
			j.before = old.attachLocked(c)
			old.recordLocked(nil)
			tell()
			old.mu.Unlock()
			return j
		}
		if !old.over {
			old.endLocked()
			j.replaced, j.before = old, old.link.Load()
		}
		old.mu.Unlock()
	}
	s := c.broker.newSession(r, c, expiry)
	j.session, c.session = s, s
	r.sessions[c.info.ClientID] = s
	tell()
	s.mu.Lock()
	enter(&j)
	s.link.Store(c)
	s.recordLocked(nil)
	s.mu.Unlock()
	return j
}

// leave gives the client id up unless somebody took it over.
func (r *realm) leave(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sessions[s.clientID] == s {
		delete(r.sessions, s.clientID)
	}
}

// find returns the session of a client id, or nil.
func (r *realm) find(clientID string) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sessions[clientID]
}

// all returns the sessions at this moment.
func (r *realm) all() []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.sessions))
}

// connections returns the connections at this moment.
func (r *realm) connections() []*connection {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*connection, 0, len(r.sessions))
	for _, s := range r.sessions {
		if c := s.link.Load(); c != nil {
			all = append(all, c)
		}
	}
	return all
}

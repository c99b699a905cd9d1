package deviceauth

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
)

// Kinds of names under which a session is found.
const (
	byPrincipal = iota
	byThing
	linkKinds
)

// sessionKey is what several sessions may share.
type sessionKey struct {
	account fleet.Account
	kind    int
	name    string
}

// link chains the sessions of one key. Chains run through the guards
// themselves, so that a million sessions cost no sets and a claim certificate
// shared by thousands is left in constant time.
type link struct {
	key        sessionKey
	linked     bool
	next, prev *Guard
}

// sessions finds live guards by what they depend on.
type sessions struct {
	mu    sync.Mutex
	heads map[sessionKey]*Guard
	// epochs count changes that concern a whole account.
	epochs map[fleet.Account]*atomic.Uint64
	// revoked are guards whose certificate left ACTIVE and whose connection
	// is still there.
	revoked map[*Guard]struct{}
	// leaving are guards whose connection ends at a time.
	leaving map[*Guard]time.Time
	// nextExpiry is not after the end of any live certificate; zero when no
	// session has one.
	nextExpiry time.Time
}

// newSessions returns an empty index.
func newSessions() sessions {
	return sessions{
		heads:   map[sessionKey]*Guard{},
		epochs:  map[fleet.Account]*atomic.Uint64{},
		revoked: map[*Guard]struct{}{},
		leaving: map[*Guard]time.Time{},
	}
}

// add makes a guard subject to events.
func (s *sessions) add(g *Guard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g.accountEpoch = s.epochOf(g.id.Account)
	s.link(g, byPrincipal, g.id.Principal.ID)
	if s.nextExpiry.IsZero() || g.id.notAfter.Before(s.nextExpiry) {
		s.nextExpiry = g.id.notAfter
	}
}

// epochOf returns the account's counter; the caller holds the lock.
func (s *sessions) epochOf(account fleet.Account) *atomic.Uint64 {
	epoch := s.epochs[account]
	if epoch == nil {
		epoch = &atomic.Uint64{}
		s.epochs[account] = epoch
	}
	return epoch
}

// setThing makes a guard subject to a thing's events; an empty name ends that.
// It reports whether it was not so before.
func (s *sessions) setThing(g *Guard, thing string) (changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	current := &g.links[byThing]
	if g.closed || (current.linked && current.key.name == thing) || (!current.linked && thing == "") {
		return false
	}
	s.unlink(g, byThing)
	if thing != "" {
		s.link(g, byThing, thing)
	}
	return true
}

// remove forgets a guard. It reports false when that was done before.
func (s *sessions) remove(g *Guard) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.closed {
		return false
	}
	g.closed = true
	delete(s.revoked, g)
	delete(s.leaving, g)
	for kind := range linkKinds {
		s.unlink(g, kind)
	}
	return true
}

// link puts a guard at the head of a chain; the caller holds the lock.
func (s *sessions) link(g *Guard, kind int, name string) {
	key := sessionKey{account: g.id.Account, kind: kind, name: name}
	head := s.heads[key]
	g.links[kind] = link{key: key, linked: true, next: head}
	if head != nil {
		head.links[kind].prev = g
	}
	s.heads[key] = g
}

// unlink takes a guard out of its chain; the caller holds the lock.
func (s *sessions) unlink(g *Guard, kind int) {
	l := g.links[kind]
	if !l.linked {
		return
	}
	if l.next != nil {
		l.next.links[kind].prev = l.prev
	}
	switch {
	case l.prev != nil:
		l.prev.links[kind].next = l.next
	case l.next != nil:
		s.heads[l.key] = l.next
	default:
		delete(s.heads, l.key)
	}
	g.links[kind] = link{}
}

// find returns the guard of a principal's client, the newest if there are
// several; nil for none.
func (s *sessions) find(account fleet.Account, principalID, clientID string) *Guard {
	s.mu.Lock()
	defer s.mu.Unlock()
	for g := s.heads[sessionKey{account: account, kind: byPrincipal, name: principalID}]; g != nil; g = g.links[byPrincipal].next {
		if g.caller.clientID == clientID {
			return g
		}
	}
	return nil
}

// touch makes the sessions of one key look at their permissions again.
func (s *sessions) touch(account fleet.Account, kind int, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for g := s.heads[sessionKey{account: account, kind: kind, name: name}]; g != nil; g = g.links[kind].next {
		g.epoch.Add(1)
	}
}

// touchAccount does so for a whole account.
func (s *sessions) touchAccount(account fleet.Account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epochOf(account).Add(1)
}

// setRevoked records whether a certificate may stay connected, and makes its
// sessions look again.
func (s *sessions) setRevoked(account fleet.Account, certificateID string, revoked bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for g := s.heads[sessionKey{account: account, kind: byPrincipal, name: certificateID}]; g != nil; g = g.links[byPrincipal].next {
		g.epoch.Add(1)
		if revoked {
			s.revoked[g] = struct{}{}
		} else {
			delete(s.revoked, g)
		}
	}
}

// leaveAt has the sessions of a certificate end at a time. Until then they are
// decided as before.
func (s *sessions) leaveAt(account fleet.Account, certificateID string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for g := s.heads[sessionKey{account: account, kind: byPrincipal, name: certificateID}]; g != nil; g = g.links[byPrincipal].next {
		s.leaving[g] = at
	}
}

// leaveNow has one session end with the next sweep.
func (s *sessions) leaveNow(g *Guard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !g.closed {
		s.revoked[g] = struct{}{}
	}
}

// overdue returns the certificates that still have sessions and should have
// none at the given time.
func (s *sessions) overdue(now time.Time) []sessionKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := map[sessionKey]struct{}{}
	for g := range s.revoked {
		keys[g.links[byPrincipal].key] = struct{}{}
	}
	for g, at := range s.leaving {
		if !now.Before(at) {
			keys[g.links[byPrincipal].key] = struct{}{}
		}
	}
	if !s.nextExpiry.IsZero() && now.After(s.nextExpiry) {
		s.nextExpiry = time.Time{}
		for key, g := range s.heads {
			// Sessions of one certificate end at the same time.
			if key.kind != byPrincipal {
				continue
			}
			if now.After(g.id.notAfter) {
				keys[key] = struct{}{}
			}
			if s.nextExpiry.IsZero() || g.id.notAfter.Before(s.nextExpiry) {
				s.nextExpiry = g.id.notAfter
			}
		}
	}
	list := make([]sessionKey, 0, len(keys))
	for key := range keys {
		list = append(list, key)
	}
	return list
}

// Sweep ends connections that outlived their certificate: by its date, because
// they were being admitted at the moment it was revoked, because it is used up, or
// because it is for provisioning since it was let in. A timer calls
// it about once a second; without such a connection it costs next to nothing.
func (s *Service) Sweep(now time.Time) {
	for _, key := range s.sessions.overdue(now) {
		s.disconnect(key.account, key.name)
	}
}

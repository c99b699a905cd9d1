package broker

import "sync"

// realm is one account's part of the broker.
type realm struct {
	router *router

	mu       sync.Mutex
	sessions map[string]*session
}

// join makes a session the owner of its client id and returns the one that it
// takes over from. tell runs before anybody else can join: of connections that
// come at once, the last one told of is the one that stays.
func (r *realm) join(s *session, tell func()) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	tell()
	old := r.sessions[s.info.ClientID]
	r.sessions[s.info.ClientID] = s
	return old
}

// leave gives the client id up unless somebody took it over.
func (r *realm) leave(s *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sessions[s.info.ClientID] == s {
		delete(r.sessions, s.info.ClientID)
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
	all := make([]*session, 0, len(r.sessions))
	for _, s := range r.sessions {
		all = append(all, s)
	}
	return all
}

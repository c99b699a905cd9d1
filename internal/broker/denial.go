package broker

import "github.com/muster-iot/muster/internal/mqtt"

// maxDenied bounds the topics whose refused deliveries are told within one
// second; more are counted only.
const maxDenied = 16

// tellDenied tells the observer of a refused packet.
func (s *session) tellDenied(action, resource string, packet mqtt.Type) {
	s.broker.metrics.denials.WithLabelValues(action).Inc()
	s.broker.observer.Denied(Denial{
		Account: s.info.Account, Principal: s.info.Principal, ClientID: s.info.ClientID, SessionID: s.info.SessionID,
		Action: action, Resource: resource, Packet: packet.String(), At: s.broker.now(),
	})
}

// deny counts a refused delivery and tells of it unless that was done for the
// same topic in this second.
func (s *session) deny(name string) {
	if !s.firstDenial(name) {
		s.broker.metrics.denials.WithLabelValues(ActionReceive).Inc()
		return
	}
	s.tellDenied(ActionReceive, name, mqtt.TypePublish)
}

// firstDenial reports whether a topic is the first refused in this second.
func (s *session) firstDenial(name string) bool {
	now := s.broker.wheel.now.Load()
	s.deniedLock.Lock()
	defer s.deniedLock.Unlock()
	if s.deniedAt != now {
		s.deniedAt = now
		clear(s.denied)
	}
	if _, ok := s.denied[name]; ok || len(s.denied) >= maxDenied {
		return false
	}
	if s.denied == nil {
		s.denied = make(map[string]struct{}, 1)
	}
	s.denied[name] = struct{}{}
	return true
}

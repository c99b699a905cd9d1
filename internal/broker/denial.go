package broker

import "github.com/muster-iot/muster/internal/mqtt"

// maxDenied bounds the topics whose refused deliveries are told within one
// second; more are counted only.
const maxDenied = 16

// tellDenied tells the observer of a refused packet.
func (c *connection) tellDenied(action, resource string, packet mqtt.Type) {
	c.broker.metrics.denials.WithLabelValues(action).Inc()
	c.broker.observer.Denied(Denial{
		Account: c.info.Account, Principal: c.info.Principal, ClientID: c.info.ClientID, SessionID: c.info.SessionID,
		Action: action, Resource: resource, Packet: packet.String(), At: c.broker.now(),
	})
}

// deny counts a refused delivery and tells of it unless that was done for the
// same topic in this second.
func (c *connection) deny(name string) {
	if !c.firstDenial(name) {
		c.broker.metrics.denials.WithLabelValues(ActionReceive).Inc()
		return
	}
	c.tellDenied(ActionReceive, name, mqtt.TypePublish)
}

// firstDenial reports whether a topic is the first refused in this second.
func (c *connection) firstDenial(name string) bool {
	now := c.broker.wheel.now.Load()
	c.deniedLock.Lock()
	defer c.deniedLock.Unlock()
	if c.deniedAt != now {
		c.deniedAt = now
		clear(c.denied)
	}
	if _, ok := c.denied[name]; ok || len(c.denied) >= maxDenied {
		return false
	}
	if c.denied == nil {
		c.denied = make(map[string]struct{}, 1)
	}
	c.denied[name] = struct{}{}
	return true
}

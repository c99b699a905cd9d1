package inlet

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// Gate lets a bounded number of holders in at once, and a smaller number for
// each source. Whoever comes from a source that has used up its share waits
// behind that source's own, not in front of everybody.
type Gate struct {
	slots chan struct{}
	share int

	mu      sync.Mutex
	sources map[netip.Prefix]*source
}

// source is the share of one peer address. It exists while somebody uses it.
type source struct {
	slots chan struct{}
	// users counts holders and those who wait; guarded by the gate.
	users int
}

// NewGate returns a gate for total holders, at most share of them from one
// source. A share of 0, or above total, is no bound of its own.
func NewGate(total, share int) *Gate {
	if share <= 0 || share > total {
		share = total
	}
	return &Gate{slots: make(chan struct{}, total), share: share, sources: map[netip.Prefix]*source{}}
}

// Enter waits for a place until ctx ends. leave must be called once when it
// returns nil.
func (g *Gate) Enter(ctx context.Context, peer net.Addr) (leave func(), err error) {
	key := sourceOf(peer)
	s := g.join(key)
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		g.part(key, s)
		return nil, fmt.Errorf("wait for a place of this source: %w", ctx.Err())
	}
	select {
	case g.slots <- struct{}{}:
	case <-ctx.Done():
		<-s.slots
		g.part(key, s)
		return nil, fmt.Errorf("wait for a place: %w", ctx.Err())
	}
	return func() {
		<-g.slots
		<-s.slots
		g.part(key, s)
	}, nil
}

// join returns the share of a source and counts one more user of it.
func (g *Gate) join(key netip.Prefix) *source {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.sources[key]
	if s == nil {
		s = &source{slots: make(chan struct{}, g.share)}
		g.sources[key] = s
	}
	s.users++
	return s
}

// part forgets a share that nobody uses any more.
func (g *Gate) part(key netip.Prefix, s *source) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.users--; s.users == 0 {
		delete(g.sources, key)
	}
}

// hostBits are the bits of an IPv6 address that its holder chooses freely.
const hostBits = 64

// sourceOf returns whom an address belongs to: an IPv4 address, an IPv6 network
// of one site, or for anything else one source for all.
func sourceOf(peer net.Addr) netip.Prefix {
	with, err := netip.ParseAddrPort(peer.String())
	if err != nil {
		return netip.Prefix{}
	}
	addr := with.Addr().Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = hostBits
	}
	return netip.PrefixFrom(addr, bits).Masked()
}

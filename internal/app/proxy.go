package app

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/muster-iot/muster/internal/config"
	"github.com/muster-iot/muster/internal/inlet"
)

// proxyHeaderTimeout is how long a proxy may take for its header, which is the
// first thing it sends. The library bounds the header's size.
const proxyHeaderTimeout = 5 * time.Second

// errProxyHeader is a header that says nothing we can use.
var errProxyHeader = errors.New("PROXY protocol")

// behindProxies returns a listener whose connections have the addresses that a
// proxy's header tells; l itself when there are no proxies. The header is read
// by whoever reads first. It must be behind the limit on connections, which
// waits for the first byte of a client.
func (a *App) behindProxies(l net.Listener, name string, from []string) net.Listener {
	networks := config.Networks(from)
	if len(networks) == 0 {
		return l
	}
	log, told := a.component("proxy-protocol"), inlet.NewQuota(strangerLines, allStrangerLines, strangerWindow)
	return &proxyproto.Listener{
		Listener: l, ReadHeaderTimeout: proxyHeaderTimeout, ValidateHeader: checkProxyHeader,
		ConnPolicy: func(o proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
			if isProxy(o.Upstream, networks) {
				return proxyproto.REQUIRE, nil
			}
			if suppressed, ok := told.Take(hostOnly(o.Upstream), now()); ok {
				log.Warn("connection refused: the peer is no proxy named in the settings", slog.String("listener", name),
					slog.String("remote_addr", o.Upstream.String()), slog.Int("suppressed", suppressed))
			}
			return proxyproto.REJECT, fmt.Errorf("%w: %s", proxyproto.ErrInvalidUpstream, o.Upstream)
		},
	}
}

// isProxy reports whether a peer's address is in one of the networks.
func isProxy(peer net.Addr, networks []netip.Prefix) bool {
	with, err := netip.ParseAddrPort(peer.String())
	if err != nil {
		return false
	}
	addr := with.Addr().Unmap().WithZone("")
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(addr) })
}

// hostOnly drops the port.
func hostOnly(addr net.Addr) string {
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	return host
}

// checkProxyHeader takes version 2 for TCP, and the proxy's own connections,
// such as health checks, which bear its own address.
func checkProxyHeader(h *proxyproto.Header) error {
	switch {
	case h.Version != 2:
		return fmt.Errorf("%w: version %d is sent, 2 is needed", errProxyHeader, h.Version)
	case h.Command.IsLocal():
		return nil
	case h.TransportProtocol != proxyproto.TCPv4 && h.TransportProtocol != proxyproto.TCPv6:
		return fmt.Errorf("%w: the header is not about TCP", errProxyHeader)
	}
	if _, _, ok := h.TCPAddrs(); !ok {
		return fmt.Errorf("%w: the header has no addresses", errProxyHeader)
	}
	return nil
}

package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/inlet"
	"github.com/muster-iot/muster/internal/pki"
)

const (
	// webSocketPath is where MQTT over WebSocket is offered.
	webSocketPath = "/mqtt"
	// webSocketProtocol is the subprotocol that the client must offer;
	// oldWebSocketProtocol is what version 1 of the device SDKs calls it, whatever
	// version of MQTT they speak.
	webSocketProtocol    = "mqtt"
	oldWebSocketProtocol = "mqttv3.1"
	// webSocketLife is how long such a connection lasts at most.
	webSocketLife = 24 * time.Hour
	// maxWebSocketMessage bounds one message. Packets may be spread over messages
	// and share them, so that this is no limit on packets, and a message is read
	// as a stream: nothing is allocated for the length that it announces.
	maxWebSocketMessage = 1 << 20
	// farewellTimeout is how long a peer may take for our Close frame.
	farewellTimeout = time.Second
)

// Lines about callers that nobody has proven to be: of one address, and of all,
// in a window.
const (
	strangerLines    = 5
	allStrangerLines = 50
	strangerWindow   = 10 * time.Second
)

// upgrade is what the request that opened a WebSocket has shown. It travels with
// the connection's CONNECT to the gatekeeper.
type upgrade struct {
	// caller is proven by the request's signature, nil for a request without one.
	caller *awsapi.Caller
	header http.Header
	// query is raw, host as the client sent it.
	query, host string
	// until is when the connection ends at the latest.
	until time.Time
}

// webSocket answers GET /mqtt on one listener.
type webSocket struct {
	api   *awsapi.Server
	names *names
	// custom reports whether a connection without signature can be admitted by
	// what it shows in the request or its CONNECT.
	custom func(ctx context.Context, serverName string) bool
	// ports are those by which clients may have named this server.
	ports  func(conn net.Conn) []string
	handle func(ctx context.Context, conn net.Conn, u *upgrade) error
	log    *slog.Logger
	// told bounds the lines about refusals.
	told *inlet.Quota
}

// ServeHTTP proves the caller, upgrades the connection and leaves it to the
// broker.
func (s *webSocket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	under, ok := r.Context().Value(connKey{}).(net.Conn)
	if !ok {
		answer(w, http.StatusInternalServerError, "the connection is not known")
		return
	}
	u, err := s.open(r, under)
	if err != nil {
		if suppressed, ok := s.told.Take(hostOnly(under.RemoteAddr()), now()); ok {
			s.log.InfoContext(r.Context(), "websocket refused", slog.String("remote_addr", r.RemoteAddr),
				slog.Int("suppressed", suppressed), slog.Any("err", err))
		}
		answer(w, refusalStatus(err), fault.From(err).Message)
		return
	}
	// The origin is of no interest: no cookie speaks for a browser here, only a
	// signature or a credential that the page itself must have.
	socket, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{webSocketProtocol, oldWebSocketProtocol}, InsecureSkipVerify: true})
	if err != nil {
		s.log.DebugContext(r.Context(), "websocket not opened", slog.String("remote_addr", r.RemoteAddr), slog.Any("err", err))
		return
	}
	if err := s.handle(r.Context(), newWebSocketConn(socket, under), u); err != nil {
		s.log.DebugContext(r.Context(), "connection refused", slog.String("remote_addr", r.RemoteAddr), slog.Any("err", err))
	}
}

// refusalStatus is the status of an upgrade that is refused.
func refusalStatus(err error) int {
	code := fault.CodeOf(err)
	if code == fault.InvalidRequest {
		return http.StatusBadRequest
	}
	if code == fault.Unauthorized || code == fault.Forbidden {
		return http.StatusForbidden
	}
	return http.StatusServiceUnavailable
}

// open checks everything that can be refused in words, before the upgrade.
func (s *webSocket) open(r *http.Request, under net.Conn) (*upgrade, error) {
	if !slices.ContainsFunc(r.Header.Values("Sec-Websocket-Protocol"), offersMQTT) {
		return nil, fault.New(fault.InvalidRequest, "%s speaks WebSocket with the subprotocol %s; the client must offer it in Sec-WebSocket-Protocol", webSocketPath, webSocketProtocol)
	}
	serverName := hostName(r.Host)
	if secured, ok := under.(securedConn); ok {
		state := secured.ConnectionState()
		if state.ServerName != "" {
			serverName = state.ServerName
		}
		if state.NegotiatedProtocol == pki.ALPNHTTPCert {
			return nil, fault.New(fault.Forbidden, "WebSocket is not offered with the ALPN name %s; offer %s", pki.ALPNHTTPCert, pki.ALPNHTTP)
		}
		if err := s.names.check(state.ServerName); err != nil {
			return nil, err
		}
	}
	caller, err := s.api.AuthenticateUpgrade(r, hosts(r.Host, s.ports(under))...)
	if err != nil {
		return nil, err //nolint:wrapcheck // it is a fault in words
	}
	if caller == nil {
		if err := s.names.agree(s.names.account(serverName), r.Host); err != nil {
			return nil, err
		}
	}
	if caller == nil && !s.custom(r.Context(), serverName) {
		return nil, fault.New(fault.Forbidden, "The request must be signed with Signature Version 4, by presigned query or by Authorization header; no custom authorizer is active")
	}
	until := now().Add(webSocketLife)
	if caller != nil && !caller.SessionUntil.IsZero() && caller.SessionUntil.Before(until) {
		until = caller.SessionUntil
	}
	return &upgrade{caller: caller, header: r.Header, query: r.URL.RawQuery, host: r.Host, until: until}, nil
}

// offersMQTT reports whether a list of subprotocols has one of ours.
func offersMQTT(list string) bool {
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		if strings.EqualFold(name, webSocketProtocol) || strings.EqualFold(name, oldWebSocketProtocol) {
			return true
		}
	}
	return false
}

// hosts returns what a client that sent a host may have signed instead: the name
// alone, since libraries drop ports that they take for usual, and the name with
// each port that this server is known by.
func hosts(sent string, ports []string) []string {
	name := sent
	if host, _, err := net.SplitHostPort(sent); err == nil {
		name = host
		if strings.Contains(host, ":") {
			name = "[" + host + "]"
		}
	}
	out := []string{name}
	for _, port := range ports {
		out = append(out, name+":"+port)
	}
	return out
}

// webSocketPorts returns the ports by which a client may name a listener: the
// one it reached, the bound and the advertised one.
func (a *App) webSocketPorts(listener string) func(net.Conn) []string {
	return func(conn net.Conn) []string {
		var ports []string
		for _, addr := range []string{conn.LocalAddr().String(), a.Addr(listener).String(), a.settings.Advertise} {
			if _, port, err := net.SplitHostPort(addr); err == nil && !slices.Contains(ports, port) {
				ports = append(ports, port)
			}
		}
		return ports
	}
}

// webSocketHandler offers MQTT over WebSocket on a listener.
func (a *App) webSocketHandler(listener string) http.Handler {
	return &webSocket{
		api: a.api, names: a.names, log: a.component("websocket"), told: inlet.NewQuota(strangerLines, allStrangerLines, strangerWindow), ports: a.webSocketPorts(listener),
		custom: func(ctx context.Context, serverName string) bool { return a.gatekeeper.custom.Offered(ctx, serverName) },
		handle: func(ctx context.Context, conn net.Conn, u *upgrade) error {
			o := a.mqttOptions(listener)
			o.Transport, o.Attachment = broker.TransportWebSocket, u
			return a.broker.Handle(ctx, conn, o)
		},
	}
}

// securedConn is a connection with TLS.
type securedConn interface {
	net.Conn
	ConnectionState() tls.ConnectionState
}

// newWebSocketConn returns the packets of a WebSocket as a connection. When there
// is TLS below, the broker can see what came out of it.
func newWebSocketConn(socket *websocket.Conn, under net.Conn) net.Conn {
	socket.SetReadLimit(maxWebSocketMessage)
	c := &webSocketConn{Conn: under, socket: socket}
	if secured, ok := under.(securedConn); ok {
		return &securedWebSocketConn{webSocketConn: c, state: secured.ConnectionState()}
	}
	return c
}

// webSocketConn is a stream of bytes over binary messages. Addresses and
// deadlines are those of the connection below.
type webSocketConn struct {
	net.Conn
	socket *websocket.Conn
	// message is what is left of the message that is being read.
	message io.Reader
	// writing is held while a message is written.
	writing sync.Mutex
	closed  atomic.Bool
}

// Read returns bytes of the next binary messages. A Close frame of the peer is
// broker.ErrPeerLeft.
func (c *webSocketConn) Read(p []byte) (int, error) {
	for {
		if c.message == nil {
			kind, message, err := c.socket.Reader(context.Background())
			if err != nil {
				return 0, readError(err)
			}
			if kind != websocket.MessageBinary {
				_ = c.socket.Close(websocket.StatusUnsupportedData, "MQTT travels in binary messages")
				return 0, errTextMessage
			}
			c.message = message
		}
		n, err := c.message.Read(p)
		switch {
		case errors.Is(err, io.EOF):
			if c.message = nil; n == 0 {
				continue
			}
		case err != nil:
			return n, readError(err)
		}
		return n, nil
	}
}

// errTextMessage is a client that does not send MQTT.
var errTextMessage = errors.New("text message instead of a binary one")

// readError tells a peer that said goodbye from a connection that broke.
func readError(err error) error {
	if websocket.CloseStatus(err) != -1 {
		return fmt.Errorf("%w: %w", broker.ErrPeerLeft, err)
	}
	return err
}

// Write sends p as one binary message.
func (c *webSocketConn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.socket.Write(context.Background(), websocket.MessageBinary, p); err != nil {
		return 0, err //nolint:wrapcheck // as if it were the connection itself
	}
	return len(p), nil
}

// Close says goodbye unless a write is under way, does not wait for the peer to
// do so too, and closes the connection below.
func (c *webSocketConn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	if !c.writing.TryLock() {
		return ignoreClosed(c.socket.CloseNow())
	}
	defer c.writing.Unlock()
	// Whoever reads is done, and so is waiting for the peer's own Close frame.
	_ = c.Conn.SetReadDeadline(time.Unix(1, 0))
	_ = c.SetWriteDeadline(now().Add(farewellTimeout))
	_ = c.socket.Close(websocket.StatusNormalClosure, "") // the answer is not waited for
	return nil
}

// SetReadDeadline leaves the deadline alone once the connection is being closed.
func (c *webSocketConn) SetReadDeadline(t time.Time) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	return c.Conn.SetReadDeadline(t) //nolint:wrapcheck // as if it were the connection itself
}

// securedWebSocketConn shows the broker the TLS below.
type securedWebSocketConn struct {
	*webSocketConn
	state tls.ConnectionState
}

// HandshakeContext has nothing left to do.
func (c *securedWebSocketConn) HandshakeContext(context.Context) error { return nil }

// ConnectionState is that of the connection below.
func (c *securedWebSocketConn) ConnectionState() tls.ConnectionState { return c.state }

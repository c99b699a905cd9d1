package app

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/inlet"
	"github.com/muster-iot/muster/internal/pki"
)

// Names of the listeners, in logs and for Addr.
const (
	listenerHTTP  = "http"
	listenerMQTT  = "mqtt"
	listenerTLS   = "tls"
	listenerPlain = "mqtt-insecure"
)

const (
	// handshakeTimeout bounds TLS and the wait for the first byte.
	handshakeTimeout = 10 * time.Second
	headerTimeout    = 10 * time.Second
	// requestTimeout bounds a whole request; a backup streams longer and
	// lifts it for itself.
	requestTimeout = 2 * time.Minute
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 64 << 10
	// mqttConnect is the first byte of a CONNECT packet.
	mqttConnect = 0x10
)

// listeners are the bound addresses.
type listeners struct {
	mu    sync.Mutex
	bound map[string]net.Addr
}

func (l *listeners) set(name string, addr net.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bound == nil {
		l.bound = map[string]net.Addr{}
	}
	l.bound[name] = addr
}

func (l *listeners) addr(name string) net.Addr {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bound[name]
}

// describe is for the log.
func (l *listeners) describe() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]string{}
	for name, addr := range l.bound {
		out[name] = addr.String()
	}
	return out
}

// listen binds every configured address before any of them is served, so that
// a taken port fails the start as a whole.
func (a *App) listen(ctx context.Context) error {
	serving := &parts{fatal: a.fail}
	var all []part
	var closers []func(context.Context) error
	a.localLimit, a.limit = a.connectionLimits()
	add := func(name, addr string, serve func(net.Listener) (func(context.Context) error, func(context.Context) error)) error {
		if addr == "" {
			return nil
		}
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
		if err != nil {
			return fmt.Errorf("listen on %s for %s: %w", addr, name, err)
		}
		a.listeners.set(name, l.Addr())
		if plain := name == listenerHTTP || name == listenerPlain; plain && !onLoopback(l.Addr()) {
			return errors.Join(fmt.Errorf("%s for %s leads to %s, which is no loopback address; nothing without TLS leaves this machine", addr, name, l.Addr()), l.Close())
		}
		switch name {
		case listenerHTTP:
			l = a.localLimit.Listener(l)
		case listenerMQTT:
			l = a.limit.Listener(a.behindProxies(l, name, a.settings.MQTT.ProxyProtocol))
		case listenerTLS:
			l = a.limit.Listener(a.behindProxies(l, name, a.settings.TLS.ProxyProtocol))
		case listenerPlain: // benchmarks measure it, and only this machine reaches it
		}
		run, stop := serve(l)
		all = append(all, part{name + " listener", run})
		closers = append(closers, func(ctx context.Context) error { return errors.Join(stop(ctx), ignoreClosed(l.Close())) })
		return nil
	}
	err := errors.Join(
		add(listenerHTTP, a.settings.HTTPAddr, a.serveHTTP),
		add(listenerMQTT, a.settings.MQTTAddr, func(l net.Listener) (run, stop func(context.Context) error) {
			return a.serveMQTT(tls.NewListener(l, a.pki.MQTTConfig()), listenerMQTT)
		}),
		add(listenerTLS, a.settings.TLSAddr, a.serveShared),
		add(listenerPlain, a.settings.MQTTInsecureAddr, func(l net.Listener) (run, stop func(context.Context) error) {
			return a.serveMQTT(l, listenerPlain)
		}),
	)
	stop := func(ctx context.Context) error {
		var failed error
		for _, c := range closers {
			failed = errors.Join(failed, c(ctx))
		}
		if serving.cancel != nil {
			failed = errors.Join(failed, serving.stop(ctx))
		}
		return failed
	}
	if err != nil {
		return errors.Join(err, stop(ctx))
	}
	// Listeners close before sessions are told to leave; a listener that ends
	// because of that is no failure.
	stopping := make(chan struct{})
	serving.fatal = func(err error) {
		select {
		case <-stopping:
		default:
			a.fail(err)
		}
	}
	serving.start(ctx, all...)
	a.cleanups.push("listeners", func(ctx context.Context) error {
		close(stopping)
		return stop(ctx)
	})
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func nothing(context.Context) error { return nil }

// serveMQTT hands a listener to the broker, which closes it on Shutdown.
func (a *App) serveMQTT(l net.Listener, name string) (run, stop func(context.Context) error) {
	return func(ctx context.Context) error { return a.broker.Serve(ctx, l, a.mqttOptions(name)) }, nothing
}

func (a *App) mqttOptions(name string) broker.ListenerOptions {
	return broker.ListenerOptions{Name: name, Account: a.names.account}
}

// serveHTTP serves the API without TLS; settings keep it on loopback.
func (a *App) serveHTTP(l net.Listener) (run, stop func(context.Context) error) {
	server := a.httpServer(a.localHandler(listenerHTTP))
	return func(context.Context) error { return closedIsFine(server.Serve(l)) }, server.Shutdown
}

func closedIsFine(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (a *App) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       requestTimeout,
		WriteTimeout:      requestTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(a.component("http").Handler(), slog.LevelDebug),
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return withMemory(withConn(ctx, c)) },
		Protocols:         http1(),
	}
}

// http1 keeps to the protocols that AWS IoT's endpoints speak.
func http1() *http.Protocols {
	var p http.Protocols
	p.SetHTTP1(true)
	return &p
}

// serveShared tells MQTT from HTTPS on one port: by ALPN, and where that leaves
// it open (http/1.1 or none) by the first byte.
func (a *App) serveShared(l net.Listener) (run, stop func(context.Context) error) {
	s := &sharedPort{
		config: a.pki.SharedConfig(), log: a.component("tls"), begin: a.broker.BeginHandshake,
		http: &handedListener{addr: l.Addr(), conns: make(chan net.Conn), closed: make(chan struct{})},
		mqtt: func(ctx context.Context, conn net.Conn) error {
			return a.broker.Handle(ctx, conn, a.mqttOptions(listenerTLS))
		},
	}
	server := a.httpServer(a.deviceHandler(listenerTLS))
	run = func(ctx context.Context) error {
		var serving sync.WaitGroup
		serving.Go(func() {
			if err := closedIsFine(server.Serve(s.http)); err != nil && ctx.Err() == nil {
				a.fail(fmt.Errorf("https: %w", err))
			}
		})
		err := s.accept(ctx, l)
		_ = s.http.Close() // it cannot fail
		serving.Wait()
		return err
	}
	return run, server.Shutdown
}

// sharedPort sorts connections after the handshake.
type sharedPort struct {
	config *tls.Config
	log    *slog.Logger
	// begin waits for the turn of a handshake, among those of all listeners.
	begin func(ctx context.Context, peer net.Addr) (leave func(), err error)
	http  *handedListener
	mqtt  func(ctx context.Context, conn net.Conn) error
}

func (s *sharedPort) accept(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	var sorting sync.WaitGroup
	defer sorting.Wait()
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			sorting.Go(func() { s.sort(ctx, conn) })
		case errors.Is(err, net.ErrClosed):
			return nil
		default:
			s.log.WarnContext(ctx, "connection cannot be accepted", slog.Any("err", err))
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// sort brings one connection to where it belongs.
func (s *sharedPort) sort(ctx context.Context, raw net.Conn) {
	handed := false
	defer func() {
		if !handed {
			_ = raw.Close() // it is of no use any more
		}
	}()
	conn, isMQTT, err := s.open(ctx, raw)
	if err != nil {
		s.log.DebugContext(ctx, "connection refused", slog.String("remote_addr", raw.RemoteAddr().String()), slog.Any("err", err))
		return
	}
	handed = true
	if !isMQTT {
		s.http.hand(ctx, conn)
		return
	}
	if err := s.mqtt(ctx, conn); err != nil {
		s.log.DebugContext(ctx, "connection refused", slog.String("remote_addr", raw.RemoteAddr().String()), slog.Any("err", err))
	}
}

// open does the handshake and finds out what the client speaks.
func (s *sharedPort) open(ctx context.Context, raw net.Conn) (conn net.Conn, isMQTT bool, err error) {
	secured := tls.Server(raw, s.config)
	if err := s.handshake(ctx, secured); err != nil {
		return nil, false, err
	}
	switch secured.ConnectionState().NegotiatedProtocol {
	case pki.ALPNMQTTCert, pki.ALPNMQTT:
		return secured, true, nil
	case pki.ALPNHTTPCert:
		// Wrapped, because net/http closes a bare TLS connection whose protocol
		// name it has no handler for.
		return &peekedConn{Conn: secured}, false, nil
	}
	if err := secured.SetReadDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, false, err
	}
	peeked := &peekedConn{Conn: secured, r: bufio.NewReaderSize(secured, 16)}
	first, err := peeked.r.Peek(1)
	if err != nil {
		return nil, false, fmt.Errorf("first byte: %w", err)
	}
	if err := secured.SetReadDeadline(time.Time{}); err != nil {
		return nil, false, err
	}
	return peeked, first[0] == mqttConnect, nil
}

// handshake waits until the client begins and for a place among those under way,
// and completes TLS, all within the time for it.
func (s *sharedPort) handshake(ctx context.Context, conn *tls.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := inlet.Await(ctx, conn); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	leave, err := s.begin(ctx, conn.RemoteAddr())
	if err != nil {
		return err
	}
	defer leave()
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	return nil
}

// peekedConn is a TLS connection whose first byte may have been looked at.
// Embedding keeps the handshake's methods visible to the broker.
type peekedConn struct {
	*tls.Conn
	r *bufio.Reader
}

// Read returns what was peeked first.
func (c *peekedConn) Read(p []byte) (int, error) {
	if c.r != nil {
		if c.r.Buffered() > 0 {
			return c.r.Read(p[:min(len(p), c.r.Buffered())])
		}
		c.r = nil
	}
	return c.Conn.Read(p)
}

// connKey carries the connection of a request to its handler.
type connKey struct{}

func withConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// handedListener feeds connections to an HTTP server.
type handedListener struct {
	addr   net.Addr
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

// Accept waits for the next handed connection.
func (l *handedListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *handedListener) hand(ctx context.Context, conn net.Conn) {
	select {
	case l.conns <- conn:
		return
	case <-l.closed:
	case <-ctx.Done():
	}
	_ = conn.Close() // nobody takes it
}

// Close makes Accept fail.
func (l *handedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr is that of the port.
func (l *handedListener) Addr() net.Addr { return l.addr }

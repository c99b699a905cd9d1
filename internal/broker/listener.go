package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/muster-iot/muster/internal/inlet"
)

// Serve accepts connections until ctx ends, the listener is closed or the
// broker is shut down; it owns the listener. Errors of single accepts, such as
// a lack of file descriptors, are waited out.
func (b *Broker) Serve(ctx context.Context, l net.Listener, o ListenerOptions) error {
	if !b.enlist(l) {
		return errors.Join(ErrClosed, l.Close())
	}
	defer b.delist(l)
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	pause := time.Duration(0)
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			b.running.Go(func() { _ = b.admit(ctx, conn, o) }) // it has told the log
		case errors.Is(err, net.ErrClosed) || ctx.Err() != nil || b.stopped():
			return nil
		default:
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			b.logger.WarnContext(ctx, "connection cannot be accepted", slog.String("listener", o.Name), slog.Any("err", err))
			if !b.rest(ctx, pause) {
				return nil
			}
		}
	}
}

// Handle takes over one connection, TLS handshake included when it is still to
// be done. It returns when the CONNECT has been answered; the session lives
// on. ctx bounds the admission only, not the session.
func (b *Broker) Handle(ctx context.Context, conn net.Conn, o ListenerOptions) error {
	b.mu.Lock()
	if b.closing {
		b.mu.Unlock()
		return errors.Join(ErrClosed, conn.Close())
	}
	b.running.Add(1)
	b.mu.Unlock()
	defer b.running.Done()
	return b.admit(ctx, conn, o)
}

// enlist registers a listener unless the broker is shut down, and counts the
// goroutine that serves it.
func (b *Broker) enlist(l net.Listener) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing {
		return false
	}
	b.running.Add(1)
	b.listeners[l] = struct{}{}
	return true
}

// delist forgets a listener and closes it.
func (b *Broker) delist(l net.Listener) {
	_ = l.Close()
	b.mu.Lock()
	delete(b.listeners, l)
	b.mu.Unlock()
	b.running.Done()
}

// stopped reports whether Shutdown has begun.
func (b *Broker) stopped() bool {
	select {
	case <-b.stop:
		return true
	default:
		return false
	}
}

// rest waits, and reports false when serving is over.
func (b *Broker) rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-b.stop:
	}
	return false
}

// secure is a connection with TLS. Wrappers around a tls.Conn keep these
// methods by embedding it.
type secure interface {
	HandshakeContext(ctx context.Context) error
	ConnectionState() tls.ConnectionState
}

// handshake completes TLS, a bounded number at a time so that a storm of
// reconnects cannot take all memory, and a smaller one for each source so that
// silent peers cannot keep everybody else waiting.
func (b *Broker) handshake(ctx context.Context, conn net.Conn) (*tls.ConnectionState, error) {
	s, ok := conn.(secure)
	if !ok {
		return nil, nil //nolint:nilnil // no TLS, no state, no error
	}
	if state := s.ConnectionState(); state.HandshakeComplete {
		return &state, nil
	}
	ctx, cancel := context.WithTimeout(ctx, b.limits.HandshakeTimeout)
	defer cancel()
	if err := inlet.Await(ctx, conn); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	leave, err := b.BeginHandshake(ctx, conn.RemoteAddr())
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := s.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	state := s.ConnectionState()
	return &state, nil
}

package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/muster-iot/muster/internal/store"
)

const (
	// pollEvery bounds how long a lost notification goes unnoticed.
	pollEvery = 100 * time.Millisecond
	// firstPause and longestPause bound the wait between attempts to connect.
	firstPause   = 50 * time.Millisecond
	longestPause = 2 * time.Second
	channel      = "muster_events"
)

// watcher notices events that other processes append.
type watcher struct {
	config *pgx.ConnConfig
	tail   *store.Tail
	log    *slog.Logger
}

// run watches until closing closes, over as many connections as it takes.
func (w *watcher) run(ctx context.Context, closing <-chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	stopped := make(chan struct{})
	defer func() { cancel(); <-stopped }()
	go func() {
		defer close(stopped)
		select {
		case <-closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	pause := firstPause
	for {
		heard, err := w.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		if heard {
			pause = firstPause
		}
		w.log.WarnContext(ctx, "store does not report events of other nodes and is asked again", slog.Duration("pause", pause), slog.Any("err", err))
		if !rest(ctx, pause) {
			return
		}
		pause = min(2*pause, longestPause)
	}
}

// listen follows one connection until it breaks, and reports whether it came
// to be.
func (w *watcher) listen(ctx context.Context) (bool, error) {
	conn, err := pgx.ConnectConfig(ctx, w.config)
	if err != nil {
		return false, fmt.Errorf("connect to the store: %w", err)
	}
	defer hangUp(ctx, conn)
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return false, fmt.Errorf("listen for events: %w", err)
	}
	for {
		var head int64
		if err := conn.QueryRow(ctx, "SELECT seq FROM muster_head WHERE id = 1").Scan(&head); err != nil {
			return true, fmt.Errorf("read the end of the log: %w", err)
		}
		w.tail.Advance(uint64(head))
		if err := w.notified(ctx, conn); err != nil {
			return true, err
		}
	}
}

// notified waits for a notification or for the time of the next poll.
func (w *watcher) notified(ctx context.Context, conn *pgx.Conn) error {
	poll, cancel := context.WithTimeout(ctx, pollEvery)
	defer cancel()
	_, err := conn.WaitForNotification(poll)
	if err != nil && ctx.Err() == nil && errors.Is(poll.Err(), context.DeadlineExceeded) && !conn.IsClosed() {
		return nil
	}
	return err
}

// rest waits, and reports false when ctx ended first.
func rest(ctx context.Context, pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// hangUpTimeout bounds the farewell to the server.
const hangUpTimeout = time.Second

// hangUp closes a connection, also after ctx has ended.
func hangUp(ctx context.Context, conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hangUpTimeout)
	defer cancel()
	_ = conn.Close(ctx) // the server notices by itself
}

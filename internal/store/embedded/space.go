package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/muster-iot/muster/internal/store"
)

const (
	defaultReserve = 128 << 20
	// watchEvery is how often the free space is looked at without load.
	watchEvery = 500 * time.Millisecond
	// recheckBytes is how much may be written between two looks under load.
	recheckBytes = 8 << 20
)

// space refuses writes before the disk is full: pebble cannot go on once its
// own log or a compaction fails to write, so room for both is kept back.
type space struct {
	fs      vfs.FS
	dir     string
	reserve int64
	log     *slog.Logger
	free    atomic.Int64
	full    atomic.Bool
	// written counts bytes since the last look; it belongs to the committer.
	written int64
}

func newSpace(o Options) (*space, error) {
	s := &space{dir: o.Dir, reserve: o.ReserveBytes, log: o.Logger}
	switch {
	case o.ReserveBytes == 0:
		s.reserve = defaultReserve
	case o.ReserveBytes < 0:
		s.reserve = 0
	}
	// When a write meets a full disk all the same, because others fill it
	// too, the wrapper retries it once after this call.
	s.fs = vfs.OnDiskFull(o.FS, func() {
		if !s.full.Swap(true) {
			s.log.Error("disk is full; commits are refused until there is space", slog.String("dir", s.dir))
		}
	})
	if err := s.look(); err != nil {
		return nil, fmt.Errorf("measure free space of %s: %w", o.Dir, err)
	}
	return s, nil
}

// look measures the free space. A file system that cannot tell never refuses.
func (s *space) look() error {
	usage, err := s.fs.GetDiskUsage(s.dir)
	if errors.Is(err, vfs.ErrUnsupported) || errors.Is(err, syscall.ENOSYS) {
		s.free.Store(-1)
		return nil
	}
	if err != nil {
		return err
	}
	free := int64(min(usage.AvailBytes, 1<<62))
	s.free.Store(free)
	if free > s.reserve {
		if s.full.Swap(false) {
			s.log.Info("disk has space again; commits are accepted", slog.String("dir", s.dir), slog.Int64("free_bytes", free))
		}
		return nil
	}
	if !s.full.Swap(true) {
		s.log.Error("disk is nearly full; commits are refused until there is space", slog.String("dir", s.dir),
			slog.Int64("free_bytes", free), slog.Int64("reserve_bytes", s.reserve))
	}
	return nil
}

// check answers store.ErrDiskFull when a write of the size would eat into the
// reserve.
func (s *space) check(size int) error {
	s.written += int64(size)
	if s.full.Load() || s.written > recheckBytes {
		if err := s.look(); err != nil {
			return fmt.Errorf("measure free space: %w", err)
		}
		s.written = int64(size)
	}
	free := s.free.Load()
	if s.full.Load() || free >= 0 && free < s.reserve+int64(size) {
		return fmt.Errorf("%w: %d bytes are free and %d are kept in reserve", store.ErrDiskFull, free, s.reserve)
	}
	return nil
}

// available is the free space in bytes, 0 when unknown.
func (s *space) available() uint64 { return uint64(max(0, s.free.Load())) }

// watch keeps the measurement fresh until the engine closes.
func (s *space) watch(closing <-chan struct{}) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := s.look(); err != nil {
				s.log.Warn("cannot measure free space", slog.String("dir", s.dir), slog.Any("err", err))
			}
		case <-closing:
			return
		}
	}
}

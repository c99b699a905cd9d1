package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/muster-iot/muster/internal/store"
)

const (
	defaultReserve = 128 << 20
	defaultBallast = 16 << 20
	// defaultLook is how often the free space is looked at without load.
	defaultLook = 500 * time.Millisecond
	// recheckBytes is how much may be written between two looks under load.
	recheckBytes = 8 << 20
	// probeBytes is what must fit before a stalled write is tried again.
	probeBytes  = 1 << 20
	ballastName = "BALLAST"
	probeName   = "PROBE"
)

// space refuses commits before the disk is full, and holds pebble's writes back
// when it is full all the same: pebble cannot go on once its log fails.
type space struct {
	// fs is what pebble writes through; raw is what lies below it.
	fs, raw   vfs.FS
	dir       string
	reserve   int64
	ballast   int64
	lookEvery time.Duration
	log       *slog.Logger
	// free is -1 on a file system that cannot tell.
	free atomic.Int64
	full atomic.Bool
	// written counts bytes since the last look; it belongs to the committer.
	written int64

	// mu guards the ballast file.
	mu   sync.Mutex
	held bool
}

func newSpace(o Options) (*space, error) {
	s := &space{
		raw: o.FS, dir: o.Dir, log: o.Logger,
		reserve:   orDefault(o.ReserveBytes, defaultReserve),
		ballast:   orDefault(o.BallastBytes, defaultBallast),
		lookEvery: defaultLook,
	}
	if o.LookEvery > 0 {
		s.lookEvery = o.LookEvery
	}
	s.fs = vfs.OnDiskFull(o.FS, s.makeRoom)
	if _, err := s.raw.Stat(s.path(ballastName)); err == nil {
		s.held = true
	}
	if err := s.look(); err != nil {
		return nil, fmt.Errorf("measure free space of %s: %w", o.Dir, err)
	}
	return s, nil
}

// orDefault reads a size of the options: 0 is the default, negative is none.
func orDefault(n, standard int64) int64 {
	if n == 0 {
		return standard
	}
	return max(0, n)
}

func (s *space) path(name string) string { return s.raw.PathJoin(s.dir, name) }

// look measures the free space. A file system that cannot tell never refuses.
func (s *space) look() error {
	usage, err := s.raw.GetDiskUsage(s.dir)
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
	if s.full.Load() || free >= 0 && free < s.reserve+s.written {
		return fmt.Errorf("%w: %d bytes are free and %d are kept in reserve", store.ErrDiskFull, free, s.reserve)
	}
	return nil
}

// available is the free space in bytes, 0 when unknown.
func (s *space) available() uint64 { return uint64(max(0, s.free.Load())) }

// watch keeps the measurement fresh until the engine closes.
func (s *space) watch(closing <-chan struct{}) {
	tick := time.NewTicker(s.lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := s.look(); err != nil {
				s.log.Warn("cannot measure free space", slog.String("dir", s.dir), slog.Any("err", err))
			}
			s.keepBallast(s.free.Load())
		case <-closing:
			return
		}
	}
}

// makeRoom runs when a write of pebble found the disk full; the write is tried
// once more after it. It gives up the ballast and waits until there is space,
// for as long as it takes: commits that wait end with their callers' contexts.
func (s *space) makeRoom() {
	s.full.Store(true)
	s.log.Error("disk is full; commits are refused and writes wait for space", slog.String("dir", s.dir), slog.Bool("ballast_given_up", s.dropBallast()))
	tick := time.NewTicker(s.lookEvery)
	defer tick.Stop()
	for s.probe() != nil {
		<-tick.C
	}
	s.log.Info("writes go on", slog.String("dir", s.dir))
	if s.free.Load() < 0 {
		// Nobody else would notice on a file system that cannot tell.
		s.full.Store(false)
	}
}

// probe finds out by writing whether there is space.
func (s *space) probe() error {
	err := s.fill(s.path(probeName), probeBytes)
	if removeErr := s.raw.Remove(s.path(probeName)); err == nil {
		err = removeErr
	}
	return err
}

// fill writes a file of zeros.
func (s *space) fill(path string, size int64) error {
	f, err := s.raw.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	zeros := make([]byte, min(size, 1<<20))
	for left := size; left > 0 && err == nil; left -= int64(len(zeros)) {
		_, err = f.Write(zeros[:min(left, int64(len(zeros)))])
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// keepBallast makes the ballast file once there is plenty of space. It takes
// its time, which neither a start nor a commit should wait for.
func (s *space) keepBallast(free int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held || s.ballast == 0 || free < s.reserve+4*s.ballast {
		return
	}
	if err := s.fill(s.path(ballastName), s.ballast); err != nil {
		s.log.Warn("no ballast is kept", slog.String("dir", s.dir), slog.Any("err", err))
		return
	}
	s.held = true
}

// dropBallast removes the ballast file and reports whether there was one.
func (s *space) dropBallast() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.held {
		return false
	}
	s.held = false
	if err := s.raw.Remove(s.path(ballastName)); err != nil {
		s.log.Warn("ballast is not removed", slog.String("dir", s.dir), slog.Any("err", err))
		return false
	}
	return true
}

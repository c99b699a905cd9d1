package shadow

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Store is the part of the storage contract that shadows need.
type Store interface {
	store.Reader
	Commit(ctx context.Context, b store.Batch) (store.Position, error)
}

// Things answers whether a thing is registered.
type Things interface {
	ThingExists(ctx context.Context, account fleet.Account, thing string) (bool, error)
}

// Options of a Service. Store and Now are required.
type Options struct {
	Store  Store
	Now    func() time.Time
	Limits Limits
	// CacheBytes bounds the documents kept in memory; 0 means 256 MiB.
	CacheBytes int64
	// Shared says that other processes write to the same store: each request
	// then reads the record, and the cache saves only the decoding. Without
	// it this process is the only writer.
	Shared bool
	// TellWhole lets events carry whole documents now and then, from which a
	// history is made.
	TellWhole bool
	// RequireThing, when set, refuses updates and reads of shadows whose
	// thing is not registered. By default a shadow needs no registry entry.
	RequireThing Things
	// Registerer takes the metrics; nil keeps them private.
	Registerer prometheus.Registerer
}

// defaultCacheBytes holds about fifty thousand small documents.
const defaultCacheBytes = 256 << 20

// Service is the shadow service of all accounts. It is safe for concurrent
// use; requests for one shadow are carried out one after the other.
type Service struct {
	store   Store
	now     func() time.Time
	limits  Limits
	shared  bool
	things  Things
	whole   bool
	rate    *rate
	cache   *cache
	locks   *locks
	metrics *metrics
}

// New returns a service.
func New(o Options) *Service {
	if o.CacheBytes <= 0 {
		o.CacheBytes = defaultCacheBytes
	}
	return &Service{
		store:   o.Store,
		now:     o.Now,
		limits:  o.Limits.withDefaults(),
		shared:  o.Shared,
		things:  o.RequireThing,
		whole:   o.TellWhole,
		rate:    newRate(o.Limits.PerSecond),
		cache:   newCache(o.CacheBytes),
		locks:   newLocks(),
		metrics: newMetrics(o.Registerer),
	}
}

// checkThing refuses an unregistered thing if the settings ask for it.
func (s *Service) checkThing(ctx context.Context, id identity) error {
	if s.things == nil {
		return nil
	}
	ok, err := s.things.ThingExists(ctx, id.account, id.thing)
	if err != nil {
		return fmt.Errorf("look up thing %q: %w", id.thing, err)
	}
	if !ok {
		return &fault.Error{Code: fault.ResourceNotFound, Message: msgNoThing}
	}
	return nil
}

// guess returns the document that this process saw last, for a change: the
// commit tells whether it is still the one that is stored. The caller holds the
// shadow's lock.
func (s *Service) guess(ctx context.Context, id identity) (d *document, version uint64, sure bool, err error) {
	if d, version, hit := s.cache.get(id); hit && s.shared {
		s.metrics.cacheHits.Inc()
		return d, version, false, nil
	}
	d, version, err = s.load(ctx, id)
	return d, version, true, err
}

// load returns the committed document and its record's version, 0 when there is
// no record. The caller holds the shadow's lock.
func (s *Service) load(ctx context.Context, id identity) (d *document, version uint64, err error) {
	d, version, hit := s.cache.get(id)
	if hit && !s.shared {
		s.metrics.cacheHits.Inc()
		return d, version, nil
	}
	record, err := s.store.Get(ctx, id.key())
	if errors.Is(err, store.ErrNotFound) {
		s.cache.drop(id)
		return absent(), 0, nil
	}
	if err != nil {
		return nil, 0, storeFault(err, "read shadow")
	}
	if hit && sameRecord(record.Value, d) {
		s.metrics.cacheHits.Inc()
		return d, record.Version, nil
	}
	s.metrics.cacheMisses.Inc()
	if d, err = decodeRecord(record.Value); err != nil {
		return nil, 0, fmt.Errorf("read shadow %q of %q: %w", id.shadow, id.thing, err)
	}
	s.cache.put(id, d, record.Version)
	return d, record.Version, nil
}

// storeFault turns an error of the store into one that callers may see.
func storeFault(err error, doing string) error {
	switch {
	case errors.Is(err, store.ErrDiskFull):
		return fault.Wrap(fault.Unavailable, fmt.Errorf("%s: %w", doing, err), "The server is out of storage space")
	case errors.Is(err, store.ErrClosed):
		return fault.Wrap(fault.Unavailable, fmt.Errorf("%s: %w", doing, err), "The server is shutting down")
	case errors.Is(err, store.ErrUnavailable):
		return fault.Wrap(fault.Unavailable, fmt.Errorf("%s: %w", doing, err), "The store is not available at the moment")
	default:
		return fault.Wrap(fault.Internal, fmt.Errorf("%s: %w", doing, err), "Internal service failure")
	}
}

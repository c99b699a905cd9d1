package allowlist

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/store"
)

// Options are what a Service needs; all are required unless said otherwise.
type Options struct {
	Store store.Store
	// Identity opens lists; without one every operation on lists is refused in words.
	Identity *Identity
	Now      func() time.Time
	// NewID returns a fresh UUID.
	NewID  func() string
	Logger *slog.Logger
	// Registerer is optional.
	Registerer prometheus.Registerer
}

// Service keeps the suppliers and allow lists of all accounts. It is safe for
// concurrent use.
type Service struct {
	o       Options
	keys    openKeys
	matches *prometheus.CounterVec
}

// New returns a Service.
func New(o Options) *Service {
	s := &Service{o: o, matches: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "muster_allow_list_matches_total", Help: "Devices that were looked for in allow lists, by what was found.",
	}, []string{"outcome"})}
	if o.Registerer != nil {
		o.Registerer.MustRegister(s.matches)
	}
	return s
}

// Recipient is for whom suppliers encrypt lists, the text of an age recipient.
func (s *Service) Recipient() (string, error) {
	if s.o.Identity == nil {
		return "", errNoIdentity()
	}
	return s.o.Identity.recipient, nil
}

// maxPage is the most that one page of a list holds.
const maxPage = 250

// page walks a range behind the last part of a key until so many were taken, and
// returns what the next page begins after, empty on the last one.
func (s *Service) page(ctx context.Context, parts []string, after string, limit int, take func(store.Record) error) (next string, err error) {
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	within := store.Under(parts...)
	if after != "" {
		within = within.After(store.K(append(parts, after)...))
	}
	taken, last := 0, ""
	err = s.o.Store.Scan(ctx, within, func(found store.Record) error {
		if taken == limit {
			next = last
			return store.Stop
		}
		taken++
		last = found.Key.Last()
		return take(found)
	})
	return next, store.Fault(err)
}

package provisioning

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/inlet"
	"github.com/muster-iot/muster/internal/registry"
)

const (
	// maxNewcomers is how many certificates wait to be looked at; more than that
	// are dropped, and looked at when their device comes back.
	maxNewcomers = 4096
	// newcomerWorkers is how many are looked at at a time.
	newcomerWorkers = 4
	// newcomerPatience bounds the work for one, also beyond the end of Run.
	newcomerPatience = 10 * time.Second
	// newcomerWindow bounds records and lines about a certificate that is refused.
	newcomerWindow = time.Minute
	// newcomerLines bounds those of all certificates together in that time.
	newcomerLines = 1000
)

// What becomes of those who are introduced, as labels.
const (
	// introducedStranger has an issuer that the account does not know.
	introducedStranger = "stranger"
	// introducedDropped came when too many waited, introducedAgain while it was
	// being looked at.
	introducedDropped = "dropped"
	introducedAgain   = "again"
	// introducedRegistered waits for others to activate it, for the first time;
	// introducedAnnounced was announced again, introducedWaiting was not.
	introducedRegistered = "registered"
	introducedAnnounced  = "announced"
	introducedWaiting    = "waiting"
	// introducedProvisioned has gone through its authority's template,
	// introducedRefused has not.
	introducedProvisioned = "provisioned"
	introducedRefused     = "refused"
	// introducedNotRegistered is not taken up, for a reason in the certificate or
	// its authority.
	introducedNotRegistered = "not_registered"
	// introducedKnown is registered and waits for nothing here.
	introducedKnown = "known"
	// introducedFailed could not be looked at.
	introducedFailed = "failed"
)

// newcomers are the certificates that wait to be looked at.
type newcomers struct {
	queue chan newcomer
	mu    sync.Mutex
	// held are those that wait or are looked at.
	held map[newcomerKey]struct{}
	// records and lines bound what refusals write.
	records, lines *inlet.Quota
}

// newcomerKey tells newcomers apart.
type newcomerKey struct {
	account fleet.Account
	id      string
}

// newcomer is a certificate with the account that it came to.
type newcomer struct {
	newcomerKey
	registry.Newcomer
}

func newNewcomers() newcomers {
	return newcomers{
		queue: make(chan newcomer, maxNewcomers), held: map[newcomerKey]struct{}{},
		records: inlet.NewQuota(1, newcomerLines, newcomerWindow), lines: inlet.NewQuota(1, newcomerLines, newcomerWindow),
	}
}

// Introduce queues a certificate that has connected and may not, for JustInTime,
// and returns what can be told of it at once. Registered says that it is known
// and waits. It does not wait for anything but one read.
func (s *Service) Introduce(ctx context.Context, account fleet.Account, n registry.Newcomer, registered bool) string {
	if !registered {
		known, err := s.o.Registry.KnownIssuer(ctx, account, n.Certificate)
		if err != nil {
			s.metrics.introductions.WithLabelValues(introducedFailed).Inc()
			return ""
		}
		if !known {
			s.metrics.introductions.WithLabelValues(introducedStranger).Inc()
			return "it cannot register by connecting: its issuer is no registered CA certificate"
		}
	}
	w := newcomer{newcomerKey{account, registry.CertificateID(n.Certificate.Raw)}, n}
	s.newcomers.mu.Lock()
	defer s.newcomers.mu.Unlock()
	if _, ok := s.newcomers.held[w.newcomerKey]; ok {
		s.metrics.introductions.WithLabelValues(introducedAgain).Inc()
		return ""
	}
	select {
	case s.newcomers.queue <- w:
		s.newcomers.held[w.newcomerKey] = struct{}{}
		return ""
	default:
		s.metrics.introductions.WithLabelValues(introducedDropped).Inc()
		return "too many new devices connect at this moment: it is looked at when it connects again"
	}
}

// RunIntroductions looks at those who were introduced until ctx ends, and
// returns when nobody is looked at any more. Who is left in the queue then is
// taken up at the next connect.
func (s *Service) RunIntroductions(ctx context.Context) error {
	var working sync.WaitGroup
	for range newcomerWorkers {
		working.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case w := <-s.newcomers.queue:
					if ctx.Err() == nil {
						s.introduce(ctx, w)
					}
					s.newcomers.mu.Lock()
					delete(s.newcomers.held, w.newcomerKey)
					s.newcomers.mu.Unlock()
				}
			}
		})
	}
	working.Wait()
	return nil
}

// introduce looks at one and tells what became of it. It goes on when the server
// stops: what is begun is finished.
func (s *Service) introduce(ctx context.Context, w newcomer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), newcomerPatience)
	defer cancel()
	found, err := s.JustInTime(ctx, w.account, w.Newcomer)
	told := ""
	switch {
	case err != nil && transient(err):
		s.o.Logger.ErrorContext(ctx, "new certificate cannot be looked at", slog.String("account", string(w.account)),
			slog.String("certificate", w.id), slog.Any("err", err))
		told = "it could not be looked at whether it may register by connecting: the server's log has the error"
	case errors.Is(err, ErrPending):
		told = "it registered by connecting and waits for approval: " + fault.From(err).Message
	case err != nil && found.Status == "":
		told = "it cannot register by connecting: " + reasonOf(err)
	case err != nil:
		told = "it registered by connecting and was not provisioned: " + reasonOf(err)
	case found.Waiting:
		told = "it registered by connecting, under the CA certificate " + found.CA + ", and waits for its activation"
	case found.CA != "":
		told = "it registered by connecting, under the CA certificate " + found.CA + ", and is " + found.Status + " now: the device may connect again"
	}
	if told != "" && s.o.Tell != nil {
		s.o.Tell(w.account, w.id, told)
	}
}

// outcomeOf is the label of somebody who was provisioned by no template.
func outcomeOf(found *registry.Introduction) string {
	switch {
	case !found.Waiting:
		return introducedKnown
	case found.New:
		return introducedRegistered
	case found.Announced:
		return introducedAnnounced
	}
	return introducedWaiting
}

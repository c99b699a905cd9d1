package app

import (
	"bytes"
	"context"
	"log/slog"
	"math/big"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/pki"
	"github.com/muster-iot/muster/internal/registry"
	"github.com/muster-iot/muster/internal/store"
)

// crlPath is where everybody finds the revocation list of our own device
// authority.
const crlPath = "/crl/issuing-ca.crl"

const (
	// crlLifetime is from one update of the list to the next that it announces;
	// a new one is made at half of it.
	crlLifetime = 7 * 24 * time.Hour
	// crlMaxAge is how long proxies may keep a list: it can change any moment.
	crlMaxAge = time.Minute
	// crlRest is how many times as long as it took to make a list the next one
	// waits: asking for it costs no password.
	crlRest = 4
)

// crlSigner signs lists.
type crlSigner interface {
	RevocationList(number *big.Int, thisUpdate, nextUpdate time.Time, revoked []pki.Revoked) ([]byte, error)
}

// revocations publishes our own list. It is made when somebody asks and the
// last one is no longer true, one at a time.
type revocations struct {
	store  store.Reader
	signer crlSigner
	now    func() time.Time
	log    *slog.Logger
	// before makes up for what earlier versions did not write down.
	before func(ctx context.Context) error
	// heard counts revocations in the log.
	heard atomic.Uint64

	mu   sync.Mutex
	list []byte
	// made is the list's time, number its CRL number, which are one: it grows
	// over restarts and needs no place in the store.
	made   time.Time
	number int64
	// covers is what had been heard when it was made.
	covers uint64
	rest   time.Time
}

// Apply hears of revocations; it is a consumer of the log.
func (r *revocations) Apply(_ context.Context, events []event.Envelope) error {
	for i := range events {
		if e, ok := events[i].Event.(event.CertificateStatusChanged); ok && e.Status == registry.StatusRevoked {
			r.heard.Add(1)
		}
	}
	return nil
}

// current returns a list that is true, with its time and number.
func (r *revocations) current(ctx context.Context) (list []byte, made time.Time, number int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	fresh := r.list != nil && now.Before(r.made.Add(crlLifetime/2)) && (r.covers == r.heard.Load() || now.Before(r.rest))
	if fresh {
		return r.list, r.made, r.number, nil
	}
	if err := r.make(ctx, now); err != nil {
		return nil, time.Time{}, 0, err
	}
	return r.list, r.made, r.number, nil
}

// make signs a new list; the caller holds the lock.
func (r *revocations) make(ctx context.Context, now time.Time) error {
	covers := r.heard.Load()
	if r.list == nil {
		if err := r.before(ctx); err != nil {
			return err
		}
	}
	var revoked []pki.Revoked
	err := registry.EachRevoked(ctx, r.store, now, func(serial *big.Int, at time.Time) error {
		revoked = append(revoked, pki.Revoked{Serial: serial, At: at})
		return nil
	})
	if err != nil {
		return err
	}
	number := max(now.UnixMilli(), r.number+1)
	list, err := r.signer.RevocationList(big.NewInt(number), now, now.Add(crlLifetime), revoked)
	if err != nil {
		return err
	}
	r.list, r.made, r.number, r.covers = list, now, number, covers
	done := r.now()
	r.rest = done.Add(crlRest * done.Sub(now))
	return nil
}

// ServeHTTP answers the list in DER.
func (r *revocations) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if request.Method != http.MethodGet && request.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		answer(w, http.StatusMethodNotAllowed, "GET or HEAD")
		return
	}
	list, made, number, err := r.current(request.Context())
	if err != nil {
		r.log.ErrorContext(request.Context(), "the revocation list cannot be made", slog.Any("err", err))
		answer(w, http.StatusServiceUnavailable, "the revocation list cannot be made now")
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/pkix-crl")
	h.Set("Cache-Control", "public, max-age="+strconv.Itoa(int(crlMaxAge/time.Second)))
	h.Set("Etag", `"`+strconv.FormatInt(number, 10)+`"`)
	http.ServeContent(w, request, "issuing-ca.crl", made, bytes.NewReader(list))
}

// joinRevocations prepares the publication of our own list.
func (a *App) joinRevocations(context.Context) error {
	a.revocations = &revocations{store: a.store, signer: a.pki, now: now, log: a.component("crl"), before: a.registry.RecordRevoked}
	return nil
}

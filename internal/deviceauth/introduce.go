package deviceauth

import (
	"context"
	"crypto/x509"
	"encoding/json"

	"github.com/muster-iot/muster/internal/fleet"
)

// statusPendingActivation is the state of a certificate that waits.
const statusPendingActivation = "PENDING_ACTIVATION"

// Stranger is a peer that has proved to hold the key of a certificate and may
// not connect, since nobody knows the certificate or it waits for activation.
type Stranger struct {
	Account     fleet.Account
	Certificate *x509.Certificate
	// Named says that the peer has chosen the account by its endpoint's name.
	Named bool
	// Registered says that the certificate is known and waits.
	Registered bool
}

// introduce hands over who might be registered by connecting. The peer stays
// refused; what was found out so far is told to whoever asks why.
func (s *Service) introduce(ctx context.Context, id *Identity) {
	if s.introducer == nil || !id.strange {
		return
	}
	told := s.introducer(ctx, Stranger{
		Account: id.Account, Certificate: id.certificate, Named: s.named(id.ServerName), Registered: id.Principal.ARN != "",
	})
	if told != "" {
		s.Tell(id.Account, id.Principal.ID, told)
	}
}

// Tell adds to the last refusal of a certificate's CONNECT what became known
// afterwards, in place of what was told before. It does nothing without such a
// refusal.
func (s *Service) Tell(account fleet.Account, certificateID, hint string) {
	book := bookKey{account: account, name: certificateID}
	into := &s.known
	if s.strange.lastConnect(book) > into.lastConnect(book) {
		into = &s.strange // it is registered since then
	}
	into.tell(book, brief(hint))
}

// newestConnect is the CONNECT in a book that was refused last, nil for none; the
// ledger is locked.
func (l *ledger) newestConnect(book bookKey) *entry {
	var newest *entry
	for _, e := range l.books[book] {
		if e.key.packet == PacketConnect && (newest == nil || e.last.Load() > newest.last.Load()) {
			newest = e
		}
	}
	return newest
}

// lastConnect is when the newest refused CONNECT of a book was, 0 without one.
func (l *ledger) lastConnect(book bookKey) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.newestConnect(book); e != nil {
		return e.last.Load()
	}
	return 0
}

// tell sets the hint of the newest refused CONNECT in a book.
func (l *ledger) tell(book bookKey, hint string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	newest := l.newestConnect(book)
	if newest == nil {
		return
	}
	var r Refusal
	if json.Unmarshal(newest.detail, &r) != nil || r.Outcome != OutcomeUnauthenticated {
		return
	}
	r.Hints = []string{hint}
	detail := encode(&r)
	l.bytes += len(detail) - len(newest.detail)
	newest.size += len(detail) - len(newest.detail)
	newest.detail = detail
	l.shrink(newest)
}

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
	for _, l := range []*ledger{&s.known, &s.strange} {
		l.tell(bookKey{account: account, name: certificateID}, brief(hint))
	}
}

// tell sets the hint of the newest refused CONNECT in a book.
func (l *ledger) tell(book bookKey, hint string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var newest *entry
	for _, e := range l.books[book] {
		if e.key.packet == PacketConnect && (newest == nil || e.last.Load() > newest.last.Load()) {
			newest = e
		}
	}
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

package app

import (
	"context"
	"sync"

	"github.com/muster-iot/muster/internal/account"
	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
)

// sessions let the API know the credentials of sessions.
type sessions struct{ accounts *account.Service }

// SessionKey implements awsapi.Sessions.
func (s sessions) SessionKey(ctx context.Context, accessKeyID, token string) (awsapi.SessionKey, error) {
	found, err := s.accounts.OpenSession(ctx, accessKeyID, token)
	return awsapi.SessionKey{
		Secret: found.Secret, Account: found.Account, Principal: found.Principal, Began: found.Began, Until: found.Until,
	}, err
}

// proven adds to a context how a caller was proven.
func proven(ctx context.Context, caller awsapi.Caller) context.Context {
	return account.WithProof(ctx, account.Proof{
		AccessKeyID: caller.AccessKeyID, SessionBegan: caller.SessionBegan, SourceAddress: caller.SourceAddress, Secure: caller.Secure,
	})
}

// signedConnections are the open connections that an access key or a session
// stands for.
type signedConnections struct {
	mu   sync.Mutex
	open map[*signedGuard]string
}

// add notes a connection under its client id.
func (s *signedConnections) add(g *signedGuard, clientID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[*signedGuard]string{}
	}
	s.open[g] = clientID
}

// remove forgets a connection that has ended.
func (s *signedConnections) remove(g *signedGuard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, g)
}

// of returns the connections of an account.
func (s *signedConnections) of(account fleet.Account) map[*signedGuard]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[*signedGuard]string{}
	for g, clientID := range s.open {
		if g.scope.Account == account {
			found[g] = clientID
		}
	}
	return found
}

// applyOperators makes permissions of operators follow the log, and ends the
// connections whose key or session is void. Permissions that a connection lost
// are refused packet by packet.
func (a *App) applyOperators(events []event.Envelope) {
	for _, changed := range a.accounts.Apply(events) {
		for guard, clientID := range a.gatekeeper.signed.of(changed) {
			if a.accounts.Valid(guard.ctx, guard.principal) != nil {
				a.broker.Disconnect(changed, clientID, broker.ReasonAuthError)
			}
		}
	}
}

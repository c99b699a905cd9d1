package audit

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// open brings up an account's chain for a batch. A head that somebody else wrote
// is not carried on as if it were ours, since signing the next one would vouch
// for it: the chain goes on behind what is stored, and a record says so.
func (s *Service) open(ctx context.Context, b *store.Batch, chains map[fleet.Account]*chain, account fleet.Account) (*chain, error) {
	head, version, err := readHead(ctx, s.store, headKey(account), headOf, account)
	if err != nil && !errors.Is(err, errHead) {
		return nil, err
	}
	problem, err := s.doubt(ctx, account, head, version, err)
	if err != nil {
		return nil, err
	}
	if problem != "" {
		// Another node may have come on between the two reads.
		_, now, err := readHead(ctx, s.store, headKey(account), headOf, account)
		if err != nil && !errors.Is(err, errHead) {
			return nil, err
		}
		if now != version {
			return nil, fmt.Errorf("open the audit trail of %s: %w", account, &store.ConflictError{Key: headKey(account)})
		}
	}
	c := &chain{head, version}
	chains[account] = c
	if problem == "" {
		return c, nil
	}
	claimed := head.Seq
	if c.head, err = s.last(ctx, account); err != nil {
		return nil, err
	}
	s.o.Logger.ErrorContext(ctx, "head of the audit trail is not what was written; run muster audit verify",
		slog.String("account", string(account)), slog.String("reason", problem))
	mended := serviceEvent("AuditChainMended", map[string]any{"reason": problem, "headSaid": claimed, "continuedBehind": c.head.Seq})
	mended.ID = newID()
	record, _, err := s.recordOf(&event.Envelope{Account: account, At: s.o.Now(), Actor: fleet.System, Event: mended})
	if err != nil {
		return nil, err
	}
	return c, s.add(ctx, b, chains, record)
}

// doubt says what is wrong with a stored head, "" for nothing.
func (s *Service) doubt(ctx context.Context, account fleet.Account, head Head, version uint64, malformed error) (string, error) {
	if malformed != nil {
		return "the head cannot be read", nil
	}
	if version != 0 {
		if err := s.ours(head, headOf, account); err != nil {
			return "the head is not ours: " + err.Error(), nil
		}
	}
	keys := []store.Key{recordKey(account, head.Seq+1)}
	if version == 0 {
		keys = append(keys, anchorKey(account))
	}
	found, err := s.store.GetMany(ctx, keys)
	if err != nil {
		return "", fmt.Errorf("read the end of the audit trail: %w", err)
	}
	for _, record := range found {
		if record.Version != 0 {
			return "the head was removed or set back", nil
		}
	}
	return "", nil
}

// ours checks that this server signed a statement, about this account.
func (s *Service) ours(h Head, what string, account fleet.Account) error {
	if err := h.verify(what); err != nil {
		return err
	}
	if h.PublicKey != s.PublicKey() {
		return errors.New("it is signed with another key")
	}
	if h.Account != account {
		return fmt.Errorf("it is of account %s", h.Account)
	}
	return nil
}

// PublicKey is what signatures of heads are checked with.
func (s *Service) PublicKey() string {
	return base64.StdEncoding.EncodeToString(s.key[SeedSize:])
}

// last finds the end of a chain without its head.
func (s *Service) last(ctx context.Context, account fleet.Account) (Head, error) {
	head, _, err := readHead(ctx, s.store, anchorKey(account), anchorOf, account)
	if err != nil && !errors.Is(err, errHead) {
		return head, err
	}
	head = Head{Schema: schema, What: headOf, Account: account, Seq: head.Seq, Hash: head.Hash}
	err = s.store.Scan(ctx, store.Under(kindRecord, string(account)), func(stored store.Record) error {
		if seq, ok := seqOfRecord(stored.Key); ok && seq > head.Seq {
			head.Seq, head.Hash = seq, claimed(stored.Value)
		}
		return nil
	})
	if err != nil {
		return head, fmt.Errorf("find the end of the audit trail: %w", err)
	}
	if head.Hash == "" {
		head.Hash = genesis
	}
	return head, nil
}

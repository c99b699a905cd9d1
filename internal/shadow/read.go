package shadow

import (
	"context"
	"fmt"
	"strings"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Get returns a shadow; the classic one has no name.
func (s *Service) Get(ctx context.Context, account fleet.Account, thing, shadow string) (Document, error) {
	id, err := newIdentity(account, thing, shadow)
	if err != nil {
		return Document{}, err
	}
	if err := s.checkThing(ctx, id); err != nil {
		return Document{}, err
	}
	d, err := s.read(ctx, id)
	if err != nil {
		return Document{}, err
	}
	if d.gone {
		return Document{}, id.missing()
	}
	return newDocument(id, d), nil
}

// read returns the committed document. What memory has is current unless the
// store is shared; the lock is only taken to read the record, so that an older
// record never replaces a newer document in memory.
func (s *Service) read(ctx context.Context, id identity) (*document, error) {
	leave, err := s.admit(id, s.now())
	if err != nil {
		return nil, err
	}
	defer leave()
	return s.committed(ctx, id)
}

// committed is read for the server's own use, which no limit of requests holds
// for.
func (s *Service) committed(ctx context.Context, id identity) (*document, error) {
	if !s.shared {
		if d, _, ok := s.cache.get(id); ok {
			s.metrics.cacheHits.Inc()
			return d, nil
		}
	}
	release, err := s.locks.acquire(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("wait for shadow: %w", err)
	}
	defer release()
	d, _, err := s.load(ctx, id)
	return d, err
}

// Documents returns all shadows of a thing, the classic one first if it
// exists; none for an unknown thing.
func (s *Service) Documents(ctx context.Context, account fleet.Account, thing string) ([]Document, error) {
	if !fleet.ValidName(thing) {
		return nil, &fault.Error{Code: fault.InvalidRequest, Message: "Invalid thing name"}
	}
	var out []Document
	err := each(ctx, s.store, store.Under(keyShadow, string(account), thing), func(v Document) error {
		out = append(out, v)
		return nil
	})
	return out, err
}

// EachShadow calls fn for every shadow of an account, or of all accounts when
// it is empty, in key order. It serves rebuilding projections from a snapshot.
func EachShadow(ctx context.Context, r store.Reader, account fleet.Account, fn func(Document) error) error {
	if account == "" {
		return each(ctx, r, store.Under(keyShadow), fn)
	}
	return each(ctx, r, store.Under(keyShadow, string(account)), fn)
}

// each reads the existing shadows of a range.
func each(ctx context.Context, r store.Reader, within store.Range, fn func(Document) error) error {
	err := r.Scan(ctx, within, func(record store.Record) error {
		id, ok := identityOf(record.Key)
		if !ok {
			return fmt.Errorf("key %s: %w", record.Key, errRecord)
		}
		d, err := decodeRecord(record.Value)
		if err != nil {
			return fmt.Errorf("shadow %s: %w", record.Key, err)
		}
		if d.gone {
			return nil
		}
		// The key is part of a larger read; keep no reference to it.
		id = identity{account: fleet.Account(strings.Clone(string(id.account))), thing: strings.Clone(id.thing), shadow: strings.Clone(id.shadow)}
		return fn(newDocument(id, d))
	})
	if err != nil {
		return fmt.Errorf("read shadows: %w", err)
	}
	return nil
}

// ListNamed returns up to limit names of a thing's named shadows after the
// given one, in order, and the last of them when there are more. Unknown
// things have none.
func (s *Service) ListNamed(ctx context.Context, account fleet.Account, thing, after string, limit int) (names []string, next string, err error) {
	if !fleet.ValidName(thing) {
		return nil, "", &fault.Error{Code: fault.InvalidRequest, Message: "Invalid thing name"}
	}
	// The empty name is the classic shadow, which is never listed.
	within := store.Under(keyShadow, string(account), thing).After(store.K(keyShadow, string(account), thing, after))
	err = s.store.Scan(ctx, within, func(record store.Record) error {
		if isGone(record.Value) {
			return nil
		}
		if len(names) == limit {
			next = names[limit-1]
			return store.Stop
		}
		names = append(names, record.Key.Last())
		return nil
	})
	if err != nil {
		return nil, "", storeFault(err, "list shadows")
	}
	return names, next, nil
}

// Peek is Get for the server's own use, which counts against no limit of
// requests.
func (s *Service) Peek(ctx context.Context, account fleet.Account, thing, shadow string) (Document, error) {
	id, err := newIdentity(account, thing, shadow)
	if err != nil {
		return Document{}, err
	}
	d, err := s.committed(ctx, id)
	if err != nil {
		return Document{}, err
	}
	if d.gone {
		return Document{}, id.missing()
	}
	return newDocument(id, d), nil
}

package pki

import (
	"context"
	"crypto"
)

// keyPool keeps device keys ready. It is bounded: a caller that finds it empty
// makes its own key, one at a time beside the filling loop, so that a burst of
// requests cannot take all processors from the broker.
type keyPool struct {
	rsa   bool
	ready chan crypto.Signer
	// turn admits one key generation on behalf of callers.
	turn chan struct{}
}

// newKeyPool returns an empty pool for n keys, RSA or P-256.
func newKeyPool(n int, useRSA bool) *keyPool {
	return &keyPool{rsa: useRSA, ready: make(chan crypto.Signer, n), turn: make(chan struct{}, 1)}
}

// take returns a ready key, or makes one when its turn comes first.
func (k *keyPool) take(ctx context.Context) (crypto.Signer, error) {
	select {
	case key := <-k.ready:
		return key, nil
	default:
	}
	select {
	case key := <-k.ready:
		return key, nil
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
		return newKey(k.rsa)
	case <-ctx.Done():
		return nil, ctx.Err() //nolint:wrapcheck // the caller's own deadline
	}
}

// fill keeps the pool full until ctx ends.
func (k *keyPool) fill(ctx context.Context) error {
	for {
		key, err := newKey(k.rsa)
		if err != nil {
			return err
		}
		select {
		case k.ready <- key:
		case <-ctx.Done():
			return nil
		}
	}
}

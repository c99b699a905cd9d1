package pki

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
)

// keyPool keeps RSA keys ready. It is bounded: a caller that finds it empty
// makes its own key, one at a time beside the filling loop, so that a burst of
// requests cannot take all processors from the broker.
type keyPool struct {
	ready chan *rsa.PrivateKey
	// turn admits one key generation on behalf of callers.
	turn chan struct{}
}

// newKeyPool returns an empty pool for n keys.
func newKeyPool(n int) *keyPool {
	return &keyPool{ready: make(chan *rsa.PrivateKey, n), turn: make(chan struct{}, 1)}
}

// take returns a ready key, or makes one when its turn comes first.
func (k *keyPool) take(ctx context.Context) (*rsa.PrivateKey, error) {
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
		return generateRSA()
	case <-ctx.Done():
		return nil, ctx.Err() //nolint:wrapcheck // the caller's own deadline
	}
}

// fill keeps the pool full until ctx ends.
func (k *keyPool) fill(ctx context.Context) error {
	for {
		key, err := generateRSA()
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

// generateRSA makes one key.
func generateRSA() (*rsa.PrivateKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, rsaBits)
	if err != nil {
		return nil, fmt.Errorf("make RSA key: %w", err)
	}
	return key, nil
}

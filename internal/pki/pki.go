// Package pki owns the installation's keys: the two server authorities that
// devices trust (P-256, and RSA for clients that verify nothing else), the
// server certificates under them, and the device authority that signs what the
// registry hands to devices. Server and device authorities are separate, so
// that no device certificate can ever pass for the server.
//
// Keys lie unencrypted in files of mode 0600 inside the data folder: whoever
// can read that folder is the installation. The package knows no accounts, no
// things and no certificate states; whether a presented device certificate is
// registered is decided behind the handshake. Run is its only goroutine: it
// keeps a few device keys ready and renews server certificates.
package pki

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-iot/muster/internal/datadir"
)

// defaultPool is the number of device keys kept ready: making one takes tens of
// milliseconds, and more than a burst of two is a bulk job that brings CSRs.
const defaultPool = 2

// renewEvery is how often a running server looks at its certificates.
const renewEvery = 12 * time.Hour

// Options of New.
type Options struct {
	// Dir is a private folder for keys.
	Dir string
	// CAFile receives the authorities that devices must trust, one after
	// the other, P-256 first.
	CAFile string
	// Names are host names and IP addresses of the server certificates;
	// localhost and the loopback addresses are always added.
	Names []string
	// CertFile and KeyFile are an own server certificate; empty for none.
	CertFile, KeyFile string
	// Now is the clock.
	Now func() time.Time
	// Logger is told of renewals.
	Logger *slog.Logger
	// CRLURL is the address of the device authority's revocation list that
	// device certificates carry; empty for none.
	CRLURL string
	// Pool is the number of device keys kept ready; 0 means the default.
	Pool int
	// P256 makes device keys on P-256 instead of RSA.
	P256 bool
}

// PKI is the installation's authorities and certificates.
type PKI struct {
	options  Options
	serverEC *identity
	// serverRSA is the second server authority.
	serverRSA *identity
	device    *identity
	// current is what handshakes use; replaced as a whole.
	current atomic.Pointer[certificates]
	// renewing keeps a renewal and a reload from interleaving.
	renewing sync.Mutex
	keys     *keyPool
	// prefetched is the RSA key of the first server certificate.
	prefetched chan crypto.Signer
}

// New loads the keys, and makes those that do not exist yet.
func New(o Options) (*PKI, error) {
	if o.Pool == 0 {
		o.Pool = defaultPool
	}
	o.Names = withLoopback(o.Names)
	p := &PKI{options: o, keys: newKeyPool(o.Pool, !o.P256), prefetched: make(chan crypto.Signer, 1)}
	if err := p.loadAuthorities(); err != nil {
		return nil, err
	}
	if err := datadir.WriteFile(o.CAFile, p.ServerRootsPEM(), datadir.PublicMode); err != nil {
		return nil, fmt.Errorf("publish server authorities: %w", err)
	}
	if err := p.refresh(o.CertFile, o.KeyFile); err != nil {
		return nil, err
	}
	return p, nil
}

// loadAuthorities loads or makes the three authorities at once: RSA keys take
// a while.
func (p *PKI) loadAuthorities() error {
	var g errgroup.Group
	load := func(into **identity, file string, spec authoritySpec) {
		g.Go(func() error {
			id, err := p.authority(file, spec)
			*into = id
			return err
		})
	}
	load(&p.serverEC, "server-ca.pem", authoritySpec{name: "Muster server CA", years: serverAuthorityYears})
	load(&p.serverRSA, "server-ca-rsa.pem", authoritySpec{name: "Muster server CA RSA", years: serverAuthorityYears, rsa: true})
	load(&p.device, "device-ca.pem", authoritySpec{name: "Muster device CA"})
	g.Go(p.prefetch)
	if err := g.Wait(); err != nil {
		return fmt.Errorf("load authorities: %w", err)
	}
	return nil
}

// prefetch makes the RSA key of the first start's server certificate beside
// that of its authority: one after the other they are most of the start.
func (p *PKI) prefetch() error {
	_, err := os.Stat(filepath.Join(p.options.Dir, serverRSAFile))
	if !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	key, err := newKey(true)
	if err != nil {
		return err
	}
	p.prefetched <- key
	return nil
}

// authority loads one authority, or makes it on the first start.
func (p *PKI) authority(file string, spec authoritySpec) (*identity, error) {
	path := filepath.Join(p.options.Dir, file)
	id, err := loadIdentity(path)
	if !errors.Is(err, errNoIdentity) {
		return id, err
	}
	id, err = newAuthority(spec, p.options.Now())
	if err != nil {
		return nil, err
	}
	return id, id.save(path)
}

// newServerKey makes a key, or takes a ready one.
func (p *PKI) newServerKey(useRSA bool) (crypto.Signer, error) {
	if useRSA {
		select {
		case key := <-p.prefetched:
			return key, nil
		default:
		}
	}
	return newKey(useRSA)
}

// Run keeps device keys ready and server certificates fresh until ctx ends.
func (p *PKI) Run(ctx context.Context) error {
	var g errgroup.Group
	g.Go(func() error { return p.keys.fill(ctx) })
	g.Go(func() error { return p.watch(ctx) })
	return g.Wait() //nolint:wrapcheck // both name what they were doing
}

// watch renews certificates of a server that runs for months.
func (p *PKI) watch(ctx context.Context) error {
	ticker := time.NewTicker(renewEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if err := p.renew(); err != nil {
				p.options.Logger.ErrorContext(ctx, "server certificates could not be renewed", slog.Any("err", err))
			}
		}
	}
}

// DeviceCAPEM is the authority of the device certificates, for systems that
// verify devices on their own.
func (p *PKI) DeviceCAPEM() []byte { return p.device.certPEM() }

// ServerRootsPEM are the authorities of the generated server certificates, which devices
// have to trust. That of an operator's own certificate is not among them.
func (p *PKI) ServerRootsPEM() []byte {
	return append(slices.Clone(p.serverEC.certPEM()), p.serverRSA.certPEM()...)
}

// certificates is one consistent set for handshakes, in order of preference.
type certificates struct {
	own       *tls.Certificate
	generated []*tls.Certificate
}

package pki

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"time"
)

// Server certificates live about thirteen months, the most that strict
// clients accept, and are renewed a month before their end.
const (
	serverLifetime = 397 * 24 * time.Hour
	renewBefore    = 30 * 24 * time.Hour
)

// Files of the generated server certificates.
const (
	serverECFile  = "server.pem"
	serverRSAFile = "server-rsa.pem"
)

// withLoopback adds the names under which everybody on this machine connects
// and removes doubles, so that the result can be compared with a certificate.
func withLoopback(names []string) []string {
	all := append(slices.Clone(names), "localhost", "127.0.0.1", "::1")
	for i, name := range all {
		if ip := net.ParseIP(name); ip != nil {
			all[i] = ip.String()
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Reload takes another own server certificate, or none for empty names. On an
// error the one in use stays. Established sessions are not touched.
func (p *PKI) Reload(certFile, keyFile string) error {
	p.renewing.Lock()
	defer p.renewing.Unlock()
	return p.refreshLocked(certFile, keyFile)
}

// refresh builds the set of server certificates and puts it in force.
func (p *PKI) refresh(certFile, keyFile string) error {
	p.renewing.Lock()
	defer p.renewing.Unlock()
	return p.refreshLocked(certFile, keyFile)
}

// renew replaces generated certificates that near their end and reads the own
// one anew.
func (p *PKI) renew() error {
	p.renewing.Lock()
	defer p.renewing.Unlock()
	return p.refreshLocked(p.options.CertFile, p.options.KeyFile)
}

// refreshLocked does the work of refresh; the file names are remembered only
// when they hold a valid pair.
func (p *PKI) refreshLocked(certFile, keyFile string) error {
	next := &certificates{}
	if certFile != "" || keyFile != "" {
		own, err := LoadOwn(certFile, keyFile)
		if err != nil {
			return err
		}
		next.own = own
	}
	for _, kind := range []struct {
		file   string
		issuer *identity
		rsa    bool
	}{{serverECFile, p.serverEC, false}, {serverRSAFile, p.serverRSA, true}} {
		id, err := p.serverCertificate(filepath.Join(p.options.Dir, kind.file), kind.issuer, kind.rsa)
		if err != nil {
			return fmt.Errorf("prepare server certificate: %w", err)
		}
		next.generated = append(next.generated, id.tls())
	}
	p.options.CertFile, p.options.KeyFile = certFile, keyFile
	p.current.Store(next)
	return nil
}

// LoadOwn reads and checks an operator's server certificate; check-config and
// the server share it.
func LoadOwn(certFile, keyFile string) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("load tls-cert and tls-key: %w", err)
	}
	return &pair, nil
}

// serverCertificate loads a generated certificate, and makes a new one when
// there is none, when it will not do any more, or when names changed.
func (p *PKI) serverCertificate(path string, issuer *identity, useRSA bool) (*identity, error) {
	id, err := loadIdentity(path)
	if err != nil && !errors.Is(err, errNoIdentity) {
		return nil, err
	}
	now := p.options.Now()
	if err == nil && id.signedBy(issuer) && now.Before(id.cert.NotAfter.Add(-renewBefore)) && slices.Equal(certificateNames(id.cert), p.options.Names) {
		return id, nil
	}
	key, err := p.newServerKey(useRSA)
	if err != nil {
		return nil, err
	}
	id, err = sign(p.serverTemplate(now), key, issuer)
	if err != nil {
		return nil, err
	}
	p.options.Logger.Info("server certificate made",
		slog.String("file", path), slog.Any("names", p.options.Names), slog.Time("not_after", id.cert.NotAfter))
	return id, id.save(path)
}

// serverTemplate describes a server certificate for the configured names.
func (p *PKI) serverTemplate(now time.Time) *x509.Certificate {
	t := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Muster server", Organization: []string{"Muster"}},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(serverLifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, name := range p.options.Names {
		if ip := net.ParseIP(name); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, name)
		}
	}
	return t
}

// certificateNames lists a certificate's names as Options.Names has them.
func certificateNames(c *x509.Certificate) []string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	slices.Sort(names)
	return names
}

package pki

import (
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"time"
)

// Revoked is an entry of the device authority's revocation list.
type Revoked struct {
	Serial *big.Int
	At     time.Time
}

// RevocationList signs the list of what the device authority issued and must
// not be trusted any more, in DER. Which certificates those are, the registry
// knows.
func (p *PKI) RevocationList(number *big.Int, thisUpdate, nextUpdate time.Time, revoked []Revoked) ([]byte, error) {
	template := &x509.RevocationList{
		Number: number, ThisUpdate: thisUpdate, NextUpdate: nextUpdate,
		RevokedCertificateEntries: make([]x509.RevocationListEntry, len(revoked)),
	}
	for i, r := range revoked {
		template.RevokedCertificateEntries[i] = x509.RevocationListEntry{SerialNumber: r.Serial, RevocationTime: r.At}
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, p.device.cert, p.device.key)
	if err != nil {
		return nil, fmt.Errorf("sign revocation list: %w", err)
	}
	return der, nil
}

// distributionPoints is where verifiers find the list; none unless an address
// is configured.
func (p *PKI) distributionPoints() []string {
	if p.options.CRLURL == "" {
		return nil
	}
	return []string{p.options.CRLURL}
}

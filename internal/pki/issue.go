package pki

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/muster-iot/muster/internal/fault"
)

// maxCSRBytes is the limit of the published service model, in characters.
const maxCSRBytes = 4096

// maxRSABits keeps one signature check from taking seconds.
const maxRSABits = 4096

// CreateKeysAndCertificate makes a key pair of the kind in Options and a device
// certificate for it. The private key is returned once and kept nowhere.
func (p *PKI) CreateKeysAndCertificate(ctx context.Context) (certPEM, publicPEM, privatePEM []byte, err error) {
	return p.createKeys(ctx, "Muster IoT Certificate", endOfService())
}

// CreateClaim is CreateKeysAndCertificate for a certificate that is good until
// a time. The clock of whoever uses it may be slow by a day, and not fast.
func (p *PKI) CreateClaim(ctx context.Context, until time.Time) (certPEM, publicPEM, privatePEM []byte, err error) {
	return p.createKeys(ctx, "Muster IoT Claim", until)
}

// createKeys makes a key pair and a certificate for it.
func (p *PKI) createKeys(ctx context.Context, name string, until time.Time) (certPEM, publicPEM, privatePEM []byte, err error) {
	key, err := p.keys.take(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	certPEM, err = p.issueDevice(pkix.Name{CommonName: name}, nil, key.Public(), until)
	if err != nil {
		return nil, nil, nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, nil, nil, fmt.Errorf("encode public key: %w", err)
	}
	publicPEM = pem.EncodeToMemory(&pem.Block{Type: pemPublic, Bytes: public})
	privatePEM, err = encodePrivate(key)
	return certPEM, publicPEM, privatePEM, err
}

// encodePrivate encodes a device's key in the oldest form that its kind has, which
// every library reads.
func encodePrivate(key crypto.Signer) ([]byte, error) {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return pem.EncodeToMemory(&pem.Block{Type: pemPKCS1, Bytes: x509.MarshalPKCS1PrivateKey(k)}), nil
	case *ecdsa.PrivateKey:
		der, err := x509.MarshalECPrivateKey(k)
		if err != nil {
			return nil, fmt.Errorf("encode private key: %w", err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: pemSEC1, Bytes: der}), nil
	}
	return nil, fmt.Errorf("encode private key: kind %T is not known", key)
}

// SignCSR issues a device certificate for the key and the subject of a
// certificate signing request. Extensions that it asks for are not taken over:
// a device cannot make itself an authority or a server.
func (p *PKI) SignCSR(ctx context.Context, csrPEM []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err //nolint:wrapcheck // the caller's own deadline
	}
	csr, err := parseCSR(csrPEM)
	if err != nil {
		return nil, err
	}
	return p.issueDevice(csr.Subject, csr.RawSubject, csr.PublicKey, endOfService())
}

// parseCSR applies the rules of CreateCertificateFromCsr.
func parseCSR(csrPEM []byte) (*x509.CertificateRequest, error) {
	if len(csrPEM) > maxCSRBytes {
		return nil, invalid("certificateSigningRequest is longer than %d characters", maxCSRBytes)
	}
	block, rest := pem.Decode(csrPEM)
	if block == nil || (block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST") {
		return nil, invalid("certificateSigningRequest is not a PEM certificate request")
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, invalid("certificateSigningRequest holds more than one PEM block")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fault.Wrap(fault.InvalidRequest, err, "certificateSigningRequest cannot be parsed")
	}
	if err := checkKey(csr.PublicKey); err != nil {
		return nil, err
	}
	if !strongSignature(csr.SignatureAlgorithm) {
		return nil, invalid("certificateSigningRequest is signed with %v; use SHA-256, SHA-384 or SHA-512", csr.SignatureAlgorithm)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fault.Wrap(fault.InvalidRequest, err, "certificateSigningRequest has a signature that does not match its key")
	}
	return csr, nil
}

// checkKey accepts RSA of at least 2048 bits and the three NIST curves.
func checkKey(public crypto.PublicKey) error {
	switch key := public.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < rsaBits || bits > maxRSABits {
			return invalid("certificateSigningRequest has an RSA key of %d bits; %d to %d are accepted", bits, rsaBits, maxRSABits)
		}
		return nil
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		default:
			return invalid("certificateSigningRequest has a key on curve %s; P-256, P-384 and P-521 are accepted", key.Curve.Params().Name)
		}
	default:
		return invalid("certificateSigningRequest has a key that is neither RSA nor ECDSA")
	}
}

// strongSignature lists the accepted algorithms; SHA-1 is not among them.
func strongSignature(a x509.SignatureAlgorithm) bool {
	switch a {
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
		x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
		x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
		return true
	default:
		return false
	}
}

// issueDevice signs a device certificate. A raw subject is kept byte for byte,
// because policies may compare its parts.
func (p *PKI) issueDevice(subject pkix.Name, rawSubject []byte, public crypto.PublicKey, until time.Time) ([]byte, error) {
	template := &x509.Certificate{
		Subject:               subject,
		RawSubject:            rawSubject,
		NotBefore:             p.options.Now().Add(-clockSkew),
		NotAfter:              until,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		CRLDistributionPoints: p.distributionPoints(),
	}
	cert, err := issue(template, p.device.cert, public, p.device.key)
	if err != nil {
		return nil, err
	}
	return encodeCertificate(cert.Raw), nil
}

// invalid is a refusal that the caller may read.
func invalid(format string, args ...any) error {
	return fault.New(fault.InvalidRequest, format, args...)
}

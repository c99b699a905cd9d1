package registry

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"time"

	"github.com/muster-iot/muster/internal/fault"
)

const (
	maxCSRLength         = 4096
	maxCertificateLength = 65536
	minRSABits           = 2048
	// maxRSABits is what TLS takes; a longer key could only cost time.
	maxRSABits = 8192
)

// parsedCertificate is a certificate with its registry id.
type parsedCertificate struct {
	id   string
	pem  string
	x509 *x509.Certificate
}

// CertificateID returns the id of a certificate: the SHA-256 of its DER form
// in lower-case hexadecimal digits.
func CertificateID(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// parseCertificate reads exactly one PEM certificate.
func parseCertificate(text string) (parsedCertificate, error) {
	return parseMember("certificatePem", text)
}

// parseMember is parseCertificate for any member of a request.
func parseMember(field, text string) (parsedCertificate, error) {
	if len(text) > maxCertificateLength {
		return parsedCertificate{}, fault.New(fault.InvalidRequest, "%s must have at most %d characters", field, maxCertificateLength)
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return parsedCertificate{}, fault.New(fault.CertificateValidation, "%s is no PEM block of type CERTIFICATE", field)
	}
	if next, _ := pem.Decode(rest); next != nil {
		return parsedCertificate{}, fault.New(fault.CertificateValidation, "%s must hold one certificate", field)
	}
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return parsedCertificate{}, fault.Wrap(fault.CertificateValidation, err, "%s is no valid X.509 certificate", field)
	}
	return parsedCertificate{id: CertificateID(block.Bytes), pem: string(pem.EncodeToMemory(block)), x509: parsed}, nil
}

// checkForeign refuses a certificate of an issuer unknown to us that no device
// could use safely. field is the request's member that it came in.
func checkForeign(field string, c *x509.Certificate, now time.Time) error {
	if err := checkKey(c.PublicKey); err != nil {
		return fault.New(fault.CertificateValidation, "%s: %v", field, err)
	}
	if !now.Before(c.NotAfter) {
		return fault.New(fault.CertificateValidation, "%s: the certificate expired on %s", field, c.NotAfter.UTC().Format(time.RFC3339))
	}
	switch c.SignatureAlgorithm {
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
		x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
		x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
		return nil
	default:
		return fault.New(fault.CertificateValidation,
			"%s: signature algorithm %s is not accepted; RSA or ECDSA with SHA-256, SHA-384 or SHA-512 is", field, c.SignatureAlgorithm)
	}
}

// checkCSR refuses a signing request before the issuer sees it.
func checkCSR(text string) error {
	_, err := RequestKey(text)
	return err
}

// RequestKey returns the key of a signing request that may be signed: it is
// within the bounds of the service model, and its key has signed it.
func RequestKey(text string) (crypto.PublicKey, error) {
	const field = "certificateSigningRequest"
	if text == "" || len(text) > maxCSRLength {
		return nil, fault.New(fault.InvalidRequest, "%s must have 1 to %d characters", field, maxCSRLength)
	}
	block, _ := pem.Decode([]byte(text))
	if block == nil || (block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST") {
		return nil, fault.New(fault.InvalidRequest, "%s is no PEM block of type CERTIFICATE REQUEST", field)
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fault.Wrap(fault.InvalidRequest, err, "%s is no valid PKCS #10 request", field)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fault.Wrap(fault.InvalidRequest, err, "%s is not signed by the key in it", field)
	}
	if err := checkKey(request.PublicKey); err != nil {
		return nil, fault.New(fault.InvalidRequest, "%s: %v", field, err)
	}
	return request.PublicKey, nil
}

// checkKey accepts RSA keys of 2048 bits and more and the NIST curves.
func checkKey(public any) error {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSABits {
			return errors.New("an RSA key must have at least 2048 bits")
		}
		if k.N.BitLen() > maxRSABits {
			return errors.New("an RSA key must have at most 8192 bits")
		}
		return nil
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() || k.Curve == elliptic.P384() || k.Curve == elliptic.P521() {
			return nil
		}
		return errors.New("an elliptic curve key must be on P-256, P-384 or P-521")
	}
	return errors.New("the key must be RSA or on a NIST curve")
}

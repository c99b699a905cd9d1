// Package crl reads certificate revocation lists of any length: it checks what
// a list says about itself and who signed it, and walks its entries without
// keeping them, so that a list costs the memory of its text and no more. What
// a revoked serial number means is not known here. The package starts no
// goroutines.
package crl

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"iter"
	"math/big"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tags "golang.org/x/crypto/cryptobyte/asn1"
)

// PEMType is the label of a list in PEM.
const PEMType = "X509 CRL"

// maxInteger bounds the encoding of a number in bytes; RFC 5280 wants serial
// and list numbers of at most 20.
const maxInteger = 34

// errShape is a list whose structure is broken.
var errShape = errors.New("the revocation list is not DER of a CertificateList")

// List is a revocation list whose entries were not looked at yet.
type List struct {
	Issuer pkix.Name
	// RawIssuer is the issuer's name as it stands in certificates.
	RawIssuer []byte
	// NextUpdate is zero when the list does not say when the next one comes.
	ThisUpdate, NextUpdate time.Time
	// Number is nil for a list without CRL number.
	Number *big.Int
	// Sum identifies the list: SHA-256 of its DER form.
	Sum [sha256.Size]byte

	tbs, entries, signature []byte
	algorithm               x509.SignatureAlgorithm
}

// Entry is one revoked certificate.
type Entry struct {
	// Serial is the form that SerialText gives.
	Serial  string
	Revoked time.Time
	// Reason is the code of RFC 5280, 0 for none.
	Reason int
}

// SerialText is a serial number as lower-case hexadecimal digits without
// leading zeros.
func SerialText(serial *big.Int) string { return serial.Text(16) }

// Parse reads one list in PEM or DER. Lists that tell only a part, and would be
// misread by who does not know that, are refused: delta lists, indirect lists
// and lists of some reasons or of authorities.
func Parse(data []byte) (*List, error) {
	if block, rest := pem.Decode(data); block != nil {
		if block.Type != PEMType {
			return nil, fmt.Errorf("the PEM block is a %s, not an %s", block.Type, PEMType)
		}
		if next, _ := pem.Decode(rest); next != nil {
			return nil, errors.New("there is more than one PEM block")
		}
		data = block.Bytes
	}
	l := &List{Sum: sha256.Sum256(data)}
	header, err := l.split(data)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseRevocationList(header)
	if err != nil {
		return nil, fmt.Errorf("the revocation list cannot be parsed: %w", err)
	}
	l.Issuer, l.RawIssuer = parsed.Issuer, parsed.RawIssuer
	l.ThisUpdate, l.NextUpdate, l.Number = parsed.ThisUpdate, parsed.NextUpdate, parsed.Number
	l.algorithm, l.signature = parsed.SignatureAlgorithm, parsed.Signature
	return l, checkExtensions(parsed.Extensions)
}

// split finds the entries and the signed part, and returns the list without
// its entries, for the standard library to parse.
func (l *List) split(data []byte) (header []byte, err error) {
	input := cryptobyte.String(data)
	var list, outer, signed cryptobyte.String
	if !input.ReadASN1(&list, tags.SEQUENCE) || !input.Empty() || !list.ReadASN1Element(&outer, tags.SEQUENCE) {
		return nil, errShape
	}
	l.tbs = outer
	if !outer.ReadASN1(&signed, tags.SEQUENCE) {
		return nil, errShape
	}
	var kept []byte
	keep := func(tag tags.Tag, optional bool) bool {
		if optional && !signed.PeekASN1Tag(tag) {
			return true
		}
		var element cryptobyte.String
		if !signed.ReadASN1Element(&element, tag) {
			return false
		}
		kept = append(kept, element...)
		return true
	}
	timeTag := func() tags.Tag {
		if signed.PeekASN1Tag(tags.UTCTime) {
			return tags.UTCTime
		}
		return tags.GeneralizedTime
	}
	if !keep(tags.INTEGER, true) || !keep(tags.SEQUENCE, false) || !keep(tags.SEQUENCE, false) ||
		!keep(timeTag(), false) || !keep(timeTag(), true) {
		return nil, errShape
	}
	if signed.PeekASN1Tag(tags.SEQUENCE) {
		var entries cryptobyte.String
		if !signed.ReadASN1(&entries, tags.SEQUENCE) {
			return nil, errShape
		}
		l.entries = entries
	}
	kept = append(kept, signed...)
	var b cryptobyte.Builder
	b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(tags.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(kept) })
		b.AddBytes(list)
	})
	header, err = b.Bytes()
	if err != nil {
		return nil, errShape
	}
	return header, nil
}

// checkExtensions refuses what changes the meaning of the entries.
func checkExtensions(extensions []pkix.Extension) error {
	for _, e := range extensions {
		switch e.Id.String() {
		case "2.5.29.27":
			return errors.New("the list is a delta; import complete lists only")
		case "2.5.29.28":
			if err := checkScope(e.Value); err != nil {
				return err
			}
		case "2.5.29.20", "2.5.29.35":
		default:
			if e.Critical {
				return fmt.Errorf("the list has the critical extension %s, which is not known here", e.Id)
			}
		}
	}
	return nil
}

// checkScope reads an issuing distribution point and refuses a list that does
// not tell all about the authority's end-entity certificates.
func checkScope(der []byte) error {
	var scope struct {
		Point     asn1.RawValue  `asn1:"optional,tag:0"`
		UserOnly  bool           `asn1:"optional,tag:1"`
		CAOnly    bool           `asn1:"optional,tag:2"`
		Reasons   asn1.BitString `asn1:"optional,tag:3"`
		Indirect  bool           `asn1:"optional,tag:4"`
		Attribute bool           `asn1:"optional,tag:5"`
	}
	if rest, err := asn1.Unmarshal(der, &scope); err != nil || len(rest) > 0 {
		return errors.New("the list's issuing distribution point cannot be read")
	}
	if scope.CAOnly || scope.Attribute || scope.Indirect || scope.Reasons.BitLength > 0 {
		return errors.New("the list covers only a part of the authority's certificates, or those of other authorities")
	}
	return nil
}

// CheckSignatureFrom reports whether the authority signed the list.
func (l *List) CheckSignatureFrom(authority *x509.Certificate) error {
	if string(l.RawIssuer) != string(authority.RawSubject) {
		return errors.New("the list's issuer is not the authority's subject")
	}
	if authority.KeyUsage != 0 && authority.KeyUsage&x509.KeyUsageCRLSign == 0 {
		return errors.New("the authority's key usage does not allow it to sign revocation lists")
	}
	if err := authority.CheckSignature(l.algorithm, l.tbs, l.signature); err != nil {
		return fmt.Errorf("the list is not signed by the authority: %w", err)
	}
	return nil
}

// Entries walks the entries in their order; an error ends the walk.
func (l *List) Entries() iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		rest := cryptobyte.String(l.entries)
		for !rest.Empty() {
			entry, err := readEntry(&rest)
			if !yield(entry, err) || err != nil {
				return
			}
		}
	}
}

// readEntry takes one entry off.
func readEntry(rest *cryptobyte.String) (Entry, error) {
	var body, number, extensions cryptobyte.String
	var hasExtensions bool
	e := Entry{}
	if !rest.ReadASN1(&body, tags.SEQUENCE) || !body.ReadASN1Element(&number, tags.INTEGER) {
		return e, errShape
	}
	if len(number) > maxInteger {
		return e, errors.New("the list has a serial number of more than 32 bytes")
	}
	serial := new(big.Int)
	if !number.ReadASN1Integer(serial) {
		return e, errShape
	}
	e.Serial = SerialText(serial)
	read := body.ReadASN1UTCTime
	if body.PeekASN1Tag(tags.GeneralizedTime) {
		read = body.ReadASN1GeneralizedTime
	}
	if !read(&e.Revoked) || !body.ReadOptionalASN1(&extensions, &hasExtensions, tags.SEQUENCE) || !body.Empty() {
		return e, errShape
	}
	for !extensions.Empty() {
		if err := readExtension(&extensions, &e); err != nil {
			return e, err
		}
	}
	return e, nil
}

// readExtension takes one extension of an entry off.
func readExtension(rest *cryptobyte.String, e *Entry) error {
	var extension, value cryptobyte.String
	var id asn1.ObjectIdentifier
	critical := false
	if !rest.ReadASN1(&extension, tags.SEQUENCE) || !extension.ReadASN1ObjectIdentifier(&id) ||
		extension.PeekASN1Tag(tags.BOOLEAN) && !extension.ReadASN1Boolean(&critical) || !extension.ReadASN1(&value, tags.OCTET_STRING) {
		return errShape
	}
	switch {
	case id.String() == "2.5.29.21":
		if !value.ReadASN1Enum(&e.Reason) {
			return errShape
		}
	case critical:
		return fmt.Errorf("the entry %s has the critical extension %s, which is not known here", e.Serial, id)
	}
	return nil
}

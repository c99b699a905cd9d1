package crl_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/crl"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// authority signs lists.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Acme"}, NotBefore: start, NotAfter: start.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return &authority{cert, key}
}

// list signs entries; edits change the template.
func (a *authority) list(tb testing.TB, entries []x509.RevocationListEntry, edits ...func(*x509.RevocationList)) []byte {
	tb.Helper()
	template := &x509.RevocationList{
		Number: big.NewInt(3), ThisUpdate: start, NextUpdate: start.AddDate(0, 0, 7), RevokedCertificateEntries: entries,
	}
	for _, edit := range edits {
		edit(template)
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, a.cert, a.key)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

// read walks the entries of a list that must be good.
func read(tb testing.TB, l *crl.List) []crl.Entry {
	tb.Helper()
	var all []crl.Entry
	for e, err := range l.Entries() {
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

func TestParse(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	long, _ := new(big.Int).SetString(strings.Repeat("7f", 20), 16)
	der := a.list(t, []x509.RevocationListEntry{
		{SerialNumber: big.NewInt(255), RevocationTime: start, ReasonCode: 1},
		{SerialNumber: long, RevocationTime: time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC)},
		{SerialNumber: big.NewInt(0), RevocationTime: start},
	})
	for name, data := range map[string][]byte{"DER": der, "PEM": pem.EncodeToMemory(&pem.Block{Type: crl.PEMType, Bytes: der})} {
		l, err := crl.Parse(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := l.CheckSignatureFrom(a.cert); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if l.Number.Int64() != 3 || !l.ThisUpdate.Equal(start) || !l.NextUpdate.Equal(start.AddDate(0, 0, 7)) || l.Issuer.CommonName != "Acme" {
			t.Errorf("%s: read as %+v", name, l)
		}
		want := []crl.Entry{
			{Serial: "ff", Revoked: start, Reason: 1},
			{Serial: strings.Repeat("7f", 20), Revoked: time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC)},
			{Serial: "0", Revoked: start},
		}
		if diff := cmp.Diff(want, read(t, l)); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
	empty, err := crl.Parse(a.list(t, nil))
	if err != nil || len(read(t, empty)) != 0 || empty.CheckSignatureFrom(a.cert) != nil {
		t.Errorf("an empty list: %v", err)
	}
}

// scope is an issuing distribution point.
func scope(tb testing.TB, value any) pkix.Extension {
	tb.Helper()
	der, err := asn1.Marshal(value)
	if err != nil {
		tb.Fatal(err)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: der}
}

func TestParseRefusesWhatTellsAPart(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	with := func(e pkix.Extension) []byte {
		return a.list(t, nil, func(l *x509.RevocationList) { l.ExtraExtensions = []pkix.Extension{e} })
	}
	entry := func(e pkix.Extension) []byte {
		return a.list(t, []x509.RevocationListEntry{{SerialNumber: big.NewInt(1), RevocationTime: start, ExtraExtensions: []pkix.Extension{e}}})
	}
	type users struct {
		UserOnly bool `asn1:"optional,tag:1"`
	}
	type authorities struct {
		CAOnly bool `asn1:"optional,tag:2"`
	}
	type indirect struct {
		Indirect bool `asn1:"optional,tag:4"`
	}
	unknown := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}
	for name, c := range map[string]struct {
		data []byte
		says string
	}{
		"users only":       {with(scope(t, users{true})), ""},
		"authorities only": {with(scope(t, authorities{true})), "covers only a part"},
		"indirect":         {with(scope(t, indirect{true})), "covers only a part"},
		"broken scope":     {with(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Value: []byte{1}}), "cannot be read"},
		"delta":            {with(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}), "delta"},
		"unknown":          {with(unknown), "critical extension 1.2.3"},
		"unknown in entry": {entry(unknown), "critical extension 1.2.3"},
		"other issuer":     {entry(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{48, 0}}), "critical extension"},
		"empty":            {nil, "not DER"},
		"cut":              {a.list(t, nil)[:40], "not DER"},
		"two":              {bytes.Repeat(pem.EncodeToMemory(&pem.Block{Type: crl.PEMType, Bytes: a.list(t, nil)}), 2), "more than one"},
		"more":             {append(a.list(t, nil), 0), "not DER"},
	} {
		l, err := crl.Parse(c.data)
		if err == nil {
			for _, problem := range l.Entries() {
				err = problem
			}
		}
		if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

// The signature covers the entries, which the standard library never sees.
func TestSignatureCoversEntries(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	der := a.list(t, []x509.RevocationListEntry{{SerialNumber: big.NewInt(0x7e55e1), RevocationTime: start}})
	at := bytes.Index(der, []byte{0x7e, 0x55, 0xe1})
	der[at] = 0x7d
	l, err := crl.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.CheckSignatureFrom(a.cert); err == nil {
		t.Error("a changed serial number passes")
	}
	if err := l.CheckSignatureFrom(newAuthority(t).cert); err == nil {
		t.Error("another key passes")
	}
}

// A list of many entries costs little more than its own text.
func TestManyEntriesAreNotKept(t *testing.T) {
	a := newAuthority(t)
	der := func() []byte {
		entries := make([]x509.RevocationListEntry, 100_000)
		for i := range entries {
			entries[i] = x509.RevocationListEntry{SerialNumber: big.NewInt(int64(i) + 1<<40), RevocationTime: start}
		}
		return a.list(t, entries)
	}()
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	l, err := crl.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range l.Entries() {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n != 100_000 {
		t.Errorf("%d entries", n)
	}
	if kept := int64(after.HeapAlloc) - int64(before.HeapAlloc); kept > int64(len(der)) {
		t.Errorf("keeps %d bytes of a list of %d", kept, len(der))
	}
	runtime.KeepAlive(l)
	runtime.KeepAlive(der)
}

// Whatever the standard library reads as a list reads the same here.
func FuzzParse(f *testing.F) {
	a := newAuthority(f)
	f.Add(a.list(f, nil))
	f.Add(a.list(f, []x509.RevocationListEntry{{SerialNumber: big.NewInt(255), RevocationTime: start, ReasonCode: 1}}))
	f.Add([]byte("-----BEGIN X509 CRL-----\n-----END X509 CRL-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := crl.Parse(data)
		if err != nil {
			return
		}
		var got []string
		for e, err := range l.Entries() {
			if err != nil {
				return
			}
			got = append(got, e.Serial)
		}
		if block, _ := pem.Decode(data); block != nil {
			data = block.Bytes
		}
		reference, err := x509.ParseRevocationList(data)
		if err != nil {
			return // the standard library wants more of entries
		}
		var want []string
		for _, e := range reference.RevokedCertificateEntries {
			want = append(want, crl.SerialText(e.SerialNumber))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got\n%s", diff)
		}
	})
}

package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// start is the time of every first start here.
func start() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// options returns settings over a folder at a given time.
func options(dir string, now time.Time, names ...string) Options {
	return Options{
		Dir: dir, CAFile: filepath.Join(dir, "ca.pem"), Names: names,
		Now: func() time.Time { return now }, Logger: slog.New(slog.DiscardHandler),
	}
}

// open makes or loads a PKI.
func open(t *testing.T, o Options) *PKI {
	t.Helper()
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// roots reads the published authorities.
func roots(t *testing.T, o Options) *x509.CertPool {
	t.Helper()
	data, err := os.ReadFile(o.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		t.Fatal("no certificate in the CA file")
	}
	return pool
}

func TestFirstStartAndSecondStart(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), start(), "iot.example.com", "192.0.2.7", "*.iot.local.muster.internal")
	p := open(t, o)
	set := p.current.Load()
	if len(set.generated) != 2 || set.own != nil {
		t.Fatalf("got %d generated, own %v", len(set.generated), set.own)
	}
	if _, ok := set.generated[0].PrivateKey.(*ecdsa.PrivateKey); !ok {
		t.Errorf("the first certificate is %T, want P-256", set.generated[0].PrivateKey)
	}
	if _, ok := set.generated[1].PrivateKey.(*rsa.PrivateKey); !ok {
		t.Errorf("the second certificate is %T, want RSA", set.generated[1].PrivateKey)
	}
	pool := roots(t, o)
	for _, c := range set.generated {
		for _, name := range []string{"iot.example.com", "192.0.2.7", "a1-ats.iot.local.muster.internal", "localhost", "127.0.0.1", "::1"} {
			if _, err := c.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: name, CurrentTime: start()}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if until := p.serverEC.cert.NotAfter; until.Before(start().AddDate(10, 0, 0)) {
		t.Errorf("the server authority ends %v, in less than ten years", until)
	}
	files, err := filepath.Glob(filepath.Join(o.Dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if f != o.CAFile && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o and holds a key", f, info.Mode().Perm())
		}
	}
	again := open(t, o)
	for i, c := range again.current.Load().generated {
		if !bytes.Equal(c.Leaf.Raw, set.generated[i].Leaf.Raw) {
			t.Errorf("certificate %d was made anew without a reason", i)
		}
	}
	if !bytes.Equal(again.DeviceCAPEM(), p.DeviceCAPEM()) {
		t.Error("the device authority changed")
	}
}

func TestServerCertificatesAreRenewed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := open(t, options(dir, start(), "a.example"))
	was := first.current.Load().generated[0].Leaf
	for name, c := range map[string]struct {
		now   time.Time
		names []string
		fresh bool
	}{
		"same":                {start().Add(24 * time.Hour), []string{"a.example"}, false},
		"31 days left":        {was.NotAfter.Add(-31 * 24 * time.Hour), []string{"a.example"}, false},
		"29 days left":        {was.NotAfter.Add(-29 * 24 * time.Hour), []string{"a.example"}, true},
		"expired":             {was.NotAfter.Add(time.Hour), []string{"a.example"}, true},
		"another name":        {start(), []string{"b.example"}, true},
		"one more":            {start(), []string{"a.example", "2001:db8:0::1"}, true},
		"other spelling, ::1": {start(), []string{"a.example", "0:0:0:0:0:0:0:1"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			copied := t.TempDir()
			if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			p := open(t, options(copied, c.now, c.names...))
			is := p.current.Load().generated[0].Leaf
			if fresh := !bytes.Equal(was.Raw, is.Raw); fresh != c.fresh {
				t.Errorf("made anew: %v, want %v", fresh, c.fresh)
			}
			if !bytes.Equal(p.serverEC.cert.Raw, first.serverEC.cert.Raw) {
				t.Error("the authority changed; every device would have to be told")
			}
			if is.NotAfter.Before(c.now) {
				t.Errorf("expired %v", is.NotAfter)
			}
		})
	}
}

func TestRunningServerRenews(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), start())
	now := start()
	o.Now = func() time.Time { return now }
	p := open(t, o)
	was := p.current.Load().generated[0].Leaf.NotAfter
	now = was.Add(-time.Hour)
	if err := p.renew(); err != nil {
		t.Fatal(err)
	}
	if is := p.current.Load().generated[0].Leaf.NotAfter; !is.After(was) {
		t.Errorf("still ends %v", is)
	}
}

func TestDamagedAuthorityStopsTheStart(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), start())
	open(t, o)
	path := filepath.Join(o.Dir, "server-ca.pem")
	if err := os.WriteFile(path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(o); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want an error that names %s", err, path)
	}
}

func TestReloadKeepsTheOldCertificateOnError(t *testing.T) {
	t.Parallel()
	own := t.TempDir()
	other := open(t, options(own, start(), "own.example"))
	certFile := filepath.Join(own, "server.pem")
	p := open(t, options(t.TempDir(), start(), "iot.example"))

	if err := p.Reload(certFile, certFile); err != nil {
		t.Fatal(err)
	}
	want := other.current.Load().generated[0].Leaf.Raw
	if got := p.current.Load().own; got == nil || !bytes.Equal(got.Leaf.Raw, want) {
		t.Fatal("the own certificate is not in force")
	}
	if err := p.Reload(certFile, filepath.Join(own, "server-rsa.pem")); err == nil {
		t.Error("a key of another certificate was accepted")
	}
	if err := p.renew(); err != nil {
		t.Errorf("a refused reload left its file names behind: %v", err)
	}
	if p.current.Load().own == nil {
		t.Error("a refused reload removed the certificate")
	}
	pick := func(name string) []byte {
		c, err := p.certificate(hello(name, tls.ECDSAWithP256AndSHA256))
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf.Raw
	}
	if !bytes.Equal(pick("own.example"), want) || !bytes.Equal(pick("unknown.example"), want) || !bytes.Equal(pick(""), want) {
		t.Error("the own certificate does not come first")
	}
	if bytes.Equal(pick("iot.example"), want) {
		t.Error("a name that only the generated certificate bears got the own one")
	}
	if err := p.Reload("", ""); err != nil || p.current.Load().own != nil {
		t.Errorf("still in force: %v", err)
	}
}

// hello is a TLS 1.3 client that knows some signature algorithms.
func hello(name string, algorithms ...tls.SignatureScheme) *tls.ClientHelloInfo {
	return &tls.ClientHelloInfo{
		ServerName: name, SignatureSchemes: algorithms,
		SupportedVersions: []uint16{tls.VersionTLS13}, SupportedCurves: []tls.CurveID{tls.CurveP256},
		CipherSuites: []uint16{tls.TLS_AES_128_GCM_SHA256},
	}
}

func TestRunFillsThePoolAndEnds(t *testing.T) {
	t.Parallel()
	p := open(t, options(t.TempDir(), start()))
	ctx, cancel := contextWithCancel(t)
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	for range 3 {
		if _, err := p.keys.take(ctx); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := cap(p.keys.ready); n != defaultPool {
		t.Errorf("the pool holds %d", n)
	}
}

func TestNamesAreSortedWithoutDoubles(t *testing.T) {
	t.Parallel()
	got := withLoopback([]string{"z.example", "localhost", "127.0.0.1", "a.example"})
	want := []string{"127.0.0.1", "::1", "a.example", "localhost", "z.example"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/pki"
)

// strangerCertificate is one that no registry knows; TLS takes it all the same.
func strangerCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestSharedPortSorts cites ruling 4 of the design: on tls-addr the ALPN name
// decides between MQTT and HTTPS, and with http/1.1 or without a name the first
// byte does.
func TestSharedPortSorts(t *testing.T) {
	t.Parallel()
	a := newApp(t, settings(t))
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(a.dir.Path("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	stranger := strangerCertificate(t)
	const (
		request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
		served  = "HTTP/1.1 200 OK\r\n"
		// An MQTT 3.1.1 CONNECT of client "a", and CONNACK with code 5: the
		// certificate is unknown.
		connect = "\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a"
		refused = "\x20\x02\x00\x05"
	)
	for name, c := range map[string]struct {
		alpn       []string
		send, want string
	}{
		"HTTPS by name with certificate": {[]string{pki.ALPNHTTPCert}, request, served},
		"MQTT by name with certificate":  {[]string{pki.ALPNMQTTCert}, connect, refused},
		"HTTPS with http/1.1":            {[]string{pki.ALPNHTTP}, request, served},
		"MQTT with http/1.1":             {[]string{pki.ALPNHTTP}, connect, refused},
		"HTTPS without a name":           {nil, request, served},
		"MQTT without a name":            {nil, connect, refused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dialer := &tls.Dialer{Config: &tls.Config{
				RootCAs: roots, ServerName: "localhost", Certificates: []tls.Certificate{stranger}, NextProtos: c.alpn, MinVersion: tls.VersionTLS12,
			}}
			conn, err := dialer.DialContext(t.Context(), "tcp", a.Addr(listenerTLS).String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if got := exchange(t, conn, c.send, len(c.want)); !strings.HasPrefix(got, c.want) {
				t.Errorf("answered %q, want %q first", got, c.want)
			}
		})
	}
}

// exchange sends text and returns the first n bytes of the answer, or as many
// as come.
func exchange(t *testing.T, conn net.Conn, text string, n int) string {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, n)
	got := 0
	for got < n {
		m, err := conn.Read(answer[got:])
		got += m
		if err != nil {
			break
		}
	}
	return string(answer[:got])
}

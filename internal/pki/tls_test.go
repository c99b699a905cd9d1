package pki

import (
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"testing"
)

// outcome is what a server saw of a handshake.
type outcome struct {
	state tls.ConnectionState
	err   error
}

// handshake connects a client to a server over a pipe.
func handshake(t *testing.T, server, client *tls.Config) (seen outcome, clientErr error) {
	t.Helper()
	a, b := net.Pipe()
	done := make(chan outcome, 1)
	go func() {
		conn := tls.Server(a, server)
		err := conn.HandshakeContext(t.Context())
		done <- outcome{conn.ConnectionState(), err}
		conn.Close()
	}()
	conn := tls.Client(b, client)
	clientErr = conn.HandshakeContext(t.Context())
	if clientErr == nil {
		// In TLS 1.3 a refused certificate arrives with the first read.
		_, clientErr = conn.Read(make([]byte, 1))
		if clientErr != nil && clientErr.Error() == "EOF" {
			clientErr = nil
		}
	}
	b.Close()
	return <-done, clientErr
}

// deviceCertificate is a client certificate of the installation.
func deviceCertificate(t *testing.T, p *PKI) tls.Certificate {
	t.Helper()
	key := curveKey(t, elliptic.P256())
	certPEM, err := p.SignCSR(t.Context(), request(t, key, x509.ECDSAWithSHA256))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(certPEM)
	return tls.Certificate{Certificate: [][]byte{block.Bytes}, PrivateKey: key}
}

// TestListeners cites device-plane 1.1 and design ruling 4.
func TestListeners(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), start())
	p := open(t, o)
	trusted := roots(t, o)
	device := deviceCertificate(t, p)
	for name, c := range map[string]struct {
		server   *tls.Config
		alpn     []string
		cert     bool
		version  uint16
		ok       bool
		protocol string
		asked    bool // the server learns the certificate when there is one
	}{
		"8883":                             {p.MQTTConfig(), nil, true, 0, true, "", true},
		"8883, TLS 1.2":                    {p.MQTTConfig(), nil, true, tls.VersionTLS12, true, "", true},
		"8883 without certificate":         {p.MQTTConfig(), nil, false, 0, false, "", false},
		"8883 with ALPN":                   {p.MQTTConfig(), []string{"x-amzn-mqtt-ca"}, true, 0, true, "", true},
		"8883 with foreign ALPN":           {p.MQTTConfig(), []string{"mqttv5"}, true, 0, true, "", true},
		"8883, TLS 1.1":                    {p.MQTTConfig(), nil, true, tls.VersionTLS11, false, "", false},
		"mqtt-ca":                          {p.SharedConfig(), []string{"x-amzn-mqtt-ca"}, true, 0, true, "x-amzn-mqtt-ca", true},
		"mqtt-ca without certificate":      {p.SharedConfig(), []string{"x-amzn-mqtt-ca"}, false, 0, false, "", false},
		"http-ca":                          {p.SharedConfig(), []string{"x-amzn-http-ca"}, true, 0, true, "x-amzn-http-ca", true},
		"http-ca without certificate":      {p.SharedConfig(), []string{"x-amzn-http-ca"}, false, 0, false, "", false},
		"mqtt asks for none":               {p.SharedConfig(), []string{"mqtt"}, true, 0, true, "mqtt", false},
		"http/1.1 takes one":               {p.SharedConfig(), []string{"http/1.1"}, true, 0, true, "http/1.1", true},
		"http/1.1 demands none":            {p.SharedConfig(), []string{"http/1.1"}, false, 0, true, "http/1.1", false},
		"no ALPN takes one":                {p.SharedConfig(), nil, true, 0, true, "", true},
		"no ALPN demands none":             {p.SharedConfig(), nil, false, 0, true, "", false},
		"h2 is never chosen":               {p.SharedConfig(), []string{"h2", "http/1.1"}, false, 0, true, "http/1.1", false},
		"foreign names only":               {p.SharedConfig(), []string{"coap"}, false, 0, false, "", false},
		"the certificate name comes first": {p.SharedConfig(), []string{"http/1.1", "x-amzn-mqtt-ca"}, true, 0, true, "x-amzn-mqtt-ca", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := &tls.Config{RootCAs: trusted, ServerName: "localhost", NextProtos: c.alpn, MaxVersion: c.version, MinVersion: tls.VersionTLS10, Time: start}
			if c.cert {
				client.Certificates = []tls.Certificate{device}
			}
			seen, clientErr := handshake(t, c.server, client)
			if (seen.err == nil) != c.ok {
				t.Fatalf("server: %v, client: %v, want success %v", seen.err, clientErr, c.ok)
			}
			if !c.ok {
				return
			}
			if clientErr != nil {
				t.Errorf("client: %v", clientErr)
			}
			if seen.state.NegotiatedProtocol != c.protocol {
				t.Errorf("protocol %q, want %q", seen.state.NegotiatedProtocol, c.protocol)
			}
			if got := len(seen.state.PeerCertificates) == 1; got != c.asked {
				t.Errorf("server knows a certificate: %v, want %v", got, c.asked)
			}
		})
	}
}

func TestCertificateFollowsTheClientsAlgorithms(t *testing.T) {
	t.Parallel()
	p := open(t, options(t.TempDir(), start()))
	for name, c := range map[string]struct {
		hello *tls.ClientHelloInfo
		want  x509.PublicKeyAlgorithm
	}{
		"both":              {hello("localhost", tls.PSSWithSHA256, tls.ECDSAWithP256AndSHA256), x509.ECDSA},
		"RSA only":          {hello("localhost", tls.PSSWithSHA256), x509.RSA},
		"RSA, unknown name": {hello("nobody.example", tls.PSSWithSHA256), x509.RSA},
		"nothing fits":      {hello("localhost", tls.Ed25519), x509.ECDSA},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := p.certificate(c.hello)
			if err != nil || got.Leaf.PublicKeyAlgorithm != c.want {
				t.Errorf("got %v, %v", got.Leaf.PublicKeyAlgorithm, err)
			}
		})
	}
}

func TestNoSessionTickets(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir(), start())
	p := open(t, o)
	device := deviceCertificate(t, p)
	client := &tls.Config{
		RootCAs: roots(t, o), ServerName: "localhost", Certificates: []tls.Certificate{device},
		ClientSessionCache: tls.NewLRUClientSessionCache(8), MaxVersion: tls.VersionTLS12, Time: start,
	}
	for range 2 {
		seen, err := handshake(t, p.MQTTConfig(), client)
		if err != nil || seen.err != nil {
			t.Fatal(err, seen.err)
		}
		if seen.state.DidResume {
			t.Error("the session was resumed: its certificate was not shown again")
		}
	}
}

package pki

import (
	"crypto/tls"
	"slices"
)

// Protocol names that AWS IoT clients offer by ALPN.
const (
	// ALPNMQTTCert is MQTT with a client certificate.
	ALPNMQTTCert = "x-amzn-mqtt-ca"
	// ALPNHTTPCert is HTTPS with a client certificate.
	ALPNHTTPCert = "x-amzn-http-ca"
	// ALPNMQTT is MQTT with a custom authorizer, without a certificate.
	ALPNMQTT = "mqtt"
	// ALPNHTTP is plain HTTPS.
	ALPNHTTP = "http/1.1"
)

// MQTTConfig is for mqtt-addr: every client shows a certificate, of any
// issuer, and may offer any ALPN names, since the server has no list.
func (p *PKI) MQTTConfig() *tls.Config {
	return p.config(tls.RequireAnyClientCert)
}

// SharedConfig is for tls-addr, where the offered ALPN name decides whether a
// client certificate is demanded, requested or not mentioned. Chains are never
// verified here: the registry knows which leaves are good.
func (p *PKI) SharedConfig() *tls.Config {
	byName := map[string]*tls.Config{
		ALPNMQTTCert: p.config(tls.RequireAnyClientCert, ALPNMQTTCert),
		ALPNHTTPCert: p.config(tls.RequireAnyClientCert, ALPNHTTPCert),
		ALPNMQTT:     p.config(tls.NoClientCert, ALPNMQTT),
		ALPNHTTP:     p.config(tls.RequestClientCert, ALPNHTTP),
	}
	order := []string{ALPNMQTTCert, ALPNHTTPCert, ALPNMQTT, ALPNHTTP}
	// A client without ALPN gets the last kind; one that offers only foreign
	// names is refused by the handshake, because no name matches.
	fallback := p.config(tls.RequestClientCert, order...)
	shared := p.config(tls.RequestClientCert, order...)
	shared.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		for _, name := range order {
			if slices.Contains(hello.SupportedProtos, name) {
				return byName[name], nil
			}
		}
		return fallback, nil
	}
	return shared
}

// config is the common base of all listeners.
func (p *PKI) config(auth tls.ClientAuthType, protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ClientAuth: auth,
		NextProtos: protocols,
		// A resumed session would skip the certificate, and AWS IoT has no
		// tickets either.
		SessionTicketsDisabled: true,
		GetCertificate:         p.certificate,
	}
}

// certificate chooses what the client can verify: the operator's own one when
// it bears the name asked for, then P-256, then RSA. A client that asks for a
// name nobody bears, or for none, gets the first one whose algorithms it
// knows.
func (p *PKI) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	set := p.current.Load()
	candidates := set.generated
	if set.own != nil {
		candidates = append([]*tls.Certificate{set.own}, set.generated...)
	}
	nameless := *hello
	nameless.ServerName = ""
	for _, h := range []*tls.ClientHelloInfo{hello, &nameless} {
		for _, c := range candidates {
			if h.SupportsCertificate(c) == nil {
				return c, nil
			}
		}
	}
	return candidates[0], nil
}

package sim

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
)

// door is where devices connect.
type door struct {
	broker, host string
	roots        *x509.CertPool
}

// newDoor reads the authorities of a broker's certificate.
func newDoor(broker, caFile string) (door, error) {
	host, _, err := net.SplitHostPort(broker)
	if err != nil {
		return door{}, fmt.Errorf("simulate: broker %q is not HOST:PORT", broker)
	}
	data, err := os.ReadFile(caFile)
	if err != nil {
		return door{}, fmt.Errorf("simulate: read authorities: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return door{}, fmt.Errorf("simulate: %s holds no certificate", caFile)
	}
	return door{broker: broker, host: host, roots: roots}, nil
}

// connect is a connection with a certificate.
func (d *door) connect(ctx context.Context, certificate tls.Certificate, o client.Options) (*client.Client, error) {
	conn, err := client.Dial(ctx, d.broker, &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: d.roots, ServerName: d.host, Certificates: []tls.Certificate{certificate},
	})
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	c, err := client.Connect(ctx, conn, o)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return c, nil
}

// asClaim connects with a claim and subscribes to the answers for who wants to be
// provisioned by a template.
func (d *door) asClaim(ctx context.Context, claim tls.Certificate, clientID, template string) (*joining, error) {
	j := &joining{answers: make(chan joinAnswer, 1), template: template}
	var err error
	if j.Client, err = d.connect(ctx, claim, client.Options{ClientID: clientID, KeepAlive: keepAlive, OnMessage: j.receive}); err != nil {
		return nil, fmt.Errorf("with the claim: %w", err)
	}
	codes, err := j.Subscribe(ctx, mqtt.Subscription{Filter: "$aws/certificates/create-from-csr/json/+", QoS: 1},
		mqtt.Subscription{Filter: j.provisionTopic() + "/+", QoS: 1})
	for _, code := range codes {
		if err == nil && code >= 0x80 {
			err = fmt.Errorf("subscription refused with 0x%02X", byte(code))
		}
	}
	if err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

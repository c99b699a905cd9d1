package cli

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/datadir"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
)

// Files of the certificate that the demo makes for people.
const (
	operatorCert = "operator.pem"
	operatorKey  = "operator.key"
)

// operatorKeepAlive is in seconds.
const operatorKeepAlive = 60

// mqttTimeout bounds each exchange with the broker.
const mqttTimeout = 15 * time.Second

// session says how to reach the broker and as whom.
type session struct {
	broker, cert, key, ca, dataDir, clientID string
}

// session registers the flags of an MQTT connection.
func (c *command) session(cmd *cobra.Command) *session {
	s := &session{}
	flags := cmd.Flags()
	flags.StringVar(&s.broker, "mqtt-endpoint", "localhost:8883", "HOST:PORT of MQTT over mutual TLS")
	flags.StringVar(&s.cert, "cert", "", "client certificate, PEM (default the demo's operator certificate)")
	flags.StringVar(&s.key, "key", "", "key of the client certificate, PEM")
	flags.StringVar(&s.ca, "ca", "", "authorities to trust (default <data-dir>/ca.pem)")
	flags.StringVar(&s.dataDir, "data-dir", c.defaultDataDir(), "data folder of a server on this machine")
	flags.StringVar(&s.clientID, "client-id", "", "MQTT client id (default operator- and a random part)")
	return s
}

// config loads certificate, key and authorities.
func (s *session) config() (*tls.Config, error) {
	cert, key := s.cert, s.key
	if (cert == "") != (key == "") {
		return nil, errors.New("--cert and --key belong together")
	}
	if cert == "" {
		cert, key = filepath.Join(s.dataDir, datadir.DemoDir, operatorCert), filepath.Join(s.dataDir, datadir.DemoDir, operatorKey)
		if _, err := os.Stat(cert); err != nil {
			return nil, fmt.Errorf("no client certificate: MQTT needs a registered one with a policy. `muster demo` makes one in %s; "+
				"otherwise name yours with --cert and --key", filepath.Dir(cert))
		}
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("load client certificate: %w", err)
	}
	ca := s.ca
	if ca == "" {
		ca = filepath.Join(s.dataDir, datadir.CAFile)
	}
	data, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("read authorities: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate", ca)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, RootCAs: roots}, nil
}

// connect opens a session.
func (s *session) connect(ctx context.Context, onMessage func(*mqtt.Publish)) (*client.Client, error) {
	config, err := s.config()
	if err != nil {
		return nil, err
	}
	id := s.clientID
	if id == "" {
		id = "operator-" + rand.Text()[:8]
	}
	ctx, cancel := context.WithTimeout(ctx, mqttTimeout)
	defer cancel()
	conn, err := client.Dial(ctx, s.broker, config)
	if err != nil {
		return nil, fmt.Errorf("reach the broker: %w", err)
	}
	c, err := client.Connect(ctx, conn, client.Options{ClientID: id, KeepAlive: operatorKeepAlive, OnMessage: onMessage})
	if err != nil {
		return nil, fmt.Errorf("connect as %s: %w", id, err)
	}
	return c, nil
}

// received is one message as --output json shows it.
type received struct {
	Time  time.Time `json:"time"`
	Topic string    `json:"topic"`
	QoS   byte      `json:"qos"`
	// Payload is JSON as it is, a string for other text, and base64 text in
	// Base64 for bytes.
	Payload json.RawMessage `json:"payload,omitempty"`
	Base64  string          `json:"base64,omitempty"`
	// text is the payload for people.
	text string
}

// newReceived copies a message out of the client's buffer.
func newReceived(p *mqtt.Publish, now time.Time) received {
	r := received{Time: now.UTC(), Topic: string(p.Topic), QoS: p.QoS, text: string(p.Payload)}
	switch {
	case json.Valid(p.Payload):
		r.Payload = append(json.RawMessage(nil), p.Payload...)
	case utf8.Valid(p.Payload):
		text, err := json.Marshal(string(p.Payload))
		if err == nil {
			r.Payload = text
		}
	default:
		r.Base64 = base64.StdEncoding.EncodeToString(p.Payload)
		r.text = "base64:" + r.Base64
	}
	return r
}

// inboxSize bounds messages that wait for a slow terminal.
const inboxSize = 1024

// subscribe prints messages until it is interrupted.
func (c *command) subscribe() *cobra.Command {
	cmd := &cobra.Command{
		Use: "sub FILTER...", Short: "Print MQTT messages as they come", Args: cobra.MinimumNArgs(1),
		Long: `Subscribe over mutual TLS and print messages until interrupted or --count came.

A terminal that is too slow loses messages; how many is said at the end.`,
		Example: `  muster sub '$aws/things/+/shadow/update/accepted'
  muster sub '$aws/events/presence/#' --count 10 -o json
  muster sub 'plant/#' --cert me.pem --key me.key --ca ca.pem --mqtt-endpoint iot.example.com:8883`,
	}
	s := c.session(cmd)
	qos := cmd.Flags().Uint8("qos", 0, "0 or 1")
	count := cmd.Flags().Int("count", 0, "end after this many messages; 0 for never")
	format := cmd.Flags().StringP("output", "o", "text", "text or json, one message a line")
	cmd.RunE = func(cmd *cobra.Command, filters []string) error {
		if *format != "text" && *format != formatJSON {
			return fmt.Errorf("--output %q is neither text nor json", *format)
		}
		return c.watch(cmd.Context(), s, filters, *qos, *count, *format == formatJSON)
	}
	return cmd
}

// watch subscribes and prints.
func (c *command) watch(ctx context.Context, s *session, filters []string, qos byte, count int, asJSON bool) error {
	inbox := make(chan received, inboxSize)
	lost := 0
	conn, err := s.connect(ctx, func(p *mqtt.Publish) {
		select {
		case inbox <- newReceived(p, c.Now()):
		default:
			lost++
		}
	})
	if err != nil {
		return err
	}
	err = c.printMessages(ctx, conn, inbox, filters, qos, count, asJSON)
	err = errors.Join(err, conn.Disconnect())
	if lost > 0 { // the reader that counts is gone
		_, _ = fmt.Fprintf(c.Err, "%d messages were lost, the output was too slow\n", lost)
	}
	return err
}

// printMessages runs until ctx ends, the connection does or count came.
func (c *command) printMessages(ctx context.Context, conn *client.Client, inbox <-chan received, filters []string, qos byte, count int, asJSON bool) error {
	subscriptions := make([]mqtt.Subscription, len(filters))
	for i, f := range filters {
		subscriptions[i] = mqtt.Subscription{Filter: f, QoS: qos}
	}
	subscribing, cancel := context.WithTimeout(ctx, mqttTimeout)
	defer cancel()
	codes, err := conn.Subscribe(subscribing, subscriptions...)
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	for i, code := range codes {
		if code >= 0x80 {
			return fmt.Errorf("the server refused the subscription to %s; is it allowed by the certificate's policy", filters[i])
		}
	}
	for seen := 0; count == 0 || seen < count; seen++ {
		select {
		case <-ctx.Done():
			return nil
		case <-conn.Done():
			return fmt.Errorf("the connection ended: %w", conn.Err())
		case m := <-inbox:
			if err := c.printMessage(m, asJSON); err != nil {
				return err
			}
		}
	}
	return nil
}

// printMessage writes one line.
func (c *command) printMessage(m received, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(c.Out).Encode(m) //nolint:wrapcheck // standard output says it all
	}
	_, err := fmt.Fprintf(c.Out, "%s %s %s\n", m.Time.Format("15:04:05.000"), printable(m.Topic), printable(m.text))
	return err //nolint:wrapcheck // standard output says it all
}

// publish sends one message.
func (c *command) publish() *cobra.Command {
	cmd := &cobra.Command{
		Use: "pub TOPIC PAYLOAD", Short: "Publish one MQTT message", Args: cobra.ExactArgs(2),
		Long: "Publish one message over mutual TLS. With --qos 1, the default, the command ends\nwhen the server has acknowledged it.",
		Example: `  muster pub '$aws/things/pump-00001/shadow/update' '{"state":{"desired":{"led":"on"}}}'
  muster pub plant/leeds/note hello --qos 0`,
	}
	s := c.session(cmd)
	qos := cmd.Flags().Uint8("qos", 1, "0 or 1")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		conn, err := s.connect(cmd.Context(), nil)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), mqttTimeout)
		defer cancel()
		if err := conn.Publish(ctx, args[0], *qos, []byte(args[1])); err != nil {
			return errors.Join(fmt.Errorf("publish: %w; is it allowed by the certificate's policy", err), conn.Close())
		}
		return conn.Disconnect() //nolint:wrapcheck // it names itself
	}
	return cmd
}

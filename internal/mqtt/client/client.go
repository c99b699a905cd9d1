package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/muster-iot/muster/internal/mqtt"
)

// defaultMaxPacket bounds packets from the server when Options leave it open.
const defaultMaxPacket = 268435460

// Options describe one connection.
type Options struct {
	// ClientID may be empty in MQTT 5; the server then assigns one.
	ClientID string
	// Version is V311 when zero.
	Version mqtt.Version
	// Persistent asks for a session that outlives the connection in MQTT 3.1.1
	// and resumes one in MQTT 5, where the session expiry in Properties keeps it.
	Persistent bool
	// KeepAlive in seconds; 0 sends no pings unless the server asks for them.
	KeepAlive uint16
	Will      *mqtt.Will
	// Username and Password are sent when not empty.
	Username string
	Password []byte
	// Properties go into the CONNECT of MQTT 5.
	Properties mqtt.Properties
	// OnMessage is called by the reader, in order of arrival; a QoS 1 message is
	// acknowledged when it returns. It must not wait for this client's own
	// acknowledgements. The message is valid during the call.
	OnMessage func(*mqtt.Publish)
	// MaxPacket bounds packets from the server; 0 means the encoding's limit.
	MaxPacket int
}

// Errors of a client's end and use.
var (
	// ErrClosed is the end by Disconnect or Close.
	ErrClosed = errors.New("mqtt client: closed")
	// ErrNoPingResponse is a server that left a ping unanswered.
	ErrNoPingResponse = errors.New("mqtt client: no answer to ping")
	// ErrQoS is a publish with a quality of service other than 0 and 1.
	ErrQoS = errors.New("mqtt client: quality of service is neither 0 nor 1")
)

// RefusedError is a server's refusal: of the CONNECT, of a PUBLISH, or a
// DISCONNECT in mid-session. Before MQTT 5 Reason holds the return code.
type RefusedError struct {
	Packet mqtt.Type
	Reason mqtt.ReasonCode
}

// Error names the packet and the code.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("mqtt client: %s with reason 0x%02X", e.Packet, byte(e.Reason))
}

// Client is one connected client. Its methods are safe for concurrent use.
type Client struct {
	conn      net.Conn
	version   mqtt.Version
	id        string
	connack   mqtt.Connack
	onMessage func(*mqtt.Publish)
	maxPacket int

	write sync.Mutex // serializes writes and guards out
	out   []byte

	mu      sync.Mutex
	nextID  uint16
	waiting map[uint16]chan<- answer
	pings   []chan<- answer
	err     error

	window chan struct{} // one slot for each unacknowledged QoS 1 publish
	done   chan struct{}

	sent    atomic.Bool // something was sent since the timer fired last
	pinged  atomic.Bool // a keep-alive ping is unanswered
	pinging *time.Timer
}

// answer is what the reader tells a waiting call.
type answer struct {
	reason  mqtt.ReasonCode
	reasons []mqtt.ReasonCode
}

// Dial opens a TCP connection, and TLS over it when config is not nil. The
// server name is taken from addr when config has none.
func Dial(ctx context.Context, addr string, config *tls.Config) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil || config == nil {
		return conn, err
	}
	if config.ServerName == "" && !config.InsecureSkipVerify {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		config = config.Clone()
		config.ServerName = host
	}
	secured := tls.Client(conn, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("handshake with %s: %w", addr, err), conn.Close())
	}
	return secured, nil
}

// Connect sends CONNECT and waits for the server's answer. It owns conn from
// now on and closes it on failure; a refusal is a *RefusedError.
func Connect(ctx context.Context, conn net.Conn, o Options) (*Client, error) {
	c := &Client{conn: conn, version: o.Version, id: o.ClientID, onMessage: o.OnMessage, maxPacket: o.MaxPacket, done: make(chan struct{})}
	if c.version == 0 {
		c.version = mqtt.V311
	}
	if c.maxPacket == 0 {
		c.maxPacket = defaultMaxPacket
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	leftover, err := c.open(&o)
	if !stop() {
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c.window = make(chan struct{}, c.receiveMaximum())
	if interval := c.pingInterval(o.KeepAlive); interval > 0 {
		// Armed only when the field is set, which the callback reads.
		c.pinging = time.AfterFunc(math.MaxInt64, func() { c.keepAlive(interval) })
		c.pinging.Reset(interval)
	}
	go c.read(leftover)
	return c, nil
}

// open exchanges CONNECT and CONNACK.
func (c *Client) open(o *Options) (leftover []byte, err error) {
	connect := mqtt.Connect{
		Version: c.version, CleanStart: !o.Persistent, KeepAlive: o.KeepAlive, ClientID: o.ClientID, Will: o.Will,
		HasUsername: o.Username != "", Username: o.Username, HasPassword: len(o.Password) > 0, Password: o.Password,
		Properties: o.Properties,
	}
	if err := c.send(&connect); err != nil {
		return nil, err
	}
	in := input{conn: c.conn, limit: c.maxPacket}
	packet, err := in.next()
	if err != nil {
		return nil, fmt.Errorf("wait for CONNACK: %w", err)
	}
	if mqtt.TypeOf(packet) != mqtt.TypeConnack {
		return nil, fmt.Errorf("mqtt client: %s instead of CONNACK", mqtt.TypeOf(packet))
	}
	if err := c.connack.Decode(packet, c.version); err != nil {
		return nil, fmt.Errorf("decode CONNACK: %w", err)
	}
	if c.connack.Reason != mqtt.Success {
		return nil, &RefusedError{Packet: mqtt.TypeConnack, Reason: c.connack.Reason}
	}
	if c.connack.Properties.Set.Has(mqtt.PropAssignedClientID) {
		c.id = c.connack.Properties.AssignedClientID
	}
	return in.rest, nil
}

// receiveMaximum returns how many QoS 1 publishes may be unacknowledged.
func (c *Client) receiveMaximum() int {
	const most = 100
	if c.connack.Properties.Set.Has(mqtt.PropReceiveMaximum) {
		return min(most, int(c.connack.Properties.ReceiveMaximum))
	}
	return most
}

// pingInterval is half the keep-alive, so that two firings without traffic
// between them still keep the promise.
func (c *Client) pingInterval(asked uint16) time.Duration {
	if c.connack.Properties.Set.Has(mqtt.PropServerKeepAlive) {
		asked = c.connack.Properties.ServerKeepAlive
	}
	return time.Duration(asked) * time.Second / 2
}

// ID returns the client id, assigned or own.
func (c *Client) ID() string { return c.id }

// Connack returns the server's answer to CONNECT.
func (c *Client) Connack() mqtt.Connack { return c.connack }

// Done is closed when the connection has ended and the reader is gone.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns why the connection ended, nil while it lasts.
func (c *Client) Err() error {
	select {
	case <-c.done:
	default:
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close drops the connection without DISCONNECT, as a failing network does,
// and waits for the reader; OnMessage must not call it.
func (c *Client) Close() error {
	c.end(ErrClosed)
	<-c.done
	return nil
}

// Disconnect leaves in good order: the server publishes no will.
func (c *Client) Disconnect() error {
	// The server may close before send returns: that is no loss.
	c.because(ErrClosed)
	err := c.send(&mqtt.Disconnect{})
	return errors.Join(err, c.Close())
}

// end keeps the first reason and closes the connection, which ends the reader.
func (c *Client) end(err error) {
	c.because(err)
	_ = c.conn.Close()
}

// because keeps the first reason of an end.
func (c *Client) because(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
}

// send encodes and writes one packet.
func (c *Client) send(p mqtt.Packet) error {
	c.write.Lock()
	defer c.write.Unlock()
	var err error
	if c.out, err = p.Append(c.out[:0], c.version); err != nil {
		return err
	}
	c.sent.Store(true)
	if _, err := c.conn.Write(c.out); err != nil {
		return fmt.Errorf("send %s: %w", p.Type(), err)
	}
	if cap(c.out) > 4096 {
		c.out = nil
	}
	return nil
}

// keepAlive pings after an interval without traffic and gives up when the ping
// before was not answered.
func (c *Client) keepAlive(interval time.Duration) {
	select {
	case <-c.done:
		return
	default:
	}
	if c.pinged.Load() {
		c.end(ErrNoPingResponse)
		return
	}
	if !c.sent.Swap(false) {
		c.pinged.Store(true)
		if err := c.send(&mqtt.Pingreq{}); err != nil {
			c.end(err)
			return
		}
	}
	c.pinging.Reset(interval)
}

package app

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/muster-iot/muster/internal/account"
	"github.com/muster-iot/muster/internal/awsapi/sigv4"
	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/pki"
)

// liveApp is a running server with the root access key of its account.
type liveApp struct {
	*App
	t    *testing.T
	root account.AccessKey
}

func startApp(t *testing.T, change func(*App)) *liveApp {
	t.Helper()
	s := settings(t)
	s.Advertise = "iot.example.com:8443"
	a := newApp(t, s)
	if change != nil {
		change(a)
	}
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	root, err := a.accounts.Root(t.Context(), a.settings.AccountID)
	if err != nil {
		t.Fatal(err)
	}
	return &liveApp{a, t, root}
}

// opening is how a test asks for a WebSocket.
type opening struct {
	listener string
	// signedHost is what the client signs, with a port of its own or without; the
	// empty one is the host that it sends.
	signedHost, service, secret, keyID, token string
	expires                                   time.Duration
	at                                        time.Time
	byHeader, unsigned                        bool
	protocols, alpn                           []string
	header                                    http.Header
}

// open asks for a WebSocket. The body is what a refusal says.
func (s *liveApp) open(o opening) (socket *websocket.Conn, status int, body string) {
	s.t.Helper()
	if o.listener == "" {
		o.listener = listenerTLS
	}
	if o.protocols == nil {
		o.protocols = []string{webSocketProtocol}
	}
	scheme := "https"
	if o.listener == listenerHTTP {
		scheme = "http"
	}
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, scheme+"://"+s.Addr(o.listener).String()+webSocketPath, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	maps.Copy(r.Header, o.header)
	s.sign(r, &o)
	secured := &tls.Config{InsecureSkipVerify: true, NextProtos: o.alpn}
	if o.alpn != nil {
		secured.Certificates = []tls.Certificate{strangerCertificate(s.t)}
	}
	// The transport's own dialing would choose the protocol names.
	transport := &http.Transport{DisableKeepAlives: true, DialTLSContext: (&tls.Dialer{Config: secured}).DialContext}
	defer transport.CloseIdleConnections()
	socket, answer, err := websocket.Dial(s.t.Context(), r.URL.String(), &websocket.DialOptions{ //nolint:bodyclose // the library has replaced it by bytes
		HTTPClient: &http.Client{Transport: transport}, HTTPHeader: r.Header, Subprotocols: o.protocols,
	})
	if err == nil {
		s.t.Cleanup(func() { _ = socket.CloseNow() })
		if got := answer.Header.Get("Sec-WebSocket-Protocol"); !slices.Contains(o.protocols, got) || got == "amqp" {
			s.t.Errorf("subprotocol %q", got)
		}
		return socket, answer.StatusCode, ""
	}
	if answer == nil {
		s.t.Fatal(err)
	}
	said, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return nil, answer.StatusCode, string(said)
}

// sign signs a request as the opening says.
func (s *liveApp) sign(r *http.Request, o *opening) {
	s.t.Helper()
	if o.unsigned {
		return
	}
	key, scope, at := sigv4.Key{AccessKeyID: s.root.ID, Secret: s.root.Secret, Token: o.token}, sigv4.Scope{Region: "eu-local-1", Service: "iotdevicegateway"}, time.Now()
	if o.secret != "" {
		key.Secret = o.secret
	}
	if o.keyID != "" {
		key.AccessKeyID = o.keyID
	}
	if o.service != "" {
		scope.Service = o.service
	}
	if !o.at.IsZero() {
		at = o.at
	}
	sent := r.Host
	if o.signedHost != "" {
		r.Host = o.signedHost
	}
	var err error
	if o.byHeader {
		err = sigv4.Sign(r, nil, key, scope, at)
	} else {
		err = sigv4.Presign(r, key, scope, at, o.expires)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	r.Host = sent
}

// connect opens a WebSocket and an MQTT session on it.
func (s *liveApp) connect(o opening, c client.Options) (*client.Client, *websocket.Conn) {
	s.t.Helper()
	socket, status, body := s.open(o)
	if socket == nil {
		s.t.Fatalf("no WebSocket: %d %s", status, body)
	}
	connected, err := client.Connect(s.t.Context(), websocket.NetConn(context.WithoutCancel(s.t.Context()), socket, websocket.MessageBinary), c)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = connected.Close() })
	return connected, socket
}

// TestWebSocketSignatures cites ruling 12 of the design and §1.3 of the device
// plane: who may open a WebSocket on /mqtt, and in which words others are
// refused.
func TestWebSocketSignatures(t *testing.T) {
	t.Parallel()
	s := startApp(t, nil)
	_, port, err := net.SplitHostPort(s.Addr(listenerTLS).String())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		opening
		status int
		says   string
	}{
		"presigned":                 {opening{}, 101, ""},
		"presigned on http-addr":    {opening{listener: listenerHTTP}, 101, ""},
		"with http/1.1":             {opening{alpn: []string{pki.ALPNHTTP}}, 101, ""},
		"by header":                 {opening{byHeader: true}, 101, ""},
		"for iotdata":               {opening{service: "iotdata"}, 101, ""},
		"host without port":         {opening{signedHost: "127.0.0.1"}, 101, ""},
		"host with listener's port": {opening{signedHost: "127.0.0.1:" + port}, 101, ""},
		"host with advertised port": {opening{signedHost: "127.0.0.1:8443"}, 101, ""},
		"by header without port":    {opening{signedHost: "127.0.0.1", byHeader: true}, 101, ""},
		"good for an hour":          {opening{expires: time.Hour, at: time.Now().Add(-50 * time.Minute)}, 101, ""},
		"one of several protocols":  {opening{protocols: []string{"amqp", "mqtt"}}, 101, ""},
		"the older protocol name":   {opening{protocols: []string{"mqttv3.1"}}, 101, ""},

		"host with another port": {opening{signedHost: "127.0.0.1:1"}, 403, "does not match"},
		"another host":           {opening{signedHost: "example.com"}, 403, "does not match"},
		"wrong secret":           {opening{secret: "wrong"}, 403, "does not match"},
		"wrong secret by header": {opening{secret: "wrong", byHeader: true}, 403, "does not match"},
		"unknown key":            {opening{keyID: "AKIAAAAAAAAAAAAAAAAA"}, 403, "security token included in the request is invalid"},
		"session token":          {opening{token: "token"}, 403, "security token included in the request is invalid"},
		"another service":        {opening{service: "iot"}, 403, "iotdevicegateway or iotdata"},
		"expired":                {opening{expires: time.Minute, at: time.Now().Add(-2 * time.Minute)}, 403, "skewed"},
		"too old":                {opening{at: time.Now().Add(-6 * time.Minute)}, 403, "skewed"},
		"too long":               {opening{expires: 8 * 24 * time.Hour}, 403, "X-Amz-Expires must be 1 to 604800"},
		"unsigned":               {opening{unsigned: true}, 403, "must be signed"},
		"no subprotocol":         {opening{protocols: []string{}}, 400, "subprotocol mqtt"},
		"other subprotocol":      {opening{protocols: []string{"amqp"}}, 400, "subprotocol mqtt"},
		"with x-amzn-http-ca":    {opening{alpn: []string{pki.ALPNHTTPCert}}, 403, "offer http/1.1"},
		"version 8":              {opening{header: http.Header{"Sec-WebSocket-Version": {"8"}}}, 400, "version"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &liveApp{s.App, t, s.root}
			if name == "version 8" { // the library would set the right one
				status, body := s.plainGET(c.header)
				if status != c.status || !strings.Contains(body, c.says) {
					t.Errorf("answered %d %q, want %d with %q", status, body, c.status, c.says)
				}
				return
			}
			socket, status, body := s.open(c.opening)
			if status != c.status || !strings.Contains(body, c.says) || (socket != nil) != (c.status == 101) {
				t.Errorf("answered %d %q, want %d with %q", status, body, c.status, c.says)
			}
			if strings.Contains(body, "Signature=") || strings.Contains(body, s.root.ID) {
				t.Errorf("the refusal repeats what was sent: %q", body)
			}
		})
	}
}

// plainGET asks for the upgrade with a header of its own, signed.
func (s *liveApp) plainGET(header http.Header) (status int, body string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.Addr(listenerHTTP).String()+webSocketPath, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.sign(r, &opening{})
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
	r.Header.Set("Sec-WebSocket-Protocol", webSocketProtocol)
	for name, values := range header {
		r.Header.Set(name, values[0])
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(said)
}

// reason polls until the client is known to be away and returns why.
func (s *liveApp) reason(clientID string) string {
	s.t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := s.presence.Get(s.t.Context(), s.settings.AccountID, clientID)
		if err == nil && !got.Connected {
			return got.Reason
		}
		select {
		case <-tick.C:
		case <-deadline:
			s.t.Fatalf("%s is not away: %+v, %v", clientID, got, err)
		}
	}
}

// TestWebSocketEnds cites §1.3 of the device plane: a Close frame equals a clean
// DISCONNECT for the will and for the reason, a lost connection does not.
func TestWebSocketEnds(t *testing.T) {
	t.Parallel()
	s := startApp(t, nil)
	for id, c := range map[string]struct {
		end    func(*client.Client, *websocket.Conn)
		reason broker.DisconnectReason
		will   bool
	}{
		"disconnect": {func(c *client.Client, _ *websocket.Conn) { _ = c.Disconnect() }, broker.ReasonClientInitiated, false},
		"close":      {func(_ *client.Client, w *websocket.Conn) { _ = w.Close(websocket.StatusNormalClosure, "") }, broker.ReasonClientInitiated, false},
		"going away": {func(_ *client.Client, w *websocket.Conn) { _ = w.Close(websocket.StatusGoingAway, "") }, broker.ReasonClientInitiated, false},
		"cut":        {func(_ *client.Client, w *websocket.Conn) { _ = w.CloseNow() }, broker.ReasonConnectionLost, true},
		"text": {func(_ *client.Client, w *websocket.Conn) {
			_ = w.Write(t.Context(), websocket.MessageText, []byte("hello"))
		}, broker.ReasonConnectionLost, true},
	} {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			s := &liveApp{s.App, t, s.root}
			wills := make(chan string, 4)
			watcher, _ := s.connect(opening{listener: listenerHTTP}, client.Options{
				ClientID: "watch " + id, OnMessage: func(p *mqtt.Publish) { wills <- string(p.Payload) },
			})
			if codes, err := watcher.Subscribe(t.Context(), mqtt.Subscription{Filter: "end/" + id, QoS: 1}); err != nil || codes[0] > 1 {
				t.Fatal(codes, err)
			}
			c1, socket := s.connect(opening{}, client.Options{ClientID: id, Will: &mqtt.Will{Topic: "end/" + id, Payload: []byte("will"), QoS: 1}})
			c.end(c1, socket)
			if got := s.reason(id); got != string(c.reason) {
				t.Errorf("reason %s, want %s", got, c.reason)
			}
			// What comes behind the will shows whether there was one.
			if err := watcher.Publish(t.Context(), "end/"+id, 1, []byte("after")); err != nil {
				t.Fatal(err)
			}
			if c.will {
				if got := <-wills; got != "will" {
					t.Errorf("received %q, want the will", got)
				}
			}
			if got := <-wills; got != "after" {
				t.Errorf("received %q", got)
			}
		})
	}
}

// TestWebSocketFraming sends packets over message borders and several in one
// message.
func TestWebSocketFraming(t *testing.T) {
	t.Parallel()
	s := startApp(t, nil)
	socket, _, body := s.open(opening{})
	if socket == nil {
		t.Fatal(body)
	}
	read := websocket.NetConn(context.WithoutCancel(t.Context()), socket, websocket.MessageBinary)
	send := func(b string) {
		t.Helper()
		if err := socket.Write(t.Context(), websocket.MessageBinary, []byte(b)); err != nil {
			t.Fatal(err)
		}
	}
	want := func(b string) {
		t.Helper()
		got := make([]byte, len(b))
		if _, err := io.ReadFull(read, got); err != nil || string(got) != b {
			t.Fatalf("read %q, %v, want %q", got, err, b)
		}
	}
	for _, piece := range []string{"\x10", "", "\x0d\x00\x04MQ", "TT\x04\x02\x00\x3c\x00\x01", "a\xc0"} {
		send(piece)
	}
	want("\x20\x02\x00\x00")
	send("\x00\xc0\x00\xc0\x00")
	want("\xd0\x00\xd0\x00\xd0\x00")
}

// TestWebSocketAnnouncedLength announces a message larger than any memory: what
// is in it is read as it comes, and the connection ends at the limit.
func TestWebSocketAnnouncedLength(t *testing.T) {
	t.Parallel()
	s := startApp(t, nil)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Addr(listenerHTTP).String()+webSocketPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.sign(r, &opening{})
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Addr(listenerHTTP).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const answered = "HTTP/1.1 101 Switching Protocols\r\n"
	if got := exchange(t, conn, "GET "+r.URL.RequestURI()+" HTTP/1.1\r\nHost: "+r.Host+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n", len(answered)); got != answered {
		t.Fatalf("answered %q", got)
	}
	rest, got := make([]byte, 4096), ""
	for !strings.Contains(got, "\r\n\r\n") {
		n, err := conn.Read(rest)
		if err != nil {
			t.Fatal(err)
		}
		got += string(rest[:n])
	}
	// Masked with zeros, so that the payload travels as it is.
	head := binary.BigEndian.AppendUint64([]byte{0x82, 0x80 | 127}, 1<<40)
	head = append(head, 0, 0, 0, 0)
	packets := "\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a"
	if got := exchange(t, conn, string(head)+packets, 6); got != "\x82\x04\x20\x02\x00\x00" {
		t.Fatalf("answered %q", got)
	}
	ping := []byte(strings.Repeat("\xc0\x00", 16<<10))
	go func() {
		_, _ = io.Copy(io.Discard, conn)
	}()
	for sent := 0; ; sent += len(ping) {
		if _, err := conn.Write(ping); err != nil {
			break
		}
		if sent > 64*maxWebSocketMessage {
			t.Fatal("a message without end was read to the end")
		}
	}
	if got := s.reason("a"); got != string(broker.ReasonConnectionLost) {
		t.Errorf("reason %s", got)
	}
}

// TestWebSocketPrincipal cites §3.1 of the device plane: the principal is the
// key's user, and the connection is bound to end after a day.
func TestWebSocketPrincipal(t *testing.T) {
	t.Parallel()
	s := startApp(t, nil)
	s.connect(opening{}, client.Options{ClientID: "me"})
	got, ok := s.broker.Connection(s.settings.AccountID, "me")
	if !ok || got.Principal != account.RootPrincipal(s.settings.AccountID) || got.Transport != broker.TransportWebSocket || got.ListenerName != listenerTLS || got.Indexed {
		t.Errorf("connected as %+v, %v", got, ok)
	}
	opened := &upgrade{caller: nil, until: time.Now().Add(webSocketLife)}
	request := &broker.ConnectRequest{ClientID: "x", ListenerName: listenerTLS, Transport: broker.TransportWebSocket, Attachment: opened}
	if _, err := s.gatekeeper.Admit(t.Context(), request); fault.CodeOf(err) != fault.Unauthorized {
		t.Errorf("without signature: %v", err)
	}
}

// customEveryone admits whoever names a secret in the request or the CONNECT.
type customEveryone struct{ life time.Duration }

func (customEveryone) Offered(context.Context, string) bool { return true }

type allGuard struct{}

func (allGuard) CanPublish(string, bool) bool { return true }
func (allGuard) CanSubscribe(string) bool     { return true }
func (allGuard) CanReceive(string) bool       { return true }

func (allGuard) Enrich(own []mqtt.UserProperty) []mqtt.UserProperty { return own }

func (allGuard) Close() {}

func (e customEveryone) Admit(_ context.Context, c *broker.ConnectRequest) (broker.Admission, error) {
	opened, _ := c.Attachment.(*upgrade)
	if c.Username != "open sesame" && (opened == nil || opened.header.Get("Token") != "open sesame") {
		return broker.Admission{}, fault.New(fault.Unauthorized, "no")
	}
	return broker.Admission{
		Account: c.Account, Principal: fleet.Principal{Kind: "custom", ID: "me"}, Guard: allGuard{},
		Until: time.Now().Add(e.life), UntilReason: broker.ReasonCustomAuthorExpired,
	}, nil
}

// TestWithoutProofACustomAdmitterDecides lets connections with neither
// certificate nor signature up to their CONNECT where somebody can decide then.
func TestWithoutProofACustomAdmitterDecides(t *testing.T) {
	t.Parallel()
	s := startApp(t, func(a *App) { a.gatekeeper.custom = customEveryone{life: time.Hour} })
	s.connect(opening{unsigned: true, header: http.Header{"Token": {"open sesame"}}}, client.Options{ClientID: "header"})
	s.connect(opening{unsigned: true}, client.Options{ClientID: "username", Username: "open sesame"})
	s.connect(opening{}, client.Options{ClientID: "signed"})
	if _, status, _ := s.open(opening{secret: "wrong"}); status != http.StatusForbidden {
		t.Errorf("a wrong signature: %d", status)
	}
	for _, alpn := range []string{pki.ALPNMQTT, pki.ALPNHTTP} {
		for _, name := range []string{"open sesame", "stranger"} {
			conn, err := client.Dial(t.Context(), s.Addr(listenerTLS).String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}})
			if err != nil {
				t.Fatal(err)
			}
			connected, err := client.Connect(t.Context(), conn, client.Options{ClientID: alpn, Username: name})
			if (err == nil) != (name == "open sesame") {
				t.Errorf("%s as %s: %v", alpn, name, err)
			}
			if err == nil {
				_ = connected.Close()
			}
		}
	}
	request := func(id string) *broker.ConnectRequest {
		return &broker.ConnectRequest{ClientID: id, Username: "open sesame", Attachment: &upgrade{until: time.Now().Add(webSocketLife)}, ListenerName: listenerTLS}
	}
	for life, want := range map[time.Duration]broker.DisconnectReason{time.Hour: broker.ReasonCustomAuthorExpired, 48 * time.Hour: broker.ReasonWebSocketExpired} {
		g := *s.gatekeeper
		g.custom = customEveryone{life: life}
		got, err := g.Admit(t.Context(), request("x"))
		if err != nil || got.UntilReason != want || got.Until.After(time.Now().Add(webSocketLife)) {
			t.Errorf("%v: ends at %v for %s, %v", life, got.Until, got.UntilReason, err)
		}
	}
}

// denials refuses one action.
type denials string

// Used implements operators.
func (denials) Used(context.Context, string) {}

func (d denials) Authorize(_ context.Context, _ fleet.Principal, action, resource string) error {
	if strings.HasPrefix(string(d), action+" ") && strings.HasSuffix(resource, strings.TrimPrefix(string(d), action+" ")) {
		return fault.New(fault.Forbidden, "no")
	}
	return nil
}

// TestSignedGuardAsksForEachPacket refuses one action at a time.
func TestSignedGuardAsksForEachPacket(t *testing.T) {
	t.Parallel()
	s := startApp(t, nil)
	caller, err := s.signedCaller()
	if err != nil {
		t.Fatal(err)
	}
	admit := func(deny denials) (broker.Admission, error) {
		g := *s.gatekeeper
		g.operators = deny
		return g.Admit(t.Context(), &broker.ConnectRequest{
			ClientID: "c", Will: &broker.Message{Topic: "w", Retain: true}, ListenerName: listenerTLS, Attachment: caller,
		})
	}
	prefix := "arn:aws:iot:" + s.settings.Region + ":" + string(s.settings.AccountID) + ":"
	for _, deny := range []string{"iot:Connect " + prefix + "client/c", "iot:Publish " + prefix + "topic/w", "iot:RetainPublish " + prefix + "topic/w"} {
		if _, err := admit(denials(deny)); fault.CodeOf(err) != fault.Forbidden {
			t.Errorf("%s: %v", deny, err)
		}
	}
	for deny, ask := range map[string]func(broker.Guard) bool{
		"iot:Publish " + prefix + "topic/t":           func(g broker.Guard) bool { return g.CanPublish("t", false) },
		"iot:RetainPublish " + prefix + "topic/t":     func(g broker.Guard) bool { return g.CanPublish("t", true) },
		"iot:Subscribe " + prefix + "topicfilter/t/#": func(g broker.Guard) bool { return g.CanSubscribe("t/#") },
		"iot:Receive " + prefix + "topic/t":           func(g broker.Guard) bool { return g.CanReceive("t") },
	} {
		refused, err := admit(denials(deny))
		if err != nil {
			t.Fatal(err)
		}
		allowed, err := admit("")
		if err != nil {
			t.Fatal(err)
		}
		if ask(refused.Guard) || !ask(allowed.Guard) {
			t.Errorf("%s: %v with the denial, %v without", deny, ask(refused.Guard), ask(allowed.Guard))
		}
	}
	admitted, err := admit("")
	if err != nil || admitted.UntilReason != broker.ReasonWebSocketExpired || !admitted.Until.Equal(caller.until) {
		t.Errorf("ends at %v for %s, %v", admitted.Until, admitted.UntilReason, err)
	}
}

// signedCaller is an upgrade by the root access key.
func (s *liveApp) signedCaller() (*upgrade, error) {
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "https://localhost/mqtt", nil)
	if err != nil {
		return nil, err
	}
	s.sign(r, &opening{})
	caller, err := s.api.AuthenticateUpgrade(r)
	if err != nil {
		return nil, err
	}
	if caller == nil {
		return nil, errors.New("no signature was seen")
	}
	return &upgrade{caller: caller, until: time.Now().Add(webSocketLife)}, nil
}

// TestStopEndsWebSockets stops the server under a session, and under a WebSocket
// that has said nothing yet.
func TestStopEndsWebSockets(t *testing.T) {
	t.Parallel()
	s := startApp(t, nil)
	connected, _ := s.connect(opening{}, client.Options{ClientID: "c", Version: mqtt.V5})
	silent, _, body := s.open(opening{})
	if silent == nil {
		t.Fatal(body)
	}
	begun := time.Now()
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > stopPatience/2 {
		t.Errorf("took %v", took)
	}
	<-connected.Done()
	var refused *client.RefusedError
	if !errors.As(connected.Err(), &refused) || refused.Reason != mqtt.ServerShuttingDown {
		t.Errorf("ended by %v", connected.Err())
	}
	if _, _, err := silent.Read(t.Context()); err == nil {
		t.Error("the silent WebSocket is open")
	}
}

// TestWebSocketExpires cites §1.3 of the device plane: the connection ends when
// its time has come, with the reason for it.
func TestWebSocketExpires(t *testing.T) {
	t.Parallel()
	s := startApp(t, nil)
	opened, err := s.signedCaller()
	if err != nil {
		t.Fatal(err)
	}
	opened.until = time.Now().Add(time.Second)
	ours, theirs := net.Pipe()
	o := s.mqttOptions(listenerTLS)
	o.Transport, o.Attachment = broker.TransportWebSocket, opened
	go func() { _ = s.broker.Handle(context.WithoutCancel(t.Context()), theirs, o) }()
	connected, err := client.Connect(t.Context(), ours, client.Options{ClientID: "c", Version: mqtt.V5})
	if err != nil {
		t.Fatal(err)
	}
	<-connected.Done()
	var refused *client.RefusedError
	if !errors.As(connected.Err(), &refused) || refused.Reason != mqtt.MaximumConnectTime {
		t.Errorf("ended by %v", connected.Err())
	}
	if got := s.reason("c"); got != string(broker.ReasonWebSocketExpired) {
		t.Errorf("reason %s", got)
	}
}

// TestPresignedCalls makes API calls by presigned query.
func TestPresignedCalls(t *testing.T) {
	t.Parallel()
	s := startApp(t, nil)
	for name, c := range map[string]struct {
		opening
		tamper string
		status int
	}{
		"signed":            {opening{service: "iot"}, "", http.StatusOK},
		"an hour later":     {opening{service: "iot", expires: 2 * time.Hour, at: time.Now().Add(-time.Hour)}, "", http.StatusOK},
		"wrong secret":      {opening{service: "iot", secret: "x"}, "", http.StatusForbidden},
		"added parameter":   {opening{service: "iot"}, "&maxResults=1", http.StatusForbidden},
		"for a gateway":     {opening{service: "iotdevicegateway"}, "", http.StatusNotFound},
		"signature missing": {opening{service: "iot", unsigned: true}, "&X-Amz-Algorithm=AWS4-HMAC-SHA256", http.StatusBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &liveApp{s.App, t, s.root}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Addr(listenerHTTP).String()+"/things", nil)
			if err != nil {
				t.Fatal(err)
			}
			s.sign(r, &c.opening)
			r.URL.RawQuery += c.tamper
			transport := &http.Transport{DisableKeepAlives: true}
			resp, err := transport.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			said, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != c.status {
				t.Errorf("answered %d %s, want %d", resp.StatusCode, said, c.status)
			}
		})
	}
}

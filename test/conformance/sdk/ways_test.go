package sdk

import (
	"encoding/json"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/muster-iot/muster/internal/awsapi/sigv4"
	"github.com/muster-iot/muster/internal/mqtt"
	mqttclient "github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/testkit"
)

// proof is how a client shows who it is.
type proof string

const (
	nobody       proof = ""
	byMutualTLS  proof = "mtls"
	bySignature  proof = "sigv4"
	byAuthorizer proof = "custom"
)

// way is one listener, and one manner to prove who one is on it.
type way struct {
	name string
	// row is that of docs/connecting.md; ways may share one.
	row    string
	scheme string
	addr   func(*testkit.Server) string
	proof  proof
	alpn   string
	// inHeader and inQuery say where in the upgrade the proof stands; with
	// neither, an authorizer's credentials stand in the user name.
	inHeader, inQuery bool
	// signed names the authorizer that wants a signed token.
	signed bool
}

func mqttAddr(s *testkit.Server) string  { return s.MQTTAddr }
func tlsAddr(s *testkit.Server) string   { return s.TLSAddr }
func plainAddr(s *testkit.Server) string { return s.PlainMQTTAddr }
func httpAddr(s *testkit.Server) string  { return s.HTTPAddr }

// The ways there are.
//
//nolint:gochecknoglobals // constants of a kind that Go has not.
var (
	overMQTT            = way{name: "8883 mTLS", row: "`mqtt-addr`, certificate", scheme: "mqtts", addr: mqttAddr, proof: byMutualTLS}
	overALPN            = way{name: "shared ALPN x-amzn-mqtt-ca mTLS", row: "`tls-addr`, ALPN `x-amzn-mqtt-ca`, certificate", scheme: "mqtts", addr: tlsAddr, proof: byMutualTLS, alpn: "x-amzn-mqtt-ca"}
	overShared          = way{name: "shared without ALPN mTLS", row: "`tls-addr`, no ALPN, certificate", scheme: "mqtts", addr: tlsAddr, proof: byMutualTLS}
	overPlain           = way{name: "plain", row: "`mqtt-insecure-addr`, nobody (benchmarks)", scheme: "mqtt", addr: plainAddr}
	customMQTT          = way{name: "shared ALPN mqtt authorizer", row: "`tls-addr`, ALPN `mqtt`, authorizer, with and without signed token", scheme: "mqtts", addr: tlsAddr, proof: byAuthorizer, alpn: "mqtt"}
	customMQTTSigned    = way{name: "shared ALPN mqtt authorizer with signed token", row: "`tls-addr`, ALPN `mqtt`, authorizer, with and without signed token", scheme: "mqtts", addr: tlsAddr, proof: byAuthorizer, alpn: "mqtt", signed: true}
	signedQuery         = way{name: "WebSocket SigV4 query", row: "WebSocket, SigV4 in the query", scheme: "wss", addr: tlsAddr, proof: bySignature, inQuery: true}
	signedHeader        = way{name: "WebSocket SigV4 header", row: "WebSocket, SigV4 in a header", scheme: "wss", addr: tlsAddr, proof: bySignature, inHeader: true}
	signedWithoutTLS    = way{name: "WebSocket without TLS SigV4 query", row: "WebSocket on `http-addr`, SigV4 in the query", scheme: "ws", addr: httpAddr, proof: bySignature, inQuery: true}
	customHeader        = way{name: "WebSocket authorizer in headers", row: "WebSocket, authorizer in headers, in the query", scheme: "wss", addr: tlsAddr, proof: byAuthorizer, inHeader: true, signed: true}
	customQuery         = way{name: "WebSocket authorizer in query", row: "WebSocket, authorizer in headers, in the query", scheme: "wss", addr: tlsAddr, proof: byAuthorizer, inQuery: true, signed: true}
	customUsername      = way{name: "WebSocket authorizer in user name", row: "WebSocket, authorizer in the user name, with and without signed token", scheme: "wss", addr: tlsAddr, proof: byAuthorizer}
	customUsernameToken = way{name: "WebSocket authorizer in user name with signed token", row: "WebSocket, authorizer in the user name, with and without signed token", scheme: "wss", addr: tlsAddr, proof: byAuthorizer, signed: true}
)

// opening is everything that a client needs to connect, as the program in
// JavaScript reads it.
type opening struct {
	Library    string            `json:"library"`
	Version    int               `json:"version"`
	ClientID   string            `json:"clientId"`
	Persistent bool              `json:"persistent"`
	Proof      proof             `json:"proof"`
	WebSocket  bool              `json:"webSocket"`
	Scheme     string            `json:"-"`
	Addr       string            `json:"-"`
	URL        string            `json:"url"`
	Port       json.Number       `json:"port"`
	ALPN       string            `json:"alpn,omitempty"`
	CA         string            `json:"ca"`
	Cert       string            `json:"cert,omitempty"`
	Key        string            `json:"key,omitempty"`
	Headers    map[string]string `json:"headers,omitempty"`
	Query      string            `json:"query,omitempty"`
	Username   string            `json:"username,omitempty"`
	Password   string            `json:"password,omitempty"`
	Region     string            `json:"region"`
	KeyID      string            `json:"keyId"`
	Secret     string            `json:"secret"`
	Authorizer *credentials      `json:"authorizer,omitempty"`
}

// credentials are those of a custom authorizer, for libraries that put them
// together by themselves.
type credentials struct {
	Name      string `json:"name"`
	Username  string `json:"username"`
	Password  string `json:"password"`
	TokenKey  string `json:"tokenKey,omitempty"`
	Token     string `json:"token,omitempty"`
	Signature string `json:"signature,omitempty"`
}

// query are the credentials as AWS names them.
func (c *credentials) query() url.Values {
	q := url.Values{"x-amz-customauthorizer-name": {c.Name}}
	if c.Signature != "" {
		q.Set(c.TokenKey, c.Token)
		q.Set("x-amz-customauthorizer-signature", c.Signature)
	}
	return q
}

// wrong says what is wrong with a client's proof.
type wrong string

const (
	nothingWrong     wrong = ""
	inactive         wrong = "inactive certificate"
	anothersSecret   wrong = "another's secret"
	anothersPassword wrong = "another's password"
	anothersToken    wrong = "another's token"
)

// wrongs are what is tried of each proof.
//
//nolint:gochecknoglobals // a constant of a kind that Go has not.
var wrongs = map[proof][]wrong{byMutualTLS: {inactive}, bySignature: {anothersSecret}, byAuthorizer: {anothersPassword, anothersToken}}

// place is a server with everything that clients need to prove who they are.
type place struct {
	*operator
	good, inactive identity
	sign           func(token string) string
	watcher        *mqttclient.Client

	mu   sync.Mutex
	seen map[string]chan sighting
}

// sighting is what was seen of a client: its presence or a message of it.
type sighting struct {
	farewell
	Topic   string
	Payload string
}

const clientPolicy = `{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":"iot:Connect","Resource":"arn:aws:iot:us-east-1:000000000000:client/${iot:ClientId}"},
 {"Effect":"Allow","Action":["iot:Publish","iot:RetainPublish","iot:Receive"],"Resource":[
  "arn:aws:iot:us-east-1:000000000000:topic/devices/${iot:ClientId}/*","arn:aws:iot:us-east-1:000000000000:topic/commands/*"]},
 {"Effect":"Allow","Action":"iot:Subscribe","Resource":[
  "arn:aws:iot:us-east-1:000000000000:topicfilter/devices/${iot:ClientId}/*","arn:aws:iot:us-east-1:000000000000:topicfilter/commands/${iot:ClientId}",
  "arn:aws:iot:us-east-1:000000000000:topicfilter/$share/crew/commands/*"]}]}`

// newPlace starts a server with certificates and authorizers, and watches it.
func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{operator: startGated(t), seen: map[string]chan sighting{}}
	must(p.operator, p.CreatePolicy, &iot.CreatePolicyInput{PolicyName: new("client"), PolicyDocument: new(clientPolicy)})
	p.good, p.inactive = p.newIdentity(), p.newIdentity()
	for _, as := range []identity{p.good, p.inactive} {
		must(p.operator, p.AttachPolicy, &iot.AttachPolicyInput{PolicyName: new("client"), Target: &as.arn})
	}
	must(p.operator, p.UpdateCertificate, &iot.UpdateCertificateInput{CertificateId: &p.inactive.id, NewStatus: types.CertificateStatusInactive})
	key, keys := signing(t)
	p.sign = func(token string) string { return signToken(t, key, token) }
	must(p.operator, p.CreateAuthorizer, &iot.CreateAuthorizerInput{
		AuthorizerName: new("gate"), AuthorizerFunctionArn: functionARN("gate"), TokenKeyName: new("jwt"), TokenSigningPublicKeys: keys, Status: types.AuthorizerStatusActive,
	})
	must(p.operator, p.CreateAuthorizer, &iot.CreateAuthorizerInput{
		AuthorizerName: new("open"), AuthorizerFunctionArn: functionARN("gate"), SigningDisabled: new(true), Status: types.AuthorizerStatusActive,
	})
	p.watch()
	return p
}

// watch begins to see what clients do; it is called again after a restart.
func (p *place) watch() {
	p.t.Helper()
	conn, err := mqttclient.Dial(p.t.Context(), p.server.PlainMQTTAddr, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	p.watcher, err = mqttclient.Connect(p.t.Context(), conn, mqttclient.Options{ClientID: "watcher", OnMessage: func(m *mqtt.Publish) {
		s := sighting{Topic: string(m.Topic), Payload: string(m.Payload)}
		id, own := strings.CutPrefix(s.Topic, "devices/")
		if id, _, _ = strings.Cut(id, "/"); !own {
			if err := json.Unmarshal(m.Payload, &s.farewell); err != nil {
				p.t.Errorf("%s: %v", s.Topic, err)
			}
			id = s.ClientID
		}
		p.sightings(id) <- s
	}})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = p.watcher.Close() })
	if _, err := p.watcher.Subscribe(p.t.Context(), mqtt.Subscription{Filter: "$aws/events/presence/#", QoS: 1}, mqtt.Subscription{Filter: "devices/#", QoS: 1}); err != nil {
		p.t.Fatal(err)
	}
}

// sightings of one client, in order.
func (p *place) sightings(id string) chan sighting {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen[id] == nil {
		p.seen[id] = make(chan sighting, 64)
	}
	return p.seen[id]
}

// waitFor skips sightings until one satisfies.
func (p *place) waitFor(t *testing.T, id, what string, satisfies func(sighting) bool) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case s := <-p.sightings(id):
			if satisfies(s) {
				return
			}
		case <-timeout:
			t.Fatalf("not seen of %s: %s", id, what)
		}
	}
}

// opening prepares what a client needs. Client ids double as user names.
func (p *place) opening(t *testing.T, w way, clientID string, is wrong) *opening {
	t.Helper()
	addr := "localhost:" + portOf(t, w.addr(p.server))
	o := &opening{
		ClientID: clientID, Proof: w.proof, WebSocket: strings.HasPrefix(w.scheme, "ws"),
		Scheme: w.scheme, Addr: addr, URL: w.scheme + "://" + addr, Port: json.Number(portOf(t, addr)), ALPN: w.alpn,
		CA: filepath.Join(p.server.DataDir, "ca.pem"), Region: signingRegion,
	}
	o.KeyID, o.Secret = p.server.Credentials()
	if is == anothersSecret {
		o.Secret += "x"
	}
	if o.WebSocket {
		o.URL += "/mqtt"
	}
	switch w.proof {
	case nobody:
	case byMutualTLS:
		o.Cert, o.Key = p.good.cert, p.good.key
		if is == inactive {
			o.Cert, o.Key = p.inactive.cert, p.inactive.key
		}
	case bySignature:
		o.signUpgrade(t, w)
	case byAuthorizer:
		o.identify(p, w, is)
	}
	return o
}

// signUpgrade signs for libraries that do not.
func (o *opening) signUpgrade(t *testing.T, w way) {
	t.Helper()
	if w.inQuery {
		o.URL = strings.Replace(presignedURL(t, o.Addr, o.KeyID, o.Secret), "wss:", o.Scheme+":", 1)
		return
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+o.Addr+"/mqtt", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := sigv4.Sign(r, nil, sigv4.Key{AccessKeyID: o.KeyID, Secret: o.Secret}, sigv4.Scope{Region: o.Region, Service: "iotdevicegateway"}, time.Now()); err != nil {
		t.Fatal(err)
	}
	o.Headers = map[string]string{}
	for name := range r.Header {
		o.Headers[name] = r.Header.Get(name)
	}
}

// identify puts an authorizer's credentials where the way wants them.
func (o *opening) identify(p *place, w way, is wrong) {
	c := &credentials{Name: "open", Username: o.ClientID, Password: examplePassword}
	if w.signed {
		*c = credentials{Name: "gate", Username: o.ClientID, Password: examplePassword, TokenKey: "jwt", Token: "a token", Signature: p.sign("a token")}
	}
	switch is {
	case anothersPassword:
		c.Password = "wrong"
	case anothersToken:
		c.Token = "another token"
	case nothingWrong, inactive, anothersSecret:
	}
	o.Authorizer, o.Username, o.Password = c, c.Username, c.Password
	switch {
	case w.inHeader:
		o.Headers = map[string]string{}
		for name, values := range c.query() {
			o.Headers[name] = values[0]
		}
	case w.inQuery:
		o.Query = "?" + c.query().Encode()
		o.URL += o.Query
	default:
		o.Username += "?" + c.query().Encode()
	}
}

// principal is how presence names a client that came by a way.
func (p *place) principal(w way, clientID string) string {
	switch w.proof {
	case byMutualTLS:
		return p.good.id
	case bySignature:
		return "root"
	case byAuthorizer:
		return clientID
	case nobody:
	}
	return ""
}

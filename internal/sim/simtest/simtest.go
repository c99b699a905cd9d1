// Package simtest stands in for a server in tests of the simulator and of the
// command line: the broker and the authorities are the real ones, the
// registry behind REST and the shadows behind MQTT are the least that devices
// need. The whole server is tested elsewhere. Only tests import it.
package simtest

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/pki"
	"github.com/muster-iot/muster/internal/topic"
)

// account is the only one.
const account = fleet.Account("000000000000")

// Server is the stand-in.
type Server struct {
	// URL is the REST endpoint, MQTT the broker's HOST:PORT.
	URL, MQTT string
	// DataDir holds ca.pem and credentials, as a server's data folder does.
	DataDir string

	broker *broker.Broker
	pki    *pki.PKI

	mu sync.Mutex
	// calls counts requests by method and first path segment.
	calls        map[string]int
	certificates map[string]bool
	reported     map[string]json.RawMessage
	desired      map[string]json.RawMessage
}

// Start runs a stand-in on loopback until the test ends.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s := &Server{
		DataDir: tb.TempDir(), calls: map[string]int{}, certificates: map[string]bool{},
		reported: map[string]json.RawMessage{}, desired: map[string]json.RawMessage{},
	}
	keys := filepath.Join(s.DataDir, "pki")
	if err := os.Mkdir(keys, 0o700); err != nil {
		tb.Fatal(err)
	}
	write(tb, filepath.Join(s.DataDir, "FORMAT"), "muster 1\n")
	write(tb, filepath.Join(s.DataDir, "credentials"), "[default]\naws_access_key_id = AKIATEST\naws_secret_access_key = secret\n")
	var err error
	s.pki, err = pki.New(pki.Options{Dir: keys, CAFile: filepath.Join(s.DataDir, "ca.pem"), Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		tb.Fatal(err)
	}
	rest := httptest.NewServer(http.HandlerFunc(s.serve))
	tb.Cleanup(rest.Close)
	s.URL = rest.URL
	s.listen(tb)
	return s
}

// write makes a file.
func write(tb testing.TB, path, text string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// listen starts the broker.
func (s *Server) listen(tb testing.TB) {
	tb.Helper()
	s.broker = broker.New(broker.Options{
		Profile: topic.AWS, Gatekeeper: gatekeeper{}, Service: s, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	l, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s.MQTT = l.Addr().String()
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		options := broker.ListenerOptions{Name: "mqtt", Account: func(string) fleet.Account { return account }}
		if err := s.broker.Serve(ctx, tls.NewListener(l, s.pki.MQTTConfig()), options); err != nil && ctx.Err() == nil {
			tb.Error(err)
		}
	}()
	tb.Cleanup(func() {
		cancel()
		if err := l.Close(); err != nil && ctx.Err() == nil {
			tb.Error(err)
		}
		if err := s.broker.Shutdown(context.WithoutCancel(ctx)); err != nil {
			tb.Error(err)
		}
		<-ended
	})
}

// gatekeeper admits whoever shows a certificate.
type gatekeeper struct{}

// Admit names the principal by its certificate.
func (gatekeeper) Admit(_ context.Context, c *broker.ConnectRequest) (broker.Admission, error) {
	return broker.Admission{
		Account:   account,
		Principal: fleet.Principal{Kind: fleet.PrincipalCertificate, ID: certificateID(c.PeerCertificate.Raw)},
		Guard:     guard{},
	}, nil
}

// guard allows all but one topic, by which tests see a refusal.
type guard struct{}

// Forbidden is the one topic and filter that nobody may use.
const Forbidden = "forbidden"

// CanPublish refuses the forbidden topic.
func (guard) CanPublish(name string, _ bool) bool { return name != Forbidden }

// CanSubscribe refuses the forbidden filter.
func (guard) CanSubscribe(filter string) bool { return filter != Forbidden }

// CanReceive refuses nothing.
func (guard) CanReceive(string) bool { return true }

// Enrich implements broker.Guard.
func (guard) Enrich(own []mqtt.UserProperty) []mqtt.UserProperty { return own }

// Close has nothing to release.
func (guard) Close() {}

// Reserved keeps shadows as far as devices look at them, and lets devices join.
func (s *Server) Reserved(p *broker.Publish, _ broker.Done) (deferred, ok bool) {
	if joins(p.Topic) {
		s.join(p)
		return false, true
	}
	rest, ok := strings.CutPrefix(p.Topic, "$aws/things/")
	if !ok {
		return false, false
	}
	thing, action, ok := strings.Cut(rest, "/shadow/")
	if !ok {
		return false, false
	}
	switch action {
	case "get":
		s.answerGet(p, thing)
	case "update":
		var body struct {
			State struct {
				Reported json.RawMessage `json:"reported"`
			} `json:"state"`
		}
		if json.Unmarshal(p.Payload, &body) == nil && body.State.Reported != nil {
			s.mu.Lock()
			s.reported[thing] = body.State.Reported
			s.mu.Unlock()
		}
	}
	return false, true
}

// joins reports whether a topic or filter is about joining.
func joins(name string) bool {
	return strings.HasPrefix(name, "$aws/certificates/") || strings.HasPrefix(name, "$aws/provisioning-templates/")
}

// join signs a request for a certificate, whose id is the token, or activates the
// certificate as a thing of the name that the device wants.
func (s *Server) join(p *broker.Publish) {
	var in struct {
		Request    string `json:"certificateSigningRequest"`
		Token      string `json:"certificateOwnershipToken"`
		Parameters struct {
			Name string `json:"Name"`
		} `json:"parameters"`
	}
	reply := func(suffix string, body any) {
		if payload, err := json.Marshal(body); err == nil {
			p.Reply(p.Topic+suffix, payload)
		}
	}
	if err := json.Unmarshal(p.Payload, &in); err != nil {
		reply("/rejected", map[string]any{"statusCode": 400, "errorCode": "InvalidPayload", "errorMessage": err.Error()})
		return
	}
	if in.Token != "" {
		s.mu.Lock()
		s.certificates[in.Token] = true
		s.calls["provision"]++
		s.mu.Unlock()
		reply("/accepted", map[string]any{"thingName": in.Parameters.Name})
		return
	}
	certPEM, err := s.pki.SignCSR(context.Background(), []byte(in.Request))
	if err != nil {
		reply("/rejected", map[string]any{"statusCode": 400, "errorCode": "InvalidParameters", "errorMessage": err.Error()})
		return
	}
	block, _ := pem.Decode(certPEM)
	reply("/accepted", map[string]any{"certificatePem": string(certPEM), "certificateOwnershipToken": certificateID(block.Bytes)})
}

// answerGet publishes a shadow that exists.
func (s *Server) answerGet(p *broker.Publish, thing string) {
	s.mu.Lock()
	state := map[string]json.RawMessage{}
	if r := s.reported[thing]; r != nil {
		state["reported"] = r
	}
	if d := s.desired[thing]; d != nil {
		state["desired"], state["delta"] = d, d
	}
	s.mu.Unlock()
	if len(state) == 0 {
		return
	}
	payload, err := json.Marshal(map[string]any{"state": state})
	if err == nil {
		p.Reply(p.Topic+"/accepted", payload)
	}
}

// CanPublishReserved refuses every will to a reserved topic.
func (s *Server) CanPublishReserved(string) bool { return false }

// Private implements broker.Service.
func (s *Server) Private(name string) bool { return joins(name) }

// CanSubscribeReserved knows shadows and joining.
func (s *Server) CanSubscribeReserved(filter string) bool {
	return strings.HasPrefix(filter, "$aws/things/") || joins(filter)
}

// Desire sets a thing's desired state and tells the device.
func (s *Server) Desire(tb testing.TB, thing, state string) {
	tb.Helper()
	s.mu.Lock()
	s.desired[thing] = json.RawMessage(state)
	s.mu.Unlock()
	s.Publish(tb, "$aws/things/"+thing+"/shadow/update/delta", `{"state":`+state+`}`)
}

// Publish sends a message from the server.
func (s *Server) Publish(tb testing.TB, name, payload string) {
	tb.Helper()
	err := s.broker.Publish(tb.Context(), account, broker.Message{Topic: name, Payload: []byte(payload)})
	if err != nil {
		tb.Fatal(err)
	}
}

// Reported decodes what a thing last reported; false when it never did.
func (s *Server) Reported(tb testing.TB, thing string, into any) bool {
	tb.Helper()
	s.mu.Lock()
	raw := s.reported[thing]
	s.mu.Unlock()
	if raw == nil {
		return false
	}
	if err := json.Unmarshal(raw, into); err != nil {
		tb.Fatal(err)
	}
	return true
}

// Online is the number of live sessions.
func (s *Server) Online() int { return len(s.broker.Sessions(account)) }

// Kick ends a client's connection.
func (s *Server) Kick(clientID string) bool {
	return s.broker.Disconnect(account, clientID, broker.ReasonServerInitiated)
}

// Calls is how often a kind of request came, such as "POST certificates", or
// "provision" for a device that joined.
func (s *Server) Calls(kind string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[kind]
}

// Forget makes a certificate unknown, as on another installation.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.certificates)
}

// serve answers REST requests.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	segments := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	kind := r.Method + " " + segments[0]
	s.mu.Lock()
	s.calls[kind]++
	s.mu.Unlock()
	if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=AKIATEST/") {
		refuse(w, http.StatusForbidden, "MissingAuthenticationTokenException", "Missing Authentication Token")
		return
	}
	switch kind {
	case "POST certificates":
		s.issue(w, r)
	case "GET certificates":
		s.mu.Lock()
		known := s.certificates[segments[1]]
		s.mu.Unlock()
		if !known {
			refuse(w, http.StatusNotFound, "ResourceNotFoundException", "no such certificate")
			return
		}
		answer(w, map[string]any{"certificateDescription": map[string]any{"status": "ACTIVE"}})
	case "GET thing-groups":
		answer(w, map[string]any{"thingGroupName": segments[1], "thingGroupArn": "arn:aws:iot:local:" + string(account) + ":thinggroup/" + segments[1]})
	case "POST thing-groups", "POST policies":
		refuse(w, http.StatusConflict, "ResourceAlreadyExistsException", "it is there")
	default:
		answer(w, map[string]any{})
	}
}

// issue signs a request for a certificate.
func (s *Server) issue(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Request string `json:"certificateSigningRequest"`
	}
	data, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(data, &in)
	}
	var certPEM []byte
	if err == nil {
		certPEM, err = s.pki.SignCSR(r.Context(), []byte(in.Request))
	}
	if err != nil || r.URL.Query().Get("setAsActive") != "true" {
		refuse(w, http.StatusBadRequest, "InvalidRequestException", "no")
		return
	}
	block, _ := pem.Decode(certPEM)
	id := certificateID(block.Bytes)
	s.mu.Lock()
	s.certificates[id] = true
	s.mu.Unlock()
	answer(w, map[string]any{"certificateId": id, "certificateArn": "arn:aws:iot:local:" + string(account) + ":cert/" + id, "certificatePem": string(certPEM)})
}

// certificateID is the SHA-256 of the DER form.
func certificateID(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// answer writes JSON.
func answer(w http.ResponseWriter, body any) {
	_ = json.NewEncoder(w).Encode(body)
}

// refuse writes an error in the shape of the service.
func refuse(w http.ResponseWriter, status int, name, message string) {
	w.Header().Set("x-amzn-ErrorType", name)
	w.Header().Set("x-amzn-RequestId", "request-1")
	w.WriteHeader(status)
	answer(w, map[string]string{"message": message})
}

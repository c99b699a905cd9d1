package sdk

import (
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/awsapi/sigv4"
	"github.com/muster-iot/muster/internal/mqtt"
	mqttclient "github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/testkit"
)

// farewell is what a client's end leaves to be seen.
type farewell struct {
	ClientID  string `json:"clientId"`
	EventType string `json:"eventType"`
	Principal string `json:"principalIdentifier"`
	Clean     bool   `json:"clientInitiatedDisconnect"`
	Reason    string `json:"disconnectReason"`
	// will is set for a will instead.
	will string
}

// watch sees presence events and wills by a connection of its own.
func watch(t *testing.T, server *testkit.Server) <-chan farewell {
	t.Helper()
	seen := make(chan farewell, 1024)
	conn, err := mqttclient.Dial(t.Context(), server.PlainMQTTAddr, nil)
	if err != nil {
		t.Fatal(err)
	}
	watcher, err := mqttclient.Connect(t.Context(), conn, mqttclient.Options{ClientID: "watcher", OnMessage: func(p *mqtt.Publish) {
		var f farewell
		if id, ok := strings.CutPrefix(string(p.Topic), "wills/"); ok {
			f = farewell{ClientID: id, will: string(p.Payload)}
		} else if err := json.Unmarshal(p.Payload, &f); err != nil {
			t.Errorf("%s: %v", p.Topic, err)
		}
		seen <- f
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = watcher.Close() })
	codes, err := watcher.Subscribe(t.Context(), mqtt.Subscription{Filter: "$aws/events/presence/#", QoS: 1}, mqtt.Subscription{Filter: "wills/#", QoS: 1})
	if err != nil || slices.ContainsFunc(codes, func(c mqtt.ReasonCode) bool { return c > 1 }) {
		t.Fatal(codes, err)
	}
	return seen
}

// TestWebSocketClients connects the libraries that people use to /mqtt on the
// shared port, with SigV4 by presigned query: version 1 and 2 of the device SDK,
// which sign by themselves, and MQTT.js with a URL that was signed for it.
func TestWebSocketClients(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "node", "npm")
	if err := needDevice(); err != nil {
		t.Fatal(err)
	}
	server := startServer(t)
	keyID, secret := server.Credentials()
	seen := watch(t, server)
	for _, c := range []struct{ client, leave string }{
		{"mqttjs-311", "disconnect"},
		{"mqttjs-5", "disconnect"},
		{"mqttjs-311", "close"},
		{"mqttjs-5", "close"},
		{"sdk-v1", "disconnect"},
		{"sdk-v2-311", "disconnect"},
		{"sdk-v2-5", "disconnect"},
	} {
		// One after the other: they share the watcher.
		t.Run(c.client+"/"+c.leave, func(t *testing.T) {
			id := c.client + "-" + c.leave
			d := startWebSocket(t, server, c.client, id, c.leave, keyID, secret)
			d.next("connected")
			d.next("subscribed")
			if l := d.next("received"); l.Message != "over websocket" {
				t.Errorf("received %q", l.Message)
			}
			d.leave()
			checkFarewell(t, seen, id)
		})
	}
	for client, says := range map[string]string{
		"mqttjs-5": "403", "sdk-v1": "closed before it was connected",
		"sdk-v2-311": "AWS_ERROR_HTTP_WEBSOCKET_UPGRADE_FAILURE", "sdk-v2-5": "AWS_ERROR_HTTP_WEBSOCKET_UPGRADE_FAILURE",
	} {
		t.Run(client+"/wrong secret", func(t *testing.T) {
			t.Parallel()
			d := startWebSocket(t, server, client, client+"-refused", "disconnect", keyID, secret+"x")
			if l := d.next("refused"); !strings.Contains(l.Why+l.Reason, says) {
				t.Errorf("refused with %+v, want %q", l, says)
			}
		})
	}
}

// checkFarewell reads what the watcher saw of a client: it came as the account's
// root user, left by itself, and its will was not sent.
func checkFarewell(t *testing.T, seen <-chan farewell, id string) {
	t.Helper()
	connected := false
	for {
		select {
		case f := <-seen:
			switch {
			case f.ClientID != id:
			case f.will != "":
				t.Errorf("the will was sent: %q", f.will)
			case f.EventType == "connected":
				connected = f.Principal == "root"
			case f.EventType == "disconnected":
				if !connected || !f.Clean || f.Reason != "CLIENT_INITIATED_DISCONNECT" || f.Principal != "root" {
					t.Errorf("left as %+v, connected as root: %v", f, connected)
				}
				return
			}
		case <-time.After(20 * time.Second):
			t.Fatal("nobody saw the client leave")
		}
	}
}

// startWebSocket runs the program with one of its libraries.
func startWebSocket(t *testing.T, server *testkit.Server, client, id, leave, keyID, secret string) *jsDevice {
	t.Helper()
	port := portOf(t, server.TLSAddr)
	ca := filepath.Join(server.DataDir, "ca.pem")
	return startJavaScript(t, "websocket.mjs", "CLIENT="+client, "CLIENT_ID="+id, "LEAVE="+leave, "PORT="+port, "CA="+ca, "NODE_EXTRA_CA_CERTS="+ca,
		"REGION="+signingRegion, "KEY_ID="+keyID, "SECRET="+secret, "URL="+presignedURL(t, "localhost:"+port, keyID, secret))
}

// presignedURL is what a web application's server hands to its pages.
func presignedURL(t *testing.T, host, keyID, secret string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, "https://"+host+"/mqtt", nil)
	if err != nil {
		t.Fatal(err)
	}
	key := sigv4.Key{AccessKeyID: keyID, Secret: secret}
	if err := sigv4.Presign(r, key, sigv4.Scope{Region: signingRegion, Service: "iotdevicegateway"}, time.Now(), 10*time.Minute); err != nil {
		t.Fatal(err)
	}
	r.URL.Scheme = "wss"
	return r.URL.String()
}

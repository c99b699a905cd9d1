package sdk

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/mqtt"
	mqttclient "github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/testkit"
)

// joinFrom is a device that asks with a claim from an address of this machine for a
// certificate and to be provisioned. It returns the last part of the topic of the last
// answer and its members.
func joinFrom(o *operator, claim tls.Certificate, address, serial string) (string, map[string]any) {
	o.t.Helper()
	dialer := tls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}, Config: o.server.TLSConfig(claim)}
	conn, err := dialer.DialContext(o.t.Context(), "tcp", o.server.MQTTAddr)
	if err != nil {
		o.t.Fatal(err)
	}
	type answer struct {
		topic   string
		members map[string]any
	}
	answers := make(chan answer, 1)
	device, err := mqttclient.Connect(o.t.Context(), conn, mqttclient.Options{ClientID: "fac-" + serial, OnMessage: func(p *mqtt.Publish) {
		got := answer{topic: string(p.Topic)}
		if err := json.Unmarshal(slices.Clone(p.Payload), &got.members); err != nil {
			o.t.Errorf("%s: %v", p.Topic, err)
		}
		answers <- got
	}})
	if err != nil {
		o.t.Fatal(err)
	}
	defer func() { _ = device.Close() }()
	ask := func(topic string, in any) (string, map[string]any) {
		subscribe(o.t, device, topic+"/accepted", topic+"/rejected")
		payload, err := json.Marshal(in)
		if err != nil {
			o.t.Fatal(err)
		}
		if err := device.Publish(o.t.Context(), topic, 1, payload); err != nil {
			o.t.Fatal(err)
		}
		select {
		case got := <-answers:
			return strings.TrimPrefix(got.topic, topic+"/"), got.members
		case <-time.After(20 * time.Second):
			o.t.Fatalf("no answer on %s in twenty seconds", topic)
			return "", nil
		}
	}
	topic, members := ask("$aws/certificates/create-from-csr/json", map[string]string{"certificateSigningRequest": request(o.t, newKey(o.t))})
	if topic != "accepted" {
		return topic, members
	}
	return ask("$aws/provisioning-templates/Pumps/provision/json", map[string]any{
		"certificateOwnershipToken": members["certificateOwnershipToken"], "parameters": map[string]string{"SerialNumber": serial},
	})
}

// TestClaimFromTwoFactories: one claim that two factories use is raised; where the
// template is bound to a network, the other factory is refused as well. Who has looked
// into it settles it (security-provisioning §5.4).
func TestClaimFromTwoFactories(t *testing.T) {
	t.Parallel()
	server := startServerWith(t)
	o := newOperator(t, server)
	o.factory()
	cert, key := o.claim()
	claim, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	// findings waits for so many open ones.
	findings := func(n int) []apiclient.ClaimFinding {
		t.Helper()
		var open []apiclient.ClaimFinding
		testkit.Poll(t, 20*time.Second, fmt.Sprintf("%d open findings", n), func() error {
			out, err := server.Muster(t.Context(), "claim", "uses", "--misused", "-o", "json")
			if err != nil {
				return err
			}
			var claims []apiclient.ClaimUse
			if err := json.Unmarshal([]byte(out), &claims); err != nil {
				return err
			}
			open = nil
			for _, c := range claims {
				if c.ClaimID != idOf(claim) {
					return fmt.Errorf("claim %s", c.ClaimID)
				}
				for _, f := range c.Findings {
					if f.Settled == "" {
						open = append(open, f)
					}
				}
			}
			if len(open) != n {
				return fmt.Errorf("%+v", open)
			}
			return nil
		})
		return open
	}

	for i, address := range []string{"127.0.0.1", "127.0.0.9", "127.0.1.1"} {
		if topic, answer := joinFrom(o, claim, address, fmt.Sprintf("B7-%d", i)); topic != "accepted" {
			t.Fatalf("from %s: %s %v", address, topic, answer)
		}
	}
	if f := findings(1)[0]; f.Kind != "NETWORK" || f.Network != "127.0.1.0/24" || f.Times != 1 || f.Template != "Pumps" {
		t.Errorf("%+v", f)
	}
	if _, err := server.Muster(t.Context(), "claim", "settle", idOf(claim), "--note", "second plant"); err != nil {
		t.Fatal(err)
	}
	findings(0)

	// Bound to the first factory's network, with one device a day.
	for _, step := range [][]string{
		{"user-group", "create", "leads"},
		{"approvals", "authority", "leads", "--group", "leads"},
		{"approvals", "bind", "Pumps", "--authority", "leads", "--auto-if", "template:Pumps", "--network", "127.0.0.0/24", "--quota", "1"},
	} {
		if out, err := server.Muster(t.Context(), step...); err != nil {
			t.Fatal(out, err)
		}
	}
	for _, c := range []struct{ address, serial, want, says string }{
		{"127.0.1.1", "B8-1", "rejected", "network"},
		{"127.0.0.1", "B8-2", "accepted", ""},
		{"127.0.0.1", "B8-3", "rejected", "have joined today"},
	} {
		topic, answer := joinFrom(o, claim, c.address, c.serial)
		if topic != c.want || !strings.Contains(fmt.Sprint(answer["errorMessage"]), c.says) && c.says != "" || strings.Contains(fmt.Sprint(answer), "misuse") {
			t.Errorf("%s from %s: %s %v", c.serial, c.address, topic, answer)
		}
	}
	kinds := map[string]string{}
	for _, f := range findings(2) {
		kinds[f.Kind] = f.Network
	}
	if len(kinds) != 2 || kinds["NETWORK"] != "127.0.1.0/24" || kinds["QUOTA"] != "127.0.0.0/24" {
		t.Errorf("%v", kinds)
	}
	if shown, err := server.Muster(t.Context(), "claim", "use", idOf(claim)); err != nil || !strings.Contains(shown, "misuse of the claim, QUOTA") {
		t.Errorf("%s, %v", shown, err)
	}
}

package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/testkit"
)

// connectivityPolicy lets a device receive what is meant for it and declare for
// itself, and the watcher see all states.
const connectivityPolicy = `{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":"iot:Connect","Resource":"arn:aws:iot:us-east-1:000000000000:client/*"},
 {"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":"arn:aws:iot:us-east-1:000000000000:topic/$muster/connectivity/*"},
 {"Effect":"Allow","Action":["iot:Subscribe","iot:Receive"],"Resource":["arn:aws:iot:us-east-1:000000000000:topicfilter/*","arn:aws:iot:us-east-1:000000000000:topic/to/*"]}]}`

// mosquitto is a client of the Eclipse project as a process of its own.
type mosquitto struct {
	t      *testing.T
	server *testkit.Server
	dir    string
}

// arguments are those that every client needs.
func (m *mosquitto) arguments(id string, of identity) []string {
	m.t.Helper()
	cert, key := filepath.Join(m.dir, id+".pem"), filepath.Join(m.dir, id+".key")
	must(m.t, os.WriteFile(cert, []byte(of.certificate.PEM), 0o600))
	must(m.t, os.WriteFile(key, of.keyPEM, 0o600))
	host, port, err := net.SplitHostPort(m.server.MQTTAddr)
	must(m.t, err)
	return []string{
		"-h", host, "-p", port, "--cafile", filepath.Join(m.server.DataDir, "ca.pem"), "--insecure", "--cert", cert, "--key", key,
		"-i", id, "-q", "1", "-k", "30",
	}
}

// subscriber runs until it is killed; its lines are what it receives.
func (m *mosquitto) subscriber(id string, of identity, filter string) (lines <-chan string, kill func()) {
	m.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(m.t.Context()))
	cmd := exec.CommandContext(ctx, "stdbuf", append([]string{"-oL", "mosquitto_sub", "-d", "-F", "%t %p", "-t", filter}, m.arguments(id, of)...)...)
	out, err := cmd.StdoutPipe()
	must(m.t, err)
	must(m.t, cmd.Start())
	got := make(chan string, 1000)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		in := bufio.NewScanner(out)
		for in.Scan() {
			got <- in.Text()
		}
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait() // it was killed
	}()
	kill = func() {
		cancel()
		<-ended
	}
	m.t.Cleanup(kill)
	m.await(got, "SUBACK")
	return got, kill
}

// await returns the first line that contains a text.
func (m *mosquitto) await(lines <-chan string, text string) string {
	m.t.Helper()
	late := time.After(30 * time.Second)
	var seen []string
	for {
		select {
		case line := <-lines:
			if seen = append(seen, line); strings.Contains(line, text) {
				return line
			}
		case <-late:
			m.t.Fatalf("no line with %q among:\n%s", text, strings.Join(seen, "\n"))
		}
	}
}

// awaitChange waits for a change of a thing to a state and returns its version.
func (m *mosquitto) awaitChange(lines <-chan string, thing, to string) int64 {
	m.t.Helper()
	topic := "$muster/connectivity/" + thing + "/state "
	for {
		line := m.await(lines, topic+"{")
		var change struct {
			StateVersion int64  `json:"stateVersion"`
			To           string `json:"to"`
		}
		must(m.t, json.Unmarshal([]byte(strings.TrimPrefix(line, topic)), &change))
		if change.To == to {
			return change.StateVersion
		}
	}
}

// search waits until the index finds these things.
func search(t *testing.T, api *apiclient.Client, query string, want ...string) {
	t.Helper()
	testkit.Poll(t, 30*time.Second, query, func() error {
		found, err := api.Search(t.Context(), query, 0)
		var names []string
		for _, hit := range found {
			names = append(names, hit.ThingName)
		}
		if got := strings.Join(names, " "); err != nil || got != strings.Join(want, " ") {
			return errors.Join(err, fmt.Errorf("found %q, want %q", got, want))
		}
		return nil
	})
}

// A mosquitto client is killed: SUSPECT, then OFFLINE_DIRTY, on the topic and in
// SearchIndex. The server is killed and comes back: a device that returns was
// never offline, also when the wait state is long over.
func TestConnectivityWithMosquitto(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "mosquitto_sub", "mosquitto_pub", "stdbuf")
	server := testkit.StartServer(t)
	api := newAPI(t, server)
	must(t, api.CreatePolicy(t.Context(), "device", connectivityPolicy))
	pump, watcher := newDevice(t, api, "pump-1"), newDevice(t, api, "watcher")
	_, err := server.Muster(t.Context(), "connectivity", "settings", "put", "--wait", "1s")
	must(t, err)
	m := &mosquitto{t: t, server: server, dir: t.TempDir()}
	states, stopWatching := m.subscriber("watcher", watcher, "$muster/connectivity/pump-1/state")

	_, kill := m.subscriber("pump-1", pump, "to/pump-1")
	m.awaitChange(states, "pump-1", "FIRST_CONNECTED")
	kill()
	m.awaitChange(states, "pump-1", "SUSPECT")
	if version := m.awaitChange(states, "pump-1", "OFFLINE_DIRTY"); version != 3 {
		t.Errorf("state version %d, want 3", version)
	}
	search(t, api, "muster.connectivity.state:OFFLINE_DIRTY", "pump-1")
	out, err := server.Muster(t.Context(), "connectivity", "show", "pump-1")
	if err != nil || !strings.Contains(out, "SUSPECT → OFFLINE_DIRTY (CONNECTION_LOST)") || !strings.Contains(out, "1 from (account)") {
		t.Errorf("%v\n%s", err, out)
	}

	// A device's own words, through mosquitto_pub.
	command := exec.CommandContext(t.Context(), "mosquitto_pub", append(m.arguments("pump-1", pump), "-t", "$muster/connectivity/pump-1/goodbye", "-m", `{"sleepSeconds":3600}`)...)
	if text, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	m.awaitChange(states, "pump-1", "SLEEPING")

	_, leave := m.subscriber("pump-1", pump, "to/pump-1")
	search(t, api, "muster.connectivity.state:ONLINE", "pump-1")
	server.Kill()
	// Both would come back by themselves, sooner or later.
	leave()
	stopWatching()
	server.Start()
	search(t, api, "muster.connectivity.state:SUSPECT", "pump-1", "watcher")
	// Longer than the wait state of one second.
	for until := time.Now().Add(3 * time.Second); time.Now().Before(until); {
		search(t, api, "muster.connectivity.state:SUSPECT", "pump-1", "watcher")
	}
	_, _ = m.subscriber("pump-1", pump, "to/pump-1")
	search(t, api, "muster.connectivity.state:ONLINE AND muster.connectivity.blips>0", "pump-1")
	out, err = server.Muster(t.Context(), "connectivity", "show", "pump-1", "-o", "json")
	must(t, err)
	var shown struct {
		Outages int64 `json:"outages"`
		Recent  []struct {
			To string `json:"to"`
		} `json:"recent"`
	}
	must(t, json.Unmarshal([]byte(out), &shown))
	if shown.Outages != 1 || shown.Recent[0].To != "ONLINE" || shown.Recent[1].To != "SUSPECT" {
		t.Errorf("after the restart:\n%s", out)
	}
	if out, err := server.Muster(t.Context(), "doctor"); err != nil && !strings.Contains(err.Error(), "unknown command") {
		t.Errorf("%v\n%s", err, out)
	}
}

// Package cli_test drives a built server with the unmodified AWS command line
// and the mosquitto clients, as an operator and a device would.
package cli_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/testkit"
)

// operator is a person at a shell with the AWS command line.
type operator struct {
	t      *testing.T
	server *testkit.Server
	env    []string
}

func newOperator(t *testing.T, server *testkit.Server) *operator {
	t.Helper()
	id, secret := server.Credentials()
	env := append(os.Environ(),
		"AWS_ACCESS_KEY_ID="+id, "AWS_SECRET_ACCESS_KEY="+secret, "AWS_DEFAULT_REGION=us-east-1",
		"AWS_PAGER=", "AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/dev/null", "AWS_MAX_ATTEMPTS=1")
	return &operator{t: t, server: server, env: env}
}

// try runs `aws iot …` style commands and decodes the answer.
func (o *operator) try(ctx context.Context, args ...string) (map[string]any, error) {
	cmd := exec.CommandContext(ctx, "aws", append([]string{"--endpoint-url", "http://" + o.server.HTTPAddr, "--output", "json"}, args...)...)
	cmd.Env = o.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("aws %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	answer := map[string]any{}
	if text := bytes.TrimSpace(stdout.Bytes()); len(text) > 0 {
		if err := json.Unmarshal(text, &answer); err != nil {
			return nil, fmt.Errorf("aws %s: answer %q: %w", strings.Join(args, " "), text, err)
		}
	}
	return answer, nil
}

func (o *operator) must(args ...string) map[string]any {
	o.t.Helper()
	answer, err := o.try(o.t.Context(), args...)
	if err != nil {
		o.t.Fatal(err)
	}
	return answer
}

// refused demands that the call fails and that the error has the text.
func (o *operator) refused(text string, args ...string) {
	o.t.Helper()
	_, err := o.try(o.t.Context(), args...)
	if err == nil {
		o.t.Fatalf("aws %s: succeeded, want an error with %q", strings.Join(args, " "), text)
	}
	if !strings.Contains(err.Error(), text) {
		o.t.Errorf("aws %s: error %q does not contain %q", strings.Join(args, " "), err, text)
	}
}

func names(answer map[string]any, list, field string) []string {
	var out []string
	items, _ := answer[list].([]any)
	for _, item := range items {
		if m, ok := item.(map[string]any); ok {
			out = append(out, fmt.Sprint(m[field]))
		} else {
			out = append(out, fmt.Sprint(item))
		}
	}
	return out
}

// device holds the files that mosquitto's clients need.
type device struct {
	t             *testing.T
	server        *testkit.Server
	cert, key, ca string
	certARN       string
	certificateID string
}

func (o *operator) newDevice() *device {
	o.t.Helper()
	dir := o.t.TempDir()
	d := &device{
		t: o.t, server: o.server,
		cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem"),
		ca: filepath.Join(o.server.DataDir, "ca.pem"),
	}
	answer := o.must("iot", "create-keys-and-certificate", "--set-as-active",
		"--certificate-pem-outfile", d.cert, "--private-key-outfile", d.key)
	d.certARN, d.certificateID = answer["certificateArn"].(string), answer["certificateId"].(string)
	return d
}

// args are mosquitto's connection flags for a client id.
func (d *device) args(clientID string, rest ...string) []string {
	host, port, err := net.SplitHostPort(d.server.MQTTAddr)
	if err != nil {
		d.t.Fatal(err)
	}
	if host == "127.0.0.1" {
		host = "localhost"
	}
	return append([]string{"-h", host, "-p", port, "-i", clientID, "--cafile", d.ca, "--cert", d.cert, "--key", d.key}, rest...)
}

// publish runs mosquitto_pub with QoS 1, which ends after the PUBACK.
func (d *device) publish(clientID, topic, payload string) error {
	ctx, cancel := context.WithTimeout(d.t.Context(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "mosquitto_pub", d.args(clientID, "-q", "1", "-t", topic, "-m", payload)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mosquitto_pub: %w: %s", err, out)
	}
	return nil
}

// subscriber is a mosquitto_sub that stays connected.
type subscriber struct {
	mu    sync.Mutex
	lines []string
	cmd   *exec.Cmd
}

func (d *device) subscribe(clientID string, filters ...string) *subscriber {
	d.t.Helper()
	args := d.args(clientID, "-q", "1", "-v", "-d")
	for _, f := range filters {
		args = append(args, "-t", f)
	}
	// Its debug lines are not flushed into a pipe by themselves.
	s := &subscriber{cmd: exec.CommandContext(d.t.Context(), "stdbuf", append([]string{"-oL", "mosquitto_sub"}, args...)...)}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	s.cmd.Stderr = s.cmd.Stdout
	if err := s.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		scanner := bufio.NewScanner(out)
		for scanner.Scan() {
			s.mu.Lock()
			s.lines = append(s.lines, scanner.Text())
			s.mu.Unlock()
		}
	}()
	d.t.Cleanup(func() {
		_ = s.cmd.Process.Kill() // it may have ended by itself
		<-done
		_ = s.cmd.Wait() // killed
	})
	return s
}

// saw reports whether a line has all the texts.
func (s *subscriber) saw(texts ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
lines:
	for _, line := range s.lines {
		for _, text := range texts {
			if !strings.Contains(line, text) {
				continue lines
			}
		}
		return nil
	}
	return fmt.Errorf("no line with %q in:\n%s", texts, strings.Join(s.lines, "\n"))
}

func (s *subscriber) waitFor(t *testing.T, texts ...string) {
	t.Helper()
	testkit.Poll(t, 10*time.Second, "mosquitto_sub prints "+strings.Join(texts, " "), func() error { return s.saw(texts...) })
}

const devicePolicy = `{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":"iot:Connect","Resource":["arn:aws:iot:us-east-1:000000000000:client/pump-7","arn:aws:iot:us-east-1:000000000000:client/pump-7-pub"]},
 {"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":"arn:aws:iot:us-east-1:000000000000:topic/$aws/things/pump-7/shadow/*"},
 {"Effect":"Allow","Action":"iot:Subscribe","Resource":"arn:aws:iot:us-east-1:000000000000:topicfilter/$aws/things/pump-7/shadow/*"}]}`

// groupPolicy reaches devices through the grandparent group and needs the
// connection's thing.
const groupPolicy = `{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":"arn:aws:iot:us-east-1:000000000000:topic/plant/${iot:Connection.Thing.Attributes[site]}/${iot:Connection.Thing.ThingName}"},
 {"Effect":"Allow","Action":"iot:Subscribe","Resource":"arn:aws:iot:us-east-1:000000000000:topicfilter/plant/*"}]}`

func TestDevicesFirstDay(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "aws", "mosquitto_sub", "mosquitto_pub")
	server := testkit.StartServer(t)
	o := newOperator(t, server)

	// Registry.
	o.must("iot", "create-thing-type", "--thing-type-name", "Pump", "--thing-type-properties", "thingTypeDescription=pumps,searchableAttributes=site")
	created := o.must("iot", "create-thing", "--thing-name", "pump-7", "--thing-type-name", "Pump", "--attribute-payload", `{"attributes":{"site":"leeds","hw":"r2"}}`)
	if got, want := created["thingArn"], "arn:aws:iot:us-east-1:000000000000:thing/pump-7"; got != want {
		t.Errorf("thingArn = %v, want %v", got, want)
	}
	o.must("iot", "create-thing-group", "--thing-group-name", "plant")
	o.must("iot", "create-thing-group", "--thing-group-name", "north", "--parent-group-name", "plant")
	o.must("iot", "create-thing-group", "--thing-group-name", "north-pumps", "--parent-group-name", "north")
	o.must("iot", "add-thing-to-thing-group", "--thing-name", "pump-7", "--thing-group-name", "north-pumps")
	d := o.newDevice()
	o.must("iot", "create-policy", "--policy-name", "pump", "--policy-document", devicePolicy)
	o.must("iot", "create-policy", "--policy-name", "plant", "--policy-document", groupPolicy)
	o.must("iot", "attach-policy", "--policy-name", "pump", "--target", d.certARN)
	o.must("iot", "attach-policy", "--policy-name", "plant", "--target", "arn:aws:iot:us-east-1:000000000000:thinggroup/plant")
	o.must("iot", "attach-thing-principal", "--thing-name", "pump-7", "--principal", d.certARN)
	o.must("iot", "create-dynamic-thing-group", "--thing-group-name", "full-battery", "--query-string", "shadow.reported.battery>90 AND connectivity.connected:true")

	group := o.must("iot", "describe-thing-group", "--thing-group-name", "north-pumps")
	metadata, _ := group["thingGroupMetadata"].(map[string]any)
	if got := names(metadata, "rootToParentThingGroups", "groupName"); strings.Join(got, "/") != "plant/north" {
		t.Errorf("rootToParentThingGroups = %v", got)
	}
	if got := names(o.must("iot", "list-things-in-thing-group", "--thing-group-name", "plant", "--recursive"), "things", ""); strings.Join(got, " ") != "pump-7" {
		t.Errorf("recursive members of plant = %v", got)
	}

	// The device stays connected; a second client of it publishes.
	sub := d.subscribe("pump-7", "$aws/things/pump-7/shadow/update/accepted", "$aws/things/pump-7/shadow/update/delta", "plant/leeds/pump-7")
	sub.waitFor(t, "SUBACK")
	if err := d.publish("pump-7-pub", "$aws/things/pump-7/shadow/update", `{"state":{"desired":{"led":"on"},"reported":{"battery":95}},"clientToken":"day-1"}`); err != nil {
		t.Fatal(err)
	}
	sub.waitFor(t, "shadow/update/accepted", `"clientToken":"day-1"`, `"battery":95`)
	sub.waitFor(t, "shadow/update/delta", `"led":"on"`)

	found := func(want bool) func() error {
		return func() error {
			answer, err := o.try(t.Context(), "iot", "search-index", "--query-string", "shadow.reported.battery>90 AND connectivity.connected:true")
			if err != nil {
				return err
			}
			if got := strings.Join(names(answer, "things", "thingName"), " "); (got == "pump-7") != want {
				return fmt.Errorf("search answers %q", got)
			}
			return nil
		}
	}
	member := func(want bool) func() error {
		return func() error {
			answer, err := o.try(t.Context(), "iot", "list-things-in-thing-group", "--thing-group-name", "full-battery")
			if err != nil {
				return err
			}
			if got := strings.Join(names(answer, "things", ""), " "); (got == "pump-7") != want {
				return fmt.Errorf("group has %q", got)
			}
			return nil
		}
	}
	testkit.Poll(t, 15*time.Second, "the search finds the device", found(true))
	testkit.Poll(t, 15*time.Second, "the dynamic group gains the device", member(true))
	if err := d.publish("pump-7-pub", "$aws/things/pump-7/shadow/update", `{"state":{"reported":{"battery":89}}}`); err != nil {
		t.Fatal(err)
	}
	testkit.Poll(t, 15*time.Second, "the search loses the device", found(false))
	testkit.Poll(t, 15*time.Second, "the dynamic group loses the device", member(false))
	if err := d.publish("pump-7-pub", "$aws/things/pump-7/shadow/update", `{"state":{"reported":{"battery":91}}}`); err != nil {
		t.Fatal(err)
	}
	testkit.Poll(t, 15*time.Second, "the dynamic group gains the device again", member(true))

	// The shadow over HTTP, as the command line fetches it.
	out := filepath.Join(t.TempDir(), "shadow.json")
	o.mustRaw("iot-data", "get-thing-shadow", "--thing-name", "pump-7", out)
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(text, []byte(`"battery":91`)) || !bytes.Contains(text, []byte(`"version":3`)) {
		t.Errorf("shadow over HTTP = %s", text)
	}

	// Inherited policy: the grandparent's statement lets the device publish
	// under its own site, as itself; detaching it stops the live device.
	sub.mu.Lock()
	sub.lines = nil
	sub.mu.Unlock()
	o.publish("plant/leeds/pump-7", "hello")
	sub.waitFor(t, "plant/leeds/pump-7", "hello")
	o.must("iot", "detach-policy", "--policy-name", "plant", "--target", "arn:aws:iot:us-east-1:000000000000:thinggroup/plant")
	o.publish("plant/leeds/pump-7", "world")
	if err := d.publish("pump-7-pub", "$aws/things/pump-7/shadow/update", `{"state":{"reported":{"after":1}},"clientToken":"fence"}`); err != nil {
		t.Fatal(err)
	}
	sub.waitFor(t, `"clientToken":"fence"`)
	if sub.saw("plant/leeds/pump-7", "world") == nil {
		t.Error("the device received a message after the group's policy was detached")
	}
	testkit.Poll(t, 5*time.Second, "the log names the missing permission", func() error {
		if !strings.Contains(server.Log(), "iot:Receive") {
			return fmt.Errorf("no iot:Receive in the log")
		}
		return nil
	})

	// Deactivating the certificate ends the live connection.
	o.must("iot", "update-certificate", "--certificate-id", d.certificateID, "--new-status", "INACTIVE")
	testkit.Poll(t, 15*time.Second, "the search sees the device offline", func() error {
		answer, err := o.try(t.Context(), "iot", "search-index", "--query-string", "thingName:pump-7 AND connectivity.connected:false")
		if err != nil {
			return err
		}
		if got := names(answer, "things", "thingName"); len(got) != 1 {
			return fmt.Errorf("search answers %v", got)
		}
		return nil
	})
}

// publish sends by HTTP. A payload from a file is understood by version 1 and
// version 2 of the command line alike.
func (o *operator) publish(topic, payload string) {
	o.t.Helper()
	file := filepath.Join(o.t.TempDir(), "payload")
	if err := os.WriteFile(file, []byte(payload), 0o600); err != nil {
		o.t.Fatal(err)
	}
	o.mustRaw("iot-data", "publish", "--topic", topic, "--qos", "1", "--payload", "fileb://"+file)
}

// mustRaw runs a command whose answer goes to a file.
func (o *operator) mustRaw(args ...string) {
	o.t.Helper()
	cmd := exec.CommandContext(o.t.Context(), "aws", append([]string{"--endpoint-url", "http://" + o.server.HTTPAddr}, args...)...)
	cmd.Env = o.env
	if out, err := cmd.CombinedOutput(); err != nil {
		o.t.Fatalf("aws %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func TestDeviceWithoutStatementIsRefused(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "aws", "mosquitto_sub", "mosquitto_pub")
	server := testkit.StartServer(t)
	o := newOperator(t, server)
	d := o.newDevice()
	logged := func(action, resource string) {
		t.Helper()
		testkit.Poll(t, 5*time.Second, "the log names "+action+" on "+resource, func() error {
			for line := range strings.Lines(server.Log()) {
				if strings.Contains(line, action) && strings.Contains(line, resource) {
					return nil
				}
			}
			return fmt.Errorf("not in the log")
		})
	}

	// No policy at all: CONNECT is refused.
	if err := d.publish("lonely", "a/b", "x"); err == nil {
		t.Error("connect without a policy succeeded")
	}
	logged("iot:Connect", "client/lonely")

	o.must("iot", "create-policy", "--policy-name", "narrow", "--policy-document", `{"Version":"2012-10-17","Statement":[
	 {"Effect":"Allow","Action":"iot:Connect","Resource":"*"},
	 {"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:us-east-1:000000000000:topic/up/*"},
	 {"Effect":"Allow","Action":"iot:Subscribe","Resource":"arn:aws:iot:us-east-1:000000000000:topicfilter/down/*"},
	 {"Effect":"Allow","Action":"iot:Receive","Resource":"arn:aws:iot:us-east-1:000000000000:topic/down/open"}]}`)
	o.must("iot", "attach-policy", "--policy-name", "narrow", "--target", d.certARN)

	// Publish.
	if err := d.publish("lonely", "up/1", "x"); err != nil {
		t.Errorf("allowed publish: %v", err)
	}
	if err := d.publish("lonely", "secret/1", "x"); err == nil {
		t.Error("publish without a statement succeeded")
	}
	logged("iot:Publish", "topic/secret/1")

	// Subscribe and receive.
	sub := d.subscribe("listener", "down/#", "secret/#")
	sub.waitFor(t, "Subscribed (mid: 1): 1, 128")
	logged("iot:Subscribe", "topicfilter/secret/#")
	o.publish("down/closed", "closed")
	o.publish("down/open", "open")
	sub.waitFor(t, "down/open", "open")
	if sub.saw("down/closed", "closed") == nil {
		t.Error("received a message without an iot:Receive statement")
	}
	logged("iot:Receive", "topic/down/closed")
}

func TestErrorsNameFieldAndRule(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "aws")
	server := testkit.StartServer(t)
	o := newOperator(t, server)
	o.refused("ResourceNotFoundException", "iot", "describe-thing", "--thing-name", "ghost")
	o.refused("InvalidRequestException", "iot", "create-thing", "--thing-name", "four", "--attribute-payload", `{"attributes":{"a":"1","b":"2","c":"3","d":"4"}}`)
	o.refused("MalformedPolicyException", "iot", "create-policy", "--policy-name", "bad", "--policy-document", `{"Statement":[}`)
	o.refused("InvalidQueryException", "iot", "search-index", "--query-string", "a:[1 TO")
	o.refused("not offered", "iot", "list-jobs")
	o.refused("not offered", "cloudwatch", "list-metrics")

	// A signature with the wrong key, and an unknown key.
	good := o.env
	o.env = append(slices.Clip(good), "AWS_SECRET_ACCESS_KEY=wrong")
	o.refused("InvalidSignatureException", "iot", "list-things")
	o.env = append(slices.Clip(good), "AWS_ACCESS_KEY_ID=AKIAXXXXXXXXXXXXXXXX")
	o.refused("UnrecognizedClientException", "iot", "list-things")
	o.env = good

	// Paging with real tokens.
	for _, name := range []string{"a", "b", "c"} {
		o.must("iot", "create-thing", "--thing-name", name)
	}
	first := o.must("iot", "list-things", "--max-results", "2", "--no-paginate")
	if got := strings.Join(names(first, "things", "thingName"), " "); got != "a b" {
		t.Errorf("first page = %q", got)
	}
	all := o.must("iot", "list-things", "--page-size", "1")
	if got := strings.Join(names(all, "things", "thingName"), " "); got != "a b c" {
		t.Errorf("all pages = %q", got)
	}
	o.refused("InvalidRequestException", "iot", "list-things", "--no-paginate", "--next-token", "forged")
}

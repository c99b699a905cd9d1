//go:build bench

package bench_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/mqtt"
	mqttclient "github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/testkit"
)

const (
	// registrationBar is of design §5: registrations a second from requests.
	registrationBar = 500
	// joiners is how many claims' connections let devices join at a time.
	joiners = 64
	// joiningBody makes what a device usually needs: a thing of a type with
	// attributes in a group, an active certificate, a policy.
	joiningBody = `{"Parameters":{"Serial":{"Type":"String"},"AWS::IoT::Certificate::Id":{"Type":"String"}},"Resources":{
"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Fn::Join":["-",["pump",{"Ref":"Serial"}]]},"ThingTypeName":"pump","ThingGroups":["site"],"AttributePayload":{"serial":{"Ref":"Serial"},"batch":"B7"}}},
"certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"},"Status":"ACTIVE"}},
"policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"bench"}}}}`
	bulkBody = `{"Parameters":{"Serial":{"Type":"String"},"CSR":{"Type":"String"}},"Resources":{
"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Fn::Join":["-",["bulk",{"Ref":"Serial"}]]},"ThingTypeName":"pump","ThingGroups":["site"],"AttributePayload":{"serial":{"Ref":"Serial"},"batch":"B7"}}},
"certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateSigningRequest":{"Ref":"CSR"},"Status":"ACTIVE"}},
"policy":{"Type":"AWS::IoT::Policy","Properties":{"PolicyName":"bench"}}}}`
	joiningRole = "arn:aws:iam::000000000000:role/provisioning"
)

// TestRegistration reports how fast devices join: over MQTT by claim, with a
// request of their own and with keys that the server makes, and from a file. A
// registration is counted when its answer has come, which is after its commit has
// reached the disk. The load generator takes its share of the same cores.
func TestRegistration(t *testing.T) {
	measured := time.Duration(environment(t, "MUSTER_BENCH_SECONDS", "10")[0]) * time.Second
	lines := environment(t, "MUSTER_BENCH_BULK", "20000")[0]
	table(fmt.Sprintf("registration: synced, %d devices at a time", joiners), "way", "engine", "devices/s", "p50 / p99 ms", "server CPU µs each", fmt.Sprintf("bar %d/s", registrationBar))
	for _, engine := range []string{"pebble", "PostgreSQL"} {
		t.Run(engine, func(t *testing.T) {
			var cluster *testkit.Postgres
			if engine == "PostgreSQL" {
				cluster = testkit.StartPostgres(t)
			}
			for _, way := range []struct{ name, key string }{{"request of the device", ""}, {"P-256 keys made here", "p-256"}, {"RSA keys made here", "rsa-2048"}} {
				flags := []string{"--log.level", "warn", "--pki.key-pool", "64", "--provisioning.claim-outstanding", "0"}
				if way.key != "" {
					flags = append(flags, "--pki.device-key", way.key)
				}
				if cluster != nil {
					flags = append(flags, "--store", cluster.Database(t))
				}
				f := newFactory(t, flags...)
				f.run(way.name, engine, way.key == "", measured)
				if way.key == "" {
					f.file(engine, lines)
				}
				f.server.Stop()
			}
		})
	}
}

// factory is a server with a template and a claim for it.
type factory struct {
	t        *testing.T
	server   *testkit.Server
	api      *apiclient.Client
	claim    *tls.Config
	requests []string
	made     atomic.Int64
}

func newFactory(t *testing.T, flags ...string) *factory {
	t.Helper()
	f := &factory{t: t, server: testkit.StartServer(t, flags...)}
	f.api = newAPI(t, f.server)
	f.call("POST", "/thing-types/pump", map[string]any{})
	f.call("POST", "/thing-groups/site", map[string]any{})
	if err := f.api.CreatePolicy(t.Context(), "bench", devicePolicy); err != nil {
		t.Fatal(err)
	}
	if err := f.api.CreatePolicy(t.Context(), "claim", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:*","Resource":"*"}}`); err != nil {
		t.Fatal(err)
	}
	f.call("POST", "/provisioning-templates", map[string]any{
		"templateName": "join", "templateBody": joiningBody, "enabled": true, "provisioningRoleArn": joiningRole,
	})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := f.api.CertificateFromCSR(t.Context(), []byte(f.request(key)))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.api.AttachPolicy(t.Context(), "claim", issued.ARN); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(issued.PEM))
	f.claim = &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: f.server.CAPool(), ServerName: "localhost",
		Certificates: []tls.Certificate{{Certificate: [][]byte{block.Bytes}, PrivateKey: key}},
	}
	// What a device does before it joins is no load of the server's.
	f.requests = make([]string, 1000)
	for i := range f.requests {
		device, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		f.requests[i] = f.request(device)
	}
	return f
}

func (f *factory) call(method, path string, in map[string]any) []byte {
	f.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		f.t.Fatal(err)
	}
	out, err := f.api.Raw(f.t.Context(), apiclient.Request{Service: "iot", Method: method, Path: path, Body: body})
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// request is a signing request.
func (f *factory) request(key *ecdsa.PrivateKey) string {
	f.t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// joiner is a connection with the claim over which one device after the other
// joins.
type joiner struct {
	*mqttclient.Client

	answers chan []byte
}

func (f *factory) join(i int) (*joiner, error) {
	j := &joiner{answers: make(chan []byte, 1)}
	conn, err := mqttclient.Dial(f.t.Context(), f.server.MQTTAddr, f.claim)
	if err != nil {
		return nil, err
	}
	j.Client, err = mqttclient.Connect(f.t.Context(), conn, mqttclient.Options{ClientID: fmt.Sprintf("line-%03d", i), OnMessage: func(p *mqtt.Publish) {
		if strings.HasSuffix(string(p.Topic), "/rejected") {
			f.t.Errorf("rejected: %s", p.Payload)
		}
		j.answers <- slices.Clone(p.Payload)
	}})
	if err != nil {
		return nil, err
	}
	_, err = j.Subscribe(f.t.Context(), mqtt.Subscription{Filter: "$aws/certificates/+/json/+", QoS: 1}, mqtt.Subscription{Filter: "$aws/provisioning-templates/join/provision/json/+", QoS: 1})
	return j, err
}

// ask publishes and returns the answer.
func (j *joiner) ask(ctx context.Context, topic string, in any) (out map[string]any, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	if err := j.Publish(ctx, topic, 1, body); err != nil {
		return nil, err
	}
	select {
	case answer := <-j.answers:
		return out, json.Unmarshal(answer, &out)
	case <-time.After(30 * time.Second):
		return nil, errors.New("no answer for 30 s")
	}
}

// one lets one device join.
func (j *joiner) one(ctx context.Context, f *factory, byRequest bool) error {
	n := f.made.Add(1)
	topic, in := "$aws/certificates/create/json", map[string]any{}
	if byRequest {
		topic, in = "$aws/certificates/create-from-csr/json", map[string]any{"certificateSigningRequest": f.requests[n%int64(len(f.requests))]}
	}
	created, err := j.ask(ctx, topic, in)
	if err != nil {
		return err
	}
	joined, err := j.ask(ctx, "$aws/provisioning-templates/join/provision/json", map[string]any{
		"certificateOwnershipToken": created["certificateOwnershipToken"], "parameters": map[string]string{"Serial": fmt.Sprint(n)},
	})
	if err == nil && joined["thingName"] != fmt.Sprint("pump-", n) {
		err = fmt.Errorf("answered %v", joined)
	}
	return err
}

// run lets devices join for two seconds unmeasured and then for the given time.
func (f *factory) run(way, engine string, byRequest bool, measured time.Duration) {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	defer cancel()
	var counting atomic.Bool
	times := make([][]time.Duration, joiners)
	var all sync.WaitGroup
	for i := range joiners {
		j, err := f.join(i)
		if err != nil {
			f.t.Fatal(err)
		}
		all.Go(func() {
			defer j.Close() //nolint:errcheck // the measurement is over
			for ctx.Err() == nil {
				begun := time.Now()
				if err := j.one(f.t.Context(), f, byRequest); err != nil {
					f.t.Error(err)
					return
				}
				if counting.Load() {
					times[i] = append(times[i], time.Since(begun))
				}
			}
		})
	}
	<-time.After(2 * time.Second)
	counting.Store(true)
	begun, cpu := time.Now(), cpuSeconds(f.t, f.server.PID())
	<-time.After(measured)
	counting.Store(false)
	took, used := time.Since(begun), cpuSeconds(f.t, f.server.PID())-cpu
	cancel()
	all.Wait()
	joined := slices.Sorted(slices.Values(slices.Concat(times...)))
	if len(joined) == 0 {
		f.t.Fatal("nobody joined")
	}
	rate := float64(len(joined)) / took.Seconds()
	bar := "–"
	if byRequest {
		bar = verdict(registrationBar, rate)
	}
	row("MQTT, "+way, engine, number(rate, 0), both(joined[len(joined)/2], joined[len(joined)*99/100]), number(used/float64(len(joined))*1e6, 0), bar)
}

// file registers a file of requests.
func (f *factory) file(engine string, n int) {
	f.t.Helper()
	path := filepath.Join(f.server.DataDir, "buckets", "devices")
	if err := os.MkdirAll(path, 0o700); err != nil {
		f.t.Fatal(err)
	}
	var text strings.Builder
	lines := json.NewEncoder(&text)
	for i := range n {
		if err := lines.Encode(map[string]string{"Serial": fmt.Sprint(i), "CSR": f.requests[i%len(f.requests)]}); err != nil {
			f.t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(path, "in.ndjson"), []byte(text.String()), 0o600); err != nil {
		f.t.Fatal(err)
	}
	begun, cpu := time.Now(), cpuSeconds(f.t, f.server.PID())
	var task struct {
		TaskID       string `json:"taskId"`
		Status       string `json:"status"`
		SuccessCount int    `json:"successCount"`
	}
	decode := func(answer []byte) {
		if err := json.Unmarshal(answer, &task); err != nil {
			f.t.Fatal(err)
		}
	}
	decode(f.call("POST", "/thing-registration-tasks", map[string]any{
		"templateBody": bulkBody, "inputFileBucket": "devices", "inputFileKey": "in.ndjson", "roleArn": joiningRole,
	}))
	for id := task.TaskID; task.Status != "Completed"; <-time.After(100 * time.Millisecond) {
		decode(f.call("GET", "/thing-registration-tasks/"+id, nil))
	}
	took, used := time.Since(begun), cpuSeconds(f.t, f.server.PID())-cpu
	if task.SuccessCount != n {
		f.t.Errorf("%d of %d lines succeeded", task.SuccessCount, n)
	}
	rate := float64(n) / took.Seconds()
	row(fmt.Sprintf("file of %d requests", n), engine, number(rate, 0), "–", number(used/float64(n)*1e6, 0), verdict(registrationBar, rate))
}

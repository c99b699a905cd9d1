package sdk

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/muster-iot/muster/internal/testkit"
)

// TestVectors runs testdata/vectors: decisions about devices, each made in up
// to three ways that must agree. A script has sections, applied in order:
//
//	-- policy NAME --
//	    A document; "@:" is the region and account, "@cert(C)" the id of a
//	    certificate. Given again, it is a new version that is in force at once.
//	-- fleet --
//	    Lines that make and change things, in order; see world.line.
//	-- decide CERTIFICATE as CLIENT [v3] [persistent] [will=TOPIC] [retained] --
//	    Lines "ACTION RESOURCE => OUTCOME [missing NAME…]", where the outcome is
//	    ALLOWED, IMPLICIT_DENY or EXPLICIT_DENY, as in internal/iotpolicy. The
//	    client stays connected through later sections, so that what is between
//	    them acts on a live connection. It speaks MQTT 5, with v3 3.1.1.
//
// The ways, for each action:
//
//	                    TestAuthorization      MQTT, as CLIENT      HTTPS, certificate
//	iot:Connect         CONNECT and, with a    a CONNECT as the     –
//	                    will, PUBLISH          client in RESOURCE
//	iot:Publish         PUBLISH                PUBLISH, QoS 1       Publish
//	iot:RetainPublish   PUBLISH; see below     PUBLISH with RETAIN  Publish with retain
//	iot:Subscribe       SUBSCRIBE              SUBSCRIBE            –
//	iot:Receive         RECEIVE                a message arrives,   –
//	                                           or is refused
//	other actions       –                      –                    the operation
//
// TestAuthorization knows no action for retained messages. The outcome of a
// retained publish is that of iot:Publish unless it is allowed, and then that of
// iot:RetainPublish: the first is asked of TestAuthorization and the second of
// the server's explanation, and both together must agree with what happens to
// the packet. The explanation is asked about every packet besides, since MQTT
// does not say which of the two denials it was.
//
// HTTPS has no client id and no thing, and TestAuthorization knows neither
// address nor server name nor what a CONNECT carries. Where a vector turns on
// those, its line says so, with the outcome of that way: "… | https OUTCOME",
// "… | test OUTCOME". TestAuthorization is asked a second time, without client
// id, for what goes over HTTPS.
func TestVectors(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/vectors/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors: %v", err)
	}
	server := startServer(t)
	counts, names := &vectorCounts{}, &sync.Map{}
	t.Run("files", func(t *testing.T) {
		for _, file := range files {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name := strings.TrimSuffix(filepath.Base(file), ".txtar")
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				runVectors(newVectorWorld(t, server, name, counts, names), archive)
			})
		}
	})
	t.Logf("%d vectors: %d asked of TestAuthorization, %d over MQTT, %d over HTTPS",
		counts.vectors.Load(), counts.tested.Load(), counts.mqtt.Load(), counts.https.Load())
	if counts.vectors.Load() < 400 || counts.tested.Load() < 600 || counts.mqtt.Load() < 400 || counts.https.Load() < 250 {
		t.Error("fewer vectors than there should be")
	}
}

// TestVectorsNotice shows that a vector fails when any of its ways differs from
// what it says: each of these lines is wrong in one way.
func TestVectorsNotice(t *testing.T) {
	t.Parallel()
	w := newVectorWorld(t, startServer(t), "notice", &vectorCounts{}, &sync.Map{})
	w.policy("p", `{"Version":"2012-10-17","Statement":[
	 {"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":["@:topic/no/a","@:topic/no/${iot:ClientId}"]},
	 {"Effect":"Deny","Action":["iot:Publish","iot:Receive","iot:RetainPublish"],"Resource":"@:topic/no/b"},
	 {"Effect":"Allow","Action":"iot:Publish","Resource":"@:topic/no/here","Condition":{"IpAddress":{"aws:SourceIp":"127.0.0.1"}}}]}`)
	for _, line := range []string{"certificate c", "put p on c", "connects c", "subscribes c"} {
		w.line(line)
	}
	c := w.connectsAs("c", "notice-1", nil)
	for line, want := range map[string]string{
		"iot:Publish topic/no/a => ALLOWED":                                                         "",
		"iot:Publish topic/no/a => IMPLICIT_DENY":                                                   "TestAuthorization says ALLOWED",
		"iot:Publish topic/no/a => IMPLICIT_DENY | test ALLOWED | https ALLOWED":                    "the server explains ALLOWED",
		"iot:Publish topic/no/a => ALLOWED | https IMPLICIT_DENY":                                   "TestAuthorization without client says ALLOWED",
		"iot:Publish topic/no/b => IMPLICIT_DENY":                                                   "TestAuthorization says EXPLICIT_DENY",
		"iot:Publish topic/no/notice-1 => ALLOWED":                                                  "TestAuthorization without client says IMPLICIT_DENY",
		"iot:Publish topic/no/here => ALLOWED | test IMPLICIT_DENY":                                 "",
		"iot:Publish topic/no/here => ALLOWED":                                                      "TestAuthorization says IMPLICIT_DENY",
		"iot:Publish topic/no/here => ALLOWED | test IMPLICIT_DENY | https IMPLICIT_DENY":           "allowed over HTTPS",
		"iot:RetainPublish topic/no/a => ALLOWED":                                                   "TestAuthorization says IMPLICIT_DENY",
		"iot:Subscribe topicfilter/no/a => IMPLICIT_DENY | test ALLOWED":                            "the server explains ALLOWED",
		"iot:Receive topic/no/a => IMPLICIT_DENY | test ALLOWED":                                    "the server explains ALLOWED",
		"iot:Receive topic/no/b => IMPLICIT_DENY | test EXPLICIT_DENY":                              "the server explains EXPLICIT_DENY",
		"iot:Connect client/notice-2 => IMPLICIT_DENY | test ALLOWED":                               "allowed over MQTT",
		"iot:GetThingShadow thing/x => ALLOWED":                                                     "refused over HTTPS",
		"iot:Publish topic/no/notice-2 => IMPLICIT_DENY missing iot:ClientId | https IMPLICIT_DENY": "missingContextValues",
	} {
		err := w.decide(c, line)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
	// The packets themselves, apart from what is said about them.
	for _, topic := range []string{"no/a", "no/b"} {
		published, err := w.tryPublish(c, topic, false)
		received, failed := w.tryReceive(c, &vector{kind: "topic", name: topic, resource: "topic/" + topic, outcome: "EXPLICIT_DENY"})
		if want := topic == "no/a"; published != want || received != want || err != nil || failed != nil {
			t.Errorf("%s: published %v, received %v: %v, %v", topic, published, received, err, failed)
		}
	}
}

// vectorCounts says how much was shown.
type vectorCounts struct{ vectors, tested, mqtt, https atomic.Int64 }

// runVectors runs one archive.
func runVectors(w *vectorWorld, archive *txtar.Archive) {
	for _, section := range archive.Files {
		words := strings.Fields(section.Name)
		switch {
		case len(words) == 2 && words[0] == "policy":
			w.policy(words[1], string(section.Data))
		case len(words) == 1 && words[0] == "fleet":
			for _, line := range vectorLines(section.Data) {
				w.line(line)
			}
		case len(words) >= 4 && words[0] == "decide" && words[2] == "as":
			way := w.connectsAs(words[1], words[3], words[4:])
			for _, line := range vectorLines(section.Data) {
				w.counts.vectors.Add(1)
				if err := w.decide(way, line); err != nil {
					w.t.Errorf("%s: %s: %v", section.Name, line, err)
				}
			}
		default:
			w.t.Fatalf("unknown section %q", section.Name)
		}
	}
}

// vectorLines returns the lines that are neither empty nor comments.
func vectorLines(data []byte) []string {
	var lines []string
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
			lines = append(lines, line)
		}
	}
	return lines
}

// vector is one line.
type vector struct {
	text string
	// action is the part after "iot:", resource that after the account, and kind
	// and name the two parts of it.
	action, resource, kind, name string
	// outcome is that on a live connection, test that of TestAuthorization with
	// the client id, https that without a connection.
	outcome, test, https string
	// testDiffers says that TestAuthorization does not know what decides.
	testDiffers   bool
	missing       []string
	checksMissing bool
}

// parseVector reads a line.
func (w *vectorWorld) parseVector(line string) vector {
	w.t.Helper()
	parts := strings.Split(w.expand(line), " | ")
	request, answer, found := strings.Cut(parts[0], " => ")
	action, resource, ok := strings.Cut(request, " ")
	if !found || !ok {
		w.t.Fatalf("bad line %q", line)
	}
	v := vector{text: line, action: strings.TrimPrefix(action, "iot:"), resource: resource}
	v.kind, v.name, _ = strings.Cut(resource, "/")
	words := strings.Fields(answer)
	v.outcome, v.test, v.https = words[0], words[0], words[0]
	if len(words) > 1 {
		v.checksMissing = true
		if words[1] != "missing" {
			w.t.Fatalf("bad line %q", line)
		}
		v.missing = words[2:]
	}
	for _, part := range parts[1:] {
		switch way, outcome, _ := strings.Cut(strings.TrimSpace(part), " "); way {
		case "test":
			v.test, v.testDiffers = outcome, true
		case "https":
			v.https = outcome
		default:
			w.t.Fatalf("bad line %q", line)
		}
	}
	for _, outcome := range []string{v.outcome, v.test, v.https} {
		if !slices.Contains([]string{"ALLOWED", "IMPLICIT_DENY", "EXPLICIT_DENY"}, outcome) {
			w.t.Fatalf("bad line %q: %s is no outcome", line, outcome)
		}
	}
	return v
}

// decide makes one decision in every way there is for it, and says where they
// part.
func (w *vectorWorld) decide(c *vectorClient, line string) error {
	w.t.Helper()
	v := w.parseVector(line)
	switch v.action {
	case "Connect":
		return w.decideConnect(c, &v)
	case "Publish", "RetainPublish":
		return w.decidePublish(c, &v)
	case "Subscribe", "Receive":
		return w.decideMessage(c, &v)
	}
	return w.decideCall(c, &v)
}

// decideConnect compares a CONNECT.
func (w *vectorWorld) decideConnect(c *vectorClient, v *vector) error {
	tested, missing, err := w.test(c.certificate, v.name, "CONNECT", v.resource)
	if err == nil && tested == "ALLOWED" && c.will != "" {
		tested, missing, err = w.test(c.certificate, v.name, "PUBLISH", "topic/"+c.will)
		if err == nil && tested == "ALLOWED" && c.retained {
			tested, err = w.explained(c.certificate, v.name, "iot:RetainPublish", "topic/"+c.will)
		}
	}
	if err != nil {
		return err
	}
	if tested != v.test {
		return fmt.Errorf("TestAuthorization says %s", tested)
	}
	if err := v.checkMissing(missing); err != nil {
		return err
	}
	allowed, err := w.tryConnect(c, v.name)
	if err != nil {
		return err
	}
	return agrees("MQTT", v.outcome, allowed)
}

// decidePublish compares a publish, with or without RETAIN.
func (w *vectorWorld) decidePublish(c *vectorClient, v *vector) error {
	if _, err := w.connected(c); err != nil {
		return err
	}
	retain := v.action == "RetainPublish"
	tested, missing, err := w.test(c.certificate, c.id, "PUBLISH", v.resource)
	if err != nil {
		return err
	}
	explained, err := w.explained(c.certificate, c.id, "iot:Publish", v.resource)
	if err != nil {
		return err
	}
	if retain && explained == "ALLOWED" {
		if explained, err = w.explained(c.certificate, c.id, "iot:RetainPublish", v.resource); err != nil {
			return err
		}
	}
	if retain && tested == "ALLOWED" {
		tested = explained
	}
	if tested != v.test {
		return fmt.Errorf("TestAuthorization says %s", tested)
	}
	if explained != v.outcome {
		return fmt.Errorf("the server explains %s", explained)
	}
	if err := v.checkMissing(missing); err != nil {
		return err
	}
	allowed, err := w.tryPublish(c, v.name, retain)
	if err != nil {
		return err
	}
	if err := agrees("MQTT", v.outcome, allowed); err != nil {
		return err
	}
	return w.decideHTTPSPublish(c, v, retain)
}

// decideHTTPSPublish compares the same without a connection.
func (w *vectorWorld) decideHTTPSPublish(c *vectorClient, v *vector, retain bool) error {
	tested, _, err := w.test(c.certificate, "", "PUBLISH", v.resource)
	if err != nil {
		return err
	}
	want := v.https
	if v.testDiffers {
		want = v.test
	}
	if tested != want && (!retain || tested != "ALLOWED") {
		return fmt.Errorf("TestAuthorization without client says %s", tested)
	}
	allowed, err := w.tryHTTPSPublish(c, v.name, retain)
	if err != nil {
		return err
	}
	return agrees("HTTPS", v.https, allowed)
}

// decideMessage compares a subscription or a delivery.
func (w *vectorWorld) decideMessage(c *vectorClient, v *vector) error {
	if _, err := w.connected(c); err != nil {
		return err
	}
	tested, missing, err := w.test(c.certificate, c.id, strings.ToUpper(v.action), v.resource)
	if err != nil {
		return err
	}
	if tested != v.test {
		return fmt.Errorf("TestAuthorization says %s", tested)
	}
	if err := v.checkMissing(missing); err != nil {
		return err
	}
	explained, err := w.explained(c.certificate, c.id, "iot:"+v.action, v.resource)
	if err != nil {
		return err
	}
	if explained != v.outcome {
		return fmt.Errorf("the server explains %s", explained)
	}
	try := w.trySubscribe
	if v.action == "Receive" {
		try = w.tryReceive
	}
	allowed, err := try(c, v)
	if err != nil {
		return err
	}
	return agrees("MQTT", v.outcome, allowed)
}

// decideCall compares an operation that is called over HTTPS only.
func (w *vectorWorld) decideCall(c *vectorClient, v *vector) error {
	allowed, err := w.tryCall(c, v)
	if err != nil {
		return err
	}
	return agrees("HTTPS", v.https, allowed)
}

// checkMissing compares the names of what had no value, if the vector has any.
func (v *vector) checkMissing(got []string) error {
	if v.checksMissing && !slices.Equal(got, v.missing) {
		return fmt.Errorf("missingContextValues %v, want %v", got, v.missing)
	}
	return nil
}

// agrees compares what happened with an outcome.
func agrees(way, outcome string, allowed bool) error {
	if allowed == (outcome == "ALLOWED") {
		return nil
	}
	if allowed {
		return fmt.Errorf("allowed over %s", way)
	}
	return fmt.Errorf("refused over %s", way)
}

// newVectorWorld prepares one file's part of the fleet. Policies and groups
// have the file's name before theirs; things and clients must be of one file
// only, as they stand in topics and documents.
func newVectorWorld(t *testing.T, server *testkit.Server, file string, counts *vectorCounts, names *sync.Map) *vectorWorld {
	t.Helper()
	return &vectorWorld{
		operator: newOperator(t, server), file: file, counts: counts, names: names,
		certificates: map[string]*vectorCertificate{}, policies: map[string]bool{}, things: map[string]bool{}, clients: map[string]*vectorClient{},
		api: opsClient(t, server),
	}
}

package sdk

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/smithy-go"

	"github.com/muster-iot/muster/internal/testkit"
)

// calls collects what a client called: the name by the id of the reply.
type calls struct {
	mu sync.Mutex
	// outcome is the error code, empty for success.
	names, outcome map[string]string
}

// Do implements the SDK's HTTP client.
func (c *calls) Do(r *http.Request) (*http.Response, error) {
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	code, _, _ := strings.Cut(response.Header.Get("X-Amzn-Errortype"), ":")
	c.mu.Lock()
	defer c.mu.Unlock()
	id := response.Header.Get("X-Amzn-Requestid")
	c.names[id], c.outcome[id] = awsmiddleware.GetOperationName(r.Context()), code
	return response, nil
}

// record is what the test looks at of a line of the trail.
type record struct {
	Seq         uint64 `json:"seq"`
	EventName   string `json:"eventName"`
	EventSource string `json:"eventSource"`
	EventType   string `json:"eventType"`
	RequestID   string `json:"requestID"`
	ErrorCode   string `json:"errorCode"`
	ReadOnly    bool   `json:"readOnly"`
	UserAgent   string `json:"userAgent"`
	Resources   []struct {
		ARN  string `json:"ARN"`
		Type string `json:"type"`
	} `json:"resources"`
	UserIdentity struct {
		Type        string `json:"type"`
		AccessKeyID string `json:"accessKeyId"`
	} `json:"userIdentity"`
	RequestParameters map[string]any `json:"requestParameters"`
}

// exported is the whole trail, its lines and its bytes.
func exported(t *testing.T, server *testkit.Server) (records []record, text string) {
	t.Helper()
	text, err := server.Muster(t.Context(), "audit", "export")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("%v: %s", err, lines.Text())
		}
		if r.EventName != "" {
			records = append(records, r)
		}
	}
	return records, text
}

// watched is an operator whose calls are collected.
func watched(t *testing.T, server *testkit.Server, c *calls) *operator {
	t.Helper()
	o := newOperator(t, server)
	o.Client = iot.New(o.Options(), func(options *iot.Options) { options.HTTPClient = c })
	return o
}

// work is a day of an operator: it makes, changes, reads, fails and removes. The
// secrets that it got come back.
func work(ctx context.Context, o *operator, n int) (secrets []string, err error) {
	name := func(what string) *string { return new(fmt.Sprintf("%s-%d", what, n)) }
	var failed []error
	try := func(err error) { failed = append(failed, err) }
	refused := func(err error, code string) {
		var api smithy.APIError
		if !errors.As(err, &api) || api.ErrorCode() != code {
			failed = append(failed, fmt.Errorf("want %s, got %w", code, err))
		}
	}
	document := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}`
	_, e := o.CreateThingGroup(ctx, &iot.CreateThingGroupInput{ThingGroupName: name("group")})
	try(e)
	_, e = o.CreateThing(ctx, &iot.CreateThingInput{ThingName: name("pump"), AttributePayload: &types.AttributePayload{Attributes: map[string]string{"wifiPassword": "hunter2-in-attribute"}}})
	try(e)
	_, e = o.CreatePolicy(ctx, &iot.CreatePolicyInput{PolicyName: name("policy"), PolicyDocument: &document})
	try(e)
	made, e := o.CreateKeysAndCertificate(ctx, &iot.CreateKeysAndCertificateInput{SetAsActive: true})
	try(e)
	if e != nil {
		return nil, errors.Join(failed...)
	}
	for line := range strings.Lines(*made.KeyPair.PrivateKey) {
		if !strings.HasPrefix(line, "-----") {
			secrets = append(secrets, strings.TrimSpace(line))
		}
	}
	_, e = o.AttachPolicy(ctx, &iot.AttachPolicyInput{PolicyName: name("policy"), Target: made.CertificateArn})
	try(e)
	_, e = o.AttachThingPrincipal(ctx, &iot.AttachThingPrincipalInput{ThingName: name("pump"), Principal: made.CertificateArn})
	try(e)
	_, e = o.AddThingToThingGroup(ctx, &iot.AddThingToThingGroupInput{ThingName: name("pump"), ThingGroupName: name("group")})
	try(e)
	_, e = o.DescribeThing(ctx, &iot.DescribeThingInput{ThingName: name("pump")})
	try(e)
	_, e = o.ListThings(ctx, &iot.ListThingsInput{})
	try(e)
	_, e = o.DescribeThing(ctx, &iot.DescribeThingInput{ThingName: name("no-such")})
	refused(e, "ResourceNotFoundException")
	_, e = o.UpdateThing(ctx, &iot.UpdateThingInput{ThingName: name("pump"), ExpectedVersion: new(int64(99))})
	refused(e, "VersionConflictException")
	_, e = o.CreateThing(ctx, &iot.CreateThingInput{ThingName: new("not a name")})
	refused(e, "InvalidRequestException")
	_, e = o.DeletePolicy(ctx, &iot.DeletePolicyInput{PolicyName: name("policy")})
	refused(e, "DeleteConflictException")
	_, e = o.UpdateCertificate(ctx, &iot.UpdateCertificateInput{CertificateId: made.CertificateId, NewStatus: types.CertificateStatusInactive})
	try(e)
	return secrets, errors.Join(failed...)
}

// Eight operators at once: the trail holds exactly what they called, under the
// ids of their replies, and none of the secrets.
func TestAuditTrailHoldsExactlyTheCalls(t *testing.T) {
	t.Parallel()
	checkAuditTrail(t)
}

// checkAuditTrail works on a server with the flags and compares its trail.
func checkAuditTrail(t *testing.T, flags ...string) {
	t.Helper()
	server := startServerWith(t, flags...)
	c := &calls{names: map[string]string{}, outcome: map[string]string{}}
	id, secret := server.Credentials()
	secrets := []string{secret, "PRIVATE KEY", "hunter2-in-attribute"}
	var mu sync.Mutex
	var all sync.WaitGroup
	for n := range 8 {
		o := watched(t, server, c)
		all.Go(func() {
			got, err := work(t.Context(), o, n)
			mu.Lock()
			defer mu.Unlock()
			secrets = append(secrets, got...)
			if err != nil {
				t.Errorf("operator %d: %v", n, err)
			}
		})
	}
	all.Wait()

	records, text := exported(t, server)
	got := map[string]record{}
	for _, r := range records {
		if r.EventSource != "iot.amazonaws.com" {
			continue
		}
		if _, twice := got[r.RequestID]; twice {
			t.Errorf("%s %s is recorded twice", r.EventName, r.RequestID)
		}
		got[r.RequestID] = r
	}
	if len(c.names) != 8*14 {
		t.Errorf("%d calls were made, want %d", len(c.names), 8*14)
	}
	for request, name := range c.names {
		r, ok := got[request]
		if !ok || r.EventName != name || r.ErrorCode != c.outcome[request] {
			t.Errorf("call %s (%q) with id %s has the record %+v", name, c.outcome[request], request, r)
		}
		if r.UserIdentity.Type != "Root" || r.UserIdentity.AccessKeyID != id || r.EventType != "AwsApiCall" || !strings.Contains(r.UserAgent, "aws-sdk-go") {
			t.Errorf("record %+v", r)
		}
		if want := strings.HasPrefix(name, "Describe") || strings.HasPrefix(name, "List"); r.ReadOnly != want {
			t.Errorf("%s is recorded as read-only: %v", name, r.ReadOnly)
		}
		delete(got, request)
	}
	for _, r := range got {
		t.Errorf("nobody called %+v", r)
	}
	for _, s := range secrets {
		if strings.Contains(text, s) {
			t.Errorf("the trail holds a secret: %q", s)
		}
	}
	checkResources(t, records)
	searchFinds(t, server)
	if out, err := server.Muster(t.Context(), "audit", "verify"); err != nil || !strings.Contains(out, "all whole") {
		t.Errorf("verify: %v\n%s", err, out)
	}
	if out, err := server.Muster(t.Context(), "doctor"); err != nil || !strings.Contains(out, "audit records") {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	if strings.Contains(server.Log(), "PRIVATE KEY") {
		t.Error("the log holds a private key")
	}
}

// checkResources looks at what records name: what was authorized and what was
// made.
func checkResources(t *testing.T, records []record) {
	t.Helper()
	want := map[string][]string{
		"CreateThing":              {"AWS::IoT::Thing"},
		"CreateThingGroup":         {"AWS::IoT::ThingGroup"},
		"CreateKeysAndCertificate": {"AWS::IoT::Certificate"},
		"AttachPolicy":             {"AWS::IoT::Certificate", "AWS::IoT::Policy"},
		"AttachThingPrincipal":     {"AWS::IoT::Certificate", "AWS::IoT::Thing"},
		"AddThingToThingGroup":     {"AWS::IoT::Thing", "AWS::IoT::ThingGroup"},
	}
	for _, r := range records {
		kinds := map[string]bool{}
		for _, resource := range r.Resources {
			kinds[resource.Type] = true
		}
		if wanted, ok := want[r.EventName]; ok && r.ErrorCode == "" && !slices.Equal(wanted, slices.Sorted(maps.Keys(kinds))) {
			t.Errorf("%s names %v, want %v", r.EventName, r.Resources, wanted)
		}
	}
}

// searchFinds asks for one device and for one kind of refusal.
func searchFinds(t *testing.T, server *testkit.Server) {
	t.Helper()
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"--resource", "thing/pump-3"}, []string{"UpdateThing", "DescribeThing", "AddThingToThingGroup", "AttachThingPrincipal", "CreateThing"}},
		{[]string{"--error", "DeleteConflictException"}, slices.Repeat([]string{"DeletePolicy"}, 8)},
		{[]string{"--actor", "root", "--name", "CreatePolicy"}, slices.Repeat([]string{"CreatePolicy"}, 8)},
		{[]string{"--to", "2020-01-01T00:00:00Z"}, []string{}},
	} {
		out, err := server.Muster(t.Context(), append([]string{"audit", "search", "-o", "json"}, c.args...)...)
		if err != nil {
			t.Fatal(err)
		}
		var found []record
		if err := json.Unmarshal([]byte(out), &found); err != nil {
			t.Fatal(err)
		}
		names := []string{}
		for _, r := range found {
			names = append(names, r.EventName)
		}
		if !slices.Equal(names, c.want) {
			t.Errorf("search %v finds %v, want %v", c.args, names, c.want)
		}
	}
}

// A change that was answered is in the trail after the power went.
func TestAuditTrailLosesNoChange(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	o := newOperator(t, server)
	const rounds, each = 3, 40
	for round := range rounds {
		var all sync.WaitGroup
		for n := range each {
			all.Go(func() {
				if _, err := o.CreateThing(t.Context(), &iot.CreateThingInput{ThingName: new(fmt.Sprintf("pump-%d-%d", round, n))}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		server.Kill()
		server.Start()
		o = newOperator(t, server)
	}
	records, _ := exported(t, server)
	seen := map[any]int{}
	starts := 0
	for _, r := range records {
		switch r.EventName {
		case "CreateThing":
			seen[r.RequestParameters["thingName"]]++
		case "ServerStarted":
			starts++
		}
	}
	for round := range rounds {
		for n := range each {
			if name := fmt.Sprintf("pump-%d-%d", round, n); seen[name] != 1 {
				t.Errorf("%s has %d records", name, seen[name])
			}
		}
	}
	if starts != rounds+1 {
		t.Errorf("%d starts are recorded, want %d", starts, rounds+1)
	}
	if out, err := server.Muster(t.Context(), "audit", "verify"); err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
}

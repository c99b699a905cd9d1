package awsapi

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/awsapi/catalog"
)

// pathFor fills the labels of a pattern with a value that needs escaping.
func pathFor(uri string) (path string, labels []string) {
	for segment := range strings.SplitSeq(strings.Trim(uri, "/"), "/") {
		path += "/"
		if name, ok := strings.CutPrefix(segment, "{"); ok {
			labels = append(labels, strings.TrimRight(name, "+}"))
			segment = "a%3Ab%2Fc"
		}
		path += segment
	}
	return path, labels
}

// TestEveryOperationIsReachable looks every row up by its own path, with and
// without a final slash.
func TestEveryOperationIsReachable(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	for _, service := range s.options.Catalog.Services() {
		for _, op := range s.options.Catalog.Operations(service) {
			path, labels := pathFor(op.URI)
			want := map[string]string{}
			for _, label := range labels {
				want[label] = "a:b/c"
			}
			targets := []string{path}
			if !strings.Contains(op.URI, "+}") {
				targets = append(targets, path+"/")
			}
			for _, target := range targets {
				m, ok := s.routers[service].find(op.Method, target)
				if !ok || m.op.Name != op.Name {
					t.Errorf("%s %s %s: found %v", service, op.Method, target, m.op)
					continue
				}
				if diff := cmp.Diff(want, m.labels); diff != "" {
					t.Errorf("%s: %s", op.Name, diff)
				}
			}
		}
	}
}

// TestRefusedLoudly calls every operation of the catalog on a server without
// adapters: each answer names its operation and is no 5xx, which clients would
// repeat.
func TestRefusedLoudly(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	names := map[catalog.Service]string{catalog.IoT: "iot", catalog.IoTData: "iotdata", catalog.IoTJobsData: "iot-jobs-data"}
	for _, service := range s.options.Catalog.Services() {
		for _, op := range s.options.Catalog.Operations(service) {
			path, _ := pathFor(op.URI)
			got := do(t, s, signed(t, names[service], op.Method, path, ""))
			name, message := got.error(t)
			if got.status != http.StatusBadRequest || message != "The operation "+op.Name+" is not offered by this version of Muster" {
				t.Errorf("%s %s: %+v", service, op.Name, got)
			}
			if !op.Lists(name) && name != "UnsupportedOperationException" {
				t.Errorf("%s %s answers %s", service, op.Name, name)
			}
		}
	}
}

func TestWhichOperation(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	const data, jobs, control = "http://abc-ats.iot.eu-local-1.example:8443", "http://data.jobs.iot.eu-local-1.example", "http://iot.eu-local-1.example"
	for _, c := range []struct{ host, service, method, path, want string }{
		// The collisions of operations.tsv, by signature and by host.
		{"http://localhost:8080", "iot", "GET", "/things/T/jobs", "ListJobExecutionsForThing"},
		{"http://localhost:8080", "iot-jobs-data", "GET", "/things/T/jobs", "GetPendingJobExecutions"},
		{"http://localhost:8080", "iot", "POST", "/command-executions", "ListCommandExecutions"},
		{"http://localhost:8080", "iot-jobs-data", "POST", "/command-executions", "StartCommandExecution"},
		{jobs, "iot", "GET", "/things/T/jobs/J", "DescribeJobExecution"},
		{data, "iotdata", "GET", "/things/T/jobs", "GetPendingJobExecutions"},
		{data, "iot-jobs-data", "GET", "/things/T/jobs", "GetPendingJobExecutions"},
		{control, "iot", "GET", "/things/T/jobs", "ListJobExecutionsForThing"},
		// At a name of its own, a server answers for what was signed.
		{"http://iot.plant.example", "iotdata", "GET", "/things/T/shadow", "GetThingShadow"},
		{"http://iot.plant.example", "iot", "GET", "/things/T", "DescribeThing"},
		{"http://edge.iot.plant.example:8443", "iot", "GET", "/things/T", "DescribeThing"},
		{"http://edge.iot.plant.example:8443", "iotdata", "POST", "/topics/a", "Publish"},
		// A literal $next, also escaped, is no job id.
		{"http://localhost", "iot-jobs-data", "PUT", "/things/T/jobs/$next", "StartNextPendingJobExecution"},
		{"http://localhost", "iot-jobs-data", "PUT", "/things/T/jobs/%24next", "StartNextPendingJobExecution"},
		{"http://localhost", "iot-jobs-data", "POST", "/things/T/jobs/$next", "UpdateJobExecution"},
		// device-plane §1.3: device SDKs sign for iotdevicegateway.
		{"http://localhost", "iotdevicegateway", "GET", "/things/T/shadow", "GetThingShadow"},
		// A fixed segment wins over a label.
		{"http://localhost", "iot", "PUT", "/thing-groups/addThingToThingGroup", "AddThingToThingGroup"},
		{"http://localhost", "iot", "GET", "/authorizers/", "ListAuthorizers"},
		{"http://localhost", "iot", "GET", "/destinations/arn:a/b/c", "GetTopicRuleDestination"},
		{"http://localhost", "iotdata", "POST", "/topics/a//b/", "Publish"},
		{"http://localhost", "iotdata", "GET", "/retainedMessage", "ListRetainedMessages"},
	} {
		got := do(t, s, signed(t, c.service, c.method, c.host+c.path, ""))
		if _, message := got.error(t); !strings.Contains(message, " "+c.want+" ") {
			t.Errorf("%s %s %s%s: want %s, got %+v", c.service, c.method, c.host, c.path, c.want, got)
		}
	}
}

func TestGreedyLabelKeepsItsSlashes(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	for path, want := range map[string]string{"/topics/a//b/": "a//b/", "/topics/a%2Fb": "a/b", "/topics/%24aws/x": "$aws/x", "/topics//a": "/a"} {
		m, ok := s.routers[catalog.IoTData].find(http.MethodPost, path)
		if !ok || m.labels["topic"] != want {
			t.Errorf("%s: %v, want %s", path, m.labels, want)
		}
	}
}

func TestNoSuchOperation(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	for _, c := range []struct {
		service, method, path string
		status                int
		want                  string
	}{
		{"iot", "GET", "/thingz", 404, "UnknownOperationException"},
		{"iot", "DELETE", "/things", 404, "UnknownOperationException"},
		{"iot", "GET", "/" + strings.Repeat("a", maxPath), 404, "UnknownOperationException"},
		{"iotdata", "PUT", "/things/T/shadow", 405, "MethodNotAllowedException"},
		{"dynamodb", "POST", "/", 400, "UnsupportedOperationException"},
		// The signature is the same as for /things/T/shadow.
		{"iotdata", "POST", "/topics/x/../../things/T/shadow", 404, "UnknownOperationException"},
		{"iot", "GET", "/x/../things", 404, "UnknownOperationException"},
	} {
		got := do(t, s, signed(t, c.service, c.method, c.path, ""))
		if name, _ := got.error(t); got.status != c.status || name != c.want {
			t.Errorf("%s %s %.20s: %d %s", c.service, c.method, c.path, got.status, name)
		}
	}
}

func TestHostService(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]catalog.Service{
		"iot.us-east-1.example.com":                  catalog.IoT,
		"A1B2-ATS.iot.us-east-1.example.com:8443":    catalog.IoTData,
		"data-ats.iot.us-east-1.example.com":         catalog.IoTData,
		"a1b2.jobs.iot.us-east-1.example.com":        catalog.IoTJobsData,
		"a1b2.credentials.iot.us-east-1.example.com": credentials,
		"localhost:8080":                             "",
		"127.0.0.1":                                  "",
		"muster.example.com":                         "",
		".iot.us-east-1.example.com":                 "",
		"iot.us-east-1":                              catalog.IoT,
		// Servers that somebody gave a name with iot in it.
		"iot.plant.example":           "",
		"edge.iot.plant.example:8443": "",
		"a1.iot.eu-west-1.example":    "",
		"a1.iot.us-east-10.example":   "",
	} {
		if got, _ := hostService(host, "us-east-1"); got != want {
			t.Errorf("%s: got %q, want %q", host, got, want)
		}
	}
}

// FuzzFind checks that no path makes the router panic, and that a path it
// finds has the labels of its operation.
func FuzzFind(f *testing.F) {
	for _, seed := range []string{"/things/T/shadow", "/topics/a/b", "//", "/%", "/things//jobs/", "/things/%2F/jobs/$next", "/destinations/a/b"} {
		f.Add("GET", seed)
	}
	s, _ := newServer(f)
	f.Fuzz(func(t *testing.T, method, path string) {
		for _, service := range s.options.Catalog.Services() {
			m, ok := s.routers[service].find(method, path)
			if !ok {
				continue
			}
			_, labels := pathFor(m.op.URI)
			if len(labels) != len(m.labels) || m.op.Method != method {
				t.Errorf("%s %s: %s with %v", method, path, m.op.Name, m.labels)
			}
			for _, label := range labels {
				if m.labels[label] == "" {
					t.Errorf("%s: empty label %s", path, label)
				}
			}
		}
	})
}

// TestActionsAreUnique guards the authorization: two operations of one service
// must not share an action.
func TestActionsAreUnique(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	for _, service := range s.options.Catalog.Services() {
		var actions []string
		for _, op := range s.options.Catalog.Operations(service) {
			actions = append(actions, op.Action())
		}
		if slices.Sort(actions); len(slices.Compact(actions)) != len(s.options.Catalog.Operations(service)) {
			t.Errorf("%s has operations that share an action", service)
		}
	}
}

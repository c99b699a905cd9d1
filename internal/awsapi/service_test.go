package awsapi

import (
	"net/http"
	"strings"
	"testing"
)

// TestSigningNameOfOlderClients sends what the AWS command line 2.9 of Debian
// 12 and other clients of before 2024 send: the control plane signed for
// execute-api. Where host and name differ, the host decides.
func TestSigningNameOfOlderClients(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	for _, c := range []struct{ host, method, path, want string }{
		{"http://localhost:8080", "GET", "/things/T", "DescribeThing"},
		{"http://localhost:8080", "GET", "/things/T/jobs", "ListJobExecutionsForThing"},
		{"https://iot.eu-local-1.example", "GET", "/things/T/jobs", "ListJobExecutionsForThing"},
		{"https://a1-ats.iot.eu-local-1.example", "GET", "/things/T/shadow", "GetThingShadow"},
		{"https://a1.jobs.iot.eu-local-1.example", "GET", "/things/T/jobs", "GetPendingJobExecutions"},
		{"http://localhost:8080", "POST", "/attached-policies/arn:aws:iot:r:1:thinggroup%2FG", "ListAttachedPolicies"},
	} {
		got := do(t, s, signed(t, "execute-api", c.method, c.host+c.path, ""))
		if _, message := got.error(t); !strings.Contains(message, " "+c.want+" ") {
			t.Errorf("%s %s%s: want %s, got %+v", c.method, c.host, c.path, c.want, got)
		}
	}
	got := do(t, s, signed(t, "execute-api", http.MethodGet, "http://localhost/things/T/shadow", ""))
	if name, _ := got.error(t); name != unknownOperation {
		t.Errorf("the data plane is signed for iotdata, got %+v", got)
	}
}

// TestSigningNameIsSigned swaps the name after signing.
func TestSigningNameIsSigned(t *testing.T) {
	t.Parallel()
	s, _ := newServer(t)
	for _, names := range [][2]string{{"execute-api", "iot"}, {"iot", "execute-api"}, {"iotdata", "iot"}} {
		r := signed(t, names[0], http.MethodGet, "http://localhost/things/T", "")
		r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "/"+names[0]+"/", "/"+names[1]+"/", 1))
		got := do(t, s, r)
		if name, _ := got.error(t); got.status != http.StatusForbidden || name != "InvalidSignatureException" {
			t.Errorf("signed for %s, sent as for %s: %+v", names[0], names[1], got)
		}
	}
}

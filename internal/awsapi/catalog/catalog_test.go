package catalog

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/awsapi/catalog/wire"
)

func newCatalog(t *testing.T) *Catalog {
	t.Helper()
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestEveryOperationIsThere(t *testing.T) {
	t.Parallel()
	c := newCatalog(t)
	// house-style §4: three restJson services with 272, 11 and 5 operations.
	for service, want := range map[Service]int{IoT: 272, IoTData: 11, IoTJobsData: 5} {
		if got := len(c.Operations(service)); got != want {
			t.Errorf("%s has %d operations, want %d", service, got, want)
		}
	}
	for _, service := range []Service{Monitoring, SNS, Firehose, Logs, STS, S3} {
		if len(c.named[service]) == 0 || !slices.IsSorted(c.named[service]) {
			t.Errorf("%s: %d names, sorted %v", service, len(c.named[service]), slices.IsSorted(c.named[service]))
		}
	}
	if !c.Knows(Monitoring, "PutMetricData") || c.Knows(Monitoring, "PutMetricDatum") || !c.Knows(IoT, "CreateThing") {
		t.Error("Knows is wrong about a well-known operation")
	}
}

// TestRowsAreWhole encodes each pair of structs, which reads all their tags,
// and checks labels and exceptions against each other.
func TestRowsAreWhole(t *testing.T) {
	t.Parallel()
	c := newCatalog(t)
	for _, service := range c.Services() {
		for _, op := range c.Operations(service) {
			for _, v := range []any{op.Input(), op.Output()} {
				if _, err := c.Codec(service).Encode(v); err != nil {
					t.Errorf("%s: %v", op.Name, err)
				}
			}
			if !strings.HasPrefix(op.URI, "/") || op.Method == "" || op.Status != 200 || op.Domain == "" || op.Scope == "" {
				t.Errorf("incomplete row %+v", op)
			}
			for _, name := range op.Errors {
				if e, ok := c.Exception(service, name); !ok || e.Status < 400 {
					t.Errorf("%s: exception %s has status %d", op.Name, name, e.Status)
				}
			}
			if !slices.IsSorted(op.Errors) || len(op.Errors) == 0 {
				t.Errorf("%s: exceptions %v", op.Name, op.Errors)
			}
			err := c.Codec(service).Decode(op.Input(), wire.Request{})
			if strings.Contains(op.URI, "{") && err == nil {
				t.Errorf("%s takes no label although its path has one", op.Name)
			}
		}
	}
}

// TestStatusesThatSurprise pins fleet-management §0.
func TestStatusesThatSurprise(t *testing.T) {
	t.Parallel()
	c := newCatalog(t)
	for want, status := range map[[2]string]int{
		{"iot", "ThrottlingException"}: 400, {"iot-data", "ThrottlingException"}: 429, {"iot-jobs-data", "ThrottlingException"}: 429,
		{"iot", "LimitExceededException"}: 410, {"iot", "ServiceQuotaExceededException"}: 402, {"iot", "CertificateStateException"}: 406,
		{"iot", "IndexNotReadyException"}: 400, {"iot", "NotConfiguredException"}: 404,
	} {
		e, ok := c.Exception(Service(want[0]), want[1])
		if !ok || e.Status != status {
			t.Errorf("%v: got %d, want %d", want, e.Status, status)
		}
	}
	e, _ := c.Exception(IoT, "ResourceAlreadyExistsException")
	if got := slices.Sorted(slices.Values(e.Members)); !slices.Equal(got, []string{"resourceArn", "resourceId"}) {
		t.Errorf("members %v", got)
	}
}

// TestNewerMembers checks a few of the members that only the newer SDK has.
func TestNewerMembers(t *testing.T) {
	t.Parallel()
	c := newCatalog(t)
	rules := maps.Clone(c.models[IoT].Rules())
	if !slices.Contains(rules["ThingPrincipalType"].Enum, "EXCLUSIVE_THING") {
		t.Error("ThingPrincipalType has lost EXCLUSIVE_THING")
	}
	op, ok := c.Operation(IoT, "GetThingConnectivityData")
	if !ok || op.Method != http.MethodPost || op.URI != "/things/{thingName}/connectivity-data" {
		t.Errorf("GetThingConnectivityData: %+v", op)
	}
}

package mqttapi

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/broker"
	"github.com/muster-iot/muster/internal/fleet"
)

// quiet returns a handler whose requests go nowhere.
func quiet(t *testing.T, log *slog.Logger) *Handler {
	t.Helper()
	return New(Options{Shadows: nil, Logger: log})
}

// Device plane, 2.5: filters that can match a defined topic are accepted,
// everything else under `$` ends the connection.
func TestCanSubscribeReserved(t *testing.T) {
	t.Parallel()
	h := quiet(t, slog.New(slog.DiscardHandler))
	for filter, want := range map[string]bool{
		"$aws/things/pump-7/shadow/update/accepted":             true,
		"$aws/things/pump-7/shadow/get/+":                       true,
		"$aws/things/pump-7/shadow/#":                           true,
		"$aws/things/+/shadow/update/delta":                     true,
		"$aws/things/pump-7/shadow/name/cfg/update/documents":   true,
		"$aws/things/pump-7/shadow/name/+/delete/rejected":      true,
		"$aws/things/pump-7/shadow/update":                      true,
		"$aws/things/pump-7/jobs/+/update/accepted":             true,
		"$aws/things/pump-7/jobs/notify-next":                   true,
		"$aws/things/pump-7/defender/metrics/json/accepted":     true,
		"$aws/things/pump-7/streams/s1/data/cbor":               true,
		"$aws/things/pump-7/tunnels/notify":                     true,
		"$aws/things/core/greengrass/health/json":               true,
		"$aws/certificates/create/json/accepted":                true,
		"$aws/certificates/create-from-csr/cbor/rejected":       true,
		"$aws/provisioning-templates/t/provision/json/accepted": true,
		"$aws/commands/things/pump-7/executions/+/request/json": true,
		"$aws/commands/clients/c/executions/+/request/+":        true,
		"$aws/events/presence/connected/+":                      true,
		"$aws/events/anything/at/all":                           true,
		"$muster/agents/pump-7/hello":                           true,
		"$aws/#":                                                true,
		"$aws/things/#":                                         true,
		"$aws/things/pump-7/shadow":                             false,
		"$aws/things/pump-7/shadow/update/other":                false,
		"$aws/things/pump-7/shadows/#":                          false,
		"$aws/nothing":                                          false,
		"$aws/rules/any/topic":                                  false,
		"$aws/rules/#":                                          false,
		"$SYS/#":                                                false,
		"$other":                                                false,
		"$":                                                     false,
	} {
		if got := h.CanSubscribeReserved(filter); got != want {
			t.Errorf("CanSubscribeReserved(%q) = %v", filter, got)
		}
	}
}

func TestPublishesThatAreNotTakenIn(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	h := quiet(t, slog.New(slog.NewTextHandler(&log, nil)))
	for name, want := range map[string]bool{
		"$aws/things/core/greengrass/health/json":           true,
		"$aws/things/pump-7/shadow/update/accepted":         false,
		"$aws/things/pump-7/shadow/update/delta":            false,
		"$aws/things/pump-7/shadow/name/cfg/get/rejected":   false,
		"$aws/things/pump-7/shadow/name//update":            false,
		"$aws/things/pump-7/shadow":                         false,
		"$aws/events/presence/connected/pump-7":             false,
		"$aws/things/pump-7/jobs/get":                       false,
		"$aws/things/pump-7/jobs/start-next":                false,
		"$aws/things/pump-7/tunnels/notify":                 false,
		"$aws/commands/things/t/executions/1/response/json": false,
		"$aws/rules/r/some/topic":                           false,
		"$muster/agents/pump-7/hello":                       false,
		"$aws/unknown":                                      false,
		"$SYS/broker":                                       false,
	} {
		deferred, ok := h.Reserved(&broker.Publish{Topic: name, ClientID: "pump-7"}, func(error, ...broker.Message) { t.Errorf("%s: done was called", name) })
		if deferred || ok != want {
			t.Errorf("Reserved(%q) = %v, %v, want taken in %v", name, deferred, ok, want)
		}
		if h.CanPublishReserved(name) != want {
			t.Errorf("CanPublishReserved(%q) = %v", name, !want)
		}
	}
	// Two of the topics above are of jobs: one line for the kind.
	if got := strings.Count(log.String(), "$aws/things/+/jobs/#"); got != 1 {
		t.Errorf("the jobs topics were logged %d times:\n%s", got, log.String())
	}
	if strings.Contains(log.String(), "unknown") || !strings.Contains(log.String(), "$aws/rules/#") {
		t.Errorf("log:\n%s", log.String())
	}
}

func TestParseShadowTopic(t *testing.T) {
	t.Parallel()
	h := quiet(t, slog.New(slog.DiscardHandler))
	for name, want := range map[string]shadowTopic{
		"$aws/things/pump-7/shadow/update":          {"pump-7", "", "update"},
		"$aws/things/pump-7/shadow/get":             {"pump-7", "", "get"},
		"$aws/things/pump-7/shadow/delete":          {"pump-7", "", "delete"},
		"$aws/things/pump-7/shadow/name/cfg/update": {"pump-7", "cfg", "update"},
		"$aws/things/a/shadow/name/name/get":        {"a", "name", "get"},
		"$aws/things/shadow/shadow/name/update/get": {"shadow", "update", "get"},
		"$aws/things/pump-7/shadow/name/get":        {},
		"$aws/things/pump-7/shadow/name//get":       {},
		"$aws/things/pump-7/shadow/name/cfg/get/x":  {},
		"$aws/things/pump-7/shadow/update/accepted": {},
		"$aws/things/pump-7/shadow/updates":         {},
		"$aws/things/pump-7/shadow/":                {},
		"$aws/things/pump-7/jobs/get":               {},
		"$aws/things":                               {},
		"$aws/thing/pump-7/shadow/update":           {},
		"":                                          {},
	} {
		got, ok := parseShadowTopic(name)
		if h.CanPublishReserved(name) != ok {
			t.Errorf("CanPublishReserved(%q) = %v", name, !ok)
		}
		if ok != (want.operation != "") || ok && got != want {
			t.Errorf("parseShadowTopic(%q) = %+v, %v", name, got, ok)
		}
	}
}

// FuzzShadowTopic checks that what is taken for a request is in the table and
// comes back from its parts.
func FuzzShadowTopic(f *testing.F) {
	f.Add("$aws/things/pump-7/shadow/update")
	f.Add("$aws/things/pump-7/shadow/name/cfg/get")
	f.Add("$aws/things//shadow/name/x/delete")
	table := reservedTopics()
	f.Fuzz(func(t *testing.T, name string) {
		got, ok := parseShadowTopic(name)
		row := rowOf(table, name)
		if isInput := row >= 0 && table[row].use == input; ok && !isInput {
			t.Fatalf("%q is taken for a request and is not in the table", name)
		}
		if ok {
			if diff := cmp.Diff(name, shadowPrefix(got.thing, got.shadow)+got.operation); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}

func TestActorHasNoPort(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{"192.0.2.1:4711": "192.0.2.1", "[2001:db8::1]:4711": "2001:db8::1", "pipe": "pipe"} {
		if got := actorOf(&broker.Publish{RemoteAddr: address, ClientID: "c"}); got != (fleet.Actor{SourceAddress: want, ClientID: "c"}) {
			t.Errorf("actor of %q = %+v", address, got)
		}
	}
}

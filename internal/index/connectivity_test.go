package index_test

import (
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/index"
)

// monitoring §12: muster.connectivity.state follows settled changes, while
// connectivity.connected follows the raw session; an older change than the known
// one is passed over; terms without a field do not look at either.
func TestSettledConnectivity(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := newIndex(t, m)
	m.apply(t, x, thing("p"), thing("q"), dynamic("offline", "muster.connectivity.state:OFFLINE_DIRTY", 1))
	expect(t, x, "muster.connectivity.state:NEVER_SEEN", "p q")
	expect(t, x, "muster.connectivity.stateVersion:*", "")
	change := event.ConnectivityStateChanged{
		Thing: "p", ClientID: "p", StateVersion: 4, From: "SUSPECT", To: "OFFLINE_DIRTY", Since: time.UnixMilli(5000), LastSeen: time.UnixMilli(4000),
		DisconnectReason: "CONNECTION_LOST", Blips: 2, Flapping: true, Gateway: "GW", NoHello: true,
	}
	older := change
	older.StateVersion, older.To = 3, "SUSPECT"
	m.apply(t, x, change, older, change)
	for query, want := range map[string]string{
		"muster.connectivity.state:OFFLINE_DIRTY":               "p",
		"muster.connectivity.state:OFFLINE*":                    "p",
		"muster.connectivity.since:5000":                        "p",
		"muster.connectivity.stateVersion>=4":                   "p",
		"muster.connectivity.lastSeen<4001":                     "p",
		"muster.connectivity.blips>1":                           "p",
		"muster.connectivity.flapping:true":                     "p",
		"muster.connectivity.gateway:gw":                        "p",
		"muster.connectivity.noHello:true":                      "p",
		"muster.connectivity.disconnectReason:CONNECTION_LOST":  "p",
		"thingGroupNames:offline":                               "p",
		"connectivity.connected:false":                          "p q",
		"OFFLINE_DIRTY":                                         "",
		"NEVER_SEEN":                                            "",
		"CONNECTION_LOST":                                       "",
		"NOT muster.connectivity.state:NEVER_SEEN":              "p",
		"muster.latency.meanMs:*":                               "",
		"muster.connectivity.state:NEVER_SEEN AND thingName:q*": "q",
	} {
		expect(t, x, query, want)
	}
	back := event.ConnectivityStateChanged{Thing: "p", StateVersion: 5, From: "OFFLINE_DIRTY", To: "RECOVERED", Since: time.UnixMilli(9000), Blips: 2}
	m.apply(t, x, back, event.LatencyMeasured{Things: []event.ThingLatency{{Thing: "p", LastMS: 12.5, MeanMS: 20, MaxMS: 80, Samples: 3}, {Thing: "ghost", LastMS: 1}}})
	for query, want := range map[string]string{
		"muster.connectivity.flapping:false":     "p",
		"muster.connectivity.gateway:*":          "",
		"muster.connectivity.disconnectReason:*": "",
		"muster.connectivity.noHello:*":          "",
		"muster.connectivity.lastSeen:4000":      "p", // what is not told stays
		"thingGroupNames:offline":                "",
		"muster.latency.lastMs:12.5 AND muster.latency.meanMs:20 AND muster.latency.maxMs>79": "p",
	} {
		expect(t, x, query, want)
	}
	// A new life of the name begins anew.
	m.apply(t, x, event.ThingDeleted{Thing: "p"}, thing("p"))
	expect(t, x, "muster.connectivity.state:NEVER_SEEN", "p q")
	expect(t, x, "muster.latency.lastMs:*", "")
}

// A rebuild brings what the events have brought.
func TestSettledConnectivityIsLoaded(t *testing.T) {
	t.Parallel()
	m := newModel(1)
	x := newIndex(t, m)
	b := x.Build()
	if err := b.PutThing(account, index.Thing{Name: "p", ID: "i"}, nil, index.State{}); err != nil {
		t.Fatal(err)
	}
	b.PutConnectivityState(account, "p", index.ConnectivityState{State: "STALE", StateVersion: 2, Since: time.UnixMilli(7)})
	b.PutConnectivityState(account, "ghost", index.ConnectivityState{State: "STALE", StateVersion: 2})
	b.PutLatency(account, "p", index.Latency{LastMS: 3})
	if err := b.Finish(t.Context(), x.Applied()); err != nil {
		t.Fatal(err)
	}
	expect(t, x, "muster.connectivity.state:STALE muster.connectivity.since:7 muster.latency.lastMs:3", "p")
}

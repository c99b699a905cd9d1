package sdk

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go/service/iotdataplane" //nolint:staticcheck // the newer SDK's data plane clients are not to be had.
	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/mqtt"
	mqttclient "github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/testkit"
)

// inventory asks for everything that the test has made, and returns what must
// be the same after a restart.
func (o *operator) inventory(thing string, as identity) map[string]any {
	o.t.Helper()
	described := must(o, o.DescribeThing, &iot.DescribeThingInput{ThingName: &thing})
	kind := must(o, o.DescribeThingType, &iot.DescribeThingTypeInput{ThingTypeName: new("Pump")})
	group := must(o, o.DescribeThingGroup, &iot.DescribeThingGroupInput{ThingGroupName: new("pumps")})
	dynamic := must(o, o.DescribeThingGroup, &iot.DescribeThingGroupInput{ThingGroupName: new("low")})
	certificate := must(o, o.DescribeCertificate, &iot.DescribeCertificateInput{CertificateId: &as.id})
	policy := must(o, o.GetPolicy, &iot.GetPolicyInput{PolicyName: new("device")})
	targets := must(o, o.ListTargetsForPolicy, &iot.ListTargetsForPolicyInput{PolicyName: new("site")})
	principals := must(o, o.ListThingPrincipals, &iot.ListThingPrincipalsInput{ThingName: &thing})
	groups := must(o, o.ListThingGroupsForThing, &iot.ListThingGroupsForThingInput{ThingName: &thing})
	members := must(o, o.ListThingsInThingGroup, &iot.ListThingsInThingGroupInput{ThingGroupName: new("low")})
	found := must(o, o.SearchIndex, &iot.SearchIndexInput{QueryString: new("shadow.name.config.desired.mode:eco AND shadow.reported.battery<20")})
	out := map[string]any{
		"thing": *described.ThingId, "version": described.Version, "attributes": described.Attributes, "type": kind.ThingTypeMetadata,
		"group": group.ThingGroupId, "parents": group.ThingGroupMetadata, "query": dynamic.QueryString, "dynamic": dynamic.ThingGroupId,
		"certificate": certificate.CertificateDescription, "policy": *policy.PolicyDocument, "policy changed": policy.LastModifiedDate,
		"targets": targets.Targets, "principals": principals.Principals, "members": members.Things,
	}
	for _, g := range groups.ThingGroups {
		out["in "+*g.GroupName] = *g.GroupArn
	}
	for _, f := range found.Things {
		out["found "+*f.ThingName] = *f.Shadow
	}
	for _, name := range []*string{nil, new("config")} {
		shadow, err := o.data.GetThingShadowWithContext(o.t.Context(), &iotdataplane.GetThingShadowInput{ThingName: &thing, ShadowName: name})
		if err != nil {
			o.t.Fatal(err)
		}
		var document map[string]any
		if err := json.Unmarshal(shadow.Payload, &document); err != nil {
			o.t.Fatal(err)
		}
		delete(document, "timestamp") // the time of this answer
		out["shadow "+val(name)] = document
	}
	return out
}

// TestRestartKeepsEverything stops a server as a service manager does and
// starts it on the same folder.
func TestRestartKeepsEverything(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	o := newOperator(t, server)
	fleetOf(o)
	as := o.register("pump-1")
	must(o, o.CreateDynamicThingGroup, &iot.CreateDynamicThingGroupInput{ThingGroupName: new("low"), QueryString: new("shadow.reported.battery<20")})
	o.updateShadow("pump-1", `{"state":{"desired":{"led":"on"},"reported":{"battery":12}}}`)
	if _, err := o.data.UpdateThingShadowWithContext(t.Context(), &iotdataplane.UpdateThingShadowInput{
		ThingName: new("pump-1"), ShadowName: new("config"), Payload: []byte(`{"state":{"desired":{"mode":"eco"}}}`),
	}); err != nil {
		t.Fatal(err)
	}
	joined := func() error {
		names, err := o.search("thingGroupNames:low AND shadow.name.config.desired.mode:eco")
		if err == nil && !slices.Equal(names, []string{"pump-1"}) {
			err = fmt.Errorf("search answers %q", names)
		}
		return err
	}
	testkit.Poll(t, 15*time.Second, "the dynamic group gains the device", joined)
	before := o.inventory("pump-1", as)

	// A connected device learns that the server goes, and the end is clean.
	live := connectDevice(t, server, "pump-1", as)
	server.Stop()
	if code := server.ExitCode(); code != 0 {
		t.Errorf("the server ended with code %d", code)
	}
	select {
	case <-live.Done():
		if refused, ok := errors.AsType[*mqttclient.RefusedError](live.Err()); !ok || refused.Reason != mqtt.ServerShuttingDown {
			t.Errorf("the device was told %v", live.Err())
		}
	case <-time.After(10 * time.Second):
		t.Error("the device was not told that the server went")
	}
	server.Start()

	o = newOperator(t, server)
	testkit.Poll(t, 15*time.Second, "the search finds the device after the restart", joined)
	if diff := cmp.Diff(before, o.inventory("pump-1", as), cmp.Exporter(func(reflect.Type) bool { return true })); diff != "" {
		t.Errorf("after the restart (-before +after):\n%s", diff)
	}
	// The device comes back with the same certificate, its shadow goes on.
	connectDevice(t, server, "pump-1", as)
	if out, err := server.Muster(t.Context(), "doctor"); err != nil {
		t.Errorf("doctor: %v\n%s", err, out)
	}
}

// connectDevice connects a thing by mutual TLS until the test ends.
func connectDevice(t *testing.T, server *testkit.Server, thing string, as identity) *mqttclient.Client {
	t.Helper()
	conn, err := mqttclient.Dial(t.Context(), server.MQTTAddr, server.TLSConfig(as.pair(t)))
	if err != nil {
		t.Fatal(err)
	}
	c, err := mqttclient.Connect(t.Context(), conn, mqttclient.Options{ClientID: thing, Version: mqtt.V5, KeepAlive: 60})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // it may have ended before
	return c
}

package sdk

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/mqtt"
	mqttclient "github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/testkit"
)

// devicePolicy grants a device its own shadows only; it hangs on the parent
// group and reaches devices of the child.
const devicePolicy = `{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":"iot:Connect","Resource":"` + arnPrefix + `client/${iot:Connection.Thing.ThingName}",
  "Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"true"}}},
 {"Effect":"Allow","Action":["iot:Publish","iot:Receive"],"Resource":"` + arnPrefix + `topic/$aws/things/${iot:Connection.Thing.ThingName}/shadow/*"},
 {"Effect":"Allow","Action":"iot:Subscribe","Resource":"` + arnPrefix + `topicfilter/$aws/things/${iot:Connection.Thing.ThingName}/shadow/*"}]}`

// sitePolicy hangs on each certificate.
const sitePolicy = `{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":"iot:Publish","Resource":"` + arnPrefix + `topic/${iot:Connection.Thing.Attributes[site]}/${iot:ClientId}/*"}]}`

const fullBattery = "shadow.reported.battery>90 AND connectivity.connected:true"

// fleetOf registers type, groups, policies and the dynamic group.
func fleetOf(o *operator) {
	o.t.Helper()
	must(o, o.CreateThingType, &iot.CreateThingTypeInput{
		ThingTypeName:       new("Pump"),
		ThingTypeProperties: &types.ThingTypeProperties{ThingTypeDescription: new("pumps"), SearchableAttributes: []string{"site"}},
	})
	must(o, o.CreateThingGroup, &iot.CreateThingGroupInput{ThingGroupName: new("plant")})
	must(o, o.CreateThingGroup, &iot.CreateThingGroupInput{ThingGroupName: new("pumps"), ParentGroupName: new("plant")})
	must(o, o.CreatePolicy, &iot.CreatePolicyInput{PolicyName: new("device"), PolicyDocument: new(devicePolicy)})
	must(o, o.CreatePolicy, &iot.CreatePolicyInput{PolicyName: new("site"), PolicyDocument: new(sitePolicy)})
	must(o, o.AttachPolicy, &iot.AttachPolicyInput{PolicyName: new("device"), Target: new(arnPrefix + "thinggroup/plant")})
	made := must(o, o.CreateDynamicThingGroup, &iot.CreateDynamicThingGroupInput{ThingGroupName: new("full-battery"), QueryString: new(fullBattery)})
	if *made.QueryString != fullBattery || *made.IndexName != "AWS_Things" || *made.QueryVersion == "" {
		o.t.Errorf("CreateDynamicThingGroup answers %q on %q, version %q", *made.QueryString, *made.IndexName, *made.QueryVersion)
	}
}

// register makes a thing of the fleet with a certificate.
func (o *operator) register(thing string) identity {
	o.t.Helper()
	made := must(o, o.CreateThing, &iot.CreateThingInput{
		ThingName: &thing, ThingTypeName: new("Pump"),
		AttributePayload: &types.AttributePayload{Attributes: map[string]string{"site": "leeds", "hw": "r2"}},
	})
	if want := arnPrefix + "thing/" + thing; *made.ThingArn != want || *made.ThingId == "" {
		o.t.Errorf("CreateThing answers %q and id %q, want %q", *made.ThingArn, *made.ThingId, want)
	}
	must(o, o.AddThingToThingGroup, &iot.AddThingToThingGroupInput{ThingName: &thing, ThingGroupName: new("pumps")})
	d := o.newIdentity()
	must(o, o.AttachPolicy, &iot.AttachPolicyInput{PolicyName: new("site"), Target: &d.arn})
	must(o, o.AttachThingPrincipal, &iot.AttachThingPrincipalInput{ThingName: &thing, Principal: &d.arn})
	return d
}

// TestDevicesFirstDay registers a fleet with the Go SDK and lets devices on the
// JavaScript device SDK live in it: each protocol, on the MQTT port and by ALPN
// on the shared one.
func TestDevicesFirstDay(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "node", "npm")
	if err := needDevice(); err != nil {
		t.Fatal(err)
	}
	server := startServer(t)
	o := newOperator(t, server)
	fleetOf(o)
	endpoint := must(o, o.DescribeEndpoint, &iot.DescribeEndpointInput{EndpointType: new("iot:Data-ATS")})
	if *endpoint.EndpointAddress != "localhost" {
		t.Errorf("DescribeEndpoint answers %q", *endpoint.EndpointAddress)
	}
	for _, port := range []struct{ name, addr string }{{"MQTTPort", server.MQTTAddr}, {"ALPN", server.TLSAddr}} {
		for _, protocol := range []string{"3.1.1", "5"} {
			t.Run("MQTT"+protocol+"/"+port.name, func(t *testing.T) {
				t.Parallel()
				o := newOperator(t, server)
				o.day(fmt.Sprintf("pump-%s-%s", strings.ReplaceAll(protocol, ".", ""), strings.ToLower(port.name)), protocol, port.addr)
			})
		}
	}
}

// day is the life of one device from its registration to its leaving.
func (o *operator) day(thing, protocol, addr string) {
	t := o.t
	t.Helper()
	as := o.register(thing)
	overheard := &tap{}
	d := startDevice(t, o.server, thing, protocol, overheard.listen(t, addr), as)
	checkFirstDay(t, d, protocol)
	if !slices.Contains(overheard.protocols(), "x-amzn-mqtt-ca") {
		t.Errorf("the device SDK offers %q by ALPN", overheard.protocols())
	}
	// A port for MQTT alone may leave the offer unanswered, the shared one not.
	got := negotiated(t, o.server, addr, as, overheard.protocols())
	if got != "x-amzn-mqtt-ca" && (addr == o.server.TLSAddr || got != "") {
		t.Errorf("the server on %s chose %q from %q", addr, got, overheard.protocols())
	}

	testkit.Poll(t, 15*time.Second, "the search finds the device", o.finds(thing, true))
	testkit.Poll(t, 15*time.Second, "the dynamic group gains the device", o.isMember(thing, true))
	o.checkSearchDocument(thing)
	o.updateShadow(thing, `{"state":{"reported":{"battery":89}}}`)
	testkit.Poll(t, 15*time.Second, "the search loses the device", o.finds(thing, false))
	testkit.Poll(t, 15*time.Second, "the dynamic group loses the device", o.isMember(thing, false))
	o.updateShadow(thing, `{"state":{"reported":{"battery":91}}}`)
	testkit.Poll(t, 15*time.Second, "the dynamic group gains the device again", o.isMember(thing, true))
	d.leave()
	testkit.Poll(t, 15*time.Second, "the dynamic group loses the device that left", o.isMember(thing, false))
	testkit.Poll(t, 15*time.Second, "the index knows why the device is away", o.hasLeft(thing))
}

// checkFirstDay reads the device's lines up to the one where it waits.
func checkFirstDay(t *testing.T, d *jsDevice, protocol string) {
	t.Helper()
	if protocol == "5" {
		l := d.next("connack")
		if l.ReceiveMaximum != 100 || l.MaximumQoS != 1 || l.MaximumPacketSize != 149504 {
			t.Errorf("CONNACK properties %+v, want receive maximum 100, QoS 1, packet size 149504", l)
		}
	}
	d.next("connected")
	d.next("subscribed")
	accepted := d.next("accepted")
	want := map[string]any{"desired": map[string]any{"led": "on"}, "reported": map[string]any{"battery": 95.0}}
	if accepted.ClientToken != "js-1" || accepted.Version != 1 || !cmp.Equal(accepted.State, want) {
		t.Errorf("accepted %+v, want token js-1, version 1, state %v", accepted, want)
	}
	if l := d.next("delta"); l.Version != 1 || !cmp.Equal(l.State, map[string]any{"led": "on"}) {
		t.Errorf("delta %+v, want version 1, led on", l)
	}
	want["delta"] = map[string]any{"led": "on"}
	if l := d.next("get"); l.Version != 1 || !cmp.Equal(l.State, want) {
		t.Errorf("get %+v, want version 1, state %v", l, want)
	}
	if l := d.next("named"); l.Version != 1 || !cmp.Equal(l.State, map[string]any{"desired": map[string]any{"mode": "eco"}}) {
		t.Errorf("named %+v, want version 1, mode eco", l)
	}
	if l := d.next("deleted"); l.Version != 1 {
		t.Errorf("deleted %+v, want the deleted version 1", l)
	}
	if l := d.next("rejected"); l.Code != 404 || l.Message != "No shadow exists with name: 'config'" {
		t.Errorf("rejected %+v, want 404 No shadow exists with name: 'config'", l)
	}
	d.next("waiting")
}

// negotiated connects as the device, offering what its SDK offers, and returns
// what the server chooses. MQTT must work on what comes out.
func negotiated(t *testing.T, server *testkit.Server, addr string, as identity, offer []string) string {
	t.Helper()
	conn, err := mqttclient.Dial(t.Context(), addr, server.TLSConfig(as.pair(t), offer...))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	secured, ok := conn.(*tls.Conn)
	if !ok {
		t.Fatalf("%T is no TLS connection", conn)
	}
	// The policy does not let this client id in: an answer is all we want.
	_, err = mqttclient.Connect(t.Context(), conn, mqttclient.Options{ClientID: "stranger", Version: mqtt.V5})
	if refused, ok := errors.AsType[*mqttclient.RefusedError](err); !ok || refused.Reason != 0x87 {
		t.Errorf("CONNECT as somebody else: %v, want not authorized (0x87)", err)
	}
	return secured.ConnectionState().NegotiatedProtocol
}

// finds reports whether the search for full batteries has the thing.
func (o *operator) finds(thing string, want bool) func() error {
	return func() error {
		names, err := o.search(fullBattery)
		if err == nil && slices.Contains(names, thing) != want {
			err = fmt.Errorf("search answers %q", names)
		}
		return err
	}
}

// isMember reports whether the dynamic group has the thing.
func (o *operator) isMember(thing string, want bool) func() error {
	return func() error {
		out, err := o.ListThingsInThingGroup(o.t.Context(), &iot.ListThingsInThingGroupInput{ThingGroupName: new("full-battery")})
		if err == nil && slices.Contains(out.Things, thing) != want {
			err = fmt.Errorf("the group has %q", out.Things)
		}
		return err
	}
}

// hasLeft checks the connectivity of a device that disconnected by itself.
func (o *operator) hasLeft(thing string) func() error {
	return func() error {
		out, err := o.SearchIndex(o.t.Context(), &iot.SearchIndexInput{QueryString: new("thingName:" + thing)})
		if err != nil {
			return err
		}
		if len(out.Things) != 1 || out.Things[0].Connectivity == nil {
			return fmt.Errorf("search answers %d things", len(out.Things))
		}
		c := out.Things[0].Connectivity
		if reason := val(c.DisconnectReason); val(c.Connected) || reason != "CLIENT_INITIATED_DISCONNECT" || val(c.Timestamp) == 0 {
			return fmt.Errorf("connectivity is %v, %q, %d", val(c.Connected), reason, val(c.Timestamp))
		}
		return nil
	}
}

// checkSearchDocument compares what a search tells about a connected device.
func (o *operator) checkSearchDocument(thing string) {
	o.t.Helper()
	out := must(o, o.SearchIndex, &iot.SearchIndexInput{QueryString: new("thingName:" + thing)})
	if len(out.Things) != 1 {
		o.t.Fatalf("search for %s answers %d things", thing, len(out.Things))
	}
	got := out.Things[0]
	slices.Sort(got.ThingGroupNames)
	if val(got.ThingTypeName) != "Pump" || !cmp.Equal(got.Attributes, map[string]string{"site": "leeds", "hw": "r2"}) ||
		!cmp.Equal(got.ThingGroupNames, []string{"full-battery", "plant", "pumps"}) && !cmp.Equal(got.ThingGroupNames, []string{"full-battery", "pumps"}) {
		o.t.Errorf("search answers type %q, attributes %v, groups %q", val(got.ThingTypeName), got.Attributes, got.ThingGroupNames)
	}
	if c := got.Connectivity; c == nil || !val(c.Connected) || val(c.Timestamp) < time.Now().Add(-time.Minute).UnixMilli() {
		o.t.Errorf("search answers connectivity %+v", got.Connectivity)
	}
	// The shadow travels as text that holds JSON.
	var shadow struct {
		Reported, Desired map[string]any
		HasDelta          bool
		Version           int
		Metadata          map[string]map[string]struct{ Timestamp int64 }
		Name              map[string]any
	}
	if err := json.Unmarshal([]byte(val(got.Shadow)), &shadow); err != nil {
		o.t.Fatalf("the shadow %q: %v", val(got.Shadow), err)
	}
	if shadow.Reported["battery"] != 95.0 || shadow.Desired["led"] != "on" || !shadow.HasDelta || shadow.Version != 1 ||
		shadow.Metadata["reported"]["battery"].Timestamp == 0 {
		o.t.Errorf("the search's shadow is %s", val(got.Shadow))
	}
	if _, ok := shadow.Name["config"]; ok {
		o.t.Errorf("the deleted named shadow is still there: %s", val(got.Shadow))
	}
}

// val is what a pointer points to, or nothing.
func val[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

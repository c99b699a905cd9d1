package sdk

import (
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/aws-sdk-go/service/iotdataplane" //nolint:staticcheck // the newer SDK's data plane clients are not to be had.
)

// What a thing's type propagates arrives in user properties at the libraries
// that people use, follows every change without a new connection, and leaves
// MQTT 3.1.1 alone: fleet-management §1.3.
func TestEnrichmentAtRealClients(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	o := p.operator
	must(o, o.CreateThingType, &iot.CreateThingTypeInput{ThingTypeName: new("Pump"), ThingTypeProperties: &types.ThingTypeProperties{Mqtt5Configuration: propagatingTwo()}})
	for i, c := range []struct {
		name    string
		library func(t *testing.T) library
		// silent libraries speak MQTT 3.1.1, which has no user properties.
		silent bool
	}{
		{"paho.golang", func(*testing.T) library { return autoPaho{} }, false},
		{"mqttjs 5", javascript("mqttjs", 5), false},
		{"mqttjs 3.1.1", javascript("mqttjs", 4), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l, id := c.library(t), fmt.Sprint("pump", i)
			o := newOperator(t, p.server)
			must(o, o.CreateThing, &iot.CreateThingInput{ThingName: &id, ThingTypeName: new("Pump"), AttributePayload: withAttributes(false, "site=leeds")})
			must(o, o.AttachThingPrincipal, &iot.AttachThingPrincipalInput{ThingName: &id, Principal: &p.good.arn})
			device := p.connect(t, l, overMQTT, id, false)
			if err := device.subscribe("devices/" + id + "/#"); err != nil {
				t.Fatal(err)
			}
			wants := func(step, want string) {
				t.Helper()
				if c.silent {
					want = ""
				}
				if got, err := receive(device); err != nil || got.properties != want {
					t.Errorf("%s: got %+v, %v, want %q", step, got, err, want)
				}
			}
			publish := func(step, want string) {
				t.Helper()
				if err := device.publish("devices/"+id+"/up", step, false); err != nil {
					t.Fatal(err)
				}
				wants(step, want)
			}
			publish("at first", "site=leeds cid="+id)
			must(o, o.UpdateThing, &iot.UpdateThingInput{ThingName: &id, AttributePayload: withAttributes(true, "site=osaka")})
			publish("another value", "site=osaka cid="+id)
			must(o, o.UpdateThing, &iot.UpdateThingInput{ThingName: &id, AttributePayload: withAttributes(true, "site=")})
			publish("a missing attribute", "cid="+id)
			own := named("type")
			must(o, o.CreateThingType, &iot.CreateThingTypeInput{ThingTypeName: &own})
			must(o, o.UpdateThing, &iot.UpdateThingInput{ThingName: &id, ThingTypeName: &own})
			publish("another type", "")
			must(o, o.UpdateThingType, &iot.UpdateThingTypeInput{ThingTypeName: &own, ThingTypeProperties: &types.ThingTypeProperties{
				Mqtt5Configuration: &types.Mqtt5Configuration{PropagatingAttributes: []types.PropagatingAttribute{
					{UserPropertyKey: new("thing"), ConnectionAttribute: new("iot:Thing.ThingName")},
				}},
			}})
			publish("what the type propagates now", "thing="+id)
			if err := device.publish("devices/"+id+"/kept", "kept", true); err != nil {
				t.Fatal(err)
			}
			wants("kept", "thing="+id)
			if err := device.leave(); err != nil {
				t.Fatal(err)
			}
			late := p.connect(t, l, overMQTT, id, false) // the retained copy, to the next connection
			if err := late.subscribe("devices/" + id + "/kept"); err != nil {
				t.Fatal(err)
			}
			device = late
			wants("retained", "thing="+id)
			// A message that an operator publishes over HTTP is no thing's.
			if _, err := o.data.PublishWithContext(t.Context(), &iotdataplane.PublishInput{Topic: new("devices/" + id + "/kept"), Payload: []byte("x")}); err != nil {
				t.Fatal(err)
			}
			wants("over HTTP", "")
			if err := late.leave(); err != nil {
				t.Error(err)
			}
		})
	}
}

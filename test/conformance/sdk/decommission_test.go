package sdk

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/aws-sdk-go/service/iotdataplane" //nolint:staticcheck // the newer SDK's data plane clients are not to be had.

	"github.com/muster-iot/muster/internal/mqtt"
	mqttclient "github.com/muster-iot/muster/internal/mqtt/client"
)

// pastLife is a former life as `muster things past -o json` shows it.
type pastLife struct {
	ThingID      string            `json:"thingId"`
	Attributes   map[string]string `json:"attributes"`
	ThingGroups  []string          `json:"thingGroups"`
	CompletedAt  string            `json:"completedAt"`
	Reason       string            `json:"reason"`
	Certificates []struct {
		CertificateID string `json:"certificateId"`
		Revoked       bool   `json:"revoked"`
		Shared        bool   `json:"shared"`
	} `json:"certificates"`
}

// past lists the former lives of a name with the command.
func (o *operator) past(name string) (lives []pastLife) {
	o.t.Helper()
	out, err := o.server.Muster(o.t.Context(), "things", "past", name, "-o", "json")
	if err != nil {
		o.t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(out), &lives); err != nil {
		o.t.Fatalf("%v in %s", err, out)
	}
	return lives
}

// equipped makes a thing with a certificate of its own, a group, two shadows and
// a stored session with a subscription.
func (o *operator) equipped(name string) (id, thingID string) {
	o.t.Helper()
	thing := must(o, o.CreateThing, &iot.CreateThingInput{ThingName: &name, AttributePayload: withAttributes(false, "site=leeds")})
	as := o.newIdentity()
	must(o, o.AttachPolicy, &iot.AttachPolicyInput{PolicyName: new("all"), Target: &as.arn})
	must(o, o.AttachThingPrincipal, &iot.AttachThingPrincipalInput{ThingName: &name, Principal: &as.arn, ThingPrincipalType: types.ThingPrincipalTypeExclusiveThing})
	must(o, o.AddThingToThingGroup, &iot.AddThingToThingGroupInput{ThingName: &name, ThingGroupName: new("hall")})
	for _, shadow := range []*string{nil, new("config")} {
		if _, err := o.data.UpdateThingShadowWithContext(o.t.Context(), &iotdataplane.UpdateThingShadowInput{ThingName: &name, ShadowName: shadow, Payload: []byte(`{"state":{"desired":{"a":1}}}`)}); err != nil {
			o.t.Fatal(err)
		}
	}
	conn, err := mqttclient.Dial(o.t.Context(), o.server.MQTTAddr, o.server.TLSConfig(as.pair(o.t)))
	if err != nil {
		o.t.Fatal(err)
	}
	c, err := mqttclient.Connect(o.t.Context(), conn, mqttclient.Options{ClientID: name + "/controller", Persistent: true})
	if err != nil {
		o.t.Fatal(err)
	}
	if _, err := c.Subscribe(o.t.Context(), mqtt.Subscription{Filter: "a", QoS: 1}); err != nil {
		o.t.Fatal(err)
	}
	if err := c.Disconnect(); err != nil {
		o.t.Fatal(err)
	}
	return as.id, *thing.ThingId
}

// ended checks that nothing of a thing is left but its record.
func (o *operator) ended(name, certificate, thingID string) {
	o.t.Helper()
	if _, err := o.DescribeThing(o.t.Context(), &iot.DescribeThingInput{ThingName: &name}); err == nil {
		o.t.Errorf("%s is still there", name)
	}
	if got := must(o, o.DescribeCertificate, &iot.DescribeCertificateInput{CertificateId: &certificate}).CertificateDescription.Status; got != types.CertificateStatusRevoked {
		o.t.Errorf("%s: the certificate is %s", name, got)
	}
	for _, shadow := range []*string{nil, new("config")} {
		_, err := o.data.GetThingShadowWithContext(o.t.Context(), &iotdataplane.GetThingShadowInput{ThingName: &name, ShadowName: shadow})
		if code, _ := answered(err); code != "ResourceNotFoundException" {
			o.t.Errorf("%s: shadow %q: %v", name, val(shadow), err)
		}
	}
	if members := must(o, o.ListThingsInThingGroup, &iot.ListThingsInThingGroupInput{ThingGroupName: new("hall")}).Things; len(members) > 0 {
		o.t.Errorf("the group still has %v", members)
	}
	lives := o.past(name)
	if len(lives) != 1 || lives[0].ThingID != thingID || lives[0].CompletedAt == "" || lives[0].Attributes["site"] != "leeds" ||
		len(lives[0].Certificates) != 1 || !lives[0].Certificates[0].Revoked || lives[0].Certificates[0].CertificateID != certificate {
		o.t.Errorf("%s: past %+v", name, lives)
	}
}

// forDecommissions is a server with what equipped things need.
func forDecommissions(t *testing.T, flags ...string) *operator {
	t.Helper()
	o := newOperator(t, startServerWith(t, flags...))
	must(o, o.CreatePolicy, &iot.CreatePolicyInput{PolicyName: new("all"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`)})
	must(o, o.CreateThingGroup, &iot.CreateThingGroupInput{ThingGroupName: new("hall")})
	return o
}

// One command takes a thing out of service; the name can be used again and
// keeps its history.
func TestDecommissionCommand(t *testing.T) {
	t.Parallel()
	checkDecommission(t)
}

// checkDecommission does that on a server with the flags.
func checkDecommission(t *testing.T, flags ...string) {
	t.Helper()
	o := forDecommissions(t, flags...)
	certificate, thingID := o.equipped("press-7")
	out, err := o.server.Muster(t.Context(), "things", "decommission", "press-7", "--reason", "scrapped")
	if err != nil || !strings.Contains(out, ":revoked") || !strings.Contains(out, "scrapped") {
		t.Fatalf("%v\n%s", err, out)
	}
	o.ended("press-7", certificate, thingID)
	must(o, o.CreateThing, &iot.CreateThingInput{ThingName: new("press-7")})
	if _, err := o.server.Muster(t.Context(), "things", "decommission", "press-7", "--keep-certificates"); err != nil {
		t.Fatal(err)
	}
	if lives := o.past("press-7"); len(lives) != 2 || lives[1].ThingID != thingID || lives[0].ThingID == thingID {
		t.Errorf("past %+v", lives)
	}
	if out, err := o.server.Muster(t.Context(), "things", "decommission", "nobody"); err == nil {
		t.Errorf("nobody was decommissioned: %s", out)
	}
}

// A server that is killed in the middle of a decommission leaves no state from
// which repeating it does not lead to its end; and a device whose thing is gone
// is never let in, however far the first attempt came.
func TestDecommissionSurvivesKill(t *testing.T) {
	t.Parallel()
	checkKilledDecommission(t)
}

// checkKilledDecommission kills a server with the flags.
func checkKilledDecommission(t *testing.T, flags ...string) {
	t.Helper()
	o := forDecommissions(t, flags...)
	interrupted := 0
	for round := range 10 {
		name := fmt.Sprint("press-", round)
		certificate, thingID := o.equipped(name)
		answered := make(chan error, 1)
		go func() {
			_, err := o.server.Muster(t.Context(), "things", "decommission", name)
			answered <- err
		}()
		// The command takes its time to start; the act itself takes milliseconds.
		begun := time.Now()
		for time.Since(begun) < 5*time.Second {
			c, err := o.DescribeCertificate(t.Context(), &iot.DescribeCertificateInput{CertificateId: &certificate})
			if round%2 == 0 && err == nil && c.CertificateDescription.Status == types.CertificateStatusRevoked {
				break // the registry's part is done
			}
			if round%2 == 1 && time.Since(begun) > time.Duration(round)*3*time.Millisecond {
				break
			}
		}
		o.server.Kill()
		if err := <-answered; err != nil {
			interrupted++
		}
		o.server.Start()
		gone := false
		if _, err := o.DescribeThing(t.Context(), &iot.DescribeThingInput{ThingName: &name}); err != nil {
			gone = true
		}
		status := must(o, o.DescribeCertificate, &iot.DescribeCertificateInput{CertificateId: &certificate}).CertificateDescription.Status
		if gone != (status == types.CertificateStatusRevoked) {
			t.Errorf("%s: gone %v with a certificate that is %s", name, gone, status)
		}
		if _, err := o.server.Muster(t.Context(), "things", "decommission", name); err != nil {
			t.Fatal(err)
		}
		o.ended(name, certificate, thingID)
	}
	if interrupted == 0 {
		t.Error("no decommission was interrupted")
	}
	t.Logf("%d of 10 were interrupted", interrupted)
}

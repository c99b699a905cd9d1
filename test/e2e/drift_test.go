package e2e_test

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/testkit"
)

// driftBody is a template that promises an attribute and a policy.
const driftBody = `{
 "Parameters": {"Serial": {"Type": "String"}},
 "Resources": {
  "thing": {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Fn::Join": ["-", ["pump", {"Ref": "Serial"}]]},
   "AttributePayload": {"site": "leeds"}, "ThingGroups": ["leeds"]}},
  "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}},
  "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "device"}}
 }
}`

// claimant is a device that holds a claim.
type claimant struct {
	*client.Client

	t     *testing.T
	heard chan *mqtt.Publish
}

// claims connects with the claim that a command has written.
func claims(t *testing.T, server *testkit.Server, folder string) *claimant {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(folder, "claim.crt"), filepath.Join(folder, "claim.key"))
	must(t, err)
	c := &claimant{t: t, heard: make(chan *mqtt.Publish, 4)}
	conn, err := client.Dial(t.Context(), server.MQTTAddr, server.TLSConfig(pair))
	must(t, err)
	c.Client, err = client.Connect(t.Context(), conn, client.Options{ClientID: "factory", KeepAlive: 60, OnMessage: func(p *mqtt.Publish) {
		c.heard <- &mqtt.Publish{Topic: p.Topic, Payload: append([]byte(nil), p.Payload...)}
	}})
	must(t, err)
	t.Cleanup(func() { _ = c.Close() }) // the server may have ended before
	return c
}

// call publishes a request and decodes its acceptance.
func (c *claimant) call(topic string, request, answer any) {
	c.t.Helper()
	codes, err := c.Subscribe(c.t.Context(), mqtt.Subscription{Filter: topic + "/accepted", QoS: 1}, mqtt.Subscription{Filter: topic + "/rejected", QoS: 1})
	must(c.t, err)
	if codes[0] > 1 || codes[1] > 1 {
		c.t.Fatalf("SUBACK %v", codes)
	}
	body, err := json.Marshal(request)
	must(c.t, err)
	must(c.t, c.Publish(c.t.Context(), topic, 1, body))
	select {
	case p := <-c.heard:
		if string(p.Topic) != topic+"/accepted" {
			c.t.Fatalf("%s: %s", p.Topic, p.Payload)
		}
		must(c.t, json.Unmarshal(p.Payload, answer))
	case <-time.After(15 * time.Second):
		c.t.Fatal("no answer from " + topic)
	}
}

// joins provisions one device and returns the id of its certificate.
func (c *claimant) joins(serial string) string {
	c.t.Helper()
	var made struct{ CertificateID, CertificateOwnershipToken string }
	c.call("$aws/certificates/create/json", map[string]string{}, &made)
	var registered struct{ ThingName string }
	c.call("$aws/provisioning-templates/pumps/provision/json", map[string]any{
		"certificateOwnershipToken": made.CertificateOwnershipToken, "parameters": map[string]string{"Serial": serial},
	}, &registered)
	if registered.ThingName != "pump-"+serial {
		c.t.Errorf("registered as %q", registered.ThingName)
	}
	return made.CertificateID
}

// Mission M19: devices that joined by a claim are compared with what their
// template promised, repaired by device and by query, and accepted, through a
// server that is killed in between.
func TestDriftByCommand(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	server := testkit.StartServer(t, "--log.level", "warn")
	c, api := commands{t, server}, newAPI(t, server)
	call := func(method, path string, body any) {
		t.Helper()
		must(t, api.JSON(t.Context(), apiclient.Request{Service: apiclient.ServiceControl, Method: method, Path: path}, body, nil))
	}
	call(http.MethodPost, "/thing-groups/leeds", map[string]string{})
	must(t, api.CreatePolicy(t.Context(), "device", devicePolicy))
	must(t, api.CreatePolicy(t.Context(), "wide", devicePolicy))
	c.run(words("template create pumps --enable --body", c.file(folder, "pumps.json", driftBody)))
	c.run(words("claim issue pumps --out", folder))
	factory := claims(t, server, folder)
	first := factory.joins("1")
	for _, serial := range []string{"2", "3", "4"} {
		factory.joins(serial)
	}
	c.run(words("drift show pump-1"), `^promised by +pumps version 1$`, `\(TRUSTED_USER\)$`, `^certificate +`+first+` ACTIVE$`, `^differences +0$`)
	c.run(words("drift list"), `\ATHING[^\n]*\n\z`)

	// Somebody changes things, and a certificate.
	c.run(words("things edit --yes --set-attribute site=york --remove-group leeds --query thingName:pump-*"), `COMPLETED`)
	call(http.MethodPost, "/target-policies/device", map[string]string{"target": "arn:aws:iot:us-east-1:000000000000:cert/" + first})
	must(t, api.AttachPolicy(t.Context(), "wide", "arn:aws:iot:us-east-1:000000000000:cert/"+first))
	c.run(words("certificates deactivate --yes", first))
	server.Kill()
	server.Start()
	c.run(words("drift show pump-1"), `^ATTRIBUTE site +leeds +york`, `^THING_GROUP leeds +leeds +-`, `^CERTIFICATE `+first+` +ACTIVE +INACTIVE`,
		`^POLICY device +device +-`, `^EXTRA_POLICY wide +- +wide`)
	c.run(words("drift count"), `^compared +4$`, `^differ +4$`, `^ATTRIBUTE +4$`, `^CERTIFICATE +1$`, `^EXTRA_POLICY +1$`)
	c.run(words("drift list --kind policy"), `^pump-1 +pumps +1 +1 .*POLICY device: device, is -.* wide$`)

	// One device, asked for; then the certificate, named.
	c.refused(words("drift repair pump-1"), "nobody confirmed")
	c.run(words("drift repair pump-1 --yes"), `^ATTRIBUTE site +leeds +york`, `^POLICY device`)
	c.run(words("drift show pump-1"), `^differences +1$`, `^CERTIFICATE`)
	c.run(words("drift repair pump-1 --kind certificate --kind extra-policy --yes"))
	c.run(words("drift show pump-1"), `^differences +0$`, `^certificate +`+first+` ACTIVE$`)

	// The others by query, but for one whose new site is right.
	c.run(words("drift accept pump-4 --kind attribute --yes"))
	c.run(words("drift repair --dry-run --query thingName:pump-*"), `^4 things compared, 3 to be settled: 3 would change, 1 is so already, 0 would be refused$`)
	id := regexp.MustCompile(`(?m)^([0-9a-f-]{36}) +COMPLETED +3 +3 +0 +0`).FindStringSubmatch(c.run(words("drift repair --yes --query thingName:pump-*")))
	if id == nil {
		t.Fatal("the repair is not complete")
	}
	c.run(words("bulk-edits changes "+id[1]), `^pump-2 .*ATTRIBUTE site: leeds, is york; THING_GROUP leeds: leeds, is -`, `^pump-4 +\S+ +THING_GROUP`)
	c.refused(words("bulk-edits undo "+id[1]), "is not undone")
	c.run(words("drift list"), `\ATHING[^\n]*\n\z`)
	c.run(words("things describe pump-4"), `site=york|york`)

	// Another version is in force; whoever joined before is found.
	c.run(words("template update pumps --default --body", c.file(folder, "pumps.json", driftBody)))
	factory = claims(t, server, folder)
	factory.joins("5")
	c.run(words("drift versions pumps"), `^1 +4`, `^2 +1 +yes$`)
	c.run(words("drift list --template pumps --outdated -o csv"), `(?s)^pump-1,pumps,1,2,.*^pump-4,pumps,1,2,`)

	// Who did what is in the trail; a thing that ends takes its promise along.
	c.run(words("audit search --name AcceptDrift"), `AcceptDrift`)
	c.run(words("audit search --name RepairDrift"), `RepairDrift`)
	c.run(words("things decommission pump-5 --reason gone"))
	c.refused(words("drift show pump-5"), "promise of a template for thing")
	c.run(words("drift versions pumps"), `^1 +4`)
}

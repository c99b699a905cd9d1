package sdk

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"golang.org/x/sync/errgroup"

	"github.com/muster-iot/muster/internal/mqtt"
	mqttclient "github.com/muster-iot/muster/internal/mqtt/client"
)

// crowdSize is how many devices are connected while policies change under them.
const crowdSize = 1000

// inheritedPolicy is what every device of the crowd has from the group above
// that of its own.
const inheritedPolicy = `{"Version":"2012-10-17","Statement":[
 {"Effect":"Allow","Action":"iot:Connect","Resource":"@:client/${iot:Connection.Thing.ThingName}"},
 {"Effect":"Allow","Action":"iot:Publish","Resource":["@:topic/up/${iot:Connection.Thing.Attributes[site]}/${iot:Connection.Thing.ThingName}","@:topic/all/up"]},
 {"Effect":"Allow","Action":"iot:Subscribe","Resource":"@:topicfilter/down/*"},
 {"Effect":"Allow","Action":"iot:Receive","Resource":"@:topic/down/all"}]}`

// crowd is a group's devices, connected.
type crowd struct {
	*vectorWorld
	devices []*vectorClient
	conns   []*mqttclient.Client
	arrived atomic.Int64
}

// name is that of one device.
func (*crowd) name(i int) string { return fmt.Sprintf("crowd-%04d", i) }

// TestPoliciesOfGroupsAboveAct: a device publishes by virtue of a policy on its
// group's grandparent. Each change of what that depends on acts on the live
// connection before the changing call returns, also with a thousand devices
// connected, of which some other device's traffic feels nothing but time. How
// much time is logged: no test can promise it.
func TestPoliciesOfGroupsAboveAct(t *testing.T) {
	t.Parallel()
	w := newVectorWorld(t, startServer(t), "above", &vectorCounts{}, &sync.Map{})
	w.policy("inherited", inheritedPolicy)
	for _, line := range []string{
		"group grandparent", "group parent under grandparent", "group own under parent", "group elsewhere",
		"put inherited on group/grandparent",
	} {
		w.line(line)
	}
	c := &crowd{vectorWorld: w}
	c.gather()
	c.watch()
	device := c.devices[0]
	must(w.operator, w.AttachPolicy, &iot.AttachPolicyInput{PolicyName: w.named("stays"), Target: w.target(device.certificate)})
	steps := []struct {
		what string
		do   func()
		// may is what the device may do after it, crowd whether all others receive.
		may, crowd bool
	}{
		{"as it is", func() {}, true, true},
		{"detach the grandparent's policy", func() { w.line("take inherited off group/grandparent") }, false, false},
		{"attach it again", func() { w.line("put inherited on group/grandparent") }, true, true},
		{"move the device to another group", func() { c.move(0, "own", "elsewhere") }, false, true},
		{"move it back", func() { c.move(0, "elsewhere", "own") }, true, true},
		{"publish a version in force that allows nothing", func() { w.policy("inherited", noPolicy) }, false, false},
		{"put version 1 in force", func() { w.line("version inherited 1") }, true, true},
		{"change the attribute that a variable stands for", func() { w.line("thing crowd-0000 site=york") }, false, true},
		{"change it back", func() { w.line("thing crowd-0000 site=leeds") }, true, true},
		{"deny it on the parent", func() { w.line("put denial on group/parent") }, false, false},
		{"take the denial off", func() { w.line("take denial off group/parent") }, true, true},
	}
	for _, step := range steps {
		begin := time.Now()
		step.do()
		took := time.Since(begin)
		if may, err := w.tryPublish(device, "up/leeds/crowd-0000", false); err != nil || may != step.may {
			t.Errorf("%s: the device may publish: %v (%v), want %v", step.what, may, err, step.may)
		}
		delivered, spread := c.tell()
		if step.crowd && delivered < crowdSize-1 || !step.crowd && delivered > 0 {
			t.Errorf("%s: %d of %d devices got a message", step.what, delivered, crowdSize)
		}
		t.Logf("%-48s took %8s; the next message to all took %8s", step.what, took.Round(100*time.Microsecond), spread.Round(100*time.Microsecond))
	}
}

// noPolicy allows what nobody does.
const noPolicy = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:Publish","Resource":"@:topic/nobody"}}`

// gather registers the devices, all in the group "own", and connects them.
func (c *crowd) gather() {
	c.t.Helper()
	c.policy("denial", `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":["iot:Publish","iot:Receive"],"Resource":["@:topic/up/*","@:topic/down/*"]}}`)
	c.policy("stays", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}}`)
	c.devices, c.conns = make([]*vectorClient, crowdSize), make([]*mqttclient.Client, crowdSize)
	certificates := make([]*vectorCertificate, crowdSize)
	g, ctx := errgroup.WithContext(c.t.Context())
	g.SetLimit(16)
	for i := range crowdSize {
		g.Go(func() error {
			name := c.name(i)
			if _, err := c.CreateThing(ctx, &iot.CreateThingInput{ThingName: &name, AttributePayload: &types.AttributePayload{Attributes: map[string]string{"site": "leeds"}}}); err != nil {
				return err
			}
			if _, err := c.AddThingToThingGroup(ctx, &iot.AddThingToThingGroupInput{ThingName: &name, ThingGroupName: c.named("own")}); err != nil {
				return err
			}
			certificates[i] = c.makeCertificate([]string{"CN=" + name})
			_, err := c.AttachThingPrincipal(ctx, &iot.AttachThingPrincipalInput{ThingName: &name, Principal: &certificates[i].arn})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		c.t.Fatal(err)
	}
	for i := range crowdSize {
		c.certificates[c.name(i)], c.things[c.name(i)] = certificates[i], true
	}
	g, _ = errgroup.WithContext(c.t.Context())
	g.SetLimit(8)
	for i := range crowdSize {
		g.Go(func() error { return c.join(i) })
	}
	if err := g.Wait(); err != nil {
		c.t.Fatal(err)
	}
}

// join connects one device and subscribes to what all get.
func (c *crowd) join(i int) error {
	device := &vectorClient{certificate: c.name(i), id: c.name(i), version: mqtt.V5, got: make(chan string, 4)}
	conn, err := c.dial(device, device.id, func(*mqtt.Publish) { c.arrived.Add(1) })
	if err != nil {
		return fmt.Errorf("connect %s: %w", device.id, err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	c.devices[i], c.conns[i], device.conn = device, conn, conn
	codes, err := conn.Subscribe(c.t.Context(), mqtt.Subscription{Filter: "down/all"})
	if err != nil || codes[0] != 0 {
		return fmt.Errorf("subscribe %s: %v %w", device.id, codes, err)
	}
	return nil
}

// move takes a device from one group to another in one call.
func (c *crowd) move(i int, from, to string) {
	c.t.Helper()
	must(c.operator, c.UpdateThingGroupsForThing, &iot.UpdateThingGroupsForThingInput{
		ThingName: new(c.name(i)), ThingGroupsToAdd: []string{*c.named(to)}, ThingGroupsToRemove: []string{*c.named(from)},
	})
}

// tell publishes to all, and returns how many devices got it and the time until
// the last of them had answered a ping sent after it.
func (c *crowd) tell() (delivered int, took time.Duration) {
	c.t.Helper()
	c.arrived.Store(0)
	begin := time.Now()
	if err := c.fullRights().Publish(c.t.Context(), "down/all", 1, []byte("to all")); err != nil {
		c.t.Fatal(err)
	}
	g, ctx := errgroup.WithContext(c.t.Context())
	for _, conn := range c.conns {
		g.Go(func() error { return conn.Ping(ctx) })
	}
	if err := g.Wait(); err != nil {
		c.t.Fatal(err)
	}
	return int(c.arrived.Load()), time.Since(begin)
}

// watch has a device of no group send to another one until the test ends, one
// message after the other; both have their own policies to keep up. It fails the test when the messages stop,
// and logs how long they took.
func (c *crowd) watch() {
	c.t.Helper()
	got := make(chan struct{}, 1)
	c.policy("bystander", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"@:client/${iot:ClientId}"},
	 {"Effect":"Allow","Action":["iot:Publish","iot:Subscribe","iot:Receive"],"Resource":["@:topic/bystander/${iot:ClientId}","@:topic/bystander/*","@:topicfilter/bystander/*"]}]}`)
	dial := func(name string, onMessage func(*mqtt.Publish)) *mqttclient.Client {
		c.line("certificate " + name)
		c.line("put bystander on " + name)
		conn, err := c.dial(&vectorClient{certificate: name, version: mqtt.V5}, name, onMessage)
		if err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	reader := dial("reader", func(*mqtt.Publish) { got <- struct{}{} })
	subscribe(c.t, reader, "bystander/messages")
	writer := dial("writer", nil)
	stop, ended := make(chan struct{}), make(chan struct{})
	var took []time.Duration
	ctx := context.WithoutCancel(c.t.Context()) // it goes on while the test cleans up
	go func() {
		defer close(ended)
		for {
			begin := time.Now()
			if err := writer.Publish(ctx, "bystander/messages", 1, []byte("x")); err != nil {
				c.t.Errorf("a bystander cannot publish: %v", err)
				return
			}
			select {
			case <-got:
			case <-time.After(20 * time.Second):
				c.t.Error("a bystander's message did not arrive")
				return
			}
			took = append(took, time.Since(begin))
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	c.t.Cleanup(func() {
		close(stop)
		<-ended
		if len(took) == 0 {
			c.t.Error("a bystander sent nothing")
			return
		}
		slices.Sort(took)
		c.t.Logf("a bystander's %d messages took %s in the middle, %s at 99 %%, %s at most", len(took),
			took[len(took)/2].Round(10*time.Microsecond), took[len(took)*99/100].Round(10*time.Microsecond), took[len(took)-1].Round(10*time.Microsecond))
	})
}

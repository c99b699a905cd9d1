package sim

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
)

// Times of a device's connection.
const (
	connectTimeout = 20 * time.Second
	publishTimeout = 20 * time.Second
	keepAlive      = 60 // seconds
)

// inboxSize bounds messages that a device has not looked at. A device reports
// all of its state, so a message lost to a full inbox is made up for by the
// delta that follows the next report.
const inboxSize = 8

// message is a shadow message that concerns the device.
type message struct {
	get     bool
	payload []byte
}

// device is one simulated device; its goroutine owns the model.
type device struct {
	fleet *Fleet
	name  string
	model *model
	cert  tls.Certificate
	inbox chan message
	// resumed is set when the state of an earlier run was taken over.
	resumed bool
	// last is when the model was last stepped.
	last time.Time
}

// device makes the i-th device.
func (f *Fleet) device(i int) *device {
	o := &f.options
	return &device{
		fleet: f, name: deviceName(o.Prefix, i), model: newModel(o.Seed, i, o.Interval),
		cert: f.certs[i], inbox: make(chan message, inboxSize), last: time.Now(),
	}
}

// topic is one of the device's shadow topics.
func (d *device) topic(suffix string) string { return "$aws/things/" + d.name + "/shadow/" + suffix }

// live connects again and again until ctx ends.
func (d *device) live(ctx context.Context) {
	attempt := 0
	for first := true; ctx.Err() == nil; first = false {
		c, err := d.connect(ctx)
		if err == nil {
			d.fleet.stats.online.Add(1) // before anybody is told that all have tried
		}
		if first {
			d.fleet.tried()
		}
		var pause time.Duration
		if err != nil {
			d.fleet.failed(ctx, d.name, "connect", err)
			pause = d.model.backoff(attempt)
			attempt++
		} else {
			attempt = 0
			pause = d.session(ctx, c)
		}
		if !wait(ctx, pause) {
			return
		}
	}
}

// wait pauses and reports whether ctx is still on.
func wait(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// connect opens a session and subscribes to the shadow.
func (d *device) connect(ctx context.Context) (*client.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	c, err := d.fleet.door.connect(ctx, d.cert, client.Options{ClientID: d.name, KeepAlive: keepAlive, OnMessage: d.receive})
	if err != nil {
		return nil, err
	}
	codes, err := c.Subscribe(ctx, mqtt.Subscription{Filter: d.topic("update/delta"), QoS: 1}, mqtt.Subscription{Filter: d.topic("get/accepted"), QoS: 1})
	if err == nil {
		for _, code := range codes {
			if code >= 0x80 {
				err = fmt.Errorf("subscription refused with 0x%02X", byte(code))
			}
		}
	}
	if err == nil {
		err = c.Publish(ctx, d.topic("get"), 1, nil)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	d.fleet.stats.connects.Add(1)
	return c, nil
}

// receive runs in the client's reader: it copies and never waits.
func (d *device) receive(p *mqtt.Publish) {
	m := message{get: strings.HasSuffix(string(p.Topic), "/get/accepted"), payload: append([]byte(nil), p.Payload...)}
	select {
	case d.inbox <- m:
	default:
	}
}

// session reports and obeys until the device drops off, the connection ends
// or ctx does. It returns how long to stay away.
func (d *device) session(ctx context.Context, c *client.Client) time.Duration {
	defer d.fleet.stats.online.Add(-1)
	end := time.NewTimer(d.model.sessionLength(d.fleet.options.Session))
	defer end.Stop()
	next := time.NewTimer(time.Duration(d.model.random.Float64() * float64(time.Second)))
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			d.leave(ctx, c, true)
			return 0
		case <-c.Done():
			d.fleet.failed(ctx, d.name, "session", c.Err())
			return d.model.backoff(0)
		case <-end.C:
			pause, clean := d.model.away()
			d.leave(ctx, c, clean)
			return pause
		case m := <-d.inbox:
			if d.handle(m) {
				next.Reset(0)
			}
		case <-next.C:
			d.report(ctx, c)
			next.Reset(d.model.wait())
		}
	}
}

// leave ends the connection of the device's own will, with or without a word.
func (d *device) leave(ctx context.Context, c *client.Client, clean bool) {
	leave, count := c.Close, &d.fleet.stats.dirty
	if clean {
		leave, count = c.Disconnect, &d.fleet.stats.clean
	}
	count.Add(1)
	if err := leave(); err != nil {
		d.fleet.failed(ctx, d.name, "disconnect", err)
	}
}

// handle looks at a shadow message and reports whether the device has news.
func (d *device) handle(m message) bool {
	var body struct {
		State json.RawMessage `json:"state"`
	}
	if json.Unmarshal(m.payload, &body) != nil || body.State == nil {
		return false
	}
	wanted := body.State
	if m.get {
		var document struct {
			Reported json.RawMessage `json:"reported"`
			Delta    json.RawMessage `json:"delta"`
		}
		if json.Unmarshal(body.State, &document) != nil {
			return false
		}
		if !d.resumed && document.Reported != nil {
			d.model.resume(document.Reported)
		}
		d.resumed = true
		wanted = document.Delta
	}
	if len(wanted) == 0 || !d.model.obey(wanted) {
		return false
	}
	d.fleet.stats.desired.Add(1)
	return true
}

// report steps the model and publishes the reported state.
func (d *device) report(ctx context.Context, c *client.Client) {
	now := time.Now()
	d.model.step(now.Sub(d.last))
	d.last = now
	payload, err := json.Marshal(map[string]any{"state": map[string]any{"reported": d.model.report()}})
	if err != nil {
		d.fleet.failed(ctx, d.name, "report", err)
		return
	}
	publish, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if err := c.Publish(publish, d.topic("update"), 1, payload); err != nil {
		d.fleet.failed(ctx, d.name, "report", err)
		return
	}
	d.fleet.stats.publishes.Add(1)
}

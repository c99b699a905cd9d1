package ledger

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
)

// model is the lives of devices as plain lists. Things that claims bring in follow a
// plan that calls them SN-<n>; those that operators make are called as they are.
type model struct {
	r   *rig
	rnd *rand.Rand
	// deferred puts events into the log without entering them.
	deferred bool
	devices  map[string]*modelDevice
	next     int
	raised   []string
}

// modelDevice is one.
type modelDevice struct {
	key, thing, cert string
	lives            int
	expected, live   bool
	registered       bool
	active, off      bool
	seen, rogue      bool
	list             []What
	ofLife           []int
}

func (d *modelDevice) add(what ...What) {
	for _, w := range what {
		d.list, d.ofLife = append(d.list, w), append(d.ofLife, d.lives)
	}
}

func newModel(r *rig, rnd *rand.Rand) *model {
	m := &model{r: r, rnd: rnd, devices: map[string]*modelDevice{}}
	m.tell(ada, certificate("claim", "ACTIVE"))
	return m
}

func (m *model) tell(by fleet.Actor, events ...event.Event) {
	if m.deferred {
		m.r.tell(by, events...)
		return
	}
	m.r.happens(by, events...)
}

func (m *model) run(steps int) {
	for range steps {
		m.step()
	}
}

// device is a random one that fits, nil for none.
func (m *model) device(fits func(*modelDevice) bool) *modelDevice {
	var all []*modelDevice
	for _, key := range slices.Sorted(maps.Keys(m.devices)) {
		if d := m.devices[key]; fits(d) {
			all = append(all, d)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[m.rnd.IntN(len(all))]
}

// cert is a new certificate's name.
func (m *model) cert() string {
	m.next++
	return fmt.Sprintf("c%04d", m.next)
}

// begin is a new life.
func (d *modelDevice) begin(thing, cert string) {
	d.lives++
	d.thing, d.cert, d.live, d.registered, d.active, d.off, d.seen, d.rogue = thing, cert, true, true, false, false, false, false
}

func (m *model) step() {
	live := func(d *modelDevice) bool { return d.live }
	switch m.rnd.IntN(10) {
	case 0, 1: // an operator makes a thing, perhaps one of a name that was
		d := m.device(func(d *modelDevice) bool { return !d.live && d.lives > 0 && d.key == d.thing })
		if d == nil || m.rnd.IntN(2) == 0 {
			m.next++
			name := fmt.Sprintf("t%04d", m.next)
			d = &modelDevice{key: name, thing: name}
			m.devices[name] = d
		}
		cert := m.cert()
		d.begin(d.thing, cert)
		d.add(Registered, CertificateIssued)
		m.tell(ada, certificate(cert, "ACTIVE"))
		m.tell(ada, thing(d.thing))
		m.tell(ada, attach(d.thing, cert))
	case 2: // somebody announces a device
		m.next++
		d := &modelDevice{key: fmt.Sprintf("SN-%04d", m.next), expected: true}
		d.thing, d.lives = "by-"+d.key, 1
		m.devices[d.key] = d
		m.r.keys[d.thing] = d.key
		d.add(Expected)
		m.tell(kim, event.OnboardingChanged{Device: d.key, Plan: "line", PlanVersion: 1, State: "EXPECTED", Stage: "make"})
	case 3: // it arrives
		if d := m.device(func(d *modelDevice) bool { return d.expected && !d.registered && d.lives == 1 }); d != nil {
			if !d.seen {
				d.seen = true
				d.add(Seen)
			}
			m.tell(holder("claim"), connect("claim", d.key))
		}
	case 4: // it joins; so does one that nobody announced, and one that a device brings
		asks := "claim"
		d := m.device(func(d *modelDevice) bool { return d.expected && !d.registered && d.lives == 1 })
		if d == nil || m.rnd.IntN(3) == 0 {
			m.next++
			d = &modelDevice{key: fmt.Sprintf("SN-%04d", m.next)}
			d.thing = "by-" + d.key
			m.devices[d.key] = d
			m.r.keys[d.thing] = d.key
			if other := m.device(func(d *modelDevice) bool { return d.live && d.active && !d.off && d.key != d.thing }); other != nil && m.rnd.IntN(2) == 0 {
				asks = other.cert
			}
		}
		cert := m.cert()
		expected := d.lives == 1
		if expected {
			d.lives-- // its life goes on
		}
		d.begin(d.thing, cert)
		d.add(CertificateIssued, CertificateActivated, Registered)
		if asks != "claim" {
			d.rogue = true
			d.add(Raised)
			m.raised = append(m.raised, d.key)
		}
		m.tell(holder(asks), certificate(cert, "PENDING_ACTIVATION"))
		m.tell(holder(asks), joins(event.DeviceProvisioned{
			Method: event.ProvisioningClaim, Template: "P", Thing: d.thing, ThingCreated: true, CertificateID: cert, ClaimID: asks, ClientID: d.key,
		}, true)...)
	case 5, 6: // it connects
		if d := m.device(func(d *modelDevice) bool { return d.live && !d.off }); d != nil {
			if !d.active {
				d.active = true
				d.add(Activated)
			}
			m.tell(holder(d.cert), connect(d.cert, d.key))
		}
	case 7: // its certificate is taken out of use, or back into it
		if d := m.device(live); d != nil {
			was, is, what, then := "ACTIVE", "INACTIVE", CertificateDeactivated, Suspended
			if d.off {
				was, is, what, then = is, was, CertificateActivated, Resumed
			}
			suspended := d.active
			d.off = !d.off
			d.add(what)
			if suspended {
				d.add(then)
			}
			m.tell(ada, status(d.cert, was, is))
		}
	case 8: // it is decommissioned, or deleted piece by piece
		d := m.device(live)
		if d == nil {
			return
		}
		d.live = false
		if m.rnd.IntN(2) == 0 {
			d.add(CertificateRevoked, Decommissioned)
			m.tell(ada, status(d.cert, "ACTIVE", "REVOKED"), event.PrincipalDetached{Thing: d.thing, Principal: certARN(d.cert)},
				event.ThingDeleted{Thing: d.thing}, event.ThingDecommissioned{Thing: d.thing, Certificates: []string{d.cert}})
			return
		}
		d.add(CertificateDetached, Decommissioned)
		m.tell(ada, event.PrincipalDetached{Thing: d.thing, Principal: certARN(d.cert)})
		m.tell(ada, event.ThingDeleted{Thing: d.thing})
	case 9: // noise
		m.tell(system, event.ShadowDeleted{Thing: "x"}, event.DeviceDisconnected{Session: event.Session{ClientID: "x"}})
		m.tell(holder("claim"), event.ProvisioningRefused{Method: event.ProvisioningClaim, ClientID: "stranger", ClaimID: "claim", Code: "Forbidden"})
	}
}

// compare demands that the ledger is what the model says.
func (m *model) compare() {
	t := m.r.tb
	t.Helper()
	for _, key := range slices.Sorted(maps.Keys(m.devices)) {
		d := m.devices[key]
		var whats []What
		var lives []int
		for _, e := range m.r.entries(key) {
			whats, lives = append(whats, e.What), append(lives, e.Life)
		}
		wantEqual(t, whats, d.list)
		wantEqual(t, lives, d.ofLife)
		got, err := m.r.Device(t.Context(), acct, key)
		m.r.need(err)
		if got.Rogue != d.rogue || got.Ended.IsZero() != (d.live || !d.registered) || !got.Activated.IsZero() != d.active {
			t.Errorf("device %s is %+v, the model says %+v", key, got, d)
		}
	}
	var raised []string
	for _, one := range m.r.raised() {
		if !one.Attempt {
			raised = append(raised, one.Device)
		}
	}
	wantEqual(t, raised, m.raised)
	m.r.sound()
	if v, _ := m.r.verify(); v.Devices != len(m.devices) {
		t.Errorf("verified %d devices, there are %d", v.Devices, len(m.devices))
	}
}

func TestRandomLives(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40 / slowdown) {
		r := newRig(t)
		m := newModel(r, rand.New(rand.NewPCG(seed, 1)))
		m.run(120)
		m.compare()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// The same history, entered in batches of any size by processes that die at any
// commit, is the same ledger.
func TestKilledAtEveryCommit(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20 / slowdown) {
		r := newRig(t)
		rnd := rand.New(rand.NewPCG(seed, 2))
		r.size = 1 + rnd.IntN(40)
		m := newModel(r, rnd)
		m.deferred = true
		m.run(80)
		for {
			r.store.left = rnd.IntN(3)
			err := r.follow()
			r.store.left = -1
			if err == nil {
				break
			}
			if !errors.Is(err, errDied) {
				t.Fatal(err)
			}
			r.boot()
		}
		m.compare()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

package sim

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/muster-iot/muster/internal/mqtt/client"
)

// kindOfRogue is how a rogue tries to join.
type kindOfRogue string

const (
	// unknown has a serial number of its own invention.
	unknown kindOfRogue = "unknown"
	// copied has the serial number of a device whose key the list knows.
	copied kindOfRogue = "copied"
	// stolen is a real device that was taken on its way; its entry is blocked.
	stolen kindOfRogue = "stolen"
	// doubled has the serial number of a device that has joined, and whose key the list
	// does not know.
	doubled kindOfRogue = "doubled"
)

// rogue is a device that must not join; the claim is known to everybody.
type rogue struct {
	kind   kindOfRogue
	serial string
	of     *made
}

// plot makes the rogues, a quarter of each kind.
func (f *Factory) plot() {
	kinds := []kindOfRogue{unknown, copied, stolen, doubled}
	listed, bare := []*made{}, []*made{}
	for _, d := range f.devices {
		switch {
		case d.listed:
			listed = append(listed, d)
		case !d.inspect:
			bare = append(bare, d)
		}
	}
	for i := range f.o.Rogues {
		r := &rogue{kind: kinds[i%len(kinds)], serial: f.o.Run + "-R" + fmt.Sprintf("%04d", i+1)}
		switch r.kind {
		case copied:
			r.of = listed[i*len(listed)/f.o.Rogues]
		case doubled:
			r.of = bare[i*len(bare)/f.o.Rogues]
			r.of.doubled = true
		case unknown, stolen:
		}
		if r.of != nil {
			r.serial = r.of.serial
		}
		f.rogues = append(f.rogues, r)
	}
}

// errRefused is a device that was not let in.
var errRefused = errors.New("refused")

// exchange is what a device does with the claim: it asks for a certificate of its key
// and to be provisioned, and waits for people if it must.
func (f *Factory) exchange(ctx context.Context, clientID, serial, model, inspect string, key, csr []byte) (id identity, thing string, waited bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, factoryPatience, errors.New("not provisioned in time"))
	defer cancel()
	j, err := f.door.asClaim(ctx, f.claim, clientID, f.name("pumps"))
	if err != nil {
		return identity{}, "", false, err
	}
	defer j.Disconnect() //nolint:errcheck // it has what it came for
	issued, err := j.request(ctx, csr)
	if err != nil {
		return identity{}, "", false, fmt.Errorf("ask for a certificate: %w", err)
	}
	parameters := map[string]string{"SerialNumber": serial, "Model": model, "Made": shiftDay(), "Inspect": inspect}
	for {
		made, err := j.provision(ctx, issued.Token, parameters)
		switch {
		case err == nil:
			id, err = assemble([]byte(issued.Certificate), key, "")
			return id, made.Thing, waited, err
		case made.Code == "AccessDenied":
			return identity{}, "", waited, fmt.Errorf("%w: %s", errRefused, made.Message)
		case made.Code != "ApprovalPending":
			return identity{}, "", waited, fmt.Errorf("provision: %w", err)
		}
		waited = true
		select {
		case <-ctx.Done():
			return identity{}, "", waited, context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
}

// comer is who tries to join: a device or a rogue.
type comer struct {
	*made
	*rogue
}

// join lets all come, rogues among devices, while a person decides about those that the
// binding does not let in by itself.
func (f *Factory) join(ctx context.Context) error {
	var all []comer
	early := []*rogue{}
	for _, r := range f.rogues {
		if r.kind != doubled {
			early = append(early, r)
		}
	}
	for i, d := range f.devices {
		all = append(all, comer{made: d})
		if next := len(all) - i - 1; next < len(early) && (i+1)*len(early) >= (next+1)*len(f.devices) {
			all = append(all, comer{rogue: early[next]})
		}
	}
	decided, stop := context.WithCancel(ctx)
	var person sync.WaitGroup
	person.Go(func() { f.decide(decided) })
	err := each(ctx, f, "join", all, func(ctx context.Context, c comer) error {
		if c.rogue != nil {
			return f.tryRogue(ctx, c.rogue)
		}
		return f.joinDevice(ctx, c.made)
	})
	stop()
	person.Wait()
	return err
}

func (f *Factory) joinDevice(ctx context.Context, d *made) error {
	inspect := "no"
	if d.inspect {
		inspect = "yes"
	}
	id, thing, waited, err := f.exchange(ctx, d.serial, d.serial, d.model, inspect, d.key, d.csr)
	if err != nil {
		return fmt.Errorf("%s: %w", d.serial, err)
	}
	if thing != d.serial || waited != d.inspect {
		return fmt.Errorf("%s: provisioned as %q, waited %v", d.serial, thing, waited)
	}
	d.certificate, d.thing = id.certificate, thing
	f.count(&f.report.Joined)
	if waited {
		f.count(&f.report.Approved)
	}
	return nil
}

// tryRogue lets a rogue try. That it is let in is a problem.
func (f *Factory) tryRogue(ctx context.Context, r *rogue) error {
	key, csr, err := newRequest(r.serial)
	if err != nil {
		return err
	}
	_, thing, _, err := f.exchange(ctx, "rogue-"+string(r.kind)+"-"+r.serial, r.serial, "P-100", "no", key, csr)
	switch {
	case err == nil:
		return fmt.Errorf("%s rogue %s was let in as %s", r.kind, r.serial, thing)
	case !errors.Is(err, errRefused):
		return fmt.Errorf("%s rogue %s: %w", r.kind, r.serial, err)
	}
	f.count(&f.report.Refused)
	return nil
}

// decide is the person who looks at what waits and lets it in.
func (f *Factory) decide(ctx context.Context) {
	for {
		waiting, err := f.people.approver.Approvals(ctx, "PENDING", f.name("pumps"), 0)
		for _, a := range waiting {
			if err == nil {
				_, err = f.people.approver.Vote(ctx, a.ID, "approve", "", "looked at on delivery")
			}
		}
		if err != nil && ctx.Err() == nil {
			f.problem("approve: %v", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(500 * time.Millisecond): //nolint:mnd // a quick person
		}
	}
}

// activate connects each device with its own certificate and lets it report once.
func (f *Factory) activate(ctx context.Context) error {
	return each(ctx, f, "activate", f.devices, func(ctx context.Context, d *made) error {
		if d.thing == "" {
			return nil // it has not joined, which was said
		}
		ctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		c, err := f.door.connect(ctx, d.certificate, client.Options{ClientID: d.thing, KeepAlive: keepAlive})
		if err != nil {
			return fmt.Errorf("%s: %w", d.serial, err)
		}
		defer c.Disconnect() //nolint:errcheck // it has said what it had to say
		if err := c.Publish(ctx, "$aws/things/"+d.thing+"/shadow/update", 1, []byte(`{"state":{"reported":{"battery":100,"firmware":"1.0.0"}}}`)); err != nil {
			return fmt.Errorf("%s: publish: %w", d.serial, err)
		}
		f.count(&f.report.Active)
		return nil
	})
}

// intrude lets those rogues try whose serial number has been used.
func (f *Factory) intrude(ctx context.Context) error {
	var late []*rogue
	for _, r := range f.rogues {
		if r.kind == doubled {
			late = append(late, r)
		}
	}
	return each(ctx, f, "rogues", late, f.tryRogue)
}

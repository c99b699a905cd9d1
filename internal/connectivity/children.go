package connectivity

import (
	"context"
	"errors"
	"fmt"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// speakFor takes in what a gateway declares about a thing behind it. Policy has
// let it publish for that name; here it is asked whether the thing lets itself
// be spoken for: it must exist, have no certificate of its own, and no operator
// may have said that another gateway speaks for it.
func (s *Service) speakFor(ctx context.Context, b *batch, d *Declaration, in *input) error {
	k := thingKey{d.Account, d.Thing}
	one, err := b.at(ctx, k)
	if err != nil {
		return err
	}
	if refused, err := s.mayNotSpeakFor(ctx, d, one.record); err != nil || refused != nil {
		if refused != nil {
			b.answer(d, Declared{}, refused)
		}
		return err
	}
	in.virtual = true
	if d.Operation == Goodbye {
		if one.record == nil || one.record.Gateway != d.ClientID {
			b.answer(d, Declared{}, fault.New(fault.Conflict, "%s does not speak for %s", d.ClientID, d.Thing))
			return nil
		}
		in.kind, in.plan = inDisconnect, d.contact(in.at)
		in.session = one.record.Session
		in.session.Reason = ReasonGatewayGoodbye
		if d.Lost {
			in.session.Reason = ReasonGatewayLost
		}
		return b.declared(ctx, d, in)
	}
	if one.record == nil || one.record.Gateway != d.ClientID {
		if err := s.assign(ctx, b, k, d.ClientID, false, in.at); err != nil {
			return err
		}
	}
	if known := &b.slots[k].record.Session; !known.Live {
		begin := *in
		begin.kind, begin.session = inConnect, session{ConnectionID: d.ConnectionID, Process: s.clock.process}
		if _, err := b.decide(ctx, k, &begin); err != nil {
			return err
		}
	} else if known.ConnectionID != d.ConnectionID {
		// The same gateway by a new connection, or another gateway: no
		// interruption of the thing.
		b.slots[k].record = b.slots[k].record.clone()
		b.slots[k].record.Session.ConnectionID = d.ConnectionID
	}
	in.kind = inHeard
	b.done = append(b.done, func() {
		if s.heard[k] < in.at {
			s.heard[k] = in.at
		}
	})
	return b.declared(ctx, d, in)
}

// mayNotSpeakFor returns why a gateway may not speak for a thing.
func (s *Service) mayNotSpeakFor(ctx context.Context, d *Declaration, r *record) (refused, err error) {
	if r != nil && r.Gateway == d.ClientID {
		if r.Session.Live && r.Session.ClientID != "" {
			return fault.New(fault.Conflict, "%s is connected itself", d.Thing), nil
		}
		return nil, nil
	}
	if r != nil && r.Assigned {
		return fault.New(fault.Forbidden, "%s lies behind another gateway", d.Thing), nil
	}
	exists, attached, err := s.o.Registry.ThingExists(ctx, d.Account, d.Thing)
	switch {
	case err != nil:
		return nil, fmt.Errorf("look at thing %q: %w", d.Thing, err)
	case !exists:
		return fault.New(fault.ResourceNotFound, "there is no thing %s", d.Thing), nil
	case attached:
		return fault.New(fault.Forbidden, "%s has a certificate and speaks for itself", d.Thing), nil
	case s.gateways[thingKey{d.Account, d.ClientID}] >= maxChildren:
		return fault.New(fault.LimitExceeded, "%d things lie behind %s, no more can", maxChildren, d.ClientID), nil
	}
	return nil, nil
}

// speaksForItself ends the word of a gateway for a thing that has got a
// certificate, unless an operator said who speaks for it.
func (s *Service) speaksForItself(ctx context.Context, b *batch, k thingKey, at int64) error {
	one, err := b.at(ctx, k)
	if err != nil || one.record == nil || one.record.Gateway == "" || one.record.Assigned {
		return err
	}
	if err := s.childGone(ctx, b, k, ReasonGatewayLeft, planned{}, at); err != nil {
		return err
	}
	return s.assign(ctx, b, k, "", false, at)
}

// assign changes who speaks for a thing.
func (s *Service) assign(ctx context.Context, b *batch, k thingKey, gateway string, byOperator bool, at int64) error {
	one, err := b.at(ctx, k)
	if err != nil {
		return err
	}
	b.bind(one, gateway)
	_, err = b.decide(ctx, k, &input{kind: inGateway, at: at, gateway: gateway, assigned: byOperator && gateway != ""})
	return err
}

// AssignGateway says that a gateway speaks for a thing and no other does; an
// empty gateway says that none does.
func (s *Service) AssignGateway(ctx context.Context, account fleet.Account, thing, gateway string) error {
	for _, name := range []string{thing, gateway} {
		if name == "" && name == gateway {
			continue
		}
		if !fleet.ValidName(name) {
			return fault.New(fault.InvalidRequest, "%q is no name of a thing", name)
		}
		exists, _, err := s.o.Registry.ThingExists(ctx, account, name)
		if err != nil {
			return fmt.Errorf("look at thing %q: %w", name, err)
		}
		if !exists {
			return fault.New(fault.ResourceNotFound, "there is no thing %s", name)
		}
	}
	if thing == gateway {
		return fault.New(fault.InvalidRequest, "gateway: a thing does not lie behind itself")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return err
	}
	if gateway != "" && s.gateways[thingKey{account, gateway}] >= maxChildren {
		return fault.New(fault.LimitExceeded, "%d things lie behind %s, no more can", maxChildren, gateway)
	}
	b := s.newBatch()
	k := thingKey{account, thing}
	if err := s.assign(ctx, b, k, gateway, true, b.now); err != nil {
		return err
	}
	if one := b.slots[k]; one.record != nil && one.record.Session.Live && one.record.Session.ClientID == "" {
		// What the gateway before said holds no more.
		if err := s.childGone(ctx, b, k, ReasonGatewayLost, planned{}, b.now); err != nil {
			return err
		}
	}
	return s.commit(ctx, b)
}

// usable refuses calls before the records are up to date.
func (s *Service) usable(ctx context.Context) error {
	if !s.ready {
		return fault.Wrap(fault.Unavailable, errNotReady, "connectivity is not loaded yet, try again")
	}
	return s.refresh(ctx)
}

// eachChild calls fn for each thing behind a gateway.
func (s *Service) eachChild(ctx context.Context, gateway thingKey, fn func(child thingKey) error) error {
	var children []thingKey
	err := s.store.Scan(ctx, store.Under(kindChild, string(gateway.account), gateway.thing), func(row store.Record) error {
		children = append(children, thingKey{gateway.account, row.Key.Last()})
		return nil
	})
	if err != nil {
		return fmt.Errorf("read what lies behind %q: %w", gateway.thing, err)
	}
	for _, child := range children {
		err = errors.Join(err, fn(child))
		if err != nil {
			return err
		}
	}
	return nil
}

// planned is the end of a gateway's sleep.
type planned struct {
	until    int64
	floating bool
}

// childGone ends what a gateway said of a thing. One that is not connected is
// left alone.
func (s *Service) childGone(ctx context.Context, b *batch, child thingKey, reason string, planned planned, at int64) error {
	one, err := b.at(ctx, child)
	if err != nil || one.record == nil || !one.record.Session.Live || one.record.Session.ClientID != "" {
		return err
	}
	in := &input{kind: inDisconnect, virtual: true, at: at, base: s.clock.base(at, b.now), plan: planned.until, floating: planned.floating, session: one.record.Session}
	in.session.Reason = reason
	_, err = b.decide(ctx, child, in)
	return err
}

// gatewayChanged carries a gateway's settled change to what lies behind it: its
// blips do not reach them, its outage is theirs, with a reason that says so, and
// those that went for that reason alone come back with it.
func (s *Service) gatewayChanged(ctx context.Context, b *batch, gateway thingKey, to State, at int64) error {
	var each func(child thingKey) error
	switch to {
	case OfflineDirty, OfflineOverdue, Blocked:
		each = func(child thingKey) error { return s.childGone(ctx, b, child, ReasonGatewayOffline, planned{}, at) }
	case OfflineClean, Sleeping:
		var plan planned
		if to == Sleeping {
			one, err := b.at(ctx, gateway)
			if err != nil {
				return err
			}
			if one.record != nil && one.record.State == Sleeping {
				plan = planned{one.record.Due, one.record.Floating}
			}
		}
		each = func(child thingKey) error { return s.childGone(ctx, b, child, ReasonGatewayLeft, plan, at) }
	case FirstConnected, Online, Recovered:
		each = func(child thingKey) error { return s.childBack(ctx, b, gateway, child, at) }
	case NeverSeen, Provisioning, Stale, Suspect:
		return nil
	}
	return s.eachChild(ctx, gateway, each)
}

// childBack begins a session of a thing that was away for its gateway only.
func (s *Service) childBack(ctx context.Context, b *batch, gateway, child thingKey, at int64) error {
	one, err := b.at(ctx, child)
	if err != nil || one.record == nil || one.record.Session.Live || !byGateway(one.record.Session.Reason) {
		return err
	}
	by, err := b.at(ctx, gateway)
	if err != nil || by.record == nil || !by.record.Session.Live {
		return err
	}
	in := &input{kind: inConnect, virtual: true, at: at, base: s.clock.base(at, b.now), session: session{ConnectionID: by.record.Session.ConnectionID, Process: s.clock.process}}
	_, err = b.decide(ctx, child, in)
	return err
}

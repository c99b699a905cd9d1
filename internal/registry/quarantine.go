package registry

import (
	"context"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// QuarantineGroup is the static group of things in quarantine. It is created when
// the first one comes.
const QuarantineGroup = "quarantine"

// quarantineRecord is why a thing can be provisioned and do nothing else.
type quarantineRecord struct {
	Reason string `json:"reason"`
	// By is the ARN of who, or the name of what, has put it there.
	By    string `json:"by"`
	Since int64  `json:"since"`
	// Joined says that the thing was not in the group before.
	Joined bool `json:"joined,omitempty"`
}

// Quarantined is a thing in quarantine.
type Quarantined struct {
	Thing, Reason, By string
	Since             time.Time
}

// quarantined is the public form.
func quarantined(thing string, r *quarantineRecord) Quarantined {
	return Quarantined{Thing: thing, Reason: r.Reason, By: r.By, Since: moment(r.Since)}
}

// checkQuarantineReason refuses what tells nobody why.
func checkQuarantineReason(reason string) error {
	if n := utf8.RuneCountInString(reason); strings.TrimSpace(reason) == "" || n > maxReason || !utf8.ValidString(reason) {
		return fault.New(fault.InvalidRequest, "reason must have 1 to %d characters", maxReason)
	}
	return nil
}

// Quarantine holds the certificates of a thing, those that it has and those that it
// gets, to provisioning until it is released, and puts it in the group of that
// name: all in one commit. A thing that is there already stays there for its first
// reason. by names the part of this server that has found the reason; empty for
// whoever calls.
func (s *Service) Quarantine(ctx context.Context, account fleet.Account, thing, reason, by string) (Quarantined, error) {
	if err := checkName("thingName", thing); err != nil {
		return Quarantined{}, err
	}
	if err := checkQuarantineReason(reason); err != nil {
		return Quarantined{}, err
	}
	var made Quarantined
	err := s.change(ctx, account, s.quarantining(thing, reason, by, &made))
	return made, err
}

// quarantining is the command that puts a thing into quarantine.
func (s *Service) quarantining(thing, reason, by string, made *Quarantined) func(context.Context, *attempt) error {
	return func(ctx context.Context, a *attempt) error {
		record, err := loadThing(ctx, a, thing)
		if err != nil {
			return err
		}
		if record.Quarantine != nil {
			*made = quarantined(thing, record.Quarantine)
			return nil
		}
		who := by
		if who == "" {
			who = a.actor.Principal.ARN
		}
		record.Quarantine = &quarantineRecord{Reason: reason, By: who, Since: millis(a.now)}
		certificates, err := countQuarantine(ctx, a, thing, +1)
		if err != nil {
			return err
		}
		if err := s.enterQuarantineGroup(ctx, a, thing, record); err != nil {
			return err
		}
		*made = quarantined(thing, record.Quarantine)
		a.devices = true
		a.row(key(kindQuarantined, a.account, thing))
		a.emit(event.ThingQuarantined{Thing: thing, Reason: reason, By: who, Certificates: certificates})
		return save(a, key(kindThing, a.account, thing), record)
	}
}

// QuarantineOrder asks to put one thing into quarantine.
type QuarantineOrder struct {
	Account    fleet.Account
	Thing      string
	Reason, By string
}

// QuarantineBatch returns what has to be committed for several orders, so that
// whoever follows events can commit it with its cursor. Things that do not exist,
// or are there already, need nothing; so may the batch.
func (s *Service) QuarantineBatch(ctx context.Context, orders []QuarantineOrder) (store.Batch, error) {
	var all store.Batch
	// Of several accounts, each has an attempt of its own.
	attempts := map[fleet.Account]*attempt{}
	for _, o := range orders {
		a := attempts[o.Account]
		if a == nil {
			a = s.attempt(ctx, o.Account)
			attempts[o.Account] = a
		}
		err := s.quarantining(o.Thing, brief(o.Reason), o.By, &Quarantined{})(ctx, a)
		switch fault.CodeOf(err) { //nolint:exhaustive // the others are about the store
		case "", fault.ResourceNotFound:
		case fault.InvalidRequest:
			// Whoever follows events must get past it.
			s.log.ErrorContext(ctx, "thing is not put into quarantine", slog.String("thing", o.Thing), slog.String("reason", o.Reason), slog.Any("err", err))
		default:
			return store.Batch{}, store.Fault(err)
		}
	}
	for _, a := range attempts {
		all.Expect = append(all.Expect, a.batch.Expect...)
		all.Writes = append(all.Writes, a.batch.Writes...)
		all.Events = append(all.Events, a.batch.Events...)
	}
	if len(all.Writes) == 0 {
		return store.Batch{}, nil
	}
	return all, nil
}

// brief cuts a reason to what is kept of one.
func brief(reason string) string {
	if runes := []rune(reason); len(runes) > maxReason {
		return string(runes[:maxReason])
	}
	return reason
}

// enterQuarantineGroup lets a thing, whose record is saved afterwards, join the
// group. The limit of a thing's groups is no reason to leave it out.
func (s *Service) enterQuarantineGroup(ctx context.Context, a *attempt, name string, thing *thingRecord) error {
	group, err := load[groupRecord](ctx, a, key(kindGroup, a.account, QuarantineGroup))
	if err != nil {
		return err
	}
	switch {
	case group == nil:
		if _, err := s.addGroup(ctx, a, QuarantineGroup, groupRecord{Description: "Things that can be provisioned and do nothing else"}, nil); err != nil {
			return err
		}
		if group, err = loadGroup(ctx, a, QuarantineGroup); err != nil {
			return err
		}
	case group.Query != "" || group.Deleting || len(group.Ancestors) > 0:
		// Somebody has taken the name for something else, which must not keep the
		// device out of quarantine.
		return nil
	}
	link, err := decideJoin(thing, QuarantineGroup, group)
	if err != nil || !join(thing, link) {
		return nil //nolint:nilerr // it is in a group below this one already
	}
	thing.Quarantine.Joined = true
	writeLinks(a, name, thing, []changedLink{{link, group.ID, nil}}, true)
	return nil
}

// countQuarantine counts a thing that comes or goes in the records of all of its
// certificates, and returns their ids.
func countQuarantine(ctx context.Context, a *attempt, thing string, by int) ([]string, error) {
	rows, more, err := keysOf(ctx, a.reader, under(kindThingPrincipal, a.account, thing), "", maxRetired)
	if err != nil {
		return nil, err
	}
	if more {
		return nil, fault.New(fault.InvalidRequest, "thing %s has more than %d attached principals; detach some first", thing, maxRetired)
	}
	var ids []string
	for _, row := range rows {
		id := parseRef(row.Last()).name
		record, err := load[certificateRecord](ctx, a, key(kindCertificate, a.account, id))
		if err != nil {
			return nil, err
		}
		if record == nil {
			continue
		}
		record.Quarantined = max(0, record.Quarantined+by)
		if err := save(a, key(kindCertificate, a.account, id), record); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// Release ends a quarantine: the certificates can do what their policies say, and
// the thing leaves the group unless it was in it before.
func (s *Service) Release(ctx context.Context, account fleet.Account, thing, reason string) (Quarantined, error) {
	if err := checkName("thingName", thing); err != nil {
		return Quarantined{}, err
	}
	if err := checkQuarantineReason(reason); err != nil {
		return Quarantined{}, err
	}
	var was Quarantined
	err := s.change(ctx, account, func(ctx context.Context, a *attempt) error {
		record, err := loadThing(ctx, a, thing)
		if err != nil {
			return err
		}
		if record.Quarantine == nil {
			return fault.New(fault.ResourceNotFound, "thing %s is not in quarantine", thing)
		}
		was = quarantined(thing, record.Quarantine)
		certificates, err := countQuarantine(ctx, a, thing, -1)
		if err != nil {
			return err
		}
		if record.Quarantine.Joined {
			if link, ok := leave(record, QuarantineGroup); ok {
				group, err := load[groupRecord](ctx, a, key(kindGroup, account, QuarantineGroup))
				if err != nil {
					return err
				}
				left := changedLink{groupLink: link}
				if group != nil {
					left.groupID = group.ID
				}
				writeLinks(a, thing, record, []changedLink{left}, false)
			}
		}
		record.Quarantine = nil
		a.devices = true
		a.remove(key(kindQuarantined, account, thing))
		a.emit(event.ThingReleased{Thing: thing, Reason: reason, Since: was.Since, Certificates: certificates})
		return save(a, key(kindThing, account, thing), record)
	})
	return was, err
}

// ListQuarantined returns one page of the things in quarantine, by name.
func (s *Service) ListQuarantined(ctx context.Context, account fleet.Account, p Page) (Listed[Quarantined], error) {
	owner := func(k store.Key) store.Key { return key(kindThing, account, k.Last()) }
	listed, err := listRecords[thingRecord](ctx, s.store, under(kindQuarantined, account), p, owner,
		func(k store.Key, r *thingRecord) (Quarantined, bool) {
			if r.Quarantine == nil {
				return Quarantined{}, false // released since the row was read
			}
			return quarantined(k.Last(), r.Quarantine), true
		})
	return listed, store.Fault(err)
}

package registry

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// MaxImport is the most things of one import call.
const MaxImport = 1000

// MaxImportGroups is the most groups that a line may name: a thing cannot be in
// as many.
const MaxImportGroups = 100

// importWorkers is how many commits of one call are under way at a time. The
// engine joins them, and those of other calls, into few synced writes.
const importWorkers = 256

// ImportMode says what an import does with things that exist.
type ImportMode int

const (
	// ImportCreate changes none: one that is as the line says is unchanged,
	// another one is an error.
	ImportCreate ImportMode = iota
	// ImportUpsert changes what a line names and leaves the rest.
	ImportUpsert
)

// ThingImport is one line of an import.
type ThingImport struct {
	CreateThingCommand

	// Groups are static groups that the thing is to be in.
	Groups []string
	// Refused is why the line may not be carried out; nil when it may.
	Refused error
}

// ImportCommand asks for many things, each for itself.
type ImportCommand struct {
	Mode ImportMode
	// DryRun decides and commits nothing. Each line is then decided as if it
	// were alone.
	DryRun bool
	Things []ThingImport
}

// ImportResult is what became of a line.
type ImportResult int

const (
	// ImportFailed changed nothing; the error says why.
	ImportFailed ImportResult = iota
	// ImportCreated made the thing, its memberships with it.
	ImportCreated
	// ImportUpdated changed the thing or added memberships.
	ImportUpdated
	// ImportUnchanged found all as the line says.
	ImportUnchanged
)

// ThingImported is the answer to one line.
type ThingImported struct {
	Result ImportResult
	// Err is set for ImportFailed.
	Err error
}

// ImportThings creates or changes many things and answers for each line. What
// a line asks for is one commit by the rules of CreateThing, UpdateThing,
// AddThingToBillingGroup and UpdateThingGroupsForThing: all of the line or nothing of it, whatever happens
// to others. Lines with the same name are carried out in their order, others in
// any. The call fails as a whole only when the number of lines is wrong or its
// context ends; what was committed by then stays.
func (s *Service) ImportThings(ctx context.Context, account fleet.Account, c ImportCommand) ([]ThingImported, error) {
	if len(c.Things) > MaxImport {
		return nil, fault.New(fault.InvalidRequest, "things must have at most %d entries", MaxImport)
	}
	// Before anything is read for it, each line has to be one.
	c.Things = slices.Clone(c.Things)
	for i := range c.Things {
		if c.Things[i].Refused == nil {
			c.Things[i].Refused = checkImport(c.Mode, c.Things[i])
		}
	}
	first, err := s.prefetch(ctx, account, c.Things)
	if err != nil {
		return nil, store.Fault(err)
	}
	answers := make([]ThingImported, len(c.Things))
	chains := sameName(c.Things)
	var next, devices atomic.Int64
	positions := make([]store.Position, len(c.Things))
	var workers sync.WaitGroup
	for range min(importWorkers, len(chains)) {
		workers.Go(func() {
			for n := next.Add(1) - 1; int(n) < len(chains); n = next.Add(1) - 1 {
				for nth, i := range chains[n] {
					// What was read for all lines is from before an earlier line of the
					// same name: a later one that finds nothing to change there would
					// commit nothing, and nobody would notice.
					reader := first
					if nth > 0 && !c.DryRun {
						reader = s.store
					}
					var seen bool
					answers[i], positions[i], seen = s.importThing(ctx, account, reader, c, i)
					if seen {
						devices.Add(1)
					}
				}
			}
		})
	}
	workers.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if devices.Load() > 0 {
		// A position is behind all before it.
		s.awaitDevices(ctx, slices.MaxFunc(positions, func(a, b store.Position) int { return int(a.Seq) - int(b.Seq) }))
	}
	return answers, nil
}

// sameName lists the lines of each name in their order.
func sameName(things []ThingImport) [][]int {
	chains := make([][]int, 0, len(things))
	of := make(map[string]int, len(things))
	for i, t := range things {
		n, ok := of[t.Name]
		if !ok {
			n = len(chains)
			of[t.Name] = n
			chains = append(chains, nil)
		}
		chains[n] = append(chains[n], i)
	}
	return chains
}

// importThing carries out one line.
func (s *Service) importThing(
	ctx context.Context, account fleet.Account, first store.Reader, c ImportCommand, i int,
) (answer ThingImported, position store.Position, devices bool) {
	line := c.Things[i]
	err := line.Refused
	if err == nil {
		command := s.importing(account, c.Mode, line, &answer.Result)
		if c.DryRun {
			err = store.Fault(command(ctx, s.dryAttempt(ctx, account, first)))
		} else {
			position, devices, err = s.commit(ctx, account, first, command)
		}
	}
	if err != nil {
		return ThingImported{Err: err}, store.Position{}, false
	}
	return answer, position, devices
}

// dryAttempt is an attempt that nobody commits.
func (s *Service) dryAttempt(ctx context.Context, account fleet.Account, first store.Reader) *attempt {
	a := s.attempt(ctx, account)
	a.reader = first
	return a
}

// checkImport checks what needs no record. How many attributes a thing may have
// that is to be changed depends on what it has.
func checkImport(mode ImportMode, line ThingImport) error {
	var err error
	if mode == ImportCreate {
		_, err = checkCreateThing(line.CreateThingCommand)
	} else {
		err = checkUpdateThing(line.update())
		if err == nil && line.BillingGroup != "" {
			err = checkName("billingGroupName", line.BillingGroup)
		}
	}
	if err != nil {
		return err
	}
	if len(line.Groups) > MaxImportGroups {
		return fault.New(fault.InvalidRequest, "groups must have at most %d entries", MaxImportGroups)
	}
	for i, group := range line.Groups {
		if err := checkName("groups", group); err != nil {
			return err
		}
		if slices.Contains(line.Groups[:i], group) {
			return fault.New(fault.InvalidRequest, "groups names %s twice", group)
		}
	}
	return nil
}

// importing is the command of one line.
func (s *Service) importing(
	account fleet.Account, mode ImportMode, line ThingImport, result *ImportResult,
) func(context.Context, *attempt) error {
	attributes := applyAttributes(nil, Attributes{Values: line.Attributes})
	var created Thing
	create := s.creation(account, line.CreateThingCommand, attributes, &created)
	regroup := s.regrouping(account, UpdateGroupsCommand{Thing: line.Name, Add: line.Groups})
	return func(ctx context.Context, a *attempt) error {
		present, err := load[thingRecord](ctx, a, key(kindThing, account, line.Name))
		if err != nil {
			return err
		}
		switch {
		case present == nil:
			*result = ImportCreated
			if _, err := checkCreateThing(line.CreateThingCommand); err != nil {
				return err
			}
			err = create(ctx, a)
		case mode == ImportCreate:
			*result = ImportUnchanged
			if err := create(ctx, a); err != nil {
				return err
			}
			return s.sameGroups(account, line, present)
		default:
			*result = ImportUpdated
			err = s.importUpdate(ctx, a, line, present)
		}
		if err != nil {
			return err
		}
		if len(line.Groups) > 0 {
			if err := regroup(ctx, a); err != nil {
				return err
			}
		}
		if a.empty() {
			*result = ImportUnchanged
		}
		return nil
	}
}

// sameGroups refuses a thing that is not in all groups of its line: an import
// that only creates adds no memberships to what others made.
func (s *Service) sameGroups(account fleet.Account, line ThingImport, present *thingRecord) error {
	for _, group := range line.Groups {
		if _, found := slices.BinarySearchFunc(present.Groups, group, byGroup); !found {
			err := fault.New(fault.ResourceAlreadyExists, "thing %s already exists and is not in thing group %s", line.Name, group)
			err.ResourceID, err.ResourceARN = present.ID, s.scope(account).ARN(fleet.ARNThing, line.Name)
			return err
		}
	}
	return nil
}

// update is what a line asks of a thing that exists: what it does not name
// stays, and an empty value removes an attribute.
func (t ThingImport) update() UpdateThingCommand {
	c := UpdateThingCommand{Name: t.Name, TypeName: t.TypeName}
	if len(t.Attributes) > 0 {
		c.Attributes = &Attributes{Values: t.Attributes, Merge: true}
	}
	return c
}

// importUpdate changes type, attributes and billing group where they differ from
// the line.
func (s *Service) importUpdate(ctx context.Context, a *attempt, line ThingImport, present *thingRecord) error {
	c := line.update()
	after, err := decideUpdateThing(present, c)
	if err != nil {
		return err
	}
	if after.TypeName != present.TypeName || !maps.Equal(after.Attributes, present.Attributes) {
		if err := s.updating(c)(ctx, a); err != nil {
			return err
		}
	}
	if line.BillingGroup == "" {
		return nil
	}
	return rebilling(line.Name, line.BillingGroup, true, joinBilling)(ctx, a)
}

// prefetch reads what the lines will read, once for all of them.
func (s *Service) prefetch(ctx context.Context, account fleet.Account, things []ThingImport) (store.Reader, error) {
	wanted := map[store.Key]bool{}
	for _, t := range things {
		if t.Refused != nil {
			continue
		}
		wanted[key(kindThing, account, t.Name)] = true
		if t.TypeName != "" {
			wanted[key(kindThingType, account, t.TypeName)] = true
		}
		if t.BillingGroup != "" {
			wanted[key(kindBillingGroup, account, t.BillingGroup)] = true
		}
		for _, group := range t.Groups {
			wanted[key(kindGroup, account, group)] = true
		}
	}
	keys := slices.Collect(maps.Keys(wanted))
	if len(keys) == 0 {
		return s.store, nil
	}
	records, err := s.store.GetMany(ctx, keys)
	if err != nil {
		return nil, err
	}
	p := &prefetched{Reader: s.store, records: make(map[store.Key]store.Record, len(records))}
	for i, record := range records {
		p.records[keys[i]] = record
	}
	return p, nil
}

// prefetched answers single reads from what was read before.
type prefetched struct {
	store.Reader

	records map[store.Key]store.Record
}

// Get implements store.Reader.
func (p *prefetched) Get(ctx context.Context, k store.Key) (store.Record, error) {
	record, ok := p.records[k]
	switch {
	case !ok:
		return p.Reader.Get(ctx, k) //nolint:wrapcheck // as without the prefetch
	case record.Version == 0:
		return store.Record{}, store.ErrNotFound
	}
	return record, nil
}

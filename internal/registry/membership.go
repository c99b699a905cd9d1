package registry

import (
	"context"
	"slices"
	"strings"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// ThingAndGroup names a thing and a group by name, by ARN or by both.
type ThingAndGroup struct {
	ThingName, ThingARN string
	GroupName, GroupARN string
}

// resolve returns the two names.
func (m ThingAndGroup) resolve(scope fleet.Scope) (thing, group string, err error) {
	thing, err = nameOrARN(scope, fleet.ARNThing, [2]string{"thingName", "thingArn"}, m.ThingName, m.ThingARN)
	if err != nil {
		return "", "", err
	}
	group, err = nameOrARN(scope, fleet.ARNThingGroup, [2]string{"thingGroupName", "thingGroupArn"}, m.GroupName, m.GroupARN)
	return thing, group, err
}

// AddThingToThingGroup puts a thing into a static group. With overrideDynamic
// its youngest dynamic group gives way when it is in too many.
func (s *Service) AddThingToThingGroup(ctx context.Context, account fleet.Account, m ThingAndGroup, overrideDynamic bool) error {
	thing, group, err := m.resolve(s.scope(account))
	if err != nil {
		return err
	}
	return s.updateGroupsForThing(ctx, account, UpdateGroupsCommand{
		Thing: thing, Add: []string{group}, OverrideDynamic: overrideDynamic,
	})
}

// RemoveThingFromThingGroup takes a thing out of a static group; it is no
// error when it was not in it.
func (s *Service) RemoveThingFromThingGroup(ctx context.Context, account fleet.Account, m ThingAndGroup) error {
	thing, group, err := m.resolve(s.scope(account))
	if err != nil {
		return err
	}
	return s.updateGroupsForThing(ctx, account, UpdateGroupsCommand{Thing: thing, Remove: []string{group}})
}

// UpdateGroupsCommand asks for several memberships of one thing to change.
type UpdateGroupsCommand struct {
	Thing  string
	Add    []string
	Remove []string
	// OverrideDynamic lets the thing leave dynamic groups to make room.
	OverrideDynamic bool
}

// maxRegrouped bounds the groups of one change, each of which is compared with
// others and read.
const maxRegrouped = 1000

// UpdateThingGroupsForThing removes and then adds memberships, all or none, so
// that a move inside a hierarchy is one call.
func (s *Service) UpdateThingGroupsForThing(ctx context.Context, account fleet.Account, c UpdateGroupsCommand) error {
	if err := checkRegrouping(c); err != nil {
		return err
	}
	return s.updateGroupsForThing(ctx, account, c)
}

// checkRegrouping checks what needs no record.
func checkRegrouping(c UpdateGroupsCommand) error {
	if err := checkName("thingName", c.Thing); err != nil {
		return err
	}
	if len(c.Add)+len(c.Remove) > maxRegrouped {
		return fault.New(fault.InvalidRequest, "thingGroupsToAdd and thingGroupsToRemove must have at most %d entries together", maxRegrouped)
	}
	for _, name := range c.Add {
		if err := checkName("thingGroupsToAdd", name); err != nil {
			return err
		}
		if slices.Contains(c.Remove, name) {
			return fault.New(fault.InvalidRequest, "thing group %s is both in thingGroupsToAdd and in thingGroupsToRemove", name)
		}
	}
	for _, name := range c.Remove {
		if err := checkName("thingGroupsToRemove", name); err != nil {
			return err
		}
	}
	return nil
}

// updateGroupsForThing runs a checked command.
func (s *Service) updateGroupsForThing(ctx context.Context, account fleet.Account, c UpdateGroupsCommand) error {
	return s.change(ctx, account, s.regrouping(account, c))
}

// regrouping is the command of a checked change of memberships.
func (s *Service) regrouping(account fleet.Account, c UpdateGroupsCommand) func(context.Context, *attempt) error {
	return func(ctx context.Context, a *attempt) error {
		thing, err := loadThing(ctx, a, c.Thing)
		if err != nil {
			return err
		}
		removed, err := removeLinks(ctx, a, thing, c.Remove)
		if err != nil {
			return err
		}
		added, err := addLinks(ctx, a, thing, c.Add)
		if err != nil {
			return err
		}
		if len(added) > 0 {
			if err := s.checkRoom(thing, c.OverrideDynamic); err != nil {
				return err
			}
		}
		if len(removed)+len(added) == 0 {
			return nil
		}
		writeLinks(a, c.Thing, thing, removed, false)
		writeLinks(a, c.Thing, thing, added, true)
		a.devices = true
		return save(a, key(kindThing, account, c.Thing), thing)
	}
}

// removeLinks takes static groups out of the thing's record and returns what
// was there.
func removeLinks(ctx context.Context, a *attempt, thing *thingRecord, names []string) ([]changedLink, error) {
	var removed []changedLink
	for _, name := range names {
		group, err := loadStaticGroup(ctx, a, name)
		if err != nil {
			return nil, err
		}
		if link, ok := leave(thing, name); ok {
			removed = append(removed, changedLink{link, group.ID, nil})
		}
	}
	return removed, nil
}

// addLinks puts static groups into the thing's record and returns what is new.
func addLinks(ctx context.Context, a *attempt, thing *thingRecord, names []string) ([]changedLink, error) {
	var added []changedLink
	for _, name := range names {
		group, err := loadStaticGroup(ctx, a, name)
		if err != nil {
			return nil, err
		}
		link, err := decideJoin(thing, name, group)
		if err != nil {
			return nil, err
		}
		if join(thing, link) {
			added = append(added, changedLink{link, group.ID, nil})
		}
	}
	return added, nil
}

// loadStaticGroup is loadGroup for a group whose members people choose. The
// record is expected and not rewritten: many things may join at once, and
// only a deletion or a change of the group makes them try again.
func loadStaticGroup(ctx context.Context, a *attempt, name string) (*groupRecord, error) {
	group, err := loadGroup(ctx, a, name)
	if err != nil {
		return nil, err
	}
	if group.Query != "" {
		return nil, fault.New(fault.InvalidRequest, "%s is a dynamic group; its query decides about its members", name)
	}
	return group, nil
}

// decideJoin refuses a second group of one hierarchy.
func decideJoin(thing *thingRecord, name string, group *groupRecord) (groupLink, error) {
	link := rootedLink(name, group)
	if other, in := rival(thing, link); in {
		return groupLink{}, fault.New(fault.InvalidRequest,
			"the thing is in thing group %s of the same hierarchy; a thing may be in one group of a hierarchy only", other)
	}
	return link, nil
}

// rootedLink is the membership in a static group.
func rootedLink(name string, group *groupRecord) groupLink {
	link := groupLink{Group: name, Root: name}
	if len(group.Ancestors) > 0 {
		link.Root = group.Ancestors[0]
	}
	return link
}

// rival is another group of the hierarchy of a link that the thing is in.
func rival(thing *thingRecord, link groupLink) (group string, in bool) {
	for _, other := range thing.Groups {
		if !other.Dynamic && other.Root == link.Root && other.Group != link.Group {
			return other.Group, true
		}
	}
	return "", false
}

// checkRoom enforces the number of groups of a thing that joined others. With
// override dynamic groups may have to give way. Which of them do, the youngest,
// is decided by the index when it learns of the new membership: it alone
// decides about dynamic ones, so that two deciders cannot disagree. Until then
// the thing is in more groups than it may.
func (s *Service) checkRoom(thing *thingRecord, override bool) error {
	if s.limits.GroupsPerThing == 0 {
		return nil
	}
	static := 0
	for _, link := range thing.Groups {
		if !link.Dynamic {
			static++
		}
	}
	counted := static
	if !override {
		counted = len(thing.Groups)
	}
	if counted <= s.limits.GroupsPerThing {
		return nil
	}
	if static <= s.limits.GroupsPerThing {
		return fault.New(fault.InvalidRequest,
			"a thing may be in at most %d thing groups; with overrideDynamicGroups it leaves a dynamic one", s.limits.GroupsPerThing)
	}
	return fault.New(fault.InvalidRequest, "a thing may be in at most %d thing groups", s.limits.GroupsPerThing)
}

// join puts a membership into a thing's ordered list; false when it was there.
func join(thing *thingRecord, link groupLink) bool {
	i, found := slices.BinarySearchFunc(thing.Groups, link.Group, byGroup)
	if !found {
		thing.Groups = slices.Insert(thing.Groups, i, link)
	}
	return !found
}

// leave takes a membership out of a thing's list; false when it was not there.
func leave(thing *thingRecord, group string) (groupLink, bool) {
	i, found := slices.BinarySearchFunc(thing.Groups, group, byGroup)
	if !found {
		return groupLink{}, false
	}
	link := thing.Groups[i]
	thing.Groups = slices.Delete(thing.Groups, i, i+1)
	return link, true
}

// byGroup orders memberships by name.
func byGroup(link groupLink, group string) int { return strings.Compare(link.Group, group) }

// changedLink is a membership that begins or ends, with the group's id.
type changedLink struct {
	groupLink

	groupID string
	// cause is nil for what people decide.
	cause *event.MembershipCause
}

// writeLinks writes the groups' side of memberships and the events.
func writeLinks(a *attempt, name string, thing *thingRecord, links []changedLink, added bool) {
	for _, link := range links {
		k := key(kindGroupThing, a.account, link.Group, name)
		if added {
			a.flagged(k, link.Dynamic)
		} else {
			a.remove(k)
		}
		a.emit(membershipChanged(name, thing, link, added))
	}
}

// membershipChanged is the event of a membership's begin or end.
func membershipChanged(name string, thing *thingRecord, link changedLink, added bool) event.MembershipChanged {
	return event.MembershipChanged{
		Group: link.Group, GroupID: link.groupID, Thing: name, ThingID: thing.ID, Added: added, Dynamic: link.Dynamic, Cause: link.cause,
	}
}

// ListThingGroupsForThing returns one page of a thing's direct groups, static
// and dynamic, in order of name.
func (s *Service) ListThingGroupsForThing(ctx context.Context, account fleet.Account, name string, p Page) (Listed[string], error) {
	thing, err := s.DescribeThing(ctx, account, name)
	if err != nil {
		return Listed[string]{}, err
	}
	names := make([]string, len(thing.Groups))
	for i, m := range thing.Groups {
		names[i] = m.Group
	}
	return listNames(names, p), nil
}

// ListThingsInThingGroup returns one page of a group's members. With recursive
// the members of all its descendants are among them, group by group.
func (s *Service) ListThingsInThingGroup(ctx context.Context, account fleet.Account, group string, recursive bool, p Page) (Listed[string], error) {
	if err := checkName("thingGroupName", group); err != nil {
		return Listed[string]{}, err
	}
	if _, err := s.findGroup(ctx, account, group); err != nil {
		return Listed[string]{}, err
	}
	groups := []string{group}
	if recursive {
		below, err := descendants(ctx, s.store, account, group)
		if err != nil {
			return Listed[string]{}, store.Fault(err)
		}
		groups = append(groups, below...)
		slices.Sort(groups)
	}
	listed, err := s.listMembers(ctx, account, groups, p)
	return listed, store.Fault(err)
}

// listMembers pages through the members of several groups in order.
func (s *Service) listMembers(ctx context.Context, account fleet.Account, groups []string, p Page) (Listed[string], error) {
	listed, last := Listed[string]{Items: []string{}}, p.After
	for _, group := range groups {
		within := under(kindGroupThing, account, group)
		if p.After != "" && within.To <= store.Key(p.After) {
			continue
		}
		keys, more, err := keysOf(ctx, s.store, within, p.After, p.size()-len(listed.Items)+1)
		if err != nil {
			return Listed[string]{}, err
		}
		for _, k := range keys {
			if len(listed.Items) == p.size() {
				more = true
				break
			}
			listed.Items = append(listed.Items, k.Last())
			last = string(k)
		}
		if more {
			listed.Next = last
			return listed, nil
		}
	}
	return listed, nil
}

package index_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleetquery"
	"github.com/muster-iot/muster/internal/index"
)

// one picks an item.
func one[T any](m *model, items ...T) T { return items[m.random.IntN(len(items))] }

// change makes one random change of the fleet and returns its events.
func (m *model) change(fleetSize int) []event.Envelope {
	m.clock += int64(m.random.IntN(3))
	name := fmt.Sprintf("%s-%d", one(m, "Pump", "pump", "valve", "x"), m.random.IntN(fleetSize/4))
	thing := m.things[name]
	roll := m.random.IntN(100)
	switch {
	case thing == nil && roll < 60:
		return m.createThing(name)
	case roll < 70:
		return m.updateShadow(name)
	case roll < 73:
		return m.deleteShadow(name)
	case roll < 81:
		return m.connect(name)
	case roll < 84:
		return m.changeCertificate(name)
	case thing == nil:
		return nil
	case roll < 85:
		return m.deleteThing(name)
	case roll < 92:
		return m.updateThing(name)
	case roll < 94:
		return m.changeBilling(name)
	}
	group := one(m, "north", "South", "east-1", "dyn-3")
	in := !thing.groups[group]
	if in {
		thing.groups[group] = true
	} else {
		delete(thing.groups, group)
	}
	return []event.Envelope{m.envelope(event.MembershipChanged{Group: group, Thing: name, Added: in})}
}

func (m *model) createThing(name string) []event.Envelope {
	v := event.Thing{
		Thing: name, ThingID: fmt.Sprintf("id-%d", m.random.Int64()), TypeName: one(m, "", "Pump", "Valve"),
		Attributes: m.attributes(), BillingGroup: one(m, "", "", "Cost-1"), Version: 1,
	}
	m.things[name] = &modelThing{Thing: v, groups: map[string]bool{}}
	return []event.Envelope{m.envelope(event.ThingCreated{Thing: v})}
}

func (m *model) updateThing(name string) []event.Envelope {
	v := &m.things[name].Thing
	v.Version++
	v.TypeName = one(m, "", "Pump", "Valve")
	v.Attributes = m.attributes()
	v.BillingGroup = one(m, "", "Cost-1", "cost-2", v.BillingGroup)
	return []event.Envelope{m.envelope(event.ThingUpdated{Thing: *v})}
}

// changeBilling moves a thing out of its billing group or into one.
func (m *model) changeBilling(name string) []event.Envelope {
	v := &m.things[name].Thing
	change := event.BillingGroupMembershipChanged{BillingGroup: v.BillingGroup, Thing: name}
	if v.BillingGroup == "" {
		change.BillingGroup, change.Added = one(m, "Cost-1", "cost-2"), true
		v.BillingGroup = change.BillingGroup
	} else {
		v.BillingGroup = ""
	}
	return []event.Envelope{m.envelope(change)}
}

func (m *model) deleteThing(name string) []event.Envelope {
	out := append(m.detachAll(name), m.envelope(event.ThingDeleted{Thing: name, Version: m.things[name].Version}))
	delete(m.things, name)
	for _, members := range m.committed {
		delete(members, name)
	}
	return out
}

func (m *model) attributes() map[string]string {
	out := map[string]string{}
	for _, key := range []string{"site", "hw", "ratio", "note", "a.b"} {
		if m.random.IntN(3) > 0 {
			out[key] = one(m, "Oslo-3", "oslo-12", "bergen", "r1", "r2", "5", "7.50", "-2", "Main intake pump", "intake  pump two", "")
		}
	}
	return out
}

func (m *model) connect(name string) []event.Envelope {
	c := m.connections[name]
	if c == nil {
		c = &index.Connectivity{}
	}
	next := index.Connectivity{Version: c.Version, TimestampMS: m.clock * 1000}
	session := event.Session{ClientID: name, Indexed: true}
	var e event.Event
	if !c.Connected || m.random.IntN(3) == 0 {
		next.Connected, next.Version = true, c.Version+1
		next.KeepAlive, next.SessionExpiry = one[int64](m, 30, 60, 1200), one[int64](m, 0, 3600)
		session.Version = next.Version
		next.CleanSession = next.SessionExpiry == 0
		session.KeepAlive, session.CleanSession, session.SessionExpiry = int(next.KeepAlive), next.CleanSession, next.SessionExpiry
		e = event.DeviceConnected{Session: session}
	} else {
		next.KeepAlive, next.CleanSession, next.SessionExpiry = c.KeepAlive, c.CleanSession, c.SessionExpiry
		session.KeepAlive, session.CleanSession, session.SessionExpiry = int(c.KeepAlive), c.CleanSession, c.SessionExpiry
		next.Reason = one(m, "CONNECTION_LOST", "MQTT_KEEP_ALIVE_TIMEOUT", "CLIENT_INITIATED_DISCONNECT")
		session.Version = next.Version
		e = event.DeviceDisconnected{Session: session, Reason: next.Reason}
	}
	m.connections[name] = &next
	out := []event.Envelope{m.envelope(e)}
	if next.Connected && next.Version > 1 && m.random.IntN(2) == 0 {
		// The replaced session's end comes late and counts for nothing.
		session.Version--
		out = append(out, m.envelope(event.DeviceDisconnected{Session: session, Reason: "DUPLICATE_CLIENTID"}))
	}
	return out
}

func (m *model) deleteShadow(name string) []event.Envelope {
	shadow := one(m, "", "gps", "$package")
	s := m.shadows[name][shadow]
	if s == nil {
		return nil
	}
	delete(m.shadows[name], shadow)
	return []event.Envelope{m.envelope(event.ShadowDeleted{Thing: name, Shadow: shadow, Version: s.version})}
}

func (m *model) updateShadow(name string) []event.Envelope {
	shadow := one(m, "", "", "", "gps", "$package")
	if m.shadows[name] == nil {
		m.shadows[name] = map[string]*modelShadow{}
	}
	s := m.shadows[name][shadow]
	if s == nil {
		s = &modelShadow{state: map[string]any{}, stamps: map[string]int64{}}
		m.shadows[name][shadow] = s
	}
	patch := map[string]any{}
	for _, section := range []string{"reported", "desired"} {
		switch roll := m.random.IntN(20); {
		case roll == 0:
			patch[section] = nil
		case roll < 14 || section == "reported":
			patch[section] = m.patch(2)
		}
	}
	s.version++
	merge(s.state, patch)
	set, have := map[string][]fleetquery.Value{}, map[string][]fleetquery.Value{}
	flatten(set, "", patch)
	flatten(have, "", s.state)
	for path := range set {
		s.stamps[strings.TrimPrefix(path, ".")] = m.clock
	}
	maps.DeleteFunc(s.stamps, func(path string, _ int64) bool { return have["."+path] == nil })
	e := event.ShadowUpdated{Thing: name, Shadow: shadow, Version: s.version, Patch: mustJSON(patch), Timestamp: m.clock}
	if d := difference(s.state["desired"], s.state["reported"]); len(d) > 0 {
		e.Delta = mustJSON(d)
	}
	return []event.Envelope{m.envelope(e)}
}

// patch makes a random object of a patch.
func (m *model) patch(depth int) map[string]any {
	out := map[string]any{}
	for range 1 + m.random.IntN(4) {
		key := one(m, "battery", "temp", "fw", "mode", "tags", "stats", "conf", "text", "pos", "pos")
		out[key] = m.leaf(key, depth)
	}
	return out
}

// leaf makes a random value that mostly suits its key.
func (m *model) leaf(key string, depth int) any {
	if m.random.IntN(12) == 0 {
		return nil
	}
	if depth > 0 && (key == "stats" || key == "conf") && m.random.IntN(4) > 0 {
		return m.patch(depth - 1)
	}
	if m.random.IntN(12) == 0 {
		key = one(m, "battery", "mode", "tags", "empty")
	}
	switch key {
	case "pos":
		return m.place()
	case "battery", "stats":
		return float64(m.random.IntN(30) - 5)
	case "temp":
		return m.random.Float64() * 40
	case "fw":
		return fmt.Sprintf("3.%d.%d", m.random.IntN(3), m.random.IntN(4))
	case "tags":
		return one(m, []any{"a", "b"}, []any{"b", 3.0, 7.0}, []any{"Long tag", "a", true}, []any{}, []any{map[string]any{"x": 1.0}}, []any{"a", nil})
	case "text":
		return one[any](m, "5", "99", "x y z", "Y Z", true, false, "")
	case "empty":
		return map[string]any{}
	}
	return one[any](m, "eco", "ECO mode on", "mode eco", "turbo", "Ünïcode  wörd")
}

// query makes a random query of a few terms.
func (m *model) query(depth int, groups []string) string {
	if depth > 0 {
		a, b := m.query(depth-1, groups), m.query(depth-1, groups)
		switch m.random.IntN(6) {
		case 0:
			return "(" + a + " OR " + b + ")"
		case 1:
			return "(NOT " + a + ")"
		case 2, 3:
			return "(" + a + " AND " + b + ")"
		case 4:
			return "(" + a + " NOT " + b + ")"
		}
		return a
	}
	section := one(m, "shadow.reported.", "shadow.reported.", "shadow.desired.", "shadow.delta.", "shadow.name.gps.reported.", "shadow.name.$package.reported.")
	n := m.random.IntN(30) - 5
	return one(m,
		m.placeQuery(), m.placeQuery(), m.placeQuery(), m.placeQuery(), m.certificateQuery(), m.certificateQuery(), m.certificateQuery(),
		"*", "thingName:pump-1", "thingName:pump-*", "thingName:p?mp-1*", "thingTypeName:Pump", "registry.thingTypeName:valve",
		"thingName:[pump-2 TO valve-1}", "attributes.site:oslo*", "attributes.ratio<=5", "attributes.ratio:7.5", "attributes.hw:(r1 OR r2)",
		`attributes.note:"intake pump"`, "attributes.note:pump", "attributes.a.b:*", "attributes:*", "NOT attributes.site:*",
		"thingGroupNames:"+one(m, append(slices.Clone(groups), "north", "south", "cost-*", "e*")...),
		"connectivity.connected:true", "connectivity.connected:false",
		"connectivity.disconnectReason:(CONNECTION_LOST OR MQTT*)", fmt.Sprintf("connectivity.timestamp>%d", (m.clock-100)*1000),
		section+"battery:"+fmt.Sprint(n), fmt.Sprintf("%sbattery>%d", section, n), fmt.Sprintf("%sbattery:{%d TO %d]", section, n, n+9),
		section+"temp<20", section+"temp:[10.5 TO *]", section+"fw:3.1.*", section+"fw:3.1.2", section+"fw>=3.1.3", section+"fw:3.?.1",
		section+"mode:eco", section+`mode:"eco mode"`, section+`mode:"mode eco"`, section+"mode:*", section+"mode:{e TO m}",
		section+"tags:b", section+"tags>5", section+"tags:long", section+"stats:*", section+"stats.battery>10", section+"conf.stats.mode:eco",
		section+"text:5", section+`text:"y z"`, section+"text:true", section+"stats.text:99", "shadow.reported:*", "shadow.name.gps:*",
		"shadow.hasDelta:true", "shadow.name.gps.hasDelta:true", fmt.Sprintf("shadow.metadata.reported.battery.timestamp>%d", m.clock-50),
		"shadow.metadata.desired:*", "eco", "bergen", `"eco mode"`, "3.1*", "7.5", "[1 TO 3]", "pump", "nothing:x", "true",
		section+`mode:"Ünïcode WÖRD"`, section+"mode:ün?code",
	)
}

// wildcardQuery is a query for searches only: a leading wildcard must be kept
// short, and a group of whatever has a group would hold its members itself.
func (m *model) wildcardQuery() string {
	return one(m, "thingGroupNames:*", "thingName:*-1", "thingName:*ump*", "attributes.note:*take", "*eco", "shadow.reported.fw:?.1.*", "NOT shadow.reported.mode:*o")
}

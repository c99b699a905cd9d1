package deviceauth

// Property is a name with a value that messages of a connection gain.
type Property struct{ Key, Value string }

// Gain returns the properties that a message published now gains, because the
// type of the connection's thing says so. The caller must not change them.
func (g *Guard) Gain() []Property {
	if g.open || g.given != nil {
		return nil
	}
	if c := g.current(); c != nil {
		return c.gain
	}
	return nil
}

// gainOf resolves what a thing's type propagates. An attribute that the thing
// does not have is skipped.
func gainOf(thing *Thing, clientID string) []Property {
	if thing == nil || len(thing.Propagating) == 0 {
		return nil
	}
	gain := make([]Property, 0, len(thing.Propagating))
	for _, p := range thing.Propagating {
		value := ""
		switch {
		case p.ThingAttribute != "":
			value = thing.Attributes[p.ThingAttribute]
		case p.ConnectionAttribute == clientIDAttribute:
			value = clientID
		case p.ConnectionAttribute == thingNameAttribute:
			value = thing.Name
		}
		if value != "" {
			gain = append(gain, Property{Key: p.Key, Value: value})
		}
	}
	return gain
}

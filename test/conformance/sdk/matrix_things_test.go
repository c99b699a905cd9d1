package sdk

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
)

// thingAnswers are the cases of things, thing types and principals.
func thingAnswers() []answerCase {
	return slices.Concat(createThingAnswers(), updateThingAnswers(), otherThingAnswers(), thingTypeAnswers(), deleteThingTypeAnswers(), attachAnswers(), principalListAnswers())
}

// Exceptions of these cases.
const (
	thingInvalid   = "InvalidRequestException"
	thingNotThere  = "ResourceNotFoundException"
	thingThereIs   = "ResourceAlreadyExistsException"
	thingOtherwise = "VersionConflictException"
)

// thingCall makes a case of an operation that is given one input.
func thingCall[In, Out any](op, want, rule, says string, method func(*operator) func(context.Context, *In, ...func(*iot.Options)) (*Out, error), in func(o *operator) *In) answerCase {
	return answerCase{op: op, want: want, rule: rule, says: says, do: func(o *operator) error {
		_, err := method(o)(o.t.Context(), in(o))
		return err
	}}
}

// withAttributes is a payload.
func withAttributes(merge bool, pairs ...string) *types.AttributePayload {
	p := &types.AttributePayload{Merge: merge, Attributes: map[string]string{}}
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		p.Attributes[name] = value
	}
	return p
}

// numbered is n attributes.
func numbered(n int) (pairs []string) {
	for i := range n {
		pairs = append(pairs, fmt.Sprintf("a%d=%d", i, i))
	}
	return pairs
}

// thingWith makes a thing without a type.
func (o *operator) thingWith(pairs ...string) string {
	o.t.Helper()
	name := named("thing")
	must(o, o.CreateThing, &iot.CreateThingInput{ThingName: &name, AttributePayload: withAttributes(false, pairs...)})
	return name
}

// aThingType makes a type.
func (o *operator) aThingType() string {
	o.t.Helper()
	name := named("type")
	must(o, o.CreateThingType, &iot.CreateThingTypeInput{ThingTypeName: &name})
	return name
}

// aThingOf makes a thing of a type.
func (o *operator) aThingOf(typeName string, pairs ...string) string {
	o.t.Helper()
	name := named("thing")
	must(o, o.CreateThing, &iot.CreateThingInput{ThingName: &name, ThingTypeName: &typeName, AttributePayload: withAttributes(false, pairs...)})
	return name
}

// aDeprecatedType makes a type that nothing can take on.
func (o *operator) aDeprecatedType() string {
	o.t.Helper()
	name := o.aThingType()
	must(o, o.DeprecateThingType, &iot.DeprecateThingTypeInput{ThingTypeName: &name})
	return name
}

// looks compares a thing with what it should be.
func (o *operator) looks(name string, version int64, pairs ...string) {
	o.t.Helper()
	got := must(o, o.DescribeThing, &iot.DescribeThingInput{ThingName: &name})
	if want := withAttributes(false, pairs...).Attributes; got.Version != version || !maps.Equal(got.Attributes, want) {
		o.t.Errorf("%s has version %d and %v, want %d and %v", name, got.Version, got.Attributes, version, want)
	}
}

func createThingAnswers() []answerCase {
	create := func(want, rule, says string, in func(o *operator) *iot.CreateThingInput) answerCase {
		return thingCall("CreateThing", want, rule, says, func(o *operator) func(context.Context, *iot.CreateThingInput, ...func(*iot.Options)) (*iot.CreateThingOutput, error) {
			return o.CreateThing
		}, in)
	}
	again := func(change func(*iot.CreateThingInput)) func(o *operator) *iot.CreateThingInput {
		return func(o *operator) *iot.CreateThingInput {
			in := &iot.CreateThingInput{ThingName: new(named("twice")), AttributePayload: withAttributes(false, "site=leeds")}
			must(o, o.CreateThing, in)
			change(in)
			return in
		}
	}
	return []answerCase{
		{op: "CreateThing", do: func(o *operator) error {
			name, typeName := named("thing"), o.aThingType()
			in := &iot.CreateThingInput{ThingName: &name, ThingTypeName: &typeName, AttributePayload: withAttributes(true, append(numbered(50), "empty=")...)}
			first, err := o.CreateThing(o.t.Context(), in)
			if err != nil {
				return err
			}
			// An empty value makes no attribute, and the same again is the same thing.
			o.looks(name, 1, numbered(50)...)
			second, err := o.CreateThing(o.t.Context(), in)
			if err == nil && (*first.ThingId != *second.ThingId || *first.ThingArn != arnPrefix+"thing/"+name || *first.ThingName != name) {
				o.t.Errorf("answered %+v, then %+v", first, second)
			}
			return err
		}},
		create(thingInvalid, "name", "thingName", func(*operator) *iot.CreateThingInput { return &iot.CreateThingInput{ThingName: new("a b")} }),
		create(thingInvalid, "attribute name", "attribute", func(*operator) *iot.CreateThingInput {
			return &iot.CreateThingInput{ThingName: new(named("x")), AttributePayload: withAttributes(false, "a b=1")}
		}),
		create(thingInvalid, "attribute value", "attribute", func(*operator) *iot.CreateThingInput {
			return &iot.CreateThingInput{ThingName: new(named("x")), AttributePayload: withAttributes(false, "a=b c")}
		}),
		create(thingInvalid, "four without type", "at most 3", func(*operator) *iot.CreateThingInput {
			return &iot.CreateThingInput{ThingName: new(named("x")), AttributePayload: withAttributes(false, numbered(4)...)}
		}),
		create(thingInvalid, "51 with type", "at most 50", func(o *operator) *iot.CreateThingInput {
			return &iot.CreateThingInput{ThingName: new(named("x")), ThingTypeName: new(o.aThingType()), AttributePayload: withAttributes(false, numbered(51)...)}
		}),
		create(thingInvalid, "deprecated type", "deprecated", func(o *operator) *iot.CreateThingInput {
			return &iot.CreateThingInput{ThingName: new(named("x")), ThingTypeName: new(o.aDeprecatedType())}
		}),
		create(thingThereIs, "attributes", "different", again(func(in *iot.CreateThingInput) { in.AttributePayload = withAttributes(false, "site=osaka") })),
		create(thingThereIs, "no attributes", "different", again(func(in *iot.CreateThingInput) { in.AttributePayload = nil })),
		{op: "CreateThing", want: thingThereIs, rule: "type", says: "different", do: func(o *operator) error {
			name := o.thingWith()
			_, err := o.CreateThing(o.t.Context(), &iot.CreateThingInput{ThingName: &name, ThingTypeName: new(o.aThingType())})
			return err
		}},
		create(thingNotThere, "type", "thing type", func(*operator) *iot.CreateThingInput {
			return &iot.CreateThingInput{ThingName: new(named("x")), ThingTypeName: new(named("none"))}
		}),
	}
}

func updateThingAnswers() []answerCase {
	update := func(want, rule, says string, in func(o *operator) *iot.UpdateThingInput) answerCase {
		return thingCall("UpdateThing", want, rule, says, func(o *operator) func(context.Context, *iot.UpdateThingInput, ...func(*iot.Options)) (*iot.UpdateThingOutput, error) {
			return o.UpdateThing
		}, in)
	}
	return []answerCase{
		{op: "UpdateThing", do: func(o *operator) error {
			typeName := o.aThingType()
			name := o.aThingOf(typeName, "a=1", "b=2", "c=3", "d=4")
			for _, step := range []struct {
				in   iot.UpdateThingInput
				want []string
			}{
				{iot.UpdateThingInput{AttributePayload: withAttributes(true, "a=9", "b=", "e=5")}, []string{"a=9", "c=3", "d=4", "e=5"}},
				{iot.UpdateThingInput{}, []string{"a=9", "c=3", "d=4", "e=5"}},
				{iot.UpdateThingInput{AttributePayload: withAttributes(false, "x=1", "y=")}, []string{"x=1"}},
				{iot.UpdateThingInput{RemoveThingType: true, ExpectedVersion: new(int64(4))}, []string{"x=1"}},
				{iot.UpdateThingInput{AttributePayload: withAttributes(false)}, nil},
				{iot.UpdateThingInput{ThingTypeName: &typeName, AttributePayload: withAttributes(false, numbered(50)...)}, numbered(50)},
			} {
				before := must(o, o.DescribeThing, &iot.DescribeThingInput{ThingName: &name}).Version
				step.in.ThingName = &name
				if _, err := o.UpdateThing(o.t.Context(), &step.in); err != nil {
					return err
				}
				o.looks(name, before+1, step.want...)
			}
			return nil
		}},
		update(thingInvalid, "type and its removal", "removeThingType", func(o *operator) *iot.UpdateThingInput {
			typeName := o.aThingType()
			return &iot.UpdateThingInput{ThingName: new(o.aThingOf(typeName)), ThingTypeName: &typeName, RemoveThingType: true}
		}),
		update(thingInvalid, "removal with four attributes", "at most 3", func(o *operator) *iot.UpdateThingInput {
			return &iot.UpdateThingInput{ThingName: new(o.aThingOf(o.aThingType(), numbered(4)...)), RemoveThingType: true}
		}),
		update(thingInvalid, "four after the merge", "at most 3", func(o *operator) *iot.UpdateThingInput {
			return &iot.UpdateThingInput{ThingName: new(o.thingWith("x=1", "y=2", "z=3")), AttributePayload: withAttributes(true, "w=4")}
		}),
		update(thingInvalid, "deprecated type", "deprecated", func(o *operator) *iot.UpdateThingInput {
			return &iot.UpdateThingInput{ThingName: new(o.thingWith()), ThingTypeName: new(o.aDeprecatedType())}
		}),
		update(thingNotThere, "thing", "thing", func(*operator) *iot.UpdateThingInput { return &iot.UpdateThingInput{ThingName: new(named("none"))} }),
		update(thingNotThere, "type", "thing type", func(o *operator) *iot.UpdateThingInput {
			return &iot.UpdateThingInput{ThingName: new(o.thingWith()), ThingTypeName: new(named("none"))}
		}),
		update(thingOtherwise, "another version", "expectedVersion is 7 but the version is 1", func(o *operator) *iot.UpdateThingInput {
			return &iot.UpdateThingInput{ThingName: new(o.thingWith()), ExpectedVersion: new(int64(7))}
		}),
		// fleet-management §0: absent and 0 differ.
		update(thingOtherwise, "version 0", "expectedVersion is 0", func(o *operator) *iot.UpdateThingInput {
			return &iot.UpdateThingInput{ThingName: new(o.thingWith()), ExpectedVersion: new(int64(0))}
		}),
	}
}

func otherThingAnswers() []answerCase {
	remove := func(want, rule, says string, in func(o *operator) *iot.DeleteThingInput) answerCase {
		return thingCall("DeleteThing", want, rule, says, func(o *operator) func(context.Context, *iot.DeleteThingInput, ...func(*iot.Options)) (*iot.DeleteThingOutput, error) {
			return o.DeleteThing
		}, in)
	}
	describe := func(want, says, name string) answerCase {
		return answerCase{op: "DescribeThing", want: want, says: says, do: func(o *operator) error {
			_, err := o.DescribeThing(o.t.Context(), &iot.DescribeThingInput{ThingName: &name})
			return err
		}}
	}
	list := func(rule, says string, in iot.ListThingsInput) answerCase {
		return thingCall("ListThings", thingInvalid, rule, says, func(o *operator) func(context.Context, *iot.ListThingsInput, ...func(*iot.Options)) (*iot.ListThingsOutput, error) {
			return o.ListThings
		}, func(*operator) *iot.ListThingsInput { return &in })
	}
	return []answerCase{
		{op: "DeleteThing", do: func(o *operator) error {
			name := o.thingWith()
			for _, version := range []*int64{new(int64(1)), nil, new(int64(9))} { // twice after it is gone
				if _, err := o.DeleteThing(o.t.Context(), &iot.DeleteThingInput{ThingName: &name, ExpectedVersion: version}); err != nil {
					return err
				}
			}
			return nil
		}},
		remove(thingInvalid, "name", "thingName", func(*operator) *iot.DeleteThingInput { return &iot.DeleteThingInput{ThingName: new("a b")} }),
		remove(thingInvalid, "principals", "detach", func(o *operator) *iot.DeleteThingInput {
			name := o.thingWith()
			must(o, o.AttachThingPrincipal, &iot.AttachThingPrincipalInput{ThingName: &name, Principal: new(o.newIdentity().arn)})
			return &iot.DeleteThingInput{ThingName: &name}
		}),
		remove(thingOtherwise, "another version", "expectedVersion is 2", func(o *operator) *iot.DeleteThingInput {
			return &iot.DeleteThingInput{ThingName: new(o.thingWith()), ExpectedVersion: new(int64(2))}
		}),
		remove(thingOtherwise, "version 0", "expectedVersion is 0", func(o *operator) *iot.DeleteThingInput {
			return &iot.DeleteThingInput{ThingName: new(o.thingWith()), ExpectedVersion: new(int64(0))}
		}),
		{op: "DescribeThing", do: func(o *operator) error {
			typeName := o.aThingType()
			name := o.aThingOf(typeName, "site=leeds")
			got, err := o.DescribeThing(o.t.Context(), &iot.DescribeThingInput{ThingName: &name})
			if err == nil && (*got.ThingName != name || *got.DefaultClientId != name || *got.ThingTypeName != typeName || len(*got.ThingId) != 36 || *got.ThingArn != arnPrefix+"thing/"+name) {
				o.t.Errorf("answered %+v", got)
			}
			return err
		}},
		describe(thingInvalid, "thingName", "a b"),
		describe(thingNotThere, "thing", "never-was"),
		{op: "ListThings", do: listsThings},
		list("value without name", "attributeName", iot.ListThingsInput{AttributeValue: new("x")}),
		list("prefix without value", "attributeValue", iot.ListThingsInput{AttributeName: new("x"), UsePrefixAttributeValue: true}),
		list("token", "page token", iot.ListThingsInput{NextToken: new("forged")}),
		list("page", "maxResults", iot.ListThingsInput{MaxResults: new(int32(251))}),
	}
}

// listsThings shows that filters hold together.
func listsThings(o *operator) error {
	pump, meter, site := o.aThingType(), o.aThingType(), named("site")
	want := map[string]string{}
	for _, c := range []struct{ key, typeName, city string }{
		{"pump leeds", pump, "leeds"}, {"pump leer", pump, "leer"}, {"pump osaka", pump, "osaka"}, {"meter leeds", meter, "leeds"},
	} {
		want[c.key] = o.aThingOf(c.typeName, "of="+site, site+"="+c.city)
	}
	for _, c := range []struct {
		in   iot.ListThingsInput
		want []string
	}{
		{iot.ListThingsInput{ThingTypeName: &pump}, []string{"pump leeds", "pump leer", "pump osaka"}},
		{iot.ListThingsInput{AttributeName: &site}, []string{"pump leeds", "pump leer", "pump osaka", "meter leeds"}},
		{iot.ListThingsInput{AttributeName: &site, AttributeValue: new("leeds")}, []string{"pump leeds", "meter leeds"}},
		{iot.ListThingsInput{AttributeName: &site, AttributeValue: new("lee"), UsePrefixAttributeValue: true}, []string{"pump leeds", "pump leer", "meter leeds"}},
		{iot.ListThingsInput{AttributeName: &site, AttributeValue: new("lee")}, nil},
		{iot.ListThingsInput{AttributeName: &site, AttributeValue: new("lee"), UsePrefixAttributeValue: true, ThingTypeName: &pump}, []string{"pump leeds", "pump leer"}},
		{iot.ListThingsInput{AttributeName: new("of"), AttributeValue: &site, ThingTypeName: &meter}, []string{"meter leeds"}},
		{iot.ListThingsInput{AttributeName: &site, AttributeValue: new("osaka"), ThingTypeName: &meter}, nil},
		{iot.ListThingsInput{ThingTypeName: new(named("none"))}, nil},
	} {
		for _, size := range []int32{1, 250} {
			c.in.MaxResults, c.in.NextToken = &size, nil
			got, names := map[string]bool{}, map[string]bool{}
			for {
				out, err := o.ListThings(o.t.Context(), &c.in)
				if err != nil {
					return err
				}
				for _, thing := range out.Things {
					got[*thing.ThingName] = true
					if *thing.ThingArn != arnPrefix+"thing/"+*thing.ThingName || thing.Version != 1 || thing.Attributes["of"] != site {
						o.t.Errorf("item %+v", thing)
					}
				}
				if c.in.NextToken = out.NextToken; out.NextToken == nil {
					break
				}
			}
			for _, key := range c.want {
				names[want[key]] = true
			}
			if !maps.Equal(got, names) {
				o.t.Errorf("%v %v %v by %d: got %v, want %v", val(c.in.ThingTypeName), val(c.in.AttributeName), val(c.in.AttributeValue), size, got, c.want)
			}
		}
	}
	return nil
}

// propagatingTwo is the example of fleet-management §1.3.
func propagatingTwo() *types.Mqtt5Configuration {
	return &types.Mqtt5Configuration{PropagatingAttributes: []types.PropagatingAttribute{
		{UserPropertyKey: new("site"), ThingAttribute: new("site")},
		{UserPropertyKey: new("cid"), ConnectionAttribute: new("iot:ClientId")},
	}}
}

func thingTypeAnswers() []answerCase {
	create := func(want, rule, says string, properties types.ThingTypeProperties) answerCase {
		return answerCase{op: "CreateThingType", want: want, rule: rule, says: says, do: func(o *operator) error {
			name := named("type")
			if want == thingThereIs {
				must(o, o.CreateThingType, &iot.CreateThingTypeInput{ThingTypeName: &name})
			}
			_, err := o.CreateThingType(o.t.Context(), &iot.CreateThingTypeInput{ThingTypeName: &name, ThingTypeProperties: &properties})
			return err
		}}
	}
	update := func(want, rule, says string, properties types.ThingTypeProperties) answerCase {
		return answerCase{op: "UpdateThingType", want: want, rule: rule, says: says, do: func(o *operator) error {
			name := named("none")
			if want != thingNotThere {
				name = o.aThingType()
			}
			_, err := o.UpdateThingType(o.t.Context(), &iot.UpdateThingTypeInput{ThingTypeName: &name, ThingTypeProperties: &properties})
			return err
		}}
	}
	propagating := func(list ...types.PropagatingAttribute) types.ThingTypeProperties {
		return types.ThingTypeProperties{Mqtt5Configuration: &types.Mqtt5Configuration{PropagatingAttributes: list}}
	}
	key := new("key")
	described := types.ThingTypeProperties{ThingTypeDescription: new("a pump")}
	cases := []answerCase{
		{op: "CreateThingType", do: createsThingType},
		create(thingInvalid, "description", "thingTypeDescription", types.ThingTypeProperties{ThingTypeDescription: new("line\nbreak")}),
		create(thingInvalid, "searchable", "searchableAttributes", types.ThingTypeProperties{SearchableAttributes: []string{"a", "b", "c", "d"}}),
		create(thingThereIs, "description", "different", described),
		create(thingThereIs, "propagating", "different", types.ThingTypeProperties{Mqtt5Configuration: propagatingTwo()}),
		{op: "UpdateThingType", do: updatesThingType},
		update(thingInvalid, "searchable", "searchableAttributes cannot be changed", types.ThingTypeProperties{SearchableAttributes: []string{"a"}}),
		update(thingNotThere, "", "thing type", described),
		{op: "DescribeThingType", do: func(o *operator) error {
			name := o.aThingType()
			got, err := o.DescribeThingType(o.t.Context(), &iot.DescribeThingTypeInput{ThingTypeName: &name})
			if err == nil && (*got.ThingTypeName != name || *got.ThingTypeArn != arnPrefix+"thingtype/"+name || got.ThingTypeMetadata.CreationDate == nil || got.ThingTypeMetadata.Deprecated) {
				o.t.Errorf("answered %+v", got)
			}
			return err
		}},
		{op: "ListThingTypes", do: func(o *operator) error {
			name := o.aThingType()
			got, err := o.ListThingTypes(o.t.Context(), &iot.ListThingTypesInput{ThingTypeName: &name})
			if err == nil && (len(got.ThingTypes) != 1 || *got.ThingTypes[0].ThingTypeName != name) {
				o.t.Errorf("answered %+v", got)
			}
			return err
		}},
		thingCall("ListThingTypes", thingInvalid, "", "page token", func(o *operator) func(context.Context, *iot.ListThingTypesInput, ...func(*iot.Options)) (*iot.ListThingTypesOutput, error) {
			return o.ListThingTypes
		}, func(*operator) *iot.ListThingTypesInput { return &iot.ListThingTypesInput{NextToken: new("forged")} }),
	}
	for want, name := range map[string]string{thingInvalid: "a b", thingNotThere: "never-was"} {
		cases = append(cases, answerCase{op: "DescribeThingType", want: want, says: "thing", do: func(o *operator) error {
			_, err := o.DescribeThingType(o.t.Context(), &iot.DescribeThingTypeInput{ThingTypeName: &name})
			return err
		}})
	}
	for rule, c := range map[string]struct {
		says       string
		properties types.ThingTypeProperties
	}{
		"no key":               {"propagatingAttributes[0].userPropertyKey", propagating(types.PropagatingAttribute{ThingAttribute: key})},
		"key":                  {"propagatingAttributes[0].userPropertyKey", propagating(types.PropagatingAttribute{UserPropertyKey: new("a-b"), ThingAttribute: key})},
		"no source":            {"exactly one", propagating(types.PropagatingAttribute{UserPropertyKey: key})},
		"two sources":          {"exactly one", propagating(types.PropagatingAttribute{UserPropertyKey: key, ThingAttribute: key, ConnectionAttribute: new("iot:ClientId")})},
		"connection attribute": {"connectionAttribute must be", propagating(types.PropagatingAttribute{UserPropertyKey: key, ConnectionAttribute: new("iot:Moon")})},
		"21 entries":           {"at most 20", propagating(slices.Repeat([]types.PropagatingAttribute{{UserPropertyKey: key, ThingAttribute: key}}, 21)...)},
	} {
		cases = append(cases, create(thingInvalid, rule, c.says, c.properties), update(thingInvalid, rule, c.says, c.properties))
	}
	return cases
}

// createsThingType makes the same type twice.
func createsThingType(o *operator) error {
	name := named("type")
	in := &iot.CreateThingTypeInput{ThingTypeName: &name, ThingTypeProperties: &types.ThingTypeProperties{
		ThingTypeDescription: new("district pump"), SearchableAttributes: []string{"site", "hw"}, Mqtt5Configuration: propagatingTwo(),
	}}
	first, err := o.CreateThingType(o.t.Context(), in)
	if err != nil {
		return err
	}
	second, err := o.CreateThingType(o.t.Context(), in)
	if err == nil && (*first.ThingTypeId != *second.ThingTypeId || *first.ThingTypeArn != arnPrefix+"thingtype/"+name) {
		o.t.Errorf("answered %+v, then %+v", first, second)
	}
	o.propagates(name, "site cid")
	return err
}

// propagates compares what a type propagates.
func (o *operator) propagates(name, want string) {
	o.t.Helper()
	got := must(o, o.DescribeThingType, &iot.DescribeThingTypeInput{ThingTypeName: &name}).ThingTypeProperties
	listed := must(o, o.ListThingTypes, &iot.ListThingTypesInput{ThingTypeName: &name}).ThingTypes[0].ThingTypeProperties
	for _, p := range []*types.ThingTypeProperties{got, listed} {
		var keys []string
		if p.Mqtt5Configuration != nil {
			for _, a := range p.Mqtt5Configuration.PropagatingAttributes {
				keys = append(keys, *a.UserPropertyKey)
			}
		}
		if strings.Join(keys, " ") != want {
			o.t.Errorf("%s propagates %v, want %s", name, keys, want)
		}
	}
}

// updatesThingType changes one property after the other.
func updatesThingType(o *operator) error {
	name := o.aThingType()
	for _, c := range []struct {
		properties  types.ThingTypeProperties
		description string
		keys        string
	}{
		{types.ThingTypeProperties{Mqtt5Configuration: propagatingTwo()}, "", "site cid"},
		{types.ThingTypeProperties{ThingTypeDescription: new("new")}, "new", "site cid"},
		{types.ThingTypeProperties{Mqtt5Configuration: &types.Mqtt5Configuration{PropagatingAttributes: propagatingTwo().PropagatingAttributes[1:]}}, "new", "cid"},
		{types.ThingTypeProperties{Mqtt5Configuration: &types.Mqtt5Configuration{PropagatingAttributes: []types.PropagatingAttribute{}}}, "new", ""},
	} {
		if _, err := o.UpdateThingType(o.t.Context(), &iot.UpdateThingTypeInput{ThingTypeName: &name, ThingTypeProperties: &c.properties}); err != nil {
			return err
		}
		o.propagates(name, c.keys)
		if got := val(must(o, o.DescribeThingType, &iot.DescribeThingTypeInput{ThingTypeName: &name}).ThingTypeProperties.ThingTypeDescription); got != c.description {
			o.t.Errorf("description %q, want %q", got, c.description)
		}
	}
	return nil
}

func deleteThingTypeAnswers() []answerCase {
	deprecate := func(want, rule, says, name string) answerCase {
		return answerCase{op: "DeprecateThingType", want: want, rule: rule, says: says, do: func(o *operator) error {
			_, err := o.DeprecateThingType(o.t.Context(), &iot.DeprecateThingTypeInput{ThingTypeName: &name})
			return err
		}}
	}
	remove := func(want, rule, says string, name func(o *operator) string) answerCase {
		return answerCase{op: "DeleteThingType", want: want, rule: rule, says: says, do: func(o *operator) error {
			_, err := o.DeleteThingType(o.t.Context(), &iot.DeleteThingTypeInput{ThingTypeName: new(name(o))})
			return err
		}}
	}
	return []answerCase{
		{op: "DeprecateThingType", do: func(o *operator) error {
			name := o.aThingType()
			thing := o.aThingOf(name)
			for _, undo := range []bool{false, false, true, false} {
				if _, err := o.DeprecateThingType(o.t.Context(), &iot.DeprecateThingTypeInput{ThingTypeName: &name, UndoDeprecate: undo}); err != nil {
					return err
				}
				got := must(o, o.DescribeThingType, &iot.DescribeThingTypeInput{ThingTypeName: &name}).ThingTypeMetadata
				if got.Deprecated == undo || (got.DeprecationDate == nil) != undo {
					o.t.Errorf("undo %v: %+v", undo, got)
				}
			}
			// Existing things keep it.
			must(o, o.UpdateThing, &iot.UpdateThingInput{ThingName: &thing, AttributePayload: withAttributes(false, numbered(4)...)})
			return nil
		}},
		deprecate(thingInvalid, "name", "thingTypeName", "a b"),
		deprecate(thingNotThere, "", "thing type", "never-was"),
		{op: "DeleteThingType", do: func(o *operator) error {
			// Its own server: the others keep to the five minutes.
			quick := newOperator(o.t, startServerWith(o.t, "--registry.type-deletion-delay", "0s"))
			_, err := quick.DeleteThingType(o.t.Context(), &iot.DeleteThingTypeInput{ThingTypeName: new(quick.aDeprecatedType())})
			return err
		}},
		remove(thingInvalid, "name", "thingTypeName", func(*operator) string { return "a b" }),
		remove(thingInvalid, "not deprecated", "not deprecated", (*operator).aThingType),
		remove(thingInvalid, "five minutes", "5m0s", (*operator).aDeprecatedType),
		remove(thingInvalid, "in use", "still has things", func(o *operator) string {
			quick := newOperator(o.t, startServerWith(o.t, "--registry.type-deletion-delay", "0s"))
			o.Client = quick.Client
			name := o.aThingType()
			o.aThingOf(name)
			must(o, o.DeprecateThingType, &iot.DeprecateThingTypeInput{ThingTypeName: &name})
			return name
		}),
		remove(thingNotThere, "", "thing type", func(*operator) string { return named("none") }),
	}
}

// anAttachment makes a thing and a certificate that are attached.
func (o *operator) anAttachment(kind types.ThingPrincipalType) (thing, arn string) {
	o.t.Helper()
	thing, arn = o.thingWith(), o.newIdentity().arn
	must(o, o.AttachThingPrincipal, &iot.AttachThingPrincipalInput{ThingName: &thing, Principal: &arn, ThingPrincipalType: kind})
	return thing, arn
}

func attachAnswers() []answerCase {
	attach := func(want, rule, says string, in func(o *operator) *iot.AttachThingPrincipalInput) answerCase {
		return thingCall("AttachThingPrincipal", want, rule, says, func(o *operator) func(context.Context, *iot.AttachThingPrincipalInput, ...func(*iot.Options)) (*iot.AttachThingPrincipalOutput, error) {
			return o.AttachThingPrincipal
		}, in)
	}
	detach := func(want, rule, says string, in func(o *operator) *iot.DetachThingPrincipalInput) answerCase {
		return thingCall("DetachThingPrincipal", want, rule, says, func(o *operator) func(context.Context, *iot.DetachThingPrincipalInput, ...func(*iot.Options)) (*iot.DetachThingPrincipalOutput, error) {
			return o.DetachThingPrincipal
		}, in)
	}
	const exclusive, shared = types.ThingPrincipalTypeExclusiveThing, types.ThingPrincipalTypeNonExclusiveThing
	unknown := arnPrefix + "cert/" + strings.Repeat("0", 64)
	return []answerCase{
		{op: "AttachThingPrincipal", do: func(o *operator) error {
			arn := o.newIdentity().arn
			for _, thing := range []string{o.thingWith(), o.thingWith()} {
				for _, kind := range []types.ThingPrincipalType{"", shared} { // again, with the default by its name
					if _, err := o.AttachThingPrincipal(o.t.Context(), &iot.AttachThingPrincipalInput{ThingName: &thing, Principal: &arn, ThingPrincipalType: kind}); err != nil {
						return err
					}
				}
			}
			thing, alone := o.anAttachment(exclusive)
			_, err := o.AttachThingPrincipal(o.t.Context(), &iot.AttachThingPrincipalInput{ThingName: &thing, Principal: &alone, ThingPrincipalType: exclusive})
			if err == nil { // a thing may have several
				_, err = o.AttachThingPrincipal(o.t.Context(), &iot.AttachThingPrincipalInput{ThingName: &thing, Principal: new(o.newIdentity().arn), ThingPrincipalType: exclusive})
			}
			return err
		}},
		attach(thingInvalid, "principal", "principal", func(o *operator) *iot.AttachThingPrincipalInput {
			return &iot.AttachThingPrincipalInput{ThingName: new(o.thingWith()), Principal: new("nobody")}
		}),
		attach(thingInvalid, "kind", "thingPrincipalType", func(o *operator) *iot.AttachThingPrincipalInput {
			return &iot.AttachThingPrincipalInput{ThingName: new(o.thingWith()), Principal: &unknown, ThingPrincipalType: "OTHER"}
		}),
		attach(thingInvalid, "elsewhere after exclusive", "exclusively", func(o *operator) *iot.AttachThingPrincipalInput {
			_, arn := o.anAttachment(exclusive)
			return &iot.AttachThingPrincipalInput{ThingName: new(o.thingWith()), Principal: &arn}
		}),
		attach(thingInvalid, "exclusive after elsewhere", "only one", func(o *operator) *iot.AttachThingPrincipalInput {
			_, arn := o.anAttachment(shared)
			return &iot.AttachThingPrincipalInput{ThingName: new(o.thingWith()), Principal: &arn, ThingPrincipalType: exclusive}
		}),
		attach(thingInvalid, "another kind", "detach it first", func(o *operator) *iot.AttachThingPrincipalInput {
			thing, arn := o.anAttachment(shared)
			return &iot.AttachThingPrincipalInput{ThingName: &thing, Principal: &arn, ThingPrincipalType: exclusive}
		}),
		attach(thingNotThere, "thing", "thing", func(o *operator) *iot.AttachThingPrincipalInput {
			return &iot.AttachThingPrincipalInput{ThingName: new(named("none")), Principal: new(o.newIdentity().arn)}
		}),
		attach(thingNotThere, "certificate", "certificate", func(o *operator) *iot.AttachThingPrincipalInput {
			return &iot.AttachThingPrincipalInput{ThingName: new(o.thingWith()), Principal: &unknown}
		}),
		{op: "DetachThingPrincipal", do: func(o *operator) error {
			thing, arn := o.anAttachment(exclusive)
			if _, err := o.DetachThingPrincipal(o.t.Context(), &iot.DetachThingPrincipalInput{ThingName: &thing, Principal: &arn}); err != nil {
				return err
			}
			// At once free for another thing.
			must(o, o.AttachThingPrincipal, &iot.AttachThingPrincipalInput{ThingName: new(o.thingWith()), Principal: &arn})
			return nil
		}},
		detach(thingInvalid, "principal", "principal", func(o *operator) *iot.DetachThingPrincipalInput {
			return &iot.DetachThingPrincipalInput{ThingName: new(o.thingWith()), Principal: new("nobody")}
		}),
		detach(thingNotThere, "not attached", "not attached", func(o *operator) *iot.DetachThingPrincipalInput {
			return &iot.DetachThingPrincipalInput{ThingName: new(o.thingWith()), Principal: new(o.newIdentity().arn)}
		}),
		detach(thingNotThere, "thing", "thing", func(o *operator) *iot.DetachThingPrincipalInput {
			return &iot.DetachThingPrincipalInput{ThingName: new(named("none")), Principal: new(o.newIdentity().arn)}
		}),
	}
}

func principalListAnswers() []answerCase {
	const exclusive, shared = types.ThingPrincipalTypeExclusiveThing, types.ThingPrincipalTypeNonExclusiveThing
	unknown := arnPrefix + "cert/" + strings.Repeat("0", 64)
	cases := []answerCase{
		{op: "ListThingPrincipals", do: func(o *operator) error {
			thing, arn := o.anAttachment("")
			got, err := o.ListThingPrincipals(o.t.Context(), &iot.ListThingPrincipalsInput{ThingName: &thing})
			if err == nil && !slices.Equal(got.Principals, []string{arn}) {
				o.t.Errorf("answered %v", got.Principals)
			}
			return err
		}},
		{op: "ListThingPrincipalsV2", do: func(o *operator) error {
			thing, arn := o.anAttachment(exclusive)
			for kind, want := range map[types.ThingPrincipalType]int{"": 1, exclusive: 1, shared: 0} {
				got, err := o.ListThingPrincipalsV2(o.t.Context(), &iot.ListThingPrincipalsV2Input{ThingName: &thing, ThingPrincipalType: kind})
				if err != nil {
					return err
				}
				if len(got.ThingPrincipalObjects) != want || want > 0 && (*got.ThingPrincipalObjects[0].Principal != arn || got.ThingPrincipalObjects[0].ThingPrincipalType != exclusive) {
					o.t.Errorf("%q: answered %+v", kind, got.ThingPrincipalObjects)
				}
			}
			return nil
		}},
		{op: "ListPrincipalThings", do: func(o *operator) error {
			thing, arn := o.anAttachment("")
			second := o.thingWith()
			must(o, o.AttachThingPrincipal, &iot.AttachThingPrincipalInput{ThingName: &second, Principal: &arn})
			got, err := o.ListPrincipalThings(o.t.Context(), &iot.ListPrincipalThingsInput{Principal: &arn})
			if want := []string{min(thing, second), max(thing, second)}; err == nil && !slices.Equal(got.Things, want) {
				o.t.Errorf("answered %v, want %v", got.Things, want)
			}
			return err
		}},
		{op: "ListPrincipalThingsV2", do: func(o *operator) error {
			thing, arn := o.anAttachment("")
			for kind, want := range map[types.ThingPrincipalType]int{"": 1, exclusive: 0, shared: 1} {
				got, err := o.ListPrincipalThingsV2(o.t.Context(), &iot.ListPrincipalThingsV2Input{Principal: &arn, ThingPrincipalType: kind})
				if err != nil {
					return err
				}
				if len(got.PrincipalThingObjects) != want || want > 0 && (*got.PrincipalThingObjects[0].ThingName != thing || got.PrincipalThingObjects[0].ThingPrincipalType != shared) {
					o.t.Errorf("%q: answered %+v", kind, got.PrincipalThingObjects)
				}
			}
			return nil
		}},
	}
	for want, c := range map[string]struct{ says, thing, principal string }{
		thingInvalid: {"", "a b", "nobody"}, thingNotThere: {"does not exist", "never-was", unknown},
	} {
		cases = append(cases,
			answerCase{op: "ListThingPrincipals", want: want, says: c.says, do: func(o *operator) error {
				_, err := o.ListThingPrincipals(o.t.Context(), &iot.ListThingPrincipalsInput{ThingName: &c.thing})
				return err
			}},
			answerCase{op: "ListThingPrincipalsV2", want: want, says: c.says, do: func(o *operator) error {
				_, err := o.ListThingPrincipalsV2(o.t.Context(), &iot.ListThingPrincipalsV2Input{ThingName: &c.thing})
				return err
			}},
			answerCase{op: "ListPrincipalThings", want: want, says: c.says, do: func(o *operator) error {
				_, err := o.ListPrincipalThings(o.t.Context(), &iot.ListPrincipalThingsInput{Principal: &c.principal})
				return err
			}},
			answerCase{op: "ListPrincipalThingsV2", want: want, says: c.says, do: func(o *operator) error {
				_, err := o.ListPrincipalThingsV2(o.t.Context(), &iot.ListPrincipalThingsV2Input{Principal: &c.principal})
				return err
			}},
		)
	}
	return cases
}

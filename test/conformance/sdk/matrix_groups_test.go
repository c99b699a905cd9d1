package sdk

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/muster-iot/muster/internal/testkit"
)

// groupAnswers are the cases of groups, billing groups, tags and event configurations.
func groupAnswers() []answerCase {
	return slices.Concat(staticGroupAnswers(), dynamicGroupAnswers(), membershipAnswers(), billingAnswers(), tagAnswers(), eventConfigurationAnswers())
}

// aThing makes a thing and returns its name.
func (o *operator) aThing() string {
	o.t.Helper()
	return *must(o, o.CreateThing, &iot.CreateThingInput{ThingName: new(named("thing"))}).ThingName
}

// aGroup makes a static group, below parents if there are any, and returns its
// name.
func (o *operator) aGroup(parent ...string) string {
	o.t.Helper()
	in := &iot.CreateThingGroupInput{ThingGroupName: new(named("group"))}
	if len(parent) > 0 {
		in.ParentGroupName = &parent[0]
	}
	return *must(o, o.CreateThingGroup, in).ThingGroupName
}

// aDynamicGroup makes a dynamic group without members and returns its name.
func (o *operator) aDynamicGroup() string {
	o.t.Helper()
	return *must(o, o.CreateDynamicThingGroup, &iot.CreateDynamicThingGroupInput{
		ThingGroupName: new(named("dynamic")), QueryString: new("attributes.none:such"),
	}).ThingGroupName
}

// aBillingGroup makes a billing group and returns its name.
func (o *operator) aBillingGroup() string {
	o.t.Helper()
	return *must(o, o.CreateBillingGroup, &iot.CreateBillingGroupInput{BillingGroupName: new(named("billing"))}).BillingGroupName
}

// mustBe turns a wrong answer into an error.
func mustBe(what string, ok bool) error {
	if ok {
		return nil
	}
	return errors.New("the answer is wrong: " + what)
}

func staticGroupAnswers() []answerCase {
	return []answerCase{
		{op: "CreateThingGroup", do: func(o *operator) error {
			in := &iot.CreateThingGroupInput{
				ThingGroupName: new(named("group")), ParentGroupName: new(o.aGroup()), Tags: []types.Tag{{Key: new("site"), Value: new("oslo")}},
				ThingGroupProperties: &types.ThingGroupProperties{
					ThingGroupDescription: new("d"), AttributePayload: &types.AttributePayload{Attributes: map[string]string{"owner": "n"}},
				},
			}
			first := must(o, o.CreateThingGroup, in)
			again, err := o.CreateThingGroup(o.t.Context(), in)
			if err != nil {
				return err
			}
			return mustBe("the same group", *again.ThingGroupId == *first.ThingGroupId && *again.ThingGroupArn == arnPrefix+"thinggroup/"+*in.ThingGroupName)
		}},
		{op: "CreateThingGroup", want: "InvalidRequestException", rule: "unknown parent", says: "parentGroupName", do: func(o *operator) error {
			_, err := o.CreateThingGroup(o.t.Context(), &iot.CreateThingGroupInput{ThingGroupName: new(named("group")), ParentGroupName: new(named("none"))})
			return err
		}},
		{op: "CreateThingGroup", want: "InvalidRequestException", rule: "dynamic parent", says: "dynamic group", do: func(o *operator) error {
			_, err := o.CreateThingGroup(o.t.Context(), &iot.CreateThingGroupInput{ThingGroupName: new(named("group")), ParentGroupName: new(o.aDynamicGroup())})
			return err
		}},
		{op: "CreateThingGroup", want: "InvalidRequestException", rule: "eighth level", says: "7 levels", do: func(o *operator) error {
			last := o.aGroup()
			for range 6 {
				last = o.aGroup(last)
			}
			_, err := o.CreateThingGroup(o.t.Context(), &iot.CreateThingGroupInput{ThingGroupName: new(named("group")), ParentGroupName: &last})
			return err
		}},
		{op: "CreateThingGroup", want: "InvalidRequestException", rule: "tag twice", says: "twice", do: func(o *operator) error {
			_, err := o.CreateThingGroup(o.t.Context(), &iot.CreateThingGroupInput{
				ThingGroupName: new(named("group")), Tags: []types.Tag{{Key: new("a"), Value: new("1")}, {Key: new("a"), Value: new("2")}},
			})
			return err
		}},
		{op: "CreateThingGroup", want: "ResourceAlreadyExistsException", says: "already exists", do: func(o *operator) error {
			_, err := o.CreateThingGroup(o.t.Context(), &iot.CreateThingGroupInput{ThingGroupName: new(o.aGroup()), ParentGroupName: new(o.aGroup())})
			return err
		}},
		{op: "CreateThingGroup", want: "ResourceAlreadyExistsException", rule: "other tags", says: "already exists", do: func(o *operator) error {
			_, err := o.CreateThingGroup(o.t.Context(), &iot.CreateThingGroupInput{
				ThingGroupName: new(o.aGroup()), Tags: []types.Tag{{Key: new("a"), Value: new("1")}},
			})
			return err
		}},
		{op: "UpdateThingGroup", do: func(o *operator) error {
			out, err := o.UpdateThingGroup(o.t.Context(), &iot.UpdateThingGroupInput{
				ThingGroupName: new(o.aGroup()), ExpectedVersion: new(int64(1)), ThingGroupProperties: &types.ThingGroupProperties{ThingGroupDescription: new("new")},
			})
			if err != nil {
				return err
			}
			return mustBe("version 2", out.Version == 2)
		}},
		{op: "UpdateThingGroup", want: "InvalidRequestException", says: "UpdateDynamicThingGroup", do: func(o *operator) error {
			_, err := o.UpdateThingGroup(o.t.Context(), &iot.UpdateThingGroupInput{ThingGroupName: new(o.aDynamicGroup()), ThingGroupProperties: &types.ThingGroupProperties{}})
			return err
		}},
		{op: "UpdateThingGroup", want: "ResourceNotFoundException", says: "does not exist", do: func(o *operator) error {
			_, err := o.UpdateThingGroup(o.t.Context(), &iot.UpdateThingGroupInput{ThingGroupName: new(named("none")), ThingGroupProperties: &types.ThingGroupProperties{}})
			return err
		}},
		{op: "UpdateThingGroup", want: "VersionConflictException", says: "expectedVersion", do: func(o *operator) error {
			_, err := o.UpdateThingGroup(o.t.Context(), &iot.UpdateThingGroupInput{
				ThingGroupName: new(o.aGroup()), ExpectedVersion: new(int64(0)), ThingGroupProperties: &types.ThingGroupProperties{},
			})
			return err
		}},
		{op: "DeleteThingGroup", do: func(o *operator) error {
			group, thing := o.aGroup(), o.aThing()
			must(o, o.AddThingToThingGroup, &iot.AddThingToThingGroupInput{ThingName: &thing, ThingGroupName: &group})
			if _, err := o.DeleteThingGroup(o.t.Context(), &iot.DeleteThingGroupInput{ThingGroupName: &group, ExpectedVersion: new(int64(1))}); err != nil {
				return err
			}
			left := must(o, o.ListThingGroupsForThing, &iot.ListThingGroupsForThingInput{ThingName: &thing})
			return mustBe("the member lost it", len(left.ThingGroups) == 0)
		}},
		{op: "DeleteThingGroup", rule: "unknown", do: func(o *operator) error {
			_, err := o.DeleteThingGroup(o.t.Context(), &iot.DeleteThingGroupInput{ThingGroupName: new(named("none"))})
			return err
		}},
		{op: "DeleteThingGroup", want: "InvalidRequestException", says: "child", do: func(o *operator) error {
			parent := o.aGroup()
			o.aGroup(parent)
			_, err := o.DeleteThingGroup(o.t.Context(), &iot.DeleteThingGroupInput{ThingGroupName: &parent})
			return err
		}},
		{op: "DeleteThingGroup", want: "InvalidRequestException", rule: "dynamic", says: "DeleteDynamicThingGroup", do: func(o *operator) error {
			_, err := o.DeleteThingGroup(o.t.Context(), &iot.DeleteThingGroupInput{ThingGroupName: new(o.aDynamicGroup())})
			return err
		}},
		{op: "DeleteThingGroup", want: "VersionConflictException", says: "expectedVersion", do: func(o *operator) error {
			_, err := o.DeleteThingGroup(o.t.Context(), &iot.DeleteThingGroupInput{ThingGroupName: new(o.aGroup()), ExpectedVersion: new(int64(7))})
			return err
		}},
		{op: "DescribeThingGroup", do: func(o *operator) error {
			root := o.aGroup()
			middle := o.aGroup(root)
			leaf := o.aGroup(middle)
			out, err := o.DescribeThingGroup(o.t.Context(), &iot.DescribeThingGroupInput{ThingGroupName: &leaf})
			if err != nil {
				return err
			}
			m := out.ThingGroupMetadata
			var path []string
			for _, g := range m.RootToParentThingGroups {
				path = append(path, *g.GroupName+" "+*g.GroupArn)
			}
			return errors.Join(
				mustBe("parents", slices.Equal(path, []string{root + " " + arnPrefix + "thinggroup/" + root, middle + " " + arnPrefix + "thinggroup/" + middle})),
				mustBe("parent", *m.ParentGroupName == middle),
				mustBe("creation date", m.CreationDate != nil && !m.CreationDate.IsZero()),
				mustBe("version, id and ARN", out.Version == 1 && *out.ThingGroupId != "" && *out.ThingGroupArn == arnPrefix+"thinggroup/"+leaf),
				mustBe("members of dynamic groups only", out.QueryString == nil && out.IndexName == nil && out.QueryVersion == nil && out.Status == ""),
			)
		}},
		{op: "DescribeThingGroup", want: "ResourceNotFoundException", says: "does not exist", do: func(o *operator) error {
			_, err := o.DescribeThingGroup(o.t.Context(), &iot.DescribeThingGroupInput{ThingGroupName: new(named("none"))})
			return err
		}},
		{op: "DescribeThingGroup", want: "InvalidRequestException", says: "thingGroupName", do: func(o *operator) error {
			_, err := o.DescribeThingGroup(o.t.Context(), &iot.DescribeThingGroupInput{ThingGroupName: new("a b")})
			return err
		}},
		{op: "ListThingGroups", do: func(o *operator) error {
			root := o.aGroup()
			child := o.aGroup(root)
			below := o.aGroup(child)
			list := func(recursive *bool, prefix *string) []string {
				var names []string
				pages := iot.NewListThingGroupsPaginator(o.Client, &iot.ListThingGroupsInput{
					ParentGroup: &root, Recursive: recursive, NamePrefixFilter: prefix, MaxResults: new(int32(1)),
				})
				for pages.HasMorePages() {
					page, err := pages.NextPage(o.t.Context())
					if err != nil {
						o.t.Fatal(err)
					}
					for _, g := range page.ThingGroups {
						names = append(names, *g.GroupName)
					}
				}
				slices.Sort(names)
				return names
			}
			both := []string{child, below}
			slices.Sort(both)
			return errors.Join(
				mustBe("children", slices.Equal(list(nil, nil), []string{child})),
				mustBe("descendants", slices.Equal(list(new(true), nil), both)),
				mustBe("descendants with a prefix", slices.Equal(list(new(true), &below), []string{below})),
			)
		}},
		{op: "ListThingGroups", want: "InvalidRequestException", says: "page token is not valid", do: func(o *operator) error {
			_, err := o.ListThingGroups(o.t.Context(), &iot.ListThingGroupsInput{NextToken: new("forged")})
			return err
		}},
		{op: "ListThingGroups", want: "ResourceNotFoundException", says: "does not exist", do: func(o *operator) error {
			_, err := o.ListThingGroups(o.t.Context(), &iot.ListThingGroupsInput{ParentGroup: new(named("none"))})
			return err
		}},
	}
}

func dynamicGroupAnswers() []answerCase {
	create := func(o *operator, edit func(*iot.CreateDynamicThingGroupInput)) error {
		in := &iot.CreateDynamicThingGroupInput{ThingGroupName: new(named("dynamic")), QueryString: new("attributes.none:such")}
		edit(in)
		_, err := o.CreateDynamicThingGroup(o.t.Context(), in)
		return err
	}
	update := func(o *operator, edit func(*iot.UpdateDynamicThingGroupInput)) error {
		in := &iot.UpdateDynamicThingGroupInput{ThingGroupProperties: &types.ThingGroupProperties{}}
		edit(in)
		if in.ThingGroupName == nil {
			in.ThingGroupName = new(o.aDynamicGroup())
		}
		_, err := o.UpdateDynamicThingGroup(o.t.Context(), in)
		return err
	}
	return []answerCase{
		{op: "CreateDynamicThingGroup", do: func(o *operator) error {
			in := &iot.CreateDynamicThingGroupInput{
				ThingGroupName: new(named("dynamic")), QueryString: new("attributes.none:such"), Tags: []types.Tag{{Key: new("a"), Value: new("b")}},
			}
			must(o, o.CreateDynamicThingGroup, in)
			out, err := o.CreateDynamicThingGroup(o.t.Context(), in)
			if err != nil {
				return err
			}
			return mustBe("the definition", *out.QueryString == *in.QueryString && *out.IndexName == "AWS_Things" && *out.QueryVersion == "2017-09-30" && *out.ThingGroupId != "")
		}},
		{op: "CreateDynamicThingGroup", want: "InvalidQueryException", says: "leave the group by entering", do: func(o *operator) error {
			return create(o, func(in *iot.CreateDynamicThingGroupInput) { in.QueryString = new("NOT thingGroupNames:*") })
		}},
		{op: "CreateDynamicThingGroup", want: "InvalidQueryException", says: "Invalid query", do: func(o *operator) error {
			return create(o, func(in *iot.CreateDynamicThingGroupInput) { in.QueryString = new("(") })
		}},
		{op: "CreateDynamicThingGroup", want: "InvalidRequestException", says: "indexName", do: func(o *operator) error {
			return create(o, func(in *iot.CreateDynamicThingGroupInput) { in.IndexName = new("Other") })
		}},
		{op: "CreateDynamicThingGroup", want: "ResourceAlreadyExistsException", says: "already exists", do: func(o *operator) error {
			return create(o, func(in *iot.CreateDynamicThingGroupInput) { in.ThingGroupName = new(o.aGroup()) })
		}},
		{op: "CreateDynamicThingGroup", want: "LimitExceededException", says: "at most 1 dynamic", do: func(o *operator) error {
			// A server of its own: the limit is the account's.
			small := newOperator(o.t, testkit.StartServer(o.t, "--registry.max-dynamic-groups=1"))
			small.aDynamicGroup()
			return create(small, func(*iot.CreateDynamicThingGroupInput) {})
		}},
		{op: "UpdateDynamicThingGroup", do: func(o *operator) error {
			group := o.aDynamicGroup()
			out, err := o.UpdateDynamicThingGroup(o.t.Context(), &iot.UpdateDynamicThingGroupInput{
				ThingGroupName: &group, ExpectedVersion: new(int64(1)), QueryString: new("attributes.other:such"), ThingGroupProperties: &types.ThingGroupProperties{},
			})
			if err != nil {
				return err
			}
			found := must(o, o.DescribeThingGroup, &iot.DescribeThingGroupInput{ThingGroupName: &group})
			return mustBe("version and query", out.Version == 2 && *found.QueryString == "attributes.other:such" && found.Status != "")
		}},
		{op: "UpdateDynamicThingGroup", want: "InvalidQueryException", says: "Invalid query", do: func(o *operator) error {
			return update(o, func(in *iot.UpdateDynamicThingGroupInput) { in.QueryString = new(")") })
		}},
		{op: "UpdateDynamicThingGroup", want: "InvalidRequestException", says: "UpdateThingGroup", do: func(o *operator) error {
			return update(o, func(in *iot.UpdateDynamicThingGroupInput) { in.ThingGroupName = new(o.aGroup()) })
		}},
		{op: "UpdateDynamicThingGroup", want: "ResourceNotFoundException", says: "does not exist", do: func(o *operator) error {
			return update(o, func(in *iot.UpdateDynamicThingGroupInput) { in.ThingGroupName = new(named("none")) })
		}},
		{op: "UpdateDynamicThingGroup", want: "VersionConflictException", says: "expectedVersion", do: func(o *operator) error {
			return update(o, func(in *iot.UpdateDynamicThingGroupInput) { in.ExpectedVersion = new(int64(9)) })
		}},
		{op: "DeleteDynamicThingGroup", do: func(o *operator) error {
			_, err := o.DeleteDynamicThingGroup(o.t.Context(), &iot.DeleteDynamicThingGroupInput{ThingGroupName: new(o.aDynamicGroup())})
			return err
		}},
		{op: "DeleteDynamicThingGroup", want: "InvalidRequestException", says: "DeleteThingGroup", do: func(o *operator) error {
			_, err := o.DeleteDynamicThingGroup(o.t.Context(), &iot.DeleteDynamicThingGroupInput{ThingGroupName: new(o.aGroup())})
			return err
		}},
		{op: "DeleteDynamicThingGroup", want: "VersionConflictException", says: "expectedVersion", do: func(o *operator) error {
			_, err := o.DeleteDynamicThingGroup(o.t.Context(), &iot.DeleteDynamicThingGroupInput{
				ThingGroupName: new(o.aDynamicGroup()), ExpectedVersion: new(int64(9)),
			})
			return err
		}},
	}
}

func membershipAnswers() []answerCase {
	return []answerCase{
		{op: "AddThingToThingGroup", do: func(o *operator) error {
			group, thing := o.aGroup(), o.aThing()
			in := &iot.AddThingToThingGroupInput{ThingArn: new(arnPrefix + "thing/" + thing), ThingGroupName: &group, ThingGroupArn: new(arnPrefix + "thinggroup/" + group)}
			must(o, o.AddThingToThingGroup, in)
			_, err := o.AddThingToThingGroup(o.t.Context(), in)
			return err
		}},
		{op: "AddThingToThingGroup", want: "InvalidRequestException", rule: "second of a hierarchy", says: "same hierarchy", do: func(o *operator) error {
			root, thing := o.aGroup(), o.aThing()
			must(o, o.AddThingToThingGroup, &iot.AddThingToThingGroupInput{ThingName: &thing, ThingGroupName: new(o.aGroup(root))})
			_, err := o.AddThingToThingGroup(o.t.Context(), &iot.AddThingToThingGroupInput{ThingName: &thing, ThingGroupName: new(o.aGroup(root))})
			return err
		}},
		{op: "AddThingToThingGroup", want: "InvalidRequestException", rule: "name and ARN differ", says: "different resources", do: func(o *operator) error {
			_, err := o.AddThingToThingGroup(o.t.Context(), &iot.AddThingToThingGroupInput{
				ThingName: new(o.aThing()), ThingGroupName: new(o.aGroup()), ThingGroupArn: new(arnPrefix + "thinggroup/other"),
			})
			return err
		}},
		{op: "AddThingToThingGroup", want: "InvalidRequestException", rule: "dynamic", says: "dynamic group", do: func(o *operator) error {
			_, err := o.AddThingToThingGroup(o.t.Context(), &iot.AddThingToThingGroupInput{ThingName: new(o.aThing()), ThingGroupName: new(o.aDynamicGroup())})
			return err
		}},
		{op: "AddThingToThingGroup", want: "InvalidRequestException", rule: "eleventh", says: "at most 10", do: func(o *operator) error {
			thing := o.aThing()
			for range 10 {
				must(o, o.AddThingToThingGroup, &iot.AddThingToThingGroupInput{ThingName: &thing, ThingGroupName: new(o.aGroup())})
			}
			_, err := o.AddThingToThingGroup(o.t.Context(), &iot.AddThingToThingGroupInput{ThingName: &thing, ThingGroupName: new(o.aGroup())})
			return err
		}},
		{op: "AddThingToThingGroup", want: "ResourceNotFoundException", says: "thing group", do: func(o *operator) error {
			_, err := o.AddThingToThingGroup(o.t.Context(), &iot.AddThingToThingGroupInput{ThingName: new(o.aThing()), ThingGroupName: new(named("none"))})
			return err
		}},
		{op: "RemoveThingFromThingGroup", do: func(o *operator) error {
			_, err := o.RemoveThingFromThingGroup(o.t.Context(), &iot.RemoveThingFromThingGroupInput{ThingName: new(o.aThing()), ThingGroupName: new(o.aGroup())})
			return err
		}},
		{op: "RemoveThingFromThingGroup", want: "InvalidRequestException", says: "dynamic group", do: func(o *operator) error {
			_, err := o.RemoveThingFromThingGroup(o.t.Context(), &iot.RemoveThingFromThingGroupInput{ThingName: new(o.aThing()), ThingGroupName: new(o.aDynamicGroup())})
			return err
		}},
		{op: "RemoveThingFromThingGroup", want: "ResourceNotFoundException", says: "does not exist", do: func(o *operator) error {
			_, err := o.RemoveThingFromThingGroup(o.t.Context(), &iot.RemoveThingFromThingGroupInput{ThingName: new(named("none")), ThingGroupName: new(o.aGroup())})
			return err
		}},
		{op: "UpdateThingGroupsForThing", do: func(o *operator) error {
			root, thing := o.aGroup(), o.aThing()
			from, to := o.aGroup(root), o.aGroup(root)
			must(o, o.AddThingToThingGroup, &iot.AddThingToThingGroupInput{ThingName: &thing, ThingGroupName: &from})
			_, err := o.UpdateThingGroupsForThing(o.t.Context(), &iot.UpdateThingGroupsForThingInput{
				ThingName: &thing, ThingGroupsToAdd: []string{to}, ThingGroupsToRemove: []string{from},
			})
			if err != nil {
				return err
			}
			now := must(o, o.ListThingGroupsForThing, &iot.ListThingGroupsForThingInput{ThingName: &thing}).ThingGroups
			return mustBe("the move", len(now) == 1 && *now[0].GroupName == to)
		}},
		{op: "UpdateThingGroupsForThing", want: "InvalidRequestException", says: "both", do: func(o *operator) error {
			group := o.aGroup()
			_, err := o.UpdateThingGroupsForThing(o.t.Context(), &iot.UpdateThingGroupsForThingInput{
				ThingName: new(o.aThing()), ThingGroupsToAdd: []string{group}, ThingGroupsToRemove: []string{group},
			})
			return err
		}},
		{op: "UpdateThingGroupsForThing", want: "ResourceNotFoundException", says: "does not exist", do: func(o *operator) error {
			group, thing := o.aGroup(), o.aThing()
			must(o, o.AddThingToThingGroup, &iot.AddThingToThingGroupInput{ThingName: &thing, ThingGroupName: &group})
			_, err := o.UpdateThingGroupsForThing(o.t.Context(), &iot.UpdateThingGroupsForThingInput{
				ThingName: &thing, ThingGroupsToAdd: []string{named("none")}, ThingGroupsToRemove: []string{group},
			})
			// All or nothing: the removal has not happened.
			if left := must(o, o.ListThingGroupsForThing, &iot.ListThingGroupsForThingInput{ThingName: &thing}).ThingGroups; len(left) != 1 {
				o.t.Errorf("half of the change was made: %v", left)
			}
			return err
		}},
		{op: "ListThingGroupsForThing", do: func(o *operator) error {
			thing := o.aThing()
			for range 3 {
				must(o, o.AddThingToThingGroup, &iot.AddThingToThingGroupInput{ThingName: &thing, ThingGroupName: new(o.aGroup())})
			}
			pages, seen := iot.NewListThingGroupsForThingPaginator(o.Client, &iot.ListThingGroupsForThingInput{ThingName: &thing, MaxResults: new(int32(2))}), 0
			for pages.HasMorePages() {
				page, err := pages.NextPage(o.t.Context())
				if err != nil {
					return err
				}
				seen += len(page.ThingGroups)
			}
			return mustBe("three groups", seen == 3)
		}},
		{op: "ListThingGroupsForThing", want: "InvalidRequestException", says: "page token is not valid", do: func(o *operator) error {
			_, err := o.ListThingGroupsForThing(o.t.Context(), &iot.ListThingGroupsForThingInput{ThingName: new(o.aThing()), NextToken: new("forged")})
			return err
		}},
		{op: "ListThingGroupsForThing", want: "ResourceNotFoundException", says: "does not exist", do: func(o *operator) error {
			_, err := o.ListThingGroupsForThing(o.t.Context(), &iot.ListThingGroupsForThingInput{ThingName: new(named("none"))})
			return err
		}},
		{op: "ListThingsInThingGroup", do: func(o *operator) error {
			root, thing := o.aGroup(), o.aThing()
			must(o, o.AddThingToThingGroup, &iot.AddThingToThingGroupInput{ThingName: &thing, ThingGroupName: new(o.aGroup(root))})
			own := must(o, o.ListThingsInThingGroup, &iot.ListThingsInThingGroupInput{ThingGroupName: &root})
			all, err := o.ListThingsInThingGroup(o.t.Context(), &iot.ListThingsInThingGroupInput{ThingGroupName: &root, Recursive: true})
			if err != nil {
				return err
			}
			return mustBe("direct and recursive members", len(own.Things) == 0 && slices.Equal(all.Things, []string{thing}))
		}},
		{op: "ListThingsInThingGroup", want: "InvalidRequestException", says: "maxResults", do: func(o *operator) error {
			_, err := o.ListThingsInThingGroup(o.t.Context(), &iot.ListThingsInThingGroupInput{ThingGroupName: new(o.aGroup()), MaxResults: new(int32(251))})
			return err
		}},
		{op: "ListThingsInThingGroup", want: "ResourceNotFoundException", says: "does not exist", do: func(o *operator) error {
			_, err := o.ListThingsInThingGroup(o.t.Context(), &iot.ListThingsInThingGroupInput{ThingGroupName: new(named("none"))})
			return err
		}},
	}
}

func billingAnswers() []answerCase {
	add := func(o *operator, thing, group string) error {
		_, err := o.AddThingToBillingGroup(o.t.Context(), &iot.AddThingToBillingGroupInput{ThingName: &thing, BillingGroupName: &group})
		return err
	}
	remove := func(o *operator, thing, group string) error {
		_, err := o.RemoveThingFromBillingGroup(o.t.Context(), &iot.RemoveThingFromBillingGroupInput{ThingName: &thing, BillingGroupName: &group})
		return err
	}
	return []answerCase{
		{op: "CreateBillingGroup", do: func(o *operator) error {
			in := &iot.CreateBillingGroupInput{
				BillingGroupName: new(named("billing")), Tags: []types.Tag{{Key: new("a"), Value: new("b")}},
				BillingGroupProperties: &types.BillingGroupProperties{BillingGroupDescription: new("d")},
			}
			first := must(o, o.CreateBillingGroup, in)
			again, err := o.CreateBillingGroup(o.t.Context(), in)
			if err != nil {
				return err
			}
			return mustBe("the same group", *again.BillingGroupId == *first.BillingGroupId && *again.BillingGroupArn == arnPrefix+"billinggroup/"+*in.BillingGroupName)
		}},
		{op: "CreateBillingGroup", want: "InvalidRequestException", says: "billingGroupName", do: func(o *operator) error {
			_, err := o.CreateBillingGroup(o.t.Context(), &iot.CreateBillingGroupInput{BillingGroupName: new("a b")})
			return err
		}},
		{op: "CreateBillingGroup", want: "ResourceAlreadyExistsException", says: "already exists", do: func(o *operator) error {
			_, err := o.CreateBillingGroup(o.t.Context(), &iot.CreateBillingGroupInput{
				BillingGroupName: new(o.aBillingGroup()), BillingGroupProperties: &types.BillingGroupProperties{BillingGroupDescription: new("other")},
			})
			return err
		}},
		{op: "UpdateBillingGroup", do: func(o *operator) error {
			group := o.aBillingGroup()
			out, err := o.UpdateBillingGroup(o.t.Context(), &iot.UpdateBillingGroupInput{
				BillingGroupName: &group, ExpectedVersion: new(int64(1)), BillingGroupProperties: &types.BillingGroupProperties{BillingGroupDescription: new("new")},
			})
			if err != nil {
				return err
			}
			return mustBe("version 2", out.Version == 2)
		}},
		{op: "UpdateBillingGroup", want: "InvalidRequestException", says: "billingGroupDescription", do: func(o *operator) error {
			_, err := o.UpdateBillingGroup(o.t.Context(), &iot.UpdateBillingGroupInput{
				BillingGroupName: new(o.aBillingGroup()), BillingGroupProperties: &types.BillingGroupProperties{BillingGroupDescription: new("ü")},
			})
			return err
		}},
		{op: "UpdateBillingGroup", want: "ResourceNotFoundException", says: "does not exist", do: func(o *operator) error {
			_, err := o.UpdateBillingGroup(o.t.Context(), &iot.UpdateBillingGroupInput{
				BillingGroupName: new(named("none")), BillingGroupProperties: &types.BillingGroupProperties{},
			})
			return err
		}},
		{op: "UpdateBillingGroup", want: "VersionConflictException", says: "expectedVersion", do: func(o *operator) error {
			_, err := o.UpdateBillingGroup(o.t.Context(), &iot.UpdateBillingGroupInput{
				BillingGroupName: new(o.aBillingGroup()), ExpectedVersion: new(int64(0)), BillingGroupProperties: &types.BillingGroupProperties{},
			})
			return err
		}},
		{op: "DescribeBillingGroup", do: func(o *operator) error {
			in := &iot.CreateBillingGroupInput{
				BillingGroupName: new(named("billing")), BillingGroupProperties: &types.BillingGroupProperties{BillingGroupDescription: new("d")},
			}
			made := must(o, o.CreateBillingGroup, in)
			out, err := o.DescribeBillingGroup(o.t.Context(), &iot.DescribeBillingGroupInput{BillingGroupName: in.BillingGroupName})
			if err != nil {
				return err
			}
			return mustBe("all members", *out.BillingGroupName == *in.BillingGroupName && *out.BillingGroupId == *made.BillingGroupId &&
				*out.BillingGroupArn == *made.BillingGroupArn && out.Version == 1 && *out.BillingGroupProperties.BillingGroupDescription == "d" &&
				!out.BillingGroupMetadata.CreationDate.IsZero())
		}},
		{op: "DescribeBillingGroup", want: "InvalidRequestException", says: "billingGroupName", do: func(o *operator) error {
			_, err := o.DescribeBillingGroup(o.t.Context(), &iot.DescribeBillingGroupInput{BillingGroupName: new("a b")})
			return err
		}},
		{op: "DescribeBillingGroup", want: "ResourceNotFoundException", says: "does not exist", do: func(o *operator) error {
			_, err := o.DescribeBillingGroup(o.t.Context(), &iot.DescribeBillingGroupInput{BillingGroupName: new(named("none"))})
			return err
		}},
		{op: "ListBillingGroups", do: func(o *operator) error {
			prefix := named("list")
			for i := range 3 {
				must(o, o.CreateBillingGroup, &iot.CreateBillingGroupInput{BillingGroupName: new(fmt.Sprintf("%s-%d", prefix, i))})
			}
			var names []string
			pages := iot.NewListBillingGroupsPaginator(o.Client, &iot.ListBillingGroupsInput{NamePrefixFilter: &prefix, MaxResults: new(int32(2))})
			for pages.HasMorePages() {
				page, err := pages.NextPage(o.t.Context())
				if err != nil {
					return err
				}
				for _, g := range page.BillingGroups {
					names = append(names, *g.GroupArn)
				}
			}
			arn := arnPrefix + "billinggroup/" + prefix
			return mustBe(strings.Join(names, " "), slices.Equal(names, []string{arn + "-0", arn + "-1", arn + "-2"}))
		}},
		{op: "ListBillingGroups", want: "InvalidRequestException", says: "page token is not valid", do: func(o *operator) error {
			_, err := o.ListBillingGroups(o.t.Context(), &iot.ListBillingGroupsInput{NextToken: new("forged")})
			return err
		}},
		{op: "AddThingToBillingGroup", do: func(o *operator) error {
			group, thing := o.aBillingGroup(), o.aThing()
			in := &iot.AddThingToBillingGroupInput{
				ThingArn: new(arnPrefix + "thing/" + thing), BillingGroupName: &group, BillingGroupArn: new(arnPrefix + "billinggroup/" + group),
			}
			must(o, o.AddThingToBillingGroup, in)
			if _, err := o.AddThingToBillingGroup(o.t.Context(), in); err != nil {
				return err
			}
			found := must(o, o.DescribeThing, &iot.DescribeThingInput{ThingName: &thing})
			return mustBe("the thing says it", *found.BillingGroupName == group && found.Version == 1)
		}},
		{op: "AddThingToBillingGroup", want: "InvalidRequestException", says: "billingGroupName or billingGroupArn", do: func(o *operator) error {
			_, err := o.AddThingToBillingGroup(o.t.Context(), &iot.AddThingToBillingGroupInput{ThingName: new(o.aThing())})
			return err
		}},
		{op: "AddThingToBillingGroup", want: "InvalidRequestException", rule: "second", says: "remove it from there first", do: func(o *operator) error {
			thing := o.aThing()
			if err := add(o, thing, o.aBillingGroup()); err != nil {
				return err
			}
			return add(o, thing, o.aBillingGroup())
		}},
		{op: "AddThingToBillingGroup", want: "InvalidRequestException", rule: "name and ARN differ", says: "different resources", do: func(o *operator) error {
			_, err := o.AddThingToBillingGroup(o.t.Context(), &iot.AddThingToBillingGroupInput{
				ThingName: new(o.aThing()), BillingGroupName: new(o.aBillingGroup()), BillingGroupArn: new(arnPrefix + "billinggroup/other"),
			})
			return err
		}},
		{op: "AddThingToBillingGroup", want: "ResourceNotFoundException", says: "billing group", do: func(o *operator) error { return add(o, o.aThing(), named("none")) }},
		{op: "RemoveThingFromBillingGroup", do: func(o *operator) error {
			group := o.aBillingGroup()
			thing := *must(o, o.CreateThing, &iot.CreateThingInput{ThingName: new(named("thing")), BillingGroupName: &group}).ThingName
			if err := remove(o, thing, group); err != nil {
				return err
			}
			left := must(o, o.ListThingsInBillingGroup, &iot.ListThingsInBillingGroupInput{BillingGroupName: &group})
			return mustBe("nobody left", len(left.Things) == 0)
		}},
		{op: "RemoveThingFromBillingGroup", want: "InvalidRequestException", says: "thingName or thingArn", do: func(o *operator) error {
			_, err := o.RemoveThingFromBillingGroup(o.t.Context(), &iot.RemoveThingFromBillingGroupInput{BillingGroupName: new(o.aBillingGroup())})
			return err
		}},
		{op: "RemoveThingFromBillingGroup", want: "ResourceNotFoundException", says: "thing", do: func(o *operator) error { return remove(o, named("none"), o.aBillingGroup()) }},
		{op: "ListThingsInBillingGroup", do: func(o *operator) error {
			group := o.aBillingGroup()
			for range 3 {
				if err := add(o, o.aThing(), group); err != nil {
					return err
				}
			}
			pages, seen := iot.NewListThingsInBillingGroupPaginator(o.Client, &iot.ListThingsInBillingGroupInput{BillingGroupName: &group, MaxResults: new(int32(2))}), 0
			for pages.HasMorePages() {
				page, err := pages.NextPage(o.t.Context())
				if err != nil {
					return err
				}
				seen += len(page.Things)
			}
			return mustBe("three things", seen == 3)
		}},
		{op: "ListThingsInBillingGroup", want: "InvalidRequestException", says: "page token is not valid", do: func(o *operator) error {
			_, err := o.ListThingsInBillingGroup(o.t.Context(), &iot.ListThingsInBillingGroupInput{BillingGroupName: new(o.aBillingGroup()), NextToken: new("forged")})
			return err
		}},
		{op: "ListThingsInBillingGroup", want: "ResourceNotFoundException", says: "does not exist", do: func(o *operator) error {
			_, err := o.ListThingsInBillingGroup(o.t.Context(), &iot.ListThingsInBillingGroupInput{BillingGroupName: new(named("none"))})
			return err
		}},
		{op: "DeleteBillingGroup", do: func(o *operator) error {
			group, thing := o.aBillingGroup(), o.aThing()
			if err := add(o, thing, group); err != nil {
				return err
			}
			if _, err := o.DeleteBillingGroup(o.t.Context(), &iot.DeleteBillingGroupInput{BillingGroupName: &group}); err != nil {
				return err
			}
			return mustBe("the thing lost it", must(o, o.DescribeThing, &iot.DescribeThingInput{ThingName: &thing}).BillingGroupName == nil)
		}},
		{op: "DeleteBillingGroup", rule: "unknown", do: func(o *operator) error {
			_, err := o.DeleteBillingGroup(o.t.Context(), &iot.DeleteBillingGroupInput{BillingGroupName: new(named("none"))})
			return err
		}},
		{op: "DeleteBillingGroup", want: "InvalidRequestException", says: "billingGroupName", do: func(o *operator) error {
			_, err := o.DeleteBillingGroup(o.t.Context(), &iot.DeleteBillingGroupInput{BillingGroupName: new("a b")})
			return err
		}},
		{op: "DeleteBillingGroup", want: "VersionConflictException", says: "expectedVersion", do: func(o *operator) error {
			_, err := o.DeleteBillingGroup(o.t.Context(), &iot.DeleteBillingGroupInput{BillingGroupName: new(o.aBillingGroup()), ExpectedVersion: new(int64(9))})
			return err
		}},
	}
}

func tagAnswers() []answerCase {
	put := func(o *operator, arn string, tags ...types.Tag) error {
		_, err := o.TagResource(o.t.Context(), &iot.TagResourceInput{ResourceArn: &arn, Tags: tags})
		return err
	}
	one := types.Tag{Key: new("site"), Value: new("oslo 1")}
	many := func(prefix string, n int) []types.Tag {
		tags := make([]types.Tag, n)
		for i := range tags {
			tags[i] = types.Tag{Key: new(fmt.Sprintf("%s%02d", prefix, i)), Value: new("")}
		}
		return tags
	}
	return []answerCase{
		{op: "TagResource", do: func(o *operator) error {
			for _, arn := range []string{
				arnPrefix + "thinggroup/" + o.aGroup(), arnPrefix + "thinggroup/" + o.aDynamicGroup(), arnPrefix + "billinggroup/" + o.aBillingGroup(),
				*must(o, o.CreateThingType, &iot.CreateThingTypeInput{ThingTypeName: new(named("type")), Tags: many("first", 1)}).ThingTypeArn,
				*must(o, o.CreatePolicy, &iot.CreatePolicyInput{
					PolicyName: new(named("policy")), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Connect","Resource":"*"}]}`),
					Tags: many("first", 1),
				}).PolicyArn,
			} {
				if err := put(o, arn, one); err != nil {
					return fmt.Errorf("%s: %w", arn, err)
				}
				found := must(o, o.ListTagsForResource, &iot.ListTagsForResourceInput{ResourceArn: &arn}).Tags
				if last := found[len(found)-1]; *last.Key != "site" || *last.Value != "oslo 1" {
					return fmt.Errorf("%s has %v", arn, found)
				}
			}
			return nil
		}},
		{op: "TagResource", want: "InvalidRequestException", says: "aws:", do: func(o *operator) error {
			return put(o, arnPrefix+"thinggroup/"+o.aGroup(), types.Tag{Key: new("aws:site"), Value: new("x")})
		}},
		{op: "TagResource", want: "InvalidRequestException", rule: "thing", says: "kind thing has no tags", do: func(o *operator) error {
			return put(o, arnPrefix+"thing/"+o.aThing(), one)
		}},
		{op: "TagResource", want: "LimitExceededException", says: "at most 50", do: func(o *operator) error {
			arn := arnPrefix + "thinggroup/" + o.aGroup()
			if err := put(o, arn, many("a", 50)...); err != nil {
				return err
			}
			return put(o, arn, one)
		}},
		{op: "TagResource", want: "ResourceNotFoundException", says: "does not exist", do: func(o *operator) error {
			return put(o, arnPrefix+"billinggroup/"+named("none"), one)
		}},
		{op: "UntagResource", do: func(o *operator) error {
			arn := arnPrefix + "billinggroup/" + o.aBillingGroup()
			if err := put(o, arn, many("a", 2)...); err != nil {
				return err
			}
			if _, err := o.UntagResource(o.t.Context(), &iot.UntagResourceInput{ResourceArn: &arn, TagKeys: []string{"a00", "none"}}); err != nil {
				return err
			}
			left := must(o, o.ListTagsForResource, &iot.ListTagsForResourceInput{ResourceArn: &arn}).Tags
			return mustBe("one left", len(left) == 1 && *left[0].Key == "a01")
		}},
		{op: "UntagResource", want: "InvalidRequestException", says: "resourceArn", do: func(o *operator) error {
			_, err := o.UntagResource(o.t.Context(), &iot.UntagResourceInput{ResourceArn: new("thinggroup/x"), TagKeys: []string{"a"}})
			return err
		}},
		{op: "UntagResource", want: "ResourceNotFoundException", says: "does not exist", do: func(o *operator) error {
			_, err := o.UntagResource(o.t.Context(), &iot.UntagResourceInput{ResourceArn: new(arnPrefix + "policy/" + named("none")), TagKeys: []string{"a"}})
			return err
		}},
		{op: "ListTagsForResource", do: func(o *operator) error {
			arn := arnPrefix + "thinggroup/" + o.aGroup()
			if err := put(o, arn, many("a", 50)...); err != nil {
				return err
			}
			pages, seen := iot.NewListTagsForResourcePaginator(o.Client, &iot.ListTagsForResourceInput{ResourceArn: &arn}), map[string]bool{}
			for pages.HasMorePages() {
				page, err := pages.NextPage(o.t.Context())
				if err != nil {
					return err
				}
				for _, tag := range page.Tags {
					seen[*tag.Key] = true
				}
			}
			return mustBe("fifty tags", len(seen) == 50)
		}},
		{op: "ListTagsForResource", want: "InvalidRequestException", says: "page token is not valid", do: func(o *operator) error {
			_, err := o.ListTagsForResource(o.t.Context(), &iot.ListTagsForResourceInput{ResourceArn: new(arnPrefix + "thinggroup/" + o.aGroup()), NextToken: new("forged")})
			return err
		}},
		{op: "ListTagsForResource", want: "ResourceNotFoundException", says: "does not exist", do: func(o *operator) error {
			_, err := o.ListTagsForResource(o.t.Context(), &iot.ListTagsForResourceInput{ResourceArn: new(arnPrefix + "thingtype/" + named("none"))})
			return err
		}},
	}
}

func eventConfigurationAnswers() []answerCase {
	set := func(o *operator, kind string, on bool) error {
		_, err := o.UpdateEventConfigurations(o.t.Context(), &iot.UpdateEventConfigurationsInput{
			EventConfigurations: map[string]types.Configuration{kind: {Enabled: on}},
		})
		return err
	}
	return []answerCase{
		{op: "UpdateEventConfigurations", do: func(o *operator) error { return set(o, "THING_TYPE", true) }},
		{op: "UpdateEventConfigurations", rule: "off what is off", do: func(o *operator) error { return set(o, "JOB", false) }},
		{op: "UpdateEventConfigurations", want: "InvalidRequestException", says: "THINGS", do: func(o *operator) error { return set(o, "THINGS", true) }},
		{op: "UpdateEventConfigurations", want: "InvalidRequestException", rule: "nothing publishes it", says: "JOB_EXECUTION are not offered", do: func(o *operator) error {
			return set(o, "JOB_EXECUTION", true)
		}},
		{op: "DescribeEventConfigurations", do: func(o *operator) error {
			if err := set(o, "THING_GROUP_HIERARCHY", true); err != nil {
				return err
			}
			out, err := o.DescribeEventConfigurations(o.t.Context(), &iot.DescribeEventConfigurationsInput{})
			if err != nil {
				return err
			}
			return mustBe("switches and times", len(out.EventConfigurations) == 11 && out.EventConfigurations["THING_GROUP_HIERARCHY"].Enabled &&
				!out.EventConfigurations["JOB"].Enabled && !out.CreationDate.IsZero() && !out.LastModifiedDate.Before(*out.CreationDate))
		}},
	}
}

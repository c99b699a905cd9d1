package sdk

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/aws/aws-sdk-go/service/iotdataplane" //nolint:staticcheck // the newer SDK's data plane clients are not to be had.
)

// failing calls an operation whose answer nobody wants.
func failing[In, Out any](call func(context.Context, *In, ...func(*iot.Options)) (*Out, error), in *In) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := call(ctx, in)
		return err
	}
}

// TestTypedExceptions provokes one refusal of each kind. The SDK must make its
// own exception type of the answer, with the members that callers branch on.
func TestTypedExceptions(t *testing.T) {
	t.Parallel()
	o := newOperator(t, startServer(t))
	fleetOf(o)
	as := o.register("pump-1")
	for range 4 {
		must(o, o.CreatePolicyVersion, &iot.CreatePolicyVersionInput{PolicyName: new("site"), PolicyDocument: new(sitePolicy)})
	}
	absent := arnPrefix + "cert/" + strings.Repeat("0", 64)
	cases := []struct {
		name string
		call func(context.Context) error
		want error
	}{
		{"ThingAbsent", failing(o.DescribeThing, &iot.DescribeThingInput{ThingName: new("nobody")}), &types.ResourceNotFoundException{}},
		{"GroupAbsent", failing(o.DescribeThingGroup, &iot.DescribeThingGroupInput{ThingGroupName: new("nobody")}), &types.ResourceNotFoundException{}},
		{"TypeAbsent", failing(o.CreateThing, &iot.CreateThingInput{ThingName: new("t"), ThingTypeName: new("Fan")}), &types.ResourceNotFoundException{}},
		{"PrincipalAbsent", failing(o.AttachThingPrincipal, &iot.AttachThingPrincipalInput{ThingName: new("pump-1"), Principal: &absent}), &types.ResourceNotFoundException{}},
		{"ThingDiffers", failing(o.CreateThing, &iot.CreateThingInput{
			ThingName: new("pump-1"), AttributePayload: &types.AttributePayload{Attributes: map[string]string{"site": "york"}},
		}), &types.ResourceAlreadyExistsException{}},
		{"PolicyExists", failing(o.CreatePolicy, &iot.CreatePolicyInput{PolicyName: new("site"), PolicyDocument: new(sitePolicy)}), &types.ResourceAlreadyExistsException{}},
		{"ThingVersion", failing(o.UpdateThing, &iot.UpdateThingInput{ThingName: new("pump-1"), ExpectedVersion: new(int64(41))}), &types.VersionConflictException{}},
		{"GroupVersion", failing(o.UpdateThingGroup, &iot.UpdateThingGroupInput{
			ThingGroupName: new("plant"), ExpectedVersion: new(int64(41)), ThingGroupProperties: &types.ThingGroupProperties{},
		}), &types.VersionConflictException{}},
		{"QueryOfSearch", failing(o.SearchIndex, &iot.SearchIndexInput{QueryString: new("shadow.reported.battery>>90")}), &types.InvalidQueryException{}},
		{"QueryOfGroup", failing(o.CreateDynamicThingGroup, &iot.CreateDynamicThingGroupInput{
			ThingGroupName: new("g"), QueryString: new("(thingName:a"),
		}), &types.InvalidQueryException{}},
		{"PolicyAttached", failing(o.DeletePolicy, &iot.DeletePolicyInput{PolicyName: new("device")}), &types.DeleteConflictException{}},
		{"PolicyMalformed", failing(o.CreatePolicy, &iot.CreatePolicyInput{PolicyName: new("p"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Perhaps"}]}`)}), &types.MalformedPolicyException{}},
		{"PolicyVersions", failing(o.CreatePolicyVersion, &iot.CreatePolicyVersionInput{PolicyName: new("site"), PolicyDocument: new(sitePolicy)}), &types.VersionsLimitExceededException{}},
		{"CertificateActive", failing(o.DeleteCertificate, &iot.DeleteCertificateInput{CertificateId: &as.id}), &types.CertificateStateException{}},
		{"ParentOfOthers", failing(o.DeleteThingGroup, &iot.DeleteThingGroupInput{ThingGroupName: new("plant")}), &types.InvalidRequestException{}},
		{"MemberOfDynamic", failing(o.AddThingToThingGroup, &iot.AddThingToThingGroupInput{
			ThingName: new("pump-1"), ThingGroupName: new("full-battery"),
		}), &types.InvalidRequestException{}},
		{"NameOutOfPattern", failing(o.CreateThing, &iot.CreateThingInput{ThingName: new("a b")}), &types.InvalidRequestException{}},
		{"NotOffered", failing(o.CreateJob, &iot.CreateJobInput{JobId: new("j"), Targets: []string{arnPrefix + "thing/pump-1"}}), &types.InvalidRequestException{}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := c.call(t.Context())
			target := reflect.New(reflect.TypeOf(c.want))
			if !errors.As(err, target.Interface()) {
				t.Fatalf("got %v, want %T", err, c.want)
			}
			if _, message := answered(err); message == "" {
				t.Errorf("%v has no message", err)
			}
		})
	}
}

// TestExistingResourceIsNamed checks the members beyond the message: what
// exists already is named by id and ARN.
func TestExistingResourceIsNamed(t *testing.T) {
	t.Parallel()
	o := newOperator(t, startServer(t))
	made := must(o, o.CreateThing, &iot.CreateThingInput{ThingName: new("pump-1")})
	again := must(o, o.CreateThing, &iot.CreateThingInput{ThingName: new("pump-1")})
	if *again.ThingId != *made.ThingId {
		t.Errorf("an equal thing got id %s, was %s", *again.ThingId, *made.ThingId)
	}
	_, err := o.CreateThing(t.Context(), &iot.CreateThingInput{
		ThingName: new("pump-1"), AttributePayload: &types.AttributePayload{Attributes: map[string]string{"a": "b"}},
	})
	exists, ok := errors.AsType[*types.ResourceAlreadyExistsException](err)
	if !ok || val(exists.ResourceArn) != *made.ThingArn || val(exists.ResourceId) != *made.ThingId {
		t.Errorf("got %v %+v, want ARN %s and id %s", err, exists, *made.ThingArn, *made.ThingId)
	}
}

// TestDataPlaneExceptions checks the data plane's own names and texts.
func TestDataPlaneExceptions(t *testing.T) {
	t.Parallel()
	o := newOperator(t, startServer(t))
	must(o, o.CreateThing, &iot.CreateThingInput{ThingName: new("pump-1")})
	o.updateShadow("pump-1", `{"state":{"reported":{"battery":95}}}`)
	update := func(payload string) error {
		_, err := o.data.UpdateThingShadowWithContext(t.Context(), &iotdataplane.UpdateThingShadowInput{ThingName: new("pump-1"), Payload: []byte(payload)})
		return err
	}
	_, absent := o.data.GetThingShadowWithContext(t.Context(), &iotdataplane.GetThingShadowInput{ThingName: new("pump-1"), ShadowName: new("config")})
	_, forgotten := o.data.DeleteThingShadowWithContext(t.Context(), &iotdataplane.DeleteThingShadowInput{ThingName: new("nobody")})
	for _, c := range []struct {
		name       string
		err        error
		code, text string
	}{
		{"shadow absent", absent, "ResourceNotFoundException", "No shadow exists with name: 'config'"},
		{"thing without shadow", forgotten, "ResourceNotFoundException", "No shadow exists with name: 'nobody'"},
		{"version", update(`{"state":{"reported":{"battery":1}},"version":41}`), "ConflictException", "Version conflict"},
		{"no JSON", update(`{"state":`), "InvalidRequestException", ""},
		{"no state", update(`{"desired":{}}`), "InvalidRequestException", ""},
		{"too large", update(`{"state":{"reported":{"text":"` + strings.Repeat("x", 9000) + `"}}}`), "RequestEntityTooLargeException", ""},
	} {
		code, message := answered(c.err)
		if code != c.code || !strings.Contains(message, c.text) || message == "" {
			t.Errorf("%s: got %v, want %s %q", c.name, c.err, c.code, c.text)
		}
	}
	// What was refused has changed nothing.
	out, err := o.data.GetThingShadowWithContext(t.Context(), &iotdataplane.GetThingShadowInput{ThingName: new("pump-1")})
	if err != nil {
		t.Fatal(err)
	}
	if text := string(out.Payload); !strings.Contains(text, `"battery":95`) || !strings.Contains(text, `"version":1`) {
		t.Errorf("the shadow is %s", text)
	}
}

// TestWrongKeyIsRefused signs with what the server does not know.
func TestWrongKeyIsRefused(t *testing.T) {
	t.Parallel()
	server := startServer(t)
	id, secret := server.Credentials()
	for name, c := range map[string]*iot.Client{
		"secret": controlPlane(server, id, secret+"x"),
		"id":     controlPlane(server, "AKIAUNKNOWN", secret),
	} {
		_, err := c.ListThings(t.Context(), &iot.ListThingsInput{})
		code, _ := answered(err)
		if !slices.Contains([]string{"InvalidSignatureException", "UnrecognizedClientException"}, code) {
			t.Errorf("wrong %s: got %v", name, err)
		}
	}
}

// pager is what the SDK's paginators have in common.
type pager[Out any] interface {
	HasMorePages() bool
	NextPage(ctx context.Context, options ...func(*iot.Options)) (*Out, error)
}

// pages collects names and the sizes of the pages that they came in.
func pages[Out any](t *testing.T, p pager[Out], names func(*Out) []string) (all []string, sizes []int) {
	t.Helper()
	for p.HasMorePages() {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		page := names(out)
		all, sizes = append(all, page...), append(sizes, len(page))
		if len(sizes) > 100 {
			t.Fatal("the pages do not end")
		}
	}
	slices.Sort(all)
	return all, sizes
}

// TestPaginators walks lists with the SDK's paginators: every page is full but
// the last, and nothing is left out or told twice.
func TestPaginators(t *testing.T) {
	t.Parallel()
	const n, page = 7, int32(3)
	o := newOperator(t, startServer(t))
	must(o, o.CreateThingGroup, &iot.CreateThingGroupInput{ThingGroupName: new("all")})
	var want []string
	as := o.newIdentity()
	for i := range n {
		name := fmt.Sprintf("x-%d", i)
		want = append(want, name)
		must(o, o.CreateThing, &iot.CreateThingInput{ThingName: &name})
		must(o, o.CreateThingGroup, &iot.CreateThingGroupInput{ThingGroupName: &name, ParentGroupName: new("all")})
		must(o, o.AddThingToThingGroup, &iot.AddThingToThingGroupInput{ThingName: &name, ThingGroupName: new("all")})
		must(o, o.CreateThingType, &iot.CreateThingTypeInput{ThingTypeName: &name})
		must(o, o.CreatePolicy, &iot.CreatePolicyInput{PolicyName: &name, PolicyDocument: new(sitePolicy)})
		must(o, o.AttachPolicy, &iot.AttachPolicyInput{PolicyName: &name, Target: &as.arn})
		must(o, o.AttachThingPrincipal, &iot.AttachThingPrincipalInput{ThingName: &name, Principal: &as.arn})
	}
	check := func(what string, all []string, sizes []int) {
		t.Helper()
		if !slices.Equal(all, want) || !slices.Equal(sizes, []int{3, 3, 1}) {
			t.Errorf("%s: %q in pages of %v", what, all, sizes)
		}
	}
	all, sizes := pages(t, iot.NewListThingsPaginator(o, &iot.ListThingsInput{MaxResults: new(page)}), func(out *iot.ListThingsOutput) (names []string) {
		for _, x := range out.Things {
			names = append(names, *x.ThingName)
		}
		return names
	})
	check("ListThings", all, sizes)
	all, sizes = pages(t, iot.NewListThingGroupsPaginator(o, &iot.ListThingGroupsInput{ParentGroup: new("all"), MaxResults: new(page)}), func(out *iot.ListThingGroupsOutput) (names []string) {
		for _, x := range out.ThingGroups {
			names = append(names, *x.GroupName)
		}
		return names
	})
	check("ListThingGroups", all, sizes)
	all, sizes = pages(t, iot.NewListThingsInThingGroupPaginator(o, &iot.ListThingsInThingGroupInput{ThingGroupName: new("all"), MaxResults: new(page)}), func(out *iot.ListThingsInThingGroupOutput) []string {
		return out.Things
	})
	check("ListThingsInThingGroup", all, sizes)
	all, sizes = pages(t, iot.NewListThingTypesPaginator(o, &iot.ListThingTypesInput{MaxResults: new(page)}), func(out *iot.ListThingTypesOutput) (names []string) {
		for _, x := range out.ThingTypes {
			names = append(names, *x.ThingTypeName)
		}
		return names
	})
	check("ListThingTypes", all, sizes)
	all, sizes = pages(t, iot.NewListPoliciesPaginator(o, &iot.ListPoliciesInput{PageSize: new(page)}), func(out *iot.ListPoliciesOutput) (names []string) {
		for _, x := range out.Policies {
			names = append(names, *x.PolicyName)
		}
		return names
	})
	check("ListPolicies", all, sizes)
	all, sizes = pages(t, iot.NewListAttachedPoliciesPaginator(o, &iot.ListAttachedPoliciesInput{Target: &as.arn, PageSize: new(page)}), func(out *iot.ListAttachedPoliciesOutput) (names []string) {
		for _, x := range out.Policies {
			names = append(names, *x.PolicyName)
		}
		return names
	})
	check("ListAttachedPolicies", all, sizes)
	all, sizes = pages(t, iot.NewListPrincipalThingsPaginator(o, &iot.ListPrincipalThingsInput{Principal: &as.arn, MaxResults: new(page)}), func(out *iot.ListPrincipalThingsOutput) []string {
		return out.Things
	})
	check("ListPrincipalThings", all, sizes)
	all, sizes = pages(t, &searchPager{o: o, in: iot.SearchIndexInput{QueryString: new("thingName:x-*"), MaxResults: new(page)}}, func(out *iot.SearchIndexOutput) (names []string) {
		for _, x := range out.Things {
			names = append(names, *x.ThingName)
		}
		return names
	})
	check("SearchIndex", all, sizes)

	first := must(o, o.ListThings, &iot.ListThingsInput{MaxResults: new(page)})
	forged := "A" + (*first.NextToken)[1:]
	if forged == *first.NextToken {
		forged = "B" + forged[1:]
	}
	_, err := o.ListThings(t.Context(), &iot.ListThingsInput{MaxResults: new(page), NextToken: &forged})
	if _, ok := errors.AsType[*types.InvalidRequestException](err); !ok {
		t.Errorf("a forged token: got %v", err)
	}
	_, err = o.ListPolicies(t.Context(), &iot.ListPoliciesInput{Marker: first.NextToken})
	if _, ok := errors.AsType[*types.InvalidRequestException](err); !ok {
		t.Errorf("another operation's token: got %v", err)
	}
}

// searchPager walks SearchIndex, for which the SDK has no paginator.
type searchPager struct {
	o    *operator
	in   iot.SearchIndexInput
	last bool
}

// HasMorePages reports whether a page is left.
func (p *searchPager) HasMorePages() bool { return !p.last }

// NextPage fetches it.
func (p *searchPager) NextPage(ctx context.Context, options ...func(*iot.Options)) (*iot.SearchIndexOutput, error) {
	out, err := p.o.SearchIndex(ctx, &p.in, options...)
	if err == nil {
		p.in.NextToken, p.last = out.NextToken, out.NextToken == nil
	}
	return out, err
}

package sdk

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
)

// allowedTopic is a document about one topic.
func allowedTopic(topic string) *string {
	return new(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:Publish","Resource":"` + arnPrefix + `topic/` + topic + `"}}`)
}

// newPolicy makes a policy with a number of versions, the first in force.
func (o *operator) newPolicy(versions int) *string {
	o.t.Helper()
	name := named("policy")
	must(o, o.CreatePolicy, &iot.CreatePolicyInput{PolicyName: &name, PolicyDocument: allowedTopic("1")})
	for range versions - 1 {
		must(o, o.CreatePolicyVersion, &iot.CreatePolicyVersionInput{PolicyName: &name, PolicyDocument: allowedTopic("2")})
	}
	return &name
}

// newCertificate makes an active certificate and returns its ARN.
func (o *operator) newCertificate() *string {
	o.t.Helper()
	return must(o, o.CreateKeysAndCertificate, &iot.CreateKeysAndCertificateInput{SetAsActive: true}).CertificateArn
}

// newGroup makes a group and returns its name and ARN.
func (o *operator) newGroup(parent *string) (name, arn *string) {
	o.t.Helper()
	made := must(o, o.CreateThingGroup, &iot.CreateThingGroupInput{ThingGroupName: new(named("group")), ParentGroupName: parent})
	return made.ThingGroupName, made.ThingGroupArn
}

// attached makes a policy that is on a target.
func (o *operator) attached(target *string) *string {
	o.t.Helper()
	policy := o.newPolicy(1)
	must(o, o.AttachPolicy, &iot.AttachPolicyInput{PolicyName: policy, Target: target})
	return policy
}

// absentCertificate is the ARN of one that nobody has.
func absentCertificate() *string { return new(arnPrefix + "cert/" + strings.Repeat("0", 64)) }

// differs is the error about an answer that is not the wanted one; nil if it is.
func differs(what string, got, want any) error {
	if fmt.Sprint(got) == fmt.Sprint(want) {
		return nil
	}
	return fmt.Errorf("%s: %v, want %v", what, got, want)
}

// policyAnswers are the cases of policies.
func policyAnswers() []answerCase {
	return slices.Concat(
		policyDocumentAnswers(), policyVersionAnswers(), policyDeletionAnswers(), attachmentAnswers(), principalPolicyAnswers(),
		policyListAnswers(), effectivePolicyAnswers(), testAuthorizationAnswers(),
	)
}

// policyDocumentAnswers are about documents and names.
func policyDocumentAnswers() []answerCase {
	malformed := func(document string) func(*operator) error {
		return func(o *operator) error {
			_, err := o.CreatePolicy(o.t.Context(), &iot.CreatePolicyInput{PolicyName: new(named("policy")), PolicyDocument: &document})
			return err
		}
	}
	const head = `{"Version":"2012-10-17",` + "\n" + ` "Statement":[{"Effect":"Allow","Action":"iot:Publish",`
	return []answerCase{
		{op: "CreatePolicy", do: func(o *operator) error {
			name := named("policy")
			out, err := o.CreatePolicy(o.t.Context(), &iot.CreatePolicyInput{PolicyName: &name, PolicyDocument: allowedTopic("1")})
			if err != nil {
				return err
			}
			return differs("policy", []string{*out.PolicyName, *out.PolicyArn, *out.PolicyDocument, *out.PolicyVersionId},
				[]string{name, arnPrefix + "policy/" + name, *allowedTopic("1"), "1"})
		}},
		{op: "CreatePolicy", want: "ResourceAlreadyExistsException", says: "already exists", do: func(o *operator) error {
			_, err := o.CreatePolicy(o.t.Context(), &iot.CreatePolicyInput{PolicyName: o.newPolicy(1), PolicyDocument: allowedTopic("1")})
			return err
		}},
		{op: "CreatePolicy", want: "InvalidRequestException", says: "policyName", do: func(o *operator) error {
			_, err := o.CreatePolicy(o.t.Context(), &iot.CreatePolicyInput{PolicyName: new("a b"), PolicyDocument: allowedTopic("1")})
			return err
		}},
		{op: "CreatePolicy", want: "MalformedPolicyException", rule: "no JSON", says: "line 1, column 11", do: malformed(`{"Version:}`)},
		{
			op: "CreatePolicy", want: "MalformedPolicyException", rule: "a member twice", says: `line 3, column 2: a statement has the member "Action" twice`,
			do: malformed(head + "\n" + ` "Action":"iot:Receive","Resource":"*"}]}`),
		},
		{
			op: "CreatePolicy", want: "MalformedPolicyException", rule: "an unknown member", says: `line 1, column 27: a policy document has no member "Statements"`,
			do: malformed(`{"Version": "2012-10-17", "Statements":[]}`),
		},
		{
			op: "CreatePolicy", want: "MalformedPolicyException", rule: "a principal", says: "line 3, column 2: a device policy has no Principal",
			do: malformed(head + "\n" + ` "Principal":"*","Resource":"*"}]}`),
		},
		{
			op: "CreatePolicy", want: "MalformedPolicyException", rule: "an unknown variable", says: "line 3, column 13: the policy variable ${iot:Nobody} is not known",
			do: malformed(head + "\n" + ` "Resource":"arn:aws:iot:us-east-1:000000000000:topic/${iot:Nobody}"}]}`),
		},
		{
			op: "CreatePolicy", want: "MalformedPolicyException", rule: "a wrong type", says: "line 3, column 13: Resource must be a string or an array of strings",
			do: malformed(head + "\n" + ` "Resource":{}}]}`),
		},
		{
			op: "CreatePolicy", want: "MalformedPolicyException", rule: "an empty list", says: "line 3, column 12: Resource is empty",
			do: malformed(head + "\n" + ` "Resource":[]}]}`),
		},
		{
			op: "CreatePolicy", want: "MalformedPolicyException", rule: "too large", says: "2048 are allowed",
			do: malformed(*allowedTopic(strings.Repeat("x", 2048))),
		},
		{op: "CreatePolicy", want: "MalformedPolicyException", rule: "too deep", says: "line 1, column", do: malformed(strings.Repeat("[", 2000))},
	}
}

// policyVersionAnswers are about versions.
func policyVersionAnswers() []answerCase {
	create := func(name func(*operator) *string, document *string) func(*operator) error {
		return func(o *operator) error {
			_, err := o.CreatePolicyVersion(o.t.Context(), &iot.CreatePolicyVersionInput{PolicyName: name(o), PolicyDocument: document})
			return err
		}
	}
	of := func(versions int) func(*operator) *string {
		return func(o *operator) *string { return o.newPolicy(versions) }
	}
	absent := func(*operator) *string { return new(named("policy")) }
	read := func(name func(*operator) *string, version string) func(*operator) error {
		return func(o *operator) error {
			_, err := o.GetPolicyVersion(o.t.Context(), &iot.GetPolicyVersionInput{PolicyName: name(o), PolicyVersionId: &version})
			return err
		}
	}
	put := func(name func(*operator) *string, version string) func(*operator) error {
		return func(o *operator) error {
			_, err := o.SetDefaultPolicyVersion(o.t.Context(), &iot.SetDefaultPolicyVersionInput{PolicyName: name(o), PolicyVersionId: &version})
			return err
		}
	}
	return []answerCase{
		{op: "CreatePolicyVersion", do: versionsOnlyGrow},
		{op: "CreatePolicyVersion", want: "VersionsLimitExceededException", says: "has 5 versions", do: create(of(5), allowedTopic("6"))},
		{op: "CreatePolicyVersion", want: "MalformedPolicyException", says: "line 1, column 1", do: create(of(1), new("[]"))},
		{op: "CreatePolicyVersion", want: "ResourceNotFoundException", says: "does not exist", do: create(absent, allowedTopic("1"))},
		{op: "CreatePolicyVersion", want: "InvalidRequestException", says: "policyName", do: create(func(*operator) *string { return new("a b") }, allowedTopic("1"))},
		{op: "GetPolicyVersion", do: func(o *operator) error {
			out, err := o.GetPolicyVersion(o.t.Context(), &iot.GetPolicyVersionInput{PolicyName: o.newPolicy(2), PolicyVersionId: new("2")})
			if err != nil {
				return err
			}
			return differs("version", []any{*out.PolicyVersionId, out.IsDefaultVersion, *out.PolicyDocument}, []any{"2", false, *allowedTopic("2")})
		}},
		{op: "GetPolicyVersion", want: "ResourceNotFoundException", rule: "no version", says: "has no version 7", do: read(of(1), "7")},
		{op: "GetPolicyVersion", want: "ResourceNotFoundException", rule: "no policy", says: "does not exist", do: read(absent, "1")},
		{op: "GetPolicyVersion", want: "InvalidRequestException", says: "policyVersionId", do: read(of(1), "latest")},
		{op: "SetDefaultPolicyVersion", do: func(o *operator) error {
			name := o.newPolicy(2)
			must(o, o.SetDefaultPolicyVersion, &iot.SetDefaultPolicyVersionInput{PolicyName: name, PolicyVersionId: new("2")})
			out, err := o.GetPolicy(o.t.Context(), &iot.GetPolicyInput{PolicyName: name})
			if err != nil {
				return err
			}
			return differs("in force", []string{*out.DefaultVersionId, *out.PolicyDocument}, []string{"2", *allowedTopic("2")})
		}},
		{op: "SetDefaultPolicyVersion", want: "ResourceNotFoundException", says: "has no version 7", do: put(of(1), "7")},
		{op: "SetDefaultPolicyVersion", want: "InvalidRequestException", says: "policyVersionId", do: put(of(1), "-")},
		{op: "GetPolicy", do: func(o *operator) error {
			name := o.newPolicy(1)
			out, err := o.GetPolicy(o.t.Context(), &iot.GetPolicyInput{PolicyName: name})
			if err != nil {
				return err
			}
			if out.GenerationId == nil || out.CreationDate == nil || out.LastModifiedDate == nil {
				return fmt.Errorf("members are missing: %+v", out)
			}
			return differs("policy", []string{*out.PolicyName, *out.PolicyArn, *out.DefaultVersionId}, []string{*name, arnPrefix + "policy/" + *name, "1"})
		}},
		{op: "GetPolicy", want: "ResourceNotFoundException", says: "does not exist", do: func(o *operator) error {
			_, err := o.GetPolicy(o.t.Context(), &iot.GetPolicyInput{PolicyName: absent(o)})
			return err
		}},
		{op: "GetPolicy", want: "InvalidRequestException", says: "policyName", do: func(o *operator) error {
			_, err := o.GetPolicy(o.t.Context(), &iot.GetPolicyInput{PolicyName: new("a b")})
			return err
		}},
	}
}

// versionsOnlyGrow: five versions are kept, none makes room by itself, and the
// id of one that is gone does not come again.
func versionsOnlyGrow(o *operator) error {
	name := o.newPolicy(5)
	must(o, o.DeletePolicyVersion, &iot.DeletePolicyVersionInput{PolicyName: name, PolicyVersionId: new("5")})
	out, err := o.CreatePolicyVersion(o.t.Context(), &iot.CreatePolicyVersionInput{PolicyName: name, PolicyDocument: allowedTopic("6"), SetAsDefault: true})
	if err != nil {
		return err
	}
	listed := must(o, o.ListPolicyVersions, &iot.ListPolicyVersionsInput{PolicyName: name})
	var ids []string
	for _, v := range listed.PolicyVersions {
		ids = append(ids, *v.VersionId)
	}
	return differs("versions", []any{*out.PolicyVersionId, out.IsDefaultVersion, ids}, []any{"6", true, []string{"6", "4", "3", "2", "1"}})
}

// policyDeletionAnswers are about what must go first.
func policyDeletionAnswers() []answerCase {
	remove := func(name func(*operator) *string) func(*operator) error {
		return func(o *operator) error {
			_, err := o.DeletePolicy(o.t.Context(), &iot.DeletePolicyInput{PolicyName: name(o)})
			return err
		}
	}
	removeVersion := func(name func(*operator) *string, version string) func(*operator) error {
		return func(o *operator) error {
			_, err := o.DeletePolicyVersion(o.t.Context(), &iot.DeletePolicyVersionInput{PolicyName: name(o), PolicyVersionId: &version})
			return err
		}
	}
	of := func(versions int) func(*operator) *string {
		return func(o *operator) *string { return o.newPolicy(versions) }
	}
	return []answerCase{
		{op: "DeletePolicy", do: func(o *operator) error {
			certificate := o.newCertificate()
			name := o.attached(certificate)
			must(o, o.DetachPolicy, &iot.DetachPolicyInput{PolicyName: name, Target: certificate})
			return remove(func(*operator) *string { return name })(o)
		}},
		{op: "DeletePolicy", want: "DeleteConflictException", rule: "versions", says: "has 2 versions", do: remove(of(2))},
		{op: "DeletePolicy", want: "DeleteConflictException", rule: "attached", says: "is attached to", do: remove(func(o *operator) *string { return o.attached(o.newCertificate()) })},
		{op: "DeletePolicy", want: "ResourceNotFoundException", says: "does not exist", do: remove(func(*operator) *string { return new(named("policy")) })},
		{op: "DeletePolicy", want: "InvalidRequestException", says: "policyName", do: remove(func(*operator) *string { return new("a b") })},
		{op: "DeletePolicyVersion", do: removeVersion(of(2), "2")},
		{op: "DeletePolicyVersion", want: "DeleteConflictException", says: "is the default one", do: removeVersion(of(2), "1")},
		{op: "DeletePolicyVersion", want: "ResourceNotFoundException", says: "has no version 3", do: removeVersion(of(2), "3")},
		{op: "DeletePolicyVersion", want: "InvalidRequestException", says: "policyVersionId", do: removeVersion(of(2), "two")},
	}
}

// attachmentAnswers are about policies and targets.
func attachmentAnswers() []answerCase {
	attach := func(policy, target func(*operator) *string) func(*operator) error {
		return func(o *operator) error {
			_, err := o.AttachPolicy(o.t.Context(), &iot.AttachPolicyInput{PolicyName: policy(o), Target: target(o)})
			return err
		}
	}
	detach := func(policy, target func(*operator) *string) func(*operator) error {
		return func(o *operator) error {
			_, err := o.DetachPolicy(o.t.Context(), &iot.DetachPolicyInput{PolicyName: policy(o), Target: target(o)})
			return err
		}
	}
	policy := func(o *operator) *string { return o.newPolicy(1) }
	noPolicy := func(*operator) *string { return new(named("policy")) }
	certificate := func(o *operator) *string { return o.newCertificate() }
	group := func(o *operator) *string { _, arn := o.newGroup(nil); return arn }
	full := func(target func(*operator) *string, limit int) func(*operator) *string {
		return func(o *operator) *string {
			arn := target(o)
			for range limit {
				o.attached(arn)
			}
			return arn
		}
	}
	return []answerCase{
		{op: "AttachPolicy", rule: "certificate, twice", do: func(o *operator) error {
			target := o.newCertificate()
			name := o.attached(target)
			_, err := o.AttachPolicy(o.t.Context(), &iot.AttachPolicyInput{PolicyName: name, Target: target})
			return err
		}},
		{op: "AttachPolicy", rule: "ten on a certificate", do: attach(policy, full(certificate, 9))},
		{op: "AttachPolicy", rule: "two on a group", do: attach(policy, full(group, 1))},
		{op: "AttachPolicy", want: "LimitExceededException", rule: "certificate", says: "has 10 policies", do: attach(policy, full(certificate, 10))},
		{op: "AttachPolicy", want: "LimitExceededException", rule: "group", says: "has 2 policies", do: attach(policy, full(group, 2))},
		{op: "AttachPolicy", want: "ResourceNotFoundException", rule: "policy", says: "policy", do: attach(noPolicy, certificate)},
		{op: "AttachPolicy", want: "ResourceNotFoundException", rule: "target", says: "certificate", do: attach(policy, func(*operator) *string { return absentCertificate() })},
		{op: "AttachPolicy", want: "InvalidRequestException", rule: "no target", says: "target", do: attach(policy, func(*operator) *string { return new("everybody") })},
		{op: "AttachPolicy", want: "InvalidRequestException", rule: "identity of a pool", says: "target", do: attach(policy, func(*operator) *string {
			return new("eu-west-1:11111111-2222-3333-4444-555555555555")
		})},
		{op: "AttachPolicy", want: "InvalidRequestException", rule: "dynamic group", says: "dynamic group", do: attach(policy, func(o *operator) *string {
			return must(o, o.CreateDynamicThingGroup, &iot.CreateDynamicThingGroupInput{
				ThingGroupName: new(named("group")), QueryString: new("thingName:nothing"),
			}).ThingGroupArn
		})},
		{op: "DetachPolicy", do: func(o *operator) error {
			target := o.newCertificate()
			name := o.attached(target)
			for range 2 { // it may be repeated
				must(o, o.DetachPolicy, &iot.DetachPolicyInput{PolicyName: name, Target: target})
			}
			left := must(o, o.ListAttachedPolicies, &iot.ListAttachedPoliciesInput{Target: target})
			return differs("policies", len(left.Policies), 0)
		}},
		{op: "DetachPolicy", want: "InvalidRequestException", rule: "policy", says: "does not exist", do: detach(noPolicy, certificate)},
		{op: "DetachPolicy", want: "InvalidRequestException", rule: "target", says: "does not exist", do: detach(policy, func(*operator) *string { return absentCertificate() })},
		{op: "DetachPolicy", want: "InvalidRequestException", rule: "no target", says: "target", do: detach(policy, func(*operator) *string { return new("everybody") })},
	}
}

// principalPolicyAnswers are about the operations that are older than groups.
//
//nolint:staticcheck // they are deprecated, and offered to who still calls them.
func principalPolicyAnswers() []answerCase {
	attach := func(policy, principal func(*operator) *string) func(*operator) error {
		return func(o *operator) error {
			_, err := o.AttachPrincipalPolicy(o.t.Context(), &iot.AttachPrincipalPolicyInput{PolicyName: policy(o), Principal: principal(o)})
			return err
		}
	}
	detach := func(policy, principal func(*operator) *string) func(*operator) error {
		return func(o *operator) error {
			_, err := o.DetachPrincipalPolicy(o.t.Context(), &iot.DetachPrincipalPolicyInput{PolicyName: policy(o), Principal: principal(o)})
			return err
		}
	}
	policy := func(o *operator) *string { return o.newPolicy(1) }
	noPolicy := func(*operator) *string { return new(named("policy")) }
	certificate := func(o *operator) *string { return o.newCertificate() }
	group := func(o *operator) *string { _, arn := o.newGroup(nil); return arn }
	full := func(o *operator) *string {
		arn := o.newCertificate()
		for range 10 {
			o.attached(arn)
		}
		return arn
	}
	return []answerCase{
		{op: "AttachPrincipalPolicy", do: attach(policy, certificate)},
		{op: "AttachPrincipalPolicy", want: "LimitExceededException", says: "has 10 policies", do: attach(policy, full)},
		{op: "AttachPrincipalPolicy", want: "ResourceNotFoundException", says: "policy", do: attach(noPolicy, certificate)},
		{op: "AttachPrincipalPolicy", want: "InvalidRequestException", says: "principal", do: attach(policy, group)},
		{op: "DetachPrincipalPolicy", do: func(o *operator) error {
			arn := o.newCertificate()
			name := o.attached(arn)
			must(o, o.DetachPrincipalPolicy, &iot.DetachPrincipalPolicyInput{PolicyName: name, Principal: arn})
			left := must(o, o.ListPrincipalPolicies, &iot.ListPrincipalPoliciesInput{Principal: arn})
			return differs("policies", len(left.Policies), 0)
		}},
		{op: "DetachPrincipalPolicy", want: "ResourceNotFoundException", says: "policy", do: detach(noPolicy, certificate)},
		{op: "DetachPrincipalPolicy", want: "InvalidRequestException", says: "principal", do: detach(policy, group)},
		{op: "ListPrincipalPolicies", do: func(o *operator) error {
			arn := o.newCertificate()
			want := []string{*o.attached(arn), *o.attached(arn), *o.attached(arn)}
			slices.Sort(want)
			var got []string
			in := &iot.ListPrincipalPoliciesInput{Principal: arn, PageSize: new(int32(2))}
			for {
				out, err := o.ListPrincipalPolicies(o.t.Context(), in)
				if err != nil {
					return err
				}
				for _, p := range out.Policies {
					got = append(got, *p.PolicyName)
				}
				if in.Marker = out.NextMarker; in.Marker == nil {
					return differs("policies", got, want)
				}
			}
		}},
		{op: "ListPrincipalPolicies", want: "ResourceNotFoundException", says: "certificate", do: func(o *operator) error {
			_, err := o.ListPrincipalPolicies(o.t.Context(), &iot.ListPrincipalPoliciesInput{Principal: absentCertificate()})
			return err
		}},
		{op: "ListPrincipalPolicies", want: "InvalidRequestException", rule: "group", says: "principal", do: func(o *operator) error {
			_, err := o.ListPrincipalPolicies(o.t.Context(), &iot.ListPrincipalPoliciesInput{Principal: group(o)})
			return err
		}},
		{op: "ListPrincipalPolicies", want: "InvalidRequestException", rule: "order", says: "isAscendingOrder", do: func(o *operator) error {
			_, err := o.ListPrincipalPolicies(o.t.Context(), &iot.ListPrincipalPoliciesInput{Principal: o.newCertificate(), AscendingOrder: true})
			return err
		}},
		{op: "ListPolicyPrincipals", do: func(o *operator) error {
			name := o.newPolicy(1)
			want := []string{*o.newCertificate(), *o.newCertificate()}
			for _, arn := range append(want, *group(o)) {
				must(o, o.AttachPolicy, &iot.AttachPolicyInput{PolicyName: name, Target: &arn})
			}
			slices.Sort(want)
			out, err := o.ListPolicyPrincipals(o.t.Context(), &iot.ListPolicyPrincipalsInput{PolicyName: name})
			if err != nil {
				return err
			}
			return differs("principals", out.Principals, want)
		}},
		{op: "ListPolicyPrincipals", want: "ResourceNotFoundException", says: "policy", do: func(o *operator) error {
			_, err := o.ListPolicyPrincipals(o.t.Context(), &iot.ListPolicyPrincipalsInput{PolicyName: noPolicy(o)})
			return err
		}},
		{op: "ListPolicyPrincipals", want: "InvalidRequestException", says: "isAscendingOrder", do: func(o *operator) error {
			_, err := o.ListPolicyPrincipals(o.t.Context(), &iot.ListPolicyPrincipalsInput{PolicyName: o.newPolicy(1), AscendingOrder: true})
			return err
		}},
	}
}

// policyListAnswers are about lists.
func policyListAnswers() []answerCase {
	names := func(policies []types.Policy) []string {
		got := make([]string, len(policies))
		for i, p := range policies {
			got[i] = *p.PolicyName
		}
		return got
	}
	return []answerCase{
		{op: "ListPolicies", do: func(o *operator) error {
			elder := *o.newPolicy(1)
			time.Sleep(2 * time.Millisecond) // they are in the order of their milliseconds
			younger := *o.newPolicy(1)
			var got []string
			for pages := iot.NewListPoliciesPaginator(o.Client, &iot.ListPoliciesInput{PageSize: new(int32(50)), AscendingOrder: true}); pages.HasMorePages(); {
				out, err := pages.NextPage(o.t.Context())
				if err != nil {
					return err
				}
				got = append(got, names(out.Policies)...)
			}
			if a, b := slices.Index(got, elder), slices.Index(got, younger); a < 0 || b < a {
				return fmt.Errorf("%s at %d, %s at %d", elder, a, younger, b)
			}
			return nil
		}},
		{op: "ListPolicies", want: "InvalidRequestException", says: "page token", do: func(o *operator) error {
			_, err := o.ListPolicies(o.t.Context(), &iot.ListPoliciesInput{Marker: new("nonsense")})
			return err
		}},
		{op: "ListPolicyVersions", do: func(o *operator) error {
			out, err := o.ListPolicyVersions(o.t.Context(), &iot.ListPolicyVersionsInput{PolicyName: o.newPolicy(3)})
			if err != nil {
				return err
			}
			var got []string
			for _, v := range out.PolicyVersions {
				got = append(got, fmt.Sprint(*v.VersionId, v.IsDefaultVersion))
			}
			return differs("versions", got, []string{"3false", "2false", "1true"})
		}},
		{op: "ListPolicyVersions", want: "ResourceNotFoundException", says: "does not exist", do: func(o *operator) error {
			_, err := o.ListPolicyVersions(o.t.Context(), &iot.ListPolicyVersionsInput{PolicyName: new(named("policy"))})
			return err
		}},
		{op: "ListPolicyVersions", want: "InvalidRequestException", says: "policyName", do: func(o *operator) error {
			_, err := o.ListPolicyVersions(o.t.Context(), &iot.ListPolicyVersionsInput{PolicyName: new("a b")})
			return err
		}},
		{op: "ListAttachedPolicies", rule: "up to the root", do: func(o *operator) error {
			root, rootARN := o.newGroup(nil)
			middle, middleARN := o.newGroup(root)
			_, leafARN := o.newGroup(middle)
			want := []string{*o.attached(rootARN), *o.attached(middleARN), *o.attached(leafARN)}
			slices.Sort(want)
			out, err := o.ListAttachedPolicies(o.t.Context(), &iot.ListAttachedPoliciesInput{Target: leafARN, Recursive: true})
			if err != nil {
				return err
			}
			own := must(o, o.ListAttachedPolicies, &iot.ListAttachedPoliciesInput{Target: middleARN})
			if len(own.Policies) != 1 {
				return fmt.Errorf("the middle group alone has %d", len(own.Policies))
			}
			return differs("policies", names(out.Policies), want)
		}},
		{op: "ListAttachedPolicies", want: "ResourceNotFoundException", says: "certificate", do: func(o *operator) error {
			_, err := o.ListAttachedPolicies(o.t.Context(), &iot.ListAttachedPoliciesInput{Target: absentCertificate()})
			return err
		}},
		{op: "ListAttachedPolicies", want: "InvalidRequestException", says: "target", do: func(o *operator) error {
			_, err := o.ListAttachedPolicies(o.t.Context(), &iot.ListAttachedPoliciesInput{Target: new("everybody")})
			return err
		}},
		{op: "ListTargetsForPolicy", do: func(o *operator) error {
			certificate := o.newCertificate()
			_, group := o.newGroup(nil)
			name := o.attached(certificate)
			must(o, o.AttachPolicy, &iot.AttachPolicyInput{PolicyName: name, Target: group})
			first := must(o, o.ListTargetsForPolicy, &iot.ListTargetsForPolicyInput{PolicyName: name, PageSize: new(int32(1))})
			out, err := o.ListTargetsForPolicy(o.t.Context(), &iot.ListTargetsForPolicyInput{PolicyName: name, PageSize: new(int32(1)), Marker: first.NextMarker})
			if err != nil {
				return err
			}
			return differs("targets", append(first.Targets, out.Targets...), []string{*certificate, *group})
		}},
		{op: "ListTargetsForPolicy", want: "ResourceNotFoundException", says: "does not exist", do: func(o *operator) error {
			_, err := o.ListTargetsForPolicy(o.t.Context(), &iot.ListTargetsForPolicyInput{PolicyName: new(named("policy"))})
			return err
		}},
		{op: "ListTargetsForPolicy", want: "InvalidRequestException", says: "page token", do: func(o *operator) error {
			_, err := o.ListTargetsForPolicy(o.t.Context(), &iot.ListTargetsForPolicyInput{PolicyName: o.newPolicy(1), Marker: new("nonsense")})
			return err
		}},
	}
}

// effectivePolicyAnswers are about GetEffectivePolicies.
func effectivePolicyAnswers() []answerCase {
	ask := func(in func(*operator) *iot.GetEffectivePoliciesInput) func(*operator) error {
		return func(o *operator) error {
			_, err := o.GetEffectivePolicies(o.t.Context(), in(o))
			return err
		}
	}
	return []answerCase{
		{op: "GetEffectivePolicies", do: effectivePolicies},
		{op: "GetEffectivePolicies", want: "ResourceNotFoundException", rule: "principal", says: "certificate", do: ask(func(*operator) *iot.GetEffectivePoliciesInput {
			return &iot.GetEffectivePoliciesInput{Principal: absentCertificate()}
		})},
		{op: "GetEffectivePolicies", want: "ResourceNotFoundException", rule: "thing", says: "thing", do: ask(func(*operator) *iot.GetEffectivePoliciesInput {
			return &iot.GetEffectivePoliciesInput{ThingName: new(named("thing"))}
		})},
		{op: "GetEffectivePolicies", want: "InvalidRequestException", rule: "nothing", says: "principal or thingName", do: ask(func(*operator) *iot.GetEffectivePoliciesInput {
			return &iot.GetEffectivePoliciesInput{}
		})},
		{op: "GetEffectivePolicies", want: "InvalidRequestException", rule: "pool", says: "cognitoIdentityPoolId", do: ask(func(o *operator) *iot.GetEffectivePoliciesInput {
			return &iot.GetEffectivePoliciesInput{Principal: o.newCertificate(), CognitoIdentityPoolId: new("eu-west-1:pool")}
		})},
	}
}

// effectivePolicies asks by certificate, by thing, by both and by group, with a
// policy on each of certificate, group and the group above.
func effectivePolicies(o *operator) error {
	root, rootARN := o.newGroup(nil)
	leaf, leafARN := o.newGroup(root)
	certificate, thing := o.newCertificate(), new(named("thing"))
	onRoot, onLeaf, own := *o.attached(rootARN), *o.attached(leafARN), *o.attached(certificate)
	must(o, o.CreateThing, &iot.CreateThingInput{ThingName: thing})
	must(o, o.AddThingToThingGroup, &iot.AddThingToThingGroupInput{ThingName: thing, ThingGroupName: leaf})
	for _, c := range []struct {
		principal, thing *string
		want             []string
	}{
		{certificate, nil, []string{own}},
		{nil, thing, []string{onRoot, onLeaf}},
		{certificate, thing, []string{own, onRoot, onLeaf}},
		{leafARN, nil, []string{onLeaf, onRoot}},
		{rootARN, nil, []string{onRoot}},
	} {
		out, err := o.GetEffectivePolicies(o.t.Context(), &iot.GetEffectivePoliciesInput{Principal: c.principal, ThingName: c.thing})
		if err != nil {
			return err
		}
		var got []string
		for _, p := range out.EffectivePolicies {
			if *p.PolicyDocument != *allowedTopic("1") || *p.PolicyArn != arnPrefix+"policy/"+*p.PolicyName {
				return fmt.Errorf("policy %+v", p)
			}
			got = append(got, *p.PolicyName)
		}
		slices.Sort(got)
		slices.Sort(c.want)
		if err := differs("policies", got, c.want); err != nil {
			return err
		}
	}
	return nil
}

// testAuthorizationAnswers are about TestAuthorization; what it decides is the
// vectors' matter.
func testAuthorizationAnswers() []answerCase {
	infos := func(action types.ActionType, topics ...string) []types.AuthInfo {
		info := types.AuthInfo{ActionType: action}
		for _, topic := range topics {
			info.Resources = append(info.Resources, arnPrefix+"topic/"+topic)
		}
		return []types.AuthInfo{info}
	}
	ask := func(in func(*operator) *iot.TestAuthorizationInput) func(*operator) error {
		return func(o *operator) error {
			_, err := o.TestAuthorization(o.t.Context(), in(o))
			return err
		}
	}
	return []answerCase{
		{op: "TestAuthorization", do: testAuthorization},
		{op: "TestAuthorization", want: "ResourceNotFoundException", rule: "principal", says: "certificate", do: ask(func(*operator) *iot.TestAuthorizationInput {
			return &iot.TestAuthorizationInput{Principal: absentCertificate(), AuthInfos: infos(types.ActionTypePublish, "1")}
		})},
		{op: "TestAuthorization", want: "ResourceNotFoundException", rule: "group", says: "group", do: ask(func(*operator) *iot.TestAuthorizationInput {
			return &iot.TestAuthorizationInput{Principal: new(arnPrefix + "thinggroup/" + named("group")), AuthInfos: infos(types.ActionTypePublish, "1")}
		})},
		{op: "TestAuthorization", want: "ResourceNotFoundException", rule: "policy", says: "policy", do: ask(func(o *operator) *iot.TestAuthorizationInput {
			return &iot.TestAuthorizationInput{Principal: o.newCertificate(), PolicyNamesToAdd: []string{named("policy")}, AuthInfos: infos(types.ActionTypePublish, "1")}
		})},
		{op: "TestAuthorization", want: "InvalidRequestException", rule: "identity of a pool", says: "principal", do: ask(func(*operator) *iot.TestAuthorizationInput {
			return &iot.TestAuthorizationInput{Principal: new("eu-west-1:11111111-2222-3333-4444-555555555555"), AuthInfos: infos(types.ActionTypePublish, "1")}
		})},
		{op: "TestAuthorization", want: "InvalidRequestException", rule: "pool", says: "cognitoIdentityPoolId", do: ask(func(o *operator) *iot.TestAuthorizationInput {
			return &iot.TestAuthorizationInput{Principal: o.newCertificate(), CognitoIdentityPoolId: new("eu-west-1:pool"), AuthInfos: infos(types.ActionTypePublish, "1")}
		})},
		{op: "TestAuthorization", want: "InvalidRequestException", rule: "no principal", says: "principal", do: ask(func(*operator) *iot.TestAuthorizationInput {
			return &iot.TestAuthorizationInput{AuthInfos: infos(types.ActionTypePublish, "1")}
		})},
		{op: "TestAuthorization", want: "InvalidRequestException", rule: "eleven questions", says: "authInfos", do: ask(func(o *operator) *iot.TestAuthorizationInput {
			return &iot.TestAuthorizationInput{Principal: o.newCertificate(), AuthInfos: slices.Repeat(infos(types.ActionTypePublish, "1"), 11)}
		})},
		{op: "TestAuthorization", want: "InvalidRequestException", rule: "action", says: "actionType", do: ask(func(o *operator) *iot.TestAuthorizationInput {
			return &iot.TestAuthorizationInput{Principal: o.newCertificate(), AuthInfos: infos("RETAIN", "1")}
		})},
		{op: "TestAuthorization", want: "InvalidRequestException", rule: "no ARN", says: "authInfos[0].resources", do: ask(func(o *operator) *iot.TestAuthorizationInput {
			return &iot.TestAuthorizationInput{Principal: o.newCertificate(), AuthInfos: []types.AuthInfo{{ActionType: types.ActionTypePublish, Resources: []string{"topic/1"}}}}
		})},
		{op: "TestAuthorization", want: "InvalidRequestException", rule: "added and skipped", says: "policyNamesToSkip", do: ask(func(o *operator) *iot.TestAuthorizationInput {
			name := []string{*o.newPolicy(1)}
			return &iot.TestAuthorizationInput{Principal: o.newCertificate(), PolicyNamesToAdd: name, PolicyNamesToSkip: name, AuthInfos: infos(types.ActionTypePublish, "1")}
		})},
	}
}

// testAuthorization asks with policies added and skipped, and looks at all that
// is answered.
func testAuthorization(o *operator) error {
	certificate := o.newCertificate()
	own, spare := o.attached(certificate), o.newPolicy(1)
	denial := must(o, o.CreatePolicy, &iot.CreatePolicyInput{PolicyName: new(named("policy")), PolicyDocument: new(
		`{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"iot:Publish","Resource":"` + arnPrefix + `topic/1"}}`)}).PolicyName
	ask := func(in iot.TestAuthorizationInput) string {
		in.Principal = certificate
		in.AuthInfos = []types.AuthInfo{{ActionType: types.ActionTypePublish, Resources: []string{arnPrefix + "topic/1"}}, {ActionType: types.ActionTypeConnect, Resources: []string{arnPrefix + "client/x"}}}
		out := must(o, o.TestAuthorization, &in)
		text := ""
		for _, r := range out.AuthResults {
			list := func(policies []types.Policy) string {
				var names []string
				for _, p := range policies {
					switch *p.PolicyName {
					case *own:
						names = append(names, "own")
					case *spare:
						names = append(names, "spare")
					case *denial:
						names = append(names, "denial")
					}
				}
				slices.Sort(names)
				return strings.Join(names, "+")
			}
			text += fmt.Sprintf("%s %s allow=%s silent=%s deny=%s; ", r.AuthInfo.ActionType, r.AuthDecision,
				list(r.Allowed.Policies), list(r.Denied.ImplicitDeny.Policies), list(r.Denied.ExplicitDeny.Policies))
		}
		return text
	}
	for _, c := range []struct {
		in   iot.TestAuthorizationInput
		want string
	}{
		{iot.TestAuthorizationInput{}, "PUBLISH ALLOWED allow=own silent= deny=; CONNECT IMPLICIT_DENY allow= silent=own deny=; "},
		{iot.TestAuthorizationInput{PolicyNamesToAdd: []string{*spare}, PolicyNamesToSkip: []string{*own}}, "PUBLISH ALLOWED allow=spare silent= deny=; CONNECT IMPLICIT_DENY allow= silent=spare deny=; "},
		{iot.TestAuthorizationInput{PolicyNamesToAdd: []string{*denial}}, "PUBLISH EXPLICIT_DENY allow=own silent= deny=denial; CONNECT IMPLICIT_DENY allow= silent=denial+own deny=; "},
		{iot.TestAuthorizationInput{PolicyNamesToSkip: []string{*own}}, "PUBLISH IMPLICIT_DENY allow= silent= deny=; CONNECT IMPLICIT_DENY allow= silent= deny=; "},
	} {
		if err := differs("results", ask(c.in), c.want); err != nil {
			return err
		}
	}
	return nil
}

package sdk

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
)

const (
	// templateRole is a role that a template names and nobody takes on.
	templateRole = "arn:aws:iam::000000000000:role/provisioning"
	// templateBody makes a thing named after a parameter.
	templateBody = `{"Parameters":{"Serial":{"Type":"String"},"AWS::IoT::Certificate::Id":{"Type":"String"}},
"Resources":{"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"Serial"}}},
 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}}}}}`
	// thingOnly is a body for RegisterThing.
	thingOnly = `{"Parameters":{"Name":{"Type":"String"}},"Resources":{"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"Name"}%s}%s}}}`
)

// newTemplate makes an enabled template with a number of versions, the first in
// force.
func (o *operator) newTemplate(versions int) *string {
	o.t.Helper()
	name := named("template")
	must(o, o.CreateProvisioningTemplate, &iot.CreateProvisioningTemplateInput{
		TemplateName: &name, TemplateBody: new(templateBody), ProvisioningRoleArn: new(templateRole), Enabled: new(true),
	})
	for range versions - 1 {
		must(o, o.CreateProvisioningTemplateVersion, &iot.CreateProvisioningTemplateVersionInput{TemplateName: &name, TemplateBody: new(templateBody)})
	}
	return &name
}

// templateOperations are those that the cases here hold to the model.
func templateOperations() []string {
	return []string{
		"CreateProvisioningTemplate", "DescribeProvisioningTemplate", "ListProvisioningTemplates", "UpdateProvisioningTemplate", "DeleteProvisioningTemplate",
		"CreateProvisioningTemplateVersion", "DescribeProvisioningTemplateVersion", "ListProvisioningTemplateVersions", "DeleteProvisioningTemplateVersion",
		"CreateProvisioningClaim", "RegisterThing",
	}
}

// templatesNotReached is a part of notReached.
func templatesNotReached() map[string]string {
	all := map[string]string{
		"CreateProvisioningTemplate LimitExceededException":  "there is no limit of templates",
		"DeleteProvisioningTemplate DeleteConflictException": "a template goes with its versions, whoever names it",
	}
	for _, op := range []string{
		"CreateProvisioningTemplateVersion", "DeleteProvisioningTemplate", "DeleteProvisioningTemplateVersion", "UpdateProvisioningTemplate",
	} {
		all[op+" ConflictingResourceUpdateException"] = "a change that another one has overtaken decides anew; internal/provisioning's TestTemplateRaces"
	}
	return all
}

// templateAnswers are the cases of provisioning templates.
func templateAnswers() []answerCase {
	return slices.Concat(templateCreationAnswers(), templateChangeAnswers(), templateVersionAnswers(), templateUseAnswers())
}

// templateCreationAnswers are about creating and reading.
func templateCreationAnswers() []answerCase {
	create := func(change func(*iot.CreateProvisioningTemplateInput)) func(*operator) error {
		return func(o *operator) error {
			in := &iot.CreateProvisioningTemplateInput{
				TemplateName: new(named("template")), TemplateBody: new(templateBody), ProvisioningRoleArn: new(templateRole),
			}
			change(in)
			_, err := o.CreateProvisioningTemplate(o.t.Context(), in)
			return err
		}
	}
	const invalid = "InvalidRequestException"
	return []answerCase{
		{op: "CreateProvisioningTemplate", do: func(o *operator) error {
			name := named("template")
			out, err := o.CreateProvisioningTemplate(o.t.Context(), &iot.CreateProvisioningTemplateInput{
				TemplateName: &name, TemplateBody: new(templateBody), ProvisioningRoleArn: new(templateRole), Description: new("pumps"),
				Type: types.TemplateTypeFleetProvisioning, Tags: []types.Tag{{Key: new("k"), Value: new("v")}},
			})
			if err != nil {
				return err
			}
			tags := must(o, o.ListTagsForResource, &iot.ListTagsForResourceInput{ResourceArn: out.TemplateArn}).Tags
			if len(tags) != 1 || val(tags[0].Value) != "v" {
				return fmt.Errorf("tags %+v", tags)
			}
			return differs("template", []any{*out.TemplateName, *out.TemplateArn, *out.DefaultVersionId}, []any{name, arnPrefix + "provisioningtemplate/" + name, 1})
		}},
		{op: "CreateProvisioningTemplate", want: "ResourceAlreadyExistsException", says: "already exists", do: func(o *operator) error {
			name := o.newTemplate(1)
			return create(func(in *iot.CreateProvisioningTemplateInput) { in.TemplateName = name })(o)
		}},
		{op: "CreateProvisioningTemplate", want: invalid, rule: "name", says: "templateName", do: create(func(in *iot.CreateProvisioningTemplateInput) {
			in.TemplateName = new("a b")
		})},
		{
			op: "CreateProvisioningTemplate", want: invalid, rule: "body", says: "line 2, column 3, /Resource: the template has no member \"Resource\" (rule: unknown)",
			do: create(func(in *iot.CreateProvisioningTemplateInput) { in.TemplateBody = new("{\n  \"Resource\":{}}") }),
		},
		{op: "CreateProvisioningTemplate", want: invalid, rule: "role", says: "provisioningRoleArn", do: create(func(in *iot.CreateProvisioningTemplateInput) {
			in.ProvisioningRoleArn = new("short")
		})},
		{op: "CreateProvisioningTemplate", want: invalid, rule: "description", says: "description", do: create(func(in *iot.CreateProvisioningTemplateInput) {
			in.Description = new(strings.Repeat("x", 501))
		})},
		{op: "CreateProvisioningTemplate", want: invalid, rule: "type", says: "type", do: create(func(in *iot.CreateProvisioningTemplateInput) {
			in.Type = "BULK"
		})},
		{
			op: "CreateProvisioningTemplate", want: invalid, rule: "hook's function", says: `names the function "nobody"`,
			do: create(func(in *iot.CreateProvisioningTemplateInput) {
				in.PreProvisioningHook = &types.ProvisioningHook{TargetArn: functionARN("nobody")}
			}),
		},
		{op: "CreateProvisioningTemplate", want: invalid, rule: "hook's version", says: "2020-04-01", do: create(func(in *iot.CreateProvisioningTemplateInput) {
			in.PreProvisioningHook = &types.ProvisioningHook{TargetArn: functionARN("nobody"), PayloadVersion: new("2019-04-01")}
		})},
		{op: "CreateProvisioningTemplate", want: invalid, rule: "JITP with a hook", says: "can have no hook", do: create(func(in *iot.CreateProvisioningTemplateInput) {
			in.Type, in.PreProvisioningHook = types.TemplateTypeJitp, &types.ProvisioningHook{TargetArn: functionARN("nobody")}
			in.TemplateBody = new(strings.NewReplacer(`"Serial":{"Type":"String"},`, "", `"Serial"`, `"AWS::IoT::Certificate::Id"`).Replace(templateBody))
		})},
		{op: "DescribeProvisioningTemplate", do: func(o *operator) error {
			name := o.newTemplate(2)
			out, err := o.DescribeProvisioningTemplate(o.t.Context(), &iot.DescribeProvisioningTemplateInput{TemplateName: name})
			if err != nil {
				return err
			}
			if out.CreationDate == nil || out.LastModifiedDate == nil || out.Description != nil || out.PreProvisioningHook != nil {
				return fmt.Errorf("described %+v", out)
			}
			return differs("template",
				[]any{*out.TemplateName, *out.TemplateArn, *out.DefaultVersionId, *out.TemplateBody, *out.Enabled, *out.ProvisioningRoleArn, out.Type},
				[]any{*name, arnPrefix + "provisioningtemplate/" + *name, 1, templateBody, true, templateRole, "FLEET_PROVISIONING"})
		}},
		{op: "DescribeProvisioningTemplate", want: "ResourceNotFoundException", says: "does not exist", do: func(o *operator) error {
			_, err := o.DescribeProvisioningTemplate(o.t.Context(), &iot.DescribeProvisioningTemplateInput{TemplateName: new(named("template"))})
			return err
		}},
		{op: "DescribeProvisioningTemplate", want: invalid, says: "templateName", do: func(o *operator) error {
			_, err := o.DescribeProvisioningTemplate(o.t.Context(), &iot.DescribeProvisioningTemplateInput{TemplateName: new("a b")})
			return err
		}},
		{op: "ListProvisioningTemplates", do: func(o *operator) error {
			want := []string{*o.newTemplate(1), *o.newTemplate(1), *o.newTemplate(1)}
			found := map[string]bool{}
			list := iot.NewListProvisioningTemplatesPaginator(o, &iot.ListProvisioningTemplatesInput{MaxResults: new(int32(2))})
			for list.HasMorePages() {
				out, err := list.NextPage(o.t.Context())
				if err != nil {
					return err
				}
				if len(out.Templates) > 2 {
					return fmt.Errorf("a page of %d", len(out.Templates))
				}
				for _, t := range out.Templates {
					if found[*t.TemplateName] {
						return fmt.Errorf("%s comes twice", *t.TemplateName)
					}
					found[*t.TemplateName] = true
				}
			}
			for _, name := range want {
				if !found[name] {
					return fmt.Errorf("%s is not listed", name)
				}
			}
			return nil
		}},
		{op: "ListProvisioningTemplates", want: invalid, says: "token", do: func(o *operator) error {
			_, err := o.ListProvisioningTemplates(o.t.Context(), &iot.ListProvisioningTemplatesInput{NextToken: new("x")})
			return err
		}},
	}
}

// templateChangeAnswers are about changing and deleting.
func templateChangeAnswers() []answerCase {
	update := func(change func(*iot.UpdateProvisioningTemplateInput)) func(*operator) error {
		return func(o *operator) error {
			in := &iot.UpdateProvisioningTemplateInput{TemplateName: o.newTemplate(1)}
			change(in)
			_, err := o.UpdateProvisioningTemplate(o.t.Context(), in)
			return err
		}
	}
	remove := func(name func(*operator) *string) func(*operator) error {
		return func(o *operator) error {
			_, err := o.DeleteProvisioningTemplate(o.t.Context(), &iot.DeleteProvisioningTemplateInput{TemplateName: name(o)})
			return err
		}
	}
	const invalid, absent = "InvalidRequestException", "ResourceNotFoundException"
	return []answerCase{
		{op: "UpdateProvisioningTemplate", do: func(o *operator) error {
			name := o.newTemplate(2)
			_, err := o.UpdateProvisioningTemplate(o.t.Context(), &iot.UpdateProvisioningTemplateInput{
				TemplateName: name, Description: new("new"), Enabled: new(false), DefaultVersionId: new(int32(2)),
				ProvisioningRoleArn: new(templateRole + "2"), RemovePreProvisioningHook: new(true),
			})
			if err != nil {
				return err
			}
			out := must(o, o.DescribeProvisioningTemplate, &iot.DescribeProvisioningTemplateInput{TemplateName: name})
			return differs("template", []any{*out.Description, *out.Enabled, *out.DefaultVersionId, *out.ProvisioningRoleArn}, []any{"new", false, 2, templateRole + "2"})
		}},
		{op: "UpdateProvisioningTemplate", want: absent, rule: "template", says: "does not exist", do: update(func(in *iot.UpdateProvisioningTemplateInput) {
			in.TemplateName = new(named("template"))
		})},
		{op: "UpdateProvisioningTemplate", want: absent, rule: "version", says: "has no version 7", do: update(func(in *iot.UpdateProvisioningTemplateInput) {
			in.DefaultVersionId = new(int32(7))
		})},
		{op: "UpdateProvisioningTemplate", want: invalid, rule: "hook", says: `names the function "nobody"`, do: update(func(in *iot.UpdateProvisioningTemplateInput) {
			in.PreProvisioningHook = &types.ProvisioningHook{TargetArn: functionARN("nobody")}
		})},
		{op: "UpdateProvisioningTemplate", want: invalid, rule: "hook and none", says: "exclude each other", do: update(func(in *iot.UpdateProvisioningTemplateInput) {
			in.PreProvisioningHook, in.RemovePreProvisioningHook = &types.ProvisioningHook{TargetArn: functionARN("nobody")}, new(true)
		})},
		{op: "DeleteProvisioningTemplate", do: func(o *operator) error {
			name := o.newTemplate(2)
			if err := remove(func(*operator) *string { return name })(o); err != nil {
				return err
			}
			if _, err := o.DescribeProvisioningTemplate(o.t.Context(), &iot.DescribeProvisioningTemplateInput{TemplateName: name}); err == nil {
				return fmt.Errorf("%s is still there", *name)
			}
			return nil
		}},
		{op: "DeleteProvisioningTemplate", want: absent, says: "does not exist", do: remove(func(*operator) *string { return new(named("template")) })},
		{op: "DeleteProvisioningTemplate", want: invalid, says: "templateName", do: remove(func(*operator) *string { return new("a b") })},
	}
}

// templateVersionAnswers are about versions.
func templateVersionAnswers() []answerCase {
	create := func(versions int, change func(*iot.CreateProvisioningTemplateVersionInput)) func(*operator) error {
		return func(o *operator) error {
			in := &iot.CreateProvisioningTemplateVersionInput{TemplateName: o.newTemplate(versions), TemplateBody: new(templateBody)}
			change(in)
			_, err := o.CreateProvisioningTemplateVersion(o.t.Context(), in)
			return err
		}
	}
	same := func(*iot.CreateProvisioningTemplateVersionInput) {}
	read := func(name string, version int32) func(*operator) error {
		return func(o *operator) error {
			in := &iot.DescribeProvisioningTemplateVersionInput{TemplateName: &name, VersionId: &version}
			if name == "" {
				in.TemplateName = o.newTemplate(1)
			}
			_, err := o.DescribeProvisioningTemplateVersion(o.t.Context(), in)
			return err
		}
	}
	remove := func(name string, version int32) func(*operator) error {
		return func(o *operator) error {
			in := &iot.DeleteProvisioningTemplateVersionInput{TemplateName: &name, VersionId: &version}
			if name == "" {
				in.TemplateName = o.newTemplate(1)
			}
			_, err := o.DeleteProvisioningTemplateVersion(o.t.Context(), in)
			return err
		}
	}
	list := func(name string) func(*operator) error {
		return func(o *operator) error {
			_, err := o.ListProvisioningTemplateVersions(o.t.Context(), &iot.ListProvisioningTemplateVersionsInput{TemplateName: &name})
			return err
		}
	}
	const invalid, absent = "InvalidRequestException", "ResourceNotFoundException"
	return []answerCase{
		{op: "CreateProvisioningTemplateVersion", do: func(o *operator) error {
			name := o.newTemplate(1)
			out, err := o.CreateProvisioningTemplateVersion(o.t.Context(), &iot.CreateProvisioningTemplateVersionInput{
				TemplateName: name, TemplateBody: new(templateBody + "\n"), SetAsDefault: true,
			})
			if err != nil {
				return err
			}
			now := must(o, o.DescribeProvisioningTemplate, &iot.DescribeProvisioningTemplateInput{TemplateName: name})
			return differs("version", []any{*out.TemplateName, *out.TemplateArn, *out.VersionId, out.IsDefaultVersion, *now.DefaultVersionId, *now.TemplateBody},
				[]any{*name, arnPrefix + "provisioningtemplate/" + *name, 2, true, 2, templateBody + "\n"})
		}},
		{op: "CreateProvisioningTemplateVersion", want: "VersionsLimitExceededException", says: "has 5 versions", do: create(5, same)},
		{op: "CreateProvisioningTemplateVersion", want: absent, says: "does not exist", do: create(1, func(in *iot.CreateProvisioningTemplateVersionInput) {
			in.TemplateName = new(named("template"))
		})},
		{op: "CreateProvisioningTemplateVersion", want: invalid, says: "line 1, column 1", do: create(1, func(in *iot.CreateProvisioningTemplateVersionInput) {
			in.TemplateBody = new("[]")
		})},
		{op: "DescribeProvisioningTemplateVersion", do: func(o *operator) error {
			out, err := o.DescribeProvisioningTemplateVersion(o.t.Context(), &iot.DescribeProvisioningTemplateVersionInput{TemplateName: o.newTemplate(2), VersionId: new(int32(2))})
			if err != nil {
				return err
			}
			if out.CreationDate == nil {
				return fmt.Errorf("described %+v", out)
			}
			return differs("version", []any{*out.VersionId, out.IsDefaultVersion, *out.TemplateBody}, []any{2, false, templateBody})
		}},
		{op: "DescribeProvisioningTemplateVersion", want: absent, rule: "version", says: "has no version 7", do: read("", 7)},
		{op: "DescribeProvisioningTemplateVersion", want: absent, rule: "template", says: "does not exist", do: read("nobody", 1)},
		{op: "DescribeProvisioningTemplateVersion", want: invalid, says: "templateName", do: read("a b", 1)},
		{op: "ListProvisioningTemplateVersions", do: func(o *operator) error {
			var ids []int32
			pages := 0
			all := iot.NewListProvisioningTemplateVersionsPaginator(o, &iot.ListProvisioningTemplateVersionsInput{TemplateName: o.newTemplate(3), MaxResults: new(int32(2))})
			for ; all.HasMorePages(); pages++ {
				out, err := all.NextPage(o.t.Context())
				if err != nil {
					return err
				}
				for _, v := range out.Versions {
					if ids = append(ids, *v.VersionId); v.IsDefaultVersion != (*v.VersionId == 1) || v.CreationDate == nil {
						return fmt.Errorf("listed %+v", v)
					}
				}
			}
			return differs("versions", []any{ids, pages}, []any{[]int32{3, 2, 1}, 2})
		}},
		{op: "ListProvisioningTemplateVersions", want: absent, says: "does not exist", do: list("nobody")},
		{op: "ListProvisioningTemplateVersions", want: invalid, says: "templateName", do: list("a b")},
		{op: "DeleteProvisioningTemplateVersion", do: func(o *operator) error {
			name := o.newTemplate(2)
			if _, err := o.DeleteProvisioningTemplateVersion(o.t.Context(), &iot.DeleteProvisioningTemplateVersionInput{TemplateName: name, VersionId: new(int32(2))}); err != nil {
				return err
			}
			// Numbers are never used twice.
			out := must(o, o.CreateProvisioningTemplateVersion, &iot.CreateProvisioningTemplateVersionInput{TemplateName: name, TemplateBody: new(templateBody)})
			return differs("next version", *out.VersionId, 3)
		}},
		{op: "DeleteProvisioningTemplateVersion", want: "DeleteConflictException", says: "is the default one", do: remove("", 1)},
		{op: "DeleteProvisioningTemplateVersion", want: absent, says: "has no version 7", do: remove("", 7)},
		{op: "DeleteProvisioningTemplateVersion", want: invalid, says: "templateName", do: remove("a b", 1)},
	}
}

// templateUseAnswers are about claims and RegisterThing.
func templateUseAnswers() []answerCase {
	claim := func(name func(*operator) *string) func(*operator) error {
		return func(o *operator) error {
			_, err := o.CreateProvisioningClaim(o.t.Context(), &iot.CreateProvisioningClaimInput{TemplateName: name(o)})
			return err
		}
	}
	register := func(body string, parameters map[string]string) func(*operator) error {
		return func(o *operator) error {
			_, err := o.RegisterThing(o.t.Context(), &iot.RegisterThingInput{TemplateBody: &body, Parameters: parameters})
			return err
		}
	}
	const invalid, failure = "InvalidRequestException", "ResourceRegistrationFailureException"
	plain := fmt.Sprintf(thingOnly, "", "")
	return []answerCase{
		{op: "CreateProvisioningClaim", do: func(o *operator) error {
			out, err := o.CreateProvisioningClaim(o.t.Context(), &iot.CreateProvisioningClaimInput{TemplateName: o.newTemplate(1)})
			if err != nil {
				return err
			}
			left := time.Until(*out.Expiration)
			if len(*out.CertificateId) != 64 || !strings.Contains(*out.CertificatePem, "CERTIFICATE") || !strings.Contains(*out.KeyPair.PrivateKey, "PRIVATE KEY") ||
				!strings.Contains(*out.KeyPair.PublicKey, "PUBLIC KEY") || left < 4*time.Minute || left > 6*time.Minute {
				return fmt.Errorf("claim %s good for %v", *out.CertificateId, left)
			}
			return nil
		}},
		{op: "CreateProvisioningClaim", want: "ResourceNotFoundException", says: "does not exist", do: claim(func(*operator) *string { return new(named("template")) })},
		{op: "CreateProvisioningClaim", want: invalid, rule: "disabled", says: "is not enabled", do: claim(func(o *operator) *string {
			name := o.newTemplate(1)
			must(o, o.UpdateProvisioningTemplate, &iot.UpdateProvisioningTemplateInput{TemplateName: name, Enabled: new(false)})
			return name
		})},
		{op: "RegisterThing", do: func(o *operator) error {
			name := named("thing")
			out, err := o.RegisterThing(o.t.Context(), &iot.RegisterThingInput{TemplateBody: &plain, Parameters: map[string]string{"Name": name}})
			if err != nil {
				return err
			}
			must(o, o.DescribeThing, &iot.DescribeThingInput{ThingName: &name})
			return differs("resources", out.ResourceArns, map[string]string{"thing": arnPrefix + "thing/" + name})
		}},
		{op: "RegisterThing", want: failure, says: "does not exist", do: register(fmt.Sprintf(thingOnly, `,"ThingGroups":["nobody"]`, ""), map[string]string{"Name": "x"})},
		{op: "RegisterThing", want: invalid, rule: "body", says: "line 1, column 1", do: register("[]", nil)},
		{op: "RegisterThing", want: failure, rule: "parameters", says: `parameter "Name"`, do: register(plain, nil)},
		{op: "RegisterThing", want: "ConflictingResourceUpdateException", says: "FAIL", do: func(o *operator) error {
			name := named("thing")
			must(o, o.CreateThing, &iot.CreateThingInput{ThingName: &name})
			body := fmt.Sprintf(thingOnly, `,"AttributePayload":{"a":"b"}`, `,"OverrideSettings":{"AttributePayload":"FAIL"}`)
			return register(body, map[string]string{"Name": name})(o)
		}},
	}
}

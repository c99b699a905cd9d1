package provisioning

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
	"github.com/muster-iot/muster/internal/tag"
)

const (
	templateAccount fleet.Account = "000000000001"
	templateRole    string        = "arn:aws:iam::000000000001:role/provisioning"
	templateBody    string        = `{"Parameters":{"Serial":{"Type":"String"}},"Resources":{
 "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"Serial"}}},
 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}}}}}`
)

// gateOnly is one function, gate, that is never asked.
type gateOnly struct{}

func (gateOnly) Has(name string) bool { return name == "gate" }

func (gateOnly) Invoke(context.Context, string, []byte, time.Duration) ([]byte, error) {
	return nil, errors.New("not asked")
}

// templateRig is the part of a Service that keeps templates.
type templateRig struct {
	*Service

	t *testing.T
	// before, unless it is nil, comes ahead of each commit.
	before func()
	store.Store
}

func (r *templateRig) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	if r.before != nil {
		r.before()
	}
	return r.Store.Commit(ctx, b)
}

func newTemplateRig(t *testing.T) *templateRig {
	t.Helper()
	engine, err := embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &templateRig{t: t, Store: engine}
	at := time.UnixMilli(1795412345000).UTC()
	r.Service = &Service{o: Options{
		Store: r, Region: "eu-local-1", Functions: gateOnly{}, Limits: Limits{TemplateVersions: 3}, Now: func() time.Time { return at },
	}}
	return r
}

// create makes an enabled template that must be accepted.
func (r *templateRig) create(c CreateTemplateCommand) Template {
	r.t.Helper()
	if c.Body == "" {
		c.Body = templateBody
	}
	c.RoleARN, c.Enabled = templateRole, true
	made, err := r.CreateTemplate(r.t.Context(), templateAccount, c)
	if err != nil {
		r.t.Fatal(err)
	}
	return made
}

// changes are the events about templates.
func (r *templateRig) changes() []event.ProvisioningTemplateChanged {
	r.t.Helper()
	all, _, err := r.Events(r.t.Context(), store.Cursor{}, 100)
	if err != nil {
		r.t.Fatal(err)
	}
	var out []event.ProvisioningTemplateChanged
	for _, e := range all {
		if v, ok := e.Event.(event.ProvisioningTemplateChanged); ok {
			out = append(out, v)
		}
	}
	return out
}

func wantFault(t *testing.T, err error, code fault.Code, says string) {
	t.Helper()
	if fault.CodeOf(err) != code || err != nil && !strings.Contains(fault.From(err).Message, says) {
		t.Errorf("got %v, want %s with %q", err, code, says)
	}
}

func TestTemplateLife(t *testing.T) {
	t.Parallel()
	r, ctx := newTemplateRig(t), t.Context()
	made := r.create(CreateTemplateCommand{
		Name: "Pumps", Description: "all pumps", Hook: &Hook{TargetARN: "arn:aws:lambda:eu-local-1:000000000001:function:gate"}, Tags: []tag.Tag{{Key: "k", Value: "v"}},
	})
	at := r.o.Now()
	want := Template{
		Name: "Pumps", ARN: "arn:aws:iot:eu-local-1:000000000001:provisioningtemplate/Pumps", Type: provtemplate.FleetProvisioning, Description: "all pumps",
		Enabled: true, RoleARN: templateRole, Hook: &Hook{TargetARN: "arn:aws:lambda:eu-local-1:000000000001:function:gate", PayloadVersion: "2020-04-01"},
		DefaultVersion: 1, Body: templateBody, Created: at, Modified: at,
	}
	if !reflect.DeepEqual(made, want) {
		t.Errorf("made %+v", made)
	}
	_, v, err := r.CreateTemplateVersion(ctx, templateAccount, "Pumps", templateBody+" ", false)
	if err != nil || v.ID != 2 || v.Default {
		t.Errorf("version %+v, %v", v, err)
	}
	wantFault(t, r.DeleteTemplateVersion(ctx, templateAccount, "Pumps", 1), fault.DeleteConflict, "default")
	two, off := int64(2), false
	updated, err := r.UpdateTemplate(ctx, templateAccount, UpdateTemplateCommand{Name: "Pumps", DefaultVersion: &two, Enabled: &off, RemoveHook: true})
	if err != nil || updated.Body != templateBody+" " || updated.Enabled || updated.Hook != nil || updated.Description != "all pumps" {
		t.Errorf("updated %+v, %v", updated, err)
	}
	// The same again changes nothing.
	if _, err := r.UpdateTemplate(ctx, templateAccount, UpdateTemplateCommand{Name: "Pumps", Enabled: &off}); err != nil {
		t.Error(err)
	}
	if err := r.DeleteTemplateVersion(ctx, templateAccount, "Pumps", 1); err != nil {
		t.Error(err)
	}
	if exists, err := r.TemplateExists(ctx, templateAccount, "Pumps"); !exists || err != nil {
		t.Errorf("exists %v, %v", exists, err)
	}
	if err := r.DeleteTemplate(ctx, templateAccount, "Pumps"); err != nil {
		t.Error(err)
	}
	if exists, err := r.TemplateExists(ctx, templateAccount, "Pumps"); exists || err != nil {
		t.Errorf("exists %v, %v", exists, err)
	}
	if set, _, err := tag.Read(ctx, r, r.templateResource(templateAccount, "Pumps")); len(set) > 0 || err != nil {
		t.Errorf("tags %v, %v outlive the template", set, err)
	}
	const kind = "FLEET_PROVISIONING"
	wantChanges := []event.ProvisioningTemplateChanged{
		{Template: "Pumps", Change: event.TemplateCreated, Type: kind, Enabled: true, Version: 1, DefaultVersion: 1},
		{Template: "Pumps", Change: event.TemplateVersionCreated, Type: kind, Enabled: true, Version: 2, DefaultVersion: 1},
		{Template: "Pumps", Change: event.TemplateUpdated, Type: kind, DefaultVersion: 2},
		{Template: "Pumps", Change: event.TemplateVersionDeleted, Type: kind, Version: 1, DefaultVersion: 2},
		{Template: "Pumps", Change: event.TemplateDeleted},
	}
	if got := r.changes(); !reflect.DeepEqual(got, wantChanges) {
		t.Errorf("events %+v", got)
	}
}

func TestTemplateRefusals(t *testing.T) {
	t.Parallel()
	r, ctx := newTemplateRig(t), t.Context()
	gate := &Hook{TargetARN: "gate"}
	for name, c := range map[string]struct {
		change func(*CreateTemplateCommand)
		says   string
	}{
		"name":         {func(c *CreateTemplateCommand) { c.Name = strings.Repeat("x", 37) }, "templateName"},
		"type":         {func(c *CreateTemplateCommand) { c.Type = provtemplate.Bulk }, "type must be"},
		"description":  {func(c *CreateTemplateCommand) { c.Description = "a\x00" }, "description"},
		"role":         {func(c *CreateTemplateCommand) { c.RoleARN = "" }, "provisioningRoleArn"},
		"body":         {func(c *CreateTemplateCommand) { c.Body = "{\n \"X\":1}" }, "line 2, column 2, /X: the template has no member \"X\" (rule: unknown)"},
		"long body":    {func(c *CreateTemplateCommand) { c.Body = strings.Repeat(" ", 10_241) }, "(rule: size)"},
		"function":     {func(c *CreateTemplateCommand) { c.Hook = &Hook{TargetARN: "other"} }, `"other"`},
		"hook version": {func(c *CreateTemplateCommand) { c.Hook = &Hook{TargetARN: "gate", PayloadVersion: "1"} }, "2020-04-01"},
		"hook empty":   {func(c *CreateTemplateCommand) { c.Hook = &Hook{} }, "targetArn"},
		"tags":         {func(c *CreateTemplateCommand) { c.Tags = []tag.Tag{{Key: ""}} }, "tags"},
		"JITP hook": {func(c *CreateTemplateCommand) {
			c.Type, c.Hook = provtemplate.JITP, gate
			c.Body = strings.NewReplacer(`{"Serial":{"Type":"String"}}`, `{"AWS::IoT::Certificate::Id":{"Type":"String"}}`, `"Serial"`, `"AWS::IoT::Certificate::Id"`).Replace(templateBody)
		}, "can have no hook"},
	} {
		command := CreateTemplateCommand{Name: "T", Body: templateBody, RoleARN: templateRole}
		c.change(&command)
		_, err := r.CreateTemplate(ctx, templateAccount, command)
		if fault.CodeOf(err) != fault.InvalidRequest || !strings.Contains(fault.From(err).Message, c.says) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	r.create(CreateTemplateCommand{Name: "T"})
	_, err := r.CreateTemplate(ctx, templateAccount, CreateTemplateCommand{Name: "T", Body: templateBody, RoleARN: templateRole})
	wantFault(t, err, fault.ResourceAlreadyExists, "already exists")
	for range 2 {
		if _, _, err := r.CreateTemplateVersion(ctx, templateAccount, "T", templateBody, true); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err = r.CreateTemplateVersion(ctx, templateAccount, "T", templateBody, true)
	wantFault(t, err, fault.VersionsLimitExceeded, "has 3 versions")
	seven := int64(7)
	_, err = r.UpdateTemplate(ctx, templateAccount, UpdateTemplateCommand{Name: "T", DefaultVersion: &seven})
	wantFault(t, err, fault.ResourceNotFound, "no version 7")
	_, err = r.UpdateTemplate(ctx, templateAccount, UpdateTemplateCommand{Name: "T", Hook: gate, RemoveHook: true})
	wantFault(t, err, fault.InvalidRequest, "exclude each other")
	if len(r.changes()) != 3 {
		t.Errorf("refused changes are reported: %+v", r.changes())
	}
	// Another account knows nothing of it.
	_, err = r.DescribeTemplate(ctx, "000000000002", "T")
	wantFault(t, err, fault.ResourceNotFound, "does not exist")
	if page, _, err := r.ListTemplates(ctx, "000000000002", "", 0); len(page) > 0 || err != nil {
		t.Errorf("another account lists %v, %v", page, err)
	}
}

func TestTemplateLists(t *testing.T) {
	t.Parallel()
	r, ctx := newTemplateRig(t), t.Context()
	for _, name := range []string{"c", "a", "e", "b", "d"} {
		r.create(CreateTemplateCommand{Name: name})
	}
	var names []string
	for after, pages := "", 0; ; pages++ {
		page, next, err := r.ListTemplates(ctx, templateAccount, after, 2)
		if err != nil || len(page) > 2 || pages > 2 {
			t.Fatalf("page of %d, %v", len(page), err)
		}
		for _, p := range page {
			names = append(names, p.Name)
		}
		if after = next; next == "" {
			break
		}
	}
	if got := fmt.Sprint(names); got != "[a b c d e]" {
		t.Errorf("listed %s", got)
	}
	for range 2 {
		if _, _, err := r.CreateTemplateVersion(ctx, templateAccount, "a", templateBody, false); err != nil {
			t.Fatal(err)
		}
	}
	page, next, err := r.ListTemplateVersions(ctx, templateAccount, "a", 0, 2)
	if err != nil || len(page) != 2 || page[0].ID != 3 || next != 2 {
		t.Errorf("versions %+v, next %d, %v", page, next, err)
	}
	page, next, err = r.ListTemplateVersions(ctx, templateAccount, "a", next, 2)
	if err != nil || len(page) != 1 || page[0].ID != 1 || !page[0].Default || next != 0 {
		t.Errorf("versions %+v, next %d, %v", page, next, err)
	}
}

// TestTemplateRaces lets many change one template: nobody's version is lost, and
// no more than allowed are made.
func TestTemplateRaces(t *testing.T) {
	t.Parallel()
	r, ctx := newTemplateRig(t), t.Context()
	r.create(CreateTemplateCommand{Name: "T"})
	var made sync.Map
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			_, v, err := r.CreateTemplateVersion(ctx, templateAccount, "T", templateBody, false)
			switch code := fault.CodeOf(err); {
			case err == nil:
				if _, twice := made.LoadOrStore(v.ID, true); twice {
					t.Errorf("version %d is made twice", v.ID)
				}
			case code != fault.VersionsLimitExceeded:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if page, _, err := r.ListTemplateVersions(ctx, templateAccount, "T", 0, 0); len(page) != 3 || err != nil {
		t.Errorf("versions %+v, %v", page, err)
	}
	// Whoever is always overtaken gives up.
	other := &Service{o: r.o}
	other.o.Store = r.Store
	on := true
	r.before = func() {
		on = !on
		if _, err := other.UpdateTemplate(ctx, templateAccount, UpdateTemplateCommand{Name: "T", Enabled: &on}); err != nil {
			t.Error(err)
		}
	}
	text := "new"
	_, err := r.UpdateTemplate(ctx, templateAccount, UpdateTemplateCommand{Name: "T", Description: &text})
	wantFault(t, err, fault.Throttling, "")
}

func TestInForceFollowsTheRecord(t *testing.T) {
	t.Parallel()
	r, ctx := newTemplateRig(t), t.Context()
	_, err := r.inForce(ctx, templateAccount, "T", provtemplate.FleetProvisioning)
	wantFault(t, err, fault.ResourceNotFound, "does not exist")
	_, err = r.inForce(ctx, templateAccount, "../T", provtemplate.FleetProvisioning)
	wantFault(t, err, fault.InvalidRequest, "templateName")
	r.create(CreateTemplateCommand{Name: "T"})
	first, err := r.inForce(ctx, templateAccount, "T", provtemplate.FleetProvisioning)
	if err != nil || first.DefaultVersion != 1 {
		t.Fatalf("in force %+v, %v", first, err)
	}
	again, err := r.inForce(ctx, templateAccount, "T", provtemplate.FleetProvisioning)
	if err != nil || again.parsed != first.parsed {
		t.Errorf("the body is parsed again: %v", err)
	}
	_, err = r.inForce(ctx, templateAccount, "T", provtemplate.JITP)
	wantFault(t, err, fault.InvalidRequest, "is of type FLEET_PROVISIONING")
	if _, _, err := r.CreateTemplateVersion(ctx, templateAccount, "T", templateBody+" ", true); err != nil {
		t.Fatal(err)
	}
	if now, err := r.inForce(ctx, templateAccount, "T", provtemplate.FleetProvisioning); err != nil || now.DefaultVersion != 2 || now.parsed == first.parsed {
		t.Errorf("in force %d, %v", now.DefaultVersion, err)
	}
	off := false
	if _, err := r.UpdateTemplate(ctx, templateAccount, UpdateTemplateCommand{Name: "T", Enabled: &off}); err != nil {
		t.Fatal(err)
	}
	_, err = r.inForce(ctx, templateAccount, "T", provtemplate.FleetProvisioning)
	wantFault(t, err, fault.InvalidRequest, "not enabled")
	if err := r.DeleteTemplate(ctx, templateAccount, "T"); err != nil {
		t.Fatal(err)
	}
	r.create(CreateTemplateCommand{Name: "T", Body: templateBody + "  "})
	if anew, err := r.inForce(ctx, templateAccount, "T", provtemplate.FleetProvisioning); err != nil || anew.Body != templateBody+"  " || anew.parsed == first.parsed {
		t.Errorf("a template of an old name is the old one: %v", err)
	}
}

// TestParsedTemplatesAreBounded keeps no more than maxParsed.
func TestParsedTemplatesAreBounded(t *testing.T) {
	t.Parallel()
	var p parsedTemplates
	for i := range 3 * maxParsed {
		p.put(templateKey(templateAccount, fmt.Sprint(i)), 1, templateInForce{})
		if len(p.all) > maxParsed {
			t.Fatalf("%d are kept", len(p.all))
		}
	}
	k := templateKey(templateAccount, "late")
	p.put(k, 2, templateInForce{Template: Template{Name: "new"}})
	p.put(k, 1, templateInForce{Template: Template{Name: "old"}})
	if kept, ok := p.get(k, 2); !ok || kept.Name != "new" {
		t.Error("an older version has replaced a newer one")
	}
}

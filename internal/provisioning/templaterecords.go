package provisioning

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/store"
)

// kindTemplate is the first part of the keys; the account is the second.
//
//	provisioning-template/A/<name>  record of one template with all its versions
const kindTemplate = "provisioning-template"

// templateSchema is written into every record.
const templateSchema = 1

// templateRecord is the stored form of a template.
type templateRecord struct {
	Schema      int               `json:"v"`
	Type        provtemplate.Kind `json:"type"`
	Description string            `json:"description,omitempty"`
	Enabled     bool              `json:"enabled,omitempty"`
	RoleARN     string            `json:"roleArn"`
	// HookTarget is empty for no hook.
	HookTarget string `json:"hook,omitempty"`
	// Next is the number of the next version less one; numbers are never used
	// twice.
	Next     int64                   `json:"next"`
	Default  int64                   `json:"default"`
	Versions []templateVersionRecord `json:"versions"`
	Created  int64                   `json:"created"`
	Modified int64                   `json:"modified"`
	// Author is the ARN of who made the template or last changed it.
	Author string `json:"author,omitempty"`
}

// templateVersionRecord is one version.
type templateVersionRecord struct {
	ID      int64  `json:"id"`
	Body    string `json:"body"`
	Created int64  `json:"created"`
}

// version returns one of the template's versions, nil when there is none.
func (r *templateRecord) version(id int64) *templateVersionRecord {
	i := slices.IndexFunc(r.Versions, func(v templateVersionRecord) bool { return v.ID == id })
	if i < 0 {
		return nil
	}
	return &r.Versions[i]
}

// add appends a version and returns its id.
func (r *templateRecord) add(body string, now time.Time) int64 {
	r.Next++
	r.Versions = append(r.Versions, templateVersionRecord{ID: r.Next, Body: body, Created: now.UnixMilli()})
	return r.Next
}

// hook is the public form of the hook.
func (r *templateRecord) hook() *Hook {
	if r.HookTarget == "" {
		return nil
	}
	return &Hook{TargetARN: r.HookTarget, PayloadVersion: hookVersion}
}

// setHook is the reverse of hook.
func (r *templateRecord) setHook(h *Hook) {
	r.HookTarget = ""
	if h != nil {
		r.HookTarget = h.TargetARN
	}
}

// template is the public form of a record.
func (s *Service) template(account fleet.Account, name string, r *templateRecord) Template {
	t := Template{
		Name: name, ARN: s.scope(account).ARN(fleet.ARNProvisioningTemplate, name), Type: r.Type, Description: r.Description,
		Enabled: r.Enabled, RoleARN: r.RoleARN, Hook: r.hook(), DefaultVersion: r.Default,
		Created: time.UnixMilli(r.Created).UTC(), Modified: time.UnixMilli(r.Modified).UTC(),
	}
	if v := r.version(r.Default); v != nil {
		t.Body = v.Body
	}
	return t
}

// templateVersion is the public form of a version.
func templateVersion(r *templateRecord, v *templateVersionRecord) TemplateVersion {
	return TemplateVersion{ID: v.ID, Body: v.Body, Default: v.ID == r.Default, Created: time.UnixMilli(v.Created).UTC()}
}

func templateKey(account fleet.Account, name string) store.Key {
	return store.K(kindTemplate, string(account), name)
}

// decodeTemplate reads a record.
func decodeTemplate(found store.Record) (*templateRecord, error) {
	var r templateRecord
	if err := json.Unmarshal(found.Value, &r); err != nil {
		return nil, fmt.Errorf("decode record %s: %w", found.Key, err)
	}
	if r.Schema != templateSchema {
		return nil, fmt.Errorf("record %s has schema %d, this version reads %d", found.Key, r.Schema, templateSchema)
	}
	return &r, nil
}

// findTemplate reads a template that must exist, with the version of its record.
func (s *Service) findTemplate(ctx context.Context, account fleet.Account, name string) (*templateRecord, uint64, error) {
	if err := checkTemplateName(name); err != nil {
		return nil, 0, err
	}
	r, version, err := s.readTemplate(ctx, account, name)
	if err == nil && r == nil {
		err = noTemplate(name)
	}
	return r, version, err
}

// readTemplate is findTemplate with nil for none.
func (s *Service) readTemplate(ctx context.Context, account fleet.Account, name string) (*templateRecord, uint64, error) {
	k := templateKey(account, name)
	found, err := s.o.Store.Get(ctx, k)
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, store.Fault(fmt.Errorf("read %s: %w", k, err))
	}
	r, err := decodeTemplate(found)
	return r, found.Version, err
}

// Author returns the ARN of who has made a template or last changed it; empty for one
// of an earlier version of this program.
func (s *Service) Author(ctx context.Context, account fleet.Account, name string) (string, error) {
	r, _, err := s.findTemplate(ctx, account, name)
	if err != nil {
		return "", err
	}
	return r.Author, nil
}

// templateAttempt is one try of a command on a template, whose record is
// expected as it was read.
type templateAttempt struct {
	name string
	// record is nil when there is none.
	record *templateRecord
	now    time.Time
	// by is the ARN of who changes it.
	by    string
	batch store.Batch
}

// changeTemplate runs a command until its batch commits, its decision is an
// error, or too many others were faster. A command that writes nothing commits
// nothing.
func (s *Service) changeTemplate(ctx context.Context, account fleet.Account, name string, command func(a *templateAttempt) error) error {
	if err := checkTemplateName(name); err != nil {
		return err
	}
	return store.Attempt(ctx, s.o.Store, func(ctx context.Context) (store.Batch, error) {
		record, version, err := s.readTemplate(ctx, account, name)
		if err != nil {
			return store.Batch{}, err
		}
		k := templateKey(account, name)
		a := &templateAttempt{name: name, record: record, now: s.o.Now(), by: fleet.ActorFrom(ctx).Principal.ARN}
		a.batch.Expect = []store.Expect{{Key: k, Version: version}}
		if err := command(a); err != nil {
			return store.Batch{}, err
		}
		for i := range a.batch.Events {
			a.batch.Events[i].Account, a.batch.Events[i].At, a.batch.Events[i].Actor = account, a.now, fleet.ActorFrom(ctx)
		}
		return a.batch, nil
	})
}

// changeExisting is changeTemplate for a template that must exist.
func (s *Service) changeExisting(ctx context.Context, account fleet.Account, name string, command func(a *templateAttempt, r *templateRecord) error) error {
	return s.changeTemplate(ctx, account, name, func(a *templateAttempt) error {
		if a.record == nil {
			return noTemplate(name)
		}
		return command(a, a.record)
	})
}

// save writes the record and reports the change; version is the one that was
// made or deleted, 0 for another change.
func (a *templateAttempt) save(account fleet.Account, r *templateRecord, change event.TemplateChange, version int64) error {
	r.Schema, r.Modified, r.Author = templateSchema, a.now.UnixMilli(), a.by
	k := templateKey(account, a.name)
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode record %s: %w", k, err)
	}
	a.batch.Writes = append(a.batch.Writes, store.Write{Key: k, Value: data})
	a.emit(event.ProvisioningTemplateChanged{
		Template: a.name, Change: change, Type: string(r.Type), Enabled: r.Enabled, Version: version, DefaultVersion: r.Default,
	})
	return nil
}

// emit appends an event to the batch.
func (a *templateAttempt) emit(e event.Event) {
	a.batch.Events = append(a.batch.Events, event.Envelope{Event: e})
}

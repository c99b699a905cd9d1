package provisioning

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/provtemplate"
	"github.com/muster-iot/muster/internal/registry"
)

// What a hook is told, and what becomes of its answer (§3.4).
func TestHookIsAskedAndOverrides(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", flowBody, hooked)
	r.hook.says(`{"allowProvisioning":true,"parameterOverrides":{"Site":"york","Unheard":"of"}}`)
	claim := r.claim()
	made := r.issued(claim)
	got, err := r.Provision(t.Context(), claim, ProvisionCommand{
		Template: "pumps", Token: made.Token, Parameters: map[string]string{"SerialNumber": "1", "Site": "bath", "Secret": "s"},
	})
	r.need(err)
	if got.DeviceConfiguration["site"] != "york" {
		t.Errorf("told %+v", got)
	}
	r.joined("pump-1", "york", made.CertificateID)
	var told map[string]any
	r.need(json.Unmarshal([]byte(r.hook.inputs[0]), &told))
	for member, want := range map[string]any{
		"claimCertificateId": claim.Principal.ID, "certificateId": made.CertificateID, "certificatePem": made.CertificatePEM,
		"templateArn": "arn:aws:iot:us-east-1:000000000000:provisioningtemplate/pumps", "clientId": "fac-1",
	} {
		if told[member] != want {
			t.Errorf("the hook is told %s %v, want %v", member, told[member], want)
		}
	}
	if got := fmt.Sprint(told["parameters"]); got != "map[Secret:s SerialNumber:1 Site:bath]" || len(told) != 6 {
		t.Errorf("the hook is told %v", told)
	}
	if r.hook.limits[0] != 5*time.Second {
		t.Errorf("the hook has %v", r.hook.limits[0])
	}
	// Parameters are an object also when a device sends none.
	made = r.issued(claim)
	r.hook.says(`{"allowProvisioning":true,"parameterOverrides":{"SerialNumber":"2"}}`)
	_, err = r.Provision(t.Context(), claim, ProvisionCommand{Template: "pumps", Token: made.Token})
	r.need(err)
	r.joined("pump-2", "leeds", made.CertificateID)
	if !strings.Contains(r.hook.inputs[1], `"parameters":{}`) {
		t.Errorf("the hook is told %s", r.hook.inputs[1])
	}
}

// A hook that lies, dies or speaks in tongues. Outcome: the device is refused, with
// nothing about the reason; the operator reads it in the record; nothing is made,
// and the same token is good for the next try.
func TestHookThatDoesNotClearlyAllow(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", flowBody, hooked)
	claim := r.claim()
	made, serial := r.issued(claim), "1"
	overrides := func(text string) string { return `{"allowProvisioning":true,"parameterOverrides":` + text + `}` }
	for name, answer := range map[string]string{
		"no":                           `{"allowProvisioning":false}`,
		"no with overrides":            `{"allowProvisioning":false,"parameterOverrides":{"Site":"york"}}`,
		"nothing":                      ``,
		"null":                         `null`,
		"empty object":                 `{}`,
		"the word alone":               `true`,
		"a list":                       `[{"allowProvisioning":true}]`,
		"missing":                      `{"parameterOverrides":{"Site":"york"}}`,
		"yes as a text":                `{"allowProvisioning":"true"}`,
		"yes as a number":              `{"allowProvisioning":1}`,
		"yes as null":                  `{"allowProvisioning":null}`,
		"in other letters":             `{"AllowProvisioning":true}`,
		"yes and no":                   `{"allowProvisioning":false,"allowProvisioning":true}`,
		"no and yes":                   `{"allowProvisioning":true,"allowProvisioning":false}`,
		"garbage":                      "\x00\xff{{{",
		"a page":                       `<html>allowProvisioning: true</html>`,
		"two answers":                  `{"allowProvisioning":true}{"allowProvisioning":false}`,
		"cut off":                      `{"allowProvisioning":true`,
		"override of a number":         overrides(`{"Site":1}`),
		"override of nothing":          overrides(`{"Site":null}`),
		"override of an object":        overrides(`{"Site":{"Ref":"x"}}`),
		"overrides in a list":          overrides(`["Site"]`),
		"override too long":            overrides(`{"Site":"` + strings.Repeat("x", 4097) + `"}`),
		"override no UTF-8":            overrides("{\"Site\":\"\xff\"}"),
		"the wrapped answer of an API": `{"statusCode":200,"body":"{\"allowProvisioning\":true}"}`,
	} {
		r.hook.says(answer)
		made = r.issued(claim) // one device's refusals are recorded once a minute
		at := r.head()
		_, err := r.join(claim, made.Token, serial)
		if fault.CodeOf(err) != fault.Forbidden {
			t.Errorf("%s: %v of code %q", name, err, fault.CodeOf(err))
			if err == nil {
				serial += "1"
			}
			continue
		}
		if message := fault.From(err).Message; message != "The pre-provisioning hook did not allow the device" {
			t.Errorf("%s: the device is told %q", name, message)
		}
		if refused := r.refusals(at); len(refused) != 1 || refused[0].Code != "Forbidden" || !strings.Contains(refused[0].Reason, ": ") {
			t.Errorf("%s: recorded %+v", name, refused)
		}
		r.untouched(made.CertificateID, "pump-"+serial)
	}
	// Whose certificate it is a hook cannot choose either.
	r.hook.says(overrides(`{"AWS::IoT::Certificate::Id":"` + claim.Principal.ID + `"}`))
	_, err := r.join(claim, made.Token, serial)
	if err == nil {
		t.Error("a hook has chosen the certificate")
	}
	r.untouched(made.CertificateID, "pump-"+serial)
	for name, failure := range map[string]error{
		"dead": errors.New("exit status 1"), "unknown": errors.New("no function"), "busy": errors.New("too many"),
	} {
		r.hook.set(func(context.Context, []byte) ([]byte, error) { return []byte(`{"allowProvisioning":true}`), failure })
		_, err := r.join(claim, made.Token, serial)
		if fault.CodeOf(err) != fault.Forbidden {
			t.Errorf("%s: %v", name, err)
		}
		r.untouched(made.CertificateID, "pump-"+serial)
	}
	r.hook.says(`{"allowProvisioning":true}`)
	_, err = r.join(claim, made.Token, serial)
	r.need(err)
	r.joined("pump-"+serial, "leeds", made.CertificateID)
}

// A hook that hangs. Outcome: the device is refused when five seconds are over, not
// later, and gets in with the same token when the hook is well again.
func TestHookThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, Limits{})
		r.template("pumps", flowBody, hooked)
		claim := r.claim()
		made := r.issued(claim)
		r.hook.set(func(ctx context.Context, _ []byte) ([]byte, error) {
			<-ctx.Done()
			return []byte(`{"allowProvisioning":true}`), context.Cause(ctx)
		})
		begun := time.Now()
		_, err := r.join(claim, made.Token, "1")
		wantCode(t, err, fault.Forbidden)
		if took := time.Since(begun); took != 5*time.Second {
			t.Errorf("the device waits %v", took)
		}
		r.untouched(made.CertificateID, "pump-1")
		r.hook.says(`{"allowProvisioning":true}`)
		_, err = r.join(claim, made.Token, "1")
		r.need(err)
		r.joined("pump-1", "leeds", made.CertificateID)
		// One that takes its time and is in time is heard.
		made = r.issued(claim)
		r.hook.set(func(context.Context, []byte) ([]byte, error) {
			<-time.After(4900 * time.Millisecond)
			return []byte(`{"allowProvisioning":true}`), nil
		})
		_, err = r.join(claim, made.Token, "2")
		r.need(err)
		r.joined("pump-2", "leeds", made.CertificateID)
	})
}

// What happens while a hook thinks. Outcome: the version in force when the request
// was read is carried out, wholly; a certificate that has gone, was used or has
// waited too long meanwhile is refused.
func TestWorldMovesWhileTheHookThinks(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	r.template("pumps", flowBody, hooked)
	_, _, err := r.CreateTemplateVersion(t.Context(), flowAccount, "pumps", strings.ReplaceAll(flowBody, `"leeds"`, `"york"`), false)
	r.need(err)
	claim := r.claim()
	during := func(what func()) {
		r.hook.set(func(context.Context, []byte) ([]byte, error) {
			r.hook.says(`{"allowProvisioning":true}`)
			what()
			return []byte(`{"allowProvisioning":true}`), nil
		})
	}
	made := r.issued(claim)
	during(func() {
		version := int64(2)
		_, err := r.UpdateTemplate(t.Context(), flowAccount, UpdateTemplateCommand{Name: "pumps", DefaultVersion: &version})
		r.need(err)
	})
	told, err := r.join(claim, made.Token, "1")
	r.need(err)
	if told.DeviceConfiguration["site"] != "leeds" {
		t.Errorf("told %+v", told)
	}
	r.joined("pump-1", "leeds", made.CertificateID)

	made = r.issued(claim)
	during(func() {
		_, err := r.join(claim, made.Token, "2")
		r.need(err)
	})
	_, err = r.join(claim, made.Token, "3")
	if !errors.Is(err, ErrToken) {
		t.Errorf("a token that was used meanwhile: %v", err)
	}
	r.joined("pump-2", "york", made.CertificateID)
	if exists, _ := r.registry.ThingExists(t.Context(), flowAccount, "pump-3"); exists {
		t.Error("a thing is left")
	}

	made = r.issued(claim)
	during(func() { r.pass(TokenLife) })
	_, err = r.join(claim, made.Token, "4")
	if !errors.Is(err, ErrToken) {
		t.Errorf("a token that has ended meanwhile: %v", err)
	}
	r.untouched(made.CertificateID, "pump-4")

	made = r.issued(claim)
	during(func() {
		r.need(r.registry.UpdateCertificate(t.Context(), flowAccount, made.CertificateID, registry.StatusRevoked))
	})
	_, err = r.join(claim, made.Token, "5")
	if !errors.Is(err, ErrToken) {
		t.Errorf("a certificate that was revoked meanwhile: %v", err)
	}
	if status := r.status(made.CertificateID); status != registry.StatusRevoked {
		t.Errorf("the revoked certificate is %s", status)
	}
}

// A hook can be given only where it is asked, and only one that there is. A
// template whose hook has left the configuration lets nobody in.
func TestHookIsChecked(t *testing.T) {
	t.Parallel()
	r := newFlowRig(t, Limits{})
	for name, c := range map[string]CreateTemplateCommand{
		"JITP":            {Type: provtemplate.JITP, Body: jitBody, Hook: &Hook{TargetARN: "hook"}},
		"unknown":         {Body: flowBody, Hook: &Hook{TargetARN: "arn:aws:lambda:us-east-1:000000000000:function:none"}},
		"other version":   {Body: flowBody, Hook: &Hook{TargetARN: "hook", PayloadVersion: "2020-04-02"}},
		"without target":  {Body: flowBody, Hook: &Hook{}},
		"target too long": {Body: flowBody, Hook: &Hook{TargetARN: strings.Repeat("x", 2049)}},
	} {
		c.Name, c.RoleARN, c.Enabled = "pumps", flowRole, true
		_, err := r.CreateTemplate(t.Context(), flowAccount, c)
		if fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.template("pumps", flowBody, func(c *CreateTemplateCommand) {
		c.Hook = &Hook{TargetARN: "arn:aws:lambda:us-east-1:000000000000:function:hook:1"}
	})
	claim := r.claim()
	made := r.issued(claim)
	r.hook.set(nil)
	_, err := r.join(claim, made.Token, "1")
	wantCode(t, err, fault.Forbidden)
	r.untouched(made.CertificateID, "pump-1")
	if r.hook.asked() != 1 {
		t.Errorf("the hook was asked %d times", r.hook.asked())
	}
	// Without a token nobody asks it.
	_, err = r.join(claim, "x", "1")
	if !errors.Is(err, ErrToken) || r.hook.asked() != 1 {
		t.Errorf("%v; the hook was asked %d times", err, r.hook.asked())
	}
}

package onboarding

import (
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
)

// dated is a plan whose things have to be as the metadata says within a time.
var dated = strings.Replace(small, "metadata:\n", "metadata:\n  within: 5m\n", 1)

// updated is a change of the device's thing.
func updated(thing, typeName string, attributes map[string]string) event.ThingUpdated {
	return event.ThingUpdated{Thing: event.Thing{Thing: thing, TypeName: typeName, Attributes: attributes}}
}

// Mission M22: a plan validates the metadata at the activation. What the thing says
// is followed while it changes; what is wrong at the end of the time has failed.
func TestMetadataAtActivation(t *testing.T) {
	t.Parallel()
	right := map[string]string{"serial": "S-1", "model": "P1", "made": "2026-11-01"}
	wrong := map[string]string{"serial": "S-1", "model": "P1", "made": "1.11.2026"}
	for name, c := range map[string]struct {
		joined, later map[string]string
		failed        bool
	}{
		"right all the time": {joined: right},
		"put right in time":  {joined: wrong, later: right},
		"never right":        {joined: wrong, failed: true},
		"spoilt in time":     {joined: right, later: wrong},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.publish(dated)
			r.holds["thingName:* AND attributes.ok:yes"], r.holds["connectivity.connected:true"] = true, true
			e := joins("S-1", first)
			e.TypeName, e.Attributes = "pump-type", c.joined
			r.happens(e)
			r.happens(connects("S-1", first))
			criteria := r.device("S-1").Criteria
			if len(criteria) != 3 || criteria[0].Predicate != metadataPredicate || criteria[0].Stage != "join" || criteria[0].Within != 5*time.Minute {
				t.Fatalf("criteria %+v", criteria)
			}
			if name == "spoilt in time" {
				// Once it did hold, it is met for good.
				r.pass(time.Minute)
			}
			if c.later != nil {
				r.happens(updated("thing-S-1", "pump-type", c.later))
				// Another life of the name is not meant.
				r.happens(updated("thing-S-9", "pump-type", wrong))
			}
			r.boot()
			r.pass(2 * time.Minute)
			r.pass(3 * time.Minute)
			d := r.device("S-1")
			if got := !d.Criteria[0].Failed.IsZero(); got != c.failed || d.Criteria[0].Met.IsZero() != c.failed {
				t.Errorf("the criterion is %+v", d.Criteria[0])
			}
			failed := 0
			for _, e := range r.events() {
				if f, ok := e.(event.OnboardingCriteriaFailed); ok {
					failed++
					wantEqual(t, []string{f.Predicate, f.Thing, f.CertificateID}, []string{metadataPredicate, "thing-S-1", first})
				}
			}
			if (failed == 1) != c.failed {
				t.Errorf("%d failures are reported", failed)
			}
			if name == "put right in time" {
				wantEqual(t, d.Problems, []string(nil))
				if last := d.History[len(d.History)-4:]; !strings.Contains(last[0].Note, "is as it should be now") {
					t.Errorf("the history ends with %+v", last)
				}
			}
		})
	}
}

func TestMetadataWithinIsChecked(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		strings.Replace(small, "metadata:\n", "metadata:\n  within: soon\n", 1):                                                                                   "metadata.within: must be a time",
		"id: a\nname: A\nmetadata: {within: 5m}\nstages: [{id: a, kind: CUSTOM, actor: {role: R}, steps: [{id: s, title: S, mode: MANUAL, instruction: Do.}]}]\n": "metadata.within: goes with facts",
	} {
		_, err := Parse([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// What was announced of a device is found by the key that its plan has, and becomes
// attributes and a type as the plan says.
func TestAnnounced(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.publish(small)
	_, err := r.Expect(t.Context(), acct, ExpectCommand{Plan: "pumps", Metadata: map[string]string{"uniqueId": "S-1", "modelNumber": "P1", "manufacturingDate": "2026-11-01"}})
	r.need(err)
	facts := map[string]string{"serial": "S-1", "model": "P1", "made": "2026-11-01"}
	for name, c := range map[string]struct {
		n    Newcomer
		want map[string]string
	}{
		"by the template's plan":    {Newcomer{Template: "pump", Thing: "x", Attributes: map[string]string{"serial": "S-1"}}, facts},
		"by the authority's plan":   {Newcomer{Authority: authority, Thing: "x", Attributes: map[string]string{"serial": "S-1"}}, facts},
		"without its serial":        {Newcomer{Template: "pump", Thing: "S-1"}, nil},
		"another serial":            {Newcomer{Template: "pump", Thing: "S-1", Attributes: map[string]string{"serial": "S-2"}}, nil},
		"by the name, without plan": {Newcomer{Thing: "S-1"}, facts},
		"by the client of no plan":  {Newcomer{Thing: "x", ClientID: "S-1"}, facts},
		"a name that can be no key": {Newcomer{Thing: "/"}, nil},
		"nobody has announced it":   {Newcomer{Thing: "S-3"}, nil},
	} {
		attributes, typeName, err := r.Announced(t.Context(), acct, c.n)
		r.need(err)
		if (typeName == "pump-type") != (c.want != nil) {
			t.Errorf("%s: type %q", name, typeName)
		}
		wantEqual(t, attributes, c.want)
	}
	attributes, _, err := r.Announced(t.Context(), "111111111111", Newcomer{Thing: "S-1"})
	if err != nil || attributes != nil {
		t.Errorf("another account is told %v, %v", attributes, err)
	}
}

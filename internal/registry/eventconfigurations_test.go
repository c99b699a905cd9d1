package registry

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

func TestEventConfigurations(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	first := must[EventConfigurations](t)(r.DescribeEventConfigurations(ctx, acct))
	wantEqual(t, len(first.Enabled), 11)
	for kind, on := range first.Enabled {
		if on {
			t.Errorf("%s is on", kind)
		}
	}
	if !first.Created.IsZero() || !first.Modified.IsZero() {
		t.Fatal(first)
	}
	ok(t, r.UpdateEventConfigurations(ctx, acct, map[string]bool{"THING": true, "THING_TYPE": true, "JOB": false}))
	r.pass(time.Minute)
	ok(t, r.UpdateEventConfigurations(ctx, acct, map[string]bool{"THING_TYPE": false, "THING_GROUP": true}))
	r.pass(time.Minute)
	// No change, no event.
	ok(t, r.UpdateEventConfigurations(ctx, acct, map[string]bool{"THING": true}))
	ok(t, r.UpdateEventConfigurations(ctx, acct, nil))
	found := must[EventConfigurations](t)(r.DescribeEventConfigurations(ctx, acct))
	for kind, on := range found.Enabled {
		if on != (kind == "THING" || kind == "THING_GROUP") {
			t.Errorf("%s: %v", kind, on)
		}
	}
	wantEqual(t, found.Created, start)
	wantEqual(t, found.Modified, start.Add(time.Minute))
	wantEqual(t, r.store.log(), []event.Event{
		event.EventConfigurationsChanged{Enabled: []string{"THING", "THING_TYPE"}},
		event.EventConfigurationsChanged{Enabled: []string{"THING", "THING_GROUP"}},
	})
	for kind, text := range map[string]string{"THINGS": `"THINGS"`, "": `""`, "JOB": "JOB", "JOB_EXECUTION": "JOB_EXECUTION", "CERTIFICATE": "CERTIFICATE"} {
		err := r.UpdateEventConfigurations(ctx, acct, map[string]bool{kind: true, "THING": false})
		if code := fault.CodeOf(err); code != fault.InvalidRequest && code != fault.NotOffered || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	// A refused change has changed nothing, and accounts are apart.
	wantEqual(t, must[EventConfigurations](t)(r.DescribeEventConfigurations(ctx, acct)), found)
	ok(t, r.UpdateEventConfigurations(ctx, "000000000001", map[string]bool{"THING": false}))
	all := map[fleet.Account][]string{}
	ok(t, EachEventConfiguration(context.WithoutCancel(ctx), r.store, func(a fleet.Account, enabled []string) error {
		all[a] = enabled
		return nil
	}))
	wantEqual(t, all, map[fleet.Account][]string{acct: {"THING", "THING_GROUP"}, "000000000001": nil})
}

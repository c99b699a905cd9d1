package sdk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"
	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/testkit"
)

// muster runs the command line against the server and decodes its JSON.
func (o *operator) muster(into any, args ...string) {
	o.t.Helper()
	out, err := o.server.Muster(o.t.Context(), append(args, "-o", "json")...)
	if err != nil {
		o.t.Fatalf("muster %v: %v\n%s", args, err, out)
	}
	start := strings.IndexAny(out, "[{")
	if start < 0 {
		o.t.Fatalf("muster %v: %s", args, out)
	}
	if err := json.NewDecoder(strings.NewReader(out[start:])).Decode(into); err != nil {
		o.t.Fatalf("muster %v: %v\n%s", args, err, out)
	}
}

// past is an entry of a history of memberships, as far as these tests look.
type past struct {
	Group    string `json:"groupName"`
	Thing    string `json:"thingName"`
	Dynamic  bool   `json:"dynamic"`
	JoinedAt string `json:"joinedAt"`
	LeftAt   string `json:"leftAt"`
	Joined   *struct {
		Kind, Field, Predicate, Value string
		Position                      uint64
		By                            *struct {
			Principal struct{ ARN string }
		}
	}
	Left *struct{ Kind, Predicate, Value string }
}

// inWords is what can be foretold of entries.
func inWords(entries []past) []string {
	var out []string
	for _, e := range entries {
		text := fmt.Sprintf("%s %s", e.Group, e.Thing)
		if e.Joined != nil {
			text += fmt.Sprintf(" +%s %s %s", e.Joined.Kind, e.Joined.Predicate, e.Joined.Value)
		}
		if e.Left != nil {
			text += fmt.Sprintf(" -%s %s %s", e.Left.Kind, e.Left.Predicate, e.Left.Value)
		}
		if (e.Left == nil) != (e.LeftAt == "") {
			text += " with an end that is none"
		}
		out = append(out, strings.Join(strings.Fields(text), " "))
	}
	return out
}

// status is a dynamic group's state.
func (o *operator) status(group string) string {
	o.t.Helper()
	return string(must(o, o.DescribeThingGroup, &iot.DescribeThingGroupInput{ThingGroupName: &group}).Status)
}

// Who was in which group, when and why, static and dynamic; why somebody is or is
// not; all of it over a crash.
func TestMembershipHistory(t *testing.T) {
	t.Parallel()
	o := newOperator(t, startServer(t))
	const low = "shadow.reported.battery<20"
	must(o, o.CreateThingGroup, &iot.CreateThingGroupInput{ThingGroupName: new("north")})
	must(o, o.CreateDynamicThingGroup, &iot.CreateDynamicThingGroupInput{ThingGroupName: new("low"), QueryString: new(low)})
	testkit.Poll(t, 10*time.Second, "status of an empty group", func() error {
		if got := o.status("low"); got != "ACTIVE" {
			return errors.New(got)
		}
		return nil
	})
	must(o, o.CreateThing, &iot.CreateThingInput{ThingName: new("pump")})
	must(o, o.AddThingToThingGroup, &iot.AddThingToThingGroupInput{ThingName: new("pump"), ThingGroupName: new("north")})
	o.updateShadow("pump", `{"state":{"reported":{"battery":12.5}}}`)
	o.settles("pump", "low", "north")

	o.server.Kill()
	o.server.Start()
	o = newOperator(t, o.server)
	if got := o.status("low"); got != "ACTIVE" {
		t.Errorf("status %s right after a restart", got)
	}
	o.settles("pump", "low", "north")
	o.updateShadow("pump", `{"state":{"reported":{"battery":50}}}`)
	o.settles("pump", "north")
	want := []string{"low pump +VALUE " + low + " 12.5 -VALUE " + low + " 50", "north pump +REQUEST"}
	var entries []past
	testkit.Poll(t, 10*time.Second, "the history of pump", func() error {
		entries = nil
		o.muster(&entries, "things", "groups", "pump", "--history")
		if diff := cmp.Diff(want, inWords(entries)); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
	if by := entries[1].Joined.By; by == nil || !strings.HasSuffix(by.Principal.ARN, ":root") {
		t.Errorf("who put pump into north: %+v", by)
	}
	if joined := entries[0].Joined; joined.Field != "shadow.reported.battery" || joined.Position == 0 {
		t.Errorf("why pump was in low: %+v", joined)
	}
	// Who was in low at a moment in between.
	var then []past
	o.muster(&then, "groups", "history", "low", "--at", entries[0].JoinedAt)
	if diff := cmp.Diff(want[:1], inWords(then)); diff != "" {
		t.Error(diff)
	}
	then = nil
	o.muster(&then, "groups", "history", "low", "--at", entries[0].LeftAt)
	if len(then) != 0 {
		t.Errorf("in low after the end: %v", then)
	}
	// Why it is not there now, and why it is in the other one.
	var reason struct {
		Member, Dynamic bool
		Matches         *bool
		Joined          *struct{ Kind string }
		Evaluation      struct {
			Predicate   string
			Holds       bool
			WouldChange bool
			Values      []struct {
				Values []string
				Since  time.Time
			}
		}
	}
	o.muster(&reason, "groups", "why", "low", "pump")
	e := reason.Evaluation
	if reason.Member || !reason.Dynamic || reason.Matches == nil || *reason.Matches || e.Predicate != low || e.Holds || !e.WouldChange ||
		len(e.Values) != 1 || !slices.Equal(e.Values[0].Values, []string{"50"}) || time.Since(e.Values[0].Since) > 10*time.Minute {
		t.Errorf("why pump is not in low: %+v", reason)
	}
	reason.Matches = nil
	o.muster(&reason, "groups", "why", "north", "pump")
	if !reason.Member || reason.Dynamic || reason.Joined == nil || reason.Joined.Kind != "REQUEST" {
		t.Errorf("why pump is in north: %+v", reason)
	}
	for _, args := range [][]string{{"none", "pump"}, {"low", "none"}} {
		if out, err := o.server.Muster(t.Context(), append([]string{"groups", "why"}, args...)...); err == nil || !strings.Contains(err.Error(), "none") {
			t.Errorf("why %v: %v %s", args, err, out)
		}
	}

	// A changed query, then the end of thing and group.
	must(o, o.UpdateDynamicThingGroup, &iot.UpdateDynamicThingGroupInput{
		ThingGroupName: new("low"), QueryString: new("shadow.reported.battery<60"), ThingGroupProperties: &types.ThingGroupProperties{},
	})
	o.settles("pump", "low", "north")
	must(o, o.DeleteDynamicThingGroup, &iot.DeleteDynamicThingGroupInput{ThingGroupName: new("low")})
	must(o, o.DeleteThing, &iot.DeleteThingInput{ThingName: new("pump")})
	want = []string{"low pump +QUERY -GROUP", want[0], "north pump +REQUEST -THING"}
	testkit.Poll(t, 10*time.Second, "the history of pump after its end", func() error {
		entries = nil
		o.muster(&entries, "things", "groups", "pump", "--history")
		if diff := cmp.Diff(want, inWords(entries)); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
}

// metric is the sum of a metric's lines that contain a text.
func (o *operator) metric(line string) bool {
	o.t.Helper()
	request, err := http.NewRequestWithContext(o.t.Context(), http.MethodGet, "http://"+o.server.HTTPAddr+"/metrics", nil)
	if err != nil {
		o.t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		o.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		o.t.Fatal(err)
	}
	return strings.Contains(string(text), line+"\n")
}

// Without a setting there is no limit on groups; with one, whoever has no room is
// logged, counted and explained.
func TestGroupLimitsAreOffUnlessSet(t *testing.T) {
	t.Parallel()
	o := newOperator(t, startServer(t))
	must(o, o.CreateThing, &iot.CreateThingInput{ThingName: new("pump")})
	var all []string
	for i := range 12 {
		name := fmt.Sprintf("g%02d", i)
		if i%2 == 0 {
			must(o, o.CreateThingGroup, &iot.CreateThingGroupInput{ThingGroupName: &name})
			must(o, o.AddThingToThingGroup, &iot.AddThingToThingGroupInput{ThingName: new("pump"), ThingGroupName: &name})
		} else {
			must(o, o.CreateDynamicThingGroup, &iot.CreateDynamicThingGroupInput{ThingGroupName: &name, QueryString: new("thingName:pump")})
		}
		all = append(all, name)
	}
	o.settles("pump", all...)

	o = newOperator(t, testkit.StartServer(t, "--registry.max-groups-per-thing=2"))
	must(o, o.CreateThing, &iot.CreateThingInput{ThingName: new("pump")})
	for _, name := range []string{"old", "middle", "young"} {
		must(o, o.CreateDynamicThingGroup, &iot.CreateDynamicThingGroupInput{ThingGroupName: &name, QueryString: new("thingName:pump")})
	}
	o.settles("pump", "old", "middle")
	testkit.Poll(t, 10*time.Second, "the refusal of young", func() error {
		if !o.metric(`muster_iot_add_thing_to_dynamic_thing_groups_failed_total{account="000000000000",dynamic_group_name="young"} 1`) {
			return errors.New("not counted")
		}
		return nil
	})
	if log := o.server.Log(); !strings.Contains(log, "level=ERROR") || !strings.Contains(log, "group=young thing=pump") {
		t.Error("the refusal is not in the log")
	}
	var reason struct {
		Member  bool
		Refused *struct {
			MaxGroupsPerThing int
			ElderGroups       []string
		}
	}
	o.muster(&reason, "groups", "why", "young", "pump")
	if reason.Member || reason.Refused == nil || reason.Refused.MaxGroupsPerThing != 2 || !slices.Equal(reason.Refused.ElderGroups, []string{"old", "middle"}) {
		t.Errorf("why pump is not in young: %+v", reason)
	}
}

package sdk

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go/aws/awserr"           //nolint:staticcheck // as restart_test.go
	"github.com/aws/aws-sdk-go/service/iotdataplane" //nolint:staticcheck // as restart_test.go
	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/testkit"
)

// text is a line of shadows.mjs as the tests compare it.
func (l *line) text() string {
	state, err := json.Marshal(l.State)
	if err != nil {
		return err.Error()
	}
	switch l.Event {
	case "delta":
		return fmt.Sprintf("%s %d %s %t %t", l.Event, l.Version, state, l.Metadata, l.Timestamp)
	case "documents":
		return fmt.Sprintf("%s %d->%d %s", l.Event, l.Previous, l.Version, state)
	case "closed":
		return l.Event
	}
	if !l.Accepted {
		return fmt.Sprintf("%s %d %s", l.Event, l.Code, l.Message)
	}
	return fmt.Sprintf("%s %d %s %t", l.Event, l.Version, state, l.Metadata)
}

// TestShadowClients lets each shadow client of the AWS device SDKs go through
// every operation, on both protocols, with the classic shadow and a named one
// (device plane, 4.1, 4.5 to 4.8).
func TestShadowClients(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "node", "npm")
	if err := needDevice(); err != nil {
		t.Fatal(err)
	}
	server := startServer(t)
	fleetOf(newOperator(t, server))
	for _, sdk := range []struct {
		name, protocol string
		// bare is a client without named shadows and documents, which sends
		// versions of its own accord.
		bare bool
	}{{"v2-service", "3.1.1", false}, {"v2-service", "5", false}, {"v2-requests", "3.1.1", false}, {"v2-requests", "5", false}, {"v1", "3.1.1", true}} {
		t.Run(sdk.name+"/MQTT"+sdk.protocol, func(t *testing.T) {
			t.Parallel()
			o := newOperator(t, server)
			thing := strings.NewReplacer(".", "", "/", "-").Replace("shadows-" + sdk.name + "-" + sdk.protocol)
			as := o.register(thing)
			d := startJavaScript(t, "shadows.mjs", "SDK="+sdk.name, "PROTOCOL="+sdk.protocol, "THING="+thing, "PORT="+portOf(t, server.MQTTAddr),
				"CERT="+as.cert, "KEY="+as.key, "CA="+filepath.Join(server.DataDir, "ca.pem"))
			const desired = `"desired":{"fan":{"rpm":900},"led":"on"}`
			for _, name := range []string{"", "config"} {
				if name != "" && sdk.bare {
					continue
				}
				missing := "404 No shadow exists with name: '" + thing + "'"
				if name != "" {
					missing = "404 No shadow exists with name: '" + name + "'"
				}
				want := []string{
					"get " + missing,
					`update 1 {` + desired + `,"reported":{"fan":{"rpm":0}}} true`,
					`delta 1 {"fan":{"rpm":900},"led":"on"} true true`,
					`documents 0->1 {` + desired + `,"reported":{"fan":{"rpm":0}}}`,
					`update 2 {"reported":{"fan":{"rpm":900},"led":"on"}} true`,
					`documents 1->2 {` + desired + `,"reported":{"fan":{"rpm":900},"led":"on"}}`,
					`get 2 {` + desired + `,"reported":{"fan":{"rpm":900},"led":"on"}} true`,
					"conflict 409 Version conflict",
					"delete 2 null false",
					"delete " + missing,
				}
				if sdk.bare {
					want = slices.DeleteFunc(want, func(l string) bool { return strings.HasPrefix(l, "documents") })
					want[len(want)-2] = "delete 3 null false"
				}
				var got []string
				for len(got) < len(want) {
					select {
					case l, ok := <-d.lines:
						if !ok || l.Event == "failed" || l.Shadow != name {
							t.Fatalf("after %q the device said %+v", got, l)
						}
						if l.Event == "ready" {
							o.updateShadow(thing, `{"state":{"reported":{"other":1}}}`)
							if _, err := d.stdin.Write([]byte("go on\n")); err != nil {
								t.Fatal(err)
							}
							continue
						}
						got = append(got, l.text())
					case <-time.After(60 * time.Second):
						t.Fatalf("after %q the device said nothing", got)
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("shadow %q (-want +got):\n%s", name, diff)
				}
			}
			d.next("closed")
		})
	}
}

// TestShadowsOverHTTP: the Go SDK, against device plane 4.7, 4.8 and 4.10.
func TestShadowsOverHTTP(t *testing.T) {
	t.Parallel()
	o := newOperator(t, startServer(t))
	fleetOf(o)
	ctx := t.Context()
	update := func(thing string, name *string, body string) (string, error) {
		out, err := o.data.UpdateThingShadowWithContext(ctx, &iotdataplane.UpdateThingShadowInput{ThingName: &thing, ShadowName: name, Payload: []byte(body)})
		if err != nil {
			return "", err
		}
		return string(out.Payload), nil
	}
	remove := func(thing string, name *string) error {
		_, err := o.data.DeleteThingShadowWithContext(ctx, &iotdataplane.DeleteThingShadowInput{ThingName: &thing, ShadowName: name})
		return err
	}
	refused := func(err error, code, message string) {
		t.Helper()
		failure, ok := err.(awserr.RequestFailure) //nolint:errorlint // what the SDK returns
		if !ok || failure.Code() != code || !strings.Contains(failure.Message(), message) {
			t.Errorf("%v, want %s: %s", err, code, message)
		}
	}
	for body, message := range map[string]string{
		`{`:                                  "Invalid JSON",
		`{"clientToken":"t"}`:                "Missing required node: state",
		`{"state":1}`:                        "State node must be an object",
		`{"state":{"desired":1}}`:            "Desired node must be an object",
		`{"state":{"reported":[]}}`:          "Reported node must be an object",
		`{"state":{},"version":"x"}`:         "Invalid version",
		`{"state":{},"clientToken":7}`:       "Invalid clientToken",
		`{"state":{"other":{}}}`:             "State contains an invalid node",
		`{"state":{"desired":{"a":[null]}}}`: "State contains an invalid node",
		`{"state":{},"clientToken":"` + strings.Repeat("t", 65) + `"}`:                             "Invalid clientToken",
		`{"state":{"desired":` + strings.Repeat(`{"a":`, 8) + `{}` + strings.Repeat(`}`, 8) + `}}`: "JSON contains too many levels of nesting; maximum is 8",
	} {
		_, err := update("pump", nil, body)
		refused(err, "InvalidRequestException", message)
	}
	_, err := update("pump", nil, `{"state":{"desired":{"a":"`+strings.Repeat("x", 8200)+`"}}}`)
	refused(err, "RequestEntityTooLargeException", "The payload exceeds the maximum size allowed")
	_, err = update("pump", nil, "{\"state\":{\"desired\":{\"a\":\"\xff\"}}}")
	refused(err, "UnsupportedDocumentEncodingException", "Unsupported documented encoding; supported encoding is UTF-8")
	refused(remove("pump", nil), "ResourceNotFoundException", "No shadow exists with name: 'pump'")

	// Numbers stay as they are written; the counter goes on after a deletion.
	accepted, err := update("pump", nil, `{"state":{"desired":{"n":1.50,"m":1e2,"big":123456789012345678901234567890}},"clientToken":"`+strings.Repeat("t", 64)+`"}`)
	if err != nil || !strings.Contains(accepted, `"state":{"desired":{"big":123456789012345678901234567890,"m":1e2,"n":1.50}}`) || !strings.Contains(accepted, strings.Repeat("t", 64)) {
		t.Errorf("%s, %v", accepted, err)
	}
	_, err = update("pump", nil, `{"state":{},"version":7}`)
	refused(err, "ConflictException", "Version conflict")
	if err := remove("pump", nil); err != nil {
		t.Fatal(err)
	}
	if accepted, err = update("pump", nil, `{"state":{}}`); err != nil || !strings.Contains(accepted, `"version":2`) {
		t.Errorf("made again: %s, %v", accepted, err)
	}

	// Pages of names hold under change: nothing is told twice, what stays is told.
	for i := range 7 {
		if _, err := update("pump", new(fmt.Sprintf("s%d", i)), `{"state":{}}`); err != nil {
			t.Fatal(err)
		}
	}
	var names []string
	var token *string
	for page := 0; ; page++ {
		out, err := o.data.ListNamedShadowsForThingWithContext(ctx, &iotdataplane.ListNamedShadowsForThingInput{ThingName: new("pump"), PageSize: new(int64(3)), NextToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range out.Results {
			names = append(names, *name)
		}
		if page == 0 {
			if err := remove("pump", new("s1")); err != nil {
				t.Fatal(err)
			}
			if _, err := update("pump", new("s00"), `{"state":{}}`); err != nil {
				t.Fatal(err)
			}
			if err := remove("pump", new("s4")); err != nil {
				t.Fatal(err)
			}
		}
		if token = out.NextToken; token == nil {
			break
		}
	}
	if diff := cmp.Diff([]string{"s0", "s1", "s2", "s3", "s5", "s6"}, names); diff != "" {
		t.Error(diff)
	}
	// The SDK itself refuses a page size of 0.
	_, err = o.data.ListNamedShadowsForThingWithContext(ctx, &iotdataplane.ListNamedShadowsForThingInput{ThingName: new("pump"), PageSize: new(int64(101))})
	refused(err, "InvalidRequestException", "'pageSize' must be at most 100")
	if out, err := o.data.ListNamedShadowsForThingWithContext(ctx, &iotdataplane.ListNamedShadowsForThingInput{ThingName: new("nobody")}); err != nil || len(out.Results) != 0 {
		t.Errorf("%v, %v", out, err)
	}
	// The history of a shadow lives on when its thing is deleted.
	must(o, o.CreateThing, &iot.CreateThingInput{ThingName: new("pump")})
	must(o, o.DeleteThing, &iot.DeleteThingInput{ThingName: new("pump")})
	answer, err := o.server.Muster(ctx, "shadow", "history", "pump", "-o", "json")
	if err != nil || strings.Count(answer, `"change": "UPDATED"`) != 2 || strings.Count(answer, `"change": "DELETED"`) != 1 || !strings.Contains(answer, `"n": 1.50`) {
		t.Errorf("%s, %v", answer, err)
	}
}

// TestShadowLimitsOverHTTP: limits of requests are off unless they are set
// (device plane, 4.9).
func TestShadowLimitsOverHTTP(t *testing.T) {
	t.Parallel()
	o := newOperator(t, startServerWith(t, "--shadow.max-requests-per-second=2", "--shadow.max-document-bytes=1KiB"))
	refused := map[string]int{}
	for range 12 {
		_, err := o.data.UpdateThingShadowWithContext(t.Context(), &iotdataplane.UpdateThingShadowInput{ThingName: new("pump"), Payload: []byte(`{"state":{}}`)})
		if failure, ok := err.(awserr.RequestFailure); ok { //nolint:errorlint // what the SDK returns
			refused[fmt.Sprint(failure.StatusCode(), " ", failure.Code())]++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if refused["429 ThrottlingException"] < 5 || len(refused) != 1 {
		t.Errorf("refused: %v", refused)
	}
}

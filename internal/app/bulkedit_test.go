package app

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/account"
	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/iampolicy"
	"github.com/muster-iot/muster/internal/mqtt"
	"github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/registry"
)

// bulk runs an edit by query to its end.
func bulk(t *testing.T, api *apiclient.Client, query string, o apiclient.BulkOperation) apiclient.BulkEdit {
	t.Helper()
	p, err := api.PreviewBulkEdit(t.Context(), query, o)
	if err != nil {
		t.Fatal(err)
	}
	e, err := api.StartBulkEdit(t.Context(), query, o, p.ConfirmationToken, 0)
	if err != nil {
		t.Fatal(err)
	}
	return bulkEnd(t, api, e.BulkEditID)
}

func bulkEnd(t *testing.T, api *apiclient.Client, id string) apiclient.BulkEdit {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		e, err := api.DescribeBulkEdit(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if e.Status != "RUNNING" {
			return e
		}
		if time.Now().After(deadline) {
			t.Fatalf("the edit does not end: %+v", e)
		}
	}
}

// Through the API an edit finds what was just written, tells devices, asks each
// operator for what the single calls would need, and ends certificates when that
// is chosen.
func TestBulkEditsThroughTheAPI(t *testing.T) {
	t.Parallel()
	s := settings(t)
	s.Registry.DeleteShadowsWithThing = true
	a, stop := started(t, s)
	defer stop()
	ctx, of := t.Context(), s.AccountID
	api := apiOf(t, a)
	for i := range 3 {
		if _, err := api.CreateThing(ctx, fmt.Sprint("pump-", i), "", map[string]string{"site": "leeds"}); err != nil {
			t.Fatal(err)
		}
	}
	d := newDevice(t, a)
	if err := a.registry.AttachThingPrincipal(ctx, of, "pump-1", d.arn, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := a.registry.CreatePolicy(ctx, of, "all", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`); err != nil {
		t.Fatal(err)
	}
	if err := a.registry.AttachPolicy(ctx, of, "all", d.arn); err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 16)
	conn, err := client.Dial(ctx, a.Addr(listenerMQTT).String(), &tls.Config{Certificates: []tls.Certificate{d.pair}, InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	device, err := client.Connect(ctx, conn, client.Options{ClientID: "pump-1", Version: mqtt.V5, OnMessage: func(p *mqtt.Publish) { told <- string(p.Payload) }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := device.Subscribe(ctx, mqtt.Subscription{Filter: "$aws/things/pump-1/shadow/update/delta", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	led := apiclient.BulkOperation{Shadow: &apiclient.BulkShadow{Desired: json.RawMessage(`{"led":"on"}`)}}
	if e := bulk(t, api, "attributes.site:leeds", led); e.Status != "COMPLETED" || e.Changed != 3 {
		t.Errorf("edit %+v", e)
	}
	select {
	case delta := <-told:
		if !strings.Contains(delta, `"state":{"led":"on"}`) {
			t.Errorf("the device was told %s", delta)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the device is not told")
	}

	// Operators edit, and may not delete; a fleet admin may.
	key := func(user, policy string) *apiclient.Client {
		t.Helper()
		if _, err := a.accounts.CreateUser(ctx, of, user); err != nil {
			t.Fatal(err)
		}
		if err := a.accounts.AttachPolicy(ctx, of, account.Owner{Kind: "user", Name: user}, iampolicy.BuiltinPrefix+policy); err != nil {
			t.Fatal(err)
		}
		k, err := a.accounts.CreateAccessKey(ctx, of, user)
		if err != nil {
			t.Fatal(err)
		}
		c, err := apiclient.New(apiclient.Options{
			Endpoint: "http://" + a.Addr(listenerHTTP).String(), Now: time.Now,
			Credentials: apiclient.Credentials{AccessKeyID: k.ID, Secret: k.Secret, Region: "us-east-1"},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.CloseIdle)
		return c
	}
	viewer, operator, admin := key("vera", iampolicy.Viewer), key("olga", iampolicy.Operator), key("anna", iampolicy.FleetAdmin)
	owner := apiclient.BulkOperation{SetAttributes: map[string]string{"owner": "ops"}}
	p, err := viewer.PreviewBulkEdit(ctx, "thingName:pump-*", owner)
	if err != nil || p.Things != 3 || p.Refused != 3 {
		t.Errorf("a viewer's preview %+v, %v", p, err)
	}
	if _, err := viewer.StartBulkEdit(ctx, "thingName:pump-*", owner, p.ConfirmationToken, 0); !apiclient.Is(err, "Forbidden") {
		t.Errorf("a viewer starts: %v", err)
	}
	if e := bulk(t, operator, "thingName:pump-*", owner); e.Changed != 3 || !strings.HasSuffix(e.StartedBy.ARN, "user/olga") {
		t.Errorf("an operator's edit %+v", e)
	}
	if edits, err := viewer.BulkEdits(ctx, 0); err != nil || len(edits) != 2 {
		t.Errorf("a viewer lists %+v, %v", edits, err)
	}
	for _, deletion := range []apiclient.BulkDeletion{{}, {Decommission: true}} {
		p, err = operator.PreviewBulkEdit(ctx, "thingName:pump-*", apiclient.BulkOperation{Delete: &deletion})
		if err != nil || p.Refused != 3 {
			t.Errorf("an operator's preview of a deletion %+v, %v", p, err)
		}
		_, err = operator.StartBulkEdit(ctx, "thingName:pump-*", apiclient.BulkOperation{Delete: &deletion}, p.ConfirmationToken, 0)
		if !apiclient.Is(err, "Forbidden") {
			t.Errorf("an operator deletes: %v", err)
		}
	}
	e := bulk(t, admin, "thingName:pump-*", apiclient.BulkOperation{Delete: &apiclient.BulkDeletion{}})
	failures, err := admin.BulkEditFailures(ctx, e.BulkEditID, 0)
	if e.Changed != 2 || e.Failed != 1 || err != nil || len(failures) != 1 || failures[0].ThingName != "pump-1" || !strings.Contains(failures[0].Message, "attached principals") {
		t.Errorf("a deletion %+v, %+v, %v", e, failures, err)
	}
	if _, err := api.GetShadow(ctx, "pump-0", ""); !apiclient.Is(err, "ResourceNotFoundException") {
		t.Errorf("a shadow of a deleted thing: %v", err)
	}
	e = bulk(t, admin, "thingName:pump-*", apiclient.BulkOperation{Delete: &apiclient.BulkDeletion{Decommission: true, Reason: "scrapped"}})
	if e.Status != "COMPLETED" || e.Changed != 1 {
		t.Errorf("a decommission %+v", e)
	}
	ended(t, device)
	if made, err := a.registry.DescribeCertificate(ctx, of, d.id); err != nil || made.Status != registry.StatusRevoked {
		t.Errorf("the certificate %+v, %v", made.Status, err)
	}
	undo, err := admin.UndoBulkEdit(ctx, e.BulkEditID, 0)
	if err != nil {
		t.Fatal(err)
	}
	if undo = bulkEnd(t, admin, undo.BulkEditID); undo.Changed != 1 {
		t.Errorf("undo %+v", undo)
	}
	back, err := api.DescribeThing(ctx, "pump-1")
	if err != nil || back.Attributes["owner"] != "ops" {
		t.Errorf("back %+v, %v", back, err)
	}
	if _, err := admin.PreviewBulkEdit(ctx, "thingName:(", owner); !apiclient.Is(err, "InvalidQuery") {
		t.Errorf("no query: %v", err)
	}
	names := []string{}
	changes, err := admin.BulkEditChanges(ctx, undo.BulkEditID, 0)
	for _, c := range changes {
		names = append(names, c.ThingName)
	}
	if err != nil || !slices.Equal(names, []string{"pump-1"}) || changes[0].After.Thing == nil {
		t.Errorf("changes %+v, %v", changes, err)
	}
}

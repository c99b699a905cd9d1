package authorizer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/store"
)

func TestLifeOfAnAuthorizer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	keys := map[string]string{"k1": publicPEM(&signer().PublicKey)}
	made, err := r.Create(ctx, account, CreateCommand{Name: "gate,1", FunctionARN: functionARN, TokenKeyName: "token", Keys: keys, CacheHTTP: true})
	if err != nil {
		t.Fatal(err)
	}
	want := Authorizer{
		Name: "gate,1", ARN: "arn:aws:iot:eu-local-1:000000000001:authorizer/gate,1", FunctionARN: functionARN, TokenKeyName: "token",
		Keys: keys, Status: StatusInactive, CacheHTTP: true, Created: r.now, Modified: r.now,
	}
	wantEqual(t, made, want)
	found, err := r.Describe(ctx, account, "gate,1")
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, found, want)
	_, err = r.Create(ctx, account, CreateCommand{Name: "gate,1", FunctionARN: functionARN, SigningDisabled: true})
	wantCode(t, err, fault.ResourceAlreadyExists)
	if f := fault.From(err); f.ResourceARN != want.ARN || f.ResourceID != "gate,1" {
		t.Errorf("names %q %q", f.ResourceID, f.ResourceARN)
	}

	updated, err := r.Update(ctx, account, UpdateCommand{Name: "gate,1", Status: new(StatusActive), TokenKeyName: new("jwt"), CacheHTTP: new(false)})
	if err != nil {
		t.Fatal(err)
	}
	want.Status, want.TokenKeyName, want.CacheHTTP = StatusActive, "jwt", false
	wantEqual(t, updated, want)
	wantCode(t, r.Delete(ctx, account, "gate,1"), fault.InvalidRequest)

	r.unsigned("second")
	for range 2 { // the same again is no change
		if _, err := r.SetDefault(ctx, account, "second"); err != nil {
			t.Fatal(err)
		}
	}
	_, err = r.SetDefault(ctx, account, "gate,1")
	wantCode(t, err, fault.ResourceAlreadyExists)
	if chosen, err := r.DescribeDefault(ctx, account); err != nil || chosen.Name != "second" {
		t.Errorf("default %v, %v", chosen, err)
	}
	wantCode(t, r.Delete(ctx, account, "second"), fault.DeleteConflict)
	if err := r.ClearDefault(ctx, account); err != nil {
		t.Fatal(err)
	}
	wantCode(t, r.ClearDefault(ctx, account), fault.ResourceNotFound)
	_, err = r.DescribeDefault(ctx, account)
	wantCode(t, err, fault.ResourceNotFound)
	if _, err := r.Update(ctx, account, UpdateCommand{Name: "gate,1", Status: new(StatusInactive)}); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(ctx, account, "gate,1"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, r.Delete(ctx, account, "gate,1"), fault.ResourceNotFound)
	_, err = r.Describe(ctx, account, "gate,1")
	wantCode(t, err, fault.ResourceNotFound)
	_, err = r.Update(ctx, account, UpdateCommand{Name: "gate,1"})
	wantCode(t, err, fault.ResourceNotFound)
	_, err = r.SetDefault(ctx, account, "gate,1")
	wantCode(t, err, fault.ResourceNotFound)

	change := func(name string, c event.AuthorizerChange, status string) event.Event {
		return event.AuthorizerChanged{Authorizer: name, Change: c, Status: status}
	}
	wantEqual(t, r.events(), []event.Event{
		change("gate,1", event.AuthorizerCreated, StatusInactive), change("gate,1", event.AuthorizerUpdated, StatusActive),
		change("second", event.AuthorizerCreated, StatusActive), change("second", event.AuthorizerDefaultSet, StatusActive),
		change("second", event.AuthorizerDefaultCleared, ""), change("gate,1", event.AuthorizerUpdated, StatusInactive),
		change("gate,1", event.AuthorizerDeleted, ""),
	})
}

func TestRulesOfAuthorizers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	good := publicPEM(&signer().PublicKey)
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*CreateCommand)
		code   fault.Code
		text   string
	}{
		"empty name":       {func(c *CreateCommand) { c.Name = "" }, fault.InvalidRequest, "authorizerName"},
		"long name":        {func(c *CreateCommand) { c.Name = strings.Repeat("x", 129) }, fault.InvalidRequest, "authorizerName"},
		"name with blank":  {func(c *CreateCommand) { c.Name = "a b" }, fault.InvalidRequest, "authorizerName"},
		"name with zero":   {func(c *CreateCommand) { c.Name = "a\x00b" }, fault.InvalidRequest, "authorizerName"},
		"status":           {func(c *CreateCommand) { c.Status = "active" }, fault.InvalidRequest, "status"},
		"other account":    {func(c *CreateCommand) { c.FunctionARN = strings.Replace(functionARN, "01:", "02:", 1) }, fault.InvalidRequest, "authorizerFunctionArn"},
		"other region":     {func(c *CreateCommand) { c.FunctionARN = strings.Replace(functionARN, "eu-local-1", "us-east-1", 1) }, fault.InvalidRequest, "authorizerFunctionArn"},
		"version":          {func(c *CreateCommand) { c.FunctionARN += ":1" }, fault.InvalidRequest, "function.target"},
		"not configured":   {func(c *CreateCommand) { c.FunctionARN += "2" }, fault.InvalidRequest, "function.target"},
		"no token name":    {func(c *CreateCommand) { c.TokenKeyName = "" }, fault.InvalidRequest, "tokenKeyName is required"},
		"token name":       {func(c *CreateCommand) { c.TokenKeyName = "a b" }, fault.InvalidRequest, "tokenKeyName"},
		"reserved name":    {func(c *CreateCommand) { c.TokenKeyName = "X-amz-customauthorizer-signature" }, fault.InvalidRequest, "tokenKeyName"},
		"no keys":          {func(c *CreateCommand) { c.Keys = nil }, fault.InvalidRequest, "tokenSigningPublicKeys is required"},
		"keys and no sign": {func(c *CreateCommand) { c.SigningDisabled = true }, fault.InvalidRequest, "left out"},
		"three keys":       {func(c *CreateCommand) { c.Keys = map[string]string{"a": good, "b": good, "c": good} }, fault.LimitExceeded, "2 keys"},
		"key name":         {func(c *CreateCommand) { c.Keys = map[string]string{"a b": good} }, fault.InvalidRequest, "names in"},
		"no PEM":           {func(c *CreateCommand) { c.Keys = map[string]string{"k": "key"} }, fault.InvalidRequest, "k is not one PEM block"},
		"two PEM":          {func(c *CreateCommand) { c.Keys = map[string]string{"k": good + good} }, fault.InvalidRequest, "k is not one PEM block"},
		"no key inside": {func(c *CreateCommand) {
			c.Keys = map[string]string{"k": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"}
		}, fault.InvalidRequest, "cannot be read"},
		"certificate": {func(c *CreateCommand) {
			c.Keys = map[string]string{"k": strings.ReplaceAll(good, "PUBLIC KEY", "CERTIFICATE")}
		}, fault.InvalidRequest, "PUBLIC KEY"},
		"short key":    {func(c *CreateCommand) { c.Keys = map[string]string{"k": publicPEM(&short.PublicKey)} }, fault.InvalidRequest, "1024 bits"},
		"elliptic key": {func(c *CreateCommand) { c.Keys = map[string]string{"k": publicPEM(&curve.PublicKey)} }, fault.InvalidRequest, "RSA"},
		"long key":     {func(c *CreateCommand) { c.Keys = map[string]string{"k": strings.Repeat("x", 5121)} }, fault.InvalidRequest, "5120"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			command := CreateCommand{Name: "a", FunctionARN: functionARN, TokenKeyName: "token", Keys: map[string]string{"k": good}}
			c.change(&command)
			_, err := r.Create(t.Context(), account, command)
			wantCode(t, err, c.code)
			if err == nil || !strings.Contains(fault.From(err).Message, c.text) {
				t.Errorf("%v does not tell of %q", err, c.text)
			}
		})
	}
	t.Cleanup(func() {
		// Nothing of it was kept; the context of the test is over here.
		if n := len(r.functions.inputs); n != 0 {
			t.Errorf("%d invocations", n)
		}
	})
}

func TestUpdateKeepsToTheRules(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	good := map[string]string{"k": publicPEM(&signer().PublicKey)}
	r.create(CreateCommand{Name: "signed", TokenKeyName: "token", Keys: good})
	r.unsigned("unsigned")
	for name, c := range map[string]struct {
		UpdateCommand

		code fault.Code
	}{
		"keys that are none":   {UpdateCommand{Name: "signed", Keys: map[string]string{}}, fault.InvalidRequest},
		"too many keys":        {UpdateCommand{Name: "signed", Keys: map[string]string{"a": "", "b": "", "c": ""}}, fault.LimitExceeded},
		"keys without signing": {UpdateCommand{Name: "unsigned", Keys: good}, fault.InvalidRequest},
		"status":               {UpdateCommand{Name: "signed", Status: new("OFF")}, fault.InvalidRequest},
		"function":             {UpdateCommand{Name: "signed", FunctionARN: new("arn")}, fault.InvalidRequest},
		"inactive, function":   {UpdateCommand{Name: "signed", FunctionARN: new("arn"), Status: new(StatusInactive)}, fault.InvalidRequest},
		"inactive, token":      {UpdateCommand{Name: "signed", TokenKeyName: new(""), Status: new(StatusInactive)}, fault.InvalidRequest},
	} {
		_, err := r.Update(t.Context(), account, c.UpdateCommand)
		if fault.CodeOf(err) != c.code {
			t.Errorf("%s: got %v, want %s", name, err, c.code)
		}
	}
}

// The account's limit holds however many come at once, and each gets in whole
// or not at all.
func TestLimitUnderConcurrency(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var made, full sync.Map
	var all sync.WaitGroup
	for i := range 14 {
		all.Go(func() {
			name := fmt.Sprintf("a%02d", i)
			for {
				_, err := r.Create(t.Context(), account, CreateCommand{Name: name, FunctionARN: functionARN, SigningDisabled: true})
				switch fault.CodeOf(err) {
				case "":
					made.Store(name, true)
				case fault.LimitExceeded:
					full.Store(name, true)
				case fault.Throttling:
					continue
				default:
					t.Error(err)
				}
				return
			}
		})
	}
	all.Wait()
	listed, next, err := r.List(t.Context(), account, ListQuery{Ascending: true})
	if err != nil || len(listed) != MaxAuthorizers || next != "" {
		t.Fatalf("%d authorizers, next %q, %v", len(listed), next, err)
	}
	for _, a := range listed {
		if _, ok := made.Load(a.Name); !ok {
			t.Errorf("%s is listed and was refused", a.Name)
		}
		if _, ok := full.Load(a.Name); ok {
			t.Errorf("%s was told that there is no room", a.Name)
		}
	}
	if n := len(r.events()); n != MaxAuthorizers {
		t.Errorf("%d events", n)
	}
}

func TestListPages(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, name := range []string{"c", "a", "e", "b", "d"} {
		r.unsigned(name)
	}
	if _, err := r.Update(t.Context(), account, UpdateCommand{Name: "b", Status: new(StatusInactive)}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		q    ListQuery
		want string
	}{
		"ascending":  {ListQuery{Ascending: true, Limit: 2}, "ab cd e "},
		"descending": {ListQuery{Limit: 2}, "ed cb a "},
		"active":     {ListQuery{Ascending: true, Status: StatusActive, Limit: 2}, "ac de "},
		"inactive":   {ListQuery{Status: StatusInactive, Limit: 1}, "b "},
		"all":        {ListQuery{Ascending: true}, "abcde "},
	} {
		got, q := "", c.q
		for range 10 {
			page, next, err := r.List(t.Context(), account, q)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range page {
				got += a.Name
			}
			got += " "
			if q.After = next; next == "" {
				break
			}
		}
		if got != c.want {
			t.Errorf("%s: pages %q, want %q", name, got, c.want)
		}
	}
	_, _, err := r.List(t.Context(), account, ListQuery{Status: "OLD"})
	wantCode(t, err, fault.InvalidRequest)
	others, _, err := r.List(t.Context(), "000000000002", ListQuery{})
	if err != nil || len(others) != 0 {
		t.Errorf("another account sees %v, %v", others, err)
	}
}

// A record of a later version is refused, not misread.
func TestLaterSchemaIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, err := r.engine.Commit(t.Context(), store.Batch{Writes: []store.Write{{Key: authorizerKey(account, "a"), Value: []byte(`{"v":2}`)}}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.Describe(t.Context(), account, "a")
	wantCode(t, err, fault.Internal)
}

package certprovider

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/tag"
)

func TestLifeOfAProvider(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	if listed, err := r.List(ctx, account); err != nil || len(listed) != 0 {
		t.Fatal(listed, err)
	}
	made, err := r.Create(ctx, account, good())
	if err != nil {
		t.Fatal(err)
	}
	want := Provider{Name: "own,ca", ARN: providerARN, FunctionARN: functionARN, Created: r.now, Modified: r.now}
	wantEqual(t, made, want)
	_, err = r.Create(ctx, account, good())
	wantCode(t, err, fault.ResourceAlreadyExists)
	if f := fault.From(err); f.ResourceARN != providerARN || f.ResourceID != "own,ca" {
		t.Errorf("names %q %q", f.ResourceID, f.ResourceARN)
	}
	second := good()
	second.Name = "second"
	_, err = r.Create(ctx, account, second)
	wantCode(t, err, fault.LimitExceeded)

	updated, err := r.Update(ctx, account, UpdateCommand{Name: "own,ca", FunctionARN: new(otherARN), Operations: []string{Operation}})
	if err != nil {
		t.Fatal(err)
	}
	want.FunctionARN = otherARN
	wantEqual(t, updated, want)
	found, err := r.Describe(ctx, account, "own,ca")
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, found, want)
	listed, err := r.List(ctx, account)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, listed, []Provider{want})

	// Another name and another account see nothing of it.
	_, err = r.Describe(ctx, account, "second")
	wantCode(t, err, fault.ResourceNotFound)
	_, err = r.Update(ctx, account, UpdateCommand{Name: "second"})
	wantCode(t, err, fault.ResourceNotFound)
	wantCode(t, r.Delete(ctx, account, "second"), fault.ResourceNotFound)
	_, err = r.Describe(ctx, neighbour, "own,ca")
	wantCode(t, err, fault.ResourceNotFound)
	wantCode(t, r.Delete(ctx, neighbour, "own,ca"), fault.ResourceNotFound)
	if others, err := r.List(ctx, neighbour); err != nil || len(others) != 0 {
		t.Error(others, err)
	}

	if err := r.Delete(ctx, account, "own,ca"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, r.Delete(ctx, account, "own,ca"), fault.ResourceNotFound)
	if _, err := r.Create(ctx, account, second); err != nil {
		t.Error(err)
	}
	change := func(name string, c event.CertificateProviderChange) event.Event {
		return event.CertificateProviderChanged{Provider: name, Change: c}
	}
	wantEqual(t, r.events(), []event.Event{
		change("own,ca", event.CertificateProviderCreated), change("own,ca", event.CertificateProviderUpdated),
		change("own,ca", event.CertificateProviderDeleted), change("second", event.CertificateProviderCreated),
	})
}

func TestRulesOfProviders(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for name, c := range map[string]struct {
		change func(*CreateCommand)
		text   string
	}{
		"empty name":      {func(c *CreateCommand) { c.Name = "" }, "certificateProviderName"},
		"long name":       {func(c *CreateCommand) { c.Name = strings.Repeat("x", 129) }, "certificateProviderName"},
		"name with blank": {func(c *CreateCommand) { c.Name = "a b" }, "certificateProviderName"},
		"no operation":    {func(c *CreateCommand) { c.Operations = nil }, "accountDefaultForOperations"},
		"two operations":  {func(c *CreateCommand) { c.Operations = []string{Operation, Operation} }, "accountDefaultForOperations"},
		"operation":       {func(c *CreateCommand) { c.Operations = []string{"CreateKeysAndCertificate"} }, "accountDefaultForOperations"},
		"no function":     {func(c *CreateCommand) { c.FunctionARN = "" }, "lambdaFunctionArn"},
		"other account":   {func(c *CreateCommand) { c.FunctionARN = strings.Replace(functionARN, "01:", "02:", 1) }, "lambdaFunctionArn"},
		"other region":    {func(c *CreateCommand) { c.FunctionARN = strings.Replace(functionARN, "eu-local-1", "us-east-1", 1) }, "lambdaFunctionArn"},
		"version":         {func(c *CreateCommand) { c.FunctionARN += ":1" }, "function.target"},
		"not configured":  {func(c *CreateCommand) { c.FunctionARN += "2" }, "function.target"},
		"tag":             {func(c *CreateCommand) { c.Tags = []tag.Tag{{Key: "aws:a"}} }, "tags"},
	} {
		c2 := good()
		c.change(&c2)
		_, err := r.Create(t.Context(), account, c2)
		if fault.CodeOf(err) != fault.InvalidRequest || !strings.Contains(fault.From(err).Message, c.text) {
			t.Errorf("%s: %v does not tell of %q", name, err, c.text)
		}
	}
	if left := r.events(); len(left) != 0 {
		t.Errorf("kept %v", left)
	}
	r.create()
	for name, c := range map[string]UpdateCommand{
		"name": {Name: "a b"}, "function": {Name: "own,ca", FunctionARN: new("arn")}, "no operations": {Name: "own,ca", Operations: []string{}},
	} {
		_, err := r.Update(t.Context(), account, c)
		if fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := r.Describe(t.Context(), account, "a b")
	wantCode(t, err, fault.InvalidRequest)
	wantCode(t, r.Delete(t.Context(), account, "a b"), fault.InvalidRequest)
}

// A request that comes again with its token is answered and not carried out
// again; one that differs is not the same request.
func TestRepeatedRequest(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	c := good()
	c.ClientToken, c.Tags = strings.Repeat("t", 36), []tag.Tag{{Key: "a", Value: "1"}, {Key: "b"}}
	first, err := r.Create(ctx, account, c)
	if err != nil {
		t.Fatal(err)
	}
	c.Tags = []tag.Tag{{Key: "b"}, {Key: "a", Value: "1"}}
	again, err := r.Create(ctx, account, c)
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, again, first)
	if n := len(r.events()); n != 2 {
		t.Errorf("%d events", n)
	}
	for name, change := range map[string]func(*CreateCommand){
		"token": func(c *CreateCommand) { c.ClientToken = strings.Repeat("u", 36) }, "none": func(c *CreateCommand) { c.ClientToken = "" },
		"function": func(c *CreateCommand) { c.FunctionARN = otherARN }, "tags": func(c *CreateCommand) { c.Tags = nil },
	} {
		other := c
		change(&other)
		_, err := r.Create(ctx, account, other)
		if fault.CodeOf(err) != fault.ResourceAlreadyExists {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.Delete(ctx, account, c.Name); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Create(ctx, account, c); err != nil {
		t.Errorf("after its end: %v", err)
	}
}

// One of many at once gets in.
func TestOneProviderUnderConcurrency(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var made atomic.Int32
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			c := good()
			c.Name = fmt.Sprintf("p%d", i)
			_, err := r.Create(t.Context(), account, c)
			switch fault.CodeOf(err) {
			case "":
				made.Add(1)
			case fault.LimitExceeded:
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := made.Load(); n != 1 {
		t.Errorf("%d were made", n)
	}
	if n := len(r.events()); n != 1 {
		t.Errorf("%d events", n)
	}
}

// overtaken is a store in which somebody else commits right before the first
// commit.
type overtaken struct {
	store.Store

	first sync.Once
	rival func()
}

func (o *overtaken) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	o.first.Do(o.rival)
	return o.Store.Commit(ctx, b)
}

// A command that another one has overtaken decides anew.
func TestOvertakenCommands(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	against := func(rival func() error) *Service {
		options := r.o
		options.Registerer = nil
		options.Store = &overtaken{Store: r.engine, rival: func() {
			if err := rival(); err != nil {
				t.Error(err)
			}
		}}
		s, err := New(options)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := good()
	first.Name = "first"
	_, err := against(func() error { _, err := r.Create(ctx, account, first); return err }).Create(ctx, account, good())
	wantCode(t, err, fault.LimitExceeded)
	_, err = against(func() error { return r.Delete(ctx, account, "first") }).Update(ctx, account, UpdateCommand{Name: "first"})
	wantCode(t, err, fault.ResourceNotFound)
	if listed, err := r.List(ctx, account); err != nil || len(listed) != 0 {
		t.Error(listed, err)
	}
	r.create()
	wantCode(t, against(func() error { return r.Delete(ctx, account, "own,ca") }).Delete(ctx, account, "own,ca"), fault.ResourceNotFound)
}

// Tags come with a provider, in its commit, and go with it.
func TestTagsOfAProvider(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	service, err := tag.New(tag.Options{Store: r.engine, Region: "eu-local-1", Now: func() time.Time { return r.now }, Finders: r.TagFinders()})
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, service.Put(ctx, account, providerARN, []tag.Tag{{Key: "a"}}), fault.ResourceNotFound)
	c := good()
	c.Tags = []tag.Tag{{Key: "a", Value: "1"}}
	if _, err := r.Create(ctx, account, c); err != nil {
		t.Fatal(err)
	}
	if err := service.Put(ctx, account, providerARN, []tag.Tag{{Key: "b", Value: "2"}}); err != nil {
		t.Fatal(err)
	}
	page, _, err := service.List(ctx, account, providerARN, "")
	if err != nil {
		t.Fatal(err)
	}
	wantEqual(t, page, []tag.Tag{{Key: "a", Value: "1"}, {Key: "b", Value: "2"}})
	if err := r.Delete(ctx, account, c.Name); err != nil {
		t.Fatal(err)
	}
	_, _, err = service.List(ctx, account, providerARN, "")
	wantCode(t, err, fault.ResourceNotFound)
	r.create()
	if page, _, err = service.List(ctx, account, providerARN, ""); err != nil || len(page) > 0 {
		t.Fatal("the old provider's tags are back", page, err)
	}
}

func TestStorageFaults(t *testing.T) {
	t.Parallel()
	for _, err := range []error{store.ErrDiskFull, store.ErrClosed, store.ErrUnavailable} {
		if got := fault.CodeOf(store.Fault(fmt.Errorf("commit: %w", err))); got != fault.Unavailable {
			t.Errorf("%v is %s", err, got)
		}
	}
	if err := errors.New("broken"); !errors.Is(store.Fault(err), err) || fault.CodeOf(store.Fault(err)) != fault.Internal {
		t.Error("an unknown error is not passed on")
	}
}

package tag

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

const (
	account fleet.Account = "000000000000"
	arn     string        = "arn:aws:iot:us-east-1:000000000000:box/b"
)

func instant() time.Time { return time.Unix(1_750_000_000, 0).UTC() }

// rig is a service for boxes; a box is there while its key is.
type rig struct {
	*Service

	t     *testing.T
	store *embedded.Engine
	// between runs when a box has been found.
	between func()
}

func boxKey(name string) store.Key { return store.K("box", string(account), name) }

func box(name string) fleet.ARN {
	return fleet.ARN{Scope: fleet.Scope{Region: "us-east-1", Account: account}, Kind: "box", Name: name}
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, between: func() {}}
	var err error
	r.store, err = embedded.Open(embedded.Options{
		Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, ReserveBytes: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.store.Close(); err != nil {
			t.Error(err)
		}
	})
	r.Service, err = New(Options{
		Store: r.store, Region: "us-east-1", Now: instant,
		Finders: map[string]Finder{"box": func(ctx context.Context, _ fleet.Account, name string) (store.Expect, error) {
			found, err := r.store.GetMany(ctx, []store.Key{boxKey(name)})
			if err != nil || found[0].Version == 0 {
				return store.Expect{}, fault.New(fault.ResourceNotFound, "box %s does not exist", name)
			}
			r.between()
			return store.Expect{Key: boxKey(name), Version: found[0].Version}, nil
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// create makes a box with tags.
func (r *rig) create(name string, tags Set) {
	r.t.Helper()
	b := store.Batch{Writes: []store.Write{{Key: boxKey(name), Value: []byte("{}")}}}
	if err := Attach(&b, event.Envelope{Account: account, At: instant(), Actor: fleet.System}, box(name), tags); err != nil {
		r.t.Fatal(err)
	}
	r.commit(b)
}

// delete ends a box.
func (r *rig) delete(name string) {
	r.t.Helper()
	b := store.Batch{Writes: []store.Write{{Key: boxKey(name), Delete: true}}}
	Remove(&b, box(name))
	r.commit(b)
}

func (r *rig) commit(b store.Batch) {
	r.t.Helper()
	if _, err := r.store.Commit(r.t.Context(), b); err != nil {
		r.t.Fatal(err)
	}
}

// tags lists all pages.
func (r *rig) tags() Set {
	r.t.Helper()
	all, last := Set{}, ""
	for after := ""; ; {
		page, next, err := r.List(r.t.Context(), account, arn, after)
		if err != nil {
			r.t.Fatal(err)
		}
		for _, tag := range page {
			if tag.Key <= last {
				r.t.Fatalf("%q comes after %q", tag.Key, last)
			}
			all[tag.Key], last = tag.Value, tag.Key
		}
		if next == "" {
			return all
		}
		after = next
	}
}

// events returns all TagsChanged so far.
func (r *rig) events() []event.Event {
	r.t.Helper()
	envelopes, _, err := r.store.Events(r.t.Context(), store.Cursor{}, 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	var all []event.Event
	for _, e := range envelopes {
		all = append(all, e.Event)
	}
	return all
}

func equal[T any](t *testing.T, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("-want +got\n%s", diff)
	}
}

func refused(t *testing.T, err error, code fault.Code, text string) {
	t.Helper()
	if fault.CodeOf(err) != code || !strings.Contains(err.Error(), text) {
		t.Fatalf("got %v, want %s with %q", err, code, text)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	many := make([]Tag, MaxTags+1)
	for i := range many {
		many[i].Key = fmt.Sprintf("k%02d", i)
	}
	for name, c := range map[string]struct {
		list []Tag
		text string
	}{
		"51":                  {many, "at most 50"},
		"no key":              {[]Tag{{}}, "1 to 128"},
		"long key":            {[]Tag{{Key: strings.Repeat("ü", 129)}}, "1 to 128"},
		"character of a key":  {[]Tag{{Key: "a*b"}}, "letters"},
		"line break in a key": {[]Tag{{Key: "a\n"}}, "letters"},
		"zero byte in a key":  {[]Tag{{Key: "a\x00"}}, "letters"},
		"long value":          {[]Tag{{Key: "a", Value: strings.Repeat("ü", 257)}}, "at most 256"},
		"value not UTF-8":     {[]Tag{{Key: "a", Value: "\xff"}}, "256 characters"},
		"reserved key":        {[]Tag{{Key: "AWS:a"}}, `"AWS:a" must not begin with aws:`},
		"reserved value":      {[]Tag{{Key: "a", Value: "aws:x"}}, `value of "a" must not begin with aws:`},
		"twice":               {[]Tag{{Key: "a"}, {Key: "b"}, {Key: "a", Value: "2"}}, `"a" twice`},
	} {
		_, err := Check(c.list)
		if fault.CodeOf(err) != fault.InvalidRequest || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	got, err := Check([]Tag{{Key: strings.Repeat("ü", 128), Value: strings.Repeat("ü", 256)}, {Key: "Kostenstelle 4:/=+-@._"}, {Key: "aws"}})
	if err != nil || len(got) != 3 {
		t.Fatal(got, err)
	}
	if none, err := Check(nil); none != nil || err != nil {
		t.Fatal(none, err)
	}
}

func TestLifeOfTags(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.create("b", Set{"a": "1"})
	equal(t, r.tags(), Set{"a": "1"})
	if err := r.Put(ctx, account, arn, []Tag{{"a", "1"}, {"b", "2"}, {"c", ""}}); err != nil {
		t.Fatal(err)
	}
	equal(t, r.tags(), Set{"a": "1", "b": "2", "c": ""})
	if err := r.Put(ctx, account, arn, []Tag{{"a", "9"}}); err != nil {
		t.Fatal(err)
	}
	if err := r.Remove(ctx, account, arn, []string{"c", "none", "b", "b"}); err != nil {
		t.Fatal(err)
	}
	// What changes nothing is no event.
	if err := r.Put(ctx, account, arn, []Tag{{"a", "9"}}); err != nil {
		t.Fatal(err)
	}
	if err := r.Remove(ctx, account, arn, []string{"none"}); err != nil {
		t.Fatal(err)
	}
	equal(t, r.tags(), Set{"a": "9"})
	equal(t, r.events(), []event.Event{
		event.TagsChanged{ResourceARN: arn, Set: map[string]string{"a": "1"}},
		event.TagsChanged{ResourceARN: arn, Set: map[string]string{"b": "2", "c": ""}},
		event.TagsChanged{ResourceARN: arn, Set: map[string]string{"a": "9"}},
		event.TagsChanged{ResourceARN: arn, Removed: []string{"b", "c"}},
	})
	if err := r.Remove(ctx, account, arn, []string{"a"}); err != nil {
		t.Fatal(err)
	}
	equal(t, r.tags(), Set{})
	if _, expect, err := Read(ctx, r.store, box("b")); err != nil || expect.Version != 0 {
		t.Fatal("an empty set keeps its record", err)
	}
	if err := r.Put(ctx, account, arn, []Tag{{"x", "y"}}); err != nil {
		t.Fatal(err)
	}
	r.delete("b")
	refused(t, r.Put(ctx, account, arn, []Tag{{"x", "y"}}), fault.ResourceNotFound, "box b")
	_, _, err := r.List(ctx, account, arn, "")
	refused(t, err, fault.ResourceNotFound, "box b")
	r.create("b", nil)
	equal(t, r.tags(), Set{})
}

func TestFiftyTags(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create("b", nil)
	for i := range MaxTags {
		if err := r.Put(t.Context(), account, arn, []Tag{{fmt.Sprintf("k%02d", i), "v"}}); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, len(r.tags()), MaxTags)
	before := len(r.events())
	refused(t, r.Put(t.Context(), account, arn, []Tag{{"k00", "new"}, {"more", ""}}), fault.LimitExceeded, "at most 50")
	equal(t, r.tags()["k00"], "v")
	equal(t, len(r.events()), before)
	if err := r.Put(t.Context(), account, arn, []Tag{{"k00", "new"}}); err != nil {
		t.Fatal(err)
	}
}

func TestWhatCannotBeTagged(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for arn, text := range map[string]string{
		"": "resourceArn", "box/b": "resourceArn",
		"arn:aws:iot:us-east-1:000000000001:box/b":   "this account",
		"arn:aws:iot:eu-west-1:000000000000:box/b":   "region",
		"arn:aws:iot:us-east-1:000000000000:thing/t": "kind thing has no tags; these have: box",
	} {
		refused(t, r.Put(t.Context(), account, arn, []Tag{{"a", "b"}}), fault.InvalidRequest, text)
		refused(t, r.Remove(t.Context(), account, arn, []string{"a"}), fault.InvalidRequest, text)
		_, _, err := r.List(t.Context(), account, arn, "")
		refused(t, err, fault.InvalidRequest, text)
	}
	refused(t, r.Put(t.Context(), account, arn, nil), fault.ResourceNotFound, "box b")
	refused(t, r.Remove(t.Context(), account, arn, []string{"aws:x"}), fault.InvalidRequest, "tagKeys")
	refused(t, r.Remove(t.Context(), account, arn, make([]string, MaxTags+1)), fault.InvalidRequest, "tagKeys")
}

// A resource that goes, or comes again, between the look at it and the commit
// does not keep the tags that were meant for it.
func TestTagsOfWhatGoesMeanwhile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.create("b", nil)
	once := true
	r.between = func() {
		if once {
			once = false
			r.delete("b")
		}
	}
	refused(t, r.Put(t.Context(), account, arn, []Tag{{"a", "b"}}), fault.ResourceNotFound, "box b")
	r.create("b", nil)
	equal(t, r.tags(), Set{})
	// Others that set tags at the same time are not lost.
	once = true
	r.between = func() {
		if once {
			once = false
			if err := r.Put(t.Context(), account, arn, []Tag{{"first", "1"}}); err != nil {
				t.Error(err)
			}
		}
	}
	if err := r.Put(t.Context(), account, arn, []Tag{{"second", "2"}}); err != nil {
		t.Fatal(err)
	}
	equal(t, r.tags(), Set{"first": "1", "second": "2"})
}

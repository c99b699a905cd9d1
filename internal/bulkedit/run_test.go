package bulkedit

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/shadow"
	"github.com/muster-iot/muster/internal/store"
)

// once fails unless each thing was changed exactly once.
func once(t *testing.T, names []string, want int) {
	t.Helper()
	seen := map[string]int{}
	for _, name := range names {
		if seen[name]++; seen[name] > 1 {
			t.Errorf("%s was changed %d times", name, seen[name])
		}
	}
	if len(seen) != want {
		t.Errorf("%d things were changed, want %d", len(seen), want)
	}
}

// dying runs an edit whose process dies at the nth commit after the start, and
// once more in each of the next processes, until it is done. It returns the last.
func dying(t *testing.T, d store.Store, n int, after bool, o Operation, prepare func(r *rig)) (*rig, Edit) {
	t.Helper()
	r := boot(t, d)
	prepare(r)
	e := r.begin("pump-", o, 0)
	for generation := 0; ; generation++ {
		r.store.mu.Lock()
		if generation < 3 {
			r.store.left, r.store.after = n, after
		}
		r.store.mu.Unlock()
		r.runs()
		for {
			r.store.mu.Lock()
			dead := r.store.dead
			r.store.mu.Unlock()
			if dead {
				break
			}
			done, err := r.Describe(t.Context(), account, e.ID)
			if err == nil && done.Status.final() {
				r.stop()
				return r, done
			}
			pass(t.Context(), time.Millisecond)
		}
		r.stop()
		r = boot(t, d)
		prepareAgain(r)
	}
}

// prepareAgain gives a later process the settings of the first.
func prepareAgain(r *rig) { r.deletesShadows = true }

// Wherever the process dies, before a commit or after one that nobody learnt of,
// no thing is changed twice, none is left out, and the counts are right.
func TestAKilledEditChangesEachThingOnce(t *testing.T) {
	const n = 40
	for name, c := range map[string]struct {
		o       Operation
		changed func(e event.Event) string
	}{
		"registry": {
			Operation{SetAttributes: map[string]string{"a": "b"}, AddToThingGroups: []string{"g"}},
			func(e event.Event) string {
				v, _ := e.(event.ThingUpdated)
				return v.Thing.Thing
			},
		},
		"shadow": {
			Operation{Shadow: &ShadowPatch{Desired: json.RawMessage(`{"a":1}`)}},
			func(e event.Event) string {
				if v, ok := e.(event.ShadowUpdated); ok && v.Shadow == "" {
					return v.Thing
				}
				return ""
			},
		},
		"delete": {
			Operation{Delete: &Deletion{}},
			func(e event.Event) string {
				v, _ := e.(event.ThingDeleted)
				return v.Thing
			},
		},
		"decommission": {
			Operation{Delete: &Deletion{Decommission: true}},
			func(e event.Event) string {
				v, _ := e.(event.ThingDecommissioned)
				return v.Thing
			},
		},
	} {
		for dies := 0; dies < 24; dies += strides(t, 3) {
			for _, after := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%d/%v", name, dies, after), func(t *testing.T) {
					t.Parallel()
					bubble(t, func(t *testing.T) { //nolint:thelper // the test itself
						d := disk(t)
						defer d.Close()
						r, e := dying(t, d, dies, after, c.o, func(r *rig) {
							prepareAgain(r)
							r.things(pumps(n)...)
							r.group("g", "")
							for _, thing := range pumps(n) {
								if _, err := r.shadows.Update(t.Context(), shadow.UpdateCommand{Account: account, Thing: thing, Shadow: "named", Body: []byte(`{"state":{"desired":{"x":1}}}`)}); err != nil {
									t.Fatal(err)
								}
							}
						})
						if e.Status != Completed || e.Done != (Counts{Changed: n}) {
							failures, _, _ := r.Failures(t.Context(), account, e.ID, "", 3)
							t.Errorf("edit %+v\n%+v", e, failures)
						}
						var names []string
						for _, each := range events[event.Event](t, d) {
							if thing := c.changed(each); thing != "" {
								names = append(names, thing)
							}
						}
						once(t, names, n)
						once(t, sorted(t.Context(), t, r.Service, e.ID), n)
						if name == "delete" {
							gone := map[string]bool{}
							for _, s := range events[event.ShadowDeleted](t, d) {
								gone[s.Thing] = true
							}
							if len(gone) != n {
								t.Errorf("the shadows of %d things are gone", len(gone))
							}
						}
					})
				})
			}
		}
	}
}

// An undo that dies restores each thing once too.
func TestAKilledUndoRestoresEachThingOnce(t *testing.T) {
	for dies := 0; dies < 20; dies += strides(t, 4) {
		t.Run(fmt.Sprint(dies), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) { //nolint:thelper // the test itself
				const n = 30
				d := disk(t)
				defer d.Close()
				r := boot(t, d).runs()
				r.things(pumps(n)...)
				e := r.ends(r.begin("pump-", Operation{Delete: &Deletion{}}, 0), Completed, Counts{Changed: n})
				r.stop()
				undo, err := r.Undo(t.Context(), account, e.ID, 0)
				if err != nil {
					t.Fatal(err)
				}
				for generation := range 3 {
					r = boot(t, d)
					if generation < 2 {
						r.store.left, r.store.after = dies, generation == 1
					}
					r.runs()
					for range 1000 {
						pass(t.Context(), time.Millisecond)
					}
					r.stop()
				}
				r = boot(t, d)
				r.ends(undo, Completed, Counts{Changed: n})
				created := map[string]int{}
				for _, c := range events[event.ThingCreated](t, d) {
					created[c.Thing.Thing]++
				}
				for thing, times := range created {
					if times != 2 {
						t.Errorf("%s was created %d times", thing, times)
					}
				}
			})
		})
	}
}

// Two processes that work on the same edit change each thing once: also where an
// update of the same would be another version.
func TestTwoRunnersChangeEachThingOnce(t *testing.T) {
	for name, o := range map[string]Operation{
		"registry": {SetAttributes: map[string]string{"a": "b"}},
		"shadow":   {Shadow: &ShadowPatch{Desired: json.RawMessage(`{"a":1}`)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(t *testing.T) { //nolint:thelper // the test itself
				const n = 60
				d := disk(t)
				defer d.Close()
				r, other := boot(t, d), boot(t, d)
				r.things(pumps(n)...)
				e := r.begin("pump-", o, 0)
				r.runs()
				other.runs()
				r.finish(e.ID)
				r.stop()
				other.stop()
				var names []string
				for _, u := range events[event.ThingUpdated](t, d) {
					names = append(names, u.Thing.Thing)
				}
				for _, u := range events[event.ShadowUpdated](t, d) {
					names = append(names, u.Thing)
				}
				once(t, names, n)
			})
		})
	}
}

// What is written down of a thing stands: it is not tried again, though it would
// succeed by now.
func TestAFailureStands(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) { //nolint:thelper // the test itself
		d := disk(t)
		defer d.Close()
		r := boot(t, d)
		r.things("pump-1")
		e := r.begin("pump-", Operation{AddToThingGroups: []string{"late"}}, 0)
		record, _, err := r.find(t.Context(), account, e.ID)
		if err != nil {
			t.Fatal(err)
		}
		j := &job{s: r.Service, account: account, id: e.ID, record: record}
		of := target{Name: "pump-1", ID: r.thing("pump-1").ID}
		if did, err := j.perform(t.Context(), of); did != failed || err != nil {
			t.Fatalf("%s, %v", did, err)
		}
		r.group("late", "")
		if did, err := j.perform(t.Context(), of); did != failed || err != nil || len(r.thing("pump-1").Groups) != 0 {
			t.Errorf("again: %s, %v, %+v", did, err, r.thing("pump-1"))
		}
	})
}

// The pace of an edit is its own; that of all together is the server's.
func TestEditsKeepTheirPace(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		r.things(pumps(100)...)
		took := func(edits ...Edit) time.Duration {
			begun := time.Now()
			for _, e := range edits {
				r.finish(e.ID)
			}
			return time.Since(begun)
		}
		e := r.begin("pump-", Operation{SetAttributes: map[string]string{"a": "1"}}, 10)
		pass(t.Context(), 5*time.Second)
		if e, err := r.Describe(t.Context(), account, e.ID); err != nil || e.Status != Running || e.Done.Changed < 48 || e.Done.Changed > 52 || e.Rate < 9.5 || e.Rate > 11 || e.Remaining() != 100-e.Done.Changed {
			t.Errorf("after 5 s: %+v, %v", e, err)
		}
		if d := took(e); d < 4*time.Second || d > 6*time.Second {
			t.Errorf("100 things at 10/s took %v", 5*time.Second+d)
		}
		// 20/s is what the server allows to all.
		one := r.begin("pump-", Operation{SetAttributes: map[string]string{"a": "2"}}, 0)
		two := r.begin("pump-", Operation{SetAttributes: map[string]string{"b": "2"}}, 0)
		if d := took(one, two); d < 9*time.Second || d > 12*time.Second {
			t.Errorf("200 things at 20/s took %v", d)
		}
		_, err := r.Start(t.Context(), account, StartCommand{Query: "pump-", Operation: Operation{Delete: &Deletion{}}, PerSecond: 21})
		wantCode(t, err, fault.InvalidRequest, "must be from 1 to 20")
	}, func(_ *rig, o *Options) { o.PerSecond = 20 })
}

// A paused edit rests, also over a restart, and goes on where it was.
func TestPauseRestsUntilResume(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) { //nolint:thelper // the test itself
		d := disk(t)
		defer d.Close()
		r := boot(t, d).runs()
		r.things(pumps(pageSize + 100)...)
		e := r.begin("pump-", Operation{SetAttributes: map[string]string{"a": "1"}}, 100)
		pass(t.Context(), 5500*time.Millisecond)
		paused, err := r.Pause(t.Context(), account, e.ID)
		if err != nil || paused.Status != Paused || paused.Done.Changed < 540 || paused.Done.Changed > 560 || paused.Rate != 0 {
			t.Fatalf("paused %+v, %v", paused, err)
		}
		if again, err := r.Pause(t.Context(), account, e.ID); err != nil || again.Done != paused.Done {
			t.Errorf("again %+v, %v", again, err)
		}
		pass(t.Context(), time.Hour)
		r.stop()
		r = boot(t, d).runs()
		pass(t.Context(), time.Hour)
		if rests, err := r.Describe(t.Context(), account, e.ID); err != nil || rests.Status != Paused || rests.Done != paused.Done {
			t.Fatalf("rests %+v, %v", rests, err)
		}
		resumed, err := r.Resume(t.Context(), account, e.ID)
		if err != nil || resumed.Status != Running {
			t.Fatalf("resumed %+v, %v", resumed, err)
		}
		r.ends(e, Completed, Counts{Changed: pageSize + 100})
		r.stop()
	})
}

// What is done of a page is not paced again when a slow edit goes on.
func TestResumeWastesNoTime(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) { //nolint:thelper // the test itself
		d := disk(t)
		defer d.Close()
		r := boot(t, d).runs()
		r.things(pumps(100)...)
		e := r.begin("pump-", Operation{SetAttributes: map[string]string{"a": "1"}}, 1)
		pass(t.Context(), 80*time.Second)
		if _, err := r.Pause(t.Context(), account, e.ID); err != nil {
			t.Fatal(err)
		}
		r.stop()
		r = boot(t, d).runs()
		if _, err := r.Resume(t.Context(), account, e.ID); err != nil {
			t.Fatal(err)
		}
		pass(t.Context(), time.Second)
		if now, err := r.Describe(t.Context(), account, e.ID); err != nil || now.Done.Changed < 79 {
			t.Errorf("after the resume %+v, %v", now, err)
		}
		began := time.Now()
		r.ends(e, Completed, Counts{Changed: 100})
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("the last 20 things took %v at 1/s", took)
		}
		r.stop()
	})
}

// An edit is described while the store takes its time over a commit of it.
func TestDescribeDoesNotWaitForCommits(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		r.things(pumps(3)...)
		free := make(chan struct{})
		var held atomic.Bool
		r.store.before(func(b store.Batch) {
			for _, w := range b.Writes {
				var e editRecord
				if w.Key.Parts()[0] == kindEdit && json.Unmarshal(w.Value, &e) == nil && e.Page == 1 {
					held.Store(true)
					<-free
				}
			}
		})
		e := r.begin("pump-", Operation{SetAttributes: map[string]string{"a": "1"}}, 0)
		pass(t.Context(), time.Second)
		if now, err := r.Describe(t.Context(), account, e.ID); err != nil || !held.Load() || now.Done.Changed != 3 || now.Status != Running {
			t.Errorf("held %v: %+v, %v", held.Load(), now, err)
		}
		close(free)
		r.ends(e, Completed, Counts{Changed: 3})
	})
}

// An edit begins while an old one is removed, of which each record is looked at once.
func TestRemovalKeepsNobodyWaiting(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		const n = 2*trimBatch + 10
		r.things(pumps(n)...)
		old := r.ends(r.begin("pump-", Operation{SetAttributes: map[string]string{"a": "1"}}, 0), Completed, Counts{Changed: n})
		free := make(chan struct{})
		var held atomic.Bool
		r.store.before(func(b store.Batch) {
			if k := b.Writes[0].Key.Parts(); b.Writes[0].Delete && k[0] == kindChanged && k[2] == old.ID && held.CompareAndSwap(false, true) {
				<-free
			}
		})
		var from []store.Key
		r.store.mu.Lock()
		r.store.scanned = func(within store.Range) {
			if strings.HasPrefix(within.From.String(), store.K(kindChanged, string(account), old.ID).String()) {
				from = append(from, within.From)
			}
		}
		r.store.mu.Unlock()
		pass(t.Context(), 25*time.Hour)
		if !held.Load() {
			t.Fatal("the old edit is not being removed")
		}
		r.ends(r.begin("pump-0001", Operation{SetAttributes: map[string]string{"a": "2"}}, 0), Completed, Counts{Changed: 1})
		close(free)
		synctest.Wait()
		if _, err := r.Describe(t.Context(), account, old.ID); fault.CodeOf(err) != fault.ResourceNotFound {
			t.Errorf("the old edit: %v", err)
		}
		if !slices.IsSorted(from) || len(slices.Compact(from)) != 3 {
			t.Errorf("the changes were read from %q", from)
		}
	})
}

// While the store takes nothing an edit waits, and nothing is lost or failed.
func TestTroubleIsWaitedOut(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		r.things(pumps(30)...)
		e := r.begin("pump-", Operation{SetAttributes: map[string]string{"a": "1"}}, 20)
		pass(t.Context(), time.Second)
		r.store.mu.Lock()
		r.store.trouble = 50
		r.store.mu.Unlock()
		r.ends(e, Completed, Counts{Changed: 30})
	})
}

// Finished edits go with all that they kept, when they are old enough and no undo
// needs them; unfinished ones stay.
func TestRetention(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		r.things(pumps(pageSize + 10)...)
		r.things("bad")
		first := r.ends(r.begin("pump-", Operation{SetAttributes: map[string]string{"a": "1"}}, 0), Completed, Counts{Changed: pageSize + 10})
		failing := r.ends(r.begin("bad", Operation{SetBillingGroup: "none"}, 0), Completed, Counts{Failed: 1})
		resting := r.begin("pump-", Operation{SetAttributes: map[string]string{"a": "1"}}, 1)
		if _, err := r.Pause(t.Context(), account, resting.ID); err != nil {
			t.Fatal(err)
		}
		undo, err := r.Undo(t.Context(), account, first.ID, 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Pause(t.Context(), account, undo.ID); err != nil {
			t.Fatal(err)
		}
		listed := func() (ids []string) {
			after := ""
			for {
				edits, next, err := r.List(t.Context(), account, after, 2)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range edits {
					ids = append(ids, e.ID)
				}
				if next == "" {
					return ids
				}
				after = next
			}
		}
		if got := listed(); len(got) != 4 {
			t.Errorf("listed %q", got)
		}
		pass(t.Context(), 25*time.Hour)
		if got := listed(); len(got) != 3 || slices.Contains(got, failing.ID) || !slices.Contains(got, first.ID) {
			t.Errorf("a day later there are %q", got)
		}
		if _, err := r.Resume(t.Context(), account, undo.ID); err != nil {
			t.Fatal(err)
		}
		r.ends(undo, Completed, Counts{Changed: pageSize + 10})
		if _, err := r.Cancel(t.Context(), account, resting.ID); err != nil {
			t.Fatal(err)
		}
		pass(t.Context(), 25*time.Hour)
		if keys := r.left(); len(keys) != 0 {
			t.Errorf("left %d keys, as %s", len(keys), keys[0])
		}
	})
}

// What was being selected when a process died is removed by the next one; an
// account has a bounded number of unfinished edits.
func TestUnfinishedEditsAreBounded(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) { //nolint:thelper // the test itself
		d := disk(t)
		defer d.Close()
		r := boot(t, d)
		r.things("pump-1")
		o := Operation{SetAttributes: map[string]string{"a": "1"}}
		for range maxActive {
			r.begin("pump-", o, 0)
		}
		p, err := r.Preview(t.Context(), account, "pump-", o)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Start(t.Context(), account, StartCommand{Query: "pump-", Operation: o, Token: p.Token})
		wantCode(t, err, fault.LimitExceeded, "at most 10")
		r.runs()
		synctest.Wait()
		pass(t.Context(), time.Second)
		r.stop()

		// It dies after the record, before the things.
		r.store.left = 1
		_, err = r.Start(t.Context(), account, StartCommand{Query: "pump-", Operation: o, Token: p.Token})
		wantCode(t, err, fault.Unavailable, "")
		r = boot(t, d)
		before, _, err := r.List(t.Context(), account, "", 100)
		if err != nil || len(before) != maxActive+1 || before[0].Status != Selecting {
			t.Fatalf("%d edits, %v", len(before), err)
		}
		r.runs()
		synctest.Wait()
		edits, _, err := r.List(t.Context(), account, "", 100)
		if err != nil || len(edits) != maxActive {
			t.Errorf("%d edits, %v", len(edits), err)
		}
		e, err := r.Start(t.Context(), account, StartCommand{Query: "pump-", Operation: o, Token: p.Token})
		if err != nil {
			t.Fatal(err)
		}
		r.ends(e, Completed, Counts{Unchanged: 1})
		r.stop()
	})
}

// Calls about edits that are not there, of other accounts or out of bounds are
// refused.
func TestUnknownEdits(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		r.things("pump-1")
		e := r.begin("pump-", Operation{SetAttributes: map[string]string{"a": "1"}}, 0)
		r.finish(e.ID)
		for name, call := range map[string]func(ctx context.Context, id string) error{
			"describe": func(ctx context.Context, id string) error {
				_, err := r.Describe(ctx, "000000000009", id)
				return err
			},
			"pause":  func(ctx context.Context, id string) error { _, err := r.Pause(ctx, "000000000009", id); return err },
			"undo":   func(ctx context.Context, id string) error { _, err := r.Undo(ctx, "000000000009", id, 0); return err },
			"cancel": func(ctx context.Context, id string) error { _, err := r.Cancel(ctx, "000000000009", id); return err },
			"changes": func(ctx context.Context, id string) error {
				_, _, err := r.Changes(ctx, "000000000009", id, "", 1)
				return err
			},
			"failures": func(ctx context.Context, id string) error {
				_, _, err := r.Failures(ctx, "000000000009", id, "", 1)
				return err
			},
		} {
			for _, id := range []string{e.ID, "none", "", "a\x00b"} {
				if err := call(t.Context(), id); fault.CodeOf(err) != fault.ResourceNotFound {
					t.Errorf("%s %q: %v", name, id, err)
				}
			}
		}
		_, _, err := r.Changes(t.Context(), account, e.ID, "", maxListed+1)
		wantCode(t, err, fault.InvalidRequest, "maxResults")
		_, err = r.Preview(t.Context(), account, "!", Operation{Delete: &Deletion{}})
		wantCode(t, err, fault.InvalidQuery, "")
		_, err = r.Preview(t.Context(), account, "", Operation{Delete: &Deletion{}})
		wantCode(t, err, fault.InvalidRequest, "query")
		p, err := r.Preview(t.Context(), account, "nothing", Operation{Delete: &Deletion{}})
		if err != nil || p.Things != 0 {
			t.Fatalf("%+v, %v", p, err)
		}
		_, err = r.Start(t.Context(), account, StartCommand{Query: "nothing", Operation: Operation{Delete: &Deletion{}}, Token: p.Token})
		wantCode(t, err, fault.InvalidRequest, "no thing")
	})
}

// Control races with the work and never loses a thing.
func TestControlUnderWay(t *testing.T) {
	inBubble(t, func(r *rig) {
		t := r.t
		r.things(pumps(200)...)
		e := r.begin("pump-", Operation{SetAttributes: map[string]string{"a": "1"}}, 100)
		var group sync.WaitGroup
		for i := range 4 {
			group.Go(func() {
				for range 20 {
					if i%2 == 0 {
						_, _ = r.Pause(t.Context(), account, e.ID)
					} else {
						_, _ = r.Resume(t.Context(), account, e.ID)
					}
					pass(t.Context(), 7*time.Millisecond)
				}
			})
		}
		group.Wait()
		if _, err := r.Resume(t.Context(), account, e.ID); err != nil {
			t.Fatal(err)
		}
		r.ends(e, Completed, Counts{Changed: 200})
		var names []string
		for _, u := range events[event.ThingUpdated](t, r.disk) {
			names = append(names, u.Thing.Thing)
		}
		once(t, names, 200)
	})
}

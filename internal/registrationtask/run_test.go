package registrationtask

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/store"
)

// 10,000 lines of which one in a hundred is bad (fleet-management §6).
func TestManyLines(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	text, wants := lines(10_000)
	task := r.ends(text)
	if task.Status != Completed || task.Progress != 100 || task.Message != "" {
		t.Errorf("task %+v", task)
	}
	r.check(acct, task.ID, wants)
	for name, calls := range r.registrar.calls {
		if calls != 1 {
			t.Errorf("%s was registered %d times", name, calls)
		}
	}
	for _, kind := range []ReportType{Errors, Results} {
		if parts, err := r.Parts(t.Context(), acct, task.ID, kind); err != nil || parts != 1 {
			t.Errorf("%s has %d parts, %v", kind, parts, err)
		}
	}
}

// A part of a report is of 10,000 lines of the file.
func TestPartsOfReports(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	text, wants := lines(20_001)
	task := r.ends(text)
	r.check(acct, task.ID, wants)
	if parts, err := r.Parts(t.Context(), acct, task.ID, Errors); err != nil || parts != 3 {
		t.Errorf("%d parts, %v", parts, err)
	}
	for part, n := range []int{9900, 9900, 1, 0} {
		var out lineCounter
		r.need(r.WriteReport(t.Context(), &out, acct, task.ID, Results, part))
		if int(out) != n {
			t.Errorf("part %d has %d lines, want %d", part, out, n)
		}
	}
	_, err := r.Parts(t.Context(), acct, task.ID, "x")
	wantCode(t, err, fault.InvalidRequest)
	_, err = r.Parts(t.Context(), other, task.ID, Errors)
	wantCode(t, err, fault.ResourceNotFound)
	wantCode(t, r.WriteReport(t.Context(), io.Discard, other, task.ID, Errors, 0), fault.ResourceNotFound)
}

// lineCounter counts lines.
type lineCounter int

func (c *lineCounter) Write(p []byte) (int, error) {
	*c += lineCounter(strings.Count(string(p), "\n"))
	return len(p), nil
}

func wantCode(t *testing.T, err error, code fault.Code) {
	t.Helper()
	if err == nil || fault.CodeOf(err) != code {
		t.Errorf("error %v, want %s", err, code)
	}
}

// Processes die at random points, by the end of Run and by the end of the store,
// many times: each line is registered once, and all counts are exact.
func TestKilledAtRandomPoints(t *testing.T) {
	t.Parallel()
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			random := rand.New(rand.NewPCG(7, seed))
			text, wants := lines(4000)
			id := r.begin(acct, text)
			kills := 0
			for {
				r.boot()
				abrupt := random.IntN(2) == 0
				if abrupt {
					r.store.left.Store(int64(random.IntN(400) + kills))
				}
				r.run()
				// Lives get longer, so that a slow machine comes to the end as well.
				time.Sleep(time.Duration(random.IntN(15)+kills/4) * time.Millisecond)
				r.stop()
				r.store.left.Store(immortal)
				task, err := r.Describe(t.Context(), acct, id)
				r.need(err)
				if task.Status == Completed {
					break
				}
				if kills++; kills > 2000 || task.Status != InProgress || task.Progress == 100 {
					t.Fatalf("after %d kills: %+v", kills, task)
				}
			}
			r.check(acct, id, wants)
			if kills < 5 {
				t.Errorf("only %d kills", kills)
			}
			t.Logf("%d kills", kills)
		})
	}
}

// A task that is stopped in the middle: what is done stays done, is counted, and
// stands in the reports, wherever the stop falls.
func TestStoppedInTheMiddle(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"t-000001", "t-000512", "t-000513", "t-003000", "t-010050"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			text, wants := lines(12_000)
			stopped := make(chan error, 1)
			var id string
			r.registrar.after = func(name string) {
				if name == at {
					stopped <- r.Stop(t.Context(), acct, id)
				}
			}
			id = r.begin(acct, text)
			r.run()
			r.need(<-stopped)
			task := r.await(acct, id)
			if task.Status != Cancelled || task.Progress == 100 {
				t.Errorf("task %+v", task)
			}
			made := r.things(acct)
			if len(made) == 0 || len(made) > 11_000 {
				t.Errorf("%d things are made", len(made))
			}
			// What was begun counts, in the order of the file; the failed among it too.
			failed := map[int64]bool{}
			for _, l := range r.report(acct, id, Errors) {
				failed[l.LineNumber] = true
			}
			var done []want
			for _, w := range wants {
				if _, ok := made[w.name]; ok || failed[w.number] {
					done = append(done, w)
				}
			}
			r.check(acct, id, done)
			wantCode(t, r.Stop(t.Context(), acct, id), fault.InvalidRequest)
			// There is room for another one.
			r.registrar.after = nil
			r.await(acct, r.begin(acct, `{"name":"next"}`))
		})
	}
}

// Stopping one that nobody works on, twice, and after a restart.
func TestStoppedWhileNobodyWorks(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	text, _ := lines(10)
	id := r.begin(acct, text)
	r.need(r.Stop(t.Context(), acct, id))
	r.need(r.Stop(t.Context(), acct, id))
	if task, err := r.Describe(t.Context(), acct, id); err != nil || task.Status != Cancelling {
		t.Errorf("task %+v, %v", task, err)
	}
	wantCode(t, r.Stop(t.Context(), other, id), fault.ResourceNotFound)
	r.boot()
	r.run()
	if task := r.await(acct, id); task.Status != Cancelled || task.Succeeded+task.Failed != 0 {
		t.Errorf("task %+v", task)
	}
	if len(r.registrar.calls) != 0 {
		t.Errorf("registered %v", r.registrar.calls)
	}
}

// The input is changed, shortened, lengthened or removed before, in and after the
// work. Outcome: the task has Failed and says why, unless every byte of the file
// that it was started with has been read from that file.
func TestInputChangesMeanwhile(t *testing.T) {
	t.Parallel()
	text, wants := lines(2000)
	shorter := text[:strings.LastIndexByte(text[:len(text)-1], '\n')+1]
	t.Run("between two processes", func(t *testing.T) {
		t.Parallel()
		for name, change := range map[string]func(*rig){
			"changed": func(r *rig) { r.bucket.put(acct, "file", text, "v2") },
			"shorter": func(r *rig) { r.bucket.put(acct, "file", shorter, "v1") },
			"gone":    func(r *rig) { r.bucket.remove(acct, "file") },
		} {
			r := newRig(t)
			id := r.begin(acct, text)
			change(r)
			r.run()
			task := r.await(acct, id)
			r.stop()
			if task.Status != Failed || task.Message == "" || task.Succeeded != 0 || len(r.registrar.calls) != 0 {
				t.Errorf("%s: %+v", name, task)
			}
			// It gives its place up.
			r.run()
			r.await(acct, r.begin(acct, `{"name":"next"}`))
		}
	})
	for name, c := range map[string]struct {
		change func(*rig) // while the task runs
		read   func(io.Reader) io.Reader
		failed bool
	}{
		"cut while it is read": {func(*rig) {}, func(r io.Reader) io.Reader { return io.LimitReader(r, int64(len(text)/2)) }, true},
		"a line cut while it is read": {
			func(*rig) {}, func(r io.Reader) io.Reader { return io.LimitReader(r, int64(len(shorter))) }, true,
		},
		"longer while it is read": {
			func(*rig) {}, func(r io.Reader) io.Reader { return io.MultiReader(r, strings.NewReader(`{"name":"late"}`+"\n")) }, false,
		},
		"overwritten while it is read": {func(r *rig) { r.bucket.put(acct, "file", text, "v2") }, nil, true},
		"removed while it is read":     {func(r *rig) { r.bucket.remove(acct, "file") }, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.registrar.after = func(name string) {
				if name == "t-000300" {
					c.change(r)
				}
			}
			id := r.begin(acct, text)
			r.bucket.opened = c.read
			r.run()
			task := r.await(acct, id)
			if c.failed != (task.Status == Failed) || c.failed == (task.Message == "") {
				t.Errorf("task %+v", task)
			}
			if _, late := r.things(acct)["late"]; late {
				t.Error("a line is registered that was not in the file")
			}
			if !c.failed {
				r.check(acct, id, wants)
			}
		})
	}
}

// Trouble that is the server's is no line's: it is tried again until it works.
func TestTroubleIsTriedAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	random := rand.New(rand.NewPCG(1, 1))
	text, wants := lines(300)
	r.registrar.before = func(string) error {
		r.registrar.mu.Lock()
		defer r.registrar.mu.Unlock()
		switch random.IntN(20) {
		case 0:
			return fault.New(fault.Throttling, "too many")
		case 1:
			return fault.New(fault.Unavailable, "full")
		}
		return nil
	}
	task := r.ends(text)
	r.check(acct, task.ID, wants)
	if task.Status != Completed {
		t.Errorf("task %+v", task)
	}
}

// A file that cannot be read to its end, or not be opened, is tried again later.
func TestInputThatCannotBeReadIsTriedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		text, wants := lines(2000)
		id := r.begin(acct, text)
		broken := errors.New("broken connection")
		r.bucket.opened = func(whole io.Reader) io.Reader {
			if r.bucket.opens > 4 {
				return whole
			}
			return io.MultiReader(io.LimitReader(whole, int64(r.bucket.opens*7000)), failing{broken})
		}
		r.run()
		defer r.stop()
		for range 20 {
			synctest.Wait()
			if task, err := r.Describe(t.Context(), acct, id); err != nil || task.Status != InProgress {
				break
			}
			time.Sleep(lookEvery)
		}
		task, err := r.Describe(t.Context(), acct, id)
		r.need(err)
		if task.Status != Completed || r.bucket.opens < 5 {
			t.Errorf("task %+v after %d times", task, r.bucket.opens)
		}
		r.check(acct, id, wants)
	})
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// Two accounts at once, with the same names; each sees its own alone.
func TestTwoAccountsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	text, wants := lines(1500)
	shorter, less := lines(700)
	ours, theirs := r.begin(acct, text), r.begin(other, shorter)
	r.run()
	r.await(acct, ours)
	r.await(other, theirs)
	r.check(acct, ours, wants)
	r.check(other, theirs, less)
	_, err := r.Describe(t.Context(), acct, theirs)
	wantCode(t, err, fault.ResourceNotFound)
	for account, id := range map[string]string{string(acct): ours, string(other): theirs} {
		ids, next, err := r.List(t.Context(), acct, "", "", 0)
		if account == string(other) {
			ids, next, err = r.List(t.Context(), other, "", "", 0)
		}
		if err != nil || next != "" || len(ids) != 1 || ids[0] != id {
			t.Errorf("%s lists %v, %v", account, ids, err)
		}
	}
}

// A second task of an account is refused while one runs, and of two that are
// started at the same moment one is.
func TestSecondStart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	text, _ := lines(10)
	id := r.begin(acct, text)
	c := StartCommand{Body: "body", Bucket: "bucket", Key: "file", RoleARN: role}
	_, err := r.Start(t.Context(), acct, c)
	wantCode(t, err, fault.InvalidRequest)
	r.need(r.Stop(t.Context(), acct, id))
	_, err = r.Start(t.Context(), acct, c)
	wantCode(t, err, fault.InvalidRequest)
	r.run()
	r.await(acct, id)
	r.stop()
	errs := make(chan error, 8)
	for range cap(errs) {
		go func() {
			_, err := r.Start(t.Context(), acct, c)
			errs <- err
		}()
	}
	begun := 0
	for range cap(errs) {
		switch err := <-errs; {
		case err == nil:
			begun++
		case fault.CodeOf(err) != fault.InvalidRequest:
			t.Error(err)
		}
	}
	if begun != 1 {
		t.Errorf("%d tasks were started", begun)
	}
}

// What a start refuses.
func TestStartIsChecked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.bucket.put(acct, "file", "", "v1")
	good := StartCommand{Body: "body", Bucket: "bucket", Key: "file", RoleARN: role}
	for name, edit := range map[string]func(*StartCommand){
		"body":      func(c *StartCommand) { c.Body = "x" },
		"bucket":    func(c *StartCommand) { c.Bucket = "xx" },
		"key":       func(c *StartCommand) { c.Key = "" },
		"long key":  func(c *StartCommand) { c.Key = strings.Repeat("k", 1025) },
		"role":      func(c *StartCommand) { c.RoleARN = "role" },
		"no bucket": func(c *StartCommand) { c.Bucket = "other" },
		"no file":   func(c *StartCommand) { c.Key = "other" },
		"not UTF-8": func(c *StartCommand) { c.Key = "\xff" },
	} {
		c := good
		edit(&c)
		if _, err := r.Start(t.Context(), acct, c); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	if ids, _, err := r.List(t.Context(), acct, "", "", 0); err != nil || len(ids) != 0 {
		t.Errorf("tasks %v, %v", ids, err)
	}
	// A file without lines is a task without lines.
	task, err := r.Start(t.Context(), acct, good)
	r.need(err)
	r.run()
	if task = r.await(acct, task.ID); task.Status != Completed || task.Progress != 100 || task.Succeeded+task.Failed != 0 {
		t.Errorf("task %+v", task)
	}
}

// Tasks are kept for 30 days after their end, and go with all that was kept of
// their lines; one that runs stays. A task that does not end ends then.
func TestTrimAfterThirtyDays(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	text, _ := lines(1500)
	old := r.ends(text).ID
	r.clock.Add(int64(24 * time.Hour))
	young := r.ends(text).ID
	under := r.begin(other, text)
	r.clock.Add(int64(29 * 24 * time.Hour))
	r.need(r.Trim(t.Context()))
	for _, id := range []string{old, young} {
		if _, err := r.Describe(t.Context(), acct, id); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	r.clock.Add(int64(time.Millisecond))
	r.need(r.Trim(t.Context()))
	_, err := r.Describe(t.Context(), acct, old)
	wantCode(t, err, fault.ResourceNotFound)
	if ids, _, err := r.List(t.Context(), acct, "", "", 0); err != nil || len(ids) != 1 || ids[0] != young {
		t.Errorf("tasks %v, %v", ids, err)
	}
	left := 0
	r.need(r.store.Scan(t.Context(), store.Under(kindLine, string(acct), old), func(store.Record) error {
		left++
		return nil
	}))
	if left != 0 {
		t.Errorf("%d receipts are left", left)
	}
	if n := len(r.report(acct, young, Results)); n != 1485 {
		t.Errorf("the report of the other task has %d lines", n)
	}
	r.clock.Add(int64(24 * time.Hour))
	r.need(r.Trim(t.Context()))
	r.run()
	if task := r.await(other, under); task.Status != Failed || task.Message == "" {
		t.Errorf("task %+v", task)
	}
}

// A task that is at work for 30 days ends as well.
func TestTaskThatTakesTooLong(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	text, _ := lines(5000)
	r.registrar.after = func(name string) {
		if name == "t-001000" {
			r.clock.Add(int64(maxAge + time.Millisecond))
		}
	}
	task := r.ends(text)
	if task.Status != Failed || task.Message == "" || task.Succeeded < 900 || task.Succeeded > 2000 {
		t.Errorf("task %+v", task)
	}
}

// Pages of the list, the newest first, and by status.
func TestList(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.run()
	var all []string
	for range 5 {
		id := r.begin(acct, `{"name":"a"}`)
		r.await(acct, id)
		all = append([]string{id}, all...)
		r.clock.Add(int64(time.Second))
	}
	r.stop()
	running := r.begin(acct, `{"name":"a"}`)
	all = append([]string{running}, all...)
	var got []string
	for after := ""; ; {
		page, next, err := r.List(t.Context(), acct, "", after, 2)
		r.need(err)
		got = append(got, page...)
		if next == "" {
			break
		}
		after = next
	}
	if fmt.Sprint(got) != fmt.Sprint(all) {
		t.Errorf("tasks %v, want %v", got, all)
	}
	for status, n := range map[Status]int{Completed: 5, InProgress: 1, Failed: 0, Cancelled: 0, Cancelling: 0} {
		if page, _, err := r.List(t.Context(), acct, status, "", 0); err != nil || len(page) != n {
			t.Errorf("%s: %v, %v", status, page, err)
		}
	}
	page, next, err := r.List(t.Context(), acct, Completed, "", 5)
	if err != nil || len(page) != 5 || next != "" {
		t.Errorf("%v, %q, %v", page, next, err)
	}
	_, _, err = r.List(t.Context(), acct, "Done", "", 0)
	wantCode(t, err, fault.InvalidRequest)
}

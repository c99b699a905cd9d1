package registrationtask

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provisioning"
	"github.com/muster-iot/muster/internal/store"
	"github.com/muster-iot/muster/internal/store/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	acct  fleet.Account = "000000000000"
	other fleet.Account = "111111111111"
	role                = "arn:aws:iam::000000000000:role/bulk"
)

// mortal is a store that refuses commits from some moment on, as a server that
// dies does.
type mortal struct {
	store.Store

	// left is how many commits there will be; very low for no end.
	left atomic.Int64
}

const immortal = -1 << 40

func (s *mortal) Commit(ctx context.Context, b store.Batch) (store.Position, error) {
	if left := s.left.Add(-1); left < 0 && left > immortal/2 {
		return store.Position{}, store.ErrClosed
	}
	return s.Store.Commit(ctx, b)
}

// registrar makes one record for each name, in the commit of what is joined. It
// refuses a line whose member bad is set.
type registrar struct {
	store store.Store
	// calls are by name.
	mu    sync.Mutex
	calls map[string]int
	// before is asked in front of each commit; an error is the answer.
	before func(name string) error
	// after is told of each commit.
	after func(name string)
}

func thingKey(account fleet.Account, name string) store.Key {
	return store.K("thing", string(account), name)
}

func (r *registrar) CheckBody(body string) error {
	if body != "body" {
		return fault.New(fault.InvalidRequest, "templateBody: none")
	}
	return nil
}

func (r *registrar) RegisterThing(ctx context.Context, account fleet.Account, c provisioning.RegisterCommand) (provisioning.Registered, error) {
	name := c.Parameters["name"]
	r.mu.Lock()
	r.calls[name]++
	before, after := r.before, r.after
	r.mu.Unlock()
	if before != nil {
		if err := before(name); err != nil {
			return provisioning.Registered{}, err
		}
	}
	if c.Parameters["bad"] != "" {
		return provisioning.Registered{}, fault.New(fault.RegistrationFailure, "the line %s is bad", name)
	}
	made := provisioning.Registered{CertificatePEM: "pem of " + name, ResourceARNs: map[string]string{"thing": "arn:" + name}}
	b, err := c.Joined(made)
	if err != nil {
		return provisioning.Registered{}, err
	}
	b.Writes = append(b.Writes, store.Write{Key: thingKey(account, name), Value: []byte(c.Task)})
	_, err = r.store.Commit(ctx, b)
	switch {
	case errors.Is(err, store.ErrConflict):
		return provisioning.Registered{}, fault.New(fault.Throttling, "too many")
	case errors.Is(err, store.ErrClosed):
		return provisioning.Registered{}, fault.Wrap(fault.Unavailable, err, "The server is shutting down")
	}
	if err == nil && after != nil {
		after(name)
	}
	return made, err
}

// bucket is the files of all accounts.
type bucket struct {
	mu    sync.Mutex
	files map[string]file
	// opened is told of each file that is opened, and may wrap it.
	opened func(io.Reader) io.Reader
	opens  int
}

type file struct {
	text    string
	version string
}

func (b *bucket) put(account fleet.Account, key, text, version string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.files[string(account)+"/"+key] = file{text, version}
}

func (b *bucket) remove(account fleet.Account, key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.files, string(account)+"/"+key)
}

func (b *bucket) Open(_ context.Context, account fleet.Account, name, key string) (Object, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opens++
	f, ok := b.files[string(account)+"/"+key]
	if !ok || name != "bucket" {
		return Object{}, ErrNoObject
	}
	var r io.Reader = strings.NewReader(f.text)
	if b.opened != nil {
		r = b.opened(r)
	}
	return Object{ReadCloser: io.NopCloser(r), Size: int64(len(f.text)), Version: f.version}, nil
}

// rig is tasks over one store.
type rig struct {
	*Service

	t         *testing.T
	store     *mortal
	registrar *registrar
	bucket    *bucket
	clock     atomic.Int64
	ids       atomic.Int64
	// tasks is how many an account may have.
	tasks int
	// stop ends Run and returns when it has ended.
	stop func()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	disk, err := embedded.Open(embedded.Options{Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler), CacheBytes: 1 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disk.Close() })
	r := &rig{
		t: t, store: &mortal{Store: disk}, registrar: &registrar{calls: map[string]int{}}, bucket: &bucket{files: map[string]file{}}, tasks: 1, stop: func() {},
	}
	t.Cleanup(func() { r.stop() })
	r.registrar.store = r.store
	r.clock.Store(time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC).UnixNano())
	r.store.left.Store(immortal)
	r.boot()
	return r
}

func (r *rig) now() time.Time { return time.Unix(0, r.clock.Load()).UTC() }

func (r *rig) need(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// boot begins another process on the same store, which does not run yet.
func (r *rig) boot() {
	r.Service = New(Options{
		Store: r.store, Registrar: r.registrar, Objects: r.bucket, Workers: 8, Tasks: r.tasks, Now: r.now,
		NewID: func() string { return fmt.Sprintf("task-%d", r.ids.Add(1)) }, Logger: slog.New(slog.DiscardHandler),
	})
}

// run lets the process work until stop.
func (r *rig) run() {
	ctx, cancel := context.WithCancel(r.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := r.Run(ctx); err != nil {
			r.t.Error(err)
		}
	}()
	r.stop = func() {
		cancel()
		<-ended
		r.stop = func() {}
	}
}

// begin starts a task on a text.
func (r *rig) begin(account fleet.Account, text string) string {
	r.t.Helper()
	r.bucket.put(account, "file", text, "v1")
	task, err := r.Start(fleet.WithActor(r.t.Context(), fleet.Actor{}), account, StartCommand{Body: "body", Bucket: "bucket", Key: "file", RoleARN: role})
	r.need(err)
	if task.Status != InProgress {
		r.t.Fatalf("task %+v", task)
	}
	return task.ID
}

// await polls until a task has ended and returns it.
func (r *rig) await(account fleet.Account, id string) Task {
	r.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		task, err := r.Describe(r.t.Context(), account, id)
		r.need(err)
		if task.Status.final() {
			return task
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("the task does not end: %+v", task)
		}
		time.Sleep(time.Millisecond)
	}
}

// ends runs a task over a text to its end.
func (r *rig) ends(text string) Task {
	r.t.Helper()
	id := r.begin(acct, text)
	r.run()
	defer r.stop()
	return r.await(acct, id)
}

// things are the names that were registered, with the task that did it.
func (r *rig) things(account fleet.Account) map[string]string {
	r.t.Helper()
	made := map[string]string{}
	r.need(r.store.Scan(r.t.Context(), store.Under("thing", string(account)), func(found store.Record) error {
		if found.Version == 0 {
			return errors.New("no version")
		}
		made[found.Key.Last()] = string(found.Value)
		return nil
	}))
	return made
}

// report is all parts of a report.
func (r *rig) report(account fleet.Account, id string, kind ReportType) []reportLine {
	r.t.Helper()
	parts, err := r.Parts(r.t.Context(), account, id, kind)
	r.need(err)
	var out bytes.Buffer
	for part := range parts {
		r.need(r.WriteReport(r.t.Context(), &out, account, id, kind, part))
	}
	var lines []reportLine
	d := json.NewDecoder(&out)
	for {
		var l reportLine
		err := d.Decode(&l)
		if errors.Is(err, io.EOF) {
			return lines
		}
		r.need(err)
		lines = append(lines, l)
	}
}

// want is what must become of a line.
type want struct {
	number, end int64
	name        string
	bad         bool
}

// lines makes a file of so many lines, of which every hundredth is bad, with what
// must become of each.
func lines(n int) (string, []want) {
	var text strings.Builder
	var wants []want
	for i := 1; i <= n; i++ {
		w := want{number: int64(i), name: fmt.Sprintf("t-%06d", i), bad: i%100 == 37}
		if w.bad {
			fmt.Fprintf(&text, `{"name":%q,"bad":"1"}`, w.name)
		} else {
			fmt.Fprintf(&text, `{"name":%q}`, w.name)
		}
		text.WriteByte('\n')
		w.end = int64(text.Len())
		wants = append(wants, w)
	}
	return text.String(), wants
}

// check compares what was registered and what the reports say with what must have
// become of the lines.
func (r *rig) check(account fleet.Account, id string, wants []want) {
	r.t.Helper()
	task, err := r.Describe(r.t.Context(), account, id)
	r.need(err)
	made, results, failures := r.things(account), r.report(account, id, Results), r.report(account, id, Errors)
	var good, bad int
	for _, w := range wants {
		var l reportLine
		switch {
		case w.bad && bad < len(failures):
			l = failures[bad]
			if l.Response != nil || l.ErrorMessage == nil || !strings.Contains(*l.ErrorMessage, w.name) {
				r.t.Fatalf("line %d has failed with %+v", w.number, l)
			}
			bad++
		case !w.bad && good < len(results):
			l = results[good]
			if l.ErrorMessage != nil || l.Response == nil || *l.Response.CertificatePEM != "pem of "+w.name || l.Response.ResourceARNs["thing"] != "arn:"+w.name {
				r.t.Fatalf("line %d has the result %+v", w.number, l)
			}
			good++
		default:
			r.t.Fatalf("line %d is missing: %d results, %d failures in the reports of %+v", w.number, len(results), len(failures), task)
		}
		if l.LineNumber != w.number || l.Offset != w.end {
			r.t.Fatalf("line %d that ends at %d is reported as %d, %d", w.number, w.end, l.LineNumber, l.Offset)
		}
		if _, ok := made[w.name]; ok == w.bad {
			r.t.Fatalf("line %d is registered: %v", w.number, ok)
		}
	}
	if good != len(results) || bad != len(failures) || len(made) != good {
		r.t.Errorf("%d results and %d failures in the reports, %d things; want %d and %d", len(results), len(failures), len(made), good, bad)
	}
	if task.Succeeded != int64(good) || task.Failed != int64(bad) {
		r.t.Errorf("the task counts %d and %d, want %d and %d", task.Succeeded, task.Failed, good, bad)
	}
}

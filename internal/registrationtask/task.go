package registrationtask

import (
	"context"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// Status is how a task stands.
type Status string

// States of a task, in the spelling of AWS IoT.
const (
	InProgress Status = "InProgress"
	Completed  Status = "Completed"
	// Failed is a task that could not run; lines that fail leave it Completed.
	Failed     Status = "Failed"
	Cancelling Status = "Cancelling"
	Cancelled  Status = "Cancelled"
)

// final reports whether nothing more happens.
func (s Status) final() bool { return s == Completed || s == Failed || s == Cancelled }

// known reports whether it is a status.
func (s Status) known() bool { return s.final() || s == InProgress || s == Cancelling }

// Task is a registration task.
type Task struct {
	ID        string
	Status    Status
	Body      string
	Bucket    string
	Key       string
	RoleARN   string
	Created   time.Time
	Modified  time.Time
	Message   string
	Succeeded int64
	Failed    int64
	// Progress is in percent of the file, 100 only when all is done.
	Progress int
}

// StartCommand asks for a task.
type StartCommand struct {
	Body, Bucket, Key, RoleARN string
}

// Bounds of the service model.
const (
	minBucket, maxBucket = 3, 256
	maxKey               = 1024
	minRole, maxRole     = 20, 2048
)

// Start begins a task. The file must be there; what is wrong in it shows line by
// line.
func (s *Service) Start(ctx context.Context, account fleet.Account, c StartCommand) (Task, error) {
	if err := s.checkStart(c); err != nil {
		return Task{}, err
	}
	object, err := s.o.Objects.Open(ctx, account, c.Bucket, c.Key)
	if err != nil {
		return Task{}, openFault(c.Bucket, c.Key, err)
	}
	_ = object.Close() // nothing was written
	at := place{account, s.o.NewID()}
	now := s.o.Now().UnixMilli()
	r := &taskRecord{
		Schema: schemaVersion, Status: InProgress, Body: c.Body, Bucket: c.Bucket, Key: c.Key, RoleARN: c.RoleARN, Actor: fleet.ActorFrom(ctx),
		Created: now, Modified: now, Size: object.Size, Version: object.Version, Line: 1,
	}
	err = store.Attempt(ctx, s.o.Store, func(ctx context.Context) (store.Batch, error) {
		var active activeRecord
		version, err := read(ctx, s.o.Store, activeKey(account), &active)
		if err != nil {
			return store.Batch{}, err
		}
		if len(active.IDs) >= s.o.Tasks {
			return store.Batch{}, fault.New(fault.InvalidRequest,
				"registration task %s is running; the account may have %d at a time", active.IDs[0], s.o.Tasks)
		}
		active.Schema, active.IDs = schemaVersion, append(active.IDs, at.id)
		b := store.Batch{
			Expect: []store.Expect{{Key: activeKey(account), Version: version}, {Key: taskKey(account, at.id)}},
			Writes: []store.Write{{Key: newestKey(account, at.id, now), Value: []byte(plainRow)}},
		}
		b.Events = append(b.Events, s.changed(ctx, at, r))
		if err := put(&b, activeKey(account), active); err != nil {
			return store.Batch{}, err
		}
		return b, put(&b, taskKey(account, at.id), r)
	})
	if err != nil {
		return Task{}, err
	}
	s.rouse()
	return taskOf(at.id, r), nil
}

// checkStart refuses a command that breaks a rule.
func (s *Service) checkStart(c StartCommand) error {
	for _, part := range []struct {
		name, text  string
		least, most int
	}{
		{"inputFileBucket", c.Bucket, minBucket, maxBucket},
		{"inputFileKey", c.Key, 1, maxKey},
		{"roleArn", c.RoleARN, minRole, maxRole},
	} {
		if n := utf8.RuneCountInString(part.text); n < part.least || n > part.most || !utf8.ValidString(part.text) {
			return fault.New(fault.InvalidRequest, "%s must have %d to %d characters", part.name, part.least, part.most)
		}
	}
	return s.o.Registrar.CheckBody(c.Body)
}

// openFault is the fault for a file that cannot be read.
func openFault(bucket, key string, err error) error {
	if errors.Is(err, ErrNoObject) {
		return fault.Wrap(fault.InvalidRequest, err, "inputFileBucket, inputFileKey: there is no object %q in bucket %q", key, bucket)
	}
	return err
}

// taskOf is the public form of a record.
func taskOf(id string, r *taskRecord) Task {
	t := Task{
		ID: id, Status: r.Status, Body: r.Body, Bucket: r.Bucket, Key: r.Key, RoleARN: r.RoleARN, Created: moment(r.Created), Modified: moment(r.Modified),
		Message: r.Message, Succeeded: r.Succeeded, Failed: r.Failed,
	}
	const whole = 100
	switch {
	case r.Status == Completed:
		t.Progress = whole
	case r.Size > 0:
		t.Progress = int(min(whole-1, r.Offset*whole/r.Size))
	}
	return t
}

// Describe returns one task.
func (s *Service) Describe(ctx context.Context, account fleet.Account, id string) (Task, error) {
	r, _, err := s.find(ctx, account, id)
	if err != nil {
		return Task{}, err
	}
	return taskOf(id, r), nil
}

// maxPage is the most that one page of a list holds.
const maxPage = 250

// List returns a page of ids, the newest first, of tasks with a status unless it
// is empty, and the key that the next page begins after, empty on the last one.
// Limit 0 is for a full page.
func (s *Service) List(ctx context.Context, account fleet.Account, status Status, after string, limit int) (ids []string, next string, err error) {
	if status != "" && !status.known() {
		return nil, "", fault.New(fault.InvalidRequest, "status must be InProgress, Completed, Failed, Cancelled or Cancelling")
	}
	if limit <= 0 || limit > maxPage {
		limit = maxPage
	}
	within := store.Under(kindNewest, string(account))
	if after != "" {
		within = within.After(store.Key(after))
	}
	ids = []string{}
	last := ""
	err = s.o.Store.Scan(ctx, within, func(row store.Record) error {
		id := row.Key.Last()
		if status != "" {
			r, _, err := s.find(ctx, account, id)
			if fault.CodeOf(err) == fault.ResourceNotFound || err == nil && r.Status != status {
				return nil
			}
			if err != nil {
				return err
			}
		}
		if len(ids) == limit {
			next = last
			return store.Stop
		}
		ids, last = append(ids, id), string(row.Key)
		return nil
	})
	return ids, next, store.Fault(err)
}

// errStopped ends the work on a task that is to be stopped.
var errStopped = errors.New("the task is being stopped")

// Stop ends a task. Lines that are done stay done. It is no error for a task that
// is being stopped, and one for a task that has ended.
func (s *Service) Stop(ctx context.Context, account fleet.Account, id string) error {
	at := place{account, id}
	_, err := s.step(ctx, at, func(r *taskRecord) (bool, error) {
		if r.Status.final() {
			return false, fault.New(fault.InvalidRequest, "registration task %s is %s", id, r.Status)
		}
		changed := r.Status != Cancelling
		r.Status = Cancelling
		return changed, nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	cancel := s.running[at]
	s.mu.Unlock()
	if cancel != nil {
		cancel(errStopped)
	}
	s.rouse()
	return nil
}

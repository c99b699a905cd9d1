package registrationtask

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// First parts of keys; the account is the second.
//
//	registration-task/A/<id>                  record: one task and how far it is
//	registration-task-newest/A/<~time>/<id>   row, newest first
//	registration-task-active/A                record: the tasks that are not finished, guard of their number
//	registration-task-line/A/<id>/<line>      record: the receipt of a line
const (
	kindTask   = "registration-task"
	kindNewest = "registration-task-newest"
	kindActive = "registration-task-active"
	kindLine   = "registration-task-line"
)

// schemaVersion is written into every record.
const schemaVersion = 1

// plainRow is the value of a row.
const plainRow = `{"v":1}`

// taskRecord is one task. All lines before Line have receipts; Offset is where it
// begins in the file.
type taskRecord struct {
	Schema    int         `json:"v"`
	Status    Status      `json:"status"`
	Body      string      `json:"body"`
	Bucket    string      `json:"bucket"`
	Key       string      `json:"key"`
	RoleARN   string      `json:"roleArn"`
	Actor     fleet.Actor `json:"actor"`
	Created   int64       `json:"created"`
	Modified  int64       `json:"modified"`
	Message   string      `json:"message,omitempty"`
	Size      int64       `json:"size,omitempty"`
	Version   string      `json:"version,omitempty"`
	Line      int64       `json:"line"`
	Offset    int64       `json:"offset"`
	Succeeded int64       `json:"succeeded,omitempty"`
	Failed    int64       `json:"failed,omitempty"`
}

// activeRecord lists the tasks of an account that are not finished.
type activeRecord struct {
	Schema int      `json:"v"`
	IDs    []string `json:"ids"`
}

// receipt says what became of a line. End is where the line ends in the file, its
// line feed included.
type receipt struct {
	Schema int               `json:"v"`
	End    int64             `json:"end"`
	Error  string            `json:"error,omitempty"`
	PEM    string            `json:"pem,omitempty"`
	ARNs   map[string]string `json:"arns,omitempty"`
}

func taskKey(account fleet.Account, id string) store.Key {
	return store.K(kindTask, string(account), id)
}

func newestKey(account fleet.Account, id string, created int64) store.Key {
	return store.K(kindNewest, string(account), fmt.Sprintf("%019d", math.MaxInt64-created), id)
}

func activeKey(account fleet.Account) store.Key { return store.K(kindActive, string(account)) }

func lineKey(account fleet.Account, id string, line int64) store.Key {
	return store.K(kindLine, string(account), id, fmt.Sprintf("%012d", line))
}

// lineNumber is the number of the line in the key of its receipt.
func lineNumber(k store.Key) (int64, error) {
	number, err := strconv.ParseInt(k.Last(), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read key %s: %w", k, err)
	}
	return number, nil
}

// read decodes a record into v and returns its version, 0 when there is none.
func read(ctx context.Context, r store.Reader, k store.Key, v any) (version uint64, err error) {
	found, err := r.Get(ctx, k)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, store.Fault(fmt.Errorf("read %s: %w", k, err))
	}
	return found.Version, decode(found, v)
}

func decode(found store.Record, v any) error {
	if err := json.Unmarshal(found.Value, v); err != nil {
		return fmt.Errorf("decode record %s: %w", found.Key, err)
	}
	return nil
}

// put adds a record to a batch.
func put(b *store.Batch, k store.Key, v any) error {
	value, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode record %s: %w", k, err)
	}
	b.Writes = append(b.Writes, store.Write{Key: k, Value: value})
	return nil
}

// find reads a task that must exist.
func (s *Service) find(ctx context.Context, account fleet.Account, id string) (*taskRecord, uint64, error) {
	var r taskRecord
	version, err := read(ctx, s.o.Store, taskKey(account, id), &r)
	if err == nil && version == 0 {
		err = fault.New(fault.ResourceNotFound, "registration task %s does not exist", id)
	}
	return &r, version, err
}

// step changes a task's record until its batch commits or the decision is an
// error. A decision that changes nothing commits nothing.
func (s *Service) step(ctx context.Context, at place, decide func(r *taskRecord) (changed bool, err error)) (*taskRecord, error) {
	var r *taskRecord
	err := store.Attempt(ctx, s.o.Store, func(ctx context.Context) (store.Batch, error) {
		var version uint64
		var err error
		if r, version, err = s.find(ctx, at.account, at.id); err != nil {
			return store.Batch{}, err
		}
		before := r.Status
		changed, err := decide(r)
		if err != nil || !changed {
			return store.Batch{}, err
		}
		r.Modified = s.o.Now().UnixMilli()
		b := store.Batch{Expect: []store.Expect{{Key: taskKey(at.account, at.id), Version: version}}}
		if err := put(&b, taskKey(at.account, at.id), r); err != nil {
			return store.Batch{}, err
		}
		if r.Status != before {
			b.Events = append(b.Events, s.changed(ctx, at, r))
		}
		if r.Status.final() && !before.final() {
			if err := s.leave(ctx, &b, at); err != nil {
				return store.Batch{}, err
			}
		}
		return b, nil
	})
	return r, err
}

// leave gives up a task's place among the active ones.
func (s *Service) leave(ctx context.Context, b *store.Batch, at place) error {
	var active activeRecord
	version, err := read(ctx, s.o.Store, activeKey(at.account), &active)
	if err != nil {
		return err
	}
	rest := activeRecord{Schema: schemaVersion, IDs: []string{}}
	for _, id := range active.IDs {
		if id != at.id {
			rest.IDs = append(rest.IDs, id)
		}
	}
	b.Expect = append(b.Expect, store.Expect{Key: activeKey(at.account), Version: version})
	return put(b, activeKey(at.account), rest)
}

// changed is the event of a task's step. Who started it is behind what it does by
// itself.
func (s *Service) changed(ctx context.Context, at place, r *taskRecord) event.Envelope {
	actor := fleet.ActorFrom(ctx)
	if actor == (fleet.Actor{}) {
		actor = r.Actor
	}
	return event.Envelope{Account: at.account, At: s.o.Now(), Actor: actor, Event: event.RegistrationTaskChanged{
		Task: at.id, Status: string(r.Status), Succeeded: r.Succeeded, Failed: r.Failed, Message: r.Message,
	}}
}

func moment(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

package registrationtask

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/muster-iot/muster/internal/event"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provisioning"
	"github.com/muster-iot/muster/internal/store"
)

const (
	// chunk is how many lines are read ahead and done before the task's record
	// says so; fewer when they are long.
	chunk      = 512
	chunkBytes = 4 << 20
	// lineLimit bounds the work on one line, also on one that waits for the store.
	lineLimit = time.Minute
	// lookEvery is the time between two looks for tasks, and trimEvery for what is
	// too old.
	lookEvery = 15 * time.Second
	trimEvery = time.Hour
	// firstPause and longestPause bound the wait before a line is tried again that
	// met trouble of the server's.
	firstPause   = 50 * time.Millisecond
	longestPause = 10 * time.Second
)

// Run works on the tasks of all accounts, also on those that a stop or a crash
// has interrupted, and removes what is too old, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	var under sync.WaitGroup
	defer under.Wait()
	look, trim := time.NewTicker(lookEvery), time.NewTicker(trimEvery)
	defer look.Stop()
	defer trim.Stop()
	s.trim(ctx)
	for {
		if err := s.look(ctx, &under); err != nil && ctx.Err() == nil {
			s.o.Logger.ErrorContext(ctx, "registration tasks are not looked after", slog.Any("err", err))
		}
		select {
		case <-s.wake:
		case <-look.C:
		case <-trim.C:
			s.trim(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// trim is Trim, whose trouble is for the next time.
func (s *Service) trim(ctx context.Context) {
	if err := s.Trim(ctx); err != nil && ctx.Err() == nil {
		s.o.Logger.ErrorContext(ctx, "old registration tasks are not removed", slog.Any("err", err))
	}
}

// look gives each unfinished task a goroutine that has none.
func (s *Service) look(ctx context.Context, under *sync.WaitGroup) error {
	var places []place
	err := s.o.Store.Scan(ctx, store.Under(kindActive), func(found store.Record) error {
		var active activeRecord
		if err := decode(found, &active); err != nil {
			return err
		}
		for _, id := range active.IDs {
			places = append(places, place{fleet.Account(found.Key.Last()), id})
		}
		return nil
	})
	if err != nil {
		return store.Fault(err)
	}
	for _, at := range places {
		s.start(ctx, under, at)
	}
	return nil
}

// start gives a task a goroutine, unless it has one.
func (s *Service) start(ctx context.Context, under *sync.WaitGroup, at place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[at] != nil {
		return
	}
	working, cancel := context.WithCancelCause(ctx)
	s.running[at] = cancel
	under.Go(func() {
		defer cancel(nil)
		err := s.work(ctx, working, at)
		s.mu.Lock()
		delete(s.running, at)
		s.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			s.o.Logger.ErrorContext(ctx, "registration task is interrupted and goes on later", slog.String("task", at.id), slog.Any("err", err))
		}
	})
}

// work carries a task on from where it is to its end. It is stopped by working,
// and ends with ctx. An error leaves it for later.
func (s *Service) work(ctx, working context.Context, at place) error {
	r, _, err := s.find(ctx, at.account, at.id)
	if err != nil || r.Status.final() {
		return err
	}
	if r.Status == InProgress {
		switch err := s.workThrough(working, at, r); {
		case err == nil:
			return s.end(ctx, at, Completed, "")
		case ctx.Err() != nil:
			return nil
		case !errors.Is(context.Cause(working), errStopped):
			if why, over := cannotRun(err); over {
				return s.end(ctx, at, Failed, why)
			}
			return err
		}
	}
	return s.end(ctx, at, Cancelled, "")
}

// cannotRun tells of an error that the task cannot go on, and why.
func cannotRun(err error) (string, bool) {
	if over, ok := errors.AsType[*runError](err); ok {
		return over.why, true
	}
	return "", false
}

// runError ends a task.
type runError struct{ why string }

func (e *runError) Error() string { return e.why }

// end gives a task its last state, and counts the lines that were done but not
// noted any more.
func (s *Service) end(ctx context.Context, at place, status Status, message string) error {
	r, err := s.step(ctx, at, func(r *taskRecord) (bool, error) {
		if r.Status.final() {
			return false, nil
		}
		r.Status, r.Message = status, message
		return true, s.countRest(ctx, at, r)
	})
	if err == nil {
		s.o.Logger.InfoContext(ctx, "registration task has ended", slog.String("account", string(at.account)), slog.String("task", at.id),
			slog.String("status", string(r.Status)), slog.Int64("succeeded", r.Succeeded), slog.Int64("failed", r.Failed), slog.String("message", message))
	}
	return err
}

// countRest counts the receipts behind the last line that was noted.
func (s *Service) countRest(ctx context.Context, at place, r *taskRecord) error {
	rest := store.Range{From: lineKey(at.account, at.id, r.Line), To: store.Under(kindLine, string(at.account), at.id).To}
	err := s.o.Store.Scan(ctx, rest, func(found store.Record) error {
		var done receipt
		if err := decode(found, &done); err != nil {
			return err
		}
		if done.Error == "" {
			r.Succeeded++
		} else {
			r.Failed++
		}
		number, err := lineNumber(found.Key)
		// A report reaches as far as the lines that were begun.
		r.Line = number + 1
		return err
	})
	return store.Fault(err)
}

// workThrough reads the file from the task's place, chunk by chunk.
func (s *Service) workThrough(ctx context.Context, at place, r *taskRecord) error {
	object, err := s.o.Objects.Open(ctx, at.account, r.Bucket, r.Key)
	switch {
	case errors.Is(err, ErrNoObject):
		return &runError{fmt.Sprintf("there is no object %q in bucket %q any more", r.Key, r.Bucket)}
	case err != nil:
		return fmt.Errorf("open input: %w", err)
	}
	defer object.Close() //nolint:errcheck // it was read only
	if object.Version != r.Version || object.Size != r.Size {
		return errChanged
	}
	whole := io.LimitReader(object, r.Size)
	if _, err := io.CopyN(io.Discard, whole, r.Offset); err != nil {
		return fmt.Errorf("go to byte %d of the input: %w", r.Offset, err)
	}
	lines := newLineReader(whole, r.Line, r.Offset)
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.o.Now().Sub(moment(r.Created)) > maxAge {
			return &runError{"the task has not ended within 30 days"}
		}
		batch := make([]line, 0, chunk)
		for len(batch) < chunk && lines.offset-r.Offset < chunkBytes {
			next, err := lines.next()
			if errors.Is(err, io.EOF) {
				more = false
				break
			}
			if err != nil {
				return err
			}
			batch = append(batch, next)
		}
		if err := s.workOn(ctx, at, r, batch); err != nil {
			return err
		}
		if err := s.note(ctx, at, r, lines); err != nil {
			return err
		}
	}
	return s.wasRead(ctx, at, r)
}

// errChanged ends a task whose file is not what it was at the start.
var errChanged = &runError{"the input file was changed while the task ran"}

// wasRead refuses a file that has ended before its end, or is another one now: an
// open file can be overwritten. One that is gone cannot be looked at again, and
// was read.
func (s *Service) wasRead(ctx context.Context, at place, r *taskRecord) error {
	if r.Offset != r.Size {
		return errChanged
	}
	object, err := s.o.Objects.Open(ctx, at.account, r.Bucket, r.Key)
	switch {
	case errors.Is(err, ErrNoObject):
		return nil
	case err != nil:
		return fmt.Errorf("look at the input again: %w", err)
	}
	_ = object.Close() // it was read only
	if object.Version != r.Version || object.Size != r.Size {
		return errChanged
	}
	return nil
}

// note writes down how far the task is. Somebody may have stopped it meanwhile.
func (s *Service) note(ctx context.Context, at place, r *taskRecord, lines *lineReader) error {
	r.Line, r.Offset = lines.number, lines.offset
	_, err := s.step(ctx, at, func(stored *taskRecord) (bool, error) {
		stored.Line, stored.Offset, stored.Succeeded, stored.Failed = r.Line, r.Offset, r.Succeeded, r.Failed
		return true, nil
	})
	return err
}

// workOn registers the lines of a chunk that have no receipts yet, and counts all.
func (s *Service) workOn(ctx context.Context, at place, r *taskRecord, batch []line) error {
	keys := make([]store.Key, len(batch))
	for i := range batch {
		keys[i] = lineKey(at.account, at.id, batch[i].number)
	}
	if len(keys) == 0 {
		return nil
	}
	known, err := s.o.Store.GetMany(ctx, keys)
	if err != nil {
		return store.Fault(fmt.Errorf("read receipts: %w", err))
	}
	var mu sync.Mutex
	var failed error
	var workers sync.WaitGroup
	next := make(chan int)
	for range min(s.o.Workers, len(batch)) {
		workers.Go(func() {
			for i := range next {
				done, err := s.register(fleet.WithActor(ctx, r.Actor), at, r, &batch[i])
				mu.Lock()
				switch {
				case err != nil:
					failed = err
				case done:
					r.Succeeded++
				default:
					r.Failed++
				}
				mu.Unlock()
			}
		})
	}
	for i := range batch {
		if known[i].Version != 0 {
			var found receipt
			if err := decode(known[i], &found); err != nil {
				failed = err
				break
			}
			mu.Lock()
			if found.Error == "" {
				r.Succeeded++
			} else {
				r.Failed++
			}
			mu.Unlock()
			continue
		}
		next <- i
	}
	close(next)
	workers.Wait()
	return failed
}

// register carries out one line and leaves its receipt: done is false for a line
// that failed. It tries again for as long as the trouble is the server's.
func (s *Service) register(ctx context.Context, at place, r *taskRecord, l *line) (done bool, err error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	// A line that was begun is ended: a commit that nobody waits for could come after
	// the lines of a stopped task have been counted.
	line, cancel := context.WithTimeout(context.WithoutCancel(ctx), lineLimit)
	defer cancel()
	if l.problem != nil {
		s.lines.WithLabelValues("failed").Inc()
		return false, s.fail(line, at, l, "InvalidRequestException: "+l.problem.Error())
	}
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		_, err := s.o.Registrar.RegisterThing(line, at.account, provisioning.RegisterCommand{
			Body: r.Body, Parameters: l.parameters, Method: event.ProvisioningBulk, Task: at.id,
			Joined: func(made provisioning.Registered) (store.Batch, error) {
				return s.receipt(at, l, receipt{PEM: made.CertificatePEM, ARNs: maps.Clone(made.ResourceARNs)})
			},
		})
		switch {
		case err == nil:
			s.lines.WithLabelValues("succeeded").Inc()
			return true, nil
		case line.Err() != nil:
			return false, context.Cause(line)
		case !transient(err):
			s.lines.WithLabelValues("failed").Inc()
			return false, s.fail(line, at, l, describe(err))
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
		// Somebody else may have done the line: then its receipt is in the way.
		var found receipt
		version, err := read(ctx, s.o.Store, lineKey(at.account, at.id, l.number), &found)
		if err != nil || version != 0 {
			return found.Error == "", err
		}
	}
}

// transient reports whether an error says nothing about the line.
func transient(err error) bool {
	switch fault.CodeOf(err) { //nolint:exhaustive // the others are about the line
	case fault.Unavailable, fault.Throttling:
		return true
	}
	return false
}

// describe is the text of a report about a line.
func describe(err error) string {
	f := fault.From(err)
	if f.Code == fault.Conflict {
		return "ConflictingResourceUpdateException: " + f.Message
	}
	return string(f.Code) + "Exception: " + f.Message
}

// receipt is the batch that leaves a line's receipt. Another one of the same line
// keeps it from being committed.
func (s *Service) receipt(at place, l *line, of receipt) (store.Batch, error) {
	of.Schema, of.End = schemaVersion, l.end
	value, err := json.Marshal(of)
	if err != nil {
		return store.Batch{}, fmt.Errorf("encode receipt of line %d: %w", l.number, err)
	}
	k := lineKey(at.account, at.id, l.number)
	return store.Batch{Expect: []store.Expect{{Key: k}}, Writes: []store.Write{{Key: k, Value: value}}}, nil
}

// fail leaves the receipt of a line that failed.
func (s *Service) fail(ctx context.Context, at place, l *line, why string) error {
	b, err := s.receipt(at, l, receipt{Error: why})
	if err != nil {
		return err
	}
	_, err = s.o.Store.Commit(ctx, b)
	return store.Fault(err)
}

// Trim removes tasks that ended too long ago, with their receipts.
func (s *Service) Trim(ctx context.Context) error {
	oldest := s.o.Now().Add(-retentionAge).UnixMilli()
	var old []place
	var created []int64
	err := s.o.Store.Scan(ctx, store.Under(kindTask), func(found store.Record) error {
		var r taskRecord
		if err := decode(found, &r); err != nil {
			return err
		}
		if r.Status.final() && r.Modified < oldest {
			parts := found.Key.Parts()
			old, created = append(old, place{fleet.Account(parts[1]), parts[2]}), append(created, r.Created)
		}
		return nil
	})
	if err != nil {
		return store.Fault(err)
	}
	for i, at := range old {
		if err := s.remove(ctx, at, created[i]); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes what belongs to a task, and its record last: whoever is
// interrupted finds it again.
func (s *Service) remove(ctx context.Context, at place, created int64) error {
	within := store.Under(kindLine, string(at.account), at.id)
	for {
		var b store.Batch
		err := s.o.Store.Scan(ctx, within, func(found store.Record) error {
			if len(b.Writes) == chunk {
				return store.Stop
			}
			b.Writes = append(b.Writes, store.Write{Key: found.Key, Delete: true})
			return nil
		})
		if err != nil {
			return store.Fault(err)
		}
		if len(b.Writes) == 0 {
			break
		}
		within = within.After(b.Writes[len(b.Writes)-1].Key)
		if _, err := s.o.Store.Commit(ctx, b); err != nil {
			return store.Fault(err)
		}
	}
	_, err := s.o.Store.Commit(ctx, store.Batch{Writes: []store.Write{
		{Key: newestKey(at.account, at.id, created), Delete: true}, {Key: taskKey(at.account, at.id), Delete: true},
	}})
	return store.Fault(err)
}

package bulk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-iot/muster/internal/apiclient"
)

const (
	// MaxBatch is the most things that a server takes at a time.
	MaxBatch = 1000
	// batchBytes bounds what a batch is as a request: the server takes 4 MiB.
	batchBytes = 3 << 20
	// grace is how long a batch under way may take when the import is
	// interrupted.
	grace = 15 * time.Second
	// answerWithin bounds one try.
	answerWithin = 2 * time.Minute
	// firstPause and lastPause bound the time between two tries.
	firstPause = 100 * time.Millisecond
	lastPause  = 10 * time.Second
	// internalTries is how often a line is sent that the server failed on.
	internalTries = 3
)

// ErrInterrupted is an import that was told to stop; its journal knows where to
// go on.
var ErrInterrupted = errors.New("the import was interrupted")

// Totals count lines by what became of them.
type Totals struct {
	Created   int64 `json:"created,omitempty"`
	Updated   int64 `json:"updated,omitempty"`
	Unchanged int64 `json:"unchanged,omitempty"`
	Failed    int64 `json:"failed,omitempty"`
}

// Lines is how many lines there were.
func (t Totals) Lines() int64 { return t.Created + t.Updated + t.Unchanged + t.Failed }

// and is both together.
func (t Totals) and(other Totals) Totals {
	return Totals{
		Created: t.Created + other.Created, Updated: t.Updated + other.Updated,
		Unchanged: t.Unchanged + other.Unchanged, Failed: t.Failed + other.Failed,
	}
}

// Sender takes batches to a server.
type Sender interface {
	ImportThings(ctx context.Context, in apiclient.Import) (apiclient.Imported, error)
}

// Options of Run; all are required unless said otherwise.
type Options struct {
	Sender Sender
	Reader *Reader
	// Mode is create or upsert.
	Mode   string
	DryRun bool
	// Batch is the number of things sent at once, Concurrency that of batches.
	Batch, Concurrency int
	// Journal is optional.
	Journal *Journal
	// Failed takes the failed lines of a batch, in order; the result is the size
	// of the report with them.
	Failed func(failures []Failure) (int64, error)
	// Progress is told the totals and how many bytes of the file are done. It is
	// called by one goroutine.
	Progress func(t Totals, offset int64)
	// Patience is how long a batch is tried for that does not reach the server.
	Patience time.Duration
	// Now is the clock.
	Now func() time.Time
	// Retried is told why a batch is tried again; optional.
	Retried func(err error, pause time.Duration)
}

// batch is a run of lines of the file.
type batch struct {
	lines []Line
	size  int
	// offset is where the file goes on behind it.
	offset  int64
	results []apiclient.ImportResult
}

// importer is one run.
type importer struct {
	Options

	mu sync.Mutex
	// busy are the names of the batches under way; freed is told of each end.
	busy  map[string]bool
	freed sync.Cond
	// ended says that no batch will be sent any more.
	ended bool

	totals Totals
	offset int64
}

// Run imports all lines that the journal does not have as done, and returns the
// totals, those of the journal among them. Lines with the same name are carried
// out in the order of the file. When ctx ends, batches under way get a moment to
// end and the result is ErrInterrupted.
func Run(ctx context.Context, o Options) (Totals, error) {
	r := &importer{Options: o, busy: map[string]bool{}, totals: o.Journal.Totals()}
	r.freed.L = &r.mu
	// Batches under way outlive the interruption for a while.
	sending, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(grace, stop)
		context.AfterFunc(sending, func() { timer.Stop() })
	})()
	abort, cancel := context.WithCancel(ctx)
	defer cancel()
	group, running := errgroup.WithContext(abort)
	batches, done := make(chan *batch), make(chan *batch, o.Concurrency)
	group.Go(func() error {
		defer close(batches)
		return r.read(running, batches)
	})
	var senders sync.WaitGroup
	for range o.Concurrency {
		senders.Add(1)
		group.Go(func() error {
			defer senders.Done()
			for b := range batches {
				err := r.send(running, sending, b)
				if err == nil {
					done <- b
				}
				r.release(b)
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	recorded := make(chan error, 1)
	go func() {
		var failed error
		for b := range done {
			if failed == nil {
				failed = r.record(b)
			}
			if failed != nil {
				cancel()
			}
		}
		recorded <- failed
	}()
	senders.Wait()
	close(done)
	recordErr, err := <-recorded, group.Wait()
	switch {
	case recordErr != nil:
		err = recordErr
	case err != nil && ctx.Err() != nil:
		err = ErrInterrupted
	}
	return r.totals, err
}

// end lets the reader stop waiting.
func (r *importer) end() {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.freed.Broadcast()
}

// read cuts the file into batches.
func (r *importer) read(ctx context.Context, batches chan<- *batch) error {
	defer context.AfterFunc(ctx, r.end)()
	skip := r.Journal.Done()
	b := &batch{}
	flush := func() error {
		if len(b.lines) == 0 {
			return nil
		}
		b.offset = r.Reader.Offset()
		if !r.claim(b) {
			return context.Cause(ctx)
		}
		select {
		case batches <- b:
		case <-ctx.Done():
			r.release(b)
			return ctx.Err()
		}
		b = &batch{}
		return nil
	}
	for {
		line, err := r.Reader.Next()
		if errors.Is(err, io.EOF) {
			return flush()
		}
		if err != nil {
			return errors.Join(err, flush())
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		gap, size := skip.Has(line.Index), line.size()
		if gap || len(b.lines) == r.Batch || b.size+size > batchBytes {
			if err := flush(); err != nil {
				return err
			}
		}
		if !gap {
			b.lines, b.size = append(b.lines, line), b.size+size
		}
	}
}

// claim waits until no name of a batch is under way; false when the import
// ends first.
func (r *importer) claim(b *batch) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	clash := func(l Line) bool { return r.busy[l.Thing.Name] }
	for !r.ended && slices.ContainsFunc(b.lines, clash) {
		r.freed.Wait()
	}
	if r.ended {
		return false
	}
	for _, l := range b.lines {
		if l.Err == nil {
			r.busy[l.Thing.Name] = true
		}
	}
	return true
}

// release gives the names back.
func (r *importer) release(b *batch) {
	r.mu.Lock()
	for _, l := range b.lines {
		delete(r.busy, l.Thing.Name)
	}
	r.mu.Unlock()
	r.freed.Broadcast()
}

// send carries out a batch until each line has its answer. Between two tries
// running may end it, a try is ended by sending alone.
func (r *importer) send(running, sending context.Context, b *batch) error {
	b.results = make([]apiclient.ImportResult, len(b.lines))
	open := make([]int, 0, len(b.lines))
	for i, l := range b.lines {
		if l.Err != nil {
			b.results[i] = apiclient.ImportResult{Result: apiclient.ImportError, Code: codeInvalidLine, Message: l.Err.Error()}
			continue
		}
		open = append(open, i)
	}
	since := r.Now()
	for try := 0; len(open) > 0; try++ {
		in := apiclient.Import{Mode: r.Mode, DryRun: r.DryRun, Things: make([]apiclient.ImportThing, len(open))}
		for n, i := range open {
			in.Things[n] = b.lines[i].Thing
		}
		out, err := r.try(sending, in)
		if err != nil && !passing(err) {
			return err //nolint:wrapcheck // the server's own words
		}
		if err == nil {
			for n, i := range open {
				b.results[i] = out.Results[n]
			}
			if open = again(b, open, try); len(open) == 0 {
				return nil
			}
			first := b.results[open[0]]
			err = fmt.Errorf("%s: %s", first.Code, first.Message)
		}
		if r.Now().Sub(since) > r.Patience {
			return fmt.Errorf("given up after %v: %w", r.Patience, err)
		}
		pause := min(lastPause, firstPause<<min(try, 10))
		if r.Retried != nil {
			r.Retried(err, pause)
		}
		if err := wait(running, pause/2+rand.N(pause/2)); err != nil { //nolint:gosec // spreads tries, guards no secret
			return err
		}
	}
	return nil
}

// try sends once. An answer that does not come is not waited for without end.
func (r *importer) try(ctx context.Context, in apiclient.Import) (apiclient.Imported, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	return r.Sender.ImportThings(ctx, in) //nolint:wrapcheck // the server's own words
}

// again returns the lines to send once more: those that the server could not
// decide on, and what follows them in lines of the same name.
func again(b *batch, sent []int, try int) []int {
	var lines []int
	names := map[string]bool{}
	for _, i := range sent {
		name := b.lines[i].Thing.Name
		if undecided(b.results[i].Code, try) || names[name] {
			names[name] = true
			lines = append(lines, i)
		}
	}
	return lines
}

// undecided tells whether a code is about the server and not about the line.
func undecided(code string, try int) bool {
	switch code {
	case "Throttling", "ServiceUnavailable":
		return true
	case "InternalFailure":
		return try+1 < internalTries
	}
	return false
}

// passing tells whether a call may succeed later.
func passing(err error) bool {
	refusal, ok := errors.AsType[*apiclient.Error](err)
	if !ok {
		return !errors.Is(err, context.Canceled)
	}
	return refusal.Status >= http.StatusInternalServerError || refusal.Status == http.StatusTooManyRequests
}

// wait sleeps unless ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// record reports and notes a finished batch. What failed is reported first: a
// journal that knows of it knows how long the report is.
func (r *importer) record(b *batch) error {
	span := Span{From: b.lines[0].Index, To: b.lines[len(b.lines)-1].Index, Report: r.Journal.ReportSize()}
	var failures []Failure
	for i, result := range b.results {
		switch result.Result {
		case apiclient.ImportCreated:
			span.Created++
		case apiclient.ImportUpdated:
			span.Updated++
		case apiclient.ImportUnchanged:
			span.Unchanged++
		default:
			span.Failed++
			failures = append(failures, Failure{Line: b.lines[i], Code: result.Code, Message: result.Message})
		}
	}
	if len(failures) > 0 {
		var err error
		if span.Report, err = r.Failed(failures); err != nil {
			return err
		}
	}
	if r.Journal != nil {
		if err := r.Journal.Record(span); err != nil {
			return err
		}
	}
	r.totals = r.totals.and(span.Totals)
	r.offset = max(r.offset, b.offset)
	r.Progress(r.totals, r.offset)
	return nil
}

// Package function invokes what an operator has put in the place of cloud
// functions: an executable on this machine or a web service. A function takes
// one JSON document and answers another. The package owns the table of
// functions by name, the time and the memory that an invocation may take, how
// many may run at once, and how a web service can tell that the caller is this
// server. It must not know what a document means.
//
// Its goroutines are those of invocations under way; they end with the
// invocation. A function may have maxRunning invocations running and
// maxWaiting waiting, so that one that hangs keeps nobody from another one; the
// next is refused. It emits no events.
package function

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// maxRunning is the number of invocations of one function at once, and
	// maxWaiting that of those that wait for a place.
	maxRunning = 32
	maxWaiting = 256
	// maxOutput bounds an answer in bytes.
	maxOutput = 256 << 10
)

// Reasons why there is no answer; test with errors.Is.
var (
	// ErrUnknown is a name that the operator gave to no function.
	ErrUnknown = errors.New("function is not configured")
	// ErrBusy is an invocation that found no place to wait.
	ErrBusy = errors.New("too many invocations of the function are waiting")
	// ErrTimeout is a function that did not answer in time.
	ErrTimeout = errors.New("function did not answer in time")
	// ErrFailed is a function that could not be reached, ended with an error or
	// answered too much.
	ErrFailed = errors.New("function failed")
)

// Definition is one function. Of Path and URL one is set.
type Definition struct {
	Name string
	// Path is the executable of a function on this machine, else empty.
	Path string
	// URL is the address of a web service, else empty.
	URL string
}

// Options are what a Set needs.
type Options struct {
	Definitions []Definition
	// Secret signs what web services get; required when there is one.
	Secret []byte
	Now    func() time.Time
	Logger *slog.Logger
	// Registerer may be nil.
	Registerer prometheus.Registerer
}

// Set holds the functions of an installation. It is safe for concurrent use.
type Set struct {
	functions map[string]*function
	now       func() time.Time
	log       *slog.Logger
	seconds   *prometheus.HistogramVec
	web       *webClient
}

// function is one of them with its places.
type function struct {
	name    string
	run     func(ctx context.Context, input []byte) ([]byte, error)
	places  chan struct{}
	waiting atomic.Int32
}

// New checks the definitions: executables must be there.
func New(o Options) (*Set, error) {
	s := &Set{
		functions: map[string]*function{}, now: o.Now, log: o.Logger,
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "muster_function_seconds", Help: "Duration of invocations of functions with the time that they waited.",
			Buckets: []float64{.005, .02, .1, .5, 1, 2, 5},
		}, []string{"function", "outcome"}),
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(s.seconds)
	}
	s.web = newWebClient(o.Secret, o.Now)
	for _, d := range o.Definitions {
		if s.functions[d.Name] != nil {
			return nil, fmt.Errorf("function %s is defined twice", d.Name)
		}
		f := &function{name: d.Name, places: make(chan struct{}, maxRunning)}
		switch {
		case d.Path != "":
			if err := checkExecutable(d.Path); err != nil {
				return nil, fmt.Errorf("function %s: %w", d.Name, err)
			}
			f.run = func(ctx context.Context, input []byte) ([]byte, error) { return s.runProcess(ctx, d, input) }
		case len(o.Secret) == 0:
			return nil, fmt.Errorf("function %s is a web service, and there is no secret to sign its requests with", d.Name)
		default:
			f.run = func(ctx context.Context, input []byte) ([]byte, error) { return s.web.post(ctx, d, input) }
		}
		s.functions[d.Name] = f
	}
	return s, nil
}

// Close gives up connections that are kept for the next invocation.
func (s *Set) Close() { s.web.close() }

// Has reports whether there is a function of that name.
func (s *Set) Has(name string) bool { return s.functions[name] != nil }

// Invoke gives a function its input and returns its answer, which nobody has
// looked at yet. It ends within the time limit, the wait for a place included,
// and leaves nothing running. The error is one of the reasons above.
func (s *Set) Invoke(ctx context.Context, name string, input []byte, limit time.Duration) ([]byte, error) {
	f := s.functions[name]
	if f == nil {
		return nil, fmt.Errorf("%s: %w", name, ErrUnknown)
	}
	begun := s.now()
	output, err := f.invoke(ctx, input, limit)
	outcome := outcomeOf(err)
	s.seconds.WithLabelValues(name, outcome).Observe(s.now().Sub(begun).Seconds())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return output, nil
}

// invoke waits for a place and runs.
func (f *function) invoke(ctx context.Context, input []byte, limit time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, ErrTimeout)
	defer cancel()
	if f.waiting.Add(1) > maxWaiting+maxRunning {
		f.waiting.Add(-1)
		return nil, ErrBusy
	}
	defer f.waiting.Add(-1)
	select {
	case f.places <- struct{}{}:
		defer func() { <-f.places }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	output, err := f.run(ctx, input)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return output, err
}

// outcomeOf is the label of a result.
func outcomeOf(err error) string {
	switch {
	case err == nil:
		return "answered"
	case errors.Is(err, ErrTimeout):
		return "timeout"
	case errors.Is(err, ErrBusy):
		return "busy"
	case errors.Is(err, context.Canceled):
		return "canceled"
	}
	return "failed"
}

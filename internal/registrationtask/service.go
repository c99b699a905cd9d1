package registrationtask

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/provisioning"
	"github.com/muster-iot/muster/internal/store"
)

// Registrar carries out a body for one device.
type Registrar interface {
	CheckBody(body string) error
	RegisterThing(ctx context.Context, account fleet.Account, c provisioning.RegisterCommand) (provisioning.Registered, error)
}

// Object is a file in a bucket.
type Object struct {
	io.ReadCloser

	Size int64
	// Version is another one when the content is.
	Version string
}

// Objects opens files in buckets. ErrNoObject is one that does not exist or that
// the account may not read.
type Objects interface {
	Open(ctx context.Context, account fleet.Account, bucket, key string) (Object, error)
}

// ErrNoObject is a bucket or key that does not exist.
var ErrNoObject = errors.New("no such object")

// Retention of AWS's quotas: how long a task may run, and how long it is kept
// after that.
const (
	maxAge       = 30 * 24 * time.Hour
	retentionAge = 30 * 24 * time.Hour
)

// Options of New; all are required unless said otherwise.
type Options struct {
	Store     store.Store
	Registrar Registrar
	Objects   Objects
	// Workers is how many lines of a task are registered at a time.
	Workers int
	// Tasks is how many tasks of an account may run at a time.
	Tasks int
	Now   func() time.Time
	// NewID returns a fresh UUID.
	NewID  func() string
	Logger *slog.Logger
	// Registerer is optional.
	Registerer prometheus.Registerer
}

// Service is the registration tasks of all accounts. It is safe for concurrent
// use.
type Service struct {
	o     Options
	lines *prometheus.CounterVec
	wake  chan struct{}

	mu sync.Mutex
	// running are the tasks that have a goroutine.
	running map[place]context.CancelCauseFunc
}

// place is where a task's record is.
type place struct {
	account fleet.Account
	id      string
}

// New returns a Service that works when Run does.
func New(o Options) *Service {
	s := &Service{
		o: o, wake: make(chan struct{}, 1), running: map[place]context.CancelCauseFunc{},
		lines: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muster_registration_task_lines_total",
			Help: "Lines of registration tasks that were carried out, by what became of them.",
		}, []string{"result"}),
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(s.lines)
	}
	return s
}

// rouse lets Run look at once.
func (s *Service) rouse() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

package sim

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muster-iot/muster/internal/apiclient"
)

const (
	// factoryAtOnce is how many devices of a factory do something at a time.
	factoryAtOnce = 16
	// inspectEvery is how many devices there are for one that people approve.
	inspectEvery = 100
	// factoryPatience bounds the wait for what the server does on its own.
	factoryPatience = 5 * time.Minute
)

// FactoryOptions of NewFactory.
type FactoryOptions struct {
	// API is an administrator's; As makes the client of somebody else's key.
	API *apiclient.Client
	As  func(accessKeyID, secret string) (*apiclient.Client, error)
	// Broker is HOST:PORT of MQTT over mutual TLS, CAFile holds its authorities.
	Broker, CAFile string
	// Run begins the names of what the run makes; it must not have been used before on
	// the server.
	Run string
	// Devices come from the factory; Rogues try to join among them.
	Devices, Rogues int
	// Progress is told how far a stage has come; nil for nobody.
	Progress func(stage string, done, total int)
	Logger   *slog.Logger
}

// check names the first option that cannot be.
func (o *FactoryOptions) check() error {
	switch {
	case o.API == nil || o.As == nil:
		return errors.New("no API client")
	case o.Run == "" || len(o.Run) > 16:
		return errors.New("run must have 1 to 16 characters")
	case o.Devices < 4 || o.Devices > maxDevices:
		return fmt.Errorf("devices must be 4 to %d", maxDevices)
	case o.Rogues < 0 || o.Rogues > o.Devices:
		return errors.New("rogues must be 0 to the number of devices")
	}
	return nil
}

// FactoryReport is what came of a run.
type FactoryReport struct {
	Run     string `json:"run"`
	Devices int    `json:"devices"`
	// Joined devices were provisioned, Approved ones of them by people; Active ones have
	// published with their own certificates.
	Joined   int `json:"joined"`
	Approved int `json:"approved"`
	Active   int `json:"active"`
	// Rogues tried to join; Refused were not let in, Raised are on record as rogues.
	Rogues  int `json:"rogues"`
	Refused int `json:"refused"`
	Raised  int `json:"raised"`
	// Quarantined are devices whose entry of the list a rogue has used as well: which of
	// the two is the right one nobody knows.
	Quarantined int `json:"quarantined"`
	// Complete ledgers have all of a device's way; Verified says that their chains hold.
	Complete int  `json:"completeLedgers"`
	Verified bool `json:"verified"`
	// Problems are what is not as it should be, at most twenty.
	Problems []string `json:"problems"`
	// Seconds is how long each stage took.
	Seconds map[string]float64 `json:"seconds"`
	// PlanDocument and DeviceDocument are what an auditor reads, Ledger is that of the
	// same device.
	PlanDocument   string                 `json:"-"`
	DeviceDocument string                 `json:"-"`
	Ledger         apiclient.DeviceLedger `json:"-"`
}

// Factory takes devices from a signed list to active service.
type Factory struct {
	o       FactoryOptions
	door    door
	claim   tls.Certificate
	people  people
	devices []*made
	rogues  []*rogue

	mu       sync.Mutex
	report   FactoryReport
	problems int
}

// made is a device of the factory.
type made struct {
	serial, model    string
	key, csr         []byte
	print            string
	listed           bool
	inspect, doubled bool
	// certificate is its own once it has joined.
	certificate tls.Certificate
	thing       string
}

// NewFactory checks the options.
func NewFactory(o FactoryOptions) (*Factory, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("simulate: %w", err)
	}
	door, err := newDoor(o.Broker, o.CAFile)
	if err != nil {
		return nil, err
	}
	return &Factory{o: o, door: door, report: FactoryReport{
		Run: o.Run, Devices: o.Devices, Rogues: o.Rogues, Problems: []string{}, Seconds: map[string]float64{},
	}}, nil
}

// name is one of the run's.
func (f *Factory) name(what string) string { return f.o.Run + "-" + what }

// Run goes the whole way and reports. An error is a stage that could not be gone; what a
// single device met is a problem in the report.
func (f *Factory) Run(ctx context.Context) (FactoryReport, error) {
	for _, stage := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"prepare", f.prepare},
		{"make", f.make},
		{"announce", f.announce},
		{"list", f.list},
		{"join", f.join},
		{"activate", f.activate},
		{"rogues", f.intrude},
		{"verify", f.verify},
		{"documents", f.documents},
	} {
		begun := time.Now()
		err := stage.run(ctx)
		f.report.Seconds[stage.name] = time.Since(begun).Seconds()
		if err != nil {
			return f.report, fmt.Errorf("%s: %w", stage.name, err)
		}
	}
	return f.report, f.people.leave(context.WithoutCancel(ctx), f.o.API)
}

// problem notes what is not as it should be.
func (f *Factory) problem(format string, args ...any) {
	const most = 20
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.problems++; len(f.report.Problems) < most {
		f.report.Problems = append(f.report.Problems, fmt.Sprintf(format, args...))
	}
}

// count adds to a number of the report.
func (f *Factory) count(number *int) {
	f.mu.Lock()
	*number++
	f.mu.Unlock()
}

// each does something for devices, several at a time. The error of one ends it only when
// the context does; it is a problem otherwise.
func each[T any](ctx context.Context, f *Factory, stage string, all []T, do func(context.Context, T) error) error {
	var done atomic.Int64
	tell := func(n int) {
		if f.o.Progress != nil {
			f.o.Progress(stage, n, len(all))
		}
	}
	tell(0)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(factoryAtOnce)
	for _, one := range all {
		g.Go(func() error {
			if err := do(ctx, one); err != nil {
				if ctx.Err() != nil {
					return context.Cause(ctx) //nolint:wrapcheck // the caller's
				}
				f.problem("%s: %v", stage, err)
			}
			tell(int(done.Add(1)))
			return nil
		})
	}
	return g.Wait() //nolint:wrapcheck // as above
}

// until asks until an answer is yes.
func until(ctx context.Context, what string, ready func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, factoryPatience, fmt.Errorf("%s: not in %v", what, factoryPatience))
	defer cancel()
	for {
		ok, err := ready(ctx)
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond): //nolint:mnd // often enough for people
		}
	}
}

// serial numbers the devices of a run.
func (f *Factory) serial(i int) string { return f.o.Run + "-" + fmt.Sprintf("%05d", i+1) }

// make is what happens at the line: each device makes its key.
func (f *Factory) make(ctx context.Context) error {
	f.devices = make([]*made, f.o.Devices)
	for i := range f.devices {
		f.devices[i] = &made{serial: f.serial(i), model: "P-" + strconv.Itoa(100*(1+i%2)), listed: i%2 == 0, inspect: i%inspectEvery == inspectEvery-1}
	}
	return each(ctx, f, "make", f.devices, func(_ context.Context, d *made) error {
		var err error
		d.key, d.csr, err = newRequest(d.serial)
		if err == nil {
			d.print, err = keyPrint(d.key)
		}
		return err
	})
}

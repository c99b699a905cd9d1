package sim

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Fleet is a set of simulated devices.
type Fleet struct {
	options Options
	claim   tls.Certificate
	certs   []tls.Certificate
	door    door
	stats   counters
	ramped  chan struct{}
	once    sync.Once
	// reported counts device errors that went into the log; the rest is
	// only counted, or an unreachable broker would flood the terminal.
	reported atomic.Int64
}

// counters are updated by all devices.
type counters struct {
	online, connects, publishes, desired, clean, dirty, errors atomic.Int64
	// first is the number of devices that have tried to connect.
	first atomic.Int64
}

// Stats is what a fleet has done so far.
type Stats struct {
	// Online is the number of connected devices.
	Online int64
	// Connects and Publishes count what the server accepted.
	Connects, Publishes int64
	// Desired counts the settings that devices obeyed.
	Desired int64
	// Clean and Dirty count how devices left of their own will.
	Clean, Dirty int64
	// Errors counts refused or broken connections and publishes.
	Errors int64
}

// New checks the options.
func New(o Options) (*Fleet, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("simulate: %w", err)
	}
	door, err := newDoor(o.Broker, o.CAFile)
	if err != nil {
		return nil, err
	}
	return &Fleet{options: o, door: door, ramped: make(chan struct{})}, nil
}

// Prepare makes what is missing: what devices share by REST, then the devices,
// which join by claim.
func (f *Fleet) Prepare(ctx context.Context) error {
	if err := prepareFleet(ctx, &f.options); err != nil {
		return err
	}
	var err error
	f.certs, err = f.prepareDevices(ctx)
	return err
}

// Ramped is closed when every device has tried to connect once.
func (f *Fleet) Ramped() <-chan struct{} { return f.ramped }

// Stats returns the counts of this moment.
func (f *Fleet) Stats() Stats {
	return Stats{
		Online: f.stats.online.Load(), Connects: f.stats.connects.Load(), Publishes: f.stats.publishes.Load(),
		Desired: f.stats.desired.Load(), Clean: f.stats.clean.Load(), Dirty: f.stats.dirty.Load(), Errors: f.stats.errors.Load(),
	}
}

// Run lets the prepared devices live until ctx ends; they then disconnect in
// good order.
func (f *Fleet) Run(ctx context.Context) error {
	if f.certs == nil {
		return errors.New("simulate: the fleet is not prepared")
	}
	f.options.progress("connect", 0, f.options.Devices)
	gap := time.Duration(float64(time.Second) / f.options.Rate)
	var wg sync.WaitGroup
	defer wg.Wait()
	ticker := time.NewTicker(max(gap, time.Microsecond))
	defer ticker.Stop()
	for i := range f.certs {
		d := f.device(i)
		wg.Go(func() { d.live(ctx) })
		if i == len(f.certs)-1 {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
	<-ctx.Done()
	return nil
}

// tried counts a device's first attempt.
func (f *Fleet) tried() {
	n := int(f.stats.first.Add(1))
	f.options.progress("connect", n, f.options.Devices)
	if n >= f.options.Devices {
		f.once.Do(func() { close(f.ramped) })
	}
}

// failed counts an error and logs the first few.
func (f *Fleet) failed(ctx context.Context, name, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	f.stats.errors.Add(1)
	const loud = 10
	if f.reported.Add(1) <= loud {
		f.options.Logger.LogAttrs(ctx, slog.LevelWarn, "device error",
			slog.String("thing", name), slog.String("during", what), slog.Any("err", err))
	}
}

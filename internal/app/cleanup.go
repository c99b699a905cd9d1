package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// cleanups is a last-in-first-out stack of named steps. It undoes a failed
// start and carries out an ordered stop.
type cleanups struct {
	log   *slog.Logger
	mu    sync.Mutex
	steps []cleanup
}

type cleanup struct {
	name string
	run  func(context.Context) error
}

// push adds the undoing of what was just done.
func (c *cleanups) push(name string, run func(context.Context) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.steps = append(c.steps, cleanup{name, run})
}

// run carries out all steps, newest first, each once, whatever fails.
func (c *cleanups) run(ctx context.Context) error {
	var failed error
	for {
		c.mu.Lock()
		if len(c.steps) == 0 {
			c.mu.Unlock()
			return failed
		}
		step := c.steps[len(c.steps)-1]
		c.steps = c.steps[:len(c.steps)-1]
		c.mu.Unlock()
		c.log.DebugContext(ctx, "stopping", slog.String("part", step.name))
		if err := step.run(ctx); err != nil {
			failed = errors.Join(failed, fmt.Errorf("stop %s: %w", step.name, err))
		}
	}
}

// part is a long-lived component.
type part struct {
	name string
	run  func(context.Context) error
}

// parts runs components until they are stopped together. The first one that
// ends by itself, with or without an error, is a fatal condition.
type parts struct {
	fatal   func(error)
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// start runs the components on a context that outlives ctx.
func (p *parts) start(ctx context.Context, all ...part) {
	ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	for _, one := range all {
		p.running.Go(func() {
			err := one.run(ctx)
			if ctx.Err() == nil {
				p.fatal(fmt.Errorf("%s ended: %w", one.name, errors.Join(err, errEnded)))
			}
		})
	}
}

// errEnded is a component that returned although nobody stopped it.
var errEnded = errors.New("component returned before it was stopped")

// stop ends all and waits for them.
func (p *parts) stop(context.Context) error {
	p.cancel()
	p.running.Wait()
	return nil
}

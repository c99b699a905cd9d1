//go:build bench

package bench_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/testkit"
)

const (
	// updateThings are the devices of the long run, updateSites where they are.
	updateThings, updateSites = 500, 50
	// updateGroups are a threshold at every twentieth of the battery for each
	// site: a device is in about ten of them, and one update in eight moves it.
	updateGroups, updateSteps = 1000, 20
	// stepSeconds is how long a rate is tried on the way to the highest.
	stepSeconds = 15
	// heldShare is how much of what is offered must be answered for a rate to be
	// held; how fast is for the reader of the table. pebbleP99 is the bar.
	heldShare = 0.98
	pebbleP99 = 25 * time.Millisecond
)

// fresh are the delays of a probe beside the load: from its publish to a search
// that finds it, and to the group that it enters.
type fresh struct{ searchable, entered delays }

// TestUpdates reports shadow updates that are synced, answered, indexed and put
// into 1,000 dynamic groups: at 10,000 a second, at the highest rate that is
// held, and what a search and a group see of it meanwhile.
func TestUpdates(t *testing.T) {
	minutes := environment(t, "MUSTER_BENCH_MINUTES", "5")[0]
	measured := time.Duration(minutes) * time.Minute
	if minutes == 0 {
		measured = stepSeconds * time.Second // for a look
	}
	for _, engine := range []struct {
		name  string
		rates []int
		bar   int
		p99   time.Duration
	}{
		{"pebble", environment(t, "MUSTER_BENCH_RATES", "10000"), 20_000, pebbleP99},
		{"PostgreSQL", environment(t, "MUSTER_BENCH_PG_RATES", "5000"), 5_000, 100 * time.Millisecond},
	} {
		t.Run(engine.name, func(t *testing.T) {
			flags := []string{"--log.level", "error"}
			if engine.name == "PostgreSQL" {
				flags = append(flags, "--store", testkit.StartPostgres(t).Database(t))
			}
			l := newLoadOf(t, updateThings, updateSites, updateGroups, func(i int) int { return (i%updateSteps + 1) * 100 / updateSteps }, flags...)
			defer l.server.Stop()
			p := newProbe(t, l)
			table(fmt.Sprintf("updates: %d devices, %d dynamic groups, QoS 1, %s, %d minutes each", updateThings, updateGroups, engine.name, minutes),
				"offered/s", "answered/s", "p50 / p99", "searchable p50 / p99", "in the group p50 / p99", "server CPU µs an update", "MB resident", "bar", "")
			for _, rate := range engine.rates {
				p.report(l, measured, rate, engine.bar, engine.p99)
			}
			highest := l.highest(t, slices.Max(engine.rates))
			p.report(l, measured, highest, engine.bar, engine.p99)
			if out, err := l.server.Muster(t.Context(), "doctor"); err != nil {
				t.Errorf("doctor: %v\n%s", err, out)
			}
		})
	}
}

// highest raises the rate by a tenth until it is not held, and returns the last
// that was.
func (l *load) highest(t *testing.T, from int) int {
	t.Helper()
	held := from
	for rate := from * 11 / 10; ; rate = rate * 11 / 10 {
		if f := l.run(stepSeconds*time.Second, rate); f.rate < heldShare*float64(rate) {
			return held
		}
		held = rate
	}
}

// probe is a device beside the load whose changes are watched.
type probe struct {
	t      *testing.T
	api    *apiclient.Client
	client *client
	n      int
}

func newProbe(t *testing.T, l *load) *probe {
	t.Helper()
	p := &probe{t: t, api: newAPI(t, l.server), client: dial(t, l.server.PlainMQTTAddr, "probe", nil)}
	t.Cleanup(func() { _ = p.client.conn.Close() }) // the measurement is over
	l.readers.Go(p.client.read)
	if _, err := p.api.CreateThing(t.Context(), "probe", "", nil); err != nil {
		t.Fatal(err)
	}
	if err := p.api.CreateDynamicGroup(t.Context(), "odd", "shadow.reported.odd:1", ""); err != nil {
		t.Fatal(err)
	}
	return p
}

// report runs the load with the probe beside it and prints a row.
func (p *probe) report(l *load, measured time.Duration, rate, barRate int, barP99 time.Duration) {
	var seen fresh
	ctx, cancel := context.WithCancel(p.t.Context())
	var probing sync.WaitGroup
	probing.Go(func() { p.watch(ctx, &seen) })
	f := l.run(measured, rate)
	cancel()
	probing.Wait()
	met := "met"
	if f.rate < heldShare*float64(min(rate, barRate)) || rate < barRate || f.p99 > barP99 {
		met = "**not met**"
	}
	row(strconv.Itoa(rate), number(f.rate, 0), both(f.p50, f.p99), seen.searchable.quantiles(), seen.entered.quantiles(),
		number(f.micros, 0), number(residentKB(p.t, l.server.PID())/1024, 0),
		fmt.Sprintf("≥%d, ≤%v", barRate, barP99), met)
}

// watch changes the probe again and again until ctx ends.
func (p *probe) watch(ctx context.Context, seen *fresh) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		p.n++
		odd := p.n % 2
		begun := time.Now()
		body := fmt.Sprintf(`{"state":{"reported":{"probe":%d,"odd":%d}}}`, p.n, odd)
		p.client.write(p.t, frame(0x30, append(text(nil, "$aws/things/probe/shadow/update"), body...)))
		searchable, ok := p.await(ctx, begun, func() (bool, error) {
			found, err := p.api.Search(ctx, fmt.Sprintf("shadow.reported.probe:%d", p.n), 1)
			return len(found) == 1, err
		})
		if !ok {
			return
		}
		entered, ok := p.await(ctx, begun, func() (bool, error) {
			members, err := p.api.GroupMembers(ctx, "odd", false, 0)
			return len(members) == odd, err
		})
		if !ok {
			return
		}
		seen.searchable, seen.entered = append(seen.searchable, searchable), append(seen.entered, entered)
	}
}

// await asks until the answer is yes; false means that ctx has ended.
func (p *probe) await(ctx context.Context, begun time.Time, ask func() (bool, error)) (time.Duration, bool) {
	for {
		yes, err := ask()
		switch {
		case ctx.Err() != nil:
			return 0, false
		case err != nil:
			p.t.Error(err)
			return 0, false
		case yes:
			return time.Since(begun), true
		}
	}
}

// both prints two times in milliseconds.
func both(p50, p99 time.Duration) string {
	return fmt.Sprintf("%.1f / %.1f ms", milliseconds(p50), milliseconds(p99))
}

// quantiles prints median and 99th percentile.
func (d delays) quantiles() string {
	if len(d) == 0 {
		return "–"
	}
	slices.Sort(d)
	return both(d[len(d)/2], d[len(d)*99/100])
}

//go:build bench

package bench_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/testkit"
)

const (
	// shadowThings is how many connections write, each to its own thing.
	shadowThings = 64
	// shadowWindow is how many updates of a thing may be unanswered.
	shadowWindow = 16
	// tokenDigits is the fixed length of a client token.
	tokenDigits = 10
	// sites divides the things among the dynamic groups.
	sites = 8
)

// newAPI signs with the root access key of the server's data folder.
func newAPI(t *testing.T, server *testkit.Server) *apiclient.Client {
	t.Helper()
	id, secret := server.Credentials()
	api, err := apiclient.New(apiclient.Options{
		Endpoint:    "http://" + server.HTTPAddr,
		Credentials: apiclient.Credentials{AccessKeyID: id, Secret: secret, Region: "us-east-1"}, Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.CloseIdle)
	return api
}

// each runs n calls, a few at a time, and fails the test on the first error.
func each(t *testing.T, n int, call func(ctx context.Context, i int) error) {
	t.Helper()
	const parallel = 16
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range parallel {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && failed.Load() == nil; i = next.Add(1) - 1 {
				if err := call(t.Context(), int(i)); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		t.Fatal(*err)
	}
}

func loadThing(i int) string { return fmt.Sprintf("load-%03d", i) }

// environment returns a list of numbers or a duration that a variable sets.
func environment(t *testing.T, name, standard string) []int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		text = standard
	}
	var out []int
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(part)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out = append(out, n)
	}
	return out
}

// writer is one connection that updates its own thing's shadow.
type writer struct {
	client *client
	tokens chan struct{}
	packet []byte
	// idAt, batteryAt and tokenAt are where the packet changes.
	idAt, batteryAt, tokenAt int
	random                   *rand.Rand
	battery                  int
	sequence                 uint64

	// mu guards what the reader shares with the writer.
	mu       sync.Mutex
	sent     [shadowWindow]time.Time
	counting bool
	times    []time.Duration
	refused  []byte
}

// newWriter builds the packet once: a QoS 1 update that reports the battery.
func newWriter(t *testing.T, addr, thing string, seed uint64) *writer {
	t.Helper()
	w := &writer{tokens: make(chan struct{}, shadowWindow), random: rand.New(rand.NewPCG(seed, 1)), battery: int(seed*37) % 100}
	for range shadowWindow {
		w.tokens <- struct{}{}
	}
	prefix := "$aws/things/" + thing + "/shadow/update"
	body := text(nil, prefix)
	body = append(body, 0, 1)
	body = append(body, `{"state":{"reported":{"battery":000,"firmware":"1.4.2"}},"clientToken":"0000000000"}`...)
	// JSON numbers have no leading zeros: blanks take their place.
	body = bytes.Replace(body, []byte(":000,"), []byte(":  0,"), 1)
	w.packet = frame(0x32, body)
	w.idAt = len(w.packet) - len(body) + 2 + len(prefix)
	w.batteryAt = bytes.Index(w.packet, []byte(`"battery":`)) + len(`"battery":`)
	w.tokenAt = bytes.Index(w.packet, []byte(`"clientToken":"`)) + len(`"clientToken":"`)
	w.client = dial(t, addr, thing, w.answered)
	w.client.subscribe(t, prefix+"/accepted", 1)
	w.client.subscribe(t, prefix+"/rejected", 1)
	return w
}

// answered runs in the reader for each answer.
func (w *writer) answered(payload []byte) {
	now := time.Now()
	at := bytes.LastIndex(payload, []byte(`"clientToken":"`))
	w.mu.Lock()
	defer w.mu.Unlock()
	if at < 0 || bytes.Contains(payload, []byte(`"code":`)) {
		w.refused = bytes.Clone(payload)
		return
	}
	at += len(`"clientToken":"`)
	n, err := strconv.ParseUint(string(payload[at:at+tokenDigits]), 10, 64)
	if err != nil {
		w.refused = bytes.Clone(payload)
		return
	}
	if w.counting {
		w.times = append(w.times, now.Sub(w.sent[n%shadowWindow]))
	}
	w.tokens <- struct{}{}
}

// send writes one update; the caller has taken a token.
func (w *writer) send() error {
	w.battery = min(max(w.battery+w.random.IntN(3)-1, 0), 100)
	copy(w.packet[w.batteryAt:], fmt.Sprintf("%3d", w.battery))
	copy(w.packet[w.tokenAt:], fmt.Sprintf("%0*d", tokenDigits, w.sequence))
	binary.BigEndian.PutUint16(w.packet[w.idAt:], uint16(w.sequence%60000)+1)
	w.mu.Lock()
	w.sent[w.sequence%shadowWindow] = time.Now()
	refused := w.refused
	w.mu.Unlock()
	w.sequence++
	if refused != nil {
		return fmt.Errorf("refused: %s", refused)
	}
	_, err := w.client.conn.Write(w.packet)
	return err
}

// run writes until ctx ends, and then waits for what is unanswered. A pause
// keeps to a rate; 0 is as fast as the window allows.
func (w *writer) run(ctx context.Context, pause time.Duration) error {
	var tick <-chan time.Time
	if pause > 0 {
		ticker := time.NewTicker(pause)
		defer ticker.Stop()
		tick = ticker.C
	}
	for {
		if tick != nil {
			select {
			case <-tick:
			case <-ctx.Done():
			}
		}
		select {
		case <-ctx.Done():
			return w.drain()
		case <-w.tokens:
		case <-time.After(30 * time.Second):
			return fmt.Errorf("no answer for 30 s to update %d", w.sequence)
		}
		if err := w.send(); err != nil {
			return err
		}
	}
}

// drain waits for the last answers.
func (w *writer) drain() error {
	for range shadowWindow {
		select {
		case <-w.tokens:
		case <-time.After(30 * time.Second):
			return fmt.Errorf("updates up to %d are unanswered", w.sequence)
		}
	}
	for range shadowWindow {
		w.tokens <- struct{}{}
	}
	return nil
}

// count starts or ends the measurement and returns the latencies so far.
func (w *writer) count(on bool) []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counting = on
	times := w.times
	w.times = nil
	return times
}

// load is a server with things, groups and a writer for each thing.
type load struct {
	t       *testing.T
	server  *testkit.Server
	writers []*writer
	readers sync.WaitGroup
}

// newLoad registers things and dynamic groups. A group is for one site and
// has a threshold of the battery, so that an update moves a thing in or out of
// about one group in a hundred of its site.
func newLoad(t *testing.T, groups int, flags ...string) *load {
	t.Helper()
	return newLoadOf(t, shadowThings, sites, groups, func(i int) int { return i%100 + 1 }, flags...)
}

// newLoadOf is newLoad for so many things at so many sites. The groups of a site
// are numbered; threshold gives the battery below which a thing is in one.
func newLoadOf(t *testing.T, things, sites, groups int, threshold func(i int) int, flags ...string) *load {
	t.Helper()
	l := &load{t: t, server: testkit.StartServer(t, append([]string{"--log.level", "warn", "--registry.max-dynamic-groups", "100000"}, flags...)...)}
	api := newAPI(t, l.server)
	each(t, things, func(ctx context.Context, i int) error {
		_, err := api.CreateThing(ctx, loadThing(i), "", map[string]string{"site": strconv.Itoa(i % sites)})
		return err
	})
	each(t, groups, func(ctx context.Context, i int) error {
		query := fmt.Sprintf("attributes.site:%d AND shadow.reported.battery<%d", i%sites, threshold(i/sites))
		return api.CreateDynamicGroup(ctx, fmt.Sprintf("group-%04d", i), query, "")
	})
	for i := range things {
		w := newWriter(t, l.server.PlainMQTTAddr, loadThing(i), uint64(i))
		l.writers = append(l.writers, w)
		l.readers.Go(w.client.read)
	}
	t.Cleanup(l.close)
	return l
}

func (l *load) close() {
	for _, w := range l.writers {
		_ = w.client.conn.Close() // it may be closed already
	}
	l.readers.Wait()
}

// figures are what one run shows.
type figures struct {
	rate, micros float64
	p50, p99     time.Duration
}

func (f figures) String() string {
	return fmt.Sprintf("%8.0f/s  p50 %6.1f ms  p99 %6.1f ms  %5.0f µs", f.rate, milliseconds(f.p50), milliseconds(f.p99), f.micros)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// run writes for two seconds unmeasured and then for the given time. With a
// rate, all writers together keep to it.
func (l *load) run(measured time.Duration, rate int) figures {
	l.t.Helper()
	var pause time.Duration
	if rate > 0 {
		pause = time.Second * time.Duration(len(l.writers)) / time.Duration(rate)
	}
	ctx, cancel := context.WithCancel(l.t.Context())
	defer cancel()
	var writing sync.WaitGroup
	for _, w := range l.writers {
		writing.Go(func() {
			if err := w.run(ctx, pause); err != nil {
				l.t.Error(err)
			}
		})
	}
	<-time.After(2 * time.Second)
	for _, w := range l.writers {
		w.count(true)
	}
	begun, cpu := time.Now(), cpuSeconds(l.t, l.server.PID())
	<-time.After(measured)
	var all []time.Duration
	for _, w := range l.writers {
		all = append(all, w.count(false)...)
	}
	took, used := time.Since(begun), cpuSeconds(l.t, l.server.PID())-cpu
	cancel()
	writing.Wait()
	if len(all) == 0 {
		l.t.Fatal("no update was answered")
	}
	slices.Sort(all)
	return figures{
		rate: float64(len(all)) / took.Seconds(), micros: used / float64(len(all)) * 1e6,
		p50: all[len(all)/2], p99: all[len(all)*99/100],
	}
}

// TestShadow reports synced and answered shadow updates over MQTT on both
// engines. The load generator takes its share of the same cores.
func TestShadow(t *testing.T) {
	seconds := time.Duration(environment(t, "MUSTER_BENCH_SECONDS", "10")[0]) * time.Second
	fmt.Printf("\nshadow updates: synced, answered; %d connections, each its own thing, %d outstanding each, QoS 1; server CPU per update\n", shadowThings, shadowWindow)
	for _, engine := range []string{"pebble", "PostgreSQL"} {
		t.Run(engine, func(t *testing.T) {
			var cluster *testkit.Postgres
			if engine == "PostgreSQL" {
				cluster = testkit.StartPostgres(t)
			}
			for _, groups := range environment(t, "MUSTER_BENCH_GROUPS", "0,100") {
				t.Run(fmt.Sprintf("groups=%d", groups), func(t *testing.T) {
					var flags []string
					if cluster != nil {
						flags = []string{"--store", cluster.Database(t)}
					}
					l := newLoad(t, groups, flags...)
					defer l.server.Stop()
					fmt.Printf("%-12s %4d dynamic groups   %v\n", engine, groups, l.run(seconds, 0))
					for _, rate := range environment(t, "MUSTER_BENCH_RATE", "5000") {
						fmt.Printf("%-12s %4d dynamic groups   %v   offered %d/s\n", engine, groups, l.run(seconds, rate), rate)
					}
				})
			}
		})
	}
}

// delays are times from one publish to what it brings about.
type delays []time.Duration

func (d delays) String() string {
	slices.Sort(d)
	return fmt.Sprintf("median %5.1f ms  worst of %d %5.1f ms", milliseconds(d[len(d)/2]), len(d), milliseconds(d[len(d)-1]))
}

// TestDelays reports how long a publish takes to be found by a search and to
// bring its thing into a dynamic group. Both are asked over the API as fast as
// it answers, so a figure includes one round trip or two.
func TestDelays(t *testing.T) {
	const times = 50
	l := newLoad(t, 99) // with the one below the account's hundred
	api := newAPI(t, l.server)
	if err := api.CreateDynamicGroup(t.Context(), "marked", "shadow.reported.mark:1", ""); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	probe := dial(t, l.server.PlainMQTTAddr, "probe", nil)
	t.Cleanup(func() { _ = probe.conn.Close() }) // the measurement is over
	l.readers.Go(probe.read)
	if _, err := api.CreateThing(ctx, "probe", "", nil); err != nil {
		t.Fatal(err)
	}
	publish := func(state string) {
		probe.write(t, frame(0x30, append(text(nil, "$aws/things/probe/shadow/update"), `{"state":{"reported":`+state+`}}`...)))
	}
	await := func(query func() (bool, error)) time.Duration {
		begun := time.Now()
		for {
			found, err := query()
			if err != nil {
				t.Fatal(err)
			}
			if found {
				return time.Since(begun)
			}
		}
	}
	search := func(i int) time.Duration {
		publish(fmt.Sprintf(`{"probe":%d}`, i))
		return await(func() (bool, error) {
			found, err := api.Search(ctx, fmt.Sprintf("shadow.reported.probe:%d", i), 1)
			return len(found) == 1, err
		})
	}
	mark := func(on bool) time.Duration {
		publish(map[bool]string{true: `{"mark":1}`, false: `{"mark":0}`}[on])
		return await(func() (bool, error) {
			members, err := api.GroupMembers(ctx, "marked", false, 0)
			return len(members) == 1 == on, err
		})
	}
	measure := func(title string) {
		var searchable, entered delays
		for i := range times {
			searchable = append(searchable, search(i+1))
			entered = append(entered, mark(true))
			mark(false)
		}
		publish(`{"probe":0}`)
		fmt.Printf("%-22s searchable: %v   in the group: %v\n", title, searchable, entered)
	}
	fmt.Printf("\ndelay from publish, 100 dynamic groups, pebble\n")
	measure("idle server")
	var loaded sync.WaitGroup
	working, done := context.WithCancel(ctx)
	for _, w := range l.writers {
		loaded.Go(func() {
			if err := w.run(working, time.Second*shadowThings/2000); err != nil {
				t.Error(err)
			}
		})
	}
	measure("2,000 other updates/s")
	done()
	loaded.Wait()
}

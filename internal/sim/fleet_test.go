package sim

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/sim/simtest"
)

// fixture is a fleet against a stand-in.
func fixture(t *testing.T, server *simtest.Server, change func(*Options)) *Fleet {
	t.Helper()
	credentials, err := apiclient.CredentialSources{DataDir: server.DataDir}.Load()
	if err != nil {
		t.Fatal(err)
	}
	api, err := apiclient.New(apiclient.Options{Endpoint: server.URL, Credentials: credentials, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(api.CloseIdle)
	o := Options{
		API: api, Broker: server.MQTT, CAFile: filepath.Join(server.DataDir, "ca.pem"), StateDir: t.TempDir(),
		Prefix: "pump", Devices: 6, Sites: 2, Seed: 1, Rate: 1000, Interval: time.Second,
		Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&o)
	}
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// run starts a prepared fleet; the returned function ends it.
func run(t *testing.T, f *Fleet) (end func()) {
	t.Helper()
	if err := f.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// poll waits until a condition holds.
func poll(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline.C:
			t.Fatalf("not in time: %s", what)
		case <-tick.C:
		}
	}
}

func TestFleetLivesAndLeaves(t *testing.T) {
	t.Parallel()
	server := simtest.Start(t)
	f := fixture(t, server, nil)
	end := run(t, f)
	defer end()
	<-f.Ramped()
	poll(t, "all devices report", func() bool {
		for i := range 6 {
			var r report
			if !server.Reported(t, deviceName("pump", i), &r) || r.Firmware == "" {
				return false
			}
		}
		return server.Online() == 6
	})
	server.Desire(t, "pump-00003", `{"led":"on"}`)
	poll(t, "the device obeys", func() bool {
		var r report
		return server.Reported(t, "pump-00003", &r) && r.LED == "on"
	})
	if !server.Kick("pump-00002") {
		t.Fatal("pump-00002 is not connected")
	}
	poll(t, "the device comes back", func() bool { return f.Stats().Connects >= 7 && server.Online() == 6 })
	end()
	poll(t, "all sessions end", func() bool { return server.Online() == 0 })
	s := f.Stats()
	if s.Online != 0 || s.Clean != 6 || s.Desired < 1 || s.Publishes < 6 || s.Errors != 1 {
		t.Errorf("got %+v, want 6 clean goodbyes and the kick as the only error", s)
	}
}

func TestSecondRunContinues(t *testing.T) {
	t.Parallel()
	server := simtest.Start(t)
	state := t.TempDir()
	keep := func(o *Options) { o.StateDir = state }
	end := run(t, fixture(t, server, keep))
	var first report
	poll(t, "the first report", func() bool { return server.Reported(t, "pump-00001", &first) })
	server.Desire(t, "pump-00001", `{"led":"blink","reportIntervalSeconds":3600}`)
	poll(t, "the device obeys", func() bool { return server.Reported(t, "pump-00001", &first) && first.LED == "blink" })
	end()
	if n, claims := server.Calls("provision"), server.Calls("POST certificates"); n != 6 || claims != 1 {
		t.Errorf("%d of 6 devices joined, with %d claims", n, claims)
	}

	second := fixture(t, server, func(o *Options) { keep(o); o.Seed = 99 })
	end = run(t, second)
	defer end()
	poll(t, "the device reports again", func() bool { return second.Stats().Publishes >= 6 })
	end()
	var r report
	server.Reported(t, "pump-00001", &r)
	if r.LED != "blink" || r.ReportIntervalSeconds != 3600 || r.Firmware != first.Firmware {
		t.Errorf("the second run reports %+v after %+v", r, first)
	}
	if n, claims := server.Calls("provision"), server.Calls("POST certificates"); n != 6 || claims != 1 {
		t.Errorf("the second run made devices or claims: %d, %d", n, claims)
	}

	server.Forget() // the state belongs to another installation now
	if err := fixture(t, server, keep).Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, claims := server.Calls("provision"), server.Calls("POST certificates"); n != 12 || claims != 2 {
		t.Errorf("%d devices joined after the server forgot them, want 12, with %d claims", n, claims)
	}
}

func TestDevicesDropOffAndReturn(t *testing.T) {
	t.Parallel()
	server := simtest.Start(t)
	f := fixture(t, server, func(o *Options) { o.Devices, o.Session = 40, 20*time.Millisecond })
	end := run(t, f)
	defer end()
	poll(t, "both kinds of goodbye", func() bool { s := f.Stats(); return s.Clean > 0 && s.Dirty > 0 })
}

func TestUnreachableBrokerEndsCleanly(t *testing.T) {
	t.Parallel()
	server := simtest.Start(t)
	f := fixture(t, server, nil)
	if err := f.Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.door.broker = "127.0.0.1:1"
	end := run(t, f)
	<-f.Ramped()
	poll(t, "errors are counted", func() bool { return f.Stats().Errors >= 6 })
	end()
	if s := f.Stats(); s.Online != 0 || s.Connects != 0 {
		t.Errorf("got %+v", s)
	}
}

func TestEnsureOperator(t *testing.T) {
	t.Parallel()
	server := simtest.Start(t)
	f := fixture(t, server, nil)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "operator.pem"), filepath.Join(dir, "operator.key")
	for range 2 {
		if err := EnsureOperator(t.Context(), f.options.API, certFile, keyFile); err != nil {
			t.Fatal(err)
		}
	}
	if n := server.Calls("POST certificates"); n != 1 {
		t.Errorf("%d certificates for one operator", n)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	good := Options{
		API: &apiclient.Client{}, Broker: "localhost:1", CAFile: "/none", StateDir: "x", Prefix: "p",
		Devices: 1, Sites: 1, Rate: 1, Interval: time.Second,
	}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Options){
		"no devices":     func(o *Options) { o.Devices = 0 },
		"too many":       func(o *Options) { o.Devices = maxDevices + 1 },
		"more sites":     func(o *Options) { o.Sites = 2 },
		"no rate":        func(o *Options) { o.Rate = 0 },
		"hasty":          func(o *Options) { o.Interval = time.Millisecond },
		"negative":       func(o *Options) { o.Session = -1 },
		"no prefix":      func(o *Options) { o.Prefix = "" },
		"no API":         func(o *Options) { o.API = nil },
		"no broker port": func(o *Options) { o.Broker = "localhost" },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

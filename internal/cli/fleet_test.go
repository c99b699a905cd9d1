package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/sim/simtest"
)

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

// background runs a command that goes on; end interrupts it.
func (r runner) background(t *testing.T, args ...string) (out, errs *buffer, end func() int) {
	t.Helper()
	out, errs = &buffer{}, &buffer{}
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() { code <- Execute(ctx, r.options(out, errs), args) }()
	return out, errs, func() int {
		cancel()
		return <-code
	}
}

// simulator's flags for a small, quick fleet.
func small(server *simtest.Server, args ...string) []string {
	return append(args, "--devices", "4", "--sites", "2", "--rate", "1000", "--interval", "1s", "--session", "0",
		"--data-dir", server.DataDir)
}

func TestSimAndMessages(t *testing.T) {
	t.Parallel()
	server := simtest.Start(t)
	r := runner{env: map[string]string{"MUSTER_ENDPOINT_URL": server.URL}}
	out, errs, end := r.background(t, small(server, "sim", "--mqtt-endpoint", server.MQTT)...)
	poll(t, "the fleet is online", func() bool { return strings.Contains(out.String(), "4 of 4 devices are online") })

	// A device's own certificate serves for looking at its messages.
	devices := filepath.Join(server.DataDir, "demo", "devices")
	mqtt := []string{
		"--mqtt-endpoint", server.MQTT, "--ca", filepath.Join(server.DataDir, "ca.pem"),
		"--cert", filepath.Join(devices, "pump-00001.pem"), "--key", filepath.Join(devices, "pump-00001.key"),
	}
	seen, seenErrs, endSub := r.background(t, append([]string{"sub", "plant/#"}, mqtt...)...)
	poll(t, "the message is shown", func() bool {
		server.Publish(t, "plant/a", "\x1b[31mhello")
		return strings.Contains(seen.String(), ` plant/a \x1b[31mhello`)
	})
	if code := endSub(); code != 0 {
		t.Errorf("sub ended with %d: %s", code, seenErrs.String())
	}

	counted, _, endCount := r.background(t, append([]string{"sub", "plant/#", "--count", "2", "-o", "json"}, mqtt...)...)
	poll(t, "two messages are shown", func() bool {
		got := r.run(t.Context(), append([]string{"pub", "plant/b", `{"x":1}`}, mqtt...)...)
		if got.code != 0 {
			t.Fatalf("pub: %+v", got)
		}
		return strings.Count(counted.String(), `"topic":"plant/b","qos":0,"payload":{"x":1}`) == 2
	})
	if code := endCount(); code != 0 {
		t.Errorf("sub --count ended with %d", code)
	}

	if got := r.run(t.Context(), append([]string{"sub", simtest.Forbidden}, mqtt...)...); got.code != 1 || !strings.Contains(got.err, "policy") {
		t.Errorf("a refused subscription: %+v", got)
	}
	if got := r.run(t.Context(), append([]string{"pub", simtest.Forbidden, "x"}, mqtt...)...); got.code != 1 || !strings.Contains(got.err, "policy") {
		t.Errorf("a refused publish: %+v", got)
	}

	if code := end(); code != 0 {
		t.Errorf("sim ended with %d: %s", code, errs.String())
	}
	if !strings.Contains(out.String(), "4 clean and 0 dirty disconnects, 0 errors") {
		t.Errorf("no summary in %q", out.String())
	}
	if !strings.Contains(errs.String(), "provision 4 of 4\n") {
		t.Errorf("no progress in %q", errs.String())
	}
}

// demoRunner pretends to start a server: the stand-in runs already.
func demoRunner(server *simtest.Server, fail <-chan error, stopped chan<- struct{}) runner {
	return runner{serve: func(ctx context.Context, run ServeRun) error {
		defer close(stopped)
		_, err := run.LogTo.Write([]byte("server log\n"))
		run.Ready(Addresses{HTTP: strings.TrimPrefix(server.URL, "http://"), MQTT: server.MQTT})
		select {
		case <-ctx.Done():
			return err
		case err := <-fail:
			return err
		}
	}}
}

func TestDemo(t *testing.T) {
	t.Parallel()
	server := simtest.Start(t)
	for range 2 { // the second run continues
		stopped := make(chan struct{})
		r := demoRunner(server, nil, stopped)
		out, errs, end := r.background(t, small(server, "demo")...)
		poll(t, "the guide is shown: "+errs.String(), func() bool { return strings.Contains(out.String(), "ctrl-C") })
		for _, want := range []string{
			"4 of 4 devices are online", filepath.Join(server.DataDir, "credentials"),
			" search --data-dir " + server.DataDir + " --endpoint-url " + server.URL + " 'shadow.reported.battery<30",
			" groups members --data-dir " + server.DataDir, " shadow get --data-dir ", `--desired '{"led":"on","reportIntervalSeconds":2}'`,
			" sub --data-dir " + server.DataDir + " --mqtt-endpoint " + server.MQTT + " '$aws/things/+/shadow/update/accepted'",
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %q in\n%s", want, out.String())
			}
		}
		// The printed subscription works: it needs the operator's certificate.
		seen, _, endSub := runner{}.background(t, "sub", "--data-dir", server.DataDir, "--mqtt-endpoint", server.MQTT, "$aws/things/+/shadow/update")
		poll(t, "an update is seen", func() bool { return strings.Contains(seen.String(), "/shadow/update {") })
		if code := endSub(); code != 0 {
			t.Errorf("sub ended with %d", code)
		}
		if code := end(); code != 0 {
			t.Errorf("demo ended with %d: %s", code, errs.String())
		}
		<-stopped
		if !strings.Contains(out.String(), "4 clean and 0 dirty") {
			t.Errorf("the server was stopped before the fleet: %s", out.String())
		}
		log, err := os.ReadFile(filepath.Join(server.DataDir, "demo", "server.log"))
		if err != nil || string(log) != "server log\n" {
			t.Errorf("log %q, %v", log, err)
		}
	}
	if joined, n := server.Calls("provision"), server.Calls("POST certificates"); joined != 4 || n != 2 {
		t.Errorf("%d of 4 devices joined in two runs, and there are %d certificates of a claim and an operator", joined, n)
	}
}

func TestDemoEndsWithItsServer(t *testing.T) {
	t.Parallel()
	server := simtest.Start(t)
	fail, stopped := make(chan error, 1), make(chan struct{})
	out, errs, end := demoRunner(server, fail, stopped).background(t, small(server, "demo")...)
	poll(t, "the guide is shown", func() bool { return strings.Contains(out.String(), "ctrl-C") })
	fail <- errors.New("disk is gone")
	<-stopped
	poll(t, "the demo says why", func() bool { return strings.Contains(errs.String(), "the server ended: disk is gone") })
	if code := end(); code != 1 {
		t.Errorf("ended with %d", code)
	}
}

func TestDemoServerDoesNotStart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	r := runner{serve: func(context.Context, ServeRun) error { return errors.New("port is taken") }}
	got := r.run(t.Context(), "demo", "--data-dir", dir)
	if got.code != 1 || !strings.Contains(got.err, "port is taken") || !strings.Contains(got.err, "server.log") {
		t.Errorf("got %+v", got)
	}
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "letter.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := r.run(t.Context(), "demo", "--data-dir", foreign); got.code != 1 || !strings.Contains(got.err, "not a Muster data folder") {
		t.Errorf("got %+v", got)
	}
	if got := r.run(t.Context(), "demo", "--data-dir", dir, "--http-addr", ""); got.code != 1 || !strings.Contains(got.err, "needs http-addr") {
		t.Errorf("got %+v", got)
	}
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/config"
	"github.com/muster-iot/muster/internal/datadir"
	"github.com/muster-iot/muster/internal/sim"
)

// demo runs server and fleet in one process.
func (c *command) demo() *cobra.Command {
	cmd := &cobra.Command{
		Use: "demo", Short: "Run a server and a simulated fleet, and show what to try", Args: cobra.NoArgs,
		Long: `Start a server on the data folder, let a simulated fleet join by claim and
connect over mutual TLS, and print commands worth typing. Ctrl-C ends both; the
next run continues with the same data.

All settings of muster serve apply. The server's log is in
<data-dir>/demo/server.log.`,
		Example: `  muster demo
  muster demo --data-dir /tmp/look --devices 500`,
	}
	src := c.settings(cmd)
	f := c.simFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := load(src)
		if err != nil {
			return err
		}
		if s.HTTPAddr == "" || s.MQTTAddr == "" {
			return errors.New("the demo needs http-addr and mqtt-addr")
		}
		return c.runDemo(cmd.Context(), s, src, f)
	}
	return cmd
}

// demoRun is one demo under way.
type demoRun struct {
	c        *command
	settings config.Settings
	dir      *demoDir
	addrs    Addresses
}

// demoDir holds the demo's own files.
type demoDir struct {
	path string
	log  *os.File
}

// openDemoDir makes the folder. The data folder is opened for a moment first,
// so that the demo does not put files where no server will start.
func openDemoDir(dataDir string) (*demoDir, error) {
	d, err := datadir.Open(dataDir)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what is in the way
	}
	path, err := d.Sub(datadir.DemoDir)
	if err = errors.Join(err, d.Close()); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(path, "server.log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, datadir.PrivateMode)
	if err != nil {
		return nil, fmt.Errorf("open the server's log: %w", err)
	}
	return &demoDir{path: path, log: log}, nil
}

// runDemo starts the server, then the fleet, and ends them in reverse order.
func (c *command) runDemo(ctx context.Context, s config.Settings, src config.Sources, f *simFlags) error {
	dir, err := openDemoDir(s.DataDir)
	if err != nil {
		return err
	}
	defer dir.log.Close() //nolint:errcheck // a log that is cut short is no reason to fail
	// The server outlives the interrupt: the fleet says goodbye to it first.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ready := make(chan Addresses, 1)
	served := make(chan error, 1)
	run := c.run(s, src)
	run.LogTo = dir.log
	run.Ready = func(a Addresses) { ready <- a }
	go func() { served <- c.Serve(serving, run) }()

	d := &demoRun{c: c, settings: s, dir: dir}
	select {
	case d.addrs = <-ready:
	case err := <-served:
		return serverEnded(err, dir)
	case <-ctx.Done():
		stop()
		return <-served
	}
	// The server's end ends the fleet, for nothing would be left to see.
	living, end := context.WithCancelCause(ctx)
	defer end(nil)
	failed := make(chan error, 1)
	go func() {
		err := <-served
		end(err)
		failed <- err
	}()
	err = d.live(living, f)
	if ctx.Err() == nil && living.Err() != nil {
		return errors.Join(err, serverEnded(<-failed, dir))
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil // interrupted while the fleet registered
	}
	stop()
	return errors.Join(err, <-failed)
}

// serverEnded explains a server that ended by itself.
func serverEnded(err error, dir *demoDir) error {
	if err == nil {
		err = errors.New("it ended without an error")
	}
	return fmt.Errorf("the server ended: %w\nits log is %s", err, dir.log.Name())
}

// live registers and runs the fleet until ctx ends.
func (d *demoRun) live(ctx context.Context, f *simFlags) error {
	dataDir := d.settings.DataDir
	credentials, err := apiclient.CredentialSources{File: filepath.Join(dataDir, datadir.CredentialsFile), Region: d.settings.Region, Profile: "default"}.Load()
	if err != nil {
		return err //nolint:wrapcheck // it names the file
	}
	api, err := apiclient.New(apiclient.Options{Endpoint: "http://" + dialable(d.addrs.HTTP), Credentials: credentials, Now: d.c.Now})
	if err != nil {
		return err //nolint:wrapcheck // it names the option
	}
	defer api.CloseIdle()
	bars := &progress{out: d.c.Err, terminal: d.c.Terminal}
	options := d.c.simOptions(f, api, bars)
	options.Broker, options.CAFile, options.StateDir = dialable(d.addrs.MQTT), filepath.Join(dataDir, datadir.CAFile), d.dir.path
	return d.c.simulate(ctx, options, bars, func(stats sim.Stats) error {
		err := sim.EnsureOperator(ctx, api, filepath.Join(d.dir.path, operatorCert), filepath.Join(d.dir.path, operatorKey))
		if err != nil {
			return fmt.Errorf("make the operator's certificate: %w", err)
		}
		return d.guide(stats, f)
	})
}

// guide prints where everything is and what to try.
func (d *demoRun) guide(stats sim.Stats, f *simFlags) error {
	var b strings.Builder
	url := "http://" + dialable(d.addrs.HTTP)
	fmt.Fprintf(&b, "\nMuster is running with a simulated fleet: %d of %d devices are online.\n\n", stats.Online, f.devices)
	fmt.Fprintf(&b, "  API          %s\n", url)
	fmt.Fprintf(&b, "  MQTT         %s  (mutual TLS, trust %s)\n", dialable(d.addrs.MQTT), filepath.Join(d.settings.DataDir, datadir.CAFile))
	fmt.Fprintf(&b, "  credentials  %s\n", filepath.Join(d.settings.DataDir, datadir.CredentialsFile))
	fmt.Fprintf(&b, "  server log   %s\n\nTry in another terminal:\n\n", d.dir.log.Name())
	d.commands(&b, url, f)
	b.WriteString("\nPress ctrl-C to end server and fleet.\n")
	_, err := io.WriteString(d.c.Out, b.String())
	return err //nolint:wrapcheck // standard output says it all
}

// commands prints five things worth seeing, and the same with the AWS CLI
// where there is one.
func (d *demoRun) commands(b *strings.Builder, url string, f *simFlags) {
	muster, rest, mqtt := d.invocation(url)
	device := f.prefix + "-00001"
	for _, line := range []string{
		muster + " search" + rest + " 'shadow.reported.battery<30 AND connectivity.connected:true'",
		muster + " groups members" + rest + " low-battery",
		muster + " shadow get" + rest + " " + device,
		muster + " shadow update" + rest + " " + device + ` --desired '{"led":"on","reportIntervalSeconds":2}'`,
		muster + " sub" + mqtt + " '$aws/things/+/shadow/update/accepted'",
	} {
		fmt.Fprintf(b, "  %s\n", line)
	}
	if _, err := exec.LookPath("aws"); err != nil {
		return
	}
	aws := "AWS_SHARED_CREDENTIALS_FILE=" + quote(filepath.Join(d.settings.DataDir, datadir.CredentialsFile)) + " aws --endpoint-url " + url
	b.WriteString("\nThe same with the AWS CLI:\n\n")
	for _, line := range []string{
		"iot search-index --query-string 'shadow.reported.battery<30 AND connectivity.connected:true'",
		"iot list-things-in-thing-group --thing-group-name low-battery",
		"iot-data get-thing-shadow --thing-name " + device + " /dev/stdout",
	} {
		fmt.Fprintf(b, "  %s %s\n", aws, line)
	}
}

// invocation returns how to call this program and the flags that its REST and
// MQTT commands need because settings differ from the defaults.
func (d *demoRun) invocation(url string) (program, rest, mqtt string) {
	program = os.Args[0]
	if filepath.Base(program) == program {
		program = "muster"
	}
	shared := ""
	if filepath.Clean(d.settings.DataDir) != filepath.Clean(config.Default().DataDir) {
		shared = " --data-dir " + quote(d.settings.DataDir)
	}
	rest, mqtt = shared, shared
	if url != apiclient.DefaultEndpoint {
		rest += " --endpoint-url " + url
	}
	if broker := dialable(d.addrs.MQTT); broker != "localhost:8883" {
		mqtt += " --mqtt-endpoint " + broker
	}
	return program, rest, mqtt
}

// quote protects a path with unusual characters from a shell.
func quote(path string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+@", r)
	}
	if path != "" && strings.IndexFunc(path, func(r rune) bool { return !plain(r) }) < 0 {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

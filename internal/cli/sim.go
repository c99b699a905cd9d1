package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/datadir"
	"github.com/muster-iot/muster/internal/sim"
)

// simFlags are the properties of a simulated fleet.
type simFlags struct {
	devices, sites    int
	seed              uint64
	rate              float64
	interval, session time.Duration
	prefix            string
}

// simFlags registers them.
func (*command) simFlags(cmd *cobra.Command) *simFlags {
	f := &simFlags{}
	flags := cmd.Flags()
	flags.IntVar(&f.devices, "devices", 200, "number of devices")
	flags.IntVar(&f.sites, "sites", 8, "number of sites, a group each")
	flags.Uint64Var(&f.seed, "seed", 1, "equal seeds give equal fleets")
	flags.Float64Var(&f.rate, "rate", 50, "devices that connect per second at the start")
	flags.DurationVar(&f.interval, "interval", 10*time.Second, "how often a device reports")
	flags.DurationVar(&f.session, "session", 5*time.Minute, "how long a device stays connected on average; 0 for ever")
	flags.StringVar(&f.prefix, "prefix", "pump", "beginning of device names")
	return f
}

// simOptions joins flags with the surroundings.
func (c *command) simOptions(f *simFlags, api *apiclient.Client, bars *progress) sim.Options {
	return sim.Options{
		API: api, Devices: f.devices, Sites: f.sites, Seed: f.seed, Rate: f.rate,
		Interval: f.interval, Session: f.session, Prefix: f.prefix, Progress: bars.update,
		Logger: slog.New(slog.NewTextHandler(c.Err, nil)),
	}
}

// sim runs simulated devices against any server.
func (c *command) sim() *cobra.Command {
	cmd := &cobra.Command{
		Use: "sim", Short: "Run a fleet of simulated devices against a server", Args: cobra.NoArgs,
		Long: `Let devices join by claim, with certificates of their own, and live over mutual
TLS until interrupted: they report, drain and charge batteries, obey what their
shadows desire, drop off with and without a word, and come back.

Keys and certificates are kept in --state-dir; the next run continues with the
same devices.

With --factory devices go the whole way once instead: a supplier signs the list of
what it has made, somebody else accepts it, devices join with the claim that all have,
a person approves one in a hundred, and each reports with its own certificate. Rogues
try to join among them: with invented and copied serial numbers, as stolen devices,
and with the serial number of a device that has joined. The report says what came of
all of them and whether the ledgers tell it; anything that is not as it should be ends
the command with an error.`,
		Example: `  muster sim
  muster sim --devices 1000 --sites 20 --rate 100 --seed 7
  muster sim --factory --devices 10000 --rogues 50 --out documents
  muster sim --endpoint-url https://iot.example.com:8443 --mqtt-endpoint iot.example.com:8883 --ca ca.pem --credentials creds`,
	}
	t := c.target(cmd)
	f := c.simFlags(cmd)
	factory := c.factoryFlags(cmd)
	broker := cmd.Flags().String("mqtt-endpoint", "localhost:8883", "HOST:PORT of MQTT over mutual TLS")
	state := cmd.Flags().String("state-dir", "", "folder for the devices' keys (default <data-dir>/demo, or ./muster-sim without a data folder)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		api, err := t.client()
		if err != nil {
			return err
		}
		defer api.CloseIdle()
		bars := &progress{out: c.Err, terminal: c.Terminal}
		options := c.simOptions(f, api, bars)
		options.Broker, options.CAFile, options.StateDir = *broker, t.caFile(), *state
		if options.CAFile == "" {
			return errors.New("name the authorities of the server with --ca")
		}
		if factory.on {
			return c.factory(cmd.Context(), t, factory, api, f.devices, *broker, bars)
		}
		if options.StateDir == "" {
			options.StateDir = stateDir(t.dataDir)
		}
		return c.simulate(cmd.Context(), options, bars, nil)
	}
	return cmd
}

// stateDir keeps devices beside the server they belong to, and never starts
// a data folder of its own.
func stateDir(dataDir string) string {
	if _, err := datadir.Inspect(dataDir); err == nil {
		return filepath.Join(dataDir, datadir.DemoDir)
	}
	return "muster-sim"
}

// simulate prepares and runs a fleet until ctx ends and prints what it did.
// ready is called once when every device has tried to connect.
func (c *command) simulate(ctx context.Context, o sim.Options, bars *progress, ready func(sim.Stats) error) error {
	if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
		return fmt.Errorf("make state folder: %w", err)
	}
	fleet, err := sim.New(o)
	if err != nil {
		return err //nolint:wrapcheck // it names the option
	}
	if err := fleet.Prepare(ctx); err != nil {
		bars.end()
		return err //nolint:wrapcheck // it says what was being registered
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- fleet.Run(ctx) }()
	select {
	case <-fleet.Ramped():
		bars.end()
		if ready != nil {
			err = ready(fleet.Stats())
		} else {
			_, err = fmt.Fprintf(c.Out, "%d of %d devices are online; press ctrl-C to end\n", fleet.Stats().Online, o.Devices)
		}
	case err = <-ended:
		ended <- nil
	}
	if err != nil {
		cancel()
	}
	err = errors.Join(err, <-ended)
	bars.end()
	return errors.Join(err, c.summary(fleet.Stats()))
}

// summary tells what a fleet did.
func (c *command) summary(s sim.Stats) error {
	_, err := fmt.Fprintf(c.Out, "\nfleet: %d connects, %d publishes, %d settings obeyed, %d clean and %d dirty disconnects, %d errors\n",
		s.Connects, s.Publishes, s.Desired, s.Clean, s.Dirty, s.Errors)
	return err //nolint:wrapcheck // standard output says it all
}

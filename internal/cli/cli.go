// Package cli is the muster command: the server, tools for operators, the
// simulator and the demo. Operators' commands speak the public interfaces
// only, signed REST and MQTT over mutual TLS; none of them opens the data
// folder of a running server for more than credentials and certificates. The
// package decides how things are asked for and shown, and nothing else. Its
// goroutines live as long as the command that started them.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/config"
)

// Version is the running version; the build sets it.
var Version = "dev" //nolint:gochecknoglobals // the linker can set nothing else

// Options are what the process lends to the commands.
type Options struct {
	Out, Err io.Writer
	// In is standard input when it is nil.
	In io.Reader
	// LookupEnv is os.LookupEnv outside tests.
	LookupEnv func(string) (string, bool)
	// Terminal says that Err is watched by a person: progress is drawn.
	Terminal bool
	// Serve runs a server; without it there are no `serve` and `demo`.
	Serve ServeFunc
	// ResetKey replaces the root access key of a server that does not run and
	// returns the path of the credentials file; without it there is no `key reset`.
	ResetKey func(ctx context.Context, s config.Settings) (path, profile string, err error)
	// Hangup delivers a value each time settings should be read anew.
	Hangup <-chan os.Signal
	// Hurry is closed when a stop should not wait for devices any longer.
	Hurry <-chan struct{}
	// Extra are commands composed elsewhere.
	Extra []*cobra.Command
	// Now is the clock.
	Now func() time.Time
}

// ServeFunc runs a server until ctx ends.
type ServeFunc func(ctx context.Context, run ServeRun) error

// ServeRun is one run of a server.
type ServeRun struct {
	Settings config.Settings
	// Reload reads the settings again from where they came.
	Reload func() (config.Settings, error)
	// Hangup asks for a reload; nil for never.
	Hangup <-chan os.Signal
	// Hurry is closed when a stop should not wait for devices any longer.
	Hurry <-chan struct{}
	// LogTo receives the log.
	LogTo io.Writer
	// Ready is called once when the server takes requests.
	Ready func(Addresses)
	// Version is what the server says that it is.
	Version string
}

// Addresses are where a server listens, as HOST:PORT with real ports; empty
// for listeners that are off.
type Addresses struct{ HTTP, MQTT, TLS string }

// command bundles what every command needs.
type command struct{ Options }

// New builds the command tree.
func New(o Options) *cobra.Command {
	c := &command{Options: o}
	root := &cobra.Command{
		Use:   "muster",
		Short: "Operate a fleet of IoT devices on your own hardware",
		Long: `Muster speaks AWS IoT's interfaces from one binary: devices, tools and
knowledge move over unchanged.

  muster demo        a server and a simulated fleet, to look around
  muster serve       a server

The other commands ask a running server, by default the one on this machine
whose data folder is ./muster-data.`,
		Example: `  muster demo
  muster search 'shadow.reported.battery<20 AND connectivity.connected:true'
  muster shadow get pump-00001`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       Version,
	}
	root.SetVersionTemplate("muster {{.Version}}\n")
	root.SetOut(o.Out)
	root.SetErr(o.Err)
	root.SetIn(o.In)
	root.AddGroup(&cobra.Group{ID: groupServer, Title: "Server:"}, &cobra.Group{ID: groupOperate, Title: "Operate:"}, &cobra.Group{ID: groupOperators, Title: "Operators:"})
	if o.Serve != nil {
		c.add(root, groupServer, c.serve(), c.demo())
	}
	c.add(root, groupServer, c.checkConfig(), c.sim(), c.version())
	c.add(root, groupOperate, c.things(), c.bulkEdits(), c.types(), c.groups(), c.billingGroups(), c.search(), c.stats(), c.describe(), c.index(), c.shadow(), c.subscribe(), c.publish(), c.explain(), c.connections())
	c.add(root, groupOperate, c.connectivity())
	c.add(root, groupOperate, c.certificates(), c.ca(), c.approvals(), c.suppliers(), c.allowLists(), c.quarantine(), c.bootstrap())
	c.add(root, groupOperate, c.templates(), c.claim(), c.bulk(), c.plans(), c.onboardings(), c.ledgers(), c.drifts())
	c.add(root, groupOperate, c.policy())
	c.add(root, groupOperate, c.imports(), c.exports())
	c.add(root, groupServer, c.drain())
	c.add(root, groupOperators, c.user(), c.userGroup(), c.role(), c.accessPolicies(), c.key(), c.signIn())
	c.add(root, groupServer, c.account())
	c.add(root, groupOperate, c.audit())
	root.AddCommand(o.Extra...)
	return root
}

// Groups of commands in help.
const (
	groupServer  = "server"
	groupOperate = "operate"
	// groupOperators are about people and their permissions.
	groupOperators = "operators"
)

// add puts commands into a group of help.
func (c *command) add(root *cobra.Command, group string, commands ...*cobra.Command) {
	for _, each := range commands {
		each.GroupID = group
		root.AddCommand(each)
	}
}

// Execute runs the command line and returns the process's exit code.
func Execute(ctx context.Context, o Options, args []string) int {
	root := New(o) //nolint:contextcheck // cobra hands the context to the command that runs
	explainMistakes(root)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil || errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return 0
	}
	_, _ = fmt.Fprintln(o.Err, "muster:", err)
	return 1
}

// version prints the version.
func (c *command) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Example: "  muster version",
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(c.Out, "muster", Version)
			return err //nolint:wrapcheck // standard output says it all
		},
	}
}

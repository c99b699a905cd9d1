package cli

import (
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/config"
	"github.com/muster-iot/muster/internal/pki"
)

// settings registers the server's flags on a command and returns how to load
// its settings.
func (c *command) settings(cmd *cobra.Command) config.Sources {
	config.AddFlags(cmd.Flags())
	return config.Sources{Flags: cmd.Flags(), LookupEnv: c.LookupEnv}
}

// load reads settings and the files that they name, as start-up does.
func load(src config.Sources) (config.Settings, error) {
	s, err := src.Load()
	if err != nil {
		return s, err //nolint:wrapcheck // it lists the problems
	}
	if s.TLSCert != "" {
		if _, err := pki.LoadOwn(s.TLSCert, s.TLSKey); err != nil {
			return s, err //nolint:wrapcheck // it names the settings
		}
	}
	return s, nil
}

// serve runs the server.
func (c *command) serve() *cobra.Command {
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the server", Args: cobra.NoArgs,
		Long: `Run the server until it is interrupted.

The first start makes the data folder with the authorities and keys, the root
access key in <data-dir>/credentials, and <data-dir>/ca.pem, which devices must
trust. The server is ready when GET /readyz answers 200.

Every setting has one name: the flag --mqtt.profile, the variable
MUSTER_MQTT_PROFILE and the key mqtt.profile in muster.yaml. A flag wins over a
variable, and a variable over the file. SIGHUP reads log.level, tls-cert and
tls-key anew.`,
		Example: `  muster serve
  muster serve --data-dir /var/lib/muster --endpoint iot.example.com
  muster serve --store-file /etc/muster/database-url`,
	}
	src := c.settings(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := load(src)
		if err != nil {
			return err
		}
		return c.Serve(cmd.Context(), c.run(s, src))
	}
	return cmd
}

// run describes a run of the server on the terminal.
func (c *command) run(s config.Settings, src config.Sources) ServeRun {
	return ServeRun{
		Settings: s, Reload: func() (config.Settings, error) { return load(src) },
		Hangup: c.Hangup, Hurry: c.Hurry, LogTo: c.Err, Ready: func(Addresses) {}, Version: Version,
	}
}

// checkConfig validates settings without starting anything.
func (c *command) checkConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check-config", Short: "Check the settings as `serve` would", Args: cobra.NoArgs,
		Long: "Load the settings from flags, variables and file exactly as `muster serve` does,\nand report everything that is wrong with them at once.",
		Example: `  muster check-config --config /etc/muster/muster.yaml
  MUSTER_HTTP_ADDR=0.0.0.0:8080 muster check-config`,
	}
	src := c.settings(cmd)
	describe := cmd.Flags().Bool("describe", false, "list all settings instead")
	out := c.outputFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		if *describe {
			return c.describeSettings(out)
		}
		s, err := load(src)
		if err != nil {
			return err
		}
		from := ""
		if file := src.File(); file != "" {
			from = ", settings file " + file
		}
		_, err = fmt.Fprintf(c.Out, "settings are valid: store %s, data folder %s%s\n", s.StoreEngine(), s.DataDir, from)
		return err //nolint:wrapcheck // standard output says it all
	}
	return cmd
}

// describeSettings prints the table of settings.
func (c *command) describeSettings(format *string) error {
	all := config.Describe()
	t := table{header: []string{"SETTING", "VARIABLE", "DEFAULT", "RELOADABLE", "MEANING"}, raw: all}
	for _, s := range all {
		reload := ""
		if s.Reloadable {
			reload = "yes"
		}
		t.add(s.Path, s.Env, s.Default, reload, s.Usage)
	}
	return c.print(*format, t)
}

// dialable turns a listening address into one to connect to from here.
func dialable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "localhost"
	}
	return net.JoinHostPort(strings.TrimSpace(host), port)
}

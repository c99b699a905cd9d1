package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/config"
	"github.com/muster-iot/muster/internal/datadir"
)

// endpointEnv names the server for all client commands.
const endpointEnv = "MUSTER_ENDPOINT_URL"

// target is which server a command asks and as whom.
type target struct {
	c                                                   *command
	endpoint, credentials, profile, region, dataDir, ca string
	// conns is how many connections are used at once; 0 is for a few.
	conns int
}

// target registers the flags that say which server is meant.
func (c *command) target(cmd *cobra.Command) *target {
	t := &target{c: c}
	flags := cmd.Flags()
	flags.StringVar(&t.endpoint, "endpoint-url", "", "server to ask (default $"+endpointEnv+" or "+apiclient.DefaultEndpoint+")")
	flags.StringVar(&t.credentials, "credentials", "", "credentials file (default AWS_* variables, then <data-dir>/credentials)")
	flags.StringVar(&t.profile, "profile", "", "profile of the credentials file")
	flags.StringVar(&t.region, "region", "", "region to sign for")
	flags.StringVar(&t.dataDir, "data-dir", c.defaultDataDir(), "data folder of a server on this machine")
	flags.StringVar(&t.ca, "ca", "", "authorities to trust (default <data-dir>/ca.pem)")
	return t
}

// defaultDataDir follows the server's own variable.
func (c *command) defaultDataDir() string {
	if dir := c.env("MUSTER_DATA_DIR"); dir != "" {
		return dir
	}
	return config.Default().DataDir
}

// env returns a variable, "" when it is not set.
func (c *command) env(name string) string {
	if c.LookupEnv == nil {
		return ""
	}
	value, _ := c.LookupEnv(name)
	return value
}

// client connects nothing yet; it finds credentials and endpoint.
func (t *target) client() (*apiclient.Client, error) {
	credentials, err := apiclient.CredentialSources{
		File: t.credentials, Profile: t.profile, DataDir: t.dataDir, Region: t.region, LookupEnv: t.c.LookupEnv,
	}.Load()
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what to do
	}
	return t.clientAs(credentials)
}

// clientAs is client for somebody whose credentials are known, or for nobody.
func (t *target) clientAs(credentials apiclient.Credentials) (*apiclient.Client, error) {
	endpoint := t.address()
	options := apiclient.Options{Endpoint: endpoint, Credentials: credentials, MaxConns: t.conns, Now: t.c.Now}
	if strings.HasPrefix(endpoint, "https://") {
		options.CAFile = t.caFile()
	}
	api, err := apiclient.New(options)
	if err != nil {
		return nil, err //nolint:wrapcheck // it names the option
	}
	return api, nil
}

// address is the server's URL.
func (t *target) address() string {
	return cmp.Or(t.endpoint, t.c.env(endpointEnv), apiclient.DefaultEndpoint)
}

// caFile is the file of authorities: named, or the data folder's, or none.
func (t *target) caFile() string {
	if t.ca != "" {
		return t.ca
	}
	path := filepath.Join(t.dataDir, datadir.CAFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return path
}

// Call adds a command that asks a server: New for commands composed outside
// this package, such as doctor.
func Call(o Options, cmd *cobra.Command, do func(cmd *cobra.Command, api *apiclient.Client, args []string) error) *cobra.Command {
	t := (&command{Options: o}).target(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		api, err := t.client()
		if err != nil {
			return err
		}
		defer api.CloseIdle()
		return do(cmd, api, args)
	}
	return cmd
}

// answer adds a command whose answer is a table.
func (c *command) answer(cmd *cobra.Command, do func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error)) *cobra.Command {
	format := c.outputFlag(cmd)
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		t, err := do(cmd, api, args)
		if err != nil {
			return err
		}
		return c.print(*format, t)
	})
}

// sortedKeys lists a map's keys in order.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// parsePairs reads name=value arguments.
func parsePairs(args []string) (map[string]string, error) {
	out := make(map[string]string, len(args))
	for _, arg := range args {
		name, value, ok := strings.Cut(arg, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%q is not name=value", arg)
		}
		out[name] = value
	}
	return out, nil
}

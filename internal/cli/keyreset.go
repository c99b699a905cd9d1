package cli

import (
	"github.com/spf13/cobra"
)

// keyReset replaces a lost root access key on the host.
func (c *command) keyReset() *cobra.Command {
	cmd := &cobra.Command{
		Use: "reset", Short: "Replace a lost root access key, on the host with the server stopped", Args: cobra.NoArgs,
		Long: `Make a new root access key and write it to <data-dir>/credentials. The old one is
void. The server must not run: it holds the data folder. With a database, no
other node may run either; one that does takes the old key until it hears of
the change. The account is that of the setting account-id. With --account-id of
another account than the server's own, its key is written as the profile
account-<id>.`,
		Example: `  systemctl stop muster
  muster key reset --data-dir /var/lib/muster
  systemctl start muster`,
	}
	src := c.settings(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := load(src)
		if err != nil {
			return err
		}
		path, profile, err := c.ResetKey(cmd.Context(), s)
		if err != nil {
			return err //nolint:wrapcheck // it says what is in the way
		}
		return c.said("the root access key is new, the old one is void; wrote profile %s of %s", profile, path)
	}
	return cmd
}

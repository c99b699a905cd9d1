package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/bulk"
)

// exports is the family of commands that take a fleet out.
func (c *command) exports() *cobra.Command {
	cmd := &cobra.Command{Use: "export", Short: "Write a fleet to files"}
	cmd.AddCommand(c.exportThings())
	return cmd
}

// exportThings writes the things of the registry.
func (c *command) exportThings() *cobra.Command {
	cmd := &cobra.Command{
		Use: "things FILE", Short: "Write all things to an NDJSON file that can be imported", Args: cobra.ExactArgs(1),
		Long: `Writes all things in order of name, each with its type, attributes, billing group
and static groups, as an NDJSON file that "muster import things" takes; - is
standard output. Things that are changed meanwhile are there as they were or as
they are. The file must not exist; one that could not be written to its end is
removed.`,
		Example: `  muster export things fleet.ndjson
  muster export things - | gzip > fleet.ndjson.gz`,
	}
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		if args[0] == standardInput {
			_, err := writeThings(cmd, api, c.Out)
			return err
		}
		file, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("open the file: %w", err)
		}
		n, err := writeThings(cmd, api, file)
		if err == nil {
			err = file.Sync()
		}
		if err = errors.Join(err, file.Close()); err != nil {
			return errors.Join(err, os.Remove(args[0]))
		}
		_, err = fmt.Fprintf(c.Out, "exported %d things\n", n)
		return err //nolint:wrapcheck // standard output says it all
	})
}

// writeThings writes all things and counts them.
func writeThings(cmd *cobra.Command, api *apiclient.Client, to io.Writer) (n int, err error) {
	w := bufio.NewWriter(to)
	err = api.ExportThings(cmd.Context(), func(t apiclient.ImportThing) error {
		n++
		return bulk.WriteThing(w, t)
	})
	if err == nil {
		err = w.Flush()
	}
	return n, err //nolint:wrapcheck // the server's own words, or what was written
}

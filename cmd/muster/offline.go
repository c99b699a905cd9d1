package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"filippo.io/age"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/muster-iot/muster/internal/adminapi"
	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/app"
	"github.com/muster-iot/muster/internal/cli"
	"github.com/muster-iot/muster/internal/config"
	"github.com/muster-iot/muster/internal/store"
)

// signingName is what calls to /ops/v1 are signed for.
const signingName = "iot"

// offlineCommands care for the data itself: backup and doctor ask a running
// server, restore and db open the store of one that does not run.
func offlineCommands(o cli.Options) []*cobra.Command {
	return []*cobra.Command{backupCommand(o), restoreCommand(o), doctorCommand(o), databaseCommand(o)}
}

func backupCommand(o cli.Options) *cobra.Command {
	cmd := &cobra.Command{
		Use: "backup", Short: "Write an encrypted backup of a running server", Args: cobra.NoArgs,
		Long: `Write keys, credentials and the whole store of a running server to a file,
encrypted to an age public key. Only the holder of the private key can read it:
keep that key elsewhere. --new-identity makes a key pair, writes the private key
to the file it names and encrypts to the public key.`,
		Example: `  muster backup --to muster.backup --new-identity backup-key.txt
  muster backup --to muster.backup --recipient age1...`,
	}
	to := cmd.Flags().String("to", "", "file to write; it must not exist")
	recipient := cmd.Flags().String("recipient", "", "age public key to encrypt to")
	identity := cmd.Flags().String("new-identity", "", "make a key pair and write the private key to this file")
	return cli.Call(o, cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) error {
		if *to == "" || (*recipient == "") == (*identity == "") {
			return errors.New("give --to and exactly one of --recipient and --new-identity")
		}
		if *identity != "" {
			made, err := newIdentity(*identity)
			if err != nil {
				return err
			}
			*recipient = made
		}
		return writeBackup(cmd, api, *to, *recipient)
	})
}

// newIdentity writes a private key and returns the public one.
func newIdentity(path string) (recipient string, err error) {
	made, err := age.GenerateX25519Identity()
	if err != nil {
		return "", fmt.Errorf("make an age key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", fmt.Errorf("write the private key: %w", err)
	}
	_, err = fmt.Fprintf(f, "# public key: %s\n%s\n", made.Recipient(), made)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", fmt.Errorf("write the private key: %w", err)
	}
	return made.Recipient().String(), nil
}

func writeBackup(cmd *cobra.Command, api *apiclient.Client, path, recipient string) error {
	body, err := json.Marshal(map[string]string{"recipient": recipient})
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	stream, err := api.Stream(cmd.Context(), apiclient.Request{Service: signingName, Method: http.MethodPost, Path: adminapi.Prefix + "backup", Body: body})
	if err != nil {
		return err
	}
	defer stream.Close() //nolint:errcheck // reading it to the end tells of errors
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	n, err := io.Copy(f, stream)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		// Half a backup must not pass for one.
		return fmt.Errorf("the backup broke off: %w", errors.Join(err, os.Remove(path)))
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "wrote %s, %d bytes, encrypted to %s\n", path, n, recipient)
	return err
}

func restoreCommand(o cli.Options) *cobra.Command {
	cmd := &cobra.Command{
		Use: "restore", Short: "Fill an empty data folder and store from a backup", Args: cobra.NoArgs,
		Long: `Restore a backup into a data folder that does not exist yet, or is empty, and
into the store that the settings name, which must be empty: the embedded one or
a PostgreSQL database. A backup of either restores into either.`,
		Example: `  muster restore --from muster.backup --identity backup-key.txt --data-dir /var/lib/muster
  muster restore --from muster.backup --identity backup-key.txt --store-file /etc/muster/database-url`,
	}
	config.AddFlags(cmd.Flags())
	from := cmd.Flags().String("from", "", "backup to read")
	identity := cmd.Flags().String("identity", "", "file with the age private key")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *from == "" || *identity == "" {
			return errors.New("give --from and --identity")
		}
		settings, err := (config.Sources{Flags: cmd.Flags(), LookupEnv: o.LookupEnv}).Load()
		if err != nil {
			return err
		}
		keys, err := os.Open(*identity)
		if err != nil {
			return fmt.Errorf("read the private key: %w", err)
		}
		defer keys.Close() //nolint:errcheck // it was only read
		identities, err := age.ParseIdentities(keys)
		if err != nil {
			return fmt.Errorf("%s does not hold an age private key", *identity)
		}
		archive, err := os.Open(*from)
		if err != nil {
			return fmt.Errorf("read the backup: %w", err)
		}
		defer archive.Close() //nolint:errcheck // it was only read
		m, err := app.Restore(cmd.Context(), settings, archive, identities)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "restored the backup of %s, written by version %s, into %s\n",
			m.Created.Format("2006-01-02 15:04:05 UTC"), m.Version, settings.DataDir)
		return err
	}
	return cmd
}

// errFindings makes doctor's exit code speak.
var errFindings = errors.New("doctor found differences")

func doctorCommand(o cli.Options) *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor", Short: "Compare store, event log and projections of a running server, and repair those", Args: cobra.NoArgs,
		Long: `Look at everything that a running server keeps twice, and compare: the event log
with itself, rows of the registry with its records, the fleet index with one
built anew from the store, members of dynamic groups with what the index
decides, the histories of connections and memberships with what there is now,
and the audit trail with its chain of hashes. Nothing is changed. Notes name the
provisioning templates that no authority is bound to decide about; they are no
differences.

With --repair it shows what differs, asks, and has the server make what can be
made from its sources again: rows, index, memberships, open ends of histories.
Sources are never changed. Then it looks again and says what was repaired and
what remains.

The exit code is 0 when nothing differs, or no longer, and 1 when something does,
when the question is not answered with yes, or when the server cannot be asked.`,
		Example: `  muster doctor
  muster doctor --repair
  muster doctor --repair --yes`,
	}
	repair := cmd.Flags().Bool("repair", false, "repair what can be made from its sources again")
	yes := cmd.Flags().Bool("yes", false, "repair without a question")
	return cli.Call(o, cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) error {
		if *yes && !*repair {
			return errors.New("--yes goes with --repair")
		}
		var report adminapi.Report
		if err := api.JSON(cmd.Context(), apiclient.Request{Service: signingName, Method: http.MethodGet, Path: adminapi.Prefix + "doctor"}, nil, &report); err != nil {
			return err
		}
		err := printReport(cmd.OutOrStdout(), report)
		if !*repair || !errors.Is(err, errFindings) {
			return err
		}
		if !slices.ContainsFunc(report.Findings, func(f adminapi.Finding) bool { return f.Repairable }) {
			return fmt.Errorf("%w; none of them can be repaired", err)
		}
		if !*yes {
			if asked := askToRepair(cmd); asked != nil {
				return fmt.Errorf("%w; %w", err, asked)
			}
		}
		var done adminapi.Repaired
		if err := api.JSON(cmd.Context(), apiclient.Request{Service: signingName, Method: http.MethodPost, Path: adminapi.Prefix + "doctor/repair"}, nil, &done); err != nil {
			return err
		}
		if err := printRepaired(cmd.OutOrStdout(), done); err != nil {
			return err
		}
		return printReport(cmd.OutOrStdout(), done.Remaining)
	})
}

// askToRepair asks on a terminal; nil is yes.
func askToRepair(cmd *cobra.Command) error {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return errors.New("nobody can be asked: give --yes to repair")
	}
	if _, err := io.WriteString(cmd.ErrOrStderr(), "Repair what can be repaired? [y/N] "); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return errors.New("nothing was repaired")
	}
	return nil
}

func printRepaired(out io.Writer, done adminapi.Repaired) error {
	var text strings.Builder
	for _, check := range slices.Sorted(maps.Keys(done.Repaired)) {
		fmt.Fprintf(&text, "repaired %d of %s\n", done.Repaired[check], check)
	}
	if len(done.Repaired) == 0 {
		text.WriteString("nothing was repaired\n")
	}
	if _, err := io.WriteString(out, text.String()); err != nil {
		return fmt.Errorf("print what was repaired: %w", err)
	}
	return nil
}

func printReport(out io.Writer, report adminapi.Report) error {
	var text strings.Builder
	for _, check := range slices.Sorted(maps.Keys(report.Checked)) {
		fmt.Fprintf(&text, "%-20s %d checked\n", check, report.Checked[check])
	}
	for _, f := range report.Findings {
		fmt.Fprintf(&text, "%s: %s: %s", f.Check, f.Subject, f.Detail)
		if f.Repairable {
			text.WriteString(" (can be repaired)")
		}
		text.WriteString("\n")
	}
	if len(report.Findings) == 0 {
		text.WriteString("no differences\n")
	}
	for _, n := range report.Notices {
		fmt.Fprintf(&text, "note: %s: %s\n", n.Subject, n.Detail)
	}
	if _, err := io.WriteString(out, text.String()); err != nil {
		return fmt.Errorf("print report: %w", err)
	}
	if len(report.Findings) > 0 {
		return fmt.Errorf("%w: %d", errFindings, len(report.Findings))
	}
	return nil
}

func databaseCommand(o cli.Options) *cobra.Command {
	parent := &cobra.Command{Use: "db", Short: "Look into the store of a server that does not run"}
	get := &cobra.Command{
		Use: "get [KEY-PART...]", Short: "Print records by the beginning of their key",
		Long: `Print every record whose key begins with the given parts, one a line: key,
version, value. Stop the server first: the data folder is locked while it runs.`,
		Example: `  muster db get thing 000000000000 pump-7
  muster db get connection`,
	}
	config.AddFlags(get.Flags())
	get.RunE = func(cmd *cobra.Command, parts []string) error {
		settings, err := (config.Sources{Flags: cmd.Flags(), LookupEnv: o.LookupEnv}).Load()
		if err != nil {
			return err
		}
		return printRecords(cmd.Context(), settings, parts, cmd.OutOrStdout())
	}
	parent.AddCommand(get)
	return parent
}

func printRecords(ctx context.Context, settings config.Settings, parts []string, out io.Writer) error {
	return app.ReadRecords(ctx, settings, parts, func(r store.Record) error {
		value := string(r.Value)
		if !utf8.ValidString(value) || strings.ContainsFunc(value, func(c rune) bool { return c < ' ' }) {
			value = fmt.Sprintf("%q", r.Value)
		}
		_, err := fmt.Fprintf(out, "%s\t%d\t%s\n", r.Key, r.Version, value)
		return err
	})
}

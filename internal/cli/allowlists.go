package cli

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/listsign"
)

// allowLists is the family of commands on what suppliers have made.
func (c *command) allowLists() *cobra.Command {
	cmd := &cobra.Command{
		Use: "allowlist", Short: "Take signed lists of devices from suppliers, vet them, and see who is on them",
		Long: `An allow list says which devices a supplier has made; each entry lets one device
join. A list has revisions. An upload is one, kept bit for bit and sealed, and nothing
is matched against it before a second person has accepted it: who uploads a revision
can neither accept nor read it.

At the supplier's, no server is asked:

  muster supplier keygen line-1
  muster allowlist sign --key line-1.key --kid line-1 --encrypt-to age1… pumps.json

Here, with two people:

  muster allowlist upload --supplier acme pumps.json.jws.age     # the first
  muster allowlist diff pumps 1 2                                # the second
  muster allowlist accept pumps 2 --note "delivery note 4711"

Lists count for a template that is bound to them:

  muster approvals authority lists --allow-list
  muster approvals bind pumps --authority lists`,
		Example: `  muster allowlist list
  muster allowlist check B7-00412
  muster allowlist link pumps --supplier acme --valid-for 48h`,
	}
	cmd.AddCommand(c.allowListSign(), c.allowListUpload(), c.allowListList(), c.allowListShow(), c.allowListRevisions(), c.allowListDiff(),
		c.allowListVet("accept", "Match devices against a revision, in place of the one before",
			"The note is for the record. Who has uploaded the revision cannot accept it.", "delivery note 4711"),
		c.allowListVet("reject", "Refuse a revision that waits", "A note must say why.", "200 devices more than ordered"),
		c.allowListOriginal(), c.allowListCheck(),
		c.allowListEntry("block", "BLOCKED", "Let a device that is on a list not join",
			`The entry stays blocked in later revisions of its list, and in other lists of its
supplier. A device that has joined stays; decommission it, or revoke its certificate.`, "stolen from the truck"),
		c.allowListEntry("release", "UNUSED", "Let an entry be used again, or no longer be blocked",
			`For a device that was erased or got a new board and joins anew. Who has joined with
the entry before is forgotten.`, "board replaced, case 311"),
		c.allowListDelete(), c.allowListKeep(), c.allowListLink(), c.allowListLinks(), c.allowListRevokeLink(), c.allowListIdentity(), c.allowListRecipient())
	return cmd
}

// allowListsTable shows lists.
func allowListsTable(found []apiclient.AllowList, raw any) table {
	t := table{header: []string{"LIST", "SUPPLIER", "NAME", "CURRENT", "LAST", "CHANGED", "DELETION"}, raw: raw}
	for i := range found {
		e := &found[i]
		current, deletion := "none", ""
		if e.Current > 0 {
			current = strconv.FormatInt(e.Current, 10)
		}
		switch {
		case e.Deleted != "":
			deletion = "deleted " + e.Deleted + " by " + e.DeletionAskedBy + " and " + e.DeletedBy
		case e.DeletionAskedBy != "":
			deletion = "asked by " + e.DeletionAskedBy
		}
		t.add(e.ID, e.Supplier, e.Name, current, strconv.FormatInt(e.Last, 10), e.Changed, deletion)
	}
	return t
}

// listRevisionsTable shows revisions.
func listRevisionsTable(found []apiclient.AllowListRevision, raw any) table {
	t := table{header: []string{"LIST", "REVISION", "STATUS", "FORMAT", "ENTRIES", "SIGNED BY", "UPLOADED", "BY", "VETTED BY", "NOTE"}, raw: raw}
	for i := range found {
		e := &found[i]
		by := e.UploadedBy
		if e.Link != "" {
			by = "link of " + by
		}
		t.add(e.List, strconv.FormatInt(e.Number, 10), e.Status, e.Format, strconv.Itoa(e.Entries), cmp.Or(e.SignerKey, "nobody"), e.UploadedAt, by, e.VettedBy, e.Note)
	}
	return t
}

func (c *command) allowListList() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Short: "List allow lists, also deleted ones", Args: cobra.NoArgs,
		Example: "  muster allowlist list -o csv",
	}
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		found, err := api.AllowLists(cmd.Context(), *limit)
		return allowListsTable(found, found), err
	})
}

func (c *command) allowListShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show LIST [REVISION]", Short: "Show how a list or one revision stands, nothing of its content", Args: cobra.RangeArgs(1, 2),
		Example: `  muster allowlist show pumps
  muster allowlist show pumps 2 -o json`,
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		if len(args) == 1 {
			found, err := api.AllowList(cmd.Context(), args[0])
			return allowListsTable([]apiclient.AllowList{found}, found), err
		}
		number, err := revisionArgument(args[1])
		if err != nil {
			return table{}, err
		}
		r, err := api.AllowListRevision(cmd.Context(), args[0], number)
		t := table{header: []string{"FIELD", "VALUE"}, raw: r}
		for _, row := range [][2]string{
			{"list", r.List},
			{"revision", strconv.FormatInt(r.Number, 10)},
			{"status", r.Status},
			{"format", r.Format},
			{"entries", strconv.Itoa(r.Entries)},
			{"bytes", strconv.Itoa(r.Bytes)},
			{"sha256", r.SHA256},
			{"signed by", r.SignerKey},
			{"issued", r.Issued},
			{"uploaded", r.UploadedAt},
			{"uploaded by", r.UploadedBy},
			{"link", r.Link},
			{"vetted", r.VettedAt},
			{"vetted by", r.VettedBy},
			{"note", r.Note},
		} {
			t.add(row[0], row[1])
		}
		return t, err //nolint:wrapcheck // the server's own words
	})
}

// revisionArgument reads the number of a revision.
func revisionArgument(text string) (int64, error) {
	const base, bits = 10, 64
	n, err := strconv.ParseInt(text, base, bits)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%q is no number of a revision; they count from 1", text)
	}
	return n, nil
}

func (c *command) allowListRevisions() *cobra.Command {
	cmd := &cobra.Command{
		Use: "revisions LIST", Short: "List the revisions of a list, the first ones first", Args: cobra.ExactArgs(1),
		Long: `QUARANTINED waits for a second person, ACCEPTING is being made ready and becomes
ACCEPTED by itself, SUPERSEDED was accepted before another one.`,
		Example: "  muster allowlist revisions pumps",
	}
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		found, err := api.AllowListRevisions(cmd.Context(), args[0], *limit)
		return listRevisionsTable(found, found), err
	})
}

func (c *command) allowListDiff() *cobra.Command {
	const three = 3
	cmd := &cobra.Command{
		Use: "diff LIST FROM TO", Short: "List the devices that one revision has otherwise than another", Args: cobra.ExactArgs(three),
		Long: `Lists serial numbers, with the model behind a slash: added, removed, and changed ones,
at most a thousand of each. It is a reading of both revisions: it is on record, and not
for who has uploaded either.`,
		Example: "  muster allowlist diff pumps 1 2",
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		from, err := revisionArgument(args[1])
		if err != nil {
			return table{}, err
		}
		to, err := revisionArgument(args[2])
		if err != nil {
			return table{}, err
		}
		d, err := api.DiffAllowList(cmd.Context(), args[0], from, to)
		t := table{header: []string{"CHANGE", "DEVICE"}, raw: d}
		for _, kind := range []struct {
			word  string
			count int
			some  []string
		}{{"added", d.AddedCount, d.Added}, {"removed", d.RemovedCount, d.Removed}, {"changed", d.ChangedCount, d.Changed}} {
			for _, device := range kind.some {
				t.add(kind.word, device)
			}
			if more := kind.count - len(kind.some); more > 0 {
				t.add(kind.word, fmt.Sprintf("and %d more", more))
			}
		}
		return t, err //nolint:wrapcheck // the server's own words
	})
}

func (c *command) allowListVet(word, short, long, note string) *cobra.Command {
	cmd := &cobra.Command{
		Use: word + " LIST REVISION", Short: short, Args: cobra.ExactArgs(2), Long: long,
		Example: fmt.Sprintf("  muster allowlist %s pumps 2 --note %q", word, note),
	}
	said := cmd.Flags().String("note", "", "what was looked at, for the record")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		number, err := revisionArgument(args[1])
		if err != nil {
			return table{}, err
		}
		after, err := api.VetAllowList(cmd.Context(), args[0], number, word, *said)
		return listRevisionsTable([]apiclient.AllowListRevision{after}, after), err
	})
}

func (c *command) allowListOriginal() *cobra.Command {
	cmd := &cobra.Command{
		Use: "original LIST REVISION", Short: "Get a revision as it was uploaded, bit for bit", Args: cobra.ExactArgs(2),
		Long: `Writes the upload to a file that only you can read, and compares it with the digest
that was taken when it came. The reading is on record, and not for who has uploaded it.
A file that is there is not replaced; "-" is standard output.`,
		Example: `  muster allowlist original pumps 2 --out pumps-2.jws
  muster allowlist original pumps 2 --out - | sha256sum`,
	}
	out := cmd.Flags().String("out", "", "file to write (required)")
	_ = cmd.MarkFlagRequired("out") // it is there
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		number, err := revisionArgument(args[1])
		if err != nil {
			return err
		}
		if *out != "-" {
			if err := absent(*out); err != nil {
				return err
			}
		}
		revision, err := api.AllowListRevision(cmd.Context(), args[0], number)
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		body, err := api.AllowListOriginal(cmd.Context(), args[0], number)
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		if sum := sha256.Sum256(body); hex.EncodeToString(sum[:]) != revision.SHA256 {
			return errors.New("what came is not what was uploaded: its SHA-256 differs, nothing is written")
		}
		if *out == "-" {
			_, err = bytes.NewReader(body).WriteTo(c.Out)
			return err //nolint:wrapcheck // standard output says it all
		}
		if err := writeSecret(*out, string(body), false); err != nil {
			return err
		}
		return c.said("%s has the %d bytes of revision %d, sha256 %s", *out, len(body), number, revision.SHA256)
	})
}

// checkTable shows what the lists say of a device.
func checkTable(e *apiclient.AllowListCheck) table {
	t := table{header: []string{"ALLOWED", "STATE", "LIST", "REVISION", "SUPPLIER", "THING", "CERTIFICATE", "MESSAGE", "NOTE"}, raw: e}
	allowed, revision := "no", ""
	if e.Allowed {
		allowed = "yes"
	}
	if e.Revision > 0 {
		revision = strconv.FormatInt(e.Revision, 10)
	}
	t.add(allowed, e.State, e.List, revision, e.Supplier, e.Thing, e.CertificateID, e.Message, e.Note)
	return t
}

// deviceFlags say which device is looked for.
type deviceFlags struct {
	device      apiclient.ListedDevice
	certificate string
}

func (d *deviceFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&d.device.Model, "model", "", "model of the device, for serial numbers that several models have")
	f.StringVar(&d.device.Fingerprint, "fingerprint", "", "SHA-256 of the SubjectPublicKeyInfo of its key, in hexadecimal digits")
	f.StringVar(&d.certificate, "certificate", "", "file with its certificate in PEM, instead of --fingerprint")
	cmd.MarkFlagsMutuallyExclusive("fingerprint", "certificate")
}

// read completes the device from the command line.
func (d *deviceFlags) read(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		d.device.Serial = args[0]
	}
	if d.certificate != "" {
		text, err := readText(cmd, d.certificate)
		if err != nil {
			return err
		}
		if d.device.Fingerprint, err = keyFingerprint(text); err != nil {
			return fmt.Errorf("--certificate: %w", err)
		}
	}
	d.device.Fingerprint = strings.ToLower(d.device.Fingerprint)
	if d.device.Serial == "" && d.device.Fingerprint == "" {
		return errors.New("give a serial number, --fingerprint or --certificate")
	}
	return nil
}

func (c *command) allowListCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check [SERIAL]", Short: "Say whether a device is on an accepted list and may join, and why not", Args: cobra.MaximumNArgs(1),
		Long: `Looks for one device as it would be looked for if it wanted to join: by its key first,
then by its serial number. A list that has a key for the device wants to see it: the
serial number alone finds the entry, and says that the key is needed. The look-up is on
record.`,
		Example: `  muster allowlist check B7-00412
  muster allowlist check B7-00412 --certificate device.crt --template pumps
  muster allowlist check --fingerprint 5f2c…`,
	}
	d := &deviceFlags{}
	d.register(cmd)
	cmd.Flags().StringVar(&d.device.Template, "template", "", "provisioning template by which it would join")
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		if err := d.read(cmd, args); err != nil {
			return table{}, err
		}
		found, err := api.CheckAllowLists(cmd.Context(), d.device)
		return checkTable(&found), err //nolint:wrapcheck // the server's own words
	})
}

func (c *command) allowListEntry(word, state, short, long, note string) *cobra.Command {
	cmd := &cobra.Command{
		Use: word + " [SERIAL]", Short: short, Args: cobra.MaximumNArgs(1), Long: long,
		Example: fmt.Sprintf("  muster allowlist %s B7-00412 --note %q", word, note),
	}
	d := &deviceFlags{}
	d.register(cmd)
	said := cmd.Flags().String("note", "", "why, for the record (required)")
	_ = cmd.MarkFlagRequired("note") // it is there
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		if err := d.read(cmd, args); err != nil {
			return table{}, err
		}
		after, err := api.SetAllowListEntry(cmd.Context(), d.device, state, *said)
		return checkTable(&after), err //nolint:wrapcheck // the server's own words
	})
}

func (c *command) allowListDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete LIST", Short: "Ask for the deletion of a list, or agree to it", Args: cobra.ExactArgs(1),
		Long: `Two people are needed: the first asks, and nothing changes; the second agrees, and no
device is matched against the list any more. Its originals and entries are removed. What
stays is that it was there, the digests of its originals, and who has joined with it.
Until the second has agreed, "muster allowlist keep" takes the question back.`,
		Example: "  muster allowlist delete pumps",
	}
	yes := yesFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		if err := c.confirmed(cmd, *yes, "list", args[0]); err != nil {
			return table{}, err
		}
		after, err := api.DeleteAllowList(cmd.Context(), args[0])
		return allowListsTable([]apiclient.AllowList{after}, after), err
	})
}

func (c *command) allowListKeep() *cobra.Command {
	cmd := &cobra.Command{
		Use: "keep LIST", Short: "Take back the question for a deletion", Args: cobra.ExactArgs(1),
		Example: "  muster allowlist keep pumps",
	}
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) (table, error) {
		after, err := api.KeepAllowList(cmd.Context(), args[0])
		return allowListsTable([]apiclient.AllowList{after}, after), err
	})
}

func (c *command) allowListRecipient() *cobra.Command {
	cmd := &cobra.Command{
		Use: "recipient", Short: "Print for whom suppliers encrypt lists", Args: cobra.NoArgs,
		Long: `Prints the age recipient of this installation, which is public. What is encrypted to
it only this server can open.`,
		Example: `  muster allowlist recipient
  age --encrypt --recipient "$(muster allowlist recipient)" --output pumps.jws.age pumps.jws`,
	}
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) error {
		recipient, err := api.AllowListRecipient(cmd.Context())
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		return c.said("%s", recipient)
	})
}

func (c *command) allowListIdentity() *cobra.Command {
	cmd := &cobra.Command{
		Use: "identity FILE", Short: "Make the age identity that opens a server's allow lists", Args: cobra.ExactArgs(1),
		Long: `Makes an age identity, as age-keygen does, in a file that only you can read, for the
setting allow-list.identity-file; it asks no server. Who has lost it has lost the lists:
keep a copy where the backups of the data are not. To change it put a new identity
before the old ones in the file and restart the server.`,
		Example: "  muster allowlist identity /etc/muster/allow-list.age",
	}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		text, recipient, err := listsign.Identity()
		if err != nil {
			return err //nolint:wrapcheck // it says what was done
		}
		if err := absent(args[0]); err != nil {
			return err
		}
		if err := writeSecret(args[0], text, false); err != nil {
			return err
		}
		return c.said("%s", recipient)
	}
	return cmd
}

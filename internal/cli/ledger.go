package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/ledger"
	"github.com/muster-iot/muster/internal/markdown"
)

// ledgers is the family of commands on the lives of devices.
func (c *command) ledgers() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ledger", Short: "See the life of each device from the factory on, and devices that nobody made",
		Long: `The ledger has an entry for all that happened to a device: that it was announced,
approved, registered and by what evidence, its certificates, its end. Each entry
holds the hash of the one before, so that none can be changed, removed, put in or
moved unseen. A device that joins without anything that says that somebody has made
it is raised, and so is one that is refused when it tries.`,
		Example: `  muster ledger show SN-1042
  muster ledger verify
  muster ledger rogues`,
	}
	cmd.AddCommand(c.ledgerShow(), c.ledgerVerify(), c.ledgerRogues(), c.ledgerHead())
	return cmd
}

// Formats of a ledger for others.
const (
	ledgerMarkdown = "md"
	ledgerJSON     = "json"
)

func (c *command) ledgerShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show DEVICE", Short: "Print the life of a device", Args: cobra.ExactArgs(1),
		Long: `Print all entries about a device, the oldest first. DEVICE is its key, as the
serial, the name of its thing, or the id of one of its certificates; thing:NAME and
certificate:ID say which is meant.

The table shows the beginnings of certificate ids. --format md is the document for an
auditor, --format json has every entry as it is hashed, which muster ledger verify --file checks without a server.`,
		Example: `  muster ledger show SN-1042
  muster ledger show thing:pump-7 --format md > pump-7.md
  muster ledger show SN-1042 --format json > SN-1042.json`,
	}
	format := cmd.Flags().String("format", "", "md or json instead of a table")
	output := c.outputFlag(cmd)
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		if *format != "" && *format != ledgerMarkdown && *format != ledgerJSON {
			return mistake(cmd, fmt.Errorf("--format %q is neither md nor json", *format))
		}
		d, err := api.Ledger(cmd.Context(), args[0])
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		entries, err := decodeEntries(d.Entries)
		if err != nil {
			return err
		}
		switch *format {
		case ledgerJSON:
			return c.printJSON(d)
		case ledgerMarkdown:
			_, err = io.WriteString(c.Out, ledgerDocument(&d, entries, c.Now()))
			return err //nolint:wrapcheck // standard output says it all
		}
		t := table{header: []string{"SEQ", "TIME", "WHAT", "BY", "FACTS", "EVIDENCE"}, raw: d}
		for i := range entries {
			e := &entries[i]
			t.add(strconv.FormatUint(e.Seq, 10), entryTime(e).Format(time.RFC3339), string(e.What),
				shortened(named(apiclient.Principal(e.Principal))), shortened(pairs(e.Facts)), shortened(strings.Join(e.Evidence, "; ")))
		}
		return c.print(*output, t)
	})
}

// digests are ids of certificates and hashes.
var digests = regexp.MustCompile(`\b[0-9a-f]{64}\b`)

// shortened is text for a table, in which whole digests would fill the line.
func shortened(text string) string { return digests.ReplaceAllStringFunc(text, short) }

func decodeEntries(lines []json.RawMessage) ([]ledger.Entry, error) {
	entries := make([]ledger.Entry, len(lines))
	for i, line := range lines {
		if err := json.Unmarshal(line, &entries[i]); err != nil {
			return nil, fmt.Errorf("decode entry %d: %w", i+1, err)
		}
	}
	return entries, nil
}

func entryTime(e *ledger.Entry) time.Time { return time.UnixMilli(e.At).UTC() }

// ledgerDocument is a device's ledger as an auditor reads it.
func ledgerDocument(d *apiclient.DeviceLedger, entries []ledger.Entry, at time.Time) string {
	var w markdown.Document
	w.Line("# Ledger of device %s", markdown.Inline(d.Device))
	w.Line("")
	state := "is not registered"
	switch {
	case d.Decommissioned != "":
		state = "was decommissioned on " + d.Decommissioned
	case d.Suspended:
		state = "is suspended"
	case d.Activated != "":
		state = "is active since " + d.Activated
	case d.Registered != "":
		state = "is registered since " + d.Registered + " and has not connected yet"
	}
	w.Line("As of %s. The device %s. It has %d entries.", markdown.When(at), state, d.EntryCount)
	if d.Life > 1 {
		w.Line("This is life %d: it was decommissioned before, and the name is used again.", d.Life)
	}
	if d.Rogue {
		w.Line("")
		w.Line("**It was raised as a device that nobody made.**")
	}
	w.Head("What", "Value")
	w.Row("Device key", d.Device)
	w.Row("Thing", d.Thing)
	w.Row("Certificate (SHA-256)", d.Certificate)
	w.Row("Last hash (SHA-256)", d.Hash)
	w.Line("")
	w.Line("## What says that somebody has made it")
	w.Line("")
	w.Line("Strongest: **%s**.", markdown.Inline(d.Basis))
	w.Line("")
	for _, one := range d.Evidence {
		w.Line("- %s", markdown.Inline(one))
	}
	life := 0
	for i := range entries {
		e := &entries[i]
		if e.Life != life {
			life = e.Life
			w.Line("")
			w.Line("## Life %d", life)
			w.Head("No", "When", "What", "By", "Details", "Evidence", "Hash")
		}
		w.Row(strconv.FormatUint(e.Seq, 10), markdown.When(entryTime(e)), string(e.What), named(apiclient.Principal(e.Principal)),
			pairs(e.Facts), strings.Join(e.Evidence, "; "), e.Hash)
	}
	w.Line("")
	w.Line("## How to check")
	w.Line("")
	if findings := ledger.Check(entries); len(findings) > 0 {
		w.Line("**These entries are not whole:** %s.", markdown.Inline(findings[0].Detail))
	} else {
		w.Line("All %d entries have their hashes, and each names the one before.", len(entries))
	}
	w.Line("`muster ledger show DEVICE --format json` has every entry as it is hashed, `muster ledger verify --file` checks that without")
	w.Line("a server, and `muster ledger verify` checks on the server that none is missing.")
	return w.String()
}

// errLedger makes the exit code of verify speak.
var errLedger = errors.New("the ledger is not whole")

func (c *command) ledgerVerify() *cobra.Command {
	cmd := &cobra.Command{
		Use: "verify [DEVICE]", Short: "Check that no entry was changed, removed, put in or moved", Args: cobra.MaximumNArgs(1),
		Long: `Check the whole ledger, or that of one device. What is wrong is named, and the exit
code is 1. Of one device, an end that was cut off together with a copy of its record
from before is not found: check all for that.

--head is the output of muster ledger head from before. Without one, the ends are
compared with what the audit trail was told; who has the secrets of the server and
rewrites both is found by a head that was kept elsewhere only. --file checks what
muster ledger show --format json printed; no server is asked.`,
		Example: `  muster ledger verify
  muster ledger verify SN-1042
  muster ledger verify --head /mnt/elsewhere/ledger-head.json
  muster ledger verify --file SN-1042.json`,
	}
	kept := cmd.Flags().String("head", "", "file with a head that was kept")
	file := cmd.Flags().String("file", "", "printed ledger of a device to check; no server is asked")
	remote := Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		device, head := "", ""
		if len(args) > 0 {
			device = args[0]
		}
		if *kept != "" {
			text, err := os.ReadFile(*kept)
			if err != nil {
				return fmt.Errorf("read the head: %w", err)
			}
			head = string(bytes.TrimSpace(text))
		}
		return verifying(cmd.Context(), c, api, apiclient.LedgerVerification(device, head), c.ledgerFinding, c.ledgerVerdict)
	})
	ask := remote.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case *file != "" && (len(args) > 0 || *kept != ""):
			return mistake(cmd, errors.New("--file goes without DEVICE and --head"))
		case *kept != "" && len(args) > 0:
			return mistake(cmd, errors.New("--head is about the whole ledger: leave DEVICE out"))
		case *file == "":
			return ask(cmd, args)
		}
		return c.verifyLedgerFile(*file)
	}
	return cmd
}

// verifyLedgerFile checks a printed ledger here.
func (c *command) verifyLedgerFile(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the ledger: %w", err)
	}
	var d apiclient.DeviceLedger
	if err := json.Unmarshal(text, &d); err != nil || len(d.Entries) == 0 {
		return fmt.Errorf("%s is not what muster ledger show --format json prints: %w", path, cmp.Or(err, errors.New("it has no entries")))
	}
	entries, err := decodeEntries(d.Entries)
	if err != nil {
		return err
	}
	findings := ledger.Check(entries)
	last := &entries[len(entries)-1]
	if last.Hash != d.Hash || uint64(len(entries)) != d.EntryCount {
		findings = append(findings, ledger.Finding{Device: d.Device, Problem: ledger.Truncated, Detail: fmt.Sprintf(
			"the file ends with entry %d, but says that the ledger ends with entry %d, hash %s", last.Seq, d.EntryCount, d.Hash)})
	}
	for _, f := range findings {
		if err := c.ledgerFinding(f); err != nil {
			return err
		}
	}
	return c.ledgerVerdict(ledger.Verdict{Account: last.Account, Device: last.Device, Devices: 1, Entries: len(entries), Hash: last.Hash, Findings: len(findings)})
}

// ledgerFinding shows what is wrong.
func (c *command) ledgerFinding(f ledger.Finding) error {
	_, err := fmt.Fprintf(c.Out, "%s: %s\n", f.Problem, printable(f.Detail))
	return err //nolint:wrapcheck // standard output says it all
}

// ledgerVerdict says how it ended.
func (c *command) ledgerVerdict(v ledger.Verdict) error {
	what := fmt.Sprintf("account %s: %d entries of %d devices", v.Account, v.Entries, v.Devices)
	if v.Device != "" {
		what = fmt.Sprintf("account %s: %d entries of device %s", v.Account, v.Entries, printable(v.Device))
	}
	if v.Findings > 0 {
		if _, err := fmt.Fprintf(c.Out, "%s: %d findings\n", what, v.Findings); err != nil {
			return fmt.Errorf("write the verdict: %w", err)
		}
		return errLedger
	}
	witnessed := ""
	if v.Witnessed > 0 {
		witnessed = fmt.Sprintf("witnessed %d times\n", v.Witnessed)
	}
	_, err := fmt.Fprintf(c.Out, "%s: all whole\nlast hash %s\n%s", what, v.Hash, witnessed)
	return err //nolint:wrapcheck // standard output says it all
}

func (c *command) ledgerRogues() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rogues", Short: "List devices that nobody made", Args: cobra.NoArgs,
		Long: `List devices that are registered though nothing says that somebody made them: they
were neither announced nor on a list, nobody approved them, no operator made them,
and no claim or authority of an operator speaks for them. With --attempts, list those
that were refused when they tried to join; about the newest thousand are kept, all
are counted. The newest come first. The metric muster_ledger_rogues_total counts
both; each is in the audit trail as RogueDevice.`,
		Example: `  muster ledger rogues
  muster ledger rogues --attempts --limit 50
  muster audit search --name RogueDevice`,
	}
	attempts := cmd.Flags().Bool("attempts", false, "list those that were refused instead")
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		kind := ledger.RogueJoined
		if *attempts {
			kind = ledger.RogueAttempt
		}
		found, err := api.ListRogues(cmd.Context(), string(kind), *limit)
		if err != nil {
			return table{}, err //nolint:wrapcheck // the server's own words
		}
		if _, err := fmt.Fprintf(c.Err, "%d devices that nobody made have joined; %d were refused, %d times\n", found.Devices, found.Attempts, found.Refusals); err != nil {
			return table{}, fmt.Errorf("write counts: %w", err)
		}
		t := table{header: []string{"LAST", "DEVICE", "THING", "CERTIFICATE", "CLAIM", "COUNT", "REASON"}, raw: found}
		for i := range found.Rogues {
			r := &found.Rogues[i]
			count, reason := "", r.Reason
			if r.Count > 0 {
				count = strconv.FormatInt(r.Count, 10)
			}
			if r.Known {
				reason += "; a device of this name is known"
			}
			t.add(r.Last, r.Device, r.Thing, short(r.Certificate), short(r.Claim), count, reason)
		}
		return t, nil
	})
}

func (c *command) ledgerHead() *cobra.Command {
	cmd := &cobra.Command{
		Use: "head", Short: "Print where the ledger ends, to keep elsewhere", Args: cobra.NoArgs,
		Long: `Print one line of JSON that says how many entries there are and what the hash of the
last one is. Kept where whoever can change the server cannot, it shows later whether
the ledger up to there is still the same.`,
		Example: `  muster ledger head > /mnt/elsewhere/ledger-head.json
  muster ledger verify --head /mnt/elsewhere/ledger-head.json`,
	}
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) error {
		head, err := api.LedgerHead(cmd.Context())
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		if _, err := c.Out.Write(append(bytes.TrimSpace(head), '\n')); err != nil {
			return fmt.Errorf("write the head: %w", err)
		}
		return nil
	})
}

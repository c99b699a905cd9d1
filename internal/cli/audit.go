package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/audit"
)

// audit reads and checks the audit trail.
func (c *command) audit() *cobra.Command {
	cmd := &cobra.Command{
		Use: "audit", Short: "Show, search, export and verify who did what",
		Long: `The audit trail has a record for each API call, each sign-in and each change of
the settings. Records are chained by their hashes, so that one that was changed,
removed or moved is found by muster audit verify.

Keep the output of muster audit head somewhere else from time to time: with it,
verify also finds a trail that was written anew as a whole.`,
		Example: `  muster audit tail -f
  muster audit search --actor ada --from -24h
  muster audit verify`,
	}
	cmd.AddCommand(c.auditTail(), c.auditSearch(), c.auditExport(), c.auditVerify(), c.auditHead())
	return cmd
}

// auditFilters are the flags of tail and search.
type auditFilters struct{ actor, resource, name, failed string }

func (f *auditFilters) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.actor, "actor", "", "user, role, access key, certificate id or ARN of who called")
	cmd.Flags().StringVar(&f.resource, "resource", "", "ARN, or its end such as thing/pump-1 or user/ada")
	cmd.Flags().StringVar(&f.name, "name", "", "name of the call, such as CreateThing")
	cmd.Flags().StringVar(&f.failed, "error", "", "error code, any or none")
}

// query is what the server is asked.
func (f *auditFilters) query() url.Values {
	values := url.Values{}
	for name, value := range map[string]string{"actor": f.actor, "resource": f.resource, "name": f.name, "error": f.failed} {
		if value != "" {
			values.Set(name, value)
		}
	}
	return values
}

// auditRequest is a call under /ops/v1/audit.
func auditRequest(operation string, query url.Values) apiclient.Request {
	return apiclient.Request{Service: apiclient.ServiceControl, Method: http.MethodGet, Path: apiclient.Path("ops", "v1", "audit", operation), Query: query}
}

// auditTail shows the newest records, and goes on.
func (c *command) auditTail() *cobra.Command {
	cmd := &cobra.Command{
		Use: "tail", Short: "Show the newest records, oldest first", Args: cobra.NoArgs,
		Long: "Show the newest records, oldest first. With --follow it goes on with those that\nare made from then on, until it is interrupted.",
		Example: `  muster audit tail
  muster audit tail -f
  muster audit tail -f --error any
  muster audit tail -n 100 --json | jq .eventName`,
	}
	var f auditFilters
	f.register(cmd)
	follow := cmd.Flags().BoolP("follow", "f", false, "go on with new records")
	number := cmd.Flags().IntP("lines", "n", 20, "how many of the newest to begin with")
	raw := cmd.Flags().Bool("json", false, "whole records, one a line")
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) error {
		if *number < 0 {
			return mistake(cmd, errors.New("--lines must not be negative"))
		}
		// What is made while the newest are read is not shown twice or missed.
		var head audit.Head
		if err := api.JSON(cmd.Context(), auditRequest("head", nil), nil, &head); err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		var newest []json.RawMessage
		if *number > 0 {
			var err error
			if newest, err = auditRecords(cmd.Context(), api, f.query(), *number); err != nil {
				return err
			}
		}
		after := head.Seq
		for _, line := range slices.Backward(newest) {
			if err := c.auditLine(line, *raw); err != nil {
				return err
			}
			after = max(after, seqOf(line))
		}
		for *follow {
			var err error
			if after, err = c.auditFollow(cmd.Context(), api, f.query(), after, *raw); err != nil {
				return err
			}
		}
		return nil
	})
}

// seqOf is a record's number, 0 when it has none.
func seqOf(line []byte) uint64 {
	var r audit.Record
	if json.Unmarshal(line, &r) != nil {
		return 0
	}
	return r.Seq
}

// auditFollow shows what comes until the server ends the answer.
func (c *command) auditFollow(ctx context.Context, api *apiclient.Client, query url.Values, after uint64, raw bool) (uint64, error) {
	query.Set("after", strconv.FormatUint(after, 10))
	stream, err := api.Stream(ctx, auditRequest("follow", query))
	if err != nil {
		return after, err //nolint:wrapcheck // the server's own words
	}
	defer stream.Close() //nolint:errcheck // it was only read
	lines := bufio.NewReader(stream)
	for {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return after, nil
		}
		if err != nil {
			return after, fmt.Errorf("follow the audit trail: %w", err)
		}
		if line = bytes.TrimSuffix(line, []byte("\n")); len(line) == 0 {
			continue
		}
		after = max(after, seqOf(line))
		if err := c.auditLine(line, raw); err != nil {
			return after, err
		}
	}
}

// auditRecords asks for the newest records, page by page.
func auditRecords(ctx context.Context, api *apiclient.Client, query url.Values, limit int) ([]json.RawMessage, error) {
	var records []json.RawMessage
	const page = 250
	for limit <= 0 || len(records) < limit {
		size := page
		if limit > 0 {
			size = min(page, limit-len(records))
		}
		query.Set("maxResults", strconv.Itoa(size))
		var out struct {
			Records   []json.RawMessage `json:"records"`
			NextToken string            `json:"nextToken"`
		}
		if err := api.JSON(ctx, auditRequest("records", query), nil, &out); err != nil {
			return nil, err //nolint:wrapcheck // the server's own words
		}
		records = append(records, out.Records...)
		if out.NextToken == "" {
			break
		}
		query.Set("nextToken", out.NextToken)
	}
	return records, nil
}

// auditSearch shows records by what they are about.
func (c *command) auditSearch() *cobra.Command {
	cmd := &cobra.Command{
		Use: "search", Short: "Find records by time, actor, resource, name and error, newest first", Args: cobra.NoArgs,
		Long: `Find records, newest first. A time is RFC 3339 or relative to now: -90m, -24h,
-7d. All times are UTC.`,
		Example: `  muster audit search --actor ada --from -24h
  muster audit search --resource thing/pump-00001
  muster audit search --name DeletePolicy --from 2026-03-01T00:00:00Z --to 2026-03-02T00:00:00Z
  muster audit search --error AccessDeniedException --limit 20 -o json`,
	}
	var f auditFilters
	f.register(cmd)
	from := cmd.Flags().String("from", "", "only records from this time on")
	to := cmd.Flags().String("to", "", "only records before this time")
	limit := limitFlag(cmd)
	return c.answer(cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) (table, error) {
		query, err := c.auditSpan(f.query(), *from, *to)
		if err != nil {
			return table{}, err
		}
		records, err := auditRecords(cmd.Context(), api, query, *limit)
		if err != nil {
			return table{}, err
		}
		t := table{header: []string{"SEQ", "TIME", "WHO", "NAME", "ERROR", "ADDRESS", "RESOURCES"}, raw: records}
		for _, line := range records {
			r, err := auditRecord(line)
			if err != nil {
				return t, err
			}
			t.add(strconv.FormatUint(r.Seq, 10), r.EventTime, who(&r.UserIdentity), r.EventName, r.ErrorCode, r.SourceIPAddress, about(r))
		}
		return t, nil
	})
}

// auditSpan adds times to a query.
func (c *command) auditSpan(query url.Values, from, to string) (url.Values, error) {
	for _, bound := range []struct{ name, text string }{{"from", from}, {"to", to}} {
		at, err := c.moment(bound.name, bound.text)
		if err != nil {
			return nil, err
		}
		if !at.IsZero() {
			query.Set(bound.name, at.UTC().Format(time.RFC3339Nano))
		}
	}
	return query, nil
}

// auditRecord reads a record.
func auditRecord(line []byte) (*audit.Record, error) {
	var r audit.Record
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, fmt.Errorf("decode record: %w", err)
	}
	return &r, nil
}

// who is the shortest name that tells an actor.
func who(u *audit.UserIdentity) string {
	switch {
	case u.SessionContext != nil && u.SessionContext.SessionIssuer != nil:
		_, session, _ := strings.Cut(u.ARN, ":assumed-role/")
		return session
	case u.UserName != "":
		return u.UserName
	case u.Type == "Root":
		return "root"
	case u.PrincipalID != "":
		return short(u.PrincipalID)
	case u.Type == "AWSAccount":
		return u.AccountID
	case u.InvokedBy != "":
		return u.InvokedBy
	default:
		return strings.ToLower(u.Type)
	}
}

// about is what a record is about, without what all ARNs begin with.
func about(r *audit.Record) string {
	names := make([]string, len(r.Resources))
	for i, resource := range r.Resources {
		parts := strings.SplitN(resource.ARN, ":", 6)
		names[i] = parts[len(parts)-1]
	}
	return strings.Join(names, " ")
}

// auditLine shows one record.
func (c *command) auditLine(line []byte, raw bool) error {
	text := string(line)
	if !raw {
		r, err := auditRecord(line)
		if err != nil {
			return err
		}
		outcome := "ok"
		if r.ErrorCode != "" {
			outcome = r.ErrorCode
		}
		text = printable(strings.TrimSpace(fmt.Sprintf("%s %s %s %s %s", r.EventTime, who(&r.UserIdentity), r.EventName, outcome, about(r))))
	}
	if _, err := fmt.Fprintln(c.Out, text); err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	return nil
}

// auditExport writes records for other tools and for safe keeping.
func (c *command) auditExport() *cobra.Command {
	cmd := &cobra.Command{
		Use: "export", Short: "Write records as newline-delimited JSON, with a signed end", Args: cobra.NoArgs,
		Long: `Write the records of a time in their order, one a line, and last a line that the
server signed, by which muster audit verify --file knows that nothing is missing.
Keep the bytes as they are: the hashes are over them.`,
		Example: `  muster audit export > audit.ndjson
  muster audit export --from 2026-03-01T00:00:00Z --to 2026-04-01T00:00:00Z --to-file march.ndjson
  muster audit verify --file march.ndjson`,
	}
	from := cmd.Flags().String("from", "", "only records from this time on")
	to := cmd.Flags().String("to", "", "only records before this time")
	path := cmd.Flags().String("to-file", "", "file to write instead of the standard output; it must not exist")
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) error {
		query, err := c.auditSpan(url.Values{}, *from, *to)
		if err != nil {
			return err
		}
		stream, err := api.Stream(cmd.Context(), auditRequest("export", query))
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		defer stream.Close() //nolint:errcheck // it was only read
		if *path == "" {
			if _, err := io.Copy(c.Out, stream); err != nil {
				return fmt.Errorf("the export broke off: %w", err)
			}
			return nil
		}
		f, err := os.OpenFile(*path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("write the export: %w", err)
		}
		_, err = io.Copy(f, stream)
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("the export broke off: %w", errors.Join(err, os.Remove(*path)))
		}
		return nil
	})
}

// auditHead shows where the trail ends.
func (c *command) auditHead() *cobra.Command {
	cmd := &cobra.Command{
		Use: "head", Short: "Print the signed head of the trail, to keep elsewhere", Args: cobra.NoArgs,
		Long: `Print one line of JSON that says which record is the newest and what its hash is,
signed by the server. Kept where whoever can change the server cannot, it shows
later whether the trail up to there is still the same.`,
		Example: `  muster audit head > /mnt/elsewhere/audit-head.json
  muster audit verify --head /mnt/elsewhere/audit-head.json`,
	}
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) error {
		head, err := api.Raw(cmd.Context(), auditRequest("head", nil))
		if err != nil {
			return err //nolint:wrapcheck // the server's own words
		}
		if _, err := c.Out.Write(append(bytes.TrimSpace(head), '\n')); err != nil {
			return fmt.Errorf("write the head: %w", err)
		}
		return nil
	})
}

// errTampered makes the exit code of verify speak.
var errTampered = errors.New("the audit trail is not whole")

// auditVerify checks the stored trail, or an export.
func (c *command) auditVerify() *cobra.Command {
	cmd := &cobra.Command{
		Use: "verify", Short: "Check that no record was changed, removed or moved", Args: cobra.NoArgs,
		Long: `Check every record of the server's trail, or with --file of an export, for which
no server is needed. Each record that was changed, is missing or stands elsewhere
is named by its number, and the exit code is 1.

--head is the output of muster audit head from before. Without one, whoever has
the server's keys could have written the whole trail anew.`,
		Example: `  muster audit verify
  muster audit verify --head audit-head.json
  muster audit verify --file march.ndjson --head audit-head.json`,
	}
	file := cmd.Flags().String("file", "", "export to check instead of the server's trail; no server is asked")
	kept := cmd.Flags().String("head", "", "file with a head that was kept")
	remote := Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, _ []string) error {
		query := url.Values{}
		if *kept != "" {
			head, err := os.ReadFile(*kept)
			if err != nil {
				return fmt.Errorf("read the head: %w", err)
			}
			query.Set("head", string(bytes.TrimSpace(head)))
		}
		return c.verifyRemote(cmd.Context(), api, query)
	})
	ask := remote.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *file == "" {
			return ask(cmd, args)
		}
		return c.verifyFile(*file, *kept)
	}
	return cmd
}

// verifyRemote shows what the server finds.
func (c *command) verifyRemote(ctx context.Context, api *apiclient.Client, query url.Values) error {
	return verifying(ctx, c, api, auditRequest("verify", query), c.finding, c.verdict)
}

// verifying asks for a verification, whose answer is lines of findings and progress
// with a verdict at the end.
func verifying[F, V any](ctx context.Context, c *command, api *apiclient.Client, request apiclient.Request, found func(F) error, end func(V) error) error {
	stream, err := api.Stream(ctx, request)
	if err != nil {
		return err //nolint:wrapcheck // the server's own words
	}
	defer stream.Close() //nolint:errcheck // it was only read
	decoder := json.NewDecoder(stream)
	for {
		var line struct {
			Progress int `json:"progress"`
			Finding  *F  `json:"finding"`
			Verdict  *V  `json:"verdict"`
		}
		if err := decoder.Decode(&line); err != nil {
			return fmt.Errorf("the answer broke off before the verdict: %w", err)
		}
		switch {
		case line.Verdict != nil:
			return end(*line.Verdict)
		case line.Finding != nil:
			if err := found(*line.Finding); err != nil {
				return err
			}
		case c.Terminal:
			if err := c.progress(line.Progress); err != nil {
				return err
			}
		}
	}
}

// verifyFile checks an export here.
func (c *command) verifyFile(path, kept string) error {
	var heads []audit.Head
	if kept != "" {
		text, err := os.ReadFile(kept)
		if err != nil {
			return fmt.Errorf("read the head: %w", err)
		}
		head, err := audit.ParseHead(text)
		if err != nil {
			return err //nolint:wrapcheck // it says what it is about
		}
		heads = append(heads, head)
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read the export: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	progress := func(int) error { return nil }
	if c.Terminal {
		progress = c.progress
	}
	verdict, err := audit.VerifyExport(f, heads, audit.Witness{Found: c.finding, Progress: progress})
	if err != nil {
		return err //nolint:wrapcheck // it says what it is about
	}
	return c.verdict(verdict)
}

// progress draws how many records a verification has read.
func (c *command) progress(records int) error {
	_, err := fmt.Fprintf(c.Err, "\r%d records", records)
	return err //nolint:wrapcheck // the terminal says it all
}

// finding shows what is wrong.
func (c *command) finding(f audit.Finding) error {
	_, err := fmt.Fprintf(c.Out, "%s: %s\n", f.Problem, printable(f.Detail))
	return err //nolint:wrapcheck // standard output says it all
}

// verdict says how it ended.
func (c *command) verdict(v audit.Verdict) error {
	what := "no records"
	if v.Records > 0 {
		what = fmt.Sprintf("%d records, %d to %d", v.Records, v.First, v.Last)
	}
	if v.Findings > 0 {
		if _, err := fmt.Fprintf(c.Out, "account %s: %s: %d findings\n", v.Account, what, v.Findings); err != nil {
			return fmt.Errorf("write the verdict: %w", err)
		}
		return errTampered
	}
	if _, err := fmt.Fprintf(c.Out, "account %s: %s: all whole\nlast hash %s\nsigned by %s\n", v.Account, what, v.Hash, v.PublicKey); err != nil {
		return fmt.Errorf("write the verdict: %w", err)
	}
	return nil
}

package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/bulk"
)

const (
	// journalSuffix makes the name of a journal from that of its file.
	journalSuffix = ".import-journal"
	// shownFailures is how many failed lines are told of when no report is asked
	// for.
	shownFailures = 10
	// standardInput is the name of a file that is not one.
	standardInput = "-"
	// defaultBatch and defaultSenders keep the engine's commits full without
	// long waits for an answer.
	defaultBatch   = 500
	defaultSenders = 4
	maxSenders     = 64
	patience       = 5 * time.Minute
)

// imports is the family of bulk commands.
func (c *command) imports() *cobra.Command {
	cmd := &cobra.Command{Use: "import", Short: "Bring a fleet in from files"}
	cmd.AddCommand(c.importThings())
	return cmd
}

// importFlags are what an import was asked to do.
type importFlags struct {
	path, format, mode, errors, journal string
	batch, concurrency                  int
	dryRun                              bool
	patience                            time.Duration
}

// importThings registers the things of a file.
func (c *command) importThings() *cobra.Command {
	cmd := &cobra.Command{
		Use: "things FILE", Short: "Register the things of a CSV or NDJSON file", Args: cobra.ExactArgs(1),
		Long: `Registers the things of a file; - is standard input.

CSV begins with a header. The columns are name, type, billing_group, groups (with
";" in between) and attr.NAME for each attribute; only name must be there. NDJSON
has one object a line: {"name":"pump-1","type":"Pump","groups":["leeds"],
"attributes":{"site":"leeds"}}. Types, groups and billing groups must exist.

Mode create changes nothing that exists: a thing that is as its line says counts
as unchanged, another one is an error. Mode upsert sets the type and attributes
that a line names, an empty value removing an attribute, and adds the groups.
Each line is carried out as a whole or not at all, whatever becomes of others.

An import that was interrupted is gone on with by the same command: a journal
beside the file knows what is done. Lines that failed go with their errors into
the file that --errors names, which can be mended and imported like any other;
without it the first are shown. The command fails when a line failed.`,
		Example: `  muster import things fleet.csv --dry-run
  muster import things fleet.csv --errors failed.csv
  muster import things failed.csv --mode upsert
  zcat fleet.ndjson.gz | muster import things - --format ndjson`,
	}
	var f importFlags
	flags := cmd.Flags()
	flags.StringVar(&f.format, "format", "", "csv or ndjson (default by the name of the file)")
	flags.StringVar(&f.mode, "mode", "create", "create or upsert")
	flags.StringVar(&f.errors, "errors", "", "file to write failed lines to; it must not exist")
	flags.StringVar(&f.journal, "journal", "", "file that knows what is done (default FILE"+journalSuffix+")")
	flags.IntVar(&f.batch, "batch", defaultBatch, "things sent at once")
	flags.IntVar(&f.concurrency, "concurrency", defaultSenders, "batches under way at a time")
	flags.BoolVar(&f.dryRun, "dry-run", false, "let the server check each line by itself and change nothing")
	flags.DurationVar(&f.patience, "patience", patience, "how long to try when the server cannot be reached")
	t := c.target(cmd)
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		f.path = args[0]
		if err := f.check(); err != nil {
			return mistake(cmd, err)
		}
		t.conns = f.concurrency
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		api, err := t.client()
		if err != nil {
			return err
		}
		defer api.CloseIdle()
		return c.runImport(cmd.Context(), api, t.address(), cmd.InOrStdin(), &f)
	}
	return cmd
}

// check completes the flags and refuses what makes no sense.
func (f *importFlags) check() error {
	if f.format == "" {
		switch strings.ToLower(filepath.Ext(f.path)) {
		case ".csv":
			f.format = string(bulk.CSV)
		case ".ndjson", ".jsonl":
			f.format = string(bulk.NDJSON)
		default:
			return fmt.Errorf("the name %q does not tell its format; give --format csv or --format ndjson", f.path)
		}
	}
	switch {
	case f.format != string(bulk.CSV) && f.format != string(bulk.NDJSON):
		return fmt.Errorf("--format %q is none of csv, ndjson", f.format)
	case f.mode != "create" && f.mode != "upsert":
		return fmt.Errorf("--mode %q is none of create, upsert", f.mode)
	case f.batch < 1 || f.batch > bulk.MaxBatch:
		return fmt.Errorf("--batch %d is not between 1 and %d", f.batch, bulk.MaxBatch)
	case f.concurrency < 1 || f.concurrency > maxSenders:
		return fmt.Errorf("--concurrency %d is not between 1 and %d", f.concurrency, maxSenders)
	case f.patience < 0:
		return fmt.Errorf("--patience %v is negative", f.patience)
	case f.journal != "" && (f.path == standardInput || f.dryRun):
		return errors.New("--journal makes no sense with standard input or --dry-run: there is nothing to go on with")
	case f.errors != "" && samePath(f.errors, f.path):
		return errors.New("--errors would overwrite the file that is imported")
	}
	if f.journal == "" && f.path != standardInput && !f.dryRun {
		f.journal = f.path + journalSuffix
	}
	return nil
}

// samePath tells whether two names are of one file.
func samePath(a, b string) bool {
	first, err := os.Stat(a)
	if err != nil {
		return filepath.Clean(a) == filepath.Clean(b)
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
}

// source is the open file, which is summed up while it is read.
type source struct {
	io.Reader

	closer io.Closer
	hash   hash.Hash
	size   int64
	sum    string
}

// openSource opens and sums up a file. Standard input has no sum and no size.
func openSource(f *importFlags, stdin io.Reader) (*source, error) {
	if f.path == standardInput {
		return &source{Reader: stdin, closer: io.NopCloser(nil)}, nil
	}
	file, err := os.Open(f.path)
	if err != nil {
		return nil, fmt.Errorf("open the file: %w", err)
	}
	s := &source{closer: file, hash: sha256.New()}
	s.size, err = io.Copy(s.hash, file)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, fmt.Errorf("read the file: %w", errors.Join(err, file.Close()))
	}
	s.sum = hex.EncodeToString(s.hash.Sum(nil))
	s.hash.Reset()
	s.Reader = io.TeeReader(file, s.hash)
	return s, nil
}

// unchanged fails when the file that was read is not the one that the journal
// is about.
func (s *source) unchanged() error {
	if s.hash == nil || hex.EncodeToString(s.hash.Sum(nil)) == s.sum {
		return nil
	}
	return errors.New("the file was changed while it was imported: import it again")
}

// runImport carries an import out.
func (c *command) runImport(ctx context.Context, api *apiclient.Client, server string, stdin io.Reader, f *importFlags) error {
	// The first call finds out early whether there is a permission at all.
	hello, err := api.ImportThings(ctx, apiclient.Import{Mode: f.mode, DryRun: true})
	if err != nil {
		return err //nolint:wrapcheck // the server's own words
	}
	in, err := openSource(f, stdin)
	if err != nil {
		return err
	}
	defer in.closer.Close() //nolint:errcheck // it was only read
	reader, err := bulk.NewReader(in, bulk.Format(f.format))
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	journal, err := f.openJournal(in, server, hello.Account)
	if err != nil {
		return err
	}
	failures, err := c.failures(f, reader, journal)
	if err != nil {
		return errors.Join(err, closeJournal(journal))
	}
	before := journal.Totals().Lines()
	if before > 0 {
		c.note("%d lines are done already, going on behind them", before)
	}
	shown := c.importProgress(in.size, before)
	started := c.Now()
	totals, err := bulk.Run(ctx, bulk.Options{
		Sender: api, Reader: reader, Mode: f.mode, DryRun: f.dryRun, Batch: f.batch, Concurrency: f.concurrency,
		Journal: journal, Failed: failures.add, Progress: shown.update, Patience: f.patience, Now: c.Now,
		Retried: shown.retried,
	})
	shown.end()
	if err == nil {
		err = in.unchanged()
	}
	err = errors.Join(err, failures.close())
	if err != nil {
		err = errors.Join(err, closeJournal(journal))
		if journal != nil {
			err = fmt.Errorf("%w\n%d lines are done; the same command goes on behind them", err, totals.Lines())
		}
		return err
	}
	if journal != nil {
		if err := journal.Remove(); err != nil {
			return err //nolint:wrapcheck // it says what it did
		}
	}
	return c.importSummary(f, totals, c.Now().Sub(started))
}

// closeJournal leaves a journal for later.
func closeJournal(j *bulk.Journal) error {
	if j == nil {
		return nil
	}
	return j.Close() //nolint:wrapcheck // it says what it did
}

// note tells a person something beside the answer.
func (c *command) note(format string, args ...any) {
	_, _ = fmt.Fprintf(c.Err, format+"\n", args...)
}

// importSummary says what became of the lines; those that failed are an error.
func (c *command) importSummary(f *importFlags, t bulk.Totals, took time.Duration) error {
	what := "imported"
	if f.dryRun {
		what = "checked, nothing changed:"
	}
	_, err := fmt.Fprintf(c.Out, "%s %d lines: %d created, %d updated, %d unchanged, %d failed, in %v\n",
		what, t.Lines(), t.Created, t.Updated, t.Unchanged, t.Failed, took.Round(10*time.Millisecond))
	if err != nil || t.Failed == 0 {
		return err //nolint:wrapcheck // standard output says it all
	}
	if f.errors != "" {
		return fmt.Errorf("%d of %d lines failed; they are in %s", t.Failed, t.Lines(), f.errors)
	}
	return fmt.Errorf("%d of %d lines failed; --errors FILE keeps them", t.Failed, t.Lines())
}

// openJournal opens the journal that goes with an import; nil for none.
func (f *importFlags) openJournal(in *source, server, account string) (*bulk.Journal, error) {
	if f.journal == "" {
		return nil, nil //nolint:nilnil // an import without a journal is no error
	}
	report := f.errors
	if report != "" {
		var err error
		if report, err = filepath.Abs(report); err != nil {
			return nil, fmt.Errorf("find %s: %w", f.errors, err)
		}
	}
	j, err := bulk.OpenJournal(f.journal, bulk.Heading{
		SHA256: in.sum, Format: bulk.Format(f.format), Mode: f.mode, Server: server, Account: account, Report: report,
	})
	return j, err //nolint:wrapcheck // it names the journal
}

// failedLines takes failed lines to where they were asked for.
type failedLines struct {
	add   func([]bulk.Failure) (int64, error)
	close func() error
}

// failures opens the report, or shows the first failures.
func (c *command) failures(f *importFlags, reader *bulk.Reader, journal *bulk.Journal) (failedLines, error) {
	if f.errors != "" {
		report, err := bulk.OpenReport(f.errors, bulk.Format(f.format), reader, journal)
		if err != nil {
			return failedLines{}, err //nolint:wrapcheck // it says what it did
		}
		return failedLines{add: report.Add, close: report.Close}, nil
	}
	shown := 0
	add := func(failures []bulk.Failure) (int64, error) {
		for _, each := range failures {
			if shown++; shown <= shownFailures {
				c.note("line %d %s: %s: %s", each.Number, printable(each.Thing.Name), each.Code, printable(each.Message))
			} else if shown == shownFailures+1 {
				c.note("more lines failed; --errors FILE keeps them all")
			}
		}
		return 0, nil
	}
	return failedLines{add: add, close: func() error { return nil }}, nil
}

// importProgress shows how far an import is: a bar over the bytes of the file
// for people, a line every tenth of it for logs, or every 100,000 lines when
// its length is not known.
type importProgress struct {
	c       *command
	size    int64
	started time.Time
	// before are the lines of earlier runs.
	before int64

	mu  sync.Mutex
	bar *progressbar.ProgressBar
	// next is what the next line of a log waits for.
	next int64
	// told is when a failed call was last told of.
	told time.Time
}

const (
	// linesPerNote is the distance of notes without a known size.
	linesPerNote = 100_000
	// tellEvery spaces notes of calls that failed.
	tellEvery = 10 * time.Second
)

func (c *command) importProgress(size, before int64) *importProgress {
	p := &importProgress{c: c, size: size, before: before, started: c.Now()}
	if c.Terminal {
		total := size
		if size == 0 {
			total = -1
		}
		p.bar = progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(c.Err), progressbar.OptionSetWidth(32), progressbar.OptionFullWidth(),
			progressbar.OptionShowBytes(true), progressbar.OptionThrottle(100*time.Millisecond))
	}
	return p
}

// update shows totals.
func (p *importProgress) update(t bulk.Totals, offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	lines := t.Lines()
	rate := int64(float64(lines-p.before) / max(0.001, p.c.Now().Sub(p.started).Seconds()))
	if p.bar != nil {
		p.bar.Describe(fmt.Sprintf("%d lines, %d failed, %d/s", lines, t.Failed, rate))
		_ = p.bar.Set64(offset)
		return
	}
	if p.size > 0 {
		if tenth := offset * 10 / p.size; tenth >= p.next {
			p.next = tenth + 1
			p.c.note("%d %%: %d lines, %d failed, %d/s", offset*100/p.size, lines, t.Failed, rate)
		}
		return
	}
	if lines >= p.next {
		p.next = lines - lines%linesPerNote + linesPerNote
		p.c.note("%d lines, %d failed, %d/s", lines, t.Failed, rate)
	}
}

// retried tells now and then why the import does not get on.
func (p *importProgress) retried(err error, _ time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := p.c.Now(); p.told.IsZero() || now.Sub(p.told) >= tellEvery {
		p.told = now
		p.c.note("trying again: %v", err)
	}
}

// end leaves the bar standing.
func (p *importProgress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		p.c.note("")
	}
}

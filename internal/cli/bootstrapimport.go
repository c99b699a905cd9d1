package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/muster-iot/muster/internal/apiclient"
)

const (
	// maxAssignmentLine bounds a line of NDJSON, in bytes.
	maxAssignmentLine = 64 << 10
	// paramColumn and confColumn begin the names of columns of CSV.
	paramColumn = "param."
	confColumn  = "conf."
)

// assignmentColumns are those of CSV, besides the ones with a beginning.
func assignmentColumns() []string {
	return []string{"certificate", "claim", "ca", "serial", "account", "template", "enabled", "expires", "note"}
}

// assignmentLine is a line of a file: an assignment, or why it is none.
type assignmentLine struct {
	number int
	want   apiclient.BootstrapAssignment
	err    error
}

// lineResult is what became of a line.
type lineResult struct {
	Line   int    `json:"line"`
	ID     string `json:"assignmentId,omitempty"`
	Change string `json:"change,omitempty"`
	Error  string `json:"error,omitempty"`
}

// bootstrapImport makes or changes many.
func (c *command) bootstrapImport() *cobra.Command {
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Make or change the assignments of a CSV or NDJSON file", Args: cobra.ExactArgs(1),
		Long: `Makes or changes the assignments of a file; - is standard input.

CSV begins with a header. The columns are certificate, claim, ca and serial, which say
for whom a line is, as the flags of "assign" do, then account, template, enabled (true
or false), expires, note, param.NAME for each parameter and conf.NAME for each word of
configuration; empty values count as absent. NDJSON has one object a line, as the API
takes it: {"kind":"SERIAL","caCertificateId":"5f3c…","serial":"B7-0042","account":
"210000000001","templateName":"pumps","parameters":{"Site":"leeds"}}.

Each line is carried out by itself, and says so when it cannot be; the file may be
imported again. Lines that failed are shown, and the command fails if there is one.`,
		Example: `  muster bootstrap import devices.csv
  muster bootstrap import devices.ndjson -o json
  printf 'ca,serial,account,template,param.Site\n5f3c…,B7-0042,210000000001,pumps,leeds\n' | muster bootstrap import - --format csv`,
	}
	kind := cmd.Flags().String("format", "", "csv or ndjson (default by the name of the file)")
	format := c.outputFlag(cmd)
	return Call(c.Options, cmd, func(cmd *cobra.Command, api *apiclient.Client, args []string) error {
		in := cmd.InOrStdin()
		if args[0] != standardInput {
			file, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("read assignments: %w", err)
			}
			defer file.Close() //nolint:errcheck // it is only read
			in = file
		}
		csvFile := strings.HasSuffix(args[0], ".csv")
		switch *kind {
		case "csv", "ndjson":
			csvFile = *kind == "csv"
		case "":
			if !csvFile && !strings.HasSuffix(args[0], ".ndjson") {
				return errors.New("--format must be csv or ndjson: the name of the file does not say it")
			}
		default:
			return errors.New("--format must be csv or ndjson")
		}
		next := ndjsonAssignments(in)
		if csvFile {
			var err error
			if next, err = csvAssignments(in); err != nil {
				return err
			}
		}
		results, counts, failed, err := sendAssignments(cmd.Context(), api, next)
		if err != nil {
			return err
		}
		return errors.Join(c.print(*format, importTable(results, counts)), failed)
	})
}

func importTable(results []lineResult, counts map[string]int) table {
	t := table{header: []string{"RESULT", "LINES", "WHY"}, raw: results}
	for _, change := range []string{"CREATED", "UPDATED", "UNCHANGED"} {
		t.add(strings.ToLower(change), strconv.Itoa(counts[change]), "")
	}
	for _, r := range results {
		if r.Error != "" {
			t.add("failed", "line "+strconv.Itoa(r.Line), r.Error)
		}
	}
	return t
}

// sendAssignments imports all lines, and says how many became what. The second error is
// that of lines that failed.
func sendAssignments(ctx context.Context, api *apiclient.Client, next func() (assignmentLine, error)) (results []lineResult, counts map[string]int, failed, err error) {
	counts = map[string]int{}
	var batch []assignmentLine
	send := func() error {
		if len(batch) == 0 {
			return nil
		}
		want := make([]apiclient.BootstrapAssignment, len(batch))
		for i := range batch {
			want[i] = batch[i].want
		}
		done, err := api.ImportBootstrapAssignments(ctx, want)
		if err == nil && len(done) != len(batch) {
			err = fmt.Errorf("the server answers %d of %d lines", len(done), len(batch))
		}
		if err != nil {
			return fmt.Errorf("lines %d to %d: %w", batch[0].number, batch[len(batch)-1].number, err)
		}
		for i, one := range done {
			r := lineResult{Line: batch[i].number, ID: one.ID, Change: one.Change}
			if one.Error.Code != "" {
				r.Error = one.Error.Code + ": " + one.Error.Message
			}
			counts[one.Change]++
			results = append(results, r)
		}
		batch = batch[:0]
		return nil
	}
	for {
		line, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, nil, err
		}
		if line.err != nil {
			results = append(results, lineResult{Line: line.number, Error: line.err.Error()})
			continue
		}
		if batch = append(batch, line); len(batch) == apiclient.MaxBootstrapImport {
			if err := send(); err != nil {
				return nil, nil, nil, err
			}
		}
	}
	if err := send(); err != nil {
		return nil, nil, nil, err
	}
	slices.SortFunc(results, func(a, b lineResult) int { return a.Line - b.Line })
	bad := 0
	for _, r := range results {
		if r.Error != "" {
			bad++
		}
	}
	if bad > 0 {
		failed = fmt.Errorf("%d of %d lines failed", bad, len(results))
	}
	return results, counts, failed, nil
}

// ndjsonAssignments reads one object a line; empty lines count, and are nothing.
func ndjsonAssignments(in io.Reader) func() (assignmentLine, error) {
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, maxAssignmentLine)
	number := 0
	return func() (assignmentLine, error) {
		for scanner.Scan() {
			number++
			text := bytes.TrimSpace(scanner.Bytes())
			if len(text) == 0 {
				continue
			}
			line := assignmentLine{number: number}
			decoder := json.NewDecoder(bytes.NewReader(text))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(&line.want); err != nil {
				line.err = fmt.Errorf("is no assignment: %w", err)
			} else if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
				line.err = errors.New("has something after its object")
			}
			return line, nil
		}
		if err := scanner.Err(); err != nil {
			return assignmentLine{}, fmt.Errorf("line %d: %w", number+1, err)
		}
		return assignmentLine{}, io.EOF
	}
}

// csvAssignments reads a header, and returns what reads the lines.
func csvAssignments(in io.Reader) (func() (assignmentLine, error), error) {
	r := csv.NewReader(in)
	r.ReuseRecord = true
	header, err := r.Read()
	if err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	header = slices.Clone(header)
	for i, name := range header {
		known := slices.Contains(assignmentColumns(), name) || len(name) > len(paramColumn) && strings.HasPrefix(name, paramColumn) ||
			len(name) > len(confColumn) && strings.HasPrefix(name, confColumn)
		if !known {
			return nil, fmt.Errorf("column %q is none of %s, param.NAME, conf.NAME", name, strings.Join(assignmentColumns(), ", "))
		}
		if slices.Contains(header[:i], name) {
			return nil, fmt.Errorf("column %q comes twice", name)
		}
	}
	return func() (assignmentLine, error) {
		fields, err := r.Read()
		if wrong, ok := errors.AsType[*csv.ParseError](err); ok {
			if errors.Is(err, csv.ErrFieldCount) {
				return assignmentLine{number: wrong.Line, err: fmt.Errorf("has %d fields, the header %d", len(fields), len(header))}, nil
			}
			return assignmentLine{}, fmt.Errorf("line %d: %w", wrong.Line, wrong.Err)
		}
		if err != nil {
			return assignmentLine{}, err //nolint:wrapcheck // io.EOF, or the file's
		}
		line := assignmentLine{}
		line.number, _ = r.FieldPos(0)
		line.err = line.read(header, fields)
		return line, nil
	}, nil
}

// read takes the fields of a line of CSV.
func (l *assignmentLine) read(header, fields []string) error {
	var w whoFlags
	a := &l.want
	plain := map[string]*string{
		"certificate": &w.certificate, "claim": &w.claim, "ca": &w.ca, "serial": &w.serial,
		"account": &a.Account, "template": &a.Template, "expires": &a.Expires, "note": &a.Note,
	}
	for i, name := range header {
		value := fields[i]
		if value == "" {
			continue
		}
		into := plain[name]
		switch {
		case into != nil:
			*into = strings.Clone(value)
		case name == "enabled":
			enabled, err := strconv.ParseBool(value)
			if err != nil {
				return fmt.Errorf("enabled: %q is neither true nor false", value)
			}
			a.Enabled = &enabled
		case strings.HasPrefix(name, paramColumn):
			setPair(&a.Parameters, name[len(paramColumn):], value)
		default:
			setPair(&a.Configuration, name[len(confColumn):], value)
		}
	}
	given := 0
	for _, one := range []string{w.certificate, w.claim, w.ca} {
		if one != "" {
			given++
		}
	}
	if given != 1 || w.serial != "" && w.ca == "" {
		return errors.New("must have one of certificate, claim and ca, and a serial only with ca")
	}
	return w.who(a)
}

func setPair(into *map[string]string, name, value string) {
	if *into == nil {
		*into = map[string]string{}
	}
	(*into)[name] = strings.Clone(value)
}

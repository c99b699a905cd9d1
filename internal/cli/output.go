package cli

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/spf13/cobra"
)

// Output formats.
const (
	formatTable = "table"
	formatJSON  = "json"
	formatCSV   = "csv"
)

// table is an answer in rows; raw is the same for JSON.
type table struct {
	header []string
	// exact keeps the header as it is: it names fields.
	exact bool
	rows  [][]string
	raw   any
}

// add appends a row.
func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// outputFlag registers --output, which is checked before the command runs.
func (c *command) outputFlag(cmd *cobra.Command) *string {
	format := cmd.Flags().StringP("output", "o", formatTable, "table, json or csv")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return checkShape(cmd, *format) }
	return format
}

// print writes a table in the format that was asked for and checked before.
func (c *command) print(format string, t table) error {
	switch format {
	case formatJSON:
		return c.printJSON(t.raw)
	case formatCSV:
		w := csv.NewWriter(c.Out)
		if err := w.WriteAll(append([][]string{t.names()}, inert(t.rows)...)); err != nil {
			return fmt.Errorf("write csv: %w", err)
		}
		return nil
	default:
		return c.printTable(t)
	}
}

// printTable aligns columns. What devices wrote is made harmless first: it
// could hold sequences that steer a terminal.
func (c *command) printTable(t table) error {
	var aligned strings.Builder
	w := tabwriter.NewWriter(&aligned, 0, 0, 2, ' ', 0)
	for i, row := range append([][]string{t.header}, t.rows...) {
		cells := make([]string, len(row))
		for j, cell := range row {
			cells[j] = printable(cell)
		}
		line := strings.Join(cells, "\t")
		if i == 0 && !t.exact {
			line = strings.ToUpper(line)
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return fmt.Errorf("write table: %w", err)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	for line := range strings.Lines(aligned.String()) {
		if _, err := fmt.Fprintln(c.Out, strings.TrimRight(line, " \n")); err != nil {
			return fmt.Errorf("write table: %w", err)
		}
	}
	return nil
}

// printJSON writes indented JSON.
func (c *command) printJSON(value any) error {
	encoder := json.NewEncoder(c.Out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("write json: %w", err)
	}
	return nil
}

// inert makes cells harmless that a spreadsheet would take for formulas: they are
// what devices wrote. Numbers stay as they are.
func inert(rows [][]string) [][]string {
	for _, row := range rows {
		for i, cell := range row {
			if cell == "" || !strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
				continue
			}
			if _, err := strconv.ParseFloat(cell, 64); err != nil {
				row[i] = "'" + cell
			}
		}
	}
	return rows
}

// names is the header for machines.
func (t *table) names() []string {
	if t.exact {
		return t.header
	}
	out := make([]string, len(t.header))
	for i, h := range t.header {
		out[i] = strings.ReplaceAll(strings.ToLower(h), " ", "_")
	}
	return out
}

// printable replaces what is no visible text by its escaped form.
func printable(text string) string {
	bad := func(r rune) bool { return !unicode.IsPrint(r) }
	if strings.IndexFunc(text, bad) < 0 {
		return text
	}
	quoted := strconv.QuoteToGraphic(text)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// pairs renders attributes in order of their names.
func pairs(attributes map[string]string) string {
	parts := make([]string, 0, len(attributes))
	for _, name := range sortedKeys(attributes) {
		parts = append(parts, name+"="+attributes[name])
	}
	return strings.Join(parts, " ")
}

package bulk

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
)

// Failure is a line that was not imported.
type Failure struct {
	Line
	Code, Message string
}

// codeInvalidLine is of lines that the server has not seen.
const codeInvalidLine = "InvalidLine"

// columnText holds a line whose fields cannot be told.
const columnText = errorPrefix + "text"

// Report writes failed lines in the format of the file, each with its error
// ahead, so that they can be mended and imported again.
type Report struct {
	file   *os.File
	format Format
	// header is that of the file, without the columns of an earlier report;
	// kept says which of its columns those are.
	header []string
	kept   []int
	parse  *csvRecords
	// size is how much has been written.
	size int64
}

// OpenReport begins a report, or goes on with that of an interrupted import. A
// file that has something in it and is no such report is left alone.
func OpenReport(path string, format Format, of *Reader, journal *Journal) (*Report, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open error report: %w", err)
	}
	r := &Report{file: file, format: format, size: journal.ReportSize()}
	if format == CSV {
		for i, column := range of.csv.header {
			if !strings.HasPrefix(column, errorPrefix) {
				r.header, r.kept = append(r.header, column), append(r.kept, i)
			}
		}
		r.parse = &csvRecords{header: of.csv.header}
		r.parse.restart()
	}
	if err := r.begin(journal.Resumed()); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return r, nil
}

// reportExists refuses to write over a file that may be somebody's work.
func reportExists(path string) error {
	return fmt.Errorf("error report %s exists; remove it or name another", path)
}

// begin takes off what the journal does not know of.
func (r *Report) begin(resumed bool) error {
	info, err := r.file.Stat()
	if err != nil {
		return fmt.Errorf("open error report: %w", err)
	}
	if info.Mode().IsRegular() {
		if info.Size() > 0 && !resumed {
			return reportExists(r.file.Name())
		}
		if info.Size() < r.size {
			return fmt.Errorf("error report %s is shorter than the interrupted import left it; remove the journal to begin anew", r.file.Name())
		}
		if err := r.file.Truncate(r.size); err != nil {
			return fmt.Errorf("open error report: %w", err)
		}
		if _, err := r.file.Seek(0, io.SeekEnd); err != nil {
			return fmt.Errorf("open error report: %w", err)
		}
	}
	if r.size > 0 || r.format != CSV {
		return nil
	}
	return r.write(encodeCSV(append([]string{errorPrefix + "line", errorPrefix + "code", errorPrefix + "message", columnText}, r.header...)))
}

// Add writes failures in one piece and returns the size of the report.
func (r *Report) Add(failures []Failure) (int64, error) {
	var b bytes.Buffer
	for _, f := range failures {
		if r.format == CSV {
			b.Write(r.csvLine(f))
			continue
		}
		line, err := jsonLine(f)
		if err != nil {
			return r.size, err
		}
		b.Write(line)
	}
	err := r.write(b.Bytes())
	return r.size, err
}

func (r *Report) write(b []byte) error {
	n, err := r.file.Write(b)
	r.size += int64(n)
	if err != nil {
		return fmt.Errorf("write error report: %w", err)
	}
	return nil
}

// csvLine has the fields of the line, or its text when those cannot be told.
func (r *Report) csvLine(f Failure) []byte {
	cells := []string{strconv.FormatInt(f.Number, 10), f.Code, f.Message, ""}
	fields, err := r.parse.fields(f.Raw)
	if err != nil || len(fields) != len(r.parse.header) {
		cells[3] = strings.ToValidUTF8(string(f.Raw), "\ufffd")
		return encodeCSV(append(cells, make([]string, len(r.header))...))
	}
	if i := slices.Index(r.parse.header, columnText); i >= 0 {
		cells[3] = fields[i]
	}
	for _, i := range r.kept {
		cells = append(cells, fields[i])
	}
	return encodeCSV(cells)
}

// encodeCSV is one record.
func encodeCSV(cells []string) []byte {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	_ = w.Write(cells) // a buffer takes all
	w.Flush()
	return b.Bytes()
}

// jsonError is the member that a report adds.
type jsonError struct {
	Line    int64  `json:"line"`
	Code    string `json:"code"`
	Message string `json:"message"`
	// Text is the line when it is no object.
	Text string `json:"text,omitempty"`
}

// jsonLine is the line's object with the error added.
func jsonLine(f Failure) ([]byte, error) {
	object := map[string]json.RawMessage{}
	e := jsonError{Line: f.Number, Code: f.Code, Message: f.Message}
	if json.Unmarshal(f.Raw, &object) != nil || f.Err != nil {
		// An object with two members of one name must not lose one of them here.
		object, e.Text = map[string]json.RawMessage{}, string(f.Raw)
	}
	var err error
	if object[memberError], err = json.Marshal(e); err != nil {
		return nil, fmt.Errorf("write error report: %w", err)
	}
	line, err := json.Marshal(object)
	if err != nil {
		return nil, fmt.Errorf("write error report: %w", err)
	}
	return append(line, '\n'), nil
}

// Close ends the report.
func (r *Report) Close() error {
	if err := r.file.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return fmt.Errorf("close error report: %w", err)
	}
	return nil
}

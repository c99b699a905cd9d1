package bulk

import (
	"errors"
	"io"

	"github.com/muster-iot/muster/internal/apiclient"
)

// Format is how a file writes things.
type Format string

// Formats.
const (
	// CSV has a header and the columns name, type, billing_group, groups with
	// ';' in between, and attr.NAME for each attribute.
	CSV Format = "csv"
	// NDJSON has an object a line with the members name, type, billing_group,
	// groups and attributes.
	NDJSON Format = "ndjson"
)

// Line is one record of a file.
type Line struct {
	// Index counts records from 0, Number is the line of the file on which the
	// record begins.
	Index, Number int64
	Thing         apiclient.ImportThing
	// Raw is the record without its line end, or its beginning when it is too
	// long.
	Raw []byte
	// Err is why the record is no thing; the file can be read on.
	Err error
}

// size is about the most that the line takes in a request, and in memory until
// it is done.
func (l *Line) size() int {
	const members = 100 // names of members, and what stands around values
	n := members + jsonSize(l.Thing.Name) + jsonSize(l.Thing.TypeName) + jsonSize(l.Thing.BillingGroup)
	for _, group := range l.Thing.Groups {
		n += jsonSize(group)
	}
	for name, value := range l.Thing.Attributes {
		n += jsonSize(name) + jsonSize(value)
	}
	return max(n, len(l.Raw))
}

// jsonSize is the most that a text takes with what stands around it: six bytes
// where it is escaped.
func jsonSize(text string) int {
	n := len(text) + 4
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			n += 5
		}
	}
	return n
}

// Reader reads a file of things.
type Reader struct {
	split *splitter
	index int64
	csv   *csvRecords
	// failed repeats an error that ended the file.
	failed error
}

// NewReader begins to read a file; a CSV file's header is read at once.
func NewReader(r io.Reader, format Format) (*Reader, error) {
	split, err := newSplitter(r, format == CSV)
	if err != nil {
		return nil, err
	}
	reader := &Reader{split: split}
	if format == CSV {
		if reader.csv, err = newCSVRecords(split); err != nil {
			return nil, err
		}
	}
	return reader, nil
}

// Offset is how many bytes of the file have been read as lines.
func (r *Reader) Offset() int64 { return r.split.offset }

// Next returns the next line, or io.EOF. Any other error ends the file.
func (r *Reader) Next() (Line, error) {
	if r.failed != nil {
		return Line{}, r.failed
	}
	raw, number, err := r.split.next()
	line := Line{Index: r.index, Number: number, Raw: append([]byte(nil), trimEnd(raw)...)}
	switch {
	case errors.Is(err, errTooLong):
		line.Err = errTooLong
	case err != nil:
		r.failed = err
		return Line{}, err
	case r.csv != nil:
		line.Thing, line.Err = r.csv.thing(line.Raw)
	default:
		line.Thing, line.Err = parseJSONThing(line.Raw)
	}
	r.index++
	return line, nil
}

package bulk

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/apiclient"
)

// Names of columns, and of the members of NDJSON.
const (
	columnName    = "name"
	columnType    = "type"
	columnBilling = "billing_group"
	columnGroups  = "groups"
	// attributePrefix begins the columns of attributes.
	attributePrefix = "attr."
	// errorPrefix begins columns that a report adds. They are no part of a
	// thing, so that a report can be mended and imported.
	errorPrefix = "error."
)

// groupSeparator stands between groups in their column.
const groupSeparator = ";"

var errNotUTF8 = errors.New("the line is not valid UTF-8")

// csvRecords turns records of CSV into things.
type csvRecords struct {
	header []string
	feed   feed
	reader *csv.Reader
}

// newCSVRecords reads and checks the header.
func newCSVRecords(s *splitter) (*csvRecords, error) {
	raw, _, err := s.next()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("the file is empty; it must begin with a header such as name,type,groups,attr.site")
	}
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	c := &csvRecords{}
	c.restart()
	header, err := c.fields(trimEnd(raw))
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	c.header = slices.Clone(header)
	return c, checkHeader(c.header)
}

// checkHeader refuses columns that nobody would read.
func checkHeader(header []string) error {
	for i, column := range header {
		switch {
		case slices.Contains(header[:i], column):
			return fmt.Errorf("header: there are two columns %q", column)
		case column == columnName, column == columnType, column == columnBilling, column == columnGroups:
		case strings.HasPrefix(column, attributePrefix) && column != attributePrefix:
		case strings.HasPrefix(column, errorPrefix):
		default:
			return fmt.Errorf("header: column %q is none of name, type, billing_group, groups, attr.NAME", column)
		}
	}
	if !slices.Contains(header, columnName) {
		return errors.New("header: there is no column name")
	}
	return nil
}

// feed is a reader over one record at a time.
type feed struct{ rest []byte }

// Read implements io.Reader.
func (f *feed) Read(p []byte) (int, error) {
	if len(f.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// restart forgets what the reader may hold of a bad record.
func (c *csvRecords) restart() {
	c.feed.rest = nil
	c.reader = csv.NewReader(&c.feed)
	c.reader.FieldsPerRecord = -1
	c.reader.ReuseRecord = true
}

// fields parses one record. The slice is valid until the next call.
func (c *csvRecords) fields(raw []byte) ([]string, error) {
	if !utf8.Valid(raw) {
		return nil, errNotUTF8
	}
	c.feed.rest = append(slices.Clip(raw), '\n')
	before := c.reader.InputOffset()
	fields, err := c.reader.Read()
	if err == nil && c.reader.InputOffset()-before != int64(len(raw))+1 {
		err = errors.New("quotes are not balanced")
	}
	if err == nil {
		return fields, nil
	}
	c.restart()
	if parse, ok := errors.AsType[*csv.ParseError](err); ok {
		err = parse.Err
	}
	if errors.Is(err, io.EOF) {
		err = csv.ErrQuote
	}
	return nil, err
}

// thing parses one record.
func (c *csvRecords) thing(raw []byte) (apiclient.ImportThing, error) {
	var t apiclient.ImportThing
	fields, err := c.fields(raw)
	if err != nil {
		return t, err
	}
	if len(fields) != len(c.header) {
		return t, fmt.Errorf("the line has %d fields, the header %d", len(fields), len(c.header))
	}
	for i, value := range fields {
		switch column := c.header[i]; column {
		case columnName:
			t.Name = value
		case columnType:
			t.TypeName = value
		case columnBilling:
			t.BillingGroup = value
		case columnGroups:
			t.Groups = splitGroups(value)
		default:
			name, ok := strings.CutPrefix(column, attributePrefix)
			if !ok {
				continue
			}
			if t.Attributes == nil {
				t.Attributes = make(map[string]string, len(c.header))
			}
			t.Attributes[name] = value
		}
	}
	return t, nil
}

// splitGroups reads a list of groups.
func splitGroups(value string) []string {
	var groups []string
	for group := range strings.SplitSeq(value, groupSeparator) {
		if group = strings.TrimSpace(group); group != "" {
			groups = append(groups, group)
		}
	}
	return groups
}

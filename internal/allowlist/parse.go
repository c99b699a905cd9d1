package allowlist

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/muster-iot/muster/internal/fault"
)

const (
	// MaxEntries is the most that a list has.
	MaxEntries = 200_000
	// MaxBytes is the most that an upload has, sealed or not.
	MaxBytes = 64 << 20
	// maxLine bounds a JSON line or a CSV record in bytes.
	maxLine = 8 << 10
	// documentVersion is the version of the JSON form.
	documentVersion = 1
)

// Format is how a list is written.
type Format string

// Formats.
const (
	// JSON is one document with all entries, the only form that names its list and its
	// time, and so the one that cannot be mistaken for another.
	JSON Format = "JSON"
	// JSONLines has one entry in each line.
	JSONLines Format = "JSONL"
	// CSV has a header that names the columns.
	CSV Format = "CSV"
)

// document is a list as it was read.
type document struct {
	format Format
	// list and issued are of JSON only.
	list    string
	issued  time.Time
	entries []Entry
}

// parse reads a list in any of the formats and checks it. Errors name entries by
// their number from 0, and no content.
func parse(text []byte) (*document, error) {
	if !utf8.Valid(text) {
		return nil, fault.New(fault.InvalidRequest, "list: is not UTF-8 text")
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	trimmed := bytes.TrimLeft(text, " \t\r\n")
	var d *document
	var err error
	switch {
	case len(trimmed) == 0:
		return nil, fault.New(fault.InvalidRequest, "list: is empty")
	case trimmed[0] != '{':
		d, err = parseCSV(text)
	case isDocument(trimmed):
		d, err = parseDocument(trimmed)
	default:
		d, err = parseLines(trimmed)
	}
	if err != nil {
		return nil, err
	}
	return d, checkAll(d.entries)
}

// isDocument tells the document form, whose first object has entries, from lines.
func isDocument(text []byte) bool {
	dec := json.NewDecoder(bytes.NewReader(text))
	if _, err := dec.Token(); err != nil {
		return false
	}
	name, err := dec.Token()
	if err != nil {
		return false
	}
	return slices.Contains([]string{"v", "list", "model", "issuedAt", "entries"}, asString(name)) && !lineHasSerial(text)
}

// lineHasSerial reports whether the first line is an entry by itself.
func lineHasSerial(text []byte) bool {
	first, _, _ := bytes.Cut(text, []byte("\n"))
	if len(first) > maxLine {
		return false
	}
	var e struct {
		Serial *string `json:"serial"`
	}
	return json.Unmarshal(first, &e) == nil && e.Serial != nil
}

func asString(token json.Token) string {
	s, _ := token.(string)
	return s
}

// parseDocument reads the JSON form entry by entry, so that its bound holds before
// memory is taken.
func parseDocument(text []byte) (*document, error) {
	d := &document{format: JSON}
	dec := json.NewDecoder(bytes.NewReader(text))
	var model, issued string
	var version int
	seen := map[string]bool{}
	if _, err := dec.Token(); err != nil {
		return nil, notJSON(err)
	}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, notJSON(err)
		}
		name := asString(token)
		if seen[name] {
			return nil, fault.New(fault.InvalidRequest, "list: a field comes twice")
		}
		seen[name] = true
		var into any
		switch name {
		case "v":
			into = &version
		case "list":
			into = &d.list
		case "model":
			into = &model
		case "issuedAt":
			into = &issued
		case "entries":
			if d.entries, err = decodeEntries(dec); err != nil {
				return nil, err
			}
			continue
		default:
			return nil, fault.New(fault.InvalidRequest, "list: has a field other than v, list, model, issuedAt and entries")
		}
		if err := dec.Decode(into); err != nil {
			return nil, fault.New(fault.InvalidRequest, "%s: has the wrong type", name)
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, notJSON(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fault.New(fault.InvalidRequest, "list: there is text after the document")
	}
	if version != documentVersion {
		return nil, fault.New(fault.InvalidRequest, "v: must be %d", documentVersion)
	}
	if !namePattern.MatchString(d.list) {
		return nil, fault.New(fault.InvalidRequest, "list: must be the id of the list")
	}
	var err error
	if d.issued, err = time.Parse(time.RFC3339, issued); err != nil {
		return nil, fault.New(fault.InvalidRequest, "issuedAt: must be a time in RFC 3339")
	}
	for i := range d.entries {
		if d.entries[i].Model == "" {
			d.entries[i].Model = model
		}
	}
	return d, nil
}

func notJSON(err error) error {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fault.New(fault.InvalidRequest, "list: is not JSON at byte %d", syntax.Offset)
	}
	return fault.New(fault.InvalidRequest, "list: is not JSON, it ends too early or is damaged")
}

// decodeEntries reads an array of entries.
func decodeEntries(dec *json.Decoder) ([]Entry, error) {
	if token, err := dec.Token(); err != nil || token != json.Delim('[') {
		return nil, fault.New(fault.InvalidRequest, "entries: must be an array")
	}
	dec.DisallowUnknownFields()
	entries := []Entry{}
	for dec.More() {
		if len(entries) == MaxEntries {
			return nil, fault.New(fault.InvalidRequest, "entries: a list has 1 to %d", MaxEntries)
		}
		var e Entry
		if err := dec.Decode(&e); err != nil {
			return nil, entryFault(len(entries), err)
		}
		entries = append(entries, e)
	}
	if _, err := dec.Token(); err != nil {
		return nil, notJSON(err)
	}
	return entries, nil
}

// entryFault says why an entry cannot be read, without what is in it.
func entryFault(i int, err error) error {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
		return fault.New(fault.InvalidRequest, "%s.%s: has the wrong type", line(i), wrong.Field)
	}
	if strings.HasPrefix(err.Error(), "json: unknown field ") {
		return fault.New(fault.InvalidRequest, "%s: has a field that entries do not have", line(i))
	}
	return fault.New(fault.InvalidRequest, "%s: is no JSON object that can be read", line(i))
}

// parseLines reads one entry from each line; empty lines do not count.
func parseLines(text []byte) (*document, error) {
	d := &document{format: JSONLines}
	for one := range bytes.Lines(text) {
		one = bytes.TrimSpace(one)
		if len(one) == 0 {
			continue
		}
		i := len(d.entries)
		switch {
		case len(one) > maxLine:
			return nil, fault.New(fault.InvalidRequest, "%s: has more than %d bytes", line(i), maxLine)
		case i == MaxEntries:
			return nil, fault.New(fault.InvalidRequest, "entries: a list has 1 to %d", MaxEntries)
		}
		dec := json.NewDecoder(bytes.NewReader(one))
		dec.DisallowUnknownFields()
		var e Entry
		if err := dec.Decode(&e); err != nil {
			return nil, entryFault(i, err)
		}
		if _, err := dec.Token(); !errors.Is(err, io.EOF) {
			return nil, fault.New(fault.InvalidRequest, "%s: there is text after the object", line(i))
		}
		d.entries = append(d.entries, e)
	}
	return d, nil
}

// columns are the fields that CSV may have.
var columns = map[string]func(*Entry, string) bool{
	"serial":         func(e *Entry, v string) bool { e.Serial = v; return true },
	"model":          func(e *Entry, v string) bool { e.Model = v; return true },
	"spkiSha256":     func(e *Entry, v string) bool { e.Fingerprint = v; return true },
	"certificateId":  func(e *Entry, v string) bool { e.CertificateID = v; return true },
	"generation":     func(e *Entry, v string) bool { e.Generation = v; return true },
	"manufacturedAt": func(e *Entry, v string) bool { e.ManufacturedAt = v; return true },
	"batch":          func(e *Entry, v string) bool { e.Batch = v; return true },
	"vetReport":      func(e *Entry, v string) bool { e.VetReport = v; return true },
	"expiresAt":      func(e *Entry, v string) bool { e.ExpiresAt = v; return true },
	"vetted": func(e *Entry, v string) bool {
		if v == "" {
			return true
		}
		var err error
		e.Vetted, err = strconv.ParseBool(v)
		return err == nil
	},
}

// parseCSV reads RFC 4180 with a header.
func parseCSV(text []byte) (*document, error) {
	d := &document{format: CSV}
	r := csv.NewReader(bytes.NewReader(text))
	r.ReuseRecord = true
	header, err := r.Read()
	if err != nil {
		return nil, fault.New(fault.InvalidRequest, "list: the header of the CSV cannot be read")
	}
	names := slices.Clone(header)
	for i, name := range names {
		switch {
		case columns[name] == nil:
			return nil, fault.New(fault.InvalidRequest, "list: is no JSON, and what the header of the CSV has in column %d is no field of an entry", i+1)
		case slices.Contains(names[:i], name):
			return nil, fault.New(fault.InvalidRequest, "list: column %d has the field of an earlier one", i+1)
		}
	}
	if !slices.Contains(names, "serial") {
		return nil, fault.New(fault.InvalidRequest, "list: the header has no column serial")
	}
	for {
		row, err := r.Read()
		if errors.Is(err, io.EOF) {
			return d, nil
		}
		i := len(d.entries)
		if err != nil {
			return nil, fault.New(fault.InvalidRequest, "%s: is no CSV record with %d columns", line(i), len(names))
		}
		if i == MaxEntries {
			return nil, fault.New(fault.InvalidRequest, "entries: a list has 1 to %d", MaxEntries)
		}
		var e Entry
		for column, value := range row {
			if len(value) > maxLine || !columns[names[column]](&e, strings.Clone(value)) {
				return nil, fault.New(fault.InvalidRequest, "%s.%s: cannot be read", line(i), names[column])
			}
		}
		d.entries = append(d.entries, e)
	}
}

package registrationtask

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxLine bounds a line in bytes, without its end.
const maxLine = 256 << 10

// line is one line of a file that is not empty.
type line struct {
	// number counts from 1, with empty lines; end is where it ends in the file.
	number, end int64
	parameters  map[string]string
	// problem is why it is no line of a task; nil when it is one.
	problem error
}

// lineReader reads a file from where a line begins.
type lineReader struct {
	from   *bufio.Reader
	number int64
	offset int64
}

// newLineReader goes on at a line and its offset.
func newLineReader(r io.Reader, number, offset int64) *lineReader {
	return &lineReader{from: bufio.NewReaderSize(r, maxLine+len("\r\n")), number: number, offset: offset}
}

// next returns the next line that is not empty, or io.EOF. What lies behind the
// limit of a line is skipped and never in memory.
func (l *lineReader) next() (line, error) {
	for {
		text, err := l.from.ReadSlice('\n')
		size := int64(len(text))
		long := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			var more []byte
			more, err = l.from.ReadSlice('\n')
			size += int64(len(more))
		}
		long = long || len(bytes.TrimRight(text, "\r\n")) > maxLine
		if err != nil && !errors.Is(err, io.EOF) {
			return line{}, fmt.Errorf("read line %d: %w", l.number, err)
		}
		if size == 0 {
			return line{}, io.EOF
		}
		l.offset += size
		read := line{number: l.number, end: l.offset}
		l.number++
		switch text = bytes.TrimSpace(text); {
		case long:
			read.problem = fmt.Errorf("the line has more than %d bytes", maxLine)
			return read, nil
		case len(text) > 0:
			read.parameters, read.problem = parseLine(text)
			return read, nil
		}
	}
}

// parseLine reads one flat object of texts.
func parseLine(text []byte) (map[string]string, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("the line is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.New("the line is no JSON object")
	}
	parameters := map[string]string{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, errors.New("the line is not JSON")
		}
		member := name.(string) //nolint:forcetypeassert // the decoder gives nothing else in an object
		value, err := d.Token()
		if err != nil {
			return nil, errors.New("the line is not JSON")
		}
		given, ok := value.(string)
		if !ok {
			return nil, fmt.Errorf("the value of %.128q must be a text", member)
		}
		if _, twice := parameters[member]; twice {
			return nil, fmt.Errorf("the member %.128q comes twice", member)
		}
		parameters[member] = given
	}
	if _, err := d.Token(); err != nil {
		return nil, errors.New("the line is not JSON")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something behind the object")
	}
	return parameters, nil
}

package bulk

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

const (
	// maxRecord bounds a record of the file, its line end included: the largest
	// thing there can be has about 50 KB.
	maxRecord = 64 << 10
	// keptText is how much of an overlong record goes into a report.
	keptText = 1 << 10
)

// errTooLong is a record over maxRecord; the splitter has skipped it.
var errTooLong = fmt.Errorf("the line is longer than %d bytes", maxRecord)

// Byte order marks.
var (
	utf8Mark    = []byte("\xef\xbb\xbf")
	utf16Little = []byte("\xff\xfe")
	utf16Big    = []byte("\xfe\xff")
)

// splitter cuts a file into records of bounded length. A record is a line; with
// quotes, a line end inside a quoted field of CSV does not end it.
type splitter struct {
	r      *bufio.Reader
	quotes bool
	// line is the number of the line that is read next, from 1.
	line int64
	// offset is how many bytes of the file have been cut.
	offset int64
	buf    []byte
}

// newSplitter skips a byte order mark and refuses that of UTF-16.
func newSplitter(r io.Reader, quotes bool) (*splitter, error) {
	s := &splitter{r: bufio.NewReaderSize(r, 64<<10), quotes: quotes, line: 1}
	mark, err := s.r.Peek(3)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read the file: %w", err)
	}
	switch {
	case bytes.HasPrefix(mark, utf8Mark):
		n, err := s.r.Discard(len(utf8Mark))
		s.offset += int64(n)
		return s, err //nolint:wrapcheck // three bytes that were just seen
	case bytes.HasPrefix(mark, utf16Little), bytes.HasPrefix(mark, utf16Big):
		return nil, errors.New("the file is UTF-16; save it as UTF-8")
	}
	return s, nil
}

// next returns a record with its line end, which the last one may lack, and the
// number of its first line. Blank lines are skipped. The bytes are valid until
// the next call. With errTooLong they are the beginning of the record.
func (s *splitter) next() (record []byte, line int64, err error) {
	for {
		record, line, err = s.cut()
		if err != nil || len(trimEnd(record)) > 0 {
			return record, line, err
		}
	}
}

// cut is next for a record that may be blank.
func (s *splitter) cut() (record []byte, line int64, err error) {
	s.buf = s.buf[:0]
	line = s.line
	var state quoteState
	tooLong := false
	for {
		piece, err := s.r.ReadSlice('\n')
		s.offset += int64(len(piece))
		if s.quotes {
			state.scan(piece)
		}
		ended := err == nil && !state.inside
		if room := maxRecord - len(s.buf); len(piece) > room {
			tooLong = true
			piece = piece[:room]
		}
		s.buf = append(s.buf, piece...)
		if err == nil {
			s.line++
		}
		switch {
		case tooLong && state.inside:
			return s.buf[:keptText], line, fmt.Errorf("line %d: a quoted field does not end within %d bytes; is a quote missing?", line, maxRecord)
		case errors.Is(err, bufio.ErrBufferFull), err == nil && !ended:
			continue
		case err != nil && !errors.Is(err, io.EOF):
			return nil, line, fmt.Errorf("read the file behind line %d: %w", s.line, err)
		case err != nil && len(s.buf) == 0:
			return nil, line, io.EOF
		case tooLong:
			return s.buf[:keptText], line, errTooLong
		}
		return s.buf, line, nil
	}
}

// quoteState follows the quotes of CSV: a field is quoted when its first
// character is a quote.
type quoteState struct {
	inside bool
	// middle says that a field has begun, closing that its quote may have ended.
	middle, closing bool
}

func (q *quoteState) scan(piece []byte) {
	for _, c := range piece {
		switch {
		case q.inside:
			if c == '"' {
				q.inside, q.closing = false, true
			}
			continue
		case c == '"' && (q.closing || !q.middle):
			// The second of a doubled quote, or the first of a field.
			q.inside = true
		}
		q.closing = false
		q.middle = c != ',' && c != '\n'
	}
}

// trimEnd takes the line end off.
func trimEnd(record []byte) []byte {
	record = bytes.TrimSuffix(record, []byte("\n"))
	return bytes.TrimSuffix(record, []byte("\r"))
}

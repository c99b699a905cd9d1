package bulk

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
)

// journalVersion is in every journal; another one is not read.
const journalVersion = 1

// Heading says which import a journal is of. One with another heading is not
// gone on with.
type Heading struct {
	Version int `json:"v"`
	// SHA256 is the checksum of the file.
	SHA256 string `json:"sha256"`
	Format Format `json:"format"`
	Mode   string `json:"mode"`
	// Server and Account are where the things go.
	Server  string `json:"server"`
	Account string `json:"account"`
	// Report is the path of the error report, empty for none.
	Report string `json:"report,omitempty"`
}

// differs names what is not as in another heading, "" for nothing.
func (h Heading) differs(from Heading) string {
	for _, each := range []struct{ what, a, b string }{
		{"content of the file", h.SHA256, from.SHA256},
		{"format", string(h.Format), string(from.Format)},
		{"--mode", h.Mode, from.Mode},
		{"server", h.Server, from.Server},
		{"account", h.Account, from.Account},
		{"--errors", h.Report, from.Report},
	} {
		if each.a != each.b {
			return fmt.Sprintf("the %s (there %q, now %q)", each.what, each.b, each.a)
		}
	}
	return ""
}

// Span is a run of lines that are done, with what became of them.
type Span struct {
	// From and To are indexes of lines; To is done as well.
	From int64 `json:"from"`
	To   int64 `json:"to"`
	Totals
	// Report is the size of the error report with these lines.
	Report int64 `json:"report,omitempty"`
}

// Journal remembers on disk which lines of a file are done. It is locked, so
// that no two imports write it.
type Journal struct {
	file *os.File
	// done are spans in order, those that touch joined.
	done   Spans
	totals Totals
	report int64
	// resumed says that there was a journal of the same import.
	resumed bool
}

// ErrJournalLocked is a journal that another import writes.
var ErrJournalLocked = errors.New("another import of this file is under way")

// OpenJournal begins a journal or goes on with one of the same import.
func OpenJournal(path string, heading Heading) (*Journal, error) {
	heading.Version = journalVersion
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := &Journal{file: file}
	if err := j.load(heading); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return j, nil
}

// load reads what there is. A last entry that was not written to its end does
// not count; what it was about is done again.
func (j *Journal) load(heading Heading) error {
	err := syscall.Flock(int(j.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrJournalLocked
	}
	if err != nil {
		return fmt.Errorf("lock journal: %w", err)
	}
	r := bufio.NewReader(io.LimitReader(j.file, 1<<30))
	first, err := r.ReadBytes('\n')
	if errors.Is(err, io.EOF) {
		return j.restart(heading)
	}
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	var found Heading
	if json.Unmarshal(first, &found) != nil || found.Version != journalVersion {
		return fmt.Errorf("%s is no journal of an import; name another with --journal", j.file.Name())
	}
	if what := heading.differs(found); what != "" {
		return fmt.Errorf("journal %s is of an interrupted import that differs in %s; finish that one, remove the journal, or name another with --journal",
			j.file.Name(), what)
	}
	j.resumed = true
	good := int64(len(first))
	for {
		entry, err := r.ReadBytes('\n')
		var span Span
		if err != nil || json.Unmarshal(entry, &span) != nil || span.From < 0 || span.To < span.From {
			break
		}
		good += int64(len(entry))
		j.add(span)
	}
	return j.keep(good)
}

// restart writes a heading into an empty journal. From then on the error report
// is known to be this import's, so a file that is there before is refused first.
func (j *Journal) restart(heading Heading) error {
	if info, err := os.Stat(heading.Report); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
		return errors.Join(reportExists(heading.Report), os.Remove(j.file.Name()))
	}
	if err := j.keep(0); err != nil {
		return err
	}
	return j.append(heading)
}

// keep cuts the file off and goes on behind it.
func (j *Journal) keep(size int64) error {
	err := j.file.Truncate(size)
	if err == nil {
		_, err = j.file.Seek(size, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	return nil
}

// append writes one entry.
func (j *Journal) append(entry any) error {
	data, err := json.Marshal(entry)
	if err == nil {
		_, err = j.file.Write(append(bytes.TrimSpace(data), '\n'))
	}
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

// Record notes that a span is done.
func (j *Journal) Record(span Span) error {
	j.add(span)
	return j.append(span)
}

// add joins a span with those it touches.
func (j *Journal) add(span Span) {
	j.totals = j.totals.and(span.Totals)
	j.report = max(j.report, span.Report)
	i, _ := slices.BinarySearchFunc(j.done, span, func(a, b Span) int { return cmp.Compare(a.From, b.From) })
	j.done = slices.Insert(j.done, i, Span{From: span.From, To: span.To})
	joined := j.done[:max(0, i-1)]
	for _, s := range j.done[max(0, i-1):] {
		if n := len(joined); n > 0 && s.From <= joined[n-1].To+1 {
			joined[n-1].To = max(joined[n-1].To, s.To)
			continue
		}
		joined = append(joined, s)
	}
	j.done = joined
}

// Spans are runs of lines in order.
type Spans []Span

// Has reports whether a line is in one of them.
func (s Spans) Has(index int64) bool {
	i, found := slices.BinarySearchFunc(s, index, func(s Span, index int64) int { return cmp.Compare(s.From, index) })
	return found || i > 0 && index <= s[i-1].To
}

// Done are the lines that are done at the moment.
func (j *Journal) Done() Spans {
	if j == nil {
		return nil
	}
	return slices.Clone(j.done)
}

// Totals are those of all that is done.
func (j *Journal) Totals() Totals {
	if j == nil {
		return Totals{}
	}
	return j.totals
}

// Resumed reports whether an interrupted import is gone on with.
func (j *Journal) Resumed() bool { return j != nil && j.resumed }

// ReportSize is how long the error report is that belongs to what is done.
func (j *Journal) ReportSize() int64 {
	if j == nil {
		return 0
	}
	return j.report
}

// Close leaves the journal for a later import to go on.
func (j *Journal) Close() error {
	if err := j.file.Close(); err != nil {
		return fmt.Errorf("close journal: %w", err)
	}
	return nil
}

// Remove ends the journal of an import that is done.
func (j *Journal) Remove() error {
	if err := os.Remove(j.file.Name()); err != nil {
		return fmt.Errorf("remove journal: %w", errors.Join(err, j.file.Close()))
	}
	return j.Close()
}

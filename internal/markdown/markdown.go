// Package markdown writes documents for people, in Markdown that text from people and
// devices cannot break out of. It knows nothing of what the documents are about, does
// no I/O and has no goroutines.
package markdown

import (
	"fmt"
	"strings"
	"time"
)

// Document is a text in the making.
type Document struct{ strings.Builder }

// Line writes a line.
func (d *Document) Line(format string, args ...any) { _, _ = fmt.Fprintf(d, format+"\n", args...) }

// Row writes a row of a table. What is in it comes from people and devices, and stays
// in its cell.
func (d *Document) Row(cells ...string) {
	safe := make([]string, len(cells))
	for i, text := range cells {
		safe[i] = cell(text)
	}
	d.Line("| %s |", strings.Join(safe, " | "))
}

// Head writes the head of a table.
func (d *Document) Head(names ...string) {
	d.Line("")
	d.Line("| %s |", strings.Join(names, " | "))
	d.Line("|%s", strings.Repeat("---|", len(names)))
}

// Quote writes longer text that somebody has written as Markdown, as what somebody has
// written: headings in it are not headings of the document.
func (d *Document) Quote(text string) {
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		d.Line("%s", strings.TrimRight("> "+strings.ReplaceAll(line, "<", "&lt;"), " \r"))
	}
}

// cell is text that cannot leave its cell, nor be taken for markup.
func cell(text string) string {
	if text == "" {
		return "–"
	}
	return Inline(text)
}

// Inline is text from elsewhere within a line.
func Inline(text string) string {
	return strings.NewReplacer(
		"\r\n", " ", "\n", " ", "\r", " ", "\\", "\\\\", "|", "\\|", "<", "&lt;", ">", "&gt;", "`", "\\`", "*", "\\*", "_", "\\_", "[", "\\[", "]", "\\]",
	).Replace(text)
}

// When writes a time for people, nothing for none.
func When(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format("2006-01-02 15:04:05 UTC")
}

package markdown

import (
	"strings"
	"testing"
	"time"
)

func TestTextStaysWhereItIsPut(t *testing.T) {
	t.Parallel()
	var d Document
	cells := []string{"a|b\nc", "", "<b>*x*_y_[z](u)`q`\\"}
	d.Head("One", "Two", "Three")
	d.Row(cells...)
	d.Quote("# heading <script>\r\n\nmore \n")
	want := "\n| One | Two | Three |\n|---|---|---|\n" +
		`| a\|b c | – | &lt;b&gt;\*x\*\_y\_\[z\](u)` + "\\`q\\`" + `\\ |` + "\n" +
		"> # heading &lt;script>\n>\n> more\n"
	if got := d.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if cells[0] != "a|b\nc" {
		t.Error("the caller's cells were changed")
	}
	if got := When(time.Time{}) + When(time.Unix(0, 0)); got != "1970-01-01 00:00:00 UTC" || strings.Contains(got, "\n") {
		t.Errorf("times: %q", got)
	}
}

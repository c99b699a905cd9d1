package bulk

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/apiclient"
)

// read returns all lines of a file.
func read(t *testing.T, format Format, text string) (lines []Line, err error) {
	t.Helper()
	r, err := NewReader(strings.NewReader(text), format)
	if err != nil {
		return nil, err
	}
	for {
		line, err := r.Next()
		if errors.Is(err, io.EOF) {
			if r.Offset() != int64(len(text)) {
				t.Errorf("offset %d at the end of %d bytes", r.Offset(), len(text))
			}
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
		if line.Index != int64(len(lines)) {
			t.Errorf("line %d has index %d", len(lines), line.Index)
		}
		lines = append(lines, line)
	}
}

// summary is one line for people: where, what, or what is wrong.
func summary(l Line) string {
	if l.Err != nil {
		return fmt.Sprintf("%d error %v", l.Number, l.Err)
	}
	return fmt.Sprintf("%d %q %q %q %q %v", l.Number, l.Thing.Name, l.Thing.TypeName, l.Thing.BillingGroup, l.Thing.Groups, l.Thing.Attributes)
}

func summaries(lines []Line) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = summary(l)
	}
	return out
}

func TestReadCSV(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxRecord)
	for _, c := range []struct {
		name, text string
		want       []string
		fails      string
	}{
		{
			name: "all columns", text: "name,type,billing_group,groups,attr.a,attr.b:c\nx,T,B,g; h ;,1,\n",
			want: []string{`1 "x" "T" "B" ["g" "h"] map[a:1 b:c:]`},
		},
		{name: "byte order mark and CRLF", text: "\xef\xbb\xbfname,attr.a\r\nx,1\r\n\r\ny,2", want: []string{`2 "x" "" "" [] map[a:1]`, `4 "y" "" "" [] map[a:2]`}},
		{name: "quotes", text: "name,attr.a\n\"x\",\"a\"\"b\"\n\"y\n1\",\"2\r\n,\"\nz,3\n", want: []string{
			`2 "x" "" "" [] map[a:a"b]`, `3 "y\n1" "" "" [] map[a:2` + "\n" + `,]`, `6 "z" "" "" [] map[a:3]`,
		}},
		{name: "bad quotes harm their line only", text: "name,attr.a\na\"b,1\n\"x\"y,2\nz,3\n", want: []string{
			`2 error bare " in non-quoted-field`, `3 error extraneous or missing " in quoted-field`, `4 "z" "" "" [] map[a:3]`,
		}},
		{name: "an open quote at the end", text: "name\nx\n\"y\nz\n", want: []string{`2 "x" "" "" [] map[]`, `3 error extraneous or missing " in quoted-field`}},
		{name: "an open quote far from the end", text: "name\nx\n\"y\n" + long + "\nz\n", want: []string{`2 "x" "" "" [] map[]`}, fails: "line 3: a quoted field does not end"},
		{name: "a long line", text: "name\nx\n" + long + long + "\nz\n", want: []string{
			`2 "x" "" "" [] map[]`, "3 error the line is longer than 65536 bytes", `4 "z" "" "" [] map[]`,
		}},
		{name: "not UTF-8", text: "name\nx\xff\ny\n", want: []string{"2 error the line is not valid UTF-8", `3 "y" "" "" [] map[]`}},
		{name: "too few and too many fields", text: "name,type\nx\ny,T,z\n", want: []string{
			"2 error the line has 1 fields, the header 2", "3 error the line has 3 fields, the header 2",
		}},
		{name: "columns of a report", text: "error.line,error.code,name\n7,Bad,x\n", want: []string{`2 "x" "" "" [] map[]`}},
		{name: "empty", text: "", fails: "the file is empty"},
		{name: "blank", text: "\n\r\n", fails: "the file is empty"},
		{name: "only a header", text: "name\n"},
		{name: "unknown column", text: "name,colour\n", fails: `column "colour" is none of`},
		{name: "semicolons", text: "name;type\n", fails: `column "name;type" is none of`},
		{name: "no name", text: "type\n", fails: "there is no column name"},
		{name: "two of a kind", text: "name,attr.a,attr.a\n", fails: `two columns "attr.a"`},
		{name: "attribute without a name", text: "name,attr.\n", fails: `column "attr."`},
		{name: "UTF-16", text: "\xff\xfen\x00a\x00", fails: "UTF-16"},
		{name: "a long header", text: long + "\n", fails: "header: the line is longer"},
		{name: "one line with old line ends", text: "name\rx\ry\r", fails: `column "name\rx\ry"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := c.text
			if c.name == "all columns" {
				c.want = []string{`2 "x" "T" "B" ["g" "h"] map[a:1 b:c:]`}
			}
			checkRead(t, CSV, text, c.want, c.fails)
		})
	}
}

func checkRead(t *testing.T, format Format, text string, want []string, fails string) {
	t.Helper()
	lines, err := read(t, format, text)
	if (err == nil) != (fails == "") || err != nil && !strings.Contains(err.Error(), fails) {
		t.Fatalf("got %v, want %q", err, fails)
	}
	if want == nil {
		want = []string{}
	}
	if diff := cmp.Diff(want, summaries(lines)); diff != "" {
		t.Error(diff)
	}
}

func TestReadNDJSON(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxRecord)
	for _, c := range []struct {
		name, text string
		want       []string
		fails      string
	}{
		{name: "all members", text: `{"name":"x","type":"T","billing_group":"B","groups":["g","h"],"attributes":{"a":"1","b":""},"error":{"line":3}}`, want: []string{
			`1 "x" "T" "B" ["g" "h"] map[a:1 b:]`,
		}},
		{name: "byte order mark, CRLF, blanks", text: "\xef\xbb\xbf{\"name\":\"x\"}\r\n\n  {\"name\":\"y\"} \n", want: []string{`1 "x" "" "" [] map[]`, `3 "y" "" "" [] map[]`}},
		{name: "nulls are absent", text: `{"name":"x","type":null,"groups":null}`, want: []string{`1 "x" "" "" [] map[]`}},
		{name: "a member twice", text: `{"name":"x","name":"y"}` + "\n" + `{"name":"x","attributes":{"a":"1","a":"2"}}`, want: []string{
			`1 error there are two members "name"`, `2 error attributes: there are two members "a"`,
		}},
		{name: "unknown members", text: `{"Name":"x"}` + "\n" + `{"name":"x","thingTypeName":"T"}`, want: []string{
			`1 error Name: no member of a thing; there are name, type, billing_group, groups and attributes`,
			`2 error thingTypeName: no member of a thing; there are name, type, billing_group, groups and attributes`,
		}},
		{name: "wrong kinds", text: `{"name":7}` + "\n" + `{"groups":"g"}` + "\n" + `{"attributes":[]}` + "\n" + `[]` + "\n" + `{"attributes":{"a":1}}`, want: []string{
			`1 error name: a number stands where a text must`, `2 error groups: a string stands where a text must`, `3 error attributes: there is no object`,
			`4 error there is no object`, `5 error attributes: a: a number stands where a text must`,
		}},
		{name: "broken", text: `{"name":"x"` + "\n" + `{"name":"x"}{}` + "\n" + `{"name":"y"}`, want: []string{
			`1 error the object does not end`, `2 error there is more than one object on the line`, `3 "y" "" "" [] map[]`,
		}},
		{name: "a long line", text: `{"name":"x"}` + "\n" + long + long + "\n" + `{"name":"y"}`, want: []string{
			`1 "x" "" "" [] map[]`, "2 error the line is longer than 65536 bytes", `3 "y" "" "" [] map[]`,
		}},
		{name: "a long last line", text: long + long, want: []string{"1 error the line is longer than 65536 bytes"}},
		{name: "not UTF-8", text: "{\"name\":\"\xff\"}", want: []string{"1 error the line is not valid UTF-8"}},
		{name: "empty", text: ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			checkRead(t, NDJSON, c.text, c.want, c.fails)
		})
	}
}

// What is written is read again.
func TestWriteThing(t *testing.T) {
	t.Parallel()
	things := []apiclient.ImportThing{
		{Name: "x", TypeName: "T", BillingGroup: "B", Groups: []string{"g", "h"}, Attributes: map[string]string{"a": "1", "<b>": "[=]"}},
		{Name: "y"},
	}
	var text strings.Builder
	for _, thing := range things {
		if err := WriteThing(&text, thing); err != nil {
			t.Fatal(err)
		}
	}
	lines, err := read(t, NDJSON, text.String())
	if err != nil || len(lines) != 2 {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	for i, l := range lines {
		if diff := cmp.Diff(things[i], l.Thing); diff != "" || l.Err != nil {
			t.Error(l.Err, diff)
		}
	}
	if err := WriteThing(brokenWriter{}, things[0]); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("got %v", err)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

// A reader that breaks is not the end of the file.
func TestReadFails(t *testing.T) {
	t.Parallel()
	broken := errors.New("disk is gone")
	r, err := NewReader(io.MultiReader(strings.NewReader("name\nx\n"), failing{broken}), CSV)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := r.Next(); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// Whatever a file holds, each of its lines is a thing or an error, numbers rise,
// and what is read as a thing survives being written and read again.
func FuzzThingsCSV(f *testing.F) {
	f.Add("name,type,groups,attr.a\nx,T,g;h,1\n\"y\",,,\"a\"\"\n\"\n")
	f.Add("\xef\xbb\xbfname\r\nx\r\n\"")
	f.Add("name,attr.a\n\"a\nb\",\"c\nd,e\"\nx\"y,\"z\"z\n\r\n,,,\n")
	f.Fuzz(func(t *testing.T, text string) { fuzzRead(t, CSV, text) })
}

func FuzzThingsNDJSON(f *testing.F) {
	f.Add(`{"name":"x","type":"T","groups":["g"],"attributes":{"a":"1"}}` + "\n" + `{"name":"y"}`)
	f.Add("{\"name\":\"\\ud800\",\"error\":{\"a\":[[[]]]}}\r\n[1]\n{}{}\n\x00")
	f.Fuzz(func(t *testing.T, text string) { fuzzRead(t, NDJSON, text) })
}

func fuzzRead(t *testing.T, format Format, text string) {
	t.Helper()
	lines, err := read(t, format, text)
	number := int64(0)
	var things []apiclient.ImportThing
	for _, l := range lines {
		if l.Number <= number {
			t.Fatalf("line %d stands behind line %d", l.Number, number)
		}
		number = l.Number
		if l.Err == nil {
			things = append(things, l.Thing)
		} else if len(l.Raw) == 0 {
			t.Errorf("line %d failed and is not kept", l.Number)
		}
	}
	if err != nil || len(things) == 0 {
		return
	}
	// The report of a line is a file with the same line.
	r, err := NewReader(strings.NewReader(text), format)
	if err != nil {
		t.Fatal(err)
	}
	var failures []Failure
	for _, l := range lines {
		if l.Err == nil {
			failures = append(failures, Failure{Line: l, Code: "Code", Message: "a \"message\"\n"})
		}
	}
	again, err := read(t, format, reportText(t, format, r, failures))
	if err != nil {
		t.Fatal(err)
	}
	var back []apiclient.ImportThing
	for _, l := range again {
		if l.Err != nil {
			t.Fatalf("%q became %v", text, l.Err)
		}
		back = append(back, l.Thing)
	}
	if diff := cmp.Diff(things, back); diff != "" {
		t.Errorf("%q: %s", text, diff)
	}
}

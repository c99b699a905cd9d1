package registrationtask

import (
	"strings"
	"testing"
)

// Files as people make them, and lines as they should not be: each says what is
// wrong with it, and the ones around it are registered.
func TestLines(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	pad := func(n int) string {
		const around = len(`{"name":"","x":""}`)
		return strings.Repeat("x", n-around)
	}
	type entry struct{ text, name, problem string }
	entries := []entry{
		{`{"name":"crlf"}` + "\r\n", "crlf", ""},
		{"\n", "", ""},
		{"\r\n", "", ""},
		{" \t \n", "", ""},
		{"  {\"name\" : \"spaced\"}  \n", "spaced", ""},
		{`{"name":"long","x":"` + pad(300<<10) + "\"}\n", "", "more than 262144 bytes"},
		{`{"name":"whole","x":"` + pad(maxLine-len("whole")) + "\"}\n", "whole", ""},
		{`{"name":"whole-crlf","x":"` + pad(maxLine-len("whole-crlf")) + "\"}\r\n", "whole-crlf", ""},
		{`{"name":"over","x":"` + pad(maxLine+1-len("over")) + "\"}\n", "", "more than 262144 bytes"},
		{"{\"name\":\"\xff\"}\n", "", "not UTF-8"},
		{`{"name":{"Ref":"x"}}` + "\n", "", `"name" must be a text`},
		{`{"name":["x"]}` + "\n", "", `"name" must be a text`},
		{`{"name":1}` + "\n", "", `"name" must be a text`},
		{`{"name":null}` + "\n", "", `"name" must be a text`},
		{`{"name":"a","name":"b"}` + "\n", "", `"name" comes twice`},
		{`{"name":"a"}{"name":"b"}` + "\n", "", "behind the object"},
		{`{"name":"a"` + "\n", "", "not JSON"},
		{`{"name"}` + "\n", "", "not JSON"},
		{`["name"]` + "\n", "", "no JSON object"},
		{`"name"` + "\n", "", "no JSON object"},
		{"null\n", "", "no JSON object"},
		{"name\n", "", "no JSON object"},
		{strings.Repeat("x", 3<<20) + "\n", "", "more than 262144 bytes"},
		{strings.Repeat(" ", 300<<10) + "\n", "", "more than 262144 bytes"},
		{`{"name":"last"}`, "last", ""},
	}
	var text strings.Builder
	var ends []int64
	for _, e := range entries {
		text.WriteString(e.text)
		ends = append(ends, int64(text.Len()))
	}
	task := r.ends(text.String())
	if task.Status != Completed {
		t.Fatalf("task %+v", task)
	}
	made := r.things(acct)
	failures, results := r.report(acct, task.ID, Errors), r.report(acct, task.ID, Results)
	for i, e := range entries {
		var l reportLine
		switch {
		case e.problem != "":
			if len(failures) == 0 {
				t.Fatalf("line %d has not failed", i+1)
			}
			l, failures = failures[0], failures[1:]
			if !strings.HasPrefix(*l.ErrorMessage, "InvalidRequestException: ") || !strings.Contains(*l.ErrorMessage, e.problem) {
				t.Errorf("line %d (%.40q): %q, want %q", i+1, e.text, *l.ErrorMessage, e.problem)
			}
		case e.name != "":
			if _, ok := made[e.name]; !ok || len(results) == 0 {
				t.Fatalf("line %d, %s, is not registered", i+1, e.name)
			}
			l, results = results[0], results[1:]
		default:
			continue
		}
		if l.LineNumber != int64(i+1) || l.Offset != ends[i] {
			t.Errorf("line %d that ends at %d is reported as %d, %d", i+1, ends[i], l.LineNumber, l.Offset)
		}
	}
	if len(failures)+len(results) != 0 || task.Succeeded != int64(len(made)) || len(made) != 5 {
		t.Errorf("task %+v, %d things, and in the reports also %v, %v", task, len(made), failures, results)
	}
}

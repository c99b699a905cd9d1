package fleetquery_test

import (
	"bufio"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleetquery"
)

// TestLanguage runs the script of documented behaviour.
func TestLanguage(t *testing.T) {
	t.Parallel()
	sections := readScript(t, "testdata/language.txtar")
	docs := readDocuments(t, sections["docs"])
	cases := 0
	for _, line := range lines(sections["cases"]) {
		query, want, ok := strings.Cut(line, " => ")
		if !ok {
			t.Fatalf("no => in case %q", line)
		}
		cases++
		parsed, err := fleetquery.Parse(query)
		if err != nil {
			t.Errorf("%s: %v", query, err)
			continue
		}
		var got []string
		for name, doc := range docs {
			if fleetquery.Eval(parsed.Root, doc) {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		if got == nil {
			got = []string{"-"}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s\n got %v\nwant %s", query, got, want)
		}
	}
	for _, line := range lines(sections["errors"]) {
		query, want, ok := strings.Cut(line, " !! ")
		if !ok {
			t.Fatalf("no !! in case %q", line)
		}
		cases++
		_, err := fleetquery.Parse(query)
		if fault.CodeOf(err) != fault.InvalidQuery || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n got %v\nwant %s", query, err, want)
		}
	}
	if cases < 120 {
		t.Errorf("only %d cases were read", cases)
	}
}

// readScript returns the sections of a txtar file by name.
func readScript(t *testing.T, path string) map[string]string {
	t.Helper()
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{}
	for _, f := range archive.Files {
		sections[f.Name] = string(f.Data)
	}
	return sections
}

// lines splits a section and drops comments. A line keeps its leading space:
// the empty query is a case.
func lines(section string) []string {
	var out []string
	scanner := bufio.NewScanner(strings.NewReader(section))
	for scanner.Scan() {
		if line := scanner.Text(); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out
}

// readDocuments flattens "name JSON" lines by the value rules of §4.2.
func readDocuments(t *testing.T, section string) map[string]fleetquery.Document {
	t.Helper()
	docs := map[string]fleetquery.Document{}
	for _, line := range lines(section) {
		name, text, _ := strings.Cut(line, " ")
		var tree map[string]any
		if err := json.Unmarshal([]byte(text), &tree); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		doc := fleetquery.Document{
			Fields:    map[string][]fleetquery.Value{},
			Unfielded: func(field string) bool { return !strings.HasPrefix(field, "connectivity.") },
		}
		flatten(doc.Fields, "", tree)
		docs[name] = doc
	}
	return docs
}

// flatten adds the leaves of a JSON tree under dotted names.
func flatten(fields map[string][]fleetquery.Value, at string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for key, child := range v {
			flatten(fields, strings.TrimPrefix(at+"."+key, "."), child)
		}
	case []any:
		for _, child := range v {
			flatten(fields, at, child)
		}
	case string:
		values := []fleetquery.Value{fleetquery.Text(v)}
		if strings.HasPrefix(at, "attributes.") {
			values = fleetquery.Attribute(v)
		}
		fields[at] = append(fields[at], values...)
	case float64:
		fields[at] = append(fields[at], fleetquery.Number(v))
	case bool:
		fields[at] = append(fields[at], fleetquery.Bool(v))
	}
}

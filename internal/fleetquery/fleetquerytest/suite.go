// Package fleetquerytest is the suite of the query language: scripts that people
// read, run against everything that answers queries, the plain evaluator and the
// fleet index. A script is a txtar file with these sections:
//
//	things    one document a line: its name and JSON in the form of a search
//	          answer, with shadow as an object; certificates beside it
//	groups    the same for thing groups
//	places    fields that hold places: path and order, LatLon or LonLat
//	cases     query => names of the matching documents in order; - for none
//	errors    query !! the whole message, by rules of the language
//	refusals  the same by rules about fields, which only an index knows
//
// A line that begins with # names the rule that the lines below show. The
// package is for tests; it has no goroutines.
package fleetquerytest

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

// Suite is one script.
type Suite struct {
	Things   []Thing
	Groups   []Group
	Places   []fleet.GeoLocation
	Cases    []Case
	Errors   []Case
	Refusals []Case
}

// Case is one line of a script.
type Case struct {
	// Rule is what the case shows.
	Rule  string
	Query string
	// Want is the names, or the message of an error.
	Want string
}

// Thing is a document of a script as its sources would hold it.
type Thing struct {
	Name         string            `json:"-"`
	ID           string            `json:"thingId"`
	TypeName     string            `json:"thingTypeName"`
	Groups       []string          `json:"thingGroupNames"`
	Attributes   map[string]string `json:"attributes"`
	Shadow       *Shadow           `json:"shadow"`
	Connectivity *Connectivity     `json:"connectivity"`
	Certificates []Certificate     `json:"certificates"`
}

// Shadow is the classic shadow with the named ones below it.
type Shadow struct {
	Desired  json.RawMessage   `json:"desired"`
	Reported json.RawMessage   `json:"reported"`
	Delta    json.RawMessage   `json:"delta"`
	Metadata json.RawMessage   `json:"metadata"`
	Named    map[string]Shadow `json:"name"`
}

// Connectivity is what is known of a thing that was connected once.
type Connectivity struct {
	Connected     bool   `json:"connected"`
	Timestamp     int64  `json:"timestamp"`
	Reason        string `json:"disconnectReason"`
	KeepAlive     int64  `json:"keepAliveDuration"`
	CleanSession  bool   `json:"cleanSession"`
	SessionExpiry int64  `json:"sessionExpiry"`
}

// Certificate is one that acts as the thing.
type Certificate struct {
	Status   string `json:"status"`
	NotAfter int64  `json:"notAfter"`
}

// Group is a thing group.
type Group struct {
	Name        string            `json:"-"`
	ID          string            `json:"thingGroupId"`
	Description string            `json:"thingGroupDescription"`
	Attributes  map[string]string `json:"attributes"`
	Parents     []string          `json:"parentGroupNames"`
}

// Search answers a query with the names of documents in order.
type Search func(query string) ([]string, error)

// Run runs all scripts of a folder; open makes the documents of one searchable.
// Refusals are cases only when fields are known.
func Run(t *testing.T, folder string, fieldsKnown bool, open func(*testing.T, Suite) Search) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	total := 0
	for _, file := range files {
		s, err := read(file)
		if err != nil {
			t.Fatal(err)
		}
		total += len(s.Cases) + len(s.Errors) + len(s.Refusals)
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			s.run(t, fieldsKnown, open(t, s))
		})
	}
	const atLeast = 300
	if total < atLeast {
		t.Errorf("only %d cases were read, want %d", total, atLeast)
	}
}

// run runs one script.
func (s *Suite) run(t *testing.T, fieldsKnown bool, search Search) {
	t.Helper()
	for _, c := range s.Cases {
		names, err := search(c.Query)
		got := strings.Join(names, " ")
		if got == "" {
			got = "-"
		}
		if err != nil || got != c.Want {
			t.Errorf("%s\n     %s\n got %s %v\nwant %s", c.Rule, c.Query, got, err, c.Want)
		}
	}
	refused := s.Errors
	if fieldsKnown {
		refused = slices.Concat(s.Errors, s.Refusals)
	}
	for _, c := range refused {
		_, err := search(c.Query)
		if fault.CodeOf(err) != fault.InvalidQuery || fault.From(err).Message != "Invalid query: "+c.Want {
			t.Errorf("%s\n     %s\n got %v\nwant %s", c.Rule, c.Query, err, c.Want)
		}
	}
}

// read reads one script.
func read(file string) (Suite, error) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		return Suite{}, fmt.Errorf("read %s: %w", file, err)
	}
	var s Suite
	for _, section := range archive.Files {
		if err := s.section(section.Name, string(section.Data)); err != nil {
			return Suite{}, fmt.Errorf("%s, section %s: %w", file, section.Name, err)
		}
	}
	return s, nil
}

// section reads one section.
func (s *Suite) section(name, data string) (err error) {
	switch name {
	case "things":
		s.Things, err = documents(data, func(t *Thing, name string) { t.Name = name })
	case "groups":
		s.Groups, err = documents(data, func(g *Group, name string) { g.Name = name })
	case "places":
		for line := range strings.Lines(data) {
			path, order, _ := strings.Cut(strings.TrimSpace(line), " ")
			s.Places = append(s.Places, fleet.GeoLocation{Name: path, LonLat: order == "LonLat"})
		}
	case "cases":
		s.Cases, err = cases(data, " => ")
	case "errors":
		s.Errors, err = cases(data, " !! ")
	case "refusals":
		s.Refusals, err = cases(data, " !! ")
	default:
		err = errors.New("there is no such section")
	}
	return err
}

// documents reads lines of names and JSON.
func documents[T any](data string, name func(*T, string)) ([]T, error) {
	var all []T
	for line := range strings.Lines(data) {
		of, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		var d T
		if err := json.Unmarshal([]byte(text), &d); err != nil {
			return nil, fmt.Errorf("document %s: %w", of, err)
		}
		name(&d, of)
		all = append(all, d)
	}
	return all, nil
}

// cases reads lines with a separator. A line keeps its leading space: the empty
// query is a case.
func cases(data, separator string) ([]Case, error) {
	var all []Case
	rule := ""
	for line := range strings.Lines(data) {
		line = strings.TrimSuffix(line, "\n")
		if text, ok := strings.CutPrefix(line, "# "); ok {
			rule = text
			continue
		}
		query, want, ok := strings.Cut(line, separator)
		if !ok || rule == "" {
			return nil, fmt.Errorf("%q is no case below a rule", line)
		}
		all = append(all, Case{Rule: rule, Query: query, Want: want})
	}
	return all, nil
}

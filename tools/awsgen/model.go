package main

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

//go:embed data
var data embed.FS

// model is an API description in the form of the published JSON models. Only
// the parts that the generator uses are read.
type model struct {
	Operations map[string]*operation `json:"operations"`
	Shapes     map[string]*shape     `json:"shapes"`
	// Amend is only in the files under data/.
	Amend map[string]amendment `json:"amend"`
}

// amendment corrects one operation of a model: labels that span slashes in
// practice, a reply that the service sends although the model has none, and
// limits of members that came without any.
type amendment struct {
	URI     string            `json:"requestUri"`
	Output  string            `json:"output"`
	Members map[string]string `json:"members"`
}

// operation is one call of the API.
type operation struct {
	HTTP struct {
		Method string `json:"method"`
		URI    string `json:"requestUri"`
		Status int    `json:"responseCode"`
	} `json:"http"`
	Input      ref   `json:"input"`
	Output     ref   `json:"output"`
	Errors     []ref `json:"errors"`
	Deprecated bool  `json:"deprecated"`
	// domain and scope come from data/scope.tsv.
	domain, scope string
}

// ref names a shape and, for members, where its value travels.
type ref struct {
	Shape        string `json:"shape"`
	Location     string `json:"location"`
	LocationName string `json:"locationName"`
}

// shape is a type of the API.
type shape struct {
	Type     string         `json:"type"`
	Members  map[string]ref `json:"members"`
	Required []string       `json:"required"`
	Payload  string         `json:"payload"`
	Member   ref            `json:"member"`
	Key      ref            `json:"key"`
	Value    ref            `json:"value"`
	Min      *float64       `json:"min"`
	Max      *float64       `json:"max"`
	Pattern  string         `json:"pattern"`
	Enum     []string       `json:"enum"`
	Secret   bool           `json:"sensitive"`
	IsError  bool           `json:"exception"`
	Error    struct {
		Status int `json:"httpStatusCode"`
	} `json:"error"`
}

// required reports whether the structure demands the member.
func (s *shape) required(member string) bool {
	return slices.Contains(s.Required, member)
}

// moduleDir asks the go command where a required module lies on disk.
func moduleDir(ctx context.Context, module string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output() //nolint:gosec // module is one of our constants.
	if err != nil {
		return "", fmt.Errorf("locate module %s: %w", module, err)
	}
	dir := strings.TrimSpace(string(out))
	if dir == "" {
		return "", fmt.Errorf("module %s is not downloaded; run go mod download", module)
	}
	return dir, nil
}

// loadModel reads the newest model of a service.
func loadModel(module, name string) (*model, error) {
	files, err := filepath.Glob(filepath.Join(module, "models", "apis", name, "*", "api-2.json"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no model of %s in %s", name, module)
	}
	sort.Strings(files)
	text, err := os.ReadFile(files[len(files)-1])
	if err != nil {
		return nil, err
	}
	m := &model{}
	if err := json.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("parse model of %s: %w", name, err)
	}
	return m, nil
}

// overlay adds data/<name>.json: operations that no available model has, and
// shapes whose published limits have been relaxed since.
func (m *model) overlay(name string) error {
	text, err := data.ReadFile("data/" + name + ".json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	extra := &model{}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(extra); err != nil {
		return fmt.Errorf("parse data/%s.json: %w", name, err)
	}
	for op, o := range extra.Operations {
		if _, ok := m.Operations[op]; ok {
			return fmt.Errorf("data/%s.json: %s is already in the model", name, op)
		}
		m.Operations[op] = o
	}
	maps.Copy(m.Shapes, extra.Shapes)
	for name, a := range extra.Amend {
		if err := m.amend(name, a); err != nil {
			return fmt.Errorf("amend %s: %w", name, err)
		}
	}
	return nil
}

// amend applies one correction and fails when it corrects nothing.
func (m *model) amend(name string, a amendment) error {
	op, ok := m.Operations[name]
	if !ok {
		return errors.New("no such operation")
	}
	if a.URI != "" {
		op.HTTP.URI = a.URI
	}
	if a.Output != "" {
		op.Output = ref{Shape: a.Output}
	}
	input := m.Shapes[op.Input.Shape]
	for member, id := range a.Members {
		r, ok := input.Members[member]
		if !ok {
			return fmt.Errorf("no member %s", member)
		}
		r.Shape = id
		input.Members[member] = r
	}
	return nil
}

// check fails on a reference to a shape that does not exist.
func (m *model) check() error {
	known := func(where string, r ref) error {
		if r.Shape == "" {
			return nil
		}
		if _, ok := m.Shapes[r.Shape]; !ok {
			return fmt.Errorf("%s refers to unknown shape %s", where, r.Shape)
		}
		return nil
	}
	for name, op := range m.Operations {
		for _, r := range append([]ref{op.Input, op.Output}, op.Errors...) {
			if err := known(name, r); err != nil {
				return err
			}
		}
	}
	for id, s := range m.Shapes {
		refs := []ref{s.Member, s.Key, s.Value}
		for _, r := range s.Members {
			refs = append(refs, r)
		}
		for _, r := range refs {
			if err := known(id, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// sortedKeys returns the keys of a map in order, for output that never varies.
func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

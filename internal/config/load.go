package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

// DefaultFile is read from the working directory when it exists and no file
// is named.
const DefaultFile = "muster.yaml"

// fileFlag and fileEnv name the settings file. It is no setting itself: a file
// cannot name itself.
const (
	fileFlag = "config"
	fileEnv  = envPrefix + "CONFIG"
)

// maxFileBytes bounds a settings file and a file that holds a store's URL.
const maxFileBytes = 1 << 20

// Problem is one thing that is wrong, named by setting and source.
type Problem struct {
	// Path is the setting, empty when a source as a whole is wrong.
	Path string
	// Source says where the value came from: a flag, a variable, a line of
	// the file; empty when rules between settings are broken.
	Source string
	// Rule says what is asked.
	Rule string
}

// String is one line for people.
func (p Problem) String() string {
	out := p.Rule
	if p.Path != "" {
		out = p.Path + ": " + out
	}
	if p.Source != "" {
		out += " (" + p.Source + ")"
	}
	return out
}

// InvalidError lists everything that is wrong with the settings at once.
type InvalidError struct{ Problems []Problem }

// Error lists the problems, one a line.
func (e *InvalidError) Error() string {
	lines := make([]string, 0, len(e.Problems)+1)
	lines = append(lines, "settings are not valid:")
	for _, p := range e.Problems {
		lines = append(lines, "  "+p.String())
	}
	return strings.Join(lines, "\n")
}

// AddFlags registers a flag for each setting, and --config.
func AddFlags(flags *pflag.FlagSet) {
	defaults := Default()
	for _, f := range fields() {
		flag := flags.VarPF(f.value(&defaults), f.path, "", f.usage)
		if flag.Value.Type() == "bool" {
			flag.NoOptDefVal = "true"
		}
		if flag.Value.Type() == "strings" {
			flag.Value = &repeated{}
		}
	}
	flags.String(fileFlag, "", "settings file (default "+DefaultFile+" when it exists)")
}

// repeated collects a flag that may be given several times.
type repeated struct{ list }

// Set adds to the list instead of replacing it.
func (r *repeated) Set(in string) error {
	var more list
	if err := more.Set(in); err != nil {
		return err
	}
	r.list = append(r.list, more...)
	return nil
}

// Sources is where settings come from. Load reads them anew each time, so the
// same value serves start, reload and check-config.
type Sources struct {
	// Flags were registered with AddFlags and parsed; nil for none.
	Flags *pflag.FlagSet
	// LookupEnv is os.LookupEnv outside tests; nil for no environment.
	LookupEnv func(string) (string, bool)
}

// Load collects, merges and validates. A bad setting yields *InvalidError with all
// problems of all sources.
func (src Sources) Load() (Settings, error) {
	all := fields()
	s := Default()
	origin := map[string]string{}
	problems := src.applyFile(all, &s, origin)
	problems = append(problems, src.applyEnv(all, &s, origin)...)
	problems = append(problems, src.applyFlags(all, &s, origin)...)
	problems = append(problems, resolveStore(&s, origin)...)
	for _, p := range s.validate() {
		if p.Source == "" {
			p.Source = origin[p.Path]
		}
		problems = append(problems, p)
	}
	if len(problems) > 0 {
		return Settings{}, &InvalidError{Problems: problems}
	}
	return s, nil
}

// File is the settings file in use: named, default, or "" for none.
func (src Sources) File() string {
	if src.Flags != nil {
		if f := src.Flags.Lookup(fileFlag); f != nil && f.Changed {
			return f.Value.String()
		}
	}
	if path, ok := src.env(fileEnv); ok {
		return path
	}
	if _, err := os.Stat(DefaultFile); err == nil {
		return DefaultFile
	}
	return ""
}

// env looks a variable up; an empty one counts as set.
func (src Sources) env(name string) (string, bool) {
	if src.LookupEnv == nil {
		return "", false
	}
	return src.LookupEnv(name)
}

// applyFile merges the settings file.
func (src Sources) applyFile(all []field, s *Settings, origin map[string]string) []Problem {
	path := src.File()
	if path == "" {
		return nil
	}
	data, err := readLimited(path)
	if err != nil {
		return []Problem{{Rule: err.Error()}}
	}
	entries, problems := parseFile(path, data)
	for _, e := range entries {
		f, known := lookup(all, e.path)
		if !known {
			problems = append(problems, Problem{Path: e.path, Source: e.source, Rule: "is not a setting"})
			continue
		}
		problems = append(problems, set(f, s, e.text, e.source, origin)...)
	}
	return problems
}

// applyEnv merges the variables.
func (src Sources) applyEnv(all []field, s *Settings, origin map[string]string) []Problem {
	var problems []Problem
	for i := range all {
		if in, ok := src.env(all[i].env()); ok {
			problems = append(problems, set(&all[i], s, in, all[i].env(), origin)...)
		}
	}
	return problems
}

// applyFlags merges the flags that were given.
func (src Sources) applyFlags(all []field, s *Settings, origin map[string]string) []Problem {
	if src.Flags == nil {
		return nil
	}
	var problems []Problem
	for i := range all {
		if f := src.Flags.Lookup(all[i].path); f != nil && f.Changed {
			problems = append(problems, set(&all[i], s, f.Value.String(), "--"+f.Name, origin)...)
		}
	}
	return problems
}

// set puts one text into the settings and remembers where it came from.
func set(f *field, s *Settings, in, source string, origin map[string]string) []Problem {
	origin[f.path] = source
	if err := f.value(s).Set(in); err != nil {
		return []Problem{{Path: f.path, Source: source, Rule: fmt.Sprintf("%q %v", in, err)}}
	}
	return nil
}

// resolveStore reads the engine's URL from its file.
func resolveStore(s *Settings, origin map[string]string) []Problem {
	if s.StoreFile == "" {
		return nil
	}
	if origin["store"] != "" {
		return []Problem{{Path: "store-file", Source: origin["store-file"], Rule: "cannot be set together with store"}}
	}
	data, err := readLimited(s.StoreFile)
	if err != nil {
		return []Problem{{Path: "store-file", Source: origin["store-file"], Rule: err.Error()}}
	}
	s.Store = strings.TrimSpace(string(data))
	return nil
}

// readLimited reads a file that is not larger than a settings file may be.
func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s does not exist", path)
	}
	if err != nil {
		return nil, err //nolint:wrapcheck // names the file itself
	}
	defer f.Close() //nolint:errcheck // nothing was written
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > maxFileBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFileBytes)
	}
	return data, nil
}

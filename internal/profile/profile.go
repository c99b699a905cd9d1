// Package profile reads and writes the shared credentials files of AWS tools:
// sections in brackets, one for each profile, with name = value lines. It knows
// the format and nothing about whose keys they are; it starts no goroutines.
package profile

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/muster-iot/muster/internal/datadir"
)

// Default is the profile that tools read when nobody names one.
const Default = "default"

// maxFile bounds a credentials file in bytes.
const maxFile = 1 << 20

// Key is what a profile holds.
type Key struct{ AccessKeyID, Secret, Token, Region string }

// section is the profile that a line begins; false for any other line.
func section(line string) (name string, ok bool) {
	line = strings.TrimSpace(line)
	if len(line) < 2 || line[0] != '[' || line[len(line)-1] != ']' {
		return "", false
	}
	return strings.TrimSpace(line[1 : len(line)-1]), true
}

// ValidName reports whether text may name a profile: it must not end its own
// section.
func ValidName(text string) bool {
	return text != "" && len(text) <= 128 && strings.TrimSpace(text) == text && !strings.ContainsFunc(text, func(r rune) bool {
		return r < ' ' || r == '[' || r == ']' || r == 0x7f
	})
}

// load reads a file of bounded size.
func load(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s is too large for a credentials file", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read credentials: %w", err)
	}
	return data, nil
}

// Read takes one profile from a file. The error of a file that does not exist
// is fs.ErrNotExist.
func Read(path, name string) (Key, error) {
	data, err := load(path)
	if err != nil {
		return Key{}, err
	}
	values, ok := parse(data, name)
	if !ok {
		return Key{}, fmt.Errorf("%s has no profile %q", path, name)
	}
	k := Key{
		AccessKeyID: values["aws_access_key_id"], Secret: values["aws_secret_access_key"],
		Token: values["aws_session_token"], Region: values["region"],
	}
	if k.AccessKeyID == "" || k.Secret == "" {
		return Key{}, fmt.Errorf("profile %q in %s has no aws_access_key_id and aws_secret_access_key", name, path)
	}
	return k, nil
}

// parse reads one section; ok is false when there is none.
func parse(data []byte, name string) (values map[string]string, ok bool) {
	values = map[string]string{}
	inside := false
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxFile+1)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if begun, is := section(line); is {
			inside = begun == name
			ok = ok || inside
			continue
		}
		if left, right, found := strings.Cut(line, "="); inside && found {
			values[strings.ToLower(strings.TrimSpace(left))] = strings.TrimSpace(right)
		}
	}
	return values, ok
}

// Has reports whether a file holds a profile, whatever is in it.
func Has(path, name string) (bool, error) {
	data, err := load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_, ok := parse(data, name)
	return ok, nil
}

// Write puts a key into the named profiles of a file, which nobody but its
// owner may read. Other profiles and comments stay as they are; a file that
// already says so is not touched.
func Write(path string, key Key, names ...string) error {
	old, err := load(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text := string(old)
	for _, name := range names {
		if !ValidName(name) {
			return fmt.Errorf("%q cannot name a profile", name)
		}
		text = replace(text, name, key)
	}
	if err == nil && text == string(old) {
		return nil
	}
	if err := datadir.WriteFile(path, []byte(text), datadir.PrivateMode); err != nil {
		return fmt.Errorf("write credentials: %w", err)
	}
	return nil
}

// replace returns the file with one profile's section exchanged or added.
func replace(text, name string, key Key) string {
	var before, after strings.Builder
	into, found := &before, false
	for line := range strings.Lines(text) {
		begun, is := section(line)
		switch {
		case is && begun == name:
			// What stood there goes, also in a second section of that name.
			into, found = nil, true
		case is && found:
			into = &after
		case is:
			into = &before
		}
		if into != nil {
			into.WriteString(line)
		}
	}
	head := before.String()
	if head != "" {
		head = strings.TrimRight(head, "\n") + "\n\n"
	}
	tail := after.String()
	if tail != "" {
		tail = "\n" + tail
	}
	return head + "[" + name + "]\n" + key.lines() + tail
}

// lines are the key as the file has it.
func (k Key) lines() string {
	var b strings.Builder
	for _, pair := range [][2]string{
		{"aws_access_key_id", k.AccessKeyID}, {"aws_secret_access_key", k.Secret}, {"aws_session_token", k.Token}, {"region", k.Region},
	} {
		if pair[1] != "" {
			b.WriteString(pair[0] + " = " + pair[1] + "\n")
		}
	}
	return b.String()
}

package config

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

// Function are the stand-ins for cloud functions.
type Function struct {
	// Targets are NAME=exec:/PATH or NAME=https://URL, read by ParseTarget.
	Targets []string
	// SecretFile holds the secret that signs requests to the URLs among them.
	SecretFile string
}

// Target is where a function is. One of Path and URL is set.
type Target struct{ Name, Path, URL string }

// functionPattern is the rule of AWS Lambda for names.
var functionPattern = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// execPrefix marks a function on this machine.
const execPrefix = "exec:"

// ParseTarget reads one target. An address without TLS must be of this machine.
func ParseTarget(text string) (Target, error) {
	name, at, ok := strings.Cut(text, "=")
	if !ok || !functionPattern.MatchString(name) {
		return Target{}, errors.New("is not NAME=exec:/PATH or NAME=https://URL with a name of 1 to 64 letters, digits, _ and -")
	}
	if path, local := strings.CutPrefix(at, execPrefix); local {
		if !strings.HasPrefix(path, "/") {
			return Target{}, fmt.Errorf("has a path for %s that is not absolute", name)
		}
		return Target{Name: name, Path: path}, nil
	}
	u, err := url.Parse(at)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http":
		return Target{}, fmt.Errorf("has neither exec:/PATH nor an https:// URL for %s", name)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return Target{}, fmt.Errorf("has a URL without TLS for %s that does not stay on this machine", name)
	}
	return Target{Name: name, URL: at}, nil
}

// validateFunctions checks the targets without repeating them: a URL may hold
// a secret.
func (s *Settings) validateFunctions(c *checker) {
	const path = "function.target"
	seen, web := map[string]bool{}, false
	for i, text := range s.Function.Targets {
		target, err := ParseTarget(text)
		if err != nil {
			c.require(false, path, "entry %d %v", i+1, err)
			continue
		}
		c.require(!seen[target.Name], path, "names %s twice", target.Name)
		seen[target.Name] = true
		web = web || target.URL != ""
	}
	c.require(!web || s.Function.SecretFile != "", "function.secret-file", "must be set when a function is a URL: its requests are signed")
}

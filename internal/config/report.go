package config

import (
	"net/url"
	"strings"
)

// Report lists the settings in force by name, without the secrets that some of
// them hold, for the audit trail.
func (s *Settings) Report() map[string]string {
	out := map[string]string{}
	for _, f := range fields() {
		value := f.value(s).String()
		switch f.path {
		case "store":
			value = withoutSecrets(value)
		case "function.target":
			targets := make([]string, len(s.Function.Targets))
			for i, target := range s.Function.Targets {
				name, at, _ := strings.Cut(target, "=")
				targets[i] = name + "=" + withoutSecrets(at)
			}
			value = strings.Join(targets, ",")
		}
		out[f.path] = value
	}
	return out
}

// withoutSecrets takes password and query from a URL; other texts stay.
func withoutSecrets(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "not shown"
	}
	if u.Host == "" && u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return text
	}
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	u.RawQuery = ""
	return u.String()
}

package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseTarget(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Target{
		"gate=exec:/opt/gate":           {Name: "gate", Path: "/opt/gate"},
		"a_B-9=https://example.com/a?b": {Name: "a_B-9", URL: "https://example.com/a?b"},
		"g=http://127.0.0.1:8000/":      {Name: "g", URL: "http://127.0.0.1:8000/"},
		"g=http://[::1]:8000/":          {Name: "g", URL: "http://[::1]:8000/"},
		"g=http://localhost:8000/":      {Name: "g", URL: "http://localhost:8000/"},
		"g=http://10.0.0.1/":            {},
		"g=http://localhost.example/":   {},
		"g=https://user:word@host/":     {},
		"g=https:///path":               {},
		"g=ftp://host/":                 {},
		"g=exec:gate":                   {},
		"g=exec:":                       {},
		"g=/opt/gate":                   {},
		"g":                             {},
		"=exec:/opt/gate":               {},
		"a b=exec:/opt/gate":            {},
	} {
		got, err := ParseTarget(text)
		if diff := cmp.Diff(want, got); diff != "" || (err == nil) != (want.Name != "") {
			t.Errorf("%s: %v %s", text, err, diff)
		}
	}
	if _, err := ParseTarget(strings.Repeat("x", 65) + "=exec:/f"); err == nil {
		t.Error("a name of 65 characters was accepted")
	}
}

func TestFunctionsOfTheFile(t *testing.T) {
	t.Parallel()
	const web = "function:\n  target:\n    - gate=exec:/opt/gate\n    - web=https://host/hook?key=hidden\n"
	s, err := sources(t, web+"  secret-file: /etc/muster/functions\n", nil).Load()
	if err != nil {
		t.Fatal(err)
	}
	want := Function{Targets: []string{"gate=exec:/opt/gate", "web=https://host/hook?key=hidden"}, SecretFile: "/etc/muster/functions"}
	if diff := cmp.Diff(want, s.Function); diff != "" {
		t.Error(diff)
	}
	for file, rule := range map[string]string{
		web: "function.secret-file: must be set",
		"function.target: [a=exec:/a, a=exec:/b]":      "names a twice",
		"function.target: [a=exec:/a, b=http://host/]": "entry 2 has a URL without TLS for b",
	} {
		_, err := sources(t, file, nil).Load()
		if err == nil || !strings.Contains(err.Error(), rule) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("got %v, want %s", err, rule)
		}
	}
}

package topic_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/topic"
)

// Cases follow the topic rules of the AWS IoT developer guide, "MQTT topics".
func TestValidateName(t *testing.T) {
	t.Parallel()
	aws := topic.DefaultLimits(topic.AWS)
	tests := map[string]struct {
		name   string
		limits topic.Limits
		want   error
	}{
		"plain":                       {"a/b", aws, nil},
		"slash only":                  {"/", aws, nil},
		"space":                       {"a b/c", aws, nil},
		"empty":                       {"", aws, topic.ErrEmpty},
		"plus":                        {"a/+", aws, topic.ErrWildcardName},
		"hash inside":                 {"a#b", aws, topic.ErrWildcardName},
		"256 bytes":                   {strings.Repeat("x", 256), aws, nil},
		"257 bytes":                   {strings.Repeat("x", 257), aws, topic.ErrTooLong},
		"bytes, not characters":       {strings.Repeat("é", 129), aws, topic.ErrTooLong},
		"seven slashes":               {"1/2/3/4/5/6/7/8", aws, nil},
		"eight slashes":               {"1/2/3/4/5/6/7/8/9", aws, topic.ErrTooDeep},
		"rule prefix is free":         {"$aws/rules/r/1/2/3/4/5/6/7/8", aws, nil},
		"rule prefix, too deep":       {"$aws/rules/r/1/2/3/4/5/6/7/8/9", aws, topic.ErrTooDeep},
		"rule prefix, 256 more":       {"$aws/rules/r/" + strings.Repeat("x", 256), aws, nil},
		"share prefix is not a name":  {"$share/g/1/2/3/4/5/6/7/8", aws, topic.ErrTooDeep},
		"NUL":                         {"a\x00", aws, topic.ErrNotUTF8},
		"broken UTF-8":                {"a\xff", aws, topic.ErrNotUTF8},
		"standard: deep":              {strings.Repeat("a/", 100), topic.Limits{}, nil},
		"standard: longer than 65535": {strings.Repeat("a", 65536), topic.Limits{}, topic.ErrTooLong},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := topic.ValidateName(tt.name, tt.limits); !errors.Is(err, tt.want) {
				t.Errorf("ValidateName(%q) = %v, want %v", tt.name, err, tt.want)
			}
		})
	}
}

func TestValidateFilter(t *testing.T) {
	t.Parallel()
	aws := topic.DefaultLimits(topic.AWS)
	tests := map[string]struct {
		filter string
		want   error
	}{
		"hash alone":             {"#", nil},
		"plus inside":            {"a/+/b", nil},
		"hash last":              {"a/#", nil},
		"hash first":             {"#/a", topic.ErrHashNotLast},
		"hash in a level":        {"a/b#", topic.ErrWildcard},
		"plus in a level":        {"a+/b", topic.ErrWildcard},
		"empty":                  {"", topic.ErrEmpty},
		"eight slashes":          {"1/2/3/4/5/6/7/8/+", topic.ErrTooDeep},
		"share prefix is free":   {"$share/g/1/2/3/4/5/6/7/8", nil},
		"share then rule":        {"$share/g/$aws/rules/r/1/2/3/4/5/6/7/#", nil},
		"share without filter":   {"$share/g", topic.ErrShare},
		"share, empty filter":    {"$share/g/", topic.ErrShare},
		"share, empty group":     {"$share//a", topic.ErrShare},
		"share, wildcard group":  {"$share/+/a", topic.ErrShare},
		"share, long group":      {"$share/" + strings.Repeat("g", 129) + "/a", topic.ErrShare},
		"share, group not UTF-8": {"$share/\xff/a", topic.ErrShare},
		"share, bad filter":      {"$share/g/a#", topic.ErrWildcard},
		"reserved with wildcard": {"$aws/things/T/shadow/get/+", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := topic.ValidateFilter(tt.filter, aws); !errors.Is(err, tt.want) {
				t.Errorf("ValidateFilter(%q) = %v, want %v", tt.filter, err, tt.want)
			}
		})
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	tests := []struct {
		filter, name  string
		aws, standard bool
	}{
		{"a", "a", true, true},
		{"a", "b", false, false},
		{"a/b", "a", false, false},
		{"a", "a/b", false, false},
		{"a/#", "a", false, true}, // the service's deviation
		{"a/#", "a/", true, true},
		{"a/#", "a/b/c", true, true},
		{"a/#", "ab", false, false},
		{"#", "a/b", true, true},
		{"#", "$aws/x", false, false},
		{"+/x", "$aws/x", false, false},
		{"$aws/#", "$aws/x", true, true},
		{"$aws/+", "$aws/x", true, true},
		{"+", "", true, true},
		{"+", "a/b", false, false},
		{"+/+", "/a", true, true},
		{"/+", "/a", true, true},
		{"a/+", "a", false, false},
		{"a/+", "a/", true, true},
		{"a/+/c", "a/b/c", true, true},
		{"a/+/#", "a/b", false, true},
		{"a/+/#", "a", false, false},
		{"+/b/#", "a/b/c/d", true, true},
	}
	for _, tt := range tests {
		if got := topic.Match(tt.filter, tt.name, topic.AWS); got != tt.aws {
			t.Errorf("Match(%q, %q, AWS) = %v", tt.filter, tt.name, got)
		}
		if got := topic.Match(tt.filter, tt.name, topic.Standard); got != tt.standard {
			t.Errorf("Match(%q, %q, Standard) = %v", tt.filter, tt.name, got)
		}
	}
}

func TestIntersects(t *testing.T) {
	t.Parallel()
	tests := []struct {
		a, b string
		want bool
	}{
		{"a/+", "+/b", true},
		{"a/b", "a/c", false},
		{"#", "a/b", true},
		{"#", "$aws/x", false},
		{"+/x", "$aws/x", false},
		{"$aws/#", "$aws/things/+/shadow/get", true},
		{"$aws/things/T/shadow/get/+", "$aws/things/+/shadow/get/accepted", true},
		{"$aws/things/T/nonsense", "$aws/things/+/shadow/get", false},
		{"a/#", "a", false},
		{"a", "a/#", false},
		{"a/b", "a", false},
		{"+/+", "a/#", true},
	}
	for _, tt := range tests {
		if got := topic.Intersects(tt.a, tt.b, topic.AWS); got != tt.want {
			t.Errorf("Intersects(%q, %q) = %v", tt.a, tt.b, got)
		}
		if got := topic.Intersects(tt.b, tt.a, topic.AWS); got != tt.want {
			t.Errorf("Intersects(%q, %q) = %v", tt.b, tt.a, got)
		}
	}
	if !topic.Intersects("a/#", "a", topic.Standard) || !topic.Intersects("a", "a/#", topic.Standard) {
		t.Error("the standard profile lets a/# meet a")
	}
}

func TestReserved(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"$aws/x": true, "$share/g/$aws/x": true, "$share/g/a": false, "a/$aws": false, "": false, "#": false,
	} {
		if got := topic.Reserved(text); got != want {
			t.Errorf("Reserved(%q) = %v", text, got)
		}
	}
	if !topic.HasWildcard("a/+") || topic.HasWildcard("a/b") {
		t.Error("HasWildcard")
	}
}

func FuzzTopic(f *testing.F) {
	for _, seed := range []string{"a/b", "#", "+/a/#", "$share/g/a/+", "$aws/rules/r/x", "$share", "/", "\x00", "a\xff", "$share//"} {
		f.Add(seed, "a/b")
	}
	f.Fuzz(func(t *testing.T, filter, name string) {
		for _, p := range []topic.Profile{topic.AWS, topic.Standard} {
			limits := topic.DefaultLimits(p)
			validName := topic.ValidateName(name, limits) == nil
			validFilter := topic.ValidateFilter(filter, limits) == nil
			matched := topic.Match(filter, name, p)
			if validName && !topic.Match(name, name, p) {
				t.Errorf("name %q does not match itself", name)
			}
			if matched && validName && validFilter && !topic.Intersects(filter, name, p) {
				t.Errorf("%q matches %q but does not intersect it", filter, name)
			}
			if matched && p == topic.AWS && !topic.Match(filter, name, topic.Standard) {
				t.Errorf("%q matches %q for the service only", filter, name)
			}
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		topic.Match("$aws/things/+/shadow/#", "$aws/things/pump-7/shadow/update/accepted", topic.AWS)
	}
}

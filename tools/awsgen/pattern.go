package main

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

var bigRepeat = regexp.MustCompile(`\{(\d*),?(\d*)\}`)

// portable rewrites a pattern of the models, which follow Java's rules, into
// one that Go's regexp accepts and that matches the same text. Upper bounds
// above Go's limit of 1000 are dropped: the shape's max says the same.
func portable(pattern string) (string, error) {
	out := pattern
	for from, to := range map[string]string{`\p{Graph}`: `[:graph:]`, `\p{Upper}`: `[:upper:]`, `\p{Digit}`: `[:digit:]`} {
		out = strings.ReplaceAll(out, from, to)
	}
	out = bigRepeat.ReplaceAllStringFunc(out, func(text string) string {
		parts := bigRepeat.FindStringSubmatch(text)
		if limit, err := strconv.Atoi(parts[2]); err != nil || limit <= 1000 {
			return text
		}
		return "{" + parts[1] + ",}"
	})
	if _, err := regexp.Compile("^(?:" + out + ")$"); err != nil {
		return "", fmt.Errorf("pattern %q: %w", pattern, err)
	}
	return out, nil
}

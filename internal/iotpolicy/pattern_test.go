package iotpolicy

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// naiveMatch is the textbook definition of matching, by dynamic programming
// over characters. The pattern has the wildcards as written.
func naiveMatch(p, s string) bool {
	text := []rune(s)
	row := make([]bool, len(text)+1)
	row[0] = true
	for _, c := range p {
		next := make([]bool, len(text)+1)
		next[0] = row[0] && c == '*'
		for i, r := range text {
			if c == '*' {
				next[i+1] = row[i+1] || next[i]
			} else {
				next[i+1] = row[i] && (c == '?' || c == r)
			}
		}
		row = next
	}
	return row[len(text)]
}

func TestPatternMatchesTheDefinition(t *testing.T) {
	t.Parallel()
	alphabet := []string{"", "a", "b", "*", "?", "é"}
	texts := combine([]string{"", "a", "b", "é"}, 5)
	for _, p := range combine(alphabet, 4) {
		compiled := newPattern(encode(p))
		for _, s := range texts {
			if got, want := compiled.match(s), naiveMatch(p, s); got != want {
				t.Fatalf("%q against %q: %v, want %v", p, s, got, want)
			}
		}
	}
}

// combine returns all concatenations of n elements of the alphabet.
func combine(alphabet []string, n int) []string {
	all := []string{""}
	for range n {
		var longer []string
		for _, prefix := range all {
			for _, c := range alphabet {
				longer = append(longer, prefix+c)
			}
		}
		all = longer
	}
	return all
}

func FuzzPattern(f *testing.F) {
	for _, seed := range [][2]string{
		{"a*b?c", "axxbyc"},
		{"*", ""},
		{"**?", "é"},
		{"a*a*a*b", strings.Repeat("a", 50)},
		{"topic/?/*/x", "topic/1/2/3/x"},
		{"?é*", "zé"},
		{"*?a", "ba"},
		{"", ""},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, p, s string) {
		compiled := newPattern(encode(p))
		got := compiled.match(s)
		if !utf8.ValidString(p) || !utf8.ValidString(s) {
			return // only robustness is promised
		}
		if want := naiveMatch(p, s); got != want {
			t.Errorf("%q against %q: %v, want %v", p, s, got, want)
		}
		if decode(encode(p)) != p {
			t.Errorf("%q does not survive encoding", p)
		}
	})
}

func BenchmarkPatternWorstCase(b *testing.B) {
	p := newPattern(encode(strings.Repeat("*a?", 100)))
	s := strings.Repeat("a", 256)
	for b.Loop() {
		p.match(s)
	}
}

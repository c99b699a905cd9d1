package onboarding

import (
	"strings"
	"testing"
)

// Text that is made to be hard to read is refused, and does not take the parser
// seconds.
func TestHardText(t *testing.T) {
	t.Parallel()
	for _, part := range []string{"[", "{", "{a: ", "- ", "? ", "&a ", "!t ", "a: ", "[a,", "*a ", "'", "\"", "|\n", "a:\n ", "#", "- [", "{a,", "%", "---\n", "\t", "<<: "} {
		_, err := Parse([]byte(strings.Repeat(part, maxBody/len(part))))
		if err == nil {
			t.Errorf("%q is a plan", part)
		}
	}
	var indented strings.Builder
	for i := 0; indented.Len()+i+3 < maxBody; i++ {
		indented.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	if _, err := Parse([]byte(indented.String())); err == nil {
		t.Error("accepted")
	}
}

package cli

import (
	"strings"
	"testing"
)

func TestTablesShortenDigests(t *testing.T) {
	t.Parallel()
	digest := strings.Repeat("0123456789abcdef", 4)
	got := shortened("arn:aws:iot:r:000000000000:cert/" + digest + " claim=" + digest + " other=" + digest + "0")
	if want := "arn:aws:iot:r:000000000000:cert/0123456789ab claim=0123456789ab other=" + digest + "0"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

package adminapi_test

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/adminapi"
)

var update = flag.Bool("update", false, "write testdata/operations.txt instead of comparing") //nolint:gochecknoglobals // as flags are

// TestOperations keeps the list of operations, which tests elsewhere hold their
// cases against.
func TestOperations(t *testing.T) {
	t.Parallel()
	const path = "testdata/operations.txt"
	if n := len(adminapi.Operations()); n < 20 {
		t.Fatalf("only %d operations are served", n)
	}
	want := strings.Join(adminapi.Operations(), "\n") + "\n"
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s is out of date (%v): run go test ./internal/adminapi -run TestOperations -update", path, err)
	}
}

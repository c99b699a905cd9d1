package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestExportThings(t *testing.T) {
	t.Parallel()
	r := rest(t, map[string]string{"GET /ops/v1/things/export": `{"things":[{"name":"a","typeName":"T","groups":["g"],"attributes":{"k":"v"}},{"name":"b"}]}`})
	path := filepath.Join(t.TempDir(), "fleet.ndjson")
	want := `{"name":"a","type":"T","groups":["g"],"attributes":{"k":"v"}}` + "\n" + `{"name":"b"}` + "\n"
	if got := r.run(t.Context(), "export", "things", path); got.code != 0 || got.out != "exported 2 things\n" {
		t.Errorf("got %+v", got)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != want {
		t.Errorf("%v: %s", err, text)
	}
	if got := r.run(t.Context(), "export", "things", "-"); got.code != 0 || got.out != want {
		t.Errorf("got %+v", got)
	}
	if got := r.run(t.Context(), "export", "things", path); got.code != 1 || !strings.Contains(got.err, "exists") {
		t.Errorf("got %+v", got)
	}
	// What is not whole is not left.
	other := filepath.Join(t.TempDir(), "fleet.ndjson")
	if got := rest(t, nil).run(t.Context(), "export", "things", other); got.code != 1 || !strings.Contains(got.err, "nothing at /ops/v1/things/export") {
		t.Errorf("got %+v", got)
	}
	if _, err := os.Stat(other); !os.IsNotExist(err) {
		t.Errorf("a piece is left: %v", err)
	}
}

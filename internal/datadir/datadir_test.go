package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOpenNewFolder(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "a", "b")
	d, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(root)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o700 {
		t.Errorf("mode is %o, want 700: the folder holds keys", got)
	}
	if _, err := Open(root); !errors.Is(err, ErrLocked) {
		t.Errorf("second Open: got %v, want ErrLocked", err)
	}
	if n, err := Inspect(root); n != Format || err != nil {
		t.Errorf("Inspect = %d, %v", n, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := Open(root)
	if err != nil {
		t.Fatalf("open after close: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefusesForeignFormats(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, content, want string }{
		"newer":          {"FORMAT", "muster 2\n", "newer version"},
		"other product":  {"FORMAT", "mustard 1\n", "does not name a Muster data folder"},
		"no number":      {"FORMAT", "muster one\n", "no format number"},
		"zero":           {"FORMAT", "muster 0\n", "no format number"},
		"empty":          {"FORMAT", "", "empty"},
		"long":           {"FORMAT", strings.Repeat("x", 10_000), "does not name"},
		"somebody's own": {"thesis.tex", "hello", "holds files but no FORMAT"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			if err := os.WriteFile(filepath.Join(root, c.file), []byte(c.content), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(root)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
			after, err := os.ReadFile(filepath.Join(root, c.file))
			if err != nil || string(after) != c.content {
				t.Errorf("the refused file changed: %v", err)
			}
		})
	}
}

func TestOpenAfterCrashBeforeFormat(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, name := range []string{"LOCK", ".tmp-FORMAT-123"} {
		if err := os.WriteFile(filepath.Join(root, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestWriteFileReplaces(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key")
	for _, content := range []string{"first, longer", "second"} {
		if err := WriteFile(path, []byte(content), PrivateMode); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != PrivateMode {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), temporaryPrefix+"*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestRemoveTemporary(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"snapshot", temporaryPrefix + "snapshot-1", temporaryPrefix + "snapshot-2"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveTemporary(dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 || left[0].Name() != "snapshot" {
		t.Errorf("left %v, %v", left, err)
	}
}

func FuzzParseFormat(f *testing.F) {
	for _, seed := range []string{"muster 1\n", "muster 2", "", " ", "muster", "muster -1", "muster 99999999999999999999"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := parseFormat("FORMAT", text)
		if err == nil && (n < 1 || n > Format) {
			t.Errorf("%q gave %d", text, n)
		}
	})
}

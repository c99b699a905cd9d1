package objectstore

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
)

const (
	general fleet.Account = "000000000000"
	other   fleet.Account = "111111111111"
)

// write makes a file below a folder, with the folders above it.
func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// content reads an object that must exist.
func content(t *testing.T, s Store, account fleet.Account, bucket, key string) string {
	t.Helper()
	object, err := s.Open(t.Context(), account, bucket, key)
	if err != nil {
		t.Fatalf("%s %s/%s: %v", account, bucket, key, err)
	}
	defer object.Close()
	text, err := io.ReadAll(object)
	if err != nil || int64(len(text)) != object.Size || object.Version == "" {
		t.Errorf("%s/%s: %d bytes of %d, version %q, %v", bucket, key, len(text), object.Size, object.Version, err)
	}
	return string(text)
}

// Each account has its buckets, and nobody comes out of them.
func TestLocal(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	write(t, outside, "secret", "s")
	dir := filepath.Join(outside, "buckets")
	l := &Local{Dir: dir, Default: general}
	// The folder need not exist.
	if _, err := l.Open(t.Context(), general, "bulk", "a.json"); !errors.Is(err, ErrNotFound) {
		t.Errorf("without a folder: %v", err)
	}
	write(t, dir, "bulk/a.json", "ours")
	write(t, dir, "bulk/deep/er/b.json", "deep")
	write(t, dir, "bulk/with space & ü.json", "odd")
	write(t, dir, "bulk/empty", "")
	write(t, dir, "111111111111/bulk/a.json", "theirs")
	write(t, dir, "loose", "no bucket")
	for name, target := range map[string]string{
		"bulk/out": "../../secret", "bulk/absolute": filepath.Join(outside, "secret"), "bulk/up": "../..", "bulk/loop": "loop", "bulk/gone": "nothing",
		"bulk/in": "deep/er/b.json",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "linked")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "bulk/pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		account           fleet.Account
		bucket, key, want string
	}{
		{general, "bulk", "a.json", "ours"},
		{general, "bulk", "deep/er/b.json", "deep"},
		{general, "bulk", "in", "deep"},
		{general, "bulk", "with space & ü.json", "odd"},
		{general, "bulk", "empty", ""},
		{other, "bulk", "a.json", "theirs"},
	} {
		if got := content(t, l, c.account, c.bucket, c.key); got != c.want {
			t.Errorf("%s %s/%s is %q, want %q", c.account, c.bucket, c.key, got, c.want)
		}
	}
	for _, c := range []struct {
		account     fleet.Account
		bucket, key string
	}{
		{general, "bulk", "none"},
		{general, "none", "a.json"},
		{general, "bulk", "deep"},
		{general, "bulk", "deep/er/"},
		{general, "bulk", "a.json/b"},
		{general, "bulk", "."},
		{general, "bulk", ""},
		{general, "bulk", ".."},
		{general, "bulk", "../loose"},
		{general, "bulk", "../../secret"},
		{general, "bulk", "deep/../../../secret"},
		{general, "bulk", "deep/./er/b.json"},
		{general, "bulk", "deep//er/b.json"},
		{general, "bulk", "/a.json"},
		{general, "bulk", filepath.Join(outside, "secret")},
		{general, "bulk", "a.json\x00"},
		{general, "bulk", "\xff"},
		{general, "bulk", strings.Repeat("k", 1024)},
		{general, "bulk", strings.Repeat("k/", 511) + "k"},
		{general, "bulk", "out"},
		{general, "bulk", "absolute"},
		{general, "bulk", "up/secret"},
		{general, "bulk", "up"},
		{general, "bulk", "loop"},
		{general, "bulk", "gone"},
		{general, "bulk", "pipe"},
		{general, "linked", "secret"},
		{general, "loose", "x"},
		{general, "", "bulk/a.json"},
		{general, ".", "bulk/a.json"},
		{general, "..", "secret"},
		{general, "...", "secret"},
		{general, "bulk/deep", "er/b.json"},
		{general, "BULK", "a.json"},
		{general, "-bulk", "a.json"},
		{general, "bu", "a.json"},
		{general, "111111111111", "bulk/a.json"},
		{other, "loose", "x"},
		{other, "bulk", "deep/er/b.json"},
		{other, "bulk", "../../bulk/a.json"},
		{"222222222222", "bulk", "a.json"},
	} {
		opened := make(chan error, 1)
		go func() {
			object, err := l.Open(t.Context(), c.account, c.bucket, c.key)
			if err == nil {
				_ = object.Close()
			}
			opened <- err
		}()
		select {
		case err := <-opened:
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("%s %s/%.60s: %v", c.account, c.bucket, c.key, err)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%s %s/%.60s: it waits", c.account, c.bucket, c.key)
		}
	}
}

// The version of a file is another one when it was written again, also in place.
func TestLocalVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := &Local{Dir: dir, Default: general}
	versions := map[string]bool{}
	look := func() {
		t.Helper()
		object, err := l.Open(t.Context(), general, "bulk", "a")
		if err != nil {
			t.Fatal(err)
		}
		if err := object.Close(); err != nil || versions[object.Version] {
			t.Errorf("version %s again, %v", object.Version, err)
		}
		versions[object.Version] = true
	}
	write(t, dir, "bulk/a", "1")
	look()
	write(t, dir, "bulk/a", "12")
	look()
	write(t, dir, "bulk/a", "21")
	at := time.Now().Add(time.Second)
	if err := os.Chtimes(filepath.Join(dir, "bulk/a"), at, at); err != nil {
		t.Fatal(err)
	}
	look()
}

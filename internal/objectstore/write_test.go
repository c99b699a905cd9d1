package objectstore

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
)

// Whoever writes stays in the buckets of the account, as who reads does.
func TestLocalWriteStaysInside(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	dir := filepath.Join(outside, "buckets")
	l := &Local{Dir: dir, Default: general, MaxBytes: 1 << 20}
	for _, account := range []fleet.Account{general, other} {
		if err := l.CreateBucket(account, "bulk"); err != nil {
			t.Fatal(err)
		}
		if err := l.CreateBucket(account, "bulk"); !errors.Is(err, ErrExists) {
			t.Errorf("%s: a second time: %v", account, err)
		}
	}
	for link, target := range map[string]string{"bulk/up": "../..", "bulk/out": "../../made"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ bucket, key string }{
		{"bulk", "../made"},
		{"bulk", "a/../../../made"},
		{"bulk", "/made"},
		{"bulk", ""},
		{"bulk", "."},
		{"bulk", ".."},
		{"bulk", "a/"},
		{"bulk", "a\x00"},
		{"bulk", strings.Repeat("k", 300)},
		{"bulk", strings.Repeat("k/", 600)},
		{"bulk", "up/made"},
		{"bulk", "\xff"},
		{"..", "made"},
		{"bulk/a", "made"},
		{".uploads", "made"},
		{"111111111111", "bulk/made"},
		{"none", "made"},
		{"BULK", "made"},
	} {
		if _, err := l.Put(t.Context(), general, c.bucket, c.key, strings.NewReader("x")); err == nil {
			t.Errorf("%s/%.40q is written", c.bucket, c.key)
		}
		if id, err := l.Begin(general, c.bucket, c.key); err == nil {
			if _, err := l.Complete(t.Context(), general, c.bucket, c.key, id, nil); err == nil {
				t.Errorf("%s/%.40q is written in parts", c.bucket, c.key)
			}
			_ = l.Abort(general, c.bucket, c.key, id)
		}
	}
	// A link is replaced, and what it led to stays.
	write(t, outside, "made", "before")
	if _, err := l.Put(t.Context(), general, "bulk", "out", strings.NewReader("inside")); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(outside, "made")); err != nil || string(text) != "before" {
		t.Errorf("outside is %q, %v", text, err)
	}
	for _, name := range []string{"../made", "../../made", "up/made", ".."} {
		_ = l.Delete(t.Context(), general, "bulk", name)
	}
	if _, err := os.Stat(filepath.Join(outside, "made")); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, uploadsDir)); err != nil || len(left) != 0 {
		t.Errorf("drafts are left: %v, %v", left, err)
	}
	if _, err := l.Put(t.Context(), other, "bulk", "a", strings.NewReader("theirs")); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Open(t.Context(), general, "bulk", "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("another account's object: %v", err)
	}
	if all, err := l.Buckets(general); err != nil || len(all) != 1 || all[0].Name != "bulk" {
		t.Errorf("buckets %v, %v", all, err)
	}
}

// Only a folder is a bucket.
func TestLocalFileIsNoBucket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "notes", "mine")
	l := &Local{Dir: dir, Default: general, MaxBytes: 1 << 20}
	if err := l.DeleteBucket(general, "notes"); !errors.Is(err, ErrNoBucket) {
		t.Errorf("deleted: %v", err)
	}
	if err := l.HasBucket(general, "notes"); !errors.Is(err, ErrNoBucket) {
		t.Errorf("there is one: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "notes")); err != nil {
		t.Error(err)
	}
}

// An object is there as a whole or not at all: who reads the old one goes on with
// it, and a body that is too large or breaks off leaves the old one.
func TestLocalPutReplaces(t *testing.T) {
	t.Parallel()
	l := &Local{Dir: t.TempDir(), Default: general, MaxBytes: 10}
	if err := l.CreateBucket(general, "bulk"); err != nil {
		t.Fatal(err)
	}
	put := func(r io.Reader) error {
		_, err := l.Put(t.Context(), general, "bulk", "a/b", r)
		return err
	}
	if err := put(strings.NewReader("old")); err != nil {
		t.Fatal(err)
	}
	object, err := l.Open(t.Context(), general, "bulk", "a/b")
	if err != nil {
		t.Fatal(err)
	}
	defer object.Close()
	broken := errors.New("broken")
	if err := put(io.MultiReader(strings.NewReader("ne"), failing{broken})); !errors.Is(err, broken) {
		t.Errorf("broken off: %v", err)
	}
	if err := put(strings.NewReader("01234567890")); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if got := content(t, l, general, "bulk", "a/b"); got != "old" {
		t.Errorf("it is %q", got)
	}
	if err := put(strings.NewReader("0123456789")); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(object); err != nil || string(text) != "old" {
		t.Errorf("who reads the old one reads %q, %v", text, err)
	}
	if err := l.DeleteBucket(general, "bulk"); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("bucket with an object: %v", err)
	}
	if err := l.Delete(t.Context(), general, "bulk", "a/b"); err != nil {
		t.Error(err)
	}
	if err := l.DeleteBucket(general, "bulk"); err != nil {
		t.Error(err)
	}
}

// failing is a body that breaks off.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// An upload is its object's alone, and only whole.
func TestLocalUpload(t *testing.T) {
	t.Parallel()
	l := &Local{Dir: t.TempDir(), Default: general, MaxBytes: 100}
	for _, account := range []fleet.Account{general, other} {
		if err := l.CreateBucket(account, "bulk"); err != nil {
			t.Fatal(err)
		}
	}
	id, err := l.Begin(general, "bulk", "a")
	if err != nil {
		t.Fatal(err)
	}
	var parts []Part
	for _, number := range []int{2, 1} {
		version, err := l.PutPart(t.Context(), general, "bulk", "a", id, number, strings.NewReader(strings.Repeat("x", 10*number)))
		if err != nil {
			t.Fatal(err)
		}
		parts = append([]Part{{number, version}}, parts...)
	}
	for name, c := range map[string]struct {
		account fleet.Account
		key, id string
		parts   []Part
		want    error
	}{
		"another account":  {other, "a", id, parts, ErrNoUpload},
		"another key":      {general, "b", id, parts, ErrNoUpload},
		"another upload":   {general, "a", strings.Repeat("0", 32), parts, ErrNoUpload},
		"a path":           {general, "a", "../" + id, parts, ErrNoUpload},
		"no id":            {general, "a", "", parts, ErrNoUpload},
		"a part too many":  {general, "a", id, append(parts[:2:2], Part{3, parts[0].Version}), ErrPart},
		"a part of before": {general, "a", id, []Part{{1, parts[1].Version}}, ErrPart},
		"no number":        {general, "a", id, []Part{{-1, ""}}, ErrPart},
	} {
		if _, err := l.Complete(t.Context(), c.account, "bulk", c.key, c.id, c.parts); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, number := range []int{0, -1, MaxParts + 1} {
		if _, err := l.PutPart(t.Context(), general, "bulk", "a", id, number, strings.NewReader("x")); !errors.Is(err, ErrName) {
			t.Errorf("part %d: %v", number, err)
		}
	}
	if _, err := l.Open(t.Context(), general, "bulk", "a"); !errors.Is(err, ErrNotFound) {
		t.Errorf("before its end: %v", err)
	}
	if _, err := l.Complete(t.Context(), general, "bulk", "a", id, parts); err != nil {
		t.Fatal(err)
	}
	if got := content(t, l, general, "bulk", "a"); got != strings.Repeat("x", 30) {
		t.Errorf("it is %q", got)
	}
	if err := l.Abort(general, "bulk", "a", id); !errors.Is(err, ErrNoUpload) {
		t.Errorf("after its end: %v", err)
	}
	// One that nobody completes goes after a week.
	id, err = l.Begin(general, "bulk", "late")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Sweep(time.Now().Add(uploadLife - time.Minute)); err != nil {
		t.Error(err)
	}
	if _, err := l.PutPart(t.Context(), general, "bulk", "late", id, 1, strings.NewReader("x")); err != nil {
		t.Errorf("within the week: %v", err)
	}
	if err := l.Sweep(time.Now().Add(uploadLife + time.Minute)); err != nil {
		t.Error(err)
	}
	if err := l.Abort(general, "bulk", "late", id); !errors.Is(err, ErrNoUpload) {
		t.Errorf("after a week: %v", err)
	}
}

// during is a body that has something happen before it goes on.
type during struct {
	io.Reader

	do func()
}

func (d *during) Read(p []byte) (int, error) {
	if d.do != nil {
		d.do()
		d.do = nil
	}
	return d.Reader.Read(p) //nolint:wrapcheck // a test's
}

// A bucket that was deleted while an object came does not come back.
func TestLocalPutIntoDeletedBucket(t *testing.T) {
	t.Parallel()
	l := &Local{Dir: t.TempDir(), Default: general, MaxBytes: 10}
	if err := l.CreateBucket(general, "bulk"); err != nil {
		t.Fatal(err)
	}
	body := &during{strings.NewReader("x"), func() {
		if err := l.DeleteBucket(general, "bulk"); err != nil {
			t.Error(err)
		}
	}}
	if _, err := l.Put(t.Context(), general, "bulk", "a/b", body); !errors.Is(err, ErrNoBucket) {
		t.Errorf("put: %v", err)
	}
	if err := l.HasBucket(general, "bulk"); !errors.Is(err, ErrNoBucket) {
		t.Errorf("it is back: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(l.Dir, uploadsDir)); err != nil || len(left) != 0 {
		t.Errorf("drafts are left: %v, %v", left, err)
	}
}

// Objects come and go side by side in one folder, which goes with the last.
func TestLocalPutBesideDelete(t *testing.T) {
	t.Parallel()
	l := &Local{Dir: t.TempDir(), Default: general, MaxBytes: 10}
	if err := l.CreateBucket(general, "bulk"); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for _, key := range []string{"a/b/1", "a/b/2", "a/b/2", "a/3"} {
		all.Go(func() {
			for range 50 {
				if _, err := l.Put(t.Context(), general, "bulk", key, strings.NewReader("x")); err != nil {
					t.Errorf("put %s: %v", key, err)
				}
				if err := l.Delete(t.Context(), general, "bulk", key); err != nil {
					t.Errorf("delete %s: %v", key, err)
				}
			}
		})
	}
	all.Wait()
	if err := l.DeleteBucket(general, "bulk"); err != nil {
		t.Error(err)
	}
}

// A part that is replaced while the object is made of it is not taken.
func TestLocalPartReplacedWhileJoined(t *testing.T) {
	t.Parallel()
	l := &Local{Dir: t.TempDir(), Default: general, MaxBytes: 100}
	if err := l.CreateBucket(general, "bulk"); err != nil {
		t.Fatal(err)
	}
	id, err := l.Begin(general, "bulk", "a")
	if err != nil {
		t.Fatal(err)
	}
	version, err := l.PutPart(t.Context(), general, "bulk", "a", id, 1, strings.NewReader("first"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.PutPart(t.Context(), general, "bulk", "a", id, 1, strings.NewReader("second")); err != nil {
		t.Fatal(err)
	}
	root, dir, _, err := l.upload(general, "bulk", "a", id)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	joined := &joinedParts{ctx: t.Context(), root: root, dir: dir, rest: []Part{{1, version}}}
	if text, err := io.ReadAll(joined); !errors.Is(err, ErrPart) {
		t.Errorf("read %q, %v", text, err)
	}
}

// A disk without room says so, and nothing is left.
func TestLocalFull(t *testing.T) {
	t.Parallel()
	l := &Local{Dir: t.TempDir(), Default: general, MaxBytes: 100}
	if err := l.CreateBucket(general, "bulk"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Put(t.Context(), general, "bulk", "a", failing{&os.PathError{Op: "write", Err: syscall.ENOSPC}}); !errors.Is(err, ErrFull) {
		t.Errorf("put: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(l.Dir, uploadsDir)); err != nil || len(left) != 0 {
		t.Errorf("drafts are left: %v, %v", left, err)
	}
}

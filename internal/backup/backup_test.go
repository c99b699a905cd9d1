package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
)

func source(t *testing.T, dump []byte) Source {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{"pki/ca.key": "key", "credentials": "id"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Source{
		Root: root, Files: []string{"pki", "credentials", "absent"}, Now: time.Unix(1, 0), Version: "test",
		Checkpoint: func(_ context.Context, w io.Writer) error { _, err := w.Write(dump); return err },
	}
}

func archive(t *testing.T, s Source) ([]byte, *age.X25519Identity) {
	t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Write(t.Context(), &out, identity.Recipient().String(), s); err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), identity
}

func TestArchiveComesBackWhole(t *testing.T) {
	t.Parallel()
	// More than two chunks, so that joining is exercised.
	dump := bytes.Repeat([]byte("0123456789abcdef"), (2*chunkBytes+100)/16)
	data, identity := archive(t, source(t, dump))
	if bytes.Contains(data, []byte("0123456789abcdef")) {
		t.Error("the archive holds the dump in clear text")
	}
	root := t.TempDir()
	var got bytes.Buffer
	m, err := Read(t.Context(), bytes.NewReader(data), []age.Identity{identity}, Target{
		Root: root, Files: []string{"pki", "credentials"},
		Restore: func(_ context.Context, r io.Reader) error {
			_, err := io.Copy(&got, r)
			return err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if m.Version != "test" || !bytes.Equal(got.Bytes(), dump) {
		t.Errorf("manifest %+v, dump of %d bytes, want %d", m, got.Len(), len(dump))
	}
	for name, want := range map[string]string{"pki/ca.key": "key", "credentials": "id"} {
		if text, err := os.ReadFile(filepath.Join(root, name)); err != nil || string(text) != want {
			t.Errorf("%s = %q, %v", name, text, err)
		}
	}
}

func TestDamagedArchiveIsRefused(t *testing.T) {
	t.Parallel()
	data, identity := archive(t, source(t, []byte(strings.Repeat("x", 300_000))))
	stranger, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(data)
	flipped[len(flipped)/2] ^= 1
	for name, c := range map[string]struct {
		data     []byte
		identity age.Identity
	}{
		"another identity": {data, stranger},
		"flipped bit":      {flipped, identity},
		"cut short":        {data[:len(data)-1000], identity},
		"empty":            {nil, identity},
	} {
		_, err := Read(t.Context(), bytes.NewReader(c.data), []age.Identity{c.identity}, into(t.TempDir()))
		if err == nil {
			t.Errorf("%s: read without error", name)
		}
	}
}

func TestFailedCheckpointFailsTheBackup(t *testing.T) {
	t.Parallel()
	s := source(t, nil)
	broken := errors.New("disk on fire")
	s.Checkpoint = func(context.Context, io.Writer) error { return broken }
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if err := Write(t.Context(), io.Discard, identity.Recipient().String(), s); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
	if err := Write(t.Context(), io.Discard, "age1nonsense", s); err == nil {
		t.Error("a bad recipient was accepted")
	}
}

// into is a target that keeps files and drops the store.
func into(root string) Target {
	return Target{Root: root, Files: []string{"pki", "credentials"}, Restore: func(_ context.Context, r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	}}
}

// TestRestoreKeepsToItsFiles reads archives that somebody else made for our
// public key: nothing outside of what is restored may be written.
func TestRestoreKeepsToItsFiles(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"../outside", "pki/../../outside", "/etc/outside", "store/000001.log", "FORMAT", "LOCK", "pki2/key", "credentials/x/../../store/a", "pki//a",
	} {
		identity, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		sealed, err := age.Encrypt(&out, identity.Recipient())
		if err != nil {
			t.Fatal(err)
		}
		forged := tar.NewWriter(sealed)
		if err := errors.Join(
			entry(forged, manifestName, []byte(`{"format":1,"product":"muster"}`)),
			entry(forged, filesPrefix+name, []byte("x")), forged.Close(), sealed.Close(),
		); err != nil {
			t.Fatal(err)
		}
		above := t.TempDir()
		root := filepath.Join(above, "data")
		if err := os.Mkdir(root, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(t.Context(), &out, []age.Identity{identity}, into(root)); err == nil {
			t.Errorf("%q was restored", name)
		}
		for _, dir := range []string{above, root} {
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != map[string]int{above: 1, root: 0}[dir] {
				t.Errorf("%q: %s holds %v, %v", name, dir, entries, err)
			}
		}
	}
}

// TestRestoreReplacesNoKeys restores over an installation: its keys stay.
func TestRestoreReplacesNoKeys(t *testing.T) {
	t.Parallel()
	data, identity := archive(t, source(t, []byte("dump")))
	for _, held := range []string{"pki/ca.key", "credentials"} {
		root := t.TempDir()
		path := filepath.Join(root, held)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("ours"), 0o600)); err != nil {
			t.Fatal(err)
		}
		_, err := Read(t.Context(), bytes.NewReader(data), []age.Identity{identity}, into(root))
		if err == nil || !strings.Contains(err.Error(), "holds") {
			t.Errorf("%s: %v", held, err)
		}
		if text, err := os.ReadFile(path); err != nil || string(text) != "ours" {
			t.Errorf("%s became %q, %v", held, text, err)
		}
	}
}

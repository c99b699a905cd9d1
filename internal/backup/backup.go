// Package backup writes and reads backup archives: a tar stream, encrypted to
// an age recipient, of the data folder's keys and configuration and of the
// store's engine-independent checkpoint. It knows no engine and no network and
// starts no goroutines.
package backup

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/muster-iot/muster/internal/datadir"
)

// Format is the newest archive layout that this version writes and reads.
const Format = 1

const (
	manifestName = "manifest.json"
	filesPrefix  = "files/"
	storePrefix  = "store/"
	// chunkBytes is the size of one piece of the checkpoint: a tar entry needs
	// its size up front, a checkpoint has none.
	chunkBytes = 4 << 20
	// maxManifestBytes and maxFileBytes bound what a restore reads into memory
	// and copies for one entry of an archive that may not be ours.
	maxManifestBytes = 1 << 20
	maxFileBytes     = 64 << 20
)

// Manifest describes an archive; it is its first entry.
type Manifest struct {
	Format  int       `json:"format"`
	Product string    `json:"product"`
	Created time.Time `json:"created"`
	// Version is the program that wrote the archive.
	Version string `json:"version"`
}

// product marks archives as ours.
const product = "muster"

// Source is what goes into an archive.
type Source struct {
	// Root is the data folder; Files are folders and files below it.
	Root  string
	Files []string
	// Checkpoint writes the store's consistent copy.
	Checkpoint func(ctx context.Context, w io.Writer) error
	Version    string
	Now        time.Time
}

// ParseRecipient checks an age public key.
func ParseRecipient(text string) (age.Recipient, error) {
	to, err := age.ParseX25519Recipient(text)
	if err != nil {
		return nil, fmt.Errorf("recipient: %w", err)
	}
	return to, nil
}

// Write streams an archive to w, encrypted so that only the holder of the
// recipient's identity can read it.
func Write(ctx context.Context, w io.Writer, recipient string, s Source) error {
	to, err := ParseRecipient(recipient)
	if err != nil {
		return err
	}
	sealed, err := age.Encrypt(w, to)
	if err != nil {
		return fmt.Errorf("encrypt backup: %w", err)
	}
	archive := tar.NewWriter(sealed)
	if err := s.write(ctx, archive); err != nil {
		return err
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("end backup: %w", err)
	}
	if err := sealed.Close(); err != nil {
		return fmt.Errorf("end backup: %w", err)
	}
	return nil
}

func (s Source) write(ctx context.Context, archive *tar.Writer) error {
	manifest, err := json.Marshal(Manifest{Format: Format, Product: product, Created: s.Now.UTC(), Version: s.Version})
	if err != nil {
		return fmt.Errorf("describe backup: %w", err)
	}
	if err := entry(archive, manifestName, manifest); err != nil {
		return err
	}
	for _, name := range s.Files {
		if err := s.writeFiles(archive, name); err != nil {
			return err
		}
	}
	chunks := &chunkWriter{archive: archive}
	if err := s.Checkpoint(ctx, chunks); err != nil {
		return fmt.Errorf("back up the store: %w", err)
	}
	return chunks.flush()
}

// writeFiles adds a file or everything below a folder; what does not exist is
// left out.
func (s Source) writeFiles(archive *tar.Writer, name string) error {
	root, err := os.OpenRoot(s.Root)
	if err != nil {
		return fmt.Errorf("back up %s: %w", name, err)
	}
	defer root.Close() //nolint:errcheck // it was only read
	return fs.WalkDir(root.FS(), name, func(file string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("back up %s: %w", name, err)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		data, err := root.ReadFile(file)
		if err != nil {
			return fmt.Errorf("back up %s: %w", name, err)
		}
		return entry(archive, filesPrefix+file, data)
	})
}

func entry(archive *tar.Writer, name string, data []byte) error {
	if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(data)), Format: tar.FormatPAX}); err != nil {
		return fmt.Errorf("back up %s: %w", name, err)
	}
	if _, err := archive.Write(data); err != nil {
		return fmt.Errorf("back up %s: %w", name, err)
	}
	return nil
}

// chunkWriter cuts a stream of unknown length into numbered entries.
type chunkWriter struct {
	archive *tar.Writer
	buffer  []byte
	number  int
}

// Write buffers and cuts.
func (c *chunkWriter) Write(p []byte) (int, error) {
	written := len(p)
	for len(p) > 0 {
		n := min(chunkBytes-len(c.buffer), len(p))
		c.buffer = append(c.buffer, p[:n]...)
		p = p[n:]
		if len(c.buffer) == chunkBytes {
			if err := c.flush(); err != nil {
				return 0, err
			}
		}
	}
	return written, nil
}

func (c *chunkWriter) flush() error {
	if len(c.buffer) == 0 {
		return nil
	}
	c.number++
	err := entry(c.archive, fmt.Sprintf("%s%08d", storePrefix, c.number), c.buffer)
	c.buffer = c.buffer[:0]
	return err
}

// Target is where an archive goes.
type Target struct {
	// Root is the data folder; nothing else than Files below it is written,
	// and nothing that exists is replaced: the keys of an installation that
	// lives there already are worth more than the archive.
	Root  string
	Files []string
	// Restore takes the store's copy.
	Restore func(ctx context.Context, r io.Reader) error
}

// Read restores an archive. It returns the manifest once all of it was read
// and checked.
func Read(ctx context.Context, r io.Reader, identities []age.Identity, to Target) (Manifest, error) {
	if err := to.Vacant(); err != nil {
		return Manifest{}, err
	}
	opened, err := age.Decrypt(r, identities...)
	if err != nil {
		return Manifest{}, fmt.Errorf("decrypt backup: %w", err)
	}
	archive := tar.NewReader(opened)
	manifest, err := readManifest(archive)
	if err != nil {
		return Manifest{}, err
	}
	chunks := &chunkReader{archive: archive, to: to}
	if err := chunks.open(); err != nil {
		return Manifest{}, err
	}
	if err := to.Restore(ctx, chunks); err != nil {
		return Manifest{}, fmt.Errorf("restore the store: %w", err)
	}
	// The archive's end carries the authentication of the last part.
	if _, err := io.Copy(io.Discard, chunks); err != nil {
		return Manifest{}, err
	}
	if _, err := io.Copy(io.Discard, opened); err != nil {
		return Manifest{}, fmt.Errorf("decrypt backup: %w", err)
	}
	return manifest, nil
}

// Vacant refuses a folder that holds any of what would be restored.
func (t Target) Vacant() error {
	for _, name := range t.Files {
		_, err := os.Lstat(filepath.Join(t.Root, filepath.FromSlash(name)))
		if err == nil {
			return fmt.Errorf("restore into %s: it holds %s already; restore into an empty folder", t.Root, name)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("restore into %s: %w", t.Root, err)
		}
	}
	return nil
}

// takes reports whether a file belongs to what is restored. An archive can come
// from anybody who knows the public key.
func (t Target) takes(name string) bool {
	if !filepath.IsLocal(name) || path.Clean(name) != name {
		return false
	}
	for _, file := range t.Files {
		if name == file || strings.HasPrefix(name, file+"/") {
			return true
		}
	}
	return false
}

func readManifest(archive *tar.Reader) (Manifest, error) {
	header, err := archive.Next()
	if err != nil {
		return Manifest{}, fmt.Errorf("read backup: %w", err)
	}
	if header.Name != manifestName {
		return Manifest{}, fmt.Errorf("read backup: the first entry is %q, not a manifest", header.Name)
	}
	data, err := io.ReadAll(io.LimitReader(archive, maxManifestBytes))
	if err != nil {
		return Manifest{}, fmt.Errorf("read backup: %w", err)
	}
	var m Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return Manifest{}, fmt.Errorf("read backup: manifest: %w", err)
	}
	if m.Product != product {
		return Manifest{}, fmt.Errorf("read backup: it was written by %q", m.Product)
	}
	if m.Format > Format {
		return Manifest{}, fmt.Errorf("read backup: format %d is newer than %d, the newest that this version reads; use muster %s or later", m.Format, Format, m.Version)
	}
	return m, nil
}

// chunkReader joins the store's entries to one stream and writes the files
// that stand before them.
type chunkReader struct {
	archive *tar.Reader
	to      Target
	number  int
	done    bool
}

// open restores files up to the first store entry.
func (c *chunkReader) open() error {
	for {
		header, err := c.archive.Next()
		if errors.Is(err, io.EOF) {
			c.done = true
			return nil
		}
		if err != nil {
			return fmt.Errorf("read backup: %w", err)
		}
		if strings.HasPrefix(header.Name, storePrefix) {
			c.number = 1
			return c.numbered(header.Name)
		}
		if err := c.file(header); err != nil {
			return err
		}
	}
}

func (c *chunkReader) numbered(name string) error {
	if want := fmt.Sprintf("%s%08d", storePrefix, c.number); name != want {
		return fmt.Errorf("read backup: entry %q where %q was expected", name, want)
	}
	return nil
}

// file restores one file below the root.
func (c *chunkReader) file(header *tar.Header) error {
	name, ok := strings.CutPrefix(header.Name, filesPrefix)
	if !ok || !c.to.takes(name) {
		return fmt.Errorf("read backup: unexpected entry %q", header.Name)
	}
	if header.Size > maxFileBytes {
		return fmt.Errorf("read backup: entry %q has %d bytes, more than %d", header.Name, header.Size, maxFileBytes)
	}
	data, err := io.ReadAll(c.archive)
	if err != nil {
		return fmt.Errorf("read backup: %w", err)
	}
	target := filepath.Join(c.to.Root, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return fmt.Errorf("restore %s: %w", name, err)
	}
	if err := datadir.WriteFile(target, data, datadir.PrivateMode); err != nil {
		return fmt.Errorf("restore %s: %w", name, err)
	}
	return nil
}

// Read continues with the next entry where one ends.
func (c *chunkReader) Read(p []byte) (int, error) {
	for {
		if c.done {
			return 0, io.EOF
		}
		n, err := c.archive.Read(p)
		if err != nil && !errors.Is(err, io.EOF) {
			return n, fmt.Errorf("read backup: %w", err)
		}
		if n > 0 || err == nil {
			return n, nil
		}
		header, err := c.archive.Next()
		if errors.Is(err, io.EOF) {
			c.done = true
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("read backup: %w", err)
		}
		c.number++
		if err := c.numbered(header.Name); err != nil {
			return 0, err
		}
	}
}

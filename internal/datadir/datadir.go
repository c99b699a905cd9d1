// Package datadir owns the layout of the data folder: its lock, its format
// number, the names of what lies in it, and how a file is replaced so that a
// crash leaves either the old or the new one. It knows no content beyond the
// file FORMAT and starts no goroutines.
package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Format is the newest layout that this version writes and reads. Version 1
// is the first one.
const Format = 1

// product is the first word of the file FORMAT; anything else there belongs
// to somebody else.
const product = "muster"

// Names inside the data folder.
const (
	formatFile = "FORMAT"
	lockFile   = "LOCK"
	// StoreDir holds the embedded engine's files.
	StoreDir = "store"
	// PKIDir holds the authorities' and the server's keys.
	PKIDir = "pki"
	// SecretsDir holds the keys that seal secrets in the store.
	SecretsDir = "secrets"
	// IndexDir holds what can be made anew from the store.
	IndexDir = "index"
	// DemoDir holds what `muster demo` makes for itself.
	DemoDir = "demo"
	// BucketsDir holds the buckets that files are read from.
	BucketsDir = "buckets"
	// CAFile is what a device must trust.
	CAFile = "ca.pem"
	// CredentialsFile is the root access key in the shared-credentials format.
	CredentialsFile = "credentials"
)

// Permissions: the folder holds keys, so nobody else may look.
const (
	folderMode = 0o700
	// PrivateMode is for keys and credentials.
	PrivateMode = 0o600
	// PublicMode is for certificates.
	PublicMode = 0o644
)

// maxFormatBytes bounds what is read of a file that may not be ours.
const maxFormatBytes = 256

// ErrLocked is returned when another process has the folder open.
var ErrLocked = errors.New("data folder is in use by another process")

// Dir is an open, locked data folder.
type Dir struct {
	root string
	lock *os.File
}

// Open creates the folder when it is missing, locks it for this process and
// checks its format. A folder that holds anything but no FORMAT is refused, so
// that a mistyped path cannot scatter keys over somebody's files.
func Open(root string) (*Dir, error) {
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("resolve data folder %q: %w", root, err)
	}
	if err := os.MkdirAll(abs, folderMode); err != nil {
		return nil, fmt.Errorf("create data folder: %w", err)
	}
	lock, err := acquire(filepath.Join(abs, lockFile))
	if err != nil {
		return nil, fmt.Errorf("lock data folder %s: %w", abs, err)
	}
	d := &Dir{root: abs, lock: lock}
	if err := d.ensureFormat(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Close releases the lock. The lock file stays: removing it would race with
// the next owner.
func (d *Dir) Close() error {
	if err := d.lock.Close(); err != nil {
		return fmt.Errorf("release data folder: %w", err)
	}
	return nil
}

// Root is the folder's absolute path.
func (d *Dir) Root() string { return d.root }

// Path joins names below the folder.
func (d *Dir) Path(names ...string) string {
	return filepath.Join(append([]string{d.root}, names...)...)
}

// Sub creates a private folder below the data folder and returns its path.
func (d *Dir) Sub(names ...string) (string, error) {
	path := d.Path(names...)
	if err := os.MkdirAll(path, folderMode); err != nil {
		return "", fmt.Errorf("create folder: %w", err)
	}
	return path, nil
}

// ensureFormat accepts a known format and writes ours into a new folder.
func (d *Dir) ensureFormat() error {
	_, err := Inspect(d.root)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	empty, err := d.isNew()
	if err != nil {
		return err
	}
	if !empty {
		return fmt.Errorf("%s is not a Muster data folder: it holds files but no %s", d.root, formatFile)
	}
	line := product + " " + strconv.Itoa(Format) + "\n"
	return WriteFile(d.Path(formatFile), []byte(line), PublicMode)
}

// isNew reports whether the folder holds nothing but what Open itself makes;
// a crash before FORMAT was in place leaves such a folder.
func (d *Dir) isNew() (bool, error) {
	entries, err := os.ReadDir(d.root)
	if err != nil {
		return false, fmt.Errorf("read data folder: %w", err)
	}
	for _, e := range entries {
		if e.Name() != lockFile && !strings.HasPrefix(e.Name(), temporaryPrefix) {
			return false, nil
		}
	}
	return true, nil
}

// Inspect returns the format number of a data folder without locking it. It
// fails with fs.ErrNotExist when the folder has no FORMAT, and in words when
// the format is not one that this version reads.
func Inspect(root string) (int, error) {
	path := filepath.Join(root, formatFile)
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("read data folder format: %w", err)
	}
	defer f.Close() //nolint:errcheck // nothing was written
	buf := make([]byte, maxFormatBytes)
	n, err := f.Read(buf)
	if err != nil && n == 0 {
		return 0, fmt.Errorf("%s is empty or unreadable; it should say %q", path, product+" "+strconv.Itoa(Format))
	}
	return parseFormat(path, string(buf[:n]))
}

// parseFormat reads "muster N".
func parseFormat(path, text string) (int, error) {
	name, number, ok := strings.Cut(strings.TrimSuffix(text, "\n"), " ")
	if !ok || name != product {
		return 0, fmt.Errorf("%s does not name a Muster data folder; it should begin with %q", path, product)
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%s holds no format number after %q", path, product)
	}
	if n > Format {
		return 0, fmt.Errorf("%s says format %d, which a newer version of Muster wrote; this version reads formats up to %d: "+
			"start the newer version, or restore a backup made by this one", path, n, Format)
	}
	return n, nil
}

package objectstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
)

// What keeps something from being written.
var (
	// ErrNoBucket is a bucket that does not exist; it is ErrNotFound too.
	ErrNoBucket = fmt.Errorf("%w: no such bucket", ErrNotFound)
	// ErrExists is a bucket that exists.
	ErrExists = errors.New("bucket exists")
	// ErrNotEmpty is a bucket with objects in it.
	ErrNotEmpty = errors.New("bucket is not empty")
	// ErrName is a bucket's name or a key that cannot be.
	ErrName = errors.New("name is not valid")
	// ErrTooLarge is an object beyond MaxBytes.
	ErrTooLarge = errors.New("object is too large")
	// ErrFull is a disk without room.
	ErrFull = errors.New("disk is full")
)

// uploadsDir holds what is being written. No bucket can have its name.
const uploadsDir = ".uploads"

const (
	dirMode  = 0o700
	fileMode = 0o600
)

// Bucket is a folder of objects.
type Bucket struct {
	Name    string
	Created time.Time
}

// Info is what is known of an object without opening it.
type Info struct {
	Key      string
	Size     int64
	Modified time.Time
	// Version is that of Object.
	Version string
}

// at opens the folder, which is made when it is not there, and returns the path
// of an account's bucket in it.
func (l *Local) at(account fleet.Account, bucket string) (*os.Root, string, error) {
	if !bucketPattern.MatchString(bucket) || accountPattern.MatchString(bucket) {
		return nil, "", fmt.Errorf("%w: bucket %q must have 3 to 63 lower-case letters, digits, hyphens and dots, and not only twelve digits", ErrName, bucket)
	}
	if err := os.MkdirAll(l.Dir, dirMode); err != nil {
		return nil, "", fmt.Errorf("make folder of buckets: %w", err)
	}
	root, err := os.OpenRoot(l.Dir)
	if err != nil {
		return nil, "", fmt.Errorf("open folder of buckets: %w", err)
	}
	return root, path.Join(l.home(account), bucket), nil
}

// home is where an account's buckets are.
func (l *Local) home(account fleet.Account) string {
	if account == l.Default {
		return "."
	}
	return string(account)
}

// CreateBucket makes a bucket, or returns ErrExists.
func (l *Local) CreateBucket(account fleet.Account, bucket string) error {
	root, at, err := l.at(account, bucket)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // it holds no file
	if err := root.MkdirAll(path.Dir(at), dirMode); err != nil {
		return writing(err)
	}
	err = root.Mkdir(at, dirMode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %s", ErrExists, bucket)
	}
	return writing(err)
}

// DeleteBucket removes a bucket, unless it has objects: ErrNotEmpty.
func (l *Local) DeleteBucket(account fleet.Account, bucket string) error {
	root, at, err := l.at(account, bucket)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // it holds no file
	if err := hasFolder(root, at, bucket); err != nil {
		return err // a file beside the buckets is none
	}
	l.names.Lock()
	defer l.names.Unlock()
	err = root.Remove(at)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s", ErrNoBucket, bucket)
	case errors.Is(err, syscall.ENOTEMPTY):
		return fmt.Errorf("%w: %s", ErrNotEmpty, bucket)
	}
	return writing(err)
}

// HasBucket returns ErrNoBucket for a bucket that does not exist.
func (l *Local) HasBucket(account fleet.Account, bucket string) error {
	root, at, err := l.at(account, bucket)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // it holds no file
	return hasFolder(root, at, bucket)
}

func hasFolder(root *os.Root, at, bucket string) error {
	info, err := root.Stat(at)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return fmt.Errorf("%w: %s", ErrNoBucket, bucket)
	}
	return writing(err)
}

// Buckets returns an account's buckets in the order of their names.
func (l *Local) Buckets(account fleet.Account) ([]Bucket, error) {
	root, err := os.OpenRoot(l.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open folder of buckets: %w", err)
	}
	defer root.Close() //nolint:errcheck // it holds no file
	entries, err := fs.ReadDir(root.FS(), l.home(account))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list buckets: %w", err)
	}
	var all []Bucket
	for _, e := range entries {
		if !e.IsDir() || !bucketPattern.MatchString(e.Name()) || accountPattern.MatchString(e.Name()) {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list buckets: %w", err)
		}
		all = append(all, Bucket{Name: e.Name(), Created: info.ModTime()})
	}
	return all, nil
}

// List returns the objects whose keys begin with prefix, in the order of keys. It
// reads all names of the bucket.
func (l *Local) List(ctx context.Context, account fleet.Account, bucket, prefix string) ([]Info, error) {
	root, at, err := l.at(account, bucket)
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // it holds no file
	if err := hasFolder(root, at, bucket); err != nil {
		return nil, err
	}
	var all []Info
	err = fs.WalkDir(root.FS(), at, func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		key := strings.TrimPrefix(strings.TrimPrefix(name, at), "/")
		if e.IsDir() {
			if key != "" && !strings.HasPrefix(key+"/", prefix) && !strings.HasPrefix(prefix, key+"/") {
				return fs.SkipDir
			}
			return nil
		}
		if !e.Type().IsRegular() || !strings.HasPrefix(key, prefix) {
			return nil
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		all = append(all, infoOf(key, info))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list objects: %w", err)
	}
	slices.SortFunc(all, func(a, b Info) int { return strings.Compare(a.Key, b.Key) })
	return all, nil
}

func infoOf(key string, info fs.FileInfo) Info {
	return Info{Key: key, Size: info.Size(), Modified: info.ModTime(), Version: versionOf(info)}
}

// Put writes an object from all that r has. It is there as a whole, on disk, or not at
// all; another one of the key is replaced.
func (l *Local) Put(_ context.Context, account fleet.Account, bucket, key string, r io.Reader) (Info, error) {
	root, at, err := l.at(account, bucket)
	if err != nil {
		return Info{}, err
	}
	defer root.Close() //nolint:errcheck // what was written is synced
	if err := checkKey(key); err != nil {
		return Info{}, err
	}
	if err := hasFolder(root, at, bucket); err != nil {
		return Info{}, err
	}
	if err := root.MkdirAll(uploadsDir, dirMode); err != nil {
		return Info{}, writing(err)
	}
	draft := path.Join(uploadsDir, freshName())
	if err := l.write(root, draft, r); err != nil {
		return Info{}, errors.Join(err, gone(root.Remove(draft)))
	}
	info, err := l.publish(root, draft, at, bucket, key)
	if err != nil {
		return Info{}, errors.Join(err, gone(root.Remove(draft)))
	}
	return info, nil
}

// checkKey refuses what is no path of a file.
func checkKey(key string) error {
	const longest = 1024
	if !fs.ValidPath(key) || key == "." || len(key) > longest || strings.ContainsRune(key, 0) {
		return fmt.Errorf("%w: a key is kept as the path of a file: at most %d bytes, no part empty, \".\" or \"..\", and no slash at the end", ErrName, longest)
	}
	return nil
}

// freshName is a name that nobody has.
func freshName() string {
	const size = 16
	name := make([]byte, size)
	rand.Read(name)
	return hex.EncodeToString(name)
}

// write makes a file that is on disk.
func (l *Local) write(root *os.Root, name string, r io.Reader) error {
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return writing(err)
	}
	n, err := io.Copy(file, io.LimitReader(r, l.MaxBytes+1))
	switch {
	case err != nil:
	case n > l.MaxBytes:
		err = fmt.Errorf("%w: more than %d bytes", ErrTooLarge, l.MaxBytes)
	default:
		err = file.Sync()
	}
	return errors.Join(writing(err), writing(file.Close()))
}

// publish gives a file that is on disk its place in the bucket at home.
func (l *Local) publish(root *os.Root, draft, home, bucket, key string) (Info, error) {
	at := path.Join(home, key)
	// Another one may have the place by the time that this is answered.
	info, err := root.Stat(draft)
	if err != nil {
		return Info{}, writing(err)
	}
	if err := l.place(root, draft, home, bucket, at); err != nil {
		return Info{}, err
	}
	// The names must survive a crash like the bytes.
	for dir := path.Dir(at); ; dir = path.Dir(dir) {
		if err := syncDir(root, dir); err != nil {
			return Info{}, err
		}
		if dir == "." {
			break
		}
	}
	return infoOf(key, info), nil
}

// place moves a file into a bucket, unless that was deleted while the file came.
func (l *Local) place(root *os.Root, draft, home, bucket, at string) error {
	l.names.Lock()
	defer l.names.Unlock()
	if err := hasFolder(root, home, bucket); err != nil {
		return err
	}
	if err := root.MkdirAll(path.Dir(at), dirMode); err != nil {
		return writing(err)
	}
	return writing(root.Rename(draft, at))
}

// syncDir has the names in a folder on disk; a folder that was removed has none.
func syncDir(root *os.Root, dir string) error {
	d, err := root.Open(dir)
	if err != nil {
		return writing(gone(err))
	}
	return writing(errors.Join(d.Sync(), d.Close()))
}

// Delete removes an object; one that does not exist is no error. Folders that have
// become empty go with it.
func (l *Local) Delete(_ context.Context, account fleet.Account, bucket, key string) error {
	root, at, err := l.at(account, bucket)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // it holds no file
	if err := hasFolder(root, at, bucket); err != nil {
		return err
	}
	if checkKey(key) != nil {
		return nil // no such object can exist
	}
	name := path.Join(at, key)
	l.names.Lock()
	defer l.names.Unlock()
	if info, err := root.Lstat(name); err != nil || info.IsDir() {
		return nil //nolint:nilerr // there is no such object
	}
	if err := gone(root.Remove(name)); err != nil {
		return writing(err)
	}
	for dir := path.Dir(name); dir != at; dir = path.Dir(dir) {
		if root.Remove(dir) != nil {
			break // it has others
		}
	}
	return nil
}

// gone lets be what was not there.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// writing gives what a disk says a name.
func writing(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", ErrFull, err)
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EISDIR), errors.Is(err, fs.ErrExist), errors.Is(err, syscall.ENAMETOOLONG):
		return fmt.Errorf("%w: an object cannot be where a folder of others is, nor below an object, and a part of a key has at most 255 bytes", ErrName)
	case errors.Is(err, ErrTooLarge), errors.Is(err, ErrName):
		return err
	}
	return fmt.Errorf("write object: %w", err)
}

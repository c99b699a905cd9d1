package objectstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/muster-iot/muster/internal/fleet"
)

// Names of buckets, by the rules of S3, but for names of twelve digits, which are
// accounts.
var (
	bucketPattern  = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	accountPattern = regexp.MustCompile(`^[0-9]{12}$`)
)

// Local is a folder: a bucket of the default account is a folder in it, one of
// another account a folder in the folder with the account's number. A key with
// slashes is a path. Links that lead outside are not followed.
type Local struct {
	// Dir is the folder, which need not exist.
	Dir string
	// Default is the account whose buckets are in the folder itself.
	Default fleet.Account
	// MaxBytes bounds what is written as one object.
	MaxBytes int64

	// names is held while a folder is removed, or made for a file that moves into it.
	names sync.Mutex
}

// Open implements Store.
func (l *Local) Open(_ context.Context, account fleet.Account, bucket, key string) (Object, error) {
	if !bucketPattern.MatchString(bucket) || accountPattern.MatchString(bucket) || !fs.ValidPath(key) || key == "." {
		return Object{}, fmt.Errorf("%w: bucket %q, key %q", ErrNotFound, bucket, key)
	}
	root, err := os.OpenRoot(l.Dir)
	if err != nil {
		return Object{}, notFound(err)
	}
	defer root.Close() //nolint:errcheck // it was read only
	name := path.Join(bucket, key)
	if account != l.Default {
		name = path.Join(string(account), name)
	}
	// A pipe would wait for somebody who writes.
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return Object{}, notFound(err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: it is no file", ErrNotFound)
	}
	if err != nil {
		return Object{}, errors.Join(err, file.Close())
	}
	return Object{ReadCloser: file, Size: info.Size(), Version: versionOf(info)}, nil
}

// versionOf is another one when a file was written.
func versionOf(info fs.FileInfo) string {
	return strconv.FormatInt(info.ModTime().UnixNano(), 36) + "-" + strconv.FormatInt(info.Size(), 36)
}

// nowhere are errors about a name that leads nowhere, or could not lead anywhere.
var nowhere = []error{fs.ErrNotExist, fs.ErrInvalid, syscall.ENOTDIR, syscall.EINVAL, syscall.ENAMETOOLONG, syscall.ELOOP}

// notFound tells a name that leads nowhere, or outside, from trouble.
func notFound(err error) error {
	if strings.Contains(err.Error(), "escapes") || slices.ContainsFunc(nowhere, func(n error) bool { return errors.Is(err, n) }) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return fmt.Errorf("open object: %w", err)
}

package objectstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strconv"
	"time"

	"github.com/muster-iot/muster/internal/fleet"
)

// Trouble with an object that comes in parts.
var (
	// ErrNoUpload is an upload that does not exist, or is over.
	ErrNoUpload = errors.New("no such upload")
	// ErrPart is a part that was not uploaded.
	ErrPart = errors.New("no such part")
)

const (
	// MaxParts is the highest number of a part, as on S3.
	MaxParts = 10_000
	// uploadLife is how long an upload may take.
	uploadLife = 7 * 24 * time.Hour
	// aboutName is the file that says what an upload is for.
	aboutName = "about"
)

var uploadPattern = regexp.MustCompile(`^[0-9a-f]{32}$`)

// about is what an upload is for.
type about struct {
	Account fleet.Account `json:"account"`
	Bucket  string        `json:"bucket"`
	Key     string        `json:"key"`
}

// Part is a part of an upload by its number.
type Part struct {
	Number int
	// Version is what PutPart gave.
	Version string
}

// Begin starts an object that comes in parts and returns the upload's id.
func (l *Local) Begin(account fleet.Account, bucket, key string) (string, error) {
	root, at, err := l.at(account, bucket)
	if err != nil {
		return "", err
	}
	defer root.Close() //nolint:errcheck // what was written is closed
	if err := checkKey(key); err != nil {
		return "", err
	}
	if err := hasFolder(root, at, bucket); err != nil {
		return "", err
	}
	text, err := json.Marshal(about{account, bucket, key})
	if err != nil {
		return "", fmt.Errorf("encode upload: %w", err)
	}
	id := freshName()
	dir := path.Join(uploadsDir, id)
	if err := root.MkdirAll(dir, dirMode); err != nil {
		return "", writing(err)
	}
	return id, writing(root.WriteFile(path.Join(dir, aboutName), text, fileMode))
}

// upload opens the folder of an upload, which must be for the object.
func (l *Local) upload(account fleet.Account, bucket, key, id string) (root *os.Root, dir, at string, err error) {
	root, at, err = l.at(account, bucket)
	if err != nil {
		return nil, "", "", err
	}
	dir = path.Join(uploadsDir, id)
	var found about
	text, err := root.ReadFile(path.Join(dir, aboutName))
	if err == nil {
		err = json.Unmarshal(text, &found)
	}
	if !uploadPattern.MatchString(id) || err != nil || found != (about{account, bucket, key}) {
		return nil, "", "", errors.Join(fmt.Errorf("%w: %.40q", ErrNoUpload, id), root.Close())
	}
	return root, dir, at, nil
}

func partName(dir string, number int) string { return path.Join(dir, strconv.Itoa(number)) }

// PutPart writes one part, from 1, and returns its version. Another one of the
// number is replaced.
func (l *Local) PutPart(_ context.Context, account fleet.Account, bucket, key, id string, number int, r io.Reader) (version string, err error) {
	root, dir, _, err := l.upload(account, bucket, key, id)
	if err != nil {
		return "", err
	}
	defer root.Close() //nolint:errcheck // what was written is closed
	if number < 1 || number > MaxParts {
		return "", fmt.Errorf("%w: a part has a number from 1 to %d", ErrName, MaxParts)
	}
	draft := path.Join(dir, freshName())
	if err := l.write(root, draft, r); err != nil {
		return "", errors.Join(err, gone(root.Remove(draft)))
	}
	if err := root.Rename(draft, partName(dir, number)); err != nil {
		return "", writing(err)
	}
	info, err := root.Stat(partName(dir, number))
	if err != nil {
		return "", writing(err)
	}
	return versionOf(info), nil
}

// Complete makes the object of the parts, in their order, and ends the upload.
func (l *Local) Complete(ctx context.Context, account fleet.Account, bucket, key, id string, parts []Part) (Info, error) {
	root, dir, at, err := l.upload(account, bucket, key, id)
	if err != nil {
		return Info{}, err
	}
	defer root.Close() //nolint:errcheck // what was written is synced
	if err := hasFolder(root, at, bucket); err != nil {
		return Info{}, err
	}
	for _, p := range parts {
		info, err := root.Stat(partName(dir, p.Number))
		if err != nil || versionOf(info) != p.Version {
			return Info{}, fmt.Errorf("%w: %d", ErrPart, p.Number)
		}
	}
	joined := &joinedParts{ctx: ctx, root: root, dir: dir, rest: parts}
	draft := path.Join(dir, freshName())
	err = errors.Join(l.write(root, draft, joined), joined.close())
	if err != nil {
		return Info{}, errors.Join(err, gone(root.Remove(draft)))
	}
	info, err := l.publish(root, draft, at, bucket, key)
	if err != nil {
		return Info{}, errors.Join(err, gone(root.Remove(draft)))
	}
	return info, writing(root.RemoveAll(dir))
}

// joinedParts reads one part after the other.
type joinedParts struct {
	ctx  context.Context //nolint:containedctx // it reads within one call
	root *os.Root
	dir  string
	rest []Part
	open *os.File
}

// Read implements io.Reader.
func (j *joinedParts) Read(p []byte) (int, error) {
	for {
		if err := j.ctx.Err(); err != nil {
			return 0, err
		}
		if j.open == nil {
			if len(j.rest) == 0 {
				return 0, io.EOF
			}
			file, err := j.next()
			if err != nil {
				return 0, err
			}
			j.open, j.rest = file, j.rest[1:]
		}
		n, err := j.open.Read(p)
		if n > 0 || !errors.Is(err, io.EOF) {
			return n, err //nolint:wrapcheck // as a file's
		}
		if err := j.close(); err != nil {
			return 0, err
		}
	}
}

// next opens the next part, which may have been replaced since it was looked at.
func (j *joinedParts) next() (*os.File, error) {
	part := j.rest[0]
	file, err := j.root.Open(partName(j.dir, part.Number))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %d", ErrPart, part.Number)
	}
	if err != nil {
		return nil, fmt.Errorf("open part: %w", err)
	}
	info, err := file.Stat()
	if err == nil && versionOf(info) != part.Version {
		err = fmt.Errorf("%w: %d", ErrPart, part.Number)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func (j *joinedParts) close() error {
	if j.open == nil {
		return nil
	}
	err := j.open.Close()
	j.open = nil
	return err //nolint:wrapcheck // as a file's
}

// Abort ends an upload and removes its parts.
func (l *Local) Abort(account fleet.Account, bucket, key, id string) error {
	root, dir, _, err := l.upload(account, bucket, key, id)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // it holds no file
	return writing(root.RemoveAll(dir))
}

// Sweep removes what was begun before a week ago and never completed.
func (l *Local) Sweep(now time.Time) error {
	root, err := os.OpenRoot(l.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open folder of buckets: %w", err)
	}
	defer root.Close() //nolint:errcheck // it holds no file
	entries, err := fs.ReadDir(root.FS(), uploadsDir)
	if err != nil {
		return gone(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || now.Sub(info.ModTime()) < uploadLife {
			continue
		}
		if err := root.RemoveAll(path.Join(uploadsDir, e.Name())); err != nil {
			return writing(err)
		}
	}
	return nil
}

package objectstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/muster-iot/muster/internal/fleet"
)

// S3Options say where an S3-compatible store is.
type S3Options struct {
	// URL is https://HOST[:PORT]; http is only for this machine.
	URL         string
	Region      string
	AccessKeyID string
	Secret      string
	// CAFile holds the authorities of its certificate; empty for the system's.
	CAFile string
	// Default is the account that may read every bucket but those of others,
	// whose names begin with their number and a hyphen.
	Default fleet.Account
}

// S3 is a store that speaks S3.
type S3 struct {
	client  *minio.Client
	general fleet.Account
}

// maxTries bounds how often a request is made: somebody may wait for it, and a
// task tries again by itself.
const maxTries = 3

// NewS3 makes no connection yet.
func NewS3(o S3Options) (*S3, error) {
	at, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("read address of the object store: %w", err)
	}
	secure := at.Scheme == "https"
	transport, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, fmt.Errorf("prepare connections to the object store: %w", err)
	}
	if o.CAFile != "" {
		if transport.TLSClientConfig, err = trusting(o.CAFile); err != nil {
			return nil, err
		}
	}
	client, err := minio.New(at.Host, &minio.Options{
		Creds: credentials.NewStaticV4(o.AccessKeyID, o.Secret, ""), Secure: secure, Region: o.Region,
		Transport: transport, BucketLookup: minio.BucketLookupPath, MaxRetries: maxTries,
	})
	if err != nil {
		return nil, fmt.Errorf("prepare the object store: %w", err)
	}
	return &S3{client: client, general: o.Default}, nil
}

// trusting is TLS with the authorities of a file.
func trusting(file string) (*tls.Config, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read authorities of the object store: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("read authorities of the object store: %s holds no certificate", file)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

// Open implements Store.
func (s *S3) Open(ctx context.Context, account fleet.Account, bucket, key string) (Object, error) {
	if !s.owns(account, bucket) || climbs(key) {
		return Object{}, fmt.Errorf("%w: bucket %q, key %q", ErrNotFound, bucket, key)
	}
	object, err := s.client.GetObject(ctx, bucket, key, minio.GetObjectOptions{})
	if err != nil {
		return Object{}, missing(err)
	}
	info, err := object.Stat()
	if err != nil {
		return Object{}, errors.Join(missing(err), object.Close())
	}
	return Object{ReadCloser: object, Size: info.Size, Version: info.ETag}, nil
}

// owns reports whether an account may read a bucket.
func (s *S3) owns(account fleet.Account, bucket string) bool {
	const digits = 12
	if len(bucket) > digits && bucket[digits] == '-' && accountPattern.MatchString(bucket[:digits]) {
		return strings.HasPrefix(bucket, string(account)+"-")
	}
	return account == s.general
}

// climbs reports whether a key could be taken for a path that leads elsewhere: what
// stands between us and the store may tidy paths up, and the next bucket may be
// another account's.
func climbs(key string) bool {
	parts := strings.Split(key, "/")
	return slices.Contains(parts, "..") || slices.Contains(parts, ".")
}

// missing tells what does not exist, or cannot, from trouble.
func missing(err error) error {
	answer := minio.ToErrorResponse(err)
	switch {
	case answer.StatusCode == http.StatusNotFound, answer.Code == minio.NoSuchBucket, answer.Code == minio.NoSuchKey,
		answer.Code == minio.InvalidBucketName, answer.Code == minio.XMinioInvalidObjectName:
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return fmt.Errorf("open object: %w", err)
}

package sdk

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	oldaws "github.com/aws/aws-sdk-go/aws"                     //nolint:staticcheck // the newer SDK's client is not to be had.
	"github.com/aws/aws-sdk-go/aws/awserr"                     //nolint:staticcheck // as above
	oldcredentials "github.com/aws/aws-sdk-go/aws/credentials" //nolint:staticcheck // as above
	oldsession "github.com/aws/aws-sdk-go/aws/session"         //nolint:staticcheck // as above
	"github.com/aws/aws-sdk-go/service/s3"                     //nolint:staticcheck // as above
)

// TestBucketsThroughTheSDK writes, lists, presigns and deletes over TLS; a client
// that has the bucket in the host's name is told so.
func TestBucketsThroughTheSDK(t *testing.T) {
	t.Parallel()
	h, a, b := twins(t)
	client := everywhere(h.server.TLSAddr, h.server.CAPool())
	defer client.CloseIdleConnections()
	buckets := func(n *neighbour, byPath bool) *s3.S3 {
		settings, err := oldsession.NewSession(&oldaws.Config{
			Region: new("us-east-1"), Endpoint: new("https://iot.us-east-1.muster.internal"), MaxRetries: new(0), HTTPClient: &http.Client{},
			Credentials: oldcredentials.NewStaticCredentials(n.key.AccessKeyID, n.key.Secret, ""), S3ForcePathStyle: &byPath,
		})
		if err != nil {
			t.Fatal(err)
		}
		return s3.New(settings, &oldaws.Config{HTTPClient: client})
	}
	ours, bucket, key := buckets(a, true), new("sdk-files"), new("in/a file.json")
	if _, err := ours.CreateBucketWithContext(t.Context(), &s3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	if _, err := ours.PutObjectWithContext(t.Context(), &s3.PutObjectInput{Bucket: bucket, Key: key, Body: strings.NewReader("hello")}); err != nil {
		t.Fatal(err)
	}
	list, err := ours.ListObjectsV2WithContext(t.Context(), &s3.ListObjectsV2Input{Bucket: bucket, Prefix: new("in/")})
	if err != nil || len(list.Contents) != 1 || *list.Contents[0].Key != *key {
		t.Errorf("%v %v", list, err)
	}
	request, _ := ours.GetObjectRequest(&s3.GetObjectInput{Bucket: bucket, Key: key})
	link, err := request.Presign(time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Get(link) //nolint:noctx // a link is followed
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if text, err := io.ReadAll(answer.Body); err != nil || string(text) != "hello" {
		t.Errorf("the link has %q, %v", text, err)
	}
	coded := func(want string, err error) {
		t.Helper()
		if e, ok := errors.AsType[awserr.Error](err); !ok || e.Code() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	_, err = buckets(b, true).GetObjectWithContext(t.Context(), &s3.GetObjectInput{Bucket: bucket, Key: key})
	coded("NoSuchBucket", err)
	_, err = buckets(a, false).PutObjectWithContext(t.Context(), &s3.PutObjectInput{Bucket: bucket, Key: new("empty.txt"), Body: strings.NewReader("")})
	coded("InvalidRequest", err)
	if _, err := ours.DeleteObjectsWithContext(t.Context(), &s3.DeleteObjectsInput{Bucket: bucket, Delete: &s3.Delete{Objects: []*s3.ObjectIdentifier{{Key: key}}}}); err != nil {
		t.Error(err)
	}
	if _, err := ours.DeleteBucketWithContext(t.Context(), &s3.DeleteBucketInput{Bucket: bucket}); err != nil {
		t.Error(err)
	}
}

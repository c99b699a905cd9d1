package cli_test

import (
	"bytes"
	"crypto/rand"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/testkit"
)

// s3 runs `aws s3…` commands, whose answers are no JSON.
func (o *operator) s3(args ...string) (string, error) {
	o.t.Helper()
	cmd := exec.CommandContext(o.t.Context(), "aws", args...)
	cmd.Env = o.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// mustS3 runs a command that has to succeed.
func (o *operator) mustS3(args ...string) string {
	o.t.Helper()
	out, err := o.s3(args...)
	if err != nil {
		o.t.Fatalf("aws %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// refusedS3 runs one that has to fail with a text.
func (o *operator) refusedS3(text string, args ...string) {
	o.t.Helper()
	if out, err := o.s3(args...); err == nil || !strings.Contains(out, text) {
		o.t.Errorf("aws %s: %v, want %q in\n%s", strings.Join(args, " "), err, text, out)
	}
}

// TestBuckets: the AWS command line puts files where registration tasks read them,
// with and without TLS, and another account does not see them.
func TestBuckets(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "aws")
	server := testkit.StartServer(t)
	_, port, _ := strings.Cut(server.TLSAddr, ":")
	dir := t.TempDir()
	small, large, back := filepath.Join(dir, "small.txt"), filepath.Join(dir, "large.bin"), filepath.Join(dir, "back")
	content := make([]byte, 20<<20)
	if _, err := rand.Read(content); err != nil {
		t.Fatal(err)
	}
	for file, data := range map[string][]byte{small: []byte("hello\n"), large: content} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The first version of the AWS command line presigns by an old scheme unless told.
	settings := filepath.Join(dir, "config")
	if err := os.WriteFile(settings, []byte("[default]\ns3 =\n  signature_version = s3v4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for bucket, endpoint := range map[string]string{"plain-files": "http://" + server.HTTPAddr, "tls-files": "https://localhost:" + port} {
		o := newOperator(t, server)
		o.env = append(o.env, "AWS_CONFIG_FILE="+settings, "AWS_ENDPOINT_URL="+endpoint, "AWS_CA_BUNDLE="+filepath.Join(server.DataDir, "ca.pem"))
		url := "s3://" + bucket
		o.mustS3("s3", "mb", url)
		o.refusedS3("BucketAlreadyOwnedByYou", "s3", "mb", url)
		o.mustS3("s3", "cp", small, url+"/in/small.txt")
		o.mustS3("s3", "cp", large, url+"/large.bin", "--no-progress") // in parts
		if out := o.mustS3("s3", "ls", url+"/"); !strings.Contains(out, "PRE in/") || !strings.Contains(out, "20971520 large.bin") {
			t.Errorf("list\n%s", out)
		}
		o.mustS3("s3", "cp", url+"/large.bin", back, "--no-progress")
		if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes came back, %v", len(got), err)
		}
		part := filepath.Join(dir, "part")
		o.mustS3("s3api", "get-object", "--bucket", bucket, "--key", "in/small.txt", "--range", "bytes=1-3", part)
		if got, err := os.ReadFile(part); err != nil || string(got) != "ell" {
			t.Errorf("range %q, %v", got, err)
		}
		if link := strings.TrimSpace(o.mustS3("s3", "presign", url+"/in/small.txt")); strings.HasPrefix(link, "http://") {
			if got := fetched(t, link); got != "hello\n" {
				t.Errorf("%s has %q", link, got)
			}
		}
		o.refusedS3("NoSuchKey", "s3api", "get-object", "--bucket", bucket, "--key", "nothing", part)
		o.refusedS3("NoSuchBucket", "s3api", "list-objects-v2", "--bucket", "nowhere")
		o.refusedS3("InvalidArgument", "s3api", "put-object", "--bucket", bucket, "--key", "a/../../../credentials", "--body", small)
		o.refusedS3("InvalidArgument", "s3api", "put-object", "--bucket", bucket, "--key", "in", "--body", small)
		o.refusedS3("NotImplemented", "s3api", "put-object", "--bucket", bucket, "--key", "x", "--body", small, "--metadata", "a=b")
		o.refusedS3("NotImplemented", "s3api", "put-bucket-versioning", "--bucket", bucket, "--versioning-configuration", "Status=Enabled")
		o.refusedS3("BucketNotEmpty", "s3api", "delete-bucket", "--bucket", bucket)
		o.mustS3("s3", "rm", url+"/in/small.txt")
		if _, err := os.Stat(filepath.Join(server.DataDir, "buckets", bucket, "in")); !os.IsNotExist(err) {
			t.Errorf("a folder without objects: %v", err)
		}
	}

	// A neighbour sees nothing, and has buckets of the same names.
	o := newOperator(t, server)
	o.env = append(o.env, "AWS_ENDPOINT_URL=http://"+server.HTTPAddr)
	o.muster("account", "create", "Other", "--id", "210000000001", "--save-profile", "other")
	other := &operator{t: t, server: server, env: append(os.Environ(), "AWS_PROFILE=other", "AWS_SHARED_CREDENTIALS_FILE="+filepath.Join(server.DataDir, "credentials"),
		"AWS_DEFAULT_REGION=us-east-1", "AWS_PAGER=", "AWS_CONFIG_FILE=/dev/null", "AWS_ENDPOINT_URL=http://"+server.HTTPAddr)}
	if out := strings.TrimSpace(other.mustS3("s3", "ls")); out != "" {
		t.Errorf("the other account has %q", out)
	}
	other.refusedS3("NoSuchBucket", "s3api", "list-objects-v2", "--bucket", "plain-files")
	other.mustS3("s3", "mb", "s3://plain-files")
	other.mustS3("s3", "cp", small, "s3://plain-files/large.bin")
	if out := o.mustS3("s3api", "head-object", "--bucket", "plain-files", "--key", "large.bin"); !strings.Contains(out, "20971520") {
		t.Errorf("the neighbour's object took its place: %s", out)
	}
	o.mustS3("s3", "rb", "s3://plain-files", "--force")

	// Who may what is a matter of policies.
	o.muster("user", "create", "reader")
	o.muster("user", "attach", "reader", "MusterViewer")
	reader := &operator{t: t, server: server, env: append(os.Environ(), "AWS_DEFAULT_REGION=us-east-1", "AWS_PAGER=", "AWS_CONFIG_FILE=/dev/null",
		"AWS_ENDPOINT_URL=http://"+server.HTTPAddr)}
	created := o.muster("key", "create", "reader")
	for field, name := range map[string]string{"AKIA": "AWS_ACCESS_KEY_ID"} {
		for word := range strings.FieldsSeq(created) {
			if strings.HasPrefix(word, field) {
				reader.env = append(reader.env, name+"="+word)
			}
		}
	}
	reader.env = append(reader.env, "AWS_SECRET_ACCESS_KEY=wrong")
	reader.refusedS3("SignatureDoesNotMatch", "s3", "ls")
	if out := o.muster("audit", "search", "--name", "PutObject", "-o", "json"); !strings.Contains(out, "in/small.txt") {
		t.Errorf("the audit trail has\n%s", out)
	}
}

// fetched follows a link without credentials.
func fetched(t *testing.T, link string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, link, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

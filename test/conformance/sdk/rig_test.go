package sdk

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	oldaws "github.com/aws/aws-sdk-go/aws"                     //nolint:staticcheck // the newer SDK's data plane clients are not to be had.
	oldcredentials "github.com/aws/aws-sdk-go/aws/credentials" //nolint:staticcheck // the newer SDK's data plane clients are not to be had.
	oldsession "github.com/aws/aws-sdk-go/aws/session"         //nolint:staticcheck // the newer SDK's data plane clients are not to be had.
	"github.com/aws/aws-sdk-go/service/iotdataplane"           //nolint:staticcheck // the newer SDK's data plane clients are not to be had.

	"github.com/muster-iot/muster/internal/testkit"
)

// signingRegion is not the server's own: any region's signature is accepted.
const signingRegion = "eu-west-1"

// The server's default account and region, as they stand in ARNs.
const arnPrefix = "arn:aws:iot:us-east-1:000000000000:"

// operator is a program that uses the SDK clients against a built server.
type operator struct {
	t      *testing.T
	server *testkit.Server
	// Client is the control plane; data is the data plane.
	*iot.Client
	data *iotdataplane.IoTDataPlane
}

// built makes the binary once for all tests when nobody named one: the build
// needs the product's module, and this one is another.
//
//nolint:gochecknoglobals // it is one build for the process.
var built = sync.OnceValue(func() error {
	if os.Getenv("MUSTER_BIN") != "" {
		return nil
	}
	root, err := filepath.Abs("../../..")
	if err != nil {
		return err
	}
	path := filepath.Join(root, ".build", "muster-sdk-test")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/muster")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the server: %w\n%s", err, out)
	}
	return os.Setenv("MUSTER_BIN", path)
})

// startServer runs a built server that is killed when the test ends.
func startServer(t *testing.T) *testkit.Server {
	t.Helper()
	return startServerWith(t)
}

// startServerWith is startServer with more flags.
func startServerWith(t *testing.T, flags ...string) *testkit.Server {
	t.Helper()
	if err := built(); err != nil {
		t.Fatal(err)
	}
	return testkit.StartServer(t, flags...)
}

// newOperator makes clients with the root access key of the data folder.
func newOperator(t *testing.T, server *testkit.Server) *operator {
	t.Helper()
	id, secret := server.Credentials()
	return &operator{t: t, server: server, Client: controlPlane(server, id, secret), data: dataPlane(t, server, id, secret)}
}

func controlPlane(server *testkit.Server, id, secret string) *iot.Client {
	return iot.New(iot.Options{
		Region: signingRegion, BaseEndpoint: new("http://" + server.HTTPAddr), RetryMaxAttempts: 1,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: id, SecretAccessKey: secret}, nil
		}),
	})
}

func dataPlane(t *testing.T, server *testkit.Server, id, secret string) *iotdataplane.IoTDataPlane {
	t.Helper()
	settings, err := oldsession.NewSession(&oldaws.Config{
		Region: new(signingRegion), Endpoint: new("http://" + server.HTTPAddr), MaxRetries: new(0),
		HTTPClient:  &http.Client{}, // the session may change it, and must not change everybody's
		Credentials: oldcredentials.NewStaticCredentials(id, secret, ""),
	})
	if err != nil {
		t.Fatal(err)
	}
	return iotdataplane.New(settings)
}

// must calls an operation that has to succeed.
func must[In, Out any](o *operator, call func(context.Context, *In, ...func(*iot.Options)) (*Out, error), in *In) *Out {
	o.t.Helper()
	out, err := call(o.t.Context(), in)
	if err != nil {
		o.t.Fatal(err)
	}
	return out
}

// updateShadow is an operator's update over HTTP.
func (o *operator) updateShadow(thing, body string) {
	o.t.Helper()
	if _, err := o.data.UpdateThingShadowWithContext(o.t.Context(), &iotdataplane.UpdateThingShadowInput{ThingName: &thing, Payload: []byte(body)}); err != nil {
		o.t.Fatal(err)
	}
}

// search answers the names of the things that a query finds.
func (o *operator) search(query string) ([]string, error) {
	out, err := o.SearchIndex(o.t.Context(), &iot.SearchIndexInput{QueryString: &query})
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, thing := range out.Things {
		names = append(names, *thing.ThingName)
	}
	return names, nil
}

// identity is a device's certificate as files.
type identity struct {
	arn, id   string
	cert, key string
}

// newIdentity creates keys and certificate and writes them to files.
func (o *operator) newIdentity() identity {
	o.t.Helper()
	made := must(o, o.CreateKeysAndCertificate, &iot.CreateKeysAndCertificateInput{SetAsActive: true})
	dir := o.t.TempDir()
	d := identity{arn: *made.CertificateArn, id: *made.CertificateId, cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	for path, text := range map[string]*string{d.cert: made.CertificatePem, d.key: made.KeyPair.PrivateKey} {
		if err := os.WriteFile(path, []byte(*text), 0o600); err != nil {
			o.t.Fatal(err)
		}
	}
	return d
}

func (d identity) pair(t *testing.T) tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(d.cert, d.key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

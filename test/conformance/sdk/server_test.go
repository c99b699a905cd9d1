// Package sdk holds the conformance tests that need the AWS SDKs for Go. It is
// a module of its own, so that the SDKs never become dependencies of the
// product. It starts no goroutines beyond those of the test HTTP servers.
package sdk

import (
	"bytes"
	"context"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	oldaws "github.com/aws/aws-sdk-go/aws"                     //nolint:staticcheck // the newer SDK's data plane clients are not to be had.
	oldcredentials "github.com/aws/aws-sdk-go/aws/credentials" //nolint:staticcheck // the newer SDK's data plane clients are not to be had.
	oldsession "github.com/aws/aws-sdk-go/aws/session"         //nolint:staticcheck // the newer SDK's data plane clients are not to be had.
	"github.com/prometheus/client_golang/prometheus"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/awsapi/catalog"
	awsiot "github.com/muster-iot/muster/internal/awsapi/iot"
	"github.com/muster-iot/muster/internal/awsapi/iotdata"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/pagetoken"
)

const (
	accessKey = "AKIACONFORMANCE"
	secretKey = "secret/with+characters"
	region    = "eu-local-1"
)

// register adds the adapters of the product to a server, in no other way than
// the product does. It is what docs/operations.md is made from.
func register(s *awsapi.Server) {
	awsiot.Register(s, awsiot.Deps{})
	iotdata.Register(s, iotdata.Deps{})
}

// rootOnly is an installation with one user who may do everything.
type rootOnly struct{}

func (rootOnly) SecretKey(context.Context, string) (string, fleet.Account, fleet.Principal, error) {
	return secretKey, "000000000001", fleet.Principal{Kind: fleet.PrincipalUser, ID: "root"}, nil
}

func (rootOnly) Authorize(context.Context, awsapi.Caller, string, string) error { return nil }

// newServer returns a server without adapters.
func newServer(t *testing.T) *awsapi.Server {
	t.Helper()
	operations, err := catalog.New()
	if err != nil {
		t.Fatal(err)
	}
	s, err := awsapi.New(awsapi.Options{
		Catalog: operations, Keys: rootOnly{}, Authorizer: rootOnly{}, Region: region,
		TokenKey: bytes.Repeat([]byte{1}, pagetoken.KeySize), Now: time.Now,
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(), Strict: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// listen serves s on loopback until the test ends.
func listen(t *testing.T, s *awsapi.Server) string {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return server.URL
}

// newIoT returns a control plane client that does not repeat calls.
func newIoT(address string) *iot.Client {
	return iot.New(iot.Options{
		Region: region, BaseEndpoint: new(address), RetryMaxAttempts: 1,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey}, nil
		}),
	})
}

// oldSession returns the settings of the older SDK's clients.
func oldSession(t *testing.T, address string) *oldsession.Session {
	t.Helper()
	settings, err := oldsession.NewSession(&oldaws.Config{
		Region: new(region), Endpoint: new(address), MaxRetries: new(0),
		Credentials: oldcredentials.NewStaticCredentials(accessKey, secretKey, ""),
	})
	if err != nil {
		t.Fatal(err)
	}
	return settings
}

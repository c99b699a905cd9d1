package sdk

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iot"
	oldaws "github.com/aws/aws-sdk-go/aws"                     //nolint:staticcheck // the newer SDK's data plane clients are not to be had.
	oldcredentials "github.com/aws/aws-sdk-go/aws/credentials" //nolint:staticcheck // the newer SDK's data plane clients are not to be had.
	oldsession "github.com/aws/aws-sdk-go/aws/session"         //nolint:staticcheck // the newer SDK's data plane clients are not to be had.
	"github.com/aws/aws-sdk-go/service/iotdataplane"           //nolint:staticcheck // the newer SDK's data plane clients are not to be had.

	"github.com/muster-iot/muster/internal/mqtt"
	mqttclient "github.com/muster-iot/muster/internal/mqtt/client"
	"github.com/muster-iot/muster/internal/testkit"
)

// everywhere resolves every name to one address: it stands in for DNS.
func everywhere(addr string, pool *x509.CertPool) *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		},
	}}
}

// TestAccountsThroughTheSDK follows the way of a program: ask for the endpoint,
// call the data plane there, over TLS that is verified by name.
func TestAccountsThroughTheSDK(t *testing.T) {
	t.Parallel()
	h, a, b := twins(t)
	client := everywhere(h.server.TLSAddr, h.server.CAPool())
	defer client.CloseIdleConnections()
	control := func(n *neighbour) *iot.Client {
		return iot.New(iot.Options{
			Region: "us-east-1", BaseEndpoint: new("https://iot.us-east-1.muster.internal"), HTTPClient: client, RetryMaxAttempts: 1,
			Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
				return aws.Credentials{AccessKeyID: n.key.AccessKeyID, SecretAccessKey: n.key.Secret}, nil
			}),
		})
	}
	data := func(n *neighbour, endpoint string) *iotdataplane.IoTDataPlane {
		settings, err := oldsession.NewSession(&oldaws.Config{
			Region: new("us-east-1"), Endpoint: new("https://" + endpoint), MaxRetries: new(0), HTTPClient: &http.Client{}, // the session may change it
			Credentials: oldcredentials.NewStaticCredentials(n.key.AccessKeyID, n.key.Secret, ""),
		})
		if err != nil {
			t.Fatal(err)
		}
		return iotdataplane.New(settings, &oldaws.Config{HTTPClient: client})
	}
	for n, other := range map[*neighbour]*neighbour{a: b, b: a} {
		told, err := control(n).DescribeEndpoint(t.Context(), &iot.DescribeEndpointInput{EndpointType: new("iot:Data-ATS")})
		if err != nil {
			t.Fatal(err)
		}
		if *told.EndpointAddress != n.endpoint {
			t.Errorf("told %s, want %s", *told.EndpointAddress, n.endpoint)
		}
		things, err := control(n).ListThings(t.Context(), &iot.ListThingsInput{})
		if err != nil || len(things.Things) != 2 || things.Things[0].Attributes["kept"] != n.secret {
			t.Errorf("%v %v", things, err)
		}
		get := &iotdataplane.GetThingShadowInput{ThingName: new("pump")}
		shadow, err := data(n, *told.EndpointAddress).GetThingShadowWithContext(t.Context(), get)
		if err != nil || !strings.Contains(string(shadow.Payload), n.secret) {
			t.Errorf("%v %v", shadow, err)
		}
		_, err = data(other, *told.EndpointAddress).GetThingShadowWithContext(t.Context(), get)
		if code(err) != "ForbiddenException" {
			t.Errorf("another account's key at %s: %v", n.secret, err)
		}
	}
}

// socks answers a SOCKS 5 proxy's clients: every name leads to one address.
func socks(t *testing.T, to string) (addr string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { relay(t, conn, to) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close() // it is only read from
		serving.Wait()
	})
	return l.Addr().String()
}

// relay does the handshake of a proxy and copies until one side ends.
func relay(t *testing.T, client net.Conn, to string) {
	t.Helper()
	defer client.Close()
	head := make([]byte, 2)
	if _, err := io.ReadFull(client, head); err != nil {
		return
	}
	if _, err := io.CopyN(io.Discard, client, int64(head[1])); err != nil { // the methods
		return
	}
	if _, err := client.Write([]byte{5, 0}); err != nil { // none is needed
		return
	}
	request := make([]byte, 5)
	if _, err := io.ReadFull(client, request); err != nil || request[3] != 3 {
		t.Errorf("the client asks for % x, not for a name: %v", request, err)
		return
	}
	if _, err := io.CopyN(io.Discard, client, int64(request[4])+2); err != nil { // the name and the port
		return
	}
	server, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	if _, err := client.Write([]byte{5, 0, 0, 1, 127, 0, 0, 1, 0, 0}); err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(client, server) // ends with either side
		_ = client.Close()
	}()
	_, _ = io.Copy(server, client) // ends with either side
	_ = server.Close()
	<-done
}

// TestMosquittoByAccount connects the mosquitto client by the names of two
// accounts, which a proxy resolves, with certificates of either.
func TestMosquittoByAccount(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "mosquitto_pub")
	h, a, b := twins(t)
	proxy := "socks5h://" + socks(t, h.server.MQTTAddr)
	dir := t.TempDir()
	publish := func(as, at *neighbour) (string, error) {
		cert, key := filepath.Join(dir, as.secret+".pem"), filepath.Join(dir, as.secret+".key")
		der, err := x509.MarshalPKCS8PrivateKey(as.cert.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		for path, text := range map[string][]byte{cert: []byte(as.certPEM), key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})} {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		command := exec.CommandContext(t.Context(), "mosquitto_pub", "-h", at.endpoint, "-p", "8883", "--proxy", proxy,
			"--cafile", filepath.Join(h.server.DataDir, "ca.pem"), "--cert", cert, "--key", key,
			"-V", "mqttv311", "-i", "pump", "-q", "1", "-t", "plant/mosquitto", "-m", "from "+as.secret)
		command.Env = append(os.Environ(), "LANG=C")
		out, err := command.CombinedOutput()
		return string(out), err
	}
	for n, other := range map[*neighbour]*neighbour{a: b, b: a} {
		got := newHeard()
		c := h.device(n, mqttclient.Options{ClientID: "ears", OnMessage: got.take})
		if _, err := c.Subscribe(t.Context(), mqtt.Subscription{Filter: "plant/mosquitto", QoS: 1}); err != nil {
			t.Fatal(err)
		}
		if out, err := publish(n, n); err != nil {
			t.Fatalf("%s: %v: %s", n.secret, err, out)
		}
		got.await(t, "from "+n.secret)
		if out, err := publish(other, n); err == nil || !strings.Contains(out, "not authorised") {
			t.Errorf("%s at %s: %v: %s", other.secret, n.secret, err, out)
		}
		if strings.Contains(got.text(), other.secret) {
			t.Errorf("%s heard %s", n.secret, got.text())
		}
	}
}

// A certificate goes from one account to another, and no third one takes part.
func TestTransferBetweenAccounts(t *testing.T) {
	t.Parallel()
	h := newNeighbourhood(t)
	from, to, third := h.settle("alphasecret"), h.settle("betasecret"), h.settle("gammasecret")
	must(from.operator, from.RegisterCertificateWithoutCA, &iot.RegisterCertificateWithoutCAInput{CertificatePem: &from.certPEM})
	absent := "999999999999"
	if _, err := from.TransferCertificate(t.Context(), &iot.TransferCertificateInput{CertificateId: &from.certID, TargetAwsAccount: &absent}); err == nil {
		t.Error("a certificate is given to an account that does not exist")
	}
	must(from.operator, from.TransferCertificate, &iot.TransferCertificateInput{CertificateId: &from.certID, TargetAwsAccount: &to.account})
	if _, err := third.AcceptCertificateTransfer(t.Context(), &iot.AcceptCertificateTransferInput{CertificateId: &from.certID}); code(err) != notFound {
		t.Errorf("a third account accepts: %v", err)
	}
	must(to.operator, to.AcceptCertificateTransfer, &iot.AcceptCertificateTransferInput{CertificateId: &from.certID, SetAsActive: true})
	got := must(to.operator, to.DescribeCertificate, &iot.DescribeCertificateInput{CertificateId: &from.certID}).CertificateDescription
	if *got.CertificateArn != to.arns+"cert/"+from.certID || *got.OwnedBy != to.account || val(got.PreviousOwnedBy) != from.account {
		t.Errorf("received %+v", got)
	}
	if _, err := from.DescribeCertificate(t.Context(), &iot.DescribeCertificateInput{CertificateId: &from.certID}); code(err) != notFound {
		t.Errorf("the giver still has it: %v", err)
	}
	// It connects in the account that has it now, and by its name.
	policy := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}`
	must(to.operator, to.CreatePolicy, &iot.CreatePolicyInput{PolicyName: new("may"), PolicyDocument: &policy})
	must(to.operator, to.AttachPolicy, &iot.AttachPolicyInput{PolicyName: new("may"), Target: got.CertificateArn})
	if err := h.mayConnect(h.server.MQTTAddr, h.tlsAs(&from.cert, to.endpoint), mqttclient.Options{ClientID: "x"}); err != nil {
		t.Error(err)
	}
	notAuthorized(t, "at the giver's name", h.mayConnect(h.server.MQTTAddr, h.tlsAs(&from.cert, from.endpoint), mqttclient.Options{ClientID: "x"}))
}

package sdk

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iot"
	"github.com/aws/aws-sdk-go-v2/service/iot/types"

	"github.com/muster-iot/muster/internal/testkit"
)

// functionARN is that of a function of the settings.
func functionARN(name string) *string {
	return new("arn:aws:lambda:us-east-1:000000000000:function:" + name)
}

// exampleAuthorizer is the function that the documentation shows.
func exampleAuthorizer(t *testing.T) string {
	t.Helper()
	testkit.Need(t, "python3")
	return filepath.Join(testkit.Root(t), "docs", "examples", "authorizer.py")
}

// startGated runs a server with the documented function and one that answers
// nonsense.
func startGated(t *testing.T) *operator {
	t.Helper()
	example := exampleAuthorizer(t)
	if err := built(); err != nil {
		t.Fatal(err)
	}
	return newOperator(t, testkit.StartServer(t, "--function.target", "gate=exec:"+example, "--function.target", "liar=exec:/bin/true"))
}

// signing makes a key and what the API wants of it.
func signing(t *testing.T) (*rsa.PrivateKey, map[string]string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return key, map[string]string{"k1": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}
}

func signToken(t *testing.T, key *rsa.PrivateKey, token string) string {
	t.Helper()
	sum := sha256.Sum256([]byte(token))
	raw, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(raw)
}

const examplePassword = "correct horse battery staple"

// TestAuthorizers calls the nine operations with their members.
func TestAuthorizers(t *testing.T) {
	t.Parallel()
	o := startGated(t)
	key, keys := signing(t)
	made := must(o, o.CreateAuthorizer, &iot.CreateAuthorizerInput{
		AuthorizerName: new("gate,@=1"), AuthorizerFunctionArn: functionARN("gate"), TokenKeyName: new("jwt"), TokenSigningPublicKeys: keys,
		Status: types.AuthorizerStatusActive, EnableCachingForHttp: new(true),
	})
	wantARN := arnPrefix + "authorizer/gate,@=1"
	if val(made.AuthorizerArn) != wantARN || val(made.AuthorizerName) != "gate,@=1" {
		t.Errorf("made %s %s", val(made.AuthorizerName), val(made.AuthorizerArn))
	}
	d := must(o, o.DescribeAuthorizer, &iot.DescribeAuthorizerInput{AuthorizerName: new("gate,@=1")}).AuthorizerDescription
	if val(d.AuthorizerArn) != wantARN || val(d.AuthorizerFunctionArn) != *functionARN("gate") || val(d.TokenKeyName) != "jwt" ||
		!reflect.DeepEqual(d.TokenSigningPublicKeys, keys) || d.Status != types.AuthorizerStatusActive || *d.SigningDisabled || !*d.EnableCachingForHttp ||
		d.CreationDate.IsZero() || !d.LastModifiedDate.Equal(*d.CreationDate) {
		t.Errorf("described %+v", d)
	}
	test := &iot.TestInvokeAuthorizerInput{
		AuthorizerName: new("gate,@=1"), Token: new("a token"), TokenSignature: new(signToken(t, key, "a token")),
		MqttContext: &types.MqttContext{Username: new("pump7?x"), Password: []byte(examplePassword), ClientId: new("pump7")},
		TlsContext:  &types.TlsContext{ServerName: new("localhost")},
		HttpContext: &types.HttpContext{Headers: map[string]string{"a": "b"}, QueryString: new("?a=b")},
	}
	answer := must(o, o.TestInvokeAuthorizer, test)
	if !*answer.IsAuthenticated || val(answer.PrincipalId) != "pump7" || len(answer.PolicyDocuments) != 1 || *answer.DisconnectAfterInSeconds != 86400 || *answer.RefreshAfterInSeconds != 3600 {
		t.Errorf("answered %+v", answer)
	}
	test.MqttContext.Password = []byte("wrong")
	if answer := must(o, o.TestInvokeAuthorizer, test); *answer.IsAuthenticated || answer.PrincipalId != nil {
		t.Errorf("answered %+v", answer)
	}
	must(o, o.UpdateAuthorizer, &iot.UpdateAuthorizerInput{AuthorizerName: new("gate,@=1"), TokenKeyName: new("token"), EnableCachingForHttp: new(false)})
	d = must(o, o.DescribeAuthorizer, &iot.DescribeAuthorizerInput{AuthorizerName: new("gate,@=1")}).AuthorizerDescription
	if val(d.TokenKeyName) != "token" || *d.EnableCachingForHttp || d.Status != types.AuthorizerStatusActive {
		t.Errorf("updated %+v", d)
	}
	chosen := must(o, o.SetDefaultAuthorizer, &iot.SetDefaultAuthorizerInput{AuthorizerName: new("gate,@=1")})
	if val(chosen.AuthorizerArn) != wantARN || val(chosen.AuthorizerName) != "gate,@=1" {
		t.Errorf("chosen %+v", chosen)
	}
	d = must(o, o.DescribeDefaultAuthorizer, &iot.DescribeDefaultAuthorizerInput{}).AuthorizerDescription
	if val(d.AuthorizerName) != "gate,@=1" {
		t.Errorf("default %+v", d)
	}
	must(o, o.ClearDefaultAuthorizer, &iot.ClearDefaultAuthorizerInput{})
	var last *iot.CreateAuthorizerOutput
	for i := range 6 {
		last = must(o, o.CreateAuthorizer, &iot.CreateAuthorizerInput{
			AuthorizerName: new(fmt.Sprintf("z%d", i)), AuthorizerFunctionArn: functionARN("gate"), SigningDisabled: new(true),
			Tags: []types.Tag{{Key: new("nth"), Value: new(fmt.Sprint(i))}},
		})
	}
	if tags := must(o, o.ListTagsForResource, &iot.ListTagsForResourceInput{ResourceArn: last.AuthorizerArn}).Tags; len(tags) != 1 || val(tags[0].Value) != "5" {
		t.Errorf("tags %+v", tags)
	}
	names, sizes := pages(t, iot.NewListAuthorizersPaginator(o, &iot.ListAuthorizersInput{PageSize: new(int32(3))}), func(out *iot.ListAuthorizersOutput) (names []string) {
		for _, x := range out.Authorizers {
			names = append(names, *x.AuthorizerName)
		}
		return names
	})
	if want := []string{"gate,@=1", "z0", "z1", "z2", "z3", "z4", "z5"}; !slices.Equal(names, want) || !slices.Equal(sizes, []int{3, 3, 1}) {
		t.Errorf("%q in pages of %v", names, sizes)
	}
	// Without a state an authorizer begins inactive.
	active := must(o, o.ListAuthorizers, &iot.ListAuthorizersInput{Status: types.AuthorizerStatusActive, AscendingOrder: true})
	if len(active.Authorizers) != 1 || val(active.Authorizers[0].AuthorizerArn) != wantARN {
		t.Errorf("active %+v", active.Authorizers)
	}
	must(o, o.UpdateAuthorizer, &iot.UpdateAuthorizerInput{AuthorizerName: new("gate,@=1"), Status: types.AuthorizerStatusInactive})
	must(o, o.DeleteAuthorizer, &iot.DeleteAuthorizerInput{AuthorizerName: new("gate,@=1")})

	// What was changed is there after kill -9.
	o.server.Kill()
	o.server.Start()
	again := must(newOperator(t, o.server), o.ListAuthorizers, &iot.ListAuthorizersInput{})
	if len(again.Authorizers) != 6 || val(again.Authorizers[0].AuthorizerName) != "z5" {
		t.Errorf("after a crash: %+v", again.Authorizers)
	}
}

// TestAuthorizerExceptions provokes what the model lists.
func TestAuthorizerExceptions(t *testing.T) {
	t.Parallel()
	o := startGated(t)
	_, keys := signing(t)
	gate := func(name string) *iot.CreateAuthorizerInput {
		return &iot.CreateAuthorizerInput{AuthorizerName: &name, AuthorizerFunctionArn: functionARN("gate"), SigningDisabled: new(true), Status: types.AuthorizerStatusActive}
	}
	must(o, o.CreateAuthorizer, gate("default"))
	must(o, o.SetDefaultAuthorizer, &iot.SetDefaultAuthorizerInput{AuthorizerName: new("default")})
	must(o, o.CreateAuthorizer, gate("active"))
	must(o, o.CreateAuthorizer, &iot.CreateAuthorizerInput{AuthorizerName: new("liar"), AuthorizerFunctionArn: functionARN("liar"), SigningDisabled: new(true)})
	must(o, o.CreateAuthorizer, &iot.CreateAuthorizerInput{
		AuthorizerName: new("signed"), AuthorizerFunctionArn: functionARN("gate"), TokenKeyName: new("t"), TokenSigningPublicKeys: keys,
	})
	tagged, unknown := gate("tagged"), gate("unknown")
	tagged.Tags = []types.Tag{{Key: new("aws:a"), Value: new("b")}}
	unknown.AuthorizerFunctionArn = functionARN("nobody")
	absent := new("absent")
	two := map[string]string{"a": "", "b": "", "c": ""}
	for _, c := range []struct {
		name string
		call func(context.Context) error
		want error
	}{
		{"Exists", failing(o.CreateAuthorizer, gate("active")), &types.ResourceAlreadyExistsException{}},
		{"Tags", failing(o.CreateAuthorizer, tagged), &types.InvalidRequestException{}},
		{"Function", failing(o.CreateAuthorizer, unknown), &types.InvalidRequestException{}},
		{"Name", failing(o.CreateAuthorizer, gate("a b")), &types.InvalidRequestException{}},
		{"UpdateAbsent", failing(o.UpdateAuthorizer, &iot.UpdateAuthorizerInput{AuthorizerName: absent}), &types.ResourceNotFoundException{}},
		{"UpdateKeys", failing(o.UpdateAuthorizer, &iot.UpdateAuthorizerInput{AuthorizerName: new("signed"), TokenSigningPublicKeys: two}), &types.LimitExceededException{}},
		{"UpdateUnsigned", failing(o.UpdateAuthorizer, &iot.UpdateAuthorizerInput{AuthorizerName: new("active"), TokenSigningPublicKeys: keys}), &types.InvalidRequestException{}},
		{"DescribeAbsent", failing(o.DescribeAuthorizer, &iot.DescribeAuthorizerInput{AuthorizerName: absent}), &types.ResourceNotFoundException{}},
		{"DeleteAbsent", failing(o.DeleteAuthorizer, &iot.DeleteAuthorizerInput{AuthorizerName: absent}), &types.ResourceNotFoundException{}},
		{"DeleteDefault", failing(o.DeleteAuthorizer, &iot.DeleteAuthorizerInput{AuthorizerName: new("default")}), &types.DeleteConflictException{}},
		{"DeleteActive", failing(o.DeleteAuthorizer, &iot.DeleteAuthorizerInput{AuthorizerName: new("active")}), &types.InvalidRequestException{}},
		{"DefaultTaken", failing(o.SetDefaultAuthorizer, &iot.SetDefaultAuthorizerInput{AuthorizerName: new("active")}), &types.ResourceAlreadyExistsException{}},
		{"DefaultAbsent", failing(o.SetDefaultAuthorizer, &iot.SetDefaultAuthorizerInput{AuthorizerName: absent}), &types.ResourceNotFoundException{}},
		{"TestAbsent", failing(o.TestInvokeAuthorizer, &iot.TestInvokeAuthorizerInput{AuthorizerName: absent}), &types.ResourceNotFoundException{}},
		{"TestUnsigned", failing(o.TestInvokeAuthorizer, &iot.TestInvokeAuthorizerInput{AuthorizerName: new("signed"), Token: new("t")}), &types.InvalidRequestException{}},
		{"TestLiar", failing(o.TestInvokeAuthorizer, &iot.TestInvokeAuthorizerInput{AuthorizerName: new("liar")}), &types.InvalidResponseException{}},
		{"ListMarker", failing(o.ListAuthorizers, &iot.ListAuthorizersInput{Marker: new("forged")}), &types.InvalidRequestException{}},
		{"ListStatus", failing(o.ListAuthorizers, &iot.ListAuthorizersInput{Status: "OLD"}), &types.InvalidRequestException{}},
	} {
		err := c.call(t.Context())
		target := reflect.New(reflect.TypeOf(c.want))
		if !errors.As(err, target.Interface()) {
			t.Errorf("%s: got %v, want %T", c.name, err, c.want)
		}
	}
	must(o, o.ClearDefaultAuthorizer, &iot.ClearDefaultAuthorizerInput{})
	for name, call := range map[string]func(context.Context) error{
		"ClearDefault":    failing(o.ClearDefaultAuthorizer, &iot.ClearDefaultAuthorizerInput{}),
		"DescribeDefault": failing(o.DescribeDefaultAuthorizer, &iot.DescribeDefaultAuthorizerInput{}),
	} {
		if _, ok := errors.AsType[*types.ResourceNotFoundException](call(t.Context())); !ok {
			t.Errorf("%s without a default is no ResourceNotFoundException", name)
		}
	}
	for i := range 6 {
		must(o, o.CreateAuthorizer, gate(fmt.Sprintf("more%d", i)))
	}
	if _, ok := errors.AsType[*types.LimitExceededException](failing(o.CreateAuthorizer, gate("eleventh"))(t.Context())); !ok {
		t.Error("an eleventh authorizer is no LimitExceededException")
	}
}

// TestMosquittoThroughAnAuthorizer connects the mosquitto client by ALPN with
// the credentials in its user name, to an authorizer that wants signed tokens.
func TestMosquittoThroughAnAuthorizer(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "mosquitto_pub")
	o := startGated(t)
	key, keys := signing(t)
	must(o, o.CreateAuthorizer, &iot.CreateAuthorizerInput{
		AuthorizerName: new("gate"), AuthorizerFunctionArn: functionARN("gate"), TokenKeyName: new("jwt"), TokenSigningPublicKeys: keys, Status: types.AuthorizerStatusActive,
	})
	host, port, _ := strings.Cut(o.server.TLSAddr, ":")
	publish := func(topic, query string) (string, error) {
		command := exec.CommandContext(t.Context(), "mosquitto_pub", "-h", host, "-p", port, "--cafile", filepath.Join(o.server.DataDir, "ca.pem"), "--tls-alpn", "mqtt",
			"-V", "mqttv311", "-i", "pump7", "-u", "pump7?"+query, "-P", examplePassword, "-q", "1", "-t", topic, "-m", "21")
		command.Env = append(os.Environ(), "LANG=C")
		out, err := command.CombinedOutput()
		return string(out), err
	}
	named := "x-amz-customauthorizer-name=gate&jwt=a+token&x-amz-customauthorizer-signature="
	if out, err := publish("devices/pump7/temp", named+url.QueryEscape(signToken(t, key, "a token"))); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	for name, query := range map[string]string{
		"without authorizer": "", "without signature": strings.TrimSuffix(named, "&x-amz-customauthorizer-signature="),
		"with another's signature": named + url.QueryEscape(signToken(t, key, "token")),
	} {
		if out, err := publish("devices/pump7/temp", query); err == nil || !strings.Contains(out, "not authorised") {
			t.Errorf("%s: %v, %s", name, err, out)
		}
	}
}

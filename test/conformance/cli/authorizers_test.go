package cli_test

import (
	"encoding/base64"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/testkit"
)

// TestAuthorizers sets up the documented authorizer, asks it, and ends the
// connection of a device that it has let in.
func TestAuthorizers(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "aws", "python3", "mosquitto_sub")
	server := testkit.StartServer(t, "--function.target", "gate=exec:"+filepath.Join(testkit.Root(t), "docs", "examples", "authorizer.py"))
	o := newOperator(t, server)
	o.must("iot", "create-authorizer", "--authorizer-name", "gate", "--status", "ACTIVE", "--signing-disabled",
		"--authorizer-function-arn", "arn:aws:lambda:us-east-1:000000000000:function:gate")
	described, _ := o.must("iot", "describe-authorizer", "--authorizer-name", "gate")["authorizerDescription"].(map[string]any)
	if described["status"] != "ACTIVE" || described["signingDisabled"] != true {
		t.Errorf("described %v", described)
	}
	if got := names(o.must("iot", "list-authorizers"), "authorizers", "authorizerName"); !slices.Equal(got, []string{"gate"}) {
		t.Errorf("listed %v", got)
	}
	version, err := exec.CommandContext(t.Context(), "aws", "--version").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	for password, want := range map[string]bool{"correct horse battery staple": true, "wrong": false} {
		sent := password
		if strings.HasPrefix(string(version), "aws-cli/2") { // it wants base64
			sent = base64.StdEncoding.EncodeToString([]byte(password))
		}
		answer := o.must("iot", "test-invoke-authorizer", "--authorizer-name", "gate", "--mqtt-context", fmt.Sprintf(`{"username":"pump7","password":%q}`, sent))
		if answer["isAuthenticated"] != want || (answer["principalId"] == "pump7") != want {
			t.Errorf("password %q: %v", password, answer)
		}
	}
	o.refused("InvalidRequestException", "iot", "delete-authorizer", "--authorizer-name", "gate")

	host, port, _ := strings.Cut(server.TLSAddr, ":")
	sub := exec.CommandContext(t.Context(), "mosquitto_sub", "-h", host, "-p", port, "--cafile", filepath.Join(server.DataDir, "ca.pem"), "--tls-alpn", "mqtt",
		"-V", "mqttv5", "-i", "pump7", "-u", "pump7?x-amz-customauthorizer-name=gate", "-P", "correct horse battery staple", "-t", "commands/pump7", "-C", "1")
	var out strings.Builder
	sub.Stdout, sub.Stderr = &out, &out
	if err := sub.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- sub.Wait() }()
	t.Cleanup(func() { _ = sub.Process.Kill() }) // it has ended, or the test failed
	testkit.Poll(t, 10*time.Second, "the device has its message", func() error {
		o.publish("commands/pump7", "start")
		select {
		case err := <-ended:
			if err != nil || out.String() != "start\n" {
				t.Fatalf("%v: %s", err, &out)
			}
			return nil
		default:
			return fmt.Errorf("not yet")
		}
	})
	o.must("iot", "update-authorizer", "--authorizer-name", "gate", "--status", "INACTIVE")
	o.must("iot", "delete-authorizer", "--authorizer-name", "gate")
	o.refused("ResourceNotFoundException", "iot", "describe-authorizer", "--authorizer-name", "gate")
}

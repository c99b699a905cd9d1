package cli_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/testkit"
)

// TestViewerAndRole gives a person at the AWS command line a viewer's key, and a
// role for the night shift that the command line takes by itself.
func TestViewerAndRole(t *testing.T) {
	t.Parallel()
	server := testkit.StartServer(t)
	root := newOperator(t, server)
	root.must("iot", "create-thing", "--thing-name", "pump")
	muster := func(args ...string) string {
		t.Helper()
		out, err := server.Muster(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	muster("user", "create", "alice")
	muster("user", "attach", "alice", "MusterViewer")
	muster("role", "create", "fixer", "--trust", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",
		"Principal":{"AWS":"arn:aws:iam::000000000000:user/alice"},"Action":"sts:AssumeRole"}]}`)
	muster("role", "attach", "fixer", "MusterOperator")
	var key struct {
		AccessKeyID     string `json:"accessKeyId"`
		SecretAccessKey string `json:"secretAccessKey"`
	}
	if err := json.Unmarshal([]byte(muster("key", "create", "alice", "-o", "json")), &key); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "config")
	text := fmt.Sprintf(`[default]
aws_access_key_id = %s
aws_secret_access_key = %s
region = us-east-1
endpoint_url = http://%s
[profile night]
role_arn = arn:aws:iam::000000000000:role/fixer
role_session_name = night
source_profile = default
region = us-east-1
endpoint_url = http://%[3]s
`, key.AccessKeyID, key.SecretAccessKey, server.HTTPAddr)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	as := func(profile string) *operator {
		env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "AWS_") })
		env = append(env, "AWS_CONFIG_FILE="+config, "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_PROFILE="+profile,
			"AWS_PAGER=", "AWS_EC2_METADATA_DISABLED=true", "AWS_MAX_ATTEMPTS=1", "HOME="+t.TempDir())
		return &operator{t: t, server: server, env: env}
	}
	alice, night := as("default"), as("night")
	if me := alice.must("sts", "get-caller-identity"); me["Arn"] != "arn:aws:iam::000000000000:user/alice" || me["Account"] != "000000000000" {
		t.Errorf("I am %v", me)
	}
	for _, see := range [][]string{
		{"iot", "list-things"},
		{"iot", "describe-thing", "--thing-name", "pump"},
		{"iot", "list-thing-groups"},
		{"iot", "list-certificates"},
		{"iot", "list-policies"},
		{"iot", "describe-endpoint"},
		{"iot", "search-index", "--query-string", "*"},
		{"iot", "list-thing-types"},
	} {
		alice.must(see...)
	}
	const cannot = "is not authorized to perform: iot:"
	for _, change := range [][]string{
		{"iot", "create-thing", "--thing-name", "x"},
		{"iot", "delete-thing", "--thing-name", "pump"},
		{"iot", "create-keys-and-certificate"},
		{"iot", "create-thing-group", "--thing-group-name", "g"},
		{"iot", "create-policy", "--policy-name", "p", "--policy-document", "{}"},
		{"iot", "update-thing", "--thing-name", "pump", "--attribute-payload", "attributes={a=b}"},
	} {
		alice.refused("AccessDeniedException", change...)
		alice.refused("User: arn:aws:iam::000000000000:user/alice "+cannot, change...)
	}
	alice.refused("ForbiddenException", "iot-data", "publish", "--topic", "a")
	session := alice.must("sts", "assume-role", "--role-arn", "arn:aws:iam::000000000000:role/fixer", "--role-session-name", "s1", "--duration-seconds", "900")
	if user, _ := session["AssumedRoleUser"].(map[string]any); user["Arn"] != "arn:aws:sts::000000000000:assumed-role/fixer/s1" {
		t.Errorf("got %v", session["AssumedRoleUser"])
	}
	alice.refused("AccessDenied", "sts", "assume-role", "--role-arn", "arn:aws:iam::000000000000:role/other", "--role-session-name", "s1")
	alice.refused("ValidationError", "sts", "assume-role", "--role-arn", "arn:aws:iam::000000000000:role/fixer", "--role-session-name", "s1", "--duration-seconds", "7200")
	alice.refused("not offered", "sts", "assume-role", "--role-arn", "arn:aws:iam::000000000000:role/fixer", "--role-session-name", "s1", "--tags", "Key=a,Value=b")
	alice.refused("not offered", "sts", "get-session-token")

	if me := night.must("sts", "get-caller-identity"); me["Arn"] != "arn:aws:sts::000000000000:assumed-role/fixer/night" {
		t.Errorf("I am %v", me)
	}
	night.must("iot", "update-thing", "--thing-name", "pump", "--attribute-payload", "attributes={a=b}")
	night.refused("assumed-role/fixer/night "+cannot+"DeleteThing", "iot", "delete-thing", "--thing-name", "pump")
	muster("role", "put-policy", "fixer", "no-updates", `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"iot:UpdateThing","Resource":"*"}}`)
	night.refused("with an explicit deny", "iot", "update-thing", "--thing-name", "pump", "--attribute-payload", "attributes={a=c}")
	if _, err := night.try(context.WithoutCancel(t.Context()), "iot", "list-things"); err != nil {
		t.Error(err)
	}
}

package cli_test

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/testkit"
)

// TestAllowListsPage runs every command of docs/allow-lists.md in one shell, in which
// the functions and variables of the page stay.
func TestAllowListsPage(t *testing.T) {
	t.Parallel()
	testkit.Need(t, "bash", "openssl", "curl", "cmp")
	page, err := os.ReadFile(filepath.Join(testkit.Root(t), "docs", "allow-lists.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(string(page), -1)
	if len(blocks) != 13 {
		t.Fatalf("the page has %d blocks of commands, want 13", len(blocks))
	}
	r := newListRig(t)
	if err := os.Symlink(testkit.Binary(t), r.file("muster")); err != nil {
		t.Fatal(err)
	}
	r.template("pumps")
	script := "set -euo pipefail\ncp " + r.server.DataDir + "/ca.pem .\n"
	for _, b := range blocks {
		script += b[1]
	}
	// What the page promises.
	script += `
wants() { printf '%s\n' "$2"; [[ $2 =~ $1 ]] || { echo "no $1" >&2; exit 1; }; }
wants 'pumps +acme +1 +1' "$(as vic allowlist list)"
wants 'fans +acme +none +1' "$(as vic allowlist show fans)"
wants 'sensors +1 +REJECTED' "$(as vic allowlist revisions sensors)"
wants 'yes +UNUSED +pumps +1' "$(as vic allowlist check B7-00412 --template pumps)"
wants 'by this template' "$(as vic allowlist check B7-00412 --template other)"
wants 'acme +SUPPLIER +acme' "$(muster approvals authorities)"
wants 'pumps +ALL_OF +acme' "$(muster approvals bindings)"
`
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "PATH="+r.dir+string(os.PathListSeparator)+os.Getenv("PATH"), "MUSTER_ENDPOINT_URL=http://"+r.server.HTTPAddr, "MUSTER_DATA_DIR="+r.server.DataDir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v:\n%s", err, out.String())
	}
	if !strings.Contains(out.String(), "revision 1 of fans") {
		t.Errorf("the link has brought nothing:\n%s", out.String())
	}
}

// template makes a provisioning template.
func (r *listRig) template(name string) {
	r.t.Helper()
	id, secret := r.server.Credentials()
	api, err := apiclient.New(apiclient.Options{
		Endpoint: "http://" + r.server.HTTPAddr, Credentials: apiclient.Credentials{AccessKeyID: id, Secret: secret, Region: "us-east-1"}, Now: time.Now,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	defer api.CloseIdle()
	err = api.JSON(r.t.Context(), apiclient.Request{Service: apiclient.ServiceControl, Method: http.MethodPost, Path: "/provisioning-templates"}, map[string]any{
		"templateName": name, "enabled": true, "provisioningRoleArn": "arn:aws:iam::000000000000:role/provisioning",
		"templateBody": `{"Parameters":{"SerialNumber":{"Type":"String"},"AWS::IoT::Certificate::Id":{"Type":"String"}},"Resources":{
 "thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"SerialNumber"}}},
 "certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}}}}}`,
	}, nil)
	if err != nil {
		r.t.Fatal(err)
	}
}

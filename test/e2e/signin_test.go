package e2e_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/testkit"
	"github.com/muster-iot/muster/internal/testkit/oidctest"
)

// command runs muster as root and fails the test when that fails.
func command(t *testing.T, server *testkit.Server, args ...string) string {
	t.Helper()
	out, err := server.Muster(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// credentials is the answer to a sign-in.
type credentials struct {
	ARN                    string    `json:"arn"`
	AccessKeyID            string    `json:"accessKeyId"`
	SecretAccessKey        string    `json:"secretAccessKey"`
	SessionToken           string    `json:"sessionToken"`
	Message                string    `json:"message"`
	Expiration             time.Time `json:"expiration"`
	PasswordChangeRequired bool      `json:"passwordChangeRequired"`
}

// post sends JSON without signature, as a page would.
func post(t *testing.T, server *testkit.Server, path string, in any) (status int, header http.Header, out credentials) {
	t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+server.HTTPAddr+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header, out
}

// use lists things with the credentials of a session.
func use(ctx context.Context, server *testkit.Server, c credentials) error {
	api, err := apiclient.New(apiclient.Options{
		Endpoint: "http://" + server.HTTPAddr, Now: time.Now,
		Credentials: apiclient.Credentials{AccessKeyID: c.AccessKeyID, Secret: c.SecretAccessKey, Token: c.SessionToken, Region: "us-east-1"},
	})
	if err != nil {
		return err
	}
	defer api.CloseIdle()
	_, err = api.ListThings(ctx, apiclient.ThingFilter{}, 1)
	return err
}

// TestSignInByPassword takes a person from the first sign-in to a revoked session.
func TestSignInByPassword(t *testing.T) {
	t.Parallel()
	server := testkit.StartServer(t, "--sign-in.max-failures", "3", "--sign-in.session", "15m")
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("given by the admin\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, server, "user", "create", "alice")
	command(t, server, "user", "attach", "alice", "MusterViewer")
	command(t, server, "user", "set-password", "alice", "--password-file", file)
	const path = "/ops/v1/sign-in"
	status, _, got := post(t, server, path, map[string]string{"user": "alice", "password": "given by the admin"})
	if status != 200 || !got.PasswordChangeRequired || got.AccessKeyID != "" {
		t.Errorf("first sign-in: %d %+v", status, got)
	}
	status, header, got := post(t, server, path, map[string]string{"user": "alice", "password": "given by the admin", "newPassword": "chosen by alice"})
	if status != 200 || got.ARN != "arn:aws:iam::000000000000:user/alice" || header.Get("Cache-Control") != "no-store" || header.Get("Set-Cookie") != "" {
		t.Fatalf("with a new password: %d %+v %v", status, got, header)
	}
	if left := time.Until(got.Expiration); left > 15*time.Minute || left < 14*time.Minute {
		t.Errorf("ends in %v", left)
	}
	if err := use(t.Context(), server, got); err != nil {
		t.Error(err)
	}
	server.Kill() // sessions are kept nowhere
	server.Start()
	if err := use(t.Context(), server, got); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	for i := range 3 {
		status, _, refused := post(t, server, path, map[string]string{"user": "alice", "password": "given by the admin"})
		if status != 403 || refused.Message != "The account, the user name or the password is wrong" {
			t.Errorf("guess %d: %d %+v", i, status, refused)
		}
	}
	status, header, refused := post(t, server, path, map[string]string{"user": "alice", "password": "chosen by alice"})
	if after := header.Get("Retry-After"); status != 429 || after == "" || after == "0" {
		t.Errorf("after three guesses: %d, %q, %+v", status, after, refused)
	}
	command(t, server, "user", "revoke-sessions", "alice")
	if err := use(t.Context(), server, got); !apiclient.Is(err, "UnrecognizedClientException") {
		t.Errorf("a revoked session: %v", err)
	}
	for body, says := range map[string]string{`{"user":"a","password":"b","remember":true}`: "remember", `[]`: "not what", strings.Repeat(" ", 9000): "longer"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+server.HTTPAddr+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		said, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusBadRequest || !strings.Contains(string(said), says) || err != nil {
			t.Errorf("%.40s: %d %s", body, answer.StatusCode, said)
		}
	}
	if log := server.Log(); strings.Contains(log, "chosen by alice") || strings.Contains(log, got.SecretAccessKey) || strings.Contains(log, got.SessionToken) {
		t.Error("a secret is in the log")
	}
}

// TestSignInByOpenID has a browser without cookies follow the whole way.
func TestSignInByOpenID(t *testing.T) {
	t.Parallel()
	provider := oidctest.New(t, time.Now)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(oidctest.Secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := testkit.StartServer(t, "--sign-in.oidc.issuer", provider.URL, "--sign-in.oidc.client-id", oidctest.Client,
		"--sign-in.oidc.client-secret-file", secret, "--sign-in.oidc.redirect-url", "http://127.0.0.1/ops/v1/sign-in/oidc/callback",
		"--sign-in.oidc.role-map", "admins=boss", "--sign-in.oidc.role-map", "ops=watch")
	command(t, server, "role", "create", "watch", "--trust", `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Principal":"*","Action":"sts:AssumeRole"}}`)
	command(t, server, "role", "attach", "watch", "MusterViewer")
	browser := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	visit := func(path string, query url.Values) (int, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+server.HTTPAddr+path+"?"+query.Encode(), nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := browser.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		said, _ := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if len(answer.Cookies()) > 0 {
			t.Errorf("%s sets cookies", path)
		}
		if where := answer.Header.Get("Location"); where != "" {
			return answer.StatusCode, where
		}
		return answer.StatusCode, string(said)
	}
	sum := sha256.Sum256([]byte("what the page keeps"))
	start := url.Values{"challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "return": {"/console/"}}
	status, where := visit("/ops/v1/sign-in/oidc/start", start)
	if status != http.StatusFound {
		t.Fatal(status, where)
	}
	state, code := provider.Enter(where)
	status, where = visit("/ops/v1/sign-in/oidc/callback", url.Values{"state": {state}, "code": {code}})
	path, fragment, _ := strings.Cut(where, "#")
	if status != http.StatusSeeOther || path != "/console/" {
		t.Fatal(status, where)
	}
	values, err := url.ParseQuery(fragment)
	if err != nil {
		t.Fatal(err)
	}
	const token = "/ops/v1/sign-in/oidc/token"
	status, _, got := post(t, server, token, map[string]string{"code": values.Get("sign-in-code"), "secret": "what the page keeps"})
	if status != 200 || got.ARN != "arn:aws:sts::000000000000:assumed-role/watch/alice" {
		t.Fatalf("%d %+v", status, got)
	}
	if err := use(t.Context(), server, got); err != nil {
		t.Error(err)
	}
	if status, _, again := post(t, server, token, map[string]string{"code": values.Get("sign-in-code"), "secret": "what the page keeps"}); status != 403 {
		t.Errorf("fetched twice: %d %+v", status, again)
	}
	provider.Bend(func(claims map[string]any) { claims["groups"] = []string{"visitors"} })
	_, where = visit("/ops/v1/sign-in/oidc/start", start)
	state, code = provider.Enter(where)
	if status, said := visit("/ops/v1/sign-in/oidc/callback", url.Values{"state": {state}, "code": {code}}); status != 403 || !strings.Contains(said, "No role is mapped") {
		t.Errorf("a visitor: %d %s", status, said)
	}
	if status, said := visit("/ops/v1/sign-in", nil); status != 200 || !strings.Contains(said, `"oidc":true`) {
		t.Errorf("methods: %d %s", status, said)
	}
}

// TestKeyReset loses the root access key.
func TestKeyReset(t *testing.T) {
	t.Parallel()
	server := testkit.StartServer(t)
	id, secret := server.Credentials()
	const north = "210000000001"
	command(t, server, "account", "create", "North", "--id", north, "--save-profile", "north")
	command(t, server, "things", "create", "pump")
	if out, err := server.Muster(t.Context(), "key", "reset", "--data-dir", server.DataDir); err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Errorf("with the server running: %q %v", out, err)
	}
	server.Stop()
	if _, err := server.Muster(t.Context(), "key", "reset", "--data-dir", filepath.Join(server.DataDir, "none")); err == nil {
		t.Error("a folder that is not there was taken")
	}
	if _, err := os.Stat(filepath.Join(server.DataDir, "none")); err == nil {
		t.Error("a folder was made")
	}
	if _, err := server.Muster(t.Context(), "key", "reset", "--data-dir", server.DataDir, "--account-id", "000000000099"); err == nil || !strings.Contains(err.Error(), "no account 000000000099") {
		t.Errorf("another account: %v", err)
	}
	command(t, server, "key", "reset", "--data-dir", server.DataDir)
	command(t, server, "key", "reset", "--data-dir", server.DataDir, "--account-id", north)
	server.Start()
	// The server's own key did not take the place of the other account's.
	command(t, server, "things", "create", "theirs", "--profile", "account-"+north)
	if out, err := server.Muster(t.Context(), "things", "list", "--profile", "north"); err == nil {
		t.Errorf("the old key of the other account is good: %s", out)
	}
	fresh, _ := server.Credentials()
	if fresh == id {
		t.Error("the key is the old one")
	}
	if out := command(t, server, "things", "list"); !strings.Contains(out, "pump") {
		t.Errorf("things: %s", out)
	}
	if err := use(t.Context(), server, credentials{AccessKeyID: id, SecretAccessKey: secret}); !apiclient.Is(err, "UnrecognizedClientException") {
		t.Errorf("the old key: %v", err)
	}
}

// TestOperatorsAreAskedForPermission lets a viewer and a security admin try the
// operations about operators.
func TestOperatorsAreAskedForPermission(t *testing.T) {
	t.Parallel()
	server := testkit.StartServer(t)
	as := func(name string) func(args ...string) error {
		var key credentials
		if err := json.Unmarshal([]byte(command(t, server, "key", "create", name, "-o", "json")), &key); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), name)
		text := fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\nregion = us-east-1\n", key.AccessKeyID, key.SecretAccessKey)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return func(args ...string) error {
			_, err := server.Muster(t.Context(), append(args, "--credentials", file)...)
			return err
		}
	}
	for _, name := range []string{"viewer", "admin", "scoped"} {
		command(t, server, "user", "create", name)
	}
	command(t, server, "user", "attach", "viewer", "MusterViewer")
	command(t, server, "user", "attach", "admin", "MusterSecurityAdmin")
	command(t, server, "user", "put-policy", "scoped", "own", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["ops:CreateAccessKey","ops:ListAccessKeys","ops:UpdateAccessKey","ops:DeleteAccessKey"],
		"Resource":"arn:aws:iam::000000000000:user/${aws:username}"}}`)
	command(t, server, "user", "put-policy", "admin", "hands-off", `{"Version":"2012-10-17","Statement":{"Effect":"Deny","Action":"ops:*AccessKey*","Resource":"arn:aws:iam::*:user/boss"}}`)
	keyOf := func(name string) string {
		var key credentials
		if err := json.Unmarshal([]byte(command(t, server, "key", "create", name, "-o", "json")), &key); err != nil {
			t.Fatal(err)
		}
		return key.AccessKeyID
	}
	command(t, server, "user", "create", "boss")
	viewer, admin, scoped := as("viewer"), as("admin"), as("scoped")
	own, others, boss := keyOf("scoped"), keyOf("viewer"), keyOf("boss")
	for _, c := range []struct {
		who  func(...string) error
		args []string
		says string
	}{
		{viewer, []string{"user", "list"}, ""},
		{viewer, []string{"user", "create", "x"}, "ops:CreateUser on resource: arn:aws:iam::000000000000:user/*"},
		{viewer, []string{"user", "attach", "viewer", "MusterFleetAdmin"}, "ops:AttachUserAccessPolicy on resource: arn:aws:iam::000000000000:user/viewer"},
		{viewer, []string{"key", "create", "viewer"}, "ops:CreateAccessKey"},
		{viewer, []string{"role", "list"}, ""},
		{viewer, []string{"things", "create", "x"}, "iot:CreateThing"},
		{admin, []string{"user", "create", "x"}, ""},
		{admin, []string{"user", "attach", "x", "MusterOperator"}, ""},
		{admin, []string{"user-group", "create", "g"}, ""},
		{admin, []string{"user-group", "add", "g", "x"}, ""},
		{admin, []string{"role", "create", "r", "--trust", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"000000000000"},"Action":"sts:AssumeRole"}}`}, ""},
		{admin, []string{"access-policy", "create", "p", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:ListThings","Resource":"*"}}`}, ""},
		{admin, []string{"access-policy", "create", "q", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:ListThings"}}`}, "line 1, column 37"},
		{admin, []string{"user", "attach", "x", "MusterProvisioningApprover"}, ""},
		{admin, []string{"user", "attach", "x", "MusterFleetAdmin"}, "Separation of duties"},
		{admin, []string{"things", "delete", "x"}, "iot:DeleteThing"},
		{admin, []string{"key", "deactivate", boss}, "ops:UpdateAccessKey on resource: arn:aws:iam::000000000000:user/boss with an explicit deny"},
		{admin, []string{"key", "delete", boss}, "ops:DeleteAccessKey on resource: arn:aws:iam::000000000000:user/boss with an explicit deny"},
		{admin, []string{"key", "deactivate", others}, ""},
		{scoped, []string{"key", "list", "scoped"}, ""},
		{scoped, []string{"key", "deactivate", own}, ""},
		{scoped, []string{"key", "delete", own}, ""},
		{scoped, []string{"key", "delete", own}, "ops:DeleteAccessKey on resource: arn:aws:iam::000000000000:user/*"},
		{scoped, []string{"key", "delete", others}, "ops:DeleteAccessKey on resource: arn:aws:iam::000000000000:user/viewer"},
		{scoped, []string{"key", "create", "scoped"}, ""},
		{scoped, []string{"key", "create", "viewer"}, "ops:CreateAccessKey on resource: arn:aws:iam::000000000000:user/viewer"},
		{scoped, []string{"user", "list"}, "ops:ListUsers"},
	} {
		err := c.who(c.args...)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v, want %q", c.args, err, c.says)
		}
	}
}

// TestSignInsAreInTheTrail looks for a success, a guess at a user there is, and a
// secret that was typed as a name, each in the account that it concerns.
func TestSignInsAreInTheTrail(t *testing.T) {
	t.Parallel()
	server := testkit.StartServer(t)
	const north, path, password = "210000000001", "/ops/v1/sign-in", "given by the admin"
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, server, "account", "create", "North", "--id", north, "--save-profile", "north")
	for _, in := range [][]string{nil, {"--profile", "north"}} {
		command(t, server, append([]string{"user", "create", "alice"}, in...)...)
		command(t, server, append([]string{"user", "set-password", "alice", "--password-file", file}, in...)...)
	}
	post(t, server, path, map[string]string{"user": "alice", "password": password, "newPassword": "chosen by alice"})
	for _, in := range []map[string]string{
		{"user": "alice", "password": "a wrong guess"},
		{"user": "typed-secret", "password": "a wrong guess"},
		{"user": "alice", "password": "a wrong guess", "account": north},
		{"user": "alice", "password": "a wrong guess", "account": "210000000002"},
	} {
		if status, _, _ := post(t, server, path, in); status != http.StatusForbidden {
			t.Errorf("%v: %d", in, status)
		}
	}
	trail := func(flags ...string) string {
		var records []struct {
			ErrorCode         string `json:"errorCode"`
			RequestParameters struct {
				NewPassword string `json:"newPassword"`
			} `json:"requestParameters"`
			UserIdentity struct {
				Type      string `json:"type"`
				ARN       string `json:"arn"`
				UserName  string `json:"userName"`
				AccountID string `json:"accountId"`
			} `json:"userIdentity"`
		}
		out := command(t, server, append([]string{"audit", "search", "--name", "ConsoleLogin", "-o", "json"}, flags...)...)
		if strings.Contains(out, "typed-secret") || strings.Contains(out, "chosen by") || strings.Contains(out, "wrong guess") {
			t.Errorf("the trail holds what was typed: %s", out)
		}
		if err := json.Unmarshal([]byte(out), &records); err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, r := range records {
			lines = append(lines, strings.Join([]string{r.UserIdentity.Type, r.UserIdentity.ARN, r.UserIdentity.UserName, r.UserIdentity.AccountID, r.ErrorCode}, " ")+r.RequestParameters.NewPassword)
		}
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	for _, c := range []struct {
		flags []string
		want  string
	}{
		{nil, `IAMUser arn:aws:iam::000000000000:user/alice alice 000000000000 HIDDEN_DUE_TO_SECURITY_REASONS
IAMUser arn:aws:iam::000000000000:user/alice alice 000000000000 Unauthorized
Unknown    Unauthorized
Unknown    Unauthorized`},
		{[]string{"--profile", "north"}, "IAMUser arn:aws:iam::" + north + ":user/alice alice " + north + " Unauthorized"},
		{[]string{"--actor", "alice"}, `IAMUser arn:aws:iam::000000000000:user/alice alice 000000000000 HIDDEN_DUE_TO_SECURITY_REASONS
IAMUser arn:aws:iam::000000000000:user/alice alice 000000000000 Unauthorized`},
	} {
		testkit.Poll(t, 10*time.Second, "the trail shows the sign-ins", func() error {
			if got := trail(c.flags...); got != c.want {
				return fmt.Errorf("%v:\n%s\nwant\n%s", c.flags, got, c.want)
			}
			return nil
		})
	}
}

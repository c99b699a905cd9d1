package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/testkit"
)

// listRig is a server with allow lists, and a folder of the supplier's.
type listRig struct {
	t      *testing.T
	server *testkit.Server
	dir    string
}

func newListRig(t *testing.T) *listRig {
	t.Helper()
	r := &listRig{t: t, dir: t.TempDir()}
	identity := r.file("allow-list.age")
	out, err := exec.CommandContext(t.Context(), testkit.Binary(t), "allowlist", "identity", identity).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	r.server = testkit.StartServer(t, "--allow-list.identity-file", identity)
	if recipient := r.muster("allowlist", "recipient"); recipient != string(out) {
		t.Errorf("the server's recipient is %q, that of the file %q", recipient, out)
	}
	return r
}

func (r *listRig) file(name string) string { return filepath.Join(r.dir, name) }

// write makes a file of the supplier's.
func (r *listRig) write(name, text string) string {
	r.t.Helper()
	path := r.file(name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// muster runs a command that has to succeed.
func (r *listRig) muster(args ...string) string {
	r.t.Helper()
	out, err := r.server.Muster(r.t.Context(), args...)
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// person is a user with a key of its own.
type person struct {
	*listRig
	credentials string
}

func (r *listRig) person(name string, policies ...string) *person {
	r.t.Helper()
	r.muster("user", "create", name)
	for _, policy := range policies {
		r.muster("user", "attach", name, policy)
	}
	var key struct {
		AccessKeyID     string `json:"accessKeyId"`
		SecretAccessKey string `json:"secretAccessKey"`
	}
	if err := json.Unmarshal([]byte(r.muster("key", "create", name, "-o", "json")), &key); err != nil {
		r.t.Fatal(err)
	}
	return &person{r, r.write(name+".credentials", fmt.Sprintf("[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", key.AccessKeyID, key.SecretAccessKey))}
}

// may runs a command as the person, who must be able to.
func (p *person) may(args ...string) string {
	p.t.Helper()
	return p.muster(append(args, "--credentials", p.credentials)...)
}

// refused runs a command as the person that has to be refused with the words.
func (p *person) refused(words string, args ...string) {
	p.t.Helper()
	out, err := p.server.Muster(p.t.Context(), append(args, "--credentials", p.credentials)...)
	if err == nil || !strings.Contains(err.Error(), words) {
		p.t.Errorf("%v: got %v\n%s, want a refusal with %q", args, err, out, words)
	}
}

// wants demands parts of what was printed; single spaces stand for any number.
func wants(t *testing.T, out string, parts ...string) {
	t.Helper()
	plain := regexp.MustCompile(` +`).ReplaceAllString(out, " ")
	for _, part := range parts {
		if !strings.Contains(plain, part) {
			t.Errorf("no %q in\n%s", part, out)
		}
	}
}

// TestAllowListOfASupplier goes the whole way at the command line: keys and signature
// at the supplier's, an uploader, a vetter and an approver with nothing but the policies
// that come for them, an upload link used by curl, the original bit for bit, and a
// deletion that takes two.
func TestAllowListOfASupplier(t *testing.T) {
	t.Parallel()
	r := newListRig(t)
	admin := r.person("ada", "MusterFleetAdmin")
	uma := r.person("uma", "MusterAllowListUploader")
	vic := r.person("vic", "MusterAllowListVetter")
	app := r.person("app", "MusterProvisioningApprover")
	both := r.person("bob", "MusterFleetAdmin", "MusterAllowListVetter")

	// At the supplier's.
	r.muster("supplier", "keygen", "line-1", "--out", r.dir)
	list := r.write("pumps.json", `{"v":1,"list":"pumps","model":"g2","issuedAt":"2026-11-20T08:00:00Z","entries":[{"serial":"B7-1","vetted":true},{"serial":"B7-2","vetted":true}]}`)
	recipient := strings.TrimSpace(uma.may("allowlist", "recipient"))
	r.muster("allowlist", "sign", "--key", r.file("line-1.key"), "--kid", "line-1", "--encrypt-to", recipient, list)
	sealed := r.file("pumps.json.jws.age")

	// Only who administers the fleet names suppliers.
	for _, p := range []*person{uma, vic, app} {
		p.refused("Forbidden", "supplier", "put", "bolt")
	}
	wants(t, admin.may("supplier", "put", "acme", "--name", "Acme Pumps"), "acme Acme Pumps ACTIVE any refused vetted")
	uma.refused("signature: is not that of the list by a key of the supplier", "allowlist", "upload", "--supplier", "acme", sealed)
	wants(t, admin.may("supplier", "key", "acme", r.file("line-1.pub"), "--kid", "line-1"), "key line-1 ed25519")
	wants(t, vic.may("supplier", "show", "acme"), "name Acme Pumps")

	// The uploader writes and reads nothing back.
	wants(t, uma.may("allowlist", "upload", "--supplier", "acme", sealed), "pumps 1 QUARANTINED JSON 2 line-1")
	uma.refused("issuedAt: the document is not newer than the last one", "allowlist", "upload", "--supplier", "acme", sealed)
	wants(t, uma.may("allowlist", "revisions", "pumps"), "pumps 1 QUARANTINED")
	wants(t, uma.may("allowlist", "show", "pumps"), "pumps acme none 1")
	for _, args := range [][]string{
		{"accept", "pumps", "1"},
		{"reject", "pumps", "1", "--note", "x"},
		{"original", "pumps", "1", "--out", r.file("stolen")},
		{"diff", "pumps", "1", "2"},
		{"check", "B7-1"},
		{"block", "B7-1", "--note", "x"},
		{"delete", "pumps", "--yes"},
		{"link", "pumps", "--supplier", "acme"},
	} {
		uma.refused("Forbidden", append([]string{"allowlist"}, args...)...)
	}

	// The vetter uploads nothing. Nothing counts before it has accepted.
	vic.refused("Forbidden", "allowlist", "upload", "--supplier", "acme", sealed)
	wants(t, vic.may("allowlist", "check", "B7-1"), "no", "the device is on no accepted allow list")
	wants(t, vic.may("allowlist", "original", "pumps", "1", "--out", r.file("got")), "revision 1, sha256")
	sent, err := os.ReadFile(sealed)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(r.file("got")); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("the original differs: %v", err)
	}
	app.refused("Forbidden", "allowlist", "accept", "pumps", "1")
	wants(t, vic.may("allowlist", "accept", "pumps", "1", "--note", "delivery note 4711"), "pumps 1 ACCEPTED", "user/vic delivery note 4711")
	wants(t, vic.may("allowlist", "check", "B7-1"), "yes UNUSED pumps 1 acme", "revision 1 of allow list pumps has it, by serial")

	// One identity in both roles is refused, whatever its policies are: the root of the
	// account, too.
	second := r.write("pumps-2.json", `{"v":1,"list":"pumps","model":"g2","issuedAt":"2026-11-21T08:00:00Z","entries":[{"serial":"B7-1","vetted":true},{"serial":"B7-3","vetted":true}]}`)
	r.muster("allowlist", "sign", "--key", r.file("line-1.key"), "--kid", "line-1", second)
	wants(t, r.muster("allowlist", "upload", "--supplier", "acme", "--list", "pumps", r.file("pumps-2.json.jws")), "pumps 2 QUARANTINED")
	root := &person{r, filepath.Join(r.server.DataDir, "credentials")}
	root.refused("you have uploaded revision 2 of list pumps; another person accepts it", "allowlist", "accept", "pumps", "2")
	root.refused("you have uploaded revision 2 of list pumps; another person reads it", "allowlist", "original", "pumps", "2", "--out", "-")
	root.refused("another person reads it", "allowlist", "diff", "pumps", "1", "2")
	wants(t, vic.may("allowlist", "diff", "pumps", "1", "2"), "added B7-3/g2", "removed B7-2/g2")
	vic.may("allowlist", "reject", "pumps", "2", "--note", "B7-2 is missing")
	vic.refused("revision 2 of list pumps is REJECTED", "allowlist", "accept", "pumps", "2")

	// A list that openssl has signed, by a link, with curl.
	r.run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", r.file("line-2.key"))
	r.run("openssl", "ec", "-in", r.file("line-2.key"), "-pubout", "-out", r.file("line-2.pub"))
	admin.may("supplier", "key", "acme", r.file("line-2.pub"), "--kid", "line-2")
	valves := r.write("valves.csv", "serial,vetted,spkiSha256\nV-1,true,"+strings.Repeat("ab", 32)+"\n")
	r.run("openssl", "dgst", "-sha256", "-sign", r.file("line-2.key"), "-out", r.file("valves.sig"), valves)
	wants(t, uma.may("allowlist", "upload", "--supplier", "acme", "--list", "valves-by-hand", "--sig", r.file("valves.sig"), valves), "valves-by-hand 1 QUARANTINED CSV 1 line-2")
	bytesOf := r.write("other.csv", "serial,vetted\nV-2,true\n")
	r.run("openssl", "dgst", "-sha256", "-sign", r.file("line-2.key"), "-out", r.file("other.sig"), bytesOf)
	var link struct{ LinkID, URL string }
	if err := json.Unmarshal([]byte(both.may("allowlist", "link", "valves", "--supplier", "acme", "--valid-for", "1h", "-o", "json")), &link); err != nil {
		t.Fatal(err)
	}
	signature := strings.TrimSpace(r.run("openssl", "base64", "-A", "-in", r.file("other.sig")))
	put := []string{"-sS", "--upload-file", bytesOf, link.URL + "?kid=line-2&signature=" + strings.ReplaceAll(signature, "+", "%2B")}
	wants(t, r.run("curl", "-sS", "--upload-file", valves, link.URL+"?kid=line-2&signature=AAAA"), "is not that of the list")
	wants(t, r.run("curl", put...), "revision 1 of valves, 1 entries, sha256", "QUARANTINED")
	wants(t, r.run("curl", put...), "the upload link is not valid, was used, or is over")
	both.refused("you have uploaded revision 1 of list valves; another person reads it", "allowlist", "original", "valves", "1", "--out", "-")
	both.refused("you have uploaded revision 1 of list valves; another person accepts it", "allowlist", "accept", "valves", "1")
	wants(t, vic.may("allowlist", "revisions", "valves"), "valves 1 QUARANTINED CSV 1 line-2", "link of arn:aws:iam::000000000000:user/bob")
	vic.may("allowlist", "accept", "valves", "1")
	// The same with muster, which needs no account either.
	if err := json.Unmarshal([]byte(admin.may("allowlist", "link", "valves", "--supplier", "acme", "-o", "json")), &link); err != nil {
		t.Fatal(err)
	}
	more := r.write("more.csv", "vetted,serial,spkiSha256\ntrue,V-1,"+strings.Repeat("ab", 32)+"\n")
	r.muster("allowlist", "sign", "--key", r.file("line-1.key"), "--kid", "line-1", more)
	wants(t, r.muster("allowlist", "upload", "--link", link.URL, r.file("more.csv.jws"), "--credentials", "/dev/null"), "revision 2 of valves")
	wants(t, admin.may("allowlist", "links"), "valves acme arn:aws:iam::000000000000:user/ada")
	admin.may("allowlist", "revoke-link", link.LinkID)
	admin.refused("does not exist", "allowlist", "revoke-link", link.LinkID)

	// A key in the list wants to be shown; entries are blocked and set free.
	vic.may("allowlist", "accept", "valves", "2")
	wants(t, vic.may("allowlist", "check", "V-1"), "no UNUSED valves 2", "the allow list has a key for this serial number, and none was shown")
	wants(t, vic.may("allowlist", "check", "V-1", "--fingerprint", strings.Repeat("AB", 32)), "yes UNUSED valves 2", "by fingerprint")
	wants(t, vic.may("allowlist", "block", "V-1", "--note", "stolen from the truck"), "no BLOCKED valves 2", "stolen from the truck")
	wants(t, vic.may("allowlist", "check", "V-1", "--fingerprint", strings.Repeat("ab", 32)), "no BLOCKED", "the entry of the device is blocked")
	wants(t, vic.may("allowlist", "release", "V-1", "--note", "found again"), "UNUSED")

	// The approver sees lists stand, and no content; it binds nothing.
	wants(t, app.may("allowlist", "list"), "pumps acme 1 2", "valves acme 2 2")
	app.refused("Forbidden", "allowlist", "original", "pumps", "1", "--out", "-")
	app.refused("Forbidden", "allowlist", "check", "B7-1")
	app.refused("Forbidden", "approvals", "authority", "lists", "--allow-list")
	wants(t, r.muster("approvals", "authority", "lists", "--allow-list", "--serial-parameter", "Serial"), "lists ALLOW_LIST serial=Serial")
	wants(t, r.muster("approvals", "authority", "acme", "--supplier", "acme"), "acme SUPPLIER acme")

	// A suspended supplier's devices do not join.
	admin.may("supplier", "suspend", "acme")
	wants(t, vic.may("allowlist", "check", "B7-1"), "no UNUSED", "the supplier is suspended")
	admin.may("supplier", "put", "acme", "--name", "Acme")
	wants(t, admin.may("supplier", "show", "acme"), "name Acme\n", "status SUSPENDED", "key line-2 es256")
	admin.may("supplier", "resume", "acme")
	wants(t, vic.may("allowlist", "check", "B7-1"), "yes UNUSED")

	// A deletion takes two, and can be taken back.
	wants(t, admin.may("allowlist", "delete", "pumps", "--yes"), "asked by arn:aws:iam::000000000000:user/ada")
	admin.refused("another person agrees", "allowlist", "delete", "pumps", "--yes")
	admin.may("allowlist", "keep", "pumps")
	admin.may("allowlist", "delete", "pumps", "--yes")
	wants(t, vic.may("allowlist", "check", "B7-1"), "yes UNUSED")
	wants(t, r.muster("allowlist", "delete", "pumps", "--yes"), "deleted ", "by arn:aws:iam::000000000000:user/ada and arn:aws:iam::000000000000:root")
	wants(t, vic.may("allowlist", "check", "B7-1"), "the device is on no accepted allow list")
	vic.refused("is gone with its list", "allowlist", "original", "pumps", "1", "--out", "-")
	admin.refused("supplier acme has allow lists", "supplier", "delete", "acme")

	// The log has nothing of what the lists say.
	for _, secret := range []string{"B7-1", "B7-3", "V-1", strings.Repeat("ab", 32)} {
		if strings.Contains(r.server.Log(), secret) {
			t.Errorf("the log has %q", secret)
		}
	}
}

// run runs a tool of the supplier's.
func (r *listRig) run(name string, args ...string) string {
	r.t.Helper()
	testkit.Need(r.t, name)
	return run(r.t.Context(), r.t, name, args...)
}

func run(ctx context.Context, t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

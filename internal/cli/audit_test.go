package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// trailFile is an export of ten records.
const trailFile = "../audit/testdata/trail.ndjson"

// someRecord is a refused call of a role.
const someRecord = `{"v":1,"seq":7,"eventTime":"2026-03-01T04:05:06.000Z","eventName":"DeletePolicy","userIdentity":{"type":"AssumedRole",` +
	`"arn":"arn:aws:sts::000000000000:assumed-role/admin/ada","sessionContext":{"sessionIssuer":{"type":"Role","arn":"r"}}},` +
	`"errorCode":"DeleteConflictException","sourceIPAddress":"192.0.2.7","resources":[{"ARN":"arn:aws:iot:r:000000000000:policy/p\u001b[31m"}]}`

func TestAuditCommands(t *testing.T) {
	t.Parallel()
	verdict := `{"verdict":{"account":"000000000000","records":7,"first":1,"last":7,"hash":"ab","publicKey":"k","findings":0}}`
	r := rest(t, map[string]string{
		"GET /ops/v1/audit/records": `{"records":[` + someRecord + `]}`,
		"GET /ops/v1/audit/head":    `{"v":1,"what":"muster audit head","seq":7}` + "\n",
		"GET /ops/v1/audit/export":  "line\nend\n",
		"GET /ops/v1/audit/verify":  `{"progress":5}` + "\n" + verdict,
	})
	bad := rest(t, map[string]string{
		"GET /ops/v1/audit/verify": `{"finding":{"seq":4,"problem":"changed","detail":"record 4: x"}}` + "\n" + strings.Replace(verdict, `"findings":0`, `"findings":1`, 1),
	})
	cut := rest(t, map[string]string{"GET /ops/v1/audit/verify": `{"progress":5}`})
	changed := filepath.Join(t.TempDir(), "changed.ndjson")
	text, err := os.ReadFile(trailFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(changed, bytes.Replace(text, []byte("ListThings1"), []byte("ListThings7"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	whole := "account 000000000000: 10 records, 1 to 10: all whole\n"
	for _, c := range []struct {
		name string
		r    runner
		args []string
		code int
		out  string
		err  string
	}{
		{"search", r, []string{"search", "--actor", "admin", "--from", "-24h"}, 0, "SEQ  TIME                      WHO        NAME          ERROR                    ADDRESS    RESOURCES\n" +
			"7    2026-03-01T04:05:06.000Z  admin/ada  DeletePolicy  DeleteConflictException  192.0.2.7  policy/p\\x1b[31m\n", ""},
		{"tail", r, []string{"tail"}, 0, "2026-03-01T04:05:06.000Z admin/ada DeletePolicy DeleteConflictException policy/p\\x1b[31m\n", ""},
		{"tail of nothing", r, []string{"tail", "-n", "0"}, 0, "", ""},
		{"tail of less", r, []string{"tail", "-n", "-1"}, 1, "", "--lines must not be negative"},
		{"head", r, []string{"head"}, 0, `{"v":1,"what":"muster audit head","seq":7}` + "\n", ""},
		{"export", r, []string{"export"}, 0, "line\nend\n", ""},
		{"export over a file", r, []string{"export", "--to-file", changed}, 1, "", "file exists"},
		{"verify", r, []string{"verify"}, 0, "account 000000000000: 7 records, 1 to 7: all whole\nlast hash ab\nsigned by k\n", ""},
		{"verify finds", bad, []string{"verify"}, 1, "changed: record 4: x\naccount 000000000000: 7 records, 1 to 7: 1 findings\n", "the audit trail is not whole"},
		{"verify breaks off", cut, []string{"verify"}, 1, "", "broke off before the verdict"},
		{"file", runner{}, []string{"verify", "--file", trailFile}, 0, whole, ""},
		{"changed file", runner{}, []string{"verify", "--file", changed}, 1, "changed: record 4: the content does not have the hash that stands at its end\n", "not whole"},
		{"no file", runner{}, []string{"verify", "--file", "nothing"}, 1, "", "read the export"},
		{"no head", runner{}, []string{"verify", "--file", trailFile, "--head", changed}, 1, "", "the head is not JSON"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := c.r.run(t.Context(), append([]string{"audit"}, c.args...)...)
			if got.code != c.code || !strings.HasPrefix(got.out, c.out) || c.out == "" && got.out != "" || !strings.Contains(got.err, c.err) {
				t.Errorf("code %d, want %d\n%s\nerr %q, want %q", got.code, c.code, cmp.Diff(c.out, got.out), got.err, c.err)
			}
		})
	}
}

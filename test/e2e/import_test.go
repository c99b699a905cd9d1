package e2e_test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/testkit"
)

// hostileFile has good lines among what people and programs leave in files.
const hostileFile = "\xef\xbb\xbfname,type,billing_group,groups,attr.site,attr.hw\r\n" +
	"a,Pump,payer,\"site;line\",leeds,r1\r\n" +
	"\r\n" +
	"b,,,,,\r\n" +
	"no\xffutf8,,,,,\r\n" +
	"\"two\nlines\",,,,,\r\n" +
	"a,Pump,payer,site;line,leeds,r1\r\n" + // again
	"a,Pump,,,york,r1\r\n" + // otherwise
	"c,Unknown,,,,\r\n" +
	"d,,nobody,,,\r\n" +
	"e,,,nowhere,,\r\n" +
	"f,,,,sp ace,\r\n" +
	"too,few\r\n" +
	"g\"quote,,,,,\r\n" +
	"LONG,,,,,\r\n" +
	"z,Pump,,site,,r9"

// TestImportAndExport brings a file in that has much in it that cannot be, and
// takes everything to a second server.
func TestImportAndExport(t *testing.T) {
	t.Run("Pebble", func(t *testing.T) { checkImport(t) })
	t.Run("PostgreSQL", func(t *testing.T) { checkImport(t, "--store", testkit.StartPostgres(t).Database(t)) })
}

// checkImport does that on a server with the flags.
func checkImport(t *testing.T, flags ...string) {
	t.Helper()
	first := testkit.StartServer(t, append(flags, "--log.level", "warn")...)
	second := testkit.StartServer(t, "--log.level", "warn")
	for _, server := range []*testkit.Server{first, second} {
		api := newAPI(t, server)
		err := api.CreateThingType(t.Context(), "Pump", "", nil)
		for _, path := range []string{"/thing-groups/site", "/thing-groups/line", "/billing-groups/payer"} {
			if err == nil {
				err = api.JSON(t.Context(), apiclient.Request{Service: apiclient.ServiceControl, Method: http.MethodPost, Path: path}, map[string]any{}, nil)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	folder := t.TempDir()
	file, report := filepath.Join(folder, "fleet.csv"), filepath.Join(folder, "failed.csv")
	if err := os.WriteFile(file, []byte(strings.Replace(hostileFile, "LONG", strings.Repeat("x", 1<<20), 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := first.Muster(t.Context(), "import", "things", file, "--dry-run")
	if err == nil || !strings.Contains(out, "checked, nothing changed: 14 lines: 5 created, 0 updated, 0 unchanged, 9 failed") {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = first.Muster(t.Context(), "import", "things", file, "--errors", report)
	if err == nil || !strings.Contains(out, "imported 14 lines: 3 created, 0 updated, 1 unchanged, 10 failed") {
		t.Errorf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\n5,InvalidLine,the line is not valid UTF-8,", "\n6,InvalidRequest,", "\n9,ResourceAlreadyExists,", "\n10,ResourceNotFound,thing type Unknown does not exist,",
		"\n11,ResourceNotFound,", "\n12,ResourceNotFound,thing group nowhere does not exist,", "\n13,InvalidRequest,", "\n14,InvalidLine,\"the line has 2 fields, the header 6\"",
		"\n15,InvalidLine,", "\n16,InvalidLine,the line is longer than 65536 bytes,",
	} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("no %q in %.4000s", want, text)
		}
	}

	// The report is mended by hand: two lines, in its own columns.
	rows := strings.SplitN(string(text), "\n", 2)
	mended := filepath.Join(folder, "mended.csv")
	if err := os.WriteFile(mended, []byte(rows[0]+"\n10,ResourceNotFound,x,,c,Pump,,,,\n12,ResourceNotFound,x,,e,,,line,,\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := first.Muster(t.Context(), "import", "things", mended); err != nil || !strings.Contains(out, "imported 2 lines: 2 created") {
		t.Errorf("%v\n%s", err, out)
	}

	exported := filepath.Join(folder, "out.ndjson")
	if out, err := first.Muster(t.Context(), "export", "things", exported); err != nil || out != "exported 5 things\n" {
		t.Errorf("%v\n%s", err, out)
	}
	text, err = os.ReadFile(exported)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"name":"a","type":"Pump","billing_group":"payer","groups":["line","site"],"attributes":{"hw":"r1","site":"leeds"}}
{"name":"b"}
{"name":"c","type":"Pump"}
{"name":"e","groups":["line"]}
{"name":"z","type":"Pump","groups":["site"],"attributes":{"hw":"r9"}}
`, string(text)); diff != "" {
		t.Error(diff)
	}
	if out, err := second.Muster(t.Context(), "import", "things", exported); err != nil || !strings.Contains(out, "5 created") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := first.Muster(t.Context(), "import", "things", exported); err != nil || !strings.Contains(out, "5 unchanged") {
		t.Errorf("%v\n%s", err, out)
	}
	again := filepath.Join(folder, "again.ndjson")
	if _, err := second.Muster(t.Context(), "export", "things", again); err != nil {
		t.Error(err)
	}
	if copied, err := os.ReadFile(again); err != nil || !bytes.Equal(copied, text) {
		t.Errorf("%v, the second server has\n%s", err, copied)
	}
}

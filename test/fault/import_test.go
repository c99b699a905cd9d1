package fault_test

import (
	"bytes"
	"context"
	"encoding/csv"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/apiclient"
	"github.com/muster-iot/muster/internal/testkit"
)

// imported is how many things the import tests load.
const imported = 20_000

// importRig is a server, a file of things for it, and the command.
type importRig struct {
	t      *testing.T
	server *testkit.Server
	api    *apiclient.Client
	file   string
}

func newImportRig(t *testing.T, flags ...string) *importRig {
	t.Helper()
	r := &importRig{t: t, server: testkit.StartServer(t, append([]string{"--log.level", "warn"}, flags...)...)}
	id, secret := r.server.Credentials()
	var err error
	r.api, err = apiclient.New(apiclient.Options{
		Endpoint: "http://" + r.server.HTTPAddr, Credentials: apiclient.Credentials{AccessKeyID: id, Secret: secret, Region: "us-east-1"}, Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.api.CloseIdle)
	if err := r.api.CreateThingType(t.Context(), "Pump", "", nil); err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{"north", "south"} {
		if err := r.api.CreateGroup(t.Context(), group, "", ""); err != nil {
			t.Fatal(err)
		}
	}
	r.file = filepath.Join(t.TempDir(), "fleet.csv")
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	rows := [][]string{{"name", "type", "groups", "attr.n"}}
	for i := range imported {
		rows = append(rows, []string{fmt.Sprintf("t%06d", i), "Pump", []string{"north", "south"}[i%2], fmt.Sprint(i)})
		if i%1000 == 999 { // a line that must fail each time, and only once
			rows = append(rows, []string{fmt.Sprintf("bad %d", i), "", "", ""})
		}
	}
	if err := w.WriteAll(rows); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

// command is the import as an operator runs it; its output goes into out.
func (r *importRig) command(ctx context.Context, out *bytes.Buffer, args ...string) *exec.Cmd {
	r.t.Helper()
	cmd := exec.CommandContext(ctx, testkit.Binary(r.t), append([]string{
		"import", "things", r.file,
		"--endpoint-url", "http://" + r.server.HTTPAddr, "--data-dir", r.server.DataDir, "--batch", "100", "--concurrency", "4",
	}, args...)...)
	cmd.Stdout, cmd.Stderr = out, out
	return cmd
}

// loaded counts things without a page's content.
func (r *importRig) loaded() int {
	r.t.Helper()
	things, err := r.api.ListThings(r.t.Context(), apiclient.ThingFilter{}, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	return len(things)
}

// verify compares the registry with the file: every thing once, as it stands
// there, with its membership; nothing else.
func (r *importRig) verify() {
	r.t.Helper()
	things, err := r.api.ListThings(r.t.Context(), apiclient.ThingFilter{TypeName: "Pump"}, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	if len(things) != imported || r.loaded() != imported {
		r.t.Fatalf("%d things of the type, %d in all, %d in the file", len(things), r.loaded(), imported)
	}
	for i, thing := range things {
		if thing.ThingName != fmt.Sprintf("t%06d", i) || thing.Attributes["n"] != fmt.Sprint(i) || thing.Version != 1 {
			r.t.Fatalf("thing %d is %+v", i, thing)
		}
	}
	for g, group := range []string{"north", "south"} {
		members, err := r.api.GroupMembers(r.t.Context(), group, false, 0)
		if err != nil || len(members) != imported/2 {
			r.t.Fatalf("%d members of %s, %v", len(members), group, err)
		}
		for i, name := range members {
			if name != fmt.Sprintf("t%06d", 2*i+g) {
				r.t.Fatalf("member %d of %s is %s", i, group, name)
			}
		}
	}
	if out, err := r.server.Muster(r.t.Context(), "doctor"); err != nil {
		r.t.Errorf("doctor: %v\n%s", err, out)
	}
}

// The server is killed in the middle of an import, several times, and comes
// back. The import goes on by itself, and nothing is lost or doubled.
func TestKilledServerInAnImport(t *testing.T) {
	r := newImportRig(t)
	report := filepath.Join(t.TempDir(), "failed.csv")
	var out bytes.Buffer
	cmd := r.command(t.Context(), &out, "--errors", report)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	killed := 0
	for killed < 3 {
		before := r.loaded()
		testkit.Poll(t, 30*time.Second, "the import gets on", func() error {
			select {
			case err := <-ended:
				t.Fatalf("the import ended after %d kills: %v\n%s", killed, err, out.String())
			default:
			}
			if r.loaded() < before+1000 {
				return fmt.Errorf("not yet")
			}
			return nil
		})
		r.server.Kill()
		r.server.Start()
		killed++
	}
	if err := <-ended; err == nil || !strings.Contains(out.String(), "20 of 20020 lines failed") {
		t.Errorf("%v\n%s", err, out.String())
	}
	r.verify()
	r.checkReport(report)
	t.Logf("%d kills\n%s", killed, out.String())
}

// The command is killed in the middle, again and again; each next one goes on.
func TestKilledImport(t *testing.T) {
	r := newImportRig(t)
	report := filepath.Join(t.TempDir(), "failed.csv")
	for n := 1; ; n++ {
		if n > 50 {
			t.Fatal("the import does not come to its end")
		}
		before := r.loaded()
		var out bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		cmd := r.command(ctx, &out, "--errors", report)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		var err error
		done := false
		testkit.Poll(t, 30*time.Second, "the import gets on", func() error {
			select {
			case err = <-ended:
				done = true
				return nil
			default:
			}
			if r.loaded() < before+3000 {
				return fmt.Errorf("not yet")
			}
			return nil
		})
		cancel() // SIGKILL
		if !done {
			err = <-ended
		}
		text := out.String()
		if !done && !strings.Contains(text, "imported 20020 lines: ") {
			continue // the kill was faster than the end
		}
		if err == nil || !strings.Contains(text, "imported 20020 lines: ") || !strings.Contains(text, "20 of 20020 lines failed") {
			t.Errorf("%v\n%s", err, text)
		}
		if n < 3 {
			t.Errorf("the import ended in run %d: too early to show anything", n)
		}
		t.Logf("%d runs\n%s", n, text)
		break
	}
	r.verify()
	r.checkReport(report)
	if _, err := os.Stat(r.file + ".import-journal"); !os.IsNotExist(err) {
		t.Errorf("a journal stays: %v", err)
	}
}

// Two imports of one file: with one journal the second is refused; with two,
// each thing is still made once.
func TestTwoImportsOfAFile(t *testing.T) {
	r := newImportRig(t)
	other := filepath.Join(t.TempDir(), "journal")
	var outs [3]bytes.Buffer
	var ended [3]chan error
	for i, args := range [][]string{nil, {"--journal", other}, {"--journal", other}} {
		cmd := r.command(t.Context(), &outs[i], args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended[i] = make(chan error, 1)
		go func() { ended[i] <- cmd.Wait() }()
	}
	created, whole, locked := 0, 0, 0
	for i := range outs {
		<-ended[i]
		var c, updated, unchanged, failed int
		text := outs[i].String()
		if strings.Contains(text, "another import of this file is under way") {
			locked++
			continue
		}
		at := strings.Index(text, "imported 20020 lines: ")
		if at < 0 {
			t.Fatalf("import %d: %s", i, text)
		}
		if _, err := fmt.Sscanf(text[at:], "imported 20020 lines: %d created, %d updated, %d unchanged, %d failed", &c, &updated, &unchanged, &failed); err != nil {
			t.Fatal(err)
		}
		if c+unchanged != imported || failed != 20 {
			t.Errorf("import %d: %s", i, text)
		}
		created += c
		whole++
	}
	// One of the two with the same journal was refused, whichever came second.
	if created != imported || whole != 2 || locked != 1 {
		t.Errorf("%d things were created by %d imports, %d were refused", created, whole, locked)
	}
	r.verify()
}

// checkReport demands each failed line once.
func (r *importRig) checkReport(path string) {
	r.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil || len(rows) != 21 {
		r.t.Fatalf("%d rows, %v\n%s", len(rows), err, text)
	}
	seen := map[string]bool{}
	for _, row := range rows[1:] {
		if seen[row[4]] || !strings.HasPrefix(row[4], "bad ") || row[1] != "InvalidRequest" {
			r.t.Errorf("row %q", row)
		}
		seen[row[4]] = true
	}
}

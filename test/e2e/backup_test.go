package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/testkit"
)

// busyThings are written to while the backup is made.
const busyThings = 8

// writers update shadows until they are stopped and know what was accepted.
type writers struct {
	stop     context.CancelFunc
	running  sync.WaitGroup
	accepted [busyThings]atomic.Int64
	failed   [busyThings]error
}

func busy(i int) string { return "busy-" + strconv.Itoa(i) }

// startWriters registers the things and writes to them.
func startWriters(t *testing.T, server *testkit.Server) (*writers, []identity) {
	t.Helper()
	api := newAPI(t, server)
	ctx, cancel := context.WithCancel(t.Context())
	w := &writers{stop: cancel}
	var identities []identity
	for i := range busyThings {
		as := newDevice(t, api, busy(i))
		identities = append(identities, as)
		d := online(t, server, busy(i), as)
		w.running.Go(func() {
			for n := int64(1); ctx.Err() == nil; n++ {
				a, err := d.report(ctx, n)
				if err != nil {
					if ctx.Err() == nil {
						w.failed[i] = err
					}
					return
				}
				w.accepted[i].Store(a.Version)
			}
		})
	}
	t.Cleanup(func() { cancel(); w.running.Wait() })
	return w, identities
}

// versions are those that have been accepted so far.
func (w *writers) versions() (all [busyThings]int64) {
	for i := range all {
		all[i] = w.accepted[i].Load()
	}
	return all
}

// progress waits until every thing has a later version.
func (w *writers) progress(t *testing.T) {
	t.Helper()
	before := w.versions()
	testkit.Poll(t, 20*time.Second, "every writer goes on", func() error {
		for i, v := range w.versions() {
			if v < before[i]+5 {
				return fmt.Errorf("%s is at version %d", busy(i), v)
			}
		}
		return nil
	})
}

// end stops the writers; none may have been refused.
func (w *writers) end(t *testing.T) {
	t.Helper()
	w.stop()
	w.running.Wait()
	for i, err := range w.failed {
		if err != nil {
			t.Errorf("%s: %v", busy(i), err)
		}
	}
}

// backedUp is a server's backup and what a restored one must answer.
type backedUp struct {
	archive, identity string
	answers           []recorded
	// least and most bound the versions of the busy things.
	least, most [busyThings]int64
	golden      identity
	busy        []identity
	credentials string
}

// backUp makes a backup of a running server under writes.
func backUp(t *testing.T, server *testkit.Server) backedUp {
	t.Helper()
	api := newAPI(t, server)
	dir := t.TempDir()
	b := backedUp{archive: filepath.Join(dir, "muster.backup"), identity: filepath.Join(dir, "key.txt")}
	b.golden = populate(t, api)
	b.answers = interview(t, api, questions(b.golden.certificate.ID, b.golden.certificate.ARN))
	w, identities := startWriters(t, server)
	b.busy = identities
	w.progress(t)
	b.least = w.versions()
	out, err := server.Muster(t.Context(), "backup", "--to", b.archive, "--new-identity", b.identity)
	must(t, err)
	if !strings.Contains(out, "encrypted to age1") {
		t.Errorf("backup printed %q", out)
	}
	// The server goes on as if nothing had been.
	w.progress(t)
	w.end(t)
	b.most = w.versions()
	for i := range b.most {
		b.most[i]++ // one may have been under way at the end
	}
	credentials, err := os.ReadFile(filepath.Join(server.DataDir, "credentials"))
	must(t, err)
	b.credentials = string(credentials)

	text, err := os.ReadFile(b.archive)
	must(t, err)
	_, secret := server.Credentials()
	for _, plain := range []string{secret, "PRIVATE KEY", goldenThing} {
		if strings.Contains(string(text), plain) {
			t.Errorf("the backup holds %q in the clear", plain)
		}
	}
	return b
}

// checkRestored starts a server on a restored folder and asks it.
func (b backedUp) checkRestored(t *testing.T, dataDir string, flags ...string) {
	t.Helper()
	server := testkit.NewServer(t, dataDir, flags...)
	server.Start()
	credentials, err := os.ReadFile(filepath.Join(dataDir, "credentials"))
	must(t, err)
	if string(credentials) != b.credentials {
		t.Error("the restored server has other credentials")
	}
	api := newAPI(t, server)
	for _, r := range b.answers {
		if strings.HasSuffix(r.Question.Path, "/things") && !strings.Contains(r.Question.Path, "group") {
			continue // the busy things came later
		}
		if diff := cmp.Diff(r.Answer, ask(t, api, r.Question)); diff != "" {
			t.Errorf("%v (-before +restored):\n%s", r.Question, diff)
		}
	}
	for i, as := range b.busy {
		a, err := online(t, server, busy(i), as).report(t.Context(), 1_000_000)
		if stored := a.Version - 1; err != nil || stored < b.least[i] || stored > b.most[i] {
			t.Errorf("%s is restored at version %d, %v; want %d to %d", busy(i), stored, err, b.least[i], b.most[i])
		}
	}
	if out, err := server.Muster(t.Context(), "doctor"); err != nil {
		t.Errorf("doctor: %v\n%s", err, out)
	}
	server.Stop()
	if code := server.ExitCode(); code != 0 {
		t.Errorf("the server ended with code %d", code)
	}
}

// restore runs `muster restore` into a new folder and returns it.
func (b backedUp) restore(t *testing.T, server *testkit.Server, flags ...string) string {
	t.Helper()
	dataDir := filepath.Join(t.TempDir(), "restored")
	out, err := server.Muster(t.Context(), append([]string{"restore", "--from", b.archive, "--identity", b.identity, "--data-dir", dataDir}, flags...)...)
	must(t, err)
	if !strings.Contains(out, dataDir) {
		t.Errorf("restore printed %q", out)
	}
	return dataDir
}

// TestBackupAndRestore takes a backup from the embedded store and restores it
// into either engine.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	server := testkit.StartServer(t)
	b := backUp(t, server)
	t.Run("Pebble", func(t *testing.T) {
		dir := b.restore(t, server)
		b.checkRestored(t, dir)
		// A folder with a store in it is not overwritten.
		refused(t, []string{"restore", "--from", b.archive, "--identity", b.identity, "--data-dir", dir}, "restore into an empty folder")
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		url := testkit.StartPostgres(t).Database(t)
		b.checkRestored(t, b.restore(t, server, "--store", url), "--store", url)
		other := filepath.Join(t.TempDir(), "other")
		refused(t, []string{"restore", "--from", b.archive, "--identity", b.identity, "--data-dir", other, "--store", url}, "not empty")
	})
	t.Run("WrongKey", func(t *testing.T) {
		dir := t.TempDir()
		foreign := filepath.Join(dir, "foreign.txt")
		_, err := server.Muster(t.Context(), "backup", "--to", filepath.Join(dir, "other.backup"), "--new-identity", foreign)
		must(t, err)
		refused(t, []string{"restore", "--from", b.archive, "--identity", foreign, "--data-dir", filepath.Join(dir, "data")}, "identity")
		if _, err := os.Stat(filepath.Join(dir, "data", "credentials")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a refused restore left credentials behind: %v", err)
		}
	})
	t.Run("Damaged", func(t *testing.T) {
		archive, err := os.ReadFile(b.archive)
		must(t, err)
		for name, damaged := range map[string][]byte{
			"truncated": archive[:len(archive)*2/3],
			"changed":   append(append(append([]byte{}, archive[:len(archive)/2]...), archive[len(archive)/2]^1), archive[len(archive)/2+1:]...),
			"no backup": []byte("not a backup"),
		} {
			path := filepath.Join(t.TempDir(), "damaged")
			writeFile(t, path, damaged)
			t.Log(name)
			refused(t, []string{"restore", "--from", path, "--identity", b.identity, "--data-dir", filepath.Join(t.TempDir(), "data")}, "backup")
		}
	})
}

// TestBackupOfPostgreSQL goes the other way: from the database into a folder.
func TestBackupOfPostgreSQL(t *testing.T) {
	t.Parallel()
	url := testkit.StartPostgres(t).Database(t)
	server := testkit.StartServer(t, "--store", url)
	b := backUp(t, server)
	b.checkRestored(t, b.restore(t, server))
}

// TestBackupToRecipient encrypts to a public key that somebody else holds.
func TestBackupToRecipient(t *testing.T) {
	t.Parallel()
	server := testkit.StartServer(t)
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first.backup"), filepath.Join(dir, "second.backup")
	key := filepath.Join(dir, "key.txt")
	_, err := server.Muster(t.Context(), "backup", "--to", first, "--new-identity", key)
	must(t, err)
	text, err := os.ReadFile(key)
	must(t, err)
	line, _, _ := strings.Cut(string(text), "\n")
	_, recipient, ok := strings.Cut(line, "public key: ")
	if !ok {
		t.Fatalf("the key file begins with %q", line)
	}
	_, err = server.Muster(t.Context(), "backup", "--to", second, "--recipient", recipient)
	must(t, err)
	b := backedUp{archive: second, identity: key}
	server.Stop()
	if _, err := os.Stat(filepath.Join(b.restore(t, server), "FORMAT")); err != nil {
		t.Error(err)
	}
	for _, flags := range [][]string{{"--recipient", "age1nonsense"}, {"--recipient", recipient, "--new-identity", key}, {}} {
		if _, err := server.Muster(t.Context(), append([]string{"backup", "--to", filepath.Join(dir, "third")}, flags...)...); err == nil {
			t.Errorf("backup %q was made", flags)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "third")); err == nil {
		t.Error("a refused backup left a file")
	}
}

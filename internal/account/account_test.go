package account

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// memory is the part of a store that accounts use.
type memory struct {
	store.Store
	mu      sync.Mutex
	version uint64
	records map[store.Key]store.Record
}

func newMemory() *memory { return &memory{records: map[store.Key]store.Record{}} }

func (m *memory) Get(_ context.Context, key store.Key) (store.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.records[key]
	if !ok {
		return r, store.ErrNotFound
	}
	return r, nil
}

func (m *memory) Commit(_ context.Context, b store.Batch) (store.Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range b.Expect {
		if m.records[e.Key].Version != e.Version {
			return store.Position{}, &store.ConflictError{Key: e.Key}
		}
	}
	for _, w := range b.Writes {
		m.version++
		m.records[w.Key] = store.Record{Key: w.Key, Value: w.Value, Version: m.version}
	}
	return store.Position{}, nil
}

// newService returns a service over a store, with a key file in a new folder.
func newService(t *testing.T, s store.Store) *Service {
	t.Helper()
	sealer, err := OpenSealer(filepath.Join(t.TempDir(), "seal.key"))
	if err != nil {
		t.Fatal(err)
	}
	return New(Options{Store: s, Sealer: sealer, Now: func() time.Time { return time.Unix(1_800_000_000, 0) }})
}

func TestRootIsMadeOnceAndRecoverable(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := newService(t, m)
	key, err := s.Root(t.Context(), "000000000042")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^AKIA[A-Z2-7]{16}$`).MatchString(key.ID) || len(key.Secret) != 40 {
		t.Errorf("got %q with a secret of %d characters", key.ID, len(key.Secret))
	}
	restarted := New(s.options)
	again, err := restarted.Root(t.Context(), "000000000042")
	if err != nil || again != key {
		t.Errorf("the second start got another key: %v", err)
	}
	secret, account, principal, err := restarted.SecretKey(t.Context(), key.ID)
	if err != nil {
		t.Fatal(err)
	}
	want := fleet.Principal{Kind: "user", ID: "root", ARN: "arn:aws:iam::000000000042:root"}
	if secret != key.Secret || account != "000000000042" || !cmp.Equal(principal, want) {
		t.Errorf("got %v %v", account, principal)
	}
	for k, r := range m.records {
		if bytes.Contains(r.Value, []byte(key.Secret)) {
			t.Errorf("the secret is readable under %v", k)
		}
	}
	other, err := s.Root(t.Context(), "000000000043")
	if err != nil || other.ID == key.ID {
		t.Errorf("another account got %v, %v", other.ID, err)
	}
}

func TestRootOnTwoNodesAtOnce(t *testing.T) {
	t.Parallel()
	m := newMemory()
	shared := newService(t, m).options
	keys := make([]AccessKey, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = New(shared).Root(t.Context(), "000000000000"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, k := range keys {
		if k != keys[0] {
			t.Fatalf("nodes disagree: %v and %v", k.ID, keys[0].ID)
		}
	}
	if len(m.records) != 2 {
		t.Errorf("%d records, want one account and one key", len(m.records))
	}
}

func TestSecretKeyRefuses(t *testing.T) {
	t.Parallel()
	s := newService(t, newMemory())
	for _, id := range []string{"", "AKIAUNKNOWN", "a\x00b", "../x", strings.Repeat("A", 200), "ключ"} {
		_, _, _, err := s.SecretKey(t.Context(), id)
		if fault.CodeOf(err) != fault.Unauthorized {
			t.Errorf("%q: got %v", id, err)
		}
		if id != "" && strings.Contains(err.Error(), id) {
			t.Errorf("the answer repeats %q", id)
		}
	}
}

func TestSecretFollowsTheRecord(t *testing.T) {
	t.Parallel()
	m := newMemory()
	s := newService(t, m)
	key, err := s.Root(t.Context(), "000000000000")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := s.SecretKey(t.Context(), key.ID); err != nil {
		t.Fatal(err)
	}
	delete(m.records, store.K("access-key", key.ID)) // another node removed it
	if _, _, _, err := s.SecretKey(t.Context(), key.ID); fault.CodeOf(err) != fault.Unauthorized {
		t.Errorf("a removed key still signs: %v", err)
	}
}

func TestForeignSealingKey(t *testing.T) {
	t.Parallel()
	m := newMemory()
	key, err := newService(t, m).Root(t.Context(), "000000000000")
	if err != nil {
		t.Fatal(err)
	}
	_, _, _, err = newService(t, m).SecretKey(t.Context(), key.ID)
	if err == nil || fault.CodeOf(err) == fault.Unauthorized {
		t.Errorf("got %v, want an internal error: the key exists, its seal is another's", err)
	}
}

// refuser is a device authorizer that remembers what it was asked.
type refuser struct{ asked string }

func (r *refuser) Authorize(_ context.Context, p fleet.Principal, action, resource string) error {
	r.asked = p.ID + " " + action + " " + resource
	return fault.New(fault.Forbidden, "no")
}

func TestAuthorize(t *testing.T) {
	t.Parallel()
	devices := &refuser{}
	s := New(Options{Devices: devices})
	root := RootPrincipal("000000000042")
	for name, c := range map[string]struct {
		who      fleet.Principal
		resource string
		ok       bool
	}{
		"root, own thing":     {root, "arn:aws:iot:us-east-1:000000000042:thing/a", true},
		"root, star":          {root, "*", true},
		"root, other account": {root, "arn:aws:iot:us-east-1:000000000043:thing/a", false},
		"system":              {fleet.System.Principal, "arn:aws:iot:us-east-1:000000000043:thing/a", true},
		"anonymous":           {fleet.Principal{Kind: fleet.PrincipalAnonymous}, "*", false},
		"nobody":              {fleet.Principal{}, "*", false},
		"user without ARN":    {fleet.Principal{Kind: fleet.PrincipalUser}, "arn:aws:iot:us-east-1:000000000042:thing/a", false},
		"certificate":         {fleet.Principal{Kind: fleet.PrincipalCertificate, ID: "c1"}, "arn:aws:iot:us-east-1:000000000042:thing/a", false},
	} {
		err := s.Authorize(t.Context(), c.who, "iot:DescribeThing", c.resource)
		if (err == nil) != c.ok || err != nil && fault.CodeOf(err) != fault.Forbidden {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if devices.asked != "c1 iot:DescribeThing arn:aws:iot:us-east-1:000000000042:thing/a" {
		t.Errorf("the device authorizer was asked %q", devices.asked)
	}
	alone := New(Options{})
	if err := alone.Authorize(t.Context(), fleet.Principal{Kind: fleet.PrincipalCertificate}, "iot:Publish", "*"); fault.CodeOf(err) != fault.Forbidden {
		t.Errorf("without a device authorizer: %v", err)
	}
}

func TestSealerFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "seal.key")
	first, err := OpenSealer(path)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := first.Seal([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := OpenSealer(path)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := second.Open(sealed); err != nil || string(plain) != "secret" {
		t.Errorf("got %q, %v", plain, err)
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := second.Open(sealed); err == nil {
		t.Error("a changed text was opened")
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("AGE-SECRET-KEY-broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSealer(path); err == nil || strings.Contains(err.Error(), "AGE-SECRET") {
		t.Errorf("got %v, want an error that does not repeat the file", err)
	}
}

func TestWriteCredentials(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "credentials")
	key := AccessKey{ID: "AKIAEXAMPLE", Secret: "s3cret"}
	for range 2 {
		if err := WriteCredentials(path, "local", key); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	section := "]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = s3cret\nregion = local\n"
	if want := "[default" + section + "\n[muster" + section; string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	a := EndpointsOf("000000000000", "local", "muster.internal")
	b := EndpointsOf("000000000001", "local", "muster.internal")
	if a.Data == b.Data {
		t.Error("two accounts share a name")
	}
	if !regexp.MustCompile(`^a[a-z2-7]{13}-ats\.iot\.local\.muster\.internal$`).MatchString(a.Data) {
		t.Errorf("data name %q", a.Data)
	}
	for _, name := range []string{a.Data, a.Jobs, a.Credentials} {
		_, rest, _ := strings.Cut(name, ".")
		covered := false
		for _, w := range Wildcards("local", "muster.internal") {
			covered = covered || w == "*."+rest
		}
		if !covered {
			t.Errorf("no wildcard covers %s", name)
		}
	}
}

// BenchmarkSecretKey is what every signed request pays.
func BenchmarkSecretKey(b *testing.B) {
	path := filepath.Join(b.TempDir(), "seal.key")
	sealer, err := OpenSealer(path)
	if err != nil {
		b.Fatal(err)
	}
	s := New(Options{Store: newMemory(), Sealer: sealer, Now: time.Now})
	key, err := s.Root(b.Context(), "000000000000")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, _, err := s.SecretKey(b.Context(), key.ID); err != nil {
			b.Fatal(err)
		}
	}
}

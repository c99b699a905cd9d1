package profile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestWriteKeepsOthers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "credentials")
	steps := []struct {
		names []string
		key   Key
		want  string
	}{
		{[]string{"default", "muster"}, Key{AccessKeyID: "A", Secret: "s", Region: "r"}, "[default]\naws_access_key_id = A\naws_secret_access_key = s\nregion = r\n\n[muster]\naws_access_key_id = A\naws_secret_access_key = s\nregion = r\n"},
		{[]string{"plant"}, Key{AccessKeyID: "B", Secret: "t"}, "[default]\naws_access_key_id = A\naws_secret_access_key = s\nregion = r\n\n[muster]\naws_access_key_id = A\naws_secret_access_key = s\nregion = r\n\n[plant]\naws_access_key_id = B\naws_secret_access_key = t\n"},
		{[]string{"default", "muster"}, Key{AccessKeyID: "C", Secret: "u"}, "[default]\naws_access_key_id = C\naws_secret_access_key = u\n\n[muster]\naws_access_key_id = C\naws_secret_access_key = u\n\n[plant]\naws_access_key_id = B\naws_secret_access_key = t\n"},
	}
	for i, s := range steps {
		for range 2 { // the second time changes nothing
			if err := Write(path, s.key, s.names...); err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != s.want {
				t.Fatalf("step %d: %v\n%s", i, err, got)
			}
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if k, err := Read(path, "plant"); err != nil || k != (Key{AccessKeyID: "B", Secret: "t"}) {
		t.Errorf("%v %v", k, err)
	}
}

func TestWriteKeepsComments(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(path, []byte("# mine\n[ a ]\naws_access_key_id=X\n# of a\n[b]\naws_access_key_id = B\naws_secret_access_key=b\n[a]\nold=1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, Key{AccessKeyID: "N", Secret: "n"}, "a"); err != nil {
		t.Fatal(err)
	}
	want := "# mine\n\n[a]\naws_access_key_id = N\naws_secret_access_key = n\n\n[b]\naws_access_key_id = B\naws_secret_access_key=b\n"
	if got, _ := os.ReadFile(path); string(got) != want {
		t.Errorf("got\n%s", got)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "credentials")
	if _, err := Read(path, "default"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	if has, err := Has(path, "default"); has || err != nil {
		t.Error(has, err)
	}
	for _, name := range []string{"", "a]\n[b", " a", "a\n", "[a]", "\x00"} {
		if err := Write(path, Key{AccessKeyID: "A", Secret: "s"}, name); err == nil {
			t.Errorf("%q names a profile", name)
		}
	}
	if err := os.WriteFile(path, []byte("[default]\nregion = r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path, "default"); err == nil {
		t.Error("a profile without key is read")
	}
	if _, err := Read(path, "other"); err == nil {
		t.Error("a profile that is not there is read")
	}
	if has, err := Has(path, "default"); !has || err != nil {
		t.Error(has, err)
	}
	if err := os.WriteFile(path, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, Key{AccessKeyID: "A", Secret: "s"}, "a"); err == nil {
		t.Error("a huge file is taken")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("[default]\na=b\n", "default")
	f.Add("[\n]\n=\n[]", "")
	f.Add("[a]\n[b]\nx=y\n[a]\n", "a")
	f.Fuzz(func(t *testing.T, text, name string) {
		values, ok := parse([]byte(text), name)
		if !ok && len(values) > 0 {
			t.Error("values without a section")
		}
		if !ValidName(name) || len(text) > maxFile/2 {
			return
		}
		key := Key{AccessKeyID: "A", Secret: "s"}
		once := replace(text, name, key)
		if values, ok := parse([]byte(once), name); !ok || len(values) != 2 || values["aws_access_key_id"] != "A" {
			t.Errorf("%q becomes %q", text, once)
		}
		if twice := replace(once, name, key); twice != once {
			t.Errorf("%q is not stable: %q", once, twice)
		}
	})
}

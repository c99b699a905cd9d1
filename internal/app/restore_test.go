package app

import (
	"bytes"
	"io"
	"testing"

	"filippo.io/age"
)

// TestRestoreOverAnInstallationChangesNothing restores into a folder that is in
// use: it is refused, the installation keeps its keys and starts.
func TestRestoreOverAnInstallationChangesNothing(t *testing.T) {
	t.Parallel()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := newApp(t, settings(t)).Backup(t.Context(), &archive, identity.Recipient().String()); err != nil {
		t.Fatal(err)
	}
	s := settings(t)
	a, err := New(t.Context(), Options{Settings: s, LogTo: io.Discard, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	device := a.pki.DeviceCAPEM()
	if err := a.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), s, &archive, []age.Identity{identity}); err == nil {
		t.Error("restored over an installation")
	}
	if again := newApp(t, s); !bytes.Equal(again.pki.DeviceCAPEM(), device) {
		t.Error("the installation lost its device authority")
	}
}

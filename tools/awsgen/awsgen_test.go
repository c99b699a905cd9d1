package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCommittedFilesAreCurrent generates into an empty folder and compares
// with what is committed, byte for byte and in both directions.
func TestCommittedFilesAreCurrent(t *testing.T) {
	t.Parallel()
	const committed = "../../internal/awsapi/catalog"
	fresh := t.TempDir()
	if err := run(t.Context(), fresh); err != nil {
		t.Fatal(err)
	}
	want := generated(t, fresh)
	got := generated(t, committed)
	for path, text := range want {
		if !bytes.Equal(got[path], text) {
			t.Errorf("%s differs; run make generate", path)
		}
	}
	for path := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%s is no longer generated; delete it", path)
		}
	}
}

// generated reads every generated file below root.
func generated(t *testing.T, root string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_gen.go") {
			return err
		}
		text, err := os.ReadFile(path)
		name, relErr := filepath.Rel(root, path)
		files[name] = text
		if err == nil {
			err = relErr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestGoName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"thingName": "ThingName", "thingArn": "ThingARN", "S": "S", "BIN": "BIN", "s3": "S3", "jobId": "JobID",
		"caCertificateId": "CACertificateID", "topicRulePayload": "TopicRulePayload", "mqtt5Configuration": "Mqtt5Configuration",
		"httpUrlProperties": "HTTPURLProperties", "vpcEndpointId": "VPCEndpointID", "roleARN": "RoleARN",
	} {
		if got := goName(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

func TestPortable(t *testing.T) {
	t.Parallel()
	for from, want := range map[string]string{
		`[\p{Graph}\x20]*`: `[[:graph:]\x20]*`,
		`[a-z]{1,2048}`:    `[a-z]{1,}`,
		`[a-z]{4,9}-\d{1}`: `[a-z]{4,9}-\d{1}`,
	} {
		got, err := portable(from)
		if err != nil || got != want {
			t.Errorf("%s: got %s, %v; want %s", from, got, err, want)
		}
	}
	if _, err := portable(`(?!x)`); err == nil {
		t.Error("a pattern that Go cannot compile was passed on")
	}
}

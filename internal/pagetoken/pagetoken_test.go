package pagetoken

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
)

func newTokens(tb testing.TB) *Sealer {
	tb.Helper()
	tokens, err := New(bytes.Repeat([]byte{1}, KeySize))
	if err != nil {
		tb.Fatal(err)
	}
	return tokens
}

func TestPageTokens(t *testing.T) {
	t.Parallel()
	tokens, now := newTokens(t), time.Unix(1_750_000_000, 0)
	token := tokens.Seal("1", "iot.ListThings", []string{"a", "b"}, "key\x00", now)
	if strings.Contains(token, "key") || strings.ContainsAny(token, "+/=") {
		t.Errorf("token %q shows its content or needs escaping", token)
	}
	if last, err := tokens.Open("1", "iot.ListThings", []string{"a", "b"}, token, now.Add(life)); err != nil || last != "key\x00" {
		t.Errorf("got %q, %v", last, err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-1] ^= 1
	altered := base64.RawURLEncoding.EncodeToString(raw)
	for name, c := range map[string]struct {
		account   fleet.Account
		operation string
		filter    []string
		token     string
		at        time.Time
	}{
		"other account":   {"2", "iot.ListThings", []string{"a", "b"}, token, now},
		"other operation": {"1", "iot.ListThingTypes", []string{"a", "b"}, token, now},
		"other filter":    {"1", "iot.ListThings", []string{"a"}, token, now},
		"moved boundary":  {"1", "iot.ListThings", []string{"ab", ""}, token, now},
		"a day later":     {"1", "iot.ListThings", []string{"a", "b"}, token, now.Add(life + time.Second)},
		"altered":         {"1", "iot.ListThings", []string{"a", "b"}, altered, now},
		"empty":           {"1", "iot.ListThings", []string{"a", "b"}, "", now},
		"not base64":      {"1", "iot.ListThings", []string{"a", "b"}, "%%%", now},
		"too long":        {"1", "iot.ListThings", []string{"a", "b"}, strings.Repeat("A", maxToken+1), now},
	} {
		if _, err := tokens.Open(c.account, c.operation, c.filter, c.token, c.at); fault.CodeOf(err) != fault.InvalidRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New([]byte("short")); err == nil {
		t.Error("a short key was accepted")
	}
}

// FuzzOpen checks that no token but a sealed one opens.
func FuzzOpen(f *testing.F) {
	tokens, now := newTokens(f), time.Unix(1_750_000_000, 0)
	f.Add("")
	f.Add(strings.Repeat("A", 60))
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := tokens.Open("1", "x", nil, token, now); err == nil {
			t.Errorf("forged %q", token)
		}
	})
}

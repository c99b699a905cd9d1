package allowlist

import (
	"strings"
	"testing"
)

// FuzzUpload: no upload makes the parser fail in another way than by a refusal, what it
// takes keeps its own rules, and no refusal tells what the list has.
func FuzzUpload(f *testing.F) {
	for _, seed := range []string{
		`{"v":1,"list":"w","issuedAt":"2026-11-20T08:00:00Z","entries":[{"serial":"B7-0042","vetted":true}]}`,
		"serial,model,vetted\nB7-1,pump,true\n", `{"serial":"B7"}` + "\n" + `{"serial":"B8"}`, "eyJhbGciOiJFZERTQSIsImtpZCI6ImsifQ.e30.c2ln", "{", "\xef\xbb\xbfserial\n\"B7\n",
		`{"SECRET":1}`, "SECRET,serial\n1,2\n", `{"serial":"SECRET é","vetted":true}`, "serial,vetted\nSECRET,maybe\n", `{"serial":1,"batch":"SECRET"}`,
	} {
		f.Add([]byte(seed), "")
		f.Add([]byte(seed), "eyJhbGciOiJFZERTQSIsImtpZCI6ImsifQ..c2ln")
	}
	f.Fuzz(func(t *testing.T, body []byte, signature string) {
		w, err := unwrap(body, signature)
		if err != nil {
			return
		}
		d, err := parse(w.content)
		if err != nil {
			if strings.Contains(err.Error(), "SECRET") {
				t.Errorf("the refusal repeats the list: %v", err)
			}
			return
		}
		if len(d.entries) == 0 {
			t.Error("an empty list was taken")
		}
		if err := checkAll(d.entries); err != nil {
			t.Error(err)
		}
	})
}

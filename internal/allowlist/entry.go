package allowlist

import (
	"fmt"
	"regexp"
	"time"

	"github.com/muster-iot/muster/internal/fault"
)

// Entry is one device that a supplier has made.
type Entry struct {
	// Serial with Model names the device among those of its supplier.
	Serial string `json:"serial"`
	Model  string `json:"model,omitempty"`
	// Fingerprint is the SHA-256 of the SubjectPublicKeyInfo of the device's key, in
	// lower-case hexadecimal digits; empty when the supplier does not know it.
	Fingerprint string `json:"spkiSha256,omitempty"`
	// CertificateID is the SHA-256 of the device's certificate.
	CertificateID  string `json:"certificateId,omitempty"`
	Generation     string `json:"generation,omitempty"`
	ManufacturedAt string `json:"manufacturedAt,omitempty"`
	Batch          string `json:"batch,omitempty"`
	// Vetted is the supplier's word that it has checked the device, VetReport where
	// that is written down.
	Vetted    bool   `json:"vetted"`
	VetReport string `json:"vetReport,omitempty"`
	// ExpiresAt is the end of the entry, a date (its end in UTC) or a time in RFC 3339;
	// empty for none.
	ExpiresAt string `json:"expiresAt,omitempty"`
}

// Rules of an entry's fields.
var (
	serialPattern      = regexp.MustCompile(`^[A-Za-z0-9:_.#=@-]{1,128}$`)
	fingerprintPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)
	wordPattern        = regexp.MustCompile(`^[\x20-\x7e]{0,128}$`)
)

// expires is the end of an entry, zero for none.
func (e *Entry) expires() (time.Time, error) {
	if e.ExpiresAt == "" {
		return time.Time{}, nil
	}
	if day, err := time.Parse(time.DateOnly, e.ExpiresAt); err == nil {
		return day.AddDate(0, 0, 1), nil
	}
	return time.Parse(time.RFC3339, e.ExpiresAt) //nolint:wrapcheck // put into words by its caller
}

// check names the field that breaks a rule, empty for none. It does not repeat what
// the field holds.
func (e *Entry) check() (field, rule string) {
	const word = "must have at most 128 printable ASCII characters"
	switch {
	case !serialPattern.MatchString(e.Serial):
		return "serial", "must have 1 to 128 letters, digits and :_.#=@-"
	case e.Fingerprint != "" && !fingerprintPattern.MatchString(e.Fingerprint):
		return "spkiSha256", "must have 64 lower-case hexadecimal digits"
	case e.CertificateID != "" && !fingerprintPattern.MatchString(e.CertificateID):
		return "certificateId", "must have 64 lower-case hexadecimal digits"
	case !wordPattern.MatchString(e.Model):
		return "model", word
	case !wordPattern.MatchString(e.Generation):
		return "generation", word
	case !wordPattern.MatchString(e.Batch):
		return "batch", word
	case !wordPattern.MatchString(e.VetReport):
		return "vetReport", word
	}
	if e.ManufacturedAt != "" {
		if _, err := time.Parse(time.DateOnly, e.ManufacturedAt); err != nil {
			return "manufacturedAt", "must be a date such as 2026-11-26"
		}
	}
	if _, err := e.expires(); err != nil {
		return "expiresAt", "must be a date or a time in RFC 3339"
	}
	return "", ""
}

// checkAll refuses a list with an entry that breaks a rule, or with a device twice.
func checkAll(entries []Entry) error {
	if len(entries) == 0 || len(entries) > MaxEntries {
		return fault.New(fault.InvalidRequest, "entries: a list has 1 to %d", MaxEntries)
	}
	type name struct{ serial, model string }
	serials, prints := make(map[name]int, len(entries)), map[string]int{}
	for i := range entries {
		e := &entries[i]
		if field, rule := e.check(); field != "" {
			return fault.New(fault.InvalidRequest, "entries[%d].%s: %s", i, field, rule)
		}
		if first, twice := serials[name{e.Serial, e.Model}]; twice {
			return twiceFault(i, "serial", first)
		}
		serials[name{e.Serial, e.Model}] = i
		if e.Fingerprint == "" {
			continue
		}
		if first, twice := prints[e.Fingerprint]; twice {
			return twiceFault(i, "spkiSha256", first)
		}
		prints[e.Fingerprint] = i
	}
	return nil
}

func twiceFault(i int, field string, first int) error {
	return fault.New(fault.InvalidRequest, "entries[%d].%s: is that of entries[%d]", i, field, first)
}

// line names an entry for who has the list at hand.
func line(i int) string { return fmt.Sprintf("entries[%d]", i) }

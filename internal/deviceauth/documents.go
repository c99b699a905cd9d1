package deviceauth

import (
	"fmt"
	"sync"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// maxDocuments bounds the parsed documents that are kept; above it all of them
// are forgotten and parsed again as they are met.
const maxDocuments = 4096

// documents shares parsed documents between sessions, by their text: a policy
// that was deleted and made anew has the same version ids.
type documents struct {
	mu     sync.RWMutex
	parsed map[string]*iotpolicy.Document
}

// parse returns the document of a stored policy. The size quota was applied
// when it was stored and may have been different then.
func (d *documents) parse(text []byte) (*iotpolicy.Document, error) {
	d.mu.RLock()
	doc := d.parsed[string(text)]
	d.mu.RUnlock()
	if doc != nil {
		return doc, nil
	}
	doc, err := parseDocument(text)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.parsed == nil || len(d.parsed) >= maxDocuments {
		d.parsed = map[string]*iotpolicy.Document{}
	}
	d.parsed[string(text)] = doc
	return doc, nil
}

// parseDocument reads a document that was checked when it was stored.
func parseDocument(text []byte) (*iotpolicy.Document, error) {
	limit := iotpolicy.DefaultLimits().MaxBytes
	doc, err := iotpolicy.Parse(text, iotpolicy.Limits{MaxCharacters: limit, MaxBytes: limit})
	if err != nil {
		return nil, fmt.Errorf("parse stored policy: %w", err)
	}
	return doc, nil
}

// refs parses policies. One that cannot be parsed fails all of them: its Deny
// statements must not be lost.
func (d *documents) refs(policies []Policy) ([]iotpolicy.PolicyRef, error) {
	refs := make([]iotpolicy.PolicyRef, 0, len(policies))
	for _, p := range policies {
		doc, err := d.parse(p.Document)
		if err != nil {
			return nil, fmt.Errorf("policy %s version %s: %w", p.Name, p.VersionID, err)
		}
		refs = append(refs, iotpolicy.PolicyRef{Name: p.Name, ARN: p.ARN, Version: p.VersionID, Document: doc, Attachments: p.Attachments})
	}
	return refs, nil
}

// CheckPolicy answers fault.MalformedPolicy for a document that could not be
// evaluated, with the place and the problem as its message.
func CheckPolicy(document []byte, limits iotpolicy.Limits) error {
	if _, err := iotpolicy.Parse(document, limits); err != nil {
		return fault.Wrap(fault.MalformedPolicy, err, "Policy document is Malformed: %v", err)
	}
	return nil
}

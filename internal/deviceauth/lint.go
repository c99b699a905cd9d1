package deviceauth

import (
	"errors"

	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// LintPolicy returns what the author of a document should know before attaching
// it. A document that would be refused has one finding, the reason.
func (s *Service) LintPolicy(account fleet.Account, document []byte) []iotpolicy.Finding {
	doc, err := iotpolicy.Parse(document, iotpolicy.Limits{})
	if err != nil {
		f := iotpolicy.Finding{Code: iotpolicy.CodeMalformed, Severity: iotpolicy.Error, Statement: -1, Place: iotpolicy.Place{Line: 1, Column: 1}, Text: err.Error()}
		if syntax, ok := errors.AsType[*iotpolicy.SyntaxError](err); ok {
			f.Place, f.Text = iotpolicy.Place{Line: syntax.Line, Column: syntax.Column}, syntax.Problem
		}
		return []iotpolicy.Finding{f}
	}
	return doc.Lint(iotpolicy.LintOptions{Scope: s.scope(account), Now: s.now()})
}

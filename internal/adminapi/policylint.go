package adminapi

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/iotpolicy"
)

// ActionLintPolicy is what the caller needs to have policies looked at, on
// resource "*". It shows no more of a stored policy than what is odd about it.
const ActionLintPolicy = "ops:LintPolicy"

// Policies looks for mistakes in device policies.
type Policies interface {
	LintDocument(account fleet.Account, document []byte) []iotpolicy.Finding
	// LintStored is about the version in force when versionID is empty, and
	// returns which one that is.
	LintStored(ctx context.Context, account fleet.Account, name, versionID string) (version string, found []iotpolicy.Finding, err error)
}

// lintInput is the body of POST /ops/v1/policies/lint: a document, or the name
// of a stored policy.
type lintInput struct {
	// Document is the document itself, or a string that holds it: then it need
	// not be JSON, which is one of the things to find.
	Document   json.RawMessage `json:"document"`
	PolicyName string          `json:"policyName"`
	VersionID  string          `json:"versionId"`
}

// lintOutput is the answer.
type lintOutput struct {
	PolicyName string        `json:"policyName,omitempty"`
	VersionID  string        `json:"versionId,omitempty"`
	Findings   []lintFinding `json:"findings"`
}

// lintFinding is a finding on the wire; line and column count from 1, statement
// from 0 and is absent when the document as a whole is meant.
type lintFinding struct {
	Code      string `json:"code"`
	Severity  string `json:"severity"`
	Statement *int   `json:"statement,omitempty"`
	Sid       string `json:"sid,omitempty"`
	Line      int    `json:"line"`
	Column    int    `json:"column"`
	Message   string `json:"message"`
}

// routePolicyLint adds the operation.
func (h *handler) routePolicyLint(mux *routes) {
	mux.HandleFunc("POST "+Prefix+"policies/lint", h.lintPolicy)
}

func (h *handler) lintPolicy(w http.ResponseWriter, r *http.Request) {
	r, body, err := h.enter(w, r, ActionLintPolicy)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	var in lintInput
	if err := decodeStrictly(body, &in); err != nil {
		h.fail(w, r, err)
		return
	}
	out, err := h.lint(r.Context(), &in) //nolint:contextcheck // enter returned the same request with the actor
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.answer(w, r, out)
}

// lint finds what is meant and has it looked at.
func (h *handler) lint(ctx context.Context, in *lintInput) (*lintOutput, error) {
	account := h.o.Account(ctx)
	switch {
	case (len(in.Document) > 0) == (in.PolicyName != ""):
		return nil, fault.New(fault.InvalidRequest, "document or policyName must be given, not both")
	case len(in.Document) > 0 && in.VersionID != "":
		return nil, fault.New(fault.InvalidRequest, "versionId goes with policyName")
	case in.PolicyName != "":
		version, found, err := h.o.Policies.LintStored(ctx, account, in.PolicyName, in.VersionID)
		if err != nil {
			return nil, err //nolint:wrapcheck // it is a fault
		}
		return &lintOutput{PolicyName: in.PolicyName, VersionID: version, Findings: lintFindings(found)}, nil
	}
	document := []byte(in.Document)
	if document[0] == '"' {
		var text string
		if err := json.Unmarshal(in.Document, &text); err != nil {
			return nil, fault.Wrap(fault.InvalidRequest, err, "document is no string of JSON: %v", err)
		}
		document = []byte(text)
	}
	return &lintOutput{Findings: lintFindings(h.o.Policies.LintDocument(account, document))}, nil
}

// lintFindings are findings on the wire, never nil.
func lintFindings(found []iotpolicy.Finding) []lintFinding {
	out := make([]lintFinding, len(found))
	for i, f := range found {
		out[i] = lintFinding{Code: f.Code, Severity: f.Severity.String(), Sid: f.Sid, Line: f.Line, Column: f.Column, Message: f.Text}
		if f.Statement >= 0 {
			out[i].Statement = &f.Statement
		}
	}
	return out
}

package sdk

import (
	"errors"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/muster-iot/muster/internal/apiclient"
)

// opsCase is a call of /ops/v1 on another account's resources by somebody who
// has the same names.
type opsCase struct {
	path, body string
	// refused is the fault's code, "" for an answer about the caller's own.
	refused string
}

// opsCases has one or more for each operation of /ops/v1, by pattern.
func opsCases(of *neighbour) map[string][]opsCase {
	const installation = "Forbidden"
	const onlyLooks = `{"policyDocument":"{\"Version\":\"2012-10-17\",\"Statement\":{\"Effect\":\"Allow\",\"Action\":\"iot:ListThings\",\"Resource\":\"*\"}}"}`
	return map[string][]opsCase{
		"POST backup":        {{path: "backup", body: `{"recipient":"age1x"}`, refused: installation}},
		"GET doctor":         {{path: "doctor", refused: installation}},
		"POST doctor/repair": {{path: "doctor/repair", refused: installation}},
		"POST drain":         {{path: "drain", refused: installation}},
		"GET drain":          {{path: "drain", refused: installation}},
		"DELETE drain":       {{path: "drain", refused: installation}},
		"POST accounts":      {{path: "accounts", body: `{"name":"x"}`, refused: installation}, {path: "accounts", body: `{"name":"x","id":"` + of.account + `"}`, refused: installation}},
		"GET accounts":       {{path: "accounts"}},
		"GET accounts/{account}": {
			{path: "accounts/" + of.account, refused: "ResourceNotFound"},
			{path: "accounts/000000000000", refused: "ResourceNotFound"},
			{path: "accounts/999999999999", refused: "ResourceNotFound"},
		},
		// The caller's own trail holds what it asked for before, names of others
		// among it: those records are not asked for.
		"GET audit/records":                      {{path: "audit/records?name=CreateThing"}, {path: "audit/records?resource=arn:aws:iot:us-east-1:" + of.account + ":thing/pump"}},
		"GET audit/export":                       {{path: "audit/export?to=2020-01-01T00:00:00Z"}},
		"GET audit/follow":                       {{path: "audit/follow?after=none", refused: "InvalidRequest"}},
		"GET audit/verify":                       {{path: "audit/verify"}},
		"GET audit/head":                         {{path: "audit/head"}},
		"POST accounts/{account}/close":          {{path: "accounts/" + of.account + "/close", refused: installation}},
		"POST accounts/{account}/reopen":         {{path: "accounts/" + of.account + "/reopen", refused: installation}},
		"GET connections/{clientId}/denials":     {{path: "connections/pump/denials"}},
		"GET principals/{certificateId}/denials": {{path: "principals/" + of.certID + "/denials"}},
		"POST connections/{clientId}/explain":    {{path: "connections/pump/explain", body: `{"action":"iot:Publish","topic":"t","certificateId":"` + of.certID + `"}`, refused: "ResourceNotFound"}},
		"GET things/{thing}/connections":         {{path: "things/pump/connections"}},
		"PUT connectivity/settings":              {{path: "connectivity/settings", body: `{"waitSeconds":7}`}},
		"PUT connectivity/settings/{group}":      {{path: "connectivity/settings/site", body: `{"waitSeconds":7}`}},
		"PUT things/{thing}/gateway":             {{path: "things/pump/gateway", body: `{"gateway":"nobodys"}`, refused: "ResourceNotFound"}},
		"GET connections/{clientId}/history":     {{path: "connections/pump/history"}},
		"GET groups/{group}/history":             {{path: "groups/site/history"}, {path: "groups/low/history"}},
		"GET things/{thing}/group-history":       {{path: "things/pump/group-history"}},
		"GET groups/{group}/things/{thing}/why":  {{path: "groups/site/things/pump/why"}, {path: "groups/low/things/pump/why"}},
		"GET certificates/expiring":              {{path: "certificates/expiring?within=720h"}},
		"GET approvals":                          {{path: "approvals"}, {path: "approvals?state=USED"}},
		// The caller has a supplier acme with a list w47, as the other account has; solo and w48
		// are the other account's alone.
		"GET suppliers": {{path: "suppliers"}},
		"GET suppliers/{supplier}": {
			{path: "suppliers/acme"},
			{path: "suppliers/solo-" + of.secret, refused: "ResourceNotFound"},
		},
		"PUT suppliers/{supplier}": {{path: "suppliers/acme", body: `{"name":"x"}`}},
		"PUT suppliers/{supplier}/keys/{kid}": {
			{path: "suppliers/acme/keys/k", body: `{"publicKey":"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA7MH+C6EkBqdZS6GMQlcrnp0fp27FwJudnkEo8J7PJIA=\n-----END PUBLIC KEY-----\n"}`},
			{path: "suppliers/solo-" + of.secret + "/keys/line-1", body: `{"publicKey":"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA7MH+C6EkBqdZS6GMQlcrnp0fp27FwJudnkEo8J7PJIA=\n-----END PUBLIC KEY-----\n"}`, refused: "ResourceNotFound"},
		},
		"DELETE suppliers/{supplier}": {
			{path: "suppliers/acme", refused: "DeleteConflict"},
			{path: "suppliers/solo-" + of.secret, refused: "ResourceNotFound"},
		},
		"GET allowlist-recipient": {{path: "allowlist-recipient"}},
		"GET allowlists":          {{path: "allowlists"}},
		"GET allowlists/{list}": {
			{path: "allowlists/w47"},
			{path: "allowlists/w48-" + of.secret, refused: "ResourceNotFound"},
		},
		"DELETE allowlists/{list}": {
			{path: "allowlists/w47"},
			{path: "allowlists/w48-" + of.secret, refused: "ResourceNotFound"},
		},
		"POST allowlists/{list}/keep": {
			{path: "allowlists/w47/keep"},
			{path: "allowlists/w48-" + of.secret + "/keep", refused: "ResourceNotFound"},
		},
		"POST allowlists:check": {
			{path: "allowlists:check", body: `{"serial":"w47-1"}`},
			{path: "allowlists:check", body: `{"serial":"w48-1"}`},
		},
		"POST allowlists:entry": {
			{path: "allowlists:entry", body: `{"serial":"w47-1","state":"BLOCKED","note":"x"}`},
			{path: "allowlists:entry", body: `{"serial":"w48-1","state":"BLOCKED","note":"x"}`, refused: "ResourceNotFound"},
		},
		"GET allowlists/{list}/revisions": {
			{path: "allowlists/w47/revisions"},
			{path: "allowlists/w48-" + of.secret + "/revisions", refused: "ResourceNotFound"},
		},
		"POST allowlists/{list}/revisions": {
			{path: "allowlists/w47/revisions?supplier=acme", body: "serial,vetted\nw48-1,true\n"},
			{path: "allowlists/w48-" + of.secret + "/revisions?supplier=solo-" + of.secret, body: "serial,vetted\nw48-1,true\n", refused: "ResourceNotFound"},
		},
		"GET allowlists/{list}/revisions/{revision}": {
			{path: "allowlists/w47/revisions/1"},
			{path: "allowlists/w48-" + of.secret + "/revisions/1", refused: "ResourceNotFound"},
		},
		"GET allowlists/{list}/revisions/{revision}/original": {
			{path: "allowlists/w47/revisions/1/original", refused: "Forbidden"},
			{path: "allowlists/w48-" + of.secret + "/revisions/1/original", refused: "ResourceNotFound"},
		},
		"GET allowlists/{list}/revisions/{revision}/diff": {
			{path: "allowlists/w47/revisions/2/diff?from=1", refused: "Forbidden"},
			{path: "allowlists/w48-" + of.secret + "/revisions/2/diff?from=1", refused: "ResourceNotFound"},
		},
		"POST allowlists/{list}/revisions/{revision}/accept": {
			{path: "allowlists/w47/revisions/1/accept", refused: "Conflict"},
			{path: "allowlists/w48-" + of.secret + "/revisions/1/accept", refused: "ResourceNotFound"},
		},
		"POST allowlists/{list}/revisions/{revision}/reject": {
			{path: "allowlists/w47/revisions/1/reject", body: `{"note":"x"}`, refused: "Conflict"},
			{path: "allowlists/w48-" + of.secret + "/revisions/1/reject", body: `{"note":"x"}`, refused: "ResourceNotFound"},
		},
		"POST allowlists/{list}/links": {
			{path: "allowlists/w47/links", body: `{"supplierId":"acme"}`},
			{path: "allowlists/w48-" + of.secret + "/links", body: `{"supplierId":"solo-` + of.secret + `"}`, refused: "ResourceNotFound"},
		},
		"GET allowlist-links":                                    {{path: "allowlist-links"}},
		"DELETE allowlist-links/{link}":                          {{path: "allowlist-links/" + of.linkID, refused: "ResourceNotFound"}},
		"GET claim-uses":                                         {{path: "claim-uses"}, {path: "claim-uses?misused=true"}},
		"GET claim-uses/{claim}":                                 {{path: "claim-uses/" + of.certID, refused: "ResourceNotFound"}},
		"POST claim-uses/{claim}/settle":                         {{path: "claim-uses/" + of.certID + "/settle", body: `{"note":"x"}`, refused: "ResourceNotFound"}},
		"GET approvals/{approval}":                               {{path: "approvals/apr_none", refused: "ResourceNotFound"}},
		"POST approvals/{approval}/approve":                      {{path: "approvals/apr_none/approve", body: `{}`, refused: "ResourceNotFound"}},
		"POST approvals/{approval}/deny":                         {{path: "approvals/apr_none/deny", body: `{"reason":"x"}`, refused: "ResourceNotFound"}},
		"POST approvals/{approval}/withdraw":                     {{path: "approvals/apr_none/withdraw", body: `{}`, refused: "ResourceNotFound"}},
		"GET approval-authorities":                               {{path: "approval-authorities"}},
		"GET approval-authorities/{authority}":                   {{path: "approval-authorities/own", refused: "ResourceNotFound"}},
		"PUT approval-authorities/{authority}":                   {{path: "approval-authorities/own", body: `{"kind":"USER_GROUP","userGroup":"keepers"}`, refused: "InvalidRequest"}},
		"DELETE approval-authorities/{authority}":                {{path: "approval-authorities/own", refused: "ResourceNotFound"}},
		"GET approval-bindings":                                  {{path: "approval-bindings"}},
		"GET approval-bindings/{template}":                       {{path: "approval-bindings/joins", refused: "ResourceNotFound"}},
		"PUT approval-bindings/{template}":                       {{path: "approval-bindings/joins", body: `{"rule":"ANY_OF","authorities":["own"]}`, refused: "InvalidRequest"}},
		"DELETE approval-bindings/{template}":                    {{path: "approval-bindings/joins", refused: "ResourceNotFound"}},
		"GET certificate-renewals":                               {{path: "certificate-renewals"}, {path: "certificate-renewals?thing=pump"}, {path: "certificate-renewals?step=BEGUN"}},
		"GET certificates/{certificateId}/purpose":               {{path: "certificates/" + of.certID + "/purpose", refused: "ResourceNotFound"}},
		"PUT certificates/{certificateId}/purpose":               {{path: "certificates/" + of.certID + "/purpose", body: `{"purpose":"CLAIM"}`, refused: "ResourceNotFound"}},
		"GET ca-certificates/{caCertificateId}/purpose":          {{path: "ca-certificates/" + of.caID + "/purpose", refused: "ResourceNotFound"}},
		"PUT ca-certificates/{caCertificateId}/purpose":          {{path: "ca-certificates/" + of.caID + "/purpose", body: `{"purpose":"OPERATIONAL"}`, refused: "ResourceNotFound"}},
		"POST things/{thing}/reprovision":                        {{path: "things/pump/reprovision", body: `{"forSeconds":60}`, refused: "ResourceNotFound"}},
		"GET quarantine":                                         {{path: "quarantine"}},
		"PUT quarantine/{thing}":                                 {{path: "quarantine/nobodys", body: `{"reason":"x"}`, refused: "ResourceNotFound"}},
		"POST quarantine/{thing}/release":                        {{path: "quarantine/pump/release", body: `{"reason":"x"}`, refused: "ResourceNotFound"}},
		"PUT ca-certificates/{caCertificateId}/declaration":      {{path: "ca-certificates/" + of.caID + "/declaration", body: `{"statement":"ours"}`, refused: "ResourceNotFound"}},
		"POST ca-certificates/{caCertificateId}/revocation-list": {{path: "ca-certificates/" + of.caID + "/revocation-list", body: "x", refused: "ResourceNotFound"}},
		"POST policies/lint":                                     {{path: "policies/lint", body: `{"policyName":"may"}`}},
		"PUT thing-types/{type}/attribute-rules":                 {{path: "thing-types/pumps/attribute-rules", body: `{}`}},
		"POST thing-types/{type}/attribute-rules/check":          {{path: "thing-types/pumps/attribute-rules/check", body: `{}`}},
		"POST things/import":                                     {{path: "things/import", body: `{"mode":"upsert","dryRun":true,"things":[{"name":"pump"}]}`}},
		"POST things/{thing}/decommission":                       {{path: "things/pump/decommission", body: `{}`}},
		// Operators: the names are the caller's own, or nobody's.
		"POST users":                                         {{path: "users", body: `{"userName":"newcomer"}`}},
		"PUT users/{name}/password":                          {{path: "users/alice/password", body: `{"password":"long enough for all"}`, refused: "ResourceNotFound"}},
		"POST users/{name}/revoke-sessions":                  {{path: "users/alice/revoke-sessions", refused: "ResourceNotFound"}},
		"POST users/{name}/access-keys":                      {{path: "users/alice/access-keys", refused: "ResourceNotFound"}},
		"GET users/{name}":                                   {{path: "users/alice", refused: "ResourceNotFound"}},
		"DELETE users/{name}":                                {{path: "users/alice", refused: "ResourceNotFound"}},
		"DELETE users/{name}/password":                       {{path: "users/alice/password", refused: "ResourceNotFound"}},
		"GET users/{name}/access-keys":                       {{path: "users/alice/access-keys", refused: "ResourceNotFound"}},
		"PUT users/{name}/policies":                          {{path: "users/alice/policies?policy=MusterViewer", refused: "ResourceNotFound"}},
		"DELETE users/{name}/policies":                       {{path: "users/alice/policies?policy=MusterViewer", refused: "ResourceNotFound"}},
		"GET users/{name}/inline-policies/{policy}":          {{path: "users/alice/inline-policies/own", refused: "ResourceNotFound"}},
		"PUT users/{name}/inline-policies/{policy}":          {{path: "users/alice/inline-policies/own", body: onlyLooks, refused: "ResourceNotFound"}},
		"DELETE users/{name}/inline-policies/{policy}":       {{path: "users/alice/inline-policies/own", refused: "ResourceNotFound"}},
		"PUT access-keys/{name}":                             {{path: "access-keys/" + of.operatorKey, body: `{"status":"INACTIVE"}`, refused: "ResourceNotFound"}},
		"DELETE access-keys/{name}":                          {{path: "access-keys/" + of.operatorKey, refused: "ResourceNotFound"}},
		"POST user-groups":                                   {{path: "user-groups", body: `{"groupName":"newcomers"}`}},
		"GET user-groups/{name}":                             {{path: "user-groups/crew", refused: "ResourceNotFound"}},
		"DELETE user-groups/{name}":                          {{path: "user-groups/crew", refused: "ResourceNotFound"}},
		"PUT user-groups/{name}/users/{user}":                {{path: "user-groups/crew/users/alice", refused: "ResourceNotFound"}},
		"DELETE user-groups/{name}/users/{user}":             {{path: "user-groups/crew/users/alice", refused: "ResourceNotFound"}},
		"PUT user-groups/{name}/policies":                    {{path: "user-groups/crew/policies?policy=MusterViewer", refused: "ResourceNotFound"}},
		"DELETE user-groups/{name}/policies":                 {{path: "user-groups/crew/policies?policy=MusterViewer", refused: "ResourceNotFound"}},
		"GET user-groups/{name}/inline-policies/{policy}":    {{path: "user-groups/crew/inline-policies/own", refused: "ResourceNotFound"}},
		"PUT user-groups/{name}/inline-policies/{policy}":    {{path: "user-groups/crew/inline-policies/own", body: onlyLooks, refused: "ResourceNotFound"}},
		"DELETE user-groups/{name}/inline-policies/{policy}": {{path: "user-groups/crew/inline-policies/own", refused: "ResourceNotFound"}},
		"POST roles":                                   {{path: "roles", body: `{"roleName":"r","trustPolicy":"{\"Version\":\"2012-10-17\",\"Statement\":{\"Effect\":\"Allow\",\"Principal\":\"*\",\"Action\":\"sts:AssumeRole\"}}"}`}},
		"GET roles/{name}":                             {{path: "roles/fixer", refused: "ResourceNotFound"}},
		"PATCH roles/{name}":                           {{path: "roles/fixer", body: `{"description":"x"}`, refused: "ResourceNotFound"}},
		"DELETE roles/{name}":                          {{path: "roles/fixer", refused: "ResourceNotFound"}},
		"POST roles/{name}/revoke-sessions":            {{path: "roles/fixer/revoke-sessions", refused: "ResourceNotFound"}},
		"PUT roles/{name}/policies":                    {{path: "roles/fixer/policies?policy=arn:aws:iam::" + of.account + ":policy/own", refused: "ResourceNotFound"}},
		"DELETE roles/{name}/policies":                 {{path: "roles/fixer/policies?policy=arn:aws:iam::" + of.account + ":policy/own", refused: "ResourceNotFound"}},
		"GET roles/{name}/inline-policies/{policy}":    {{path: "roles/fixer/inline-policies/own", refused: "ResourceNotFound"}},
		"PUT roles/{name}/inline-policies/{policy}":    {{path: "roles/fixer/inline-policies/own", body: onlyLooks, refused: "ResourceNotFound"}},
		"DELETE roles/{name}/inline-policies/{policy}": {{path: "roles/fixer/inline-policies/own", refused: "ResourceNotFound"}},
		"POST access-policies":                         {{path: "access-policies", body: `{"policyName":"p","policyDocument":"{}"}`, refused: "MalformedPolicy"}},
		"GET access-policies/{name}":                   {{path: "access-policies/own", refused: "ResourceNotFound"}},
		"PUT access-policies/{name}":                   {{path: "access-policies/own", body: onlyLooks, refused: "ResourceNotFound"}},
		"DELETE access-policies/{name}":                {{path: "access-policies/own", refused: "ResourceNotFound"}},
		"POST sign-in":                                 {{path: "sign-in", body: `{"account":"` + of.account + `","user":"alice","password":"guess"}`, refused: "Unauthorized"}},
		"POST sign-in/oidc/token":                      {{path: "sign-in/oidc/token", body: `{"code":"a","secret":"b"}`, refused: "ResourceNotFound"}},
		"POST sign-out":                                {{path: "sign-out"}},
		"GET index":                                    {{path: "index"}},
		"GET index/fields":                             {{path: "index/fields?prefix=attributes."}},
		"GET index/stats":                              {{path: "index/stats?field=thingName"}},
		"GET fleet/connections":                        {{path: "fleet/connections?at=2026-01-01T00:00:00Z"}},

		"GET things/{thing}/shadows/{shadow}/history":            {{path: "things/pump/shadows/config/history"}, {path: "things/pump/shadows/.classic/history"}},
		"GET things/{thing}/shadows/{shadow}/versions/{version}": {{path: "things/pump/shadows/config/versions/1"}},
		"GET things/{thing}/shadows/{shadow}/diff":               {{path: "things/pump/shadows/config/diff?from=0&to=1"}},
		"POST things/{thing}/shadows/{shadow}/restore":           {{path: "things/pump/shadows/extra/restore", body: `{"version":1}`}},
		"POST bulk-edits/preview":                                {{path: "bulk-edits/preview", body: `{"queryString":"thingName:*","operation":{"setAttributes":{"kept":"x"}}}`}},
		"POST bulk-edits":                                        {{path: "bulk-edits", body: `{"queryString":"thingName:*","operation":{"delete":{}},"confirmationToken":"` + of.bulkToken + `"}`, refused: "InvalidRequest"}},
		"GET bulk-edits/{bulkEdit}":                              {{path: "bulk-edits/" + of.bulkEdit, refused: "ResourceNotFound"}},
		"GET bulk-edits/{bulkEdit}/changes":                      {{path: "bulk-edits/" + of.bulkEdit + "/changes", refused: "ResourceNotFound"}},
		"GET bulk-edits/{bulkEdit}/failures":                     {{path: "bulk-edits/" + of.bulkEdit + "/failures", refused: "ResourceNotFound"}},
		"POST bulk-edits/{bulkEdit}/pause":                       {{path: "bulk-edits/" + of.bulkEdit + "/pause", refused: "ResourceNotFound"}},
		"POST bulk-edits/{bulkEdit}/resume":                      {{path: "bulk-edits/" + of.bulkEdit + "/resume", refused: "ResourceNotFound"}},
		"POST bulk-edits/{bulkEdit}/cancel":                      {{path: "bulk-edits/" + of.bulkEdit + "/cancel", refused: "ResourceNotFound"}},
		"POST bulk-edits/{bulkEdit}/undo":                        {{path: "bulk-edits/" + of.bulkEdit + "/undo", refused: "ResourceNotFound"}},
		// The caller meets its own template, things and groups.
		"POST provisioning-templates:test": {
			{path: "provisioning-templates:test", body: `{"templateName":"joins","parameters":{}}`},
			{path: "provisioning-templates:test", body: `{"type":"BULK","templateBody":"{\"Resources\":{\"t\":{\"Type\":\"AWS::IoT::Thing\",` +
				`\"Properties\":{\"ThingName\":\"pump\",\"ThingGroups\":[\"site\"]}}}}"}`},
		},
		"GET shadows/drift": {{path: "shadows/drift"}, {path: "shadows/drift?thing=pump"}},
		// Plans and their devices are the neighbour's only, until the caller makes one.
		"GET plans":                                      {{path: "plans"}},
		"GET plans/{plan}":                               {{path: "plans/line", refused: "ResourceNotFound"}},
		"GET plans/{plan}/diff":                          {{path: "plans/line/diff?from=1&to=1", refused: "ResourceNotFound"}},
		"GET plans/{plan}/document":                      {{path: "plans/line/document", refused: "ResourceNotFound"}},
		"PUT plans/{plan}":                               {{path: "plans/line", body: `{"planBody":` + linePlan("x") + `}`, refused: "ResourceNotFound"}},
		"POST plans/{plan}/publish":                      {{path: "plans/line/publish", refused: "ResourceNotFound"}},
		"POST plans/{plan}/retire":                       {{path: "plans/line/retire", refused: "ResourceNotFound"}},
		"POST plans":                                     {{path: "plans", body: `{"planBody":` + strings.Replace(linePlan("x"), "id: line", "id: own", 1) + `}`}},
		"POST onboarding":                                {{path: "onboarding", body: `{"deviceKey":"S-2","planId":"line"}`, refused: "ResourceNotFound"}},
		"GET onboarding":                                 {{path: "onboarding"}, {path: "onboarding?stage=make"}, {path: "onboarding?state=EXPECTED"}, {path: "onboarding?stuck=true"}},
		"GET onboarding/{device}":                        {{path: "onboarding/S-1", refused: "ResourceNotFound"}},
		"GET onboarding/{device}/document":               {{path: "onboarding/S-1/document", refused: "ResourceNotFound"}},
		"POST onboarding/{device}/steps/{step}/complete": {{path: "onboarding/S-1/steps/test/complete", refused: "ResourceNotFound"}},

		// Only the default account sends devices elsewhere; which accounts there are
		// nobody else learns.
		"GET bootstrap/assignments": {
			{path: "bootstrap/assignments"}, {path: "bootstrap/assignments?certificateId=" + of.certID},
		},
		"GET bootstrap/assignments/{assignment}":    {{path: "bootstrap/assignments/certificate-" + of.certID, refused: "ResourceNotFound"}},
		"PUT bootstrap/assignments/{assignment}":    {{path: "bootstrap/assignments/certificate-" + of.certID, body: `{}`, refused: "ResourceNotFound"}},
		"DELETE bootstrap/assignments/{assignment}": {{path: "bootstrap/assignments/certificate-" + of.certID, refused: "ResourceNotFound"}},
		"POST bootstrap/assignments": {
			{path: "bootstrap/assignments", body: `{"kind":"CERTIFICATE","certificateId":"` + of.certID + `","account":"` + of.account + `"}`, refused: "Forbidden"},
			{path: "bootstrap/assignments", body: `{"kind":"CERTIFICATE","certificateId":"` + of.certID + `","account":"999999999999"}`, refused: "Forbidden"},
		},
		"POST bootstrap/assignments/import": {
			{path: "bootstrap/assignments/import", body: `{"assignments":[{"kind":"CERTIFICATE","certificateId":"` + of.certID + `","account":"` + of.account + `"}]}`},
		},
		// The caller has things of the same names, and their ledgers are its own.
		"GET ledger/{device}": {
			{path: "ledger/S-1", refused: "ResourceNotFound"},
			{path: "ledger/" + of.certID, refused: "ResourceNotFound"},
			{path: "ledger/certificate:" + of.certID, refused: "ResourceNotFound"},
			{path: "ledger/pump"},
		},
		"GET ledger/{device}/verify": {{path: "ledger/S-1/verify", refused: "ResourceNotFound"}, {path: "ledger/pump/verify"}},
		"GET ledger/rogues":          {{path: "ledger/rogues"}, {path: "ledger/rogues?kind=ATTEMPT"}},
		"GET ledger:verify":          {{path: "ledger:verify"}, {path: `ledger:verify?head={"account":"` + of.account + `","entries":1,"hash":"` + strings.Repeat("0", 64) + `"}`, refused: "InvalidRequest"}},
		"GET ledger:head":            {{path: "ledger:head"}},
		// Only the neighbour's things were made by a template.
		"GET drift":                               {{path: "drift?all=true"}, {path: "drift?query=thingName:*&all=true"}, {path: "drift?template=joins&all=true"}},
		"GET drift/things/{thing}":                {{path: "drift/things/enlisted", refused: "ResourceNotFound"}},
		"GET drift/templates/{template}/versions": {{path: "drift/templates/joins/versions"}},
		"POST drift/things/{thing}/repair":        {{path: "drift/things/enlisted/repair", body: `{"revision":"x"}`, refused: "ResourceNotFound"}},
		"POST drift/things/{thing}/accept":        {{path: "drift/things/enlisted/accept", body: `{"revision":"x"}`, refused: "ResourceNotFound"}},
	}
}

// opsPatterns are the operations that the front end serves, without the prefix.
func opsPatterns(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../../internal/adminapi/testdata/operations.txt")
	if err != nil {
		t.Fatal(err)
	}
	found := strings.Split(strings.TrimSpace(strings.ReplaceAll(string(text), "/ops/v1/", "")), "\n")
	if len(found) < 10 {
		t.Fatalf("only %q are served", found)
	}
	return found
}

// fillIn puts the account's names into a path; false when one is not known.
func (n *neighbour) fillIn(path string) (string, bool) {
	path = strings.NewReplacer(
		"{thing}", "pump", "{type}", "pumps", "{clientId}", "pump", "{account}", n.account, "{certificateId}", n.certID, "{caCertificateId}", n.caID,
		"{name}", "keeper", "{user}", "keeper", "{group}", "keepers", "{policy}", "may",
	).Replace(path)
	return path, !strings.Contains(path, "{")
}

// otherOperations calls every operation of /ops/v1.
func (h *neighbourhood) otherOperations(of *neighbour, check func(pattern, answer, sent string)) {
	h.t.Helper()
	namesake := h.settle("betasecret")
	namesake.build()
	namesake.supply("acme", "w47", "w47-1")
	cases := opsCases(of)
	for _, pattern := range opsPatterns(h.t) {
		method, path, _ := strings.Cut(pattern, " ")
		if named, ok := of.fillIn(path); ok && len(cases[pattern]) == 0 && (method == http.MethodGet || method == http.MethodDelete) {
			// Whoever has the same names meets its own, or nothing.
			answer, err := namesake.raw(h.t.Context(), apiclient.Request{Service: "iot", Method: method, Path: "/ops/v1/" + named})
			if refusal, ok := errors.AsType[*apiclient.Error](err); ok {
				if answer = refusal.Message; refusal.Status >= http.StatusInternalServerError {
					h.t.Errorf("/ops/v1 %s: %v", pattern, err)
				}
			} else if err != nil {
				h.t.Errorf("/ops/v1 %s: %v", pattern, err)
			}
			check(pattern, answer, named)
			continue
		}
		if len(cases[pattern]) == 0 {
			h.t.Errorf("/ops/v1 %s: no case in opsCases: how would somebody call it on another account's resources?", pattern)
		}
		for _, c := range cases[pattern] {
			path, query, _ := strings.Cut(c.path, "?")
			values, err := url.ParseQuery(query)
			if err != nil {
				h.t.Fatal(err)
			}
			answer, err := namesake.raw(h.t.Context(), apiclient.Request{Service: "iot", Method: method, Path: "/ops/v1/" + path, Query: values, Body: []byte(c.body)})
			if refusal, ok := errors.AsType[*apiclient.Error](err); ok {
				answer = refusal.Message
			}
			if code(err) != c.refused {
				h.t.Errorf("/ops/v1 %s: got %v, want %q", pattern, err, c.refused)
			}
			check(pattern, answer, c.path+c.body)
		}
	}
}

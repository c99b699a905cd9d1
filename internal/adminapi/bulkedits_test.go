package adminapi

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muster-iot/muster/internal/bulkedit"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/pagetoken"
)

// askedEdits notes what it is asked and answers one edit.
type askedEdits struct {
	calls []string
	start bulkedit.StartCommand
}

func (a *askedEdits) note(call string) (bulkedit.Edit, error) {
	a.calls = append(a.calls, call)
	if strings.HasSuffix(call, " none") {
		return bulkedit.Edit{}, fault.New(fault.ResourceNotFound, "bulk edit none does not exist")
	}
	return bulkedit.Edit{
		ID: "e1", Status: bulkedit.Running, Query: "q", Created: time.UnixMilli(1), Things: 5, PerSecond: 7, Rate: 1.26,
		Done: bulkedit.Counts{Changed: 1, Failed: 1}, StartedBy: fleet.Principal{Kind: "user", ID: "ann"},
		Operation: bulkedit.Operation{SetThingType: "T"},
	}, nil
}

func (a *askedEdits) Preview(_ context.Context, of fleet.Account, query string, o bulkedit.Operation) (bulkedit.Preview, error) {
	a.calls = append(a.calls, "preview "+string(of)+" "+query)
	if query == "(" {
		return bulkedit.Preview{}, fault.New(fault.InvalidQuery, "unbalanced")
	}
	value := "T"
	return bulkedit.Preview{
		Things: 3, Examined: 2, Changes: 1, Refused: 1, Token: "token", Expires: time.UnixMilli(2),
		Sample:   []bulkedit.Change{{Thing: "a", After: bulkedit.Image{ThingTypeName: &value}}},
		Refusals: []bulkedit.Failure{{Thing: "b", Code: fault.InvalidRequest, Message: "no"}},
	}, o.Check()
}

func (a *askedEdits) Start(_ context.Context, _ fleet.Account, c bulkedit.StartCommand) (bulkedit.Edit, error) {
	a.start = c
	return a.note("start")
}

func (a *askedEdits) Undo(_ context.Context, _ fleet.Account, id string, perSecond int) (bulkedit.Edit, error) {
	return a.note("undo " + strings.Repeat("!", perSecond) + " " + id)
}

func (a *askedEdits) Pause(_ context.Context, _ fleet.Account, id string) (bulkedit.Edit, error) {
	return a.note("pause " + id)
}

func (a *askedEdits) Resume(_ context.Context, _ fleet.Account, id string) (bulkedit.Edit, error) {
	return a.note("resume " + id)
}

func (a *askedEdits) Cancel(_ context.Context, _ fleet.Account, id string) (bulkedit.Edit, error) {
	return a.note("cancel " + id)
}

func (a *askedEdits) Describe(_ context.Context, _ fleet.Account, id string) (bulkedit.Edit, error) {
	return a.note("describe " + id)
}

func (a *askedEdits) List(_ context.Context, _ fleet.Account, after string, _ int) ([]bulkedit.Edit, string, error) {
	e, err := a.note("list " + after)
	return []bulkedit.Edit{e}, "next", err
}

func (a *askedEdits) Changes(_ context.Context, _ fleet.Account, id, _ string, _ int) ([]bulkedit.Change, string, error) {
	_, err := a.note("changes " + id)
	return []bulkedit.Change{{Thing: "a", At: time.UnixMilli(1), Pending: true}}, "", err
}

func (a *askedEdits) Failures(_ context.Context, _ fleet.Account, id, _ string, _ int) ([]bulkedit.Failure, string, error) {
	_, err := a.note("failures " + id)
	return []bulkedit.Failure{{Thing: "a", At: time.UnixMilli(1), Code: "C", Message: "m", Conflict: true}}, "", err
}

// Each operation asks for its own action, decodes strictly, calls once and says
// what came of it.
func TestBulkEditOperations(t *testing.T) {
	t.Parallel()
	tokens, err := pagetoken.New(make([]byte, pagetoken.KeySize))
	if err != nil {
		t.Fatal(err)
	}
	const edit = `{"bulkEditId":"e1","status":"RUNNING","queryString":"q","operation":{"setThingType":"T"},"startedBy":{"kind":"user","id":"ann"},` +
		`"createdAt":"1970-01-01T00:00:00.001Z","things":5,"changed":1,"unchanged":0,"failed":1,"conflicts":0,"remaining":3,"thingsPerSecond":7,"rate":1.3}`
	const preview = `{"things":3,"examined":2,"changes":1,"unchanged":0,"refused":1,"sample":[{"thingName":"a","before":{},"after":{"thingTypeName":"T"}}],` +
		`"refusals":[{"thingName":"b","code":"InvalidRequest","message":"no"}],"confirmationToken":"token","expiresAt":"1970-01-01T00:00:00.002Z"}`
	operation := `"queryString":"q","operation":{"setThingType":"T"}`
	for name, c := range map[string]struct {
		method, path, body, action string
		status                     int
		calls                      []string
		answer                     string
	}{
		"preview":  {"POST", "bulk-edits/preview", `{` + operation + `}`, ActionGetBulkEditPreview, 200, []string{"preview 000000000000 q"}, preview},
		"start":    {"POST", "bulk-edits", `{` + operation + `,"confirmationToken":"t","thingsPerSecond":9}`, ActionStartBulkEdit, 200, []string{"start"}, edit},
		"list":     {"GET", "bulk-edits", "", ActionListBulkEdits, 200, []string{"list "}, `{"bulkEdits":[` + edit + `],"nextToken":"…"}`},
		"describe": {"GET", "bulk-edits/e1", "", ActionDescribeBulkEdit, 200, []string{"describe e1"}, edit},
		"pause":    {"POST", "bulk-edits/e1/pause", "", ActionPauseBulkEdit, 200, []string{"pause e1"}, edit},
		"resume":   {"POST", "bulk-edits/e1/resume", "{}", ActionResumeBulkEdit, 200, []string{"resume e1"}, edit},
		"cancel":   {"POST", "bulk-edits/e1/cancel", "", ActionCancelBulkEdit, 200, []string{"cancel e1"}, edit},
		"undo":     {"POST", "bulk-edits/e1/undo", `{"thingsPerSecond":2}`, ActionUndoBulkEdit, 200, []string{"undo !! e1"}, edit},
		"undo all": {"POST", "bulk-edits/e1/undo", "", ActionUndoBulkEdit, 200, []string{"undo  e1"}, edit},
		"changes": {
			"GET", "bulk-edits/e1/changes", "", ActionListBulkEditResults, 200,
			[]string{"changes e1"},
			`{"changes":[{"thingName":"a","at":"1970-01-01T00:00:00.001Z","before":{},"after":{},"pending":true}]}`,
		},
		"failures": {
			"GET", "bulk-edits/e1/failures", "", ActionListBulkEditResults, 200,
			[]string{"failures e1"},
			`{"failures":[{"thingName":"a","at":"1970-01-01T00:00:00.001Z","code":"C","message":"m","conflict":true}]}`,
		},
		"unknown edit":      {"GET", "bulk-edits/none", "", ActionDescribeBulkEdit, 404, []string{"describe none"}, `{"message":"bulk edit none does not exist"}`},
		"no query":          {"POST", "bulk-edits/preview", `{"queryString":"(","operation":{}}`, ActionGetBulkEditPreview, 400, []string{"preview 000000000000 ("}, `{"message":"unbalanced"}`},
		"unknown member":    {"POST", "bulk-edits", `{"operation":{"setColour":"x"}}`, ActionStartBulkEdit, 400, nil, ""},
		"ignored member":    {"POST", "bulk-edits/preview", `{` + operation + `,"thingsPerSecond":9}`, ActionGetBulkEditPreview, 400, nil, ""},
		"member of none":    {"POST", "bulk-edits/e1/pause", `{"a":1}`, ActionPauseBulkEdit, 400, nil, ""},
		"ignored parameter": {"GET", "bulk-edits?status=RUNNING", "", ActionListBulkEdits, 400, nil, ""},
	} {
		edits := &askedEdits{}
		var asked string
		h := New(Options{
			BulkEdits: edits, Tokens: tokens, Account: func(context.Context) fleet.Account { return account },
			Authorize: func(r *http.Request, _ []byte, action string) (*http.Request, error) {
				asked = action
				return r, nil
			},
			Now: time.Now, Logger: slog.New(slog.DiscardHandler),
		})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), c.method, Prefix+c.path, strings.NewReader(c.body)))
		status, answer := w.Code, strings.TrimSpace(w.Body.String())
		if status != c.status || asked != c.action {
			t.Errorf("%s: status %d, action %s: %s", name, status, asked, answer)
		}
		if diff := cmp.Diff(c.calls, edits.calls); diff != "" {
			t.Errorf("%s: calls (-want +got):\n%s", name, diff)
		}
		if got := withoutToken(answer); c.answer != "" && got != c.answer {
			t.Errorf("%s: answer\n%s\nwant\n%s", name, got, c.answer)
		}
		if name == "start" && (edits.start.Token != "t" || edits.start.PerSecond != 9 || edits.start.Query != "q" || edits.start.Operation.SetThingType != "T") {
			t.Errorf("start %+v", edits.start)
		}
	}
}

// withoutToken hides a sealed token, which is another each time.
func withoutToken(answer string) string {
	before, rest, found := strings.Cut(answer, `"nextToken":"`)
	if !found {
		return answer
	}
	_, after, _ := strings.Cut(rest, `"`)
	return before + `"nextToken":"…"` + after
}

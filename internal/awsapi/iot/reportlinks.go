package iot

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/muster-iot/muster/internal/awsapi"
	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/pagetoken"
	"github.com/muster-iot/muster/internal/registrationtask"
)

// ReportPath is where the reports of registration tasks are.
const ReportPath = "/registration-task-reports/"

const (
	// linkLife is how long a link to a report is good.
	linkLife = 15 * time.Minute
	// linkPage is the most links of one answer.
	linkPage = 250
)

// ReportLinks makes links to reports that need no signature, and serves them.
// Whoever has a link can read one part of one report until it expires.
type ReportLinks struct {
	Tasks  *registrationtask.Service
	Tokens *pagetoken.Sealer
	Now    func() time.Time
	// Read is told of each report that is read.
	Read func(r *http.Request, of fleet.Account, task, report string, part int)
}

// page makes the links to the parts behind after, and returns the place that the
// next page begins after.
func (l *ReportLinks) page(c *awsapi.Call, task string, report registrationtask.ReportType, after string, parts, limit int) (links []string, next string) {
	if limit <= 0 || limit > linkPage {
		limit = linkPage
	}
	from := 0
	if after != "" {
		from, _ = strconv.Atoi(after) // it was sealed here
	}
	until := min(from+limit, parts)
	links = []string{}
	for part := from; part < until; part++ {
		links = append(links, c.Base+ReportPath+string(c.Account)+"/"+l.seal(c.Account, task, report, part))
	}
	if until < parts {
		next = strconv.Itoa(until)
	}
	return links, next
}

// sealedFor keeps tokens of pages out.
const sealedFor = "RegistrationTaskReport"

func (l *ReportLinks) seal(of fleet.Account, task string, report registrationtask.ReportType, part int) string {
	end := strconv.FormatInt(l.Now().Add(linkLife).Unix(), 10)
	return l.Tokens.Seal(of, sealedFor, nil, strings.Join([]string{end, string(report), strconv.Itoa(part), task}, " "), l.Now())
}

// ServeHTTP serves one part of a report, a JSON object a line.
func (l *ReportLinks) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "a report is read with GET", http.StatusMethodNotAllowed)
		return
	}
	account, token, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, ReportPath), "/")
	of := fleet.Account(account)
	sealed, err := l.Tokens.Open(of, sealedFor, nil, token, l.Now())
	const members = 4
	fields := strings.SplitN(sealed, " ", members)
	if err != nil || len(fields) != members {
		http.Error(w, "the link is not one of ours", http.StatusForbidden)
		return
	}
	end, _ := strconv.ParseInt(fields[0], 10, 64) // it was sealed here
	if l.Now().Unix() > end {
		http.Error(w, "the link has expired; ListThingRegistrationTaskReports gives a new one", http.StatusForbidden)
		return
	}
	report, task := registrationtask.ReportType(fields[1]), fields[3]
	part, _ := strconv.Atoi(fields[2]) // it was sealed here
	if _, err := l.Tasks.Describe(r.Context(), of, task); err != nil {
		status := http.StatusInternalServerError
		if fault.CodeOf(err) == fault.ResourceNotFound {
			status = http.StatusNotFound
		}
		http.Error(w, fault.From(err).Message, status)
		return
	}
	l.Read(r, of, task, fields[1], part)
	h := w.Header()
	h.Set("Content-Type", "application/x-ndjson")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if err := l.Tasks.WriteReport(r.Context(), w, of, task, report, part); err != nil {
		// The head may be out: nothing else tells the reader that lines are missing.
		panic(http.ErrAbortHandler)
	}
}

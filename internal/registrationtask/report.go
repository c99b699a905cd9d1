package registrationtask

import (
	"context"
	"encoding/json"
	"io"

	"github.com/muster-iot/muster/internal/fault"
	"github.com/muster-iot/muster/internal/fleet"
	"github.com/muster-iot/muster/internal/store"
)

// ReportType is one of two reports about a task.
type ReportType string

// Reports: the lines that failed, and the others.
const (
	Errors  ReportType = "ERRORS"
	Results ReportType = "RESULTS"
)

// partLines is how many lines of the file one part of a report covers.
const partLines = 10_000

// Parts returns how many parts a task's report has at present: one for each
// 10,000 lines of the file that were begun, at least one.
func (s *Service) Parts(ctx context.Context, account fleet.Account, id string, report ReportType) (int, error) {
	if report != Errors && report != Results {
		return 0, fault.New(fault.InvalidRequest, "reportType must be %s or %s", Errors, Results)
	}
	r, _, err := s.find(ctx, account, id)
	if err != nil {
		return 0, err
	}
	return int((max(r.Line-1, 1) + partLines - 1) / partLines), nil
}

// reportLine is one line of a report. Of Response and ErrorMessage one is null.
type reportLine struct {
	ErrorMessage *string         `json:"errorMessage"`
	LineNumber   int64           `json:"lineNumber"`
	Offset       int64           `json:"offset"`
	Response     *reportResponse `json:"response"`
}

// reportResponse is the answer of RegisterThing.
type reportResponse struct {
	CertificatePEM *string           `json:"certificatePem"`
	ResourceARNs   map[string]string `json:"resourceArns"`
}

// WriteReport writes one part of a report, numbered from 0, as a JSON object a
// line, in the order of the file.
func (s *Service) WriteReport(ctx context.Context, w io.Writer, account fleet.Account, id string, report ReportType, part int) error {
	if _, _, err := s.find(ctx, account, id); err != nil {
		return err
	}
	from := int64(part)*partLines + 1
	within := store.Range{From: lineKey(account, id, from), To: lineKey(account, id, from+partLines)}
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	err := s.o.Store.Scan(ctx, within, func(found store.Record) error {
		var r receipt
		if err := decode(found, &r); err != nil {
			return err
		}
		if (r.Error != "") != (report == Errors) {
			return nil
		}
		number, err := lineNumber(found.Key)
		if err != nil {
			return err
		}
		l := reportLine{LineNumber: number, Offset: r.End}
		if report == Errors {
			l.ErrorMessage = &r.Error
		} else {
			l.Response = &reportResponse{ResourceARNs: r.ARNs}
			if r.PEM != "" {
				l.Response.CertificatePEM = &r.PEM
			}
		}
		return out.Encode(l) //nolint:wrapcheck // the reader has left
	})
	return store.Fault(err)
}
